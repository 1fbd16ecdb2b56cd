//! Pages go to slots: what the core asks of a host that is [`Pressed`].
//!
//! **Guarantee.** What is asked under a table's lock waits for nothing, and allocates nothing.
//!
//! **Mechanism.** Each is a line or two about the record of a frame, the word of a slot, or the spaces. A [`Reclaimer`] that is idle is asked nothing.

#[cfg(feature = "file")]
use super::links::{Link, Links};
use super::residents::Residents;
use super::sealed::{Advice, Freeing, Reclaim};
use super::{Policy, Pressed, ToSwap, is_over, is_refused};
use crate::addr::{FrameId, Prot, Range, Slot, SpaceId};
use crate::backing::InSlot;
#[cfg(feature = "file")]
use crate::backing::{File, Unwritten};
use crate::frame;
use crate::paging::{PageTable, Pte};
use crate::wait::Token;
use alloc::sync::Arc;
#[cfg(feature = "file")]
use spile_sync::atomic::Ordering;
use spile_sync::seeded;

impl<P: Pressed> Reclaim<P> for ToSwap {
    const KEEPS: bool = true;
    type Seen = Option<Slot>;
    type Keeps = bool;
    type Residents = Residents;
    type Tables = Arc<PageTable<P>>;

    fn seen(p: &P, raw: u64) -> Option<Slot> {
        p.decode_slot(raw)
    }

    fn slot(seen: Option<Slot>) -> Option<Slot> {
        seen
    }

    fn keeps(keeps: impl FnOnce() -> bool) -> bool {
        keeps()
    }

    fn is_kept(keeps: bool) -> bool {
        keeps
    }

    fn is_still(p: &P, seen: Option<Slot>, raw: u64) -> bool {
        p.decode_slot(raw) == seen
    }

    fn keep(p: &P, tables: PageTable<P>, parent: Option<SpaceId>) -> Arc<PageTable<P>> {
        let tables = Arc::new(tables);
        p.reclaimer().spaces.join(p, &tables, parent);
        tables
    }

    fn leave(p: &P, tables: &Arc<PageTable<P>>) {
        if !seeded!("exit-in-silence") {
            p.reclaimer().spaces.leave(p, tables.space());
            tables.close(p);
        }
        // Whoever found them before may not have told all CPUs yet of what it took away.
        loop {
            let token = Token::for_thing(p, tables.flush_thing());
            if !tables.is_unflushed() || seeded!("exit-before-the-flush") {
                break;
            }
            token.wait();
        }
    }

    fn charge(p: &P, residents: &Residents) -> bool {
        p.reclaimer().is_idle() || residents.charge(p.cpu())
    }

    fn charge_anyway(p: &P, residents: &Residents) {
        if !p.reclaimer().is_idle() {
            residents.charge_anyway(p.cpu());
        }
    }

    fn uncharge(p: &P, residents: &Residents) {
        if !p.reclaimer().is_idle() {
            residents.uncharge(p.cpu());
        }
    }

    fn inherit(parent: &Residents, child: &Residents) {
        child.set_limit(parent.limit());
    }

    fn shows_none(residents: &Residents) -> bool {
        residents.shown() == 0
    }

    fn begins(p: &P, frame: FrameId) {
        if !p.reclaimer().is_idle() {
            p.record(frame).forget();
        }
    }

    fn comes(p: &P, space: SpaceId, frame: FrameId, at: u64) {
        if !p.reclaimer().is_idle() {
            p.record(frame).belongs(space, at);
            p.reclaimer().policy.arrive(p, frame);
        }
    }

    fn returns(p: &P, tables: &PageTable<P>, frame: FrameId, at: u64, is_sole: bool) {
        let reclaimer = p.reclaimer();
        if reclaimer.is_idle() {
            return;
        }
        let record = p.record(frame);
        if is_sole {
            record.belongs(tables.space(), at);
        } else if !record.is_private() {
            // Any of the family may have it: all descend from its founder.
            let founder = reclaimer.spaces.founder(p, tables.space());
            record.belongs(founder.unwrap_or(tables.space()), at);
        }
        reclaimer.policy.arrive(p, frame);
    }

    fn moved(p: &P, space: SpaceId, pte: Pte, at: u64) {
        // What may be written nobody else shows. Of a page that is shared the others have an entry at the old address.
        let is_own = || pte.prot.has(Prot::W) || frame::meta(p, pte.frame).refs() == 1;
        if !p.reclaimer().is_idle() && p.record(pte.frame).is_private() && is_own() {
            p.record(pte.frame).belongs(space, at);
        }
    }

    fn share(p: &P, slot: Slot) {
        p.reclaimer().area.share(slot);
    }

    fn give_up(p: &P, slot: Slot) {
        p.reclaimer().area.give_up(p, slot);
    }

