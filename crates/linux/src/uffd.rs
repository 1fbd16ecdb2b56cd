//! A userfaultfd: the kernel's file for page faults of ranges of addresses.
//!
//! **Guarantee.** The numbers are the kernel's (`linux/userfaultfd.h`). `EAGAIN` (the address space is being changed, some of it may be done) and `EBUSY` (somebody has the page
//! pinned) pass, and are tried again; every other error is given.
//!
//! **Mechanism.** One method per ioctl. Each says what it does to memory; whoever calls it owes that nobody minds.

use std::fs::OpenOptions;
use std::io::{self, Error};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

const API: u64 = 0xaa;
const MAGIC: u64 = 0xaa;
/// Numbers of ioctls.
const REGISTER: u64 = 0x00;
const UNREGISTER: u64 = 0x01;
const COPY: u64 = 0x03;
const MOVE: u64 = 0x05;
const WRITEPROTECT: u64 = 0x06;
const CONTINUE: u64 = 0x07;
const POISON: u64 = 0x08;
const API_NUMBER: u64 = 0x3f;
/// `USERFAULTFD_IOC_NEW`, of `/dev/userfaultfd`: without a struct.
const NEW: u64 = MAGIC << 8;
/// Faults of the kernel's own accesses are not told of: they fail with `EFAULT`. What a process needs no privilege for.
const USER_MODE_ONLY: libc::c_int = 1;

/// Modes of a registration.
const MISSING: u64 = 1;
const WP: u64 = 2;
const MINOR: u64 = 4;

/// What a kernel offers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Features(u64);

impl Features {
    /// None.
    pub const NONE: Self = Self(0);
    /// Pages can be write-protected. (5.7)
    pub const PAGEFAULT_FLAG_WP: Self = Self(1 << 0);
    /// Faults raise SIGBUS on the thread that takes them, instead of being sent to a reader. (4.14)
    pub const SIGBUS: Self = Self(1 << 7);
    /// Faults of pages of memfds that are in memory, and not mapped. (5.14)
    pub const MINOR_SHMEM: Self = Self(1 << 10);
    /// The signal says which byte it was. (5.18)
    pub const EXACT_ADDRESS: Self = Self(1 << 11);
    /// Write protection of memfds. (5.19)
    pub const WP_HUGETLBFS_SHMEM: Self = Self(1 << 12);
    /// Write protection of pages that are not there. (6.4)
    pub const WP_UNPOPULATED: Self = Self(1 << 13);
    /// Pages can be poisoned: who touches them gets SIGBUS. (6.6)
    pub const POISON: Self = Self(1 << 14);
    /// Writes are noted without a fault that anybody sees. (6.7)
    pub const WP_ASYNC: Self = Self(1 << 15);
    /// Pages can be moved from one address to another. (6.8)
    pub const MOVE: Self = Self(1 << 16);

    /// Those that this crate asks about, with their kernel's names and versions.
    pub const ALL: [(Self, &str, &str); 9] = [
        (Self::SIGBUS, "SIGBUS", "4.14"),
        (Self::PAGEFAULT_FLAG_WP, "PAGEFAULT_FLAG_WP", "5.7"),
        (Self::MINOR_SHMEM, "MINOR_SHMEM", "5.14"),
        (Self::EXACT_ADDRESS, "EXACT_ADDRESS", "5.18"),
        (Self::WP_HUGETLBFS_SHMEM, "WP_HUGETLBFS_SHMEM", "5.19"),
        (Self::WP_UNPOPULATED, "WP_UNPOPULATED", "6.4"),
        (Self::POISON, "POISON", "6.6"),
        (Self::WP_ASYNC, "WP_ASYNC", "6.7"),
        (Self::MOVE, "MOVE", "6.8"),
    ];

    /// Both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are there.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::fmt::Debug for Features {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(Self::ALL.iter().filter(|(one, ..)| self.has(*one)).map(|(_, name, _)| name)).finish()
    }
}

/// An open userfaultfd. When it is closed, whoever faults on what it had registered reads zeros: whoever has one outlives the memory, or unmaps it first.
#[derive(Debug)]
pub struct Uffd {
    fd: OwnedFd,
}

impl Uffd {
    /// By the system call, for faults of programs alone: without privileges, unless a filter forbids it.
    ///
    /// # Errors
    ///
    /// The kernel's: `ENOSYS` (it has none), `EPERM` (a filter, or a security module).
    pub fn by_syscall() -> io::Result<Self> {
        // SAFETY: (1) a system call without pointers.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK | USER_MODE_ONLY) };
        Self::of(fd as RawFd)
    }

    /// By `/dev/userfaultfd`, for faults of the kernel's own accesses too.
    ///
    /// # Errors
    ///
    /// `ENOENT` (older than 6.1), `EACCES` (the right to read and write it is missing).
    pub fn by_device() -> io::Result<Self> {
        let device = OpenOptions::new().read(true).write(true).custom_flags(libc::O_CLOEXEC).open("/dev/userfaultfd")?;
        // SAFETY: (1) an ioctl without pointers.
        let fd = unsafe { libc::ioctl(device.as_raw_fd(), NEW, libc::O_CLOEXEC | libc::O_NONBLOCK) };
        Self::of(fd)
    }

    fn of(fd: RawFd) -> io::Result<Self> {
        if fd < 0 {
            return Err(Error::last_os_error());
        }
        // SAFETY: (1) new, and nobody else's.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// What the kernel offers. Once per descriptor, which then has no features and is of no more use.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn offers(self) -> io::Result<Features> {
        let mut words = [API, 0, 0];
        self.call(API_NUMBER, &mut words)?;
        Ok(Features(words[1]))
    }

