//! What a run hands back: whether it went well, what it cost and its story.

use super::lines::Counters;
use super::story::{self, Event, Op, Place};
use super::strategy::Strategy;
use std::fmt;
use std::panic::Location;

/// Having an `Outcome` tells you: all simulated threads of the run have ended, orderly or by unwinding.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub(super) seed: u64,
    pub(super) strategy: Strategy,
    pub(super) steps: u64,
    pub(super) switches: u64,
    pub(super) failure: Option<Failure>,
    pub(super) counters: Vec<Counters>,
    pub(super) names: Vec<String>,
    pub(super) trace: Vec<Event>,
}

/// Why a run failed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// A simulated thread panicked.
    Panic {
        /// Its name.
        thread: String,
        /// The panic's message.
        message: String,
        /// `file:line:column` of the panic, if it went through the panic hook.
        at: Option<String>,
    },
    /// The run did not end within its steps: a deadlock, a livelock, or too small a limit.
    Stuck {
        /// The limit.
        steps: u64,
        /// Where each thread that has not ended stands.
        standing: Vec<Standing>,
    },
    /// Every thread that has not ended sleeps.
    Asleep {
        /// Where each of them stands.
        standing: Vec<Standing>,
    },
    /// All threads ended, but a condition on their result does not hold.
    Check {
        /// The condition, as given to [`Outcome::check`].
        what: String,
    },
}

/// Where a thread was when its run got stuck.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its name.
    pub thread: String,
    /// The operation it was about to do, and where; none if it has not started.
    pub before: Option<(Op, &'static Location<'static>)>,
}

impl Outcome {
    /// The seed of the run.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// How many yield points were passed.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// How often the baton changed hands.
    pub fn switches(&self) -> u64 {
        self.switches
    }

    /// Whether nothing failed.
    pub fn is_ok(&self) -> bool {
        self.failure.is_none()
    }

    /// What failed, if anything.
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// What each simulated CPU did, by its number.
    pub fn counters(&self) -> &[Counters] {
        &self.counters
    }

    /// What all simulated CPUs did together.
    pub fn total(&self) -> Counters {
        self.counters.iter().copied().sum()
    }

    /// The last events of the run, as many as [`Run::keep_events`](super::Run::keep_events) allowed.
    pub fn trace(&self) -> &[Event] {
        &self.trace
    }

    /// The names of the simulated threads, by their index.
    pub fn thread_names(&self) -> &[String] {
        &self.names
    }

    /// Turns the outcome into a failure if `holds` is false, for conditions that can only be judged at the end.
    #[must_use = "an outcome may be a failure"]
    pub fn check(mut self, holds: bool, what: impl fmt::Display) -> Self {
        if !holds && self.failure.is_none() {
            let what = what.to_string();
            self.failure = Some(Failure::Check { what });
        }
        self
    }

    /// Passes a good outcome on; panics with the end of the story of a bad one.
    #[track_caller]
    pub fn expect_ok(self) -> Self {
        const EVENTS_SHOWN: usize = 60;
        assert!(self.is_ok(), "\n{}", self.story(EVENTS_SHOWN));
        self
    }

    /// The last `last_n` events in columns, one per thread, and how it ended. Made for 120 columns:
    ///
    /// ```text
    /// seed 7, Random: the last 5 of 5 events (L#: cache line by first touch, *: fetched from another CPU)
    ///   step  reader                                    writer
    ///      1  slot.rs:88 load L1
    ///         > entered
    ///      2                                            slot.rs:41 swap L1*
    ///      3  slot.rs:90 load L1* x2
    /// ok after 4 steps, 2 switches
    /// ```
    pub fn story(&self, last_n: usize) -> String {
        let all = self.trace.len();
        let events = &self.trace[all.saturating_sub(last_n)..];
        format!(
            "seed {}, {:?}: the last {} of {all} events (L#: cache line by first touch, *: fetched from another CPU)\n{}{self}\n",
            self.seed,
            self.strategy,
            events.len(),
            story::columns(&self.names, events),
        )
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.failure {
            None => f.write_str("ok")?,
            Some(failure) => write!(f, "FAILED: {failure}")?,
        }
        write!(f, " after {} steps, {} switches", self.steps, self.switches)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panic { thread, message, at } => {
                let at = at.as_deref().unwrap_or("an unknown place");
                write!(f, "thread '{thread}' panicked at {at}: {message}")
            }
            Self::Stuck { steps, standing } => {
                write!(f, "not done within {steps} steps")?;
                standing.iter().try_for_each(|s| write!(f, "; {s}"))
            }
            Self::Asleep { standing } => {
                write!(f, "nobody is awake")?;
                standing.iter().try_for_each(|s| write!(f, "; {s}"))
            }
            Self::Check { what } => write!(f, "{what}"),
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.before {
            Some((op, at)) => write!(f, "'{}' before {op} at {}", self.thread, Place(at)),
            None => write!(f, "'{}' not started", self.thread),
        }
    }
}
