//! The allocator of the command: it counts, and keeps things apart where cache lines are counted.
//!
//! **Guarantee.** [`in_use`] is exact for memory that a thread takes and gives back itself. With feature `sched` each object has lines of its own, and memory
//! that comes back has no history: what is shared is shared by design, and counts repeat in every process, whoever was allocated when.
//!
//! **Mechanism.** The system's allocator, with a number for each thread. For the scheduler, objects are aligned to lines and fill them, and it is told when one is gone.

use std::alloc::{GlobalAlloc, Layout, System};
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

#[cfg(feature = "sched")]
fn placed(layout: Layout) -> Layout {
    const LINE: usize = 64;
    layout.align_to(LINE).expect("no object fills the address space").pad_to_align()
}

#[cfg(not(feature = "sched"))]
fn placed(layout: Layout) -> Layout {
    layout
}

// SAFETY: (1) everything is the system allocator's; more than was asked for is as good, and given back as it was got.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size() as isize);
        // SAFETY: (1) as the caller promises.
        unsafe { System.alloc(placed(layout)) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        add(-(layout.size() as isize));
        #[cfg(feature = "sched")]
        spile_sync::sched::given_back(pointer.addr(), layout.size());
        // SAFETY: (1) as the caller promises.
        unsafe { System.dealloc(pointer, placed(layout)) }
    }

    #[cfg(not(feature = "sched"))]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        add(size as isize - layout.size() as isize);
        // SAFETY: (1) as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
