//! Random sequences of every verb against a map with one entry per key, `validate()` after each, with allocation failure.
#![cfg(not(loom))]

mod naive;

use naive::{Cell, Map, Naive, compare};
use spile_maple::{Heap, NodeAlloc, RangeTree, Refused, Rejected, Token};
use spile_rcu::Global;
use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::Relaxed};

/// An allocator that fails after a given number of blocks.
struct Flaky {
    left: AtomicI64,
    held: AtomicUsize,
}

// SAFETY: (1) `Heap`'s blocks.
unsafe impl NodeAlloc for Flaky {
    fn allocate(&self, layout: Layout) -> Option<NonNull<u8>> {
        if self.left.fetch_sub(1, Relaxed) <= 0 {
            return None;
        }
        self.held.fetch_add(1, Relaxed);
        Heap.allocate(layout)
    }
    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        self.held.fetch_sub(1, Relaxed);
        // SAFETY: (1, 2) the caller's.
        unsafe { Heap.deallocate(block, layout) }
    }
}

struct Rng(u64);
impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }
}

fn run(seed: u64, ops: usize, keys: usize, failures: bool) -> usize {
    let mut rng = Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let map = Map {
        origin: [0, 1 << 20, 0x5555_0000_0000][rng.below(3) as usize],
        scale: [1, 4096, 3][rng.below(3) as usize],
        jump: if rng.below(3) == 0 { rng.below(keys as u64) as usize } else { keys },
        top: rng.below(3) == 0,
        keys,
    };
    let flaky = Flaky { left: AtomicI64::new(i64::MAX), held: AtomicUsize::new(0) };
    let mut done = 0;
    {
        let mut tree: RangeTree<Token, Global, &Flaky> = RangeTree::with(Global, &flaky);
        let mut naive = Naive::new(keys);
        let density = [2, 8, keys as u64 / 2][rng.below(3) as usize].max(1);
        for op in 0..ops {
            let from = rng.below(keys as u64) as usize;
            let mut to = (from + rng.below(density) as usize).min(keys - 1);
            if rng.below(12) == 0 {
                to = (from + rng.below(keys as u64) as usize).min(keys - 1);
            }
            // A window may span a jump (its keys between the cells are free), a range may not.
            let mut reach = from;
            while reach < to && map.adjacent(reach) {
                reach += 1;
            }
            if failures && rng.below(3) == 0 {
                flaky.left.store(rng.below(4) as i64, Relaxed);
            } else {
                flaky.left.store(i64::MAX, Relaxed);
            }
            let mut w = tree.write_mut();
            let value = op % 1000;
            let token = Token::new(value).unwrap();
            match rng.below(12) {
                0..=3 => {
                    let span = map.span(from, reach);
                    let before = naive.displaced(from, reach);
                    match w.store(span, token) {
                        Ok(d) => {
                            let mut seen = vec![];
                            d.inspect(|s, t| seen.push((s, t.get())));
                            seen.sort();
                            let want: Vec<_> = before.iter().map(|&(a, b, v)| (map.span(a, b), v)).collect();
                            assert_eq!(seen, want, "seed {seed} op {op}: displaced by store {span}");
                            let id = naive.id();
                            naive.fill(from, reach, Cell::Held(id, value));
                        }
                        Err(Rejected { given, .. }) => assert_eq!(given, token),
                    }
                }
                4..=6 => {
                    let span = map.span(from, to);
                    let want = naive.displaced(from, to).len();
                    if let Ok(d) = w.erase(span) {
                        assert_eq!(d.inspect(|_, _| ()), want, "seed {seed} op {op}: displaced by erase {span}");
                        naive.fill(from, to, Cell::Free);
                    }
                }
                7 => {
                    if w.store_reserved(map.span(from, reach)).is_ok() {
                        let id = naive.id();
                        naive.fill(from, reach, Cell::Reserved(id));
                    }
                }
                8 | 9 => {
                    // Replace a window that cuts nothing by up to three pieces.
                    let (mut a, mut b) = (from, reach);
                    while a > 0 && naive.cells[a - 1] == naive.cells[a] && naive.cells[a] != Cell::Free {
                        a -= 1;
                    }
                    while b + 1 < keys && naive.cells[b + 1] == naive.cells[b] && naive.cells[b] != Cell::Free {
                        b += 1;
                    }
                    let cuts = (a, b) != (from, reach);
                    let cuts_held = cuts
                        && ((a != from && matches!(naive.cells[from], Cell::Held(..)))
                            || (b != reach && matches!(naive.cells[reach], Cell::Held(..))));
                    if cuts_held {
                        let refused = w.replace(map.span(from, reach), [(map.span(from, reach), Some(token))]);
                        assert!(matches!(refused.err().unwrap().why, Refused::Cuts(_)));
                    }
                    let mid = (a + b) / 2;
                    let ids = [naive.id(), naive.id(), naive.id()];
                    let ok = if b - a >= 2 && (a..b).all(|i| map.adjacent(i)) {
                        let pieces = [
                            (map.span(a, mid - 1), Some(token)),
                            (map.span(mid, mid), None),
                            (map.span(mid + 1, b), Some(token)),
                        ];
                        let ok = w.replace(map.span(a, b), pieces).is_ok();
                        if ok {
                            naive.cells[a..mid].fill(Cell::Held(ids[0], value));
                            naive.cells[mid] = Cell::Reserved(ids[1]);
                            naive.cells[mid + 1..=b].fill(Cell::Held(ids[2], value));
                        }
                        ok
                    } else if (a..b).all(|i| map.adjacent(i)) {
                        let ok = w.replace(map.span(a, b), [(map.span(a, b), Some(token))]).is_ok();
                        if ok {
                            naive.cells[a..=b].fill(Cell::Held(ids[0], value));
                        }
                        ok
                    } else {
                        true
                    };
                    assert!(ok || failures);
                }
                10 => {
                    // After a reservation the store must not fail.
                    let span = map.span(from, reach);
                    flaky.left.store(if failures { rng.below(40) as i64 } else { i64::MAX }, Relaxed);
                    if w.reserve(span, 1).is_ok() {
                        flaky.left.store(0, Relaxed);
                        let need = w.bound(span, 1);
                        drop(
                            w.store(span, token)
                                .unwrap_or_else(|_| panic!("seed {seed} op {op}: {span} failed in spite of {need:?}")),
                        );
                        let id = naive.id();
                        naive.fill(from, reach, Cell::Held(id, value));
                    }
                }
                _ => match rng.below(40) {
                    0 => {
                        drop(w.clear());
                        naive.cells.fill(Cell::Free);
                    }
                    1 => w.trim(),
                    2 => w.unreserve(),
                    _ => {}
                },
            }
            let checked = w.validate();
            drop(w);
            checked.unwrap_or_else(|e| panic!("seed {seed} op {op}: {e}\n{tree:?}"));
            done += 1;
            compare(&mut tree, &naive, &map, |n| rng.below(n), &format_args!("seed {seed} op {op}"));
        }
    }
    assert_eq!(flaky.held.load(Relaxed), 0, "seed {seed}: blocks leaked");
    done
}

fn budget(normal: u64) -> u64 {
    if cfg!(miri) { 2 } else { std::env::var("SPILE_ORACLE_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(normal) }
}

/// Runs of `ops` verbs on `keys` cells, with as many seeds from `first` on; miri sees fewer of everything.
fn runs(first: u64, seeds: u64, ops: usize, keys: usize, failures: bool) {
    let (ops, keys) = if cfg!(miri) { (40, keys.min(40)) } else { (ops, keys) };
    let ops: usize = (first..first + budget(seeds)).map(|seed| run(seed, ops, keys, failures)).sum();
    println!("{ops} operations");
}

#[test]
fn small_key_space() {
    runs(0, 60, 400, 24, false);
}

#[test]
fn many_ranges() {
    runs(1000, 30, 1500, 600, false);
}

#[test]
fn allocation_fails() {
    runs(2000, 40, 800, 300, true);
}
