//! A platform with nothing in it, so that what is measured is the core: one CPU, frames from one piece of memory, no other
//! CPU to tell, zeroing that can be left out.

use spile::platform::{FrameMeta, Frames, Machine, Mmu, Platform};
use spile::{FrameId, Range, Shared, SpaceId};
use spile_rcu::Global;
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, Ordering};

const PAGE: usize = spile::PAGE as usize;

/// A page of memory.
#[repr(C, align(4096))]
struct Page([u8; PAGE]);

/// The memory of a machine. One CPU uses it at a time, which the free list's `RefCell` checks.
pub struct Memory {
    pages: *mut Page,
    metas: Vec<FrameMeta>,
    free: RefCell<Vec<FrameId>>,
    shared: Shared,
    zeroes: AtomicBool,
    /// How many flushes there were.
    pub flushes: Cell<u64>,
}

// SAFETY: (1) benches use it from one thread; the traits ask for more than they need.
unsafe impl Sync for Memory {}
// SAFETY: as above.
unsafe impl Send for Memory {}

/// The platform: a machine that is never taken apart.
#[derive(Clone, Copy)]
pub struct Host(pub &'static Memory);

impl Host {
    /// A machine with so many frames, which zeroes pages only if told.
    pub fn new(frames: usize, zeroes: bool) -> Self {
        let pages: Vec<Page> = (0..frames).map(|_| Page([0; PAGE])).collect();
        let pages = Box::leak(pages.into_boxed_slice()).as_mut_ptr();
        // Frame 0 is the zero frame.
        let free = (1..frames as u32).rev().map(FrameId).collect();
        Self(Box::leak(Box::new(Memory {
            pages,
            metas: (0..frames).map(|_| FrameMeta::new()).collect(),
            free: RefCell::new(free),
            shared: Shared::new(),
            zeroes: AtomicBool::new(zeroes),
            flushes: Cell::new(0),
        })))
    }
}

// SAFETY: (1) the list gives a frame once until it comes back; (2) the records lie in a vector that never changes; (3) pages are
// never freed, and a `Table` is as large as a page and as aligned.
unsafe impl Frames for Host {
    fn alloc(&self) -> Option<FrameId> {
        self.0.free.borrow_mut().pop()
    }
    unsafe fn free(&self, frame: FrameId) {
        self.0.free.borrow_mut().push(frame);
    }
    unsafe fn meta(&self, frame: FrameId) -> &FrameMeta {
        debug_assert!((frame.0 as usize) < self.0.metas.len());
        // SAFETY: (1) as for pages: a kernel's array of frames is not searched with checks either.
        unsafe { self.0.metas.get_unchecked(frame.0 as usize) }
    }
    fn page(&self, frame: FrameId) -> *mut u8 {
        debug_assert!((frame.0 as usize) < self.0.metas.len());
        // Frames come from `alloc`, so they are within the pages.
        self.0.pages.wrapping_add(frame.0 as usize).cast()
    }
    unsafe fn zero(&self, frame: FrameId) {
        if self.0.zeroes.load(Ordering::Relaxed) {
            // SAFETY: (1) a page; (2) the caller's alone.
            unsafe { self.page(frame).write_bytes(0, PAGE) };
        }
    }
    unsafe fn copy(&self, from: FrameId, to: FrameId) {
        if self.0.zeroes.load(Ordering::Relaxed) {
            // SAFETY: (1) two pages, and not the same: the target is new.
            unsafe { self.page(to).copy_from_nonoverlapping(self.page(from), PAGE) };
        }
    }
    fn zero_frame(&self) -> FrameId {
        FrameId(0)
    }
}

// SAFETY: (1) x86-64's format, as provided; (2) there is one CPU, and nothing is cached.
unsafe impl Mmu for Host {
    type Flush = ();
    fn issue(&self, _: SpaceId, _: Range) {
        self.0.flushes.set(self.0.flushes.get() + 1);
    }
}

impl Machine for Host {
    type Pin = ();
    fn pin(&self) {}
    fn relax(&self) {
        panic!("one CPU spins for itself");
    }
    fn sleep(&self, _: usize, still: &dyn Fn() -> bool) {
        assert!(!still(), "one CPU waits for itself");
    }
    fn wake(&self, _: usize) {}
}

impl Platform for Host {
    type Rcu = Global;
    type Store = ();
    type Reclaim = ();
    fn rcu(&self) -> &Global {
        &Global
    }
    fn shared(&self) -> &Shared {
        &self.0.shared
    }
}
