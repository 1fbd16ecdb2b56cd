//! From the core's frames to bytes, and back.
//!
//! **Guarantee.** A store sees whole pages and no frames, so it needs no `unsafe`. Its answer is the core's: done, or failed.
//!
//! **Mechanism.** A page on the stack between the frame and the store. [`AtOnce`] moves it in the caller's thread; `Queued` in one of its own.

use spile::backing::SwapStore;
use spile::{FrameId, PAGE, Platform, Slot, Transfer};
use std::ops::Deref;

/// The contents of a frame.
pub type Page = [u8; PAGE as usize];

/// Where pages are kept by slot. No two calls are about one slot at a time. None may fault on the memory that it serves. Who panics
/// takes whoever wants the page along, or, in a thread of [`Queued`](crate::Queued), has failed.
pub trait Pages: Send + Sync + 'static {
    /// Keeps `page`, instead of what was there. Whether it does; if not, there is nothing there.
    fn put(&self, slot: Slot, page: &Page) -> bool;

    /// What was put there last, into `page`; it stays there. Whether that succeeded; if not, `page` is anything. Nobody asks for what was not put.
    fn get(&self, slot: Slot, page: &mut Page) -> bool;

    /// What is there, if anything, is not wanted any more. Called under locks: allocates nothing, and waits for nothing that lasts.
    fn forget(&self, slot: Slot);
}

/// What is done with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It is written. If that fails it stays in memory.
    Writing,
    /// It is read. If that fails whoever needs it is told.
    Reading,
}

/// Moves the page of `slot` from `frame` to `store`, or back. Whether that succeeded.
///
/// # Safety
///
/// (1) Until it returns `frame` is held, and nobody else changes it; (2) if the page is read, `frame` is the caller's alone.
pub(crate) unsafe fn transfer<P: Platform>(p: &P, store: &impl Pages, doing: Doing, slot: Slot, frame: FrameId) -> bool {
    let mut page = [0; PAGE as usize];
    match doing {
        Doing::Writing => {
            // SAFETY: (1) held, says the caller; (2) nobody changes the frame meanwhile, says he.
            unsafe { p.read(frame, 0, &mut page) };
            store.put(slot, &page)
        }
        Doing::Reading => {
            let ok = store.get(slot, &mut page);
            if ok {
                // SAFETY: (1) the caller's alone, says he.
                unsafe { p.write(frame, 0, &page) };
            }
            ok
        }
    }
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

/// The answer to whoever began a transfer that is over.
pub(crate) fn answer(ok: bool) -> Transfer {
    if ok { Transfer::Done } else { Transfer::Failed }
}

impl<P: Platform, S: Pages> SwapStore<P> for AtOnce<S> {
    unsafe fn start_write(&self, p: &P, slot: Slot, frame: FrameId) -> Transfer {
        // SAFETY: (1) until this answers, say the caller and `SwapStore`; (2) nothing is read.
        answer(unsafe { transfer(p, &self.0, Doing::Writing, slot, frame) })
    }

    unsafe fn start_read(&self, p: &P, slot: Slot, frame: FrameId) -> Transfer {
        // SAFETY: (1) and (2) the store's alone until this answers, says the caller.
        answer(unsafe { transfer(p, &self.0, Doing::Reading, slot, frame) })
    }

    fn discard(&self, slot: Slot) {
        self.0.forget(slot);
    }
}
