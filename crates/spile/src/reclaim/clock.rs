//! Room in a space that is at its limit.
//!
//! **Guarantee.** At its limit a fault waits until another page of the space has left, and is refused when none could, several times in a row. What leaves does so for all who
//! show it, as by any evictor. Nothing here sleeps.
//!
//! **Mechanism.** A clock: a hand goes round over the space's own tables. What was used since it came by stays once more. There are no lists, so a space pays for its
//! limit when it is there. (A second hand half a round ahead, as BSD had it, saves no misses on random, looping and skewed accesses, for half as many looks again.)

use super::evict::Reclaimed;
use super::lru::BATCH;
use super::sealed::Freeing;
use super::{Pressed, Reclaimer, is_refused};
use crate::addr::FrameId;
use crate::paging::PageTable;
use crate::wait;
use spile_sync::atomic::Ordering;
use spile_sync::seeded;

/// How often each page is looked at, at most, until it is said that none can leave: used, not used and dirty, clean; and once more for what came in between.
const ROUNDS: u64 = 4;

/// So many pages are few.
const FEW: u64 = 4 * BATCH as u64;

impl<P: Pressed> Reclaimer<P> {
    /// From now on a space may show `most` pages: lets those go that are too many.
    pub(crate) fn limit(&self, p: &P, tables: &PageTable<P>, most: u64) -> Reclaimed {
        tables.residents().set_limit(most);
        self.shrink(p, tables, most)
    }

    /// Lets pages of a space go until it shows `most`, if they can.
    pub(crate) fn shrink(&self, p: &P, tables: &PageTable<P>, most: u64) -> Reclaimed {
        self.shrink_to(p, tables, most).0
    }

    /// The same; and how many pages are on their way, by whoever writes them.
    fn shrink_to(&self, p: &P, tables: &PageTable<P>, most: u64) -> (Reclaimed, usize) {
        let residents = tables.residents();
        let mut elsewhere = 0;
        let done = self.evicting(p, |done| {
            let mut looks = ROUNDS * residents.shown();
            while looks > 0 {
                let too_many = residents.shown().saturating_sub(most).min(looks);
                let mut pages = [None; BATCH];
                let found = self.advance(p, tables, &mut pages[..BATCH.min(too_many as usize)]);
                if found == 0 {
                    break;
                }
                looks -= found as u64;
                elsewhere += self.batch(p, pages, seeded!("no-second-chance-at-the-limit"), done);
            }
        });
        (done, done.writing + elsewhere)
    }

    /// The next pages that the hand comes by; how many there are.
    fn advance(&self, p: &P, tables: &PageTable<P>, pages: &mut [Option<FrameId>]) -> usize {
        let hand = &tables.residents().hand;
        loop {
            // Relaxed: a hint.
            let from = hand.load(Ordering::Relaxed);
            let (found, to) = tables.next_pages(p, from, pages);
            // Else another came by the same pages.
            if hand.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return found;
            }
        }
    }

    /// Makes room in a space that is at its limit, or starts to.
    pub(super) fn free_room(&self, p: &P, tables: &PageTable<P>) -> Freeing {
        let residents = tables.residents();
        let limit = residents.limit();
        let mut on_their_way = 0;
        if residents.is_full() {
            // Of few pages all who want room look at the same, and who looks at one has a hold on it, with which it does not leave: one at a time then.
            let moment = p.shared().moment(self.thing());
            let maker = residents.maker.try_lock();
            if maker.is_none() && limit <= FEW {
                return Freeing::UnderWay(moment);
            }
            on_their_way = self.shrink_to(p, tables, limit - limit.min((limit / 8).clamp(1, BATCH as u64))).1;
            // However few they are by now: who found it locked may have seen another limit.
            if maker.map(drop).is_some() {
                wait::happened(p, self.thing());
            }
        }
        if !residents.is_full() {
            residents.fruitless.store(0, Ordering::Relaxed);
            return Freeing::Done;
        }
        if on_their_way == 0 || seeded!("refuse-beside-a-write") {
            residents.fruitless.fetch_add(1, Ordering::Relaxed);
            p.relax();
            return Freeing::Nothing;
        }
        // As in `free_some`: before it is asked what is under way, and after the end of what was done here.
        let moment = p.shared().moment(self.thing());
        match self.is_under_way() {
            true if seeded!("room-after-the-word") => Freeing::UnderWay(p.shared().moment(self.thing())),
            true => Freeing::UnderWay(moment),
            // It is over already, or will be in a moment.
            false => {
                p.relax();
                Freeing::Done
            }
        }
    }

    /// Whether there may be room soon, in a space that had none.
    pub(super) fn has_room_soon(&self, p: &P, tables: &PageTable<P>) -> bool {
        !is_refused(&tables.residents().fruitless, || self.free_room(p, tables) != Freeing::Nothing)
    }
}
