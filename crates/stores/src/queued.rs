//! A store that answers later, by threads of its own.
//!
//! **Guarantee.** Who begins a transfer waits for nothing but a lock that is held for a few steps, unless it is a read and as many are waiting as there is room for. Each
//! transfer that was begun ends once, also when the store panics: then it has failed. When the store is dropped all that was begun is over.
//!
//! **Mechanism.** Two lines under one lock, made when the store is. Workers take from the line of reads first, for programs wait for them; but not for ever: pages that are in the
//! store already leave and come back without a write, so reads may come without end, and programs wait for writes too. After [`READS_IN_A_ROW`] reads one write is made.
//!
//! Where the line of writes is full a write is refused: its page stays in memory and is offered again, and whoever wants a frame waits for those writes that are under
//! way. A read cannot be refused, for its program would be told that the page is lost: who begins it does it.
//!
//! Nothing here orders a `discard` with transfers of the same slot, and nothing has to: as long as one is under way the core's word for the slot says so
//! (`READING`, `WRITING`), and it frees no slot whose word does. So it discards from within the completion, or later; and it begins the next transfer of a slot
//! when the last was completed.

use crate::pages::{Doing, Pages, answer, transfer};
use spile::backing::SwapStore;
use spile::reclaim::Pressed;
use spile::{FrameId, Platform, Slot, Transfer};
use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::mem;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, panicking};

/// So many reads are made before a write that waits.
const READS_IN_A_ROW: usize = 16;

/// A store whose transfers are made by threads of its own, so that a fault whose page is read can wait without what it holds, and pages are written beside each
/// other.
///
/// A transfer that is under way keeps a clone of its host. So a host that has this store goes when its last transfer is over, at the earliest: in a
/// worker, if nobody else has it any more; then the wrapped store goes when that worker ends. After a fork of the process the child has the store and no workers: it must
/// not use it, nor drop it.
pub struct Queued<P, S> {
    desk: Arc<Desk<P, S>>,
    workers: Vec<JoinHandle<()>>,
}

/// What a [`Queued`] store has to do, and what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    /// Transfers that wait, or are being made by workers.
    pub under_way: usize,
    /// Writes that were refused so far, because as many waited as there is room for.
    pub refused: u64,
    /// Reads that were made by who began them so far, for the same reason.
    pub at_once: u64,
    /// Transfers so far that failed because the store panicked.
    pub panics: u64,
}

/// A transfer that is over.
#[derive(Debug)]
pub struct Over<'p, P> {
    /// Whose it is.
    pub host: &'p P,
    /// The slot.
    pub slot: Slot,
    /// Whether it succeeded.
    pub ok: bool,
    /// Who made it: workers are numbered from 0.
    pub worker: usize,
}

