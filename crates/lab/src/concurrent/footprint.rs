//! What steps reach, and which of them meet.
//!
//! **Guarantee.** If two steps do not meet, their order makes no difference to what is mapped, and none to which anonymous pages are in memory. (Which pages of
//! files a fault finds in memory around its own is a matter of luck.)

use super::free::Renaming;
use spile::PAGE;

/// What a step reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// The address space.
    mm: usize,
    /// The copy that it makes.
    copy: Option<usize>,
    reach: Reach,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Reach {
    Spans(Box<[Span]>),
    Everything,
}

/// From one address to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// What the addresses are in: an area of the address space that moves as a whole; 0 where nothing moves.
    pub(super) area: u32,
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) changes: bool,
}

impl Span {
    fn meets(&self, other: &Self) -> bool {
        self.area == other.area && (self.changes || other.changes) && self.from <= other.to && other.from <= self.to
    }
}

/// Where `len` bytes from `at` on end, in whole pages.
pub(super) fn end_of(at: u64, len: u64) -> u64 {
    at.saturating_add(len).checked_next_multiple_of(PAGE).unwrap_or(u64::MAX)
}

impl Footprint {
    pub(super) fn everything(mm: usize, copy: Option<usize>) -> Self {
        Self { mm, copy, reach: Reach::Everything }
    }

    pub(super) fn spans(mm: usize, spans: Vec<Span>) -> Self {
        Self { mm, copy: None, reach: Reach::Spans(spans.into()) }
    }

    /// Whether the order of the two matters.
    pub(super) fn meets(&self, other: &Self) -> bool {
        // A copy has no steps before it is made, and everything of it comes after.
        let one_space = self.mm == other.mm || other.copy == Some(self.mm);
        one_space
            && match (&self.reach, &other.reach) {
                (Reach::Spans(ours), Reach::Spans(theirs)) => {
                    ours.iter().any(|span| theirs.iter().any(|other| span.meets(other)))
                }
                _ => true,
            }
    }
}

/// The footprints of a recording's steps, and what they need.
#[derive(Debug)]
pub struct Footprints {
    /// Of each step.
    pub(super) steps: Vec<Footprint>,
    /// Frames and tables that are in use at most, as far as is known.
    pub(super) frames: u32,
    /// Faults that are denied, one step after the other.
    pub(super) denied: usize,
    /// Where areas are placed anew, how.
    pub(super) renaming: Option<Renaming>,
}

impl Footprints {
    /// Steps at these places are taken to reach nothing: for tests of who looks.
    #[doc(hidden)]
    pub fn forget(&mut self, which: impl Fn(usize) -> bool) {
        for (_, step) in self.steps.iter_mut().enumerate().filter(|(at, _)| which(*at)) {
            step.reach = Reach::Spans(Box::default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(from: u64, to: u64, changes: bool) -> Footprint {
        Footprint::spans(1, vec![Span { area: 0, from, to, changes }])
    }

    #[test]
    fn who_changes_meets_and_who_looks_does_not() {
        let change = span(0x2000, 0x4000, true);
        assert!(change.meets(&span(0x4000, 0x5000, true)), "they may merge");
        assert!(!change.meets(&span(0x5000, 0x6000, true)));
        assert!(change.meets(&span(0x2001, 0x2001, false)) && !change.meets(&span(0x4001, 0x4001, false)));
        assert!(!span(1, 1, false).meets(&span(1, 1, false)), "two faults on a page are in no order");
        assert!(
            !change.meets(&Footprint::spans(1, vec![Span { area: 1, from: 0x2000, to: 0x3000, changes: true }])),
            "another area"
        );
    }

    #[test]
    fn a_copy_comes_first() {
        let elsewhere = Footprint::spans(2, vec![Span { area: 0, from: 1, to: 1, changes: false }]);
        let fork = Footprint::everything(1, Some(2));
        assert!(elsewhere.meets(&fork) && span(1, 1, false).meets(&fork));
        assert!(!elsewhere.meets(&span(1, 1, true)), "another space");
    }
}
