//! Shared memory, which comes from no store: pages that were written leave for slots and come back, for each design.
//!
//! **Guarantee.** What is read is what was written last through any mapping; what lay beyond an end is zeros; no slot is left when nobody wants it.
//!
//! **Mechanism.** As in the scenes about files, with slots that take their time and fail.

use super::{at, let_all_go, map, pages, resident, seeds, space};
use spile::backing::File;
use spile::linux::sync;
use spile::reclaim::Pressed as _;
use spile::{Access, Denied, FaultKind, Flags, Locking, Mm, Outcome, PAGE, Waiting};
use spile_sim::{Rng, Sim, User};

/// So many pages of it, with so many slots, at the first pages of a space.
fn shared<L: Locking>(slots: u32, count: u64) -> (Sim, Mm<Sim, L>, File<Sim>) {
    let sim = Sim::builder().swap(slots).build();
    let mm = space::<L>(&sim);
    let file = File::anonymous(sim.clone(), count * PAGE).unwrap();
    map(&sim.cpu(0).enter(&mm), pages(0, count), &file, 0, Flags::SHARED);
    (sim, mm, file)
}

fn used(sim: &Sim) -> u32 {
    sim.reclaimer().area().used()
}

fn loads<L: Locking>(user: &User<'_, '_, L>, count: u64) -> Vec<u8> {
    (0..count).map(|n| user.load(at(n)).unwrap()).collect()
}

/// Everything goes.
fn ends<L: Locking>(sim: &Sim, mm: Mm<Sim, L>, file: File<Sim>) {
    drop((mm, file));
    sim.finish();
}

fn it_leaves_and_comes_back<L: Locking>() {
    let (sim, mm, file) = shared::<L>(8, 4);
    {
        let (cpu, other) = (sim.cpu(0), sim.cpu(1));
        let user = cpu.enter(&mm);
        let child = user.fork().unwrap();
        let child_user = other.enter(&child);
        map(&user, pages(10, 4), &file, 0, Flags::NONE);
        (0..3).for_each(|n| user.store(at(n), 1 + n as u8).unwrap());
        assert_eq!((child_user.load(at(1)), user.load(at(3)), user.load(at(11))), (Ok(2), Ok(0), Ok(2)));
        let free = sim.free_frames();
        let_all_go(&sim);
        assert_eq!((resident(&mm), resident(&child)), (0, 0), "all of them have left, wherever they were shown");
        assert_eq!((sim.free_frames(), used(&sim)), (free + 4, 3), "what nobody wrote needs no slot");
        assert_eq!((file.dirty_pages(), file.is_dirty(0), file.is_dirty(3)), (3, true, false), "away, and nowhere else");
        assert!(!file.evict(0), "it is not there");
        assert_eq!(child_user.store(at(1), 20), Ok(()));
        assert_eq!((loads(&user, 4), user.load(at(11))), (vec![1, 20, 3, 0], Ok(20)));
        assert_eq!((sim.swap().done().back, used(&sim)), (3, 0), "each was read once, and needs its slot no more");
        // The same once more, and a private copy, which has a slot of its own.
        child_user.store(at(2), 30).unwrap();
        user.store(at(12), 31).unwrap();
        let_all_go(&sim);
        assert_eq!(used(&sim), 4);
        assert_eq!((loads(&user, 4), user.load(at(12))), (vec![1, 20, 30, 0], Ok(31)));
        assert_eq!(cpu.call(|| mm.msync(at(0), 4 * PAGE, sync::SYNC)), Ok(()), "it has nowhere to go");
        drop((user, child_user));
        drop(child);
    }
    ends(&sim, mm, file);
}

fn more_is_written_than_there_is_memory<L: Locking>() {
    for delay in [0, 2] {
        let sim = Sim::builder().frames(100).swap(400).build();
        sim.swap().set_delay(delay);
        let mm = space::<L>(&sim);
        let file = File::anonymous(sim.clone(), 300 * PAGE).unwrap();
        {
            let cpu = sim.cpu(0);
            let user = cpu.enter(&mm);
            map(&user, pages(0, 300), &file, 0, Flags::SHARED);
            (0..300).for_each(|n| assert_eq!(user.store(at(n), n as u8), Ok(()), "page {n}, {delay} ticks away"));
            (0..300).for_each(|n| assert_eq!(user.load(at(n)), Ok(n as u8), "page {n}, {delay} ticks away"));
        }
        ends(&sim, mm, file);
    }
}

