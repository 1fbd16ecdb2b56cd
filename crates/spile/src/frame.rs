//! Holds on frames.
//!
//! **Guarantee.** A [`Frame`] is a frame of the platform that it was made with, and not free.
//!
//! **Mechanism.** The numbers of frames that the core has are those that the platform gave it, or it found in entries, which nobody else
//! writes; so each has its record, and each that leads to a table is one.

use crate::addr::FrameId;
use crate::paging::{BITS, Table};
use crate::platform::{FrameMeta, Platform};
use crate::reclaim::sealed::Reclaim;

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
        P::Reclaim::begins(p, id);
        meta(p, id).first();
        Some(Self { p, id })
    }

    /// A new frame full of zeros.
    pub(crate) fn zeroed(p: &'p P) -> Option<Self> {
        let new = Self::alloc(p)?;
        // SAFETY: (1) it is new.
        unsafe { p.zero(new.id) };
        Some(new)
    }

    /// A new frame with what is in this one.
    #[cfg(feature = "file")]
    pub(crate) fn duplicate(&self) -> Option<Self> {
        let new = Self::alloc(self.p)?;
        // SAFETY: (1) this hold; (2) it is new.
        unsafe { self.p.copy(self.id, new.id) };
        Some(new)
    }

    /// Fills it with what is in `seen`, be that zeros.
    ///
    /// # Safety
    ///
    /// (1) It is new, and nobody else has seen it yet; (2) the caller, or an entry that it keeps, has a hold on `seen`.
    pub(crate) unsafe fn imitate(&self, seen: FrameId) {
        if seen == self.p.zero_frame() {
            // SAFETY: (1) new, says the caller.
            unsafe { self.p.zero(self.id) };
        } else {
            // SAFETY: (1) held, says the caller; (2) new, and so another.
            unsafe { self.p.copy(seen, self.id) };
        }
    }

    /// A further hold on a frame that the caller knows to be held.
    pub(crate) fn share(p: &'p P, id: FrameId) -> Self {
        get(p, id);
        Self { p, id }
    }

    /// A further hold on a frame that may just be freed: none then.
    pub(crate) fn try_share(p: &'p P, id: FrameId) -> Option<Self> {
        // Lazily: its drop would give up a hold that was not got.
        meta(p, id).try_get().then(|| Self { p, id })
    }

    /// Which frame.
    pub fn id(&self) -> FrameId {
        self.id
    }

    /// Copies bytes out, from `offset` on, while a program may write them.
    ///
    /// # Panics
    ///
    /// If they are not all in the page.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        // SAFETY: (1) this hold; (2) a page that others see is written by programs alone.
        unsafe { self.p.read(self.id, offset, into) };
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
        meta(p, id).get();
    }
}

/// One hold less; the last frees.
pub(crate) fn put<P: Platform>(p: &P, id: FrameId) {
    if id != p.zero_frame() && meta(p, id).put() {
        // SAFETY: (1) tables have no holds, so it is a page; (2) that was the last hold.
        unsafe { p.free(id) };
    }
}

/// The record of a frame.
#[inline(always)]
pub(crate) fn meta<P: Platform>(p: &P, id: FrameId) -> &FrameMeta {
    // SAFETY: (1) a number that the core has.
    unsafe { p.meta(id) }
}

/// A frame that is a table: the caller's, or found in a section, or under a lock that keeps it.
#[inline(always)]
pub(crate) fn table<P: Platform>(p: &P, id: FrameId) -> &Table {
    // SAFETY: (1) a number that the core has of a table, which goes back after the grace periods of those who may find it.
    unsafe { p.table(id) }
}

/// How many tables a tree of so many further levels has, from `root` on: `child` is where an entry that is not empty leads to. Exact when nobody changes them.
pub(crate) fn tables_under<P: Platform>(p: &P, root: FrameId, level: usize, child: &impl Fn(u64) -> FrameId) -> u64 {
    let entries = (0..if level == 0 { 0 } else { 1 << BITS }).map(|i| table(p, root).load(i));
    1 + entries.filter(|raw| *raw != 0).map(|raw| tables_under(p, child(raw), level - 1, child)).sum::<u64>()
}

/// Asks for a frame, and if there is none, once more after tables whose grace period is over went back.
pub(crate) fn relieved<P: Platform>(p: &P, ask: impl Fn(&P) -> Option<FrameId>) -> Option<FrameId> {
    ask(p).or_else(|| {
        p.shared().limbo.turn(p);
        ask(p)
    })
}
