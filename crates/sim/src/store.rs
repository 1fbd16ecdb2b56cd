//! Files: contents in memory, and a device that takes its time.
//!
//! **Guarantee.** Each transfer that was started is completed once, by whoever lets the device go on: CPUs between operations and in
//! their sleep. What was written is durable after a sync that began when the write was over, and not before.
//!
//! **Mechanism.** A list of transfers with the number of ticks each still takes. Bytes as they are read, and as they were at the last sync. What a page contained is
//! taken in halves, when its write begins and when it ends: as of a device that is slower than programs.

use crate::Sim;
use crate::rng::Rng;
use spile::backing::File;
use spile::{FrameId, PAGE, Store, Transfer};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where the contents of one file come from. Cheap to clone; the clones are one.
#[derive(Clone, Default)]
pub struct Content(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    delay: u32,
    failing: BTreeSet<u64>,
    read_only: bool,
    /// One in so many transfers fails, by these choices.
    fails: Option<(u64, Rng)>,
    failed: u64,
    reads: u64,
    writes: u64,
    at_end: Option<Box<dyn FnOnce() + Send>>,
    after: Option<After>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(at_end) = self.at_end.take() {
            at_end();
        }
    }
}

/// What somebody does when a page was read.
type After = Arc<dyn Fn(u64) + Send + Sync>;

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.inner();
        write!(f, "{} bytes, {} ticks away, {} times read", inner.bytes.len(), inner.delay, inner.reads)
    }
}

impl Content {
    /// These bytes, and zeros after them.
    pub fn new(bytes: Vec<u8>) -> Self {
        let content = Self::default();
        content.inner().durable = bytes.clone();
        content.inner().bytes = bytes;
        content
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets transfers take this many ticks; with 0 they are done at once.
    pub fn set_delay(&self, ticks: u32) {
        self.inner().delay = ticks;
    }

    /// Lets transfers of `page` fail, or not.
    pub fn set_failing(&self, page: u64, fails: bool) {
        let failing = &mut self.inner().failing;
        if fails {
            failing.insert(page)
        } else {
            failing.remove(&page)
        };
    }

    /// Lets one in `n` transfers fail, by `seed`; none with `None`.
    pub fn fail_one_in(&self, n: Option<u64>, seed: u64) {
        self.inner().fails = n.map(|n| (n, Rng::new(seed)));
    }

    /// Lets it take no writes.
    pub fn set_read_only(&self) {
        self.inner().read_only = true;
    }

    /// What is there when all that was not synced is lost.
    pub fn durable(&self) -> Vec<u8> {
        self.inner().durable.clone()
    }

    /// Ends after `len` bytes, or begins to: what is added is zeros.
    pub fn resize(&self, len: usize) {
        self.inner().bytes.resize(len, 0);
    }

    /// Calls `at_end` when the last clone is dropped.
    pub fn at_end(&self, at_end: impl FnOnce() + Send + 'static) {
        self.inner().at_end = Some(Box::new(at_end));
    }

    /// Lets somebody do this whenever the device has completed a read, or failed to, of the page with that number: before whoever waited for
    /// it goes on.
    pub fn after_reads(&self, act: impl Fn(u64) + Send + Sync + 'static) {
        self.inner().after = Some(Arc::new(act));
    }

    /// How many reads were started.
    pub fn reads(&self) -> u64 {
        self.inner().reads
    }

    /// How many writes were started, and how many transfers failed.
    pub fn writes_and_failures(&self) -> (u64, u64) {
        let inner = self.inner();
        (inner.writes, inner.failed)
    }

    /// Whether a transfer of `page` fails.
    fn fails(&self, page: u64) -> bool {
        let mut inner = self.inner();
        let by_chance = inner.fails.as_mut().is_some_and(|(n, rng)| rng.one_in(*n));
        let fails = inner.failing.contains(&page) || by_chance;
        inner.failed += u64::from(fails);
        fails
    }

    /// The bytes of `page`, of a file of `len` bytes.
    fn page(&self, page: u64, len: u64) -> Vec<u8> {
        let inner = self.inner();
        let end = len.min(inner.bytes.len() as u64);
        let byte = |at: u64| if at < end { inner.bytes[at as usize] } else { 0 };
        (page * PAGE..(page + 1) * PAGE).map(byte).collect()
    }
}

impl Store<Sim> for Content {
    unsafe fn start_read(&self, file: &File<Sim>, page: u64, frame: FrameId) -> Transfer {
        self.inner().reads += 1;
        self.start(Moving { file: file.clone(), page, frame, written: None, fails: self.fails(page) })
    }

