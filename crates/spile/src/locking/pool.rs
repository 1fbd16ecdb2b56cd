//! Memory of mappings that is used for mappings again, at once.
//!
//! **Guarantee.** What was a mapping stays one as long as anybody who found it may look: its design's part can be read and written by atomics,
//! whichever mapping it is by then. No grace period is waited for, nor does a mapping that nobody holds keep what it showed.
//!
//! **Mechanism.** A few mappings without contents, claimed, under a flag that is spun for: one pool for an address space and all its forks. What
//! does not fit in waits for its grace period. (Linux's `SLAB_TYPESAFE_BY_RCU`, which `vm_area_struct` has since 6.15.)

use super::{Locking, briefly, defer};
use crate::change::NoMemory;
use crate::index::VmaBox;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::vma::{Body, Vma};
use alloc::sync::Arc;
use core::mem::ManuallyDrop;
use spile_sync::lock::Guarded;

/// So many wait to be used again.
const FREE: usize = if cfg!(loom) { 1 } else { 32 };

/// What waits: the first `len` are there.
struct Free<P: Platform, L: Locking> {
    boxes: [Option<VmaBox<P, L>>; FREE],
    len: usize,
}

/// What an address space and its forks share.
pub struct Pool<P: Platform, L: Locking>(Arc<Guarded<Free<P, L>>>);

impl<P: Platform, L: Locking> Pool<P, L> {
    /// An empty one, or the parent's.
    pub(super) fn new(parent: Option<&Self>) -> Self {
        let empty = || Arc::new(Guarded::new(Free { boxes: [const { None }; FREE], len: 0 }));
        Self(parent.map_or_else(empty, |parent| parent.0.clone()))
    }

    /// A claimed mapping of `mm`, which `renew` tells of it.
    pub(super) fn make(
        &self,
        mm: &Mm<P, L>,
        body: impl FnOnce() -> Body<P>,
        renew: impl FnOnce(&L::PerVma),
    ) -> Result<VmaBox<P, L>, NoMemory> {
        let Some(vma) = briefly(mm.platform(), &self.0, Free::pop) else { return Vma::boxed(mm, body) };
        // Anybody may call this with a `body` that panics: then the memory is lost, as in `boxed`, for who found it may look still.
        let vma = ManuallyDrop::new(vma);
        // SAFETY: (1) out of the pool it is ours, and claimed since before it came there, as `give_back`'s caller says.
        unsafe { vma.rewrite(body()) };
        renew(&vma.lock);
        Ok(ManuallyDrop::into_inner(vma))
    }

    /// Keeps the memory of `vma`.
    ///
    /// # Safety
    ///
    /// (1) It is claimed, and nobody holds it.
    pub(super) unsafe fn give_back(&self, mm: &Mm<P, L>, vma: VmaBox<P, L>) {
        // SAFETY: (1) the caller's; who found it looks at the design's part, and finds it claimed.
        let body = unsafe { vma.replace(Body::nothing()) };
        let refused = briefly(mm.platform(), &self.0, |free| free.push(vma));
        refused.into_iter().for_each(|vma| defer(mm, vma));
        // Last: the end of a file is the host's, and may panic.
        drop(body);
    }
}

impl<P: Platform, L: Locking> Free<P, L> {
    fn pop(&mut self) -> Option<VmaBox<P, L>> {
        self.len = self.len.checked_sub(1)?;
        self.boxes[self.len].take()
    }

    /// Gives it back if there is no room.
    fn push(&mut self, vma: VmaBox<P, L>) -> Option<VmaBox<P, L>> {
        match self.boxes.get_mut(self.len) {
            None => Some(vma),
            Some(slot) => {
                self.len += 1;
                slot.replace(vma)
            }
        }
    }
}
