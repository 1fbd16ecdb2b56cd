//! What address spaces count, for each design.
//!
//! **Guarantee.** Alone, every fault and change is counted exactly where it belongs, and nowhere else. With several CPUs, for each seed tried:
//! the sums agree with each other and with what the CPUs were answered.
//!
//! **Mechanism.** Counters are compared whole, so that one too many fails as one too few does. Under the scheduler two CPUs change a stage on
//! which two others fault, each keeping a tally of its own; a table of what was counted is printed. The control runs this binary with a
//! seeded bug and expects the sums to disagree.
#![cfg(feature = "counters")]

use spile::index::VmaBox;
use spile::locking::Stable;
use spile::{
    Access, Attr, Backing, Counters, Event, FaultKind, Flags, Layout, Locking, Mm, Outcome, PAGE, Place, Prot, Range, Waiting,
};
use spile_sim::{Content, Cpu, Sim};

const BASE: u64 = 0x4000_0000;

fn pages(first: u64, count: u64) -> Range {
    Range::with_len(BASE + first * PAGE, count * PAGE).unwrap()
}

fn at(page: u64) -> u64 {
    BASE + page * PAGE
}

fn map<L: Locking>(cpu: &Cpu<'_>, mm: &Mm<Sim, L>, at: Range, prot: Prot) {
    cpu.call(|| mm.map(Place::Over(at), |at| Attr::anon(at.start(), prot))).unwrap();
}

/// What was counted since it was made or asked last.
struct Since<'m, L: Locking> {
    mm: &'m Mm<Sim, L>,
    before: Counters,
}

impl<'m, L: Locking> Since<'m, L> {
    fn now(mm: &'m Mm<Sim, L>) -> Self {
        Self { mm, before: mm.counters() }
    }

    /// Demands that `expected` and nothing else was counted.
    #[track_caller]
    fn expect(&mut self, what: &str, expected: &[(Event, u64)]) {
        let new = self.mm.counters() - self.before;
        self.before = self.mm.counters();
        let of = |event| expected.iter().filter(|(wanted, _)| *wanted == event).map(|(_, count)| count).sum();
        let wrong: Vec<_> =
            Event::ALL.into_iter().map(|event| (event.label(), new[event], of(event))).filter(|row| row.1 != row.2).collect();
        assert!(wrong.is_empty(), "{what}: (label, counted, expected) {wrong:?}");
    }
}

/// What is freed, or used again, at once is not handed to a grace period.
fn deferred<L: Locking>(mappings: u64) -> (Event, u64) {
    let at_once = ["btreemap_rwlock", "mmap_lock_rbtree", "vma_refcount"].contains(&L::NAME);
    (Event::DeferredBytes, if at_once { 0 } else { mappings * VmaBox::<Sim, L>::SIZE as u64 })
}

fn graces<L: Locking>(changes: u64) -> (Event, u64) {
    (Event::GraceWait, if L::WAITS_FOR_READERS { changes } else { 0 })
}

fn faults<L: Locking>() {
    let sim = Sim::new();
    let mm: Mm<Sim, L> = Mm::new(sim.clone(), Layout::default()).unwrap();
    let mut since = Since::now(&mm);
    since.expect("a new space", &[]);
    {
        let cpu = sim.cpu(0);
        let fault = |page, access| cpu.call(|| mm.fault(at(page), access));
        map(&cpu, &mm, pages(0, 8), Prot::RW);
        map(&cpu, &mm, pages(16, 1), Prot::R);
        since.expect("two mmaps", &[(Event::Write, 2)]);
        for page in 0..5 {
            assert!(matches!(fault(page, Access::Write), Outcome::Done(_)));
        }
        since.expect("faults", &[(Event::Lookup, 5), (Event::FastResolved, 5)]);
        let other = sim.cpu(3);
        assert!(matches!(other.call(|| mm.fault(at(0), Access::Read)), Outcome::Done(_)));
        since.expect("a spurious one, of another CPU", &[(Event::Lookup, 1), (Event::FastResolved, 1)]);
        assert!(matches!(fault(16, Access::Write), Outcome::Denied(_)));
        since.expect("a forbidden one", &[(Event::Lookup, 1), (Event::FastDenied, 1)]);
        assert!(matches!(fault(9, Access::Read), Outcome::Denied(_)));
        since.expect("one in a hole", &[(Event::Lookup, 1), (Event::MissNoVma, 1)]);
        assert!(matches!(cpu.call(|| mm.fault(u64::MAX, Access::Read)), Outcome::Denied(_)));
        since.expect("one where nothing can be, which is not looked up", &[]);
    }
    drop(mm);
    sim.finish();
}