    unsafe fn start_write(&self, file: &File<Sim>, page: u64, frame: FrameId) -> Transfer {
        self.inner().writes += 1;
        let written = Some(file.platform().bytes(frame));
        self.start(Moving { file: file.clone(), page, frame, written, fails: self.fails(page) })
    }

    fn takes_writes(&self, _: &File<Sim>) -> bool {
        !self.inner().read_only
    }

    fn sync(&self, _: &File<Sim>) -> bool {
        let mut inner = self.inner();
        inner.durable = inner.bytes.clone();
        true
    }
}

impl Content {
    fn start(&self, transfer: Moving) -> Transfer {
        let delay = self.inner().delay;
        if delay > 0 {
            let sim = transfer.file.platform().clone();
            sim.device().add(delay, Box::new(move || transfer.complete()));
            return Transfer::Started;
        }
        if transfer.fails {
            return Transfer::Failed;
        }
        transfer.act();
        Transfer::Done
    }

    /// `bytes` are those of `page`, as far as they lie in a file of `len` bytes.
    fn write(&self, page: u64, bytes: &[u8], len: u64) {
        let mut inner = self.inner();
        let end = len.min((page + 1) * PAGE) as usize;
        let Some(part) = end.checked_sub((page * PAGE) as usize) else { return };
        if inner.bytes.len() < end {
            inner.bytes.resize(end, 0);
        }
        inner.bytes[end - part..end].copy_from_slice(&bytes[..part]);
    }
}

/// A transfer under way.
struct Moving {
    file: File<Sim>,
    page: u64,
    frame: FrameId,
    /// What the frame contained, if it is written.
    written: Option<Vec<u8>>,
    fails: bool,
}

impl Moving {
    fn complete(self) {
        if !self.fails {
            self.act();
        }
        // SAFETY: (1) it was started, (2) and is in the device's list no more; (3) it is over.
        unsafe { self.file.complete(self.page, !self.fails) };
        let after = self.content().inner().after.clone();
        if let Some(act) = after.filter(|_| self.written.is_none()) {
            act(self.page);
        }
    }

    fn content(&self) -> &Content {
        self.file.store().expect("what is moved comes from somewhere")
    }

    fn act(&self) {
        use spile::Frames as _;
        let sim = self.file.platform();
        let Some(before) = &self.written else {
            let bytes = self.content().page(self.page, self.file.len());
            // SAFETY: (1) the read is not yet completed.
            return unsafe { sim.write(self.frame, 0, &bytes) };
        };
        let half = PAGE as usize / 2;
        let bytes = [&before[..half], &sim.bytes(self.frame)[half..]].concat();
        self.content().write(self.page, &bytes, self.file.len());
    }
}

/// What is done when a transfer is over.
pub(crate) type Completion = Box<dyn FnOnce() + Send>;

/// A transfer under way.
struct Pending {
    ticks: u32,
    complete: Completion,
}

/// What reads files, and reads and writes swap slots.
#[derive(Default)]
pub(crate) struct Device(Mutex<Vec<Pending>>);

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} transfers under way", self.list().len())
    }
}

impl Device {
    fn list(&self) -> MutexGuard<'_, Vec<Pending>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A transfer begins that takes so many ticks.
    pub(crate) fn add(&self, ticks: u32, complete: Completion) {
        self.list().push(Pending { ticks, complete });
    }

    /// Some time passes. With nothing held.
    pub(crate) fn tick(&self) {
        let done: Vec<_> = {
            let mut list = self.list();
            list.iter_mut().for_each(|transfer| transfer.ticks -= 1);
            list.extract_if(.., |transfer| transfer.ticks == 0).collect()
        };
        done.into_iter().for_each(|transfer| (transfer.complete)());
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.list().is_empty()
    }
}
