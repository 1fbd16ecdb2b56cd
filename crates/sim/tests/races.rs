//! Races that once went wrong, each by itself: two CPUs under the seeded scheduler, and what must be true whatever the order.
//!
//! `SPILE_SEEDS` sets the number of seeds. A failing seed prints its story and repeats it.
#![cfg(feature = "sched")]

mod seeds;

use seeds::seeds;
use spile::linux::{Errno, advice, remap};
use spile::locking::Miss;
use spile::{Attr, Backing, Denied, Flags, Layout, Locking, Mm, PAGE, Place, Prot, Range, Vma};
use spile_sim::{Content, Cpu, Failures, Sim, User};
use spile_sync::sched::{Run, Strategy};
use std::mem::forget;
use std::sync::Mutex;

/// Two pages far from each other.
const A: u64 = 0x4000_0000;
const B: u64 = 0x5000_0000;

/// More than any of them needs.
const FRAMES: u32 = 100;

fn page(at: u64) -> Range {
    Range::page_of(at)
}

/// What a CPU does in the address space of the race.
type Side<'a, L> = &'a (dyn Fn(&User<'_, '_, L>, &Cpu<'_>, &Mm<Sim, L>) + Sync);

/// What must be so afterwards.
type After<'a, L> = &'a dyn Fn(&User<'_, '_, L>, &Mm<Sim, L>);

/// One race: what is there before, what two CPUs do, what must be so afterwards.
struct Race<'a, L: Locking> {
    frames: u32,
    before: &'a dyn Fn(&User<'_, '_, L>),
    sides: [Side<'a, L>; 2],
    after: After<'a, L>,
}

impl<L: Locking> Race<'_, L> {
    fn run(&self) {
        (0..seeds(300)).for_each(|seed| self.run_seed(seed));
    }

    fn run_seed(&self, seed: u64) {
        let sim = Sim::builder().cpus(2).frames(self.frames).seed(seed).build();
        if seed.is_multiple_of(3) {
            sim.stall_one_in(16);
        }
        let mm = Mm::new(sim.clone(), Layout::default()).unwrap();
        (self.before)(&sim.cpu(0).enter(&mm));
        let strategy =
            if seed.is_multiple_of(2) { Strategy::Random } else { Strategy::Pct { depth: 2 + (seed / 2 % 3) as usize } };
        let mut run = Run::new(seed).strategy(strategy).expect_steps(500).max_steps(300_000).keep_events(60);
        for (n, side) in self.sides.iter().enumerate() {
            let (sim, mm) = (&sim, &mm);
            run = run.spawn(format!("cpu {n}"), move || sim.run_on(n, |cpu| side(&cpu.enter(mm), cpu, mm)));
        }
        let outcome = run.run();
        if !outcome.is_ok() {
            // What is left of it is in no state to be dropped.
            forget(mm);
            panic!("seed {seed}: {}", outcome.story(30));
        }
        println!("seed {seed}");
        (self.after)(&sim.cpu(0).enter(&mm), &mm);
    }
}

fn map<L: Locking>(user: &User<'_, '_, L>, at: Range) {
    user.map(Place::Over(at), |at| Attr::anon(at.start(), Prot::RW)).unwrap();
}

fn written<L: Locking>(user: &User<'_, '_, L>, at: u64) {
    map(user, page(at));
    user.store(at, 1).unwrap();
}

/// mremap of one page.
fn mremap<L: Locking>(cpu: &Cpu<'_>, mm: &Mm<Sim, L>, flags: u32, to: u64) -> u64 {
    cpu.call(|| mm.mremap(A, PAGE, PAGE, remap::MAYMOVE | flags, to)).unwrap()
}

/// A store beside a move that leaves the source mapped is in one of the two places, and whoever has it passes it on to a child.
fn store_beside_dontunmap<L: Locking>(pages: u64, flags: u32, to: u64) {
    let target = Mutex::new(0);
    Race::<L> {
        frames: FRAMES,
        before: &|user| map(user, Range::with_len(A, pages * PAGE).unwrap()),
        sides: [&|_, cpu, mm| *target.lock().unwrap() = mremap(cpu, mm, flags | remap::DONTUNMAP, to), &|user, _, _| {
            user.store(A, 42).unwrap()
        }],
        after: &|user, mm| {
            let target = *target.lock().unwrap();
            let found = [A, target].map(|at| user.load(at).unwrap());
            assert!(found.contains(&42), "the store is lost: {found:?} in {mm:?}");
            let child = user.fork().unwrap();
            let inherited = [A, target].map(|at| {
                let mut byte = [0];
                user.cpu().call(|| child.read_user(at, &mut byte)).unwrap();
                byte[0]
            });
            assert_eq!(found, inherited, "the child of {mm:?}");
        },
    }
    .run();
}

/// What a move puts in the place of a mapping is there whenever somebody looks.
fn load_beside_move_over<L: Locking>() {
    Race::<L> {
        frames: FRAMES,
        before: &|user| [A, B].iter().for_each(|at| written(user, *at)),
        sides: [&|_, cpu, mm| _ = mremap(cpu, mm, remap::FIXED, B), &|user, _, _| {
            for _ in 0..3 {
                assert_eq!(user.load(B), Ok(1));
            }
        }],
        after: &|user, _| assert_eq!(user.load(B), Ok(1)),
    }
    .run();
}

/// The kernel writes to a page that is shared with a child meanwhile: the child does not see it once it has looked.
fn kernel_write_beside_fork<L: Locking>() {
    Race::<L> {
        frames: FRAMES,
        before: &|user| written(user, A),
        sides: [
            &|user, cpu, _| {
                let child = user.fork().unwrap();
                let read = || {
                    let mut byte = [0];
                    cpu.call(|| child.read_user(A, &mut byte)).unwrap();
                    byte
                };
                let first = read();
                (0..6).for_each(|_| cpu.pause());
                assert_eq!(first, read(), "nobody writes to the child");
            },
            &|_, cpu, mm| cpu.call(|| mm.write_user(A, &[9])).unwrap(),
        ],
        after: &|user, _| assert_eq!(user.load(A), Ok(9)),
    }
    .run();
}

/// The kernel writes to a page that is copied, or not, meanwhile.
fn kernel_write_beside_protect<L: Locking>() {
    let done = Mutex::new(false);
    Race::<L> {
        frames: FRAMES,
        before: &|user| written(user, A),
        sides: [
            &|user, _, _| {
                user.protect(page(A), Prot::R).unwrap();
                user.protect(page(A), Prot::RW).unwrap();
                user.store(A + 1, 7).unwrap();
            },
            &|_, cpu, mm| *done.lock().unwrap() = cpu.call(|| mm.write_user(A, &[9])).is_ok(),
        ],
        after: &|user, _| {
            let is = user.load(A).unwrap();
            assert_eq!(is, if *done.lock().unwrap() { 9 } else { 1 });
        },
    }
    .run();
}

/// What was populated for writing can be written without a fault, whoever read it first.
fn populate_beside_load<L: Locking>() {
    Race::<L> {
        frames: FRAMES,
        before: &|user| map(user, page(A)),
        sides: [&|_, cpu, mm| cpu.call(|| mm.madvise(A, PAGE, advice::POPULATE_WRITE)).unwrap(), &|user, _, _| {
            user.load(A).unwrap();
        }],
        after: &|_, mm| {
            let entry = mm.page_table().peek(mm.platform(), A);
            assert!(entry.is_some_and(|entry| entry.prot.has(Prot::W)), "{entry:?}");
        },
    }
    .run();
}

/// A page that cannot be read goes, and its frame becomes a table, while somebody still has its number.
fn failed_read_beside_tables<L: Locking>() {
    Race::<L> {
        frames: FRAMES,
        before: &|user| {
            let content = Content::new(vec![1; PAGE as usize]);
            content.set_failing(0, true);
            let file = user.cpu().sim().file(&content, PAGE).unwrap();
            let attr = Attr { prot: Prot::R, flags: Flags::SHARED, backing: Backing::File(file, 0), name: None };
            user.map(Place::Over(page(A)), |_| attr).unwrap();
        },
        sides: [&|user, _, _| assert!(user.load(A).is_err()), &|user, cpu, mm| {
            assert!(user.load(A).is_err());
            for _ in 0..3 {
                cpu.call(|| drop(Mm::<Sim, L>::new(mm.platform().clone(), Layout::default())));
            }
        }],
        after: &|_, _| (),
    }
    .run();
}

/// As above, twice: who looked during the first move and again during the second has not seen a hole.
fn load_beside_two_moves_over<L: Locking>() {
    Race::<L> {
        frames: FRAMES,
        before: &|user| [A, A + 2 * PAGE, B].iter().for_each(|at| written(user, *at)),
        sides: [
            &|_, cpu, mm| {
                for from in [A, A + 2 * PAGE] {
                    cpu.call(|| mm.mremap(from, PAGE, PAGE, remap::MAYMOVE | remap::FIXED, B)).unwrap();
                }
            },
            &|user, _, _| {
                for _ in 0..3 {
                    assert_eq!(user.load(B), Ok(1));
                }
            },
        ],
        after: &|user, _| assert_eq!(user.load(B), Ok(1)),
    }
    .run();
}

/// Who looked while one move had taken away what was there, and looks again while another has, has not seen that nothing is there.
fn two_looks_in_two_moves<L: Locking>() {
    let sim = Sim::builder().cpus(1).frames(FRAMES).build();
    let mm = Mm::<Sim, L>::new(sim.clone(), Layout::default()).unwrap();
    let cpu = sim.cpu(0);
    let user = cpu.enter(&mm);
    [A, B].iter().for_each(|at| written(&user, *at));
    let look_in_a_move = || {
        assert_eq!(mremap(&cpu, &mm, remap::FIXED, B), B);
        None::<&Vma<Sim, L>>
    };
    assert_eq!(mm.miss(B, look_in_a_move), Miss::Contended);
    assert_eq!(mm.miss(A, || None::<&Vma<Sim, L>>), Miss::NoVma);
}

/// A move of what nobody touched ends, also if a fault next to it takes the last frames meanwhile.
fn move_beside_the_last_fault<L: Locking>() {
    Race::<L> {
        // The topmost table, three on the way to a page, the page.
        frames: 5,
        before: &|user| {
            map(user, page(A));
            user.map(Place::Over(page(A + PAGE)), |at| Attr::anon(at.start(), Prot::RW.with(Prot::X))).unwrap();
        },
        sides: [
            &|_, cpu, mm| {
                // If the fault was first there is a table on the way to what moves, so the target may need one too.
                let moved = cpu.call(|| mm.mremap(A, PAGE, PAGE, remap::MAYMOVE | remap::FIXED, B));
                assert!([Ok(B), Err(Errno::ENOMEM)].contains(&moved), "{moved:?}");
            },
            &|user, _, _| assert!(matches!(user.store(A + PAGE, 7), Ok(()) | Err(Denied::NoMemory))),
        ],
        after: &|_, _| (),
    }
    .run();
}

/// A move that finds no frame for its second table takes the first away again: a fault beside it that has come in there does not outlast
/// what is unmapped next.
fn fault_beside_a_move_without_frames<L: Locking>() {
    // Two pages in two tables, and where they would go; and a page beside that.
    let (from, to) = (B - PAGE, B + (16 << 20) - PAGE);
    let beside = to - PAGE;
    Race::<L> {
        frames: FRAMES,
        before: &|user| {
            map(user, Range::with_len(from, 2 * PAGE).unwrap());
            [from, from + PAGE].iter().for_each(|at| user.store(*at, 1).unwrap());
            user.map(Place::Over(page(beside)), |at| Attr::anon(at.start(), Prot::RW.with(Prot::X))).unwrap();
        },
        sides: [
            &|user, cpu, mm| {
                let sim = user.cpu().sim();
                sim.fail(Failures::From(1));
                let _ = cpu.call(|| mm.mremap(from, 2 * PAGE, 2 * PAGE, remap::MAYMOVE | remap::FIXED, to));
                sim.fail(Failures::Never);
                user.unmap(page(beside)).unwrap();
                assert_eq!(mm.page_table().peek(mm.platform(), beside), None, "unmapped, and there is a page");
            },
            &|user, _, _| assert!(matches!(user.store(beside, 7), Ok(()) | Err(Denied::NoMemory | Denied::Unmapped))),
        ],
        after: &|_, mm| assert_eq!(mm.page_table().peek(mm.platform(), beside), None, "unmapped, and there is a page"),
    }
    .run();
}

fn dontunmap<L: Locking>() {
    store_beside_dontunmap::<L>(1, 0, 0);
}

fn dontunmap_to_the_next_page<L: Locking>() {
    store_beside_dontunmap::<L>(2, remap::FIXED, A + 2 * PAGE);
}

spile::test_each_design! {
    a_store_beside_dontunmap_is_not_lost => dontunmap;
    a_store_beside_dontunmap_to_the_next_page_is_not_lost => dontunmap_to_the_next_page;
    a_move_over_a_mapping_leaves_no_hole => load_beside_move_over;
    two_moves_over_a_mapping_leave_no_hole => load_beside_two_moves_over;
    a_hole_is_not_seen_in_two_moves => two_looks_in_two_moves;
    a_fault_beside_a_failed_move_ends_before_an_unmap => fault_beside_a_move_without_frames;
    a_move_beside_the_last_fault_ends => move_beside_the_last_fault;
    the_kernels_writes_are_not_seen_by_a_child => kernel_write_beside_fork;
    the_kernels_writes_are_not_lost => kernel_write_beside_protect;
    populated_is_writable => populate_beside_load;
    a_frame_that_was_a_files_may_become_a_table => failed_read_beside_tables;
}
