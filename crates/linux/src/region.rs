//! A region: addresses whose pages come from a backing, and go back there.
//!
//! **Guarantee.** What a program wrote it reads again, however often the page has left memory in between. A page that its backing cannot give is no page of zeros: who touches it is told
//! as the region says ([`OnFailure`]). A page that could not be written back stays.
//!
//! **Mechanism.** One address space of the core's ([`Mm`]) with one mapping, of one file of the core's, whose store is the backing. Loads and stores come by the handler of SIGBUS; calls
//! that are made here ask the core first, so that no signal is needed.

use crate::backing::Backing;
use crate::host::{Contents, Errands, Host, Memory};
use crate::latency::Meter;
use crate::pager::Pager;
use crate::registry::{self, Serve, Visit};
use crate::status::Status;
use crate::watchdog::{Asked, Watchdog};
use crate::working_set::WorkingSet;
use crate::{PAGE, report, runs};
use bytemuck::{AnyBitPattern, NoUninit};
use spile::backing::File;
use spile::{Access, Attr, Denied, Flags, Layout, Locking, Mm, Place, Prot, VmaRefcount};
use spile_rcu::Global;
use spile_sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// What becomes of a thread that touches a page which cannot be had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// It gets the SIGBUS that it would have got without a pager, as for a mapped file that cannot be read: who handled that before has it, and if nobody did the process ends.
    #[default]
    Signal,
    /// The process ends, with a line that says why.
    Abort,
}

/// How a region is to be.
#[must_use = "it is not mapped yet"]
pub struct RegionBuilder<'p, B: Backing, L: Locking = VmaRefcount> {
    pager: &'p Pager<L>,
    backing: B,
    len: u64,
    budget: Option<u64>,
    window: u32,
    is_writable: bool,
    on_failure: OnFailure,
}

/// There is no region.
#[derive(Debug)]
pub enum NoRegion {
    /// It would have no bytes, or more than addresses tell apart.
    Length(u64),
    /// A window that is no power of two, or of more than [`RegionBuilder::MOST_AROUND`] pages.
    Window(u32),
    /// A budget of less than [`RegionBuilder::LEAST`] bytes.
    Budget(u64),
    /// The kernel refused something that it needs.
    Kernel(&'static str, io::Error),
    /// The pager has no memory for its tables.
    NoMemory,
}

impl fmt::Display for NoRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(len) => write!(f, "a region of {len} bytes: it takes 1 at least, and {MOST} at most"),
            Self::Window(pages) => write!(f, "a window of {pages} pages: it takes a power of two, {MOST_AROUND} at most"),
            Self::Budget(bytes) => write!(f, "a budget of {bytes} bytes: a region takes {LEAST} at least"),
            Self::Kernel(what, error) => write!(f, "cannot {what}: {error}"),
            Self::NoMemory => f.write_str("the pager has no memory for the region's tables"),
        }
    }
}

impl std::error::Error for NoRegion {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Kernel(_, error) => Some(error),
            _ => None,
        }
    }
}

/// An access that cannot be had.
#[derive(Debug)]
pub struct Failed {
    /// Which byte of the region.
    pub at: u64,
    /// Why not, as the core says it.
    pub why: Denied,
    /// The backing's last error, if that is why.
    pub error: Option<io::Error>,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.why {
            Denied::Unmapped => "is not of the region",
            Denied::Protected => "may not be written",
            Denied::Bus => "cannot be had from the backing",
            Denied::NoMemory => "finds no memory: what is there cannot leave",
        };
        write!(f, "byte {} {why}", self.at)?;
        self.error.as_ref().map_or(Ok(()), |error| write!(f, ": {error}"))
    }
}

impl std::error::Error for Failed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.as_ref().map(|error| error as _)
    }
}

/// Not all of a region is durable; what could not be written is in memory still, and can be flushed again.
#[derive(Debug)]
pub struct Unwritten(pub Option<io::Error>);

impl fmt::Display for Unwritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        spile::backing::Unwritten.fmt(f)?;
        self.0.as_ref().map_or(Ok(()), |error| write!(f, ": {error}"))
    }
}

impl std::error::Error for Unwritten {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.as_ref().map(|error| error as _)
    }
}

const LEAST: u64 = 8 * PAGE;
const MOST: u64 = 1 << 46;
const MOST_AROUND: u32 = 16;

