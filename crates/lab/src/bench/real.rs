//! Real memory of this process, whose faults the core resolves.
//!
//! **Guarantee.** What is counted is counted by the pager: signals that were taken, and pages that were filled. Nothing leaves memory meanwhile, and nothing is written back.
//!
//! **Mechanism.** A pager of the design with room for all areas, and a region for each while it is mapped. A definition's addresses are its own; the pager chooses where a region lies, and
//! a thread adds the difference. A page is a signal: regions bring no page but the one that is missed.

use super::host;
use super::target::{Events, Target};
use super::workload::{Area, Counts, On, PAGE, Phase, Step, Workload};
use anyhow::{Result, anyhow, ensure};
use spile::Locking;
use spile_linux::backing::{Generated, Page};
use spile_linux::{Allowed, NoPager, Pager, Region};
use std::cell::Cell;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// So many frames are there beside those of areas, that nobody makes room.
const SPARE: u64 = 1024;

/// Zeros, which nobody keeps.
type Zeros = Generated<fn(u64, &mut Page) -> io::Result<()>>;

thread_local! {
    /// The area that this thread is about.
    static AREA: Cell<usize> = const { Cell::new(0) };
}

/// Memory that a pager has.
pub struct Real<L: Locking> {
    pager: Pager<L>,
    workload: Workload,
    areas: Vec<Mapped<L>>,
}

/// An area.
struct Mapped<L: Locking> {
    /// Where its region is; 0: it has none.
    at: AtomicU64,
    rest: Mutex<Rest<L>>,
}

struct Rest<L: Locking> {
    region: Option<Region<Zeros, L>>,
    /// What happened in those that are gone, and all changes.
    counts: Counts,
}

impl<L: Locking> Rest<L> {
    /// What happened so far.
    fn counts(&self) -> Counts {
        self.counts.plus(self.region.as_ref().map_or(Counts::default(), counts))
    }

    fn region(&mut self) -> &mut Region<Zeros, L> {
        self.region.as_mut().expect("it is mapped")
    }
}

/// What a region has counted.
fn counts<L: Locking>(region: &Region<Zeros, L>) -> Counts {
    let status = region.status();
    Counts { faults: status.faults.count(), frames: status.filled / PAGE, changes: 0 }
}

impl<L: Locking> Mapped<L> {
    fn rest(&self) -> MutexGuard<'_, Rest<L>> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a workload can be carried out by regions.
fn check(workload: &Workload) -> Result<()> {
    let can = |phase: &Phase, step: &Step| match step {
        Step::Map | Step::MapAnywhere | Step::Unmap => phase.on == On::Area,
        Step::Write | Step::Read | Step::Discard | Step::ProtectRead | Step::ProtectWrite => true,
        Step::BrkUp | Step::BrkDown | Step::Fork => false,
    };
    let phases = workload.setup.iter().chain(&workload.pass);
    let cannot = phases.flat_map(|phase| phase.steps.iter().filter(move |step| !can(phase, step))).next();
    ensure!(
        cannot.is_none(),
        "{} is not for real memory: a region is mapped and unmapped whole, has no break and no forks; it says {:?}",
        workload.name,
        cannot.expect("it was found")
    );
    Ok(())
}

impl<L: Locking> Real<L> {
    /// For a workload of so many threads.
    ///
    /// # Errors
    ///
    /// It is not for regions, or there is no pager here: says why, and what would change that.
    pub fn new(workload: &Workload, threads: usize) -> Result<Self> {
        check(workload)?;
        let pages = workload.frames(threads) + SPARE;
        let pager = Pager::builder().design::<L>().budget(pages * PAGE).build().map_err(refused)?;
        let none = || Mapped { at: AtomicU64::new(0), rest: Mutex::new(Rest { region: None, counts: Counts::default() }) };
        let areas = (0..workload.areas(threads)).map(|_| none()).collect();
        Ok(Self { pager, workload: workload.clone(), areas })
    }

