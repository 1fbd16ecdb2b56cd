//! Waiting: what a fault gives back when it cannot go on, and how its caller waits for it.
//!
//! **Guarantee.** Who reads a [`Token`] before it looks at what it waits for, and waits for the token afterwards, misses no wake-up. A
//! token that names a page holds that page: it is there when the fault comes again.
//!
//! **Mechanism.** A count of what happened ([`Shared`](crate::Shared)) and a hold on a frame. Waiting is the caller's: [`Token::wait`]
//! sleeps by [`Machine::sleep`](crate::Machine::sleep); a scheduler or an executor polls [`Token::is_over`].

use crate::frame::Frame;
use crate::platform::Platform;
use crate::shared::{Moment, Shared};

/// What a fault waits for.
#[derive(Debug)]
#[must_use = "the fault has not happened: wait, and fault again"]
pub struct Token<'m, P: Platform> {
    p: &'m P,
    moment: Moment,
    /// The page that is being read: it stays until the fault comes again.
    _held: Option<Frame<'m, P>>,
}

impl<'m, P: Platform> Token<'m, P> {
    /// For the next time something happens to `thing`.
    pub(crate) fn for_thing(p: &'m P, thing: usize) -> Self {
        Self { p, moment: p.shared().moment(thing), _held: None }
    }

    /// That holds `frame` too.
    #[cfg(feature = "file")]
    pub(crate) fn holding(self, frame: Frame<'m, P>) -> Self {
        Self { _held: Some(frame), ..self }
    }

    /// Whether it has happened, or something that cannot be told from it.
    pub fn is_over(&self) -> bool {
        !self.p.shared().is_now(self.moment)
    }

    /// Sleeps until it has happened. With nothing held that a fault or change wants, and not in a read section.
    pub fn wait(&self) {
        while !self.is_over() {
            self.p.sleep(Shared::key(self.moment), &|| !self.is_over());
        }
    }
}

/// Something happened to `thing`: its waiters look again.
pub(crate) fn happened<P: Platform>(p: &P, thing: usize) {
    p.wake(p.shared().happened(thing));
}
