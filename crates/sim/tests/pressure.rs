//! Programs that want more memory than there is, for each design.
//!
//! **Guarantee.** For each seed tried: every byte that a program reads is the one it wrote last, whatever left memory in between and however many spaces
//! share it, also where transfers fail; every access ends; memory is refused only when none can be freed; at the end no frame and no slot is
//! left.
//!
//! **Mechanism.** A family of spaces, each with a model of one byte per page, acts on one CPU in turn while pages leave and come back. There are frames
//! for a tenth to a half of what the programs write. `SPILE_SEEDS` sets the number of seeds.

mod programs;
mod seeds;

use programs::{Program, SPACES, at, map, pages, space};
use seeds::seeds;
use spile::linux::{Errno, MLOCK_ONFAULT, advice, map as mmap, prot, remap};
use spile::reclaim::{Marks, Pressed as _};
use spile::{Access, Denied, Done, Error, Layout, Locking, Mm, Outcome, PAGE};
use spile_sim::{Content, Rng, Sim, Swapped, User};

/// Lets so many pages go that nothing is left that could.
fn let_all_go(sim: &Sim) {
    sim.cpu(3).reclaim(usize::MAX);
    (0..100).for_each(|_| sim.cpu(3).pause());
}

fn a_page_goes_and_comes_back<L: Locking>() {
    let sim = Sim::builder().swap(8).build();
    let mm = space::<L>(&sim);
    let cpu = sim.cpu(0);
    let user = cpu.enter(&mm);
    map(&user, pages(0, 4));
    (0..3).for_each(|n| user.store(at(n), 10 + n as u8).unwrap());
    let before = sim.free_frames();
    let_all_go(&sim);
    assert_eq!(sim.free_frames(), before + 3, "three pages have left memory");
    assert_eq!(resident(&mm), (0, 3));
    // For reading: it is nobody else's, so it can be written without another fault.
    assert!(matches!(cpu.call(|| mm.fault_and_wait(at(0), Access::Read)), Ok(Done::Swapped)));
    assert!(matches!(cpu.call(|| mm.fault_and_wait(at(0), Access::Write)), Ok(Done::Spurious)));
    (0..3).for_each(|n| assert_eq!(user.load(at(n)), Ok(10 + n as u8)));
    assert_eq!(user.load(at(3)), Ok(0), "it was never written");
    assert_eq!((sim.swap().done().out, sim.swap().done().back), (3, 3));
    user.unmap(pages(0, 4)).unwrap();
    drop(user);
    drop(mm);
    sim.finish();
}

fn what_is_shared_is_written_once<L: Locking>() {
    let sim = Sim::builder().swap(8).build();
    let mm = space::<L>(&sim);
    let cpu = sim.cpu(0);
    let user = cpu.enter(&mm);
    map(&user, pages(0, 1));
    user.store(at(0), 7).unwrap();
    let child = user.fork().unwrap();
    let grandchild = cpu.call(|| child.fork()).unwrap();
    let_all_go(&sim);
    assert_eq!(sim.swap().done().out, 1, "three spaces show it, and it is one page");
    drop(user);
    // The parent ends; its descendants have what it had.
    cpu.call(|| drop(mm));
    let (one, two) = (sim.cpu(1), sim.cpu(2));
    let (one, two) = (one.enter(&child), two.enter(&grandchild));
    assert_eq!(one.load(at(0)), Ok(7));
    assert_eq!(two.load(at(0)), Ok(7));
    assert_eq!(sim.swap().done().back, 1, "it is read once for both");
    let_all_go(&sim);
    assert_eq!(sim.swap().done().out, 2, "both had fetched it, and it left its slot: it is written once for both");
    assert_eq!(one.load(at(0)), Ok(7));
    let_all_go(&sim);
    assert_eq!(sim.swap().done().out, 2, "its slot is the other's still, and it is not written again");
    one.store(at(0), 8).unwrap();
    assert_eq!((one.load(at(0)), two.load(at(0))), (Ok(8), Ok(7)));
    drop((one, two));
    drop((child, grandchild));
    sim.finish();
}

