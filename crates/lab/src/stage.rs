//! Where recordings are replayed: the watched machine, or the one that only counts.
//!
//! **Guarantee.** A replay is the same on both, but for what is checked on the way and how long it takes.

use crate::lean::Lean;
use spile::reclaim::{Marks, Pressed as _};
use spile::{Access, Denied, Locking, Mm, Platform};
use spile_rcu::Rcu;
use spile_sim::Sim;

/// A machine that a recording can be replayed on.
pub trait Stage: Platform<Store: Default> {
    /// Runs `program` as the CPU with this number.
    fn run<T>(&self, cpu: usize, program: impl FnOnce() -> T) -> T;

    /// The CPU of this thread runs a program in `mm` from now on.
    fn stay<L: Locking>(&self, mm: &Mm<Self, L>);

    /// No CPU runs a program in `mm` any more.
    fn vacate<L: Locking>(&self, mm: &Mm<Self, L>);

    /// Accesses the page at `at` as the program in `mm` does that runs on the CPU of this thread.
    ///
    /// # Errors
    ///
    /// [`Denied`].
    fn touch<L: Locking>(&self, mm: &Mm<Self, L>, at: u64, access: Access) -> Result<(), Denied> {
        mm.fault_and_wait(at, access).map(drop)
    }

    /// Lets pages leave memory where little of it is free, as far as they can.
    fn balance(&self) {}

    /// Flushes of translation caches so far, and requests to other CPUs for them.
    fn flushes(&self) -> (u64, u64);

    /// Lets what waits for a grace period go, as far as that is simple.
    fn drain(&self) {}

    /// Lets everything that waits for a grace period come home, and checks that nothing is missing. With all spaces and files gone.
    ///
    /// # Panics
    ///
    /// If something is.
    fn finish(&self);
}

impl Stage for Sim {
    fn run<T>(&self, cpu: usize, program: impl FnOnce() -> T) -> T {
        self.run_on(cpu, |_| program())
    }

    fn stay<L: Locking>(&self, mm: &Mm<Self, L>) {
        self.this_cpu().stay(mm);
    }

    fn vacate<L: Locking>(&self, mm: &Mm<Self, L>) {
        Sim::vacate(self, mm);
    }

    fn touch<L: Locking>(&self, mm: &Mm<Self, L>, at: u64, access: Access) -> Result<(), Denied> {
        // It stays there, and comes as another program would.
        Sim::vacate(self, mm);
        let touched = {
            let cpu = self.this_cpu();
            let user = cpu.enter(mm);
            match access {
                // What is there, so that nothing is written that was not.
                Access::Write => user.load(at).and_then(|byte| user.store(at, byte)),
                Access::Read => user.load(at).map(drop),
                Access::Exec => user.exec(at).map(drop),
            }
        };
        self.stay(mm);
        touched
    }

    fn balance(&self) {
        const MARKS: Marks = Marks { low: 16, high: 32 };
        self.this_cpu().call(|| self.reclaimer().balance(self, MARKS));
    }

    fn flushes(&self) -> (u64, u64) {
        let counts = self.counts();
        (counts.flushes, counts.ipis)
    }

    fn finish(&self) {
        Sim::finish(self);
    }
}

impl Stage for Lean {
    fn run<T>(&self, cpu: usize, program: impl FnOnce() -> T) -> T {
        self.as_cpu(cpu, program)
    }

    /// It has no translation caches.
    fn stay<L: Locking>(&self, _: &Mm<Self, L>) {}

    fn vacate<L: Locking>(&self, _: &Mm<Self, L>) {}

    /// As there are no caches nobody is asked.
    fn flushes(&self) -> (u64, u64) {
        (Lean::flushes(self), 0)
    }

    fn drain(&self) {
        self.rcu().barrier();
    }

    fn finish(&self) {
        self.rcu().barrier();
        // Tables that wait are in two lots. (Others may use the domain too, so a barrier alone need not end a grace period.)
        for _ in 0..2 {
            self.rcu().synchronize();
            self.shared().relieve(self);
        }
        assert_eq!(self.in_use(), 0, "frames or tables were forgotten");
    }
}
