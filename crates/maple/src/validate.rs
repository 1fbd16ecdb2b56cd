//! What must be true of a tree, checked; how much memory it takes; and a picture of it.

use crate::handle::Handle;
use crate::node::{self, LEAF, NodePtr, shows};
use crate::span::Span;
use crate::stock::NodeAlloc;
use crate::tree::RangeTree;
use crate::writer::Writer;
use core::fmt;
use spile_rcu::Rcu;

/// A rule of the tree that does not hold: a bug in this crate, or memory that was overwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The rule.
    pub rule: &'static str,
    /// The part of the key space of the node that breaks it.
    pub part: Span,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "in the node of {}: {}", self.part, self.rule)
    }
}

impl core::error::Error for Broken {}

/// The size of a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Ranges, reserved ones included.
    pub ranges: usize,
    /// Levels of nodes, the leaves included.
    pub height: usize,
    /// Leaves with keys as offsets, of 512 bytes.
    pub narrow_leaves: usize,
    /// Leaves with whole keys, of 768 bytes.
    pub wide_leaves: usize,
    /// Inner nodes, of 768 bytes.
    pub inner_nodes: usize,
    /// Bytes of the nodes in the tree.
    pub node_bytes: usize,
    /// Bytes kept free for later changes.
    pub free_bytes: usize,
    /// Bytes of replaced nodes that readers may still be in.
    pub retired_bytes: usize,
}

impl<H: Handle, R: Rcu, A: NodeAlloc> Writer<'_, H, R, A> {
    /// Checks every rule of the tree: order, apartness, parts, free space, heights.
    ///
    /// # Errors
    ///
    /// The first rule that is [`Broken`].
    pub fn validate(&self) -> Result<(), Broken> {
        let root = NodePtr::from_raw(node::own(&self.tree().root));
        if root.is_null() {
            return Ok(());
        }
        let mut leaf_depth = None;
        check(root, Span::ALL, 0, &mut leaf_depth).map(|_| ())
    }

    /// Counts nodes and bytes. Linear in the tree.
    pub fn stats(&mut self) -> Stats {
        let mut stats = Stats::default();
        let root = NodePtr::from_raw(node::own(&self.tree().root));
        if !root.is_null() {
            count(root, 1, &mut stats);
        }
        (stats.free_bytes, stats.retired_bytes) = self.stock_bytes();
        stats
    }
}

/// Checks the node of `part`; returns its longest free area.
fn check(node: NodePtr, part: Span, depth: usize, leaf_depth: &mut Option<usize>) -> Result<u64, Broken> {
    let rule = |holds: bool, rule: &'static str| if holds { Ok(()) } else { Err(Broken { rule, part }) };
    // SAFETY: (1) kinds are looked at; (2) in the tree, whose writer calls.
    unsafe {
        if !node.is_inner() {
            rule(*leaf_depth.get_or_insert(depth) == depth, "all leaves are equally deep")?;
            let leaf = node.leaf();
            rule((1..=LEAF).contains(&leaf.len()), "a leaf has 1 to LEAF entries")?;
            let spans = || (0..leaf.len()).map(|i| leaf.span(i));
            rule(spans().zip(spans().skip(1)).all(|(a, b)| a.last() < b.first()), "entries ascend, apart")?;
            rule(spans().all(|span| part.covers(span)), "entries lie in their leaf's part")?;
            rule(leaf.entries().next().is_some() || depth == 0, "a leaf below a parent is not all erased")?;
            let begins =
                !leaf.slot(0).load(spile_sync::atomic::Ordering::Relaxed).is_null() && leaf.span(0).first() == part.first();
            rule(begins || part.first() == 0, "every leaf but the first begins with a range")?;
            return Ok(leaf.longest_gap(part));
        }
        let inner = node.inner();
        let mut first = part.first();
        let mut longest = 0;
        for i in 0..inner.len() {
            let last = if i + 1 < inner.len() { inner.pivot(i) } else { part.last() };
            rule(first <= last && last <= part.last(), "children ascend within their parent's part")?;
            let free = check(inner.child(i), Span::of(first, last), depth + 1, leaf_depth)?;
            rule(free == inner.gap(i), "a node knows the longest free area under each child")?;
            longest = longest.max(free);
            first = last.wrapping_add(1);
        }
        Ok(longest)
    }
}

fn count(node: NodePtr, depth: usize, stats: &mut Stats) {
    stats.height = stats.height.max(depth);
    stats.node_bytes += node.kind().class().layout().size();
    // SAFETY: (1) kinds are looked at; (2) in the tree, whose writer calls.
    unsafe {
        match node.kind() {
            node::Kind::Inner => {
                stats.inner_nodes += 1;
                let inner = node.inner();
                (0..inner.len()).for_each(|i| count(inner.child(i), depth + 1, stats));
            }
            node::Kind::Narrow => stats.narrow_leaves += 1,
            node::Kind::Wide => stats.wide_leaves += 1,
        }
        if !node.is_inner() {
            stats.ranges += node.leaf().entries().count();
        }
    }
}

/// Draws the tree: a line per node, indented by depth, with its part of the key space, and a line per range.
impl<H: Handle, R: Rcu, A: NodeAlloc> fmt::Debug for RangeTree<H, R, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let section = self.rcu.read();
        let root = NodePtr::from_raw(node::load(&self.root));
        if root.is_null() {
            f.write_str("(empty)")?;
        } else {
            draw(f, root, Span::ALL, 0)?;
        }
        drop(section);
        Ok(())
    }
}

fn draw(f: &mut fmt::Formatter<'_>, node: NodePtr, part: Span, depth: usize) -> fmt::Result {
    let indent = 2 * depth;
    // SAFETY: (1) kinds are looked at; (2) reached under the caller's section.
    unsafe {
        if !node.is_inner() {
            let leaf = node.leaf();
            writeln!(f, "{:indent$}{:?} leaf of {part}, {} of {LEAF}", "", node.kind(), leaf.len())?;
            for entry in (0..leaf.len()).map(|i| leaf.entry(i)) {
                let what = if shows(entry.raw) {
                    "range"
                } else if entry.raw.is_null() {
                    "erased"
                } else {
                    "reserved"
                };
                writeln!(f, "{:indent$}  {} {what}", "", entry.span)?;
            }
            return Ok(());
        }
        let inner = node.inner();
        writeln!(f, "{:indent$}inner node of {part}, {} children", "", inner.len())?;
        let mut first = part.first();
        for i in 0..inner.len() {
            let last = if i + 1 < inner.len() { inner.pivot(i) } else { part.last() };
            draw(f, inner.child(i), Span::of(first, last), depth + 1)?;
            first = last.wrapping_add(1);
        }
        Ok(())
    }
}
