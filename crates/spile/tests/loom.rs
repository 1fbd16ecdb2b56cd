//! Exhaustive models of the shipped core, weak memory included.
#![cfg(loom)]

mod model;

use model::host::{PLAIN, Setting};
use model::{Race, Side, Space, at, page, pages};
use spile::locking::{Miss, Slowly};
use spile::paging::Gather;
use spile::{Access, Attr, Denied, Flags, Frames as _, Locking, Outcome, Place, Platform as _, Prot, Range};
use std::sync::Mutex;

/// A page that was written is there, and another of the same mapping is not.
fn half_full<L: Locking>(s: &mut Space<L>) {
    s.map(pages(0, 2), Prot::RW);
    s.put(at(0), 7).unwrap();
}

/// The zero page is there, and another of the same mapping is not.
fn half_zero<L: Locking>(s: &mut Space<L>) {
    s.map(pages(0, 2), Prot::RW);
    s.fault(at(0), Access::Read).unwrap();
}

fn unmaps<L: Locking>(s: &Space<L>) {
    s.mm.unmap(pages(0, 2)).unwrap();
    assert_eq!((s.entry(at(0)), s.entry(at(1))), (None, None), "unmapped, and there is a page");
}

fn stays_unmapped<L: Locking>(s: &Space<L>) {
    assert_eq!(s.fault(at(0), Access::Write), Err(Denied::Unmapped));
}

fn done(fault: Result<spile::Done, Denied>) {
    fault.expect("mapped before, during and after");
}

/// A fault that comes before or after an unmap.
fn writes<L: Locking, const N: u64>(s: &Space<L>) {
    assert!(matches!(s.fault(at(N), Access::Write), Ok(_) | Err(Denied::Unmapped)));
}

fn unmap_of_nothing<L: Locking>() {
    let before = |s: &mut Space<L>| s.map(pages(0, 2), Prot::RW);
    Race { setting: PLAIN, preemptions: 3, before, sides: vec![unmaps, writes::<L, 0>], after: stays_unmapped }.run();
}

fn unmap_of_a_neighbour<L: Locking>() {
    Race { setting: PLAIN, preemptions: 3, before: half_full, sides: vec![unmaps, writes::<L, 1>], after: stays_unmapped }.run();
}

/// Who knows the neighbour from before, and looks at both.
fn unmap_beside_a_known_neighbour<L: Locking>() {
    Race::<L> {
        setting: PLAIN,
        preemptions: 2,
        before: half_full,
        sides: vec![|s| s.mm.unmap(page(0)).unwrap(), |s| {
            done(s.fault(at(1), Access::Write));
            writes::<L, 0>(s);
        }],
        after: |s| {
            done(s.fault(at(1), Access::Write));
            stays_unmapped(s);
        },
    }
    .run();
}

fn unmap_of_a_zero_page<L: Locking>() {
    Race { setting: PLAIN, preemptions: 3, before: half_zero, sides: vec![unmaps, writes::<L, 0>], after: stays_unmapped }.run();
}

/// Who maps where somebody unmaps has a mapping of his own, once there is room.
fn map_where_unmapped<L: Locking>() {
    Race::<L> {
        setting: PLAIN,
        preemptions: 2,
        before: half_full,
        sides: vec![|s| s.mm.unmap(pages(0, 2)).unwrap(), |s| {
            if s.mm.map(Place::At(page(0)), |at| Attr::anon(at.start(), Prot::RW)).is_ok() {
                s.put(at(0), 9).unwrap();
                s.guarded.write();
            }
        }],
        after: |s| {
            let mapped = s.guarded.read() == 1;
            assert_eq!(s.get(at(0)), if mapped { Ok(9) } else { Err(Denied::Unmapped) });
        },
    }
    .run();
}

/// The old contents, then the new; never a hole, and never the old in the new mapping.
fn map_over<L: Locking>() {
    Race::<L> {
        setting: PLAIN,
        preemptions: 3,
        before: half_full,
        sides: vec![|s| s.map(page(0), Prot::RW.with(Prot::X)), |s| {
            let seen = [s.get(at(0)), s.get(at(0))].map(|byte| byte.expect("mapped before, during and after"));
            assert!([[7, 7], [7, 0], [0, 0]].contains(&seen), "{seen:?}");
        }],
        after: |s| assert_eq!(s.get(at(0)), Ok(0), "the old page is in the new mapping"),
    }
    .run();
}

/// A write that finds the old mapping's table empty, or full, and then the new mapping.
fn map_over_and_write<L: Locking>() {
    Race::<L> {
        setting: PLAIN,
        preemptions: 3,
        before: |s| s.map(pages(0, 2), Prot::RW),
        sides: vec![
            |s| {
                s.map(page(0), Prot::R);
                assert_ne!(s.entry(at(0)).map(|pte| pte.prot), Some(Prot::RW), "the old mapping's page");
            },
            |s| assert!(matches!(s.fault(at(0), Access::Write), Ok(_) | Err(Denied::Protected))),
        ],
        after: |s| assert_eq!(s.fault(at(0), Access::Write), Err(Denied::Protected)),
    }
    .run();
}

