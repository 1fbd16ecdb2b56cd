//! Spaces that may show fewer pages than their programs use, for each design.
//!
//! **Guarantee.** For each seed tried: no fault brings a space above its limit; every byte that a program reads is the one it wrote last; every access ends, and is refused only
//! where no page of the space can leave; the count of pages is what a walk over the tables finds, and every frame is accounted for.
//!
//! **Mechanism.** One space under a magnifying glass, then families of spaces whose limits change while they act. There is memory for all of them: what leaves does so for a
//! limit's sake. `SPILE_SEEDS` sets the number of seeds.

#[cfg(feature = "sched")]
mod controls;
mod programs;
mod seeds;

use programs::{Program, SPACES, at, map, pages, space};
use seeds::seeds;
use spile::linux::remap;
use spile::reclaim::Pressed as _;
use spile::{Access, Attr, Backing, Denied, Flags, Locking, Mm, Outcome, PAGE, Place, Prot};
use spile_sim::{Content, Rng, Sim, Swapped};

/// How many pages a program uses.
const WORK: u64 = 40;

/// How many pages a walk finds.
fn walked<L: Locking>(mm: &Mm<Sim, L>) -> u64 {
    let (mut shown, mut starts) = (0, Vec::new());
    mm.each_mapping(|mapping| starts.push(mapping.range.start()));
    starts.into_iter().for_each(|at| shown += mm.resident(at).map_or(0, |(_, resident)| resident.anon + resident.file));
    shown
}

fn at_its_limit_one_page_takes_the_place_of_another<L: Locking>() {
    for (limit, delay) in [(1, 0), (8, 0), (8, 3)] {
        let sim = Sim::builder().swap(200).build();
        sim.swap().set_delay(delay);
        let (mm, other) = (space::<L>(&sim), space::<L>(&sim));
        let cpu = sim.cpu(0);
        let neighbour = sim.cpu(1);
        let neighbour = neighbour.enter(&other);
        map(&neighbour, pages(0, 20));
        (0..20).for_each(|n| neighbour.store(at(n), 99).unwrap());
        mm.set_limit(Some(limit));
        let user = cpu.enter(&mm);
        map(&user, pages(0, WORK));
        for round in 0..3 {
            for n in 0..WORK {
                assert_eq!(user.load(at(n)), Ok(if round == 0 { 0 } else { round * 50 + n as u8 }));
                user.store(at(n), (round + 1) * 50 + n as u8).unwrap();
                assert!(mm.resident_pages() <= limit, "{} pages of {limit}", mm.resident_pages());
                assert_eq!(mm.resident_pages(), walked(&mm));
            }
        }
        assert!(sim.swap().done().out >= WORK - limit, "pages went elsewhere");
        assert_eq!(other.resident_pages(), 20, "a neighbour lost pages for it");
        drop((user, neighbour));
        drop((mm, other));
        sim.finish();
    }
}

/// What is used stays, as far as there is room for it.
fn what_is_used_stays<L: Locking>() {
    let sim = Sim::builder().swap(100).build();
    let mm = space::<L>(&sim);
    mm.set_limit(Some(16));
    let cpu = sim.cpu(0);
    let user = cpu.enter(&mm);
    map(&user, pages(0, WORK));
    (0..4).for_each(|n| user.store(at(n), n as u8).unwrap());
    let mut left = 0;
    let mut rng = Rng::new(1);
    for _ in 0..400 {
        let n = 5 + rng.below(WORK - 5);
        user.store(at(n), n as u8).unwrap();
        left += (0..5).filter(|n| mm.page_table().peek(&sim, at(*n)).is_none()).count();
        // By the kernel's way: a TLB that forgets nothing does not mark again.
        (0..4).for_each(|n| cpu.call(|| mm.write_user(at(n), &[1])).unwrap());
        cpu.call(|| mm.read_user(at(4), &mut [0])).unwrap();
    }
    assert!(left < 10, "pages that were used all the time left {left} times");
    drop(user);
    drop(mm);
    sim.finish();
}

fn a_limit_takes_effect_at_once<L: Locking>() {
    let sim = Sim::builder().swap(100).build();
    let mm = space::<L>(&sim);
    let cpu = sim.cpu(0);
    let user = cpu.enter(&mm);
    assert_eq!(mm.limit(), None);
    map(&user, pages(0, WORK));
    (0..WORK).for_each(|n| user.store(at(n), n as u8).unwrap());
    assert_eq!(mm.resident_pages(), WORK);
    assert_eq!(cpu.call(|| mm.set_limit(Some(10))).freed as u64, WORK - 10);
    assert_eq!((mm.limit(), mm.resident_pages()), (Some(10), 10));
    assert_eq!(cpu.call(|| mm.shrink(4)).freed, 4);
    assert_eq!(mm.resident_pages(), 6);
    cpu.call(|| mm.set_limit(None));
    (0..WORK).for_each(|n| assert_eq!(user.load(at(n)), Ok(n as u8)));
    assert_eq!(mm.resident_pages(), WORK);
    drop(user);
    drop(mm);
    sim.finish();
}