impl<'p, B: Backing, L: Locking> RegionBuilder<'p, B, L> {
    /// The least budget, in bytes.
    pub const LEAST: u64 = LEAST;
    /// How many pages are brought by one fault, at most.
    pub const MOST_AROUND: u32 = MOST_AROUND;

    pub(crate) fn new(pager: &'p Pager<L>, backing: B, len: u64) -> Self {
        let is_writable = backing.takes_writes();
        Self { pager, backing, len, budget: None, window: MOST_AROUND, is_writable, on_failure: OnFailure::default() }
    }

    /// How many bytes it may show, of the pager's budget. All, unless said.
    pub fn budget(self, bytes: u64) -> Self {
        Self { budget: Some(bytes), ..self }
    }

    /// How many pages a fault brings, around the one that is missed: a power of two. 16, unless said; 1 where accesses are random.
    pub fn around(self, pages: u32) -> Self {
        Self { window: pages, ..self }
    }

    /// Whether it may be written. If its backing takes writes, unless said. What is written and cannot be written back stays in memory.
    pub fn writable(self, is_writable: bool) -> Self {
        Self { is_writable, ..self }
    }

    /// What becomes of a thread that touches a page which cannot be had.
    pub fn on_failure(self, on_failure: OnFailure) -> Self {
        Self { on_failure, ..self }
    }

    /// Maps it.
    ///
    /// # Errors
    ///
    /// [`NoRegion`].
    pub fn map(self) -> Result<Region<B, L>, NoRegion> {
        if !(1..=MOST).contains(&self.len) {
            return Err(NoRegion::Length(self.len));
        }
        if !self.window.is_power_of_two() || self.window > MOST_AROUND {
            return Err(NoRegion::Window(self.window));
        }
        if let Some(bytes) = self.budget.filter(|bytes| *bytes < LEAST) {
            return Err(NoRegion::Budget(bytes));
        }
        let host = self.pager.host().clone();
        let memory = Memory::new(self.len.next_multiple_of(PAGE)).map_err(|error| NoRegion::Kernel("map the region", error))?;
        let register = |stopped: crate::Stopped| NoRegion::Kernel("register the region with the userfaultfd", stopped.error());
        // SAFETY: (1) nobody uses it yet, and who will has its faults handled.
        unsafe { host.uffd().register(memory.at(0), memory.len()) }.map_err(register)?;
        let backing = Arc::new(self.backing);
        let contents = Contents::new(backing.clone());
        let _visit = Visit::begin();
        let file = File::new(host.clone(), contents, self.len).ok_or(NoRegion::NoMemory)?;
        file.set_readahead(self.window);
        let range = spile::Range::with_len(memory.at(0), memory.len()).expect("whole pages");
        let mm = Mm::new(host, Layout { all: range, base: range.end(), stack_gap: 0 }).map_err(|_| NoRegion::NoMemory)?;
        let attr = |_| Attr {
            prot: if self.is_writable { Prot::RW } else { Prot::R },
            flags: Flags::SHARED
                .with(Flags::when(self.is_writable, Flags::MAY_WRITE))
                .with(Flags::when(self.window == 1, Flags::RANDOM)),
            backing: spile::Backing::File(file.clone(), 0),
            name: None,
        };
        mm.map(Place::At(range), attr).map_err(|_| NoRegion::NoMemory)?;
        if let Some(bytes) = self.budget {
            mm.set_limit(Some(bytes / PAGE));
        }
        let served = Arc::new(Served { mm, file, on_failure: self.on_failure, start: memory.at(0), faults: Meter::default() });
        let region = Region {
            served: ManuallyDrop::new(served),
            backing,
            memory,
            len: self.len,
            is_writable: self.is_writable,
            is_known: false,
        };
        region.publish()
    }
}

/// What the handler has of a region.
struct Served<L: Locking> {
    mm: Mm<Host, L>,
    file: File<Host>,
    on_failure: OnFailure,
    start: u64,
    /// Signals.
    faults: Meter,
}

impl<L: Locking> Served<L> {
    fn contents(&self) -> &Contents {
        self.file.store().expect("it was made with one")
    }

    fn fault(&self, at: u64, access: Access) -> Result<(), Denied> {
        self.mm.platform().balance();
        Errands::during(|| self.mm.fault_and_wait(at, access)).map(drop)
    }
}

impl<L: Locking> Serve for Served<L> {
    fn serve(&self, at: u64, access: Access) -> Result<(), Denied> {
        self.faults.time(|| self.fault(at, access))
    }

