//! mlock(2), mlock2(2), munlock(2).

use super::{Errno, Limit, page_align, step};
use crate::addr::{PAGE, PAGE_SHIFT, Range};
use crate::change::Change;
use crate::locking::Locking;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::usage::Kind;
use crate::vma::{Attr, Flags};

/// `MLOCK_ONFAULT`: pages are locked as they are touched.
pub const MLOCK_ONFAULT: u32 = 1;

const BOTH: Flags = Flags::LOCKED.with(Flags::LOCK_ON_FAULT);

impl<P: Platform, L: Locking> Mm<P, L> {
    /// Brings `addr..addr + len`, widened to whole pages, into memory, to stay. May sleep.
    ///
    /// # Errors
    ///
    /// As mlock(2). `ENOMEM` for a hole: what lies below it is locked.
    pub fn mlock(&self, addr: u64, len: u64) -> Result<(), Errno> {
        self.lock_pages(addr, len, Flags::LOCKED)
    }

    /// As [`mlock`](Self::mlock); with [`MLOCK_ONFAULT`] pages are not brought in, but stay once they are. May sleep.
    ///
    /// # Errors
    ///
    /// `EINVAL` for other flags, and as mlock(2).
    pub fn mlock2(&self, addr: u64, len: u64, flags: u32) -> Result<(), Errno> {
        match flags {
            0 => self.lock_pages(addr, len, Flags::LOCKED),
            MLOCK_ONFAULT => self.lock_pages(addr, len, BOTH),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Pages of `addr..addr + len`, widened to whole pages, may leave memory again. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM` for a hole: what lies below it is unlocked. `EINVAL` if the end lies beyond all addresses.
    pub fn munlock(&self, addr: u64, len: u64) -> Result<(), Errno> {
        match widened(addr, len)? {
            Some(range) => self.change(&[range], |change| change.set_locked(range, Flags::NONE)),
            None => Ok(()),
        }
    }

    fn lock_pages(&self, addr: u64, len: u64, flags: Flags) -> Result<(), Errno> {
        if self.may_not_lock() {
            return Err(Errno::EPERM);
        }
        let range = widened(addr, len);
        let pages = page_align(len.wrapping_add(addr % PAGE)) >> PAGE_SHIFT;
        if range.is_err() && pages > self.limits().get(Limit::Locked) >> PAGE_SHIFT {
            // The limit is looked at before the end is.
            return Err(Errno::ENOMEM);
        }
        let Some(range) = range? else { return Ok(()) };
        self.change(&[range], |change| {
            let locked = |vma: &crate::Vma<P, L>| vma.attr().flags.has(Flags::LOCKED);
            let already = change.iter(range).filter(|vma| locked(vma)).filter_map(|vma| vma.range().overlap(range));
            let already: u64 = already.map(Range::pages).sum();
            let all = range.pages() + self.usage.get(Kind::Locked) - already;
            if all > self.limits().get(Limit::Locked) >> PAGE_SHIFT {
                return Err(Errno::ENOMEM);
            }
            change.set_locked(range, flags)
        })?;
        if flags.has(Flags::LOCK_ON_FAULT) {
            return Ok(());
        }
        self.populate(range).map_err(|errno| match errno {
            Errno::EFAULT => Errno::ENOMEM,
            Errno::ENOMEM => Errno::EAGAIN,
            other => other,
        })
    }
}

/// The whole pages around; none if there are none.
fn widened(addr: u64, len: u64) -> Result<Option<Range>, Errno> {
    let start = addr & !(PAGE - 1);
    let len = page_align(len.wrapping_add(addr - start));
    let end = start.wrapping_add(len);
    if end < start {
        return Err(Errno::EINVAL);
    }
    if end == start {
        return Ok(None);
    }
    Range::new(start, end.min(crate::addr::TABLE_END)).map(Some).map_err(|_| Errno::ENOMEM)
}

impl<P: Platform, L: Locking> Change<'_, P, L> {
    fn set_locked(&mut self, range: Range, locked: Flags) -> Result<(), Errno> {
        let mut rest = Some(range);
        while let Some(now) = rest {
            let vma = self.at(now.start()).ok_or(Errno::ENOMEM)?;
            let part = vma.range().overlap(now).expect("it covers the start");
            let old = vma.attr();
            let flags = old.flags.without(BOTH).with(locked);
            if flags != old.flags && !old.flags.has(Flags::SPECIAL) {
                let attr = Attr { flags, ..old.skip(part.start() - vma.range().start()) };
                if part != vma.range() && !self.mm.may_split() {
                    return Err(Errno::ENOMEM);
                }
                self.alter(part, attr)?;
            }
            step(&mut rest, part);
        }
        Ok(())
    }
}