/// Refused is what no page can make room for, and nothing else.
fn locked_pages_have_no_room_for_others<L: Locking>() {
    let sim = Sim::builder().swap(100).build();
    let mm = space::<L>(&sim);
    mm.set_limit(Some(4));
    let cpu = sim.cpu(0);
    let user = cpu.enter(&mm);
    map(&user, pages(0, WORK));
    cpu.call(|| mm.mlock(at(0), 4 * PAGE)).unwrap();
    assert_eq!(mm.resident_pages(), 4);
    let Outcome::Wait(token) = cpu.call(|| mm.fault(at(4), Access::Write)) else { panic!("there is no room") };
    assert!(cpu.call(|| token.is_over()), "nothing is on its way out");
    drop(token);
    assert_eq!(user.store(at(4), 1), Err(Denied::NoMemory));
    assert_eq!((0..4).map(|n| user.load(at(n))).collect::<Vec<_>>(), [Ok(0); 4]);
    cpu.call(|| mm.munlock(at(3), PAGE)).unwrap();
    assert_eq!(user.store(at(4), 1), Ok(()), "one can leave");
    assert_eq!(mm.resident_pages(), 4);
    mm.set_limit(Some(0));
    assert_eq!(user.store(at(5), 1), Err(Denied::NoMemory), "there is no room at all");
    drop(user);
    drop(mm);
    sim.finish();
}

/// A fork has what its parent had, be that more than it may have; its faults wait until it has less.
fn a_child_may_have_what_its_parent_may<L: Locking>() {
    let sim = Sim::builder().swap(100).build();
    let mm = space::<L>(&sim);
    let cpu = sim.cpu(0);
    let user = cpu.enter(&mm);
    map(&user, pages(0, WORK));
    (0..12).for_each(|n| user.store(at(n), n as u8).unwrap());
    cpu.call(|| mm.mlock(at(0), 12 * PAGE)).unwrap();
    cpu.call(|| mm.set_limit(Some(6)));
    assert_eq!(mm.resident_pages(), 12, "locked pages left");
    let child = user.fork().unwrap();
    assert_eq!((child.limit(), child.resident_pages()), (Some(6), 12));
    cpu.call(|| mm.munlock(at(0), 12 * PAGE)).unwrap();
    drop(user);
    let user = cpu.enter(&child);
    user.store(at(20), 20).unwrap();
    assert!(child.resident_pages() <= 6);
    (0..12).for_each(|n| assert_eq!(user.load(at(n)), Ok(n as u8)));
    assert!(child.resident_pages() <= 6);
    drop(user);
    drop((mm, child));
    sim.finish();
}

/// What is written to a file leaves too, when its store has it.
fn pages_of_files_make_room<L: Locking>() {
    for (delay, flags) in [(0, Flags::SHARED), (2, Flags::SHARED), (2, Flags::NONE)] {
        let sim = Sim::builder().swap(100).build();
        let content = Content::new(vec![7; (WORK * PAGE) as usize]);
        content.set_delay(delay);
        let file = sim.file(&content, WORK * PAGE).unwrap();
        let mm = space::<L>(&sim);
        let cpu = sim.cpu(0);
        let user = cpu.enter(&mm);
        mm.set_limit(Some(5));
        sim.swap().set_delay(delay);
        let backing = Backing::File(file, 0);
        user.map(Place::Over(pages(0, WORK)), |_| Attr {
            prot: Prot::RW,
            flags: flags.with(Flags::MAY_WRITE),
            backing,
            name: None,
        })
        .unwrap();
        for round in 0..3 {
            for n in 0..WORK {
                assert_eq!(user.load(at(n)), Ok(if round == 0 { 7 } else { round * 50 + n as u8 }), "page {n}, round {round}");
                user.store(at(n), (round + 1) * 50 + n as u8).unwrap();
                assert!(mm.resident_pages() <= 5);
                assert_eq!(mm.resident_pages(), walked(&mm));
            }
        }
        drop(user);
        drop(mm);
        sim.finish();
    }
}

/// Of each frame it can be said what it is for.
fn every_frame_is_accounted_for<L: Locking>() {
    let sim = Sim::builder().swap(100).build();
    let all = sim.free_frames() as u64;
    let content = Content::new(vec![7; (WORK * PAGE) as usize]);
    let file = sim.file(&content, WORK * PAGE).unwrap();
    let mm = space::<L>(&sim);
    let cpu = sim.cpu(0);
    let user = cpu.enter(&mm);
    map(&user, pages(0, WORK));
    let of_file = pages(1 << 20, WORK);
    let attr = |_| Attr { prot: Prot::R, flags: Flags::NONE, backing: Backing::File(file.clone(), 0), name: None };
    user.map(Place::Over(of_file), attr).unwrap();
    let check = |told: &str| {
        let mapped = mm.resident(of_file.start()).map_or(0, |(_, resident)| resident.file);
        let own = mm.resident_pages() - mapped + mm.page_table().frames(&sim);
        let files = file.cached_pages() + file.table_frames();
        let slots = u64::from(sim.reclaimer().area().frames());
        assert_eq!(
            all - sim.free_frames() as u64,
            own + files + slots,
            "{told}: {own} of the space, {files} of the file, {slots} of slots"
        );
    };
    check("nothing was used");
    (0..WORK).for_each(|n| user.store(at(n), 1).unwrap());
    check("pages were written");
    (0..10).for_each(|n| assert_eq!(user.load(of_file.start() + n * PAGE), Ok(7)));
    check("pages of a file were read");
    sim.swap().set_delay(5);
    cpu.reclaim(20);
    assert!(sim.reclaimer().area().frames() > 0);
    check("pages are being written");
    (0..100).for_each(|_| cpu.pause());
    check("pages are away");
    user.unmap(of_file).unwrap();
    (0..4).for_each(|_| cpu.call(|| spile::Platform::shared(&sim).relieve(&sim)));
    check("pages of a file are not mapped");
    drop(user);
    drop((mm, file));
    sim.finish();
}

