//! `PAGEMAP_SCAN`: which pages of a range are of a category.
//!
//! **Guarantee.** Numbers and layout are the kernel's (`linux/fs.h`), which is checked when this is compiled.
//!
//! **Mechanism.** An ioctl of `/proc/self/pagemap`, asked again behind where it stopped for want of room.

use std::fs::File;
use std::io::{self, Error};
use std::ops::Range;
use std::os::fd::AsRawFd;

/// Pages that were written since they were protected.
pub const WRITTEN: u64 = 1 << 1;
/// Huge ones.
pub const HUGE: u64 = 1 << 6;
const WP_MATCHING: u64 = 1 << 0;
const CHECK_WPASYNC: u64 = 1 << 1;
/// Protects those that are found, at once: what is written after that is found next time. Only where writes are noted without a fault.
pub const PROTECT: u64 = WP_MATCHING | CHECK_WPASYNC;

/// `struct page_region`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

/// `struct pm_scan_arg`.
#[repr(C)]
#[derive(Default)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

const SCAN: u64 = 3 << 30 | (size_of::<Scan>() as u64) << 16 | (b'f' as u64) << 8 | 16;
const _: () = assert!(SCAN == 0xc060_6610 && size_of::<Region>() == 24);

/// How many ranges are asked for at once.
const ROOM: usize = 256;

/// What a process's pages are.
#[derive(Debug)]
pub struct Pagemap(File);

impl Pagemap {
    /// This process's.
    ///
    /// # Errors
    ///
    /// The kernel's: a process that changed its user may not read its own before `PR_SET_DUMPABLE`.
    pub fn open() -> io::Result<Self> {
        File::open("/proc/self/pagemap").map(Self)
    }

    /// Calls `each` with the ranges of `range` whose pages are of `category`, ascending.
    ///
    /// # Errors
    ///
    /// The kernel's. `ENOTTY` before Linux 6.7. What was found before was given.
    pub fn scan(&self, range: Range<u64>, category: u64, flags: u64, mut each: impl FnMut(Range<u64>)) -> io::Result<()> {
        let mut found = [Region::default(); ROOM];
        let mut rest = range;
        while !rest.is_empty() {
            let mut scan = Scan {
                size: size_of::<Scan>() as u64,
                flags,
                start: rest.start,
                end: rest.end,
                vec: found.as_mut_ptr() as u64,
                vec_len: ROOM as u64,
                category_mask: category,
                return_mask: category,
                ..Scan::default()
            };
            // SAFETY: (1) the struct is of the size that the request says, and what it leads to has as much room as it says.
            let count = unsafe { libc::ioctl(self.0.as_raw_fd(), SCAN as libc::Ioctl, &raw mut scan) };
            match usize::try_from(count) {
                Ok(count) => found[..count].iter().for_each(|region| each(region.start..region.end)),
                Err(_) => return Err(Error::last_os_error()),
            }
            if scan.walk_end <= rest.start {
                return Err(Error::other("it was answered, and nothing was looked at"));
            }
            rest.start = scan.walk_end;
        }
        Ok(())
    }
}