/// Who may write has the new mapping; what is written there stays, for the old one's pages are gone before.
fn write_in_a_new_mapping<L: Locking>() {
    Race::<L> {
        setting: PLAIN,
        preemptions: 3,
        before: |s| s.map(pages(0, 2), Prot::R),
        sides: vec![|s| s.map(page(0), Prot::RW), |s| {
            if s.put(at(0), 9).is_ok() {
                s.guarded.write();
            }
        }],
        after: |s| {
            let written = s.guarded.read() == 1;
            assert_eq!(s.get(at(0)), Ok(if written { 9 } else { 0 }));
        },
    }
    .run();
}

/// Two who come after a change: neither finds what was before.
fn two_after_a_change<L: Locking>() {
    let writes: Side<L> = |s| done(s.fault(at(0), Access::Write));
    Race::<L> {
        setting: PLAIN,
        preemptions: 3,
        before: |s| {
            s.map(page(0), Prot::R);
            s.fault(at(0), Access::Read).unwrap();
            s.map(page(0), Prot::RW);
        },
        sides: vec![writes, writes],
        after: |_| (),
    }
    .run();
}

fn protects<L: Locking>(s: &Space<L>) {
    s.mm.protect(pages(0, 2), Prot::R).unwrap();
    let writable = |n| s.entry(at(n)).is_some_and(|pte| pte.prot.has(Prot::W));
    assert!(!writable(0) && !writable(1), "protected, and a page can be written");
}

fn protect_of<L: Locking>(before: fn(&mut Space<L>)) {
    Race::<L> {
        setting: PLAIN,
        preemptions: 3,
        before,
        sides: vec![protects, |s| assert!(matches!(s.fault(at(0), Access::Write), Ok(_) | Err(Denied::Protected)))],
        after: |s| {
            assert_eq!(s.fault(at(0), Access::Write), Err(Denied::Protected));
            s.get(at(0)).unwrap();
        },
    }
    .run();
}

fn protect_of_nothing<L: Locking>() {
    protect_of::<L>(|s| s.map(pages(0, 2), Prot::RW));
}

fn protect_of_pages<L: Locking>() {
    protect_of::<L>(half_full);
    protect_of::<L>(half_zero);
}

/// Both are done, and one page is there, with one owner.
fn two_faults<L: Locking>() {
    // Until it is not `Spurious`: who lost to another's fault looks again.
    let write: Side<L> = |s| {
        while !s.entry(at(0)).is_some_and(|pte| pte.prot.has(Prot::W)) {
            s.fault(at(0), Access::Write).unwrap();
        }
    };
    let read: Side<L> = |s| done(s.fault(at(0), Access::Read));
    let sides = [vec![write, write], vec![write, read], vec![write, write]];
    let befores: [fn(&mut Space<L>); 3] = [|s| s.map(page(0), Prot::RW), |s| s.map(page(0), Prot::RW), half_zero];
    for (before, sides) in befores.into_iter().zip(sides) {
        Race::<L> {
            setting: PLAIN,
            preemptions: 3,
            before,
            sides,
            after: |s| {
                let pte = s.entry(at(0)).unwrap();
                assert!(pte.prot.has(Prot::W) && pte.frame != s.host.zero_frame(), "{pte:?} after a write");
                // SAFETY: (1) a frame of the host's.
                assert_eq!(unsafe { s.host.meta(pte.frame) }.refs(), 1);
                assert_eq!(s.host.in_use(), 3, "the root, a table, a page");
            },
        }
        .run();
    }
}

/// One writes, which the other reads by its MMU: without a lock.
fn written_and_walked_to<L: Locking>() {
    Race::<L> {
        setting: Setting { caching: 2, ..PLAIN },
        preemptions: 3,
        before: |s| s.map(page(0), Prot::RW),
        sides: vec![|s| done(s.fault(at(0), Access::Write)), |s| {
            if let Some(frame) = s.host.translate(&s.mm, at(0), Access::Read) {
                assert_eq!(s.host.peek(frame), 0);
            }
        }],
        after: |_| (),
    }
    .run();
}

fn grows<L: Locking>() {
    Race::<L> {
        setting: PLAIN,
        preemptions: 3,
        before: |s| {
            let stack =
                |at: spile::Range| Attr { flags: Flags::MAY_WRITE.with(Flags::GROWS_DOWN), ..Attr::anon(at.start(), Prot::RW) };
            s.mm.map(Place::Over(page(3)), stack).unwrap();
        },
        sides: vec![|s| done(s.fault(at(2), Access::Write)), |s| done(s.fault(at(3), Access::Write))],
        after: |s| {
            assert!(s.entry(at(2)).is_some() && s.entry(at(3)).is_some());
            assert_eq!(s.mm.mapping_from(at(3)).unwrap().range, pages(2, 4));
        },
    }
    .run();
}

