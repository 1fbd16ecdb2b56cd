//! A userfaultfd: the kernel's file for page faults of ranges of addresses.
//!
//! **Guarantee.** Numbers and layouts are the kernel's (`linux/userfaultfd.h`), which is checked when this is compiled. An ioctl that was interrupted by a change of the address
//! space (`EAGAIN`) goes on behind what it had done; every other error is given, with how far it came. None of them allocates.
//!
//! **Mechanism.** One method per ioctl. Each says what it does to memory; whoever calls it owes that nobody minds. No events are asked for, so `EAGAIN` passes by itself:
//! with events it lasts until they are read.

use crate::stopped::{Call, Stopped};
use std::fmt;
use std::io::Error;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::thread::yield_now;

/// Of `UFFDIO_API`: the one there is.
const API: u64 = 0xaa;
/// Modes of a registration.
const MISSING: u64 = 1;
const WP: u64 = 2;
const MINOR: u64 = 4;
/// A mode of what fills pages: they are protected. It is the same number for each.
const FILL_WP: u64 = 2;

/// `struct uffdio_api`.
#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_range`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Range {
    start: u64,
    len: u64,
}

/// `struct uffdio_register`.
#[repr(C)]
struct Register {
    range: Range,
    mode: u64,
    ioctls: u64,
}

/// `struct uffdio_copy` and `struct uffdio_move`. As of the next, what was done, or an error negated, is written by the kernel alone.
#[repr(C)]
struct Transfer {
    to: u64,
    from: u64,
    len: u64,
    mode: u64,
    done: i64,
}

/// `struct uffdio_zeropage`, `struct uffdio_continue` and `struct uffdio_poison`.
#[repr(C)]
struct Fill {
    range: Range,
    mode: u64,
    done: i64,
}

/// `struct uffdio_writeprotect`.
#[repr(C)]
struct Writeprotect {
    range: Range,
    mode: u64,
}

/// An ioctl whose struct the kernel reads and writes.
const fn both<T>(number: u64) -> u64 {
    3 << 30 | (size_of::<T>() as u64) << 16 | 0xaa << 8 | number
}

/// One that is said to be written alone, although it is read alone: so it was once defined.
const fn reads<T>(number: u64) -> u64 {
    2 << 30 | (size_of::<T>() as u64) << 16 | 0xaa << 8 | number
}

impl Call {
    const fn request(self) -> u64 {
        match self {
            Self::Api => both::<Api>(0x3f),
            Self::Register => both::<Register>(0),
            Self::Unregister => reads::<Range>(1),
            Self::Wake => reads::<Range>(2),
            Self::Copy => both::<Transfer>(3),
            Self::Zeropage => both::<Fill>(4),
            Self::Move => both::<Transfer>(5),
            Self::Writeprotect => both::<Writeprotect>(6),
            Self::Continue => both::<Fill>(7),
            Self::Poison => both::<Fill>(8),
        }
    }
}

// As the header's macros are, computed by a C compiler.
const _: () = {
    assert!(Call::Api.request() == 0xc018_aa3f);
    assert!(Call::Register.request() == 0xc020_aa00);
    assert!(Call::Unregister.request() == 0x8010_aa01);
    assert!(Call::Wake.request() == 0x8010_aa02);
    assert!(Call::Copy.request() == 0xc028_aa03);
    assert!(Call::Zeropage.request() == 0xc020_aa04);
    assert!(Call::Move.request() == 0xc028_aa05);
    assert!(Call::Writeprotect.request() == 0xc018_aa06);
    assert!(Call::Continue.request() == 0xc020_aa07);
    assert!(Call::Poison.request() == 0xc020_aa08);
};

/// What a kernel offers, of what this crate knows. Events are not among it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Features(u64);

