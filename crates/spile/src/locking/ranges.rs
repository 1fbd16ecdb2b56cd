//! A lock of ranges: whoever has one keeps others from that range alone, and nobody blocks in it.
//!
//! **Guarantee.** A place that somebody has to write nobody else has. Of two requests to write that have a place in common the one that came
//! first is granted first, and nobody gets a place to read that somebody has asked to write, but in his turn. Whoever is refused gets a token
//! that turns over when the place may be free. Of readers that were refused one is next when one more writer has had the place, if it comes in time.
//!
//! **Mechanism.** A small array of requests, granted or waiting, under a flag that is spun for; a request that waits has a number. Nothing is
//! allocated: who finds the array full waits too. Readers leave some of it to writers, so that a stream of faults does not starve them; and one
//! reader that was refused is noted, so that a stream of changes does not starve it. When a writer has been granted the place, that reader's turn comes
//! next: who waits to write does not refuse it, and asks again for a while, before it is forgotten: it may not come again.

use super::rwlock::PATIENCE;
use crate::addr::Range;
use crate::platform::Platform;
use crate::shared::place_of;
use crate::wait::{self, Token};
use spile_sync::lock::Guarded;
use spile_sync::seeded;

/// So many have something or wait for it.
#[cfg(not(loom))]
const SLOTS: usize = 64;
#[cfg(loom)]
const SLOTS: usize = 4;

/// So many of them can be readers.
const READERS: usize = SLOTS - SLOTS / 4;

/// What is locked together: a range, or two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint([Option<Range>; 2]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Reads,
    Writes,
    /// To write, with its number.
    Waits(u64),
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    footprint: Footprint,
    state: State,
}

#[derive(Debug)]
struct Table {
    slots: [Slot; SLOTS],
    /// Which slots are in use, a bit each.
    used: u64,
    /// How many requests have waited.
    numbers: u64,
    /// A reader that was refused, and may come again.
    noted: Option<Noted>,
    /// Whether somebody has a token since it was last turned over.
    waited_for: bool,
}

#[derive(Debug)]
struct Noted {
    footprint: Footprint,
    /// A writer was granted the place since.
    is_next: bool,
    /// How often writers ask again, in its turn.
    patience: u32,
}

/// What became of a request to write.
enum Answer {
    Granted,
    Refused,
    /// It is a reader's turn.
    AskAgain,
}

/// The lock.
#[derive(Debug)]
pub struct Ranges(Guarded<Table>);

/// Ranges that are locked.
#[derive(Debug)]
pub struct RangeGuard<'m, P: Platform> {
    footprint: Footprint,
    place: Place<'m, P>,
}

/// Somebody who wants to write, and keeps his turn.
#[derive(Debug)]
pub struct Request<'m, P: Platform> {
    ranges: &'m Ranges,
    p: &'m P,
    footprint: Footprint,
    /// Where it waits, if it waits.
    place: Option<Place<'m, P>>,
}

/// A slot in use.
#[derive(Debug)]
struct Place<'m, P: Platform> {
    ranges: &'m Ranges,
    p: &'m P,
    slot: usize,
}

impl Footprint {
    /// All of `ranges`.
    pub fn of(ranges: &[Range]) -> Self {
        let rest = ranges.iter().skip(1).copied().reduce(Range::around);
        Self([ranges.first().copied(), rest])
    }

    /// With `wider` in the place of each of its ranges.
    pub fn map(self, wider: impl FnMut(Range) -> Range + Copy) -> Self {
        Self(self.0.map(|range| range.map(wider)))
    }

    fn ranges(&self) -> impl Iterator<Item = Range> {
        self.0.iter().flatten().copied()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.ranges().next().is_none()
    }

    /// Whether `range` lies in one of its ranges.
    pub fn covers(&self, range: Range) -> bool {
        self.ranges().any(|mine| mine.covers(range))
    }

    fn meets(&self, other: &Self) -> bool {
        self.ranges().any(|mine| other.ranges().any(|theirs| mine.overlap(theirs).is_some()))
    }
}

impl Table {
    const FREE: Slot = Slot { footprint: Footprint([None; 2]), state: State::Reads };