/// What is written after the fork the child does not see; what it sees of two writes, it sees in their order.
fn fork<L: Locking>() {
    Race::<L> {
        setting: Setting { caching: 2, frames: 12, ..PLAIN },
        preemptions: 2,
        before: |s| {
            for n in [0, 2] {
                s.map(page(n), Prot::RW);
                s.put(at(n), 7).unwrap();
            }
        },
        sides: vec![
            |s| {
                let child = s.mm.fork().unwrap();
                let read = |n| {
                    let mut byte = [0];
                    child.read_user(at(n), &mut byte).unwrap();
                    byte[0]
                };
                let seen = [read(2), read(0), read(0), read(2)];
                assert!([[7, 7, 7, 7], [7, 8, 8, 7], [8, 8, 8, 8]].contains(&seen), "{seen:?}");
            },
            |s| {
                s.store(at(0), 8).unwrap();
                s.store(at(2), 8).unwrap();
            },
        ],
        after: |s| assert_eq!((s.get(at(0)), s.get(at(2))), (Ok(8), Ok(8))),
    }
    .run();
}

fn shared_with_a_child<L: Locking>(s: &mut Space<L>) {
    s.map(page(0), Prot::RW);
    s.put(at(0), 7).unwrap();
    s.child = Mutex::new(Some(s.mm.fork().unwrap()));
}

/// Parent and child write the page that they share.
fn both_sides_write<L: Locking>() {
    Race::<L> {
        setting: PLAIN,
        preemptions: 3,
        before: shared_with_a_child,
        sides: vec![
            |s| {
                let child = s.child.lock().unwrap().take().unwrap();
                child.write_user(at(0), &[9]).unwrap();
                let mut byte = [0];
                child.read_user(at(0), &mut byte).unwrap();
                assert_eq!(byte, [9]);
                *s.child.lock().unwrap() = Some(child);
            },
            |s| {
                s.put(at(0), 8).unwrap();
                assert_eq!(s.get(at(0)), Ok(8));
            },
        ],
        after: |s| drop(s.child.lock().unwrap().take()),
    }
    .run();
}

/// The child copies the shared page and leaves it to the parent, whose program then writes it: after the copy.
fn reused_after_a_copy<L: Locking>() {
    Race::<L> {
        setting: PLAIN,
        preemptions: 3,
        before: shared_with_a_child,
        sides: vec![
            |s| {
                let child = s.child.lock().unwrap().take().unwrap();
                child.write_user(at(0), &[9]).unwrap();
                done(s.fault(at(0), Access::Write));
                *s.child.lock().unwrap() = Some(child);
            },
            |s| {
                if let Some(frame) = s.host.translate(&s.mm, at(0), Access::Write) {
                    s.host.poke(frame, 8);
                }
            },
        ],
        after: |s| drop(s.child.lock().unwrap().take()),
    }
    .run();
}

/// The table goes with one page while the other is faulted in, which belongs to another mapping.
fn neighbour_of_a_freed_table<L: Locking>() {
    Race::<L> {
        setting: PLAIN,
        preemptions: 3,
        before: |s| {
            s.map(page(0), Prot::RW);
            s.map(page(1), Prot::RW.with(Prot::X));
            s.fault(at(0), Access::Write).unwrap();
        },
        sides: vec![|s| s.mm.unmap(page(0)).unwrap(), |s| done(s.mm.fault_and_wait(at(1), Access::Write))],
        after: |s| assert!(s.entry(at(1)).is_some(), "the page is lost"),
    }
    .run();
}

/// A walk is in a table that is unlinked, and the memory of tables goes home.
fn table_under_a_walk<L: Locking>() {
    Race::<L> {
        setting: Setting { periods: true, ..PLAIN },
        preemptions: 3,
        before: half_full,
        sides: vec![
            |s| {
                s.mm.unmap(pages(0, 2)).unwrap();
                s.host.shared().relieve(&s.host);
                s.host.shared().relieve(&s.host);
            },
            |s| {
                s.host.online();
                s.entry(at(0));
                s.host.idle();
            },
        ],
        after: |_| (),
    }
    .run();
}

/// As above, but who unlinks the table and who gives it back are two.
fn table_given_back_by_another<L: Locking>() {
    Race::<L> {
        setting: Setting { periods: true, ..PLAIN },
        preemptions: 3,
        before: |s| {
            s.map(pages(0, 4), Prot::RW);
            s.put(at(0), 7).unwrap();
            s.put(at(2), 7).unwrap();
        },
        sides: vec![
            |s| s.host.zap(&s.mm, pages(0, 4)),
            |s| {
                for _ in 0..2 {
                    s.host.shared().relieve(&s.host);
                }
            },
            |s| {
                s.host.online();
                s.entry(at(0));
                s.host.idle();
            },
        ],
        after: |_| (),
    }
    .run();
}

/// A discard in the old mapping comes too late for the new one, whose pages may not be discarded.
#[cfg(feature = "linux")]
fn discard_against_remap<L: Locking>() {
    Race::<L> {
        setting: PLAIN,
        preemptions: 3,
        before: half_full,
        sides: vec![
            |s| {
                s.mm.unmap(page(0)).unwrap();
                let locked =
                    |at: spile::Range| Attr { flags: Flags::MAY_WRITE.with(Flags::LOCKED), ..Attr::anon(at.start(), Prot::RW) };
                s.mm.map(Place::Over(page(0)), locked).unwrap();
                s.put(at(0), 9).unwrap();
            },
            |s| {
                let _ = s.mm.madvise(at(0), spile::PAGE, spile::linux::advice::DONTNEED);
            },
        ],
        after: |s| assert_eq!(s.get(at(0)), Ok(9), "the new mapping lost its page"),
    }
    .run();
}

