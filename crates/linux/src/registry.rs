//! Which region an address is of.
//!
//! **Guarantee.** Wait-free, without a lock, and in a signal handler. A region that was found is there as long as the [`Visit`], which may sleep.
//!
//! **Mechanism.** One tree of ranges for all pagers of the process (`spile-maple`), whose readers are sections that may sleep (`spile-rcu`'s SRCU): who takes a region away waits for
//! the visits that may have found it.

use crate::Failed;
use crate::host::lock;
use spile::{Access, Denied};
use spile_maple::{Heap, RangeTree, Span};
use spile_rcu::srcu::{Srcu, SrcuGuard};
use spile_rcu::{Rcu, RcuBox, qsbr};
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock};

/// What has faults.
pub trait Serve: Send + Sync {
    /// Makes an access to `at` possible. May sleep.
    fn serve(&self, at: u64, access: Access) -> Result<(), Denied>;

    /// Brings a page, by number.
    fn bring(&self, page: u64) -> Result<(), Failed>;

    /// It is not: what is done about the signal. Who ends the process instead does not return.
    fn failed(&self, at: u64, access: Access, why: Denied) -> Answer;
}

/// What is done about a signal whose access cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The access is repeated.
    Repeat,
    /// As if nobody had handled it.
    HandOn,
    /// The same, as of memory that is broken.
    Broken,
}

/// A region, in the tree.
pub struct Entry(pub Arc<dyn Serve>);

#[derive(Debug)]
struct Threads;

impl qsbr::Machine for Threads {
    fn cpu(&self) -> usize {
        crate::host::here()
    }

    fn relax(&self, _: u32) {
        std::thread::yield_now();
    }
}

type Visits = Srcu<Threads, { crate::host::LANES }>;

static VISITS: Visits = Srcu::new(Threads);
static REGIONS: OnceLock<RangeTree<RcuBox<Entry>, &'static Visits>> = OnceLock::new();
static CHANGES: Mutex<()> = Mutex::new(());

/// As long as this, regions that were found are there, and frames of theirs are not freed behind the back of who waits for their end.
#[must_use = "it ends when it is dropped"]
pub struct Visit(SrcuGuard<'static>);

impl Visit {
    /// Begins one. They nest.
    pub fn begin() -> Self {
        Self(VISITS.read())
    }

    /// The region of `at`.
    pub fn find(&self, at: u64) -> Option<&Entry> {
        REGIONS.get()?.get(&self.0, at).map(|(_, entry)| entry)
    }
}

fn span(range: &Range<u64>) -> Span {
    Span::new(range.start, range.end - 1).expect("a region is not empty")
}

/// From now on faults of `range` are served by `serve`. Whether there was memory for that.
pub fn add(range: &Range<u64>, serve: Arc<dyn Serve>) -> bool {
    let _changes = lock(&CHANGES);
    let regions = REGIONS.get_or_init(|| RangeTree::with(&VISITS, Heap));
    let mut writer = regions.try_write().expect("one changes at a time");
    let entry = [(span(range), Some(RcuBox::new(Entry(serve))))];
    writer.replace(span(range), entry).is_ok()
}

/// From now on they are nobody's.
pub fn remove(range: &Range<u64>) {
    let _changes = lock(&CHANGES);
    let regions = REGIONS.get().expect("it was added");
    let mut writer = regions.try_write().expect("one changes at a time");
    // It takes memory only where a node divides, which a removal does not need.
    while writer.replace(span(range), [(span(range), None)]).is_err() {
        std::thread::yield_now();
    }
}

/// Waits until all visits are over that have begun, and what was taken away is dropped. Not within one.
pub fn wait_for_visits() {
    VISITS.barrier();
}
