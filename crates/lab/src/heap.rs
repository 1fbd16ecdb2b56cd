//! The allocator of the command: it counts, and keeps things apart where cache lines are counted.
//!
//! **Guarantee.** [`in_use`] is exact for memory that a thread takes and gives back itself. With feature `sched` each object has lines of its own, and memory
//! that comes back has no history: what is shared is shared by design, and counts repeat in every process, whoever was allocated when.
//!
//! **Mechanism.** The system's allocator, with a number for each thread. For the scheduler, objects are aligned to lines and fill them, and it is told when one is gone.
//! A small one that a thread gives back is its next one of that size, as with most allocators: mistakes about memory that is used anew are mistakes
//! here, too, and the same ones in every process.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;

/// The allocator.
#[derive(Clone, Copy, Debug)]
pub struct Heap;

thread_local! {
    /// Bytes that this thread has taken, less those that it has given back.
    static IN_USE: Cell<isize> = const { Cell::new(0) };
}

/// Bytes that this thread has taken from [`Heap`] and not given back; 0 where another allocator is used.
pub fn in_use() -> isize {
    IN_USE.get()
}

fn add(bytes: isize) {
    IN_USE.set(IN_USE.get().wrapping_add(bytes));
}

#[cfg(not(feature = "sched"))]
mod place {
    use std::alloc::{GlobalAlloc as _, Layout, System};

    /// # Safety
    ///
    /// (1) As of `GlobalAlloc::alloc`.
    pub(super) unsafe fn take(layout: Layout) -> *mut u8 {
        // SAFETY: (1) the caller's.
        unsafe { System.alloc(layout) }
    }

    /// # Safety
    ///
    /// (1) As of `GlobalAlloc::dealloc`.
    pub(super) unsafe fn give(pointer: *mut u8, layout: Layout) {
        // SAFETY: (1) the caller's.
        unsafe { System.dealloc(pointer, layout) };
    }
}

#[cfg(feature = "sched")]
mod place {
    use std::alloc::{GlobalAlloc as _, Layout, System};
    use std::cell::Cell;
    use std::ptr::null_mut;

    const LINE: usize = 64;
    /// Objects of fewer lines are kept.
    const SMALL: usize = 17;

    /// Objects of each number of lines that a thread has given back; the first word of each says which was before it.
    struct Kept([Cell<*mut u8>; SMALL]);

    thread_local! {
        static KEPT: Kept = const { Kept([const { Cell::new(null_mut()) }; SMALL]) };
    }

    impl Kept {
        fn take(&self, lines: usize) -> Option<*mut u8> {
            let piece = Some(self.0[lines].get()).filter(|piece| !piece.is_null())?;
            // SAFETY: (1) `give` wrote it there, and nobody has had the piece since.
            self.0[lines].set(unsafe { piece.cast::<*mut u8>().read() });
            Some(piece)
        }

        fn give(&self, piece: *mut u8, lines: usize) {
            // SAFETY: (1) a line at least, aligned as one, and nobody else's: it was given back.
            unsafe { piece.cast::<*mut u8>().write(self.0[lines].replace(piece)) };
        }
    }

    impl Drop for Kept {
        fn drop(&mut self) {
            for lines in 1..SMALL {
                while let Some(piece) = self.take(lines) {
                    // SAFETY: (1) it was got so, whatever its size was: lines are what is asked for.
                    unsafe { System.dealloc(piece, of_lines(lines)) };
                }
            }
        }
    }

    fn of_lines(lines: usize) -> Layout {
        Layout::from_size_align(lines * LINE, LINE).expect("a few lines")
    }

    /// How many lines it has, if it is small.
    fn small(layout: Layout) -> Option<usize> {
        let lines = layout.size().div_ceil(LINE);
        (lines < SMALL && layout.align() <= LINE).then_some(lines)
    }

    /// Whole lines; none if that is more than there can be.
    fn placed(layout: Layout) -> Option<Layout> {
        let size = layout.size().checked_next_multiple_of(LINE)?;
        Layout::from_size_align(size, layout.align().max(LINE)).ok()
    }

    /// # Safety
    ///
    /// (1) As of `GlobalAlloc::alloc`.
    pub(super) unsafe fn take(layout: Layout) -> *mut u8 {
        let again = small(layout).and_then(|lines| KEPT.try_with(|kept| kept.take(lines)).ok().flatten());
        // SAFETY: (1) the caller's; whole lines are no less than was asked for.
        again.unwrap_or_else(|| placed(layout).map_or(null_mut(), |placed| unsafe { System.alloc(placed) }))
    }

    /// # Safety
    ///
    /// (1) As of `GlobalAlloc::dealloc`.
    pub(super) unsafe fn give(pointer: *mut u8, layout: Layout) {
        spile_sync::sched::given_back(pointer.addr(), layout.size());
        // A thread at its end keeps nothing.
        let is_kept = small(layout).is_some_and(|lines| KEPT.try_with(|kept| kept.give(pointer, lines)).is_ok());
        if let (false, Some(placed)) = (is_kept, placed(layout)) {
            // SAFETY: (1) it was got so; (2) the caller's.
            unsafe { System.dealloc(pointer, placed) };
        }
    }
}

// SAFETY: (1) everything is the system allocator's; more than was asked for is as good, and given back as it was got.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: (1) as the caller promises.
        let pointer = unsafe { place::take(layout) };
        if !pointer.is_null() {
            add(layout.size() as isize);
        }
        pointer
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        add(-(layout.size() as isize));
        // SAFETY: (1) as the caller promises.
        unsafe { place::give(pointer, layout) };
    }
}
