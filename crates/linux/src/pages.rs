//! Pages that are mapped for a trial, of which nobody else knows.
//!
//! **Guarantee.** They are unmapped when this is dropped.
//!
//! **Mechanism.** One mapping of small pages, anonymous or of a memfd.

use crate::PAGE;
use std::io::{self, Error, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::null_mut;

/// A byte that is not 0, to be found again.
pub const BYTE: u8 = 0x5a;

/// Bytes of a page of this kernel's.
pub fn size() -> u64 {
    // SAFETY: (1) a question.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as u64 }
}

/// So many pages.
pub struct Pages {
    at: *mut u8,
    count: u64,
}

/// A memfd of so many pages, which may be sealed.
pub fn memfd(count: u64) -> io::Result<OwnedFd> {
    // SAFETY: (1) the name is a string of C.
    let fd = unsafe { libc::memfd_create(c"spile".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    if fd < 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: (1) new, and nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: (1) a call without pointers.
    let result = unsafe { libc::ftruncate(fd.as_raw_fd(), (count * PAGE) as i64) };
    if result == 0 { Ok(fd) } else { Err(Error::last_os_error()) }
}

/// Makes a hole in a memfd: nobody who maps it has what was there.
pub fn make_hole(file: &OwnedFd, offset: u64, len: u64) -> io::Result<()> {
    let how = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    loop {
        // SAFETY: (1) a call without pointers.
        if unsafe { libc::fallocate(file.as_raw_fd(), how, offset as i64, len as i64) } == 0 {
            return Ok(());
        }
        let error = Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

impl Pages {
    /// Private ones of nothing, which a fork does not share: meanwhile they could not be moved.
    pub fn anonymous(count: u64) -> io::Result<Self> {
        let pages = Self::map(count, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)?;
        pages.advise(libc::MADV_NOHUGEPAGE);
        pages.advise(libc::MADV_DONTFORK);
        Ok(pages)
    }

    /// Those of a file, shared.
    pub fn of(file: &OwnedFd, count: u64) -> io::Result<Self> {
        Self::map(count, libc::MAP_SHARED, file.as_raw_fd())
    }

    fn map(count: u64, flags: libc::c_int, fd: libc::c_int) -> io::Result<Self> {
        let len = (count * PAGE) as usize;
        map_empty(null_mut(), len, flags, fd).map(|at| Self { at, count })
    }

    /// Says something of them that may be ignored, of their size or of forks.
    pub fn advise(&self, advice: libc::c_int) {
        // SAFETY: (1) ours; (2) such advice changes no bytes.
        unsafe { libc::madvise(self.at.cast(), self.len() as usize, advice) };
    }

    /// The address of page `n`.
    pub fn at(&self, n: u64) -> u64 {
        self.at as u64 + n * PAGE
    }

    /// Bytes of all.
    pub fn len(&self) -> u64 {
        self.count * PAGE
    }

    /// Writes [`BYTE`] to page `n`, which is there, or comes by itself.
    pub fn write(&self, n: u64) {
        assert!(n < self.count);
        // SAFETY: (1) mapped, and ours.
        unsafe { (self.at(n) as *mut u8).write_volatile(BYTE) };
    }

    /// Whether [`BYTE`] is on page `n`. The kernel is asked, for which a missing page is no signal.
    pub fn is_written(&self, n: u64) -> io::Result<bool> {
        assert!(n < self.count);
        let mut byte = 0u8;
        let (from, into) = io::pipe()?;
        // SAFETY: (1) mapped, and ours.
        if unsafe { libc::write(into.as_raw_fd(), self.at(n) as *const libc::c_void, 1) } != 1 {
            let error = Error::last_os_error();
            return if error.raw_os_error() == Some(libc::EFAULT) { Ok(false) } else { Err(error) };
        }
        (&from).read_exact(std::slice::from_mut(&mut byte))?;
        Ok(byte == BYTE)
    }

    /// Has the kernel write a byte to page `n`, which cannot raise a signal.
    pub fn write_by_kernel(&self, n: u64) -> io::Result<()> {
        assert!(n < self.count);
        // SAFETY: (1) mapped, and ours.
        let wrote = unsafe { libc::syscall(libc::SYS_getrandom, self.at(n), 1, 0) };
        if wrote == 1 { Ok(()) } else { Err(Error::last_os_error()) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: (1) ours, and nobody has it any more.
        unsafe { libc::munmap(self.at.cast(), self.len() as usize) };
    }
}

/// Maps so many bytes, which may be read and written, and of which none is there yet: in a process that has all its memory locked (`MCL_FUTURE`) the kernel would put pages there at once.
/// `at` is null, or the caller's, to be mapped over, and his still if it fails.
pub fn map_empty(at: *mut u8, len: usize, flags: libc::c_int, fd: libc::c_int) -> io::Result<*mut u8> {
    let is_new = at.is_null();
    // SAFETY: (1) a new mapping overlaps nothing, or what the caller gives; (2) nobody uses it yet.
    unsafe {
        let at = libc::mmap(at.cast(), len, libc::PROT_NONE, flags, fd, 0);
        if at == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        libc::munlock(at, len);
        if libc::mprotect(at, len, libc::PROT_READ | libc::PROT_WRITE) == 0 {
            return Ok(at.cast());
        }
        let error = Error::last_os_error();
        if is_new {
            libc::munmap(at, len);
        }
        Err(error)
    }
}
