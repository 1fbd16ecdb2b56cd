//! A pager on the thread that faults, of copied pages: as little as it can be.
//!
//! A page is read into a buffer of the thread's, and copied to where it is missed (`UFFDIO_COPY`), protected if the access was a read: the first write is heard of. Nothing has to be
//! flushed from other CPUs for that. Of a batch that leaves, what is dirty is protected and written to the file; then all of it is dropped by one call (`process_madvise`), which
//! flushes once, although the pages are scattered.

use super::common::{Map, PAGE};
use super::here::{Fault, Resolve, enter, leave};
use super::leaving::Leaving;
use super::process::Itself;
use super::ring::Ring;
use super::work::{Contender, Scene};
use spile_linux::{Door, Features, Uffd};
use std::cell::UnsafeCell;

pub struct OnThreadCopy<'a> {
    uffd: Uffd,
    itself: Itself,
    region: Map,
    /// One per part.
    buffers: Vec<Map>,
    rings: Vec<UnsafeCell<Ring>>,
    scene: Scene<'a>,
}

// SAFETY: (1) a ring is used by the thread alone whose part it is.
unsafe impl Sync for OnThreadCopy<'_> {}

impl<'a> OnThreadCopy<'a> {
    pub fn new(scene: Scene<'a>) -> Self {
        let uffd = Door::OwnFaults.open(Features::SIGBUS.with(Features::PAGEFAULT_FLAG_WP)).expect("the probe says so");
        let region = Map::anonymous(scene.file.pages);
        // SAFETY: (1) who uses it are this pager's threads, which have its handler.
        unsafe { uffd.register(region.at(0), region.len()) }.expect("ours, and new");
        let buffers = (0..scene.threads).map(|_| Map::anonymous(scene.window)).collect();
        let rings = (0..scene.threads).map(|_| UnsafeCell::new(Ring::new(scene.frames()))).collect();
        Self { uffd, itself: Itself::new(), region, buffers, rings, scene }
    }
}

impl Resolve for OnThreadCopy<'_> {
    fn resolve(&self, part: usize, Fault { at, is_there, is_write }: Fault) {
        let window = self.scene.window;
        let page = (at - self.region.at(0)) / PAGE;
        // SAFETY: (1) the ring is this thread's, which is in its handler: it does not fault there.
        let ring = unsafe { &mut *self.rings[part].get() };
        if is_there {
            ring.dirty(page);
            // SAFETY: (1) who writes expects to.
            return unsafe { self.uffd.protect(self.region.at(page), PAGE, false) }.expect("it is there");
        }
        let (first, mut leaving) = (page - page % window, Leaving::default());
        ring.take(first, window, is_write, |_, run| {
            leaving.note(self.region.at(run[0].page), run, &self.uffd, &self.scene);
        });
        // SAFETY: (1) who misses the pages faults, and reads what was written.
        unsafe { leaving.drop(&self.itself, None) };
        let buffer = self.buffers[part].at(0);
        // SAFETY: (1) the buffer is this thread's; (2) whoever misses the page waits for it.
        unsafe {
            self.scene.file.read(first, buffer, window);
            self.uffd.copy(self.region.at(first), buffer, window * PAGE, !is_write).expect("a page that is missing");
        }
    }
}

impl Contender for OnThreadCopy<'_> {
    fn at(&self) -> u64 {
        self.region.at(0)
    }

    fn begin(&self, part: usize) {
        enter(self, part);
    }

    fn end(&self, part: usize) {
        // SAFETY: (1) this thread's.
        unsafe { &mut *self.rings[part].get() }.drain(|_, run| {
            Leaving::default().note(self.region.at(run[0].page), run, &self.uffd, &self.scene);
        });
        leave();
    }
}
