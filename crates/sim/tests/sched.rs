//! Programs on several CPUs, under the seeded scheduler, for each design.
//!
//! **Guarantee.** For each seed tried: what a CPU alone writes it reads back, through its own unmapping, mapping over, protecting, discarding and
//! forking, whatever other CPUs do elsewhere; what one CPU counts up the others never see go down, in any space that shares it; what a
//! forked space should not see it does not; where everybody does everything no byte of another page appears; what is unmapped stays
//! so; and none of the rules that the machine watches is broken. A failing seed is printed with the end of its story and fails
//! again.
//!
//! **Mechanism.** Four kinds of pages: a CPU's own, in one table with others' and in a table of few; its *beacon*, which it counts up and
//! others look at; a shared file's, counted up in all spaces; and *commons*, which fill two tables that come and go. Half of
//! the seeds have a second space, forked from the first, so that pages are copied on both sides at once. `SPILE_SEEDS` sets the number of
//! seeds; the control runs this binary with a seeded bug and expects it to be found.
#![cfg(feature = "sched")]

mod duels;
mod ledgers;
mod pairs;
mod seeds;
mod tides;

use seeds::seeds;
use spile::backing::File;
use spile::{Attr, Backing, Denied, FaultKind, Flags, Layout, Locking, Mm, PAGE, Place, Prot, Range, Unmapping, Waiting};
use spile_sim::{Content, Cpu, Failures, Rng, Sim, User};
use spile_sync::sched::{Outcome, Run, Strategy, label};
use std::fmt::Write as _;
use std::sync::Mutex;

const TABLE: u64 = 512 * PAGE;
const BASE: u64 = 0x4000_0000;
/// The file's pages come first, in the window that a fault maps around.
const FILE_MAPPED: u64 = 6;
const FILE_PAGES: u64 = 16;
const OWN: u64 = 3;
/// In tables of a few CPUs.
const ISLANDS: u64 = BASE + 8 * TABLE;
/// Around the end of a table.
const COMMONS: u64 = BASE + 33 * TABLE - 3 * PAGE;
const COMMON_PAGES: u64 = 6;

fn page(at: u64) -> Range {
    Range::page_of(at)
}

fn of_file(n: u64) -> u64 {
    BASE + n * PAGE
}

fn own(cpu: u64, n: u64) -> u64 {
    if n < OWN { BASE + (FILE_MAPPED + cpu * (OWN + 1) + n) * PAGE } else { ISLANDS + cpu / 4 * TABLE + cpu % 4 * PAGE }
}

fn beacon(cpu: u64) -> u64 {
    own(cpu, 0) + OWN * PAGE
}

/// What a page of commons may contain, once written there.
fn tag(at: u64) -> u8 {
    0x80 | ((at / PAGE) as u8 & 0x3f)
}

fn file_byte(n: u64) -> u8 {
    0x40 | n as u8
}

/// What a CPU finds in its own pages at the beginning.
fn first_value(cpu: u64, n: u64) -> u8 {
    1 + (cpu * 4 + n) as u8 % 200
}

/// One run.
struct World<L: Locking> {
    sim: Sim,
    spaces: Vec<Mm<Sim, L>>,
    children: Mutex<Vec<Mm<Sim, L>>>,
    file: File<Sim>,
    cpus: u64,
    seed: u64,
    ops: usize,
    /// Frames fail now and then: then nobody relies on an access.
    starves: bool,
    /// Pages leave memory now and then; if frames are few besides, whenever somebody wants one.
    swaps: bool,
}

/// What a CPU knows of a page of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    Unmapped,
    Mapped { prot: Prot, value: u8 },
}

struct Program<'w, L: Locking> {
    world: &'w World<L>,
    cpu: &'w Cpu<'w>,
    me: u64,
    space: usize,
    rng: Rng,
    own: [Own; OWN as usize + 1],
    counted: u8,
    filed: u8,
    /// The highest that was seen of each beacon, and of each page of the file.
    seen: Vec<u8>,
    seen_filed: Vec<u8>,
}

fn anon(prot: Prot) -> impl Fn(Range) -> Attr<Sim> {
    move |at| Attr::anon(at.start(), prot)
}

fn filed(file: &File<Sim>, page: u64, prot: Prot, shared: bool) -> Attr<Sim> {
    let flags = Flags::MAY_WRITE.with(Flags::when(shared, Flags::SHARED));
    Attr { prot, flags, backing: Backing::File(file.clone(), page), name: None }
}

