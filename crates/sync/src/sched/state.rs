//! The state of a run: who lives, what was done, what failed.
//!
//! **Guarantee.** Only the holder of the baton touches it, so everything here is sequential code.
//!
//! **Mechanism.** Bookkeeping: the strategy chooses among the live threads, each step is charged and written down.

use super::lines::Lines;
use super::outcome::{Failure, Standing};
use super::run::Run;
use super::story::{Event, Op, What};
use super::strategy::Policy;
use std::collections::VecDeque;
use std::panic::Location;

/// Where in the program an operation stands.
pub(super) type Place = &'static Location<'static>;

/// Rounds that destructors may spin after a failure before there is no hope left for them.
const UNWINDING_SPINS_MAX: u64 = 1_000_000;

/// What only the holder of the baton touches.
pub(super) struct State {
    pub(super) policy: Box<dyn Policy>,
    pub(super) lines: Lines,
    /// Threads that have not ended, sorted.
    pub(super) live: Vec<usize>,
    /// Of these, those that do not sleep, sorted.
    awake: Vec<usize>,
    /// What each thread was last about to do.
    pub(super) standing: Vec<Option<(Op, Place)>>,
    pub(super) steps: u64,
    steps_max: u64,
    pub(super) switches: u64,
    pub(super) trace: VecDeque<Event>,
    events_max: usize,
    pub(super) failure: Option<Failure>,
    unwinding_spins: u64,
}

impl State {
    pub(super) fn new(run: &Run<'_>, threads: usize, cpus: usize) -> Self {
        Self {
            policy: run.strategy.policy(run.seed, threads, run.steps_expected),
            lines: Lines::new(cpus, run.classify),
            live: (0..threads).collect(),
            awake: (0..threads).collect(),
            standing: vec![None; threads],
            steps: 0,
            steps_max: run.steps_max,
            switches: 0,
            trace: VecDeque::new(),
            events_max: run.events_max,
            failure: None,
            unwinding_spins: 0,
        }
    }

    /// The strategy's choice; `me` is the thread that asks, none when it ended or none has started.
    pub(super) fn next(&mut self, me: Option<usize>) -> usize {
        self.policy.pick(me, self.steps, &self.awake)
    }

    /// Takes `me`, which sleeps or has ended, out of those who are chosen from. Whether there are others.
    pub(super) fn sleeps(&mut self, me: usize) -> bool {
        self.awake.retain(|&thread| thread != me);
        !self.awake.is_empty()
    }

    /// `thread` can go on, if it has not ended.
    pub(super) fn wakes(&mut self, thread: usize) {
        if let (true, Err(place)) = (self.live.contains(&thread), self.awake.binary_search(&thread)) {
            self.awake.insert(place, thread);
        }
    }

    /// The live thread after `me`, in a circle: the order in which threads unwind.
    pub(super) fn after(&self, me: usize) -> usize {
        let next = self.live.iter().find(|&&thread| thread > me);
        *next.unwrap_or(&self.live[0])
    }

    /// Charges `op` to the CPU, writes it down and tells the strategy.
    pub(super) fn perform(&mut self, me: usize, cpu: usize, op: Op, address: usize, at: Place) {
        self.steps += 1;
        let what = match self.lines.access(cpu, op, address, at) {
            Some((line, transfer)) => What::Access { op, line, transfer },
            None => What::Pause(op),
        };
        self.write(me, what, at);
        if op.writes() {
            self.policy.wrote(me);
        }
    }

    pub(super) fn write(&mut self, thread: usize, what: What, at: Place) {
        if self.events_max == 0 {
            return;
        }
        if self.trace.len() == self.events_max {
            self.trace.pop_front();
        }
        let step = self.steps;
        self.trace.push_back(Event { step, thread, what, at });
    }

    /// Puts the panic of `me` into the trace, at its last yield point.
    pub(super) fn note_panic(&mut self, me: usize) {
        let at = self.standing[me].map_or(Location::caller(), |(_, at)| at);
        self.write(me, What::Label("panicked".into()), at);
    }

    pub(super) fn out_of_steps(&self) -> bool {
        self.steps >= self.steps_max
    }

    /// The failure of a run that has no steps left.
    pub(super) fn stuck(&self, names: &[String]) -> Failure {
        Failure::Stuck { steps: self.steps_max, standing: self.standing(names) }
    }

    /// The failure of a run in which nobody is awake.
    pub(super) fn asleep(&self, names: &[String]) -> Failure {
        Failure::Asleep { standing: self.standing(names) }
    }

    fn standing(&self, names: &[String]) -> Vec<Standing> {
        let standing = |&thread: &usize| Standing { thread: names[thread].clone(), before: self.standing[thread] };
        self.live.iter().map(standing).collect()
    }

    /// A destructor waits after a failure: the others get their turn to unwind, but not for ever.
    pub(super) fn count_unwinding_spin(&mut self) {
        self.unwinding_spins += 1;
        if self.unwinding_spins > UNWINDING_SPINS_MAX {
            let failure = self.failure.as_ref().map_or(String::new(), Failure::to_string);
            eprintln!("a destructor waits for a thread that has unwound, after: {failure}");
            std::process::abort();
        }
    }
}
