//! mremap(2).

use super::munmap::unmap_range;
use super::{Errno, Limit, TASK_SIZE, page_align};
use crate::addr::{PAGE, PAGE_SHIFT, Range};
use crate::change::{Change, Joins, New, Whose};
use crate::locking::Locking;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::usage::Kind;
use crate::vma::Flags;

/// `MREMAP_*`.
#[allow(missing_docs, reason = "Linux's names and numbers")]
pub mod remap {
    pub const MAYMOVE: u32 = 1;
    pub const FIXED: u32 = 2;
    pub const DONTUNMAP: u32 = 4;
}

/// A call's numbers, lengths in whole pages.
#[derive(Clone, Copy)]
struct Request {
    old: u64,
    old_len: u64,
    new_len: u64,
    flags: u32,
    new: u64,
}

impl Request {
    fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Whether the caller says where it shall go.
    fn names_target(&self) -> bool {
        self.has(remap::FIXED | remap::DONTUNMAP)
    }

    /// Checks that need no lock, in Linux's order.
    fn check(&self) -> Result<(), Errno> {
        let known = remap::MAYMOVE | remap::FIXED | remap::DONTUNMAP;
        if self.flags & !known != 0 || !self.old.is_multiple_of(PAGE) || self.new_len == 0 || self.new_len > TASK_SIZE {
            return Err(Errno::EINVAL);
        }
        if !self.names_target() {
            return Ok(());
        }
        let aligned = self.new.is_multiple_of(PAGE) && self.new <= TASK_SIZE - self.new_len;
        let resizes = self.has(remap::DONTUNMAP) && self.old_len != self.new_len;
        let overlaps = self.old < self.new.wrapping_add(self.new_len) && self.new < self.old.wrapping_add(self.old_len);
        if !aligned || !self.has(remap::MAYMOVE) || resizes || overlaps { Err(Errno::EINVAL) } else { Ok(()) }
    }
}

impl<P: Platform, L: Locking> Mm<P, L> {
    /// Resizes or moves `old..old + old_len`, and says where it is then. May sleep.
    ///
    /// # Errors
    ///
    /// As mremap(2). With `MREMAP_FIXED` what was at the target may have been unmapped; moves of several mappings stop at the one
    /// that fails.
    pub fn mremap(&self, old: u64, old_len: u64, new_len: u64, flags: u32, new: u64) -> Result<u64, Errno> {
        let request = Request { old, old_len: page_align(old_len), new_len: page_align(new_len), flags, new };
        request.check()?;
        let (at, populate) = self.change(&[Range::EVERYTHING], |change| {
            if request.names_target() && change.mappings() + 2 >= change.max_mappings().saturating_sub(3) {
                return Err(Errno::ENOMEM);
            }
            if !request.has(remap::FIXED) {
                return change.remap_one(request);
            }
            // What is unmapped at the target is not gone, but about to be replaced.
            self.begin_gap();
            let remapped = if request.old_len == request.new_len { change.move_all(request) } else { change.remap_one(request) };
            self.end_gap();
            remapped
        })?;
        if let Some(added) = populate {
            let _ = self.populate(added);
        }
        Ok(at)
    }
}

/// Where it is now, and what has to be faulted in.
type Remapped = Result<(u64, Option<Range>), Errno>;

