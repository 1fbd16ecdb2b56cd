//! What all address spaces of a platform share: events to wait for, numbers, tables that wait for a grace period.
//!
//! **Guarantee.** Nothing here is taken on the fast path of a fault.
//!
//! **Mechanism.** An *event* is a counter that goes up when something happened; a [`Token`](crate::Token) is a value it had before the
//! waiter looked at what it waits for. Many things share few events: a wake-up may be for somebody else.

use crate::paging::Limbo;
use crate::platform::Platform;
use spile_rcu::Rcu;
use spile_sync::atomic::{AtomicU64, Ordering};
use spile_sync::order;

#[cfg(not(loom))]
const EVENTS: usize = 64;
// One: which of several a thing has depends on its address, and the runs of a model must be alike.
#[cfg(loom)]
const EVENTS: usize = 1;

/// The core's state that belongs to no address space. A platform has one.
#[derive(Debug)]
pub struct Shared {
    events: [AtomicU64; EVENTS],
    numbers: AtomicU64,
    pub(crate) limbo: Limbo,
}

/// How often an event had happened, times [`EVENTS`], plus which it is: one word, for tokens are handed about. (It wraps when that was
/// 2^58 times.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(u64);

impl Moment {
    fn event(self) -> usize {
        (self.0 % EVENTS as u64) as usize
    }
}

/// What is waited for at `it`, by where that is.
pub(crate) fn place_of<T>(it: &T) -> usize {
    spile_sync::whereabouts(core::ptr::from_ref(it).addr())
}

impl Shared {
    /// Of a platform without address spaces.
    #[cfg(not(loom))]
    #[allow(clippy::new_without_default, reason = "a platform makes one, deliberately")]
    pub const fn new() -> Self {
        Self { events: [const { AtomicU64::new(0) }; EVENTS], numbers: AtomicU64::new(1), limbo: Limbo::new() }
    }

    /// Of a platform without address spaces.
    #[cfg(loom)]
    #[allow(clippy::new_without_default, reason = "as above")]
    pub fn new() -> Self {
        Self { events: core::array::from_fn(|_| AtomicU64::new(0)), numbers: AtomicU64::new(1), limbo: Limbo::new() }
    }

    /// By this a platform is known: no two have one [`Shared`], and none moves while it is used.
    pub(crate) fn name(&self) -> usize {
        core::ptr::from_ref(self).addr()
    }

    /// Gives back tables and mappings whose grace period is over, as each change of an address space does at its end. With nothing
    /// held; may sleep if very much waits.
    ///
    /// # Panics
    ///
    /// If it is not `p`'s.
    pub fn relieve<P: Platform>(&self, p: &P) {
        assert_eq!(self.name(), p.shared().name(), "what waits belongs to another platform");
        self.limbo.turn(p);
        p.rcu().relieve();
    }

    /// Now, as far as `thing` is concerned, which [`place_of`] names. Read before what one waits for is looked at.
    pub(crate) fn moment(&self, thing: usize) -> Moment {
        // The things are locks and pages: their low bits are equal.
        let event = (thing >> 4) ^ (thing >> 10);
        let event = event % EVENTS;
        // Acquire [event-read]: whoever reads a count sees what happened before it was raised.
        Moment(self.events[event].load(order!("event-read", Acquire)) * EVENTS as u64 + event as u64)
    }

    /// Whether nothing has happened since.
    pub(crate) fn is_now(&self, moment: Moment) -> bool {
        // Relaxed: whoever looks again, to find that it has to wait after all, reads a moment first, of the same event.
        self.events[moment.event()].load(Ordering::Relaxed) == moment.0 / EVENTS as u64
    }

    /// Something happened to `thing`: its waiters look again.
    pub(crate) fn happened(&self, thing: usize) -> usize {
        let event = self.moment(thing).event();
        // Release [event-raise]: whoever reads the new count sees what happened.
        self.events[event].fetch_add(1, order!("event-raise", Release));
        event
    }

    /// The key under which waiters for `moment` sleep.
    pub(crate) fn key(moment: Moment) -> usize {
        moment.event()
    }

    /// A number never given before: an address space's, an anonymous identity's.
    pub(crate) fn number(&self) -> u64 {
        // Relaxed: only that it is new matters.
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }
}
