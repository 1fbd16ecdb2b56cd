//! Walking from entry to entry, in both directions.
//!
//! **Guarantee.** Each entry that touches the range comes once, from one end or from the other.
//!
//! **Mechanism.** The list, entered by a lookup when an end is first asked for. What was walked is cut off what is left:
//! entries are disjoint, so the ends meet without knowing of each other.

use super::RbTree;
use super::arena::Link;
use crate::addr::Range;

/// The entries that touch `from..to`.
pub(super) struct Entries<'t, T> {
    tree: &'t RbTree<T>,
    from: u64,
    to: u64,
    front: Option<Link>,
    back: Option<Link>,
}

impl<'t, T> Entries<'t, T> {
    pub(super) const fn new(tree: &'t RbTree<T>, within: Range) -> Self {
        Self { tree, from: within.start(), to: within.end(), front: None, back: None }
    }
}

impl<'t, T> Iterator for Entries<'t, T> {
    type Item = (Range, &'t T);

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.front.unwrap_or_else(|| self.tree.first_above(self.from));
        let entry = self.tree.entry(at).filter(|(range, _)| range.start() < self.to)?;
        self.front = Some(self.tree.nodes[at].next);
        self.from = entry.0.end();
        Some(entry)
    }
}

impl<T> DoubleEndedIterator for Entries<'_, T> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let at = self.back.unwrap_or_else(|| self.tree.last_below(self.to));
        let entry = self.tree.entry(at).filter(|(range, _)| range.end() > self.from)?;
        self.back = Some(self.tree.nodes[at].prev);
        self.to = entry.0.start();
        Some(entry)
    }
}