    fn failed(&self, at: u64, access: Access, why: Denied) {
        if self.on_failure == OnFailure::Abort {
            let failed = Failed { at: at - self.start, why, error: self.contents().take_error() };
            report::abort(format_args!("a {access:?} at {at:#x} failed: {failed}"));
        }
    }
}

/// Addresses whose pages come from a `B`, and go back there.
///
/// When it is dropped, what was written is written back, and errors of that are lost: [`flush`](Self::flush) first. That waits for all faults that are under way, of any region of the
/// process, and so for what backings wait for: drop it with no lock held that one takes, and not within a backing. In a child that a fork made nothing is done.
pub struct Region<B: Backing, L: Locking = VmaRefcount> {
    served: ManuallyDrop<Arc<Served<L>>>,
    backing: Arc<B>,
    memory: Memory,
    len: u64,
    is_writable: bool,
    /// Whether the handler knows it.
    is_known: bool,
}

impl<B: Backing, L: Locking> Region<B, L> {
    /// Lets the handler know it.
    fn publish(mut self) -> Result<Self, NoRegion> {
        self.is_known = registry::add(&self.addresses(), Arc::clone(&self.served) as Arc<dyn Serve>);
        if self.is_known { Ok(self) } else { Err(NoRegion::NoMemory) }
    }

    fn addresses(&self) -> Range<u64> {
        self.memory.at(0)..self.memory.at(0) + self.memory.len()
    }

    fn pages(&self) -> Range<u64> {
        0..self.len.div_ceil(PAGE)
    }

    /// The pages of some bytes.
    fn pages_of(&self, bytes: &Range<u64>) -> Range<u64> {
        bytes.start / PAGE..bytes.end.min(self.len).div_ceil(PAGE).max(bytes.start / PAGE)
    }

    fn failed(&self, at: u64, why: Denied) -> Failed {
        let error = if why == Denied::Bus { self.served.contents().take_error() } else { None };
        Failed { at, why, error }
    }

    /// Its backing.
    pub fn backing(&self) -> &B {
        &self.backing
    }

    /// Its length in bytes.
    #[allow(clippy::len_without_is_empty, reason = "none is empty")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Where it begins. Whoever uses it sees to it that no two threads write the same place, as ever.
    pub fn as_ptr(&self) -> *mut u8 {
        self.memory.at(0) as *mut u8
    }

    /// Its bytes, as so many `T` as they are. What is not in memory is brought when it is touched. Nobody writes them meanwhile: that takes the region alone, and a page that has left
    /// comes back with the same bytes, as the backing has promised.
    pub fn as_slice<T: AnyBitPattern>(&self) -> &[T] {
        self.memory.slice(self.len)
    }

    /// The same, to be written.
    ///
    /// # Panics
    ///
    /// If the region is not writable.
    pub fn as_mut_slice<T: AnyBitPattern + NoUninit>(&mut self) -> &mut [T] {
        assert!(self.is_writable, "the region was mapped to be read: say writable(true), or have a backing that takes writes");
        self.memory.slice_mut(self.len)
    }

    /// Copies from byte `at` on, without a signal: for code that may not take one, and to hear of errors.
    ///
    /// # Errors
    ///
    /// [`Failed`]: what lies before is copied.
    pub fn read_at(&self, at: u64, bytes: &mut [u8]) -> Result<(), Failed> {
        self.within(at, bytes.len())?;
        let mut page = [0; PAGE as usize];
        let mut from = at;
        for part in bytes.chunks_mut(PAGE as usize) {
            // Not straight into `part`, which may be of a region and fault, while the core has a hold on the page.
            let page = &mut page[..part.len()];
            let read = self.visit(|| self.served.mm.read_user(self.memory.at(0) + from, page));
            let copied = read.map_or_else(|partial| partial.copied, |()| part.len());
            part[..copied].copy_from_slice(&page[..copied]);
            from += copied as u64;
            read.map_err(|partial| self.failed(from, partial.why))?;
        }
        Ok(())
    }

    /// The same, of a write.
    ///
    /// # Errors
    ///
    /// [`Failed`]: what lies before is written.
    pub fn write_at(&mut self, at: u64, bytes: &[u8]) -> Result<(), Failed> {
        self.within(at, bytes.len())?;
        let mut page = [0; PAGE as usize];
        let mut to = at;
        for part in bytes.chunks(PAGE as usize) {
            // As in `read_at`: the core writes under the lock of a table.
            let page = &mut page[..part.len()];
            page.copy_from_slice(part);
            self.visit(|| self.served.mm.write_user(self.memory.at(0) + to, page))
                .map_err(|partial| self.failed(to + partial.copied as u64, partial.why))?;
            to += part.len() as u64;
        }
        Ok(())
    }

