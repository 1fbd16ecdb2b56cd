//! What this process may do.
//!
//! **Guarantee.** What is said to work was done: a page was moved, and a fault of it resolved in a signal handler's place. Nothing is left of it. What does not work is said
//! with the kernel's reason, and with what would change that.
//!
//! **Mechanism.** Both doors to a userfaultfd are tried, features asked for, and then the ioctls made on two pages of this process.

use crate::uffd::{Features, Uffd};
use std::fmt;
use std::fs;
use std::io;
use std::ptr::null_mut;

/// How a userfaultfd was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// `userfaultfd(2)`, for a program's own faults: it takes no privilege.
    Syscall,
    /// `/dev/userfaultfd`.
    Device,
}

/// How pages are put where a fault wants them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// On the thread that faulted, by moving pages of a pool (`UFFDIO_MOVE`): nothing is copied, and what is taken away is taken with its bytes, at once.
    Move,
    /// On the thread that faulted, by copies (`UFFDIO_COPY`): what is taken away is write-protected, copied and dropped.
    Copy,
}

/// What the kernel lets this process do, and what was chosen of it.
#[derive(Debug)]
pub struct Capabilities {
    /// `uname -r`.
    pub kernel: String,
    /// How a userfaultfd is opened.
    pub door: Door,
    /// Why the door that comes before it was not taken, if it was not.
    pub passed_over: Option<io::Error>,
    /// What the kernel offers.
    pub features: Features,
    /// How faults are resolved.
    pub engine: Engine,
    /// Why it is not [`Engine::Move`], if it is not.
    pub no_move: Option<Why>,
    /// Whether pages that have changed can be asked for (`PAGEMAP_SCAN`, and [`Features::WP_ASYNC`]).
    pub tracks_writes: bool,
}

/// Why something cannot be had.
#[derive(Debug)]
pub enum Why {
    /// The kernel lacks a feature, which has it from that version on.
    Lacks(&'static str, &'static str),
    /// It has it, and it did not work.
    Failed(&'static str, io::Error),
}

/// There is no way for this process to page its own memory.
#[derive(Debug)]
pub enum Refused {
    /// Neither door opened: the system call's error, the device's, and what this process is under.
    Closed {
        /// Of `userfaultfd(2)`.
        syscall: io::Error,
        /// Of `/dev/userfaultfd`.
        device: io::Error,
        /// Whether it is under a filter of system calls (seccomp).
        is_filtered: bool,
    },
    /// The kernel is too old.
    TooOld(Why),
    /// The kernel offers what is wanted, and it did not work.
    Broken(&'static str, io::Error),
    /// Pages are not of 4 KiB.
    PageSize(u64),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Lacks(feature, version) => write!(f, "this kernel has no {feature}, which Linux has from {version} on"),
            Why::Failed(what, error) => write!(f, "{what} failed: {error}"),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Closed { syscall, device, is_filtered } => {
                writeln!(f, "no userfaultfd for this process:")?;
                writeln!(f, "  userfaultfd(2): {syscall}")?;
                writeln!(f, "  /dev/userfaultfd: {device}")?;
                let advice = match (syscall.raw_os_error(), is_filtered) {
                    (Some(libc::ENOSYS), false) => "the kernel was built without it: CONFIG_USERFAULTFD=y",
                    (_, true) => {
                        "a filter of system calls (seccomp) is in force: allow userfaultfd in it (containers: a profile that does, or \
                         --security-opt seccomp=unconfined), or give the process the device (--device /dev/userfaultfd)"
                    }
                    _ => {
                        "a security module forbids it: allow it there, or give this user the device (chgrp and chmod g+rw \
                         /dev/userfaultfd)"
                    }
                };
                write!(f, "  {advice}")
            }
            Refused::TooOld(why) => write!(f, "{why}: nothing less will do"),
            Refused::Broken(what, error) => write!(f, "the kernel offers what is wanted, but {what} failed: {error}"),
            Refused::PageSize(size) => write!(f, "pages are of {size} bytes here, and have to be of {}", PAGE),
        }
    }
}

