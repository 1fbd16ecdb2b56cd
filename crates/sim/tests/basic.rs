//! The verbs and faults of the core on a simulated machine, one after the other, for each design.
//!
//! **Guarantee.** Each does what it says to the bytes that programs see, on every CPU; and where any one allocation of a frame fails, a
//! verb changes nothing and nothing is forgotten.

use spile::backing::File;
use spile::locking::Stable as _;
use spile::{
    Access, Attr, Backing, Denied, Error, FaultKind, Flags, Kind, Layout, Locking, Mm, MmapLockRbTree, PAGE, Place,
    Platform as _, Prot, Range, VmaRefcount, Waiting,
};
use spile_sim::{Content, Failures, Sim, User};
use std::sync::{Arc, Mutex};

type Space<L> = Mm<Sim, L>;

const BASE: u64 = 0x10_0000;
const RX: Prot = Prot::R.with(Prot::X);

fn pages(first: u64, count: u64) -> Range {
    Range::with_len(BASE + first * PAGE, count * PAGE).unwrap()
}

fn at(page: u64) -> u64 {
    BASE + page * PAGE
}

fn space<L: Locking>(sim: &Sim) -> Space<L> {
    Mm::new(sim.clone(), Layout::default()).unwrap()
}

fn over<L: Locking>(user: &User<'_, '_, L>, range: Range, prot: Prot) {
    assert_eq!(user.map(Place::Over(range), |at| Attr::anon(at.start(), prot)), Ok(range));
}

fn of_file(file: &File<Sim>, page: u64, prot: Prot, flags: Flags) -> Attr<Sim> {
    Attr { prot, flags, backing: Backing::File(file.clone(), page), name: None }
}

fn shared() -> Flags {
    Flags::SHARED.with(Flags::MAY_WRITE)
}

/// A file of so many bytes; byte `i` of page `p` is `p + i`.
fn numbered(len: u64) -> Content {
    Content::new((0..len).map(|at| (at / PAGE + at % PAGE) as u8).collect())
}

fn map_store_load<L: Locking>() {
    let sim = Sim::new();
    let mm = space::<L>(&sim);
    let (one, two) = (sim.cpu(0), sim.cpu(1));
    {
        let (one, two) = (one.enter(&mm), two.enter(&mm));
        assert_eq!(one.load(at(0)), Err(Denied::Unmapped));
        over(&one, pages(0, 4), Prot::RW);
        assert_eq!(one.load(at(0)), Ok(0));
        assert_eq!(two.load(at(0) + 5), Ok(0));
        assert_eq!(one.store(at(0) + 5, 7), Ok(()));
        assert_eq!(two.load(at(0) + 5), Ok(7), "the zero frame was cached there");
        assert_eq!(two.store(at(3), 9), Ok(()));
        assert_eq!(one.load(at(3)), Ok(9));
        assert_eq!(one.exec(at(3)), Err(Denied::Protected));
        assert_eq!(one.load(at(4)), Err(Denied::Unmapped));
        assert_eq!(one.load(u64::MAX), Err(Denied::Unmapped));
    }
    assert_eq!(mm.usage().get(Kind::Total), 4);
    assert!(mm.height().is_none_or(|levels| levels == 1), "one mapping, one node");
    drop(mm);
    sim.finish();
}

