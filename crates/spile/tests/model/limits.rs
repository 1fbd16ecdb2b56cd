//! Spaces that may show few pages.
//!
//! **Guarantee.** No space shows more than it may, whoever faults beside whom; what is counted is what is shown; who waits for room is told when there is some, and is refused only if
//! there will be none.
//!
//! **Mechanism.** As in `reclaim`: a host with two slots, whose pages are old when they are looked at first.

use super::host::Setting;
use super::reclaim::{SWAP, being_written, ends_well};
use super::{Race, Side, Space, at, pages};
use spile::{Access, Locking, Prot};

/// One page may be shown, and none is.
fn of_one<L: Locking>(s: &mut Space<L>) {
    s.map(pages(0, 4), Prot::RW);
    s.mm.set_limit(Some(1));
}

fn is_counted<L: Locking>(s: &Space<L>) {
    let shown = (0..4).filter(|n| s.entry(at(*n)).is_some_and(|pte| pte.frame.0 != 0)).count() as u64;
    assert_eq!(s.mm.resident_pages(), shown);
    assert!(s.mm.limit().is_none_or(|limit| shown <= limit), "{shown} pages are shown");
}

/// Each gets a page, one after the other: in one table, or in two.
fn two_for_one_place<L: Locking>() {
    let first: Side<L> = |s| _ = s.fault(at(0), Access::Write).unwrap();
    for second in
        [|s: &Space<L>| _ = s.fault(at(1), Access::Write).unwrap(), |s: &Space<L>| _ = s.fault(at(2), Access::Write).unwrap()]
    {
        Race { setting: SWAP, preemptions: 2, before: of_one, sides: vec![first, second], after: is_counted }.run();
    }
}

/// A fault, while it is said that there is less room than is taken.
fn a_limit_comes<L: Locking>() {
    let before: fn(&mut Space<L>) = |s| {
        s.map(pages(0, 4), Prot::RW);
        s.put(at(0), 7).unwrap();
    };
    let limits: Side<L> = |s| _ = s.mm.set_limit(Some(1));
    // Once: if there is no room, that is as well.
    let faults: Side<L> = |s| drop(s.mm.fault(at(2), Access::Write));
    for sides in [vec![limits, faults], vec![faults, limits]] {
        Race {
            // One for each page.
            setting: Setting { swap: 3, ..SWAP },
            preemptions: 2,
            before,
            sides,
            after: |s| {
                // What was let in before it was said may be shown still.
                s.fault(at(1), Access::Write).unwrap();
                is_counted(s);
                assert_eq!(s.get(at(0)), Ok(7));
            },
        }
        .run();
    }
}

/// The one page that could leave is being written: who wants its place waits for that, and is told.
fn room_after_a_write<L: Locking>() {
    let before: fn(&mut Space<L>) = |s| {
        being_written(s);
        s.mm.set_limit(Some(1));
        s.fault(at(0), Access::Read).unwrap();
    };
    let wants: Side<L> = |s| _ = s.fault(at(1), Access::Write).unwrap();
    for sides in [vec![wants, ends_well], vec![ends_well, wants]] {
        let after: Side<L> = |s| {
            is_counted(s);
            assert_eq!(s.get(at(0)), Ok(7));
        };
        Race { setting: SWAP, preemptions: 2, before, sides, after }.run();
    }
}

spile::test_each_design! {
    two_faults_with_room_for_one => two_for_one_place;
    fault_against_limit => a_limit_comes;
    room_after_a_write => room_after_a_write;
}