fn it_is_lost_while_it_is_away<L: Locking>() {
    let (sim, mm, file) = shared::<L>(8, 6);
    {
        let cpu = sim.cpu(0);
        let user = cpu.enter(&mm);
        (0..6).for_each(|n| user.store(at(n), 1 + n as u8).unwrap());
        let_all_go(&sim);
        cpu.call(|| file.truncate(2 * PAGE));
        assert_eq!((used(&sim), sim.swap().written(), file.dirty_pages()), (2, 2, 2), "what is lost is in no slot");
        assert_eq!(user.load(at(3)), Err(Denied::Bus));
        file.extend(6 * PAGE);
        cpu.call(|| file.invalidate(0..1));
        assert_eq!((used(&sim), loads(&user, 6)), (1, vec![0, 2, 0, 0, 0, 0]));
    }
    ends(&sim, mm, file);
}

/// The last page's, wherever the page is when the file becomes shorter or longer.
fn its_end_is_zeros<L: Locking>() {
    let (sim, mm, file) = shared::<L>(8, 2);
    {
        let cpu = sim.cpu(0);
        let user = cpu.enter(&mm);
        let places = [0, 99, 100, 499, 500, PAGE - 1];
        let end = |wanted: [u8; 6]| assert_eq!(places.map(|n| user.load(at(0) + n).unwrap()), wanted);
        let fill = || places.iter().for_each(|n| user.store(at(0) + n, 7).unwrap());
        fill();
        let_all_go(&sim);
        cpu.call(|| file.truncate(500));
        cpu.call(|| file.truncate(100));
        file.extend(2 * PAGE);
        assert_eq!(sim.swap().done().back, 0, "nothing is read for that");
        end([7, 7, 0, 0, 0, 0]);
        // What was stored beyond the end, and goes when the file grows.
        fill();
        cpu.call(|| file.truncate(500));
        fill();
        let_all_go(&sim);
        file.extend(PAGE);
        // It is there, and in its slot again, before anybody has looked.
        cpu.call(|| mm.fault_and_wait(at(0), Access::Read)).unwrap();
        let_all_go(&sim);
        end([7, 7, 7, 7, 0, 0]);
        // Of a page that could not be read.
        let_all_go(&sim);
        sim.swap().fail_one_in(Some(1));
        assert_eq!(user.load(at(0)), Err(Denied::Bus));
        cpu.call(|| file.truncate(100));
        sim.swap().fail_one_in(None);
        file.extend(PAGE);
        end([7, 7, 0, 0, 0, 0]);
    }
    ends(&sim, mm, file);
}

fn a_dropped_file_leaves_no_slot<L: Locking>() {
    for delay in [0, 50] {
        let (sim, mm, file) = shared::<L>(8, 4);
        {
            let cpu = sim.cpu(0);
            let user = cpu.enter(&mm);
            (0..4).for_each(|n| user.store(at(n), 1).unwrap());
            let_all_go(&sim);
            // One comes in meanwhile, one leaves.
            user.store(at(0), 1).unwrap();
            sim.swap().set_delay(delay);
            assert_eq!(sim.cpu(1).reclaim(usize::MAX).writing, usize::from(delay > 0));
            let fault = cpu.call(|| mm.fault(at(1), Access::Read));
            assert_eq!(matches!(fault, Outcome::Wait(_)), delay > 0);
            drop(fault);
            assert!(used(&sim) >= 3);
            user.unmap(pages(0, 4)).unwrap();
        }
        drop((mm, file));
        sim.settle();
        (0..100).for_each(|_| sim.cpu(3).pause());
        assert_eq!((used(&sim), sim.swap().written()), (0, 0));
        sim.finish();
    }
}

fn what_cannot_be_written_stays<L: Locking>() {
    for delay in [0, 3] {
        let (sim, mm, file) = shared::<L>(8, 4);
        sim.swap().set_delay(delay);
        {
            let cpu = sim.cpu(0);
            let user = cpu.enter(&mm);
            (0..4).for_each(|n| user.store(at(n), 1 + n as u8).unwrap());
            sim.swap().fail_one_in(Some(1));
            let free = sim.free_frames();
            let_all_go(&sim);
            assert_eq!((sim.free_frames(), used(&sim)), (free, 4), "in memory, each with a slot");
            // One of them is wanted, and written; the others leave when they can.
            user.store(at(1), 20).unwrap();
            assert_eq!(used(&sim), 3);
            sim.swap().fail_one_in(None);
            let_all_go(&sim);
            assert_eq!(sim.free_frames(), free + 4, "those that could not leave are looked at again");
            assert_eq!(loads(&user, 4), [1, 20, 3, 4]);
        }
        ends(&sim, mm, file);
    }
}

