//! What is told of a benchmark.
//!
//! **Guarantee.** What the same input and seed always give stands beside `times`, and what is never the same twice in it.

use super::mapper::{Latencies, Latency};
use super::play::Sample;
use super::rounds::Spread;
use super::target::Events;
use super::workload::Workload;
use serde::Serialize;
use std::time::Duration;

/// What is at the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Memory {
    /// Nothing: verbs and faults are calls of the core's.
    None,
    /// Memory of a process, which its threads load and store.
    Real,
}

/// What a contender did in a benchmark.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The benchmark.
    pub benchmark: String,
    /// What one operation is.
    pub op: String,
    /// The contender.
    pub design: String,
    /// What was at the addresses.
    pub memory: Memory,
    /// How many threads there were.
    pub threads: usize,
    /// The pages of an area.
    pub pages: u64,
    /// Whether threads shared a CPU.
    pub oversubscribed: bool,
    /// What must be known of several threads.
    pub note: Option<String>,
    /// What happened in an operation.
    pub per_op: PerOp,
    /// How long it took.
    pub times: Times,
}

/// What happened in an operation, by the counters of the core; of the host, of which less is known, nothing.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct PerOp {
    /// Faults that were resolved.
    pub faults: Option<f64>,
    /// Changes of mappings.
    pub changes: Option<f64>,
    /// Frames that were given.
    pub frames: Option<f64>,
}

/// How long it took, and what depends on how threads met.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Times {
    /// Rounds that were finished.
    pub rounds: usize,
    /// Operations per second of CPU time.
    pub per_cpu_second: Spread,
    /// Operations per second on the wall.
    pub per_second: Spread,
    /// CPU time of an operation, in nanoseconds.
    pub ns_per_op: Spread,
    /// Faults of the last round that asked for a mapping, per operation.
    pub lookups_per_op: f64,
    /// The part of its faults that were resolved on the fast way; none without faults.
    pub fast: Option<f64>,
    /// Its flushes per operation.
    pub flushes_per_op: f64,
}

impl Row {
    /// Of these rounds; none if there is none.
    pub fn of(
        workload: &Workload,
        contender: &str,
        memory: Memory,
        threads: usize,
        cpus: usize,
        samples: &[Sample],
    ) -> Option<Self> {
        let last = samples.last()?;
        let Events { counts, lookups, fast, flushes } = last.events;
        let each = |number: u64| number as f64 / last.ops as f64;
        let known = |number: u64| (contender != super::child::HOST).then(|| each(number));
        Some(Self {
            benchmark: workload.name.clone(),
            op: workload.op.clone(),
            design: contender.to_string(),
            memory,
            threads,
            pages: workload.pages,
            oversubscribed: threads > cpus,
            note: workload.threads.clone().filter(|_| threads > 1),
            per_op: PerOp { faults: known(counts.faults), changes: known(counts.changes), frames: known(counts.frames) },
            times: Times {
                rounds: samples.len(),
                per_cpu_second: Spread::of(samples.iter().map(Sample::per_cpu_second))?,
                per_second: Spread::of(samples.iter().map(Sample::per_second))?,
                ns_per_op: Spread::of(samples.iter().map(Sample::ns_per_op))?,
                lookups_per_op: each(lookups),
                fast: (lookups > 0).then(|| fast as f64 / counts.faults as f64),
                flushes_per_op: each(flushes),
            },
        })
    }
}

/// How long calls took beside a reader.
#[derive(Clone, Debug, Serialize)]
pub struct Waits {
    /// The benchmark.
    pub benchmark: &'static str,
    /// The contender.
    pub design: String,
    /// The reader.
    pub reader: &'static str,
    /// The pages of the region.
    pub pages: u64,
    /// How many calls a round had.
    pub calls: u64,
    /// Whether the reader had no CPU of its own.
    pub oversubscribed: bool,
    /// How long they took.
    pub times: WaitTimes,
}

/// In the middle of the rounds, in nanoseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct WaitTimes {
    /// Rounds that were finished.
    pub rounds: usize,
    /// mmap of a page.
    pub mmap: Calls,
    /// munmap of a page.
    pub munmap: Calls,
    /// CPU time of one reading; none without a reader.
    pub reading: Option<Spread>,
    /// How much text that is, in bytes.
    pub bytes: u64,
}

/// How long calls of a kind took, in nanoseconds: over the rounds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Calls {
    /// Half of a round's took no longer.
    pub median: Spread,
    /// 99 of 100.
    pub p99: Spread,
    /// All.
    pub max: Spread,
}

fn ns(time: Duration) -> f64 {
    time.as_nanos() as f64
}

impl Calls {
    fn of(rounds: &[Latencies], which: fn(&Latencies) -> Latency) -> Option<Self> {
        let spread = |part: fn(Latency) -> Duration| Spread::of(rounds.iter().map(|round| ns(part(which(round)))));
        Some(Self { median: spread(|l| l.median)?, p99: spread(|l| l.p99)?, max: spread(|l| l.max)? })
    }
}

impl WaitTimes {
    /// Of these rounds; none if there is none.
    pub fn of(rounds: &[Latencies]) -> Option<Self> {
        let last = rounds.last()?;
        Some(Self {
            rounds: rounds.len(),
            mmap: Calls::of(rounds, |round| round.mmap)?,
            munmap: Calls::of(rounds, |round| round.munmap)?,
            reading: Spread::of(rounds.iter().filter(|round| round.readings > 0).map(|round| ns(round.reading))),
            bytes: last.bytes,
        })
    }
}
