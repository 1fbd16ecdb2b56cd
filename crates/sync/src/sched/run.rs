//! Setting up a run, and many runs one after the other.

use super::baton::{Baton, silence_panics};
use super::lines::{CPUS_MAX, Classify};
use super::outcome::Outcome;
use super::strategy::Strategy;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::thread::{self, Scope, ScopedJoinHandle};

/// One execution of a few simulated threads under one seed.
///
/// ```
/// use spile_sync::atomic::{AtomicU32, Ordering::Relaxed};
/// use spile_sync::sched::{Run, Strategy};
///
/// let hits = AtomicU32::new(0);
/// let outcome = Run::new(7)
///     .strategy(Strategy::Pct { depth: 3 })
///     .spawn("left", || _ = hits.fetch_add(1, Relaxed))
///     .spawn("right", || _ = hits.fetch_add(1, Relaxed))
///     .run();
/// assert!(outcome.is_ok(), "{}", outcome.story(20));
/// assert_eq!(hits.into_inner(), 2);
/// assert_eq!(outcome.total().shared_writes, 1);
/// ```
#[must_use = "nothing happens before `run`"]
pub struct Run<'env> {
    pub(super) seed: u64,
    pub(super) strategy: Strategy,
    pub(super) steps_max: u64,
    pub(super) steps_expected: Option<u64>,
    pub(super) events_max: usize,
    pub(super) classify: Option<Classify>,
    cpus: Option<usize>,
    threads: Vec<Simulated<'env>>,
}

struct Simulated<'env> {
    name: String,
    cpu: Option<usize>,
    body: Box<dyn FnOnce() + Send + 'env>,
}

impl<'env> Run<'env> {
    /// A run with [`Strategy::Random`], at most 100,000 steps and one CPU per thread.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            strategy: Strategy::Random,
            steps_max: 100_000,
            steps_expected: None,
            events_max: 10_000,
            classify: None,
            cpus: None,
            threads: Vec::new(),
        }
    }

    /// How to choose the next thread.
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// After how many yield points the run counts as stuck.
    pub fn max_steps(mut self, steps: u64) -> Self {
        self.steps_max = steps;
        self
    }

    /// In how many steps [`Strategy::Pct`] places its changes; without it the seed draws a power of two up to 8192.
    pub fn expect_steps(mut self, steps: u64) -> Self {
        self.steps_expected = Some(steps);
        self
    }

    /// How many of the last events to keep for the story; 10,000 unless told.
    pub fn keep_events(mut self, events: usize) -> Self {
        self.events_max = events;
        self
    }

    /// Charges accesses to classes, too: [`counters_by_class`](super::counters_by_class).
    pub fn classify(mut self, classify: Classify) -> Self {
        self.classify = Some(classify);
        self
    }

    /// The number of simulated CPUs, at most 128; threads are dealt to them in turn. Without it each thread has its own.
    pub fn cpus(mut self, cpus: usize) -> Self {
        assert!((1..=CPUS_MAX).contains(&cpus), "between 1 and {CPUS_MAX} CPUs");
        self.cpus = Some(cpus);
        self
    }

    /// Adds a simulated thread. It may borrow what outlives [`run`](Self::run).
    pub fn spawn(self, name: impl Into<String>, body: impl FnOnce() + Send + 'env) -> Self {
        self.add(name.into(), None, Box::new(body))
    }

    /// Adds a simulated thread on the simulated CPU with this number.
    pub fn spawn_on(self, cpu: usize, name: impl Into<String>, body: impl FnOnce() + Send + 'env) -> Self {
        assert!(cpu < CPUS_MAX, "a CPU number below {CPUS_MAX}");
        self.add(name.into(), Some(cpu), Box::new(body))
    }

    fn add(mut self, name: String, cpu: Option<usize>, body: Box<dyn FnOnce() + Send + 'env>) -> Self {
        self.threads.push(Simulated { name, cpu, body });
        self
    }

    /// Runs all threads to their end, or until one panics or the steps are used up; then the others unwind.
    ///
    /// A thread that unwinds still runs its destructors, one thread at a time but with nothing scheduled between; one that
    /// spins there lets the others unwind first.
    #[must_use = "an outcome may be a failure"]
    pub fn run(mut self) -> Outcome {
        silence_panics();
        let threads = std::mem::take(&mut self.threads);
        let names = threads.iter().map(|t| t.name.clone()).collect();
        let cpus = self.assign_cpus(&threads);
        let baton = Arc::new(Baton::new(&self, names, cpus));
        thread::scope(|scope| {
            let started: Vec<_> =
                threads.into_iter().enumerate().map(|(me, simulated)| start(scope, Arc::clone(&baton), me, simulated)).collect();
            baton.start(started.iter().map(|s| s.thread().clone()).collect());
            // A joined thread has run its thread locals' destructors too; the scope alone would not wait for them.
            for thread in started {
                thread.join().expect("simulated threads catch their panics");
            }
        });
        baton.outcome(&self)
    }

    fn assign_cpus(&self, threads: &[Simulated<'_>]) -> Vec<usize> {
        let cpus = self.cpus.unwrap_or(CPUS_MAX);
        let dealt = threads.iter().enumerate().map(|(me, t)| t.cpu.unwrap_or(me % cpus));
        dealt.collect()
    }

    /// How many CPUs the counters need.
    pub(super) fn cpu_count(&self, assigned: &[usize]) -> usize {
        let highest = assigned.iter().max().map_or(0, |&cpu| cpu + 1);
        highest.max(self.cpus.unwrap_or(0))
    }
}