fn unmap_and_protect<L: Locking>() {
    let sim = Sim::new();
    let mm = space::<L>(&sim);
    let (one, two) = (sim.cpu(0), sim.cpu(1));
    {
        let (one, two) = (one.enter(&mm), two.enter(&mm));
        over(&one, pages(0, 8), Prot::RW);
        for page in 0..8 {
            two.store(at(page), page as u8 + 1).unwrap();
        }
        assert_eq!(one.unmap(pages(2, 2)), Ok(()));
        assert_eq!(two.load(at(2)), Err(Denied::Unmapped));
        assert_eq!(two.load(at(1)), Ok(2));
        assert_eq!(one.protect(pages(4, 2), Prot::R), Ok(()));
        assert_eq!(two.store(at(4), 9), Err(Denied::Protected));
        assert_eq!(two.load(at(4)), Ok(5));
        assert_eq!(one.protect(pages(5, 1), Prot::NONE), Ok(()));
        assert_eq!(two.load(at(5)), Err(Denied::Protected));
        assert_eq!(one.protect(pages(4, 2), Prot::RW), Ok(()));
        assert_eq!(two.load(at(5)), Ok(6), "what was withheld is still there");
        assert_eq!(two.store(at(4), 9), Ok(()));
        assert_eq!(one.protect(pages(0, 8), RX), Err(Error::Unmapped(at(2))), "a hole");
        assert_eq!(two.store(at(1), 1), Err(Denied::Protected), "what lies below the hole was changed");
        assert_eq!(two.store(at(4), 1), Ok(()), "what lies above was not");
        over(&one, pages(2, 2), Prot::RW);
        assert_eq!(two.load(at(2)), Ok(0), "a new page, not the old one");
        over(&one, pages(7, 1), Prot::RW);
        assert_eq!(two.load(at(7)), Ok(0), "mapped over");
        assert_eq!(one.map(Place::At(pages(7, 2)), |at| Attr::anon(at.start(), Prot::R)), Err(Error::Occupied(pages(7, 2))));
    }
    drop(mm);
    sim.finish();
}

fn fork_and_copy<L: Locking>() {
    let sim = Sim::new();
    let parent = space::<L>(&sim);
    let (one, two, three) = (sim.cpu(0), sim.cpu(1), sim.cpu(2));
    let child = {
        let (one, other) = (one.enter(&parent), three.enter(&parent));
        over(&one, pages(0, 4), Prot::RW);
        one.store(at(0), 1).unwrap();
        one.store(at(1), 2).unwrap();
        other.store(at(1), 3).unwrap();
        let child = one.fork().unwrap();
        {
            let two = two.enter(&child);
            assert_eq!((two.load(at(0)), two.load(at(1)), two.load(at(2))), (Ok(1), Ok(3), Ok(0)));
            assert_eq!(other.store(at(0), 7), Ok(()), "its translation was writable before the fork");
            assert_eq!(two.load(at(0)), Ok(1));
            assert_eq!(two.store(at(1), 8), Ok(()));
            assert_eq!((one.load(at(0)), one.load(at(1))), (Ok(7), Ok(3)));
            let grandchild = two.fork().unwrap();
            assert_eq!(two.store(at(1), 9), Ok(()));
            let user = sim.cpu(3);
            let user = user.enter(&grandchild);
            assert_eq!((user.load(at(0)), user.load(at(1))), (Ok(1), Ok(8)));
            drop(user);
            drop(grandchild);
        }
        child
    };
    drop(parent);
    let two = two.enter(&child);
    assert_eq!((two.load(at(0)), two.load(at(1))), (Ok(1), Ok(9)), "the parent is gone");
    assert_eq!(two.store(at(0), 5), Ok(()));
    drop(two);
    drop(child);
    sim.finish();
}

fn files<L: Locking>() {
    [Waiting::Drop, Waiting::Hold].into_iter().for_each(files_waiting::<L>);
}

