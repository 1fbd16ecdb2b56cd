//! What several simulated CPUs do in one address space, and which cache lines that moves.
//!
//! **Guarantee.** The same design, scene and number of CPUs give the same counts in every process whose allocator is
//! [`Heap`](crate::heap::Heap). Charged are a scene's operations alone, after everything that one of them brings into a CPU's cache is there;
//! each access to an atomic is charged to one of [`PARTS`].
//!
//! **Mechanism.** Mappings and tables are made before the run. In it each CPU makes an operation, waits for the others, and goes on between two
//! labels. Afterwards the run's story is read: which CPU touched which line, whether the line had to come from another CPU, and where in
//! the source. A write counts if another CPU touches the line, too, in the time that is charged: the scheduler's own counters, which say who
//! has the line at that moment, would not tell a lock that is taken twice in a row from one that nobody else takes. What is no atomic is
//! not seen.

use crate::parts::{CORE, PARTS, TABLE as TABLE_PART, classify};
use serde::Serialize;
use spile::linux::{map, prot};
use spile::{Access, Attr, Layout, Locking, Mm, PAGE, Place, Prot, Range};
use spile_sim::{Cpu, Sim};
use spile_sync::atomic::{AtomicUsize, Ordering};
use spile_sync::hint::spin_loop;
use spile_sync::sched::{Event, LineId, Op, Outcome, Run, What, label};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// The bytes of a cache line.
const LINE: usize = 64;

/// What the CPUs do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    /// Each faults in a mapping of its own.
    OwnMapping,
    /// All fault in one mapping, each in a table of its own.
    OwnTable,
    /// All fault in one mapping and one table, each in a line of its own.
    OneTable,
    /// As `OwnTable`, and one CPU maps and unmaps elsewhere all the time, instead of faulting.
    BesideChanges,
    /// Each maps 128 MiB where there is room, and unmaps them.
    MapAnywhere,
    /// Each moves the one break up by a page, and down.
    Break,
    /// Each forks the one process, whose child exits at once.
    Fork,
    /// One maps and unmaps, and all others list the mappings all the time.
    BesideReaders,
}

impl Scene {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::OwnMapping,
        Self::OwnTable,
        Self::OneTable,
        Self::BesideChanges,
        Self::MapAnywhere,
        Self::Break,
        Self::Fork,
        Self::BesideReaders,
    ];

    /// The benchmark whose operation it is.
    pub fn benchmark(self) -> &'static str {
        match self {
            Self::OwnMapping => "page_fault1",
            Self::OwnTable | Self::OneTable => "pft",
            Self::MapAnywhere => "mmap1",
            Self::Break => "brk1",
            Self::Fork => "fork",
            Self::BesideChanges | Self::BesideReaders => super::catalogue::MAPPER,
        }
    }

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::OwnMapping => "own mapping",
            Self::OwnTable => "own table",
            Self::OneTable => "one table",
            Self::BesideChanges => "beside changes",
            Self::MapAnywhere => "map, unmap",
            Self::Break => "break",
            Self::Fork => "fork",
            Self::BesideReaders => "map beside readers",
        }
    }

    /// Whether what is charged is faults.
    pub fn is_of_faults(self) -> bool {
        matches!(self, Self::OwnMapping | Self::OwnTable | Self::OneTable | Self::BesideChanges)
    }

    /// Whether the CPUs wait for holders of locks more than for cache lines.
    pub fn is_of_waits(self) -> bool {
        !matches!(self, Self::OwnMapping | Self::OwnTable)
    }

    /// How many CPUs make what is charged: the first. The others disturb them.
    fn charged(self, cpus: usize) -> usize {
        match self {
            Self::BesideChanges => cpus - 1,
            Self::BesideReaders => 1,
            _ => cpus,
        }
    }

    /// Turns of a CPU that are charged. Changes wait for each other, so the schedule of many is long.
    fn turns(self) -> u64 {
        if self.is_of_faults() { LINE_PAGES - WARM } else { 1 }
    }

    /// How many CPUs it is played on at most: where all wait for each other, schedules of more are so long that nobody waits for them.
    fn most_cpus(self) -> usize {
        if self.is_of_faults() { 128 } else { 64 }
    }

    /// Operations of its benchmark that a turn is.
    fn ops_in_turn(self) -> u64 {
        if self == Self::Break { 2 } else { 1 }
    }

    /// Where a CPU has its pages.
    fn pages(self, cpu: u64) -> Range {
        let apart = if self == Self::OneTable { LINE_PAGES * PAGE } else { TABLE };
        pages(BASE + cpu * apart, LINE_PAGES)
    }

    /// What is mapped.
    fn mappings(self, cpus: u64) -> Vec<Range> {
        match self {
            Self::OwnMapping => (0..cpus).map(|cpu| self.pages(cpu)).collect(),
            Self::OneTable => vec![pages(BASE, TABLE / PAGE)],
            Self::OwnTable | Self::BesideChanges => vec![pages(BASE, cpus * TABLE / PAGE)],
            // A few that do not touch.
            _ => (0..MAPPINGS).map(|number| pages(BASE + number * 2 * LINE_PAGES * PAGE, 2)).collect(),
        }
    }

    /// Which pages are there from the beginning.
    fn present(self, cpus: u64) -> Vec<u64> {
        match self.is_of_faults() {
            true => (0..cpus).map(|cpu| self.pages(cpu).start()).collect(),
            false => {
                self.mappings(cpus).into_iter().flat_map(|range| (range.start()..range.end()).step_by(PAGE as usize)).collect()
            }
        }
    }
}

