//! A munmap whose flush another CPU is slow to answer: what others can do meanwhile.
//!
//! **Guarantee.** For each seed tried and each design that can: with the place reserved, others map elsewhere and not there, and faults there
//! are refused; with new mappings admitted, one is there at once, its faults wait, and it begins with zeros.
//!
//! **Mechanism.** Four CPUs under the seeded scheduler. One has the page in its TLB and answers nobody until it is told to, by who has seen what
//! is to be seen meanwhile: if that could not be seen before the answer, the run would not end.
#![cfg(feature = "sched")]

mod seeds;

use seeds::seeds;
use spile::{Access, Attr, Denied, Layout, Locking, Mm, Outcome, PAGE, Place, Platform as _, Prot, Range, Unmapping};
use spile_rcu::Rcu as _;
use spile_sim::{Cpu, Sim};
use spile_sync::atomic::{AtomicBool, Ordering};
use spile_sync::sched::{Run, Strategy};

const A: u64 = 0x4000_0000;

fn there() -> Range {
    Range::with_len(A, PAGE).unwrap()
}

fn anon(at: Range) -> Attr<Sim> {
    Attr::anon(at.start(), Prot::RW)
}

struct Stage<L: Locking> {
    mm: Mm<Sim, L>,
    is_cached: AtomicBool,
    may_answer: AtomicBool,
}

impl<L: Locking> Stage<L> {
    /// What may be done at the place, if it is mapped: the new mapping cannot be written.
    fn mapped(&self, cpu: &Cpu<'_>) -> Option<Prot> {
        let mut prot = None;
        cpu.call(|| self.mm.each_mapping(|mapping| prot = prot.or((mapping.range == there()).then_some(mapping.prot))));
        prot
    }

    fn until(&self, cpu: &Cpu<'_>, is_so: impl Fn() -> bool) {
        while !is_so() {
            cpu.pause();
        }
    }
}