impl<L: Locking> World<L> {
    fn new(seed: u64, cpus: u64, ops: usize) -> Self {
        let (swaps, tight) = (seed % 3 == 2, seed % 6 == 5);
        let (frames, slots) = (if tight { 80 + cpus as u32 * 16 } else { 600 + cpus as u32 * 30 }, if swaps { 400 } else { 0 });
        let sim = Sim::builder().cpus(cpus as usize).frames(frames).swap(slots).seed(seed).build();
        sim.swap().set_delay((seed / 3 % 3) as u32);
        let mut bytes = vec![0; (FILE_PAGES * PAGE) as usize];
        for n in 0..FILE_PAGES {
            bytes[(n * PAGE) as usize] = if n < FILE_MAPPED { 0 } else { file_byte(n) };
        }
        let content = Content::new(bytes);
        content.set_delay((seed % 3) as u32);
        let file = sim.file(&content, FILE_PAGES * PAGE).unwrap();
        let mut parent: Mm<Sim, L> = Mm::new(sim.clone(), Layout::default()).unwrap();
        parent.set_unmapping(Unmapping::ALL[seed as usize / 5 % 3]);
        let waiting = if seed / 2 % 2 == 1 { Waiting::Hold } else { Waiting::Drop };
        FaultKind::ALL.into_iter().for_each(|kind| parent.set_waiting(kind, waiting));
        {
            let cpu = sim.cpu(0);
            let user = cpu.enter(&parent);
            let mapped = Range::with_len(BASE, FILE_MAPPED * PAGE).unwrap();
            user.map(Place::Over(mapped), |_| filed(&file, 0, Prot::RW, true)).unwrap();
            // Its other pages are there too, where a fault might map them around.
            let whole = Range::with_len(COMMONS, FILE_PAGES * PAGE).unwrap();
            user.map(Place::Over(whole), |_| filed(&file, 0, Prot::R, true)).unwrap();
            (0..FILE_PAGES).for_each(|n| _ = user.load(COMMONS + n * PAGE).unwrap());
            user.unmap(whole).unwrap();
            for cpu in 0..cpus {
                for n in 0..=OWN {
                    user.map(Place::Over(page(own(cpu, n))), anon(Prot::RW)).unwrap();
                    user.store(own(cpu, n), first_value(cpu, n)).unwrap();
                }
                user.map(Place::Over(page(beacon(cpu))), anon(Prot::RW)).unwrap();
                user.load(beacon(cpu)).unwrap();
            }
        }
        let mut spaces = vec![parent];
        if seed % 2 == 1 && cpus > 1 {
            spaces.push(spaces[0].fork().unwrap());
        }
        Self { sim, spaces, children: Mutex::default(), file, cpus, seed, ops, starves: seed % 8 == 7, swaps }
    }

    fn space_of(&self, cpu: u64) -> usize {
        cpu as usize % self.spaces.len()
    }
}

impl<'w, L: Locking> Program<'w, L> {
    fn new(world: &'w World<L>, cpu: &'w Cpu<'w>, me: u64) -> Self {
        let value = |n| Own::Mapped { prot: Prot::RW, value: first_value(me, n) };
        Self {
            world,
            cpu,
            me,
            space: world.space_of(me),
            rng: Rng::new(world.seed.wrapping_mul(1009).wrapping_add(me)),
            own: std::array::from_fn(|n| value(n as u64)),
            counted: 0,
            filed: 0,
            seen: vec![0; world.cpus as usize],
            seen_filed: vec![0; FILE_MAPPED as usize],
        }
    }

    fn run(&mut self) {
        let mm = &self.world.spaces[self.space];
        let mut user = Some(self.cpu.enter(mm));
        for _ in 0..self.world.ops {
            let entered = user.as_ref().expect("entered again after a fork");
            match self.rng.below(20) {
                0..18 if self.world.starves => self.act_on_commons(entered),
                0..=5 => self.act_on_own(entered),
                6 | 7 => self.count_up(entered),
                8 | 9 => self.look_at_others(entered),
                10 => self.use_file(entered),
                11..=17 => self.act_on_commons(entered),
                18 => {
                    // Moved out of the way: a CPU runs one program at a time.
                    let child = entered.fork();
                    drop(user.take());
                    match child {
                        Ok(child) if self.world.starves => self.cpu.call(|| drop(child)),
                        Ok(child) => self.be_child(child),
                        Err(_) => assert!(self.world.starves, "there are frames"),
                    }
                    user = Some(self.cpu.enter(mm));
                }
                _ if self.world.swaps => _ = self.cpu.reclaim(1 + self.rng.below(8) as usize),
                _ => self.cpu.pause(),
            }
        }
        let user = user.expect("entered again after a fork");
        // The first to be done brings the frames back.
        self.world.sim.fail(Failures::Never);
        (0..=OWN).for_each(|n| self.check_own(&user, n, self.own[n as usize]));
    }

