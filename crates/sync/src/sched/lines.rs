//! What each access costs in cache lines: a directory of who holds which line.
//!
//! **Guarantee.** Counts depend on the order of accesses and on which addresses share 64 bytes, on nothing else; a line is
//! named by the order of its first touch, never by its address.
//!
//! What is charged is charged to a class of accesses, too, if the run has a [`Classify`].
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

use super::state::Place;
use super::story::{Kind, Op};
use std::collections::HashMap;
use std::fmt;
use std::iter::Sum;
use std::ops::{Add, Sub};
use std::panic::Location;

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

/// Tells by the place in the source to which class an access belongs; none if it belongs where its line does: to the class of
/// whoever touched that last and has one, or to class 0.
pub type Classify = fn(&'static Location<'static>) -> Option<u8>;

/// The most classes that a run can tell apart.
pub const CLASSES: usize = 8;

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
    lines: Vec<Line>,
    /// Of each CPU, by class.
    counters: Vec<[Counters; CLASSES]>,
    classify: Option<Classify>,
    /// What `classify` said of a place, by where the compiler put it: quicker to look up than its file and line.
    classes: HashMap<usize, Option<u8>>,
}

#[derive(Clone, Copy, Default)]
struct Line {
    holders: u128,
    class: u8,
}

fn kind_counter(counters: &mut Counters, kind: Kind) -> Option<&mut u64> {
    match kind {
        Kind::Load => Some(&mut counters.loads),
        Kind::Store => Some(&mut counters.stores),
        Kind::Rmw => Some(&mut counters.rmws),
        Kind::Fence => Some(&mut counters.fences),
        Kind::Spin => None,
    }
}

impl Lines {
    pub(super) fn new(cpus: usize, classify: Option<Classify>) -> Self {
        assert!(cpus <= CPUS_MAX, "a run has at most {CPUS_MAX} CPUs");
        Self {
            names: HashMap::new(),
            lines: Vec::new(),
            counters: vec![[Counters::default(); CLASSES]; cpus],
            classify,
            classes: HashMap::new(),
        }
    }

    /// What `cpu` did, by class.
    pub(super) fn counters(&self, cpu: usize) -> [Counters; CLASSES] {
        self.counters[cpu]
    }

    /// What each CPU did.
    pub(super) fn of_each_cpu(&self) -> Vec<Counters> {
        self.counters.iter().map(|classes| classes.iter().copied().sum()).collect()
    }

    /// Charges `op` at `address` to `cpu`; returns the line, and whether another CPU had to be asked for it.
    pub(super) fn access(&mut self, cpu: usize, op: Op, address: usize, at: Place) -> Option<(LineId, bool)> {
        let kind = op.kind();
        let class = self.class(at);
        let touched = match kind {
            Kind::Load | Kind::Store | Kind::Rmw => Some(self.name(address)),
            Kind::Fence | Kind::Spin => None,
        };
        let class = self.class_of_line(touched, class);
        let counters = &mut self.counters[cpu][class as usize];
        if let Some(count) = kind_counter(counters, kind) {
            *count += 1;
            counters.ops += 1;
        }
        let id = touched?;
        Some((id, self.lines[id.0 as usize - 1].touch(counters, cpu, kind != Kind::Load)))
    }

    /// The number of a line, and the place in it.
    pub(super) fn whereabouts(&mut self, address: usize) -> usize {
        let LineId(line) = self.name(address);
        (line as usize) << LINE_SHIFT | address % (1 << LINE_SHIFT)
    }

    /// The lines of this memory are nobody's any more, and will have new names.
    pub(super) fn forget(&mut self, address: usize, bytes: usize) {
        let last = address + bytes.max(1) - 1;
        (address >> LINE_SHIFT..=last >> LINE_SHIFT).for_each(|line| _ = self.names.remove(&line));
    }

    fn class(&mut self, at: Place) -> Option<u8> {
        let classify = self.classify?;
        *self
            .classes
            .entry(std::ptr::from_ref(at).addr())
            .or_insert_with(|| classify(at).inspect(|class| assert!(usize::from(*class) < CLASSES)))
    }

    /// The class of an access, which is its line's from now on; or its line's, if it has none.
    fn class_of_line(&mut self, line: Option<LineId>, class: Option<u8>) -> u8 {
        let Some(LineId(line)) = line else { return class.unwrap_or(0) };
        let line = &mut self.lines[line as usize - 1];
        line.class = class.unwrap_or(line.class);
        line.class
    }

    fn name(&mut self, address: usize) -> LineId {
        let next = LineId(u32::try_from(self.lines.len() + 1).expect("fewer than 2^32 lines"));
        let line = *self.names.entry(address >> LINE_SHIFT).or_insert(next);
        if line == next {
            self.lines.push(Line::default());
        }
        line
    }
}

impl Line {
    /// Whether another CPU had to be asked.
    fn touch(&mut self, counters: &mut Counters, cpu: usize, write: bool) -> bool {
        let me = 1u128 << cpu;
        let (cold, others) = (self.holders == 0, self.holders & !me);
        let shared_write = write && others != 0;
        let transfer = shared_write || (!cold && self.holders & me == 0);
        counters.cold += u64::from(cold);
        counters.transfers += u64::from(transfer);
        counters.shared_writes += u64::from(shared_write);
        self.holders = if write { me } else { self.holders | me };
        transfer
    }
}