    /// Has the core do something that may begin reads.
    fn visit<T>(&self, copy: impl FnOnce() -> T) -> T {
        let _visit = Visit::begin();
        Errands::during(copy)
    }

    fn within(&self, at: u64, len: usize) -> Result<(), Failed> {
        let is_within = at <= self.len && len as u64 <= self.len - at;
        if is_within { Ok(()) } else { Err(self.failed(self.len.max(at), Denied::Unmapped)) }
    }

    /// Brings what is missing of `bytes`, so that no access there has to wait, for now: before it is handed to code that may not take a signal. More than the budget it does not hold.
    ///
    /// # Errors
    ///
    /// [`Failed`]: what lies before is there.
    pub fn prefetch(&self, bytes: Range<u64>) -> Result<(), Failed> {
        let _visit = Visit::begin();
        for page in self.pages_of(&bytes) {
            self.served.fault(self.memory.at(page), Access::Read).map_err(|why| self.failed(page * PAGE, why))?;
        }
        Ok(())
    }

    /// Writes back what was written, and waits until the backing says that it is durable.
    ///
    /// # Errors
    ///
    /// [`Unwritten`].
    pub fn flush(&self) -> Result<(), Unwritten> {
        let _visit = Visit::begin();
        self.flush_pages(self.pages())
    }

    fn flush_pages(&self, pages: Range<u64>) -> Result<(), Unwritten> {
        self.served.file.flush(pages).map_err(|_| Unwritten(self.served.contents().take_error()))
    }

    /// Lets the pages of `bytes` leave memory, if nobody has them; what was written is written back first. What could not be stays.
    pub fn evict(&self, bytes: Range<u64>) {
        let _visit = Visit::begin();
        self.served.file.send_out(self.pages_of(&bytes));
    }

    /// From now on it may show so many bytes, of the pager's budget; what is too much leaves.
    ///
    /// # Errors
    ///
    /// [`NoRegion::Budget`].
    pub fn set_budget(&self, bytes: Option<u64>) -> Result<(), NoRegion> {
        if let Some(bytes) = bytes.filter(|bytes| *bytes < LEAST) {
            return Err(NoRegion::Budget(bytes));
        }
        let _visit = Visit::begin();
        self.served.mm.set_limit(bytes.map(|bytes| bytes / PAGE));
        Ok(())
    }

    /// What is in `bytes` is not wanted any more, whole pages of it: it is taken out of memory, without being written, and the backing is told. What is read there next is what the
    /// backing says. Waits for all faults that are under way, as the end of a region does.
    pub fn discard(&mut self, bytes: Range<u64>) {
        let pages = bytes.start.div_ceil(PAGE)..if bytes.end >= self.len { self.pages().end } else { bytes.end / PAGE };
        if !pages.is_empty() {
            self.take_out(pages.clone());
            self.served.contents().discard(pages);
        }
    }

    /// Whether the pages of `bytes` may be written, from now on.
    ///
    /// # Errors
    ///
    /// The core's: it was mapped to be read, or what is there was unmapped, or there is no memory for another mapping.
    pub fn protect(&mut self, bytes: Range<u64>, is_writable: bool) -> Result<(), spile::Error> {
        let _visit = Visit::begin();
        let prot = if is_writable { Prot::RW } else { Prot::R };
        self.served.mm.protect(self.range_of(&bytes)?, prot)
    }

    /// Takes the pages of `bytes` away: what was written is written back first, and who touches them is [told](OnFailure). Waits for all faults that are under way, as the end of a region does.
    ///
    /// # Errors
    ///
    /// [`Unwritten`]: nothing was unmapped.
    pub fn unmap(&mut self, bytes: Range<u64>) -> Result<(), Unwritten> {
        let pages = self.pages_of(&bytes);
        let Ok(range) = self.range_of(&bytes) else { return Ok(()) };
        {
            let _visit = Visit::begin();
            self.flush_pages(pages.clone())?;
            self.served.mm.unmap(range).map_err(|_| Unwritten(Some(io::ErrorKind::OutOfMemory.into())))?;
        }
        self.take_out(pages);
        Ok(())
    }

