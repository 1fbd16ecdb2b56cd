//! Pages that are brought beside who wants them.
//!
//! **Guarantee.** Who awaits it blocks no thread, whatever runs him. When it is over all were brought, or it says the first that was not; what is dropped begins no more reads.
//!
//! **Mechanism.** A future whose parts, each a window of pages, the pager's [workers](Workers) bring: several reads are under way at once. Who has done the last part wakes who waits.

use super::build::MOST_AROUND;
use super::{Failed, Region, Served};
use crate::PAGE;
use crate::backing::Backing;
use crate::host::lock;
use crate::registry::{Entry, Serve, Visit};
use crate::workers::{Job, Workers};
use spile::{Denied, Locking};
use spile_sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};

/// How many pages are a part: what the core brings by one read, at most.
const PART: u64 = MOST_AROUND as u64;

/// How far it is.
struct Progress {
    /// Parts that are not over.
    left: u64,
    /// The first page that could not be brought.
    failed: Option<Failed>,
    waker: Option<Waker>,
}

struct Bringing {
    /// Which region. It may be gone.
    of: Weak<dyn Serve>,
    at: u64,
    pages: Range<u64>,
    /// The first page of the next part.
    next: AtomicU64,
    is_cancelled: AtomicBool,
    progress: Mutex<Progress>,
}

impl Bringing {
    fn bring(&self, first: u64) -> Result<(), Failed> {
        // A region that is about to end waits for this; one that ends is not found, nor is another in its place.
        let visit = Visit::begin();
        let is_it = |entry: &&Entry| std::ptr::addr_eq(Arc::as_ptr(&entry.0), self.of.as_ptr());
        let Some(Entry(region)) = visit.find(self.at).filter(is_it) else {
            return Err(Failed { at: first * PAGE, why: Denied::Unmapped, error: None });
        };
        let end = (first / PART + 1) * PART;
        (first..end.min(self.pages.end)).try_for_each(|page| match self.is_cancelled() {
            true => Ok(()),
            false => region.bring(page),
        })
    }

    fn is_cancelled(&self) -> bool {
        // Relaxed: a hint.
        self.is_cancelled.load(Ordering::Relaxed)
    }

    /// A part is over.
    fn ends(&self, came: Result<(), Failed>) {
        let mut progress = lock(&self.progress);
        progress.left -= 1;
        if let Err(failed) = came
            && progress.failed.as_ref().is_none_or(|before| failed.at < before.at)
        {
            progress.failed = Some(failed);
        }
        let waker = if progress.left == 0 { progress.waker.take() } else { None };
        drop(progress);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Job for Bringing {
    fn take(&self) -> Option<u64> {
        let after = |first: u64| (first < self.pages.end && !self.is_cancelled()).then_some((first / PART + 1) * PART);
        self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after).ok()
    }

    fn run(&self, first: u64) {
        self.ends(self.bring(first));
    }
}

/// Pages of a region that are being brought. It says the first that could not be, when all of them were tried. When it is dropped no more reads are begun; those under way go on.
#[must_use = "nothing more is brought when it is dropped"]
pub struct Prefetch(Arc<Bringing>);

impl Future for Prefetch {
    type Output = Result<(), Failed>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // Made, and the one before dropped, with nothing locked: both are others' code.
        let mut waker = Some(context.waker().clone());
        let mut progress = lock(&self.0.progress);
        if progress.left == 0 {
            return Poll::Ready(progress.failed.take().map_or(Ok(()), Err));
        }
        std::mem::swap(&mut progress.waker, &mut waker);
        Poll::Pending
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        self.0.is_cancelled.store(true, Ordering::Relaxed);
        // Nobody waits any more; it goes here, not when a worker comes by.
        let waker = lock(&self.0.progress).waker.take();
        drop(waker);
    }
}

impl fmt::Debug for Prefetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prefetch").field("pages", &self.0.pages).field("left", &lock(&self.0.progress).left).finish()
    }
}

/// Has them brought: by workers, or if there are none by who asks.
fn begin(workers: &Workers, bringing: Bringing) -> Prefetch {
    let bringing = Arc::new(bringing);
    if lock(&bringing.progress).left > 0 && workers.submit(bringing.clone()).is_err() {
        while let Some(first) = bringing.take() {
            bringing.run(first);
        }
    }
    Prefetch(bringing)
}

impl<B: Backing, L: Locking> Region<B, L> {
    /// As [`prefetch`](Self::prefetch), by [other threads](crate::Builder::workers), several reads at once: begins, and gives what can be awaited, in any executor, or
    /// dropped when it is not wanted any more. It keeps nothing: the region may end meanwhile, which is a failure then ([`Denied::Unmapped`]).
    ///
    /// Does not sleep; it starts threads the first time, and where the process may have none it brings the pages itself.
    ///
    /// # Errors
    ///
    /// What it gives says [`Failed`]: of all pages that could not be brought, the first. Others may be there, on both sides.
    pub fn prefetch_async(&self, bytes: Range<u64>) -> Prefetch {
        let pages = self.pages_of(&bytes);
        // A child that a fork made has neither the region nor the threads.
        let failed = (!self.memory.is_here()).then_some(Failed { at: bytes.start, why: Denied::Unmapped, error: None });
        let parts = if pages.is_empty() || failed.is_some() { 0 } else { pages.end.div_ceil(PART) - pages.start / PART };
        let served: Weak<Served<L>> = Arc::downgrade(&self.served);
        let bringing = Bringing {
            of: served,
            at: self.memory.at(0),
            next: AtomicU64::new(pages.start),
            pages,
            is_cancelled: AtomicBool::new(false),
            progress: Mutex::new(Progress { left: parts, failed, waker: None }),
        };
        begin(&self.workers, bringing)
    }
}
