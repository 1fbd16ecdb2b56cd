//! A workload's passes, made by threads.
//!
//! **Guarantee.** A thread's time is that of its timed phases, less the price of the clock. What is done for all by one thread, others wait for with their
//! clocks stopped.
//!
//! **Mechanism.** Where all phases are timed and none is done for others, the clock runs from the first pass to the last.

use super::clock::{self, Stopwatch};
use super::target::{Events, Target};
use super::workload::{Area, On, PAGE, Phase, Step, Workload};
use serde::{Deserialize, Serialize};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

/// What so many passes took.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    /// Passes of each thread.
    pub passes: u64,
    /// Operations of all threads.
    pub ops: u64,
    /// CPU time of all threads.
    pub cpu: Duration,
    /// Time on the wall: that of the thread that took longest.
    pub wall: Duration,
    /// What happened.
    pub events: Events,
}

impl Sample {
    /// CPU time of an operation, in nanoseconds.
    pub fn ns_per_op(&self) -> f64 {
        self.cpu.as_nanos() as f64 / self.ops as f64
    }

    /// Operations per second of CPU time.
    pub fn per_cpu_second(&self) -> f64 {
        1e9 / self.ns_per_op()
    }

    /// Operations per second on the wall.
    pub fn per_second(&self) -> f64 {
        self.ops as f64 / self.wall.as_secs_f64()
    }
}

/// Somebody who makes passes.
pub trait Contender {
    /// Its name in tables.
    fn name(&self) -> &str;

    /// Makes so many passes.
    ///
    /// # Errors
    ///
    /// It is gone.
    fn play(&mut self, passes: u64) -> anyhow::Result<Sample>;
}

/// A target, and a workload whose setup it has done.
pub struct Player<T: Target> {
    name: String,
    target: T,
    workload: Workload,
    /// The units of each thread.
    units: Vec<Vec<u64>>,
}

impl<T: Target> Player<T> {
    /// Does the setup.
    pub fn new(name: &str, target: T, workload: &Workload, threads: usize) -> Self {
        let units = (0..threads).map(|thread| workload.units_of(thread, threads)).collect();
        for area in 0..workload.areas(threads) {
            let all: Vec<u64> = (0..workload.units()).collect();
            let mut hand = Hand { target: &target, workload, units: &all, at: workload.area_of(area) };
            target.run(area, || workload.setup.iter().for_each(|phase| hand.phase(phase)));
        }
        Self { name: name.to_string(), target, workload: workload.clone(), units }
    }

    fn thread(&self, number: usize, passes: u64, barrier: &Barrier) -> (Duration, Duration) {
        let hand = Hand {
            target: &self.target,
            workload: &self.workload,
            units: &self.units[number],
            at: self.workload.area_of(number),
        };
        let mut pace =
            Pace { barrier, is_first: number == 0, cpu: Stopwatch::new(), wall: Duration::ZERO, since: Instant::now() };
        clock::pin(number);
        barrier.wait();
        self.target.run(number, || hand.passes(passes, &mut pace));
        (pace.cpu.spent(), pace.wall)
    }
}

impl<T: Target> Contender for Player<T> {
    fn name(&self) -> &str {
        &self.name
    }

    fn play(&mut self, passes: u64) -> anyhow::Result<Sample> {
        let threads = self.units.len();
        let barrier = Barrier::new(threads);
        let before = self.target.events();
        let times: Vec<_> = thread::scope(|scope| {
            let (me, barrier) = (&*self, &barrier);
            let started: Vec<_> = (0..threads).map(|number| scope.spawn(move || me.thread(number, passes, barrier))).collect();
            started.into_iter().map(|thread| thread.join().expect("calls do not fail")).collect()
        });
        Ok(Sample {
            passes,
            ops: self.workload.ops_in_pass(threads) * passes,
            cpu: times.iter().map(|(cpu, _)| *cpu).sum(),
            wall: times.iter().map(|(_, wall)| *wall).max().unwrap_or_default(),
            events: self.target.events().since(before),
        })
    }
}

/// The clocks of a thread, and whom it waits for.
struct Pace<'b> {
    barrier: &'b Barrier,
    is_first: bool,
    cpu: Stopwatch,
    wall: Duration,
    since: Instant,
}

impl Pace<'_> {
    fn start(&mut self) {
        self.since = Instant::now();
        self.cpu.start();
    }

    fn stop(&mut self) {
        self.cpu.stop();
        self.wall += self.since.elapsed();
    }

    /// What one thread does for all.
    fn for_all(&mut self, timed: bool, work: impl FnOnce()) {
        self.barrier.wait();
        if self.is_first {
            if timed {
                self.start();
            }
            work();
            if timed {
                self.stop();
            }
        }
        self.barrier.wait();
    }
}

/// A thread at work.
struct Hand<'a, T: Target> {
    target: &'a T,
    workload: &'a Workload,
    units: &'a [u64],
    /// Where its area is now.
    at: u64,
}

impl<T: Target> Hand<'_, T> {
    fn passes(mut self, passes: u64, pace: &mut Pace<'_>) {
        let for_all = |phase: &Phase| self.workload.area == Area::One && phase.on == On::Area;
        let workload = self.workload;
        if workload.pass.iter().all(|phase| phase.timed && !for_all(phase)) {
            pace.start();
            (0..passes).for_each(|_| workload.pass.iter().for_each(|phase| self.phase(phase)));
            return pace.stop();
        }
        for phase in (0..passes).flat_map(|_| &workload.pass) {
            if workload.area == Area::One && phase.on == On::Area {
                pace.for_all(phase.timed, || self.phase(phase));
            } else if phase.timed {
                pace.start();
                self.phase(phase);
                pace.stop();
            } else {
                self.phase(phase);
            }
        }
    }

    fn phase(&mut self, phase: &Phase) {
        match phase.on {
            On::Area => {
                let len = self.workload.area_len();
                for step in &phase.steps {
                    self.at = self.step(*step, self.at, len).unwrap_or(self.at);
                }
            }
            On::Unit => {
                let (at, stride, len) = (self.at, self.workload.stride(), self.workload.unit * PAGE);
                for unit in self.units {
                    phase.steps.iter().for_each(|step| _ = self.step(*step, at + unit * stride, len));
                }
            }
        }
    }

    /// Says where the area is now, if it has moved.
    #[inline]
    fn step(&self, step: Step, at: u64, len: u64) -> Option<u64> {
        let target = self.target;
        match step {
            Step::Map => _ = target.map(Some(at), len),
            Step::MapAnywhere => return Some(target.map(None, len)),
            Step::Unmap => target.unmap(at, len),
            Step::Write => target.write(at, len),
            Step::Read => target.read(at, len),
            Step::Discard => target.discard(at, len),
            Step::ProtectRead => target.protect(at, len, false),
            Step::ProtectWrite => target.protect(at, len, true),
            Step::BrkUp => target.brk(PAGE),
            Step::BrkDown => target.brk(0),
            Step::Fork => target.fork(),
        }
        None
    }
}