    fn check_own(&self, user: &User<'_, '_, L>, n: u64, is: Own) {
        let should = match is {
            Own::Unmapped => Err(Denied::Unmapped),
            Own::Mapped { prot: Prot::NONE, .. } => Err(Denied::Protected),
            Own::Mapped { value, .. } => Ok(value),
        };
        assert_eq!(user.load(own(self.me, n)), should, "cpu {}'s own page {n} at {:#x}", self.me, own(self.me, n));
    }

    fn act_on_own(&mut self, user: &User<'_, '_, L>) {
        // A range in the row, or the island alone.
        let first = self.rng.below(OWN + 1);
        let last = if first < OWN { first + self.rng.below(OWN - first) } else { first };
        let range = Range::new(own(self.me, first), own(self.me, last) + PAGE).unwrap();
        let value = 1 + self.rng.below(250) as u8;
        let pages = first as usize..=last as usize;
        match self.rng.below(10) {
            0..=3 => {
                let n = first as usize;
                let result = user.store(own(self.me, first), value);
                match &mut self.own[n] {
                    Own::Mapped { prot, value: now } if prot.has(Prot::W) => {
                        assert_eq!(result, Ok(()), "cpu {} stores to its page {n}", self.me);
                        *now = value;
                    }
                    _ => assert!(result.is_err(), "cpu {} may not store to its page {n}", self.me),
                }
            }
            4 => {
                label(format_args!("unmaps {range}"));
                user.unmap(range).unwrap();
                self.own[pages].fill(Own::Unmapped);
            }
            5 | 6 => {
                label(format_args!("maps over {range}"));
                user.map(Place::Over(range), anon(Prot::RW)).unwrap();
                self.own[pages].fill(Own::Mapped { prot: Prot::RW, value: 0 });
            }
            7 => {
                let new = [Prot::NONE, Prot::R, Prot::RW][self.rng.below(3) as usize];
                label(format_args!("protects {range} {new:?}"));
                let result = user.protect(range, new);
                for own in &mut self.own[pages] {
                    let Own::Mapped { prot, .. } = own else {
                        assert!(result.is_err());
                        break;
                    };
                    *prot = new;
                }
            }
            8 => {
                label(format_args!("discards {}", page(own(self.me, first))));
                let done = user.discard(page(own(self.me, first)));
                if let Own::Mapped { value, .. } = &mut self.own[first as usize]
                    && done
                {
                    *value = 0;
                }
            }
            _ => {}
        }
        let n = self.rng.below(OWN + 1);
        self.check_own(user, n, self.own[n as usize]);
    }

    fn count_up(&mut self, user: &User<'_, '_, L>) {
        self.counted += 1;
        assert_eq!(user.store(beacon(self.me), self.counted), Ok(()));
        assert_eq!(user.load(beacon(self.me)), Ok(self.counted));
    }

    fn look_at_others(&mut self, user: &User<'_, '_, L>) {
        let other = self.rng.below(self.world.cpus);
        let there = self.world.space_of(other) == self.space;
        if self.rng.one_in(2) {
            let now = user.load(beacon(other)).unwrap();
            let before = &mut self.seen[other as usize];
            assert!(now >= *before, "cpu {} saw the beacon of {other} at {before}, then at {now}", self.me);
            assert!(there || now == 0, "cpu {} sees the beacon of {other}, of another space, at {now}", self.me);
            *before = now;
        } else {
            let n = self.rng.below(OWN + 1);
            let now = user.load(own(other, n));
            let frozen = Ok(first_value(other, n));
            assert!(there || now == frozen, "page {n} of {other}, of another space, is {now:?} for cpu {}", self.me);
        }
    }

