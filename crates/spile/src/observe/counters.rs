//! How often what happened in an address space: what designs are compared by.
//!
//! **Guarantee.** Each fault that looks for its mapping is counted once where its fast way ended, and once more where its slow way ended, if it
//! took that. So, with nobody under way, `lookups` is the sum of all `fast…` and `miss…`, and `fallbacks` that of all `slow…`, and of
//! `miss_contended` and `miss_stale`. Nothing is lost, whoever runs where. Without feature `counters` there is nothing in the address space, and
//! to count is to do nothing.
//!
//! **Mechanism.** One list of events, from which come names and labels; a shard of counters for each CPU, on lines of its own, chosen by what
//! [`Machine::cpu`](crate::Machine::cpu) says. That is a hint: a counter is added to by one atomic step, so that a wrong one, or an interrupt
//! that counts too, costs time and no count. Relaxed throughout: nothing rests on a counter, and no counter tells of anything but itself.
//!
//! Who measures must not change what is measured. On a host that says where it runs, a count moves no line from CPU to CPU. And the atomics
//! are `core`'s, not those of `spile_sync`: there each would be one more step at which somebody else may run, for models to exhaust and the
//! scheduler to choose, and one more access to be charged to the design. With counters the same seed tells the same story.

use crate::fault::Outcome;
use crate::locking::{Locking, Miss};
use crate::mm::Mm;
use crate::platform::Platform;