impl<P: Platform, L: Locking> Change<'_, P, L> {
    fn mappings(&self) -> u64 {
        self.mm.usage.get(Kind::Mappings)
    }

    fn max_mappings(&self) -> u64 {
        self.mm.limits().get(Limit::Mappings)
    }

    /// A move that resizes nothing may take several mappings along, with the holes between them.
    fn move_all(&mut self, request: Request) -> Remapped {
        let end = request.old.wrapping_add(request.old_len);
        let (mut from, mut moved) = (request.old, None);
        while let Ok(rest) = Range::new(from, end.min(TASK_SIZE)) {
            let Some(whole) = self.first(rest).map(crate::Vma::range) else { break };
            if moved.is_none() && whole.start() > request.old {
                return Err(Errno::EFAULT);
            }
            let part = whole.overlap(rest).expect("it touches the rest");
            let new = request.new + (part.start() - request.old);
            let one = Request { old: part.start(), old_len: part.len(), new_len: part.len(), new, ..request };
            let (at, _) = self.remap_one(one)?;
            moved = moved.or(Some(at));
            from = part.end();
        }
        moved.map(|at| (at, None)).ok_or(Errno::EFAULT)
    }

    fn remap_one(&mut self, request: Request) -> Remapped {
        self.check_mapping(request)?;
        let Request { old, mut old_len, new_len, .. } = request;
        if request.has(remap::FIXED) {
            self.munmap(Range::of(request.new, request.new + new_len))?;
            self.at(old).ok_or(Errno::EFAULT)?;
        }
        if new_len < old_len {
            self.munmap(unmap_range(old + new_len, old_len - new_len)?)?;
            old_len = new_len;
        }
        if request.names_target() {
            return self.remap_to(Request { old_len, ..request });
        }
        if new_len == old_len {
            return Ok((old, None));
        }
        match self.expand_in_place(old, old_len, new_len)? {
            Some(added) => Ok((old, added)),
            None if request.has(remap::MAYMOVE) => self.remap_to(request),
            None => Err(Errno::ENOMEM),
        }
    }

    /// What the mapping at the old address has to allow.
    fn check_mapping(&self, request: Request) -> Result<(), Errno> {
        let Request { old, old_len, new_len, .. } = request;
        let vma = self.at(old).ok_or(Errno::EFAULT)?;
        let (range, attr) = (vma.range(), vma.attr());
        let maps_new = new_len > old_len || request.names_target();
        if !maps_new {
            return Ok(());
        }
        if old_len == 0 && attr.backing.is_anon() | !attr.is_shared() {
            return Err(Errno::EINVAL);
        }
        let special = attr.flags.has(Flags::SPECIAL);
        if request.has(remap::DONTUNMAP) && special {
            return Err(Errno::EINVAL);
        }
        if old_len.min(new_len) > range.end() - old {
            return Err(Errno::EFAULT);
        }
        if new_len <= old_len {
            return Ok(());
        }
        if vma.page_at(old).checked_add(new_len >> PAGE_SHIFT).is_none() {
            return Err(Errno::EINVAL);
        }
        if special {
            return Err(Errno::EFAULT);
        }
        let added = (new_len - old_len) >> PAGE_SHIFT;
        if attr.flags.has(Flags::LOCKED) && !self.mm.may_lock(added) {
            return Err(Errno::EAGAIN);
        }
        if self.mm.may_expand(attr.prot, attr.flags, added) { Ok(()) } else { Err(Errno::ENOMEM) }
    }

    /// Lets the mapping at `old` be longer, if its end is the end of what is resized and nothing is behind it. `None` if that is not so;
    /// else what is locked and new.
    fn expand_in_place(&mut self, old: u64, old_len: u64, new_len: u64) -> Result<Option<Option<Range>>, Errno> {
        let vma = self.at(old).ok_or(Errno::EFAULT)?;
        let whole = vma.range();
        let added = Range::new(whole.end(), (old + new_len).min(TASK_SIZE + PAGE));
        let Ok(added) = added.map(|added| added.below(TASK_SIZE).unwrap_or(added)) else { return Ok(None) };
        if whole.end() - old != old_len || added.end() != old + new_len || self.first(added).is_some() {
            return Ok(None);
        }
        let attr = vma.attr().skip(whole.len());
        let (whose, locked) = (Whose::This(vma.anon()), comes_in(attr.flags));
        drop(self.replace(added, Some(&New::of(attr, whose)), Joins::Extend)?);
        Ok(Some(locked.then_some(added)))
    }

    /// Moves to where the caller says, or wherever there is room.
    fn remap_to(&mut self, request: Request) -> Remapped {
        let Request { old, old_len, new_len, .. } = request;
        let keep = request.has(remap::DONTUNMAP);
        let vma = self.at(old).ok_or(Errno::EFAULT)?;
        let (prot, flags) = (vma.attr().prot, vma.attr().flags);
        let (whole, attr) = (vma.range(), vma.attr().clone());
        if keep && !self.mm.may_expand(prot, flags, old_len >> PAGE_SHIFT) {
            return Err(Errno::ENOMEM);
        }
        let to = if request.has(remap::FIXED) {
            Range::of(request.new, request.new + new_len)
        } else {
            let hint = if keep { request.new } else { 0 };
            self.unmapped_area(hint, new_len).ok_or(Errno::ENOMEM)?
        };
        if self.mappings() >= self.max_mappings().saturating_sub(3) {
            return Err(Errno::ENOMEM);
        }
        if old_len == 0 {
            // A second mapping of what is shared.
            let attr = attr.skip(old - whole.start());
            drop(self.replace(to, Some(&New::of(attr, Whose::Nobodys)), Joins::Both)?);
        } else {
            self.relocate(Range::of(old, old + old_len), to, keep)?;
        }
        let populate = (new_len > old_len && comes_in(flags)).then(|| Range::of(to.start() + old_len, to.end()));
        Ok((to.start(), populate))
    }
}

/// Whether what is added is brought into memory at once.
fn comes_in(flags: Flags) -> bool {
    flags.has(Flags::LOCKED) && !flags.has(Flags::LOCK_ON_FAULT)
}
