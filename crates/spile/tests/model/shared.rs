//! Shared memory, which comes from no store: pages that were written go to a slot and come back, beside whoever uses them.
//!
//! **Guarantee.** What is stored last is what is read, through whatever mapping; what is lost is in no slot; nobody waits for ever.
//!
//! **Mechanism.** A file of two pages and one slot. Where transfers take time, somebody who sleeps completes them, or a thread of its own.

use super::files::{file, is_lost};
use super::host::{PLAIN, Setting};
use super::reclaim::{ends_badly, ends_well, one_is_told, reclaim, reclaims, slowly, store};
use super::store::{map_file, open_nameless};
use super::swap::Swap;
use super::{Race, Side, Space, at, page};
use spile::reclaim::Pressed as _;
use spile::reclaim::Reclaimed;
use spile::{Access, Denied, Locking, PAGE, Prot};

/// One slot.
const SLOT: Setting = Setting { frames: 14, swap: 1, ..PLAIN };

/// CPUs 0 and 1 cache translations.
const CACHED: Setting = Setting { caching: 2, ..SLOT };

/// A page with 7 in it.
fn written<L: Locking>(s: &mut Space<L>) {
    open_nameless(s);
    map_file(s, page(0), 0);
    s.store(at(0), 7).unwrap();
}

/// The same, away.
fn away<L: Locking>(s: &mut Space<L>) {
    written(s);
    assert_eq!(reclaim(s), Reclaimed { freed: 1, writing: 0 });
}

/// The same, being written to its slot.
fn being_written<L: Locking>(s: &mut Space<L>) {
    written(s);
    store(s).set_slow(true);
    assert_eq!(reclaim(s), Reclaimed { freed: 0, writing: 1 });
    store(s).set_slow(false);
}

/// The same, which could not be written to its slot, and is in memory.
fn in_a_slot_and_here<L: Locking>(s: &mut Space<L>) {
    being_written(s);
    ends_badly(s);
}

fn stores<L: Locking>(s: &Space<L>) {
    s.put(at(0), 9).unwrap();
}

fn has_nine<L: Locking>(s: &Space<L>) {
    assert_eq!(s.get(at(0)), Ok(9));
}

/// Two beside each other, either of them first. Where many spin a preemption more makes too many ways: each reads what was there before, or not.
fn either_first<L: Locking>(preemptions: usize, before: fn(&mut Space<L>), mut sides: Vec<Side<L>>, after: Side<L>) {
    for _ in 0..2 {
        Race { setting: SLOT, preemptions, before, sides: sides.clone(), after }.run();
        sides.reverse();
    }
}

fn out_and_write<L: Locking>() {
    either_first::<L>(1, written, vec![reclaims, stores], has_nine);
}

/// A program that writes on, by the translation that its CPU has, until it is told to forget.
fn out_and_program<L: Locking>() {
    let stores: Side<L> = |s| {
        s.store(at(0), 8).unwrap();
        s.store(at(0), 9).unwrap();
    };
    for sides in [vec![reclaims, stores], vec![stores, reclaims]] {
        Race { setting: CACHED, preemptions: 2, before: written, sides, after: has_nine }.run();
    }
}

fn out_and_cut<L: Locking>() {
    let cuts: Side<L> = |s| file(s).truncate(0);
    for before in [written as fn(&mut Space<L>), in_a_slot_and_here] {
        either_first::<L>(2, before, vec![reclaims, cuts], |s| {
            is_lost(s, 0);
            assert_eq!(s.host.reclaimer().area().used(), 0, "lost, and in a slot");
            file(s).extend(PAGE);
            assert_eq!(s.get(at(0)), Ok(0));
        });
    }
}

fn in_and_cut<L: Locking>() {
    let (cuts, fetches): (Side<L>, Side<L>) =
        (|s| file(s).truncate(0), |s| assert!([Ok(7), Ok(0), Err(Denied::Bus)].contains(&s.get(at(0)))));
    either_first::<L>(2, away, vec![cuts, fetches], |s| {
        is_lost(s, 0);
        assert_eq!(s.host.reclaimer().area().used(), 0, "lost, and in a slot");
    });
}

