//! Faults that wait for a page of a file, with their holds kept or dropped, beside changes of the mapping that they found.
//!
//! **Guarantee.** The page never lands in another mapping, what is mapped before, during and after can be accessed, a child has what its parent had,
//! who is refused is refused by what is mapped or by a read that failed, and nobody waits for ever. A page that is waited for with a hold is read
//! once, whoever wants it out of memory.
//!
//! **Mechanism.** The disk goes on while somebody sleeps. So a change that waits for a fault which sleeps with its hold, and a fault which starts anew because
//! a change came in, are both among the interleavings.

use super::host::{PLAIN, Setting};
use super::store::{BYTE, Disk, map_file, map_file_as, open};
use super::{Race, Side, Space, at, page, pages};
use spile::{Access, Denied, FaultKind, Flags, Locking, Prot, UnderRcu, VmaRefcount, Waiting};

const FILES: Setting = Setting { frames: 12, ..PLAIN };

/// A slow disk, and faults that sleep so.
fn prepare<L: Locking>(s: &mut Space<L>, waiting: Waiting, ok: bool) {
    open(s, Disk::slow());
    FaultKind::ALL.into_iter().for_each(|kind| s.mm.set_waiting(kind, waiting));
    let file = s.file.as_ref().unwrap().downgrade();
    s.host.while_asleep(move |_| {
        if let Some(file) = file.upgrade() {
            _ = file.store().unwrap().finish(&file, ok);
        }
    });
}

fn held_and_shared<L: Locking>(s: &mut Space<L>) {
    prepare(s, Waiting::Hold, true);
    map_file(s, pages(0, 2), 0);
}

fn dropped_and_shared<L: Locking>(s: &mut Space<L>) {
    prepare(s, Waiting::Drop, true);
    map_file(s, pages(0, 2), 0);
}

/// A race for pages of the shared file, with holds kept, and with holds dropped.
fn either_way<L: Locking>(sides: Vec<Side<L>>, after: Side<L>) {
    for before in [held_and_shared::<L>, dropped_and_shared] {
        Race::<L> { setting: FILES, preemptions: 2, before, sides: sides.clone(), after }.run();
    }
}

fn unmapped<L: Locking>() {
    either_way::<L>(
        vec![
            |s| {
                s.mm.unmap(pages(0, 2)).unwrap();
                assert_eq!(s.entry(at(0)), None, "unmapped, and there is a page");
            },
            |s| assert!([Ok(BYTE), Err(Denied::Unmapped)].contains(&s.get(at(0)))),
        ],
        |s| assert_eq!(s.get(at(0)), Err(Denied::Unmapped)),
    );
}

fn mapped_over<L: Locking>() {
    either_way::<L>(
        vec![
            |s| {
                s.map(page(0), Prot::RW);
                assert_eq!(s.get(at(0)), Ok(0), "the file's page is in the new mapping");
            },
            |s| assert!([Ok(BYTE), Ok(0)].contains(&s.get(at(0)))),
        ],
        |s| assert_eq!(s.get(at(0)), Ok(0), "the file's page is in the new mapping"),
    );
}

/// A write to a private mapping that has no page yet.
fn forked<L: Locking>() {
    Race::<L> {
        setting: FILES,
        preemptions: 2,
        before: |s| {
            prepare(s, Waiting::Hold, true);
            map_file_as(s, page(0), 0, Flags::NONE);
        },
        sides: vec![
            |s| {
                let child = s.mm.fork().unwrap();
                assert_eq!(child.waiting(FaultKind::FileCopy), Waiting::Hold);
                *s.child.lock().unwrap() = Some(child);
            },
            |s| s.put(at(0), 9).unwrap(),
        ],
        after: |s| {
            assert_eq!(s.get(at(0)), Ok(9));
            let child = s.child.lock().unwrap().take().unwrap();
            let mut byte = [0];
            child.read_user(at(0), &mut byte).unwrap();
            assert!([BYTE, 9].contains(&byte[0]), "{byte:?}");
        },
    }
    .run();
}

/// Each is told.
fn unreadable<L: Locking>() {
    let fails: Side<L> = |s| assert_eq!(s.get(at(0)), Err(Denied::Bus));
    Race::<L> {
        setting: FILES,
        preemptions: 2,
        before: |s| {
            prepare(s, Waiting::Hold, false);
            map_file(s, page(0), 0);
        },
        sides: vec![fails, fails],
        after: |s| assert_eq!(s.entry(at(0)), None),
    }
    .run();
}

/// Somebody wants the page's memory while it is waited for.
fn reclaimed<L: Locking>() {
    Race::<L> {
        setting: FILES,
        preemptions: 2,
        before: held_and_shared,
        sides: vec![|s| assert_eq!(s.mm.fault_and_wait(at(0), Access::Read).map(drop), Ok(())), |s| {
            assert!(!s.file.as_ref().unwrap().evict(0), "it is waited for, or mapped")
        }],
        after: |s| assert_eq!(s.file.as_ref().unwrap().store().unwrap().reads(), 1),
    }
    .run();
}

spile::test_each_design! {
    wait_against_unmap => unmapped;
    wait_against_map_over => mapped_over;
    wait_against_fork => forked;
    wait_for_what_cannot_be_read => unreadable;
    wait_against_eviction => reclaimed;
}

/// A page goes while somebody looks for it, and its frame becomes somebody else's.
#[test]
fn page_is_evicted() {
    Race::<VmaRefcount> {
        setting: Setting { reuse: true, ..FILES },
        preemptions: 3,
        before: |s| {
            open(s, Disk::default());
            map_file(s, page(0), 0);
            s.get(at(0)).unwrap();
            s.mm.unmap(page(0)).unwrap();
            map_file(s, page(0), 0);
        },
        sides: vec![
            |s| {
                if s.file.as_ref().unwrap().evict(0) {
                    s.map(page(2), Prot::RW);
                    s.put(at(2), 9).unwrap();
                }
            },
            |s| assert_eq!(s.get(at(0)), Ok(BYTE)),
        ],
        after: |s| {
            assert_eq!(s.get(at(0)), Ok(BYTE));
            assert!([Ok(9), Err(Denied::Unmapped)].contains(&s.get(at(2))));
        },
    }
    .run();
}

/// A page goes, and comes again in the same frame, while somebody makes it writable: what he may write is not taken for what the store has.
#[cfg(feature = "linux")]
#[test]
fn page_is_evicted_beside_a_write() {
    Race::<UnderRcu> {
        setting: Setting { reuse: true, ..FILES },
        preemptions: 3,
        before: |s| {
            open(s, Disk::default());
            map_file(s, page(0), 0);
            s.fault(at(0), Access::Read).unwrap();
        },
        sides: vec![|s| _ = s.fault(at(0), Access::Write).unwrap(), |s| {
            s.mm.madvise(at(0), spile::PAGE, spile::linux::advice::DONTNEED).unwrap();
            if s.file.as_ref().unwrap().evict(0) {
                _ = s.fault(at(0), Access::Read).unwrap();
            }
        }],
        after: |s| {
            let writable = s.entry(at(0)).is_some_and(|pte| pte.prot.has(Prot::W));
            assert!(!writable || s.file.as_ref().unwrap().is_dirty(0), "a page that is written to is taken for clean");
        },
    }
    .run();
}