const BASE: u64 = 0x4000_0000;
const TABLE: u64 = 512 * PAGE;
/// Where one CPU maps and unmaps.
const ELSEWHERE: u64 = BASE + 1000 * TABLE;
/// Pages whose entries are in one line.
const LINE_PAGES: u64 = LINE as u64 / 8;
/// The first is touched to link the table, the second by its CPU to warm up.
const WARM: u64 = 2;
/// Mappings of a process that is changed, and not faulted in.
const MAPPINGS: u64 = 4;
/// What `MapAnywhere` maps, in bytes.
const ROOM: u64 = 128 << 20;
/// Where the break is.
const BREAK: u64 = 0x1000_0000;

fn pages(at: u64, count: u64) -> Range {
    Range::with_len(at, count * PAGE).expect("a literal")
}

/// What accesses cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Writes to lines that another CPU touched, too.
    pub writes: u64,
    /// Accesses for which a line came from another CPU's cache, or had to be taken from it.
    pub transfers: u64,
}

impl Cost {
    fn add(&mut self, write: bool, transfer: bool) {
        self.writes += u64::from(write);
        self.transfers += u64::from(transfer);
    }
}

/// What all charged operations cost.
#[derive(Clone, Debug, Default)]
pub struct Costs {
    /// How many there were.
    pub ops: u64,
    parts: [Cost; PARTS.len()],
    /// By place in the source, where it was not nothing.
    pub places: BTreeMap<String, Cost>,
    /// Writes of each schedule to each line that several CPUs touch, the most written first: of the core, the table and the frame.
    lines: Vec<Vec<u64>>,
    /// Reads for which such a line came from another CPU.
    fetches: u64,
}

impl Costs {
    /// What `part` of [`PARTS`] cost.
    pub fn of(&self, part: usize) -> Cost {
        self.parts[part]
    }

    /// Writes per operation to each contended line, the most written first; in the mean of the schedules.
    pub fn writes_by_line(&self) -> Vec<f64> {
        let longest = self.lines.iter().map(Vec::len).max().unwrap_or(0);
        let nth = |n: usize| self.lines.iter().filter_map(|lines| lines.get(n)).sum::<u64>() as f64;
        (0..longest).map(|n| nth(n) / self.ops as f64).collect()
    }

    /// Reads per operation for which a line came from another CPU.
    pub fn fetches(&self) -> f64 {
        self.fetches as f64 / self.ops as f64
    }
}

/// An address space, and CPUs that wait for each other.
struct Stage<L: Locking> {
    scene: Scene,
    sim: Sim,
    mm: Box<Mm<Sim, L>>,
    arrived: AtomicUsize,
    cpus: usize,
}

