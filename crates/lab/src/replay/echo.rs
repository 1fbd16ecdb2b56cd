//! Accesses of which a recording does not tell.
//!
//! **Guarantee.** The same for the same seed, whatever the machine and the design.
//!
//! **Mechanism.** A recording has the first access to each page, which faulted, and not those that followed. After each of its faults some pages are accessed again that its program
//! has used before: those of late more often than those of long ago, as often by each power of two. An access like the one that was recorded there.

use crate::stage::Stage;
use spile::{Access, Denied, Locking, Mm};
use spile_sim::Rng;
use std::collections::HashMap;

/// How many pages are accessed again after each fault.
const AGAIN: usize = 3;

/// What was accessed, by the number of the address space.
#[derive(Debug)]
pub(crate) struct Echo {
    seen: HashMap<usize, Vec<(u64, Access)>>,
    rng: Rng,
}

impl Echo {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seen: HashMap::new(), rng: Rng::new(seed) }
    }

    /// A page of `space` was accessed: so are some that were before. How many are refused because there is no memory.
    pub(crate) fn after<P: Stage, L: Locking>(
        &mut self,
        stage: &P,
        mm: &Mm<P, L>,
        space: usize,
        at: u64,
        access: Access,
    ) -> usize {
        let mut refused = 0;
        for _ in 0..AGAIN {
            let seen = self.seen.entry(space).or_default();
            let Some(powers) = seen.len().checked_ilog2() else { break };
            let most = 1 << self.rng.below(u64::from(powers) + 1);
            let i = seen.len() - 1 - self.rng.below(most) as usize;
            let (page, how) = seen[i];
            match stage.touch(mm, page, how) {
                Ok(()) => {}
                Err(Denied::NoMemory) => refused += 1,
                // It is mapped no more, or otherwise.
                Err(_) => _ = seen.swap_remove(i),
            }
        }
        self.seen.entry(space).or_default().push((at, access));
        refused
    }

    /// A space is a fork of another.
    pub(crate) fn fork(&mut self, parent: usize, child: usize) {
        let seen = self.seen.get(&parent).cloned().unwrap_or_default();
        self.seen.insert(child, seen);
    }

    /// A space is gone, or begins anew.
    pub(crate) fn gone(&mut self, space: usize) {
        self.seen.remove(&space);
    }
}
