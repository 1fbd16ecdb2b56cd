//! Every window around every boundary, every allocation that can fail, and the life of every handle.
#![cfg(not(loom))]

#[expect(dead_code, reason = "the other tests' parts of it")]
mod naive;

use naive::{Cell, Map, Naive, compare};
use spile_maple::{Heap, NoMemory, NodeAlloc, RangeTree, Refused, Span, Token, Unbuilt, Writer};
use spile_rcu::{Global, Rcu, RcuBox};
use std::alloc::Layout;
use std::cell::Cell as StdCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// More than fill three leaves, in the shipped sizes and in the checkers' small ones.
const RANGES: usize = if cfg!(miri) {
    9
} else if cfg!(feature = "small-nodes") {
    21
} else {
    93
};
/// Cells per range, the last of them free.
const STRIDE: usize = 4;

/// An allocator that gives `left` blocks more, and knows how many are out.
struct Counted {
    left: AtomicUsize,
    held: AtomicUsize,
}

impl Counted {
    fn plenty() -> Self {
        Self { left: AtomicUsize::new(usize::MAX), held: AtomicUsize::new(0) }
    }
}

// SAFETY: (1) `Heap`'s blocks.
unsafe impl NodeAlloc for Counted {
    fn allocate(&self, layout: Layout) -> Option<NonNull<u8>> {
        self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).ok()?;
        self.held.fetch_add(1, Relaxed);
        Heap.allocate(layout)
    }
    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        self.held.fetch_sub(1, Relaxed);
        // SAFETY: (1, 2) the caller's.
        unsafe { Heap.deallocate(block, layout) }
    }
}

fn token(n: usize) -> Token {
    Token::new(n).unwrap()
}

/// `RANGES` ranges of three cells each, a free one after each, in a tree and in the naive map.
fn start<A: NodeAlloc>(alloc: A, map: &Map) -> (RangeTree<Token, Global, A>, Naive) {
    let mut naive = Naive::new(map.keys);
    let cells = |i: usize| (i * STRIDE, i * STRIDE + STRIDE - 2);
    let ranges = (0..RANGES).map(|i| (map.span(cells(i).0, cells(i).1), token(i)));
    let tree = RangeTree::with_sorted(Global, alloc, ranges).unwrap();
    for i in 0..RANGES {
        let id = naive.id();
        naive.fill(cells(i).0, cells(i).1, Cell::Held(id, i));
    }
    (tree, naive)
}

fn flat() -> Map {
    Map { origin: 4096, scale: 1, jump: usize::MAX, top: false, keys: RANGES * STRIDE }
}

/// The verbs that take a window.
const VERBS: usize = 4;

/// Does verb `verb` to both; whether there was memory. `replace` widens its window to what it would cut.
fn act<A: NodeAlloc>(
    verb: usize,
    window: (usize, usize),
    map: &Map,
    writer: &mut Writer<'_, Token, Global, A>,
    naive: &mut Naive,
) -> Result<(), NoMemory> {
    let (from, upto) = window;
    let span = map.span(from, upto);
    let id = naive.id();
    match verb {
        0 => {
            drop(writer.store(span, token(900)).map_err(|rejected| rejected.why)?);
            naive.fill(from, upto, Cell::Held(id, 900));
        }
        1 => {
            drop(writer.erase(span)?);
            naive.fill(from, upto, Cell::Free);
        }
        2 => {
            drop(writer.store_reserved(span)?);
            naive.fill(from, upto, Cell::Reserved(id));
        }
        _ => {
            let touched = |i: usize| naive.ranges().into_iter().find(|&(a, b, _)| a <= i && i <= b);
            let from = touched(from).map_or(from, |(a, ..)| a);
            let upto = touched(upto).map_or(upto, |(_, b, _)| b);
            let pieces = [(map.span(from, from), Some(token(901))), (map.span(upto, upto), None)];
            let whole = [(map.span(from, upto), Some(token(902)))];
            let done = match upto - from {
                0 => writer.replace(map.span(from, upto), whole).map(drop).map_err(|rejected| rejected.why),
                _ => writer.replace(map.span(from, upto), pieces).map(drop).map_err(|rejected| rejected.why),
            };
            match done {
                Err(Refused::NoMemory) => return Err(NoMemory),
                other => other.unwrap(),
            }
            naive.fill(from, upto, Cell::Free);
            if from == upto {
                naive.fill(from, upto, Cell::Held(id, 902));
            } else {
                naive.fill(from, from, Cell::Held(id, 901));
                let other = naive.id();
                naive.fill(upto, upto, Cell::Reserved(other));
            }
        }
    }
    Ok(())
}