/// A family of programs that write, read, map, unmap, move, fork and end, each with a limit that changes.
fn family<L: Locking>(seed: u64) -> Swapped {
    let mut rng = Rng::new(seed);
    let sim = Sim::builder().cpus(4).swap(2 * (WORK * SPACES as u64) as u32).seed(seed).build();
    sim.swap().set_delay(rng.below(4) as u32);
    let fails = rng.one_in(2);
    sim.swap().fail_one_in(fails.then_some(9));
    sim.reclaimer().set_readahead([1, 4][seed as usize % 2]);
    let mut programs = vec![Program::<L>::new(&sim)];
    for op in 0..300 {
        let one = rng.below(programs.len() as u64) as usize;
        let cpu = sim.cpu(rng.below(4) as usize);
        let n = rng.below(WORK);
        let told = format!("seed {seed}, operation {op}, program {one}, page {n}");
        let Program { mm, bytes } = &mut programs[one];
        let user = cpu.enter(mm);
        let before = mm.resident_pages();
        let limit = mm.limit().unwrap_or(u64::MAX);
        match rng.below(16) {
            0 => bytes.map(&user, n, 1 + rng.below(WORK - n)),
            1 => bytes.unmap(&user, n, 1 + rng.below(4.min(WORK - n))),
            2 if bytes.is_mapped(n) => {
                // There and back again, below another that came into its place.
                let move_to = |from, to| cpu.call(|| mm.mremap(at(from), PAGE, PAGE, remap::MAYMOVE | remap::FIXED, at(to)));
                move_to(n, WORK + 7).unwrap();
                map(&user, pages(n, 1));
                user.store(at(n), 1).or_else(|why| if why == Denied::Bus { Ok(()) } else { Err(why) }).unwrap();
                move_to(WORK + 7, n).unwrap();
            }
            3 => {
                let limit = if rng.one_in(4) { None } else { Some(1 + rng.below(WORK)) };
                cpu.call(|| mm.set_limit(limit));
            }
            4 => _ = cpu.call(|| mm.shrink(rng.below(20))),
            5 => _ = cpu.reclaim(rng.below(20) as usize),
            6..=10 => bytes.store(&user, n, op as u8, fails, &told),
            _ => bytes.load(&user, n, fails, &told),
        }
        let limit = limit.max(mm.limit().unwrap_or(u64::MAX));
        assert!(mm.resident_pages() <= limit.max(before), "{told}: {} of {limit} pages, before {before}", mm.resident_pages());
        drop(user);
        match rng.below(40) {
            0 if programs.len() > 1 => {
                let gone = programs.swap_remove(one);
                cpu.call(|| drop(gone));
            }
            1..=3 if programs.len() < SPACES => programs.push(programs[one].fork(&cpu, &told)),
            _ => {}
        }
        programs.iter().for_each(|Program { mm, .. }| assert_eq!(mm.resident_pages(), walked(mm), "{told}"));
    }
    programs::end(&sim, programs, seed)
}

fn families<L: Locking>() {
    let seeds = seeds(40);
    let done: Swapped = (0..seeds).map(family::<L>).sum();
    println!("{:18} {seeds} families with limits: {done}", L::NAME);
}

spile::test_each_design! {
    at_its_limit_one_page_takes_the_place_of_another => at_its_limit_one_page_takes_the_place_of_another;
    what_is_used_stays => what_is_used_stays;
    a_limit_takes_effect_at_once => a_limit_takes_effect_at_once;
    locked_pages_have_no_room_for_others => locked_pages_have_no_room_for_others;
    a_child_may_have_what_its_parent_may => a_child_may_have_what_its_parent_may;
    pages_of_files_make_room => pages_of_files_make_room;
    every_frame_is_accounted_for => every_frame_is_accounted_for;
    families => families;
}

/// Seeded bugs, and who finds them.
#[cfg(feature = "sched")]
#[test]
fn controls() {
    controls::all_are_found(&[
        ("charge-beyond-the-limit", "vma_refcount::at_its_limit_one_page_takes_the_place_of_another"),
        ("count-arrivals-only", "vma_refcount::a_limit_takes_effect_at_once"),
        ("no-second-chance-at-the-limit", "vma_refcount::what_is_used_stays"),
    ]);
}
