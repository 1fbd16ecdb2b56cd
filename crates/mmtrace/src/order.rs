//! Events in the order in which the kernel made the changes.

use crate::event::{Call, Event, Fault, Op, Snapshot, VmaLine};
use crate::parse::{Refused, Said, Trace, each_line};
use std::collections::{HashMap, HashSet};

/// Something to do to an address space, or to compare with it.
#[derive(Clone, Debug)]
pub struct Step {
    /// The line of the trace that it is from.
    pub line: usize,
    /// Nanoseconds since the trace began.
    pub at_ns: u64,
    /// The thread.
    pub tid: u32,
    /// The address space, by a number that is never used again.
    pub mm: usize,
    /// What to do.
    pub kind: Kind,
}

/// What a [`Step`] does.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A new program: the address space is what the snapshot says. The faults are those of the loader.
    Exec(Snapshot, Vec<Fault>),
    /// The address space is copied.
    Fork {
        /// The copy's number.
        child: usize,
    },
    /// A call, made now, with its result: a value or an errno.
    Call(Call, Result<u64, i32>),
    /// How a mapping is after the last change of this thread, according to the kernel.
    Vma(VmaLine),
    /// A page fault.
    Fault(Fault),
    /// The address space before it goes away, according to the kernel.
    Compare(Snapshot),
    /// The last user of the address space is gone.
    Gone,
}

const CLONE_VM: u64 = 0x100;

/// A call under way.
struct Pending {
    call: Call,
    /// Its step, if it has got the lock.
    placed: Option<usize>,
}

#[derive(Default)]
struct Order {
    steps: Vec<Option<Step>>,
    spaces: HashMap<u32, usize>,
    users: HashMap<usize, usize>,
    numbers: usize,
    pending: HashMap<u32, Pending>,
    /// Where a thread last had the lock of another address space: a fork's copy is made there.
    elsewhere: HashMap<u32, usize>,
    /// Threads that have the lock of another address space: what they change is not theirs.
    strangers: HashSet<u32>,
    /// Loaders at work, and their faults.
    loading: HashMap<u32, Vec<Fault>>,
}

/// The steps of `trace`. Threads whose address space the trace does not know yet are left out.
///
/// # Errors
///
/// [`Refused`] where the events contradict each other.
pub fn steps(trace: &Trace) -> Result<Vec<Step>, Refused> {
    let mut order = Order::default();
    trace.events.iter().cloned().try_for_each(|event| order.take(event))?;
    Ok(order.finish())
}

/// What could be read of a recording.
#[derive(Debug, Default)]
pub struct Salvaged {
    /// Its steps, up to where it is damaged, wrong or cut off.
    pub steps: Vec<Step>,
    /// What the kernel did meanwhile.
    pub kernel: Kernel,
    /// Where and why it ends too early, if it does.
    pub torn: Option<Refused>,
}

/// What the kernel did that was recorded from, as far as it can be told from its lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kernel {
    /// Faults.
    pub faults: u64,
    /// Those for which it took the lock of the address space.
    pub faults_with_lock: u64,
    /// How often that lock was taken for writing.
    pub writes: u64,
    /// How often a try to take it failed.
    pub tries_failed: u64,
}

/// Reads the bytes of a file, compressed with xz or not, up to where they are damaged, wrong or cut off, if they are: for files too large to
/// have their events in memory, too.
pub fn salvaged(bytes: &[u8]) -> Salvaged {
    let mut order = Order::default();
    let mut witness = Witness::default();
    let refused = each_line(bytes, |said| match said {
        Said::Event(event) => {
            witness.sees(&event);
            order.take(event)
        }
        Said::Header(_) | Said::File(..) => Ok(()),
    });
    Salvaged { steps: order.finish(), kernel: witness.kernel, torn: refused.err() }
}

/// Counts what the kernel did.
#[derive(Default)]
struct Witness {
    kernel: Kernel,
    /// Threads whose last line is a fault.
    faulting: HashSet<u32>,
}

impl Witness {
    fn sees(&mut self, event: &Event) {
        let was_faulting = self.faulting.remove(&event.tid);
        let counts = &mut self.kernel;
        match event.op {
            Op::Fault(_) => {
                counts.faults += 1;
                self.faulting.insert(event.tid);
            }
            Op::Lock { acquired: true, other: false, failed: true, .. } => {
                counts.tries_failed += 1;
                // It tries, and then waits.
                if was_faulting {
                    self.faulting.insert(event.tid);
                }
            }
            Op::Lock { acquired: true, write: false, other: false, .. } => counts.faults_with_lock += u64::from(was_faulting),
            Op::Lock { acquired: true, write: true, other: false, .. } => counts.writes += 1,
            _ => {}
        }
    }
}

/// Where an event is in the recording, and whose it is.
#[derive(Clone, Copy)]
struct At {
    line: usize,
    at_ns: u64,
    tid: u32,
}