impl std::error::Error for Refused {}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let door = match self.door {
            Door::Syscall => "userfaultfd(2), for the program's own faults, without privileges",
            Door::Device => "/dev/userfaultfd",
        };
        writeln!(f, "kernel    Linux {}", self.kernel)?;
        writeln!(f, "door      {door}")?;
        if let Some(error) = &self.passed_over {
            writeln!(f, "          (userfaultfd(2): {error})")?;
        }
        let engine = match self.engine {
            Engine::Move => "on the faulting thread, pages moved (UFFDIO_MOVE)",
            Engine::Copy => "on the faulting thread, pages copied (UFFDIO_COPY)",
        };
        writeln!(f, "engine    {engine}")?;
        if let Some(why) = &self.no_move {
            writeln!(f, "          ({why})")?;
        }
        let tracking = if self.tracks_writes { "WP_ASYNC and PAGEMAP_SCAN" } else { "by write faults" };
        writeln!(f, "changes   {tracking}")?;
        write!(f, "features ")?;
        for (feature, name, version) in Features::ALL {
            if self.features.has(feature) {
                write!(f, " {name}")?;
            } else {
                write!(f, " (no {name}: {version})")?;
            }
        }
        Ok(())
    }
}

const PAGE: u64 = 4096;

/// What nothing can be done without.
const NEEDED: Features = Features::SIGBUS.with(Features::EXACT_ADDRESS).with(Features::PAGEFAULT_FLAG_WP);

/// Finds out what this process may do, by doing it. It opens a few files, maps two pages, and closes and unmaps all of that again.
///
/// # Errors
///
/// [`Refused`]: what is missing, and how to get it.
pub fn probe() -> Result<Capabilities, Refused> {
    // SAFETY: (1) a question.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64;
    if size != PAGE {
        return Err(Refused::PageSize(size));
    }
    let (door, passed_over, offers) = open()?;
    let features = offers.offers().map_err(|error| Refused::Broken("UFFDIO_API", error))?;
    if let Some((_, name, version)) = Features::ALL.iter().find(|(one, ..)| NEEDED.has(*one) && !features.has(*one)) {
        return Err(Refused::TooOld(Why::Lacks(name, version)));
    }
    let no_move = if features.has(Features::MOVE) {
        try_it(door, Features::MOVE, Uffd::move_there_and_back).err().map(|error| Why::Failed("UFFDIO_MOVE", error))
    } else {
        Some(Why::Lacks("MOVE", "6.8"))
    };
    let engine = if no_move.is_none() { Engine::Move } else { Engine::Copy };
    if engine == Engine::Copy {
        try_it(door, Features::NONE, Uffd::copy_and_drop).map_err(|error| Refused::Broken("UFFDIO_COPY", error))?;
    }
    let tracks_writes = features.has(Features::WP_ASYNC.with(Features::WP_UNPOPULATED)) && can_scan();
    Ok(Capabilities { kernel: kernel(), door, passed_over, features, engine, no_move, tracks_writes })
}

/// A userfaultfd, by whichever door opens, and why the first did not.
fn open() -> Result<(Door, Option<io::Error>, Uffd), Refused> {
    let syscall = match Uffd::by_syscall() {
        Ok(uffd) => return Ok((Door::Syscall, None, uffd)),
        Err(error) => error,
    };
    match Uffd::by_device() {
        Ok(uffd) => Ok((Door::Device, Some(syscall), uffd)),
        Err(device) => Err(Refused::Closed { syscall, device, is_filtered: is_filtered() }),
    }
}

impl Door {
    /// A userfaultfd by this door.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn open(self) -> io::Result<Uffd> {
        match self {
            Door::Syscall => Uffd::by_syscall(),
            Door::Device => Uffd::by_device(),
        }
    }
}

