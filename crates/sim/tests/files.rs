//! Files whose pages leave memory, are written back and are lost, for each design.
//!
//! **Guarantee.** For each seed tried: what is read through a mapping is what was written last through any, or is in the file; what a flush said is durable is; nobody
//! uses a page beyond the end; and pages leave and come back meanwhile, also where transfers fail.
//!
//! **Mechanism.** A machine whose files take writes, tear them and fail, and tell what they have kept at the last sync; or which come from no store (`shared`). `SPILE_SEEDS` sets the number of seeds.

#[cfg(feature = "sched")]
mod controls;
mod seeds;
mod shared;

use seeds::seeds;
use spile::backing::{File, Unwritten};
use spile::linux::{Errno, advice, remap, sync};
use spile::{Access, Attr, Backing, Denied, FaultKind, Flags, Layout, Locking, Mm, Outcome, PAGE, Place, Prot, Range, Waiting};
use spile_sim::{Content, Cpu, Rng, Sim, Swapped, User};
use std::collections::BTreeMap;
use std::sync::Once;

const BASE: u64 = 0x4000_0000;

fn at(n: u64) -> u64 {
    BASE + n * PAGE
}

fn pages(first: u64, count: u64) -> Range {
    Range::with_len(at(first), count * PAGE).unwrap()
}

fn space<L: Locking>(sim: &Sim) -> Mm<Sim, L> {
    Mm::new(sim.clone(), Layout::default()).unwrap()
}

/// A file of so many pages, the bytes of each its number plus 100.
fn numbered(sim: &Sim, count: u64) -> (Content, File<Sim>) {
    let content = Content::new((0..count * PAGE).map(|i| (100 + i / PAGE) as u8).collect());
    let file = sim.file(&content, count * PAGE).unwrap();
    (content, file)
}

fn of(file: &File<Sim>, first: u64, flags: Flags) -> Attr<Sim> {
    Attr { prot: Prot::RW, flags: flags.with(Flags::MAY_WRITE), backing: Backing::File(file.clone(), first), name: None }
}

fn map<L: Locking>(user: &User<'_, '_, L>, range: Range, file: &File<Sim>, first: u64, flags: Flags) {
    user.map(Place::Over(range), |_| of(file, first, flags)).unwrap();
}

/// Lets so many pages go that nothing is left that could.
fn let_all_go(sim: &Sim) {
    for _ in 0..3 {
        sim.cpu(3).reclaim(usize::MAX);
        (0..100).for_each(|_| sim.cpu(3).pause());
    }
}

/// How many pages are shown.
fn resident<L: Locking>(mm: &Mm<Sim, L>) -> usize {
    (0..200).filter(|n| mm.page_table().peek(mm.platform(), at(*n)).is_some()).count()
}

fn byte(bytes: &[u8], page: u64) -> u8 {
    bytes[(page * PAGE) as usize]
}

fn clean_pages_leave<L: Locking>() {
    let sim = Sim::builder().swap(0).build();
    let (one, two) = (space::<L>(&sim), space::<L>(&sim));
    let (content, file) = numbered(&sim, 4);
    {
        let (cpu, other) = (sim.cpu(0), sim.cpu(1));
        let (user, other) = (cpu.enter(&one), other.enter(&two));
        map(&user, pages(0, 4), &file, 0, Flags::SHARED);
        map(&user, pages(10, 4), &file, 0, Flags::NONE);
        map(&other, pages(20, 2), &file, 2, Flags::SHARED);
        let before = sim.free_frames();
        for n in 0..4 {
            assert_eq!((user.load(at(n)), user.load(at(10 + n))), (Ok(100 + n as u8), Ok(100 + n as u8)));
        }
        assert_eq!((other.load(at(20)), other.load(at(21))), (Ok(102), Ok(103)));
        assert_eq!(content.reads(), 4);
        let_all_go(&sim);
        assert_eq!((resident(&one), resident(&two)), (0, 0), "all of them have left, wherever they were shown");
        assert!(sim.free_frames() + 20 > before, "{} of {before} frames are free", sim.free_frames());
        assert_eq!((other.load(at(21)), user.load(at(3)), user.load(at(13))), (Ok(103), Ok(103), Ok(103)));
        assert_eq!(content.reads(), 5, "it was read once more for all");
        // What is used stays.
        assert_eq!(user.load(at(3)), Ok(103));
        sim.cpu(2).reclaim(1);
        assert_eq!(user.load(at(3)), Ok(103));
    }
    drop((one, two, file));
    sim.finish();
}

/// Who waits for a page has its neighbours read with it: as far as the file goes.
fn neighbours_are_read_too<L: Locking>() {
    for (readahead, waits) in [(1, 21), (8, 3)] {
        let sim = Sim::builder().swap(0).build();
        let mm = space::<L>(&sim);
        let (content, file) = numbered(&sim, 21);
        content.set_delay(2);
        file.set_readahead(readahead);
        {
            let cpu = sim.cpu(0);
            let user = cpu.enter(&mm);
            map(&user, pages(0, 21), &file, 0, Flags::NONE);
            let waited = (0..21).filter(|n| {
                let before = sim.counts().sleeps;
                user.store(at(*n), 1).unwrap();
                sim.counts().sleeps > before
            });
            assert_eq!(waited.count(), waits);
            assert_eq!(content.reads(), 21);
        }
        drop((mm, file));
        sim.finish();
    }
}

