//! Memory on which single things are priced.
//!
//! **Guarantee.** Each thread has its own, under page tables of its own, and in mappings of its own unless it is to share them. Before and after each trip every frame of the pool has its byte, and the region is empty.
//!
//! **Mechanism.** Steps are timed over all pages of a thread, in batches. Between them each page is touched, which is not timed: that checks its byte, and it is in the TLB as the
//! program would have it there.

use super::apart::Apart;
use super::common::PAGE;
use super::file::File;
use super::process::Itself;
use spile_linux::Uffd;
use std::time::Instant;

/// Pages of a thread's region, frames of its pool, and pages of its buffer: together they stay in a CPU's second cache.
pub const PAGES: u64 = 64;
/// Pages that one table of the kernel's maps: threads lie that far apart.
const TABLE: u64 = 512;

/// Memory of all threads.
pub struct Beds<'a> {
    uffd: Uffd,
    file: &'a File,
    itself: Itself,
    /// Regions, pools and buffers: one for each thread, or for all.
    maps: Vec<[Apart; 3]>,
}

/// That of one thread, by address.
pub struct Bed<'a> {
    pub uffd: &'a Uffd,
    pub file: &'a File,
    itself: &'a Itself,
    pub region: u64,
    pub pool: u64,
    /// Memory like any other, with the pool's bytes.
    pub buffer: u64,
}

impl<'a> Beds<'a> {
    pub fn new(uffd: Uffd, file: &'a File, threads: u64, is_shared: bool) -> Self {
        let (maps, parts) = if is_shared { (1, threads) } else { (threads, 1) };
        let map = |_| [(); 3].map(|()| Apart::new((parts + 1) * TABLE));
        let beds = Self { uffd, file, itself: Itself::new(), maps: (0..maps).map(map).collect() };
        for bed in (0..threads).map(|thread| beds.of(thread)) {
            [bed.pool, bed.buffer].iter().for_each(|&at| touch(at, |_, byte| byte));
        }
        for map in beds.maps.iter().flat_map(|[region, pool, _]| [region, pool]) {
            // SAFETY: (1) whoever uses it expects its faults: it is not touched while a page of it is missing.
            unsafe { beds.uffd.register(map.at(0), map.len()) }.expect("ours, and new");
        }
        beds
    }

    pub fn of(&self, thread: u64) -> Bed<'_> {
        let (maps, part) = self.maps.get(thread as usize).map_or((&self.maps[0], thread), |maps| (maps, 0));
        let [region, pool, buffer] = maps.each_ref().map(|map| map.at(0).next_multiple_of(TABLE * PAGE) + part * TABLE * PAGE);
        Bed { uffd: &self.uffd, file: self.file, itself: &self.itself, region, pool, buffer }
    }
}

/// Writes to each page at `at` what `new` says of what it has and of what it is to have.
fn touch(at: u64, new: impl Fn(u8, u8) -> u8) {
    for n in 0..PAGES {
        let byte = (at + n * PAGE) as *mut u8;
        // SAFETY: (1) mapped, there and this thread's.
        unsafe { byte.write_volatile(new(byte.read_volatile(), n as u8 + 1)) };
    }
}

impl Bed<'_> {
    /// Looks at each page at `at`, which has the pool's bytes.
    pub fn look(&self, at: u64) {
        for n in 0..PAGES {
            // SAFETY: (1) mapped, there and this thread's.
            assert_eq!(unsafe { ((at + n * PAGE) as *const u8).read_volatile() }, n as u8 + 1, "a wrong byte on page {n}");
        }
    }

    /// The same, and writes it: nothing is protected.
    pub fn write(&self, at: u64) {
        touch(at, |found, byte| {
            assert_eq!(found, byte, "a wrong byte");
            byte
        });
    }

    /// Drops `len` bytes of pages from `at` on.
    pub fn drop(&self, at: u64, len: u64) {
        // SAFETY: (1) this thread's, and missing is what they are to be.
        assert_eq!(unsafe { libc::madvise(at as *mut libc::c_void, len as usize, libc::MADV_DONTNEED) }, 0);
    }

    /// Drops `count` pages that lie as far apart as they can, the first at `offset`, by one call: whether the kernel does that.
    pub fn drop_scattered(&self, offset: u64, count: u64) -> bool {
        let page = |n| libc::iovec {
            iov_base: (self.region + offset + n * PAGES / count * PAGE) as *mut libc::c_void,
            iov_len: PAGE as usize,
        };
        let pages: [libc::iovec; PAGES as usize] = std::array::from_fn(|n| page(n as u64));
        // SAFETY: (1) the pages are this thread's, and missing is what they are to be.
        unsafe { self.itself.drop_pages(&pages[..count as usize]) }
    }

    /// Moves `len` bytes of pages.
    pub fn shift(&self, to: u64, from: u64, len: u64) {
        // SAFETY: (1) this thread's alone.
        unsafe { self.uffd.move_pages(to, from, len) }.expect("they are there, and nothing where they go");
    }

    /// Copies them.
    pub fn copy(&self, to: u64, from: u64, len: u64, is_protected: bool) {
        // SAFETY: (1) this thread's alone; (2) as is what is copied.
        unsafe { self.uffd.copy(to, from, len, is_protected) }.expect("they are there, and nothing where they go");
    }

    /// Protects them, or no more.
    pub fn protect(&self, at: u64, len: u64, is_protected: bool) {
        // SAFETY: (1) this thread's alone.
        unsafe { self.uffd.protect(at, len, is_protected) }.expect("they are there");
    }

    /// Their bytes.
    pub fn bytes(&self, at: u64, len: u64) -> &[u8] {
        // SAFETY: (1) there, and this thread's, which writes nothing while it has them.
        unsafe { std::slice::from_raw_parts(at as *const u8, len as usize) }
    }

    /// Copies bytes of the buffer to the pool.
    pub fn fill(&self, offset: u64, len: u64) {
        // SAFETY: (1) both are there, and this thread's; (2) they do not overlap.
        unsafe {
            std::ptr::copy_nonoverlapping((self.buffer + offset) as *const u8, (self.pool + offset) as *mut u8, len as usize)
        };
    }
}

/// Times of one trip's steps, in ns per page.
pub struct Laps {
    pub batch: u64,
    pub steps: Vec<Vec<f64>>,
}

impl Laps {
    pub fn new(batch: u64, steps: usize) -> Self {
        Self { batch, steps: vec![Vec::new(); steps] }
    }

    /// Times step `step`, which is done to each batch: by its offset and its length.
    pub fn time(&mut self, step: usize, mut each: impl FnMut(u64, u64)) {
        let len = self.batch * PAGE;
        let since = Instant::now();
        (0..PAGES * PAGE).step_by(len as usize).for_each(|offset| each(offset, len));
        self.steps[step].push(since.elapsed().as_nanos() as f64 / PAGES as f64);
    }

    /// Keeps the times of the first so many trips.
    pub fn truncate(&mut self, trips: usize) {
        self.steps.iter_mut().for_each(|times| times.truncate(trips));
    }
}