macro_rules! events {
    ($($(#[$doc:meta])* $event:ident = $label:literal,)*) => {
        /// Something that is counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Event {
            $($(#[$doc])* $event,)*
        }

        impl Event {
            /// All of them, in the order of tables.
            pub const ALL: [Self; [$($label),*].len()] = [$(Self::$event),*];

            /// What its counter is called.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$event => $label,)*
                }
            }
        }
    };
}

events! {
    /// A fault asked the design for its mapping. (DONTNEED, which holds a mapping as a fault does, is none.)
    Lookup = "lookups",
    /// It was resolved with the fast hold.
    FastResolved = "fast",
    /// With the fast hold it lost to somebody who changed the entry; the access is repeated.
    FastRaced = "fast_raced",
    /// With the fast hold it found a page that is being read, and its caller waits, or comes again to sleep with a hold: as another lookup.
    FastPage = "fast_page",
    /// With the fast hold it found no frame while tables wait for a grace period, and its caller waits.
    FastRelief = "fast_relief",
    /// With the fast hold it was refused.
    FastDenied = "fast_denied",
    /// [`Miss::NoVma`]: refused.
    MissNoVma = "miss_no_vma",
    /// [`Miss::Grow`]: a mapping must grow first.
    MissGrow = "miss_grow",
    /// [`Miss::Contended`].
    MissContended = "miss_contended",
    /// [`Miss::Stale`], and a fast hold that did not last until the entry was to be written, or with which nobody can sleep.
    MissStale = "miss_stale",
    /// The slow way was taken.
    Fallback = "fallbacks",
    /// It was resolved with the slow hold.
    SlowResolved = "slow",
    /// With the slow hold it lost to somebody who changed the entry; the access is repeated.
    SlowRaced = "slow_raced",
    /// With the slow hold it found a page that is being read, and its caller waits, or comes again as above.
    SlowPage = "slow_page",
    /// With the slow hold it found no frame while tables wait for a grace period, and its caller waits.
    SlowRelief = "slow_relief",
    /// There was no slow hold either: its caller waits for a change.
    SlowWriter = "slow_writer",
    /// On the slow way it was refused, with a hold or for want of a mapping.
    SlowDenied = "slow_denied",
    /// On the slow way it found that a mapping must grow first.
    SlowGrow = "slow_grow",
    /// The right to change was given.
    Write = "writes",
    /// It had to be waited for. Once for each time that it was given; where it is several locks, perhaps once for each of them.
    WriteWait = "write_waits",
    /// A change began anew with another right: it had none to the place that it found.
    Elsewhere = "elsewhere",
    /// A change planned again: a fault had set an identity that it relied on.
    Replan = "replans",
    /// A change waited until faults let go of what it has claimed or excluded. Those that exclude faults by `write` itself are in
    /// [`WriteWait`](Self::WriteWait).
    HoldWait = "hold_waits",
    /// A change waited for a grace period.
    GraceWait = "grace_waits",
    /// Bytes of mappings that were handed to grace periods.
    DeferredBytes = "deferred_bytes",
}

/// On which way a fault came to its end.
#[derive(Clone, Copy)]
pub(crate) enum Way {
    Fast,
    Slow,
}

impl From<Miss> for Event {
    fn from(miss: Miss) -> Self {
        match miss {
            Miss::NoVma => Self::MissNoVma,
            Miss::Grow => Self::MissGrow,
            Miss::Contended => Self::MissContended,
            Miss::Stale => Self::MissStale,
        }
    }
}

impl<P: Platform, L: Locking> Mm<P, L> {
    /// Counts it: for designs. May be called anywhere.
    #[inline(always)]
    pub fn count(&self, event: impl Into<Event>) {
        self.count_by(event, 1);
    }

    /// Counts so many of it: for designs. May be called anywhere.
    #[inline(always)]
    pub fn count_by(&self, event: impl Into<Event>, by: usize) {
        self.counts.add(self, event.into(), by);
    }

    /// Who is called counts it: without the feature nobody has anything to carry along.
    #[cfg(feature = "counters")]
    pub(crate) fn counting(&self, event: Event) -> impl Fn() + Copy {
        move || self.count(event)
    }

    /// As above.
    #[cfg(not(feature = "counters"))]
    pub(crate) fn counting(&self, _: Event) -> impl Fn() + Copy + use<P, L> {
        || {}
    }

    /// Counts how a fault ended.
    #[inline(always)]
    pub(crate) fn count_end(&self, way: Way, outcome: &Outcome<'_, P>) {
        self.counts.add_end(self, way, outcome);
    }
}

#[cfg(feature = "counters")]
pub use shards::Counters;
pub(crate) use shards::Counts;

#[cfg(not(feature = "counters"))]
mod shards {
    use super::{Event, Locking, Mm, Outcome, Platform, Way};

    /// Nothing.
    #[derive(Debug)]
    pub(crate) struct Counts;

    impl Counts {
        pub(crate) fn new() -> Self {
            const { assert!(size_of::<Self>() == 0, "an address space pays nothing") };
            Self
        }

        #[inline(always)]
        pub(super) fn add<P: Platform, L: Locking>(&self, _: &Mm<P, L>, _: Event, _: usize) {}

        #[inline(always)]
        pub(super) fn add_end<P: Platform, L: Locking>(&self, _: &Mm<P, L>, _: Way, _: &Outcome<'_, P>) {}
    }
}

#[cfg(feature = "counters")]
mod shards {
    use super::{Event, Locking, Mm, Outcome, Platform, Way};
    use crate::fault::Done;
    use crate::wait::Reason;
    use core::fmt;
    use core::ops::{Add, Index, Sub};
    use core::sync::atomic::{AtomicU64, Ordering};
    use spile_sync::seeded;

    /// So many CPUs do not share counters.
    const CPUS: usize = 64;
    const EVENTS: usize = Event::ALL.len();

    #[derive(Debug)]
    #[repr(align(64))]
    struct Shard([AtomicU64; EVENTS]);

    /// The counters of an address space.
    #[derive(Debug)]
    pub(crate) struct Counts([Shard; CPUS]);

    impl Counts {
        pub(crate) fn new() -> Self {
            Self(core::array::from_fn(|_| Shard(core::array::from_fn(|_| AtomicU64::new(0)))))
        }

        #[inline]
        pub(super) fn add<P: Platform, L: Locking>(&self, mm: &Mm<P, L>, event: Event, by: usize) {
            let Shard(mine) = &self.0[mm.platform().cpu() % CPUS];
            // Relaxed: see the module.
            mine[event as usize].fetch_add(by as u64, Ordering::Relaxed);
            if event == Event::Fallback && seeded!("count-twice") {
                self.add(mm, Event::FastResolved, 1);
            }
        }

        #[inline]
        pub(super) fn add_end<P: Platform, L: Locking>(&self, mm: &Mm<P, L>, way: Way, outcome: &Outcome<'_, P>) {
            // Of what a fast hold leads to nothing is a miss now; if it were, that would be its name.
            let (fast, slow) = match outcome {
                Outcome::Done(Done::Raced) => (Event::FastRaced, Event::SlowRaced),
                Outcome::Done(_) => (Event::FastResolved, Event::SlowResolved),
                Outcome::Denied(_) => (Event::FastDenied, Event::SlowDenied),
                Outcome::Grow => (Event::MissGrow, Event::SlowGrow),
                Outcome::Wait(token) => match token.reason() {
                    Reason::Page => (Event::FastPage, Event::SlowPage),
                    Reason::Relief => (Event::FastRelief, Event::SlowRelief),
                    Reason::Change => (Event::MissContended, Event::SlowWriter),
                },
            };
            let event = match way {
                Way::Fast => fast,
                Way::Slow => slow,
            };
            self.add(mm, event, 1);
        }

        fn now(&self) -> Counters {
            let mut now = Counters::default();
            for Shard(shard) in &self.0 {
                // Relaxed: each is a number of its own.
                now.0.iter_mut().zip(shard).for_each(|(sum, one)| *sum += one.load(Ordering::Relaxed));
            }
            now
        }
    }

    /// How often what happened, by some moment. Ask it by the [`Event`], or go through labels and values.
    #[derive(Clone, Copy, Default, PartialEq, Eq)]
    pub struct Counters([u64; EVENTS]);

    impl Counters {
        /// Labels and values, in the order of [`Event::ALL`].
        pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
            Event::ALL.iter().map(|event| event.label()).zip(self.0)
        }
    }

    impl Index<Event> for Counters {
        type Output = u64;

        fn index(&self, event: Event) -> &u64 {
            &self.0[event as usize]
        }
    }

    /// Of two address spaces.
    impl Add for Counters {
        type Output = Self;

        fn add(self, other: Self) -> Self {
            Self(core::array::from_fn(|i| self.0[i] + other.0[i]))
        }
    }

    /// Since the `earlier` moment.
    impl Sub for Counters {
        type Output = Self;

        fn sub(self, earlier: Self) -> Self {
            Self(core::array::from_fn(|i| self.0[i] - earlier.0[i]))
        }
    }

    impl fmt::Debug for Counters {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_map().entries(self.iter()).finish()
        }
    }

    impl<P: Platform, L: Locking> Mm<P, L> {
        /// How often what happened since the space was made; a fork's child begins with nothing. Counters go on while they are read, one after
        /// the other: only with nobody under way do their sums agree. Waits for nobody.
        pub fn counters(&self) -> Counters {
            self.counts.now()
        }
    }
}