/// Two fetch it, of whom one stores.
fn both_fetch<L: Locking>() {
    let reads: Side<L> = |s| _ = s.fault(at(0), Access::Read).unwrap();
    let slow: fn(&mut Space<L>) = |s| {
        away(s);
        slowly(s, true);
    };
    for before in [away, slow] {
        either_first::<L>(1, before, vec![stores, reads], |s| {
            has_nine(s);
            assert_eq!(store(s).begun().0, 1, "it is read once");
        });
    }
}

/// The page was written, and left to the same slot again, while a fault looked.
fn out_in_out<L: Locking>() {
    let returns: Side<L> = |s| {
        stores(s);
        reclaim(s);
    };
    let looks: Side<L> = |s| drop(s.mm.fault(at(0), Access::Read));
    for before in [away as fn(&mut Space<L>), in_a_slot_and_here] {
        Race { setting: SLOT, preemptions: 1, before, sides: vec![looks, returns], after: has_nine }.run();
    }
}

/// A page that is away, of which the last byte was cut off: of its bytes there is one here, so it is zeros when it comes in. Beside it is private memory.
fn away_with_zeros<L: Locking>(s: &mut Space<L>) {
    away(s);
    s.map(page(1), Prot::RW);
    file(s).truncate(PAGE - 1);
    file(s).extend(PAGE);
}

/// A page has the slot, and stays in its frame, for it could not be written there; if somebody has it, it has no slot.
fn is_refused<L: Locking>(s: &Space<L>) {
    store(s).set_slow(true);
    reclaim(s);
    Swap::finish(&s.host, false);
    store(s).set_slow(false);
}

/// The slot has what was written since, by the time that a fault comes to it which has looked before: the page, whose zeros are filled by then, or a stranger's.
fn zeros_come_too_late<L: Locking>() {
    let looks: Side<L> = |s| drop(s.mm.fault(at(0), Access::Read));
    let returns: Side<L> = |s| {
        stores(s);
        is_refused(s);
    };
    let gives_way: Side<L> = |s| {
        file(s).truncate(0);
        s.put(at(1), 9).unwrap();
        is_refused(s);
    };
    let strangers: Side<L> = |s| assert_eq!(s.get(at(1)), Ok(9));
    for (meanwhile, after) in [(returns, has_nine as Side<L>), (gives_way, strangers)] {
        Race { setting: SLOT, preemptions: 1, before: away_with_zeros, sides: vec![looks, meanwhile], after }.run();
    }
}

/// Whoever completes the write beside who wants the page.
fn written_and_wanted<L: Locking>() {
    for end in [ends_well as Side<L>, ends_badly] {
        either_first::<L>(2, being_written, vec![stores, end], has_nine);
    }
}

/// It is in memory, and in a slot, and an evictor tries again.
fn out_again_and_wanted<L: Locking>() {
    either_first::<L>(1, in_a_slot_and_here, vec![reclaims, stores], has_nine);
}

spile::test_each_design! {
    memory_leaves_beside_a_write => out_and_write;
    memory_leaves_beside_truncate => out_and_cut;
    memory_returns_beside_truncate => in_and_cut;
    memory_returns_to_two => both_fetch;
}

/// What the design has no part in.
mod one_design {
    use spile::MmapLock;

    #[test]
    fn memory_leaves_beside_a_program() {
        super::out_and_program::<MmapLock>();
    }

    #[test]
    fn memory_returns_by_the_same_slot() {
        super::out_in_out::<MmapLock>();
    }

    #[test]
    fn zeros_are_for_their_page_alone() {
        super::zeros_come_too_late::<MmapLock>();
    }

    #[test]
    fn memory_is_wanted_beside_its_write() {
        super::written_and_wanted::<MmapLock>();
    }

    #[test]
    fn memory_is_wanted_beside_an_evictor() {
        super::out_again_and_wanted::<MmapLock>();
    }

    #[test]
    fn memory_that_is_unreadable_is_told_once() {
        super::one_is_told::<MmapLock>(super::SLOT, super::away);
    }
}
