//! What the checks know: the state of each CPU, which changes are not flushed yet, what happened last.
//!
//! **Guarantee.** A broken rule panics once, with the last things that happened to the page or frame it is about. Watching adds no yield
//! point: it is not part of the schedule, though what it sees is told in the schedule's stories.
//!
//! **Mechanism.** One lock around everything, held for a few lines and never across a yield point. A change that takes something away from
//! a page (told by `Mmu::commit`, before it is made) is a *debt* of the CPU that makes it. `issue` moves the debts that it covers into
//! a *flush*; the flush is over when each CPU of its space has served it. A flush of somebody who has changed the entry again, and so comes after that
//! change too, does as well. So a stale translation is legal exactly as
//! long as a debt or an unserved flush is about its page, and a CPU that ends an operation owes nothing.

use crate::machine::tell;
use crate::tlb::{Entry, Tlb};
use spile::paging::Pte;
use spile::{FrameId, PAGE, Range, SpaceId};
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::panicking;

/// How many events are remembered for stories.
const REMEMBERED: usize = 512;
/// How many of them a story tells.
const TOLD: usize = 24;
/// Table locks that a CPU may hold at once.
const PINS: u32 = 2;

/// What a simulated machine did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Flushes issued.
    pub flushes: u64,
    /// Requests sent to other CPUs.
    pub ipis: u64,
    /// Accesses that found their translation cached.
    pub hits: u64,
    /// Of these, with a translation that was stale, legally.
    pub stale_hits: u64,
    /// Accesses that walked the tables.
    pub walks: u64,
    /// Times a CPU slept.
    pub sleeps: u64,
    /// Times those that wait for something were told that it has happened, whether any slept or not.
    pub wakes: u64,
}

/// A CPU, as the checks see it.
#[derive(Debug, Default)]
pub(crate) struct CpuState {
    pub(crate) tlb: Tlb,
    /// The space it runs, and its topmost table.
    pub(crate) space: Option<(SpaceId, FrameId)>,
    /// Operations under way. With none, or asleep, others flush it on its behalf: as if the request interrupted it at once.
    pub(crate) busy: u32,
    pub(crate) asleep: bool,
    /// In the middle of a program's access.
    pub(crate) accessing: bool,
    /// Inside the kernel: online for RCU.
    pub(crate) kernel: bool,
    /// RCU sections it is in.
    pub(crate) sections: u32,
    pub(crate) pins: u32,
}

impl CpuState {
    /// Whether a request has to wait until the CPU looks. An access is never interrupted in its middle.
    fn answers_itself(&self, interruptible: bool) -> bool {
        self.accessing || (self.busy > 0 && !self.asleep && !interruptible)
    }
}

/// Something was taken away from a page, and not flushed yet.
#[derive(Clone, Copy, Debug)]
struct Debt {
    space: SpaceId,
    at: u64,
    frame: FrameId,
    by: usize,
    /// When it was made.
    since: u64,
    /// CPUs that have changed the entry again since: their flushes do for this debt too.
    heirs: u128,
}

/// A flush that some CPU has not served.
#[derive(Debug)]
struct Open {
    id: u64,
    space: SpaceId,
    range: Range,
    by: usize,
    since: u64,
    dispatched: bool,
    /// Debts of others that it does for, by when they were made.
    inherited: Vec<u64>,
    /// CPUs that have not served it.
    waiting: u128,
    paid: Vec<Debt>,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Commit(Option<Pte>, Option<Pte>),
    Fill(Pte),
    Freed,
    Issued(u64),
    Served(u64),
    Acked(u64),
}

#[derive(Clone, Copy, Debug)]
struct Event {
    time: u64,
    cpu: usize,
    space: SpaceId,
    range: Option<Range>,
    frame: Option<FrameId>,
    what: What,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>6} cpu {}: ", self.time, self.cpu)?;
        let at = Shown(self.range.map(|range| (self.space, range)));
        match self.what {
            What::Commit(old, new) => write!(f, "{at} from {} to {}", Shown(old), Shown(new)),
            What::Fill(pte) => write!(f, "{at} cached as {}", Shown(Some(pte))),
            What::Freed => write!(f, "{:?} freed", self.frame.unwrap_or(FrameId(0))),
            What::Issued(id) => write!(f, "{at} flush {id} issued"),
            What::Served(id) => write!(f, "{at} flush {id} served"),
            What::Acked(id) => write!(f, "{at} flush {id} over"),
        }
    }
}

