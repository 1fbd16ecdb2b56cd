//! What the program is shown: the kernel's tables, changed with the core's.
//!
//! **Guarantee.** Under the lock of the core's table the kernel shows at an address the frame that the entry says, writable if the entry is, or nothing; or what
//! an evictor has just taken out of the entry, protected.
//!
//! **Mechanism.** To show is to copy from the stash, to hide is to move back there. A page that is there already is protected, or not, where it is.

use super::Host;
use super::frames::ZERO_PAGE;
use super::place::Where;
use crate::{Cause, Engine, PAGE};
use spile::paging::Pte;
use spile::{Mmu, Prot, Range, Refused, SpaceId};
use std::thread::yield_now;

/// Why a page was not moved.
enum Unmoved {
    /// Somebody besides the program has it, for a moment or for long.
    InUse,
    /// The kernel does not, or not this one.
    Never,
}

/// How often the kernel is asked for a page that somebody else has for a moment.
const PATIENCE: u32 = 1000;

/// What of an entry the kernel is told: pages that may be read.
fn shown(pte: Option<Pte>) -> Option<Pte> {
    pte.filter(|pte| pte.prot != Prot::NONE)
}

impl Host {
    /// Shows the page of `new` at `at`, where the core shows nothing.
    fn show(&self, at: u64, new: Pte) -> Result<(), Refused> {
        let is_protected = !new.prot.has(Prot::W);
        let place = &self.0.places[new.frame.0 as usize];
        let from = match place.get() {
            // An evictor has let go of it, and it is wanted.
            Where::Shown { at: there, is_protected: was } if there == at => {
                self.0.left.remove(at, new.frame.0);
                if was != is_protected {
                    self.protect(at, new, is_protected);
                }
                return Ok(());
            }
            // At another address too: there is but one page.
            Where::Shown { .. } => return Err(Refused::NoMemory),
            Where::Nowhere | Where::Zeros => ZERO_PAGE.at(),
            Where::Stash(slot) => self.0.stash.at(slot),
        };
        // What has left is dropped first, or is about to be. Under the lock of the table nothing else comes to be left here.
        if self.0.left.find(at).is_some() && !self.0.leaving.drop_at(at, &self.0) {
            return Err(Refused::Busy);
        }
        // SAFETY: (1) who misses the page waits for this; (2) what is in the stash is written by who has the frame alone.
        let mut copied = unsafe { self.0.uffd.copy(at, from, PAGE, is_protected) };
        if let (Err(stopped), Some(shares)) = (copied, &self.0.shares)
            && stopped.cause() == Cause::PageThere
        {
            // SAFETY: (1) and (2) as above, and nothing of the region's is there: that was left, and is gone.
            copied = unsafe { shares.take_over(at, from, is_protected, &self.0.uffd) };
        }
        match copied.map_err(|stopped| (stopped, stopped.cause())) {
            Ok(()) => {
                self.is_shown(at, new, is_protected);
                Ok(())
            }
            // The kernel's, of a mapping that a program has put here.
            Err((_, Cause::PageThere)) => Err(Refused::Busy),
            Err((_, Cause::NoMemory)) => Err(Refused::NoMemory),
            Err((stopped, _)) => crate::report::abort(format_args!("{stopped}")),
        }
    }

    /// The page of `new` was copied to `at`.
    fn is_shown(&self, at: u64, new: Pte, is_protected: bool) {
        if new.frame == super::ZEROS {
            return;
        }
        let place = &self.0.places[new.frame.0 as usize];
        let before = place.get();
        place.set(Where::Shown { at, is_protected });
        self.0.vacate(before);
    }

    /// In which slot of the stash the page of `new` is.
    fn slot(&self, new: Pte) -> Option<u32> {
        match self.0.places[new.frame.0 as usize].get() {
            Where::Stash(slot) => Some(slot),
            _ => None,
        }
    }

    /// Shows the first of `pages` by one call, as far as they are adjacent there and here. How many.
    fn show_run(&self, pages: &[(u64, Pte)]) -> usize {
        let Some(((at, first), slot)) = pages.first().and_then(|first| Some((*first, self.slot(first.1)?))) else { return 0 };
        let is_protected = !first.prot.has(Prot::W);
        let is_next = |n: usize, (there, new): &(u64, Pte)| {
            let is_adjacent = *there == at + n as u64 * PAGE && self.slot(*new) == Some(slot + n as u32);
            is_adjacent && new.prot.has(Prot::W) != is_protected && self.0.left.find(*there).is_none()
        };
        let count = pages.iter().enumerate().take_while(|(n, page)| is_next(*n, page)).count();
        // SAFETY: (1) and (2) as in `show`, of each.
        let copied = unsafe { self.0.uffd.copy(at, self.0.stash.at(slot), count as u64 * PAGE, is_protected) };
        // What stopped it the next look will tell.
        let count = copied.map_or_else(|stopped| (stopped.done() / PAGE) as usize, |()| count);
        pages[..count].iter().for_each(|(at, new)| self.is_shown(*at, *new, is_protected));
        count
    }

    /// Takes away what is shown at `at`: its bytes are in the stash then.
    fn hide(&self, at: u64, old: Pte) {
        if old.frame == super::ZEROS {
            // SAFETY: (1) a copy of zeros.
            return unsafe { self.0.drop_shown(&mut [at]) };
        }
        let place = &self.0.places[old.frame.0 as usize];
        debug_assert!(matches!(place.get(), Where::Shown { at: there, .. } if there == at), "{:?} at {at:#x}", place.get());
        place.leave();
        let slot = self.move_away(at, PATIENCE).unwrap_or_else(|_| self.copy_away(at));
        place.set(Where::Stash(slot));
    }

