//! How many pages a space may show: what a host asks and says.

use crate::locking::Locking;
use crate::mm::Mm;
use crate::reclaim::{Pressed, Reclaimed};

/// Of hosts whose pages can leave.
impl<P: Pressed, L: Locking> Mm<P, L> {
    /// How many pages it shows, each at as many addresses as it is shown at; zeros and pages that are away are not counted. Exact when nobody changes
    /// it. 0, if the host's [`Reclaimer`](crate::reclaim::Reclaimer) is idle. (Linux: `VmRSS`.)
    pub fn resident_pages(&self) -> u64 {
        self.table.residents().shown()
    }

    /// How many it may show, if that is limited.
    pub fn limit(&self) -> Option<u64> {
        Some(self.table.residents().limit()).filter(|limit| *limit != u64::MAX)
    }

    /// From now on it may show so many pages, and as many of its own leave at once as are too many, if they can. At its limit a fault waits until another page of this
    /// space has left ([`Outcome::Wait`](crate::Outcome::Wait)), and is refused ([`Denied::NoMemory`](crate::Denied::NoMemory)) when none can: what is locked here or by another
    /// space that shows it, what others use all the time, what no store takes.
    /// A fork's child begins with the same limit, and may be above it, as after mremap: faults wait for room then. What was done. Spins for nothing that sleeps, with
    /// nothing held. Without effect, if the host's reclaimer is idle.
    ///
    /// It is a limit of what is shown: pages on their way to a store, and those of files that nobody shows, are bounded by the host's
    /// [`Marks`](crate::reclaim::Marks) alone. (Linux: `memory.max`, of a cgroup's pages.)
    pub fn set_limit(&self, pages: Option<u64>) -> Reclaimed {
        self.platform().reclaimer().limit(self.platform(), &self.table, pages.unwrap_or(u64::MAX))
    }

    /// Lets about `pages` of this space's pages leave, of those that were not used lately, if there are such. What was done. As [`set_limit`](Self::set_limit) does.
    pub fn shrink(&self, pages: u64) -> Reclaimed {
        let most = self.resident_pages().saturating_sub(pages);
        self.platform().reclaimer().shrink(self.platform(), &self.table, most)
    }
}