/// What was read for nobody, and could not be, is read again for who wants it: also by who waited for just that read with his hold.
fn neighbours_that_cannot_be_read<L: Locking>() {
    for waiting in [Waiting::Drop, Waiting::Hold] {
        let sim = Sim::builder().swap(0).build();
        let mut mm = space::<L>(&sim);
        mm.set_waiting(FaultKind::File, waiting);
        let (content, file) = numbered(&sim, 8);
        content.set_delay(2);
        file.set_readahead(8);
        content.set_failing(1, true);
        {
            let cpu = sim.cpu(0);
            let user = cpu.enter(&mm);
            map(&user, pages(0, 8), &file, 0, Flags::NONE);
            let first = cpu.call(|| mm.fault(at(0), Access::Read));
            assert!(matches!(first, Outcome::Wait(_)));
            content.set_failing(1, false);
            assert_eq!(user.load(at(1)), Ok(101), "its read was under way, and failed");
            assert_eq!(user.load(at(0)), Ok(100));
            assert_eq!((content.reads(), content.writes_and_failures()), (9, (0, 1)));
        }
        drop((mm, file));
        sim.finish();
    }
}

fn written_pages_leave<L: Locking>() {
    let sim = Sim::builder().swap(0).build();
    let mm = space::<L>(&sim);
    let (content, file) = numbered(&sim, 4);
    content.set_delay(3);
    {
        let cpu = sim.cpu(0);
        let user = cpu.enter(&mm);
        map(&user, pages(0, 4), &file, 0, Flags::SHARED);
        map(&user, pages(10, 4), &file, 0, Flags::NONE);
        (0..3).for_each(|n| user.store(at(n), 1 + n as u8).unwrap());
        user.store(at(11), 50).unwrap();
        assert_eq!(file.dirty_pages(), 3);
        content.set_failing(1, true);
        let_all_go(&sim);
        assert!(file.is_dirty(1) && file.dirty_pages() == 1, "what could not be written stays, and is dirty");
        assert_eq!(content.reads(), 3);
        assert_eq!((0..4).map(|n| user.load(at(n)).unwrap()).collect::<Vec<_>>(), [1, 2, 3, 103]);
        assert_eq!(content.reads(), 6, "three had left");
        content.set_failing(1, false);
        let_all_go(&sim);
        assert_eq!((file.dirty_pages(), resident(&mm)), (0, 1), "the private copy stays: there is no slot for it");
        assert_eq!((0..4).map(|n| user.load(at(n)).unwrap()).collect::<Vec<_>>(), [1, 2, 3, 103]);
        assert_eq!((0..4).map(|n| user.load(at(10 + n)).unwrap()).collect::<Vec<_>>(), [1, 50, 3, 103]);
    }
    drop((mm, file));
    sim.finish();
}

/// Through whatever mappings there are: cut, moved, merged, forked, private.
fn all_mappings_are_found<L: Locking>() {
    for moved_back in [false, true] {
        let sim = Sim::builder().swap(0).build();
        let mm = space::<L>(&sim);
        let (content, file) = numbered(&sim, 8);
        let cpu = sim.cpu(0);
        let user = cpu.enter(&mm);
        map(&user, pages(0, 8), &file, 0, Flags::SHARED);
        (0..8).for_each(|n| user.store(at(n), n as u8).unwrap());
        user.protect(pages(2, 2), Prot::R).unwrap();
        user.unmap(pages(5, 1)).unwrap();
        let moves = |from: u64, to: u64, len: u64| {
            cpu.call(|| mm.mremap(at(from), len * PAGE, len * PAGE, remap::MAYMOVE | remap::FIXED, at(to))).unwrap();
        };
        moves(6, 106, 2);
        moves(0, 100, 2);
        if moved_back {
            moves(100, 0, 2);
        }
        let first = if moved_back { 0 } else { 100 };
        let child = user.fork().unwrap();
        let other = sim.cpu(1);
        let child_user = other.enter(&child);
        let shown = [(first, 0), (first + 1, 1), (2, 2), (4, 4), (106, 6), (107, 7)];
        let all_right = || {
            for (place, page) in shown {
                assert_eq!((user.load(at(place)), child_user.load(at(place))), (Ok(page), Ok(page)), "page {page}");
            }
        };
        all_right();
        cpu.call(|| file.flush(0..8)).unwrap();
        assert_eq!(file.dirty_pages(), 0);
        child_user.store(at(first), 77).unwrap();
        user.store(at(107), 78).unwrap();
        assert_eq!(file.dirty_pages(), 2, "a write after a flush is noted, wherever it was");
        child_user.store(at(first), 0).unwrap();
        user.store(at(107), 7).unwrap();
        cpu.call(|| file.flush(0..u64::MAX)).unwrap();
        let_all_go(&sim);
        assert_eq!((resident(&mm), resident(&child)), (0, 0), "all of them have left");
        all_right();
        // The first half of them is lost.
        cpu.call(|| file.truncate(4 * PAGE));
        for (place, page) in shown {
            let wanted = if page < 4 { Ok(page) } else { Err(Denied::Bus) };
            assert_eq!((user.load(at(place)), child_user.load(at(place))), (wanted, wanted), "page {page}");
        }
        assert_eq!(byte(&content.durable(), 7), 7, "the store was not told");
        drop((user, child_user));
        drop((mm, child, file));
        sim.finish();
    }
}