    /// Nothing of `pages` stays in memory, and none is shown, also of what an evictor has left.
    fn take_out(&self, pages: Range<u64>) {
        let at = self.memory.at(pages.start)..self.memory.at(pages.end);
        {
            let _visit = Visit::begin();
            self.served.file.invalidate(pages);
        }
        // Evictors may have a frame of it, which they give back.
        registry::wait_for_visits();
        self.served.mm.platform().forget(&at);
    }

    fn range_of(&self, bytes: &Range<u64>) -> Result<spile::Range, spile::BadRange> {
        let pages = self.pages_of(bytes);
        spile::Range::with_len(self.memory.at(0) + pages.start * PAGE, (pages.end - pages.start) * PAGE)
    }

    /// From now on it is noted which pages are brought, and in which order: the next `most`. Once.
    pub fn record(&self, most: usize) {
        self.served.contents().record(most);
    }

    /// Those that were, since [`record`](Self::record).
    pub fn recorded(&self) -> WorkingSet {
        self.served.contents().recorded()
    }

    /// Brings pages in this order, as far as they are of the region: what [`recorded`](Self::recorded) gave, another time. As [`prefetch`](Self::prefetch), of each.
    ///
    /// # Errors
    ///
    /// [`Failed`]: those before it are there.
    pub fn replay(&self, set: &WorkingSet) -> Result<(), Failed> {
        let pages = set.pages().iter().filter(|page| self.pages().contains(page));
        pages.map(|page| page * PAGE).try_for_each(|at| self.prefetch(at..at + 1))
    }

    /// Which pages are in memory, as bytes. A moment's truth, as all that follows.
    pub fn resident(&self) -> Vec<Range<u64>> {
        self.pages_that(|_| true)
    }

    /// Which differ from what the backing has: since they were written back, or brought.
    pub fn dirty(&self) -> Vec<Range<u64>> {
        self.pages_that(|is_dirty| is_dirty)
    }

    fn pages_that(&self, are: impl Fn(bool) -> bool) -> Vec<Range<u64>> {
        let mut found = Vec::new();
        self.served.file.each_page(self.pages(), |page, is_dirty| {
            if are(is_dirty) {
                runs::add(&mut found, page * PAGE..((page + 1) * PAGE).min(self.len));
            }
        });
        found
    }

    /// Tells `tell`, from a thread of its own, of a call of the backing that lasts longer than `limit`: once, while it lasts. Until what it gives is dropped.
    ///
    /// # Errors
    ///
    /// There is no thread for it.
    pub fn watch(&self, limit: Duration, tell: impl Fn(Asked, Duration) + Send + 'static) -> io::Result<Watchdog> {
        Watchdog::of(self.served.contents().calls().clone(), limit, tell)
    }

    /// How it is, and what it has done.
    pub fn status(&self) -> Status {
        let done = self.served.contents().done();
        let load = |number: &AtomicU64| number.load(Relaxed);
        Status {
            at: self.addresses(),
            is_writable: self.is_writable,
            len: self.len,
            limit: self.served.mm.limit().map(|pages| pages * PAGE),
            shown: self.served.mm.resident_pages() * PAGE,
            resident: self.served.file.cached_pages() * PAGE,
            dirty: self.served.file.dirty_pages() * PAGE,
            filled: load(&done.filled) * PAGE,
            written: load(&done.written) * PAGE,
            failed: load(&done.failed),
            faults: self.served.faults.read(),
            fills: done.fills.read(),
            writes: done.writes.read(),
            asked: self.served.contents().calls().longest(),
        }
    }
}

impl<B: Backing, L: Locking> Drop for Region<B, L> {
    fn drop(&mut self) {
        // A child that a fork made has no such addresses, and what it has of the pager's is a copy: the descriptor is the parent's.
        if !self.memory.is_here() {
            return;
        }
        if self.is_known {
            // Its errors are lost, as it says.
            _ = self.flush();
            registry::remove(&self.addresses());
        }
        {
            let _visit = Visit::begin();
            let range = self.range_of(&(0..self.len)).expect("it has bytes");
            while self.served.mm.unmap(range).is_err() {
                std::thread::yield_now();
            }
        }
        self.take_out(self.pages());
        // SAFETY: (1) once, here, and not used after.
        drop(unsafe { ManuallyDrop::take(&mut self.served) });
        // What waits for readers that are gone: with it the backing goes.
        Global.barrier();
    }
}

impl<B: Backing, L: Locking> fmt::Debug for Region<B, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses = self.addresses();
        write!(f, "region {:#x}-{:#x}", addresses.start, addresses.end)
    }
}
