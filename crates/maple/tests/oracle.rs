//! Random sequences of every verb against a map with one entry per key, `validate()` after each, with allocation failure.
#![cfg(not(loom))]

use spile_maple::{Fit, Heap, NodeAlloc, RangeTree, Refused, Rejected, Span, Token};
use spile_rcu::{Global, Rcu};
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

/// One cell per key: free, reserved, or (identity of the range, value). Two neighbouring cells of one identity are one range.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Cell {
    Free,
    Reserved(u64),
    Held(u64, usize),
}

/// The key space of a run is `keys` cells mapped onto the real one by `scale` and `origin`.
struct Naive {
    cells: Vec<Cell>,
    next: u64,
}

impl Naive {
    fn ranges(&self) -> Vec<(usize, usize, Cell)> {
        let mut out: Vec<(usize, usize, Cell)> = vec![];
        for (i, &c) in self.cells.iter().enumerate() {
            match out.last_mut() {
                Some((_, last, cell)) if *cell == c => *last = i,
                _ => out.push((i, i, c)),
            }
        }
        out.retain(|r| r.2 != Cell::Free);
        out
    }
    /// Separates the identities on both sides of a window.
    fn cut(&mut self, from: usize, to: usize) {
        if from > 0 && to + 1 < self.cells.len() && self.cells[from - 1] == self.cells[to + 1] {
            let old = self.cells[to + 1];
            self.next += 1;
            let new = match old {
                Cell::Free => return,
                Cell::Reserved(_) => Cell::Reserved(self.next),
                Cell::Held(_, v) => Cell::Held(self.next, v),
            };
            for c in self.cells[to + 1..].iter_mut().take_while(|c| **c == old) {
                *c = new;
            }
        }
    }
    fn fill(&mut self, from: usize, to: usize, cell: Cell) {
        if (from..=to).all(|i| self.cells[i] == Cell::Free) && cell == Cell::Free {
            return;
        }
        self.cut(from, to);
        self.cells[from..=to].fill(cell);
    }
    fn id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

struct Map {
    origin: u64,
    scale: u64,
    /// Cells at or above this index lie far away, so that leaves become wide.
    jump: usize,
    top: bool,
    keys: usize,
}

impl Map {
    fn first(&self, i: usize) -> u64 {
        if self.top && i + 1 == self.keys {
            return u64::MAX - (self.scale - 1);
        }
        let far = if i >= self.jump { 1 << 55 } else { 0 };
        self.origin + far + i as u64 * self.scale
    }
    fn last(&self, i: usize) -> u64 {
        self.first(i) + (self.scale - 1)
    }
    /// The keys of the cells, where they are adjacent.
    fn span(&self, from: usize, to: usize) -> Span {
        Span::new(self.first(from), self.last(to)).unwrap()
    }
    fn adjacent(&self, i: usize) -> bool {
        self.last(i).checked_add(1) == Some(self.first(i + 1))
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
        let mut naive = Naive { cells: vec![Cell::Free; keys], next: 0 };
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
                    if a > 0 && !map.adjacent(a - 1) && cuts { /* the part below a jump: fine, spans are of cells */ }
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
                        w.clear();
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
            compare(&mut tree, &naive, &map, &mut rng, seed, op);
        }
    }
    assert_eq!(flaky.held.load(Relaxed), 0, "seed {seed}: blocks leaked");
    done
}

impl Naive {
    /// The held ranges wholly within the window.
    fn displaced(&self, from: usize, to: usize) -> Vec<(usize, usize, usize)> {
        let within = |r: &(usize, usize, Cell)| match r.2 {
            Cell::Held(_, v) if r.0 >= from && r.1 <= to => Some((r.0, r.1, v)),
            _ => None,
        };
        self.ranges().iter().filter_map(within).collect()
    }
}

