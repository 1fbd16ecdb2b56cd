//! What each access costs in cache lines: a directory of who holds which line.
//!
//! **Guarantee.** Counts depend on the order of accesses and on which addresses share 64 bytes, on nothing else; a line is
//! named by the order of its first touch, never by its address.
//!
//! **Mechanism.** Per line the set of CPUs that hold it, as in MESI. A sole holder may write in silence, so exclusive and
//! modified are one state here:
//!
//! | before | read by A | write by A |
//! |---|---|---|
//! | never touched | cold; {A} | cold; {A} |
//! | {A} | free | free |
//! | {A, others} | free | transfer + shared write; {A} |
//! | {others} | transfer; {A, others} | transfer + shared write; {A} |

use super::story::{Kind, Op};
use std::collections::HashMap;
use std::fmt;
use std::iter::Sum;
use std::ops::{Add, Sub};

const LINE_SHIFT: u32 = 6;

/// The most simulated CPUs a run can have: one bit each in a line's set of holders.
pub(super) const CPUS_MAX: usize = u128::BITS as usize;

/// Having a `LineId` tells you: this was the n-th cache line touched in its run, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LineId(u32);

impl fmt::Display for LineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "L{}", self.0)
    }
}

/// What one simulated CPU did, or a sum or difference of such.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Loads, stores, read-modify-writes and fences together. Spinning is not an operation.
    pub ops: u64,
    /// Plain loads.
    pub loads: u64,
    /// Plain stores.
    pub stores: u64,
    /// Read-modify-writes, failed compare-exchanges included.
    pub rmws: u64,
    /// Fences.
    pub fences: u64,
    /// First touches of lines that nobody had touched before.
    pub cold: u64,
    /// Accesses that needed a message from another CPU: a line it did not hold, or the right to write a shared one.
    pub transfers: u64,
    /// Writes to a line that another CPU held: each of them invalidates somebody's copy.
    pub shared_writes: u64,
}

impl Counters {
    fn zip(self, rhs: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            ops: f(self.ops, rhs.ops),
            loads: f(self.loads, rhs.loads),
            stores: f(self.stores, rhs.stores),
            rmws: f(self.rmws, rhs.rmws),
            fences: f(self.fences, rhs.fences),
            cold: f(self.cold, rhs.cold),
            transfers: f(self.transfers, rhs.transfers),
            shared_writes: f(self.shared_writes, rhs.shared_writes),
        }
    }
}

impl Add for Counters {
    type Output = Self;

    fn add(self, rhs: Self) -> Self {
        self.zip(rhs, |a, b| a + b)
    }
}

impl Sub for Counters {
    type Output = Self;

    /// The price of what lies between the snapshots `rhs` and `self`.
    fn sub(self, rhs: Self) -> Self {
        self.zip(rhs, |a, b| a - b)
    }
}

impl Sum for Counters {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::default(), Add::add)
    }
}

/// The directory and the counters of one run.
pub(super) struct Lines {
    names: HashMap<usize, LineId>,
    holders: Vec<u128>,
    counters: Vec<Counters>,
}

impl Lines {
    pub(super) fn new(cpus: usize) -> Self {
        assert!(cpus <= CPUS_MAX, "a run has at most {CPUS_MAX} CPUs");
        Self { names: HashMap::new(), holders: Vec::new(), counters: vec![Counters::default(); cpus] }
    }

    pub(super) fn counters(&self) -> &[Counters] {
        &self.counters
    }

    /// Charges `op` at `address` to `cpu`; returns the line, and whether another CPU had to be asked for it.
    pub(super) fn access(&mut self, cpu: usize, op: Op, address: usize) -> Option<(LineId, bool)> {
        let kind = op.kind();
        self.count(cpu, kind);
        match kind {
            Kind::Load | Kind::Store | Kind::Rmw => Some(self.touch(cpu, kind != Kind::Load, address)),
            Kind::Fence | Kind::Spin => None,
        }
    }

    fn count(&mut self, cpu: usize, kind: Kind) {
        let counters = &mut self.counters[cpu];
        let which = match kind {
            Kind::Load => &mut counters.loads,
            Kind::Store => &mut counters.stores,
            Kind::Rmw => &mut counters.rmws,
            Kind::Fence => &mut counters.fences,
            Kind::Spin => return,
        };
        *which += 1;
        counters.ops += 1;
    }

    fn touch(&mut self, cpu: usize, write: bool, address: usize) -> (LineId, bool) {
        let line = self.name(address);
        let holders = &mut self.holders[line.0 as usize - 1];
        let counters = &mut self.counters[cpu];
        let me = 1u128 << cpu;
        let (cold, others) = (*holders == 0, *holders & !me);
        let shared_write = write && others != 0;
        let transfer = shared_write || (!cold && *holders & me == 0);
        counters.cold += u64::from(cold);
        counters.transfers += u64::from(transfer);
        counters.shared_writes += u64::from(shared_write);
        *holders = if write { me } else { *holders | me };
        (line, transfer)
    }

    fn name(&mut self, address: usize) -> LineId {
        let next = LineId(u32::try_from(self.holders.len() + 1).expect("fewer than 2^32 lines"));
        let line = *self.names.entry(address >> LINE_SHIFT).or_insert(next);
        if line == next {
            self.holders.push(0);
        }
        line
    }
}
