//! What is compared: something that performs calls and can be looked at.
//!
//! **Guarantee.** Whoever implements [`Subject`] can stand on either side of a comparison.
//!
//! **Mechanism.** A subject is made from a [`World`](crate::World), performs one call at a time, and is looked at in
//! between: its mappings as `/proc/self/smaps` would list them, its pages as a user access and a debugger would see them.

use crate::abi::{PAGE, errno_name};
use crate::call::Call;
use std::fmt;

/// A subject is gone: its process was killed, or it stopped answering. Not a difference, but the end of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost(pub String);

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "subject lost: {}", self.0)
    }
}

impl std::error::Error for Lost {}

/// The signal of a refused access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// Nothing is mapped there, or not for this access.
    Segv,
    /// A page past the end of what is mapped.
    Bus,
}

/// What a call came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The result of a call that succeeded; a `brk` counts from the first break.
    Done(u64),
    /// A call that failed, and with which error number.
    Failed(i32),
    /// A read or write: how many bytes before the fault, if there was one, and [`hash_bytes`] of what was read.
    Bytes {
        /// Bytes that were copied.
        count: u64,
        /// [`hash_bytes`] of the copied bytes of a read; zero for a write.
        hash: u64,
        /// What stopped it.
        fault: Option<Signal>,
    },
    /// A mapping was placed outside the window, by a choice that is not compared. The subject has unmapped it again.
    Elsewhere,
}

impl Outcome {
    /// Whether the call did what it was asked.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Done(_) | Self::Elsewhere | Self::Bytes { fault: None, .. })
    }

    /// The column of the matrix.
    pub fn column(&self) -> String {
        match self {
            Self::Done(_) | Self::Bytes { fault: None, .. } => "ok".to_string(),
            Self::Elsewhere => "elsewhere".to_string(),
            Self::Failed(errno) => errno_name(*errno),
            Self::Bytes { fault: Some(Signal::Segv), .. } => "SIGSEGV".to_string(),
            Self::Bytes { fault: Some(Signal::Bus), .. } => "SIGBUS".to_string(),
        }
    }
}

impl From<Result<u64, i32>> for Outcome {
    fn from(result: Result<u64, i32>) -> Self {
        result.map_or_else(Self::Failed, Self::Done)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(value) => write!(f, "{value:#x}"),
            Self::Failed(errno) => write!(f, "-{}", errno_name(*errno)),
            Self::Bytes { count, hash, fault: None } => write!(f, "{count} bytes, hash {hash:#x}"),
            Self::Bytes { count, hash, fault: Some(signal) } => write!(f, "{count} bytes, hash {hash:#x}, then {signal:?}"),
            Self::Elsewhere => write!(f, "elsewhere"),
        }
    }
}

macro_rules! vm_flags {
    ($($name:ident = $bit:expr, $code:literal, $doc:literal;)*) => {
        /// Flags of a mapping, as the line `VmFlags` of `/proc/self/smaps` tells them.
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct VmFlags(pub u32);

        impl VmFlags {
            $(#[doc = $doc] pub const $name: Self = Self(1 << $bit);)*
            const CODES: &[(Self, &str)] = &[$((Self::$name, $code)),*];
        }
    };
}

vm_flags! {
    READ = 0, "rd", "Readable.";
    WRITE = 1, "wr", "Writable.";
    EXEC = 2, "ex", "Executable.";
    SHARED = 3, "sh", "Writes reach the object.";
    MAY_READ = 4, "mr", "May be made readable.";
    MAY_WRITE = 5, "mw", "May be made writable.";
    MAY_EXEC = 6, "me", "May be made executable.";
    MAY_SHARE = 7, "ms", "Mapped `MAP_SHARED`, even if its file cannot be written.";
    GROWS_DOWN = 8, "gd", "Grows down when touched below.";
    LOCKED = 9, "lo", "Locked.";
    LOCK_ON_FAULT = 10, "lf", "Locked when touched.";
    SEQUENTIAL = 11, "sr", "Advised `MADV_SEQUENTIAL`.";
    RANDOM = 12, "rr", "Advised `MADV_RANDOM`.";
    DONT_FORK = 13, "dc", "Not copied by a fork.";
    ACCOUNTED = 14, "ac", "Counted as committed memory.";
    NO_RESERVE = 15, "nr", "Mapped `MAP_NORESERVE`.";
    WIPE_ON_FORK = 16, "wf", "Zero in a forked child.";
    DONT_DUMP = 17, "dd", "Not in a core dump.";
    NO_HUGE_PAGE = 18, "nh", "Mapped `MAP_STACK`, or advised `MADV_NOHUGEPAGE`.";
    SYNC = 19, "sf", "Mapped `MAP_SYNC`.";
}

impl VmFlags {
    /// Whether all of `other` are set.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` is set.
    pub fn has_any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// With `other` as well.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Without `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The flag with this two-letter code.
    pub fn of_code(code: &str) -> Option<Self> {
        Self::CODES.iter().find(|(_, known)| *known == code).map(|(flag, _)| *flag)
    }
}

impl fmt::Display for VmFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let codes: Vec<_> = Self::CODES.iter().filter(|(flag, _)| self.has(*flag)).map(|(_, code)| *code).collect();
        write!(f, "{}", codes.join(" "))
    }
}

