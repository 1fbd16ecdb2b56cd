//! The tree against a naive one.
//!
//! **Guarantee.** Each change of each story leaves a tree in which every rule holds and every question has the oracle's answer.
//!
//! **Mechanism.** Stories are made of seeds, in few pages so that ranges meet often. The last test breaks trees by hand: the
//! rules must notice.

use super::arena::{Link, MOST};
use super::{RbTree, validate::Broken};
use crate::addr::{PAGE, Range};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// By xorshift.
struct Random(u64);

impl Random {
    /// Below `end`, which is not 0.
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }

    /// Some pages of the first `pages`, at most `longest`.
    fn range(&mut self, pages: u64, longest: u64) -> Range {
        let start = self.below(pages);
        range(start, (start + 1 + self.below(longest)).min(pages))
    }

    /// Up to three entries in `window`, as often as not without space between them.
    fn entries(&mut self, window: Range, id: &mut u64) -> [Option<(Range, u64)>; 3] {
        let mut at = window.start() / PAGE;
        let end = window.end() / PAGE;
        core::array::from_fn(|_| {
            let start = at + self.below(2) * self.below(3);
            if start >= end || self.below(4) == 0 {
                return None;
            }
            at = if self.below(3) == 0 { end } else { start + 1 + self.below(end - start) };
            *id += 1;
            Some((range(start, at), *id))
        })
    }
}

fn range(first: u64, end: u64) -> Range {
    Range::of(first * PAGE, end * PAGE)
}

/// Entries by start.
#[derive(Default)]
struct Oracle(BTreeMap<u64, (Range, u64)>);

impl Oracle {
    fn entries(&self, within: Range) -> impl DoubleEndedIterator<Item = (Range, u64)> {
        self.0.values().copied().filter(move |(range, _)| range.overlap(within).is_some())
    }

    fn find(&self, at: u64) -> Option<(Range, u64)> {
        self.0.values().copied().find(|(range, _)| range.end() > at)
    }

    /// `window`, so much larger that no entry sticks out.
    fn widen(&self, window: Range) -> Range {
        self.entries(window).fold(window, |window, (range, _)| window.around(range))
    }

    fn replace(&mut self, window: Range, new: &[Option<(Range, u64)>]) -> Vec<u64> {
        let old: Vec<_> = self.entries(window).collect();
        self.0.retain(|_, (range, _)| range.overlap(window).is_none());
        self.0.extend(new.iter().flatten().map(|&(range, id)| (range.start(), (range, id))));
        old.into_iter().map(|(_, id)| id).collect()
    }

    fn lowest_gap(&self, len: u64, within: Range) -> Option<u64> {
        let start = self
            .entries(within)
            .fold(within.start(), |start, (range, _)| if start + len <= range.start() { start } else { start.max(range.end()) });
        (start + len <= within.end()).then_some(start)
    }

    fn highest_gap(&self, len: u64, within: Range) -> Option<u64> {
        let end = self
            .entries(within)
            .rev()
            .fold(within.end(), |end, (range, _)| if range.end() + len <= end { end } else { end.min(range.start()) });
        (within.start() + len <= end).then(|| end - len)
    }
}

/// Both, which must agree.
struct Pair {
    tree: RbTree<u64>,
    oracle: Oracle,
}

impl Pair {
    fn new() -> Self {
        Self { tree: RbTree::new(), oracle: Oracle::default() }
    }

    fn replace<const N: usize>(&mut self, window: Range, new: [Option<(Range, u64)>; N]) {
        let mut taken = Vec::new();
        self.tree.replace(window, new, |id| taken.push(id)).expect("there is memory");
        assert_eq!(taken, self.oracle.replace(window, &new));
    }

    fn agree(&self) {
        assert_eq!(self.tree.validate(), Ok(()));
        let all = range(0, 1 << 30);
        assert!(self.tree.iter(all).map(|(range, &id)| (range, id)).eq(self.oracle.entries(all)));
    }

