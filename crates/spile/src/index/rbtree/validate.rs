//! What must be true of a tree, checked.
//!
//! **Guarantee.** A tree that passes has every property that its other modules promise.
//!
//! **Mechanism.** One pass in order through the tree, whose list of nodes is then held against the list and the array.

use super::RbTree;
use super::arena::Link;
use alloc::vec::Vec;

/// The rule that is broken.
pub(super) type Broken = &'static str;

fn rule(holds: bool, rule: Broken) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(rule) }
}

impl<T> RbTree<T> {
    /// Checks every rule of the tree.
    pub(super) fn validate(&self) -> Result<(), Broken> {
        let mut order = Vec::new();
        self.validate_below(self.root, Link::NIL, &mut order)?;
        rule(self.nodes.get(self.root).is_none_or(|root| !root.red), "the root is black")?;
        self.validate_list(&order)?;
        self.validate_arena(order.len())
    }

    /// Checks the subtree; returns how many black nodes each way down passes.
    fn validate_below(&self, at: Link, parent: Link, order: &mut Vec<Link>) -> Result<usize, Broken> {
        let Some(node) = self.nodes.get(at) else { return Ok(0) };
        rule(node.parent == parent, "a child knows its parent")?;
        rule(order.len() < self.nodes.len(), "a tree is no circle")?;
        let reds = node.children.iter().filter(|&&child| self.nodes.get(child).is_some_and(|child| child.red)).count();
        rule(!node.red || reds == 0, "no red node has a red child")?;
        let [left, right] = node.children;
        let blacks = self.validate_below(left, at, order)?;
        order.push(at);
        rule(blacks == self.validate_below(right, at, order)?, "all ways down pass as many black nodes")?;
        let below = [left, right].map(|child| self.nodes.get(child).map_or(0, |child| child.longest));
        rule(node.longest == node.before.max(below[0]).max(below[1]), "a node knows the longest free area of its subtree")?;
        Ok(blacks + usize::from(!node.red))
    }

    fn validate_list(&self, order: &[Link]) -> Result<(), Broken> {
        rule(self.first == order.first().copied().unwrap_or(Link::NIL), "the list begins where the tree does")?;
        rule(self.last == order.last().copied().unwrap_or(Link::NIL), "the list ends where the tree does")?;
        let (mut prev, mut end) = (Link::NIL, 0);
        for (i, &at) in order.iter().enumerate() {
            let node = &self.nodes[at];
            rule(node.prev == prev, "prev is the node before")?;
            rule(node.next == order.get(i + 1).copied().unwrap_or(Link::NIL), "next is the node after")?;
            rule(end <= node.range.start(), "entries ascend, apart")?;
            rule(node.before == node.range.start() - end, "a node knows what is free below it")?;
            (prev, end) = (at, node.range.end());
        }
        Ok(())
    }

    fn validate_arena(&self, entries: usize) -> Result<(), Broken> {
        rule(self.nodes.census() == (entries, entries), "what is taken is in the tree")?;
        rule(self.nodes.free().all(|node| node.owner.is_none()), "what is free has no owner")?;
        rule(self.nodes.free().count() == self.nodes.len() - entries, "what is not taken is free")
    }
}
