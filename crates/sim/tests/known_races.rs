//! Races that Linux had, or found in review: each as it is here, and each with the mistake, which the same story finds.
//!
//! **Guarantee.** For each seed tried: a stack grows while others look, and nobody misses a mapping or a page; a child keeps what it saw, however
//! soon after the fork its parent writes; what was unmapped or replaced is not filled by a fault that found it before; a fault in one
//! address space never acts on a mapping of another, though it had been of this one; a list of mappings has no hole where something is
//! mapped all the time. And each of [`FAULTY`] breaks one of them.
//!
//! **Mechanism.** A few CPUs under the seeded scheduler. The control runs this binary with a seeded bug and prints the interleaving that
//! went wrong: `cargo test -p spile-sim --features sched --test known_races -- --nocapture known`. `SPILE_SEEDS` sets the number of seeds.
#![cfg(feature = "sched")]

use spile::{Attr, Denied, Flags, Layout, Locking, Mm, PAGE, Place, Prot, Range};
use spile_sim::{Cpu, Rng, Sim, User};
use spile_sync::sched::{Outcome, Run, Strategy, label};
use std::mem::forget;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

const A: u64 = 0x4000_0000;
/// In another table.
const B: u64 = 0x5000_0000;
/// How many events of a failing story are told, how many lines at either end of what one CPU does in a row, and how many at all.
const TOLD: usize = 3000;
const AT_EITHER_END: usize = 4;
const LINES: usize = 60;

fn seeds() -> u64 {
    std::env::var("SPILE_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(300)
}

/// Page `n` of those at `A`.
fn at(n: u64) -> u64 {
    A + n * PAGE
}

fn pages(first: u64, count: u64) -> Range {
    Range::with_len(at(first), count * PAGE).unwrap()
}

/// Where a race takes place.
struct Stage<L: Locking> {
    mm: Mm<Sim, L>,
    /// An address space that was forked before, in races about two.
    child: Option<Mm<Sim, L>>,
    /// Others, dropped at the end.
    children: Mutex<Vec<Mm<Sim, L>>>,
    seed: u64,
}

/// What a CPU does.
type Side<'a, L> = &'a (dyn Fn(&Cpu<'_>, &Stage<L>) + Sync);

/// A race: what is there before, what CPUs do, what must be so afterwards.
struct Race<'a, L: Locking> {
    name: &'a str,
    before: &'a dyn Fn(&Cpu<'_>, &mut Stage<L>),
    sides: &'a [Side<'a, L>],
    after: &'a dyn Fn(&Cpu<'_>, &Stage<L>),
}

impl<L: Locking> Race<'_, L> {
    /// Runs seeds until one fails, and tells its story.
    fn run(&self) {
        let all = seeds();
        for seed in 0..all {
            let outcome = self.run_seed(seed);
            if !outcome.is_ok() {
                println!("{} {}: {seed} seeds passed; then\n{}", self.name, L::NAME, abridged(&outcome.story(TOLD)));
                outcome.expect_ok();
            }
        }
        println!("{} {}: {all} seeds passed", self.name, L::NAME);
    }

    fn run_seed(&self, seed: u64) -> Outcome {
        let sim = Sim::builder().cpus(self.sides.len()).frames(200).seed(seed).build();
        if seed.is_multiple_of(3) {
            sim.stall_one_in(16);
        }
        let mut stage =
            Stage { mm: Mm::new(sim.clone(), Layout::default()).unwrap(), child: None, children: Mutex::default(), seed };
        (self.before)(&sim.cpu(0), &mut stage);
        let strategy =
            if seed.is_multiple_of(2) { Strategy::Random } else { Strategy::Pct { depth: 2 + (seed / 2 % 3) as usize } };
        let mut run = Run::new(seed).strategy(strategy).expect_steps(800).max_steps(300_000).keep_events(TOLD);
        for (n, side) in self.sides.iter().enumerate() {
            let (sim, stage) = (&sim, &stage);
            run = run.spawn(format!("cpu {n}"), move || sim.run_on(n, |cpu| side(cpu, stage)));
        }
        let outcome = run.run();
        let end = outcome.is_ok().then(|| catch_unwind(AssertUnwindSafe(|| (self.after)(&sim.cpu(0), &stage))));
        match end {
            Some(Ok(())) => outcome,
            // What is left is in no state to be dropped.
            Some(Err(why)) => {
                forget(stage);
                outcome.check(false, format!("afterwards: {}", said(&*why)))
            }
            None => {
                forget(stage);
                outcome
            }
        }
    }
}