/// An event as a story of the seeded scheduler tells it, beside what its CPUs do.
struct Told(Event);

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Event { cpu, space, range, frame, what, .. } = self.0;
        let at = range.map_or(0, |range| range.start());
        match what {
            What::Commit(old, new) => write!(f, "PTE {at:#x} of {space:?}: {} -> {}", Shown(old), Shown(new)),
            What::Fill(pte) => write!(f, "TLB {at:#x} of {space:?}: {}", Shown(Some(pte))),
            What::Freed => write!(f, "frees {:?}", frame.unwrap_or(FrameId(0))),
            What::Issued(id) => write!(f, "issues flush {id} of {}", Shown(range.map(|range| (space, range)))),
            What::Served(id) => write!(f, "cpu {cpu} serves flush {id}"),
            What::Acked(id) => write!(f, "flush {id} is over"),
        }
    }
}

struct Shown<T>(Option<T>);

impl fmt::Display for Shown<Pte> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(pte) = self.0 else { return f.write_str("nothing") };
        write!(f, "{:?} {:?}{}", pte.frame, pte.prot, if pte.dirty { " dirty" } else { "" })
    }
}

impl fmt::Display for Shown<(SpaceId, Range)> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((space, range)) = self.0 else { return f.write_str("-") };
        write!(f, "{space:?} {range}")
    }
}

/// Everything that is watched.
#[derive(Debug)]
pub(crate) struct State {
    clock: u64,
    /// Whether requests interrupt whatever runs; else it serves them where it spins, and between operations.
    interruptible: bool,
    pub(crate) cpus: Vec<CpuState>,
    debts: Vec<Debt>,
    open: Vec<Open>,
    flushes: u64,
    pub(crate) counts: Counts,
    /// What somebody besides programs has, and whether it may not be protected.
    pub(crate) in_use: Vec<(FrameId, bool)>,
    events: VecDeque<Event>,
    /// A rule was broken: what follows means nothing.
    pub(crate) broken: bool,
}

#[derive(Debug)]
pub(crate) struct Watch(Mutex<State>);

impl Watch {
    pub(crate) fn new(cpus: usize, interruptible: bool) -> Self {
        Self(Mutex::new(State {
            clock: 0,
            interruptible,
            cpus: (0..cpus).map(|_| CpuState::default()).collect(),
            debts: Vec::new(),
            open: Vec::new(),
            in_use: Vec::new(),
            flushes: 0,
            counts: Counts::default(),
            events: VecDeque::new(),
            broken: false,
        }))
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `f`, and panics with the story that it found reason to tell.
    #[track_caller]
    pub(crate) fn check<T>(&self, f: impl FnOnce(&mut State) -> (T, Option<String>)) -> T {
        let mut state = self.state();
        let (result, complaint) = f(&mut state);
        let silent = state.broken || panicking();
        state.broken |= complaint.is_some();
        drop(state);
        match complaint {
            Some(story) if !silent => panic!("{story}"),
            _ => result,
        }
    }

    /// Panics unless `holds`, once.
    #[track_caller]
    pub(crate) fn expect(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.check(|_| ((), Some(what())));
        }
    }
}

impl State {
    fn note(&mut self, cpu: usize, space: SpaceId, range: Option<Range>, frame: Option<FrameId>, what: What) {
        self.clock += 1;
        if self.events.len() == REMEMBERED {
            self.events.pop_front();
        }
        let event = Event { time: self.clock, cpu, space, range, frame, what };
        self.events.push_back(event);
        tell(Told(event));
    }

    pub(crate) fn now(&self) -> u64 {
        self.clock
    }

    /// The last events about the page at `at` of `space`, or about `frame`.
    fn story(&self, what: String, space: SpaceId, at: Option<u64>, frame: Option<FrameId>) -> String {
        let of_pte = |pte: &Option<Pte>| pte.is_some_and(|pte| Some(pte.frame) == frame);
        let about = |event: &&Event| {
            let page = event.space == space && event.range.is_some_and(|range| at.is_some_and(|at| range.contains(at)));
            let frame = frame.is_some()
                && match &event.what {
                    What::Commit(old, new) => of_pte(old) || of_pte(new),
                    What::Fill(pte) => Some(pte.frame) == frame,
                    _ => event.frame == frame,
                };
            page || frame
        };
        let mut told: Vec<String> = self.events.iter().rev().filter(about).take(TOLD).map(Event::to_string).collect();
        told.reverse();
        format!("{what}\n  what happened there last:\n{}", told.join("\n"))
    }

