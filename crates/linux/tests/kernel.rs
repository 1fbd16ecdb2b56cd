//! What the kernel's own accesses to missing memory come to, and what becomes of it over a fork and when the descriptor is closed: a table of documented results.
//!
//! Each row is a thing that a program may do, what is documented of it, and what it came to here.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod common;

use common::{End, Map, PAGE, in_child, memfd, pipe, uffd};
use spile_linux::{Features, Uffd};
use std::ffi::c_void;
use std::io::Error;
use std::os::fd::{AsRawFd, OwnedFd};

/// What a call came to: a number, or an error's.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    Done(i64),
    Failed(i32),
}
use Came::{Done, Failed};

fn came(result: i64) -> Came {
    if result >= 0 { Done(result) } else { Failed(Error::last_os_error().raw_os_error().unwrap_or(0)) }
}

/// What is done: with missing memory, the first page of two that is, or a protected one.
type Row = (&'static str, Came, fn(*mut c_void) -> Came);

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

fn read_pipe(at: *mut c_void) -> Came {
    let (from, _into) = filled_pipe();
    // SAFETY: (1) the kernel looks whether it may, as in all of these.
    let result = came(unsafe { libc::read(from.as_raw_fd(), at, 4) as i64 });
    assert_eq!(left(&from), 4, "what was not read is still there");
    result
}

fn receive(at: *mut c_void) -> Came {
    let mut fds = [0; 2];
    // SAFETY: (1) room for two.
    assert_eq!(unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0, fds.as_mut_ptr()) }, 0);
    let [from, into] = fds.map(common::owned);
    // SAFETY: (1) as above.
    let result = unsafe {
        assert_eq!(libc::send(into.as_raw_fd(), b"abcd".as_ptr().cast(), 4, 0), 4);
        came(libc::recv(from.as_raw_fd(), at, 4, 0) as i64)
    };
    assert_eq!(left(&from), 4, "what was not received is still there");
    result
}

/// A read that goes past the cache, of a file that is there: this program.
fn read_direct(at: *mut c_void) -> Came {
    let path = c"/proc/self/exe";
    // SAFETY: (1) a string of C; (2) as above.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC | libc::O_DIRECT);
        if fd < 0 {
            println!("skipped: O_DIRECT: {}", Error::last_os_error());
            return Failed(libc::EFAULT);
        }
        came(libc::pread(common::owned(fd).as_raw_fd(), at, PAGE as usize, 0) as i64)
    }
}

fn read_other(at: *mut c_void) -> Came {
    let mut byte = 0u8;
    let local = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let remote = libc::iovec { iov_base: at, iov_len: 1 };
    // SAFETY: (1) as above.
    came(unsafe { libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0) as i64 })
}

/// Reads so many bytes of a file.
fn read<const BYTES: usize>(at: *mut c_void) -> Came {
    // SAFETY: (1) as above.
    came(unsafe { libc::pread(file().as_raw_fd(), at, BYTES, 0) as i64 })
}

fn write<const BYTES: usize>(at: *mut c_void) -> Came {
    // SAFETY: (1) as above.
    came(unsafe { libc::pwrite(file().as_raw_fd(), at, BYTES, 0) as i64 })
}

fn futex(at: *mut c_void) -> Came {
    // SAFETY: (1) as above.
    came(unsafe { libc::syscall(libc::SYS_futex, at, libc::FUTEX_WAIT, 1, 0, 0, 0) })
}

fn path(at: *mut c_void) -> Came {
    // SAFETY: (1) as above.
    came(unsafe { libc::access(at.cast(), 0) }.into())
}

fn populate(at: *mut c_void) -> Came {
    // SAFETY: (1) as above.
    came(unsafe { libc::madvise(at, PAGE as usize, libc::MADV_POPULATE_WRITE) }.into())
}

fn lock(at: *mut c_void) -> Came {
    // SAFETY: (1) as above.
    came(unsafe { libc::mlock(at, PAGE as usize) }.into())
}

const TWO_PAGES: usize = 2 * PAGE as usize;

const MISSING: &[Row] = &[
    ("pread", Failed(libc::EFAULT), read::<8>),
    ("pwrite", Failed(libc::EFAULT), write::<8>),
    ("read of a pipe", Failed(libc::EFAULT), read_pipe),
    ("recv", Failed(libc::EFAULT), receive),
    ("O_DIRECT", Failed(libc::EFAULT), read_direct),
    ("futex", Failed(libc::EFAULT), futex),
    ("a path", Failed(libc::EFAULT), path),
    ("process_vm_readv", Failed(libc::EFAULT), read_other),
    ("MADV_POPULATE_WRITE", Failed(libc::EFAULT), populate),
    ("mlock", Failed(libc::ENOMEM), lock),
];

