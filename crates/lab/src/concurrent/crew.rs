//! CPUs that follow a plan.
//!
//! **Guarantee.** A step is made when all that it needs was made.
//!
//! **Mechanism.** Each CPU says how many steps it has made and where it is in the recording. Who has to wait puts itself on a list; who has made a
//! step wakes those for whom it was the last that was missing.

use super::plan::{Plan, Task};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub(super) struct Crew<'p> {
    plan: &'p Plan<'p>,
    cpus: Box<[Cpu]>,
    /// Those that wait, by their numbers, each with the task that it waits for.
    waiting: Mutex<Vec<(usize, &'p Task)>>,
    /// A CPU has ended too early: who needs its steps waits in vain.
    abandoned: AtomicBool,
}

/// How far a CPU has come.
#[repr(align(128))]
struct Cpu {
    made: AtomicU32,
    /// The place in the recording of what it makes next.
    at: AtomicUsize,
}

impl<'p> Crew<'p> {
    pub(super) fn new(plan: &'p Plan<'p>) -> Self {
        let begin = |tasks: &Vec<Task>| Cpu { made: AtomicU32::new(0), at: AtomicUsize::new(place(tasks, 0)) };
        Self { plan, cpus: plan.cpus.iter().map(begin).collect(), waiting: Mutex::default(), abandoned: AtomicBool::new(false) }
    }

    /// The life of a CPU: makes each of its steps by `make`, which gets the step's place in the recording. `sleep` waits until `wake` was called
    /// with this CPU's number, or not as long.
    pub(super) fn work(&self, cpu: usize, sleep: impl Fn(), wake: impl Fn(usize), mut make: impl FnMut(usize)) {
        let tasks = &self.plan.cpus[cpu];
        for (n, task) in tasks.iter().enumerate() {
            while self.must_wait(cpu, task) {
                if self.abandoned.load(Ordering::SeqCst) {
                    return;
                }
                sleep();
            }
            make(task.at);
            let me = &self.cpus[cpu];
            // SeqCst, as all here: of one that says what it has made and then looks for those who wait, and one that puts itself on the list
            // and then looks what was made, one sees the other.
            me.made.store(n as u32 + 1, Ordering::SeqCst);
            me.at.store(place(tasks, n + 1), Ordering::SeqCst);
            self.ready().into_iter().for_each(&wake);
        }
    }

    /// All end where they must wait.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::SeqCst);
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<(usize, &'p Task)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `cpu` cannot go on yet; it is on the list then.
    fn must_wait(&self, cpu: usize, task: &'p Task) -> bool {
        if self.is_ready(task, self.behind()) {
            return false;
        }
        let mut waiting = self.waiting();
        waiting.retain(|(other, _)| *other != cpu);
        waiting.push((cpu, task));
        drop(waiting);
        !self.is_ready(task, self.behind())
    }

    /// Those of the list that can go on, who are taken off it.
    fn ready(&self) -> Vec<usize> {
        let mut waiting = self.waiting();
        if waiting.is_empty() {
            return Vec::new();
        }
        let behind = self.behind();
        waiting.extract_if(.., |(_, task)| self.is_ready(task, behind)).map(|(cpu, _)| cpu).collect()
    }

    /// Where in the recording the CPU is that is furthest behind.
    fn behind(&self) -> usize {
        self.cpus.iter().map(|cpu| cpu.at.load(Ordering::SeqCst)).min().unwrap_or(usize::MAX)
    }

    fn is_ready(&self, task: &Task, behind: usize) -> bool {
        let is_made = |(cpu, count): &(u32, u32)| self.cpus[*cpu as usize].made.load(Ordering::SeqCst) >= *count;
        task.at - behind.min(task.at) < self.plan.window && task.needs.iter().all(is_made)
    }
}

/// Where in the recording the CPU with these tasks is when it has made `made` of them.
fn place(tasks: &[Task], made: usize) -> usize {
    tasks.get(made).map_or(usize::MAX, |task| task.at)
}