/// One call looks at each page as often as it takes to see that nobody uses it.
fn all_leave_at_once<L: Locking>() {
    let sim = Sim::builder().swap(200).build();
    let mm = space::<L>(&sim);
    let cpu = sim.cpu(0);
    let user = cpu.enter(&mm);
    map(&user, pages(0, 150));
    (0..150).for_each(|n| user.store(at(n), n as u8).unwrap());
    assert_eq!(sim.cpu(1).reclaim(usize::MAX).freed, 150);
    assert_eq!(sim.cpu(1).reclaim(usize::MAX).freed, 0);
    (0..150).for_each(|n| assert_eq!(user.load(at(n)), Ok(n as u8)));
    drop(user);
    drop(mm);
    sim.finish();
}

fn what_is_used_stays<L: Locking>() {
    let sim = Sim::builder().swap(64).build();
    let mm = space::<L>(&sim);
    let cpu = sim.cpu(0);
    let user = cpu.enter(&mm);
    map(&user, pages(0, 40));
    (0..40).for_each(|n| user.store(at(n), n as u8).unwrap());
    // Some are used between any two looks, the others are not.
    for _ in 0..8 {
        sim.cpu(1).reclaim(4);
        (0..4).for_each(|n| _ = cpu.call(|| user.mm().write_user(at(n), &[1])));
    }
    let is_here = |n: &u64| mm.page_table().peek(&sim, at(*n)).is_some();
    assert!((0..4).all(|n| is_here(&n)), "pages left that were used all the time");
    assert!((4..40).filter(is_here).count() < 20, "pages stayed that nobody used");
    drop(user);
    drop(mm);
    sim.finish();
}

/// There are frames for few of the pages, and each access ends.
fn more_is_written_than_there_is_memory<L: Locking>() {
    let sim = Sim::builder().swap(200).frames(24).build();
    sim.swap().set_delay(3);
    let mm = space::<L>(&sim);
    let cpu = sim.cpu(0);
    let user = cpu.enter(&mm);
    map(&user, pages(0, 100));
    for round in 0..3 {
        for n in 0..100 {
            assert_eq!(user.load(at(n)), Ok(if round == 0 { 0 } else { round * 50 + n as u8 }));
            user.store(at(n), (round + 1) * 50 + n as u8).unwrap();
        }
    }
    let child = user.fork().unwrap();
    user.store(at(0), 1).unwrap();
    drop(user);
    let user = cpu.enter(&child);
    (0..100).for_each(|n| assert_eq!(user.load(at(n)), Ok(150 + n as u8)));
    drop(user);
    drop((mm, child));
    sim.finish();
}

/// When nothing can be freed a fault is refused, and nothing is lost.
fn there_is_an_end_to_memory<L: Locking>() {
    let sim = Sim::builder().swap(10).frames(24).build();
    let mm = space::<L>(&sim);
    let cpu = sim.cpu(0);
    let user = cpu.enter(&mm);
    map(&user, pages(0, 100));
    let stored = (0..100).take_while(|n| user.store(at(*n), *n as u8).is_ok()).count() as u64;
    assert!((24..34).contains(&stored), "{stored} pages fit into 24 frames, but for tables, and 10 slots");
    assert_eq!(user.store(at(stored), 1), Err(Denied::NoMemory));
    // A page that was just written is in memory.
    user.unmap(pages(stored - 1, 1)).unwrap();
    (0..stored - 1).for_each(|n| assert_eq!(user.load(at(n)), Ok(n as u8)));
    assert_eq!(user.store(at(stored), 1), Ok(()), "a page has gone for it");
    drop(user);
    drop(mm);
    sim.finish();
}

/// A fork finds frames, however few are free when it begins: its own failed attempts are no reason to try once more.
fn a_fork_finds_frames<L: Locking>() {
    for free in 1..8 {
        let sim = Sim::builder().swap(200).frames(40).build();
        let mm = space::<L>(&sim);
        let cpu = sim.cpu(0);
        let user = cpu.enter(&mm);
        map(&user, pages(0, 100));
        let stored = fill(&sim, &user, free);
        let child = user.fork().unwrap_or_else(|error| panic!("with {free} frames free: {error}"));
        drop(user);
        let user = cpu.enter(&child);
        (0..stored).for_each(|n| assert_eq!(user.load(at(n)), Ok(1 + n as u8)));
        drop(user);
        drop((mm, child));
        sim.finish();
    }
}