fn waits_and_growth<L: Locking>() {
    let sim = Sim::new();
    let mm: Mm<Sim, L> = Mm::new(sim.clone(), Layout::default()).unwrap();
    let content = Content::new(vec![7; PAGE as usize]);
    content.set_delay(3);
    let file = sim.file(&content, PAGE).unwrap();
    {
        let cpu = sim.cpu(0);
        let shown = |_| Attr { prot: Prot::R, flags: Flags::SHARED, backing: Backing::File(file.clone(), 0), name: None };
        let grows = |at: Range| Attr { flags: Flags::MAY_WRITE.with(Flags::GROWS_DOWN), ..Attr::anon(at.start(), Prot::RW) };
        cpu.call(|| mm.map(Place::Over(pages(0, 1)), shown)).unwrap();
        cpu.call(|| mm.map(Place::Over(pages(600, 2)), grows)).unwrap();
        let mut since = Since::now(&mm);
        let outcome = cpu.call(|| mm.fault(at(0), Access::Read));
        let Outcome::Wait(token) = outcome else { panic!("the device is slow") };
        since.expect("a page that is being read", &[(Event::Lookup, 1), (Event::FastPage, 1)]);
        cpu.call(|| token.wait());
        assert!(matches!(cpu.call(|| mm.fault(at(0), Access::Read)), Outcome::Done(_)));
        since.expect("one that was read", &[(Event::Lookup, 1), (Event::FastResolved, 1)]);
        drop(token);
        assert!(matches!(cpu.call(|| mm.fault(at(599), Access::Write)), Outcome::Grow));
        since.expect("below a stack", &[(Event::Lookup, 1), (Event::MissGrow, 1)]);
        cpu.call(|| mm.grow(at(599), |_, _, _| true)).unwrap();
        since.expect("growth", &[(Event::Write, 1), graces::<L>(1), deferred::<L>(1)]);
    }
    drop((mm, file));
    sim.finish();
}

/// A fault that sleeps with its hold looks twice; where that cannot be slept with it takes the slow way, too.
fn sleeps_with_a_hold<L: Locking>() {
    let sim = Sim::new();
    let mut mm: Mm<Sim, L> = Mm::new(sim.clone(), Layout::default()).unwrap();
    mm.set_waiting(FaultKind::File, Waiting::Hold);
    let content = Content::new(vec![7; PAGE as usize]);
    content.set_delay(3);
    let file = sim.file(&content, PAGE).unwrap();
    {
        let cpu = sim.cpu(0);
        let shown = |_| Attr { prot: Prot::R, flags: Flags::SHARED, backing: Backing::File(file.clone(), 0), name: None };
        cpu.call(|| mm.map(Place::Over(pages(0, 1)), shown)).unwrap();
        let mut since = Since::now(&mm);
        let mut sleep = |fails, [fast, slow]: [Event; 2]| {
            content.set_failing(0, fails);
            assert_eq!(cpu.call(|| mm.fault_and_wait(at(0), Access::Read)).is_err(), fails);
            let again = match <L::Fast<'_, Sim> as Stable<Sim, L>>::MAY_SLEEP {
                true => vec![(fast, 1)],
                false => vec![(Event::MissStale, 1), (Event::Fallback, 1), (slow, 1)],
            };
            since.expect("a fault that slept", &[&[(Event::Lookup, 2), (Event::FastPage, 1)], &again[..]].concat());
        };
        sleep(true, [Event::FastDenied, Event::SlowDenied]);
        sleep(false, [Event::FastResolved, Event::SlowResolved]);
    }
    drop((mm, file));
    sim.finish();
}

fn changes<L: Locking>() {
    const COUNT: u64 = 6;
    let sim = Sim::new();
    let mm: Mm<Sim, L> = Mm::new(sim.clone(), Layout::default()).unwrap();
    let mut since = Since::now(&mm);
    {
        let cpu = sim.cpu(0);
        (0..COUNT).for_each(|n| map(&cpu, &mm, pages(4 * n, 2), Prot::RW));
        since.expect("mmaps", &[(Event::Write, COUNT)]);
        (0..COUNT).for_each(|n| cpu.call(|| mm.unmap(pages(4 * n, 2))).unwrap());
        since.expect("munmaps", &[(Event::Write, COUNT), graces::<L>(COUNT), deferred::<L>(COUNT)]);
        cpu.call(|| mm.unmap(pages(0, 4))).unwrap();
        since.expect("a munmap of nothing", &[(Event::Write, 1)]);
        // Who finds out under way where it changes something may have no right to it.
        let again = u64::from(L::NAME == "range_lock");
        cpu.call(|| mm.map(Place::Anywhere(PAGE), |at| Attr::anon(at.start(), Prot::RW))).unwrap();
        since.expect("an mmap anywhere", &[(Event::Write, 1 + again), (Event::Elsewhere, again)]);
        let child = cpu.call(|| mm.fork()).unwrap();
        since.expect("fork, which claims", &[(Event::Write, 1), graces::<L>(1)]);
        Since { mm: &child, before: Counters::default() }.expect("the child", &[(Event::Write, 1)]);
        cpu.call(|| drop(child));
    }
    {
        let _only = mm.attach();
        let cpu = sim.cpu(0);
        map(&cpu, &mm, pages(0, 1), Prot::RW);
        cpu.call(|| mm.unmap(pages(0, 1))).unwrap();
        let waits = (Event::GraceWait, u64::from(L::NAME == "rcu_late_zap"));
        since.expect("the only user", &[(Event::Write, 2), waits, deferred::<L>(1)]);
    }
    drop(mm);
    sim.finish();
}