fn what_was_flushed_is_durable<L: Locking>() {
    for delay in [0, 3] {
        let sim = Sim::builder().build();
        let mm = space::<L>(&sim);
        let (content, file) = numbered(&sim, 40);
        content.set_delay(delay);
        {
            let cpu = sim.cpu(0);
            let user = cpu.enter(&mm);
            map(&user, pages(0, 40), &file, 0, Flags::SHARED);
            (0..40).for_each(|n| user.store(at(n), n as u8).unwrap());
            assert_eq!(byte(&content.durable(), 7), 107, "nothing is durable by itself");
            cpu.call(|| mm.msync(at(0), 40 * PAGE, sync::ASYNC)).unwrap();
            assert_eq!(byte(&content.durable(), 7), 107);
            content.set_failing(20, true);
            assert_eq!(cpu.call(|| file.flush(0..40)), Err(Unwritten));
            assert!(file.is_dirty(20) && file.dirty_pages() == 1);
            assert_eq!(
                cpu.call(|| mm.msync(at(20), PAGE, sync::SYNC)),
                Err(Errno::EIO),
                "the next is told too: it is still not there"
            );
            assert_eq!(cpu.call(|| file.flush(0..20)), Ok(()), "it is about others");
            content.set_failing(20, false);
            assert_eq!(
                cpu.call(|| mm.msync(at(0), 60 * PAGE, sync::SYNC)),
                Err(Errno::ENOMEM),
                "of what is mapped, all was written"
            );
            let durable = content.durable();
            assert!((0..40).all(|n| byte(&durable, n) == n as u8), "all of it is durable");
            assert_eq!(file.dirty_pages(), 0);
            let writes = content.writes_and_failures().0;
            cpu.call(|| file.flush(0..40)).unwrap();
            assert_eq!(content.writes_and_failures().0, writes, "what is clean is not written");
            user.store(at(3), 99).unwrap();
            assert_eq!(file.dirty_pages(), 1);
            cpu.call(|| file.flush(0..40)).unwrap();
            assert_eq!(byte(&content.durable(), 3), 99);
        }
        drop((mm, file));
        sim.finish();
    }
}

fn a_file_that_takes_no_writes<L: Locking>() {
    let sim = Sim::builder().swap(0).build();
    let mm = space::<L>(&sim);
    let (content, file) = numbered(&sim, 2);
    content.set_read_only();
    {
        let cpu = sim.cpu(0);
        let user = cpu.enter(&mm);
        map(&user, pages(0, 2), &file, 0, Flags::SHARED);
        assert_eq!(cpu.call(|| file.flush(0..2)), Ok(()), "there is nothing to be written");
        user.store(at(0), 1).unwrap();
        assert_eq!(user.load(at(1)), Ok(101));
        let_all_go(&sim);
        assert_eq!((resident(&mm), content.writes_and_failures().0), (1, 0), "what was written stays");
        assert_eq!(cpu.call(|| file.flush(0..2)), Err(Unwritten));
        assert_eq!(user.load(at(0)), Ok(1));
    }
    drop((mm, file));
    sim.finish();
}

fn a_file_becomes_shorter<L: Locking>() {
    let sim = Sim::builder().build();
    let mm = space::<L>(&sim);
    let (content, file) = numbered(&sim, 8);
    {
        let cpu = sim.cpu(0);
        let user = cpu.enter(&mm);
        map(&user, pages(0, 8), &file, 0, Flags::SHARED);
        map(&user, pages(10, 8), &file, 0, Flags::NONE);
        (0..8).for_each(|n| user.store(at(n), n as u8).unwrap());
        user.store(at(16), 60).unwrap();
        let free = sim.free_frames();
        cpu.call(|| file.truncate(3 * PAGE + 10));
        content.resize(3 * PAGE as usize + 10);
        assert_eq!(sim.free_frames(), free + 4, "four pages are free");
        for n in 0..8 {
            let wanted = if n < 4 { Ok(n as u8) } else { Err(Denied::Bus) };
            assert_eq!(user.load(at(n)), wanted, "page {n}");
            assert_eq!(user.store(at(n), n as u8).err(), wanted.err(), "page {n}");
        }
        assert_eq!(user.load(at(15)), Err(Denied::Bus));
        assert_eq!(user.load(at(16)), Ok(60), "a private copy stays");
        assert_eq!(
            (user.load(at(3) + 9), user.load(at(3) + 10), user.load(at(4) - 1)),
            (Ok(103), Ok(0), Ok(0)),
            "beyond the end are zeros"
        );
        file.extend(8 * PAGE);
        assert_eq!(
            (user.load(at(3) + 10), user.load(at(5)), user.load(at(15))),
            (Ok(0), Ok(0), Ok(0)),
            "what was there is not there again"
        );
        user.store(at(6), 66).unwrap();
        cpu.call(|| file.flush(0..8)).unwrap();
        let durable = content.durable();
        assert_eq!([0, 3, 5, 6].map(|n| byte(&durable, n)), [0, 3, 0, 66]);
    }
    drop((mm, file));
    sim.finish();
}