/// Fills memory, of which `free` frames are left. How many pages were stored.
fn fill<L: Locking>(sim: &Sim, user: &User<'_, '_, L>, free: usize) -> u64 {
    let mut stored = 0;
    while sim.free_frames() > free {
        user.store(at(stored), 1 + stored as u8).unwrap();
        stored += 1;
    }
    stored
}

/// A space, a file, and memory to be shared find frames where there are none, as long as pages can leave; then they are refused, and nothing is lost.
fn what_is_new_finds_frames<L: Locking>() {
    for (slots, delay) in [(200, 0), (200, 3), (0, 0)] {
        let sim = Sim::builder().swap(slots).frames(40).build();
        sim.swap().set_delay(delay);
        let mm = space::<L>(&sim);
        let cpu = sim.cpu(0);
        let user = cpu.enter(&mm);
        map(&user, pages(0, 100));
        let mut stored = fill(&sim, &user, 0);
        let content = Content::new(vec![7; PAGE as usize]);
        let share = || mm.mmap(0, PAGE, prot::READ | prot::WRITE, mmap::SHARED | mmap::ANONYMOUS, None, 0);
        let mut fill_again = || stored = fill(&sim, &user, 0).max(stored);
        let new = cpu.call(|| Mm::<Sim, L>::new(sim.clone(), Layout::default()));
        fill_again();
        let file = cpu.call(|| sim.file(&content, PAGE));
        fill_again();
        let shared = cpu.call(share);
        let outcomes = (new.as_ref().err(), file.is_some(), shared.err());
        if slots == 0 {
            assert_eq!(outcomes, (Some(&Error::NoMemory), false, Some(Errno::ENOMEM)), "nothing can leave");
        } else {
            assert_eq!(outcomes, (None, true, None), "{delay} ticks away");
            assert_eq!(user.store(shared.unwrap(), 9), Ok(()));
        }
        (0..stored).for_each(|n| assert_eq!(user.load(at(n)), Ok(1 + n as u8)));
        drop(user);
        drop((mm, new, file));
        sim.finish();
    }
}

/// That nothing was found once is no reason to refuse when everything could leave.
fn a_refusal_is_of_today<L: Locking>() {
    let sim = Sim::builder().swap(10).frames(24).build();
    let mm = space::<L>(&sim);
    let cpu = sim.cpu(0);
    let user = cpu.enter(&mm);
    let fill = || {
        map(&user, pages(0, 100));
        (0..100).take_while(|n| user.store(at(*n), *n as u8).is_ok()).count() as u64
    };
    let stored = fill();
    {
        let Outcome::Wait(token) = cpu.call(|| mm.fault(at(stored), Access::Write)) else { panic!("memory is full") };
        (0..40).for_each(|_| assert!(cpu.call(|| token.is_over()), "nothing is on its way out"));
    }
    user.unmap(pages(0, 100)).unwrap();
    assert_eq!(fill(), stored, "as much fits as before");
    drop(user);
    drop(mm);
    sim.finish();
}

/// A device that fails for ever ends in a refusal, also where that takes it time.
fn a_broken_device_is_given_up<L: Locking>() {
    for delay in [0, 2] {
        let sim = Sim::builder().swap(100).frames(24).build();
        sim.swap().set_delay(delay);
        sim.swap().fail_one_in(Some(1));
        let mm = space::<L>(&sim);
        let cpu = sim.cpu(0);
        let user = cpu.enter(&mm);
        map(&user, pages(0, 100));
        let stored = (0..100).take_while(|n| user.store(at(*n), *n as u8).is_ok()).count() as u64;
        assert!((14..24).contains(&stored), "{stored} pages fit into 24 frames, but for tables");
        assert_eq!(user.store(at(stored), 1), Err(Denied::NoMemory));
        (0..stored).for_each(|n| assert_eq!(user.load(at(n)), Ok(n as u8)));
        drop(user);
        drop(mm);
        sim.finish();
    }
}

