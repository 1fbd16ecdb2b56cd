//! What a replay found.

use serde::Serialize;
use spile::Counters;
use spile_mmtrace::Step;
use std::collections::BTreeMap;
use std::fmt;

/// So many differences are told.
const TOLD: usize = 20;

/// What a replay found. Pairs are how many there were, and how many of them were as they should be.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Steps made.
    pub steps: usize,
    /// Exit snapshots, and those that are the same in every mapping.
    pub snapshots: (usize, usize),
    /// `V` lines, and those that agree.
    pub lines: (usize, usize),
    /// Calls, and those with the recorded result.
    pub calls: (usize, usize),
    /// Faults, and those that were allowed. A recording may have some that were not.
    pub faults: (usize, usize),
    /// Faults for which there was no memory: the machine is too small.
    pub without_memory: usize,
    /// How many faults are denied in order; none if this is that.
    pub denied_in_order: Option<usize>,
    /// Mappings with anonymous pages in exit snapshots, and those within one per cent or one page.
    pub anon: (usize, usize),
    /// Mappings with file pages in exit snapshots, and those that the pages touched and a window around each explain.
    pub file: (usize, usize),
    /// What the address spaces counted, all together.
    pub counters: BTreeMap<&'static str, u64>,
    /// Flushes of translation caches.
    pub flushes: u64,
    /// Requests to other CPUs for them; on a machine without such caches there are none.
    pub ipis: u64,
    /// When most was mapped of the moments that were looked at, if the allocator counts.
    pub fullest: Option<Fullest>,
    /// The first differences.
    pub differences: Vec<Difference>,
}

/// Memory that address spaces took at a moment, tables aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Fullest {
    /// Mappings in all of them.
    pub mappings: usize,
    /// Bytes of mappings and their index; without what each space has once.
    pub bytes: usize,
    /// Levels of the highest index, if indices can tell.
    pub height: Option<usize>,
}

/// Something that is not as the kernel had it.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// Of the recording.
    pub line: usize,
    /// Of the recording.
    pub thread: u32,
    /// The number of the address space.
    pub space: usize,
    /// What.
    pub what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, thread {}, space {}: {}", self.line, self.thread, self.space, self.what)
    }
}

/// Counts one, good or not; whether it is.
pub(crate) fn count(of: &mut (usize, usize), good: bool) -> bool {
    of.0 += 1;
    of.1 += usize::from(good);
    good
}

impl Report {
    /// Whether nothing differs that must not: snapshots, results of calls, and all but one in two hundred of the kernel's lines. No fault is denied for
    /// want of memory, and beside each other as many as one after the other.
    pub fn agrees(&self) -> bool {
        let all_good = |(all, good)| all == good;
        let (lines, good) = self.lines;
        let faults = self.without_memory == 0 && self.denied_in_order.is_none_or(|in_order| self.denied() == in_order);
        faults && all_good(self.snapshots) && all_good(self.calls) && lines - good <= (lines / 200).max(2)
    }

    /// Faults that were not allowed.
    pub(crate) fn denied(&self) -> usize {
        self.faults.0 - self.faults.1
    }

    /// What differs from the kernel first.
    pub fn first_difference(&self) -> String {
        let denied = || format!("{} of {} faults are denied", self.denied(), self.faults.0);
        let told = self.differences.first().map(|first| format!("differs from the kernel: {first}"));
        told.unwrap_or_else(denied)
    }

    pub(crate) fn differ(&mut self, step: &Step, what: String) {
        if self.differences.len() < TOLD {
            self.differences.push(Difference { line: step.line, thread: step.tid, space: step.mm, what });
        }
    }

    /// Takes in what another CPU found, or another replay.
    pub(crate) fn merge(&mut self, other: Self) {
        let pairs = [
            (&mut self.snapshots, other.snapshots),
            (&mut self.lines, other.lines),
            (&mut self.calls, other.calls),
            (&mut self.faults, other.faults),
            (&mut self.anon, other.anon),
            (&mut self.file, other.file),
        ];
        pairs.into_iter().for_each(|(ours, theirs)| *ours = (ours.0 + theirs.0, ours.1 + theirs.1));
        self.steps += other.steps;
        self.without_memory += other.without_memory;
        self.denied_in_order = match (self.denied_in_order, other.denied_in_order) {
            (Some(one), Some(next)) => Some(one + next),
            (one, next) => one.or(next),
        };
        self.flushes += other.flushes;
        self.ipis += other.ipis;
        other.counters.into_iter().for_each(|(label, count)| *self.counters.entry(label).or_default() += count);
        self.differences.extend(other.differences);
        self.differences.sort_by_key(|difference| difference.line);
        self.differences.truncate(TOLD);
    }

    /// Takes in what was counted.
    pub(crate) fn note(&mut self, counted: Counters, (flushes, ipis): (u64, u64)) {
        self.counters = counted.iter().collect();
        (self.flushes, self.ipis) = (flushes, ipis);
    }
}