fn check<A: NodeAlloc>(tree: &mut RangeTree<Token, Global, A>, naive: &Naive, map: &Map, at: &dyn std::fmt::Display) {
    let checked = tree.write_mut().validate();
    checked.unwrap_or_else(|broken| panic!("{at}: {broken}\n{tree:?}"));
    let mut next = 7_u64;
    compare(
        tree,
        naive,
        map,
        |below| {
            next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (next >> 33) % below
        },
        at,
    );
}

/// All windows that begin anywhere and end near, and a choice of those that end far.
fn windows(keys: usize) -> impl Iterator<Item = (usize, usize)> {
    let step = if cfg!(miri) { 11 } else { 1 };
    let far = if cfg!(feature = "small-nodes") { 3 } else { 31 };
    let near = if cfg!(feature = "small-nodes") { 2 * STRIDE } else { STRIDE + 1 };
    (0..keys).step_by(step).flat_map(move |from| {
        let ends = (from..keys.min(from + near)).chain((from + near..keys).step_by(far)).chain([keys - 1]);
        ends.step_by(step).map(move |upto| (from, upto))
    })
}

#[test]
fn every_window() {
    let map = flat();
    let mut done = 0;
    for window in windows(map.keys) {
        for verb in 0..VERBS {
            let (mut tree, mut naive) = start(Heap, &map);
            act(verb, window, &map, &mut tree.write_mut(), &mut naive).unwrap();
            check(&mut tree, &naive, &map, &format_args!("verb {verb} of {window:?}"));
            done += 1;
        }
    }
    println!("{done} changes");
}

/// For each change, the first allocation fails, then the second, and so on until none does: nothing is changed, nothing is
/// lost; and after a reservation none is needed.
#[test]
fn every_allocation_fails() {
    let map = flat();
    let step = if cfg!(feature = "small-nodes") { 5 } else { 37 };
    let mut failures = 0;
    for window in windows(map.keys).step_by(step) {
        for verb in 0..VERBS {
            let alloc = Counted::plenty();
            for blocks in 0.. {
                let (mut tree, mut naive) = start(&alloc, &map);
                tree.write_mut().trim();
                alloc.left.store(blocks, Relaxed);
                let done = act(verb, window, &map, &mut tree.write_mut(), &mut naive);
                check(&mut tree, &naive, &map, &format_args!("verb {verb} of {window:?} with {blocks} blocks"));
                alloc.left.store(usize::MAX, Relaxed);
                if done.is_ok() {
                    break;
                }
                failures += 1;
            }
            assert_eq!(alloc.held.load(Relaxed), 0, "blocks leaked");
            let (mut tree, mut naive) = start(&alloc, &map);
            let mut writer = tree.write_mut();
            // What a reservation is for: `replace` may widen its window, so not that one.
            if verb < 3 {
                writer.reserve(map.span(window.0, window.1), usize::from(verb != 1)).unwrap();
                alloc.left.store(0, Relaxed);
                let done = act(verb, window, &map, &mut writer, &mut naive);
                assert_eq!(done, Ok(()), "verb {verb} of {window:?} after a reservation");
                drop(writer);
                check(&mut tree, &naive, &map, &format_args!("verb {verb} of {window:?} after a reservation"));
                alloc.left.store(usize::MAX, Relaxed);
            }
        }
    }
    println!("{failures} failures");
}

#[test]
fn every_allocation_of_a_build_fails() {
    let map = flat();
    let drops = Arc::new(AtomicUsize::new(0));
    let alloc = Counted::plenty();
    for blocks in 0.. {
        alloc.left.store(blocks, Relaxed);
        let before = drops.load(Relaxed);
        let ranges =
            (0..RANGES).map(|i| (map.span(i * STRIDE, i * STRIDE + 2), RcuBox::new(Life { drops: drops.clone(), number: i })));
        let built = RangeTree::with_sorted(Global, &alloc, ranges);
        let enough = built.is_ok();
        if let Ok(mut tree) = built {
            // The same for a copy of it.
            let writer = tree.write_mut();
            for blocks in 0.. {
                alloc.left.store(blocks, Relaxed);
                let before = drops.load(Relaxed);
                let copy = writer.duplicate(Global, &alloc, |_, life| Some(RcuBox::new(life.clone())));
                let enough = copy.is_ok();
                drop(copy);
                assert!(drops.load(Relaxed) > before, "handles of a copy were lost");
                if enough {
                    assert_eq!(drops.load(Relaxed) - before, RANGES);
                    break;
                }
            }
        } else {
            assert_eq!(built.err(), Some(Unbuilt::NoMemory));
        }
        assert!(drops.load(Relaxed) > before, "handles were lost");
        if enough {
            break;
        }
    }
    assert_eq!(alloc.held.load(Relaxed), 0, "blocks leaked");
}