/// A page that moved while others had it leaves when it is its mapping's own again.
fn what_moved_leaves_too<L: Locking>() {
    for child_moves in [false, true] {
        let sim = Sim::builder().swap(20).build();
        let mm = space::<L>(&sim);
        let cpu = sim.cpu(0);
        let user = cpu.enter(&mm);
        map(&user, pages(0, 4));
        (0..4).for_each(|n| user.store(at(n), 1).unwrap());
        let child = user.fork().unwrap();
        drop(user);
        let (moves, ends) = if child_moves { (child, mm) } else { (mm, child) };
        cpu.call(|| moves.mremap(at(0), 4 * PAGE, 4 * PAGE, remap::MAYMOVE | remap::FIXED, at(100))).unwrap();
        cpu.call(|| drop(ends));
        let user = cpu.enter(&moves);
        (0..4).for_each(|n| user.store(at(100 + n), 2).unwrap());
        let_all_go(&sim);
        assert_eq!(sim.swap().done().out, 4, "they stayed; the child moves: {child_moves}");
        (0..4).for_each(|n| assert_eq!(user.load(at(100 + n)), Ok(2)));
        drop(user);
        drop(moves);
        sim.finish();
    }
}

/// What cannot be read is told; what cannot be written stays.
fn a_device_fails<L: Locking>() {
    let sim = Sim::builder().swap(8).build();
    let mm = space::<L>(&sim);
    let cpu = sim.cpu(0);
    let user = cpu.enter(&mm);
    map(&user, pages(0, 1));
    user.store(at(0), 7).unwrap();
    for delay in [0, 2] {
        sim.swap().set_delay(delay);
        sim.swap().fail_one_in(Some(1));
        let before = sim.free_frames();
        let_all_go(&sim);
        assert_eq!(sim.free_frames(), before, "what could not be written left memory");
        assert_eq!(user.load(at(0)), Ok(7));
        sim.swap().fail_one_in(None);
        let_all_go(&sim);
        assert_eq!(sim.free_frames(), before + 1);
        sim.swap().fail_one_in(Some(1));
        assert_eq!(user.load(at(0)), Err(Denied::Bus));
        sim.swap().fail_one_in(None);
        assert_eq!(user.load(at(0)), Ok(7), "it is still in its slot");
    }
    drop(user);
    drop(mm);
    sim.finish();
}

/// What is being read belongs to whoever waits for it: nobody takes it away before the access is repeated.
fn what_is_waited_for_stays<L: Locking>() {
    let sim = Sim::builder().swap(8).build();
    let mm = space::<L>(&sim);
    let cpu = sim.cpu(0);
    let user = cpu.enter(&mm);
    map(&user, pages(0, 1));
    user.store(at(0), 7).unwrap();
    let_all_go(&sim);
    sim.swap().set_delay(1);
    let Outcome::Wait(token) = cpu.call(|| mm.fault(at(0), Access::Read)) else { panic!("it is not there") };
    let_all_go(&sim);
    assert!(token.is_over());
    assert!(matches!(cpu.call(|| mm.fault(at(0), Access::Read)), Outcome::Done(Done::Swapped)));
    drop(token);
    assert_eq!(sim.swap().done().back, 1, "it is read once");
    drop(user);
    drop(mm);
    sim.finish();
}