/// What is on its way when the file becomes shorter is not there when it is longer again.
fn transfers_of_what_is_lost<L: Locking>() {
    let sim = Sim::builder().swap(0).build();
    let mm = space::<L>(&sim);
    let (content, file) = numbered(&sim, 4);
    {
        let cpu = sim.cpu(0);
        let user = cpu.enter(&mm);
        map(&user, pages(0, 4), &file, 0, Flags::SHARED);
        user.store(at(2), 22).unwrap();
        content.set_delay(20);
        // A write and a read under way.
        sim.cpu(1).reclaim(usize::MAX);
        let Outcome::Wait(token) = cpu.call(|| mm.fault(at(3), Access::Read)) else { panic!("it is not there") };
        assert_eq!((content.writes_and_failures().0, content.reads()), (1, 2));
        cpu.call(|| file.truncate(2 * PAGE));
        content.resize(2 * PAGE as usize);
        assert_eq!((user.load(at(2)), user.load(at(3))), (Err(Denied::Bus), Err(Denied::Bus)));
        file.extend(4 * PAGE);
        let_all_go(&sim);
        assert!(token.is_over());
        drop(token);
        assert_eq!((user.load(at(2)), user.load(at(3))), (Ok(0), Ok(0)), "zeros, and not what was written or read before");
        assert_eq!(user.load(at(1)), Ok(101));
    }
    drop((mm, file));
    sim.finish();
}

fn contents_change_elsewhere<L: Locking>() {
    let sim = Sim::builder().build();
    let mm = space::<L>(&sim);
    let (content, file) = numbered(&sim, 4);
    {
        let cpu = sim.cpu(0);
        let user = cpu.enter(&mm);
        map(&user, pages(0, 4), &file, 0, Flags::SHARED);
        (0..4).for_each(|n| assert_eq!(user.load(at(n)), Ok(100 + n as u8)));
        content.resize(0);
        content.resize(4 * PAGE as usize);
        assert_eq!(user.load(at(1)), Ok(101), "nobody was told");
        cpu.call(|| file.invalidate(1..3));
        assert_eq!((0..4).map(|n| user.load(at(n)).unwrap()).collect::<Vec<_>>(), [100, 0, 0, 103]);
    }
    drop((mm, file));
    sim.finish();
}

/// What a program says of pages of files: they leave though they were just used, unless others show them; what was written is written back first.
fn advice_is_followed<L: Locking>() {
    let sim = Sim::builder().swap(8).build();
    let (one, two) = (space::<L>(&sim), space::<L>(&sim));
    let (content, file) = numbered(&sim, 8);
    {
        let (cpu, other) = (sim.cpu(0), sim.cpu(1));
        let (user, other) = (cpu.enter(&one), other.enter(&two));
        let is_here = |n: u64| one.page_table().peek(&sim, at(n)).is_some();
        let shown = || (0..20).filter(|n| is_here(*n)).collect::<Vec<_>>();
        let out = |first, count| cpu.call(|| one.madvise(at(first), count * PAGE, advice::PAGEOUT)).unwrap();
        map(&user, pages(0, 4), &file, 0, Flags::SHARED);
        map(&user, pages(10, 4), &file, 4, Flags::NONE);
        map(&other, pages(20, 2), &file, 2, Flags::SHARED);
        let load_all =
            || (0..4).for_each(|n| assert_eq!((user.load(at(n)), user.load(at(10 + n))), (Ok(100 + n as u8), Ok(104 + n as u8))));
        load_all();
        assert_eq!((other.load(at(20)), other.load(at(21))), (Ok(102), Ok(103)));
        out(0, 4);
        out(10, 4);
        assert_eq!(shown(), [2, 3], "all leave but those that another shows");
        assert_eq!(resident(&two), 2);
        load_all();
        assert_eq!(content.reads(), 8 + 6);

        // Written back, and gone.
        user.store(at(0), 50).unwrap();
        user.store(at(11), 51).unwrap();
        out(0, 4);
        out(10, 4);
        assert_eq!((shown(), file.dirty_pages()), (vec![2, 3], 0));
        assert_eq!((content.writes_and_failures().0, sim.swap().done().out), (1, 1), "a private copy is a private page");
        assert_eq!((user.load(at(0)), user.load(at(11))), (Ok(50), Ok(51)));
        // What cannot be written stays.
        content.set_failing(0, true);
        user.store(at(0), 60).unwrap();
        out(0, 4);
        let in_memory = || {
            let mut pages = Vec::new();
            file.each_page(0..1, |page, is_dirty| pages.push((page, is_dirty)));
            pages
        };
        assert_eq!((is_here(0), in_memory()), (false, vec![(0, true)]));
        content.set_failing(0, false);
        // A store that takes its time: when it is over, the page is the next to leave.
        content.set_delay(3);
        cpu.call(|| file.send_out(0..1));
        assert_eq!(in_memory(), [(0, false)]);
        (0..10).for_each(|_| cpu.pause());
        sim.cpu(2).reclaim(1);
        assert_eq!(in_memory(), []);
        content.set_delay(0);
        assert_eq!(user.load(at(0)), Ok(60));
    }
    drop((one, two, file));
    sim.finish();
}

