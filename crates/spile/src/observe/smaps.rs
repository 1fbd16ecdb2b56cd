//! How much of a mapping is in memory: `/proc/PID/smaps`.

use crate::addr::{PAGE_SHIFT, Range};
use crate::locking::Locking;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::vma::Vma;

/// Pages that are mapped, by kind. The zero frame is not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resident {
    /// The mapping's own.
    pub anon: u64,
    /// A file's.
    pub file: u64,
    /// Its own that are away, in slots.
    pub swapped: u64,
}

impl<P: Platform, L: Locking> Mm<P, L> {
    /// The mapped pages of the mapping that covers `at`, as far as it covers them; none without one. Counts while faults go on.
    pub fn resident(&self, at: u64) -> Option<(Range, Resident)> {
        // The mapping's file must outlive the look at it.
        let found =
            |vma: Option<&Vma<P, L>>| vma.filter(|vma| vma.range().contains(at)).map(|vma| (vma.range(), vma.attr().clone()));
        let (range, attr) = L::look(self, at, found)?;
        let mut resident = Resident::default();
        let p = self.platform();
        self.table.each_page(p, range, |at, pte| {
            let page = attr.backing.page().wrapping_add((at - range.start()) >> PAGE_SHIFT);
            let Some(pte) = pte else {
                resident.swapped += 1;
                return;
            };
            if pte.frame == p.zero_frame() {
            } else if attr.backing.has(p, page, pte.frame) {
                resident.file += 1;
            } else {
                resident.anon += 1;
            }
        });
        Some((range, resident))
    }
}