    /// Asks for what covers `at` and what touches `within`, walking to and fro as `turns` has bits.
    fn agree_about(&self, at: u64, within: Range, len: u64, mut turns: u64) {
        let (tree, oracle) = (&self.tree, &self.oracle);
        let plain = |entry: Option<(Range, &u64)>| entry.map(|(range, &id)| (range, id));
        assert_eq!(plain(tree.find(at)), oracle.find(at));
        assert_eq!(plain(tree.get(at)), oracle.find(at).filter(|(range, _)| range.contains(at)));
        assert_eq!(tree.lowest_gap(len, within), oracle.lowest_gap(len, within));
        assert_eq!(tree.highest_gap(len, within), oracle.highest_gap(len, within));
        let (mut ours, mut theirs) = (tree.iter(within), oracle.entries(within));
        loop {
            let (our, their) = if turns & 1 == 0 { (ours.next(), theirs.next()) } else { (ours.next_back(), theirs.next_back()) };
            assert_eq!(plain(our), their);
            if their.is_none() {
                return;
            }
            turns = turns.rotate_right(1);
        }
    }
}

/// `changes` of up to `longest` pages among the first `pages`.
fn story(seed: u64, pages: u64, longest: u64, changes: u64) {
    let (mut pair, mut random, mut id) = (Pair::new(), Random(seed), 0);
    for _ in 0..changes {
        let window = pair.oracle.widen(random.range(pages, longest));
        let new = random.entries(window, &mut id);
        pair.replace(window, new);
        pair.agree();
        let (at, len) = (random.below(pages * PAGE), PAGE * (1 + random.below(6)));
        pair.agree_about(at, random.range(pages, pages), len, random.below(1 << 16));
    }
    let mut taken = Vec::new();
    pair.tree.clear(|id| taken.push(id));
    assert!(taken.into_iter().eq(pair.oracle.0.values().map(|&(_, id)| id)));
    pair.oracle = Oracle::default();
    pair.agree();
}

#[test]
fn crowded_stories() {
    (1..=40).for_each(|seed| story(seed, 12, 6, 3000));
}

#[test]
fn sparse_stories() {
    (1..=40).for_each(|seed| story(seed << 20, 48, 10, 2000));
}

#[test]
fn long_stories() {
    (1..=2).for_each(|seed| story(seed << 40, 1000, 8, 2000));
}

#[test]
fn free_space_within_all_bounds() {
    let (mut random, pages) = (Random(7), 14);
    for _ in 0..20 {
        let (mut pair, mut id) = (Pair::new(), 0);
        for _ in 0..4 {
            let window = pair.oracle.widen(random.range(pages, 5));
            pair.replace(window, random.entries(window, &mut id));
        }
        let is_free = |page: u64| pair.tree.get(page * PAGE).is_none();
        for (first, end, len) in bounds(pages) {
            let mut starts = (first..end).filter(|start| start + len <= end && (*start..start + len).all(is_free));
            let within = range(first, end);
            let (lowest, highest) = (starts.next(), starts.next_back());
            assert_eq!(pair.tree.lowest_gap(len * PAGE, within), lowest.map(|page| page * PAGE));
            assert_eq!(pair.tree.highest_gap(len * PAGE, within), highest.or(lowest).map(|page| page * PAGE));
        }
    }
}

/// Each range of the first `pages`, with each length that fits and one that does not.
fn bounds(pages: u64) -> impl Iterator<Item = (u64, u64, u64)> {
    let ranges = (0..pages).flat_map(move |first| (first + 1..=pages).map(move |end| (first, end)));
    ranges.flat_map(|(first, end)| (1..=end - first + 1).map(move |len| (first, end, len)))
}

/// Every second page of the first `2 * entries`, owned by its number.
fn comb(entries: u64) -> RbTree<u64> {
    let mut tree = RbTree::new();
    for i in 0..entries {
        let at = range(2 * i, 2 * i + 1);
        tree.replace(at, [Some((at, i))], |_| unreachable!("nothing was there")).expect("there is memory");
    }
    tree
}

#[test]
fn an_ascending_tree_is_low() {
    let tree = comb(1000);
    let way_up = |at: Link| core::iter::successors(tree.nodes.get(at), |node| tree.nodes.get(node.parent));
    let list = core::iter::successors(Some(tree.first), |&at| tree.nodes.get(at).map(|node| node.next));
    assert_eq!(list.map(|at| way_up(at).count()).max(), Some(tree.height()));
    assert!((10..=20).contains(&tree.height()) && RbTree::<u64>::new().height() == 0);
}

#[test]
fn the_same_range_again_moves_nothing() {
    let mut tree = comb(100);
    let picture = |tree: &RbTree<u64>| {
        let list = core::iter::successors(tree.nodes.get(tree.first), |node| tree.nodes.get(node.next));
        list.map(|node| (node.range, node.red, node.parent, node.children)).collect::<Vec<_>>()
    };
    let before = picture(&tree);
    for i in 0..100 {
        let at = range(2 * i, 2 * i + 1);
        tree.replace(at, [Some((at, i + 1000))], |id| assert_eq!(id, i)).expect("a node is there");
        assert_eq!(tree.get(at.start()), Some((at, &(i + 1000))));
    }
    assert_eq!(picture(&tree), before);
    assert_eq!(tree.validate(), Ok(()));
}