fn files_waiting<L: Locking>(waiting: Waiting) {
    let sim = Sim::new();
    let mut mm = space::<L>(&sim);
    FaultKind::ALL.into_iter().for_each(|kind| mm.set_waiting(kind, waiting));
    let content = numbered(5 * PAGE + 100);
    let file = sim.file(&content, 5 * PAGE + 100).unwrap();
    let (one, two) = (sim.cpu(0), sim.cpu(1));
    {
        let (one, two) = (one.enter(&mm), two.enter(&mm));
        one.map(Place::Over(pages(0, 8)), |_| of_file(&file, 0, Prot::RW, Flags::MAY_WRITE)).unwrap();
        one.map(Place::Over(pages(10, 8)), |_| of_file(&file, 0, Prot::RW, shared())).unwrap();
        one.map(Place::Over(pages(20, 2)), |_| of_file(&file, 0, Prot::R, Flags::SHARED)).unwrap();
        assert_eq!(one.protect(pages(20, 1), Prot::RW), Err(Error::ReadOnly(at(20))));
        content.set_delay(3);
        assert_eq!(one.load(at(1) + 4), Ok(5), "waited for the device");
        content.set_delay(0);
        assert_eq!((two.load(at(11) + 4), content.reads()), (Ok(5), 1), "read once");
        assert_eq!(two.store(at(11) + 4, 77), Ok(()));
        assert!(file.is_dirty(1) && !file.is_dirty(0));
        assert_eq!(one.load(at(1) + 4), Ok(77), "not yet written privately, so the file's page");
        assert_eq!(one.store(at(1) + 4, 66), Ok(()));
        assert_eq!((two.load(at(11) + 4), two.load(at(1) + 4)), (Ok(77), Ok(66)));
        assert_eq!(one.store(at(2), 1), Ok(()), "a private copy at the first touch");
        assert_eq!(two.load(at(12)), Ok(2));
        assert_eq!((two.load(at(5)), two.load(at(5) + 99), two.load(at(5) + 100)), (Ok(5), Ok(104), Ok(0)));
        assert_eq!((two.load(at(6)), two.store(at(16), 0)), (Err(Denied::Bus), Err(Denied::Bus)));
        let child = one.fork().unwrap();
        {
            let three = sim.cpu(2);
            let three = three.enter(&child);
            assert_eq!((three.load(at(1) + 4), three.load(at(11) + 4)), (Ok(66), Ok(77)));
            three.store(at(11) + 4, 78).unwrap();
            assert_eq!(two.load(at(11) + 4), Ok(78));
        }
        drop(child);
        let broken = numbered(2 * PAGE);
        broken.set_failing(1, true);
        let other = sim.file(&broken, 2 * PAGE).unwrap();
        one.map(Place::Over(pages(30, 2)), |_| of_file(&other, 0, Prot::R, Flags::SHARED)).unwrap();
        assert_eq!((one.load(at(30)), one.load(at(31))), (Ok(0), Err(Denied::Bus)));
        broken.set_delay(2);
        assert_eq!(one.load(at(31)), Err(Denied::Bus));
        broken.set_failing(1, false);
        assert_eq!(one.load(at(31)), Ok(1), "asked again");
    }
    drop(mm);
    drop(file);
    sim.finish();
}

fn stack_grows<L: Locking>() {
    let sim = Sim::new();
    let mm = space::<L>(&sim);
    let cpu = sim.cpu(0);
    {
        let user = cpu.enter(&mm);
        let stack = |at: Range| {
            let attr: Attr<Sim> = Attr::anon(at.start(), Prot::RW);
            Attr { flags: attr.flags.with(Flags::GROWS_DOWN), ..attr }
        };
        user.map(Place::Over(pages(1000, 2)), stack).unwrap();
        user.store(at(1000), 1).unwrap();
        assert_eq!(user.store(at(995), 2), Ok(()));
        assert_eq!((user.load(at(1000)), user.load(at(995)), user.load(at(997))), (Ok(1), Ok(2), Ok(0)));
        over(&user, pages(500, 2), Prot::RW);
        assert_eq!(user.store(at(600), 1), Err(Denied::Unmapped), "too near to what is below");
        assert_eq!(user.store(at(800), 3), Ok(()));
        assert_eq!(mm.usage().get(Kind::Stack), 202);
    }
    drop(mm);
    sim.finish();
}

fn kernel_copies<L: Locking>() {
    let sim = Sim::new();
    let mm = space::<L>(&sim);
    let cpu = sim.cpu(0);
    {
        let user = cpu.enter(&mm);
        over(&user, pages(0, 2), Prot::RW);
        over(&user, pages(3, 1), Prot::R);
        let bytes: Vec<u8> = (0..6000).map(|i| i as u8).collect();
        let copied = cpu.call(|| mm.write_user(at(0) + 100, &bytes));
        assert_eq!(copied, Ok(()));
        assert_eq!(user.load(at(0) + 100 + 5000), Ok(bytes[5000]));
        let mut back = vec![0; 9000];
        let stopped = cpu.call(|| mm.read_user(at(0) + 100, &mut back)).unwrap_err();
        assert_eq!((stopped.copied, stopped.why), (2 * PAGE as usize - 100, Denied::Unmapped));
        assert_eq!(back[..6000], bytes);
        let stopped = cpu.call(|| mm.write_user(at(3), &bytes)).unwrap_err();
        assert_eq!((stopped.copied, stopped.why), (0, Denied::Protected));
        let child = user.fork().unwrap();
        cpu.call(|| mm.write_user(at(1), &[99])).unwrap();
        let mut byte = [0];
        cpu.call(|| child.read_user(at(1), &mut byte)).unwrap();
        assert_eq!(byte[0], bytes[4096 - 100], "the kernel's store copied");
    }
    drop(mm);
    sim.finish();
}