    fn use_file(&mut self, user: &User<'_, '_, L>) {
        if self.me < FILE_MAPPED && self.rng.one_in(2) {
            self.filed += 1;
            assert_eq!(user.store(of_file(self.me), self.filed), Ok(()));
        }
        let n = self.rng.below(FILE_MAPPED);
        let now = user.load(of_file(n)).unwrap();
        let before = &mut self.seen_filed[n as usize];
        assert!(now >= *before, "cpu {} saw page {n} of the file at {before}, then at {now}", self.me);
        assert!(n != self.me || now == self.filed, "cpu {} lost {} in its page of the file: {now}", self.me, self.filed);
        *before = now;
    }

    fn act_on_commons(&mut self, user: &User<'_, '_, L>) {
        let first = self.rng.below(COMMON_PAGES);
        let count = 1 + self.rng.below(COMMON_PAGES - first);
        let at = COMMONS + first * PAGE;
        let range = Range::with_len(at, count * PAGE).unwrap();
        match self.rng.below(12) {
            0 => _ = user.map(Place::Over(range), anon(Prot::RW)),
            1 => _ = user.map(Place::At(range), anon(Prot::RW)),
            2 => {
                let shared = self.rng.one_in(2);
                let prot = if shared { Prot::R } else { Prot::RW };
                let file = &self.world.file;
                _ = user.map(Place::Over(range), |_| filed(file, FILE_MAPPED + first, prot, shared));
            }
            3 => _ = user.unmap(range),
            4 => _ = user.unmap(Range::with_len(COMMONS, COMMON_PAGES * PAGE).unwrap()),
            5 => _ = user.protect(range, [Prot::R, Prot::RW, Prot::NONE][self.rng.below(3) as usize]),
            6 => _ = user.discard(range),
            7 | 8 => _ = user.store(at, tag(at)),
            9 => {
                let mut byte = [0];
                if self.cpu.call(|| user.mm().read_user(at, &mut byte)).is_ok() {
                    self.plausible(at, byte[0]);
                }
            }
            _ => {
                if let Ok(byte) = user.load(at) {
                    self.plausible(at, byte);
                }
            }
        }
    }

    fn plausible(&self, at: u64, byte: u8) {
        let n = (at - COMMONS) / PAGE;
        let good = byte == 0 || byte == tag(at) || byte == file_byte(FILE_MAPPED + n);
        assert!(good, "cpu {} found {byte:#x} at {at:#x}, where it was never stored", self.me);
    }

    /// Runs in a child for a while: it is as this CPU left its own pages, and what it does there stays there.
    fn be_child(&mut self, child: Mm<Sim, L>) {
        label("is its child");
        {
            let user = self.cpu.enter(&child);
            for n in 0..=OWN {
                self.check_own(&user, n, self.own[n as usize]);
                if self.rng.one_in(2) {
                    user.store(own(self.me, n), 0xfe).ok();
                }
            }
            assert_eq!(user.load(beacon(self.me)), Ok(self.counted));
            let other = self.rng.below(self.world.cpus);
            let now = user.load(beacon(other)).unwrap();
            let before = self.seen[other as usize];
            assert!(now >= before, "the child of {} has the beacon of {other} at {now}, after {before}", self.me);
            user.store(beacon(other), 0xfd).unwrap();
        }
        // An exit is long: now and then is enough.
        if self.rng.one_in(8) {
            self.cpu.call(|| drop(child));
        } else {
            self.world.children.lock().unwrap().push(child);
        }
    }
}