/// What was in the page is gone; what is written meanwhile goes too, or stays.
#[cfg(feature = "linux")]
fn discard_against_fault<L: Locking>() {
    fn either<L: Locking>(s: &Space<L>) {
        let seen = s.load(at(0));
        assert!([Ok(9), Ok(0)].contains(&seen), "{seen:?}");
    }
    Race::<L> {
        setting: Setting { caching: 2, ..PLAIN },
        preemptions: 2,
        before: half_full,
        sides: vec![|s| s.mm.madvise(at(0), spile::PAGE, spile::linux::advice::DONTNEED).unwrap(), |s| {
            s.store(at(0), 9).unwrap();
            either(s);
        }],
        after: either,
    }
    .run();
}

/// The page was discarded, and not flushed, before it was unmapped.
#[cfg(feature = "linux")]
fn discard_against_unmap<L: Locking>() {
    Race::<L> {
        setting: Setting { caching: 2, ..PLAIN },
        preemptions: 3,
        before: |s| {
            s.map(page(0), Prot::RW);
            s.put(at(0), 7).unwrap();
        },
        sides: vec![
            |s| {
                s.load(at(0)).unwrap();
                s.mm.unmap(page(0)).unwrap();
                assert_eq!(s.host.translate(&s.mm, at(0), Access::Read), None, "unmapped, and this CPU still reads");
            },
            |s| {
                let _ = s.mm.madvise(at(0), spile::PAGE, spile::linux::advice::DONTNEED);
            },
        ],
        after: |_| (),
    }
    .run();
}

/// A program reads and writes on while its page goes: no byte of a free frame.
fn program_against_unmap<L: Locking>() {
    Race::<L> {
        setting: Setting { caching: 2, ..PLAIN },
        preemptions: 3,
        before: half_full,
        sides: vec![unmaps, |s| {
            for _ in 0..2 {
                assert!(matches!(s.load(at(0)), Ok(7) | Err(Denied::Unmapped)));
            }
        }],
        after: |_| (),
    }
    .run();
}

/// What was protected does not change any more.
fn program_against_protect<L: Locking>() {
    Race::<L> {
        setting: Setting { caching: 2, ..PLAIN },
        preemptions: 3,
        before: half_full,
        sides: vec![
            |s| {
                protects(s);
                s.get(at(0)).unwrap();
            },
            |s| {
                for _ in 0..2 {
                    assert!(matches!(s.store(at(0), 8), Ok(()) | Err(Denied::Protected)));
                }
            },
        ],
        after: |_| (),
    }
    .run();
}

/// One reads on by its translation while the other puts a page in the place of the zero page.
fn program_against_cow<L: Locking>() {
    Race::<L> {
        setting: Setting { caching: 2, ..PLAIN },
        preemptions: 3,
        before: half_zero,
        sides: vec![|s| s.store(at(0), 0).unwrap(), |s| {
            let _ = s.host.translate(&s.mm, at(0), Access::Read);
            let _ = s.host.translate(&s.mm, at(0), Access::Read);
        }],
        after: |_| (),
    }
    .run();
}

/// Pages move; nobody reaches one by its old address when it is shown at the new one.
fn program_against_a_move<L: Locking>() {
    Race::<L> {
        setting: Setting { caching: 2, ..PLAIN },
        preemptions: 3,
        before: |s| {
            s.map(pages(0, 4), Prot::RW);
            s.put(at(0), 7).unwrap();
        },
        sides: vec![
            |s| {
                let table = s.mm.page_table();
                // SAFETY: (1) one host, one space; (2) whole pages of four; (3) nobody else changes anything.
                unsafe { table.prepare_relocation(&s.host, page(0), at(2)) }.unwrap();
                let mut gather = Gather::new(&s.host, table);
                // SAFETY: (1) as above; (2) prepared; (3) nobody faults; (4) nothing is at page 2.
                unsafe { table.relocate(&s.host, page(0), at(2), &mut gather) };
                gather.settle(page(0));
                assert_eq!(s.get(at(2)), Ok(7));
            },
            |s| {
                for _ in 0..2 {
                    if let Some(frame) = s.host.translate(&s.mm, at(0), Access::Write) {
                        assert_eq!(s.host.peek(frame), 7);
                    }
                }
            },
        ],
        after: |_| (),
    }
    .run();
}

/// The first private page of a mapping that is cut at the same time: it has an owner, or a fork would forget it.
fn identity<L: Locking>() {
    Race::<L> {
        setting: PLAIN,
        preemptions: 3,
        before: |s| s.map(pages(0, 2), Prot::RW),
        sides: vec![|s| s.mm.protect(page(0), Prot::R).unwrap(), |s| done(s.fault(at(1), Access::Write))],
        after: |_| (),
    }
    .run();
}

/// The lock that all designs have, in those where it is all there is.
mod locks {
    use super::*;
    use spile::{BTreeMapRwLock, Machine as _, MmapLock, MmapLockRbTree};

    /// Nobody reads what the lock guards while somebody writes it.
    fn with_the_lock<L: Locking>(preemptions: usize, sides: Vec<Side<L>>) {
        Race::<L> { setting: PLAIN, preemptions, before: |s| s.map(page(0), Prot::RW), sides, after: |_| () }.run();
    }