/// What a device may write, of which the core does not know, is written as it is, and stays until the device has it no more: then it is written again. Where the device writes by the
/// program's entry, that stays as it is, and a flush knows that there may be more.
fn what_others_may_write_stays<L: Locking>() {
    for never_faults in [false, true] {
        let sim = Sim::builder().swap(8).build();
        let mm = space::<L>(&sim);
        let (content, file) = numbered(&sim, 2);
        {
            let cpu = sim.cpu(0);
            let user = cpu.enter(&mm);
            map(&user, pages(0, 2), &file, 0, Flags::SHARED);
            user.map(Place::At(pages(10, 1)), |at| Attr::anon(at.start(), Prot::RW)).unwrap();
            [0, 1, 10].iter().for_each(|n| user.store(at(*n), 7).unwrap());
            let used = [0, 10].map(|n| sim.give_away(&mm, at(n), never_faults).unwrap());
            let leave = || (0..4).for_each(|_| _ = sim.cpu(1).reclaim(10));
            let entry = |n: u64| mm.page_table().peek(&sim, at(n));
            let is_here = |n: u64| entry(n).is_some();
            let stored = || {
                cpu.call(|| file.flush(0..2)).unwrap();
                content.durable()[0]
            };
            leave();
            assert_eq!([0, 1, 10].map(is_here), [true, false, true]);
            assert_eq!((file.is_dirty(0), file.dirty_pages()), (true, 1), "it is written, and may differ since");
            assert_eq!(entry(0).unwrap().prot.has(Prot::W), never_faults);
            assert_eq!((stored(), file.is_dirty(0)), (7, never_faults));
            user.store(at(0), 7).unwrap();
            used.iter().for_each(|used| used.write(8));
            assert_eq!([0, 10].map(|n| user.load(at(n))), [Ok(8), Ok(8)]);
            drop(used);
            leave();
            assert_eq!(([0, 1, 10].map(is_here), file.dirty_pages(), stored()), ([false; 3], 0, 8));
            assert_eq!([0, 1, 10].map(|n| user.load(at(n))), [Ok(8), Ok(7), Ok(8)]);
        }
        drop((mm, file));
        sim.finish();
    }
}

/// Pages that are cold leave before those that were used.
fn cold_pages_leave_first<L: Locking>() {
    let sim = Sim::builder().swap(0).build();
    let mm = space::<L>(&sim);
    let (_, file) = numbered(&sim, 40);
    {
        let cpu = sim.cpu(0);
        let user = cpu.enter(&mm);
        map(&user, pages(0, 40), &file, 0, Flags::SHARED);
        (0..40).for_each(|n| assert_eq!(user.load(at(n)), Ok(100 + n as u8)));
        cpu.call(|| mm.madvise(at(10), 10 * PAGE, advice::COLD)).unwrap();
        sim.cpu(1).reclaim(10);
        let left: Vec<_> = (0..40).filter(|n| mm.page_table().peek(&sim, at(*n)).is_none()).collect();
        assert_eq!(left, (10..20).collect::<Vec<_>>());
    }
    drop((mm, file));
    sim.finish();
}

fn locked_pages_stay<L: Locking>() {
    let sim = Sim::builder().swap(0).build();
    let mm = space::<L>(&sim);
    let (content, file) = numbered(&sim, 20);
    {
        let cpu = sim.cpu(0);
        let user = cpu.enter(&mm);
        map(&user, pages(100, 20), &file, 0, Flags::SHARED);
        (0..20).for_each(|n| assert_eq!(user.load(at(100 + n)), Ok(100 + n as u8)));
        user.unmap(pages(100, 20)).unwrap();
        // One fault maps what is in memory around.
        map(&user, pages(0, 20), &file, 0, Flags::SHARED);
        cpu.call(|| mm.mlock(at(0), 8 * PAGE)).unwrap();
        (8..20).for_each(|n| assert_eq!(user.load(at(n)), Ok(100 + n as u8)));
        let_all_go(&sim);
        assert_eq!(resident(&mm), 8);
        let reads = content.reads();
        (0..8).for_each(|n| assert_eq!(user.load(at(n)), Ok(100 + n as u8)));
        assert_eq!(content.reads(), reads);
        cpu.call(|| mm.munlock(at(0), 8 * PAGE)).unwrap();
        let_all_go(&sim);
        assert_eq!(resident(&mm), 0);
    }
    drop((mm, file));
    sim.finish();
}

/// More is written than there are frames, with a store that is done at once, and with one that is not.
fn more_is_written_than_there_is_memory<L: Locking>() {
    for delay in [0, 2] {
        let sim = Sim::builder().frames(300).swap(0).build();
        let mm = space::<L>(&sim);
        let (content, file) = numbered(&sim, 600);
        content.set_delay(delay);
        {
            let cpu = sim.cpu(0);
            let user = cpu.enter(&mm);
            map(&user, pages(0, 600), &file, 0, Flags::SHARED);
            (0..600).for_each(|n| assert_eq!(user.store(at(n), n as u8), Ok(()), "page {n}, {delay} ticks away"));
            cpu.call(|| file.flush(0..600)).unwrap();
            let durable = content.durable();
            assert!((0..600).all(|n| byte(&durable, n) == n as u8));
        }
        drop((mm, file));
        sim.finish();
    }
}

/// Pages that cannot be written are no reason to refuse the memory of those that can go.
fn a_broken_file_is_one_of_many<L: Locking>() {
    for delay in [0, 2] {
        let sim = Sim::builder().frames(300).swap(0).build();
        let mm = space::<L>(&sim);
        let ((broken, one), (whole, other)) = (numbered(&sim, 60), numbered(&sim, 600));
        [&broken, &whole].into_iter().for_each(|content| content.set_delay(delay));
        {
            let cpu = sim.cpu(0);
            let user = cpu.enter(&mm);
            map(&user, pages(0, 60), &one, 0, Flags::SHARED);
            map(&user, pages(100, 600), &other, 0, Flags::SHARED);
            (0..60).for_each(|n| user.store(at(n), 1).unwrap());
            broken.fail_one_in(Some(1), 0);
            (0..600).for_each(|n| assert_eq!(user.load(at(100 + n)), Ok((100 + n) as u8), "page {n}, {delay} ticks away"));
            assert_eq!(one.dirty_pages(), 60);
            (0..60).for_each(|n| assert_eq!(user.load(at(n)), Ok(1)));
        }
        drop((mm, one, other));
        sim.finish();
    }
}

