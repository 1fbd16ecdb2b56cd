//! Accesses by the kernel on a program's behalf, each of which says what it came to.

use super::{PAGE, memfd, owned, pipe};
use std::ffi::c_void;
use std::io::Error;
use std::os::fd::{AsRawFd, OwnedFd};

/// What a call came to: a number, or an error's.
#[derive(Debug, PartialEq, Eq)]
pub enum Came {
    Done(i64),
    Failed(i32),
}
pub use Came::{Done, Failed};

pub fn came(result: i64) -> Came {
    if result >= 0 { Done(result) } else { Failed(Error::last_os_error().raw_os_error().unwrap_or(0)) }
}

/// A file of two pages.
fn file() -> OwnedFd {
    memfd(2)
}

fn filled_pipe() -> (OwnedFd, OwnedFd) {
    let (from, into) = pipe();
    // SAFETY: (1) bytes of ours.
    assert_eq!(unsafe { libc::write(into.as_raw_fd(), b"abcd".as_ptr().cast(), 4) }, 4);
    (from, into)
}

/// What is left of `abcd` behind a read that failed.
fn left(from: &OwnedFd) -> i64 {
    let mut rest = [0u8; 8];
    // SAFETY: (1) room for 8.
    unsafe { libc::read(from.as_raw_fd(), rest.as_mut_ptr().cast(), 8) as i64 }
}

/// Reads a pipe.
pub fn read_pipe(at: *mut c_void) -> Came {
    let (from, _into) = filled_pipe();
    // SAFETY: (1) the kernel looks whether it may, as in all of these.
    let result = came(unsafe { libc::read(from.as_raw_fd(), at, 4) as i64 });
    assert_eq!(left(&from), 4, "what was not read is still there");
    result
}

/// Reads a socket.
pub fn receive(at: *mut c_void) -> Came {
    let mut fds = [0; 2];
    // SAFETY: (1) room for two.
    assert_eq!(unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0, fds.as_mut_ptr()) }, 0);
    let [from, into] = fds.map(owned);
    // SAFETY: (1) as above.
    let result = unsafe {
        assert_eq!(libc::send(into.as_raw_fd(), b"abcd".as_ptr().cast(), 4, 0), 4);
        came(libc::recv(from.as_raw_fd(), at, 4, 0) as i64)
    };
    assert_eq!(left(&from), 4, "what was not received is still there");
    result
}

/// A read that goes past the cache, of a file that is there: this program.
pub fn read_direct(at: *mut c_void) -> Came {
    let path = c"/proc/self/exe";
    // SAFETY: (1) a string of C; (2) as above.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC | libc::O_DIRECT);
        if fd < 0 {
            println!("skipped: O_DIRECT: {}", Error::last_os_error());
            return Failed(libc::EFAULT);
        }
        came(libc::pread(owned(fd).as_raw_fd(), at, PAGE as usize, 0) as i64)
    }
}

pub fn read_other(at: *mut c_void) -> Came {
    let mut byte = 0u8;
    let local = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let remote = libc::iovec { iov_base: at, iov_len: 1 };
    // SAFETY: (1) as above.
    came(unsafe { libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0) as i64 })
}

/// Reads so many bytes of a file.
pub fn read<const BYTES: usize>(at: *mut c_void) -> Came {
    // SAFETY: (1) as above.
    came(unsafe { libc::pread(file().as_raw_fd(), at, BYTES, 0) as i64 })
}

pub fn write<const BYTES: usize>(at: *mut c_void) -> Came {
    // SAFETY: (1) as above.
    came(unsafe { libc::pwrite(file().as_raw_fd(), at, BYTES, 0) as i64 })
}

pub fn futex(at: *mut c_void) -> Came {
    // SAFETY: (1) as above.
    came(unsafe { libc::syscall(libc::SYS_futex, at, libc::FUTEX_WAIT, 1, 0, 0, 0) })
}

pub fn path(at: *mut c_void) -> Came {
    // SAFETY: (1) as above.
    came(unsafe { libc::access(at.cast(), 0) }.into())
}

pub fn populate(at: *mut c_void) -> Came {
    // SAFETY: (1) as above.
    came(unsafe { libc::madvise(at, PAGE as usize, libc::MADV_POPULATE_WRITE) }.into())
}

pub fn lock(at: *mut c_void) -> Came {
    // SAFETY: (1) as above.
    came(unsafe { libc::mlock(at, PAGE as usize) }.into())
}

/// Two pages.
pub const TWO_PAGES: usize = 2 * PAGE as usize;