/// The last to run: what can be seen while the flush is not answered. Then it is.
type Watch<L> = fn(&Cpu<'_>, &Stage<L>);

fn run<L: Locking>(unmapping: Unmapping, seed: u64, watch: Watch<L>) -> spile_sync::sched::Outcome {
    let sim = Sim::builder().cpus(4).frames(200).seed(seed).interruptible(false).build();
    let mut mm: Mm<Sim, L> = Mm::new(sim.clone(), Layout::default()).unwrap();
    mm.set_unmapping(unmapping);
    let stage = Stage { mm, is_cached: AtomicBool::new(false), may_answer: AtomicBool::new(false) };
    let is_set = |flag: &AtomicBool| flag.load(Ordering::Acquire);
    {
        let cpu = sim.cpu(0);
        let user = cpu.enter(&stage.mm);
        user.map(Place::Over(there()), anon).unwrap();
        user.store(A, 7).unwrap();
    }
    let slow = |cpu: &Cpu<'_>| {
        let user = cpu.enter(&stage.mm);
        assert_eq!(user.load(A), Ok(7));
        // In the kernel, with interrupts off.
        cpu.call(|| {
            stage.is_cached.store(true, Ordering::Release);
            while !is_set(&stage.may_answer) {
                spile_sync::hint::spin_loop();
                // Grace periods need not wait for it.
                drop(sim.rcu().read());
            }
        });
    };
    let unmaps = |cpu: &Cpu<'_>| {
        stage.until(cpu, || is_set(&stage.is_cached));
        cpu.call(|| stage.mm.unmap(there())).unwrap();
    };
    // Whoever wants the place.
    let maps = |cpu: &Cpu<'_>| {
        stage.until(cpu, || is_set(&stage.is_cached) && stage.mapped(cpu).is_none());
        cpu.call(|| stage.mm.map(Place::At(there()), |at| Attr::anon(at.start(), Prot::R))).unwrap();
        let mut byte = [1];
        cpu.call(|| stage.mm.read_user(A, &mut byte)).unwrap();
        assert_eq!(byte, [0], "what is mapped when the verb returns");
    };
    let watches = |cpu: &Cpu<'_>| {
        stage.until(cpu, || is_set(&stage.is_cached));
        watch(cpu, &stage);
        stage.may_answer.store(true, Ordering::Release);
    };
    let sides: [&(dyn Fn(&Cpu<'_>) + Sync); 4] = [&unmaps, &slow, &maps, &watches];
    let mut story = Run::new(seed).strategy(Strategy::Random).expect_steps(2000).max_steps(60_000).keep_events(200);
    for (n, side) in sides.into_iter().enumerate() {
        let sim = &sim;
        story = story.spawn(format!("cpu {n}"), move || sim.run_on(n, |cpu| side(cpu)));
    }
    let outcome = story.run();
    if !outcome.is_ok() {
        // What is left is in no state to be dropped.
        std::mem::forget(stage);
    }
    outcome
}

/// Nothing is mapped there, nor will be before the flush is over, and a fault is told so; elsewhere others map.
fn reserved<L: Locking>(cpu: &Cpu<'_>, stage: &Stage<L>) {
    stage.until(cpu, || stage.mapped(cpu).is_none());
    for _ in 0..3 {
        let at = cpu.call(|| stage.mm.map(Place::Anywhere(PAGE), anon)).unwrap();
        assert!(at.overlap(there()).is_none());
        assert_eq!(stage.mapped(cpu), None, "the place is reserved");
        assert_eq!(cpu.call(|| stage.mm.fault_and_wait(A, Access::Read)), Err(Denied::Unmapped));
    }
}

/// A new mapping is there; a fault in it waits.
fn admitted<L: Locking>(cpu: &Cpu<'_>, stage: &Stage<L>) {
    stage.until(cpu, || stage.mapped(cpu) == Some(Prot::R));
    assert!(matches!(stage.mm.fault(A, Access::Read), Outcome::Wait(_)), "a fault before the flush is over");
    cpu.call(|| stage.mm.map(Place::Anywhere(PAGE), anon)).unwrap();
}

fn place_is_reserved<L: Locking>() {
    if L::LETS_GO {
        (0..seeds(60)).for_each(|seed| _ = run::<L>(Unmapping::Reserve, seed, reserved).expect_ok());
    }
}

fn mapping_is_admitted<L: Locking>() {
    if L::LETS_GO {
        (0..seeds(60)).for_each(|seed| _ = run::<L>(Unmapping::Admit, seed, admitted).expect_ok());
    }
}

spile::test_each_design! {
    place_is_reserved_while_it_is_flushed => place_is_reserved;
    mapping_is_admitted_while_its_place_is_flushed => mapping_is_admitted;
}

/// With a share of the lock kept nobody maps meanwhile, so the watch does not end: the tests above can fail.
#[test]
fn a_share_keeps_others_out() {
    assert!(!run::<spile::MmapLock>(Unmapping::Share, 1, reserved).is_ok());
    assert!(!run::<spile::UnderRcu>(Unmapping::Share, 1, admitted).is_ok());
}

/// The place is not reserved; a fault does not ask whether the place is being flushed.
#[test]
fn mistakes_in_flushes_are_found() {
    if std::env::var_os("SPILE_MUTATE").is_some() {
        return;
    }
    for (bug, test) in [
        ("reserve-nothing", "rcu::place_is_reserved_while_it_is_flushed"),
        ("fault-in-a-flush", "rcu::mapping_is_admitted_while_its_place_is_flushed"),
        ("fault-in-a-flush", "mmap_lock::mapping_is_admitted_while_its_place_is_flushed"),
    ] {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", test, "--test-threads=1"]).env("SPILE_MUTATE", format!("bug:{bug}")).env("RUST_BACKTRACE", "0");
        let output = child.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success() && text.contains("thread 'cpu 3' panicked"), "{bug} in {test}: {text}");
    }
}
