//! Threads that bring pages beside those that want them.
//!
//! **Guarantee.** There are no more than were said, and none before the first is wanted; they end when the pager and its regions are gone. Who has much to do keeps nobody waiting who
//! has little.
//!
//! **Mechanism.** A line of jobs. Who is free takes a part of the first, and puts that behind the others if there is more of it. So several work on one job, and each has a read of its own under way.

use crate::host::lock;
use crate::signal;
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex};

/// Something to be done in parts.
pub trait Job: Send + Sync {
    /// The next part, if there is one: taken by who asks.
    fn take(&self) -> Option<u64>;

    /// Does it. May sleep.
    fn run(&self, part: u64);
}

#[derive(Default)]
struct Line {
    jobs: VecDeque<Arc<dyn Job>>,
    threads: usize,
    is_over: bool,
}

#[derive(Default)]
struct Shared {
    line: Mutex<Line>,
    changed: Condvar,
}

/// The threads, until this is dropped.
pub struct Workers {
    shared: Arc<Shared>,
    most: usize,
}

impl Shared {
    /// The next part of what is first, with nobody's hold on the line. None: it is over.
    fn next(&self) -> Option<(Arc<dyn Job>, u64)> {
        let mut line = lock(&self.line);
        loop {
            if line.is_over {
                return None;
            }
            let Some(job) = line.jobs.pop_front() else {
                line = self.changed.wait(line).unwrap_or_else(std::sync::PoisonError::into_inner);
                continue;
            };
            if let Some(part) = job.take() {
                line.jobs.push_back(Arc::clone(&job));
                return Some((job, part));
            }
            // With nothing locked: whoever awaits it may go with it, and drop what comes back here.
            drop(line);
            drop(job);
            line = lock(&self.line);
        }
    }

    fn work(&self) {
        let a_part = || {
            self.next().is_some_and(|(job, part)| {
                job.run(part);
                true
            })
        };
        // Whom it wakes, or drops, may panic; the thread is others' too.
        while catch_unwind(AssertUnwindSafe(a_part)).unwrap_or(true) {}
    }
}

impl Workers {
    /// So many at most; none yet.
    pub fn new(most: usize) -> Self {
        Self { shared: Arc::default(), most }
    }

    /// Has the job done. Not within a handler.
    ///
    /// # Errors
    ///
    /// There is no thread, and none can be had: it is not done.
    pub fn submit(&self, job: Arc<dyn Job>) -> io::Result<()> {
        let mut line = lock(&self.shared.line);
        while line.threads < self.most {
            let shared = Arc::clone(&self.shared);
            let thread = std::thread::Builder::new().name("spile-prefetch".into());
            match signal::without_others(|| thread.spawn(move || shared.work())) {
                Ok(_) => line.threads += 1,
                Err(error) if line.threads == 0 => return Err(error),
                Err(_) => break,
            }
        }
        line.jobs.push_back(job);
        self.shared.changed.notify_all();
        Ok(())
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // Who works on a part ends after it. He is not waited for: a waker may drop this.
        let mut line = lock(&self.shared.line);
        line.is_over = true;
        let jobs = std::mem::take(&mut line.jobs);
        drop(line);
        drop(jobs);
        self.shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spile_sync::atomic::{AtomicU64, Ordering::Relaxed};
    use std::sync::Barrier;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// Parts that are told when they are run, after somebody else runs one.
    struct Parts {
        left: AtomicU64,
        beside: Option<Barrier>,
        tell: Mutex<Sender<u64>>,
    }

    impl Job for Parts {
        fn take(&self) -> Option<u64> {
            let less = |left: u64| left.checked_sub(1);
            self.left.fetch_update(Relaxed, Relaxed, less).ok()
        }

        fn run(&self, part: u64) {
            self.beside.iter().for_each(|beside| _ = beside.wait());
            lock(&self.tell).send(part).unwrap();
        }
    }

    fn parts(left: u64, beside: Option<Barrier>) -> (Arc<Parts>, Receiver<u64>) {
        let (tell, told) = channel();
        (Arc::new(Parts { left: AtomicU64::new(left), beside, tell: Mutex::new(tell) }), told)
    }

    #[test]
    fn several_work_on_one_job_and_each_part_is_done_once() {
        let workers = Workers::new(2);
        // Each part waits for another that is under way.
        let (job, told) = parts(64, Some(Barrier::new(2)));
        workers.submit(job).unwrap();
        let mut done: Vec<u64> = told.iter().take(64).collect();
        done.sort_unstable();
        assert!(done.into_iter().eq(1..=64));
        // Threads and jobs end with what has them.
        drop(workers);
        assert!(told.recv().is_err());
    }

    #[test]
    fn what_is_short_does_not_wait_for_what_is_long() {
        let workers = Workers::new(1);
        let (long, of_long) = parts(1 << 60, None);
        workers.submit(long.clone()).unwrap();
        of_long.recv().unwrap();
        let (short, of_short) = parts(3, None);
        workers.submit(short).unwrap();
        assert_eq!(of_short.iter().count(), 3);
        drop(workers);
        assert!(long.left.load(Relaxed) > 0);
    }
}