    /// Whether what was read from the page at `at` may be stale for `cpu`.
    fn is_excused(&self, cpu: usize, space: SpaceId, at: u64) -> bool {
        let owed = self.debts.iter().any(|debt| debt.space == space && debt.at == at);
        let unserved = |flush: &Open| flush.space == space && flush.range.contains(at) && flush.waiting & (1 << cpu) != 0;
        owed || self.open.iter().any(unserved)
    }

    /// Whether `cpu` may use `entry` where the tables say `now`.
    pub(crate) fn may_use(&self, cpu: usize, entry: Entry, now: Option<Pte>) -> bool {
        is_fresh(entry.pte, now) || self.is_excused(cpu, entry.space, entry.at)
    }

    /// `cpu` uses `entry`, and the tables say `now`.
    pub(crate) fn used(&mut self, cpu: usize, entry: Entry, now: Option<Pte>) -> Option<String> {
        let pte = entry.pte;
        self.counts.hits += 1;
        self.counts.stale_hits += u64::from(!is_fresh(pte, now));
        if self.may_use(cpu, entry, now) {
            return None;
        }
        let what = format!(
            "cpu {cpu} uses {} at {:#x} of {:?}, cached at {}, where the tables have {}; and no flush of it is under way",
            Shown(Some(pte)),
            entry.at,
            entry.space,
            entry.filled,
            Shown(now)
        );
        Some(self.story(what, entry.space, Some(entry.at), Some(pte.frame)))
    }

    /// `cpu` read `pte` from the tables.
    pub(crate) fn fill(&mut self, cpu: usize, space: SpaceId, at: u64, pte: Pte, generation: u32) {
        self.counts.walks += 1;
        self.note(cpu, space, Some(Range::page_of(at)), Some(pte.frame), What::Fill(pte));
        let filled = self.clock;
        self.cpus[cpu].tlb.fill(Entry { space, at, pte, generation, filled });
    }

    /// `cpu` is about to change the entry of `at`.
    pub(crate) fn commit(&mut self, cpu: usize, space: SpaceId, at: u64, old: Option<Pte>, new: Option<Pte>) -> Option<String> {
        let page = Range::page_of(at);
        self.note(cpu, space, Some(page), None, What::Commit(old, new));
        if let (None, Some(new)) = (old, new) {
            return self.shown_too_early(cpu, space, at, new);
        }
        let of_open = self.open.iter_mut().flat_map(|open| &mut open.paid);
        let others = self.debts.iter_mut().chain(of_open).filter(|debt| debt.space == space && debt.at == at && debt.by != cpu);
        others.for_each(|debt| debt.heirs |= 1 << cpu);
        let old = old?;
        let narrows = new.is_none_or(|new| new.frame != old.frame || !new.prot.has(old.prot) || (old.dirty && !new.dirty));
        if narrows {
            self.debts.push(Debt { space, at, frame: old.frame, by: cpu, since: self.clock, heirs: 0 });
        }
        None
    }

    /// Of a page that `cpu` shows: what it took away before must have been flushed (P5), here and where it moved the page from.
    fn shown_too_early(&self, cpu: usize, space: SpaceId, at: u64, new: Pte) -> Option<String> {
        let unserved = self.open.iter().filter(|open| open.by == cpu).flat_map(|open| &open.paid);
        let owed = self.debts.iter().filter(|debt| debt.by == cpu);
        let mut before = owed.chain(unserved).filter(|debt| debt.space == space);
        let debt = before.find(|debt| debt.at == at || debt.frame == new.frame)?;
        let what = format!(
            "cpu {cpu} shows {} at {at:#x} of {space:?} before what it took away at {:#x}, {:?}, is flushed",
            Shown(Some(new)),
            debt.at,
            debt.frame
        );
        Some(self.story(what, space, Some(debt.at), Some(debt.frame)))
    }

