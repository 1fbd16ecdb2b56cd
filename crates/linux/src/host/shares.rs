//! Memory of regions that others may map: of the engine [`Engine::Shared`](crate::Engine::Shared).
//!
//! **Guarantee.** What is shown at an address is at the address's place in the region's memfd, and nowhere else; where nothing is shown, or left, there is a hole, or what somebody else's
//! mapping has put there, which is not shown.
//!
//! **Mechanism.** A memfd for each region, found by address. A page is copied to the memfd and shown by one call of the kernel's (`UFFDIO_COPY`); what leaves is dropped from its address first,
//! and then from the memfd, and so from everybody's mappings (`FALLOC_FL_PUNCH_HOLE`). What is shown the pager itself reads and writes by the memfd: the kernel may have taken the entry of such a page
//! away, to swap it, and would raise a signal.

use super::lanes::lock;
use super::place::Where;
use super::{Host, Parts};
use crate::pages::make_hole;
use crate::{PAGE, Stopped, Uffd};
use std::cell::Cell;
use std::io::Error;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

#[derive(Clone, Debug)]
struct Share {
    at: Range<u64>,
    memory: Arc<OwnedFd>,
}

/// The memfds of a pager's regions.
#[derive(Debug, Default)]
pub struct Shares {
    /// By address. What is here is exchanged as a whole: nothing allocates under this lock, which faults take.
    all: RwLock<Arc<[Share]>>,
    changes: Mutex<()>,
}

impl Shares {
    /// The addresses of `at` are those of `memory` from now on.
    pub fn add(&self, at: Range<u64>, memory: Arc<OwnedFd>) {
        self.change(|all| {
            let next = all.partition_point(|share| share.at.start < at.start);
            all.insert(next, Share { at, memory });
        });
    }

    /// Those that begin there are nobody's. Nothing of them is shown, or left.
    pub fn remove(&self, at: u64) {
        self.change(|all| all.retain(|share| share.at.start != at));
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Share>)) {
        let _one = lock(&self.changes);
        let mut all = self.now().to_vec();
        change(&mut all);
        let all = all.into();
        let before = std::mem::replace(&mut *self.all.write().unwrap_or_else(PoisonError::into_inner), all);
        drop(before);
    }

    fn now(&self) -> Arc<[Share]> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whose memory is at `at`, and where in it.
    fn find(&self, at: u64) -> (Arc<OwnedFd>, i64) {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        let share = all.partition_point(|share| share.at.end <= at);
        let share = all.get(share).filter(|share| share.at.contains(&at)).expect("it is of a region");
        (share.memory.clone(), (at - share.at.start) as i64)
    }

    /// Copies what is shown at `at`.
    ///
    /// # Safety
    ///
    /// (1) There are `len` bytes at `into`, and the caller's alone.
    pub unsafe fn read(&self, at: u64, into: *mut u8, len: usize) {
        let (memory, offset) = self.find(at);
        // SAFETY: (1) says the caller.
        let done = unsafe { libc::pread(memory.as_raw_fd(), into.cast(), len, offset) };
        must(done, len, "read");
    }

    /// Copies `from` to what is shown at `at`.
    pub fn write(&self, at: u64, from: &[u8]) {
        let (memory, offset) = self.find(at);
        // SAFETY: (1) the bytes are there.
        let done = unsafe { libc::pwrite(memory.as_raw_fd(), from.as_ptr().cast(), from.len(), offset) };
        must(done, from.len(), "written");
    }

    /// Where others have looked at what was not there the kernel has put a page of zeros. It becomes what is at `from`, and is shown at `at`. (It is not dropped for a new one: who goes on looking would have
    /// it there again, each time.)
    ///
    /// # Errors
    ///
    /// As of [`Uffd::map_minor`].
    ///
    /// # Safety
    ///
    /// (1) Whoever misses the page waits for this, and nothing of the region's is there; (2) there is a page at `from`, which nobody writes.
    pub unsafe fn take_over(&self, at: u64, from: u64, is_protected: bool, uffd: &Uffd) -> Result<(), Stopped> {
        // SAFETY: (1) is (2).
        self.write(at, unsafe { std::slice::from_raw_parts(from as *const u8, PAGE as usize) });
        // SAFETY: (1) says the caller.
        unsafe { uffd.map_minor(at, PAGE, is_protected) }
    }

    /// Makes holes of these pages, which are not mapped by the pager any more, and are in order: nobody who maps them has what was there.
    pub fn punch(&self, pages: &[u64]) {
        for run in pages.chunk_by(|a, b| a + PAGE == *b) {
            let (mut at, end) = (run[0], run[0] + run.len() as u64 * PAGE);
            while at < end {
                // Regions may lie side by side.
                let all = self.now();
                let share = &all[all.partition_point(|share| share.at.end <= at)];
                let until = end.min(share.at.end);
                if let Err(error) = make_hole(&share.memory, at - share.at.start, until - at) {
                    crate::report::abort(format_args!("no hole could be made of shared memory: {error}"));
                }
                at = until;
            }
        }
    }
}

thread_local! {
    /// Where this thread's last signal was, if there was nothing to be done about it. `const` and without `Drop`: a plain word, which a signal handler may use.
    static AT: Cell<u64> = const { Cell::new(0) };
}

impl Host {
    /// Whether the kernel shows nothing at `page`, where the core shows something: to be asked of each signal, with whether there was nothing to be done. A program can make the kernel drop its entries,
    /// and the kernel does it to swap pages. One such signal may have come when another thread had just done all.
    pub fn has_lost(&self, page: u64, was_idle: bool) -> bool {
        // Of private memory nothing is asked: this is the way of each fault.
        self.0.shares.is_some() && AT.replace(if was_idle { page } else { 0 }) == page && was_idle
    }
}

impl Parts {
    /// Nothing is shown at these addresses any more, and no CPU has what was there. They are put in order.
    ///
    /// # Safety
    ///
    /// (1) Pages of regions, of which nobody wants the bytes.
    pub(super) unsafe fn drop_shown(&self, pages: &mut [u64]) {
        // All at once, so that a hole has nothing to flush from other CPUs.
        // SAFETY: (1) says the caller.
        unsafe { self.advised.drop_pages(pages) };
        if let Some(shares) = &self.shares {
            shares.punch(pages);
        }
    }

    /// Copies `len` bytes from `offset` on of a page that is at `place`.
    ///
    /// # Safety
    ///
    /// (1) The place is pinned, or the caller's; (2) they are within the page; (3) there is as much at `into`, which is the caller's alone.
    pub(super) unsafe fn copy_from(&self, place: Where, offset: usize, into: *mut u8, len: usize) {
        match (place, &self.shares) {
            // SAFETY: (1) is (3).
            (Where::Shown { at, .. }, Some(shares)) => unsafe { shares.read(at + offset as u64, into, len) },
            // SAFETY: (1) to (3), says the caller.
            _ => unsafe { into.copy_from_nonoverlapping((self.lies(place) as *const u8).add(offset), len) },
        }
    }
}

fn must(done: isize, len: usize, what: &str) {
    if done != len as isize {
        let error = Error::last_os_error();
        crate::report::abort(format_args!("shared memory was not {what}: {done} bytes of {len}: {error}"));
    }
}