/// Tells whoever has begun it.
type Complete<P> = Box<dyn Fn(Over<'_, P>) + Send + Sync>;

/// What workers and those who give them work have in common.
struct Desk<P, S> {
    store: S,
    complete: Complete<P>,
    /// How many transfers may wait in each line.
    places: usize,
    lines: Mutex<Lines<P>>,
    /// There is something to do; or never will be.
    work: Condvar,
    /// Nothing is under way.
    idle: Condvar,
}

struct Lines<P> {
    reads: VecDeque<Job<P>>,
    /// How many of them were taken since a write was.
    in_a_row: usize,
    writes: VecDeque<Job<P>>,
    /// Nothing comes any more.
    is_closed: bool,
    queue: Queue,
    /// The first panic of a completion.
    panic: Option<Box<dyn Any + Send>>,
}

struct Job<P> {
    host: P,
    doing: Doing,
    slot: Slot,
    frame: FrameId,
}

impl<P: Pressed, S: Pages> Queued<P, S> {
    /// With so many threads, and room for so many reads, and as many writes, to wait for one.
    ///
    /// # Errors
    ///
    /// There are no more threads.
    ///
    /// # Panics
    ///
    /// Without a thread, or without room.
    pub fn new(store: S, workers: usize, places: usize) -> io::Result<Self> {
        Self::telling(store, workers, places, |Over { host, slot, ok, .. }| {
            // SAFETY: (1) begun, and this is called once for each; (2) it is over; (3) the host by which it was begun.
            unsafe { host.reclaimer().complete(host, slot, ok) };
        })
    }
}

impl<P: Platform, S: Pages> Queued<P, S> {
    /// As [`new`](Self::new), for a host that has something between its [`Reclaimer`](spile::reclaim::Reclaimer) and this, or to do before a thread may tell it: for
    /// each transfer that was begun and not answered at once a worker calls `complete` once, when it is over, with nothing held.
    ///
    /// If `complete` panics the worker goes on, and the drop of the store panics with that, unless a worker drops it.
    ///
    /// # Errors
    ///
    /// There are no more threads.
    ///
    /// # Panics
    ///
    /// Without a thread, or without room.
    pub fn telling(
        store: S,
        workers: usize,
        places: usize,
        complete: impl Fn(Over<'_, P>) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        assert!(workers > 0 && places > 0, "somebody has to do it, and it has to wait somewhere");
        // There from the beginning: a fault that puts something there allocates nothing.
        let line = || VecDeque::with_capacity(places);
        let lines = Lines { reads: line(), writes: line(), in_a_row: 0, is_closed: false, queue: Queue::default(), panic: None };
        let (lines, complete) = (Mutex::new(lines), Box::new(complete));
        let desk = Arc::new(Desk { store, complete, places, lines, work: Condvar::new(), idle: Condvar::new() });
        let mut queued = Self { desk, workers: Vec::new() };
        for worker in 0..workers {
            let desk = Arc::clone(&queued.desk);
            let thread = thread::Builder::new().name(format!("spile-store-{worker}"));
            queued.workers.push(thread.spawn(move || desk.work(worker))?);
        }
        Ok(queued)
    }

    fn begin(&self, host: &P, doing: Doing, slot: Slot, frame: FrameId) -> Transfer {
        let Err(job) = self.desk.put(Job { host: host.clone(), doing, slot, frame }) else { return Transfer::Started };
        match doing {
            Doing::Writing => Transfer::Failed,
            Doing::Reading => answer(self.desk.make(&job)),
        }
    }
}

impl<P, S> Queued<P, S> {
    /// What there is to do, at one moment, and what became of the rest.
    pub fn queue(&self) -> Queue {
        self.desk.lines().queue
    }

    /// Until nothing is under way. With nothing held; not by a worker.
    pub fn wait_until_idle(&self) {
        let idle = self.desk.idle.wait_while(self.desk.lines(), |lines| lines.queue.under_way > 0);
        drop(idle.unwrap_or_else(PoisonError::into_inner));
    }
}

impl<P> Lines<P> {
    /// The next that waits, if one does.
    fn take(&mut self) -> Option<Job<P>> {
        let write_first = self.in_a_row >= READS_IN_A_ROW && !self.writes.is_empty();
        let read = if write_first { None } else { self.reads.pop_front() };
        self.in_a_row = if read.is_some() { self.in_a_row + 1 } else { 0 };
        read.or_else(|| self.writes.pop_front())
    }
}

impl<P, S> Desk<P, S> {
    fn lines(&self) -> MutexGuard<'_, Lines<P>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next transfer to make; none if there will be none.
    fn next(&self) -> Option<Job<P>> {
        let mut lines = self.lines();
        loop {
            let job = lines.take();
            if job.is_some() || lines.is_closed {
                return job;
            }
            lines = self.work.wait(lines).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Puts it into its line. If that is full, the job is given back, and counted as what becomes of it.
    fn put(&self, job: Job<P>) -> Result<(), Job<P>> {
        {
            let mut lines = self.lines();
            let Lines { reads, writes, queue, .. } = &mut *lines;
            let (line, beyond) = match job.doing {
                Doing::Reading => (reads, &mut queue.at_once),
                Doing::Writing => (writes, &mut queue.refused),
            };
            if line.len() == self.places {
                *beyond += 1;
                return Err(job);
            }
            line.push_back(job);
            queue.under_way += 1;
        }
        self.work.notify_one();
        Ok(())
    }

    /// A transfer is over, and nobody has anything of it.
    fn is_over(&self, panic: Option<Box<dyn Any + Send>>) {
        let mut lines = self.lines();
        lines.queue.under_way -= 1;
        match panic {
            Some(panic) if lines.panic.is_none() => lines.panic = Some(panic),
            // As in `make`.
            panic => mem::forget(panic),
        }
        if lines.queue.under_way == 0 {
            self.idle.notify_all();
        }
    }
}

impl<P: Platform, S: Pages> Desk<P, S> {
    /// What a worker does.
    fn work(&self, worker: usize) {
        while let Some(job) = self.next() {
            let complete = || {
                let ok = self.make(&job);
                (self.complete)(Over { host: &job.host, slot: job.slot, ok, worker });
                // With the host, if this was its last handle.
                drop(job);
            };
            self.is_over(catch_unwind(AssertUnwindSafe(complete)).err());
        }
    }

    /// Whether it succeeded. If the store panics it did not.
    fn make(&self, job: &Job<P>) -> bool {
        let Job { host, doing, slot, frame } = job;
        // SAFETY: (1) and (2) until it is completed, or answered: said to whoever began it (`SwapStore`), and it is neither yet.
        let made = catch_unwind(AssertUnwindSafe(|| unsafe { transfer(host, &self.store, *doing, *slot, *frame) }));
        made.unwrap_or_else(|panic| {
            // Whatever its drop would do: the transfer ends.
            mem::forget(panic);
            self.lines().queue.panics += 1;
            false
        })
    }
}

impl<P, S> Drop for Queued<P, S> {
    /// Waits until all that was begun is over, but for the transfer in whose end the store is dropped, if a worker drops it.
    fn drop(&mut self) {
        self.desk.lines().is_closed = true;
        self.desk.work.notify_all();
        let this = thread::current().id();
        // A worker that drops its own host ends when it has done that.
        for worker in self.workers.drain(..).filter(|worker| worker.thread().id() != this) {
            let ended = worker.join();
            debug_assert!(ended.is_ok(), "a worker catches what panics");
        }
        let panic = self.desk.lines().panic.take();
        if let Some(panic) = panic.filter(|_| !panicking()) {
            resume_unwind(panic);
        }
    }
}

impl<P, S> Deref for Queued<P, S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.desk.store
    }
}

impl<P, S: fmt::Debug> fmt::Debug for Queued<P, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}; {} workers, {:?}", self.desk.store, self.workers.len(), self.queue())
    }
}

impl<P: Platform, S: Pages> SwapStore<P> for Queued<P, S> {
    unsafe fn start_write(&self, p: &P, slot: Slot, frame: FrameId) -> Transfer {
        self.begin(p, Doing::Writing, slot, frame)
    }

    unsafe fn start_read(&self, p: &P, slot: Slot, frame: FrameId) -> Transfer {
        self.begin(p, Doing::Reading, slot, frame)
    }

    fn discard(&self, slot: Slot) {
        self.desk.store.forget(slot);
    }
}
