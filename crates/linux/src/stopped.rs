//! An ioctl that stopped: which, where, after how many bytes, why, and what to do.
//!
//! **Guarantee.** It says how far the ioctl came: what lies before is done, what lies behind is as it was. It is made, copied and looked at without allocating: a signal handler may.
//!
//! **Mechanism.** The kernel's number, and what that number means of that ioctl: the same one means different things of different ones.

use std::fmt;
use std::io;

/// Which ioctl.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "these are the kernel's names")]
pub enum Call {
    Api,
    Register,
    Unregister,
    Wake,
    Copy,
    Zeropage,
    Move,
    Writeprotect,
    Continue,
    Poison,
}

impl Call {
    /// The kernel's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Api => "UFFDIO_API",
            Self::Register => "UFFDIO_REGISTER",
            Self::Unregister => "UFFDIO_UNREGISTER",
            Self::Wake => "UFFDIO_WAKE",
            Self::Copy => "UFFDIO_COPY",
            Self::Zeropage => "UFFDIO_ZEROPAGE",
            Self::Move => "UFFDIO_MOVE",
            Self::Writeprotect => "UFFDIO_WRITEPROTECT",
            Self::Continue => "UFFDIO_CONTINUE",
            Self::Poison => "UFFDIO_POISON",
        }
    }
}

/// Why an ioctl stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// There is a page already (`EEXIST`): somebody else resolved the fault, which is a normal result. Whoever waits for it is not woken by this.
    PageThere,
    /// There is no page to take bytes from: `ENOENT` of a move, `EFAULT` of the others.
    NoPage,
    /// The pages are pinned, by input or output that will end, or a fork shares them, which lasts until they are written (`EBUSY`).
    Shared,
    /// Another userfaultfd has this memory (`EBUSY` of a registration).
    Taken,
    /// It is not one mapping that is registered with this descriptor (`ENOENT`, or `EINVAL` of a move).
    NotRegistered,
    /// The mapping may not be written (`EPERM`).
    ReadOnly,
    /// An argument is not what the kernel takes: ends that are not of pages, memory of a kind or with a feature that it does not do (`EINVAL`).
    Invalid,
    /// There is no memory (`ENOMEM`).
    NoMemory,
    /// The process ends (`ESRCH`).
    Ending,
    /// Something else: see [`Stopped::error`].
    Other,
}

impl Cause {
    const fn of(call: Call, errno: i32) -> Self {
        match (errno, call) {
            (libc::EEXIST, _) => Self::PageThere,
            (libc::EFAULT, _) | (libc::ENOENT, Call::Move) => Self::NoPage,
            (libc::EBUSY, Call::Register) => Self::Taken,
            (libc::EBUSY, _) => Self::Shared,
            (libc::ENOENT, _) | (libc::EINVAL, Call::Move) => Self::NotRegistered,
            (libc::EPERM, _) => Self::ReadOnly,
            (libc::EINVAL, _) => Self::Invalid,
            (libc::ENOMEM, _) => Self::NoMemory,
            (libc::ESRCH, _) => Self::Ending,
            _ => Self::Other,
        }
    }

    const fn advice(self) -> &'static str {
        match self {
            Self::PageThere => "a page is there already: somebody resolved the fault, and whoever waits for it has to be woken",
            Self::NoPage => "there is no page to take the bytes from: bring it into memory first",
            Self::Shared => {
                "a page is pinned, or shared since a fork: wait for the input or output, or write the page; MADV_DONTFORK keeps \
                 memory from being shared"
            }
            Self::Taken => "another userfaultfd has this memory: unregister it there",
            Self::NotRegistered => {
                "this is not one mapping registered with this descriptor (a move wants private, writable, anonymous memory at both \
                 ends)"
            }
            Self::ReadOnly => "the mapping, or the file behind it, may not be written: map it so that it may",
            Self::Invalid => {
                "the kernel does not take this: ends have to be of pages, memory private or of a memfd, and the feature enabled"
            }
            Self::NoMemory => "there is no memory for it: free some, or raise the limit",
            Self::Ending => "the process is ending",
            Self::Other => "an error that this call is not known to have",
        }
    }
}

/// An ioctl that did not do all that it was asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    pub(crate) call: Call,
    pub(crate) at: u64,
    pub(crate) len: u64,
    pub(crate) done: u64,
    pub(crate) errno: i32,
}

impl Stopped {
    /// Which it was.
    #[must_use]
    pub const fn call(&self) -> Call {
        self.call
    }

    /// How many bytes it had done, from the first on.
    #[must_use]
    pub const fn done(&self) -> u64 {
        self.done
    }

    /// The first address that was not done.
    #[must_use]
    pub const fn at(&self) -> u64 {
        self.at + self.done
    }

    /// What the kernel's error means here.
    #[must_use]
    pub const fn cause(&self) -> Cause {
        Cause::of(self.call, self.errno)
    }

    /// The kernel's error.
    #[must_use]
    pub fn error(&self) -> io::Error {
        io::Error::from_raw_os_error(self.errno)
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.call.name())?;
        if self.len > 0 {
            write!(f, " at {:#x} stopped after {} of {} bytes", self.at(), self.done, self.len)?;
        }
        write!(f, ": {}: {}", self.error(), self.cause().advice())
    }
}

impl fmt::Debug for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Stopped {}