fn what_cannot_be_read_is_told<L: Locking>() {
    for delay in [0, 3] {
        for waiting in [Waiting::Drop, Waiting::Hold] {
            let (sim, mut mm, file) = shared::<L>(8, 4);
            FaultKind::ALL.into_iter().for_each(|kind| mm.set_waiting(kind, waiting));
            sim.swap().set_delay(delay);
            {
                let cpu = sim.cpu(0);
                let user = cpu.enter(&mm);
                (0..4).for_each(|n| user.store(at(n), 1 + n as u8).unwrap());
                let_all_go(&sim);
                sim.swap().fail_one_in(Some(1));
                assert_eq!((user.load(at(0)), user.store(at(1), 9)), (Err(Denied::Bus), Err(Denied::Bus)));
                let failed = sim.swap().done().failed;
                assert_eq!(user.load(at(0)), Err(Denied::Bus));
                assert_eq!(sim.swap().done().failed, failed + 1, "each failure is told once");
                sim.swap().fail_one_in(None);
                assert_eq!(loads(&user, 4), [1, 2, 3, 4]);
            }
            ends(&sim, mm, file);
        }
    }
}

/// Who wants a page while it is being written waits for that, and has it then.
fn it_is_wanted_while_it_is_written<L: Locking>() {
    for fails in [None, Some(1)] {
        for waiting in [Waiting::Drop, Waiting::Hold] {
            let (sim, mut mm, file) = shared::<L>(8, 1);
            FaultKind::ALL.into_iter().for_each(|kind| mm.set_waiting(kind, waiting));
            sim.swap().set_delay(20);
            sim.swap().fail_one_in(fails);
            {
                let cpu = sim.cpu(0);
                let user = cpu.enter(&mm);
                user.store(at(0), 1).unwrap();
                while sim.cpu(1).reclaim(1).writing == 0 {}
                let Outcome::Wait(token) = cpu.call(|| mm.fault(at(0), Access::Read)) else { panic!("it is written") };
                assert!(!token.is_over());
                assert_eq!(user.store(at(0), 2), Ok(()));
                drop(token);
                assert_eq!((used(&sim), sim.swap().done().back, user.load(at(0))), (0, 0, Ok(2)), "it never left its frame");
            }
            ends(&sim, mm, file);
        }
    }
}

/// Its length changes all the time, by bytes, while its pages leave and come back: against a model of every byte.
fn its_length_changes<L: Locking>() {
    const COUNT: usize = 3;
    const BYTES: usize = COUNT * PAGE as usize;
    for seed in 0..seeds(20) {
        let (sim, mm, file) = shared::<L>(8, COUNT as u64);
        sim.swap().set_delay((seed % 3) as u32);
        let mut rng = Rng::new(seed);
        let (mut bytes, mut len) = (vec![0; BYTES], BYTES);
        let cpu = sim.cpu(0);
        for op in 0..200 {
            let n = rng.below(BYTES as u64) as usize;
            match rng.below(8) {
                0 => {
                    len = n;
                    cpu.call(|| file.truncate(len as u64));
                    bytes[len..].fill(0);
                }
                1 if n > len => {
                    len = n;
                    file.extend(len as u64);
                }
                2 => {
                    len = BYTES;
                    file.extend(len as u64);
                }
                3..=5 if n < len => {
                    // As far as the page goes, also beyond the end, which is zeros when the file grows.
                    let value = rng.below(256) as u8;
                    let end = len.min(n.next_multiple_of(PAGE as usize));
                    cpu.call(|| mm.write_user(at(0) + n as u64, &vec![value; n.next_multiple_of(PAGE as usize) - n])).unwrap();
                    bytes[n..end].fill(value);
                }
                _ => let_all_go(&sim),
            }
            let mut read = vec![0; len];
            cpu.call(|| mm.read_user(at(0), &mut read)).unwrap();
            let differs = (0..len).find(|n| read[*n] != bytes[*n]);
            assert_eq!(differs, None, "{} seed {seed}, operation {op}, of {len} bytes", L::NAME);
        }
        ends(&sim, mm, file);
    }
}

spile::test_each_design! {
    it_leaves_and_comes_back => it_leaves_and_comes_back;
    more_is_written_than_there_is_memory => more_is_written_than_there_is_memory;
    it_is_lost_while_it_is_away => it_is_lost_while_it_is_away;
    its_end_is_zeros => its_end_is_zeros;
    a_dropped_file_leaves_no_slot => a_dropped_file_leaves_no_slot;
    what_cannot_be_written_stays => what_cannot_be_written_stays;
    what_cannot_be_read_is_told => what_cannot_be_read_is_told;
    it_is_wanted_while_it_is_written => it_is_wanted_while_it_is_written;
    its_length_changes => its_length_changes;
}