/// A fault that sleeps with its hold is not told that a page cannot be read which is to be read anew.
fn a_read_that_is_lost_is_made_anew<L: Locking>() {
    for waiting in [Waiting::Drop, Waiting::Hold] {
        let sim = Sim::builder().build();
        let mut mm = space::<L>(&sim);
        FaultKind::ALL.into_iter().for_each(|kind| mm.set_waiting(kind, waiting));
        let (content, file) = numbered(&sim, 4);
        content.set_delay(3);
        {
            let cpu = sim.cpu(0);
            let user = cpu.enter(&mm);
            map(&user, pages(0, 4), &file, 0, Flags::SHARED);
            // Of two reads this one ends first: then the contents are invalidated, while the other is under way.
            let Outcome::Wait(token) = cpu.call(|| mm.fault(at(3), Access::Read)) else { panic!("it is not there") };
            cpu.pause();
            let (weak, once) = (file.downgrade(), Once::new());
            content.after_reads(move |page| {
                if let (3, Some(file)) = (page, weak.upgrade()) {
                    once.call_once(|| file.invalidate(0..4));
                }
            });
            assert_eq!(user.load(at(1)), Ok(101));
            drop(token);
            content.after_reads(|_| ());
        }
        drop((mm, file));
        sim.finish();
    }
}

/// What comes from nowhere, and what lies beyond what a file can have.
fn files_that_are_odd<L: Locking>() {
    let sim = Sim::builder().swap(0).build();
    let mm = space::<L>(&sim);
    let nameless = File::anonymous(sim.clone(), 4 * PAGE).unwrap();
    let content = Content::new(vec![9; 10]);
    let short = sim.file(&content, 10).unwrap();
    {
        let cpu = sim.cpu(0);
        let user = cpu.enter(&mm);
        map(&user, pages(0, 4), &nameless, 0, Flags::SHARED);
        user.store(at(0), 1).unwrap();
        assert_eq!(cpu.call(|| mm.msync(at(0), PAGE, sync::SYNC)), Ok(()), "it has nowhere to go");
        let_all_go(&sim);
        assert_eq!(user.load(at(0)), Ok(1));
        assert!(!nameless.is_dirty(1 << 40) && !nameless.evict(1 << 40), "there is no such page");
        // Its pages are numbered as those of the last that there can be, and then from 0 on.
        map(&user, pages(10, 4), &nameless, u64::MAX - 1, Flags::SHARED);
        assert_eq!((user.load(at(11)), user.load(at(12))), (Err(Denied::Bus), Ok(1)));
        cpu.call(|| nameless.truncate(0));
        assert_eq!((user.load(at(0)), user.load(at(12))), (Err(Denied::Bus), Err(Denied::Bus)));
        assert_eq!(cpu.call(|| mm.msync(at(10), 4 * PAGE, sync::SYNC)), Ok(()));
        map(&user, pages(20, 1), &short, 0, Flags::SHARED);
        user.store(at(20) + 20, 5).unwrap();
        cpu.call(|| short.flush(0..1)).unwrap();
        short.extend(PAGE);
        assert_eq!(user.load(at(20) + 20), Ok(0), "what was stored beyond the end is not there");
        let_all_go(&sim);
        assert_eq!((user.load(at(20) + 9), user.load(at(20) + 20)), (Ok(9), Ok(0)));
    }
    drop((mm, nameless, short));
    sim.finish();
}

/// Mapped again and again, with one mapping at a time: walks stay short, and what was displaced is not kept.
fn a_file_is_mapped_often<L: Locking>() {
    let sim = Sim::builder().swap(0).build();
    let mm = space::<L>(&sim);
    let (content, file) = numbered(&sim, 1);
    {
        let cpu = sim.cpu(0);
        let user = cpu.enter(&mm);
        for _ in 0..3000 {
            map(&user, pages(0, 1), &file, 0, Flags::SHARED);
            user.unmap(pages(0, 1)).unwrap();
        }
        map(&user, pages(0, 1), &file, 0, Flags::SHARED);
        user.store(at(0), 1).unwrap();
        cpu.call(|| file.flush(0..1)).unwrap();
        assert_eq!(byte(&content.durable(), 0), 1);
    }
    drop((mm, file));
    sim.finish();
}

const PAGES: u64 = 12;
const SPACES: usize = 3;
/// Where programs map.
const PLACES: u64 = 3 * PAGES;

/// What a program has where.
#[derive(Clone, Copy)]
struct Shown {
    page: u64,
    shared: bool,
    /// Its own copy, if it has one.
    copy: Option<u8>,
}

struct Program<L: Locking> {
    mm: Mm<Sim, L>,
    shown: BTreeMap<u64, Shown>,
}

/// What the file is to contain, and where transfers can fail.
struct World {
    rng: Rng,
    sim: Sim,
    /// None: it comes from nowhere, and begins as zeros.
    content: Option<Content>,
    file: File<Sim>,
    len: u64,
    bytes: [u8; PAGES as usize],
    fails: bool,
}

