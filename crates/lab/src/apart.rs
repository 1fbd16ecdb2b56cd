//! An allocator that gives each object lines of its own.
//!
//! **Guarantee.** What is shared is shared by design, and not by who was allocated when: the scheduler's counts repeat in every process.
//!
//! **Mechanism.** Objects are aligned to lines and fill them. The scheduler is told when one is gone: whoever gets its lines next is not charged for who
//! had them before.

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
        #[cfg(feature = "sched")]
        spile_sync::sched::given_back(pointer.addr(), layout.size());
        // SAFETY: (1) as the caller promises.
        unsafe { System.dealloc(pointer, on_own_lines(layout)) }
    }
}