fn pages_are_discarded<L: Locking>() {
    let sim = Sim::new();
    let mm = space::<L>(&sim);
    let (one, two) = (sim.cpu(0), sim.cpu(1));
    {
        let (one, two) = (one.enter(&mm), two.enter(&mm));
        over(&one, pages(0, 3), Prot::RW);
        (0..3).for_each(|page| two.store(at(page), 5).unwrap());
        one.discard(pages(1, 1));
        assert_eq!((two.load(at(0)), two.load(at(1)), two.load(at(2))), (Ok(5), Ok(0), Ok(5)));
    }
    drop(mm);
    sim.finish();
}

/// What programs see of each page: why it cannot be read, or its first byte and whether it can be written. Frames must not fail.
fn picture<L: Locking>(mm: &Space<L>) -> String {
    let mut picture = format!("{mm:?}");
    // An identity may be given to a mapping by a fault that fails later.
    while let Some(from) = picture.find(" AnonId(") {
        let to = picture[from..].find(')').unwrap() + from;
        picture.replace_range(from..=to, "");
    }
    let cpu = mm.platform().cpu(3);
    let user = cpu.enter(mm);
    for page in 0..40 {
        picture += &format!("\n{page} {:?}", user.load(at(page) + 1));
    }
    picture
}

/// Does `verb` on what `prepare` made, with each allocation of a frame failing in turn: then it changed nothing.
fn with_failures<L: Locking>(
    prepare: impl Fn(&Sim, &User<'_, '_, L>),
    verb: impl Fn(&Sim, &User<'_, '_, L>) -> Result<(), bool>,
) {
    for failing in 0.. {
        let sim = Sim::builder().seed(failing).build();
        let mm = space::<L>(&sim);
        let done = {
            let cpu = sim.cpu(0);
            let user = cpu.enter(&mm);
            prepare(&sim, &user);
            let before = picture(&mm);
            sim.fail(Failures::From(failing));
            let done = verb(&sim, &user);
            sim.fail(Failures::Never);
            if let Err(whole) = done {
                assert!(!whole || picture(&mm) == before, "frame {failing}: {before}\nbecame\n{}", picture(&mm));
                assert_eq!(verb(&sim, &user), Ok(()), "with memory it is done");
            }
            let mut bytes = [0; 64];
            cpu.call(|| mm.read_user(at(0), &mut bytes)).ok();
            done
        };
        drop(mm);
        sim.finish();
        if done.is_ok() {
            assert!(failing > 0, "the verb needs no frame");
            return;
        }
    }
}

fn no_memory<T>(result: Result<T, Error>) -> Result<(), bool> {
    match result {
        Ok(_) => Ok(()),
        Err(Error::NoMemory) => Err(true),
        Err(other) => panic!("{other}"),
    }
}

fn denied<T>(result: Result<T, Denied>) -> Result<(), bool> {
    match result {
        Ok(_) => Ok(()),
        Err(Denied::NoMemory) => Err(true),
        Err(other) => panic!("{other:?}"),
    }
}

