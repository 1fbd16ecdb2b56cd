//! Reads that a thread has begun in a fault, and makes itself when it holds nothing any more.
//!
//! **Guarantee.** What was taken is made by the thread that took it: when it would sleep, and when its fault is over. Nothing allocates.
//!
//! **Mechanism.** The core begins reads in a fault: of the page that is wanted, and of those beside it. They are noted, on the thread's stack; then the fault gives up what it holds, to wait. Where
//! another thread would sleep this one reads, adjacent pages by one call, and its fault comes again.

use super::Host;
use super::stash::RUN;
use arrayvec::ArrayVec;
use spile::FrameId;
use spile::backing::File;
use std::cell::Cell;
use std::ptr::null_mut;

thread_local! {
    /// What this thread has to do, if it runs errands. `const` and without `Drop`: a plain word, which a signal handler may use.
    static MINE: Cell<*mut Errands> = const { Cell::new(null_mut()) };
}

/// Pages to be read, of one region.
pub struct Errands {
    of: Option<File<Host>>,
    pages: ArrayVec<(u64, FrameId), RUN>,
}

/// The errands of a fault, on the stack of its thread.
struct Running {
    /// Those of the fault in which this one is: of a backing that touches another region.
    before: *mut Errands,
}

impl Drop for Running {
    fn drop(&mut self) {
        while Errands::run() {}
        MINE.set(self.before);
    }
}

impl Errands {
    /// Runs `fault`, and makes the reads that it begins.
    pub fn during<T>(fault: impl FnOnce() -> T) -> T {
        let mut mine = Self { of: None, pages: ArrayVec::new() };
        let _running = Running { before: MINE.replace(&raw mut mine) };
        fault()
    }

    /// Notes that `page` of `file` is to be read into `frame`. Whether it is: not where nobody runs errands, or there is no room.
    pub(super) fn take(file: &File<Host>, page: u64, frame: FrameId) -> bool {
        let mine = MINE.get();
        // SAFETY: (1) this thread's, on its stack in `during`, and no reference to it lives while this code runs.
        let Some(mine) = (unsafe { mine.as_mut() }) else { return false };
        let is_other = mine.of.as_ref().is_some_and(|of| of.id() != file.id());
        if is_other || mine.pages.is_full() {
            return false;
        }
        mine.of.get_or_insert_with(|| file.clone());
        mine.pages.push((page, frame));
        true
    }

    /// Makes the reads that this thread has begun. Whether there were any.
    pub(super) fn run() -> bool {
        let mine = MINE.get();
        // SAFETY: (1) as in `take`: what is read is taken out first, so what is begun meanwhile is noted anew.
        let begun = unsafe { mine.as_mut() }.and_then(|mine| Some((mine.of.take()?, mine.pages.take())));
        let Some((of, mut pages)) = begun else { return false };
        pages.sort_unstable_by_key(|(page, _)| *page);
        for run in pages.chunk_by(|a, b| a.0 + 1 == b.0) {
            let frames: ArrayVec<FrameId, RUN> = run.iter().map(|(_, frame)| *frame).collect();
            let contents = of.store().expect("what is read comes from somewhere");
            // SAFETY: (1) the store's until they are complete; (2) each is completed once, here, which is its only taker.
            unsafe { contents.fill_frames(&of.platform().0, run[0].0, &frames, |page, ok| of.complete(page, ok)) };
        }
        true
    }
}