#[test]
fn ascending_and_descending() {
    let count = if cfg!(miri) { 40 } else { 2_000 };
    for descending in [false, true] {
        for gap in [0, 5] {
            let mut tree: RangeTree<Token, Global> = RangeTree::new();
            let span = |i: u64| Span::with_len(i * (10 + gap), 10).unwrap();
            let order = |k: u64| if descending { count - 1 - k } else { k };
            for k in 0..count {
                let i = order(k);
                drop(tree.write_mut().store(span(i), token(i as usize)).unwrap());
                if k % 97 == 0 {
                    tree.write_mut().validate().unwrap();
                }
            }
            let section = Global.read();
            assert!(tree.iter(&section, Span::ALL).eq((0..count).map(|i| (span(i), token(i as usize)))));
            drop(section);
            let stats = tree.write_mut().stats();
            assert_eq!((stats.ranges as u64, stats.height), (count, tree.height(&Global.read())));
            for k in 0..count {
                drop(tree.write_mut().erase(span(order(k))).unwrap());
                if k % 97 == 0 {
                    tree.write_mut().validate().unwrap();
                }
            }
            assert_eq!((tree.is_empty(&Global.read()), tree.height(&Global.read())), (true, 0));
        }
    }
}

/// Spans that end at the highest key, and all of the key space, beside each other in every order.
#[test]
fn ends_of_the_key_space() {
    let interesting =
        [0, 1, 2, 1 << 31, (1 << 43) - 1, 1 << 43, u64::MAX / 2, u64::MAX / 2 + 1, u64::MAX - 4096, u64::MAX - 1, u64::MAX];
    // Miri is slow.
    for (i, &a) in interesting.iter().enumerate().step_by(if cfg!(miri) { 5 } else { 1 }) {
        for (j, &b) in interesting.iter().enumerate().skip(i) {
            for &c in &interesting[j..] {
                let mut tree: RangeTree<Token, Global> = RangeTree::new();
                let mut writer = tree.write_mut();
                let (outer, inner) = (Span::new(a, c).unwrap(), Span::new(b, c).unwrap());
                drop(writer.store(outer, token(1)).unwrap());
                assert_eq!(writer.get(c), Some((outer, token(1))));
                drop(writer.store(inner, token(2)).unwrap());
                writer.validate().unwrap();
                assert_eq!(writer.get(c), Some((inner, token(2))));
                assert_eq!(writer.get(b), Some((inner, token(2))));
                let below = (a < b).then(|| (Span::new(a, b - 1).unwrap(), token(1)));
                assert_eq!(writer.get(a), below.or(Some((inner, token(2)))));
                drop(writer.erase(inner).unwrap());
                writer.validate().unwrap();
                assert_eq!(writer.get(c), None);
                assert_eq!(writer.get(a), below);
                drop(writer.store(Span::ALL, token(3)).unwrap());
                writer.validate().unwrap();
                for key in interesting {
                    assert_eq!(writer.get(key), Some((Span::ALL, token(3))));
                }
                drop(writer.erase(Span::new(b, b).unwrap()).unwrap());
                writer.validate().unwrap();
                assert_eq!(writer.get(b), None);
            }
        }
    }
}

/// A value that counts its drops.
struct Life {
    drops: Arc<AtomicUsize>,
    number: usize,
}

thread_local! {
    static MADE: StdCell<usize> = const { StdCell::new(0) };
    static CLONES_LEFT: StdCell<usize> = const { StdCell::new(usize::MAX) };
}

impl Clone for Life {
    fn clone(&self) -> Self {
        let left = CLONES_LEFT.get();
        assert!(left > 0, "a clone that panics");
        CLONES_LEFT.set(left - 1);
        MADE.set(MADE.get() + 1);
        Self { drops: self.drops.clone(), number: self.number }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Relaxed);
    }
}

