//! Pagers on the thread that faults, of a memfd's pages, which others may map too: as little as they can be.
//!
//! A page is read straight to a second mapping of the memfd, and shown by an entry (`UFFDIO_CONTINUE`); or it is read to a buffer, and copied to the memfd and shown at once
//! (`UFFDIO_COPY`). The access that brings it says whether it is protected. What leaves is dropped from mappings by one call, so that other CPUs are flushed once, and then from the memfd, run
//! by run (`FALLOC_FL_PUNCH_HOLE`).

use super::common::{Map, PAGE, memfd};
use super::here::{Fault, Resolve, enter, leave};
use super::leaving::Leaving;
use super::process::Itself;
use super::ring::Ring;
use super::work::{Contender, Scene};
use spile_linux::{Door, Features, Uffd};
use std::cell::UnsafeCell;
use std::os::fd::{AsRawFd, OwnedFd};

/// How a page comes to the memfd, and to the region.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Continue,
    Copy,
}

/// What a thread has: a memfd takes one change at a time.
struct Part {
    memory: OwnedFd,
    /// Its first page in the file.
    first: u64,
    /// The memfd once more.
    alias: Map,
    buffer: Map,
    ring: UnsafeCell<Ring>,
}

pub struct OnThreadShared<'a> {
    uffd: Uffd,
    itself: Itself,
    /// The parts' memfds, side by side.
    region: Map,
    parts: Vec<Part>,
    scene: Scene<'a>,
    way: Way,
}

// SAFETY: (1) a ring is used by the thread alone whose part it is.
unsafe impl Sync for OnThreadShared<'_> {}

impl<'a> OnThreadShared<'a> {
    pub fn new(scene: Scene<'a>, way: Way) -> Self {
        let features = [Features::SIGBUS, Features::PAGEFAULT_FLAG_WP, Features::MINOR_SHMEM, Features::WP_HUGETLBFS_SHMEM];
        let uffd = Door::OwnFaults.open(features.into_iter().fold(Features::NONE, Features::with)).expect("the probe says so");
        let (pages, region) = (scene.file.pages / scene.threads, Map::anonymous(scene.file.pages));
        let part = |part: u64| {
            let (memory, first) = (memfd(pages), part * pages);
            region.show(first, &memory, pages);
            let (alias, buffer) = (Map::shared(&memory, pages), Map::anonymous(scene.window));
            Part { memory, first, alias, buffer, ring: UnsafeCell::new(Ring::new(scene.frames())) }
        };
        let parts: Vec<_> = (0..scene.threads).map(part).collect();
        // SAFETY: (1) who uses it are this pager's threads, which have its handler.
        unsafe { uffd.register_shared(region.at(0), region.len()) }.expect("ours, and new");
        Self { uffd, itself: Itself::new(), region, parts, scene, way }
    }

    fn drop(&self, part: &Part, leaving: &Leaving) {
        let begin = self.region.at(part.first);
        let alias = (self.way == Way::Continue).then(|| part.alias.at(0).wrapping_sub(begin));
        // SAFETY: (1) who misses the pages faults, and reads what was written; of the other mapping nothing is wanted that was not read there before.
        unsafe { leaving.drop(&self.itself, alias) };
        let how = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        for (at, len) in leaving.runs() {
            // SAFETY: (1) a call without pointers.
            assert_eq!(unsafe { libc::fallocate(part.memory.as_raw_fd(), how, (at - begin) as i64, *len as i64) }, 0);
        }
    }
}

impl Resolve for OnThreadShared<'_> {
    fn resolve(&self, part: usize, Fault { at, is_there, is_write }: Fault) {
        let (part, window) = (&self.parts[part], self.scene.window);
        let page = (at - self.region.at(0)) / PAGE;
        // SAFETY: (1) the ring is this thread's, which is in its handler: it does not fault there.
        let ring = unsafe { &mut *part.ring.get() };
        if is_there {
            ring.dirty(page);
            // SAFETY: (1) who writes expects to.
            return unsafe { self.uffd.protect(self.region.at(page), PAGE, false) }.expect("it is there");
        }
        let (first, mut leaving) = (page - page % window, Leaving::default());
        ring.take(first, window, is_write, |_, run| {
            leaving.note(self.region.at(run[0].page), run, &self.uffd, &self.scene);
        });
        self.drop(part, &leaving);
        let (at, len) = (self.region.at(first), window * PAGE);
        let from = if self.way == Way::Continue { part.alias.at(first - part.first) } else { part.buffer.at(0) };
        // SAFETY: (1) what is read to is this thread's; (2) whoever misses the page waits for it.
        let shown = unsafe {
            self.scene.file.read(first, from, window);
            match self.way {
                Way::Continue => self.uffd.map_minor(at, len, !is_write),
                Way::Copy => self.uffd.copy(at, from, len, !is_write),
            }
        };
        shown.expect("a page that is missing");
    }
}

impl Contender for OnThreadShared<'_> {
    fn at(&self) -> u64 {
        self.region.at(0)
    }

    fn begin(&self, part: usize) {
        enter(self, part);
    }

    fn end(&self, part: usize) {
        let ring = &self.parts[part].ring;
        // SAFETY: (1) this thread's.
        unsafe { &mut *ring.get() }.drain(|_, run| {
            Leaving::default().note(self.region.at(run[0].page), run, &self.uffd, &self.scene);
        });
        leave();
    }
}