/// Who waits for a page has its neighbours read with it: as far as its mapping goes, and where there is memory for them.
fn neighbours_are_read_too<L: Locking>() {
    // (frames, is it said that accesses are random, how many reads were waited for)
    for (frames, is_random, waits) in [(200, false, 5..=6), (200, true, 36..=36), (34, false, 20..=36)] {
        let sim = Sim::builder().swap(100).frames(frames).build();
        sim.reclaimer().set_readahead(8);
        let mm = space::<L>(&sim);
        let cpu = sim.cpu(0);
        let user = cpu.enter(&mm);
        map(&user, pages(4, 36));
        map(&user, pages(200, 8));
        if is_random {
            cpu.call(|| mm.madvise(at(4), 36 * PAGE, advice::RANDOM)).unwrap();
        }
        (4..40).chain(200..208).for_each(|n| user.store(at(n), n as u8).unwrap());
        let_all_go(&sim);
        sim.swap().set_delay(2);
        let waited = (4..40).filter(|n| {
            let before = sim.counts().sleeps;
            assert_eq!(user.load(at(*n)), Ok(*n as u8));
            sim.counts().sleeps > before
        });
        let waited = waited.count();
        assert!(waits.contains(&waited), "{waited} of 36 loads waited, with {frames} frames");
        if frames == 200 {
            assert_eq!(sim.swap().done().back, 36, "each was read once, and none of another mapping");
        }
        drop(user);
        drop(mm);
        sim.finish();
    }
}

/// What was read for nobody, and could not be, is read again for who wants it.
fn neighbours_that_cannot_be_read<L: Locking>() {
    let sim = Sim::builder().swap(8).frames(100).build();
    sim.reclaimer().set_readahead(8);
    let mm = space::<L>(&sim);
    let cpu = sim.cpu(0);
    let user = cpu.enter(&mm);
    map(&user, pages(0, 8));
    (0..8).for_each(|n| user.store(at(n), 10 + n as u8).unwrap());
    let_all_go(&sim);
    sim.swap().set_delay(2);
    sim.swap().fail_one_in(Some(1));
    assert!(user.load(at(3)).is_err());
    (0..10).for_each(|_| cpu.pause());
    sim.swap().fail_one_in(None);
    assert_eq!(sim.swap().done().failed, 8);
    (0..8).for_each(|n| assert_eq!(user.load(at(n)), Ok(10 + n as u8)));
    drop(user);
    drop(mm);
    sim.finish();
}

fn resident<L: Locking>(mm: &Mm<Sim, L>) -> (u64, u64) {
    let resident = mm.resident(at(0)).unwrap().1;
    (resident.anon, resident.swapped)
}

/// What a program says of its pages: they leave though they were just used; they leave before others; they go without being written.
fn advice_is_followed<L: Locking>() {
    let sim = Sim::builder().swap(64).build();
    let mm = space::<L>(&sim);
    let cpu = sim.cpu(0);
    let user = cpu.enter(&mm);
    let advise = |first, count, advice| cpu.call(|| mm.madvise(at(first), count * PAGE, advice)).unwrap();
    map(&user, pages(0, 40));
    (0..40).for_each(|n| user.store(at(n), n as u8).unwrap());
    advise(0, 20, advice::PAGEOUT);
    assert_eq!(resident(&mm), (20, 20));
    (0..40).for_each(|n| assert_eq!(user.load(at(n)), Ok(n as u8)));
    advise(10, 10, advice::COLD);
    sim.cpu(1).reclaim(10);
    let is_here = |n: &u64| mm.page_table().peek(&sim, at(*n)).is_some();
    assert!((0..10).chain(20..40).all(|n| is_here(&n)), "pages left before those that are cold");
    assert!(!(10..20).any(|n| is_here(&n)), "cold pages stayed");

    let written = sim.swap().done().out;
    advise(0, 20, advice::FREE);
    assert_eq!(sim.swap().written(), 0, "what was away is not wanted");
    user.store(at(5), 55).unwrap();
    let_all_go(&sim);
    let zero = |n: &u64| user.load(at(*n)) == Ok(0);
    assert_eq!(sim.swap().done().out, written + 21, "what is not wanted was written, or what is was not");
    assert_eq!(user.load(at(5)), Ok(55), "it was written after it was free");
    assert!((0..5).chain(6..20).all(|n| zero(&n)), "what was free is still there, though all left");
    (20..40).for_each(|n| assert_eq!(user.load(at(n)), Ok(n as u8)));

    let child = user.fork().unwrap();
    advise(20, 20, advice::PAGEOUT);
    assert!((20..40).all(|n| is_here(&n)), "pages left that a child has too");
    cpu.call(|| drop(child));
    advise(20, 20, advice::PAGEOUT);
    assert!(!(20..40).any(|n| is_here(&n)), "pages stayed that nobody else has");
    (20..40).for_each(|n| assert_eq!(user.load(at(n)), Ok(n as u8)));
    drop(user);
    drop(mm);
    sim.finish();
}