impl At {
    fn step(self, mm: usize, kind: Kind) -> Step {
        Step { line: self.line, at_ns: self.at_ns, tid: self.tid, mm, kind }
    }
}

impl Order {
    fn finish(self) -> Vec<Step> {
        self.steps.into_iter().flatten().collect()
    }

    fn take(&mut self, event: Event) -> Result<(), Refused> {
        let at = At { line: event.line, at_ns: event.at_ns, tid: event.tid };
        let tid = at.tid;
        match event.op {
            Op::ExecBegin => {
                self.leave(at);
                self.loading.insert(tid, Vec::new());
                self.pending.remove(&tid);
            }
            Op::Clone { child, flags } => self.clone(at, child, flags),
            Op::Exit { .. } => self.leave(at),
            Op::Call(call) => {
                self.pending.insert(tid, Pending { call, placed: None });
            }
            Op::Return(result) => self.returned(at, result)?,
            Op::Lock { acquired: true, write: true, other: false, failed: false } => self.locked(at),
            Op::Lock { acquired: true, write: true, other: true, .. } => {
                self.strangers.insert(tid);
                self.elsewhere.insert(tid, self.steps.len());
                self.steps.push(None);
            }
            Op::Lock { acquired: false, other: true, .. } => {
                self.strangers.remove(&tid);
            }
            Op::Lock { .. } | Op::Other(_) => {}
            Op::Vma(_) if self.loading.contains_key(&tid) || self.strangers.contains(&tid) => {}
            Op::Vma(vma) => self.step(at, Kind::Vma(vma)),
            Op::Fault(fault) => match self.loading.get_mut(&tid) {
                Some(faults) => faults.push(fault),
                None => self.step(at, Kind::Fault(fault)),
            },
            Op::Snapshot(snapshot) if snapshot.exec => {
                let faults = self.loading.remove(&tid).unwrap_or_default();
                self.enter_new(tid);
                self.step(at, Kind::Exec(snapshot, faults));
            }
            Op::Snapshot(snapshot) => self.step(at, Kind::Compare(snapshot)),
        }
        Ok(())
    }

    fn step(&mut self, at: At, kind: Kind) {
        let Some(&mm) = self.spaces.get(&at.tid) else { return };
        self.steps.push(Some(at.step(mm, kind)));
    }

    fn enter_new(&mut self, tid: u32) -> usize {
        let mm = self.numbers;
        self.numbers += 1;
        self.enter(tid, mm);
        mm
    }

    fn enter(&mut self, tid: u32, mm: usize) {
        self.spaces.insert(tid, mm);
        *self.users.entry(mm).or_default() += 1;
    }

    /// The thread no longer uses its address space.
    fn leave(&mut self, at: At) {
        let Some(&mm) = self.spaces.get(&at.tid) else { return };
        let users = self.users.get_mut(&mm).expect("a space in use has users");
        *users -= 1;
        if *users == 0 {
            self.step(at, Kind::Gone);
        }
        self.spaces.remove(&at.tid);
    }

    fn clone(&mut self, at: At, child: u32, flags: u64) {
        let Some(&mm) = self.spaces.get(&at.tid) else { return };
        if flags & CLONE_VM != 0 {
            return self.enter(child, mm);
        }
        let copy = self.enter_new(child);
        let step = at.step(mm, Kind::Fork { child: copy });
        match self.elsewhere.remove(&at.tid) {
            Some(place) => self.steps[place] = Some(step),
            None => self.steps.push(Some(step)),
        }
    }

    /// The lock was taken for writing: the call's change is made now. Its result comes later.
    fn locked(&mut self, at: At) {
        let Some(pending) = self.pending.get_mut(&at.tid).filter(|pending| pending.placed.is_none()) else { return };
        pending.placed = Some(self.steps.len());
        // A prctl has no line for its return.
        let named = matches!(pending.call, Call::AnonName { .. }).then(|| pending.call.clone());
        match named {
            Some(call) => {
                self.pending.remove(&at.tid);
                self.step(at, Kind::Call(call, Ok(0)));
            }
            None => self.steps.push(None),
        }
    }

    fn returned(&mut self, at: At, result: Result<u64, i32>) -> Result<(), Refused> {
        let Some(Pending { call, placed }) = self.pending.remove(&at.tid) else {
            return if self.spaces.contains_key(&at.tid) {
                Err(Refused::at(at.line, "a call returns that never began"))
            } else {
                Ok(())
            };
        };
        let Some(&mm) = self.spaces.get(&at.tid) else { return Ok(()) };
        let step = Some(at.step(mm, Kind::Call(call, result)));
        match placed {
            Some(place) => self.steps[place] = step,
            None => self.steps.push(step),
        }
        Ok(())
    }
}
