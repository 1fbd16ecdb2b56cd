//! A map with one cell per key, and what the tree must agree with it about.

use spile_maple::{Fit, NodeAlloc, RangeTree, Span, Token};
use spile_rcu::{Global, Rcu};

/// One cell per key: free, reserved, or (identity of the range, value). Two neighbouring cells of one identity are one range.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Cell {
    Free,
    Reserved(u64),
    Held(u64, usize),
}

/// The key space of a run is `keys` cells mapped onto the real one by `scale` and `origin`.
pub struct Naive {
    pub cells: Vec<Cell>,
    next: u64,
}

impl Naive {
    /// As many free cells.
    pub fn new(keys: usize) -> Self {
        Self { cells: vec![Cell::Free; keys], next: 0 }
    }
    /// First cell, last cell and content of each range.
    pub fn ranges(&self) -> Vec<(usize, usize, Cell)> {
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
    pub fn fill(&mut self, from: usize, to: usize, cell: Cell) {
        if (from..=to).all(|i| self.cells[i] == Cell::Free) && cell == Cell::Free {
            return;
        }
        self.cut(from, to);
        self.cells[from..=to].fill(cell);
    }
    pub fn id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl Naive {
    /// The held ranges wholly within the window.
    pub fn displaced(&self, from: usize, to: usize) -> Vec<(usize, usize, usize)> {
        let within = |r: &(usize, usize, Cell)| match r.2 {
            Cell::Held(_, v) if r.0 >= from && r.1 <= to => Some((r.0, r.1, v)),
            _ => None,
        };
        self.ranges().iter().filter_map(within).collect()
    }
}

pub struct Map {
    pub origin: u64,
    pub scale: u64,
    /// Cells at or above this index lie far away, so that leaves become wide.
    pub jump: usize,
    pub top: bool,
    pub keys: usize,
}

impl Map {
    pub fn first(&self, i: usize) -> u64 {
        if self.top && i + 1 == self.keys {
            return u64::MAX - (self.scale - 1);
        }
        let far = if i >= self.jump { 1 << 55 } else { 0 };
        self.origin + far + i as u64 * self.scale
    }
    pub fn last(&self, i: usize) -> u64 {
        self.first(i) + (self.scale - 1)
    }
    /// The keys of the cells, where they are adjacent.
    pub fn span(&self, from: usize, to: usize) -> Span {
        Span::new(self.first(from), self.last(to)).unwrap()
    }
    pub fn adjacent(&self, i: usize) -> bool {
        self.last(i).checked_add(1) == Some(self.first(i + 1))
    }
}

/// Compares every lookup, around keys that `below` chooses (a number below its argument).
pub fn compare<A: NodeAlloc>(
    tree: &mut RangeTree<Token, Global, A>,
    naive: &Naive,
    map: &Map,
    mut below: impl FnMut(u64) -> u64,
    at: &dyn std::fmt::Display,
) {
    let held: Vec<(Span, usize)> = naive
        .ranges()
        .iter()
        .filter_map(|&(a, b, c)| match c {
            Cell::Held(_, v) => Some((map.span(a, b), v)),
            _ => None,
        })
        .collect();
    {
        let g = Global.read();
        let seen: Vec<_> = tree.iter(&g, Span::ALL).map(|(s, t)| (s, t.get())).collect();
        assert_eq!(seen, held, "{at}: iter");
        let mut back: Vec<_> = tree.iter(&g, Span::ALL).rev().map(|(s, t)| (s, t.get())).collect();
        back.reverse();
        assert_eq!(back, held, "{at}: iter backwards");
        for _ in 0..4 {
            let i = below(naive.cells.len() as u64) as usize;
            let key = map.first(i) + below(map.scale);
            let show = |e: Option<(Span, Token)>| e.map(|(s, t)| (s, t.get()));
            let covering = held.iter().find(|(s, _)| s.contains(key)).copied();
            assert_eq!(show(tree.get(&g, key)), covering, "{at}: get {key:#x}\n{tree:?}");
            assert_eq!(show(tree.find(&g, key)), held.iter().find(|(s, _)| s.last() >= key).copied(), "{at}: find");
            assert_eq!(show(tree.find_back(&g, key)), held.iter().rfind(|(s, _)| s.first() <= key).copied(), "{at}: find_back");
            assert_eq!(show(tree.next(&g, key)), held.iter().find(|(s, _)| s.first() > key).copied(), "{at}: next");
            assert_eq!(show(tree.prev(&g, key)), held.iter().rfind(|(s, _)| s.last() < key).copied(), "{at}: prev");
            let j = (i + below(5) as usize).min(naive.cells.len() - 1);
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
        let align = 1u64 << below(16);
        let fit = Fit::aligned(1 + below(6) * map.scale, align, below(align)).unwrap();
        let (i, j) = (below(map.keys as u64) as usize, below(map.keys as u64) as usize);
        let within = if below(4) == 0 { Span::ALL } else { map.span(i.min(j), i.max(j)) };
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