impl<L: Locking> Stage<L> {
    fn new(scene: Scene, cpus: usize) -> Self {
        let sim = Sim::builder().cpus(cpus).frames(cpus as u32 * 16 + 100).build();
        let mm: Mm<Sim, L> = Mm::new(sim.clone(), Layout::default()).expect("there are frames");
        let cpu = sim.cpu(0);
        cpu.call(|| mm.set_brk_start(BREAK, BREAK));
        for at in scene.mappings(cpus as u64) {
            cpu.call(|| mm.map(Place::Over(at), |at| Attr::anon(at.start(), Prot::RW))).expect("there are frames");
        }
        scene.present(cpus as u64).into_iter().for_each(|page| fault(&cpu, &mm, page));
        Self { scene, sim, mm: Box::new(mm), arrived: AtomicUsize::new(0), cpus }
    }

    fn arrive(&self) -> usize {
        // Relaxed: the run is sequentially consistent.
        self.arrived.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn until(&self, arrived: usize) {
        while self.arrived.load(Ordering::Relaxed) < arrived {
            spin_loop();
        }
    }

    /// Everybody has come, and who is charged has done what is.
    fn all(&self) -> usize {
        self.cpus + self.scene.charged(self.cpus)
    }

    /// The life of a CPU that is charged. Its end is not, and comes when all others have done their work.
    fn work(&self, cpu: &Cpu<'_>, number: u64) {
        (1..WARM).for_each(|n| self.turn(cpu, number, n));
        self.arrive();
        self.until(self.cpus);
        label(BEGIN);
        (WARM..WARM + self.scene.turns()).for_each(|n| self.turn(cpu, number, n));
        label(END);
        self.arrive();
        self.until(self.all());
    }

    fn turn(&self, cpu: &Cpu<'_>, number: u64, n: u64) {
        match self.scene {
            Scene::MapAnywhere => {
                let (bits, flags) = (prot::READ | prot::WRITE, map::PRIVATE | map::ANONYMOUS);
                let at = cpu.call(|| self.mm.mmap(0, ROOM, bits, flags, None, 0)).expect("there is room");
                cpu.call(|| self.mm.munmap(at, ROOM)).expect("there is memory");
            }
            Scene::Break => [BREAK + PAGE, BREAK].into_iter().for_each(|to| _ = cpu.call(|| self.mm.brk(to))),
            Scene::Fork => drop(cpu.call(|| self.mm.fork()).expect("there is memory")),
            Scene::BesideReaders => self.change(cpu),
            faults => fault(cpu, &self.mm, faults.pages(number).start() + n * PAGE),
        }
    }

    /// The life of a CPU that disturbs the others until they have done their work.
    fn disturb(&self, cpu: &Cpu<'_>) {
        self.disturbance(cpu);
        self.arrive();
        self.until(self.cpus);
        label(BESIDE);
        while self.arrived.load(Ordering::Relaxed) < self.all() {
            self.disturbance(cpu);
        }
        label(END);
    }

    fn disturbance(&self, cpu: &Cpu<'_>) {
        match self.scene {
            Scene::BesideReaders => cpu.call(|| self.mm.each_mapping(|_| ())),
            _ => self.change(cpu),
        }
    }

    fn change(&self, cpu: &Cpu<'_>) {
        let at = pages(ELSEWHERE, 4);
        cpu.call(|| self.mm.map(Place::Over(at), |at| Attr::anon(at.start(), Prot::RW))).expect("there are frames");
        cpu.call(|| self.mm.unmap(at)).expect("there is memory");
    }

    fn play(&self, seed: u64) -> Outcome {
        let mut run = Run::new(seed).max_steps(STEPS_MAX).keep_events(STEPS_MAX as usize);
        for number in 0..self.cpus {
            let is_charged = number < self.scene.charged(self.cpus);
            run = run.spawn(format!("cpu {number}"), move || {
                self.sim.run_on(number, |cpu| match is_charged {
                    true => self.work(cpu, number as u64),
                    false => self.disturb(cpu),
                });
            });
        }
        run.run().expect_ok()
    }
}

const SEEDS: u64 = 4;
const STEPS_MAX: u64 = 50_000_000;
/// From here on a CPU is charged,
const BEGIN: &str = "operations are charged";
/// or is one of those who touch lines, at the others' cost,
const BESIDE: &str = "is looked at";
/// to here.
const END: &str = "nothing is any more";

fn fault<L: Locking>(cpu: &Cpu<'_>, mm: &Mm<Sim, L>, at: u64) {
    cpu.call(|| mm.fault_and_wait(at, Access::Write)).expect("it is mapped, and there are frames");
}

/// An access between labels.
struct Charged<'o> {
    event: &'o Event,
    line: LineId,
    write: bool,
    transfer: bool,
    /// And not one that is only looked at.
    pays: bool,
}