/// A story by its switches: of what one CPU does in a row the beginning and the end.
fn abridged(story: &str) -> String {
    let column = |line: &&str| line.get(7..).and_then(|rest| rest.find(|letter| letter != ' '));
    let lines: Vec<&str> = story.lines().collect();
    let mut told = Vec::new();
    for row in lines.chunk_by(|one, next| column(one) == column(next)) {
        if row.len() <= 2 * AT_EITHER_END {
            told.extend_from_slice(row);
            continue;
        }
        told.extend_from_slice(&row[..AT_EITHER_END]);
        told.push("        ...");
        told.extend_from_slice(&row[row.len() - AT_EITHER_END..]);
    }
    told[told.len().saturating_sub(LINES)..].join("\n")
}

/// What a panic said.
fn said(why: &(dyn std::any::Any + Send)) -> &str {
    why.downcast_ref::<String>().map(String::as_str).or(why.downcast_ref::<&str>().copied()).unwrap_or("a panic")
}

fn anon(prot: Prot) -> impl Fn(Range) -> Attr<Sim> {
    move |at| Attr::anon(at.start(), prot)
}

fn map<L: Locking>(user: &User<'_, '_, L>, at: Range, prot: Prot) {
    user.map(Place::Over(at), anon(prot)).unwrap();
}

/// The byte at `at` of a space that this CPU does not run.
fn read<L: Locking>(cpu: &Cpu<'_>, mm: &Mm<Sim, L>, at: u64) -> Result<u8, Denied> {
    let mut byte = [0];
    cpu.call(|| mm.read_user(at, &mut byte)).map(|()| byte[0]).map_err(|partial| partial.why)
}

/// The mappings, as somebody lists them.
fn listed<L: Locking>(cpu: &Cpu<'_>, mm: &Mm<Sim, L>) -> Vec<Range> {
    let mut all = Vec::new();
    cpu.call(|| mm.each_mapping(|mapping| all.push(mapping.range)));
    all
}

/// Where the stack is before it grows, and how far it does.
const STACK: u64 = 8;
const GROWN: u64 = 6;
/// Single pages above it, two apart.
const NEIGHBOURS: [u64; 6] = [10, 12, 14, 16, 18, 20];

/// Two CPUs let a stack grow, which changes nodes of the index; a third looks at what is around. (StackRot, 2023: growth under a shared lock.)
fn stack_growth<L: Locking>() {
    let value = |n: u64| 0x40 | n as u8;
    let grows = |cpu: &Cpu<'_>, stage: &Stage<L>, by: [u64; 3]| {
        let user = cpu.enter(&stage.mm);
        by.map(|by| STACK - by).into_iter().for_each(|n| user.store(at(n), value(n)).unwrap());
    };
    Race::<L> {
        name: "stack growth",
        before: &|cpu, stage| {
            let user = cpu.enter(&stage.mm);
            for n in NEIGHBOURS.into_iter().chain([STACK]) {
                let flags = Flags::MAY_WRITE.with(Flags::when(n == STACK, Flags::GROWS_DOWN));
                user.map(Place::Over(pages(n, 1)), |at| Attr { flags, ..Attr::anon(at.start(), Prot::RW) }).unwrap();
                user.store(at(n), value(n)).unwrap();
            }
        },
        sides: &[&|cpu, stage| grows(cpu, stage, [1, 3, 5]), &|cpu, stage| grows(cpu, stage, [2, 4, GROWN]), &|cpu, stage| {
            for n in NEIGHBOURS.into_iter().chain([STACK]) {
                let seen = listed(cpu, &stage.mm);
                let misses = |n: &u64| !seen.iter().any(|range| range.contains(at(*n)));
                let missed = NEIGHBOURS.into_iter().chain([STACK]).find(misses);
                assert_eq!(missed, None, "a page that is missing in {seen:x?}");
                assert_eq!(cpu.enter(&stage.mm).load(at(n)), Ok(value(n)));
            }
        }],
        after: &|cpu, stage| {
            let whole = pages(STACK - GROWN, GROWN + 1);
            let should: Vec<_> = std::iter::once(whole).chain(NEIGHBOURS.map(|n| pages(n, 1))).collect();
            assert_eq!(listed(cpu, &stage.mm), should);
            let user = cpu.enter(&stage.mm);
            (STACK - GROWN..=STACK).chain(NEIGHBOURS).for_each(|n| assert_eq!(user.load(at(n)), Ok(value(n)), "page {n}"));
        },
    }
    .run();
}