impl Features {
    /// None.
    pub const NONE: Self = Self(0);
    /// Pages can be write-protected.
    pub const PAGEFAULT_FLAG_WP: Self = Self(1 << 0);
    /// Faults raise SIGBUS on the thread that takes them, instead of being sent to a reader.
    pub const SIGBUS: Self = Self(1 << 7);
    /// Faults of pages of memfds that are in memory, and not mapped.
    pub const MINOR_SHMEM: Self = Self(1 << 10);
    /// A message says which byte it was. The signal of [`SIGBUS`](Self::SIGBUS) says it in any case.
    pub const EXACT_ADDRESS: Self = Self(1 << 11);
    /// Write protection of memfds.
    pub const WP_HUGETLBFS_SHMEM: Self = Self(1 << 12);
    /// Write protection of pages that are not there.
    pub const WP_UNPOPULATED: Self = Self(1 << 13);
    /// Pages can be poisoned: who touches them gets SIGBUS.
    pub const POISON: Self = Self(1 << 14);
    /// Writes are noted without a fault that anybody sees.
    pub const WP_ASYNC: Self = Self(1 << 15);
    /// Pages can be moved from one address to another.
    pub const MOVE: Self = Self(1 << 16);

    /// All that this crate knows, with the kernel's names and the versions of Linux that have them first.
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

    /// Those that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of `other` are there.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// What the kernel says, without what is not known here.
    fn known(bits: u64) -> Self {
        Self(Self::ALL.iter().fold(0, |all, (one, ..)| all | one.0) & bits)
    }

    /// The names and versions of those that are there.
    pub fn names(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        Self::ALL.into_iter().filter(move |(one, ..)| self.has(*one)).map(|(_, name, version)| (name, version))
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names().map(|(name, _)| name)).finish()
    }
}

/// An open userfaultfd. When it is closed, whoever faults on what it had registered reads zeros: whoever has one outlives the memory, or unmaps it first.
#[derive(Debug)]
pub struct Uffd {
    fd: OwnedFd,
}

impl AsFd for Uffd {
    /// For `poll(2)` and `read(2)`, and for a handler that is elsewhere.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Uffd {
    /// What a system call gave, which is new and nobody else's. It is not enabled.
    pub(crate) fn of(fd: RawFd) -> Result<Self, Error> {
        if fd < 0 {
            return Err(Error::last_os_error());
        }
        // SAFETY: (1) says the caller, which is in this crate.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Opens it for use with these features, and says what the kernel offers. Once per descriptor. `EINVAL`: the kernel lacks one, and a descriptor that was asked
    /// for none says which.
    pub(crate) fn enable(&self, features: Features) -> Result<Features, Stopped> {
        let mut api = Api { api: API, features: features.0, ioctls: 0 };
        self.once(Call::Api, Range { start: 0, len: 0 }, &mut api)?;
        let offered = Features::known(api.features);
        // Before 6.11 what an architecture lacks was granted.
        let is_granted = offered.has(features);
        is_granted.then_some(offered).ok_or(Stopped { call: Call::Api, at: 0, len: 0, done: 0, errno: libc::EINVAL })
    }

    /// An ioctl, and its error, or 0.
    fn call<T>(&self, call: Call, argument: &mut T) -> i32 {
        debug_assert_eq!((call.request() >> 16) as usize & 0x3fff, size_of::<T>());
        // SAFETY: (1) the struct is of the size that the request says; (2) what the ioctls do to memory is said where they are asked for.
        let result = unsafe { libc::ioctl(self.fd.as_raw_fd(), call.request() as libc::Ioctl, &raw mut *argument) };
        if result == 0 { 0 } else { Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) }
    }

    /// One that does not say how far it came: it is made anew when it was interrupted, for it may be made twice.
    fn once<T>(&self, call: Call, range: Range, argument: &mut T) -> Result<(), Stopped> {
        loop {
            match self.call(call, argument) {
                0 => return Ok(()),
                libc::EAGAIN => yield_now(),
                errno => return Err(Stopped { call, at: range.start, len: range.len, done: 0, errno }),
            }
        }
    }

