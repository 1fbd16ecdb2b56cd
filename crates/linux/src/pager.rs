//! A pager: memory for regions.
//!
//! **Guarantee.** Its regions together show no more pages than its budget; what it takes beside is said by [`Pager::usage`]. Where it cannot work it says why, and what would change that.
//!
//! **Mechanism.** A userfaultfd and a host of the core's ([`host`](crate::host)), which regions share.

use crate::Ability;
use crate::backing::Backing;
use crate::door::{Door, Shut};
use crate::host::Host;
use crate::probe::{Engine, Refused, Report, probe};
use crate::region::{Region, RegionBuilder};
use crate::trace::Trace;
use crate::uffd::Features;
use crate::workers::Workers;
use crate::{PAGE, events, signal};
use spile::reclaim::Pressed;
use spile::{Locking, VmaRefcount};
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

/// Memory for regions, whose faults it handles on the threads that take them.
///
/// `L` is how faults and changes of a region are kept apart: one of the core's designs.
pub struct Pager<L: Locking = VmaRefcount> {
    host: Host,
    engine: Engine,
    workers: Arc<Workers>,
    /// Whether the kernel poisons pages.
    poisons: bool,
    trace: OnceLock<Trace>,
    design: PhantomData<fn() -> L>,
}

/// How a [`Pager`] is to be.
#[derive(Clone, Debug)]
pub struct Builder<L: Locking = VmaRefcount> {
    budget: u64,
    engine: Option<Engine>,
    workers: usize,
    design: PhantomData<fn() -> L>,
}

/// There is no pager.
#[derive(Debug)]
pub enum NoPager {
    /// The kernel, or who watches over this process, does not let it.
    Refused(Refused, Box<Report>),
    /// The budget is less than [`Pager::LEAST`] bytes, or more than frames can be numbered.
    Budget(u64),
    /// No userfaultfd opens with the features that were found: why, and what would change that.
    Shut(Shut),
    /// The kernel refused something that it needs.
    Kernel(&'static str, io::Error),
}

impl NoPager {
    /// Whether pagers are not for this process here, whatever is asked for: the kernel, or who watches over the process, does not let it. What it prints says what would change that.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused(..) | Self::Shut(_))
    }
}

impl fmt::Display for NoPager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refused, _) => refused.fmt(f),
            Self::Shut(shut) => shut.fmt(f),
            Self::Budget(bytes) => write!(
                f,
                "a budget of {bytes} bytes: it takes {} at least, and {} at most",
                Pager::<VmaRefcount>::LEAST,
                Pager::<VmaRefcount>::MOST
            ),
            Self::Kernel(what, error) => write!(f, "cannot {what}: {error}"),
        }
    }
}

impl std::error::Error for NoPager {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Refused(refused, _) => Some(refused),
            Self::Shut(shut) => Some(&shut.error),
            Self::Budget(_) => None,
            Self::Kernel(_, error) => Some(error),
        }
    }
}

/// What a pager has of memory, in pages. A moment's truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The budget.
    pub budget: u64,
    /// Of it, those that have a page of a region.
    pub used: u64,
    /// Pages beside the budget that nobody has, to read into next.
    pub idle: u64,
    /// Tables: what the core knows about regions.
    pub tables: u64,
}

impl<L: Locking> Default for Builder<L> {
    fn default() -> Self {
        Self { budget: 256 << 20, engine: None, workers: 4, design: PhantomData }
    }
}

impl Builder {
    /// With a design of the core's.
    #[must_use]
    pub fn design<M: Locking>(self) -> Builder<M> {
        Builder { budget: self.budget, engine: self.engine, workers: self.workers, design: PhantomData }
    }
}

impl<L: Locking> Builder<L> {
    /// How many bytes its regions may have in memory, together. 256 MiB unless said.
    #[must_use]
    pub fn budget(self, bytes: u64) -> Self {
        Self { budget: bytes, ..self }
    }

