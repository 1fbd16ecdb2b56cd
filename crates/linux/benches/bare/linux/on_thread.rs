//! A pager on the thread that faults, of moved pages: as little as it can be.
//!
//! A frame is a page of a pool. It is read into there, and moved to where it is missed (`UFFDIO_MOVE`); it is moved back to leave, and written to the file if the access that brought it
//! was a write. Each thread has its part of the file and of the pool, so nothing is shared but the descriptor. **It is no pager to use:** a page that was brought by a read and is
//! written later is not known to be dirty.

use super::apart::Apart;
use super::common::{Map, PAGE};
use super::here::{Fault, Resolve, enter, leave};
use super::ring::{Held, Ring};
use super::work::{Contender, Scene};
use spile_linux::{Cause, Door, Features, Uffd};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::yield_now;

pub struct OnThread<'a> {
    uffd: Uffd,
    region: Map,
    /// One per part, as are the rings. Nobody else's moves wait for those out of it; those out of the region wait for each other.
    pools: Vec<Apart>,
    rings: Vec<UnsafeCell<Ring>>,
    scene: Scene<'a>,
}

/// How often a page did not move because the kernel had not let go of it yet.
pub static PINNED: AtomicU64 = AtomicU64::new(0);

// SAFETY: (1) a ring is used by the thread alone whose part it is.
unsafe impl Sync for OnThread<'_> {}

impl<'a> OnThread<'a> {
    pub fn new(scene: Scene<'a>) -> Self {
        let uffd = Door::OwnFaults.open(Features::SIGBUS.with(Features::MOVE)).expect("the probe says so");
        let region = Map::anonymous(scene.file.pages);
        let pools: Vec<_> = (0..scene.threads).map(|_| Apart::new(scene.frames())).collect();
        let zeros = Map::anonymous(1);
        zeros.write(0, 0);
        // SAFETY: (1) who uses them is this pager, and its threads, which have its handler.
        unsafe {
            uffd.register(region.at(0), region.len()).expect("ours, and new");
            for pool in &pools {
                // What is copied there is of no matter.
                uffd.register(pool.at(0), pool.len()).expect("ours, and new");
                (0..scene.frames()).for_each(|frame| uffd.copy(pool.at(frame), zeros.at(0), PAGE, false).expect("missing"));
            }
        }
        let rings = (0..scene.threads).map(|_| UnsafeCell::new(Ring::new(scene.frames()))).collect();
        Self { uffd, region, pools, rings, scene }
    }

    /// The address of a frame of a part's.
    fn frame(&self, part: usize, nth: u64) -> u64 {
        self.pools[part].at(nth)
    }

    /// Moves `len` bytes of pages. Of a disk the kernel may wake who reads before it lets go of the page: until then it does not move.
    ///
    /// # Safety
    ///
    /// (1) Whoever uses either expects its faults.
    unsafe fn shift(&self, mut to: u64, mut from: u64, mut len: u64) {
        // SAFETY: (1) says the caller.
        while let Err(stopped) = unsafe { self.uffd.move_pages(to, from, len) } {
            assert_eq!(stopped.cause(), Cause::Shared, "{stopped}");
            PINNED.fetch_add(1, Relaxed);
            let done = stopped.done();
            (to, from, len) = (to + done, from + done, len - done);
            yield_now();
        }
    }

    fn evict(&self, part: usize, frame: u64, run: &[Held]) {
        let frame = self.frame(part, frame);
        let count = run.len() as u64;
        // SAFETY: (1) who misses the pages faults, and reads what is written here; (2) now nobody else has them.
        unsafe {
            self.shift(frame, self.region.at(run[0].page), count * PAGE);
            if run[0].is_dirty {
                self.scene.file.write(run[0].page, frame, count);
            }
        }
    }
}

impl Resolve for OnThread<'_> {
    fn resolve(&self, part: usize, Fault { at, is_write, .. }: Fault) {
        let window = self.scene.window;
        let page = (at - self.region.at(0)) / PAGE;
        let first = page - page % window;
        // SAFETY: (1) the ring is this thread's, which is in its handler: it does not fault there.
        let ring = unsafe { &mut *self.rings[part].get() };
        let frame = self.frame(part, ring.take(first, window, is_write, |frame, run| self.evict(part, frame, run)));
        // SAFETY: (1) the frame is there, and this thread's; (2) whoever misses the page waits for it.
        unsafe {
            self.scene.file.read(first, frame, window);
            self.shift(self.region.at(first), frame, window * PAGE);
        }
    }
}

impl Contender for OnThread<'_> {
    fn at(&self) -> u64 {
        self.region.at(0)
    }

    fn begin(&self, part: usize) {
        enter(self, part);
    }

    fn end(&self, part: usize) {
        // SAFETY: (1) this thread's.
        unsafe { &mut *self.rings[part].get() }.drain(|frame, run| self.evict(part, frame, run));
        leave();
    }
}
