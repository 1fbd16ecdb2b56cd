//! A plan carried out by simulated CPUs under the seeded scheduler, and what it costs in cache lines.
//!
//! **Guarantee.** The same plan, design, seed and machine give the same counts in every process whose allocator gives each object lines of its own.
//! Charged are faults and calls, each from its beginning to its end, by whose atomics they touch: of the core, of the page's table, of
//! the frame, of read sections, of the machine. What is no atomic is not seen, and neither is the allocator.
//!
//! **Mechanism.** The core's atomics are those of the scheduler, which knows which CPU has which line. Each CPU is one thread of the schedule, so what
//! its counters say after a step, less what they said before, is the step's.

use super::Plan;
use super::crew::Crew;
use super::free::{Freely, made};
use crate::parts::{PARTS, classify};
use crate::replay::{Program, Report};
use crate::stage::Stage as _;
use serde::Serialize;
use spile::Locking;
use spile_mmtrace::{Kind, Step};
use spile_sim::Sim;
use spile_sync::sched::{self, CLASSES, Counters, Run, Strategy};
use std::sync::{Mutex, PoisonError};

/// How the schedule walks: so many accesses of a CPU in a row, on average.
pub const STRETCH: u64 = 16;
const STEPS_MAX: u64 = u64::MAX;
/// How much of a failing schedule is told.
const TOLD: usize = 400;

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
    fn add(&mut self, counters: Counters) {
        self.shared_writes += counters.shared_writes;
        self.transfers += counters.transfers;
        self.accesses += counters.ops;
    }

    fn merge(&mut self, other: Self) {
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

    fn add(&mut self, before: &[Counters; CLASSES], after: &[Counters; CLASSES]) {
        self.count += 1;
        let parts = self.parts.iter_mut().zip(before).zip(after);
        parts.for_each(|((part, before), after)| part.add(*after - *before));
    }

    fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.parts.iter_mut().zip(other.parts).for_each(|(part, other)| part.merge(other));
    }
}

/// What a run found.
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
    /// Accesses in the whole schedule.
    pub accesses: u64,
    /// Why the schedule did not come to its end, and what happened last, if it did not.
    pub failure: Option<String>,
}

impl Found {
    /// Whether the schedule came to its end, and what must not differ does not.
    pub fn agrees(&self) -> bool {
        self.failure.is_none() && self.report.agrees()
    }

    fn charge(&mut self, step: &Step, before: &[Counters; CLASSES], after: &[Counters; CLASSES]) {
        use spile_mmtrace::Call;
        let costs = match &step.kind {
            Kind::Fault(_) => &mut self.faults_cost,
            Kind::Call(Call::Mmap { .. }, _) => &mut self.mmap_cost,
            Kind::Call(Call::Other(_), _) => return,
            Kind::Call(..) => &mut self.change_cost,
            _ => return,
        };
        costs.add(before, after);
    }

    fn merge(&mut self, other: Self) {
        self.report.merge(other.report);
        self.faults_cost.merge(&other.faults_cost);
        self.mmap_cost.merge(&other.mmap_cost);
        self.change_cost.merge(&other.change_cost);
    }
}

/// Makes `steps` as `plan` says, by the schedule of this seed; `progress` is told now and then how many are done.
pub fn simulated<L: Locking>(steps: &[Step], plan: &Plan<'_>, seed: u64, progress: &(dyn Fn(usize) + Sync)) -> Found {
    let (found, ended) = attempt::<L>(steps, plan, seed, 0, progress);
    // The same again, and this time it is written down what happens.
    if ended { found } else { attempt::<L>(steps, plan, seed, TOLD, progress).0 }
}

fn attempt<L: Locking>(
    steps: &[Step],
    plan: &Plan<'_>,
    seed: u64,
    told: usize,
    progress: &(dyn Fn(usize) + Sync),
) -> (Found, bool) {
    let cpus = plan.cpus.len();
    let sim = Sim::builder().cpus(cpus).frames(plan.frames).seed(seed).build();
    let program = Program::<Sim, L>::new(sim.clone(), steps);
    let crew = Crew::new(plan);
    let freely = plan.renaming.map(Freely::new);
    let all = Mutex::new(Found::default());
    let strategy = Strategy::Stretches { mean: STRETCH };
    let mut run = Run::new(seed).strategy(strategy).max_steps(STEPS_MAX).keep_events(told).classify(classify);
    for number in 0..cpus {
        let (sim, program, crew, freely, all) = (&sim, &program, &crew, freely.as_ref(), &all);
        run = run.spawn(format!("cpu {number}"), move || {
            let cpu = sim.cpu(number);
            let mut mine = Found::default();
            let make = |at: usize| {
                let step = &steps[at];
                cpu.call(|| {
                    let before = sched::counters_by_class().unwrap_or_default();
                    made(program, freely, at, step, &mut mine.report);
                    mine.charge(step, &before, &sched::counters_by_class().unwrap_or_default());
                });
                if at.is_multiple_of(1024) {
                    progress(at);
                }
            };
            crew.work(number, sched::sleep, sched::wake, make);
            all.lock().unwrap_or_else(PoisonError::into_inner).merge(mine);
        });
    }
    let outcome = run.run();
    let mut found = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.accesses = outcome.steps();
    if outcome.is_ok() {
        let counted = program.finish();
        found.report.note(counted, sim.flushes());
        (found, true)
    } else {
        // What is left is in no state to be dropped.
        std::mem::forget(program);
        found.failure = Some(outcome.story(told));
        (found, false)
    }
}