const HALF: &[Row] = &[("pread", Done(PAGE as i64), read::<TWO_PAGES>), ("pwrite", Done(PAGE as i64), write::<TWO_PAGES>)];

const PROTECTED: &[Row] = &[
    ("pread", Failed(libc::EFAULT), read::<8>),
    ("pwrite", Done(8), write::<8>),
    ("read of a pipe", Failed(libc::EFAULT), read_pipe),
];

/// Does what the rows say, each with two pages that `prepare` has made so.
fn compare(what: &str, rows: &[Row], prepare: fn(&Uffd, &Map)) {
    let mut wrong = Vec::new();
    for (name, documented, act) in rows {
        let Some(uffd) = uffd(Features::SIGBUS.with(Features::PAGEFAULT_FLAG_WP)) else { return };
        let map = Map::anonymous(2);
        // SAFETY: (1) the test's own.
        unsafe { uffd.register(map.at(0), map.len()).unwrap() };
        prepare(&uffd, &map);
        let is = act(map.at(0) as *mut c_void);
        println!("{what:10} {name:20} {is:?}");
        if is != *documented {
            wrong.push(format!("{name}: {is:?}, and not {documented:?}"));
        }
    }
    assert!(wrong.is_empty(), "{what}: {}", wrong.join("; "));
}

/// Puts a page there.
fn fill(uffd: &Uffd, map: &Map) {
    // SAFETY: (1) the test's own.
    unsafe { uffd.zero(map.at(0), PAGE).unwrap() };
}

#[test]
fn the_kernels_accesses_to_what_is_missing_fail() {
    compare("missing", MISSING, |_, _| {});
}

#[test]
fn the_kernels_accesses_end_where_it_begins_to_be_missing() {
    compare("half there", HALF, fill);
}

#[test]
fn the_kernels_writes_of_what_is_protected_fail() {
    compare("protected", PROTECTED, |uffd, map| {
        fill(uffd, map);
        // SAFETY: (1) the test's own.
        unsafe { uffd.protect(map.at(0), PAGE, true).unwrap() };
    });
}

/// What a child finds on a page that is missing in its parent, who has said `advice` of it before.
fn found_by_a_child(advice: Option<i32>) -> Option<(String, End)> {
    let uffd = uffd(Features::SIGBUS)?;
    let map = Map::inherited(1);
    advice.into_iter().for_each(|advice| map.advise(advice));
    // SAFETY: (1) the test's own.
    unsafe { uffd.register(map.at(0), PAGE).unwrap() };
    Some(in_child(|| map.byte(0).to_string()))
}

#[test]
fn a_forked_child_finds_zeros_in_silence_or_is_told_by_sigsegv() {
    let Some(zeros) = found_by_a_child(None) else { return };
    assert_eq!(zeros, ("0".into(), End::Exit(0)));
    let Some((_, end)) = found_by_a_child(Some(libc::MADV_DONTFORK)) else { return };
    assert_eq!(end, End::Signal(libc::SIGSEGV));
}

#[test]
fn what_is_missing_is_zeros_when_the_descriptor_is_closed() {
    if uffd(Features::SIGBUS).is_none() {
        return;
    }
    // In a process of its own: a child of another test would have the descriptor too.
    let before = || {
        let uffd = uffd(Features::SIGBUS).unwrap();
        let map = Map::anonymous(1);
        // SAFETY: (1) the test's own.
        unsafe { uffd.register(map.at(0), PAGE).unwrap() };
        assert!(!map.is_there(0));
        drop(uffd);
        map.byte(0).to_string()
    };
    assert_eq!(in_child(before), ("0".into(), End::Exit(0)));
    let during = || {
        let uffd = uffd(Features::NONE).unwrap();
        let map = Map::anonymous(1);
        // SAFETY: (1) the test's own.
        unsafe { uffd.register(map.at(0), PAGE).unwrap() };
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| map.byte(0));
            common::await_waiter(&uffd);
            drop(uffd);
            waiter.join().unwrap().to_string()
        })
    };
    assert_eq!(in_child(during), ("0".into(), End::Exit(0)));
}
