//! Any sequence of verbs against a map with one entry per key; `validate` and every lookup after each.
#![no_main]

#[path = "../../crates/maple/tests/naive/mod.rs"]
mod naive;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use naive::{Cell, Map, Naive, compare};
use spile_maple::{Heap, NodeAlloc, RangeTree, Token};
use spile_rcu::Global;
use std::alloc::Layout;
use std::cell::Cell as Count;
use std::ptr::NonNull;

/// The cells of a run: enough for four leaves.
const KEYS: usize = 128;

#[derive(Arbitrary, Debug)]
struct Setting {
    origin: u8,
    scale: u8,
    jump: u8,
    top: bool,
}

#[derive(Arbitrary, Debug)]
struct Step {
    verb: Verb,
    from: u8,
    len: u8,
    /// How many blocks the allocator has left, if that matters.
    blocks: Option<u8>,
}

#[derive(Arbitrary, Debug)]
enum Verb {
    Store,
    Erase,
    Reserve,
    /// Reserves memory first, then stores without any.
    StoreSurely,
    /// Splits what fills the window, and one key on each side of the cut.
    Replace,
    /// One cell each, from the window's first on: fills leaves quickly.
    StoreCells,
    Clear,
    Trim,
    Unreserve,
}

/// Gives as many blocks as it is told.
struct Stingy(Count<u64>);

thread_local! {
    static BLOCKS: Stingy = const { Stingy(Count::new(u64::MAX)) };
}

struct Blocks;

// SAFETY: (1) `Heap`'s blocks.
unsafe impl NodeAlloc for Blocks {
    fn allocate(&self, layout: Layout) -> Option<NonNull<u8>> {
        let left = BLOCKS.with(|blocks| blocks.0.replace(blocks.0.get().saturating_sub(1)));
        if left == 0 { None } else { Heap.allocate(layout) }
    }
    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: (1, 2) the caller's.
        unsafe { Heap.deallocate(block, layout) }
    }
}

fn blocks_left(blocks: u64) {
    BLOCKS.with(|stingy| stingy.0.set(blocks));
}

fuzz_target!(|input: (Setting, Vec<Step>)| {
    let (setting, steps) = input;
    let map = Map {
        origin: [0, 1 << 20, 0x5555_0000_0000][usize::from(setting.origin % 3)],
        scale: [1, 4096, 3][usize::from(setting.scale % 3)],
        jump: if setting.jump < 128 { usize::from(setting.jump) } else { KEYS },
        top: setting.top,
        keys: KEYS,
    };
    let mut tree: RangeTree<Token, Global, Blocks> = RangeTree::with(Global, Blocks);
    let mut naive = Naive::new(KEYS);
    for (n, step) in steps.iter().enumerate() {
        blocks_left(step.blocks.map_or(u64::MAX, u64::from));
        run(&mut tree, &mut naive, &map, n, step);
        let checked = tree.write_mut().validate();
        checked.unwrap_or_else(|broken| panic!("step {n}: {broken}\n{tree:?}"));
        let mut seed = n as u64 ^ u64::from(step.from) << 8;
        let below = |n: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % n
        };
        compare(&mut tree, &naive, &map, below, &format_args!("step {n}, {step:?}"));
    }
});

fn run(tree: &mut RangeTree<Token, Global, Blocks>, naive: &mut Naive, map: &Map, n: usize, step: &Step) {
    let from = usize::from(step.from) % KEYS;
    let end = (from + usize::from(step.len) % KEYS).min(KEYS - 1);
    // A range is of adjacent cells; a window may pass over the jump.
    let upto = (from..end).find(|&i| !map.adjacent(i)).unwrap_or(end);
    let (token, mut w) = (Token::new(n).unwrap(), tree.write_mut());
    let id = naive.id();
    match step.verb {
        Verb::Store => {
            let displaced = naive.displaced(from, upto).len();
            if let Ok(done) = w.store(map.span(from, upto), token) {
                assert_eq!(done.inspect(|_, _| ()), displaced);
                naive.fill(from, upto, Cell::Held(id, n));
            }
        }
        Verb::Erase => {
            let displaced = naive.displaced(from, end).len();
            if let Ok(done) = w.erase(map.span(from, end)) {
                assert_eq!(done.inspect(|_, _| ()), displaced);
                naive.fill(from, end, Cell::Free);
            }
        }
        Verb::Reserve => {
            if w.store_reserved(map.span(from, upto)).is_ok() {
                naive.fill(from, upto, Cell::Reserved(id));
            }
        }
        Verb::StoreSurely => {
            if w.reserve(map.span(from, upto), 1).is_ok() {
                blocks_left(0);
                assert!(w.store(map.span(from, upto), token).is_ok(), "there was memory");
                naive.fill(from, upto, Cell::Held(id, n));
            }
        }
        Verb::Replace => {
            let cuts = |i: usize, j: usize| matches!(naive.cells[i], Cell::Held(..)) && naive.cells[i] == naive.cells[j];
            let cut = (from > 0 && cuts(from - 1, from)) || (upto + 1 < KEYS && cuts(upto, upto + 1));
            let middle = from.midpoint(upto);
            let halves = [(map.span(from, middle), Some(token)), (map.span(upto, upto), None)];
            let refused = match upto > middle {
                true => w.replace(map.span(from, upto), halves).map(drop).is_err(),
                false => w.replace(map.span(from, upto), [(map.span(from, upto), Some(token))]).map(drop).is_err(),
            };
            assert!(refused || !cut);
            assert!(!refused || cut || step.blocks.is_some());
            if !refused {
                naive.fill(from, upto, Cell::Free);
                naive.fill(from, middle, Cell::Held(id, n));
                let other = naive.id();
                if upto > middle {
                    naive.fill(upto, upto, Cell::Reserved(other));
                }
            }
        }
        Verb::StoreCells => {
            for i in from..=upto {
                if w.store(map.span(i, i), token).is_ok() {
                    let id = naive.id();
                    naive.fill(i, i, Cell::Held(id, n));
                }
            }
        }
        Verb::Clear => {
            drop(w.clear());
            naive.cells.fill(Cell::Free);
        }
        Verb::Trim => w.trim(),
        Verb::Unreserve => w.unreserve(),
    }
}
