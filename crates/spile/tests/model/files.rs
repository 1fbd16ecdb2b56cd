//! Files whose pages leave, are written back and are lost, beside whoever uses them.
//!
//! **Guarantee.** When a file was cut, no CPU uses a page beyond the end, and none will, whatever its mappings do meanwhile; what was on its way in when it
//! was cut does not arrive. What a program stores is in the store after a flush, or noted as dirty. A page that leaves is nobody's.
//!
//! **Mechanism.** A file of two pages, in one space or two. Where a page's byte is changed while the disk reads it, it is a word that may be torn: what counts is
//! that a store is either seen or noted.

use super::host::{Host, PLAIN, Setting, run_on};
use super::store::{BYTE, Disk, map_file, map_file_in, open};
use super::{Race, Side, Space, at, page, pages};
use spile::backing::File;
use spile::reclaim::{Pressed as _, Reclaimed};
use spile::{Access, Denied, Flags, Locking, Outcome, PAGE};

const FILES: Setting = Setting { frames: 14, ..PLAIN };

/// CPUs 0 and 1 cache translations.
const CACHED: Setting = Setting { caching: 2, ..FILES };

/// Bytes are read while they are written.
const TORN: Setting = Setting { torn: true, ..CACHED };

/// One slot, which no page of a file needs.
const PRESSED: Setting = Setting { swap: 1, ..CACHED };

/// The same, without translations.
const UNCACHED: Setting = Setting { caching: 0, ..PRESSED };

/// CPU 0 caches translations, and its bytes are read while it writes them.
const TORN_BESIDE_ONE: Setting = Setting { caching: 1, ..TORN };

pub(super) fn file<L: Locking>(s: &Space<L>) -> &File<Host> {
    s.file.as_ref().unwrap()
}

fn disk<L: Locking>(s: &Space<L>) -> &Disk {
    file(s).store().unwrap()
}

/// Nothing is left of the file.
fn truncates<L: Locking>(s: &Space<L>) {
    file(s).truncate(0);
    for n in 0..4 {
        assert_eq!(s.entry(at(n)), None, "lost, and shown");
        assert!(!s.host.is_cached(at(n)), "lost, and a CPU uses it");
    }
}

/// Page 1 of the file is nowhere, and refused at page `n`, where it is mapped.
pub(super) fn is_lost<L: Locking>(s: &Space<L>, n: u64) {
    assert_eq!(s.entry(at(n)), None, "lost, and shown");
    assert!(!file(s).evict(1), "lost, and in memory");
    assert_eq!(s.fault(at(n), Access::Read), Err(Denied::Bus));
}

/// Page 1 of the file is in memory, and its table is not: a fault links that.
fn in_memory<L: Locking>(s: &mut Space<L>) {
    open(s, Disk::default());
    map_file(s, pages(0, 2), 0);
    s.get(at(1)).unwrap();
    s.mm.unmap(pages(0, 2)).unwrap();
    map_file(s, pages(0, 2), 0);
}

fn cut_and_fault<L: Locking>() {
    let faults: Side<L> = |s| {
        let fault = s.fault(at(1), Access::Read);
        assert!(matches!(fault, Ok(_) | Err(Denied::Bus)), "{fault:?}");
    };
    let cuts: Side<L> = |s| file(s).truncate(PAGE);
    for sides in [vec![faults, cuts], vec![cuts, faults]] {
        Race { setting: FILES, preemptions: 2, before: in_memory, sides, after: |s| is_lost(s, 1) }.run();
    }
}

/// A read of a page that is beyond the end by the time it is begun.
fn cut_and_read<L: Locking>() {
    Race::<L> {
        setting: FILES,
        preemptions: 2,
        before: |s| {
            open(s, Disk::slow());
            map_file(s, pages(0, 2), 0);
        },
        sides: vec![|s| file(s).truncate(PAGE), |s| {
            let fault = s.mm.fault(at(1), Access::Read);
            assert!(matches!(fault, Outcome::Wait(_) | Outcome::Denied(Denied::Bus)), "{fault:?}");
        }],
        after: |s| {
            file(s).extend(2 * PAGE);
            disk(s).finish(file(s), true);
            disk(s).set_slow(false);
            let before = disk(s).reads();
            assert_eq!(s.get(at(1)), Ok(BYTE + 1));
            assert_eq!(disk(s).reads(), before + 1, "what was read before is in the file");
        },
    }
    .run();
}

/// Page 1 of the file at page 0, where CPU 0 uses it.
fn used<L: Locking>(s: &mut Space<L>) {
    open(s, Disk::default());
    map_file(s, page(0), 1);
    s.load(at(0)).unwrap();
}

fn cut_and_unmap<L: Locking>() {
    Race::<L> {
        setting: CACHED,
        preemptions: 2,
        before: used,
        sides: vec![
            |s| {
                s.mm.unmap(page(0)).unwrap();
                assert!(!s.host.is_cached(at(0)), "unmapped, and a CPU uses it");
            },
            truncates,
        ],
        after: |s| assert_eq!(s.fault(at(0), Access::Read), Err(Denied::Unmapped)),
    }
    .run();
}

