//! A file whose every word is known.
//!
//! **Guarantee.** What a page has to hold is computed, so a wrong byte is seen wherever it comes from.
//!
//! **Mechanism.** A file without a name. Word 0 of a page is a counter, to which its number of writes was added; the others never change. The pagers read and write it past the
//! kernel's page cache, where its file system does that.

use super::common::{Map, PAGE};
use std::fs::{File as Opened, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Words of a page.
pub const WORDS: u64 = PAGE / 8;
/// Pages that are written or compared at once.
const CHUNK: u64 = 256;

pub struct File {
    /// By way of the page cache.
    pub cached: OwnedFd,
    by_page: Opened,
    pub pages: u64,
    pub is_direct: bool,
    pub is_tmpfs: bool,
    /// How often each page was written.
    pub writes: AtomicU64,
}

/// What word `word` of page `page` is in the beginning.
pub fn word(page: u64, word: u64) -> u64 {
    let mixed = (page * WORDS + word + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 29
}

fn bytes(first: u64, writes: u64) -> Vec<u8> {
    let of_page = |page| (0..WORDS).map(move |n| if n == 0 { word(page, 0).wrapping_add(writes) } else { word(page, n) });
    (first..first + CHUNK).flat_map(of_page).flat_map(u64::to_ne_bytes).collect()
}

impl File {
    /// One of so many pages in `directory`.
    pub fn new(directory: &Path, pages: u64) -> io::Result<Self> {
        assert!(pages.is_multiple_of(CHUNK));
        let made = OpenOptions::new().read(true).write(true).custom_flags(libc::O_TMPFILE).open(directory)?;
        for first in (0..pages).step_by(CHUNK as usize) {
            made.write_all_at(&bytes(first, 0), first * PAGE)?;
        }
        made.sync_data()?;
        let direct = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(path_of(&made));
        let is_direct = direct.is_ok();
        let by_page = direct.or_else(|_| made.try_clone())?;
        let is_tmpfs = is_tmpfs(&made);
        Ok(Self { cached: made.into(), by_page, pages, is_direct, is_tmpfs, writes: AtomicU64::new(0) })
    }

    /// Where it can be opened.
    pub fn path(&self) -> PathBuf {
        path_of(&self.cached)
    }

    /// Reads `count` pages from `page` on to `to`. A signal handler may.
    ///
    /// # Safety
    ///
    /// (1) The pages at `to` are there, and nobody else uses them.
    pub unsafe fn read(&self, page: u64, to: u64, count: u64) {
        let (at, len) = ((page * PAGE) as i64, (count * PAGE) as usize);
        // SAFETY: (1) says the caller.
        assert_eq!(unsafe { libc::pread(self.by_page.as_raw_fd(), to as *mut libc::c_void, len, at) }, len as isize);
    }

    /// Writes `count` pages from `page` on, which are at `from`. A signal handler may.
    ///
    /// # Safety
    ///
    /// (1) The pages at `from` are there, and nobody writes to them.
    pub unsafe fn write(&self, page: u64, from: u64, count: u64) {
        let (at, len) = ((page * PAGE) as i64, (count * PAGE) as usize);
        // SAFETY: (1) says the caller.
        assert_eq!(unsafe { libc::pwrite(self.by_page.as_raw_fd(), from as *const libc::c_void, len, at) }, len as isize);
    }

    /// Compares every byte with what it has to be.
    pub fn check(&self) {
        let map = Map::new(self.pages, libc::PROT_READ, libc::MAP_SHARED, self.cached.as_raw_fd());
        for first in (0..self.pages).step_by(CHUNK as usize) {
            // SAFETY: (1) mapped; (2) nobody writes to the file now.
            let found = unsafe { std::slice::from_raw_parts(map.at(first) as *const u8, (CHUNK * PAGE) as usize) };
            assert!(found == bytes(first, self.writes.load(Relaxed)), "pages from {first} on are not as they were written");
        }
    }

    /// Has the page cache forget it, if it is not all that there is.
    pub fn forget(&self) {
        // SAFETY: (1) calls without pointers.
        unsafe {
            libc::fdatasync(self.cached.as_raw_fd());
            libc::posix_fadvise(self.cached.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED);
        }
    }
}

fn path_of(fd: &impl AsRawFd) -> PathBuf {
    format!("/proc/self/fd/{}", fd.as_raw_fd()).into()
}

fn is_tmpfs(file: &Opened) -> bool {
    let mut stat = std::mem::MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: (1) room for a record, which the call fills; zeros are one, too.
    unsafe { libc::fstatfs(file.as_raw_fd(), stat.as_mut_ptr()) == 0 && stat.assume_init().f_type == libc::TMPFS_MAGIC }
}
