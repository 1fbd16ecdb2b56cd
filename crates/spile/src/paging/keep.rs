//! Pages that stay in memory.
//!
//! **Guarantee.** A page whose entry is marked as kept does not leave memory by an evictor.
//!
//! **Mechanism.** A bit of the entry, changed under its table's lock: by a fault that fills it in a locked mapping; for pages that are there, by the change that
//! locks or unlocks it, after the mapping is published and before a fault may hold it. An evictor asks under the same lock.

use super::PageTable;
use super::table::{index, parts};
use crate::addr::{PAGE, Range};
use crate::platform::Platform;
use spile_rcu::Rcu;

impl<P: Platform> PageTable<P> {
    /// Marks the entries of `range`, from which claims keep faults, as kept, or as not.
    pub(crate) fn keep(&self, p: &P, range: Range, kept: bool) {
        let _section = p.rcu().read();
        for part in parts(range, 1) {
            let Some(locked) = self.leaf_or_never(p, part.start()).and_then(|leaf| Self::lock(p, leaf)) else { continue };
            (part.start()..part.end()).step_by(PAGE as usize).for_each(|at| locked.keep(index(at, 0), kept));
        }
    }
}