/// The same, and another space maps the file too, so that those of its places are forgotten that nobody wants.
fn cut_and_unmap_and_map<L: Locking>() {
    Race::<L> {
        setting: CACHED,
        preemptions: 2,
        before: |s| {
            let child = s.mm.fork().unwrap();
            used(s);
            map_file_in(s, &child, page(0), 0, Flags::SHARED);
            s.child = Some(child).into();
        },
        sides: vec![|s| s.mm.unmap(page(0)).unwrap(), |s| {
            let child = s.child.lock().unwrap().take().unwrap();
            map_file_in(s, &child, page(2), 0, Flags::SHARED);
            truncates(s);
            *s.child.lock().unwrap() = Some(child);
        }],
        after: |s| drop(s.child.lock().unwrap().take()),
    }
    .run();
}

/// Page 1 of the file, at page 0 of a child, where it is not shown, and at page 2, where it is.
fn maps_for_a_child<L: Locking>(s: &mut Space<L>) {
    open(s, Disk::default());
    let child = s.mm.fork().unwrap();
    map_file_in(s, &child, page(0), 1, Flags::SHARED);
    map_file(s, page(2), 1);
    s.get(at(2)).unwrap();
    s.child = Some(child).into();
}

/// The space of a child ends, which shows what is lost, or could.
fn cut_and_exit<L: Locking>() {
    let maps_and_shows: fn(&mut Space<L>) = |s| {
        maps_for_a_child(s);
        s.child.lock().unwrap().as_ref().unwrap().read_user(at(0), &mut [0]).unwrap();
    };
    let exits: Side<L> = |s| drop(s.child.lock().unwrap().take());
    let cuts: Side<L> = |s| file(s).truncate(0);
    for before in [maps_for_a_child, maps_and_shows] {
        for sides in [vec![exits, cuts], vec![cuts, exits]] {
            Race { setting: FILES, preemptions: 2, before, sides, after: |s| is_lost(s, 2) }.run();
        }
    }
}

/// A page that has been written to, which CPU 0 may write.
fn written<L: Locking>(s: &mut Space<L>) {
    open(s, Disk::writable());
    map_file(s, page(0), 0);
    s.store(at(0), 7).unwrap();
}

/// The same, which CPU 1 may write.
fn written_by_the_other<L: Locking>(s: &mut Space<L>) {
    run_on(1);
    written(s);
    run_on(0);
}

/// A page that nobody has written to.
fn read<L: Locking>(s: &mut Space<L>) {
    open(s, Disk::writable());
    map_file(s, page(0), 0);
    s.fault(at(0), Access::Read).unwrap();
}

/// The disk takes its time, and goes on while somebody sleeps.
fn slowly<L: Locking>(s: &mut Space<L>) {
    disk(s).set_slow(true);
    let file = file(s).downgrade();
    s.host.while_asleep(move |_| {
        if let Some(file) = file.upgrade() {
            file.store().unwrap().finish(&file, true);
        }
    });
}

fn written_slowly<L: Locking>(s: &mut Space<L>) {
    written(s);
    slowly(s);
}

/// What was stored to page 0 of the file last.
fn is_kept<L: Locking>(s: &Space<L>, byte: u8) {
    assert!(file(s).is_dirty(0) || disk(s).byte(0) == byte, "it is neither in the store nor noted");
    assert_eq!(s.get(at(0)), Ok(byte));
}

fn flushes<L: Locking>(s: &Space<L>) {
    file(s).flush(0..1).unwrap();
}

fn flush_and_write<L: Locking>() {
    let stores: Side<L> = |s| s.store(at(0), 9).unwrap();
    let befores: [fn(&mut Space<L>); 4] = [written, written_slowly, read, written_by_the_other];
    for before in befores {
        for sides in [vec![stores, flushes], vec![flushes, stores]] {
            Race { setting: TORN, preemptions: 2, before, sides, after: |s| is_kept(s, 9) }.run();
        }
    }
}

/// What a CPU stores by the translation that it has, before it is told to forget it: by the flush of who has taken the entry away.
fn flush_and_zap<L: Locking>() {
    Race::<L> {
        setting: TORN_BESIDE_ONE,
        preemptions: 1,
        before: written,
        sides: vec![
            |s| {
                if let Some(frame) = s.host.translate(&s.mm, at(0), Access::Write) {
                    s.host.poke(frame, 9);
                    s.guarded.write();
                }
            },
            flushes,
            |s| s.host.zap(&s.mm, page(0)),
        ],
        after: |s| is_kept(s, if s.guarded.read() == 1 { 9 } else { 7 }),
    }
    .run();
}

/// Whoever completes the transfer that was started.
fn completes<L: Locking>(s: &Space<L>, ok: bool) {
    while !disk(s).finish(file(s), ok) {
        loom::thread::yield_now();
    }
}

fn ends_well<L: Locking>(s: &Space<L>) {
    completes(s, true);
}