    /// `cpu` issues a flush: its own translations go, the other CPUs of the space are noted.
    pub(crate) fn issue(&mut self, cpu: usize, space: SpaceId, range: Range) -> u64 {
        self.flushes += 1;
        self.counts.flushes += 1;
        let id = self.flushes;
        self.note(cpu, space, Some(range), None, What::Issued(id));
        self.cpus[cpu].tlb.flush(space, range);
        let runs = |state: &CpuState| state.space.is_some_and(|(now, _)| now == space);
        let others = self.cpus.iter().enumerate().filter(|(other, state)| *other != cpu && runs(state));
        let waiting = others.fold(0u128, |mask, (other, _)| mask | 1 << other);
        let covered = |debt: &Debt| debt.by == cpu && debt.space == space && range.contains(debt.at);
        let (paid, owed): (Vec<_>, Vec<_>) = self.debts.drain(..).partition(covered);
        self.debts = owed;
        let is_heir = |debt: &&Debt| debt.heirs & (1 << cpu) != 0 && debt.space == space && range.contains(debt.at);
        let of_open = self.open.iter().flat_map(|open| &open.paid);
        let inherited: Vec<u64> = self.debts.iter().chain(of_open).filter(is_heir).map(|debt| debt.since).collect();
        if waiting == 0 {
            self.settle(&inherited);
            self.note(cpu, space, Some(range), None, What::Acked(id));
        } else {
            let since = self.clock;
            self.open.push(Open { id, space, range, by: cpu, since, dispatched: false, inherited, waiting, paid });
        }
        id
    }

    /// Debts that were made at these times are no longer owed.
    fn settle(&mut self, made: &[u64]) {
        let is_owed = |debt: &Debt| !made.contains(&debt.since);
        self.debts.retain(is_owed);
        self.open.iter_mut().for_each(|open| open.paid.retain(is_owed));
    }

    /// Sends the requests of flush `id`. To which CPUs.
    pub(crate) fn dispatch(&mut self, id: u64) -> u128 {
        let Some(open) = self.open.iter_mut().find(|open| open.id == id) else { return 0 };
        open.dispatched = true;
        self.counts.ipis += u64::from(open.waiting.count_ones());
        open.waiting
    }

    /// `cpu` does what it was asked for. Whether there was anything.
    pub(crate) fn serve(&mut self, cpu: usize) -> bool {
        let bit = 1u128 << cpu;
        let mut served = Vec::new();
        for open in self.open.iter_mut().filter(|open| open.dispatched && open.waiting & bit != 0) {
            open.waiting &= !bit;
            self.cpus[cpu].tlb.flush(open.space, open.range);
            served.push((open.id, open.space, open.range));
        }
        for (id, space, range) in &served {
            self.note(cpu, *space, Some(*range), None, What::Served(*id));
        }
        !served.is_empty()
    }

    /// Whether flush `id` is over. CPUs that do not answer themselves are interrupted.
    pub(crate) fn acked(&mut self, cpu: usize, id: u64) -> (bool, Option<String>) {
        let Some(open) = self.open.iter().find(|open| open.id == id) else { return (true, None) };
        let waiting = open.waiting;
        let silent = (0..self.cpus.len())
            .filter(|&other| waiting & (1 << other) != 0 && !self.cpus[other].answers_itself(self.interruptible));
        for other in silent.collect::<Vec<_>>() {
            self.serve(other);
        }
        let at = self.open.iter().position(|open| open.id == id).expect("found above");
        if self.open[at].waiting != 0 {
            return (false, None);
        }
        let Open { space, range, since, inherited, .. } = self.open.remove(at);
        self.settle(&inherited);
        self.note(cpu, space, Some(range), None, What::Acked(id));
        (true, self.survivor(space, range, since, "a flush was over"))
    }

    /// A translation of `range` from before `since` that some CPU still has.
    pub(crate) fn survivor(&self, space: SpaceId, range: Range, since: u64, when: &str) -> Option<String> {
        let old = |entry: &&Entry| entry.space == space && range.contains(entry.at) && entry.filled < since;
        let (cpu, entry) = self.cpus.iter().enumerate().find_map(|(cpu, state)| Some((cpu, *state.tlb.entries().find(old)?)))?;
        let what = format!(
            "when {when}, cpu {cpu} still had {} at {:#x}, cached at {}; it is about {range} as it was at {since}",
            Shown(Some(entry.pte)),
            entry.at,
            entry.filled
        );
        Some(self.story(what, space, Some(entry.at), Some(entry.pte.frame)))
    }

