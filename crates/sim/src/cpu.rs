//! What a program does on a CPU.
//!
//! **Guarantee.** An access ends: with the bytes, or with why not. One that faults for ever panics. A CPU that ends an operation holds nothing
//! and owes no flush.
//!
//! **Mechanism.** An access looks, faults, does what the fault's outcome says, and looks again. A verb is called as in a system call. Before
//! and after both, requests of other CPUs are served and the device goes on.

use crate::Sim;
use crate::machine::{As, tell};
use crate::watch::page_of;
use spile::locking::Stable as _;
use spile::paging::Gather;
use spile::reclaim::{Pressed as _, Reclaimed};
use spile::{
    Access, Attr, Denied, Done, Error, FaultKind, Frames as _, Locking, Mm, Outcome, Place, Platform as _, Prot, Range, Vma,
    Waiting,
};
use std::fmt;

/// How often an access may fault.
const PATIENCE: usize = 10_000;

/// A simulated CPU.
#[derive(Debug)]
pub struct Cpu<'s> {
    sim: &'s Sim,
    number: usize,
}

/// A CPU that runs a program in an address space, until it is dropped.
#[derive(Debug)]
pub struct User<'c, 'm, L: Locking> {
    cpu: &'c Cpu<'c>,
    mm: &'m Mm<Sim, L>,
}

/// An operation of a CPU.
struct Busy<'c> {
    cpu: &'c Cpu<'c>,
    _as: As,
}

/// A stay in the kernel.
struct Kernel<'c> {
    cpu: &'c Cpu<'c>,
    outermost: bool,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let lanes = self.cpu.sim.lanes();
        lanes.serve();
        lanes.watch.state().cpus[self.cpu.number].busy -= 1;
    }
}

/// An access under way.
struct Accessing<'s> {
    sim: &'s Sim,
    number: usize,
}

impl Drop for Accessing<'_> {
    fn drop(&mut self) {
        self.sim.lanes().watch.state().cpus[self.number].accessing = false;
    }
}

impl Drop for Kernel<'_> {
    fn drop(&mut self) {
        if !self.outermost {
            return;
        }
        let (watch, number) = (&self.cpu.sim.lanes().watch, self.cpu.number);
        watch.state().cpus[number].kernel = false;
        self.cpu.sim.rcu().idle();
        watch.check(|state| ((), state.ended(number)));
    }
}

impl Sim {
    /// The CPU with this number, for use by this thread. Between operations others flush it on its behalf, so one thread may have
    /// several.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn cpu(&self, number: usize) -> Cpu<'_> {
        assert!(number < self.lanes().count(), "there is no cpu {number}");
        Cpu { sim: self, number }
    }

    /// Sends every CPU away that [`stay`](Cpu::stay)s in `mm`, which is about to go.
    pub fn vacate<L: Locking>(&self, mm: &Mm<Sim, L>) {
        let mut state = self.lanes().watch.state();
        for cpu in state.cpus.iter_mut().filter(|cpu| cpu.space.is_some_and(|(space, _)| space == mm.space())) {
            cpu.space = None;
            cpu.tlb.flush_all();
        }
    }

    /// The CPU that this thread stands for.
    pub fn this_cpu(&self) -> Cpu<'_> {
        self.cpu(self.lanes().cpu())
    }

    /// Runs `program` as the CPU with this number, on a thread of its own: it serves its requests itself, between operations and
    /// while it spins.
    pub fn run_on<T>(&self, number: usize, program: impl FnOnce(&Cpu<'_>) -> T) -> T {
        let cpu = self.cpu(number);
        let _busy = cpu.busy();
        program(&cpu)
    }
}

