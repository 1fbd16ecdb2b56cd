//! A range of keys.

use core::fmt;
use core::ops::{Range, RangeInclusive};

/// The keys from `first` to `last`, both included, so that `0..=u64::MAX` can be said.
///
/// Having a `Span` tells you: it is not empty and not inverted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    first: u64,
    last: u64,
}

/// A range was empty or inverted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmptySpan;

impl Span {
    /// Every key.
    pub const ALL: Self = Self { first: 0, last: u64::MAX };

    /// `first..=last`, unless `first > last`.
    pub const fn new(first: u64, last: u64) -> Option<Self> {
        if first <= last { Some(Self { first, last }) } else { None }
    }

    /// `first..=first + (len - 1)`, unless `len` is zero or the end lies beyond `u64::MAX`.
    pub const fn with_len(first: u64, len: u64) -> Option<Self> {
        if len == 0 {
            return None;
        }
        match first.checked_add(len - 1) {
            Some(last) => Some(Self { first, last }),
            None => None,
        }
    }

    /// For callers that have just compared the two.
    pub(crate) const fn of(first: u64, last: u64) -> Self {
        debug_assert!(first <= last);
        Self { first, last }
    }

    /// The lowest key.
    pub const fn first(self) -> u64 {
        self.first
    }

    /// The highest key.
    pub const fn last(self) -> u64 {
        self.last
    }

    /// The number of keys, or `u64::MAX` where it does not fit (for [`Span::ALL`] alone).
    pub const fn len(self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }

    /// Never: a span holds at least one key.
    pub const fn is_empty(self) -> bool {
        false
    }

    /// Whether `key` lies in it.
    pub const fn contains(self, key: u64) -> bool {
        self.first <= key && key <= self.last
    }

    /// Whether all of `other` lies in it.
    pub const fn covers(self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// Whether they share a key.
    pub const fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl TryFrom<Range<u64>> for Span {
    type Error = EmptySpan;
    fn try_from(range: Range<u64>) -> Result<Self, EmptySpan> {
        if range.start < range.end { Ok(Self::of(range.start, range.end - 1)) } else { Err(EmptySpan) }
    }
}

impl TryFrom<RangeInclusive<u64>> for Span {
    type Error = EmptySpan;
    fn try_from(range: RangeInclusive<u64>) -> Result<Self, EmptySpan> {
        if range.is_empty() { Err(EmptySpan) } else { Ok(Self::of(*range.start(), *range.end())) }
    }
}

impl From<core::convert::Infallible> for EmptySpan {
    fn from(never: core::convert::Infallible) -> Self {
        match never {}
    }
}

impl From<Span> for RangeInclusive<u64> {
    fn from(span: Span) -> Self {
        span.first..=span.last
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..={:#x}", self.first, self.last)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl fmt::Display for EmptySpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the range is empty or inverted: its first key must not be above its last")
    }
}

impl core::error::Error for EmptySpan {}
