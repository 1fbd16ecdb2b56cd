//! An allocator for runs whose cache lines are counted.
//!
//! **Guarantee.** What is shared is shared by design: each object has lines of its own, and memory that comes back has no history. So counts repeat in every
//! process, whoever was allocated when.

use spile_sync::sched;
use std::alloc::{GlobalAlloc, Layout, System};

const LINE: usize = 64;

/// The allocator.
#[derive(Clone, Copy, Debug)]
pub struct Apart;

fn on_own_lines(layout: Layout) -> Layout {
    layout.align_to(LINE).expect("no object fills the address space").pad_to_align()
}

// SAFETY: (1) everything is the system allocator's; more than was asked for is as good, and given back as it was got.
unsafe impl GlobalAlloc for Apart {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: (1) as the caller promises.
        unsafe { System.alloc(on_own_lines(layout)) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        sched::given_back(pointer.addr(), layout.size());
        // SAFETY: (1) as the caller promises.
        unsafe { System.dealloc(pointer, on_own_lines(layout)) }
    }
}