/// What must be true of a space when nothing runs: no page without a mapping in the places given, no private page without an
/// identity.
fn consistent<L: Locking>(
    sim: &Sim,
    mm: &Mm<Sim, L>,
    places: impl IntoIterator<Item = std::ops::Range<u64>>,
) -> Result<(), String> {
    let mut covered = Vec::new();
    let mut wrong = String::new();
    mm.each_vma(|vma| {
        let attr = vma.attr();
        let private = !attr.is_shared() && attr.backing.is_anon();
        for at in (vma.range().start()..vma.range().end()).step_by(PAGE as usize) {
            covered.push(at);
            let written = mm.page_table().peek(sim, at).is_some_and(|pte| pte.frame != spile::Frames::zero_frame(sim));
            if private && written && !vma.anon().is_some() {
                _ = write!(wrong, "the page at {at:#x} is written and nobody's; ");
            }
        }
    });
    for at in places.into_iter().flat_map(|place| place.step_by(PAGE as usize)) {
        if let Some(pte) = mm.page_table().peek(sim, at)
            && !covered.contains(&at)
        {
            _ = write!(wrong, "{pte:?} is at {at:#x}, where nothing is mapped; ");
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

fn one<L: Locking>(seed: u64, cpus: u64, ops: usize) -> Outcome {
    let strategy = if seed % 4 < 3 { Strategy::Random } else { Strategy::Pct { depth: 3 } };
    let world = World::<L>::new(seed, cpus, ops);
    if world.starves {
        world.sim.fail(Failures::OneIn(4));
    }
    if seed / 4 % 2 == 1 {
        world.sim.stall_one_in(100);
    }
    let mut run = Run::new(seed).strategy(strategy).max_steps(3_000_000).keep_events(80);
    for cpu in 0..cpus {
        let world = &world;
        run = run.spawn(format!("cpu {cpu}"), move || {
            world.sim.run_on(cpu as usize, |on| Program::new(world, on, cpu).run());
        });
    }
    let outcome = run.run();
    if !outcome.is_ok() {
        // What is left of it means nothing.
        std::mem::forget(world);
        return outcome;
    }
    let stripes = BASE..beacon(cpus);
    let islands = ISLANDS..own(cpus, OWN) + PAGE;
    let places = [stripes, islands, COMMONS..COMMONS + COMMON_PAGES * PAGE];
    let wrong = world.spaces.iter().find_map(|mm| consistent(&world.sim, mm, places.clone()).err());
    if let Some(wrong) = wrong {
        std::mem::forget(world);
        return outcome.check(false, wrong);
    }
    let World { sim, spaces, children, file, .. } = world;
    drop((children, spaces, file));
    let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sim.finish()));
    outcome.check(end.is_ok(), "frames were forgotten")
}

/// A short story: each CPU plays its part in `world`, by the schedule of this seed; then `end` says what is wrong, if anything. How many steps it takes is about
/// `steps`.
fn played<W: Sync>(
    (seed, sim, cpus, steps): (u64, &Sim, u64, u64),
    world: W,
    part: impl Fn(&W, &Cpu<'_>, u64) + Sync,
    end: impl FnOnce(W) -> Result<(), String>,
) -> Outcome {
    let strategy = if seed.is_multiple_of(2) { Strategy::Random } else { Strategy::Pct { depth: 3 + seed as usize / 2 % 4 } };
    let mut run = Run::new(seed).strategy(strategy).expect_steps(steps).max_steps(300_000).keep_events(80);
    for number in 0..cpus {
        let (world, part) = (&world, &part);
        run = run.spawn(format!("cpu {number}"), move || sim.run_on(number as usize, |cpu| part(world, cpu, number)));
    }
    let outcome = run.run();
    if !outcome.is_ok() {
        // What is left of it means nothing.
        std::mem::forget(world);
        return outcome;
    }
    let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| end(world)));
    match end.unwrap_or_else(|_| Err("a panic at the end".into())) {
        Ok(()) => outcome,
        Err(wrong) => outcome.check(false, wrong),
    }
}

/// Runs seeds until one fails; prints how far it came.
fn explored<L: Locking>(what: &str, normal: u64, one: impl Fn(u64) -> Outcome) {
    let (mut steps, seeds) = (0, seeds(normal));
    for seed in 0..seeds {
        let outcome = one(seed);
        steps += outcome.steps();
        if !outcome.is_ok() {
            println!("{what} {}: {seed} seeds passed, {steps} steps; then {outcome}", L::NAME);
            outcome.expect_ok();
        }
    }
    println!("{what} {}: {seeds} seeds passed, {steps} steps", L::NAME);
}

fn walks<L: Locking>() {
    explored::<L>("walks", 150, |seed| one::<L>(seed, 2 + seed / 2 % 3, 10));
}

fn duels<L: Locking>() {
    explored::<L>("duels", 600, duels::one::<L>);
}

fn pairs<L: Locking>() {
    explored::<L>("pairs", 300, pairs::one::<L>);
}

fn ledgers<L: Locking>() {
    explored::<L>("ledgers", 300, |seed| ledgers::one::<L>(seed, true));
}

fn ledgers_in_slots<L: Locking>() {
    explored::<L>("ledgers in slots", 300, |seed| ledgers::one::<L>(seed, false));
}

