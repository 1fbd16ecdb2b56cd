//! brk(2).

use super::{Errno, Limit, TASK_SIZE, page_align};
use crate::addr::{PAGE, Prot, Range};
use crate::change::{Change, Joins, New, Whose};
use crate::locking::Locking;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::vma::{Attr, Flags};
use spile_sync::atomic::{AtomicU64, Ordering};

/// The end of a program's data segment. Written with the right to change everything.
#[derive(Debug)]
pub(crate) struct Break {
    start: AtomicU64,
    now: AtomicU64,
}

impl Break {
    pub(super) fn new() -> Self {
        Self { start: AtomicU64::new(0), now: AtomicU64::new(0) }
    }

    pub(super) fn fork(&self) -> Self {
        // Relaxed: numbers, written with the right to change, which a fork has.
        let copy = |number: &AtomicU64| AtomicU64::new(number.load(Ordering::Relaxed));
        Self { start: copy(&self.start), now: copy(&self.now) }
    }
}

impl<P: Platform, L: Locking> Mm<P, L> {
    /// Says where the break begins: what a program's loader does. The break is there until it is moved.
    pub fn set_brk_start(&self, start: u64, now: u64) {
        self.change(&[Range::EVERYTHING], |_| {
            self.linux.brk.start.store(start, Ordering::Relaxed);
            self.linux.brk.now.store(now, Ordering::Relaxed);
        });
    }

    /// Moves the break, if it can be moved, and says where it is. May sleep.
    pub fn brk(&self, addr: u64) -> u64 {
        let (now, grown) = self.change(&[Range::EVERYTHING], |change| {
            let grown = change.brk(addr).ok().flatten();
            (self.linux.brk.now.load(Ordering::Relaxed), grown)
        });
        if let Some((range, true)) = grown {
            let _ = self.populate(range);
        }
        now
    }
}

impl<P: Platform, L: Locking> Change<'_, P, L> {
    /// What was added, and whether it is locked.
    fn brk(&mut self, addr: u64) -> Result<Option<(Range, bool)>, Errno> {
        let mm = self.mm;
        let (start, now) = (mm.linux.brk.start.load(Ordering::Relaxed), mm.linux.brk.now.load(Ordering::Relaxed));
        if start == 0 || addr < start || addr - start > mm.limits().get(Limit::Data) || addr > TASK_SIZE {
            return Err(Errno::ENOMEM);
        }
        let (old, new) = (page_align(now), page_align(addr));
        let added = match Range::new(old, new) {
            Ok(added) => Some((added, self.expand_break(added)?)),
            Err(_) if new < old => {
                self.munmap(Range::of(new, old))?;
                None
            }
            Err(_) => None,
        };
        mm.linux.brk.now.store(addr, Ordering::Relaxed);
        Ok(added)
    }

    fn expand_break(&mut self, added: Range) -> Result<bool, Errno> {
        // A page stays free, and the distance that a stack keeps.
        let with_gap = Range::new(added.start(), added.end() + PAGE).map_err(|_| Errno::ENOMEM)?;
        let taken = self.first(with_gap).is_some() || self.reaches_stack(with_gap);
        let attr = Attr::<P>::anon(added.start(), Prot::RW);
        let attr = Attr { flags: attr.flags.with(Flags::ACCOUNTED), ..attr };
        let mm = self.mm;
        if taken || !mm.may_expand(attr.prot, attr.flags, added.pages()) || !mm.may_map() {
            return Err(Errno::ENOMEM);
        }
        drop(self.replace(added, Some(&New::of(attr, Whose::Nobodys)), Joins::Below)?);
        Ok(false)
    }

    fn reaches_stack(&self, range: Range) -> bool {
        let end = range.end().saturating_add(self.mm.layout.stack_gap).min(TASK_SIZE);
        let near = Range::new(range.start(), end);
        near.is_ok_and(|near| {
            let above = self.first(near);
            above.is_some_and(|vma| {
                let distance = if vma.attr().flags.has(Flags::GROWS_DOWN) { self.mm.layout.stack_gap } else { 0 };
                range.end() > vma.range().start().saturating_sub(distance)
            })
        })
    }
}
