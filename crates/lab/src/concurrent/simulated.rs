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
use super::found::{Cost, Costs, Found};
use super::free::{Freely, made};
use crate::parts::classify;
use crate::replay::Program;
use spile::Locking;
use spile_mmtrace::{Call, Kind, Step};
use spile_sim::Sim;
use spile_sync::sched::{self, CLASSES, Counters, Run, Strategy};
use std::mem::forget;
use std::sync::{Mutex, PoisonError};

/// How the schedule walks: so many accesses of a CPU in a row, on average.
pub const STRETCH: u64 = 16;
/// So many accesses for each step are a schedule that goes nowhere.
const ACCESSES_PER_STEP: u64 = 100_000;
/// How much of a failing schedule is told.
const TOLD: usize = 80;

/// Where steps of this kind are charged, if they are.
fn costs_of<'f>(found: &'f mut Found, kind: &Kind) -> Option<&'f mut Costs> {
    match kind {
        Kind::Fault(_) => Some(&mut found.faults_cost),
        Kind::Call(Call::Mmap { .. }, _) => Some(&mut found.mmap_cost),
        Kind::Call(Call::Other(_), _) => None,
        Kind::Call(..) => Some(&mut found.change_cost),
        _ => None,
    }
}

impl Costs {
    fn charge(&mut self, before: &[Counters; CLASSES], after: &[Counters; CLASSES]) {
        self.count += 1;
        for ((part, before), after) in self.parts.iter_mut().zip(before).zip(after) {
            let spent = *after - *before;
            part.merge(Cost { shared_writes: spent.shared_writes, transfers: spent.transfers, accesses: spent.ops });
        }
    }
}

/// Makes `steps` as `plan` says, by the schedule of this seed; `progress` is told now and then how many are done.
pub fn simulated<L: Locking>(steps: &[Step], plan: &Plan<'_>, seed: u64, progress: &(dyn Fn(usize) + Sync)) -> Found {
    let (mut found, ended) = attempt::<L>(steps, plan, seed, 0, progress);
    if !ended {
        // The same again, and this time it is written down what happens.
        let again = attempt::<L>(steps, plan, seed, TOLD, progress).0;
        found.failure = again.failure.or(found.failure.map(|why| format!("{why}\n(It did not fail again.)")));
    }
    found
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
    let mut run = Run::new(seed)
        .strategy(strategy)
        .max_steps(ACCESSES_PER_STEP * (steps.len() as u64 + 1))
        .keep_events(told)
        .classify(classify);
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
                    let after = sched::counters_by_class().unwrap_or_default();
                    if let Some(costs) = costs_of(&mut mine, &step.kind) {
                        costs.charge(&before, &after);
                    }
                });
                if at.is_multiple_of(1024) {
                    progress(at);
                }
            };
            crew.work(number, || sched::sleep(), sched::wake, make);
            all.lock().unwrap_or_else(PoisonError::into_inner).merge(mine);
        });
    }
    let outcome = run.run();
    let mut found = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.accesses = outcome.steps();
    found.report.denied_in_order = Some(plan.denied);
    if !outcome.is_ok() {
        // What is left is in no state to be dropped.
        forget(program);
        found.failure = Some(format!("{outcome}\n{}", outcome.story(told)));
        return (found, false);
    }
    found.conclude(program, &sim);
    (found, true)
}
