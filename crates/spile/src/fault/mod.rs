//! A page fault, from the address to the entry.
//!
//! **Guarantee.** Never sleeps, never does I/O, never blocks. A page is installed only in the mapping that the fault held while it
//! installed it. No hold crosses an [`Outcome::Wait`]. (What sleeps, and may keep its hold while a page is read, is [`wait`]'s.)
//!
//! **Mechanism.**
//!
//! ```text
//! fault ─▶ L::try_stabilise ─▶ resolve ─▶ anon | cow | file ─▶ paging::install
//!              │ miss                                              │ stale, or lost to another fault
//!              ▼                                                   ▼
//!          L::stabilise ─▶ Held ─▶ resolve                     once more, or done
//!              │
//!              └▶ Wait, NoVma, Grow
//! ```
//!
//! The fast hold is given up before the slow one is asked for: whoever waits for faults to let go may be the one who has
//! the slow one.

mod anon;
mod cow;
#[cfg(feature = "file")]
mod file;
mod swap;
mod wait;

pub use wait::{FaultKind, Waiting};
pub(crate) use wait::{Policy, fault_asleep};

use crate::addr::{Access, PAGE, TABLE_END};
use crate::identity;
use crate::locking::{Locking, Miss, Slowly, Stable};
use crate::mm::Mm;
use crate::paging::{Lost, Pte};
use crate::platform::Platform;
use crate::vma::{Backing, Flags};
use crate::wait::Token;
use crate::{Event, Way};
use spile_sync::seeded;

/// How a fault ended.
#[derive(Debug)]
#[must_use = "the access may have to wait, or be refused"]
pub enum Outcome<'m, P: Platform> {
    /// The access can be repeated.
    Done(Done),
    /// It is not allowed.
    Denied(Denied),
    /// A mapping above must grow first: [`Mm::grow`], with nothing held, and fault again.
    Grow,
    /// It cannot be answered yet. Wait for the token with nothing held, and fault again.
    Wait(Token<'m, P>),
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// Nothing: somebody else had done it, or a stale translation had caused the fault.
    Spurious,
    /// Nothing: somebody else changed the entry, its tables or the mapping meanwhile. The access, repeated, may fault again.
    Raced,
    /// The zero frame was mapped.
    Zero,
    /// A new zeroed frame was mapped.
    Anon,
    /// A page was copied.
    Copied,
    /// A page that had no other owner was made writable.
    Reused,
    /// A page of a file was mapped.
    File,
    /// A page of a shared file was made writable, and noted as dirty.
    Dirtied,
    /// A page that was away, in a slot, was mapped.
    Swapped,
}

/// Why an access is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Nothing is mapped there. (SIGSEGV, `SEGV_MAPERR`.)
    Unmapped,
    /// The mapping does not allow it. (SIGSEGV, `SEGV_ACCERR`.)
    Protected,
    /// The file ends before it, or cannot be read. (SIGBUS.)
    Bus,
    /// There is no memory.
    NoMemory,
}

/// Why a fault could not be resolved with the hold it had.
enum Failed<'m, P: Platform> {
    /// The hold was no longer good, or an identity was closed: take the slow way.
    Stale,
    /// Somebody else changed the entry: look again.
    Again,
    /// The space shows as many pages as it may.
    Full,
    Denied(Denied),
    Wait(Token<'m, P>),
}

impl<P: Platform> From<Lost> for Failed<'_, P> {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Stale => Failed::Stale,
            Lost::Changed => Failed::Again,
            Lost::NoMemory => Failed::Denied(Denied::NoMemory),
            Lost::Full => Failed::Full,
        }
    }
}

type Resolved<'m, P> = Result<Done, Failed<'m, P>>;

/// Never sleeps, unless it may, with a hold: then as [`wait::resolve_asleep`] does.
#[inline]
pub(crate) fn fault<P: Platform, L: Locking, const MAY_SLEEP: bool>(mm: &Mm<P, L>, at: u64, access: Access) -> Outcome<'_, P> {
    if at >= TABLE_END {
        return Outcome::Denied(Denied::Unmapped);
    }
    let page = at & !(PAGE - 1);
    mm.count(Event::Lookup);
    let miss = match L::try_stabilise(mm, page) {
        Ok(hold) if is_flushed_below(mm, &hold) => Miss::Contended,
        Ok(hold) => match resolve_so::<_, _, MAY_SLEEP>(mm, &hold, page, access) {
            Err(Failed::Stale) => Miss::Stale,
            resolved => return outcome(mm, Way::Fast, resolved),
        },
        Err(miss) => miss,
    };
    mm.count(miss);
    match miss {
        Miss::NoVma => Outcome::Denied(Denied::Unmapped),
        Miss::Grow => Outcome::Grow,
        Miss::Contended | Miss::Stale => slowly::<_, _, MAY_SLEEP>(mm, page, access),
    }
}