fn each_has_a_label<L: Locking>() {
    let sim = Sim::new();
    let mm: Mm<Sim, L> = Mm::new(sim.clone(), Layout::default()).unwrap();
    map(&sim.cpu(0), &mm, pages(0, 1), Prot::RW);
    let one = mm.counters();
    assert_eq!(one.iter().filter(|(_, value)| *value > 0).collect::<Vec<_>>(), [("writes", 1)]);
    assert_eq!((one + one)[Event::Write], 2);
    let labels: std::collections::BTreeSet<_> = one.iter().map(|(label, _)| label).collect();
    assert_eq!(labels.len(), Event::ALL.len(), "two events have one label");
    assert!(format!("{one:?}").contains(r#""writes": 1"#), "{one:?}");
}

spile::test_each_design! {
    fault => faults;
    wait_and_grow => waits_and_growth;
    sleep_with_a_hold => sleeps_with_a_hold;
    change => changes;
    label => each_has_a_label;
}

#[cfg(feature = "sched")]
mod scheduled {
    use super::*;
    use spile::{Denied, Done};
    use spile_sim::{Failures, Rng};
    use spile_sync::sched::{Run, Strategy};
    use std::sync::Mutex;

    const CHANGERS: u64 = 2;
    const CPUS: u64 = 4;
    const VERBS: u64 = 8;
    const FAULTS: u64 = 16;
    const STAGE: u64 = 4;
    const SEEDS: u64 = 120;

    /// What CPUs were answered.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    struct Tally {
        lookups: u64,
        resolved: u64,
        raced: u64,
        waits: u64,
        denied: u64,
        grows: u64,
    }

    impl Tally {
        fn note(&mut self, outcome: &Outcome<'_, Sim>) {
            self.lookups += 1;
            *match outcome {
                Outcome::Done(Done::Raced) => &mut self.raced,
                Outcome::Done(_) => &mut self.resolved,
                Outcome::Wait(_) => &mut self.waits,
                Outcome::Denied(_) => &mut self.denied,
                Outcome::Grow => &mut self.grows,
            } += 1;
        }

        fn add(&mut self, other: Self) {
            self.lookups += other.lookups;
            self.resolved += other.resolved;
            self.raced += other.raced;
            self.waits += other.waits;
            self.denied += other.denied;
            self.grows += other.grows;
        }
    }

    fn sum(counters: &Counters, events: &[Event]) -> u64 {
        events.iter().map(|event| counters[*event]).sum()
    }

    /// That they agree with each other and with what was answered.
    fn check(counters: &Counters, told: Tally) -> Result<(), String> {
        use Event::*;
        let fast = [FastResolved, FastRaced, FastPage, FastRelief, FastDenied];
        let misses = [MissNoVma, MissGrow, MissContended, MissStale];
        let slow = [SlowResolved, SlowRaced, SlowPage, SlowRelief, SlowWriter, SlowDenied, SlowGrow];
        let counted = Tally {
            lookups: counters[Lookup],
            resolved: sum(counters, &[FastResolved, SlowResolved]),
            raced: sum(counters, &[FastRaced, SlowRaced]),
            waits: sum(counters, &[FastPage, FastRelief, SlowPage, SlowRelief, SlowWriter]),
            denied: sum(counters, &[FastDenied, MissNoVma, SlowDenied]),
            grows: sum(counters, &[MissGrow, SlowGrow]),
        };
        let agree = counters[Lookup] == sum(counters, &fast) + sum(counters, &misses)
            && counters[Fallback] == sum(counters, &[MissContended, MissStale])
            && counters[Fallback] == sum(counters, &slow)
            && counters[Write] == 1 + CHANGERS * VERBS
            && counted == told;
        if agree { Ok(()) } else { Err(format!("sums disagree; answered was {told:?}; counted {counters:?}")) }
    }

    fn change<L: Locking>(cpu: &Cpu<'_>, mm: &Mm<Sim, L>, rng: &mut Rng) {
        for _ in 0..VERBS {
            let first = rng.below(STAGE);
            let range = pages(first, 1 + rng.below(STAGE - first));
            // A hole, or a failed frame, changes nothing: the right was given all the same.
            match rng.below(8) {
                0 => _ = cpu.call(|| mm.unmap(range)),
                1 | 2 => _ = cpu.call(|| mm.protect(range, Prot::RW)),
                _ => map(cpu, mm, range, [Prot::R, Prot::RW][rng.below(2) as usize]),
            }
        }
    }

    fn fault<L: Locking>(cpu: &Cpu<'_>, mm: &Mm<Sim, L>, rng: &mut Rng) -> Tally {
        let mut tally = Tally::default();
        for _ in 0..FAULTS {
            let (at, access) = (at(rng.below(STAGE)), [Access::Read, Access::Write][rng.below(2) as usize]);
            let outcome = cpu.call(|| mm.fault(at, access));
            tally.note(&outcome);
            let done = cpu.call(|| mm.finish(at, outcome));
            assert!(matches!(done, Ok(()) | Err(Denied::Unmapped | Denied::Protected | Denied::NoMemory)));
        }
        tally
    }

    fn one<L: Locking>(seed: u64) -> Counters {
        let sim = Sim::builder().cpus(CPUS as usize).frames(200).seed(seed).build();
        let mm: Mm<Sim, L> = Mm::new(sim.clone(), Layout::default()).unwrap();
        map(&sim.cpu(0), &mm, pages(0, STAGE), Prot::RW);
        if seed.is_multiple_of(4) {
            sim.fail(Failures::OneIn(3));
        }
        let tally = Mutex::new(Tally::default());
        let strategy = if seed.is_multiple_of(2) { Strategy::Random } else { Strategy::Pct { depth: 3 } };
        let mut run = Run::new(seed).strategy(strategy).max_steps(1_000_000).keep_events(80);
        for number in 0..CPUS {
            let (sim, mm, tally) = (&sim, &mm, &tally);
            run = run.spawn(format!("cpu {number}"), move || {
                let mut rng = Rng::new(seed * CPUS + number);
                sim.run_on(number as usize, |cpu| {
                    if number < CHANGERS {
                        return change(cpu, mm, &mut rng);
                    }
                    let told = fault(cpu, mm, &mut rng);
                    tally.lock().unwrap().add(told);
                });
            });
        }
        let outcome = run.run().expect_ok();
        let counters = mm.counters();
        let agree = check(&counters, *tally.lock().unwrap());
        let wrong = agree.clone().err().unwrap_or_default();
        outcome.check(agree.is_ok(), wrong).expect_ok();
        drop(mm);
        sim.finish();
        counters
    }

    /// Designs whose holds keep changes out: none is stale.
    const NEVER_STALE: [&str; 5] = ["btreemap_rwlock", "mmap_lock_rbtree", "mmap_lock", "range_lock", "pt_range"];

    fn counts_add_up<L: Locking>() {
        let total = (0..SEEDS).map(one::<L>).fold(Counters::default(), |sum, one| sum + one);
        let row: Vec<_> = total.iter().map(|(label, value)| format!("{label} {value}")).collect();
        println!("{}: {}", L::NAME, row.join(", "));
        assert!(total[Event::FastResolved] > 0 && total[Event::Fallback] > 0, "{}: faults and changes do not meet", L::NAME);
        assert!(total[Event::WriteWait] > 0, "{}: changes do not meet", L::NAME);
        let stale = total[Event::MissStale];
        assert_eq!(stale == 0, NEVER_STALE.contains(&L::NAME), "{}: {stale} holds were stale", L::NAME);
        assert!(L::WAITS_FOR_READERS == (total[Event::GraceWait] > 0), "{}: who waits for readers says so", L::NAME);
    }

    spile::test_each_design! {
        counts_add_up => counts_add_up;
    }

    /// A bug that counts a fault twice is seen.
    #[test]
    fn controls() {
        if std::env::var_os("SPILE_MUTATE").is_some() {
            return;
        }
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "scheduled::rcu::counts_add_up", "--test-threads=1", "--nocapture"]);
        let output = child.env("SPILE_MUTATE", "bug:count-twice").env("RUST_BACKTRACE", "0").output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        let found = String::from_utf8_lossy(&text).contains("sums disagree");
        assert!(!output.status.success() && found, "{}", String::from_utf8_lossy(&text));
    }
}
