//! Free space: how long the longest area under a node is, and where one fits.
//!
//! **Guarantee.** The lowest (or highest) place where a [`Fit`] fits is found, exactly. With an alignment no larger than what
//! the free areas have anyway (pages), the cost is logarithmic; a larger one may pass over areas that are long enough but hold no
//! aligned place, one by one.
//!
//! **Mechanism.** A free area lies in one leaf: each leaf but the first begins with a range, so what is free between two leaves
//! ends the earlier one. An inner node knows the longest area under each child. A search goes down to the first child that can
//! hold the fit, and starts again above a leaf that disappointed it.
//!
//! The knowledge belongs to the writer: readers see ranges, not gaps.

use crate::node::{Entry, Inner, Leaf, NodePtr};
use crate::span::Span;
use core::fmt;

/// What is looked for: `size` keys whose first is `offset` above a multiple of `align`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fit {
    size: u64,
    align: u64,
    offset: u64,
}

/// A [`Fit`] asked for something that is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadFit {
    /// The size was zero.
    Empty,
    /// The alignment was not a power of two.
    Align(u64),
    /// The offset was not below the alignment.
    Offset(u64),
}

impl fmt::Display for BadFit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadFit::Empty => f.write_str("a free area of size 0 was asked for; the smallest is 1"),
            BadFit::Align(align) => write!(f, "alignment {align} is not a power of two"),
            BadFit::Offset(offset) => write!(f, "offset {offset} is not below the alignment"),
        }
    }
}

impl core::error::Error for BadFit {}

impl Fit {
    /// `size` keys anywhere.
    pub const fn new(size: u64) -> Result<Self, BadFit> {
        Self::aligned(size, 1, 0)
    }

    /// `size` keys from a first key that is `offset` above a multiple of `align`.
    pub const fn aligned(size: u64, align: u64, offset: u64) -> Result<Self, BadFit> {
        if size == 0 {
            Err(BadFit::Empty)
        } else if !align.is_power_of_two() {
            Err(BadFit::Align(align))
        } else if offset >= align {
            Err(BadFit::Offset(offset))
        } else {
            Ok(Self { size, align, offset })
        }
    }

    /// How many keys.
    pub const fn size(self) -> u64 {
        self.size
    }

    /// What the first key is aligned to.
    pub const fn align(self) -> u64 {
        self.align
    }

    /// How far above that alignment it lies.
    pub const fn offset(self) -> u64 {
        self.offset
    }

    /// The lowest first key within `area`.
    fn lowest_in(self, area: Span) -> Option<u64> {
        let up = self.offset.wrapping_sub(area.first()) & (self.align - 1);
        let first = area.first().checked_add(up)?;
        self.ends_in(first, area)
    }

    /// The highest first key within `area`.
    fn highest_in(self, area: Span) -> Option<u64> {
        let first = area.last().checked_sub(self.size - 1)?;
        let down = first.wrapping_sub(self.offset) & (self.align - 1);
        let first = first.checked_sub(down)?;
        if first < area.first() { None } else { Some(first) }
    }

    fn ends_in(self, first: u64, area: Span) -> Option<u64> {
        let last = first.checked_add(self.size - 1)?;
        if last <= area.last() { Some(first) } else { None }
    }
}

/// The longest free area among ascending `spans` that divide `part`.
pub(crate) fn longest(spans: impl Iterator<Item = Span>, part: Span) -> u64 {
    let mut longest = 0;
    // The first key not yet known to be taken; none is left beyond u64::MAX.
    let mut free_from = Some(part.first());
    for span in spans {
        longest = longest.max(free_from.map_or(0, |from| span.first() - from));
        free_from = span.last().checked_add(1);
    }
    longest.max(tail(free_from, part))
}

/// The keys of `part` from `free_from` on, at most `u64::MAX` of them.
fn tail(free_from: Option<u64>, part: Span) -> u64 {
    match free_from {
        Some(from) if from <= part.last() => (part.last() - from).saturating_add(1),
        _ => 0,
    }
}

/// The longest free area of a leaf that is to hold `entries`.
pub(crate) fn longest_among(entries: &[Entry], part: Span) -> u64 {
    longest(entries.iter().map(|e| e.span), part)
}

/// The first key after the last range under `node`; the caller is the writer and `node` is not empty.
fn end_under(mut node: NodePtr) -> Option<u64> {
    // SAFETY: (1) kinds are looked at; (2) in the tree, whose writer is the caller.
    unsafe {
        while node.is_inner() {
            let inner = node.inner();
            node = inner.child(inner.len() - 1);
        }
        node.leaf().entries().next_back()?.span.last().checked_add(1)
    }
}

/// The last leaf under `node` now reaches to `last`: its free end has grown. Returns the longest free area under `node`, of
/// which `gap` was the longest so far.
///
/// # Safety
///
/// The caller is the writer and `node` is in the tree or on its way there.
pub(crate) unsafe fn extend_end(node: NodePtr, gap: u64, last: u64) -> u64 {
    let end = end_under(node).map_or(0, |end| tail(Some(end), Span::of(0, last)));
    // SAFETY: (1) the caller's.
    unsafe { raise_along(node, end, |inner| inner.len() - 1) };
    gap.max(end)
}