/// Whether what was at a part of the mapping before it came is still being flushed: it was admitted, and its faults wait.
#[inline]
fn is_flushed_below<P: Platform, L: Locking>(mm: &Mm<P, L>, hold: &impl Stable<P, L>) -> bool {
    mm.flushing.is_any() && mm.flushing.met(mm.platform(), &[hold.range()]).is_some() && !seeded!("fault-in-a-flush")
}

#[cold]
fn slowly<P: Platform, L: Locking, const MAY_SLEEP: bool>(mm: &Mm<P, L>, page: u64, access: Access) -> Outcome<'_, P> {
    mm.count(Event::Fallback);
    let outcome = match L::stabilise(mm, page) {
        Slowly::Held(hold) => match mm.flushing.in_the_way(mm.platform(), &[hold.range()]) {
            Some(token) if !seeded!("fault-in-a-flush") => Outcome::Wait(token),
            _ => return outcome(mm, Way::Slow, resolve_so::<_, _, MAY_SLEEP>(mm, &hold, page, access)),
        },
        Slowly::NoVma => Outcome::Denied(Denied::Unmapped),
        Slowly::Grow => Outcome::Grow,
        Slowly::Wait(token) => Outcome::Wait(token),
    };
    mm.count_end(Way::Slow, &outcome);
    outcome
}

#[inline(always)]
fn outcome<'m, P: Platform, L: Locking>(mm: &'m Mm<P, L>, way: Way, resolved: Resolved<'m, P>) -> Outcome<'m, P> {
    let outcome = match resolved {
        Ok(done) => Outcome::Done(done),
        Err(Failed::Stale | Failed::Again) => Outcome::Done(Done::Raced),
        // Tables that wait for their grace period are memory too, and pages that can leave.
        Err(Failed::Denied(Denied::NoMemory)) => {
            Token::for_relief(mm.platform()).map_or(Outcome::Denied(Denied::NoMemory), Outcome::Wait)
        }
        Err(Failed::Full) => Token::for_room(mm.platform(), &mm.table).map_or(Outcome::Denied(Denied::NoMemory), Outcome::Wait),
        Err(Failed::Denied(denied)) => Outcome::Denied(denied),
        Err(Failed::Wait(token)) => Outcome::Wait(token),
    };
    mm.count_end(way, &outcome);
    outcome
}

#[inline(always)]
fn resolve_so<'m, P: Platform, L: Locking, const MAY_SLEEP: bool>(
    mm: &'m Mm<P, L>,
    hold: &impl Stable<P, L>,
    page: u64,
    access: Access,
) -> Resolved<'m, P> {
    if MAY_SLEEP { wait::resolve_asleep(mm, hold, page, access) } else { resolve(mm, hold, page, access) }
}

/// With a hold on the mapping: the kinds of faults.
fn resolve<'m, P: Platform, L: Locking>(
    mm: &'m Mm<P, L>,
    hold: &impl Stable<P, L>,
    page: u64,
    access: Access,
) -> Resolved<'m, P> {
    let attr = hold.vma().attr();
    if !access.allowed_by(attr.in_mmu()) {
        return Err(Failed::Denied(Denied::Protected));
    }
    let spot = mm.table.spot(mm.platform(), page, hold.spares(), || attr.flags.has(Flags::LOCKED));
    if let Some(slot) = spot.away() {
        return swap::fault(mm, hold, &spot, slot);
    }
    match (spot.seen(), &attr.backing) {
        (Some(pte), _) if access.allowed_by(pte.prot) => Ok(Done::Spurious),
        #[cfg(feature = "file")]
        (Some(pte), Backing::File(file, _)) if attr.is_shared() => file::make_writable(mm, hold, file, &spot, pte),
        (Some(pte), _) => cow::make_writable(mm, hold, &spot, pte),
        (None, Backing::Anon(_)) => anon::fault(mm, hold, &spot, access),
        #[cfg(feature = "file")]
        (None, Backing::File(file, _)) => file::fault(mm, hold, file, &spot, access),
        (None, Backing::Never(never, _)) => match *never {},
    }
}

/// Sees to it that the mapping has an anonymous identity before its first private page.
#[inline]
fn identify<P: Platform, L: Locking>(mm: &Mm<P, L>, hold: &impl Stable<P, L>) -> Result<(), Failed<'static, P>> {
    if identity::ensure(mm, hold) { Ok(()) } else { Err(Failed::Stale) }
}

/// What a fault installs where the page is the mapping's own.
fn own(frame: crate::FrameId, prot: crate::Prot) -> Pte {
    Pte::new(frame, prot).dirtied()
}
