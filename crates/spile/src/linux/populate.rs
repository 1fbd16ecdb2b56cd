//! Faults made in advance.

use super::Errno;
use crate::addr::{Access, PAGE, Prot, Range};
use crate::fault::Denied;
use crate::locking::Locking;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::vma::Flags;

impl<P: Platform, L: Locking> Mm<P, L> {
    /// Makes every page of `range` accessible as its mapping allows: written to where it is private and writable, read otherwise.
    /// Holds nothing in between. May sleep.
    pub(super) fn populate(&self, range: Range) -> Result<(), Errno> {
        (range.start()..range.end()).step_by(PAGE as usize).try_for_each(|at| {
            let access = self.populating_access(at).ok_or(Errno::ENOMEM)?;
            self.fault_and_wait(at, access).map(drop).map_err(errno_of)
        })
    }

    /// Locked private memory that has become writable has its own pages at once.
    pub(super) fn populate_locked(&self, range: Range) {
        let mut from = range.start();
        while let Some(mapping) = self.mapping_from(from).filter(|mapping| mapping.range.start() < range.end()) {
            let locked = mapping.flags.has(Flags::LOCKED) && !mapping.flags.has(Flags::LOCK_ON_FAULT);
            if locked && !mapping.is_shared() && mapping.prot.has(Prot::W) {
                let part = mapping.range.overlap(range).expect("it begins before the end");
                let _ = self.populate(part);
            }
            from = mapping.range.end();
        }
    }

    fn populating_access(&self, at: u64) -> Option<Access> {
        L::look(self, at, |vma| {
            let attr = vma.filter(|vma| vma.range().contains(at))?.attr();
            let writes = attr.prot.has(Prot::W) && !attr.is_shared();
            Some(if writes { Access::Write } else { Access::Read })
        })
    }
}

/// What a fault's refusal is called when the kernel makes the fault.
pub(super) fn errno_of(denied: Denied) -> Errno {
    match denied {
        Denied::NoMemory => Errno::ENOMEM,
        Denied::Unmapped | Denied::Protected | Denied::Bus => Errno::EFAULT,
    }
}
