//! munmap(2).

use super::{Errno, TASK_SIZE, page_align};
use crate::addr::{PAGE, Range};
use crate::change::Change;
use crate::locking::Locking;
use crate::mm::Mm;
use crate::platform::Platform;

impl<P: Platform, L: Locking> Mm<P, L> {
    /// Unmaps whatever is in `addr..addr + len`. May sleep.
    ///
    /// # Errors
    ///
    /// `EINVAL`: `addr` is not aligned, `len` is 0, or the end lies above the address space. `ENOMEM`: a mapping would be cut in two and
    /// there are too many, or there is no memory. Nothing was changed.
    pub fn munmap(&self, addr: u64, len: u64) -> Result<(), Errno> {
        let range = unmap_range(addr, len)?;
        let change = Change::begin(self, &[range]);
        change.may_unmap(range)?;
        Ok(change.unmap(range)?)
    }
}

pub(super) fn unmap_range(addr: u64, len: u64) -> Result<Range, Errno> {
    if !addr.is_multiple_of(PAGE) || addr > TASK_SIZE || len > TASK_SIZE - addr {
        return Err(Errno::EINVAL);
    }
    Range::with_len(addr, page_align(len)).map_err(|_| Errno::EINVAL)
}

impl<P: Platform, L: Locking> Change<'_, P, L> {
    fn may_unmap(&self, range: Range) -> Result<(), Errno> {
        if !self.mm.may_split() && self.cuts_in_two(range) { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// As a part of a verb that goes on.
    pub(super) fn munmap(&mut self, range: Range) -> Result<(), Errno> {
        self.may_unmap(range)?;
        Ok(self.take_away(range)?)
    }

    /// Whether `range` lies inside of a mapping, so that without it there are two.
    pub(super) fn cuts_in_two(&self, range: Range) -> bool {
        self.at(range.start()).is_some_and(|vma| vma.range().start() < range.start() && vma.range().end() > range.end())
    }
}