    /// The same of a page that the program may write, and that may leave: not if somebody besides the program has it, who may write it too.
    fn move_out(&self, at: u64, old: Pte) -> Result<(), Refused> {
        let place = &self.0.places[old.frame.0 as usize];
        let shown = place.get();
        place.leave();
        match self.move_away(at, 1) {
            Ok(slot) => place.set(Where::Stash(slot)),
            Err(Unmoved::InUse) => {
                place.set(shown);
                return Err(Refused::Busy);
            }
            Err(Unmoved::Never) => {
                place.set(shown);
                self.protect(at, old, true);
                self.0.left.add(at, old.frame.0);
            }
        }
        Ok(())
    }

    /// Moves what is shown at `at` to the stash: to which slot. Asks the kernel so often.
    fn move_away(&self, at: u64, patience: u32) -> Result<u32, Unmoved> {
        if self.0.engine != Engine::Move {
            return Err(Unmoved::Never);
        }
        let slot = self.0.stash.shelter(&self.0.advised);
        let mut unmoved = Unmoved::InUse;
        for _ in 0..patience {
            // SAFETY: (1) whoever wants the page faults, and waits for the table's lock; the shelter is this thread's.
            match unsafe { self.0.uffd.move_pages(self.0.stash.at(slot), at, PAGE) } {
                Ok(()) => return Ok(slot),
                // Somebody reads or writes it, past the page cache of a disk; or has it for long.
                Err(stopped) if stopped.cause() == Cause::Shared => yield_now(),
                // The program has locked it.
                Err(stopped) if stopped.cause() == Cause::NotRegistered => {
                    unmoved = Unmoved::Never;
                    break;
                }
                Err(stopped) => crate::report::abort(format_args!("{stopped}")),
            }
        }
        self.0.stash.return_shelter(slot);
        Err(unmoved)
    }

    /// The same, where the kernel does not: what others write to it from now on, who have it beside the program, is lost.
    fn copy_away(&self, at: u64) -> u32 {
        let slot = self.0.must_have(self.0.stash.buffer(&self.0.uffd));
        // SAFETY: (1) who writes it from now on faults, and waits; (2) it is there, and nobody else takes it away; the slot is this thread's.
        unsafe {
            self.0.uffd.protect(at, PAGE, true).unwrap_or_else(|stopped| crate::report::abort(format_args!("{stopped}")));
            let shown = Where::Shown { at, is_protected: true };
            self.0.copy_from(shown, 0, self.0.stash.at(slot) as *mut u8, PAGE as usize);
            self.0.drop_shown(&mut [at]);
        }
        slot
    }

    /// Lets the program write what is shown at `at`, or not.
    fn protect(&self, at: u64, pte: Pte, is_protected: bool) {
        // SAFETY: (1) who writes a protected page faults, and waits for the table's lock.
        if let Err(stopped) = unsafe { self.0.uffd.protect(at, PAGE, is_protected) } {
            crate::report::abort(format_args!("{stopped}"));
        }
        self.0.places[pte.frame.0 as usize].protect(is_protected);
    }

    fn change(&self, at: u64, old: Option<Pte>, new: Option<Pte>) -> Result<(), Refused> {
        match (shown(old), shown(new)) {
            (Some(old), Some(new)) if old.frame == new.frame => {
                // The kernel is told of reads and writes alone.
                if old.prot.has(Prot::W) != new.prot.has(Prot::W) {
                    self.protect(at, new, !new.prot.has(Prot::W));
                }
                Ok(())
            }
            (None, new) => new.map_or(Ok(()), |new| self.show(at, new)),
            (Some(old), new) => {
                self.hide(at, old);
                // Now it cannot be refused any more. Nothing is in its way.
                while new.is_some_and(|new| self.show(at, new).is_err()) {
                    yield_now();
                }
                Ok(())
            }
        }
    }
}

// SAFETY: (1) the format is the core's; (2) the kernel flushes before a move, a protection or a drop is over; what an evictor takes away stays to be read, as `leave` lets it, and no page
// of a file is shown twice.
unsafe impl Mmu for Host {
    type Flush = ();

    unsafe fn admit(&self, _: SpaceId, at: u64, old: Option<Pte>, new: Pte) -> Result<(), Refused> {
        self.change(at, old, Some(new))
    }

    unsafe fn admit_around(&self, _: SpaceId, pages: &[(u64, Pte)]) -> usize {
        let mut done = 0;
        while let Some((at, new)) = pages.get(done) {
            done += match self.show_run(&pages[done..]) {
                0 if self.change(*at, None, Some(*new)).is_err() => return done,
                0 => 1,
                shown => shown,
            };
        }
        done
    }

    unsafe fn commit(&self, _: SpaceId, at: u64, old: Option<Pte>, new: Option<Pte>) {
        // What comes back after it was moved is in the stash; what is in its way is about to go.
        while self.change(at, old, new).is_err() {
            yield_now();
        }
    }

    unsafe fn leave(&self, _: SpaceId, at: u64, old: Pte) -> Result<(), Refused> {
        let Some(old) = shown(Some(old)) else { return Ok(()) };
        if self.0.pins.has(old.frame) {
            return Err(Refused::Busy);
        }
        if old.frame == super::ZEROS {
            self.hide(at, old);
        } else if old.prot.has(Prot::W) {
            // Who has it pinned for input writes it still: that is known of pages that are moved.
            return self.move_out(at, old);
        } else {
            self.0.left.add(at, old.frame.0);
        }
        Ok(())
    }

    unsafe fn clean(&self, _: SpaceId, at: u64, old: Pte, new: Pte) -> Result<(), Refused> {
        if self.0.pins.is_written(old.frame) { Err(Refused::Busy) } else { self.change(at, Some(old), Some(new)) }
    }

    fn issue(&self, _: SpaceId, _: Range) {}
}
