//! Nobody waits for ever: how often others come first.
//!
//! **Guarantee.** For each seed tried and each design: between the refusal of a fault and its end as many changes begin and end as it needs locks one
//! after the other, however many follow one another; and where one frame is left for all, faults that want it all end, none is refused, and
//! each looks for it a bounded number of times; and where no page can leave all are refused, after so many looks. Where nobody waits for a lock any more,
//! nobody is woken who waits for something else.
//!
//! **Mechanism.** CPUs under the seeded scheduler that do nothing but get in each other's way. `SPILE_SEEDS` sets the number of seeds; a control runs this binary
//! with seeded bugs, each of which takes a bound away.
#![cfg(feature = "sched")]

mod controls;
mod seeds;

use seeds::seeds;
use spile::{Access, Attr, Denied, Done, Layout, Locking, Mm, Outcome, PAGE, Place, Prot, Range};
use spile_sim::{Cpu, Failures, Sim};
use spile_sync::sched::{Run, Strategy};
use std::mem::forget;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

const A: u64 = 0x4000_0000;

fn at(n: u64) -> Range {
    Range::page_of(A + n * PAGE)
}

fn anon(at: Range) -> Attr<Sim> {
    Attr::anon(at.start(), Prot::RW)
}

fn map<L: Locking>(mm: &Mm<Sim, L>, page: Range) {
    mm.map(Place::Over(page), anon).unwrap();
}

