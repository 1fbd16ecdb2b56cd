//! What is measured with one thread.
//!
//! Each measurement is preceded by lookups all over, for the contenders alternate and drive each other out of the caches.

use crate::clock::Stopwatch;
use crate::contender::Contender;
use crate::layout::{KEYS, PAGE, Range, World};
use crate::memory;
use crate::pair::Beside;
use crate::report::{Row, Unit};
use spile_rcu::Global;
use std::hint::black_box;

/// A measurement, which gives a figure for each of its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Bytes,
    Uniform,
    Hot,
    Chain,
    Find,
    Reinsert,
    ReinsertShifted,
    Churn,
    SplitMerge,
    SplitMergeHot,
    BuildRandom,
    BuildAscending,
    FromSorted,
    Walk,
    HighestGap,
    LowestGap,
    Duplicate,
    Pair(Beside),
}

pub const ALL: &[Op] = &[
    Op::Bytes,
    Op::Uniform,
    Op::Hot,
    Op::Chain,
    Op::Find,
    Op::Reinsert,
    Op::ReinsertShifted,
    Op::Churn,
    Op::SplitMerge,
    Op::SplitMergeHot,
    Op::BuildRandom,
    Op::BuildAscending,
    Op::FromSorted,
    Op::Walk,
    Op::HighestGap,
    Op::LowestGap,
    Op::Duplicate,
    Op::Pair(Beside::Nobody),
    Op::Pair(Beside::Reader),
    Op::Pair(Beside::Writer),
    Op::Pair(Beside::PacedWriter),
];

const fn ns(name: &'static str) -> Row {
    Row { name, unit: Unit::Ns, threads: 1 }
}

const fn bytes(name: &'static str) -> Row {
    Row { name, unit: Unit::Bytes, threads: 1 }
}

impl Op {
    pub fn rows(self) -> &'static [Row] {
        match self {
            Op::Bytes => {
                const { &[bytes("bytes per range, settled"), bytes("bytes per range, as built"), bytes("node bytes per range")] }
            }
            Op::Uniform => const { &[ns("lookup, uniform")] },
            Op::Hot => const { &[ns("lookup, 16 hot ranges")] },
            Op::Chain => const { &[ns("lookup, dependent chain")] },
            Op::Find => const { &[ns("find at or after")] },
            Op::Reinsert => const { &[ns("remove + insert, same")] },
            Op::ReinsertShifted => const { &[ns("remove + insert, shifted")] },
            Op::Churn => const { &[ns("insert into a gap"), ns("erase it again")] },
            Op::SplitMerge => const { &[ns("split 1 to 3"), ns("merge 3 to 1")] },
            Op::SplitMergeHot => const { &[ns("split or merge, 64 hot ranges")] },
            Op::BuildRandom => const { &[ns("build, random order, per range")] },
            Op::BuildAscending => const { &[ns("build, ascending, per range")] },
            Op::FromSorted => const { &[ns("build from sorted, per range")] },
            Op::Walk => const { &[ns("iterate, per range")] },
            Op::HighestGap => const { &[ns("gap search, highest below")] },
            Op::LowestGap => const { &[ns("gap search, lowest above")] },
            Op::Duplicate => const { &[ns("duplicate, per range")] },
            Op::Pair(beside) => beside.rows(),
        }
    }

    /// Whether one round says it all.
    pub fn is_exact(self) -> bool {
        self == Op::Bytes
    }

    fn writes(self) -> bool {
        use Op::*;
        matches!(self, Reinsert | ReinsertShifted | Churn | SplitMerge | SplitMergeHot | BuildRandom | BuildAscending)
    }
}