fn out_of_memory<L: Locking>() {
    let written = |_: &Sim, user: &User<'_, '_, L>| {
        over(user, pages(0, 8), Prot::RW);
        over(user, pages(20, 4), Prot::RW);
        (0..4).for_each(|page| user.store(at(page) + 1, page as u8 + 1).unwrap());
        user.load(at(4)).unwrap();
        user.protect(pages(2, 1), Prot::R).unwrap();
    };
    let file = |sim: &Sim, user: &User<'_, '_, L>| {
        let file = sim.file(&numbered(4 * PAGE), 4 * PAGE).unwrap();
        user.map(Place::Over(pages(100, 4)), |_| of_file(&file, 0, Prot::RW, Flags::MAY_WRITE)).unwrap();
        user.map(Place::Over(pages(108, 4)), |_| of_file(&file, 0, Prot::RW, shared())).unwrap();
    };
    let nothing = |_: &Sim, _: &User<'_, '_, L>| {};
    let grows = |_: &Sim, user: &User<'_, '_, L>| {
        let flags = Flags::MAY_WRITE.with(Flags::GROWS_DOWN);
        user.map(Place::Over(pages(130, 1)), |at| Attr { flags, ..Attr::anon(at.start(), Prot::RW) }).unwrap();
    };
    with_failures::<L>(written, |_, user| {
        let child = user.fork();
        no_memory(child.map(|child| {
            let cpu = child.platform().cpu(2);
            let user = cpu.enter(&child);
            assert_eq!((user.load(at(1) + 1), user.load(at(6))), (Ok(2), Ok(0)));
        }))
    });
    with_failures::<L>(written, |_, user| denied(user.store(at(5) + 1, 9)));
    with_failures::<L>(written, |_, user| denied(user.store(at(4) + 1, 9)));
    with_failures::<L>(
        |sim, user| {
            written(sim, user);
            let child = user.fork().unwrap();
            drop(child);
        },
        |_, user| denied(user.store(at(6) + 1, 9)),
    );
    with_failures::<L>(nothing, |_, user| {
        over(user, pages(0, 2), Prot::RW);
        denied(user.store(at(0) + 1, 9)).map_err(|_| false)
    });
    with_failures::<L>(nothing, |_, user| {
        over(user, pages(0, 2), Prot::RW);
        denied(user.load(at(0) + 1)).map_err(|_| false)
    });
    with_failures::<L>(file, |_, user| denied(user.load(at(101) + 1)).map_err(|_| false));
    with_failures::<L>(file, |_, user| denied(user.store(at(101) + 1, 3)).map_err(|_| false));
    with_failures::<L>(file, |_, user| denied(user.store(at(109) + 1, 3)).map_err(|_| false));
    with_failures::<L>(grows, |_, user| denied(user.store(at(129) + 1, 3)).map_err(|_| false));
    with_failures::<L>(written, |_, user| {
        let moved = user.cpu().call(|| user.mm().mremap(at(0), 2 * PAGE, 2 * PAGE, 1 | 2, at(1000)));
        match moved {
            Ok(_) => Ok(()),
            Err(_) => Err(true),
        }
    });
}

/// With this many frames and no more, programs run until there is none left, and then still exit.
fn runs_out<L: Locking>() {
    for frames in 1..40 {
        let sim = Sim::builder().frames(frames).seed(u64::from(frames)).build();
        let Ok(mm) = Mm::<Sim, L>::new(sim.clone(), Layout::default()) else { continue };
        let cpu = sim.cpu(0);
        {
            let user = cpu.enter(&mm);
            over(&user, pages(0, 64), Prot::RW);
            let stored = (0..64).filter(|page| user.store(at(*page), 1).is_ok()).count() as u64;
            assert_eq!(stored, u64::from(frames).saturating_sub(4));
            assert_eq!(user.unmap(pages(0, 64)), Ok(()));
            over(&user, pages(0, 64), Prot::RW);
            // A fault does not wait for the grace period of the tables that were freed.
            let store = |page: u64| (0..4).any(|_| user.store(at(page), 1).is_ok());
            let again = (0..64).filter(|page| store(*page)).count() as u64;
            assert_eq!(again, stored, "tables that waited for a grace period are found again");
        }
        drop(mm);
        sim.finish();
    }
}