impl<'s> Cpu<'s> {
    /// The machine.
    pub fn sim(&self) -> &'s Sim {
        self.sim
    }

    fn busy(&self) -> Busy<'_> {
        let on = As::cpu(self.number);
        self.sim.lanes().watch.state().cpus[self.number].busy += 1;
        Busy { cpu: self, _as: on }
    }

    fn kernel(&self) -> Kernel<'_> {
        let mut state = self.sim.lanes().watch.state();
        let outermost = !core::mem::replace(&mut state.cpus[self.number].kernel, true);
        drop(state);
        if outermost {
            self.sim.rcu().online();
        }
        Kernel { cpu: self, outermost }
    }

    /// Serves requests, lets the device go on.
    fn between(&self) {
        self.sim.lanes().serve();
        self.sim.device().tick();
    }

    /// Calls `verb` in the kernel.
    pub fn call<T>(&self, verb: impl FnOnce() -> T) -> T {
        let _busy = self.busy();
        self.between();
        let kernel = self.kernel();
        let result = verb();
        drop(kernel);
        result
    }

    /// Lets about `want` pages of whatever space leave memory.
    pub fn reclaim(&self, want: usize) -> Reclaimed {
        tell(format_args!("reclaims {want}"));
        self.call(|| self.sim.reclaimer().reclaim(self.sim, want))
    }

    /// Some time passes: for programs that wait for somebody.
    pub fn pause(&self) {
        let _busy = self.busy();
        self.sim.device().tick();
        self.sim.lanes().relax();
    }

    /// Switches to `mm` and stays there, as a CPU does between the faults of a program, so that flushes ask it; until it goes elsewhere, or
    /// [`vacate`](Sim::vacate) sends all away.
    pub fn stay<L: Locking>(&self, mm: &Mm<Sim, L>) {
        let _busy = self.busy();
        let mut state = self.sim.lanes().watch.state();
        let (cpu, there) = (&mut state.cpus[self.number], Some((mm.space(), mm.page_table().root())));
        if cpu.space != there {
            cpu.tlb.flush_all();
            cpu.space = there;
        }
    }

    /// Switches to `mm`.
    pub fn enter<'c, 'm, L: Locking>(&'c self, mm: &'m Mm<Sim, L>) -> User<'c, 'm, L> {
        let _busy = self.busy();
        let mut state = self.sim.lanes().watch.state();
        let cpu = &mut state.cpus[self.number];
        assert!(cpu.space.is_none(), "cpu {} runs one program at a time", self.number);
        cpu.tlb.flush_all();
        cpu.space = Some((mm.space(), mm.page_table().root()));
        drop(state);
        User { cpu: self, mm }
    }
}

impl<L: Locking> Drop for User<'_, '_, L> {
    fn drop(&mut self) {
        let _busy = self.cpu.busy();
        self.cpu.sim.lanes().serve();
        let mut state = self.cpu.sim.lanes().watch.state();
        let cpu = &mut state.cpus[self.cpu.number];
        cpu.space = None;
        cpu.tlb.flush_all();
    }
}