/// Runs `side` on each CPU with this seed, in `stage`, which is handed back.
fn run<S: Sync>(name: &str, seed: u64, sim: &Sim, stage: S, cpus: u64, side: impl Fn(&S, &Cpu<'_>, u64) + Sync) -> S {
    let strategy = if seed.is_multiple_of(2) { Strategy::Random } else { Strategy::Pct { depth: 2 + (seed / 2 % 3) as usize } };
    let mut run = Run::new(seed).strategy(strategy).expect_steps(3000).max_steps(300_000).keep_events(80);
    for n in 0..cpus {
        let (stage, side) = (&stage, &side);
        run = run.spawn(format!("cpu {n}"), move || sim.run_on(n as usize, |cpu| side(stage, cpu, n)));
    }
    let outcome = run.run();
    if !outcome.is_ok() {
        // What is left of it is in no state to be dropped.
        forget(stage);
        panic!("{name} seed {seed}: {}", outcome.story(30));
    }
    stage
}

/// One faults while others change what it faults in, and what lies beside that, without pause.
mod beside_changes {
    use super::*;

    const WRITERS: u64 = 3;
    /// So many by each: a fault that waits for their end has waited too long.
    const CHANGES: u64 = 40;

    struct Stage<L: Locking> {
        mm: Mm<Sim, L>,
        /// Changes that are over.
        changed: AtomicU64,
        /// The fault was told to wait.
        waits: AtomicBool,
        done: AtomicBool,
        /// Changes that began when it had been, and ended before it did.
        overtook: AtomicU64,
    }

    fn faults<L: Locking>(stage: &Stage<L>, cpu: &Cpu<'_>) {
        while stage.changed.load(SeqCst) < WRITERS {
            cpu.pause();
        }
        let fault = || match stage.mm.fault(A, Access::Read) {
            Outcome::Done(done) => done != Done::Raced,
            Outcome::Wait(token) => {
                stage.waits.store(true, SeqCst);
                token.wait();
                false
            }
            other => panic!("{other:?}"),
        };
        cpu.call(|| while !fault() {});
        stage.done.store(true, SeqCst);
    }

    /// The locks for which a fault may wait one after the other: that of the address space, and that of its page.
    fn locks<L: Locking>() -> u64 {
        if L::NAME == "range_lock" { 2 } else { 1 }
    }

    /// Some map over the page; one maps and unmaps another, where the end of the change holds a share of the lock.
    fn changes<L: Locking>(stage: &Stage<L>, cpu: &Cpu<'_>, me: u64) {
        // Who locks ranges has what is apart from the fault done without it.
        let is_apart = me == 2 && locks::<L>() > 1;
        for _ in 0..CHANGES {
            let waits = stage.waits.load(SeqCst) && !is_apart;
            cpu.call(|| match me {
                2 => {
                    map(&stage.mm, at(me));
                    stage.mm.unmap(at(me)).unwrap();
                }
                _ => map(&stage.mm, at(0)),
            });
            stage.changed.fetch_add(1, SeqCst);
            if stage.done.load(SeqCst) {
                break;
            }
            stage.overtook.fetch_add(u64::from(waits), SeqCst);
        }
    }

    /// How many changes overtake the fault, if it has to wait.
    fn overtakes<L: Locking>(seed: u64) -> Option<u64> {
        let sim = Sim::builder().cpus(1 + WRITERS as usize).frames(200).seed(seed).build();
        let mm: Mm<Sim, L> = Mm::new(sim.clone(), Layout::default()).unwrap();
        map(&mm, at(0));
        let (waits, done) = (AtomicBool::new(false), AtomicBool::new(false));
        let stage = Stage { mm, changed: 0.into(), waits, done, overtook: 0.into() };
        let stage = run(L::NAME, seed, &sim, stage, 1 + WRITERS, |stage, cpu, n| match n {
            0 => faults(stage, cpu),
            me => changes(stage, cpu, me),
        });
        let Stage { mm, overtook, waits, .. } = stage;
        drop(mm);
        sim.finish();
        waits.into_inner().then_some(overtook.into_inner())
    }

    fn bounded<L: Locking>() {
        let waited: Vec<_> = (0..seeds(100)).filter_map(overtakes::<L>).collect();
        let most = waited.iter().max().expect("it never waited: this shows nothing");
        println!("{:18} {} faults waited, overtaken by at most {most} changes", L::NAME, waited.len());
        assert!(*most <= locks::<L>(), "a fault that waited was overtaken by {most} changes");
    }

    spile::test_each_design! {
        a_fault_is_next_after_one_change => bounded;
    }
}

/// All want the last frame.
mod for_the_last_frame {
    use super::*;

    const CPUS: u64 = 3;
    /// From the root to the entries.
    const LEVELS: u64 = 4;
    /// So often, on average, may each frame be asked for that a fault wants: all together look in vain no more often before somebody is refused.
    const PATIENCE: u64 = 16;

    /// For what.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Want {
        /// Each for a page that others' faults have sent away, time and again.
        Page,
        /// Each for a table of its own, and for a page in it.
        TableAndPage,
        /// Each for a copy of a page that is away: where that and the copy are all that is in memory.
        Copy,
    }

    impl Want {
        fn page(self, n: u64) -> Range {
            at(if self == Self::TableAndPage { n << 9 } else { n })
        }

        /// All that stays in memory, and what one of them needs besides.
        fn frames(self) -> u64 {
            match self {
                Self::Page => LEVELS + 1,
                Self::TableAndPage => LEVELS - 1 + CPUS + 1,
                Self::Copy => 2 * LEVELS + 2,
            }
        }

        /// How many frames a fault wants.
        fn wanted(self) -> u64 {
            if self == Self::Page { 1 } else { 2 }
        }

        fn times(self) -> u64 {
            if self == Self::Page { 6 } else { 1 }
        }
    }

    /// Maps the pages, with something in them, and gives them to a child where they are to be copied.
    fn prepare<L: Locking>(sim: &Sim, mm: &Mm<Sim, L>, want: Want) -> Option<Mm<Sim, L>> {
        sim.cpu(0).call(|| {
            (0..CPUS).for_each(|n| map(mm, want.page(n)));
            if want != Want::TableAndPage {
                (0..CPUS).for_each(|n| mm.write_user(want.page(n).start(), &[1]).unwrap());
            }
            (want == Want::Copy).then(|| mm.fork().unwrap())
        })
    }

    /// A store whose transfers take so many ticks.
    fn one<L: Locking>(seed: u64, want: Want, delay: u32) {
        let sim = Sim::builder().cpus(CPUS as usize).frames(want.frames() as u32).swap(64).seed(seed).build();
        let mm: Mm<Sim, L> = Mm::new(sim.clone(), Layout::default()).unwrap();
        let child = prepare(&sim, &mm, want);
        sim.swap().set_delay(delay);
        // From now on it counts.
        sim.fail(Failures::Never);
        let (before, fetched) = (sim.swap().done().back, AtomicU64::new(0));
        let mm = run(L::NAME, seed, &sim, mm, CPUS, |mm, cpu, n| {
            for _ in 0..want.times() {
                let ended = cpu.call(|| mm.fault_and_wait(want.page(n).start(), Access::Write));
                let done = ended.unwrap_or_else(|denied| panic!("{want:?}: {denied:?}, where there is memory for one at a time"));
                fetched.fetch_add(u64::from(done == Done::Swapped), SeqCst);
            }
        });
        let told = format!("{} seed {seed}, {want:?}", L::NAME);
        let (wanted, asked) = (CPUS * want.times() * want.wanted(), sim.frames_asked());
        assert!(asked <= PATIENCE * wanted, "{told}: {wanted} frames were wanted, and asked for {asked} times");
        // Who copies may have to lose the page for the memory of its copy.
        let (reads, fetched) = (sim.swap().done().back - before, fetched.into_inner());
        assert!(want == Want::Copy || reads <= fetched, "{told}: {reads} pages were read for {fetched} faults");
        drop((child, mm));
        sim.finish();
    }

    fn served<L: Locking>() {
        // So many find all that `controls` has.
        (0..seeds(150)).for_each(|seed| {
            let want = [Want::Page, Want::TableAndPage, Want::Copy][(seed / 12 % 3) as usize];
            one::<L>(seed, want, [0, 1, 2, 400][(seed / 2 % 4) as usize]);
        });
    }

    fn at_once<L: Locking>() {
        (0..seeds(100)).for_each(|seed| one::<L>(seed, Want::Page, 0));
    }

    spile::test_each_design! {
        all_are_served => served;
        all_are_served_by_what_answers_at_once => at_once;
    }
}