/// A program with more pages than the translation cache has room for, on threads of its own.
fn threads<L: Locking>() {
    let sim = Sim::builder().cpus(4).frames(2048).build();
    let mm = space::<L>(&sim);
    std::thread::scope(|scope| {
        for number in 0..4u64 {
            let (sim, mm) = (&sim, &mm);
            scope.spawn(move || {
                sim.run_on(number as usize, |cpu| {
                    let user = cpu.enter(mm);
                    let mine = pages(number * 100, 90);
                    for round in 0..20u8 {
                        over(&user, mine, Prot::RW);
                        for page in (0..90).step_by(7) {
                            user.store(mine.start() + page * PAGE, round + page as u8).unwrap();
                            user.load(at((number + 1) % 4 * 100 + page)).ok();
                        }
                        for page in (0..90).step_by(7) {
                            assert_eq!(user.load(mine.start() + page * PAGE), Ok(round + page as u8));
                        }
                        if round % 5 == number as u8 {
                            drop(user.fork().unwrap());
                        }
                        user.protect(pages(number * 100 + 3, 40), Prot::R).unwrap();
                        user.discard(pages(number * 100, 3));
                        user.unmap(mine).unwrap();
                    }
                });
            });
        }
    });
    drop(mm);
    sim.finish();
}

/// The end of a file is the host's, who may want of the space what a change of it has.
fn file_ends_with_nothing_held<L: Locking>() {
    let sim = Sim::new();
    let mm = Arc::new(space::<L>(&sim));
    let (content, free) = (numbered(PAGE), Arc::new(Mutex::new(None)));
    {
        let (sim, mm, free) = (sim.clone(), Arc::downgrade(&mm), free.clone());
        content.at_end(move || {
            // In one design a mapping waits until the space goes.
            let free_now = mm.upgrade().is_none_or(|mm| mm.lock().read(&sim).is_ok());
            *free.lock().unwrap() = Some(free_now);
        });
    }
    let cpu = sim.cpu(0);
    {
        let user = cpu.enter(&mm);
        let file = File::new(sim.clone(), content, PAGE).unwrap();
        user.map(Place::Over(pages(0, 1)), |_| of_file(&file, 0, Prot::R, shared())).unwrap();
        drop(file);
        user.unmap(pages(0, 1)).unwrap();
    }
    sim.settle();
    drop(mm);
    sim.finish();
    assert_eq!(*free.lock().unwrap(), Some(true), "whether the lock was free");
}

spile::test_each_design! {
    file_ends_with_nothing_held => file_ends_with_nothing_held;
    map_store_load => map_store_load;
    unmap_and_protect => unmap_and_protect;
    fork_and_copy => fork_and_copy;
    files => files;
    stack_grows => stack_grows;
    kernel_copies => kernel_copies;
    pages_are_discarded => pages_are_discarded;
    out_of_memory => out_of_memory;
    runs_out => runs_out;
    threads => threads;
}

#[test]
fn an_access_says_what_it_wants() {
    assert!(Access::Exec.allowed_by(RX));
}

/// What two machines have in common is how their frames are numbered.
fn with_another(act: impl FnOnce(&Sim, &Space<VmaRefcount>, &Sim)) {
    let (sim, other) = (Sim::new(), Sim::new());
    let cpu = sim.cpu(0);
    let mm = space::<VmaRefcount>(&sim);
    cpu.enter(&mm);
    act(&sim, &mm, &other);
}

#[test]
#[should_panic(expected = "the file belongs to another platform")]
fn another_platforms_file_is_not_mapped() {
    with_another(|_, mm, other| {
        let file = File::new(other.clone(), numbered(PAGE), PAGE).unwrap();
        let _ = mm.map(Place::Over(pages(0, 1)), |_| of_file(&file, 0, Prot::R, shared()));
    });
}

#[test]
#[should_panic(expected = "the tables belong to another platform")]
fn another_platforms_tables_are_not_walked() {
    with_another(|_, mm, other| {
        mm.page_table().peek(other, at(0));
    });
}

#[test]
#[should_panic(expected = "what waits belongs to another platform")]
fn another_platforms_tables_are_not_given_back() {
    with_another(|sim, _, other| sim.shared().relieve(other));
}

#[test]
#[should_panic(expected = "what is held is of another address space")]
fn another_spaces_mappings_are_not_looked_at_under_a_lock() {
    let sim = Sim::new();
    let (one, other) = (space::<MmapLockRbTree>(&sim), space::<MmapLockRbTree>(&sim));
    one.map(Place::Over(pages(0, 1)), |at| Attr::anon(at.start(), Prot::RW)).unwrap();
    let held = MmapLockRbTree::try_stabilise(&one, at(0)).unwrap();
    held.beside(&other, at(0), |_| ());
}