impl<'c, 'm, L: Locking> User<'c, 'm, L> {
    /// The address space.
    pub fn mm(&self) -> &'m Mm<Sim, L> {
        self.mm
    }

    /// The CPU.
    pub fn cpu(&self) -> &'c Cpu<'c> {
        self.cpu
    }

    /// Loads a byte.
    ///
    /// # Errors
    ///
    /// [`Denied`].
    pub fn load(&self, at: u64) -> Result<u8, Denied> {
        self.access(at, Access::Read, |byte| *byte)
    }

    /// Stores a byte.
    ///
    /// # Errors
    ///
    /// [`Denied`].
    pub fn store(&self, at: u64, value: u8) -> Result<(), Denied> {
        let put = |byte: &mut u8| {
            *byte = value;
            value
        };
        self.access(at, Access::Write, put).map(drop)
    }

    /// Fetches a byte as an instruction.
    ///
    /// # Errors
    ///
    /// [`Denied`].
    pub fn exec(&self, at: u64) -> Result<u8, Denied> {
        self.access(at, Access::Exec, |byte| *byte)
    }

    fn access(&self, at: u64, access: Access, act: impl Fn(&mut u8) -> u8) -> Result<u8, Denied> {
        let _busy = self.cpu.busy();
        tell(format_args!("{access:?} {at:#x}"));
        for _ in 0..PATIENCE {
            self.cpu.between();
            if let Some(result) = self.attempt(at, access, &act) {
                tell(format_args!("{access:?} {at:#x}: {result:#x}"));
                return Ok(result);
            }
            tell(format_args!("{access:?} {at:#x}: faults"));
            self.fault(at, access).inspect_err(|denied| tell(format_args!("{access:?} {at:#x}: {denied:?}")))?;
        }
        panic!("cpu {} faulted {PATIENCE} times for one {access:?} at {at:#x} in\n{:#?}", self.cpu.number, self.mm)
    }

    /// The access itself. None: it faults.
    fn attempt<T>(&self, at: u64, access: Access, act: impl Fn(&mut u8) -> T) -> Option<T> {
        let (sim, number) = (self.cpu.sim, self.cpu.number);
        sim.lanes().watch.state().cpus[number].accessing = true;
        let _accessing = Accessing { sim, number };
        let way = sim.translate(at, access)?;
        Some(sim.touch(way, at, access == Access::Write, act))
    }

    /// Faults, as a kernel whose handlers may sleep if faults of this space may do so with what they hold; else as one whose handlers may not.
    fn fault(&self, at: u64, access: Access) -> Result<(), Denied> {
        if FaultKind::ALL.into_iter().any(|kind| self.mm.waiting(kind) == Waiting::Hold) {
            return self.cpu.call(|| self.mm.fault_and_wait(at, access)).map(drop);
        }
        let outcome = self.cpu.call(|| self.mm.fault(at, access));
        self.follow(at, outcome)
    }

    /// Does what a fault says.
    fn follow(&self, at: u64, outcome: Outcome<'_, Sim>) -> Result<(), Denied> {
        match outcome {
            // Others come first, as in `Mm::finish`: it may be for one of them to go on.
            Outcome::Done(Done::Raced) => {
                self.cpu.call(|| self.cpu.sim.lanes().relax());
                Ok(())
            }
            Outcome::Done(_) => Ok(()),
            Outcome::Denied(denied) => Err(denied),
            Outcome::Grow => self.cpu.call(|| self.mm.grow(at, |_, _, _| true)),
            Outcome::Wait(token) => {
                self.cpu.call(|| token.wait());
                Ok(())
            }
        }
    }

    /// Calls a verb in the kernel, and says so in the story.
    fn verb<T>(&self, what: fmt::Arguments<'_>, verb: impl FnOnce() -> T) -> T {
        tell(what);
        let result = self.cpu.call(verb);
        tell(format_args!("{what}: done"));
        result
    }

    /// Calls a verb in the kernel, and checks that of what was in its range before nothing can be used after.
    fn taking_away<T>(&self, range: Range, name: &str, verb: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        let watch = &self.cpu.sim.lanes().watch;
        let space = self.mm.space();
        let since = watch.state().now();
        let result = self.verb(format_args!("{name} {range}"), verb);
        if result.is_ok() {
            watch.check(|state| ((), state.survivor(space, range, since, &format!("{name} was over"))));
        }
        result
    }

    /// [`Mm::map`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn map(&self, place: Place, attr: impl FnOnce(Range) -> Attr<Sim>) -> Result<Range, Error> {
        match place {
            Place::Over(range) => self.taking_away(range, "map over", || self.mm.map(place, attr)),
            _ => self.verb(format_args!("map {place:?}"), || self.mm.map(place, attr)),
        }
    }

    /// [`Mm::unmap`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn unmap(&self, range: Range) -> Result<(), Error> {
        self.taking_away(range, "unmap", || self.mm.unmap(range))
    }

    /// [`Mm::protect`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn protect(&self, range: Range, prot: Prot) -> Result<(), Error> {
        self.verb(format_args!("protect {range} {prot:?}"), || self.mm.protect(range, prot))
    }

    /// [`Mm::fork`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn fork(&self) -> Result<Mm<Sim, L>, Error> {
        self.verb(format_args!("fork"), || self.mm.fork())
    }

    /// Empties the pages of `range` under a fault's hold on each one's mapping, as `MADV_DONTNEED` does. Whether every hold was had, and good
    /// to the end; pages for which it was not are left alone.
    pub fn discard(&self, range: Range) -> bool {
        self.discard_if(range, |_| true)
    }

    /// The same, for pages of mappings that `wanted` wants.
    pub fn discard_if(&self, range: Range, wanted: impl Fn(&Vma<Sim, L>) -> bool) -> bool {
        let (watch, space) = (&self.cpu.sim.lanes().watch, self.mm.space());
        let mut all = true;
        for at in (range.start()..range.end()).step_by(spile::PAGE as usize) {
            let page = Range::page_of(at);
            let since = watch.state().now();
            let done = self.verb(format_args!("discard {page}"), || self.discard_page(page, &wanted));
            if done {
                watch.check(|state| ((), state.survivor(space, page, since, "discard was over")));
            }
            all &= done;
        }
        all
    }

    fn discard_page(&self, page: Range, wanted: impl Fn(&Vma<Sim, L>) -> bool) -> bool {
        let p = self.cpu.sim;
        let Ok(hold) = L::try_stabilise(self.mm, page.start()) else { return false };
        if !wanted(hold.vma()) {
            return false;
        }
        let mut gather = Gather::new(p, self.mm.page_table());
        // SAFETY: (1) one platform, one space; (2) the hold is asked.
        let zapped = unsafe { self.mm.page_table().zap_while(p, page, &mut gather, || hold.still_valid()) };
        gather.settle(page);
        zapped
    }
}

impl Sim {
    fn touch<T>(&self, way: crate::mmu::Way, at: u64, write: bool, act: impl FnOnce(&mut u8) -> T) -> T {
        let offset = (at - page_of(at)) as usize;
        let zero = way.frame == self.zero_frame();
        let generation = (!zero).then_some(way.generation);
        match self.arena().touch(way.frame, write, generation, |bytes| act(&mut bytes[offset])) {
            Ok(result) => result,
            Err(wrong) => {
                self.lanes().watch.check(|_| ((), Some(format!("a program's access at {at:#x}: {wrong}"))));
                panic!("an access of a frame that is gone, after another complaint")
            }
        }
    }
}