#[test]
fn each_handle_is_dropped_once() {
    let (drops, alloc) = (Arc::new(AtomicUsize::new(0)), Counted::plenty());
    let rounds = if cfg!(miri) { 150 } else { 20_000 };
    MADE.set(0);
    let mut rng = 99_u64;
    let mut below = |n: u64| {
        rng = rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (rng >> 33) % n
    };
    let make = |number| {
        MADE.set(MADE.get() + 1);
        RcuBox::new(Life { drops: drops.clone(), number })
    };
    {
        let mut tree: RangeTree<RcuBox<Life>, Global, &Counted> = RangeTree::with(Global, &alloc);
        for round in 0..rounds {
            alloc.left.store(if below(4) == 0 { below(4) as usize } else { usize::MAX }, Relaxed);
            let first = below(400);
            let span = Span::with_len(first, 1 + below(12)).unwrap();
            let mut writer = tree.write_mut();
            match below(8) {
                0..4 => drop(writer.store(span, make(round)).ok()),
                4 => drop(writer.erase(span).ok()),
                5 => drop(writer.store_reserved(span).ok()),
                6 => {
                    let halves =
                        [(Span::with_len(first, 1).unwrap(), Some(make(round))), (Span::with_len(first + 1, 1).unwrap(), None)];
                    drop(writer.replace(Span::with_len(first, 2).unwrap(), halves).ok());
                }
                _ if round % 64 == 0 => assert!(writer.clear().take().all(|(_, life)| life.number <= round)),
                _ if round % 3 == 0 => {
                    if let Ok(displaced) = writer.erase(span) {
                        // Half of them are taken; the rest is retired when the iterator is dropped.
                        drop(displaced.take().next());
                    }
                }
                _ => {
                    if let Ok(displaced) = writer.erase(span) {
                        displaced.inspect(|_, life| assert!(life.number <= round));
                    }
                }
            }
            Global.relieve();
        }
    }
    Global.barrier();
    assert_eq!(drops.load(Relaxed), MADE.get(), "every handle was dropped, and once");
    assert_eq!(alloc.held.load(Relaxed), 0, "blocks leaked");
}

/// A displaced set that is forgotten leaks its handles, and nothing else happens. (Tokens: nothing that a leak detector sees.)
#[test]
fn displaced_and_forgotten() {
    let mut tree: RangeTree<Token, Global> = RangeTree::new();
    let span = |first, last| Span::new(first, last).unwrap();
    let mut writer = tree.write_mut();
    for round in 0..20 {
        core::mem::forget(writer.store(span(round, 99), token(2)));
        core::mem::forget(writer.store(span(round, 99), token(3)));
        core::mem::forget(writer.erase(span(0, 50)));
        core::mem::forget(writer.clear());
        drop(writer.store(span(0, 99), token(4)));
        writer.trim();
        writer.validate().unwrap();
    }
    assert_eq!(writer.get(7), Some((span(0, 99), token(4))));
}

/// What the caller's code does in the middle of a verb, by unwinding, loses no handle.
#[test]
fn callers_that_unwind() {
    let drops = Arc::new(AtomicUsize::new(0));
    let make = |number| RcuBox::new(Life { drops: drops.clone(), number });
    let mut tree: RangeTree<RcuBox<Life>, Global> = RangeTree::new();
    let span = |first, last| Span::new(first, last).unwrap();
    let mut writer = tree.write_mut();
    drop(writer.store(span(0, 99), make(0)));
    drop(writer.store(span(100, 199), make(1)));

    // A clone that panics: the tree is as it was.
    CLONES_LEFT.set(0);
    let unwound = catch_unwind(AssertUnwindSafe(|| drop(writer.erase(span(10, 19)))));
    CLONES_LEFT.set(usize::MAX);
    assert!(unwound.is_err());
    writer.validate().unwrap();
    assert_eq!(writer.get(15).map(|(span, life)| (span, life.number)), Some((span(0, 99), 0)));

    // A look that panics: what it looked at, and what it did not come to, is retired.
    let unwound = catch_unwind(AssertUnwindSafe(|| writer.clear().inspect(|_, _| panic!("a look that panics"))));
    assert!(unwound.is_err());
    assert!(writer.get(15).is_none());

    // A source that panics while a tree is built.
    let source = (0..RANGES)
        .map(|i| if i + 1 < RANGES { (span(10 * i as u64, 10 * i as u64 + 9), make(i)) } else { panic!("a source that panics") });
    let alloc = Counted::plenty();
    assert!(catch_unwind(AssertUnwindSafe(|| drop(RangeTree::with_sorted(Global, &alloc, source)))).is_err());
    assert_eq!(alloc.held.load(Relaxed), 0, "blocks leaked");
    drop(writer);
    drop(tree);
    Global.barrier();
    assert_eq!(drops.load(Relaxed), 2 + RANGES - 1);
}

#[test]
#[should_panic(expected = "another RCU domain")]
fn guard_of_another_domain() {
    use spile_rcu::qsbr::{Machine, Qsbr};
    struct One;
    impl Machine for One {
        fn cpu(&self) -> usize {
            0
        }
        fn relax(&self, _: u32) {}
    }
    // SAFETY: (1) no CPU is ever asked for; (2) to (4) nobody enters.
    let [mine, other] = unsafe { [Qsbr::new(&[], One), Qsbr::new(&[], One)] };
    let tree: RangeTree<Token, _> = RangeTree::with(mine, Heap);
    let _ = tree.get(&other.read(), 0);
}
