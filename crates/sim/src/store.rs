//! Files: contents in memory, and a device that takes its time.
//!
//! **Guarantee.** Each transfer that was started is completed once, by whoever lets the device go on: CPUs between operations and in
//! their sleep.
//!
//! **Mechanism.** A list of transfers with the number of ticks each still takes.

use crate::Sim;
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
    delay: u32,
    failing: BTreeSet<u64>,
    reads: u64,
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
        content.inner().bytes = bytes;
        content
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets reads take this many ticks; with 0 they are done at once.
    pub fn set_delay(&self, ticks: u32) {
        self.inner().delay = ticks;
    }

    /// Lets reads of `page` fail, or not.
    pub fn set_failing(&self, page: u64, fails: bool) {
        let failing = &mut self.inner().failing;
        if fails {
            failing.insert(page)
        } else {
            failing.remove(&page)
        };
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
        let (fails, delay) = {
            let mut inner = self.inner();
            inner.reads += 1;
            (inner.failing.contains(&page), inner.delay)
        };
        let read = Reading { file: file.clone(), page, frame, fails };
        if delay > 0 {
            file.platform().device().add(delay, Box::new(move || read.complete()));
            return Transfer::Started;
        }
        if !fails {
            read.fill();
        }
        if fails { Transfer::Failed } else { Transfer::Done }
    }
}

/// A read under way.
struct Reading {
    file: File<Sim>,
    page: u64,
    frame: FrameId,
    fails: bool,
}

impl Reading {
    fn complete(self) {
        if !self.fails {
            self.fill();
        }
        // SAFETY: (1) it was started, (2) and is in the device's list no more; (3) it was filled.
        unsafe { self.file.complete(self.page, !self.fails) };
        let after = self.content().inner().after.clone();
        if let Some(act) = after {
            act(self.page);
        }
    }

    fn content(&self) -> &Content {
        self.file.store().expect("what is read comes from somewhere")
    }

    fn fill(&self) {
        use spile::Frames as _;
        let bytes = self.content().page(self.page, self.file.len());
        // SAFETY: (1) the read is not yet completed.
        unsafe { self.file.platform().write(self.frame, 0, &bytes) };
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