fn access(event: &Event) -> Option<(LineId, bool, bool)> {
    match event.what {
        What::Access { op, line, transfer } => Some((line, op != Op::Load, transfer)),
        _ => None,
    }
}

fn charged(story: &[Event]) -> Vec<Charged<'_>> {
    let mut phases: HashMap<usize, bool> = HashMap::new();
    let mut charged = Vec::new();
    for event in story {
        match &event.what {
            What::Label(text) if **text == *END => _ = phases.remove(&event.thread),
            What::Label(text) if [BEGIN, BESIDE].contains(&&**text) => _ = phases.insert(event.thread, **text == *BEGIN),
            _ => {
                let access = access(event).zip(phases.get(&event.thread));
                charged.extend(access.map(|((line, write, transfer), &pays)| Charged { event, line, write, transfer, pays }));
            }
        }
    }
    charged
}

/// The part of an access by its place; of the lock that everybody uses by its line: it is the table's where the table's state is.
fn part(event: &Event, on_table: bool) -> usize {
    classify(event.at).map_or(if on_table { TABLE_PART } else { CORE }, usize::from)
}

/// The lines that tables touch.
fn lines_of_tables(story: &[Event]) -> HashSet<LineId> {
    let of_table = story.iter().filter(|event| classify(event.at) == Some(TABLE_PART as u8));
    of_table.filter_map(access).map(|(line, ..)| line).collect()
}

/// Whether a kernel's CPUs would have it, too.
fn is_modelled(part: usize) -> bool {
    part <= TABLE_PART
}

fn charge(costs: &mut Costs, outcome: &Outcome) {
    let tables = lines_of_tables(outcome.trace());
    let charged = charged(outcome.trace());
    let mut users: HashMap<LineId, BTreeSet<usize>> = HashMap::new();
    charged.iter().for_each(|c| _ = users.entry(c.line).or_default().insert(c.event.thread));
    let mut lines: BTreeMap<LineId, u64> = BTreeMap::new();
    for Charged { event, line, write, transfer, .. } in charged.into_iter().filter(|c| c.pays) {
        let written = write && users[&line].len() > 1;
        if !written && !transfer {
            continue;
        }
        let part = part(event, tables.contains(&line));
        costs.parts[part].add(written, transfer);
        let place = format!("{}, {}:{}", PARTS[part], event.at.file(), event.at.line());
        costs.places.entry(place).or_default().add(written, transfer);
        if is_modelled(part) && written {
            *lines.entry(line).or_default() += 1;
        } else if is_modelled(part) && !write {
            costs.fetches += 1;
        }
    }
    let mut lines: Vec<_> = lines.into_values().collect();
    lines.sort_unstable_by(|a, b| b.cmp(a));
    costs.lines.push(lines);
}

/// Plays `scene` with a design on so many CPUs, by several schedules. None if it is not played on so many.
pub fn measure<L: Locking>(scene: Scene, cpus: usize) -> Option<Costs> {
    if cpus > scene.most_cpus() {
        return None;
    }
    let mut costs = Costs::default();
    for seed in 0..SEEDS {
        let stage: Stage<L> = Stage::new(scene, cpus);
        costs.ops += scene.charged(cpus) as u64 * scene.turns() * scene.ops_in_turn();
        charge(&mut costs, &stage.play(seed));
    }
    Some(costs)
}
