//! The doors to a userfaultfd, and why one is shut.
//!
//! **Guarantee.** Who is refused is told which right is missing and what grants it. What is said of a filter of system calls was tried: a filter that kills instead of refusing
//! cannot be asked, and kills.
//!
//! **Mechanism.** The kernel answers `EINVAL` to a flag that it does not know before it asks any security module. So whoever gets another answer to that has not asked the kernel.

use crate::uffd::{Features, Uffd};
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Error};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

/// `USERFAULTFD_IOC_NEW`, of `/dev/userfaultfd`: without a struct.
const NEW: u64 = 0xaa << 8;
/// `UFFD_USER_MODE_ONLY`.
const USER_MODE_ONLY: libc::c_int = 1;
/// A flag that no kernel knows.
const UNKNOWN: libc::c_int = 1 << 30;
const DEVICE: &str = "/dev/userfaultfd";
const SYSCTL: &str = "/proc/sys/vm/unprivileged_userfaultfd";

/// How a userfaultfd is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// `userfaultfd(2)` with `UFFD_USER_MODE_ONLY`: for a program's own faults. It takes no privilege. The kernel's accesses to missing pages fail with `EFAULT`.
    OwnFaults,
    /// `userfaultfd(2)` for the faults of the kernel's accesses too.
    AllFaults,
    /// `/dev/userfaultfd`, for the same.
    Device,
}

impl Door {
    /// All, in the order in which they are tried: the one that takes least first.
    pub const ALL: [Self; 3] = [Self::OwnFaults, Self::AllFaults, Self::Device];

    /// What it is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OwnFaults => "userfaultfd(2), own faults",
            Self::AllFaults => "userfaultfd(2), all faults",
            Self::Device => DEVICE,
        }
    }

    /// A userfaultfd with these features.
    ///
    /// # Errors
    ///
    /// [`Shut`]: why not, and what to do.
    pub fn open(self, features: Features) -> Result<Uffd, Shut> {
        let uffd = self.new_descriptor().map_err(|error| Shut { door: self, reason: Reason::of(self, &error), error })?;
        match uffd.enable(features) {
            Ok(_) => Ok(uffd),
            Err(stopped) => {
                let missing = features.without(self.offers()?);
                let reason = if missing == Features::NONE { Reason::Other } else { Reason::Lacks(missing) };
                Err(Shut { door: self, error: stopped.error(), reason })
            }
        }
    }

    /// A userfaultfd for this process's own faults, by whichever door lets it.
    ///
    /// # Errors
    ///
    /// [`Shut`], of the door that takes least.
    pub(crate) fn for_own_faults(features: Features) -> Result<Uffd, Shut> {
        Self::OwnFaults.open(features).or_else(|shut| Self::Device.open(features).map_err(|_| shut))
    }

    /// What the kernel offers, of what this crate knows.
    ///
    /// # Errors
    ///
    /// [`Shut`]: why it does not say.
    pub fn offers(self) -> Result<Features, Shut> {
        let uffd = self.new_descriptor().map_err(|error| Shut { door: self, reason: Reason::of(self, &error), error })?;
        let other = |error| Shut { door: self, error, reason: Reason::Other };
        uffd.enable(Features::NONE).map_err(|stopped| other(stopped.error()))
    }

    fn new_descriptor(self) -> io::Result<Uffd> {
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
        match self {
            Self::OwnFaults => Uffd::of(syscall(flags | USER_MODE_ONLY)),
            Self::AllFaults => Uffd::of(syscall(flags)),
            Self::Device => {
                let device = OpenOptions::new().read(true).write(true).custom_flags(libc::O_CLOEXEC).open(DEVICE)?;
                // SAFETY: (1) an ioctl without pointers.
                Uffd::of(unsafe { libc::ioctl(device.as_raw_fd(), NEW as libc::Ioctl, flags) })
            }
        }
    }
}

fn syscall(flags: libc::c_int) -> RawFd {
    // SAFETY: (1) a system call without pointers.
    unsafe { libc::syscall(libc::SYS_userfaultfd, flags) as RawFd }
}

/// A door that did not open.
#[derive(Debug)]
pub struct Shut {
    /// Which.
    pub door: Door,
    /// The kernel's error, or a filter's.
    pub error: Error,
    /// What that means here.
    pub reason: Reason,
}