/// What nobody else has may be dropped; a child's page is not the parent's to give away.
fn what_is_free_here_is_not_free_there<L: Locking>() {
    let sim = Sim::builder().swap(8).build();
    let mm = space::<L>(&sim);
    let cpu = sim.cpu(0);
    let user = cpu.enter(&mm);
    map(&user, pages(0, 2));
    (0..2).for_each(|n| user.store(at(n), 7).unwrap());
    cpu.call(|| mm.madvise(at(1), PAGE, advice::PAGEOUT)).unwrap();
    let child = user.fork().unwrap();
    cpu.call(|| mm.madvise(at(0), 2 * PAGE, advice::FREE)).unwrap();
    let_all_go(&sim);
    assert_eq!(user.load(at(1)), Ok(0), "its own was away, and is not wanted");
    drop(user);
    let user = cpu.enter(&child);
    (0..2).for_each(|n| assert_eq!(user.load(at(n)), Ok(7), "page {n} of the child"));
    drop(user);
    drop((mm, child));
    sim.finish();
}

/// Locked pages stay: those that were there, those that were away, and those that come.
fn what_is_locked_stays<L: Locking>() {
    let sim = Sim::builder().swap(64).build();
    let mm = space::<L>(&sim);
    let cpu = sim.cpu(0);
    let user = cpu.enter(&mm);
    map(&user, pages(0, 12));
    (0..8).for_each(|n| user.store(at(n), n as u8).unwrap());
    cpu.call(|| mm.madvise(at(0), 2 * PAGE, advice::PAGEOUT)).unwrap();
    cpu.call(|| mm.mlock(at(0), 4 * PAGE)).unwrap();
    cpu.call(|| mm.mlock2(at(10), 2 * PAGE, MLOCK_ONFAULT)).unwrap();
    user.store(at(10), 10).unwrap();
    let_all_go(&sim);
    let is_here = |n: u64| mm.page_table().peek(&sim, at(n)).is_some();
    assert!((0..4).chain([10]).all(is_here), "locked pages left");
    assert!(!(4..8).any(is_here), "pages stayed that nobody locked");
    // A child has the pages, and no lock; they stay for the parent's sake.
    let child = user.fork().unwrap();
    let_all_go(&sim);
    assert!((0..4).all(is_here), "locked pages left for a child");
    drop(child);
    // Moved, they stay locked.
    let there = at(100);
    cpu.call(|| mm.mremap(at(0), 4 * PAGE, 4 * PAGE, remap::MAYMOVE | remap::FIXED, there)).unwrap();
    let_all_go(&sim);
    assert!((100..104).all(is_here), "locked pages left when they had moved");
    cpu.call(|| mm.munlock(there, 4 * PAGE)).unwrap();
    let_all_go(&sim);
    assert!(!(100..104).any(is_here), "pages stayed that are no longer locked");
    (0..4).for_each(|n| assert_eq!(user.load(at(100 + n)), Ok(n as u8)));
    drop(user);
    drop(mm);
    sim.finish();
}

/// Pages leave before anybody waits for it.
fn a_balance_is_kept<L: Locking>() {
    let sim = Sim::builder().swap(64).frames(64).build();
    let mm = space::<L>(&sim);
    let cpu = sim.cpu(0);
    let user = cpu.enter(&mm);
    map(&user, pages(0, 60));
    let marks = Marks { low: 16, high: 24 };
    for n in 0..60 {
        user.store(at(n), n as u8).unwrap();
        let done = cpu.call(|| sim.reclaimer().balance(&sim, marks));
        assert!(sim.free_frames() >= 16, "{} frames are free after {done:?}", sim.free_frames());
        assert!(done.freed == 0 || sim.free_frames() >= 24, "{done:?}, and {} are free", sim.free_frames());
    }
    assert_eq!(sim.counts().sleeps, 0, "somebody waited");
    (0..60).for_each(|n| assert_eq!(user.load(at(n)), Ok(n as u8)));
    drop(user);
    drop(mm);
    sim.finish();
}

