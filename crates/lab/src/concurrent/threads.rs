//! A plan carried out by threads of the host.
//!
//! **Guarantee.** What must agree is as in a replay in order; how faults and changes met is the host's choice, and never the same twice.

use super::Plan;
use super::crew::Crew;
use super::found::Found;
use super::free::{Freely, made};
use crate::lean::Lean;
use crate::panics::said;
use crate::replay::{Program, Report};
use crate::stage::Stage as _;
use spile::Locking;
use spile_mmtrace::Step;
use std::mem::forget;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Makes `steps` as `plan` says; `progress` is told now and then how many are done.
pub fn threaded<L: Locking>(steps: &[Step], plan: &Plan<'_>, progress: &(dyn Fn(usize) + Sync)) -> Found {
    let cpus = plan.cpus.len();
    let lean = Lean::new(cpus, plan.frames, false);
    let program = Program::<Lean, L>::new(lean.clone(), steps);
    let crew = Crew::new(plan);
    let freely = plan.renaming.map(Freely::new);
    let all = Mutex::new(Report::default());
    let failed = thread::scope(|scope| {
        let cpus = (0..cpus).map(|number| {
            let (lean, program, crew, freely, all) = (&lean, &program, &crew, freely.as_ref(), &all);
            scope.spawn(move || {
                let _end = End(crew);
                let mut mine = Report::default();
                let make = |at: usize| {
                    made(program, freely, at, &steps[at], &mut mine);
                    if at.is_multiple_of(1024) {
                        progress(at);
                    }
                };
                // There may be more CPUs than the host has: who waits gives its own away, and looks again.
                lean.run(number, || crew.work(number, thread::yield_now, |_| (), make));
                all.lock().unwrap_or_else(PoisonError::into_inner).merge(mine);
            })
        });
        let cpus: Vec<_> = cpus.collect();
        let ends = cpus.into_iter().map(|cpu| cpu.join().err());
        ends.fold(None, |first, why| first.or(why))
    });
    let mut found = Found { report: all.into_inner().unwrap_or_else(PoisonError::into_inner), ..Found::default() };
    found.report.denied_in_order = Some(plan.denied);
    match failed {
        None => found.conclude(program, &lean),
        Some(why) => {
            // What is left is in no state to be dropped.
            forget(program);
            found.failure = Some(format!("a CPU panicked: {}", said(&*why)));
        }
    }
    found
}

/// A CPU's life. If it ends by a panic nobody shall wait for it.
struct End<'c, 'p>(&'c Crew<'p>);

impl Drop for End<'_, '_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.abandon();
        }
    }
}
