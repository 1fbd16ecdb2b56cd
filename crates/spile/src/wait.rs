//! Waiting: what a fault gives back when it cannot go on, and how its caller waits for it.
//!
//! **Guarantee.** Who reads a [`Token`] before it looks at what it waits for, and waits for the token afterwards, misses no wake-up. A
//! token that names a page holds that page: it is there, if it could be read, for a fault that comes again while the token is.
//!
//! **Mechanism.** A count of what happened ([`Shared`](crate::Shared)) and a hold on a frame. Waiting is the caller's: [`Token::wait`]
//! sleeps by [`Machine::sleep`](crate::Machine::sleep); a scheduler or an executor polls [`Token::is_over`].

use crate::addr::FrameId;
use crate::frame::Frame;
use crate::paging::PageTable;
use crate::platform::Platform;
use crate::reclaim::sealed::{Freeing, Reclaim};
use crate::shared::{Moment, Shared};
use spile_rcu::Rcu;

/// What a fault waits for.
#[derive(Debug)]
#[must_use = "the fault has not happened: wait, and fault again"]
pub struct Token<'m, P: Platform> {
    p: &'m P,
    moment: Moment,
    source: Source<'m, P>,
    /// The page that is being read: it stays as long as this.
    held: Option<Frame<'m, P>>,
}

/// Who sees to it that it happens.
#[derive(Debug)]
enum Source<'m, P: Platform> {
    /// Somebody else.
    Others,
    /// Nobody: who was refused lets others come first, and asks again.
    Asking,
    /// A grace period gives memory back: nobody but the waiter may be there to see to that.
    Grace,
    /// Pages leave memory: the waiter sends them away, and waits for those that are being written.
    Reclaim,
    /// The same, of this space alone, which is at its limit.
    Room(&'m PageTable<P>),
}

/// Why a token was given.
#[cfg(feature = "counters")]
pub(crate) enum Reason {
    /// A page is being read.
    Page,
    /// There is no memory but what waits for a grace period, or for its contents to be written.
    Relief,
    /// Somebody has what a fault or a change wants.
    Change,
}

impl<'m, P: Platform> Token<'m, P> {
    /// For the next time something happens to `thing`.
    pub(crate) fn for_thing(p: &'m P, thing: usize) -> Self {
        Self { p, moment: p.shared().moment(thing), source: Source::Others, held: None }
    }

    /// To ask again, after a moment.
    pub(crate) fn for_nothing(p: &'m P) -> Self {
        Self { source: Source::Asking, ..Self::for_thing(p, 0) }
    }

    /// For memory: pages that can leave, or tables that wait for their grace period. None if there is neither.
    #[cold]
    pub(crate) fn for_relief(p: &'m P) -> Option<Self> {
        Self::for_reclaim(p).or_else(|| {
            let limbo = &p.shared().limbo;
            let token = Self { source: Source::Grace, ..Self::for_thing(p, limbo.thing()) };
            (!limbo.is_empty()).then_some(token)
        })
    }

    /// For memory that pages have when they leave; none if none can.
    pub(crate) fn for_reclaim(p: &'m P) -> Option<Self> {
        let token = || Self { source: Source::Reclaim, ..Self::for_thing(p, 0) };
        P::Reclaim::has_relief(p).then(token)
    }

    /// For room in a space that shows as many pages as it may; none if none of them can leave.
    #[cold]
    pub(crate) fn for_room(p: &'m P, tables: &'m PageTable<P>) -> Option<Self> {
        let token = || Self { source: Source::Room(tables), ..Self::for_thing(p, 0) };
        P::Reclaim::has_room_soon(p, tables).then(token)
    }

    /// That holds `frame` too.
    pub(crate) fn holding(self, frame: Frame<'m, P>) -> Self {
        Self { held: Some(frame), ..self }
    }

    /// The page that it holds.
    pub(crate) fn page(&self) -> Option<FrameId> {
        self.held.as_ref().map(Frame::id)
    }

    /// Whether it is for memory.
    pub(crate) fn is_for_memory(&self) -> bool {
        matches!(self.source, Source::Grace | Source::Reclaim | Source::Room(_))
    }

    #[cfg(feature = "counters")]
    pub(crate) fn reason(&self) -> Reason {
        match &self.held {
            _ if self.is_for_memory() => Reason::Relief,
            Some(_) => Reason::Page,
            None => Reason::Change,
        }
    }

    /// Whether it has happened, or something that cannot be told from it. Who asks for memory does what can be done for that now: frees tables whose
    /// grace period is over, or sends pages away.
    pub fn is_over(&self) -> bool {
        let has_happened = || !self.p.shared().is_now(self.moment);
        match self.source {
            Source::Others => has_happened(),
            Source::Asking => true,
            Source::Grace => {
                let limbo = &self.p.shared().limbo;
                limbo.turn(self.p);
                // Whoever was just turning when this was made may have given the last table back before: then nothing happens any more.
                limbo.is_empty() || has_happened()
            }
            Source::Reclaim | Source::Room(_) => self.free_some().is_none(),
        }
    }

    /// Sleeps until it has happened. Not in a read section, and with nothing held that a fault or change wants: what a fault of the core may hold here
    /// is said in `fault/wait.rs`.
    pub fn wait(&self) {
        match self.source {
            Source::Grace => {
                while !self.is_over() {
                    self.p.rcu().synchronize();
                }
            }
            Source::Reclaim | Source::Room(_) => {
                if let Some(moment) = self.free_some() {
                    self.sleep(moment);
                }
            }
            Source::Asking => self.p.relax(),
            Source::Others => {
                while !self.is_over() {
                    self.sleep(self.moment);
                }
            }
        }
    }

    /// Lets pages go, and frees tables whose grace period is over. None: the fault looks again, and is refused at some time. Else until when there
    /// may be nothing.
    fn free_some(&self) -> Option<Moment> {
        self.p.shared().limbo.turn(self.p);
        let freeing = match self.source {
            Source::Room(tables) => P::Reclaim::free_room(self.p, tables),
            _ => P::Reclaim::free_some(self.p),
        };
        match freeing {
            Freeing::UnderWay(moment) => Some(moment),
            Freeing::Done | Freeing::Nothing => None,
        }
    }

    fn sleep(&self, moment: Moment) {
        self.p.sleep(Shared::key(moment), &|| self.p.shared().is_now(moment));
    }
}

/// What `attempt` makes, for which a few frames are wanted: as often as there are none, pages leave memory for it. None if none can. With nothing held; may sleep. Not
/// within another such attempt, which would have it refused again and again.
pub(crate) fn with_room<P: Platform, T>(p: &P, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    loop {
        let made = attempt();
        if made.is_some() {
            return made;
        }
        Token::for_relief(p)?.wait();
    }
}

/// Something happened to `thing`: its waiters look again.
pub(crate) fn happened<P: Platform>(p: &P, thing: usize) {
    p.wake(p.shared().happened(thing));
}