    /// One that says how far it came. `from` makes it behind so many bytes, and gives its error and how many more it has done.
    fn whole(&self, call: Call, range: Range, from: impl Fn(u64) -> (i32, i64)) -> Result<(), Stopped> {
        let mut done = 0;
        loop {
            let (errno, more) = from(done);
            // What is below 0 is the error once more.
            done += more.max(0) as u64;
            match errno {
                0 => return Ok(()),
                libc::EAGAIN => yield_now(),
                errno => return Err(Stopped { call, at: range.start, len: range.len, done, errno }),
            }
        }
    }

    fn transfer(&self, call: Call, to: u64, from: u64, len: u64, mode: u64) -> Result<(), Stopped> {
        self.whole(call, Range { start: to, len }, |done| {
            // Before 6.15 the kernel did not always write what was done.
            let mut transfer = Transfer { to: to + done, from: from + done, len: len - done, mode, done: 0 };
            (self.call(call, &mut transfer), transfer.done)
        })
    }

    fn fill(&self, call: Call, range: Range, mode: u64) -> Result<(), Stopped> {
        self.whole(call, range, |done| {
            let rest = Range { start: range.start + done, len: range.len - done };
            let mut fill = Fill { range: rest, mode, done: 0 };
            (self.call(call, &mut fill), fill.done)
        })
    }

    fn register_as(&self, range: Range, mode: u64) -> Result<(), Stopped> {
        self.once(Call::Register, range, &mut Register { range, mode, ioctls: 0 })
    }

    /// From now on faults of missing pages in `len` bytes from `at` on are this descriptor's, and of protected ones.
    ///
    /// # Errors
    ///
    /// The kernel's: `EINVAL` where nothing is mapped, or what cannot be registered; `EBUSY` where another descriptor has it; `EPERM` of a file that may not be written.
    ///
    /// # Safety
    ///
    /// (1) Whoever uses this memory expects its faults.
    pub unsafe fn register(&self, at: u64, len: u64) -> Result<(), Stopped> {
        self.register_as(Range { start: at, len }, MISSING | WP)
    }

    /// The same of missing pages alone: what a memfd takes where [`Features::WP_HUGETLBFS_SHMEM`] is not enabled.
    ///
    /// # Errors
    ///
    /// As [`register`](Self::register).
    ///
    /// # Safety
    ///
    /// (1) As there.
    pub unsafe fn register_missing(&self, at: u64, len: u64) -> Result<(), Stopped> {
        self.register_as(Range { start: at, len }, MISSING)
    }

    /// The same of missing pages, and of pages of a memfd that are there and not mapped.
    ///
    /// # Errors
    ///
    /// As [`register`](Self::register).
    ///
    /// # Safety
    ///
    /// (1) As there.
    pub unsafe fn register_minor(&self, at: u64, len: u64) -> Result<(), Stopped> {
        self.register_as(Range { start: at, len }, MISSING | MINOR)
    }

    /// The same, and of protected pages: of a memfd it takes [`Features::WP_HUGETLBFS_SHMEM`].
    ///
    /// # Errors
    ///
    /// As [`register`](Self::register).
    ///
    /// # Safety
    ///
    /// (1) As there.
    pub unsafe fn register_shared(&self, at: u64, len: u64) -> Result<(), Stopped> {
        self.register_as(Range { start: at, len }, MISSING | MINOR | WP)
    }

    /// Of protected pages alone: with [`Features::WP_ASYNC`] nobody faults, and writes are noted.
    ///
    /// # Errors
    ///
    /// As [`register`](Self::register).
    ///
    /// # Safety
    ///
    /// (1) As there.
    pub unsafe fn register_writes(&self, at: u64, len: u64) -> Result<(), Stopped> {
        self.register_as(Range { start: at, len }, WP)
    }

    /// Faults of `len` bytes from `at` on are the kernel's again: what is missing is zeros. Who waits is woken.
    ///
    /// # Errors
    ///
    /// The kernel's.
    ///
    /// # Safety
    ///
    /// (1) Nobody relies on what is missing there.
    pub unsafe fn unregister(&self, at: u64, len: u64) -> Result<(), Stopped> {
        let mut range = Range { start: at, len };
        self.once(Call::Unregister, range, &mut range)
    }