fn tides<L: Locking>() {
    explored::<L>("tides", 300, tides::one::<L>);
}

fn crowds<L: Locking>() {
    for (seed, cpus) in [(1, 8), (2, 16), (3, 64)] {
        one::<L>(seed, cpus, 4).expect_ok();
    }
}

spile::test_each_design! {
    walk => walks;
    duel => duels;
    pair => pairs;
    tide => tides;
    ledger => ledgers;
    ledger_in_slots => ledgers_in_slots;
    crowd => crowds;
}

/// Seeded bugs, and the design in whose duels each is found within the usual number of seeds. What some designs exclude by what a
/// fault holds, `rcu` does not.
const BUGS: [(&str, &str); 33] = [
    ("claim-without-quiesce", "vma_refcount"),
    ("fork-without-claim", "vma_refcount"),
    ("fork-without-flush", "mmap_lock"),
    ("no-await", "mmap_lock"),
    ("p1-ignore-the-entry", "mmap_lock"),
    ("p1-install-blindly", "rcu"),
    ("p10-copy-without-closing", "vma_refcount"),
    ("p2-link-blindly", "rcu"),
    ("p2-skip-empty", "rcu"),
    ("p3-no-mark", "vma_refcount"),
    ("p4-zap-blindly", "rcu"),
    ("p5-set-before-flush", "mmap_lock"),
    ("p6-ignore-pending", "vma_refcount"),
    ("p8-free-before-flush", "mmap_lock"),
    ("p8-table-without-grace", "vma_refcount"),
    ("p9-unclipped", "mmap_lock"),
    ("protect-without-flush", "mmap_lock"),
    ("publish-without-claim", "rcu"),
    ("read-beside-writer", "mmap_lock"),
    ("reference-a-claimed-vma", "vma_refcount"),
    ("reuse-a-shared-page", "mmap_lock"),
    ("no-revalidation", "rcu"),
    ("no-revalidation", "spf_seq"),
    ("no-revalidation", "spf_refcount"),
    ("hold-a-claimed-vma", "rcu"),
    ("hold-a-claimed-vma", "spf_refcount"),
    ("reference-a-freed-vma", "spf_refcount"),
    ("zap-without-grace", "rcu_late_zap"),
    ("share-what-is-excluded", "pt_range"),
    ("exclude-beside-shares", "pt_range"),
    ("exclude-the-top-alone", "pt_range"),
    ("claim-beside-readers", "vma_rwsem"),
    ("leave-without-a-word", "range_lock"),
];

/// The same, in whose tides.
const BUGS_OF_TIDES: [(&str, &str); 4] = [
    ("lock-what-comes-alone", "vma_refcount"),
    ("evict-what-is-kept", "vma_refcount"),
    ("drop-what-is-written", "spf_seq"),
    ("come-again-without-the-page", "vma_refcount"),
];

/// The same, in whose ledgers that are in slots.
const BUGS_OF_SLOTS: [(&str, &str); 2] =
    [("claim-ends-without-a-word", "vma_refcount"), ("send-away-what-is-held", "vma_refcount")];

#[test]
fn controls() {
    if std::env::var_os("SPILE_MUTATE").is_some() {
        return;
    }
    let this = std::env::current_exe().unwrap();
    let mut missed = Vec::new();
    let of_duels = BUGS.into_iter().map(|found| (found, "duel"));
    let of_tides = BUGS_OF_TIDES.into_iter().map(|found| (found, "tide"));
    let of_slots = BUGS_OF_SLOTS.into_iter().map(|found| (found, "ledger_in_slots"));
    for ((bug, design), story) in of_duels.chain(of_tides).chain(of_slots) {
        let mut child = std::process::Command::new(&this);
        child
            .args(["--exact", &format!("{design}::{story}"), "--test-threads=1", "--nocapture"])
            .env("SPILE_MUTATE", format!("bug:{bug}"));
        let output = child.env("SPILE_SEEDS", "4000").env("RUST_BACKTRACE", "0").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let passed = text.lines().find_map(|line| line.split_once("seeds passed")).map_or("crashed", |(before, _)| before);
        match output.status.success() {
            true => missed.push(bug),
            false => println!("{bug:24} {design:16} {} seeds passed", passed.rsplit("... ").next().unwrap_or(passed)),
        }
    }
    assert!(missed.is_empty(), "seeded bugs that no seed found: {missed:?}");
}