/// Why a door is shut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There is no such system call.
    NotBuilt,
    /// There is one, and not yet for a program's own faults.
    TooOld,
    /// A filter of system calls (seccomp) answers in the kernel's stead.
    Filtered,
    /// It takes a privilege, or the system's leave.
    Unprivileged,
    /// The kernel would, and a security module forbids it.
    Forbidden,
    /// There is no device.
    NoDevice,
    /// There is one, and this user may not read and write it.
    DeviceRights,
    /// This container's devices do not include it.
    DeviceForbidden,
    /// The kernel lacks features that were asked for.
    Lacks(Features),
    /// Something else: the error says what.
    Other,
}

impl Reason {
    fn of(door: Door, error: &Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(0);
        match (door, errno) {
            (Door::Device, libc::ENOENT | libc::ENXIO | libc::ENODEV) => Self::NoDevice,
            (Door::Device, libc::EACCES) => Self::DeviceRights,
            (Door::Device, libc::EPERM) => Self::DeviceForbidden,
            (Door::Device, _) | (_, libc::EMFILE | libc::ENFILE | libc::ENOMEM) => Self::Other,
            _ if is_answered_by_a_filter() => Self::Filtered,
            (_, libc::ENOSYS) => Self::NotBuilt,
            (Door::OwnFaults, libc::EINVAL) => Self::TooOld,
            (Door::AllFaults, libc::EPERM) if !Rights::look().may_handle_all() => Self::Unprivileged,
            (_, libc::EPERM | libc::EACCES) => Self::Forbidden,
            _ => Self::Other,
        }
    }
}

/// Whether a question that the kernel answers with `EINVAL` gets another answer, although the kernel has the call.
fn is_answered_by_a_filter() -> bool {
    let fd = syscall(USER_MODE_ONLY | UNKNOWN);
    let errno = Error::last_os_error().raw_os_error();
    fd < 0 && errno != Some(libc::EINVAL) && (errno != Some(libc::ENOSYS) || fs::exists(SYSCTL).unwrap_or(false))
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::NotBuilt => "the kernel has no userfaultfd: it takes CONFIG_USERFAULTFD=y",
            Self::TooOld => "Linux has UFFD_USER_MODE_ONLY from 5.11 on",
            Self::Filtered => {
                "a filter of system calls (seccomp) refuses userfaultfd: allow it there (of a container: a profile that does, or \
                 --security-opt seccomp=unconfined), or give the process /dev/userfaultfd (--device /dev/userfaultfd)"
            }
            Self::Unprivileged => {
                "it takes CAP_SYS_PTRACE, which a container's own root has not, or sysctl vm.unprivileged_userfaultfd=1; only the \
                 kernel's accesses need it"
            }
            Self::Forbidden => "a security module (SELinux and the like) forbids it: allow anonymous inodes of userfaultfd there",
            Self::NoDevice => {
                "there is no /dev/userfaultfd: Linux has it from 6.1 on; a container is given it by --device /dev/userfaultfd"
            }
            Self::DeviceRights => {
                "this user may not read and write it: setfacl -m u:USER:rw /dev/userfaultfd, or chgrp and chmod g+rw"
            }
            Self::DeviceForbidden => "this container may not use the device: start it with --device /dev/userfaultfd",
            Self::Lacks(features) => {
                write!(f, "the kernel has not")?;
                return features.names().try_for_each(|(name, version)| write!(f, " {name} (Linux {version})"));
            }
            Self::Other => "the system is out of something, or this is not Linux as known",
        };
        f.write_str(text)
    }
}

impl fmt::Display for Shut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.door.name(), self.error, self.reason)
    }
}

impl std::error::Error for Shut {}

/// What this thread may, of what doors ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// `vm.unprivileged_userfaultfd`, if there is such a thing: the kernel's accesses may be handled without privileges.
    pub sysctl: Option<bool>,
    /// `CAP_SYS_PTRACE` is effective. The root of a user namespace has it there alone, which is not enough.
    pub ptrace: bool,
    /// A filter of system calls is in force. It need not be about userfaultfd.
    pub seccomp: bool,
}

impl Rights {
    const CAP_SYS_PTRACE: u64 = 1 << 19;

    /// Looks.
    #[must_use]
    pub fn look() -> Self {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
        let sysctl = fs::read_to_string(SYSCTL).ok().map(|value| value.trim() != "0");
        let capabilities = u64::from_str_radix(field("CapEff:"), 16).unwrap_or(0);
        Self { sysctl, ptrace: capabilities & Self::CAP_SYS_PTRACE != 0, seccomp: field("Seccomp:") == "2" }
    }

    fn may_handle_all(self) -> bool {
        self.ptrace || self.sysctl == Some(true)
    }
}