impl fmt::Debug for VmFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}]")
    }
}

/// What lies behind a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backing {
    /// Nothing: private anonymous memory.
    Anonymous,
    /// An object of its own: shared anonymous memory. Which one is not compared, except by its bytes.
    SharedAnonymous,
    /// An object of the world, by index.
    Object(usize),
}

/// One mapping of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapLine {
    /// Its first address.
    pub start: u64,
    /// The address after it.
    pub end: u64,
    /// Its flags.
    pub flags: VmFlags,
    /// Where in the object it begins, in bytes; zero for private anonymous memory.
    pub offset: u64,
    /// What lies behind it.
    pub backing: Backing,
    /// The name of an anonymous mapping.
    pub name: Option<String>,
}

impl MapLine {
    /// The line as it would be for one page of it.
    #[must_use]
    pub fn page(&self, addr: u64) -> Self {
        let offset = if self.backing == Backing::Anonymous { 0 } else { self.offset + (addr - self.start) };
        Self { start: addr, end: addr + PAGE, offset, ..self.clone() }
    }
}

impl fmt::Display for MapLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start, end, flags, offset, backing, name } = self;
        let letter = |flag, letter| if flags.has(flag) { letter } else { '-' };
        let perms = [letter(VmFlags::READ, 'r'), letter(VmFlags::WRITE, 'w'), letter(VmFlags::EXEC, 'x')];
        let perms: String = perms.iter().collect();
        let kind = if flags.has(VmFlags::MAY_SHARE) { 's' } else { 'p' };
        write!(f, "{start:x}-{end:x} {perms}{kind} {offset:08x} {backing:?}")?;
        if let Some(name) = name {
            write!(f, " [anon:{name}]")?;
        }
        write!(f, "  ({flags})")
    }
}

/// A mapped page, looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageView {
    /// A user may read it; [`hash_bytes`] of its bytes.
    Seen(u64),
    /// A user's read is SIGSEGV; the hash of what is there all the same, if something is.
    Hidden(Option<u64>),
    /// A user's read is SIGBUS.
    Bus,
}

/// What the kernel counts for limits, within the window and the break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Pages mapped.
    pub mapped: u64,
    /// Pages that count as locked.
    pub locked: u64,
}

/// Something that performs calls.
pub trait Subject {
    /// A short name for reports.
    fn name(&self) -> &str;

    /// Performs one call.
    ///
    /// # Errors
    ///
    /// The subject is gone.
    fn perform(&mut self, call: &Call) -> Result<Outcome, Lost>;

    /// The mappings in the window, by address. Looking changes nothing.
    ///
    /// # Errors
    ///
    /// The subject is gone.
    fn maps(&mut self) -> Result<Vec<MapLine>, Lost>;

    /// The pages at these addresses, all of which are mapped. Looking changes nothing that a later call could tell.
    ///
    /// # Errors
    ///
    /// The subject is gone.
    fn pages(&mut self, addrs: &[u64]) -> Result<Vec<PageView>, Lost>;

    /// What counts against limits, if the subject keeps count.
    ///
    /// # Errors
    ///
    /// The subject is gone.
    fn counters(&mut self) -> Result<Option<Counters>, Lost> {
        Ok(None)
    }
}

/// A hash of bytes, the same in every subject. Not a secret one: it must be fast, and need no memory.
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let step = |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    let hash = words.iter().fold(bytes.len() as u64, |hash, word| step(hash, u64::from_le_bytes(*word)));
    rest.iter().fold(hash, |hash, byte| step(hash, u64::from(*byte)))
}
