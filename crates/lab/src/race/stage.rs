//! How a race is played: what is there before, what CPUs do, what must be so afterwards.
//!
//! **Guarantee.** A seed and a design make one interleaving, the same in every process. What a scene or the machine asserts is in the outcome; a seed
//! that passes leaves no frame behind.
//!
//! **Mechanism.** A machine of its own for each seed, and its CPUs as threads of the seeded scheduler. Even seeds walk at random, odd ones go by
//! priorities; on every third machine CPUs are late now and then.

use crate::panics::said;
use spile::{Attr, Denied, Layout, Locking, Mm, PAGE, Place, Prot, Range};
use spile_sim::{Cpu, Sim, User};
use spile_sync::sched::{Outcome, Run, Strategy};
use std::mem::forget;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

/// Where the pages of scenes begin.
const PAGES: u64 = 0x4000_0000;
/// After so many steps a scene is stuck, unless it says otherwise.
pub const PATIENCE: u64 = 300_000;
/// So many of the last events can be told.
const KEPT: usize = 20_000;

/// The address of page `n`.
pub fn at(n: u64) -> u64 {
    PAGES + n * PAGE
}

/// Pages in a row.
pub fn pages(first: u64, count: u64) -> Range {
    Range::with_len(at(first), count * PAGE).expect("pages are in the low half")
}

/// Where a scene takes place.
pub struct Stage<L: Locking> {
    /// The address space.
    pub mm: Mm<Sim, L>,
    /// One that was forked before, in scenes about two.
    pub child: Option<Mm<Sim, L>>,
    /// Others, dropped at the end.
    pub children: Mutex<Vec<Mm<Sim, L>>>,
    /// What chance there is beside the schedule's.
    pub seed: u64,
}

/// What a CPU does.
pub type Side<'a, L> = &'a (dyn Fn(&Cpu<'_>, &Stage<L>) + Sync);

/// A race that can be played.
pub struct Scene<'a, L: Locking> {
    /// What is there before: done by CPU 0, alone.
    pub before: &'a dyn Fn(&Cpu<'_>, &mut Stage<L>),
    /// What CPUs do, all at once.
    pub sides: &'a [Side<'a, L>],
    /// What must be so afterwards: asked by CPU 0, alone.
    pub after: &'a dyn Fn(&Cpu<'_>, &Stage<L>),
    /// After so many steps it is stuck.
    pub patience: u64,
}

impl<L: Locking> Scene<'_, L> {
    /// One interleaving.
    pub fn play(&self, seed: u64) -> Outcome {
        let sim = Sim::builder().cpus(self.sides.len()).frames(200).seed(seed).build();
        if seed.is_multiple_of(3) {
            sim.stall_one_in(16);
        }
        let mm = Mm::new(sim.clone(), Layout::default()).expect("a machine has frames for an address space");
        // Where a lock lies decides where its waiters sleep, and where a stack is differs from process to process.
        let mut stage = Box::new(Stage { mm, child: None, children: Mutex::default(), seed });
        (self.before)(&sim.cpu(0), &mut stage);
        let strategy =
            if seed.is_multiple_of(2) { Strategy::Random } else { Strategy::Pct { depth: 2 + (seed / 2 % 3) as usize } };
        let mut run = Run::new(seed).strategy(strategy).expect_steps(800).max_steps(self.patience).keep_events(KEPT);
        for (n, side) in self.sides.iter().enumerate() {
            let (sim, stage) = (&sim, &stage);
            run = run.spawn(format!("CPU {n}"), move || sim.run_on(n, |cpu| side(cpu, stage)));
        }
        let outcome = run.run();
        if !outcome.is_ok() {
            // What is left is in no state to be dropped.
            forget(stage);
            return outcome;
        }
        let after = catch_unwind(AssertUnwindSafe(|| (self.after)(&sim.cpu(0), &stage)));
        if let Err(why) = after {
            forget(stage);
            return outcome.check(false, format!("afterwards: {}", said(&*why)));
        }
        // The machine looks at what comes back to it, too.
        let end = catch_unwind(AssertUnwindSafe(|| {
            drop(stage);
            sim.finish();
        }));
        let why = end.as_ref().err().map_or("", |why| said(&**why));
        outcome.check(end.is_ok(), format!("when all was given back: {why}"))
    }
}

/// Private anonymous memory.
pub fn anon(prot: Prot) -> impl Fn(Range) -> Attr<Sim> {
    move |at| Attr::anon(at.start(), prot)
}

/// Maps `at`, over what is there.
#[track_caller]
pub fn map<L: Locking>(user: &User<'_, '_, L>, at: Range, prot: Prot) {
    user.map(Place::Over(at), anon(prot)).expect("there is memory");
}

/// The byte at `at` of a space that this CPU does not run.
pub fn read<L: Locking>(cpu: &Cpu<'_>, mm: &Mm<Sim, L>, at: u64) -> Result<u8, Denied> {
    let mut byte = [0];
    cpu.call(|| mm.read_user(at, &mut byte)).map(|()| byte[0]).map_err(|partial| partial.why)
}

/// The mappings, as somebody lists them.
pub fn listed<L: Locking>(cpu: &Cpu<'_>, mm: &Mm<Sim, L>) -> Vec<Range> {
    let mut all = Vec::new();
    cpu.call(|| mm.each_mapping(|mapping| all.push(mapping.range)));
    all
}
