//! Mappings, children and what a test needs of the kernel.
#![allow(dead_code, reason = "each test takes a part")]

pub mod accesses;
pub mod alone;
pub mod logged;

use spile_linux::{Door, Features, Uffd};
use std::io::{Error, Read};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

pub const PAGE: u64 = 4096;

/// A descriptor with these features, or a word why the test is skipped.
pub fn uffd(features: Features) -> Option<Uffd> {
    match Door::OwnFaults.open(features).or_else(|_| Door::Device.open(features)) {
        Ok(uffd) => Some(uffd),
        Err(shut) => {
            println!("skipped: {shut}");
            None
        }
    }
}

fn map(at: *mut u8, pages: u64, prot: i32, flags: i32, fd: i32) -> *mut u8 {
    // SAFETY: (1) a new mapping overlaps nothing, or what its caller has.
    let at = unsafe { libc::mmap(at.cast(), (pages * PAGE) as usize, prot, flags, fd, 0) };
    assert_ne!(at, libc::MAP_FAILED, "{}", Error::last_os_error());
    at.cast()
}

/// Pages of a test's own.
pub struct Map {
    at: *mut u8,
    len: u64,
}

// SAFETY: (1) an address; whoever reads and writes there says why it may.
unsafe impl Sync for Map {}
// SAFETY: (1) as above.
unsafe impl Send for Map {}

impl Map {
    /// Private pages of nothing. Children have them not: a page that a fork shares cannot be moved, and other tests fork.
    pub fn anonymous(pages: u64) -> Self {
        let map = Self::inherited(pages);
        map.advise(libc::MADV_DONTFORK);
        map
    }

    /// The same, which children have too.
    pub fn inherited(pages: u64) -> Self {
        let map = Self::new(pages, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1);
        // A huge page would fill more than a test writes.
        map.advise(libc::MADV_NOHUGEPAGE);
        map
    }

    pub fn advise(&self, advice: i32) {
        self.advise_pages(0..self.len / PAGE, advice);
    }

    pub fn advise_pages(&self, pages: std::ops::Range<u64>, advice: i32) {
        let (at, len) = (self.at(pages.start) as *mut libc::c_void, (pages.end - pages.start) * PAGE);
        // SAFETY: (1) ours.
        assert_eq!(unsafe { libc::madvise(at, len as usize, advice) }, 0);
    }

    pub fn shared(file: &OwnedFd, pages: u64) -> Self {
        Self::new(pages, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, file.as_raw_fd())
    }

    pub fn new(pages: u64, prot: i32, flags: i32, fd: i32) -> Self {
        Self { at: map(null_mut(), pages, prot, flags, fd), len: pages * PAGE }
    }

    /// Has so many pages of it, from `first` on, be those of a file from now on.
    pub fn show(&self, first: u64, file: &OwnedFd, pages: u64) {
        assert!((first + pages) * PAGE <= self.len);
        let at = self.at(first) as *mut u8;
        map(at, pages, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_FIXED, file.as_raw_fd());
    }

    pub fn at(&self, page: u64) -> u64 {
        self.at as u64 + page * PAGE
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn byte(&self, page: u64) -> u8 {
        assert!(page * PAGE < self.len);
        // SAFETY: (1) mapped; if it faults, that is what the test is about.
        unsafe { (self.at(page) as *const u8).read_volatile() }
    }

    pub fn write(&self, page: u64, byte: u8) {
        assert!(page * PAGE < self.len);
        // SAFETY: (1) as in `byte`.
        unsafe { (self.at(page) as *mut u8).write_volatile(byte) }
    }

    /// Writes 1 to page 0, 2 to page 1 and so on.
    pub fn number(&self, pages: std::ops::Range<u64>) {
        pages.for_each(|page| self.write(page, page as u8 + 1));
    }

    /// Has the kernel touch page `page`: `write(2)` reads it, and nothing is raised. Whether it could.
    pub fn is_there(&self, page: u64) -> bool {
        let (_from, into) = pipe();
        // SAFETY: (1) the kernel looks whether it may.
        let wrote = unsafe { libc::write(into.as_raw_fd(), self.at(page) as *const libc::c_void, 1) };
        assert!(wrote == 1 || Error::last_os_error().raw_os_error() == Some(libc::EFAULT));
        wrote == 1
    }

    /// The same of a write.
    pub fn takes_writes(&self, page: u64) -> bool {
        // SAFETY: (1) the kernel looks whether it may.
        let wrote = unsafe { libc::syscall(libc::SYS_getrandom, self.at(page), 1, 0) };
        assert!(wrote == 1 || Error::last_os_error().raw_os_error() == Some(libc::EFAULT));
        wrote == 1
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: (1) ours, and over.
        unsafe { libc::munmap(self.at.cast(), self.len as usize) };
    }
}

pub fn owned(fd: i32) -> OwnedFd {
    assert!(fd >= 0, "{}", Error::last_os_error());
    // SAFETY: (1) a system call gave it to us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

pub fn memfd(pages: u64) -> OwnedFd {
    // SAFETY: (1) the name is a string of C.
    let file = owned(unsafe { libc::memfd_create(c"test".as_ptr(), libc::MFD_CLOEXEC) });
    // SAFETY: (1) a call without pointers.
    assert_eq!(unsafe { libc::ftruncate(file.as_raw_fd(), (pages * PAGE) as i64) }, 0);
    file
}

/// What is read, and what is written.
pub fn pipe() -> (OwnedFd, OwnedFd) {
    let mut fds = [0; 2];
    // SAFETY: (1) room for two.
    assert_eq!(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) }, 0);
    (owned(fds[0]), owned(fds[1]))
}

