//! Waiting: what a fault gives back when it cannot go on, and how its caller waits for it.
//!
//! **Guarantee.** Who reads a [`Token`] before it looks at what it waits for, and waits for the token afterwards, misses no wake-up. A
//! token that names a page holds that page: it is there, if it could be read, for a fault that comes again while the token is.
//!
//! **Mechanism.** A count of what happened ([`Shared`](crate::Shared)) and a hold on a frame. Waiting is the caller's: [`Token::wait`]
//! sleeps by [`Machine::sleep`](crate::Machine::sleep); a scheduler or an executor polls [`Token::is_over`].

use crate::addr::FrameId;
use crate::frame::Frame;
use crate::platform::Platform;
use crate::shared::{Moment, Shared};
use spile_rcu::Rcu;

/// What a fault waits for.
#[derive(Debug)]
#[must_use = "the fault has not happened: wait, and fault again"]
pub struct Token<'m, P: Platform> {
    p: &'m P,
    moment: Moment,
    /// Whether it is for memory that a grace period gives back: then nobody but the waiter may be there to see to that.
    relief: bool,
    /// The page that is being read: it stays as long as this.
    held: Option<Frame<'m, P>>,
}

/// Why a token was given.
#[cfg(feature = "counters")]
pub(crate) enum Reason {
    /// A page is being read.
    Page,
    /// There is no memory but what waits for a grace period.
    Relief,
    /// Somebody has what a fault or a change wants.
    Change,
}

impl<'m, P: Platform> Token<'m, P> {
    /// For the next time something happens to `thing`.
    pub(crate) fn for_thing(p: &'m P, thing: usize) -> Self {
        Self { p, moment: p.shared().moment(thing), relief: false, held: None }
    }

    /// For tables that wait for their grace period; none if there are none.
    #[cold]
    pub(crate) fn for_relief(p: &'m P) -> Option<Self> {
        let limbo = &p.shared().limbo;
        let token = Self { relief: true, ..Self::for_thing(p, limbo.thing()) };
        (!limbo.is_empty()).then_some(token)
    }

    /// That holds `frame` too.
    #[cfg(feature = "file")]
    pub(crate) fn holding(self, frame: Frame<'m, P>) -> Self {
        Self { held: Some(frame), ..self }
    }

    /// The page that it holds.
    pub(crate) fn page(&self) -> Option<FrameId> {
        self.held.as_ref().map(Frame::id)
    }

    #[cfg(feature = "counters")]
    pub(crate) fn reason(&self) -> Reason {
        match &self.held {
            _ if self.relief => Reason::Relief,
            Some(_) => Reason::Page,
            None => Reason::Change,
        }
    }

    /// Whether it has happened, or something that cannot be told from it.
    pub fn is_over(&self) -> bool {
        if self.relief {
            let limbo = &self.p.shared().limbo;
            limbo.turn(self.p);
            // Whoever was just turning when this was made may have given the last table back before: then nothing happens any more.
            if limbo.is_empty() {
                return true;
            }
        }
        !self.p.shared().is_now(self.moment)
    }

    /// Sleeps until it has happened. Not in a read section, and with nothing held that a fault or change wants: what a fault of the core may hold here
    /// is said in `fault/wait.rs`.
    pub fn wait(&self) {
        while !self.is_over() {
            if self.relief {
                self.p.rcu().synchronize();
                continue;
            }
            self.p.sleep(Shared::key(self.moment), &|| !self.is_over());
        }
    }
}

/// Something happened to `thing`: its waiters look again.
pub(crate) fn happened<P: Platform>(p: &P, thing: usize) {
    p.wake(p.shared().happened(thing));
}