fn ends_badly<L: Locking>(s: &Space<L>) {
    completes(s, false);
}

/// When the file is longer again, what was there before it was cut is not.
fn is_read_anew<L: Locking>(s: &Space<L>) {
    disk(s).set_slow(false);
    assert_eq!(s.fault(at(0), Access::Read), Err(Denied::Bus));
    file(s).extend(PAGE);
    let before = disk(s).reads();
    assert_eq!(s.get(at(0)), Ok(disk(s).byte(0)));
    assert_eq!(disk(s).reads(), before + 1, "lost, and in memory");
}

/// Transfers that somebody completes while the file is cut.
fn cut_and_completion<L: Locking>() {
    let being_written: fn(&mut Space<L>) = |s| {
        written(s);
        disk(s).set_slow(true);
        assert_eq!(s.host.reclaimer().reclaim(&s.host, 1), Reclaimed { freed: 0, writing: 1 });
    };
    let being_read: fn(&mut Space<L>) = |s| {
        open(s, Disk::slow());
        map_file(s, page(0), 0);
        assert!(matches!(s.mm.fault(at(0), Access::Read), Outcome::Wait(_)));
    };
    let cuts: Side<L> = |s| {
        truncates(s);
        assert!(!disk(s).is_writing(), "cut, and it is written");
    };
    for before in [being_written, being_read] {
        for end in [ends_well as Side<L>, ends_badly] {
            for sides in [vec![cuts, end], vec![end, cuts]] {
                Race { setting: UNCACHED, preemptions: 2, before, sides, after: is_read_anew }.run();
            }
        }
    }
}

fn reclaims<L: Locking>(s: &Space<L>) {
    s.host.reclaimer().reclaim(&s.host, 1);
}

/// A page that is to be written leaves beside a store, which is in the store then, or noted.
fn out_and_write<L: Locking>() {
    let stores: Side<L> = |s| s.store(at(0), 9).unwrap();
    for sides in [vec![stores, reclaims], vec![reclaims, stores]] {
        Race { setting: Setting { swap: 1, ..TORN }, preemptions: 2, before: written, sides, after: |s| is_kept(s, 9) }.run();
    }
}

/// A page leaves, and is lost.
fn out_and_cut<L: Locking>() {
    for sides in [vec![truncates, reclaims], vec![reclaims, truncates]] {
        Race::<L> { setting: UNCACHED, preemptions: 2, before: used, sides, after: |s| is_lost(s, 0) }.run();
    }
}

fn out_and_fault<L: Locking>() {
    let uses: [Side<L>; 2] = [|s| assert_eq!(s.load(at(0)), Ok(BYTE + 1)), |s| s.store(at(0), 9).unwrap()];
    for side in uses {
        Race::<L> {
            setting: PRESSED,
            preemptions: 2,
            before: used,
            sides: vec![reclaims, side],
            after: |s| assert!([Ok(BYTE + 1), Ok(9)].contains(&s.get(at(0)))),
        }
        .run();
    }
}

spile::test_each_design! {
    truncate_against_fault => cut_and_fault;
    truncate_against_read => cut_and_read;
    truncate_against_transfer => cut_and_completion;
    truncate_against_munmap => cut_and_unmap;
    truncate_against_munmap_and_map => cut_and_unmap_and_map;
    exit_against_truncate => cut_and_exit;
    flush_against_write => flush_and_write;
    flush_against_zap => flush_and_zap;
    eviction_against_write => out_and_write;
    eviction_against_truncate => out_and_cut;
    eviction_against_fault => out_and_fault;
}

#[cfg(feature = "linux")]
mod moves {
    use super::*;
    use spile::linux::remap::{FIXED, MAYMOVE};

    fn moves<L: Locking, const TO: u64>(s: &Space<L>) {
        assert_eq!(s.mm.mremap(at(0), PAGE, PAGE, MAYMOVE | FIXED, at(TO)), Ok(at(TO)));
    }

    fn cuts<L: Locking>(s: &Space<L>) {
        file(s).truncate(0);
    }

    fn cut_and_move<L: Locking>() {
        for sides in [vec![moves::<L, 2>, cuts], vec![cuts, moves::<L, 2>]] {
            Race { setting: CACHED, preemptions: 2, before: used, sides, after: |s| is_lost(s, 2) }.run();
        }
    }

    /// What moves merges with what is there, which shows the page before.
    fn cut_and_merge<L: Locking>() {
        let before: fn(&mut Space<L>) = |s| {
            open(s, Disk::default());
            map_file(s, page(2), 0);
            map_file(s, page(0), 1);
            s.load(at(0)).unwrap();
        };
        for sides in [vec![moves::<L, 3>, cuts], vec![cuts, moves::<L, 3>]] {
            Race { setting: CACHED, preemptions: 2, before, sides, after: |s| is_lost(s, 3) }.run();
        }
    }

    spile::test_each_design! {
        truncate_against_mremap => cut_and_move;
        truncate_against_mremap_that_merges => cut_and_merge;
    }
}
