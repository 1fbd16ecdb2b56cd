//! Waiting for a page that is being read, with the hold dropped or kept.
//!
//! **Guarantee.** Where an address space says [`Waiting::Hold`], a fault that may sleep reads its page once, unless it had to let
//! go for something else: a change that was noticed, a lock that was not free, a flush, memory that there was not. Neither does a
//! change that the hold keeps out come in between, nor does the page leave memory again. Nothing is waited for with a hold but
//! the end of that read, and of what somebody does to the page's slot (a write; an evictor, or a fault, that has claimed it): no
//! lock, no grace period, no memory.
//!
//! **Mechanism.** Only [`Mm::fault_and_wait`] sleeps. A fault that has found its page being read comes again ([`fault_asleep`]),
//! takes a hold anew, sleeps where it is ([`resolve_asleep`]), and then resolves with that same hold. All the while there is a
//! token, whose page no one takes out of the cache. Whether the hold was good while it slept is asked at once, and under the
//! table's lock as ever: where a design notices changes instead of keeping them out, the fault starts anew. What a read section
//! is part of cannot be slept with: then the hold is the slow way's, which is a share of the address space's lock. So a fault
//! that never sleeps is what it is without all this.
//!
//! So waits cannot form a circle: a change waits for a hold, the hold for a store, and the store, which completes from anywhere
//! and without a lock of ours, for nothing here. One edge more would close it. A lock is what a change has that waits for the
//! hold; so whoever wants one has dropped his hold. (Who has claimed a slot spins for locks of tables and lists, and for flushes:
//! whoever has those waits for no hold.) A grace period may wait for a section of whoever waits for that lock, and tables come
//! home by one; so memory is waited for with nothing too. (That the sections of `SpfSrcu` last as long as their holds delays the
//! memory of its old mappings, for which nobody waits.)

use super::{Denied, Failed, Outcome, Resolved};
use crate::addr::{Access, Range};
use crate::locking::{Locking, Slowly, Stable};
use crate::mm::Mm;
use crate::paging::Spares;
use crate::platform::Platform;
use crate::vma::{Attr, Vma};
use crate::wait::Token;
use spile_sync::seeded;

/// What a fault that may sleep does with its hold while its page is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Waiting {
    /// Drops it, and starts anew; of the page alone it keeps hold. A change waits for no read; a fault may have to read again where a read fails of which
    /// another is told.
    #[default]
    Drop,
    /// Keeps it, and goes on. A fault fails at the first read that does and was asked for, unless it had to let go for something else; a change that the hold keeps out waits for the
    /// read, and others for the change: changes, and faults that do not get a hold without the lock.
    Hold,
}

/// The kinds of faults that wait for a page that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A page of a file is mapped, also if that was away, in a slot.
    File,
    /// A page of a file is copied for a private mapping.
    FileCopy,
    /// A private page that is away, in a slot, comes back.
    Swap,
}

impl FaultKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::File, Self::FileCopy, Self::Swap];

    /// What an access to a page of a mapping is, where its entry is empty.
    pub(super) fn of<P: Platform>(attr: &Attr<P>, access: Access) -> Self {
        if access == Access::Write && !attr.is_shared() { Self::FileCopy } else { Self::File }
    }
}

/// An answer for each kind.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Policy([Waiting; FaultKind::ALL.len()]);

impl Policy {
    fn may_hold(&self) -> bool {
        self.0.contains(&Waiting::Hold)
    }

    fn of(&self, kind: FaultKind) -> Waiting {
        self.0[kind as usize]
    }
}

impl<P: Platform, L: Locking> Mm<P, L> {
    /// What faults of this kind do with their holds while they wait, in [`fault_and_wait`](Self::fault_and_wait) and whatever goes by that.
    pub fn waiting(&self, kind: FaultKind) -> Waiting {
        self.waiting.of(kind)
    }

    /// From now on faults of this kind do so; a fork's child does as its parent. [`Waiting::Drop`] unless told. With [`Waiting::Hold`] a
    /// store must be able to complete reads while changes of this address space wait: who completes them must neither have to make one nor have to
    /// fault there, for a fault may wait for a change.
    pub fn set_waiting(&mut self, kind: FaultKind, waiting: Waiting) {
        self.waiting.0[kind as usize] = waiting;
    }
}

