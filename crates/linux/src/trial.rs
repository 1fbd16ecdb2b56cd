//! What a userfaultfd can do here, tried.
//!
//! **Guarantee.** What is said to work was done, on pages of the trial's own, and its result looked at. Nothing is left of it.
//!
//! **Mechanism.** A function for each ability, on a descriptor of its own with the features that it takes. Where a page must be missing or protected, the kernel is asked to
//! touch it, which gets `EFAULT`; the one trial in which a program's access faults is in [`child`].

use crate::PAGE;
use crate::child;
use crate::door::{Door, Shut};
use crate::pages::{Pages, make_hole, memfd};
use crate::scan::{self, Pagemap};
use crate::stopped::{Cause, Stopped};
use crate::uffd::{Features, Uffd};
use std::fmt;
use std::fs;
use std::io;

/// Something that a pager may want of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ability {
    /// A fault raises SIGBUS on the thread that took it, the signal names the byte, and the handler resolves it.
    Signal,
    /// `UFFDIO_COPY`.
    Copy,
    /// `UFFDIO_MOVE`, there and back.
    Move,
    /// Writes can be stopped, and let through.
    Protect,
    /// `UFFDIO_POISON`.
    Poison,
    /// `UFFDIO_CONTINUE` of pages of a memfd.
    Continue,
    /// Protected copies to a memfd, which others see; a hole takes them away from all.
    Share,
    /// What was written can be asked for: `WP_ASYNC`, and `PAGEMAP_SCAN`, which protects it anew.
    Track,
    /// Huge pages of a memfd.
    HugeShared,
}

const SHMEM_HUGE: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

impl Ability {
    /// All.
    pub const ALL: [Self; 9] = [
        Self::Signal,
        Self::Copy,
        Self::Move,
        Self::Protect,
        Self::Poison,
        Self::Continue,
        Self::Share,
        Self::Track,
        Self::HugeShared,
    ];

    /// What it is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Signal => "SIGBUS on the faulting thread",
            Self::Copy => "UFFDIO_COPY",
            Self::Move => "UFFDIO_MOVE",
            Self::Protect => "UFFDIO_WRITEPROTECT",
            Self::Poison => "UFFDIO_POISON",
            Self::Continue => "UFFDIO_CONTINUE of a memfd",
            Self::Share => "UFFDIO_COPY to a memfd",
            Self::Track => "WP_ASYNC and PAGEMAP_SCAN",
            Self::HugeShared => "huge pages of a memfd",
        }
    }

    /// The features that it takes.
    #[must_use]
    pub const fn needs(self) -> Features {
        match self {
            Self::Signal => Features::SIGBUS,
            Self::Copy | Self::HugeShared => Features::NONE,
            Self::Move => Features::MOVE,
            Self::Protect => Features::PAGEFAULT_FLAG_WP,
            Self::Poison => Features::POISON,
            Self::Continue => Features::MINOR_SHMEM,
            Self::Share => Features::PAGEFAULT_FLAG_WP.with(Features::MINOR_SHMEM).with(Features::WP_HUGETLBFS_SHMEM),
            Self::Track => Features::PAGEFAULT_FLAG_WP.with(Features::WP_UNPOPULATED).with(Features::WP_ASYNC),
        }
    }

    /// Tries it, with a descriptor of this door.
    ///
    /// # Errors
    ///
    /// [`Why`] it cannot be had.
    pub fn try_it(self, door: Door) -> Result<(), Why> {
        let trial = match self {
            Self::Signal => signal,
            Self::Copy => copy,
            Self::Move => move_there_and_back,
            Self::Protect => protect,
            Self::Poison => poison,
            Self::Continue => map_minor,
            Self::Share => share,
            Self::Track => track,
            Self::HugeShared => return huge_shared(),
        };
        // With the signal a page is never waited for, by the kernel neither: what touches it fails.
        let uffd = door.open(self.needs().with(Features::SIGBUS)).map_err(Why::Shut)?;
        trial(&uffd)
    }
}