    /// Whether somebody of whom `matters` is true has or wants a part of `footprint`.
    fn is_met(&self, footprint: &Footprint, matters: impl Fn(State) -> bool) -> bool {
        let mut rest = self.used;
        core::iter::from_fn(|| {
            let slot = self.slots.get(rest.trailing_zeros() as usize)?;
            rest &= rest - 1;
            Some(slot)
        })
        .any(|slot| matters(slot.state) && slot.footprint.meets(footprint))
    }

    /// Takes one of the first `slots`.
    fn take(&mut self, slots: usize, footprint: Footprint, state: State) -> Option<usize> {
        let slot = (!self.used).trailing_zeros() as usize;
        if slot >= slots {
            return None;
        }
        self.used |= 1 << slot;
        self.slots[slot] = Slot { footprint, state };
        Some(slot)
    }

    fn read(&mut self, footprint: Footprint) -> Option<usize> {
        let refuses = |state| match state {
            State::Reads => false,
            State::Writes => !seeded!("read-beside-a-change"),
            State::Waits(_) => true,
        };
        let is_refused = self.is_met(&footprint, refuses) && !self.is_turn_of(&footprint);
        if is_refused { None } else { self.take(READERS, footprint, State::Reads) }
    }

    /// Whether it is the turn of who reads that, whom those who wait do not refuse.
    #[cold]
    #[inline(never)]
    fn is_turn_of(&self, footprint: &Footprint) -> bool {
        let is_next = self.noted.as_ref().is_some_and(|noted| noted.is_next && noted.footprint == *footprint);
        is_next && !self.is_met(footprint, |state| state == State::Writes)
    }

    /// A reader was refused. Who is noted already comes first, unless there is nobody any more for whom it waits.
    fn note(&mut self, footprint: Footprint) {
        let is_refused = |noted: &Noted| self.is_met(&noted.footprint, |state| state != State::Reads);
        if !self.noted.as_ref().is_some_and(is_refused) && !seeded!("no-turn-for-a-page") {
            self.noted = Some(Noted { footprint, is_next: false, patience: PATIENCE });
        }
        self.be_patient(footprint);
    }

    /// A reader comes again, but has yet to get something else.
    fn be_patient(&mut self, footprint: Footprint) {
        if let Some(noted) = self.noted.as_mut().filter(|noted| noted.footprint == footprint) {
            noted.patience = PATIENCE;
        }
    }

    /// A reader has come.
    #[cold]
    #[inline(never)]
    fn forget(&mut self, footprint: Footprint) {
        self.noted.take_if(|noted| noted.footprint == footprint);
    }

    /// Whether it is the turn of a reader of a part of `footprint`; else, that one comes next.
    fn gives_way(&mut self, footprint: &Footprint) -> bool {
        let Some(noted) = self.noted.as_mut().filter(|noted| noted.footprint.meets(footprint)) else { return false };
        let is_its_turn = noted.is_next;
        noted.is_next = true;
        if is_its_turn {
            match noted.patience.checked_sub(1) {
                Some(rest) => noted.patience = rest,
                None => self.noted = None,
            }
        }
        is_its_turn && self.noted.is_some()
    }

    /// Grants it, or puts it into `slot` to wait.
    fn write(&mut self, footprint: Footprint, slot: &mut Option<usize>) -> Answer {
        let number = match slot.map(|slot| self.slots[slot].state) {
            Some(State::Waits(number)) => number,
            _ => self.numbers,
        };
        let refuses = |state| match state {
            State::Reads | State::Writes => true,
            State::Waits(other) => other < number && !seeded!("out-of-turn"),
        };
        let is_free = !self.is_met(&footprint, refuses);
        let gives_way = is_free && self.gives_way(&footprint);
        let granted = is_free && !gives_way;
        let state = if granted { State::Writes } else { State::Waits(number) };
        match *slot {
            Some(slot) => self.slots[slot].state = state,
            None => {
                *slot = self.take(SLOTS, footprint, state);
                self.numbers += 1;
            }
        }
        match slot {
            Some(_) if granted => Answer::Granted,
            Some(_) if gives_way => Answer::AskAgain,
            _ => Answer::Refused,
        }
    }
}

impl Ranges {
    pub(crate) fn new() -> Self {
        Self(Guarded::new(Table { slots: [Table::FREE; SLOTS], used: 0, numbers: 0, noted: None, waited_for: false }))
    }

    /// Where waiters wait.
    fn thing(&self) -> usize {
        place_of(self)
    }

    fn with<P: Platform, T>(&self, p: &P, work: impl FnOnce(&mut Table) -> T) -> T {
        super::briefly(p, &self.0, work)
    }