#[test]
fn without_memory_nothing_changes() {
    let most = MOST as u64;
    let mut tree = comb(most);
    let (all, beyond) = (range(0, 4 * most), range(2 * most, 2 * most + 1));
    let refused = tree.replace(beyond, [None, Some((beyond, 7))], |_| unreachable!("nothing is displaced"));
    assert_eq!(refused, Err([None, Some((beyond, 7))]));
    let halves = [Some((range(0, 1), 8)), Some((range(1, 2), 9))];
    assert_eq!(tree.replace(range(0, 2), halves, |_| unreachable!("nothing is displaced")), Err(halves));
    assert!(tree.reserve(1).is_err() && tree.reserve(usize::MAX).is_err());
    assert_eq!(tree.validate(), Ok(()));
    assert!(tree.iter(all).map(|(_, &id)| id).eq(0..most));

    tree.replace(range(0, 2), [Some((range(0, 2), 8))], drop).expect("what is displaced makes room");
    tree.replace(range(0, 3), [None::<(Range, u64)>; 0], drop).expect("less needs no memory");
    tree.reserve(2).expect("two went");
    assert!(tree.reserve(3).is_err());
}

#[test]
#[should_panic(expected = "none sticks out above")]
#[cfg(debug_assertions)]
fn a_window_that_cuts_an_entry_is_noticed() {
    let mut tree = RbTree::new();
    tree.replace(range(4, 8), [Some((range(4, 8), 1))], drop).expect("there is memory");
    let _ = tree.replace(range(3, 6), [Some((range(3, 4), 2))], drop);
}

/// What the rules say of a good tree after `harm` was done to its root, and to the node after.
#[track_caller]
fn harmed(harm: impl FnOnce(&mut RbTree<u64>, Link, Link), broken: Broken) {
    let mut tree = comb(20);
    assert_eq!(tree.validate(), Ok(()));
    let (root, next) = (tree.root, tree.nodes[tree.root].next);
    harm(&mut tree, root, next);
    assert_eq!(tree.validate(), Err(broken));
}

#[test]
fn the_rules_notice() {
    harmed(|tree, _, next| tree.nodes[next].red ^= true, "all ways down pass as many black nodes");
    harmed(|tree, root, _| tree.nodes[root].children.swap(0, 1), "the list begins where the tree does");
    harmed(|tree, _, next| tree.nodes[next].parent = next, "a child knows its parent");
    harmed(|tree, root, next| tree.nodes[next].children = [root; 2], "a child knows its parent");
    harmed(|tree, root, _| tree.nodes[root].children[0] = Link::NIL, "all ways down pass as many black nodes");
    harmed(|tree, root, _| tree.nodes[root].longest += PAGE, "a node knows the longest free area of its subtree");
    harmed(|tree, root, _| tree.nodes[root].before -= PAGE, "a node knows what is free below it");
    harmed(|tree, root, next| tree.nodes[root].range = tree.nodes[next].range, "a node knows what is free below it");
    harmed(|tree, root, _| tree.nodes[root].range = range(0, 1), "entries ascend, apart");
    harmed(|tree, root, _| tree.nodes[root].prev = Link::NIL, "prev is the node before");
    harmed(|tree, root, _| tree.nodes[root].next = root, "next is the node after");
    harmed(|tree, root, _| tree.last = root, "the list ends where the tree does");
    harmed(|tree, root, _| tree.nodes[root].owner = None, "what is taken is in the tree");
    harmed(|tree, root, _| assert_ne!(tree.nodes.give(root), 20), "next is the node after");
}

#[test]
fn wrong_colours_are_noticed() {
    let mut tree = comb(20);
    let red = core::iter::successors(Some(tree.first), |&at| Some(tree.nodes[at].next)).find(|&at| tree.nodes[at].red);
    let parent = tree.nodes[red.expect("a tree of twenty has red nodes")].parent;
    tree.nodes[parent].red = true;
    assert_eq!(tree.validate(), Err("no red node has a red child"));

    let mut tree = comb(1);
    tree.nodes[tree.first].red = true;
    assert_eq!(tree.validate(), Err("the root is black"));
}