impl fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.threads.iter().map(|t| &t.name).collect();
        f.debug_struct("Run")
            .field("seed", &self.seed)
            .field("strategy", &self.strategy)
            .field("threads", &names)
            .finish_non_exhaustive()
    }
}

fn start<'scope>(
    scope: &'scope Scope<'scope, '_>,
    baton: Arc<Baton>,
    me: usize,
    simulated: Simulated<'scope>,
) -> ScopedJoinHandle<'scope, ()> {
    let Simulated { name, body, .. } = simulated;
    let spawned = thread::Builder::new().name(name).spawn_scoped(scope, move || baton.live(me, body));
    // Threads already waiting for the baton could never be joined, so unwinding from here would hang.
    spawned.unwrap_or_else(|error| {
        eprintln!("no OS thread for a simulated one: {error}");
        std::process::abort()
    })
}

/// What [`explore`] found.
#[derive(Debug, Clone)]
pub struct Explored {
    /// How many seeds passed.
    pub passed: u64,
    /// Yield points passed, in all runs together.
    pub steps: u64,
    /// The outcome of the first seed that failed; it ended the exploration.
    pub failure: Option<Outcome>,
}

impl Explored {
    /// The first seed that failed.
    pub fn failing_seed(&self) -> Option<u64> {
        self.failure.as_ref().map(Outcome::seed)
    }

    /// Passes a good result on; panics with the end of the story of the first seed that failed.
    #[track_caller]
    pub fn expect_ok(self) -> Self {
        if let Some(failed) = self.failure {
            failed.expect_ok();
            unreachable!("a failure is not ok");
        }
        self
    }
}

/// Runs `program` once per seed until one fails. The program adds its threads to the run it is given, runs it, and judges
/// the result by [`Outcome::check`]:
///
/// ```
/// use spile_sync::atomic::{AtomicU32, Ordering::Relaxed};
/// use spile_sync::sched::{Strategy, explore};
///
/// let found = explore(0..100, Strategy::Random, |run| {
///     let sum = AtomicU32::new(0);
///     let add = || sum.store(sum.load(Relaxed) + 1, Relaxed);
///     let outcome = run.spawn("left", add).spawn("right", add).run();
///     outcome.check(sum.into_inner() == 2, "an update was lost")
/// });
/// println!("{}", found.failure.expect("a seed that loses an update").story(20));
/// ```
#[must_use = "a seed may have failed"]
pub fn explore(seeds: Range<u64>, strategy: Strategy, mut program: impl FnMut(Run<'static>) -> Outcome) -> Explored {
    let mut explored = Explored { passed: 0, steps: 0, failure: None };
    for seed in seeds {
        let outcome = program(Run::new(seed).strategy(strategy));
        explored.steps += outcome.steps();
        if !outcome.is_ok() {
            explored.failure = Some(outcome);
            break;
        }
        explored.passed += 1;
    }
    explored
}
