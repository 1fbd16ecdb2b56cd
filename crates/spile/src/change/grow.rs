//! grow: a mapping that grows down takes in the page below it.

use super::{Change, Joins, New, NoMemory, Whose};
use crate::addr::{PAGE, Range};
use crate::locking::Locking;
use crate::platform::Platform;
use crate::vma::Flags;

/// Why a mapping did not grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ungrown {
    /// Nothing there grows, something else is too near below it, or a limit is reached.
    Refused,
    /// There was no memory.
    NoMemory,
}

impl<P: Platform, L: Locking> Change<'_, P, L> {
    /// Lets the mapping above `at` grow down to the page of `at`. `Ok` also if somebody else has mapped it meanwhile. Between it and
    /// a mapping below that neither grows nor is inaccessible there must stay `gap` bytes.
    ///
    /// # Errors
    ///
    /// [`Ungrown`]; nothing was changed.
    pub(crate) fn grow(&mut self, at: u64, gap: u64, allowed: impl FnOnce(Range, u64, Flags) -> bool) -> Result<(), Ungrown> {
        let page = Range::page_of(at);
        if self.at(at).is_some() {
            return Ok(());
        }
        let above = Range::of(page.start(), crate::addr::TABLE_END);
        let Some(vma) = self.first(above).filter(|vma| vma.attr().flags.has(Flags::GROWS_DOWN)) else {
            return Err(Ungrown::Refused);
        };
        let added = Range::of(page.start(), vma.range().start());
        let below = (page.start() > 0).then(|| Range::of(page.start().saturating_sub(gap.max(PAGE)) / PAGE * PAGE, page.start()));
        let too_near = below
            .and_then(|below| self.iter(below).next_back())
            .is_some_and(|below| !below.attr().flags.has(Flags::GROWS_DOWN) && below.attr().prot.bits() != 0);
        if too_near && gap > 0 {
            return Err(Ungrown::Refused);
        }
        // What grows is somebody's, even before it is written, and even if it may not grow.
        self.identify(vma);
        if vma.attr().backing.page() < added.pages() || !allowed(added, vma.range().len() + added.len(), vma.attr().flags) {
            return Err(Ungrown::Refused);
        }
        let whole = Range::of(added.start(), vma.range().end());
        let attr = vma.attr().lower(added.len());
        self.replace(whole, Some(&New::of(attr, Whose::TheOlds)), Joins::None).map(drop).map_err(|NoMemory| Ungrown::NoMemory)
    }
}