impl World {
    /// What both devices did.
    fn done(&self) -> Swapped {
        let of_file = self.content.as_ref().map_or(Swapped::default(), |content| {
            let (out, failed) = content.writes_and_failures();
            Swapped { out, back: content.reads(), failed }
        });
        self.sim.swap().done() + of_file
    }

    fn new(seed: u64, percent: u64, is_stored: bool) -> Self {
        let mut rng = Rng::new(seed);
        let frames = SPACES as u64 * 8 + 12 + PAGES * SPACES as u64 * percent / 100;
        let sim = Sim::builder().frames(frames as u32).swap(200).seed(seed).build();
        let (content, file) = if is_stored {
            let (content, file) = numbered(&sim, PAGES);
            (Some(content), file)
        } else {
            (None, File::anonymous(sim.clone(), PAGES * PAGE).unwrap())
        };
        let (delay, fails) = (rng.below(4) as u32, rng.one_in(2));
        content.iter().for_each(|content| content.set_delay(delay));
        sim.swap().set_delay(delay);
        file.set_readahead([1, 4][seed as usize / 4 % 2]);
        let bytes = core::array::from_fn(|n| if is_stored { 100 + n as u8 } else { 0 });
        let world = Self { rng, sim, content, file, len: PAGES, bytes, fails };
        world.fail_one_in(fails.then_some(9), seed);
        world
    }

    fn fail_one_in(&self, n: Option<u64>, seed: u64) {
        self.content.iter().for_each(|content| content.fail_one_in(n, seed));
        self.sim.swap().fail_one_in(n);
    }

    /// What a program is to read at a place.
    fn wanted(&self, shown: Option<&Shown>) -> Result<u8, Denied> {
        let Some(Shown { page, copy, .. }) = shown else { return Err(Denied::Unmapped) };
        match copy {
            Some(byte) => Ok(*byte),
            None if *page < self.len => Ok(self.bytes[*page as usize]),
            None => Err(Denied::Bus),
        }
    }

    /// A step of a program.
    fn step<L: Locking>(&mut self, cpu: &Cpu<'_>, program: &mut Program<L>, told: &str) {
        let Program { mm, shown } = program;
        let user = cpu.enter(mm);
        let (n, value) = (self.rng.below(PLACES), self.rng.below(256) as u8);
        match self.rng.below(20) {
            0 | 1 => {
                let count = 1 + self.rng.below(PAGES);
                let (first, shared) = (self.rng.below(PAGES), !self.rng.one_in(3));
                map(&user, pages(n, count), &self.file, first, Flags::when(shared, Flags::SHARED));
                (0..count).for_each(|i| _ = shown.insert(n + i, Shown { page: first + i, shared, copy: None }));
            }
            2 => {
                let count = 1 + self.rng.below(6);
                user.unmap(pages(n, count)).unwrap();
                shown.retain(|place, _| !(n..n + count).contains(place));
            }
            3 => {
                let (count, to) = (1 + self.rng.below(5), 100 + self.rng.below(4) * 8);
                let flags = remap::MAYMOVE | remap::FIXED;
                let (from, to) = if self.rng.one_in(2) { (n, to) } else { (to, n) };
                let sources: Vec<_> = (0..count).filter_map(|i| Some((to + i, shown.get(&(from + i)).copied()?))).collect();
                if sources.len() < count as usize {
                    return;
                }
                let moved = cpu.call(|| mm.mremap(at(from), count * PAGE, count * PAGE, flags, at(to)));
                // If it failed, some of it may have moved, and what was at the target is gone.
                let is_mapped = |place: u64| mm.mapping_from(at(place)).is_some_and(|mapping| mapping.range.contains(at(place)));
                let all = sources.len();
                let sources: Vec<_> = sources.into_iter().filter(|(place, _)| !is_mapped(place - to + from)).collect();
                assert!(moved.is_err() || sources.len() == all, "{told}: it has moved");
                shown.retain(|place, _| is_mapped(*place) && (moved.is_err() || !(to..to + count).contains(place)));
                shown.extend(sources);
            }
            4..=9 => {
                let place = if self.rng.one_in(4) { 100 + n } else { n };
                let wanted = self.wanted(shown.get(&place));
                match user.store(at(place), value) {
                    Ok(()) => {
                        assert!(wanted.is_ok(), "{told}: {place} was stored to, and {wanted:?}");
                        let shown = shown.get_mut(&place).unwrap();
                        if shown.shared { self.bytes[shown.page as usize] = value } else { shown.copy = Some(value) }
                    }
                    Err(denied) => assert!(
                        wanted.err() == Some(denied) || self.fails && denied == Denied::Bus,
                        "{told}: {denied:?}, {wanted:?}"
                    ),
                }
            }
            10..=15 => {
                let place = if self.rng.one_in(4) { 100 + n } else { n };
                let wanted = self.wanted(shown.get(&place));
                let read = user.load(at(place));
                assert!(read == wanted || self.fails && read == Err(Denied::Bus), "{told}: {read:?} at {place}, not {wanted:?}");
            }
            16 => _ = cpu.reclaim(self.rng.below(20) as usize),
            17 => self.flush(cpu, told),
            18 if self.rng.one_in(3) => {
                self.len = self.rng.below(PAGES) + 1;
                cpu.call(|| self.file.truncate(self.len * PAGE));
                self.content.iter().for_each(|content| content.resize((self.len * PAGE) as usize));
                self.bytes[self.len as usize..].fill(0);
            }
            _ => {
                self.len = PAGES;
                self.file.extend(PAGES * PAGE);
            }
        }
    }