/// The parent writes while it is forked, for the first time since pages are shared. (Linux 6.4: memory corruption.)
fn fork_and_write<L: Locking>() {
    Race::<L> {
        name: "fork against the first write",
        before: &|cpu, stage| {
            let user = cpu.enter(&stage.mm);
            for page in [A, B] {
                map(&user, Range::page_of(page), Prot::RW);
                user.store(page, 1).unwrap();
            }
        },
        sides: &[
            &|cpu, stage| {
                label("forks");
                let child = cpu.enter(&stage.mm).fork().unwrap();
                label("has forked");
                let look = || [A, B].map(|page| read(cpu, &child, page).unwrap());
                let first = look();
                assert!(first[1] <= first[0], "the child has {first:?}, of which the second was never ahead");
                (0..3).for_each(|_| cpu.pause());
                assert_eq!(look(), first, "nobody writes to the child");
                stage.children.lock().unwrap().push(child);
            },
            &|cpu, stage| {
                let user = cpu.enter(&stage.mm);
                for count in 2..8 {
                    [A, B].into_iter().for_each(|page| user.store(page, count).unwrap());
                }
            },
        ],
        after: &|cpu, stage| assert_eq!([A, B].map(|page| cpu.enter(&stage.mm).load(page)), [Ok(7), Ok(7)]),
    }
    .run();
}

/// A fault finds a mapping before it is taken out of the index, and takes hold of it after. (Linux 6.4 to 6.15: detached mappings.)
fn late_reader<L: Locking>() {
    let uses = |cpu: &Cpu<'_>, stage: &Stage<L>| {
        let user = cpu.enter(&stage.mm);
        for n in [0, 1, 0, 1, 0, 1] {
            let stored = user.store(at(n), 0x80);
            assert_ne!(stored, Err(Denied::NoMemory));
        }
    };
    let is_gone = |user: &User<'_, '_, L>| (0..2).for_each(|n| assert_eq!(user.load(at(n)), Err(Denied::Unmapped), "page {n}"));
    Race::<L> {
        name: "a late reader",
        before: &|cpu, stage| map(&cpu.enter(&stage.mm), pages(0, 2), Prot::RW),
        sides: &[
            &|cpu, stage| {
                let user = cpu.enter(&stage.mm);
                for _ in 0..3 {
                    label("unmaps");
                    user.unmap(pages(0, 2)).unwrap();
                    is_gone(&user);
                    cpu.pause();
                    is_gone(&user);
                    label("maps read-only");
                    map(&user, pages(0, 2), Prot::R);
                    cpu.pause();
                    (0..2).for_each(|n| assert_eq!(user.load(at(n)), Ok(0), "page {n} was never written"));
                    label("maps over it");
                    map(&user, pages(0, 2), Prot::RW);
                }
                label("unmaps");
                user.unmap(pages(0, 2)).unwrap();
            },
            &uses,
            &uses,
        ],
        after: &|cpu, stage| is_gone(&cpu.enter(&stage.mm)),
    }
    .run();
}

/// Parent and child map and unmap the same page, which the one may only read and the other write; what one gives up the other may get as the
/// memory of its mapping. (Type-stable mappings, found in review, 2024.)
fn recycled<L: Locking>() {
    const PARENTS: Prot = Prot::R;
    let maps = |cpu: &Cpu<'_>, mm: &Mm<Sim, L>, prot| _ = cpu.call(|| mm.map(Place::Over(pages(0, 1)), anon(prot))).unwrap();
    let unmaps = |cpu: &Cpu<'_>, mm: &Mm<Sim, L>| cpu.call(|| mm.unmap(pages(0, 1))).unwrap();
    Race::<L> {
        name: "a recycled mapping",
        before: &|cpu, stage| {
            map(&cpu.enter(&stage.mm), pages(0, 1), PARENTS);
            let child = stage.mm.fork().unwrap();
            map(&cpu.enter(&child), pages(0, 1), Prot::RW);
            stage.child = Some(child);
        },
        sides: &[
            &|cpu, stage| {
                let (parent, child) = (&stage.mm, stage.child.as_ref().unwrap());
                for _ in 0..3 {
                    label("unmaps in the parent, maps in the child");
                    unmaps(cpu, parent);
                    maps(cpu, child, Prot::RW);
                    assert_eq!(read(cpu, parent, at(0)), Err(Denied::Unmapped));
                    label("unmaps in the child, maps in the parent");
                    unmaps(cpu, child);
                    maps(cpu, parent, PARENTS);
                    assert_eq!(read(cpu, child, at(0)), Err(Denied::Unmapped));
                    maps(cpu, child, Prot::RW);
                }
            },
            &|cpu, stage| {
                let user = cpu.enter(&stage.mm);
                for _ in 0..6 {
                    let stored = user.store(at(0), 0xbb);
                    assert!(stored.is_err(), "the parent stored where it may read at most");
                    let seen = user.load(at(0));
                    assert!([Ok(0), Err(Denied::Unmapped)].contains(&seen), "the parent sees {seen:?}");
                }
            },
            &|cpu, stage| {
                let user = cpu.enter(stage.child.as_ref().unwrap());
                for _ in 0..6 {
                    let stored = user.store(at(0), 0xcc);
                    assert!([Ok(()), Err(Denied::Unmapped)].contains(&stored), "the child, which may write, got {stored:?}");
                }
            },
        ],
        after: &|cpu, stage| assert_eq!(cpu.enter(&stage.mm).load(at(0)), Ok(0)),
    }
    .run();
}