    fn find(p: &P, slot: Slot) -> InSlot<'_, P> {
        let reclaimer = p.reclaimer();
        reclaimer.area.find(p, slot, |frame| reclaimer.read_begins(p, slot, frame))
    }

    fn read_ahead(p: &P, tables: &PageTable<P>, at: u64, range: Range) {
        p.reclaimer().read_ahead(p, tables, at, range);
    }

    #[cfg(feature = "file")]
    fn read_slot_ahead(p: &P, slot: Slot) {
        p.reclaimer().read_slot_ahead(p, slot);
    }

    fn can_spare(p: &P, pages: u64) -> bool {
        p.reclaimer().can_spare(p, pages)
    }

    fn tell_unreadable(p: &P, slot: Slot) -> bool {
        p.reclaimer().area.tell_unreadable(slot)
    }

    fn still_has(p: &P, slot: Slot, frame: FrameId) -> bool {
        p.reclaimer().area.still_has(slot, frame)
    }

    fn is_sole(p: &P, slot: Slot, frame: FrameId) -> bool {
        let area = &p.reclaimer().area;
        // In this order. Once the caller's is the only entry nobody can show the frame who does not yet. Those who do are counted, beside the slot's
        // hold and the caller's; if the slot had given its own up by then, it has the frame no more.
        let is_alone = || frame::meta(p, frame).refs() == 2 || seeded!("sole-in-the-slot-alone");
        area.is_last(slot) && is_alone() && area.still_has(slot, frame)
    }

    fn has_relief(p: &P) -> bool {
        let reclaimer = p.reclaimer();
        if reclaimer.is_idle() || seeded!("refuse-without-reclaim") {
            return false;
        }
        if is_over(&reclaimer.failed) {
            // A device is broken. What it has not to do with may be behind.
            return reclaimer.reclaim(p, usize::MAX).freed > 0;
        }
        // What was found by others, a while ago, is no reason.
        !is_refused(&reclaimer.fruitless, || Self::free_some(p) != Freeing::Nothing)
    }

    fn advise(p: &P, tables: &PageTable<P>, range: Range, advice: Advice) {
        if !p.reclaimer().is_idle() {
            p.reclaimer().advise(p, tables, range, advice);
        }
    }

    fn free_some(p: &P) -> Freeing {
        p.reclaimer().free_some(p)
    }

    fn has_room_soon(p: &P, tables: &PageTable<P>) -> bool {
        p.reclaimer().has_room_soon(p, tables)
    }

    fn free_room(p: &P, tables: &PageTable<P>) -> Freeing {
        p.reclaimer().free_room(p, tables)
    }

    #[cfg(feature = "file")]
    type Links = Links<P>;
    #[cfg(feature = "file")]
    type Link = Option<Arc<Link<P>>>;

    #[cfg(feature = "file")]
    fn opened(p: &P, file: &File<P>) {
        p.reclaimer().files.add(p, file.id(), Arc::new(file.downgrade()));
    }

    #[cfg(feature = "file")]
    fn closed(p: &P, file: u64) {
        p.reclaimer().files.remove(p, file);
    }

    #[cfg(feature = "file")]
    fn link(
        p: &P,
        tables: &Arc<PageTable<P>>,
        range: Range,
        file: &File<P>,
        page: u64,
        old: Option<&Self::Link>,
    ) -> Option<Self::Link> {
        if let Some(Some(old)) = old {
            file.links().widen(p, old, range, page);
            return Some(Some(Arc::clone(old)));
        }
        let link = Arc::new(Link::new(tables, range, page));
        file.links().add(p, &link).then_some(Some(link))
    }

    #[cfg(feature = "file")]
    fn of_file(p: &P, frame: FrameId, file: u64, page: u64) {
        if !p.reclaimer().is_idle() {
            p.record(frame).is_page(file, page);
        }
    }

    #[cfg(feature = "file")]
    fn take(p: &P, slot: Slot, frame: FrameId, takes: impl FnOnce() -> bool) -> Result<bool, Token<'_, P>> {
        let taken = p.reclaimer().area.take(p, slot, frame, takes)?;
        if taken {
            p.reclaimer().policy.arrive(p, frame);
        }
        Ok(taken)
    }

    #[cfg(feature = "file")]
    fn transfer_begins(p: &P) {
        // Relaxed: a number; who waits for its end is told of that.
        p.reclaimer().moving.fetch_add(1, Ordering::Relaxed);
    }

    #[cfg(feature = "file")]
    fn read_ends(p: &P, frame: Option<FrameId>) {
        p.reclaimer().has_moved(p, frame);
    }

    #[cfg(feature = "file")]
    fn write_ends(p: &P, frame: FrameId, ok: bool) {
        if ok {
            // It can go now.
            p.reclaimer().has_freed();
        } else {
            p.reclaimer().failed.fetch_add(1, Ordering::Relaxed);
        }
        p.reclaimer().has_moved(p, Some(frame));
    }

    #[cfg(feature = "file")]
    fn flush(_: &P, file: &File<P>, pages: core::ops::Range<u64>) -> Result<(), Unwritten> {
        file.flush(pages)
    }
}