/// All want a frame, and nothing that has one can leave.
mod where_none_can_leave {
    use super::*;

    const CPUS: u64 = 3;
    /// How many have a frame.
    const PAGES: u64 = 2;
    /// How many frames may be asked for: for each that is refused somebody looks sixteen times, and each look has all the others ask once or twice. Without a bound there is
    /// no end to it.
    const MOST: u64 = 1000;

    /// How many frames were asked for until all were refused.
    fn one<L: Locking>(seed: u64) -> u64 {
        // Beside the pages: a table for each level.
        let sim = Sim::builder().cpus(CPUS as usize).frames(PAGES as u32 + 4).swap(0).seed(seed).build();
        let mm: Mm<Sim, L> = Mm::new(sim.clone(), Layout::default()).unwrap();
        sim.cpu(0).call(|| {
            (0..PAGES + CPUS).for_each(|n| map(&mm, at(n)));
            (0..PAGES).for_each(|n| mm.write_user(at(n).start(), &[1]).unwrap());
        });
        assert_eq!(sim.free_frames(), 0);
        // From now on it counts.
        sim.fail(Failures::Never);
        let mm = run(L::NAME, seed, &sim, mm, CPUS, |mm, cpu, n| {
            let ended = cpu.call(|| mm.fault_and_wait(at(PAGES + n).start(), Access::Write));
            assert_eq!(ended, Err(Denied::NoMemory));
        });
        let asked = sim.frames_asked();
        drop(mm);
        sim.finish();
        asked
    }

    fn refused<L: Locking>() {
        let asked: Vec<_> = (0..seeds(40)).map(one::<L>).collect();
        let most = asked.iter().max().unwrap();
        println!("{:18} {CPUS} were refused when they had asked {most} times at most", L::NAME);
        assert!(*most <= MOST, "{most}");
    }

    spile::test_each_design! {
        all_are_refused => refused;
    }
}

/// Who has waited for the lock of an address space waits no more.
mod where_nobody_waits {
    use super::*;

    /// As a fault that waits for what shares an event with the lock looks again.
    fn undisturbed<L: Locking>() {
        let sim = Sim::builder().cpus(1).build();
        let mm: Mm<Sim, L> = Mm::new(sim.clone(), Layout::default()).unwrap();
        sim.cpu(0).call(|| {
            map(&mm, at(0));
            let all = mm.lock().write(&sim).unwrap();
            assert!(mm.lock().read(&sim).is_err(), "a reader beside a writer");
            drop(all.downgrade());
            let before = sim.counts().wakes;
            assert!(before > 0, "the reader is not told that he can come");
            for _ in 0..3 {
                assert!(matches!(mm.fault(A, Access::Read), Outcome::Done(_)));
                drop(mm.lock().read(&sim).unwrap());
            }
            assert_eq!(sim.counts().wakes, before, "somebody is woken by who gives back what nobody waits for");
        });
        drop(mm);
        sim.finish();
    }

    spile::test_each_design! {
        nobody_is_woken => undisturbed;
    }
}

/// Seeded bugs, and who finds them.
#[test]
fn controls() {
    controls::all_are_found(&[
        ("no-turn-for-readers", "beside_changes::mmap_lock::a_fault_is_next_after_one_change"),
        ("no-turn-for-readers", "beside_changes::rcu::a_fault_is_next_after_one_change"),
        ("turn-without-time", "beside_changes::mmap_lock::a_fault_is_next_after_one_change"),
        ("mark-for-ever", "where_nobody_waits::mmap_lock::nobody_is_woken"),
        ("no-turn-for-a-page", "beside_changes::range_lock::a_fault_is_next_after_one_change"),
        ("read-at-once-in-silence", "for_the_last_frame::vma_rwsem::all_are_served_by_what_answers_at_once"),
        ("forget-what-is-read", "for_the_last_frame::mmap_lock::all_are_served"),
        ("refuse-at-once", "for_the_last_frame::mmap_lock::all_are_served"),
        ("all-look-at-once", "where_none_can_leave::mmap_lock::all_are_refused"),
        ("looked-in-silence", "where_none_can_leave::vma_rwsem::all_are_refused"),
        ("come-again-without-the-page", "for_the_last_frame::vma_rwsem::all_are_served"),
    ]);
}
