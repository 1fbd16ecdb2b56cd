//! Faults of several CPUs in one address space, and which cache lines they move.
//!
//! **Guarantee.** The same design, scene and number of CPUs give the same counts in every process whose allocator is [`Apart`]. Charged are
//! faults alone, after everything that one fault brings into a CPU's cache is there; each access to an atomic is charged to one [`Part`].
//!
//! **Mechanism.** Mappings and tables are made before the run. In it each CPU faults once, waits for the others, and faults on between two
//! labels. Afterwards the run's story is read: which CPU touched which line, whether the line had to come from another CPU, and where in
//! the source. The lock of a table is told from others by its line, on which the table's state is too. What is no atomic is not seen.

use spile::{Access, Attr, Layout, Locking, Mm, PAGE, Place, Prot, Range};
use spile_sim::{Cpu, Sim};
use spile_sync::atomic::{AtomicUsize, Ordering};
use spile_sync::hint::spin_loop;
use spile_sync::sched::{Event, LineId, Op, Outcome, Run, What, label};
use std::alloc::{GlobalAlloc, System};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

const LINE: usize = 64;

/// An allocator that gives each object lines of its own: so that what is shared is shared by design, and not by who was allocated when.
pub struct Apart;

fn on_own_lines(layout: std::alloc::Layout) -> std::alloc::Layout {
    layout.align_to(LINE).expect("no object fills the address space").pad_to_align()
}

// SAFETY: (1) everything is the system allocator's; more than was asked for is as good, and given back as it was got.
unsafe impl GlobalAlloc for Apart {
    unsafe fn alloc(&self, layout: std::alloc::Layout) -> *mut u8 {
        // SAFETY: (1) as the caller promises.
        unsafe { System.alloc(on_own_lines(layout)) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: std::alloc::Layout) {
        // SAFETY: (1) as the caller promises.
        unsafe { System.dealloc(pointer, on_own_lines(layout)) }
    }
}

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
}

impl Scene {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::OwnMapping, Self::OwnTable, Self::OneTable, Self::BesideChanges];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::OwnMapping => "own mapping",
            Self::OwnTable => "own table",
            Self::OneTable => "one table",
            Self::BesideChanges => "beside changes",
        }
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
/// Faults per CPU that are charged.
const FAULTS: u64 = LINE_PAGES - WARM;

fn pages(at: u64, count: u64) -> Range {
    Range::with_len(at, count * PAGE).expect("a literal")
}

/// Whose atomics they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What this is about: the design, the index, the mappings, the address space.
    Core,
    /// The page's table: its lock with its state, its entries, and those of the tables above.
    Table,
    /// The new frame: its record, and its bytes.
    Frame,
    /// Read sections of the machine's domain.
    Section,
    /// What else the machine does: wake-ups, requests.
    Machine,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Core, Self::Table, Self::Frame, Self::Section, Self::Machine];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Table => "the page's table",
            Self::Frame => "the new frame",
            Self::Section => "read sections",
            Self::Machine => "machine",
        }
    }
}

/// What accesses cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

/// What all charged faults cost.
#[derive(Clone, Debug)]
pub struct Costs {
    /// How many there were.
    pub faults: u64,
    parts: [Cost; Part::ALL.len()],
    /// By place in the source, where it was not nothing.
    pub places: BTreeMap<String, Cost>,
}

impl Costs {
    /// What `part` cost.
    pub fn of(&self, part: Part) -> Cost {
        self.parts[part as usize]
    }
}

/// An address space, and CPUs that wait for each other.
struct Stage<L: Locking> {
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
        for at in scene.mappings(cpus as u64) {
            cpu.call(|| mm.map(Place::Over(at), |at| Attr::anon(at.start(), Prot::RW))).expect("there are frames");
        }
        (0..cpus as u64).for_each(|number| fault(&cpu, &mm, scene.pages(number).start()));
        Self { sim, mm: Box::new(mm), arrived: AtomicUsize::new(0), cpus }
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

    /// The life of a CPU that faults. Its end is not charged, and comes when all others have done their work.
    fn faults(&self, cpu: &Cpu<'_>, pages: Range) {
        let page = |n: u64| pages.start() + n * PAGE;
        (1..WARM).for_each(|n| fault(cpu, &self.mm, page(n)));
        self.arrive();
        self.until(self.cpus);
        label(BEGIN);
        (WARM..LINE_PAGES).for_each(|n| fault(cpu, &self.mm, page(n)));
        label(END);
        self.arrive();
        self.until(2 * self.cpus - 1);
    }