    /// Wakes who waits for pages of `len` bytes from `at` on: they look again. After [`Cause::PageThere`](crate::Cause::PageThere) it has to be asked for.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn wake(&self, at: u64, len: u64) -> Result<(), Stopped> {
        let mut range = Range { start: at, len };
        self.once(Call::Wake, range, &mut range)
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
    pub unsafe fn copy(&self, at: u64, from: u64, len: u64, is_protected: bool) -> Result<(), Stopped> {
        self.transfer(Call::Copy, at, from, len, if is_protected { FILL_WP } else { 0 })
    }

    /// Puts zeros at `len` bytes from `at` on, where nothing is. Of private memory it is the one page that all share: the first write of it is another fault, of the kernel's.
    ///
    /// # Errors
    ///
    /// `EEXIST`: there is a page.
    ///
    /// # Safety
    ///
    /// (1) Nobody relies on what is missing at `at`.
    pub unsafe fn zero(&self, at: u64, len: u64) -> Result<(), Stopped> {
        self.fill(Call::Zeropage, Range { start: at, len }, 0)
    }

    /// Moves the pages of `len` bytes from `from` on to `at`, where nothing is: then there is nothing at `from`, and no CPU has it. Private anonymous pages alone. It takes
    /// [`Features::MOVE`], and `at` registered.
    ///
    /// # Errors
    ///
    /// `EEXIST`: there is a page at `at`. `ENOENT`: there is none at `from`. `EBUSY`: somebody has the page pinned, which passes, or a fork shares it, which does not.
    ///
    /// # Safety
    ///
    /// (1) Whoever uses either expects its faults.
    pub unsafe fn move_pages(&self, at: u64, from: u64, len: u64) -> Result<(), Stopped> {
        self.transfer(Call::Move, at, from, len, 0)
    }

    /// Lets writes of `len` bytes from `at` on fault, or pass. Without [`Features::WP_UNPOPULATED`] what is missing stays without protection.
    ///
    /// # Errors
    ///
    /// The kernel's: `ENOENT` of what is not registered for it.
    ///
    /// # Safety
    ///
    /// (1) Whoever uses this memory expects its faults.
    pub unsafe fn protect(&self, at: u64, len: u64, is_protected: bool) -> Result<(), Stopped> {
        let range = Range { start: at, len };
        self.once(Call::Writeprotect, range, &mut Writeprotect { range, mode: u64::from(is_protected) })
    }

    /// Maps the pages of a memfd that `len` bytes from `at` on show, which are there; protected, if so (from Linux 6.4 on).
    ///
    /// # Errors
    ///
    /// `EEXIST`: one is mapped. `EFAULT`: one is not there.
    ///
    /// # Safety
    ///
    /// (1) Nobody relies on what is missing at `at`.
    pub unsafe fn map_minor(&self, at: u64, len: u64, is_protected: bool) -> Result<(), Stopped> {
        self.fill(Call::Continue, Range { start: at, len }, if is_protected { FILL_WP } else { 0 })
    }

    /// From now on whoever touches `len` bytes from `at` on, where nothing is, gets SIGBUS from the kernel, and system calls `EFAULT`. The signal is of `BUS_MCEERR_AR`, but of
    /// `BUS_ADRERR`, as a missing page's, from kernels without `CONFIG_MEMORY_FAILURE`: a handler has to know what it has poisoned. [`copy`](Self::copy) puts a page there again. It takes
    /// [`Features::POISON`].
    ///
    /// # Errors
    ///
    /// `EEXIST`: there is a page, or it is poisoned.
    ///
    /// # Safety
    ///
    /// (1) Nobody relies on what is missing at `at`.
    pub unsafe fn poison(&self, at: u64, len: u64) -> Result<(), Stopped> {
        self.fill(Call::Poison, Range { start: at, len }, 0)
    }
}
