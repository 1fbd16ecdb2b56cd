//! Addresses that are the pager's.
//!
//! **Guarantee.** They are unmapped when this is dropped, by the process that mapped them. No memory is taken for them until they are used.
//!
//! **Mechanism.** Mappings of small pages, private and anonymous, or of a memfd of their own, and what the kernel is told about them.

use super::shares::Shares;
use crate::PAGE;
use crate::pages::{self, map_empty};
use bytemuck::{AnyBitPattern, NoUninit};
use std::fs::File;
use std::io::Error;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr::null_mut;
use std::sync::Arc;

/// Bytes whose entries are in one table of the kernel's.
const TABLE: u64 = 512 * PAGE;

/// Addresses of so many bytes.
#[derive(Debug)]
pub struct Memory {
    at: *mut u8,
    len: u64,
    /// The process whose they are.
    whose: u32,
    /// The memfd, and among which it is found.
    shared: Option<(Arc<OwnedFd>, Arc<Shares>)>,
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
        Self::map(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)
    }

    /// The same, of a memfd, which stays as long as it is.
    ///
    /// # Errors
    ///
    /// The kernel's: `EFBIG` where files may not be so long (`RLIMIT_FSIZE`).
    pub fn shared(len: u64, among: &Arc<Shares>) -> Result<Self, Error> {
        let file = pages::memfd(len / PAGE)?;
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
        // SAFETY: (1) a call without pointers.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } != 0 {
            return Err(Error::last_os_error());
        }
        let (mut memory, file) = (Self::map(len, libc::MAP_SHARED, file.as_raw_fd())?, Arc::new(file));
        among.add(memory.at(0)..memory.at(0) + len, file.clone());
        memory.shared = Some((file, among.clone()));
        Ok(memory)
    }

    fn map(len: u64, flags: i32, fd: RawFd) -> Result<Self, Error> {
        let memory = Self { at: aligned(len)?, len, whose: std::process::id(), shared: None };
        map_empty(memory.at, len as usize, flags | libc::MAP_NORESERVE | libc::MAP_FIXED, fd)?;
        // Where the kernel knows no huge pages, or merges none, it has none.
        _ = memory.advise(libc::MADV_NOHUGEPAGE);
        _ = memory.advise(libc::MADV_UNMERGEABLE);
        memory.advise(libc::MADV_DONTFORK)?;
        Ok(memory)
    }

    /// A descriptor of the same memory, to be read; none, where it is private.
    pub fn share(&self) -> Option<Result<File, Error>> {
        let (file, _) = self.shared.as_ref()?;
        // Another description of the file, which cannot be written.
        Some(File::open(format!("/proc/self/fd/{}", file.as_raw_fd())))
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
            if let Some((_, among)) = &self.shared {
                among.remove(self.at(0));
            }
            // SAFETY: (1) ours; who drops it does not use it any more.
            unsafe { libc::munmap(self.at.cast(), self.len as usize) };
        }
    }
}

/// Addresses for so many bytes, of which a run of pages that are brought together lies under one table: the kernel gives such for private memory alone.
fn aligned(len: u64) -> Result<*mut u8, Error> {
    let whole = map_empty(null_mut(), (len + TABLE) as usize, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE, -1)?;
    let at = (whole as u64).next_multiple_of(TABLE);
    let (before, behind) = (at - whole as u64, whole as u64 + TABLE - at);
    for (at, len) in [(whole as u64, before), (at + len, behind)] {
        // SAFETY: (1) just mapped, and nobody's; nothing is unmapped where there is none.
        unsafe { libc::munmap(at as *mut libc::c_void, len as usize) };
    }
    Ok(at as *mut u8)
}