/// One round of `op`: a figure for each of its rows, or none if `map` has no such operation.
pub fn run<T: Contender>(map: &mut T, op: Op, world: &World, round: usize, writes: usize) -> Vec<f64> {
    if T::WRITES_ONLY && !op.writes() {
        return vec![];
    }
    // As many as the fast ones would take time for.
    let writes = if T::COPIES_ALL { (1_000_000 / world.n()).clamp(4, writes) } else { writes };
    let keys = |keys| {
        warm(map, world);
        vec![lookups(map, keys)]
    };
    match op {
        Op::Bytes => footprint::<T>(world),
        Op::Uniform => keys(&world.uniform),
        Op::Hot => keys(&world.hot),
        Op::Chain => vec![chain(map, world)],
        Op::Find => vec![finds(map, world)],
        Op::Reinsert => vec![reinsert(map, world, round, writes)],
        Op::ReinsertShifted => vec![reinsert_shifted(map, world, round, writes)],
        Op::Churn => there_and_back(map, world, &world.gaps, round, writes, T::insert, T::remove),
        Op::SplitMerge => there_and_back(map, world, &world.shuffled, round, writes, T::split, T::merge),
        Op::SplitMergeHot => vec![split_merge_hot(map, world, writes)],
        Op::BuildRandom => build::<T>(&world.shuffled, writes),
        Op::BuildAscending => build::<T>(&world.ranges, writes),
        Op::Walk => vec![walk(map, world)],
        Op::HighestGap => gaps(map, world, true),
        Op::LowestGap => gaps(map, world, false),
        Op::Duplicate => copies(map, world, writes, |map, watch| map.duplicate(watch)),
        Op::FromSorted => copies(map, world, writes, |map, watch| map.build_sorted(&world.ranges, watch)),
        Op::Pair(_) => vec![],
    }
}

/// Whether `map` holds what was put into it, no more and no less.
pub fn check<T: Contender>(map: &T, world: &World) {
    let sum: u64 = world.ranges.iter().map(|range| range.value).sum();
    assert_eq!(map.walk(), (world.n(), sum), "{}: ranges and the sum of their values", T::NAME);
    for range in world.ranges.iter().step_by(world.n().div_ceil(1000)) {
        for key in [range.start, range.end - 1] {
            assert_eq!(map.lookup(key), Some(range.value), "{}: lookup of {key:#x}", T::NAME);
            assert_eq!(map.find(key), Some(range.value), "{}: find of {key:#x}", T::NAME);
        }
    }
    for gap in world.gaps.iter().take(1000).filter(|gap| gap.start > world.ranges[0].start) {
        let next = world.ranges.partition_point(|range| range.start <= gap.start);
        assert_eq!(map.lookup(gap.start), None, "{}: lookup of {:#x}", T::NAME, gap.start);
        assert_eq!(map.find(gap.start), Some(world.ranges[next].value), "{}: find of {:#x}", T::NAME, gap.start);
    }
}

fn warm<T: Contender>(map: &T, world: &World) {
    black_box(world.uniform.iter().map(|&key| map.lookup(key).unwrap_or(0)).sum::<u64>());
}

/// CPU time of `work`, ns, divided by `count`.
fn per(count: usize, work: impl FnOnce()) -> f64 {
    let mut watch = Stopwatch::new();
    watch.time(work);
    watch.ns / count as f64
}

fn lookups<T: Contender>(map: &T, keys: &[u64]) -> f64 {
    let mut sum = 0;
    let ns = per(2 * keys.len(), || {
        for &key in keys.iter().chain(keys) {
            sum += map.lookup(key).unwrap_or(0);
        }
    });
    black_box(sum);
    ns
}

/// The next key is known when the value has come: latency, where the others let the CPU overlap lookups.
fn chain<T: Contender>(map: &T, world: &World) -> f64 {
    warm(map, world);
    let mut at = 0;
    let ns = per(2 * KEYS, || {
        for _ in 0..2 * KEYS {
            let value = map.lookup(world.uniform[at % KEYS]).unwrap_or(0);
            // Values are even, which only we know.
            at += 1 + (value & 1) as usize;
        }
    });
    black_box(at);
    ns
}

fn finds<T: Contender>(map: &T, world: &World) -> f64 {
    warm(map, world);
    let mut sum = 0;
    let ns = per(KEYS, || world.anywhere.iter().for_each(|&key| sum += map.find(key).unwrap_or(0)));
    black_box(sum);
    ns
}

/// `count` ranges in random order, others in each round.
fn picks(world: &World, round: usize, count: usize) -> impl Iterator<Item = Range> + '_ {
    world.shuffled.iter().copied().cycle().skip(round * count % world.n()).take(count)
}

fn reinsert<T: Contender>(map: &mut T, world: &World, round: usize, writes: usize) -> f64 {
    warm(map, world);
    per(writes, || {
        for range in picks(world, round, writes) {
            map.remove(range);
            map.insert(range);
        }
    })
}

