//! What a plan that was carried out has shown.

use crate::panics::said;
use crate::parts::PARTS;
use crate::replay::{Program, Report};
use crate::stage::Stage;
use serde::Serialize;
use spile::Locking;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What steps of a kind did to cache lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Writes to lines that another CPU had.
    pub shared_writes: u64,
    /// Lines that had to come from another CPU, or be taken from it.
    pub transfers: u64,
    /// Accesses to atomics.
    pub accesses: u64,
}

impl Cost {
    pub(super) fn merge(&mut self, other: Self) {
        self.shared_writes += other.shared_writes;
        self.transfers += other.transfers;
        self.accesses += other.accesses;
    }
}

/// What all steps of a kind cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Costs {
    /// How many there were.
    pub count: u64,
    /// By whose atomics they touched, in the order of [`PARTS`].
    pub parts: [Cost; PARTS.len()],
}

impl Costs {
    /// What `part` of [`PARTS`] cost.
    pub fn of(&self, part: usize) -> Cost {
        self.parts[part]
    }

    fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.parts.iter_mut().zip(other.parts).for_each(|(part, other)| part.merge(other));
    }
}

/// What was found. Costs are those of simulated CPUs; threads of the host have none.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Found {
    /// As of a replay in order.
    #[serde(flatten)]
    pub report: Report,
    /// What faults cost.
    pub faults_cost: Costs,
    /// What mmap cost.
    pub mmap_cost: Costs,
    /// What other calls that change mappings cost.
    pub change_cost: Costs,
    /// Accesses in all schedules.
    pub accesses: u64,
    /// Why a schedule did not come to its end, and what happened last, if it did not.
    pub failure: Option<String>,
}

impl Found {
    /// Whether all came to an end, and what must not differ does not.
    pub fn agrees(&self) -> bool {
        self.failure.is_none() && self.report.agrees()
    }

    /// What differs first.
    pub fn first_difference(&self) -> String {
        self.failure.clone().unwrap_or_else(|| self.report.first_difference())
    }

    /// All is done: what was counted, if everything has come home.
    pub(super) fn conclude<P: Stage, L: Locking>(&mut self, program: Program<P, L>, stage: &P) {
        match catch_unwind(AssertUnwindSafe(|| program.finish())) {
            Ok(counted) => self.report.note(counted, stage.flushes()),
            Err(why) => self.failure = Some(format!("afterwards: {}", said(&*why))),
        }
    }

    /// Takes in what another CPU found, or another seed.
    pub fn merge(&mut self, other: Self) {
        self.accesses += other.accesses;
        self.failure = self.failure.take().or(other.failure);
        self.report.merge(other.report);
        self.faults_cost.merge(&other.faults_cost);
        self.mmap_cost.merge(&other.mmap_cost);
        self.change_cost.merge(&other.change_cost);
    }
}