/// How many pages are mapped all the time while their mappings are cut, joined and replaced.
const ROW: u64 = 12;

/// Somebody lists mappings beside splits, merges and replacements. (/proc/PID/maps without the lock, 2025.)
fn maps_reader<L: Locking>() {
    let lists = |cpu: &Cpu<'_>, stage: &Stage<L>| {
        for _ in 0..4 {
            let seen = listed(cpu, &stage.mm);
            let hole = (0..ROW).find(|n| !seen.iter().any(|range| range.contains(at(*n))));
            assert_eq!(hole, None, "a page that is missing in {seen:x?}");
        }
    };
    Race::<L> {
        name: "a hole in the list",
        before: &|cpu, stage| {
            let user = cpu.enter(&stage.mm);
            (0..ROW).for_each(|n| map(&user, pages(n, 1), if n % 3 == 0 { Prot::R } else { Prot::RW }));
        },
        sides: &[
            &|cpu, stage| {
                let (user, mut rng) = (cpu.enter(&stage.mm), Rng::new(stage.seed));
                for _ in 0..8 {
                    let first = rng.below(ROW);
                    let range = pages(first, 1 + rng.below((ROW - first).min(4)));
                    let prot = if rng.one_in(2) { Prot::R } else { Prot::RW };
                    if rng.one_in(4) {
                        label(format_args!("maps over {range} {prot:?}"));
                        map(&user, range, prot);
                    } else {
                        label(format_args!("protects {range} {prot:?}"));
                        user.protect(range, prot).unwrap();
                    }
                }
            },
            &lists,
            &lists,
        ],
        after: &|cpu, stage| lists(cpu, stage),
    }
    .run();
}

spile::test_each_design! {
    known_stack_growth => stack_growth;
    known_fork_and_write => fork_and_write;
    known_late_reader => late_reader;
    known_recycled => recycled;
    known_maps_reader => maps_reader;
}

/// A race, a seeded bug, and the designs in which it is that race. Where a fault holds the lock of the address space, or the sequence of all of
/// it, some cannot happen; nor is a mapping another's at once where its change waits for whoever may have found it.
const FAULTY: &[(&str, &str, &[&str])] = &[
    (
        "known_stack_growth",
        "grow-with-a-share",
        &["btreemap_rwlock", "mmap_lock", "spf_refcount", "spf_seq", "vma_rwsem", "vma_refcount", "rcu"],
    ),
    ("known_fork_and_write", "fork-without-claim", &["spf_refcount", "vma_rwsem", "vma_refcount", "rcu", "rcu_late_zap"]),
    ("known_late_reader", "read-beside-writer", &["btreemap_rwlock", "mmap_lock"]),
    ("known_late_reader", "no-revalidation", &["spf_refcount", "spf_seq", "rcu"]),
    ("known_late_reader", "hold-a-dead-vma", &["vma_rwsem"]),
    ("known_late_reader", "claim-without-quiesce", &["vma_refcount"]),
    ("known_late_reader", "zap-without-grace", &["rcu_late_zap"]),
    ("known_recycled", "recycle-at-once", &["spf_refcount", "spf_seq", "vma_rwsem", "rcu"]),
    ("known_recycled", "recycled-of-another", &["vma_refcount"]),
    (
        "known_maps_reader",
        "two-steps",
        &["mmap_lock", "spf_refcount", "spf_seq", "vma_rwsem", "vma_refcount", "rcu", "rcu_late_zap"],
    ),
];

/// Runs one race of a design with the mistake: how far it came, and the interleaving that went wrong, if one did.
fn mistaken(race: &str, bug: &str, design: &str) -> Option<String> {
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", &format!("{design}::{race}"), "--test-threads=1", "--nocapture"]);
    child.env("SPILE_MUTATE", format!("bug:{bug}")).env("SPILE_SEEDS", "3000").env("RUST_BACKTRACE", "0");
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let (_, story) = text.split_once("... ").filter(|_| !output.status.success())?;
    story
        .contains(" seeds passed; then")
        .then(|| story.lines().take_while(|line| *line != "FAILED").collect::<Vec<_>>().join("\n"))
}

#[test]
fn known_mistakes_are_found() {
    if std::env::var_os("SPILE_MUTATE").is_some() {
        return;
    }
    let mut missed = Vec::new();
    let each = FAULTY.iter().flat_map(|(race, bug, designs)| designs.iter().map(move |design| (race, bug, design)));
    for (race, bug, design) in each {
        match mistaken(race, bug, design) {
            Some(story) => println!("\n==== {bug}: {story}"),
            None => missed.push((race, bug, design)),
        }
    }
    assert!(missed.is_empty(), "mistakes that no seed found: {missed:?}");
}
