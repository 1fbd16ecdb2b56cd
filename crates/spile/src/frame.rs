//! Holds on frames.

use crate::addr::FrameId;
use crate::platform::Platform;

/// A hold on a frame. Its drop gives the hold up, and frees the frame if it was the last.
#[derive(Debug)]
pub struct Frame<'p, P: Platform> {
    p: &'p P,
    id: FrameId,
}

impl<'p, P: Platform> Frame<'p, P> {
    /// A new frame with unspecified contents.
    pub(crate) fn alloc(p: &'p P) -> Option<Self> {
        let id = relieved(p, P::alloc)?;
        p.meta(id).first();
        Some(Self { p, id })
    }

    /// A further hold on a frame that the caller knows to be held.
    pub(crate) fn share(p: &'p P, id: FrameId) -> Self {
        get(p, id);
        Self { p, id }
    }

    /// A further hold on a frame that may just be freed: none then.
    #[cfg(feature = "file")]
    pub(crate) fn try_share(p: &'p P, id: FrameId) -> Option<Self> {
        // Lazily: its drop would give up a hold that was not got.
        p.meta(id).try_get().then(|| Self { p, id })
    }

    /// Which frame.
    pub fn id(&self) -> FrameId {
        self.id
    }

    /// Gives the hold to somebody else: an entry of a table, a page cache.
    pub(crate) fn give(self) -> FrameId {
        let id = self.id;
        core::mem::forget(self);
        id
    }
}

impl<P: Platform> Drop for Frame<'_, P> {
    fn drop(&mut self) {
        put(self.p, self.id);
    }
}

/// One hold more on a frame that is held. The zero frame's are not counted.
pub(crate) fn get<P: Platform>(p: &P, id: FrameId) {
    if id != p.zero_frame() {
        p.meta(id).get();
    }
}

/// One hold less; the last frees.
pub(crate) fn put<P: Platform>(p: &P, id: FrameId) {
    if id != p.zero_frame() && p.meta(id).put() {
        p.free(id);
    }
}

/// Asks for a frame, and if there is none, once more after tables whose grace period is over went back.
pub(crate) fn relieved<P: Platform>(p: &P, ask: impl Fn(&P) -> Option<FrameId>) -> Option<FrameId> {
    ask(p).or_else(|| {
        p.shared().limbo.turn(p);
        ask(p)
    })
}