    /// This thread's, and where a definition has it.
    fn area(&self) -> (&Mapped<L>, u64) {
        let area = AREA.get();
        (&self.areas[area], self.workload.area_of(area))
    }

    /// Where bytes of a definition are.
    fn real(&self, at: u64) -> u64 {
        let (area, begins) = self.area();
        // Relaxed: who maps an area for others lets them begin by a barrier.
        area.at.load(Ordering::Relaxed) + (at - begins)
    }

    /// Does something to bytes of the region.
    fn change(&self, at: u64, len: u64, change: impl FnOnce(&mut Region<Zeros, L>, Range<u64>), is_counted: bool) {
        let (area, begins) = self.area();
        let mut rest = area.rest();
        change(rest.region(), at - begins..at - begins + len);
        rest.counts.changes += u64::from(is_counted);
    }
}

/// Why there is no pager, and what would change that.
fn refused(no_pager: NoPager) -> anyhow::Error {
    match no_pager {
        NoPager::Refused(refused, report) => anyhow!("there is no real memory to measure on: {refused}\n{report}"),
        other => anyhow!(other).context("there is no real memory to measure on"),
    }
}

impl<L: Locking> Target for Real<L> {
    fn run<T>(&self, thread: usize, program: impl FnOnce() -> T) -> T {
        AREA.set(if self.workload.area == Area::One { 0 } else { thread });
        program()
    }

    fn map(&self, _: Option<u64>, len: u64) -> u64 {
        // SAFETY: (1) each page is made the zeros that it is given.
        let zeros: Zeros = unsafe { Generated::new(|_, _| Ok(())) };
        let region = self.pager.region(zeros, len).writable(true).around(1).map().expect("there is memory");
        let (area, begins) = self.area();
        let mut rest = area.rest();
        area.at.store(region.as_ptr().expose_provenance() as u64, Ordering::Relaxed);
        rest.region = Some(region);
        rest.counts.changes += 1;
        begins
    }

    fn map_over(&self, _: u64, _: u64) {
        unreachable!("no step of a definition does");
    }

    fn unmap(&self, _: u64, len: u64) {
        let (area, _) = self.area();
        let mut rest = area.rest();
        // As anonymous memory ends: what was written is not wanted any more.
        rest.region().discard(0..len);
        rest.counts = rest.counts();
        rest.counts.changes += 1;
        area.at.store(0, Ordering::Relaxed);
        rest.region = None;
    }

    fn write(&self, at: u64, len: u64) {
        // SAFETY: (1) bytes of a region that is mapped to be written, to which nobody has a reference; (2) a thread writes to what is its own.
        unsafe { host::write(self.real(at), len) };
    }

    fn read(&self, at: u64, len: u64) {
        // SAFETY: (1) bytes of a region, which may be read; (2) a thread reads what is its own.
        unsafe { host::read(self.real(at), len) };
    }

    fn discard(&self, at: u64, len: u64) {
        self.change(at, len, |region, bytes| region.discard(bytes), false);
    }

    fn protect(&self, at: u64, len: u64, writable: bool) {
        let may = if writable { Allowed::Writes } else { Allowed::Reads };
        self.change(at, len, |region, bytes| region.protect(bytes, may).expect("it is mapped, and there is memory"), true);
    }

    fn brk(&self, _: u64) {
        unreachable!("who says so was refused");
    }

    fn fork(&self) {
        unreachable!("who says so was refused");
    }

    fn list(&self, _: &mut String) -> usize {
        unreachable!("no step of a definition does");
    }

    fn list_with_pages(&self, _: &mut String) -> usize {
        unreachable!("no step of a definition does");
    }

    fn events(&self) -> Events {
        let counts = self.areas.iter().map(|area| area.rest().counts()).fold(Counts::default(), Counts::plus);
        Events { counts, ..Events::default() }
    }
}
