//! Calls of a backing that last too long.
//!
//! **Guarantee.** A call that lasts longer than was said is told once, while it lasts, if no more are under way than are [noted](MOST). To note one takes an exchange and two stores, in
//! a handler too.
//!
//! **Mechanism.** Who calls writes down what for and since when; a thread looks now and then.

use crate::host::{here, lock};
use spile_sync::atomic::{AtomicU64, Ordering};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// How many calls are noted at once. (Of more the others are not told.)
const MOST: usize = 32;

/// What a backing was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// To fill the pages from this number on.
    Fill(u64),
    /// To keep the pages from this number on.
    WriteBack(u64),
    /// To make durable what it was given.
    Sync,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fill(page) => write!(f, "to fill page {page}"),
            Self::WriteBack(page) => write!(f, "to keep page {page}"),
            Self::Sync => f.write_str("to make durable what it has"),
        }
    }
}

/// A call that is under way.
#[derive(Debug)]
struct Call {
    /// Nanoseconds since [`Calls::start`], plus one; 0: none. Who makes it not 0 has the call until he makes it 0 again.
    since: AtomicU64,
    what: AtomicU64,
}

/// Calls under way.
#[derive(Debug)]
pub struct Calls {
    start: Instant,
    calls: [Call; MOST],
}

/// A call, until this is dropped.
pub struct UnderWay<'a>(Option<&'a Call>);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        // Relaxed, as all here: what is told may be a moment old.
        self.0.into_iter().for_each(|call| call.since.store(0, Ordering::Relaxed));
    }
}

impl Default for Calls {
    fn default() -> Self {
        let none = |_| Call { since: AtomicU64::new(0), what: AtomicU64::new(0) };
        Self { start: Instant::now(), calls: std::array::from_fn(none) }
    }
}

impl Calls {
    /// Notes a call.
    pub fn begin(&self, asked: Asked) -> UnderWay<'_> {
        let now = self.start.elapsed().as_nanos() as u64 + 1;
        let from = here() * (MOST / crate::host::LANES);
        let all = self.calls[from..].iter().chain(&self.calls[..from]);
        let free = |call: &&Call| {
            let is_free = || call.since.load(Ordering::Relaxed) == 0;
            is_free() && call.since.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        let call = all.into_iter().find(free);
        call.into_iter().for_each(|call| call.what.store(encode(asked), Ordering::Relaxed));
        UnderWay(call)
    }

    /// The one that has lasted longest: what for, how long, and since when as a number that no other has.
    fn oldest(&self) -> Option<(Asked, Duration, u64)> {
        let noted = self.calls.iter().map(|call| (call.since.load(Ordering::Relaxed), call.what.load(Ordering::Relaxed)));
        let (since, what) = noted.filter(|(since, _)| *since != 0).min()?;
        Some((decode(what), self.start.elapsed().saturating_sub(Duration::from_nanos(since - 1)), since))
    }

    /// The same, for a status.
    pub fn longest(&self) -> Option<(Asked, Duration)> {
        self.oldest().map(|(asked, lasts, _)| (asked, lasts))
    }
}

fn encode(asked: Asked) -> u64 {
    match asked {
        Asked::Fill(page) => page << 2,
        Asked::WriteBack(page) => page << 2 | 1,
        Asked::Sync => 2,
    }
}

fn decode(word: u64) -> Asked {
    match word & 3 {
        0 => Asked::Fill(word >> 2),
        1 => Asked::WriteBack(word >> 2),
        _ => Asked::Sync,
    }
}

/// Whether the watch is over.
type Over = Arc<(Mutex<bool>, Condvar)>;

/// A thread that looks whether a backing is stuck, until this is dropped.
#[derive(Debug)]
#[must_use = "nobody looks when it is dropped"]
pub struct Watchdog {
    over: Over,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Tells `tell` of a call that lasts longer than `limit`, once.
    ///
    /// # Errors
    ///
    /// There is no thread for it.
    pub(crate) fn of(
        calls: Arc<Calls>,
        limit: Duration,
        tell: impl Fn(Asked, Duration) + Send + 'static,
    ) -> std::io::Result<Self> {
        let over = Over::default();
        let watched = over.clone();
        let watch = move || {
            let mut told = 0;
            let (is_over, changed) = &*watched;
            let mut ends = lock(is_over);
            while !*ends {
                // Nobody waits for the lock but who ends it.
                if let Some((asked, lasts, since)) = calls.oldest()
                    && lasts > limit
                    && since != told
                {
                    told = since;
                    tell(asked, lasts);
                }
                ends = changed.wait_timeout(ends, limit / 4).unwrap_or_else(std::sync::PoisonError::into_inner).0;
            }
        };
        let thread = Builder::new().name("spile-watchdog".into()).spawn(watch)?;
        Ok(Self { over, thread: Some(thread) })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        *lock(&self.over.0) = true;
        self.over.1.notify_all();
        // Who told something and panicked has told it.
        self.thread.take().into_iter().for_each(|thread| _ = thread.join());
    }
}