    /// The life of the CPU that maps and unmaps until all others have done their work.
    fn changes(&self, cpu: &Cpu<'_>) {
        self.change(cpu);
        self.arrive();
        self.until(self.cpus);
        label(CHANGES);
        while self.arrived.load(Ordering::Relaxed) < 2 * self.cpus - 1 {
            self.change(cpu);
        }
        label(END);
    }

    fn change(&self, cpu: &Cpu<'_>) {
        let at = pages(ELSEWHERE, 4);
        cpu.call(|| self.mm.map(Place::Over(at), |at| Attr::anon(at.start(), Prot::RW))).expect("there are frames");
        cpu.call(|| self.mm.unmap(at)).expect("there is memory");
    }

    fn play(&self, scene: Scene, seed: u64) -> Outcome {
        let mut run = Run::new(seed).max_steps(STEPS_MAX).keep_events(STEPS_MAX as usize);
        for number in 0..self.cpus {
            let changes = scene == Scene::BesideChanges && number + 1 == self.cpus;
            run = run.spawn(format!("cpu {number}"), move || {
                self.sim.run_on(number, |cpu| match changes {
                    true => self.changes(cpu),
                    false => self.faults(cpu, scene.pages(number as u64)),
                });
            });
        }
        run.run().expect_ok()
    }
}

const SEEDS: u64 = 4;
const STEPS_MAX: u64 = 50_000_000;
/// From here on a CPU is charged,
const BEGIN: &str = "faults";
/// or is one of those who touch lines, at the others' cost,
const CHANGES: &str = "changes";
/// to here.
const END: &str = "done";

fn fault<L: Locking>(cpu: &Cpu<'_>, mm: &Mm<Sim, L>, at: u64) {
    cpu.call(|| mm.fault_and_wait(at, Access::Write)).expect("it is mapped, and there are frames");
}

/// An access between labels.
struct Charged<'o> {
    event: &'o Event,
    line: LineId,
    write: bool,
    transfer: bool,
    faults: bool,
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
            What::Label(text) => _ = phases.insert(event.thread, **text == *BEGIN),
            _ => {
                let access = access(event).zip(phases.get(&event.thread));
                charged.extend(access.map(|((line, write, transfer), &faults)| Charged { event, line, write, transfer, faults }));
            }
        }
    }
    charged
}

fn is_of_table(event: &Event) -> bool {
    event.at.file().ends_with("spile/src/paging/table.rs")
}

fn part(event: &Event, on_table: bool) -> Part {
    let file = event.at.file();
    match () {
        () if is_of_table(event) || (on_table && file.ends_with("sync/src/lock.rs")) => Part::Table,
        () if file.ends_with("spile/src/platform.rs") || file.ends_with("sim/src/frames.rs") => Part::Frame,
        // Sections that may sleep are a design's own.
        () if file.contains("crates/rcu/") && !file.ends_with("srcu.rs") => Part::Section,
        () if file.contains("crates/sim/") => Part::Machine,
        () => Part::Core,
    }
}

fn charge(costs: &mut Costs, outcome: &Outcome) {
    let tables: HashSet<LineId> =
        outcome.trace().iter().filter(|event| is_of_table(event)).filter_map(access).map(|a| a.0).collect();
    let charged = charged(outcome.trace());
    let mut users: HashMap<LineId, BTreeSet<usize>> = HashMap::new();
    charged.iter().for_each(|c| _ = users.entry(c.line).or_default().insert(c.event.thread));
    for Charged { event, line, write, transfer, .. } in charged.into_iter().filter(|c| c.faults) {
        let write = write && users[&line].len() > 1;
        if write || transfer {
            let part = part(event, tables.contains(&line));
            costs.parts[part as usize].add(write, transfer);
            let place = format!("{}, {}:{}", part.name(), event.at.file(), event.at.line());
            costs.places.entry(place).or_default().add(write, transfer);
        }
    }
}

/// Plays `scene` with a design on so many CPUs, by several schedules.
pub fn measure<L: Locking>(scene: Scene, cpus: usize) -> Costs {
    let mut costs = Costs { faults: 0, parts: Default::default(), places: BTreeMap::new() };
    for seed in 0..SEEDS {
        let stage: Stage<L> = Stage::new(scene, cpus);
        let faulting = cpus - usize::from(scene == Scene::BesideChanges);
        costs.faults += faulting as u64 * FAULTS;
        charge(&mut costs, &stage.play(scene, seed));
    }
    costs
}