/// Two pages, the first with a byte in it.
struct Pages(*mut u8);

impl Pages {
    fn new() -> io::Result<Self> {
        let (len, flags) = (2 * PAGE as usize, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: (1) a new mapping overlaps nothing.
        let at = unsafe { libc::mmap(null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: (1) ours; without it a huge page may come, which the kernel splits.
        unsafe { libc::madvise(at, len, libc::MADV_NOHUGEPAGE) };
        // SAFETY: (1) mapped just now.
        unsafe { at.cast::<u8>().write_volatile(BYTE) };
        Ok(Self(at.cast()))
    }

    fn at(&self, n: u64) -> u64 {
        self.0 as u64 + n * PAGE
    }

    /// The first byte of a page that is there.
    fn byte(&self, n: usize) -> u8 {
        // SAFETY: (1) says the caller.
        unsafe { self.0.add(n * PAGE as usize).read_volatile() }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: (1) ours, and nobody has it any more.
        unsafe { libc::munmap(self.0.cast(), 2 * PAGE as usize) };
    }
}

const BYTE: u8 = 0x5a;

/// Does `what` with two pages of which nobody else knows.
fn try_it(door: Door, more: Features, what: impl Fn(&Uffd, &Pages) -> io::Result<bool>) -> io::Result<()> {
    let (uffd, pages) = (door.open()?, Pages::new()?);
    uffd.enable(NEEDED.with(more))?;
    // SAFETY: (1) nobody uses them but this.
    unsafe { uffd.register(pages.at(0), 2 * PAGE)? };
    if what(&uffd, &pages)? { Ok(()) } else { Err(io::Error::other("the bytes are not there afterwards")) }
}

impl Uffd {
    // SAFETY of all in both: (1) and (2) two pages that nobody else uses.

    fn move_there_and_back(&self, pages: &Pages) -> io::Result<bool> {
        // SAFETY: (1) as above.
        unsafe { self.move_pages(pages.at(1), pages.at(0), PAGE)? };
        let is_there = pages.byte(1) == BYTE;
        // SAFETY: (1) as above.
        unsafe { self.move_pages(pages.at(0), pages.at(1), PAGE)? };
        Ok(is_there && pages.byte(0) == BYTE)
    }

    fn copy_and_drop(&self, pages: &Pages) -> io::Result<bool> {
        // SAFETY: (1) and (2) as above.
        unsafe { self.copy(pages.at(1), pages.at(0), PAGE, true)? };
        let is_there = pages.byte(1) == BYTE;
        // SAFETY: (1) as above.
        unsafe { self.protect(pages.at(1), PAGE, false)? };
        Ok(is_there)
    }
}

/// Whether pages that were written can be asked for.
fn can_scan() -> bool {
    /// `struct pm_scan_arg`, of `linux/fs.h`.
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
    const PAGE_IS_PRESENT: u64 = 1 << 3;
    let (Ok(pagemap), Ok(pages)) = (fs::File::open("/proc/self/pagemap"), Pages::new()) else { return false };
    let mut region = [0u64; 3];
    let mut scan = Scan {
        size: size_of::<Scan>() as u64,
        start: pages.at(0),
        end: pages.at(1),
        vec: region.as_mut_ptr() as u64,
        vec_len: 1,
        category_mask: PAGE_IS_PRESENT,
        return_mask: PAGE_IS_PRESENT,
        ..Scan::default()
    };
    let request = 3 << 30 | (size_of::<Scan>() as u64) << 16 | u64::from(b'f') << 8 | 16;
    // SAFETY: (1) the struct is of the size that the request says, and what it leads to has room for one.
    let found = unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&pagemap), request, &raw mut scan) };
    found == 1 && region[0] == pages.at(0)
}

/// Whether a filter of system calls is in force.
fn is_filtered() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"))
}

/// Which kernel this is.
fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").map_or_else(|_| "of unknown version".into(), |release| release.trim().into())
}
