//! Pages that somebody besides programs has, and may write: a device that was given one for input, say, of whom the core knows nothing.
//!
//! **Guarantee.** While one is in use the machine refuses to let it leave; and to protect it, if whoever has it writes it by the program's entry.
//!
//! **Mechanism.** A list of frames, which [`Mmu::leave`](spile::Mmu::leave) and [`Mmu::clean`](spile::Mmu::clean) look at.

use crate::Sim;
use spile::{FrameId, Frames, Locking, Mm};

/// A page that is in use, until this is dropped.
#[derive(Debug)]
pub struct InUse {
    sim: Sim,
    frame: FrameId,
}

impl InUse {
    /// Whoever has it writes its first byte.
    pub fn write(&self, byte: u8) {
        // SAFETY: (1) the page stays, as that is what is promised; (2) programs that look meanwhile find either.
        unsafe { self.sim.write(self.frame, 0, &[byte]) };
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let in_use = &mut self.sim.lanes().watch.state().in_use;
        let one = in_use.iter().position(|(frame, _)| *frame == self.frame).expect("it was noted");
        in_use.swap_remove(one);
    }
}

impl Sim {
    /// The page that `mm` shows at `at` is in use by somebody else from now on, who does not bear that it is protected, if that is said. None: it shows none.
    pub fn give_away<L: Locking>(&self, mm: &Mm<Sim, L>, at: u64, never_faults: bool) -> Option<InUse> {
        let frame = mm.page_table().peek(self, at)?.frame;
        self.lanes().watch.state().in_use.push((frame, never_faults));
        Some(InUse { sim: self.clone(), frame })
    }
}