    /// `range` to read, if nobody has a part of it to write, or wants it.
    pub fn try_read<'m, P: Platform>(&'m self, p: &'m P, range: Range) -> Option<RangeGuard<'m, P>> {
        let footprint = Footprint::of(&[range]);
        let slot = self.with(p, |table| {
            let slot = table.read(footprint);
            if table.noted.is_some() && slot.is_some() {
                table.forget(footprint);
            }
            slot
        })?;
        Some(RangeGuard { footprint, place: Place { ranges: self, p, slot } })
    }

    /// The same, or what to wait for.
    ///
    /// # Errors
    ///
    /// The token.
    pub fn read<'m, P: Platform>(&'m self, p: &'m P, range: Range) -> Result<RangeGuard<'m, P>, Token<'m, P>> {
        let footprint = Footprint::of(&[range]);
        // The moment first, then the look: who leaves after that finds that somebody waits, and turns the moment over.
        let token = Token::for_thing(p, self.thing());
        let slot = self.with(p, |table| {
            let slot = table.read(footprint);
            match slot {
                Some(_) => table.be_patient(footprint),
                None => {
                    table.waited_for = true;
                    table.note(footprint);
                }
            }
            slot
        });
        let guard = |slot| RangeGuard { footprint, place: Place { ranges: self, p, slot } };
        slot.map(guard).ok_or(token)
    }

    /// Who has `page` to read, after it was refused once, needs no turn any more.
    pub(super) fn has_come<P: Platform>(&self, page: &RangeGuard<'_, P>) {
        self.with(page.place.p, |table| table.forget(page.footprint));
    }

    /// A request to write. It has no turn before it has asked for one.
    pub fn request<'m, P: Platform>(&'m self, p: &'m P, footprint: Footprint) -> Request<'m, P> {
        Request { ranges: self, p, footprint, place: None }
    }
}

impl<'m, P: Platform> Request<'m, P> {
    /// The ranges, if it is its turn; else what to wait for.
    ///
    /// # Errors
    ///
    /// The token.
    pub fn turn(&mut self) -> Result<RangeGuard<'m, P>, Token<'m, P>> {
        let Self { ranges, p, footprint, .. } = *self;
        // As in `read`.
        let token = Token::for_thing(p, ranges.thing());
        let mut slot = self.place.as_ref().map(|place| place.slot);
        let answer = ranges.with(p, |table| {
            let answer = table.write(footprint, &mut slot);
            table.waited_for |= !matches!(answer, Answer::Granted);
            answer
        });
        if self.place.is_none() {
            self.place = slot.map(|slot| Place { ranges, p, slot });
        }
        match answer {
            Answer::Granted => {
                let place = self.place.take().expect("what is granted has a place");
                Ok(RangeGuard { footprint, place })
            }
            Answer::Refused => Err(token),
            Answer::AskAgain => Err(Token::for_nothing(p)),
        }
    }

    /// The ranges. May sleep.
    pub fn wait(mut self) -> RangeGuard<'m, P> {
        loop {
            match self.turn() {
                Ok(guard) => break guard,
                Err(token) => token.wait(),
            }
        }
    }
}

impl<P: Platform> RangeGuard<'_, P> {
    /// What is locked.
    pub fn footprint(&self) -> &Footprint {
        &self.footprint
    }

    /// Gives back everything but `kept`. False if that is more than there is.
    pub fn narrow(&mut self, kept: Footprint) -> bool {
        if !kept.ranges().all(|range| self.footprint.covers(range)) {
            return false;
        }
        if kept != self.footprint {
            self.footprint = kept;
            self.place.leave(|table, slot| table.slots[slot].footprint = kept);
        }
        true
    }
}

impl<P: Platform> Place<'_, P> {
    /// After `gives` has given something up whoever waits looks again.
    fn leave(&self, gives: impl FnOnce(&mut Table, usize)) {
        let thing = self.ranges.thing();
        let waited_for = self.ranges.with(self.p, |table| {
            gives(table, self.slot);
            core::mem::take(&mut table.waited_for)
        });
        if waited_for && !seeded!("leave-without-a-word") {
            wait::happened(self.p, thing);
        }
    }
}

impl<P: Platform> Drop for Place<'_, P> {
    fn drop(&mut self) {
        self.leave(|table, slot| table.used &= !(1 << slot));
    }
}