/// How a child ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Exit(i32),
    Signal(i32),
}

impl End {
    fn of(status: i32) -> Self {
        if libc::WIFSIGNALED(status) { Self::Signal(libc::WTERMSIG(status)) } else { Self::Exit(libc::WEXITSTATUS(status)) }
    }
}

/// From now on this process leaves no core, and has so many seconds until SIGALRM.
fn limit(seconds: u32) {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: (1) calls without memory of ours, but for a struct that is read.
    unsafe {
        libc::alarm(seconds);
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
    }
}

/// Runs `child` in a process of its own, and gives what it said and how it ended: 0, but 101 if it panicked, which is what it said then.
pub fn in_child(child: impl FnOnce() -> String) -> (String, End) {
    let (from, into) = pipe();
    // SAFETY: (1) the child has this thread alone, uses what the C library keeps usable over a fork, and ends by `_exit`.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        limit(30);
        let result = catch_unwind(AssertUnwindSafe(child));
        let status = if result.is_ok() { 0 } else { 101 };
        let said = result.unwrap_or_else(|panic| panic.downcast_ref::<String>().cloned().unwrap_or_default());
        // SAFETY: (1) a string; (2) ends the child.
        unsafe {
            libc::write(into.as_raw_fd(), said.as_ptr().cast(), said.len());
            libc::_exit(status);
        }
    }
    drop(into);
    let mut status = 0;
    // SAFETY: (1) our child; (2) `status` is ours.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    // One piece, and no more than a pipe takes. Its end may never come: children of other tests have the pipe too.
    let mut said = vec![0; 1 << 16];
    let len = std::fs::File::from(from).read(&mut said).unwrap_or(0);
    said.truncate(len);
    let said = String::from_utf8(said).expect("a string was written");
    (said, End::of(status))
}

extern "C" fn exit_with_code(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: (1) the kernel's, of a fault.
    let (code, at) = unsafe { ((*info).si_code, (*info).si_addr() as u64) };
    // The code, and the address within its page, as far as a status has room.
    // SAFETY: (1) ends the child.
    unsafe { libc::_exit(code << 5 | (at % PAGE).min(31) as i32) };
}

/// In a child: from now on SIGBUS ends it with [`bus`] as its status.
pub fn exit_by_sigbus() {
    // SAFETY: (1) zeros are a handler without flags and mask; (2) the handler only ends the process.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = exit_with_code as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGBUS, &raw const action, null_mut());
    }
}

/// How a child ends by SIGBUS of that code, at that byte of a page.
pub fn bus(code: i32, byte: i32) -> End {
    End::Exit(code << 5 | byte)
}

/// Waits until somebody waits for a page of this descriptor, which sends messages.
pub fn await_waiter(uffd: &Uffd) {
    let mut poll = libc::pollfd { fd: uffd.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: (1) one struct.
    assert_eq!(unsafe { libc::poll(&raw mut poll, 1, 10_000) }, 1);
    assert_eq!(poll.revents, libc::POLLIN);
}

/// As long as this: whoever hangs ends the process, and the test with it, instead of everybody's patience.
#[must_use = "it ends when it is dropped"]
pub struct Watched(#[expect(dead_code, reason = "that it is gone is what counts")] Sender<()>);

/// Watches.
pub fn watched() -> Watched {
    let (watched, over) = channel();
    std::thread::spawn(move || {
        if over.recv_timeout(Duration::from_secs(120)) == Err(RecvTimeoutError::Timeout) {
            eprintln!("a test hangs");
            std::process::abort();
        }
    });
    Watched(watched)
}