    // Who does not get the lock goes without: waiting is the business of those below, and of the models that change mappings.

    fn locked_read<L: Locking>(s: &Space<L>) {
        if let Slowly::Held(_held) = L::stabilise(&s.mm, at(0)) {
            s.guarded.read();
        }
    }

    fn locked_write<L: Locking>(s: &Space<L>) {
        if let Ok(_right) = s.mm.lock().write(&s.host) {
            s.guarded.write();
        }
    }

    fn locked_write_then_read<L: Locking>(s: &Space<L>) {
        if let Ok(right) = s.mm.lock().write(&s.host) {
            s.guarded.write();
            let _share = right.downgrade();
            s.guarded.read();
        }
    }

    fn excluded<L: Locking>() {
        with_the_lock::<L>(3, vec![locked_write, locked_read]);
        with_the_lock::<L>(3, vec![locked_write, locked_write]);
        with_the_lock::<L>(3, vec![locked_write, locked_read, locked_read]);
    }

    fn downgraded<L: Locking>() {
        with_the_lock::<L>(3, vec![locked_write_then_read, locked_read]);
        with_the_lock::<L>(3, vec![locked_write_then_read, locked_write]);
        with_the_lock::<L>(3, vec![locked_write_then_read, locked_write, locked_read]);
    }

    fn waits_and_reads<L: Locking>(s: &Space<L>) {
        let _share = s.mm.lock().wait_for_share(&s.host);
        s.guarded.read();
    }

    fn waits_and_writes<L: Locking>(s: &Space<L>) {
        let _right = s.mm.lock().wait_for_all(&s.host, || ());
        s.guarded.write();
    }

    /// Two changes, and between them a reader that nobody keeps out. Others come at any time, and at no cost in some places.
    fn writes_reads_and_writes<L: Locking>(s: &Space<L>) {
        let right = s.mm.lock().wait_for_all(&s.host, || ());
        s.host.relax();
        drop(right);
        s.host.relax();
        if let Some(_share) = s.mm.lock().try_read(&s.host) {
            s.guarded.read();
        }
        let _right = s.mm.lock().wait_for_all(&s.host, || ());
        s.guarded.write();
        s.host.relax();
    }

    /// Whoever waits is told, whoever has taken away the mark that he made.
    fn waited_for<L: Locking>() {
        with_the_lock::<L>(3, vec![writes_reads_and_writes, waits_and_reads]);
        with_the_lock::<L>(3, vec![writes_reads_and_writes, waits_and_writes]);
        with_the_lock::<L>(3, vec![locked_write_then_read, waits_and_writes]);
        with_the_lock::<L>(2, vec![waits_and_writes, waits_and_reads, locked_read]);
        with_the_lock::<L>(1, vec![waits_and_writes, waits_and_reads, waits_and_writes]);
    }

    mod btreemap_rwlock {
        #[test]
        fn readers_and_writers() {
            super::excluded::<super::BTreeMapRwLock>();
        }
    }

    mod mmap_lock_rbtree {
        #[test]
        fn readers_and_writers() {
            super::excluded::<super::MmapLockRbTree>();
        }
    }

    mod mmap_lock {
        #[test]
        fn readers_and_writers() {
            super::excluded::<super::MmapLock>();
        }

        #[test]
        fn lock_is_downgraded() {
            super::downgraded::<super::MmapLock>();
        }

        #[test]
        fn lock_is_waited_for() {
            super::waited_for::<super::MmapLock>();
        }
    }
}

/// A hold keeps a claimer waiting, and is refused until the claim is released: for designs whose holds are good as long as they last.
fn holds_and_claims<L: Locking>() {
    Race::<L> {
        setting: PLAIN,
        preemptions: 3,
        before: |s| s.map(page(0), Prot::RW),
        sides: vec![
            |s| {
                // The only one who has said so: what is skipped for that is nothing that others need.
                let _user = s.mm.attach();
                let right = L::write(&s.mm, &[page(0)]);
                L::exclude(&right, page(0));
                let vma = L::look(&s.mm, at(0), |vma| std::ptr::NonNull::from(vma.unwrap()));
                // SAFETY: (1) nobody takes it out of the index.
                let vma = unsafe { vma.as_ref() };
                // SAFETY: (1) with the right.
                unsafe { L::claim(&s.mm, vma) };
                L::quiesce(&s.mm, vma);
                L::settle(&s.mm);
                s.guarded.write();
                // SAFETY: (1) with the right; (2) it stays in the index.
                unsafe { L::release(&s.mm, vma) };
            },
            |s| {
                for _ in 0..2 {
                    match L::try_stabilise(&s.mm, at(0)) {
                        Ok(_held) => _ = s.guarded.read(),
                        Err(miss) => assert_eq!(miss, Miss::Contended),
                    }
                }
            },
        ],
        after: |_| (),
    }
    .run();
}

#[test]
fn claims_wait_of_vma_refcount_2019() {
    holds_and_claims::<spile::VmaRefcount2019>();
}

#[test]
fn claims_wait_of_pt_range() {
    holds_and_claims::<spile::PtRange>();
}

