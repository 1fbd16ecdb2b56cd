//! From the core's frames to bytes, and back.
//!
//! **Guarantee.** A store sees whole pages and no frames, so it needs no `unsafe`. Its answer is the core's: done, or failed.
//!
//! **Mechanism.** A page on the stack between the frame and the store.

use spile::backing::SwapStore;
use spile::{FrameId, PAGE, Platform, Slot, Transfer};
use std::ops::Deref;

/// The contents of a frame.
pub type Page = [u8; PAGE as usize];

/// Where pages are kept by slot. No two calls are about one slot at a time. None may panic, or fault on the memory that it serves.
pub trait Pages: Send + Sync + 'static {
    /// Keeps `page`, instead of what was there. Whether it does; if not, there is nothing there.
    fn put(&self, slot: Slot, page: &Page) -> bool;

    /// What was put there last, into `page`; it stays there. Whether that succeeded; if not, `page` is anything. Nobody asks for what was not put.
    fn get(&self, slot: Slot, page: &mut Page) -> bool;

    /// What is there, if anything, is not wanted any more. Called under locks: allocates nothing, and waits for nothing that lasts.
    fn forget(&self, slot: Slot);
}

/// A store for any host, whose transfers are over when they have begun.
#[derive(Debug)]
pub struct AtOnce<S>(pub S);

impl<S> Deref for AtOnce<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.0
    }
}

fn answer(ok: bool) -> Transfer {
    if ok { Transfer::Done } else { Transfer::Failed }
}

impl<P: Platform, S: Pages> SwapStore<P> for AtOnce<S> {
    unsafe fn start_write(&self, p: &P, slot: Slot, frame: FrameId) -> Transfer {
        let mut page = [0; PAGE as usize];
        // SAFETY: (1) held until this answers, says the caller; (2) nobody changes the frame until then, says `SwapStore`.
        unsafe { p.read(frame, 0, &mut page) };
        answer(self.0.put(slot, &page))
    }

    unsafe fn start_read(&self, p: &P, slot: Slot, frame: FrameId) -> Transfer {
        let mut page = [0; PAGE as usize];
        let ok = self.0.get(slot, &mut page);
        if ok {
            // SAFETY: (1) the store's alone until this answers, says the caller.
            unsafe { p.write(frame, 0, &page) };
        }
        answer(ok)
    }

    fn discard(&self, slot: Slot) {
        self.0.forget(slot);
    }
}
