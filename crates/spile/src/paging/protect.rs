//! Changing what entries let pass.

use super::table::{PageTable, index, parts};
use super::{Gather, Pte};
use crate::addr::{PAGE, Prot, Range};
use crate::platform::Platform;
use spile_rcu::Rcu;
use spile_sync::seeded;

impl<P: Platform> PageTable<P> {
    /// Gives each page in `range` the permission that `prot` says for its present entry. What passes less than before is noted in
    /// the gather; a CPU that has the old entry may use it until the flush is over.
    pub(crate) fn protect(&self, p: &P, range: Range, gather: &mut Gather<'_, P>, prot: impl Fn(Pte) -> Prot) {
        let _section = p.rcu().read();
        for part in parts(range, 1) {
            let Some(locked) = self.leaf_or_never(p, part.start()).and_then(|leaf| Self::lock(p, leaf)) else { continue };
            for at in (part.start()..part.end()).step_by(PAGE as usize) {
                let Some(old) = locked.get(index(at, 0)) else { continue };
                let new = old.with_prot(prot(old));
                if new.prot == old.prot {
                    continue;
                }
                self.commit(p, at, Some(old), Some(new));
                locked.edit(index(at, 0), |now| now.with_prot(new.prot));
                if !new.prot.has(old.prot) && !seeded!("protect-without-flush") {
                    gather.changed(Range::page_of(at));
                }
            }
        }
    }
}