    /// Opens it for use, with these features. Once.
    ///
    /// # Errors
    ///
    /// `EINVAL`: the kernel lacks one.
    pub fn enable(&self, features: Features) -> io::Result<()> {
        self.call(API_NUMBER, &mut [API, features.0, 0])
    }

    /// An ioctl with a struct of words, which are read and written.
    fn call<const N: usize>(&self, number: u64, words: &mut [u64; N]) -> io::Result<()> {
        // As the kernel counts: `UNREGISTER` is read alone.
        let direction = if number == UNREGISTER { 2 } else { 3 };
        let request = direction << 30 | (size_of_val(words) as u64) << 16 | MAGIC << 8 | number;
        // SAFETY: (1) the size is part of the request; (2) what the ioctls do to memory is said where they are asked for.
        let result = unsafe { libc::ioctl(self.fd.as_raw_fd(), request, words.as_mut_ptr()) };
        if result == 0 { Ok(()) } else { Err(Error::last_os_error()) }
    }

    /// The same, until what passes has passed. `done` says how many bytes were done, by the words; the call goes on behind them.
    fn call_whole<const N: usize>(&self, number: u64, words: &mut [u64; N], len: usize, done: usize, moving: &[usize]) -> io::Result<()> {
        loop {
            words[done] = 0;
            match self.call(number, words) {
                Ok(()) => return Ok(()),
                Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY)) => {
                    // So many bytes, or an error's number, negated.
                    let part = (words[done] as i64).max(0) as u64;
                    moving.iter().for_each(|address| words[*address] += part);
                    words[len] -= part;
                    if words[len] == 0 {
                        return Ok(());
                    }
                    std::thread::yield_now();
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// From now on faults of missing pages in `len` bytes from `at` on are this descriptor's, and of protected ones.
    ///
    /// # Errors
    ///
    /// The kernel's: `EINVAL` where nothing is mapped, or what cannot be registered.
    ///
    /// # Safety
    ///
    /// (1) Whoever uses this memory expects its faults.
    pub unsafe fn register(&self, at: u64, len: u64) -> io::Result<()> {
        self.call(REGISTER, &mut [at, len, MISSING | WP, 0])
    }

    /// The same of pages of a memfd that are there, and not mapped.
    ///
    /// # Errors
    ///
    /// As [`register`](Self::register).
    ///
    /// # Safety
    ///
    /// (1) As there.
    pub unsafe fn register_minor(&self, at: u64, len: u64) -> io::Result<()> {
        self.call(REGISTER, &mut [at, len, MISSING | WP | MINOR, 0])
    }

    /// Faults of `len` bytes from `at` on are the kernel's again: what is missing is zeros.
    ///
    /// # Errors
    ///
    /// The kernel's.
    ///
    /// # Safety
    ///
    /// (1) Nobody relies on what is missing there.
    pub unsafe fn unregister(&self, at: u64, len: u64) -> io::Result<()> {
        self.call(UNREGISTER, &mut [at, len])
    }

    /// Puts a copy of `len` bytes from `from` on to `at`, where nothing is; protected, if so.
    ///
    /// # Errors
    ///
    /// `EEXIST`: there is a page. `EFAULT`: there is none at `from`.
    ///
    /// # Safety
    ///
    /// (1) Nobody relies on what is missing at `at`; (2) nobody writes at `from` meanwhile.
    pub unsafe fn copy(&self, at: u64, from: u64, len: u64, protected: bool) -> io::Result<()> {
        let mode = if protected { 2 } else { 0 };
        self.call_whole(COPY, &mut [at, from, len, mode, 0], 2, 4, &[0, 1])
    }

    /// Moves the pages of `len` bytes from `from` on to `at`, where nothing is: then there is nothing at `from`, and no CPU has it. Private anonymous pages alone.
    ///
    /// # Errors
    ///
    /// `EEXIST`: there is a page at `at`. `ENOENT`: there is none at `from`. `EBUSY` is waited for, also where a fork shares the page: that is for ever.
    ///
    /// # Safety
    ///
    /// (1) Whoever uses either expects its faults.
    pub unsafe fn move_pages(&self, at: u64, from: u64, len: u64) -> io::Result<()> {
        self.call_whole(MOVE, &mut [at, from, len, 0, 0], 2, 4, &[0, 1])
    }

    /// Lets writes of `len` bytes from `at` on fault, or pass.
    ///
    /// # Errors
    ///
    /// The kernel's.
    ///
    /// # Safety
    ///
    /// (1) Whoever uses this memory expects its faults.
    pub unsafe fn protect(&self, at: u64, len: u64, is_protected: bool) -> io::Result<()> {
        loop {
            match self.call(WRITEPROTECT, &mut [at, len, u64::from(is_protected)]) {
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => std::thread::yield_now(),
                result => return result,
            }
        }
    }

    /// Maps the pages of a memfd that `len` bytes from `at` on show, which are there.
    ///
    /// # Errors
    ///
    /// `EEXIST`: one is mapped. `EFAULT`: one is not there.
    ///
    /// # Safety
    ///
    /// (1) Nobody relies on what is missing at `at`.
    pub unsafe fn map_minor(&self, at: u64, len: u64) -> io::Result<()> {
        self.call_whole(CONTINUE, &mut [at, len, 0, 0], 1, 3, &[0])
    }

    /// From now on whoever touches `len` bytes from `at` on, where nothing is, gets SIGBUS from the kernel.
    ///
    /// # Errors
    ///
    /// `EEXIST`: there is a page.
    ///
    /// # Safety
    ///
    /// (1) Nobody relies on what is missing at `at`.
    pub unsafe fn poison(&self, at: u64, len: u64) -> io::Result<()> {
        self.call_whole(POISON, &mut [at, len, 0, 0], 1, 3, &[0])
    }
}
