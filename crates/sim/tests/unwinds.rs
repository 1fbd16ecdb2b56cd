//! Panics of a host's where memory of mappings is used again.
//!
//! **Guarantee.** What somebody who found it in a section may look at does not go back to the allocator because a panic passed by.
//!
//! **Mechanism.** An allocator that counts what has the size of a mapping's box.

use spile::index::VmaBox;
use spile::{Attr, Layout, Locking as _, Mm, PAGE, Place, Prot, Range, VmaRefcount};
use spile_sim::Sim;
use std::alloc::{GlobalAlloc, Layout as Memory, System};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

static FREED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: (1) the system's allocator, and a count.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, memory: Memory) -> *mut u8 {
        // SAFETY: (1) the caller's contract is the callee's.
        unsafe { System.alloc(memory) }
    }

    unsafe fn dealloc(&self, at: *mut u8, memory: Memory) {
        if memory.size() == VmaBox::<Sim, VmaRefcount>::SIZE {
            FREED.fetch_add(1, Relaxed);
        }
        // SAFETY: (1) the caller's contract is the callee's.
        unsafe { System.dealloc(at, memory) };
    }
}

/// Anybody may ask the design for a mapping, and not say what it shall be.
#[test]
fn mapping_to_be_is_not_freed() {
    let sim = Sim::new();
    let mm = Mm::<Sim, VmaRefcount>::new(sim.clone(), Layout::default()).unwrap();
    let cpu = sim.cpu(0);
    let user = cpu.enter(&mm);
    let range = Range::with_len(0x10_0000, PAGE).unwrap();
    user.map(Place::Over(range), |at| Attr::anon(at.start(), Prot::RW)).unwrap();
    user.unmap(range).unwrap();
    // The mapping that was there waits to be used again, and a fault that has found it may be about to look.
    let before = FREED.load(Relaxed);
    // Without a message, which would allocate.
    let made = catch_unwind(AssertUnwindSafe(|| VmaRefcount::make(&mm, || resume_unwind(Box::new(())))));
    let freed = FREED.load(Relaxed) - before;
    assert!(made.is_err());
    assert_eq!(freed, 0, "freed without a grace period");
}
