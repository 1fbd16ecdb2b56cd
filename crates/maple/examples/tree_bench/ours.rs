//! Ours: the tree with a number in each slot, the same with a writer that claims nothing, and the map with boxed values.

use crate::clock::Stopwatch;
use crate::contender::{Contender, Extra, Shared};
use crate::layout::Range;
use spile_maple::{Fit, Heap, RangeMap, RangeTree, Span, Token, Writer};
use spile_rcu::{Global, Rcu};
use std::hint::black_box;
use std::sync::Arc;

type Tree = RangeTree<Token, Global>;
type Hand<'t> = Writer<'t, Token, Global, Heap>;

fn span(range: Range) -> Span {
    Span::new(range.start, range.end - 1).expect("ranges are not empty")
}

fn token(range: Range) -> Token {
    Token::new(range.value as usize).expect("values are small")
}

/// From `key` up.
fn above(key: u64) -> Span {
    Span::new(key, u64::MAX).expect("no key is above the highest")
}

fn lookup(tree: &Tree, key: u64) -> Option<u64> {
    let section = Global.read();
    tree.get(&section, key).map(|(_, token)| token.get() as u64)
}

fn find(tree: &Tree, key: u64) -> Option<u64> {
    let section = Global.read();
    tree.find(&section, key).map(|(_, token)| token.get() as u64)
}

fn walk(tree: &Tree) -> (usize, u64) {
    let section = Global.read();
    let ranges = tree.iter(&section, Span::ALL);
    ranges.fold((0, 0), |(count, sum), (_, token)| (count + 1, sum + token.get() as u64))
}

fn insert(mut writer: Hand<'_>, range: Range) {
    drop(writer.store(span(range), token(range)).expect("there is memory"));
}

fn remove(mut writer: Hand<'_>, range: Range) {
    drop(writer.erase(span(range)).expect("there is memory"));
}

fn split(mut writer: Hand<'_>, range: Range) {
    let pieces = range.pieces().map(|piece| (span(piece), Some(token(piece))));
    drop(writer.replace(span(range), pieces).expect("there is memory, and the pieces fit"));
}

fn merge(mut writer: Hand<'_>, range: Range) {
    drop(writer.replace(span(range), [(span(range), Some(token(range)))]).expect("there is memory, and it fits"));
}

/// The tree, whose writers each claim it for one verb.
#[derive(Clone)]
pub struct OurTree(pub Arc<Tree>);

impl OurTree {
    fn writer(&self) -> Hand<'_> {
        self.0.try_write().expect("there is one writer")
    }
}

impl Contender for OurTree {
    const NAME: &'static str = "RangeTree";

    fn empty() -> Self {
        Self(Arc::new(Tree::new()))
    }

    #[inline]
    fn lookup(&self, key: u64) -> Option<u64> {
        lookup(&self.0, key)
    }

    #[inline]
    fn find(&self, key: u64) -> Option<u64> {
        find(&self.0, key)
    }

    fn walk(&self) -> (usize, u64) {
        walk(&self.0)
    }

    fn insert(&mut self, range: Range) {
        insert(self.writer(), range);
    }

    fn remove(&mut self, range: Range) {
        remove(self.writer(), range);
    }

    fn split(&mut self, range: Range) {
        split(self.writer(), range);
    }

    fn merge(&mut self, range: Range) {
        merge(self.writer(), range);
    }

    fn settle(&mut self, _: u64) {
        // What waits for one period, and what was retired meanwhile and waits for the next.
        for _ in 0..2 {
            self.writer().trim();
            Global.synchronize();
        }
        self.writer().trim();
    }

    fn extra(&mut self) -> Option<&mut dyn Extra> {
        Some(self)
    }
}

impl Extra for OurTree {
    fn highest_gap(&mut self, size: u64, below: u64) -> Option<u64> {
        let within = Span::new(0, below).expect("no key is below 0");
        self.writer().highest_gap(Fit::new(size).expect("a size is not zero"), within)
    }

    fn lowest_gap(&mut self, size: u64, from: u64) -> Option<u64> {
        self.writer().lowest_gap(Fit::new(size).expect("a size is not zero"), above(from))
    }

    fn duplicate(&mut self, watch: &mut Stopwatch) {
        let writer = self.writer();
        let copy = watch.time(|| writer.duplicate(Global, Heap, |_, token| Some(token)).expect("there is memory"));
        black_box(&copy);
    }

    fn build_sorted(&mut self, ranges: &[Range], watch: &mut Stopwatch) {
        let ranges = ranges.iter().map(|&range| (span(range), token(range)));
        let tree = watch.time(|| Tree::from_sorted(ranges).expect("there is memory, and they ascend"));
        black_box(&tree);
    }

    fn node_bytes(&mut self) -> usize {
        self.writer().stats().node_bytes
    }
}

impl Shared for OurTree {}

/// The tree whose owner writes, or whose callers have a lock of their own.
pub struct OurOwnedTree(Tree);

impl Contender for OurOwnedTree {
    const NAME: &'static str = "RangeTree, owned";
    const WRITES_ONLY: bool = true;

    fn empty() -> Self {
        Self(Tree::new())
    }

    #[inline]
    fn lookup(&self, key: u64) -> Option<u64> {
        lookup(&self.0, key)
    }

    #[inline]
    fn find(&self, key: u64) -> Option<u64> {
        find(&self.0, key)
    }

    fn walk(&self) -> (usize, u64) {
        walk(&self.0)
    }

    fn insert(&mut self, range: Range) {
        insert(self.0.write_mut(), range);
    }

    fn remove(&mut self, range: Range) {
        remove(self.0.write_mut(), range);
    }

    fn split(&mut self, range: Range) {
        split(self.0.write_mut(), range);
    }

    fn merge(&mut self, range: Range) {
        merge(self.0.write_mut(), range);
    }
}

/// The map: a mutex for writers, a box for each value.
#[derive(Clone)]
pub struct OurMap(Arc<RangeMap<u64>>);

impl Contender for OurMap {
    const NAME: &'static str = "RangeMap";

    fn empty() -> Self {
        Self(Arc::new(RangeMap::new()))
    }

    #[inline]
    fn lookup(&self, key: u64) -> Option<u64> {
        self.0.read().get(key).copied()
    }

    #[inline]
    fn find(&self, key: u64) -> Option<u64> {
        self.0.read().overlapping(above(key)).next().map(|(_, &value)| value)
    }

    fn walk(&self) -> (usize, u64) {
        self.0.read().iter().fold((0, 0), |(count, sum), (_, &value)| (count + 1, sum + value))
    }

    fn insert(&mut self, range: Range) {
        self.0.insert(span(range), range.value).expect("ranges are not empty");
    }

    fn remove(&mut self, range: Range) {
        self.0.remove(span(range)).expect("ranges are not empty");
    }

    fn split(&mut self, range: Range) {
        let [_, middle, _] = range.pieces();
        self.insert(middle);
    }

    fn merge(&mut self, range: Range) {
        self.insert(range);
    }

    fn settle(&mut self, _: u64) {
        Global.barrier();
    }
}

impl Shared for OurMap {}