fn compare(tree: &mut RangeTree<Token, Global, &Flaky>, naive: &Naive, map: &Map, rng: &mut Rng, seed: u64, op: usize) {
    let held: Vec<(Span, usize)> = naive
        .ranges()
        .iter()
        .filter_map(|&(a, b, c)| match c {
            Cell::Held(_, v) => Some((map.span(a, b), v)),
            _ => None,
        })
        .collect();
    let at = format!("seed {seed} op {op}");
    {
        let g = Global.read();
        let seen: Vec<_> = tree.iter(&g, Span::ALL).map(|(s, t)| (s, t.get())).collect();
        assert_eq!(seen, held, "{at}: iter");
        let mut back: Vec<_> = tree.iter(&g, Span::ALL).rev().map(|(s, t)| (s, t.get())).collect();
        back.reverse();
        assert_eq!(back, held, "{at}: iter backwards");
        for _ in 0..4 {
            let i = rng.below(naive.cells.len() as u64) as usize;
            let key = map.first(i) + rng.below(map.scale);
            let show = |e: Option<(Span, Token)>| e.map(|(s, t)| (s, t.get()));
            let covering = held.iter().find(|(s, _)| s.contains(key)).copied();
            assert_eq!(show(tree.get(&g, key)), covering, "{at}: get {key:#x}\n{tree:?}");
            assert_eq!(show(tree.find(&g, key)), held.iter().find(|(s, _)| s.last() >= key).copied(), "{at}: find");
            assert_eq!(show(tree.find_back(&g, key)), held.iter().rfind(|(s, _)| s.first() <= key).copied(), "{at}: find_back");
            assert_eq!(show(tree.next(&g, key)), held.iter().find(|(s, _)| s.first() > key).copied(), "{at}: next");
            assert_eq!(show(tree.prev(&g, key)), held.iter().rfind(|(s, _)| s.last() < key).copied(), "{at}: prev");
            let j = (i + rng.below(5) as usize).min(naive.cells.len() - 1);
            let within = map.span(i, j);
            assert_eq!(tree.is_free(&g, within), naive.cells[i..=j].iter().all(|c| *c == Cell::Free), "{at}: is_free {within}");
            let seen: Vec<_> = tree.iter(&g, within).map(|(s, _)| s).collect();
            let want: Vec<_> = held.iter().map(|h| h.0).filter(|s| s.overlaps(within)).collect();
            assert_eq!(seen, want, "{at}: iter within {within}");
            let mut ends = tree.iter(&g, within);
            let mut both = vec![];
            let mut upper = vec![];
            while let Some((s, _)) = ends.next() {
                both.push(s);
                upper.extend(ends.next_back().map(|(s, _)| s));
            }
            both.extend(upper.into_iter().rev());
            assert_eq!(both, want, "{at}: from both ends");
        }
    }
    let taken: Vec<Span> = naive.ranges().iter().map(|&(a, b, _)| map.span(a, b)).collect();
    let w = tree.write_mut();
    for _ in 0..2 {
        let align = 1u64 << rng.below(16);
        let fit = Fit::aligned(1 + rng.below(6) * map.scale, align, rng.below(align)).unwrap();
        let (i, j) = (rng.below(map.keys as u64) as usize, rng.below(map.keys as u64) as usize);
        let within = if rng.below(4) == 0 { Span::ALL } else { map.span(i.min(j), i.max(j)) };
        let (low, high) = naive_gap(&taken, fit, within);
        assert_eq!(w.lowest_gap(fit, within), low, "{at}: lowest {fit:?} in {within}");
        assert_eq!(w.highest_gap(fit, within), high, "{at}: highest {fit:?} in {within}");
    }
}

fn naive_gap(taken: &[Span], fit: Fit, within: Span) -> (Option<u64>, Option<u64>) {
    let (size, align, offset) = (fit.size() as u128, fit.align() as u128, fit.offset() as u128);
    let mut free = vec![];
    let mut from = within.first() as u128;
    for s in taken {
        if (s.last() as u128) < from {
            continue;
        }
        if s.first() > within.last() {
            break;
        }
        if (s.first() as u128) > from {
            free.push((from, s.first() as u128 - 1));
        }
        from = s.last() as u128 + 1;
    }
    if from <= within.last() as u128 {
        free.push((from, within.last() as u128));
    }
    let up = |k: u128| if k <= offset { offset } else { (k - offset).div_ceil(align) * align + offset };
    let down = |k: u128| (k >= offset).then(|| (k - offset) / align * align + offset);
    let low = free.iter().find_map(|&(a, b)| Some(up(a)).filter(|&s| s + size - 1 <= b));
    let high = free.iter().rev().find_map(|&(a, b)| down((b + 1).checked_sub(size)?).filter(|&s| s >= a));
    (low.map(|k| k as u64), high.map(|k| k as u64))
}

fn budget(normal: u64) -> u64 {
    if cfg!(miri) { 2 } else { std::env::var("SPILE_ORACLE_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(normal) }
}

#[test]
fn small_key_space() {
    let ops: usize = (0..budget(60)).map(|seed| run(seed, if cfg!(miri) { 60 } else { 400 }, 24, false)).sum();
    println!("{ops} operations");
}

#[test]
fn many_ranges() {
    let ops: usize = (1000..1000 + budget(30)).map(|seed| run(seed, if cfg!(miri) { 60 } else { 1500 }, 600, false)).sum();
    println!("{ops} operations");
}

#[test]
fn allocation_fails() {
    let ops: usize = (2000..2000 + budget(40)).map(|seed| run(seed, if cfg!(miri) { 60 } else { 800 }, 300, true)).sum();
    println!("{ops} operations");
}