#[test]
fn claims_wait_of_vma_rwsem() {
    holds_and_claims::<spile::VmaRwsem>();
}

#[test]
fn claims_wait_of_vma_refcount() {
    holds_and_claims::<spile::VmaRefcount>();
}

/// Two faults that miss the same table, and took one each before they looked for the mapping.
#[test]
fn tables_are_taken_ahead_of_rcu_prealloc() {
    Race::<spile::RcuPrealloc> {
        setting: Setting { watched: true, tables_ahead: true, ..PLAIN },
        preemptions: 3,
        before: |s| s.map(pages(0, 2), Prot::RW),
        sides: vec![|s| done(s.fault(at(0), Access::Write)), |s| done(s.fault(at(1), Access::Write))],
        after: |s| assert_eq!(s.host.in_use(), 4, "the root, a table, two pages"),
    }
    .run();
}

/// Mappings whose memory is used again before those who found them are gone.
mod recycled {
    mod vma_refcount {
        use crate::*;
        use spile::VmaRefcount;

        type Stage = Space<VmaRefcount>;

        /// Page 0 of a parent, which may read it, and a child without mappings.
        fn parent_and_child(s: &mut Stage) {
            *s.child.get_mut().unwrap() = Some(s.mm.fork().unwrap());
            s.map(page(0), Prot::R);
        }

        /// What the parent had is the child's, who may write.
        fn passes_on(s: &Stage, at: Range) {
            s.mm.unmap(page(0)).unwrap();
            let child = s.child.lock().unwrap();
            child.as_ref().unwrap().map(Place::Over(at), |at| Attr::anon(at.start(), Prot::RW)).unwrap();
        }

        fn late(s: &Stage) {
            let denied = s.fault(at(0), Access::Write).unwrap_err();
            assert!([Denied::Protected, Denied::Unmapped].contains(&denied), "by a mapping that is not the parent's");
        }

        fn two(sides: Vec<Side<VmaRefcount>>, after: Side<VmaRefcount>) {
            Race { setting: Setting { frames: 14, ..PLAIN }, preemptions: 2, before: parent_and_child, sides, after }.run();
        }

        #[test]
        fn mapping_of_another_space() {
            two(vec![|s| passes_on(s, page(0)), late], stays_unmapped);
        }

        /// The same, and the child's claims meet references that are not for it.
        #[test]
        fn claim_against_a_strangers_reference() {
            let sides: Vec<Side<VmaRefcount>> = vec![
                |s| {
                    passes_on(s, page(0));
                    s.child.lock().unwrap().as_ref().unwrap().unmap(page(0)).unwrap();
                    s.map(page(0), Prot::R.with(Prot::X));
                },
                late,
            ];
            two(sides, |s| assert_eq!(s.get(at(0)), Ok(0)));
        }

        /// What a child gives up at its exit, while somebody who found it in the parent looks at it, is the parent's again.
        #[test]
        fn exit_against_a_strangers_reference() {
            let sides: Vec<Side<VmaRefcount>> = vec![
                |s| {
                    passes_on(s, page(0));
                    drop(s.child.lock().unwrap().take());
                    s.map(page(0), Prot::R.with(Prot::X));
                },
                late,
            ];
            two(sides, |s| assert_eq!(s.get(at(0)), Ok(0)));
        }

        /// It is this space's again, elsewhere.
        #[test]
        fn mapping_of_another_place() {
            let before: fn(&mut Stage) = |s| s.map(page(0), Prot::R);
            let sides: Vec<Side<VmaRefcount>> = vec![
                |s| {
                    s.mm.unmap(page(0)).unwrap();
                    s.map(page(2), Prot::RW);
                },
                late,
            ];
            Race { setting: PLAIN, preemptions: 3, before, sides, after: stays_unmapped }.run();
        }

        /// Who looks for the next mapping finds that of before, which grows, or that of after, which does not, and no other.
        #[test]
        fn next_mapping_is_elsewhere() {
            let before: fn(&mut Stage) = |s| {
                let attr =
                    |at: Range| Attr { flags: Flags::GROWS_DOWN.with(Flags::MAY_WRITE), ..Attr::anon(at.start(), Prot::RW) };
                s.mm.map(Place::Over(pages(1, 3)), attr).unwrap();
            };
            let sides: Vec<Side<VmaRefcount>> = vec![
                |s| {
                    // The mapping that grows is a shorter one, and then its memory is that of one above, which does not grow.
                    s.mm.unmap(page(2)).unwrap();
                    s.map(page(3), Prot::R);
                },
                |s| done(s.fault(at(0), Access::Write)),
            ];
            Race { setting: Setting { frames: 12, ..PLAIN }, preemptions: 2, before, sides, after: |_| () }.run();
        }
    }
}

/// The lock of ranges, and changes that go on beside each other.
mod ranges {
    mod range_lock {
        use crate::*;
        use spile::RangeLock;
        use spile::locking::Footprint;

        fn with_ranges(before: fn(&mut Space<RangeLock>), sides: Vec<Side<RangeLock>>, after: Side<RangeLock>) {
            let preemptions = if sides.len() > 2 { 1 } else { 3 };
            Race::<RangeLock> { setting: Setting { frames: 12, ..PLAIN }, preemptions, before, sides, after }.run();
        }

