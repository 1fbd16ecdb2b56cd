//! Addresses that are the pager's.
//!
//! **Guarantee.** They are unmapped when this is dropped, by the process that mapped them. No memory is taken for them until they are used.
//!
//! **Mechanism.** Private anonymous mappings of small pages, and what the kernel is told about them.

use crate::PAGE;
use crate::pages::map_empty;
use bytemuck::{AnyBitPattern, NoUninit};
use std::io::Error;

/// Addresses of so many bytes.
#[derive(Debug)]
pub struct Memory {
    at: *mut u8,
    len: u64,
    /// The process whose they are.
    whose: u32,
}

// SAFETY: (1) an address; who uses what is there says why he may.
unsafe impl Send for Memory {}
// SAFETY: (1) as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// New ones, of whole pages. A child has them not: a page that a fork shares could not be moved, and what it would find missing it would read as zeros.
    ///
    /// # Errors
    ///
    /// The kernel's: `ENOMEM` where the process may map no more.
    pub fn new(len: u64) -> Result<Self, Error> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let memory = Self { at: map_empty(len as usize, flags, -1)?, len, whose: std::process::id() };
        // Where the kernel knows no huge pages, or merges none, it has none.
        _ = memory.advise(libc::MADV_NOHUGEPAGE);
        _ = memory.advise(libc::MADV_UNMERGEABLE);
        memory.advise(libc::MADV_DONTFORK)?;
        Ok(memory)
    }

    /// Whether it is this process's: a child that a fork made has not got it.
    pub fn is_here(&self) -> bool {
        self.whose == std::process::id()
    }

    fn advise(&self, advice: i32) -> Result<(), Error> {
        // SAFETY: (1) ours; neither advice changes what is there.
        let result = unsafe { libc::madvise(self.at.cast(), self.len as usize, advice) };
        if result == 0 { Ok(()) } else { Err(Error::last_os_error()) }
    }

    /// Where page `page` of it begins.
    pub fn at(&self, page: u64) -> u64 {
        debug_assert!(page * PAGE <= self.len);
        self.at as u64 + page * PAGE
    }

    /// The first `len` bytes, as so many `T` as they are. The caller has the memory as he has the result.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    pub fn slice<T: AnyBitPattern>(&self, len: u64) -> &[T] {
        // SAFETY: (1) so many whole ones are mapped, aligned, for a mapping begins at a page; (2) any bytes are one; (3) nobody else writes them, says the caller.
        unsafe { std::slice::from_raw_parts(self.at.cast(), self.count::<T>(len)) }
    }

    /// The same, to be written.
    ///
    /// # Panics
    ///
    /// As there.
    pub fn slice_mut<T: AnyBitPattern + NoUninit>(&mut self, len: u64) -> &mut [T] {
        // SAFETY: (1) and (2) as there; (3) nobody else uses them, says the caller, and what is written there is bytes.
        unsafe { std::slice::from_raw_parts_mut(self.at.cast(), self.count::<T>(len)) }
    }

    fn count<T>(&self, len: u64) -> usize {
        const { assert!(size_of::<T>() > 0, "one of them has no bytes") };
        const { assert!(align_of::<T>() <= PAGE as usize, "memory begins at a page") };
        assert!(len <= self.len, "there is as much");
        len as usize / size_of::<T>()
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.is_here() {
            // SAFETY: (1) ours; who drops it does not use it any more.
            unsafe { libc::munmap(self.at.cast(), self.len as usize) };
        }
    }
}