    fn flush(&self, cpu: &Cpu<'_>, told: &str) {
        let flushed = cpu.call(|| self.file.flush(0..PAGES));
        assert!(flushed.is_ok() || self.fails, "{told}: {flushed:?}");
        if let (Ok(()), Some(content)) = (flushed, &self.content) {
            let durable = content.durable();
            let is_there = |page: u64| durable.get((page * PAGE) as usize).copied().unwrap_or(0);
            (0..self.len)
                .for_each(|page| assert_eq!(is_there(page), self.bytes[page as usize], "{told}: page {page} is not durable"));
        }
    }
}

/// Programs that map, write, move, flush, fork, and shorten a file, while there are frames for `percent` of what they use.
fn family<L: Locking>(seed: u64, percent: u64, is_stored: bool) -> Swapped {
    let mut world = World::new(seed, percent, is_stored);
    let sim = world.sim.clone();
    let mut programs = vec![Program::<L> { mm: space(&sim), shown: BTreeMap::new() }];
    for op in 0..400 {
        let one = world.rng.below(programs.len() as u64) as usize;
        let cpu = sim.cpu(world.rng.below(4) as usize);
        let told = format!("{} seed {seed}, operation {op}, program {one}", L::NAME);
        world.step(&cpu, &mut programs[one], &told);
        match world.rng.below(60) {
            0 if programs.len() > 1 => {
                let gone = programs.swap_remove(one);
                cpu.call(|| drop(gone));
            }
            1..=3 if programs.len() < SPACES => {
                let Program { mm, shown } = &programs[one];
                let (mm, shown) = (cpu.call(|| mm.fork()).unwrap_or_else(|error| panic!("{told}: {error}")), shown.clone());
                programs.push(Program { mm, shown });
            }
            _ => {}
        }
    }
    let done = world.done();
    world.fail_one_in(None, 0);
    world.fails = false;
    for Program { mm, shown } in programs {
        let cpu = sim.cpu(0);
        {
            let user = cpu.enter(&mm);
            for (place, page) in &shown {
                // What could not be read before may be told once more.
                let read = user.load(at(*place)).or_else(|_| user.load(at(*place)));
                assert_eq!(read, world.wanted(Some(page)), "{} seed {seed}, place {place} at the end", L::NAME);
            }
        }
        cpu.call(|| drop(mm));
    }
    world.flush(&sim.cpu(0), "at the end");
    drop(world);
    sim.finish();
    done
}

fn play<L: Locking>(is_stored: bool) {
    let (seeds, what) = (seeds(40), if is_stored { "a file" } else { "shared memory" });
    let done: Swapped = (0..seeds).map(|seed| family::<L>(seed, [10, 20, 30, 50][seed as usize % 4], is_stored)).sum();
    println!("{:18} {seeds} families with {what} and 10 % to 50 % of the memory: {done}", L::NAME);
}

fn families<L: Locking>() {
    play::<L>(true);
}

fn families_with_shared_memory<L: Locking>() {
    play::<L>(false);
}

spile::test_each_design! {
    clean_pages_leave => clean_pages_leave;
    neighbours_are_read_too => neighbours_are_read_too;
    neighbours_that_cannot_be_read => neighbours_that_cannot_be_read;
    written_pages_leave => written_pages_leave;
    all_mappings_are_found => all_mappings_are_found;
    what_was_flushed_is_durable => what_was_flushed_is_durable;
    a_file_that_takes_no_writes => a_file_that_takes_no_writes;
    a_file_becomes_shorter => a_file_becomes_shorter;
    transfers_of_what_is_lost => transfers_of_what_is_lost;
    contents_change_elsewhere => contents_change_elsewhere;
    advice_is_followed => advice_is_followed;
    what_others_may_write_stays => what_others_may_write_stays;
    cold_pages_leave_first => cold_pages_leave_first;
    locked_pages_stay => locked_pages_stay;
    more_is_written_than_there_is_memory => more_is_written_than_there_is_memory;
    a_broken_file_is_one_of_many => a_broken_file_is_one_of_many;
    a_read_that_is_lost_is_made_anew => a_read_that_is_lost_is_made_anew;
    files_that_are_odd => files_that_are_odd;
    a_file_is_mapped_often => a_file_is_mapped_often;
    families => families;
    families_with_shared_memory => families_with_shared_memory;
}

/// Seeded bugs, and who finds them.
#[cfg(feature = "sched")]
#[test]
fn controls() {
    controls::all_are_found(&[
        ("failed-write-is-clean", "vma_refcount::what_was_flushed_is_durable"),
        ("flush-without-sync", "vma_refcount::what_was_flushed_is_durable"),
        ("flush-without-waiting", "vma_refcount::what_was_flushed_is_durable"),
        ("write-what-is-written", "vma_refcount::all_mappings_are_found"),
        ("leave-what-is-in-use", "vma_refcount::what_others_may_write_stays"),
        ("written-for-good", "vma_refcount::what_others_may_write_stays"),
        ("protect-what-is-in-use", "vma_refcount::what_others_may_write_stays"),
        ("flushed-for-good", "vma_refcount::what_others_may_write_stays"),
        ("tail-of-what-is-away", "shared::vma_refcount::its_end_is_zeros"),
        ("lost-and-in-a-slot", "shared::vma_refcount::it_is_lost_while_it_is_away"),
    ]);
}