/// A fault whose caller may sleep. If its page is being read, and the address space says so, it comes again with a hold to sleep with. What else it
/// waits for is its caller's. May sleep.
pub(crate) fn fault_asleep<P: Platform, L: Locking>(mm: &Mm<P, L>, at: u64, access: Access) -> Outcome<'_, P> {
    match mm.fault(at, access) {
        Outcome::Wait(first) if first.page().is_some() && mm.waiting.may_hold() => again(mm, at, access, first),
        outcome => outcome,
    }
}

/// Until there is another token the `first` keeps the page.
#[cold]
#[inline(never)]
fn again<'m, P: Platform, L: Locking>(mm: &'m Mm<P, L>, at: u64, access: Access, first: Token<'m, P>) -> Outcome<'m, P> {
    let _first = (!seeded!("retry-without-the-page")).then_some(first);
    super::fault::<_, _, true>(mm, at, access)
}

/// As [`resolve`](super::resolve), and if the page is being read, and the address space says so, sleeps with the hold until it is, and resolves
/// again. With a hold that cannot be slept with it does nothing. May sleep.
#[cold]
pub(super) fn resolve_asleep<'m, P: Platform, L: Locking, H: Stable<P, L>>(
    mm: &'m Mm<P, L>,
    hold: &H,
    page: u64,
    access: Access,
) -> Resolved<'m, P> {
    if !H::MAY_SLEEP {
        while seeded!("hold-through-a-lock-wait")
            && let Slowly::Wait(token) = L::stabilise(mm, page)
        {
            token.wait();
        }
        return Err(Failed::Stale);
    }
    let hold = Slept(hold);
    // As long as the token is there the page is.
    let mut slept: Option<(Token<'_, P>, u64)> = None;
    let backing = &hold.0.vma().attr().backing;
    loop {
        // Before a read is found: what is told of that comes after.
        let told = backing.told();
        let is_away = mm.table.spot(mm.platform(), page, None, || false).away().is_some();
        let kind = if is_away { FaultKind::Swap } else { FaultKind::of(hold.vma().attr(), access) };
        let token = match super::resolve(mm, &hold, page, access) {
            Err(Failed::Wait(token)) if mm.waiting(kind) == Waiting::Hold => token,
            resolved => return resolved,
        };
        let is_told = |(slept, since): (Token<'_, P>, u64)| {
            let was_told = || backing.was_told(hold.vma().page_at(page), since) || seeded!("another-read-is-a-failure");
            slept.page().is_some() && slept.page() != token.page() && was_told()
        };
        if kind != FaultKind::Swap && slept.is_some_and(is_told) && !seeded!("wait-for-another-read") {
            // It is read anew, and could not be read, of which somebody else was told. (If nobody was, nobody had asked for that read, or the file has lost it. A page that was
            // away may have been written since, and gone again: its copy is not this token's.)
            return Err(Failed::Denied(Denied::Bus));
        }
        token.wait();
        // What is under the lock of a table would be noticed there; but nobody shall read for a mapping that is gone, or refuse by it.
        if !hold.still_valid() {
            return Err(Failed::Stale);
        }
        slept = Some((token, told)).filter(|_| !seeded!("retry-without-the-page"));
    }
}

/// A hold that is slept with. Of its own type, so that what is made of the usual way to resolve for [`Mm::fault`] has no other caller, and is inlined.
struct Slept<'h, H>(&'h H);

impl<P: Platform, L: Locking, H: Stable<P, L>> Stable<P, L> for Slept<'_, H> {
    const MAY_SLEEP: bool = H::MAY_SLEEP;

    fn vma(&self) -> &Vma<P, L> {
        self.0.vma()
    }

    fn range(&self) -> Range {
        self.0.range()
    }

    fn still_valid(&self) -> bool {
        self.0.still_valid() || seeded!("held-unasked")
    }

    fn spares(&self) -> Option<&Spares<'_, P>> {
        self.0.spares()
    }

    fn beside<T>(&self, mm: &Mm<P, L>, at: u64, see: impl FnOnce(Option<&Vma<P, L>>) -> T) -> T {
        self.0.beside(mm, at, see)
    }
}