/// Why something cannot be had.
#[derive(Debug)]
pub enum Why {
    /// There is no descriptor, or none with the features.
    Shut(Shut),
    /// An ioctl of it failed.
    Stopped(Stopped),
    /// Something else failed.
    System(&'static str, io::Error),
    /// Everything was done, and this came of it.
    Wrong(&'static str),
    /// What this file says is not what it takes.
    Setting(&'static str, String),
}

impl From<Stopped> for Why {
    fn from(stopped: Stopped) -> Self {
        Self::Stopped(stopped)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shut(shut) => match shut.reason {
                // Of the kernel, not of the door.
                crate::Reason::Lacks(_) => write!(f, "{}", shut.reason),
                _ => write!(f, "{shut}"),
            },
            Self::Stopped(stopped) => write!(f, "{stopped}"),
            Self::System(what, error) => write!(f, "{what}: {error}"),
            Self::Wrong(what) => f.write_str(what),
            Self::Setting(path, is) => write!(f, "{path} is \"{is}\": echo advise > {path}"),
        }
    }
}

impl std::error::Error for Why {}

fn mapped<T>(result: io::Result<T>) -> Result<T, Why> {
    result.map_err(|error| Why::System("mmap(2)", error))
}

fn expect(is_so: bool, otherwise: &'static str) -> Result<(), Why> {
    is_so.then_some(()).ok_or(Why::Wrong(otherwise))
}

const NOT_THERE: &str = "the bytes are not there afterwards";
const NOT_STOPPED: &str = "an access that should fail does not";

/// Whether the byte that was written is on page `n`.
fn is_there(pages: &Pages, n: u64) -> Result<(), Why> {
    let is_written = pages.is_written(n).map_err(|error| Why::System("a byte through a pipe", error))?;
    expect(is_written, NOT_THERE)
}

/// Whether the kernel cannot write page `n`.
fn fails(pages: &Pages, n: u64) -> Result<(), Why> {
    let errno = pages.write_by_kernel(n).err().and_then(|error| error.raw_os_error());
    expect(errno == Some(libc::EFAULT), NOT_STOPPED)
}

fn signal(uffd: &Uffd) -> Result<(), Why> {
    let pages = mapped(Pages::anonymous(2))?;
    pages.write(0);
    // SAFETY: (1) nobody uses them but the trial.
    unsafe { uffd.register_missing(pages.at(0), pages.len())? };
    child::fault(uffd, &pages, 0, 1)
}

fn copy(uffd: &Uffd) -> Result<(), Why> {
    let pages = mapped(Pages::anonymous(2))?;
    pages.write(0);
    // SAFETY: (1) and (2) two pages of which nobody else knows.
    unsafe {
        uffd.register_missing(pages.at(0), pages.len())?;
        uffd.copy(pages.at(1), pages.at(0), PAGE, false)?;
    }
    is_there(&pages, 1)
}

fn move_there_and_back(uffd: &Uffd) -> Result<(), Why> {
    let pages = mapped(Pages::anonymous(2))?;
    pages.write(0);
    // SAFETY: (1) two pages of which nobody else knows.
    unsafe {
        uffd.register_missing(pages.at(0), pages.len())?;
        uffd.move_pages(pages.at(1), pages.at(0), PAGE)?;
    }
    is_there(&pages, 1)?;
    fails(&pages, 0)?;
    // SAFETY: (1) as above.
    unsafe { uffd.move_pages(pages.at(0), pages.at(1), PAGE)? };
    is_there(&pages, 0)
}

fn protect(uffd: &Uffd) -> Result<(), Why> {
    let pages = mapped(Pages::anonymous(1))?;
    pages.write(0);
    // SAFETY: (1) a page of which nobody else knows.
    unsafe {
        uffd.register(pages.at(0), PAGE)?;
        uffd.protect(pages.at(0), PAGE, true)?;
    }
    fails(&pages, 0)?;
    is_there(&pages, 0)?;
    // SAFETY: (1) as above.
    unsafe { uffd.protect(pages.at(0), PAGE, false)? };
    pages.write_by_kernel(0).map_err(|error| Why::System("a write of what is protected no more", error))
}

fn poison(uffd: &Uffd) -> Result<(), Why> {
    let pages = mapped(Pages::anonymous(1))?;
    // SAFETY: (1) a page of which nobody else knows.
    let again = unsafe {
        uffd.register_missing(pages.at(0), PAGE)?;
        uffd.poison(pages.at(0), PAGE)?;
        uffd.poison(pages.at(0), PAGE)
    };
    fails(&pages, 0)?;
    expect(again.is_err_and(|stopped| stopped.cause() == Cause::PageThere), "what is poisoned is missing")
}

fn map_minor(uffd: &Uffd) -> Result<(), Why> {
    let file = memfd(1).map_err(|error| Why::System("memfd_create(2)", error))?;
    let (shown, pages) = (mapped(Pages::of(&file, 1))?, mapped(Pages::of(&file, 1))?);
    shown.write(0);
    // SAFETY: (1) a page of which nobody else knows.
    unsafe { uffd.register_minor(pages.at(0), PAGE)? };
    fails(&pages, 0)?;
    // SAFETY: (1) as above.
    unsafe { uffd.map_minor(pages.at(0), PAGE, false)? };
    is_there(&pages, 0)
}

fn share(uffd: &Uffd) -> Result<(), Why> {
    let file = memfd(1).map_err(|error| Why::System("memfd_create(2)", error))?;
    let (pages, others, source) = (mapped(Pages::of(&file, 1))?, mapped(Pages::of(&file, 1))?, mapped(Pages::anonymous(1))?);
    source.write(0);
    // SAFETY: (1) and (2) pages of which nobody else knows.
    let copy = || unsafe { uffd.copy(pages.at(0), source.at(0), PAGE, true) };
    // SAFETY: (1) as above.
    unsafe { uffd.register_shared(pages.at(0), PAGE)? };
    copy()?;
    fails(&pages, 0)?;
    is_there(&others, 0)?;
    make_hole(&file, 0, PAGE).map_err(|error| Why::System("a hole in a memfd", error))?;
    fails(&pages, 0)?;
    // Others see zeros now, and by looking have put a page there, which is not shown.
    let is_there_still = others.is_written(0).map_err(|error| Why::System("a byte through a pipe", error))?;
    expect(!is_there_still, "others have what was taken away")?;
    fails(&pages, 0)?;
    expect(copy().is_err_and(|stopped| stopped.cause() == Cause::PageThere), "a copy took the place of a page that was there")?;
    // Then it is made the page's, and shown.
    others.write(0);
    // SAFETY: (1) as above.
    unsafe { uffd.map_minor(pages.at(0), PAGE, true)? };
    fails(&pages, 0)?;
    is_there(&pages, 0)
}

fn track(uffd: &Uffd) -> Result<(), Why> {
    let pages = mapped(Pages::anonymous(3))?;
    // SAFETY: (1) pages of which nobody else knows.
    unsafe {
        uffd.register_writes(pages.at(0), pages.len())?;
        uffd.protect(pages.at(0), pages.len(), true)?;
    }
    pages.write(1);
    let first = scan(&pages, scan::WRITTEN, scan::PROTECT)?;
    expect(first == Some((pages.at(1), pages.at(2))), "another page is said to be written than the one that was")?;
    let second = scan(&pages, scan::WRITTEN, scan::PROTECT)?;
    expect(second.is_none(), "what was asked for is not protected anew")
}

fn huge_shared() -> Result<(), Why> {
    const HUGE: u64 = 512;
    let file = memfd(2 * HUGE).map_err(|error| Why::System("memfd_create(2)", error))?;
    let pages = mapped(Pages::of(&file, 2 * HUGE))?;
    pages.advise(libc::MADV_HUGEPAGE);
    // Somewhere in it begins a huge page, of the file and of addresses.
    pages.write(HUGE);
    if scan(&pages, scan::HUGE, 0)?.is_some() {
        return Ok(());
    }
    let setting = fs::read_to_string(SHMEM_HUGE).unwrap_or_else(|_| "not there".into());
    let is = setting.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or(setting.trim(), |(is, _)| is);
    Err(match is {
        "never" | "deny" | "not there" => Why::Setting(SHMEM_HUGE, is.into()),
        _ => Why::Wrong("the kernel gave small ones: there may be no huge page free"),
    })
}

/// The first range of pages of a category.
fn scan(pages: &Pages, category: u64, flags: u64) -> Result<Option<(u64, u64)>, Why> {
    let pagemap = Pagemap::open().map_err(|error| {
        Why::System("/proc/self/pagemap (a process that changed its user may not read it before PR_SET_DUMPABLE)", error)
    })?;
    let mut first = None;
    let found = |range: std::ops::Range<u64>| _ = first.get_or_insert((range.start, range.end));
    let scanned = pagemap.scan(pages.at(0)..pages.at(0) + pages.len(), category, flags, found);
    scanned.map(|()| first).map_err(|error| Why::System("PAGEMAP_SCAN (Linux 6.7)", error))
}