        // Who does not get it goes without, as with the other lock.

        fn locked_read(s: &Space<RangeLock>) {
            if let Some(_page) = s.mm.design().try_read(&s.host, page(3)) {
                s.guarded.read();
            }
        }

        fn locked_write(s: &Space<RangeLock>) {
            if let Ok(_both) = s.mm.design().request(&s.host, Footprint::of(&[page(0), pages(2, 4)])).turn() {
                s.guarded.write();
            }
        }

        #[test]
        fn ranges_are_locked() {
            with_ranges(|_| (), vec![locked_write, locked_read], |_| ());
            with_ranges(|_| (), vec![locked_write, locked_write], |_| ());
            with_ranges(|_| (), vec![locked_write, locked_read, locked_read], |_| ());
        }

        #[test]
        fn ranges_are_waited_for() {
            let waits: Side<RangeLock> = |s| {
                let _both = s.mm.design().request(&s.host, Footprint::of(&[pages(0, 2)])).wait();
                s.guarded.write();
            };
            with_ranges(|_| (), vec![waits, waits], |s| assert_eq!(s.guarded.read(), 2));
            with_ranges(|_| (), vec![waits, locked_write], |_| ());
        }

        /// Of three the second waits for the first, and the third for the second, whoever asks first when the first is gone.
        #[test]
        fn ranges_are_given_in_turn() {
            let turns: Side<RangeLock> = |s| {
                let request = |range| s.mm.design().request(&s.host, Footprint::of(&[range]));
                let first = request(page(0)).turn().unwrap();
                let (mut second, mut third) = (request(pages(0, 2)), request(page(1)));
                assert!(second.turn().is_err() && third.turn().is_err());
                assert!(s.mm.design().try_read(&s.host, page(1)).is_none(), "somebody waits for it");
                drop(first);
                assert!(third.turn().is_err(), "it is the second's turn");
                drop(second.turn().unwrap());
                third.turn().unwrap();
            };
            with_ranges(|_| (), vec![turns], |_| ());
        }

        /// Who waits for a change finds that what lies beside its own place has become a part of something greater.
        #[test]
        fn footprint_grows() {
            let before: fn(&mut Space<RangeLock>) = |s| {
                s.map(page(0), Prot::R);
                s.map(page(1), Prot::R.with(Prot::X));
            };
            let sides: Vec<Side<RangeLock>> =
                vec![|s| s.mm.protect(pages(0, 2), Prot::RW).unwrap(), |s| s.map(page(2), Prot::RW)];
            with_ranges(before, sides, |s| {
                assert_eq!(s.mm.mapping_from(0).unwrap().range, pages(0, 3));
                s.put(at(1), 7).unwrap();
            });
        }

        /// Two change parts of one mapping.
        #[test]
        fn footprints_meet() {
            let sides: Vec<Side<RangeLock>> =
                vec![|s| s.mm.protect(page(0), Prot::R).unwrap(), |s| s.mm.protect(page(1), Prot::R).unwrap()];
            with_ranges(half_full, sides, |s| {
                assert_eq!(s.mm.mapping_from(0).unwrap().range, pages(0, 2));
                assert_eq!(s.fault(at(0), Access::Write), Err(Denied::Protected));
            });
        }

        fn both_ends(s: &mut Space<RangeLock>) {
            for n in [0, 3] {
                s.map(page(n), Prot::RW);
                s.put(at(n), 7).unwrap();
            }
        }

        /// Two changes are under way at once, and faults on what they change.
        #[test]
        fn footprints_are_apart() {
            let below: Side<RangeLock> = |s| s.mm.unmap(page(0)).unwrap();
            let above: Side<RangeLock> = |s| s.map(page(3), Prot::RW.with(Prot::X));
            with_ranges(both_ends, vec![below, above], |s| {
                assert_eq!((s.entry(at(0)), s.get(at(3))), (None, Ok(0)));
            });
            let faults: Side<RangeLock> = |s| {
                assert!(matches!(s.fault(at(0), Access::Write), Ok(_) | Err(Denied::Unmapped)));
                done(s.fault(at(3), Access::Write));
            };
            with_ranges(both_ends, vec![below, above, faults], |s| {
                assert_eq!((s.entry(at(0)), s.get(at(3))), (None, Ok(0)));
            });
        }
    }
}

#[cfg(feature = "file")]
mod files {
    use super::*;
    use model::store::{BYTE, Disk, map_file, open};

    /// Faults until it is done, being the disk meanwhile.
    fn read_and_serve<L: Locking>(s: &Space<L>, ok: bool) -> Result<(), Denied> {
        let file = s.file.as_ref().unwrap();
        loop {
            match s.mm.fault(at(0), Access::Read) {
                Outcome::Done(_) => return Ok(()),
                Outcome::Denied(denied) => return Err(denied),
                Outcome::Grow => panic!("it does not grow"),
                Outcome::Wait(token) => {
                    _ = file.store().unwrap().finish(file, ok);
                    token.wait();
                }
            }
        }
    }