/// The first leaf under `node` now begins at key 0: its free beginning has grown. As [`extend_end`].
///
/// # Safety
///
/// As for [`extend_end`].
pub(crate) unsafe fn extend_beginning(node: NodePtr, gap: u64) -> u64 {
    let mut at = node;
    // SAFETY: (1) kinds are looked at; (2) the caller's.
    let beginning = unsafe {
        while at.is_inner() {
            at = at.inner().child(0);
        }
        at.leaf().entries().next().map_or(0, |entry| entry.span.first())
    };
    // SAFETY: (1) the caller's.
    unsafe { raise_along(node, beginning, |_| 0) };
    gap.max(beginning)
}

/// # Safety
///
/// As for [`extend_end`].
unsafe fn raise_along(mut node: NodePtr, gap: u64, choose: impl Fn(&Inner) -> usize) {
    // SAFETY: (1) kinds are looked at; (2) the caller's.
    unsafe {
        while node.is_inner() {
            let inner = node.inner();
            let at = choose(inner);
            inner.set_gap(at, inner.gap(at).max(gap));
            node = inner.child(at);
        }
    }
}

/// The lowest first key of `fit` within `within`, in the tree under `root`.
///
/// # Safety
///
/// The caller is the tree's writer.
pub(crate) unsafe fn lowest(root: NodePtr, fit: Fit, within: Span) -> Option<u64> {
    let mut from = within.first();
    if root.is_null() {
        return fit.lowest_in(within);
    }
    loop {
        // SAFETY: (1) the caller is the writer.
        let (leaf, part) = unsafe {
            leaf_by(root, |inner, part| (inner.index(from.max(part.first()))..inner.len()).find(|&i| inner.gap(i) >= fit.size))
        };
        if let Some(leaf) = leaf {
            let found = areas(leaf, part, from).filter_map(|area| meet(area, within)).find_map(|area| fit.lowest_in(area));
            if found.is_some() {
                return found;
            }
        }
        from = part.last().checked_add(1).filter(|&from| from <= within.last())?;
    }
}

/// The highest first key of `fit` within `within`, in the tree under `root`.
///
/// # Safety
///
/// The caller is the tree's writer.
pub(crate) unsafe fn highest(root: NodePtr, fit: Fit, within: Span) -> Option<u64> {
    let mut from = within.last();
    if root.is_null() {
        return fit.highest_in(within);
    }
    loop {
        // SAFETY: (1) the caller is the writer.
        let (leaf, part) = unsafe {
            leaf_by(root, |inner, part| (0..=inner.index(from.min(part.last()))).rev().find(|&i| inner.gap(i) >= fit.size))
        };
        if let Some(leaf) = leaf {
            let found = areas_down(leaf, part, from).filter_map(|area| meet(area, within)).find_map(|area| fit.highest_in(area));
            if found.is_some() {
                return found;
            }
        }
        from = part.first().checked_sub(1).filter(|&from| from >= within.first())?;
    }
}

fn meet(a: Span, b: Span) -> Option<Span> {
    Span::new(a.first().max(b.first()), a.last().min(b.last()))
}

/// The leaf that `choose` leads to (a node and its part of the key space, to a child), with its part; or no leaf, and the part of the
/// node where no child was chosen.
///
/// # Safety
///
/// The caller is the tree's writer.
unsafe fn leaf_by<'t>(root: NodePtr, choose: impl Fn(&Inner, Span) -> Option<usize>) -> (Option<Leaf<'t>>, Span) {
    let (mut node, mut part) = (root, Span::ALL);
    // SAFETY: (1) kinds are looked at; (2) in the tree, whose writer is the caller.
    unsafe {
        while node.is_inner() {
            let inner = node.inner();
            let Some(at) = choose(inner, part) else { return (None, part) };
            let first = if at > 0 { inner.pivot(at - 1) + 1 } else { part.first() };
            let last = if at + 1 < inner.len() { inner.pivot(at) } else { part.last() };
            part = Span::of(first, last);
            node = inner.child(at);
        }
        (Some(node.leaf()), part)
    }
}

/// The free areas of a leaf, ascending, from the one that holds `from` or follows it.
fn areas<'t>(leaf: Leaf<'t>, part: Span, from: u64) -> impl Iterator<Item = Span> + 't {
    let start = leaf.index(from);
    let before = (0..start).rev().find_map(|i| leaf.live(i));
    let mut free_from = before.map_or(Some(part.first()), |entry| entry.span.last().checked_add(1));
    (start..leaf.len() + 1).filter_map(move |i| {
        let entry = leaf.live(i);
        if entry.is_none() && i < leaf.len() {
            return None;
        }
        let upto = entry.map_or(Some(part.last()), |entry| entry.span.first().checked_sub(1));
        let area = free_from.zip(upto).and_then(|(from, upto)| Span::new(from, upto));
        free_from = entry.and_then(|entry| entry.span.last().checked_add(1));
        area
    })
}

/// The free areas of a leaf, descending, from the one that holds `from` or precedes it.
fn areas_down<'t>(leaf: Leaf<'t>, part: Span, from: u64) -> impl Iterator<Item = Span> + 't {
    let start = (leaf.index(from) + 1).min(leaf.len());
    let after = (start..leaf.len()).find_map(|i| leaf.live(i));
    let mut free_to = after.map_or(Some(part.last()), |entry| entry.span.first().checked_sub(1));
    (0..start + 1).rev().filter_map(move |i| {
        let entry = i.checked_sub(1).and_then(|i| leaf.live(i));
        if entry.is_none() && i > 0 {
            return None;
        }
        let from = entry.map_or(Some(part.first()), |entry| entry.span.last().checked_add(1));
        let area = from.zip(free_to).and_then(|(from, to)| Span::new(from, to));
        free_to = entry.and_then(|entry| entry.span.first().checked_sub(1));
        area
    })
}
