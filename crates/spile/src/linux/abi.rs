//! Numbers of the system call interface.

use crate::change::NoMemory;
use core::fmt;

/// Why a call failed, by Linux's number.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

macro_rules! errno {
    ($($name:ident = $number:literal, $words:literal;)*) => {
        impl Errno {
            $(#[doc = $words] pub const $name: Self = Self($number);)*
        }

        impl fmt::Debug for Errno {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0 {
                    $($number => f.write_str(stringify!($name)),)*
                    other => write!(f, "errno {other}"),
                }
            }
        }

        impl fmt::Display for Errno {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0 {
                    $($number => f.write_str(concat!(stringify!($name), ": ", $words)),)*
                    other => write!(f, "errno {other}"),
                }
            }
        }
    };
}

errno! {
    EPERM = 1, "not allowed to this process";
    EIO = 5, "the contents could not be read or written";
    EBADF = 9, "no file was given";
    EAGAIN = 11, "a limit on locked memory is reached, or memory could not be locked";
    ENOMEM = 12, "no memory, no space, a limit is reached, or part of the range is not mapped";
    EACCES = 13, "the file was not opened for this";
    EFAULT = 14, "nothing is mapped at the address";
    EBUSY = 16, "part of the range is locked";
    EEXIST = 17, "something is mapped there";
    ENODEV = 19, "the file cannot be mapped";
    EINVAL = 22, "a number is not aligned, out of range, or not known";
    EOVERFLOW = 75, "the offset lies beyond what a file can have";
    EOPNOTSUPP = 95, "a flag is not known to this file";
}

impl core::error::Error for Errno {}

impl From<NoMemory> for Errno {
    fn from(_: NoMemory) -> Self {
        Errno::ENOMEM
    }
}

/// `PROT_*`.
#[allow(missing_docs, reason = "Linux's names and numbers")]
pub mod prot {
    pub const READ: u32 = 1;
    pub const WRITE: u32 = 2;
    pub const EXEC: u32 = 4;
    pub const SEM: u32 = 8;
    pub const GROWSDOWN: u32 = 0x0100_0000;
    pub const GROWSUP: u32 = 0x0200_0000;
}

/// `MAP_*`.
#[allow(missing_docs, reason = "Linux's names and numbers")]
pub mod map {
    pub const SHARED: u32 = 1;
    pub const PRIVATE: u32 = 2;
    pub const SHARED_VALIDATE: u32 = 3;
    pub const TYPE: u32 = 0xf;
    pub const FIXED: u32 = 0x10;
    pub const ANONYMOUS: u32 = 0x20;
    pub const GROWSDOWN: u32 = 0x100;
    pub const LOCKED: u32 = 0x2000;
    pub const NORESERVE: u32 = 0x4000;
    pub const POPULATE: u32 = 0x8000;
    pub const NONBLOCK: u32 = 0x1_0000;
    pub const STACK: u32 = 0x2_0000;
    pub const SYNC: u32 = 0x8_0000;
    pub const FIXED_NOREPLACE: u32 = 0x10_0000;
    /// What `MAP_SHARED_VALIDATE` knows without help of a file.
    pub(crate) const LEGACY: u32 = 0x7c07_f9f3;
}
