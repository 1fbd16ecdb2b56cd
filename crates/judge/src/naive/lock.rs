//! `mlock`, `mlock2`, `munlock`, and bringing pages in.
//!
//! **Guarantee.** The limit is compared with the kernel's count, not with the number of locked pages: the two part ways
//! after `MREMAP_DONTUNMAP`.
//!
//! **Mechanism.** Flags first, page by page up to the first hole; then pages are brought in, as a write where the mapping
//! is private and writable. That takes copies of a file's pages, which later writes to the file no longer change.

use super::{Broken, Naive};
use crate::abi::*;
use crate::subject::VmFlags;

const LOCKED: VmFlags = VmFlags(VmFlags::LOCKED.0 | VmFlags::LOCK_ON_FAULT.0);

impl Naive {
    pub(super) fn mlock(&mut self, addr: u64, len: u64, flags: u32) -> Result<(), i32> {
        if flags & !MLOCK_ONFAULT != 0 {
            return Err(EINVAL);
        }
        let limit = self.world.limits.locked;
        if limit == 0 {
            return Err(EPERM);
        }
        let start = page_down(addr);
        let len = page_up(len.wrapping_add(addr - start));
        let end = start.wrapping_add(len);
        let known = self.now().addrs(start, end).iter().filter(|page| self.now().pages[page].flags.has(VmFlags::LOCKED)).count();
        let wanted = (len / PAGE).saturating_add(self.now().locked);
        // What is locked already does not count twice, but is only looked at when the limit would be passed.
        if wanted > limit && wanted - known as u64 > limit {
            return Err(ENOMEM);
        }
        let kind = if flags & MLOCK_ONFAULT != 0 { LOCKED } else { VmFlags::LOCKED };
        self.set_locked(start, end, kind)?;
        self.populate(start, end)
    }

    pub(super) fn munlock(&mut self, addr: u64, len: u64) -> Result<(), i32> {
        let start = page_down(addr);
        let end = start.wrapping_add(page_up(len.wrapping_add(addr - start)));
        self.set_locked(start, end, VmFlags::default())
    }

    fn set_locked(&mut self, start: u64, end: u64, kind: VmFlags) -> Result<(), i32> {
        if end < start {
            return Err(EINVAL);
        }
        self.each_mapping(start, end, |naive, from, to| {
            naive.lock(from, to, kind);
            Ok(())
        })
    }

    /// Part of one mapping.
    fn lock(&mut self, start: u64, end: u64, kind: VmFlags) {
        let uncounted = self.is_broken(Broken::LockUncounted);
        let space = self.now_mut();
        let old = space.pages[&start].flags;
        let new = old.without(LOCKED).with(kind);
        if new == old {
            return;
        }
        space.change(start, end, |page| page.flags = new);
        let pages = (end - start) / PAGE;
        match (old.has(VmFlags::LOCKED), new.has(VmFlags::LOCKED)) {
            (false, true) if !uncounted => space.locked += pages,
            (true, false) => space.locked = space.locked.saturating_sub(pages),
            _ => {}
        }
    }

    /// Brings in what `mlock` has locked. A page that cannot be is ENOMEM to its caller.
    fn populate(&mut self, start: u64, end: u64) -> Result<(), i32> {
        self.now().addrs(start, end).into_iter().try_for_each(|addr| self.populate_page(addr)).map_err(|()| ENOMEM)
    }

    /// Brings in what can be.
    pub(super) fn populate_what_can(&mut self, start: u64, end: u64) {
        for addr in self.now().addrs(start, end) {
            // A page that fails is not the caller's concern, and others of its mapping fail for the same reason.
            let _ = self.populate_page(addr);
        }
    }

    fn populate_page(&mut self, addr: u64) -> Result<(), ()> {
        let page = &self.now().pages[&addr];
        if page.flags.has(VmFlags::LOCK_ON_FAULT) {
            return Ok(());
        }
        // The kernel overrides missing read permission, but neither a mapping without access nor a protection key.
        if !page.is_readable() {
            return Err(());
        }
        let copies = page.flags.has(VmFlags::WRITE) && !page.flags.has(VmFlags::SHARED);
        let write = copies && !self.is_broken(Broken::PopulateWithoutCopy);
        self.fault_in(addr, write).map_err(|_| ())
    }
}