/// How many pages each program writes at most.
const WORK: u64 = 24;

/// A family of programs that write, read, map, unmap, fork and end, while there are frames for `percent` of what they write.
fn family<L: Locking>(seed: u64, percent: u64) -> Swapped {
    let mut rng = Rng::new(seed);
    let work = WORK * SPACES as u64;
    // Tables: four for each space, and as many that wait for their grace period.
    let frames = SPACES as u64 * 8 + 8 + work * percent / 100;
    let sim = Sim::builder().cpus(4).frames(frames as u32).swap(2 * work as u32).seed(seed).build();
    sim.swap().set_delay(rng.below(4) as u32);
    let fails = rng.one_in(2);
    sim.swap().fail_one_in(fails.then_some(7));
    sim.reclaimer().set_readahead([1, 8][seed as usize / 4 % 2]);
    let mut programs = vec![Program::<L>::new(&sim)];
    for op in 0..400 {
        let one = rng.below(programs.len() as u64) as usize;
        let cpu = sim.cpu(rng.below(4) as usize);
        let n = rng.below(WORK);
        let told = format!("seed {seed}, operation {op}, program {one}, page {n}");
        let mut forked = None;
        {
            let Program { mm, bytes } = &mut programs[one];
            let user = cpu.enter(mm);
            match rng.below(16) {
                0 => bytes.map(&user, n, 1 + rng.below(WORK - n)),
                1 => bytes.unmap(&user, n, 1 + rng.below(4.min(WORK - n))),
                2..=7 => bytes.store(&user, n, op as u8, fails, &told),
                8..=12 => bytes.load(&user, n, fails, &told),
                13 => _ = cpu.reclaim(rng.below(20) as usize),
                14 => forked = Some(rng.one_in(3)),
                _ => {}
            }
        }
        match forked {
            Some(true) if programs.len() > 1 => {
                let gone = programs.swap_remove(one);
                cpu.call(|| drop(gone));
            }
            Some(_) if programs.len() < SPACES => programs.push(programs[one].fork(&cpu, &told)),
            _ => {}
        }
    }
    programs::end(&sim, programs, seed)
}

fn families<L: Locking>() {
    let seeds = seeds(40);
    let done: Swapped = (0..seeds).map(|seed| family::<L>(seed, [10, 20, 30, 50][seed as usize % 4])).sum();
    println!("{:18} {seeds} families with 10 % to 50 % of the memory: {done}", L::NAME);
}

spile::test_each_design! {
    a_page_goes_and_comes_back => a_page_goes_and_comes_back;
    what_is_shared_is_written_once => what_is_shared_is_written_once;
    all_leave_at_once => all_leave_at_once;
    what_is_used_stays => what_is_used_stays;
    more_is_written_than_there_is_memory => more_is_written_than_there_is_memory;
    there_is_an_end_to_memory => there_is_an_end_to_memory;
    a_fork_finds_frames => a_fork_finds_frames;
    what_is_new_finds_frames => what_is_new_finds_frames;
    a_refusal_is_of_today => a_refusal_is_of_today;
    a_device_fails => a_device_fails;
    a_broken_device_is_given_up => a_broken_device_is_given_up;
    what_moved_leaves_too => what_moved_leaves_too;
    what_is_waited_for_stays => what_is_waited_for_stays;
    neighbours_are_read_too => neighbours_are_read_too;
    neighbours_that_cannot_be_read => neighbours_that_cannot_be_read;
    advice_is_followed => advice_is_followed;
    what_is_free_here_is_not_free_there => what_is_free_here_is_not_free_there;
    what_is_locked_stays => what_is_locked_stays;
    a_balance_is_kept => a_balance_is_kept;
    families => families;
}