    /// By this way, not by the best that there is.
    #[must_use]
    pub fn engine(self, engine: Engine) -> Self {
        Self { engine: Some(engine), ..self }
    }

    /// By how many threads pages are brought beside those that want them ([`Region::prefetch_async`]): so many reads are under way at once. 4 unless said, at least 1; they are started
    /// when they are wanted first.
    #[must_use]
    pub fn workers(self, threads: usize) -> Self {
        Self { workers: threads.max(1), ..self }
    }

    /// With memory that others may map: [`Engine::Shared`]. [`Region::share`] gives it to them.
    #[must_use]
    pub fn shared(self) -> Self {
        self.engine(Engine::Shared)
    }

    /// Asks the kernel for it.
    ///
    /// # Errors
    ///
    /// [`NoPager`].
    pub fn build(self) -> Result<Pager<L>, NoPager> {
        if !(Pager::<L>::LEAST..=Pager::<L>::MOST).contains(&self.budget) {
            return Err(NoPager::Budget(self.budget));
        }
        let report = probe();
        let chosen = match self.engine {
            None => report.engine,
            Some(engine) => report.missing(engine).map_or(Ok(engine), |ability| Err(Refused::Lacks(ability))),
        };
        events::chosen(&chosen, &report.kernel);
        let engine = match chosen {
            Ok(engine) => engine,
            Err(refused) => return Err(NoPager::Refused(refused, Box::new(report))),
        };
        let kernel = |what| move |error| NoPager::Kernel(what, error);
        let poisons = report.can(Ability::Poison);
        let features = if poisons { engine.features().with(Features::POISON) } else { engine.features() };
        let uffd = Door::for_own_faults(features).map_err(NoPager::Shut)?;
        let host = Host::new(uffd, engine, (self.budget / PAGE) as u32).map_err(kernel("map the pager's memory"))?;
        signal::install().map_err(kernel("handle SIGBUS"))?;
        let workers = Arc::new(Workers::new(self.workers));
        Ok(Pager { host, engine, workers, poisons, trace: OnceLock::new(), design: PhantomData })
    }
}

impl Pager {
    /// One of [`VmaRefcount`]'s design.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }
}

impl<L: Locking> Pager<L> {
    /// The least budget, in bytes: 64 pages.
    pub const LEAST: u64 = 64 * PAGE;
    /// The largest: 4 TiB.
    pub const MOST: u64 = PAGE << 30;

    /// A region whose `len` bytes are those of `backing`, of which more can be said.
    pub fn region<B: Backing>(&self, backing: B, len: u64) -> RegionBuilder<'_, B, L> {
        RegionBuilder::new(self, backing, len)
    }

    /// A region whose `len` bytes are those of `backing`.
    ///
    /// # Errors
    ///
    /// [`NoRegion`](crate::NoRegion).
    pub fn map<B: Backing>(&self, backing: B, len: u64) -> Result<Region<B, L>, crate::NoRegion> {
        self.region(backing, len).map()
    }

    /// By which way pages are put where they are missed.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// What it has.
    pub fn usage(&self) -> Usage {
        let budget = self.host.frames() as u64;
        let free = self.host.free_frames() as u64;
        Usage { budget, used: budget.saturating_sub(free), idle: self.host.idle() as u64, tables: self.host.tables() as u64 }
    }

    /// A recording of what regions do that are mapped from now on: room for the first `most` events, 48 bytes each. One for a pager: who asks again is given the same.
    pub fn trace(&self, most: usize) -> Trace {
        self.trace.get_or_init(|| Trace::new(most)).clone()
    }

    pub(crate) fn traced(&self) -> Option<&Trace> {
        self.trace.get()
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    pub(crate) fn poisons(&self) -> bool {
        self.poisons
    }

    pub(crate) fn workers(&self) -> &Arc<Workers> {
        &self.workers
    }
}

impl<L: Locking> fmt::Debug for Pager<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pager").field("engine", &self.engine).field("usage", &self.usage()).finish_non_exhaustive()
    }
}