    /// `cpu` ends an operation.
    pub(crate) fn ended(&self, cpu: usize) -> Option<String> {
        let state = &self.cpus[cpu];
        if state.pins != 0 || state.sections != 0 {
            return Some(format!("cpu {cpu} ended an operation in {} RCU sections with {} pins", state.sections, state.pins));
        }
        if let Some(debt) = self.debts.iter().find(|debt| debt.by == cpu) {
            let what = format!("cpu {cpu} ended an operation and never flushed {:?} at {:#x}", debt.frame, debt.at);
            return Some(self.story(what, debt.space, Some(debt.at), Some(debt.frame)));
        }
        let open = self.open.iter().find(|open| open.by == cpu)?;
        let what = format!("cpu {cpu} ended an operation and did not await its flush {}", open.id);
        Some(self.story(what, open.space, Some(open.range.start()), None))
    }

    /// A frame with data goes back.
    pub(crate) fn freed(&mut self, cpu: usize, frame: FrameId) -> Option<String> {
        self.note(cpu, SpaceId(0), None, Some(frame), What::Freed);
        let cached = |(cpu, state): (usize, &CpuState)| {
            let entry = state.tlb.entries().find(|entry| entry.pte.frame == frame)?;
            Some((cpu, *entry))
        };
        if let Some((other, entry)) = self.cpus.iter().enumerate().find_map(cached) {
            let what = format!("cpu {cpu} freed {frame:?}, which cpu {other} still has cached at {:#x}", entry.at);
            return Some(self.story(what, entry.space, Some(entry.at), Some(frame)));
        }
        let of_open = self.open.iter().flat_map(|open| &open.paid);
        let debt = self.debts.iter().chain(of_open).find(|debt| debt.frame == frame)?;
        let what = format!("cpu {cpu} freed {frame:?}, which was taken away at {:#x} and not flushed", debt.at);
        Some(self.story(what, debt.space, Some(debt.at), Some(frame)))
    }

    /// A table goes back.
    pub(crate) fn freed_table(&mut self, cpu: usize, table: FrameId) -> Option<String> {
        self.note(cpu, SpaceId(0), None, Some(table), What::Freed);
        let other = self.cpus.iter().position(|state| state.tlb.walks_to(table))?;
        let what = format!("cpu {cpu} freed table {table:?}, to which cpu {other} has the way cached");
        Some(self.story(what, SpaceId(0), None, Some(table)))
    }

    /// A space is gone.
    pub(crate) fn retired(&self, space: SpaceId) -> Option<String> {
        let runs = |state: &CpuState| state.space.is_some_and(|(now, _)| now == space) || state.tlb.knows_space(space);
        let cpu = self.cpus.iter().position(runs)?;
        Some(format!("{space:?} is gone, and cpu {cpu} runs in it or knows translations of it"))
    }

    /// One pin more, or one less.
    pub(crate) fn pin(&mut self, cpu: usize, more: bool) -> Option<String> {
        let pins = &mut self.cpus[cpu].pins;
        *pins = if more { *pins + 1 } else { *pins - 1 };
        (*pins > PINS).then(|| format!("cpu {cpu} holds {} table locks", self.cpus[cpu].pins))
    }

    /// `cpu` is about to sleep.
    pub(crate) fn sleeps(&mut self, cpu: usize) -> Option<String> {
        let state = &mut self.cpus[cpu];
        self.counts.sleeps += 1;
        state.asleep = true;
        let held = state.pins != 0 || state.sections != 0;
        held.then(|| format!("cpu {cpu} sleeps in {} RCU sections with {} pins", state.sections, state.pins))
    }

    /// Nothing is under way.
    pub(crate) fn at_rest(&self) -> Option<String> {
        let busy = self.cpus.iter().position(|cpu| cpu.sections + cpu.pins + cpu.busy != 0);
        let rest = busy.is_none() && self.debts.is_empty() && self.open.is_empty();
        (!rest).then(|| format!("at the end cpu {busy:?} is busy, {:?} are unflushed, {:?} under way", self.debts, self.open))
    }
}

/// Whether what was cached lets pass no more than what is in the tables.
fn is_fresh(cached: Pte, now: Option<Pte>) -> bool {
    now.is_some_and(|now| now.frame == cached.frame && now.prot.has(cached.prot) && (now.dirty || !cached.dirty))
}

/// The page's address.
pub(crate) fn page_of(at: u64) -> u64 {
    at & !(PAGE - 1)
}