/// What comes has other bounds than what went, so that a slot cannot simply be used again.
fn reinsert_shifted<T: Contender>(map: &mut T, world: &World, round: usize, writes: usize) -> f64 {
    warm(map, world);
    let pairs = writes.div_ceil(2);
    per(2 * pairs, || {
        for range in picks(world, round, pairs) {
            map.remove(range);
            map.insert(range.shifted());
            map.remove(range.shifted());
            map.insert(range);
        }
    })
}

/// Changes a batch of distinct ranges, then changes them back: ns per change there, and back.
fn there_and_back<T: Contender>(
    map: &mut T,
    world: &World,
    ranges: &[Range],
    round: usize,
    writes: usize,
    there: fn(&mut T, Range),
    back: fn(&mut T, Range),
) -> Vec<f64> {
    warm(map, world);
    // A small part of all, so that the map stays of its size.
    let batch = (ranges.len() / 16).clamp(16, 8192).min(writes).min(ranges.len());
    let batches = writes.div_ceil(batch);
    let (mut watch_there, mut watch_back) = (Stopwatch::new(), Stopwatch::new());
    for batch in ranges.chunks_exact(batch).cycle().skip(round).take(batches) {
        watch_there.time(|| batch.iter().for_each(|&range| there(map, range)));
        watch_back.time(|| batch.iter().for_each(|&range| back(map, range)));
    }
    let count = (batches * batch) as f64;
    vec![watch_there.ns / count, watch_back.ns / count]
}

/// As the writer beside readers does.
fn split_merge_hot<T: Contender>(map: &mut T, world: &World, writes: usize) -> f64 {
    warm(map, world);
    let pairs = writes.div_ceil(2);
    per(2 * pairs, || {
        for &range in world.victims.iter().cycle().take(pairs) {
            map.split(range);
            map.merge(range);
        }
    })
}

fn build<T: Contender>(ranges: &[Range], writes: usize) -> Vec<f64> {
    if T::COPIES_ALL {
        return vec![];
    }
    let mut watch = Stopwatch::new();
    let times = writes.div_ceil(ranges.len());
    for _ in 0..times {
        let map = watch.time(|| T::build(ranges));
        drop(black_box(map));
    }
    vec![watch.ns / (times * ranges.len()) as f64]
}

fn walk<T: Contender>(map: &T, world: &World) -> f64 {
    let times = (2 * KEYS).div_ceil(world.n());
    map.walk();
    per(times * world.n(), || {
        for _ in 0..times {
            black_box(map.walk());
        }
    })
}

fn gaps<T: Contender>(map: &mut T, world: &World, highest: bool) -> Vec<f64> {
    warm(map, world);
    let Some(map) = map.extra() else { return vec![] };
    let mut found = 0;
    let ns = per(KEYS, || {
        for &key in &world.anywhere {
            let gap = if highest { map.highest_gap(8 * PAGE, key) } else { map.lowest_gap(8 * PAGE, key) };
            found += usize::from(gap.is_some());
        }
    });
    assert_eq!(found, KEYS, "there is room below and above all ranges");
    vec![ns]
}

fn copies<T: Contender>(
    map: &mut T,
    world: &World,
    writes: usize,
    copy: impl Fn(&mut dyn crate::contender::Extra, &mut Stopwatch),
) -> Vec<f64> {
    let Some(map) = map.extra() else { return vec![] };
    let mut watch = Stopwatch::new();
    // An untimed one first: the heap grows once.
    copy(map, &mut Stopwatch::new());
    let times = writes.div_ceil(world.n());
    (0..times).for_each(|_| copy(map, &mut watch));
    vec![watch.ns / (times * world.n()) as f64]
}

/// Bytes in use after a build in random order: when all that can be given back is, when nothing is, and what ours counts.
fn footprint<T: Contender>(world: &World) -> Vec<f64> {
    let per_range = |bytes: isize| bytes as f64 / world.n() as f64;
    give_back_leftovers();
    memory::start();
    let mut map = T::build(&world.shuffled);
    let as_built = memory::bytes();
    map.settle(world.ranges[0].start);
    let settled = memory::bytes();
    memory::stop();
    let nodes = map.extra().map_or(f64::NAN, |map| per_range(map.node_bytes() as isize));
    vec![per_range(settled), per_range(as_built), nodes]
}

/// What earlier contenders have deferred, and would otherwise be freed while a later one is counted.
fn give_back_leftovers() {
    Global.barrier();
    for _ in 0..1024 {
        crossbeam_epoch::pin().flush();
    }
}
