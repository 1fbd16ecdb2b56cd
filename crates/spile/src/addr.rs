//! Pages, ranges of pages, frames.

use core::fmt;
use spile_maple::Span;

/// log2 of the size of a page in bytes.
pub const PAGE_SHIFT: u32 = 12;
/// The size of a page in bytes.
pub const PAGE: u64 = 1 << PAGE_SHIFT;

/// The first address above what page tables of this build can map: 2^48 with four levels of 512 entries.
pub const TABLE_END: u64 = 1 << (PAGE_SHIFT + crate::paging::BITS * crate::paging::LEVELS as u32);

/// Some whole pages of an address space.
///
/// Having a `Range` tells you: both ends are page-aligned, it is not empty, and it ends at or below [`TABLE_END`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    start: u64,
    end: u64,
}

/// Why two numbers are no [`Range`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRange {
    /// This end is not a multiple of [`PAGE`].
    Unaligned(u64),
    /// The end is not above the start, which is this.
    Empty(u64),
    /// This end is above [`TABLE_END`].
    Beyond(u64),
}

impl fmt::Display for BadRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadRange::Unaligned(at) => write!(f, "{at:#x} is not a multiple of the page size, {PAGE:#x}"),
            BadRange::Empty(start) => write!(f, "the range at {start:#x} is empty or inverted"),
            BadRange::Beyond(end) => write!(f, "{end:#x} is above {TABLE_END:#x}, the end of what page tables can map"),
        }
    }
}

impl core::error::Error for BadRange {}

impl Range {
    /// All that tables can map.
    pub const EVERYTHING: Self = Self { start: 0, end: TABLE_END };

    /// `start..end`.
    ///
    /// # Errors
    ///
    /// As [`BadRange`] says.
    pub const fn new(start: u64, end: u64) -> Result<Self, BadRange> {
        if !start.is_multiple_of(PAGE) {
            return Err(BadRange::Unaligned(start));
        }
        if !end.is_multiple_of(PAGE) {
            return Err(BadRange::Unaligned(end));
        }
        if start >= end {
            return Err(BadRange::Empty(start));
        }
        if end > TABLE_END {
            return Err(BadRange::Beyond(end));
        }
        Ok(Self { start, end })
    }

    /// `len` bytes from `start`.
    ///
    /// # Errors
    ///
    /// As [`BadRange`] says; an end that does not fit into 64 bits is `Beyond`.
    pub const fn with_len(start: u64, len: u64) -> Result<Self, BadRange> {
        match start.checked_add(len) {
            Some(end) => Self::new(start, end),
            None => Err(BadRange::Beyond(u64::MAX)),
        }
    }

    /// The page around `at`, which is below [`TABLE_END`].
    pub const fn page_of(at: u64) -> Self {
        let start = at & !(PAGE - 1);
        Self::of(start, start.saturating_add(PAGE))
    }

    /// For callers that know. Who is wrong is stopped: beyond its end the tables would show other addresses.
    pub(crate) const fn of(start: u64, end: u64) -> Self {
        assert!(start < end && start.is_multiple_of(PAGE) && end.is_multiple_of(PAGE) && end <= TABLE_END, "no range of pages");
        Self { start, end }
    }

    pub(crate) fn span(self) -> Span {
        Span::new(self.start, self.end - 1).expect("a range is not empty")
    }

    /// The address of the first byte.
    pub const fn start(self) -> u64 {
        self.start
    }

    /// One past the address of the last byte.
    pub const fn end(self) -> u64 {
        self.end
    }

    /// The length in bytes.
    #[allow(clippy::len_without_is_empty, reason = "a range is never empty")]
    pub const fn len(self) -> u64 {
        self.end - self.start
    }

    /// The length in pages.
    pub const fn pages(self) -> u64 {
        self.len() >> PAGE_SHIFT
    }

    /// Whether `at` lies in it.
    pub const fn contains(self, at: u64) -> bool {
        self.start <= at && at < self.end
    }

    /// Whether all of `other` lies in it.
    pub const fn covers(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// What both have, if anything.
    pub fn overlap(self, other: Self) -> Option<Self> {
        let (start, end) = (self.start.max(other.start), self.end.min(other.end));
        (start < end).then(|| Self::of(start, end))
    }

    /// The smallest range around both.
    pub(crate) fn around(self, other: Self) -> Self {
        Self::of(self.start.min(other.start), self.end.max(other.end))
    }

    /// With a page on each side: whatever touches it overlaps that.
    pub(crate) fn with_neighbours(self) -> Self {
        Self::of(self.start.saturating_sub(PAGE), self.end.saturating_add(PAGE).min(TABLE_END))
    }

    /// What of it lies below `at`, which is page-aligned.
    pub(crate) fn below(self, at: u64) -> Option<Self> {
        (self.start < at).then(|| Self::of(self.start, self.end.min(at)))
    }

    /// What of it lies at and above `at`, which is page-aligned.
    pub(crate) fn above(self, at: u64) -> Option<Self> {
        (self.end > at).then(|| Self::of(self.start.max(at), self.end))
    }
}

impl fmt::Debug for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start, self.end)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A place to which a page can go when there is no room for it, by its number in its [`SwapArea`](crate::backing::SwapArea).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// A page of memory, by its number at the platform.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameId(pub u32);

impl fmt::Debug for FrameId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "F{:x}", self.0)
    }
}

/// An address space, by its number in [`Shared`](crate::Shared). Never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpaceId(pub u64);

impl fmt::Debug for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mm{}", self.0)
    }
}

/// What may be done with memory: any of read, write, execute. The bits are Linux's `PROT_*`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prot(u8);

impl Prot {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Read.
    pub const R: Self = Self(1);
    /// Write.
    pub const W: Self = Self(2);
    /// Read and write.
    pub const RW: Self = Self(3);
    /// Execute.
    pub const X: Self = Self(4);

    /// From bits; bits above the lowest three are ignored.
    pub const fn from_bits(bits: u32) -> Self {
        Self((bits & 7) as u8)
    }

    /// The bits.
    pub const fn bits(self) -> u32 {
        self.0 as u32
    }

    /// Both together.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// All of it but `other`.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of `other` is in it.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl fmt::Debug for Prot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = |prot, letter| if self.has(prot) { letter } else { '-' };
        write!(f, "{}{}{}", letter(Prot::R, 'r'), letter(Prot::W, 'w'), letter(Prot::X, 'x'))
    }
}

/// What an access wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To load.
    Read,
    /// To store.
    Write,
    /// To fetch an instruction.
    Exec,
}

impl Access {
    /// Whether an entry of `prot` lets it.
    pub const fn allowed_by(self, prot: Prot) -> bool {
        match self {
            Access::Read => prot.has(Prot::R),
            Access::Write => prot.has(Prot::W),
            Access::Exec => prot.has(Prot::X),
        }
    }
}