    /// Two want the page; it is read once, and nobody waits for ever.
    fn read_once<L: Locking>() {
        Race::<L> {
            setting: PLAIN,
            preemptions: 2,
            before: |s| {
                open(s, Disk::slow());
                map_file(s, page(0), 0);
            },
            sides: vec![|s| assert_eq!(read_and_serve(s, true), Ok(())), |s| assert_eq!(s.get(at(0)), Ok(BYTE))],
            after: |s| assert_eq!(s.file.as_ref().unwrap().store().unwrap().reads(), 1),
        }
        .run();
    }

    /// Each of two is told that it cannot be read.
    fn read_fails<L: Locking>() {
        let fails: Side<L> = |s| assert_eq!(read_and_serve(s, false), Err(Denied::Bus));
        Race::<L> {
            setting: Setting { frames: 12, ..PLAIN },
            preemptions: 2,
            before: |s| {
                open(s, Disk::slow());
                map_file(s, page(0), 0);
            },
            sides: vec![fails, fails],
            after: |s| assert_eq!(s.entry(at(0)), None),
        }
        .run();
    }

    /// A fault maps what is cached around it, and nothing beyond what it holds.
    fn around<L: Locking>() {
        Race::<L> {
            setting: Setting { frames: 12, ..PLAIN },
            preemptions: 2,
            before: |s| {
                open(s, Disk::default());
                map_file(s, pages(0, 2), 0);
                s.fault(at(0), Access::Read).unwrap();
                s.fault(at(1), Access::Read).unwrap();
                s.mm.unmap(pages(0, 2)).unwrap();
                map_file(s, page(0), 0);
            },
            sides: vec![
                |s| {
                    s.map(page(1), Prot::RW);
                    assert_eq!(s.get(at(1)), Ok(0));
                    s.mm.unmap(page(1)).unwrap();
                },
                |s| done(s.fault(at(0), Access::Read)),
            ],
            after: |_| (),
        }
        .run();
    }

    /// Pages around the one that was asked for go with their mapping.
    fn around_against_unmap<L: Locking>() {
        Race::<L> {
            setting: Setting { frames: 12, ..PLAIN },
            preemptions: 3,
            before: |s| {
                open(s, Disk::default());
                map_file(s, pages(0, 2), 0);
                s.fault(at(0), Access::Read).unwrap();
                s.fault(at(1), Access::Read).unwrap();
                s.mm.unmap(pages(0, 2)).unwrap();
                map_file(s, pages(0, 2), 0);
            },
            sides: vec![unmaps, |s| assert!(matches!(s.fault(at(0), Access::Read), Ok(_) | Err(Denied::Unmapped)))],
            after: stays_unmapped,
        }
        .run();
    }

    /// What a private mapping writes the file does not see.
    fn dirtied<L: Locking>() {
        Race::<L> {
            setting: Setting { frames: 12, ..PLAIN },
            preemptions: 3,
            before: |s| {
                open(s, Disk::default());
                map_file(s, page(0), 0);
                s.fault(at(0), Access::Read).unwrap();
            },
            sides: vec![|s| s.mm.unmap(page(0)).unwrap(), |s| {
                if s.put(at(0), 9).is_ok() {
                    assert!(s.file.as_ref().unwrap().is_dirty(0));
                }
            }],
            after: |_| (),
        }
        .run();
    }

    spile::test_each_design! {
        file_page_is_read_once => read_once;
        file_page_cannot_be_read => read_fails;
        pages_around_are_clipped => around;
        pages_around_against_unmap => around_against_unmap;
        file_page_is_dirtied => dirtied;
    }
}

spile::test_each_design! {
    fault_against_unmap_of_nothing => unmap_of_nothing;
    fault_against_unmap_of_a_neighbour => unmap_of_a_neighbour;
    fault_against_unmap_beside_a_neighbour => unmap_beside_a_known_neighbour;
    cow_against_unmap => unmap_of_a_zero_page;
    map_against_unmap => map_where_unmapped;
    read_against_map_over => map_over;
    fault_against_map_over => map_over_and_write;
    write_in_a_new_mapping_stays => write_in_a_new_mapping;
    faults_after_a_change => two_after_a_change;
    fault_against_protect_of_nothing => protect_of_nothing;
    fault_against_protect => protect_of_pages;
    two_faults_on_one_page => two_faults;
    fault_against_grow => grows;
    program_against_fork => fork;
    both_sides_of_a_fork_write => both_sides_write;
    page_is_reused_after_a_copy => reused_after_a_copy;
    fault_beside_a_freed_table => neighbour_of_a_freed_table;
    table_is_freed_under_a_walk => table_under_a_walk;
    table_is_given_back_by_another => table_given_back_by_another;
    program_reads_until_unmapped => program_against_unmap;
    program_writes_until_protected => program_against_protect;
    program_reads_until_copied => program_against_cow;
    program_reads_until_moved => program_against_a_move;
    identity_against_claim => identity;
    new_page_is_walked_to => written_and_walked_to;
}

#[cfg(feature = "linux")]
mod discards {
    use super::{discard_against_fault, discard_against_remap, discard_against_unmap};

    spile::test_each_design! {
        fault_against_discard => discard_against_fault;
        discard_comes_too_late => discard_against_remap;
        discard_unflushed => discard_against_unmap;
    }
}
