//! Faults that wait for a page of a file, with their holds dropped or kept.
//!
//! **Guarantee.** Under either policy bytes are the file's, errors are told, and a fault reads its page once, whoever wants it out of memory. With its
//! hold it fails once, whoever is told of that before; without, it reads again as often as another is told first. A change waits for the read of a fault
//! that sleeps with a hold which keeps it out, and for no other.
//!
//! **Mechanism.** One CPU after the other, where the device does what a test needs while a fault sleeps; and two CPUs under the seeded
//! scheduler. `SPILE_SEEDS` sets the number of seeds.

#[cfg(feature = "sched")]
mod controls;
#[cfg(feature = "sched")]
mod seeds;

use spile::backing::File;
use spile::{Access, Attr, Backing, Denied, FaultKind, Flags, Layout, Locking, Mm, PAGE, Place, Prot, Range, Waiting};
use spile_sim::{Content, Sim};
use std::sync::Arc;

const A: u64 = 0x4000_0000;
const BYTE: u8 = 7;
const BOTH: [Waiting; 2] = [Waiting::Drop, Waiting::Hold];

fn space<L: Locking>(sim: &Sim, waiting: Waiting) -> Mm<Sim, L> {
    let mut mm = Mm::new(sim.clone(), Layout::default()).unwrap();
    FaultKind::ALL.into_iter().for_each(|kind| mm.set_waiting(kind, waiting));
    mm
}

/// A page of a file, so many ticks away.
fn distant(sim: &Sim, ticks: u32) -> (Content, File<Sim>) {
    let content = Content::new(vec![BYTE; PAGE as usize]);
    content.set_delay(ticks);
    let file = sim.file(&content, PAGE).unwrap();
    (content, file)
}

fn of_file(file: &File<Sim>, flags: Flags) -> Attr<Sim> {
    Attr { prot: Prot::RW, flags: flags.with(Flags::MAY_WRITE), backing: Backing::File(file.clone(), 0), name: None }
}

fn map_file<L: Locking>(mm: &Mm<Sim, L>, file: &File<Sim>, flags: Flags) {
    mm.map(Place::Over(Range::page_of(A)), |_| of_file(file, flags)).unwrap();
}

/// Maps and copies of the file's page, read or not, by programs and by the kernel.
fn accesses<L: Locking>() {
    for waiting in BOTH {
        for flags in [Flags::SHARED, Flags::NONE] {
            let sim = Sim::new();
            let mm = space::<L>(&sim, waiting);
            let (content, file) = distant(&sim, 3);
            map_file(&mm, &file, flags);
            let cpu = sim.cpu(0);
            {
                let user = cpu.enter(&mm);
                content.set_failing(0, true);
                assert_eq!(user.load(A), Err(Denied::Bus));
                assert_eq!(user.store(A, 1), Err(Denied::Bus));
                let mut byte = [0];
                assert_eq!(cpu.call(|| mm.read_user(A, &mut byte)).unwrap_err().why, Denied::Bus);
                content.set_failing(0, false);
                assert_eq!(user.store(A + 1, 1), Ok(()));
                assert_eq!((user.load(A), user.load(A + 1), content.reads()), (Ok(BYTE), Ok(1), 4));
                assert_eq!(file.is_dirty(0), flags == Flags::SHARED);
                let child = user.fork().unwrap();
                assert_eq!(child.waiting(FaultKind::File), waiting);
                assert_eq!(sim.cpu(1).enter(&child).load(A + 1), Ok(1));
            }
            drop((mm, file));
            sim.finish();
        }
    }
}

/// How many reads a fault needs whose page cannot be read, and of which another space is told each time before.
fn reads_that_fail<L: Locking>(waiting: Waiting) -> u64 {
    const TOLD: u64 = 5;
    let sim = Sim::new();
    let (content, file) = distant(&sim, 2);
    content.set_failing(0, true);
    let mm = space::<L>(&sim, waiting);
    let other = Arc::new(space::<L>(&sim, Waiting::Drop));
    map_file(&mm, &file, Flags::SHARED);
    map_file(&other, &file, Flags::SHARED);
    let (thief, machine, reads) = (Arc::downgrade(&other), sim.clone(), content.clone());
    content.after_reads(move |_| {
        if let Some(other) = thief.upgrade().filter(|_| reads.reads() <= TOLD) {
            let told = machine.cpu(1).call(|| matches!(other.fault(A, Access::Read), spile::Outcome::Denied(Denied::Bus)));
            assert!(told, "it comes first");
        }
    });
    assert_eq!(sim.cpu(0).call(|| mm.fault_and_wait(A, Access::Read)), Err(Denied::Bus));
    drop((mm, other, file));
    sim.finish();
    content.reads()
}

/// Of the read for which it waited a fault with its hold is told, though another was told before. (The second is begun by then.)
fn is_told_of_its_own_read<L: Locking>() {
    assert_eq!(reads_that_fail::<L>(Waiting::Drop), 6, "one for each time that another was told, and one more");
    let reads = reads_that_fail::<L>(Waiting::Hold);
    assert_eq!(reads, 2, "one that it waited for, one that it began");
}

spile::test_each_design! {
    pages_are_read => accesses;
    a_read_that_fails_is_told => is_told_of_its_own_read;
}

/// Two CPUs under the seeded scheduler.
#[cfg(feature = "sched")]
mod beside {
    use super::seeds::seeds;
    use super::*;
    use spile_sim::{Cpu, User};
    use spile_sync::sched::{Outcome, Run, Strategy};
    use std::mem::forget;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

    /// Far away, and touched.
    const B: u64 = A + (1 << 40);

    /// What the two have in common.
    struct Stage<L: Locking> {
        mm: Mm<Sim, L>,
        content: Content,
        file: File<Sim>,
        children: Mutex<Vec<Mm<Sim, L>>>,
        /// How often the page was taken out of memory.
        evicted: AtomicU64,
        /// Whether the page was read, and whether the change was done before.
        read: Arc<AtomicBool>,
        overtook: AtomicBool,
        done: AtomicBool,
    }

    type Side<'a, L> = &'a (dyn Fn(&User<'_, '_, L>, &Cpu<'_>, &Stage<L>) + Sync);

    /// Runs both with this seed; the page is so many ticks away.
    fn run<L: Locking>(seed: u64, waiting: Waiting, flags: Flags, ticks: u32, sides: [Side<'_, L>; 2]) -> Stage<L> {
        let sim = Sim::builder().cpus(2).frames(100).seed(seed).build();
        let mm = space::<L>(&sim, waiting);
        let (content, file) = distant(&sim, ticks);
        map_file(&mm, &file, flags);
        {
            let user = sim.cpu(0);
            let user = user.enter(&mm);
            user.map(Place::Over(Range::page_of(B)), |at| Attr::anon(at.start(), Prot::RW)).unwrap();
            user.store(B, 1).unwrap();
        }
        let read = Arc::new(AtomicBool::new(false));
        let is_read = Arc::clone(&read);
        content.after_reads(move |_| is_read.store(true, SeqCst));
        let (children, evicted) = (Mutex::default(), AtomicU64::new(0));
        let stage =
            Stage { mm, content, file, children, evicted, read, overtook: AtomicBool::new(false), done: AtomicBool::new(false) };
        let strategy =
            if seed.is_multiple_of(2) { Strategy::Random } else { Strategy::Pct { depth: 2 + (seed / 2 % 3) as usize } };
        let mut run = Run::new(seed).strategy(strategy).expect_steps(800).max_steps(300_000).keep_events(80);
        for (n, side) in sides.iter().enumerate() {
            let (sim, stage) = (&sim, &stage);
            run = run.spawn(format!("cpu {n}"), move || sim.run_on(n, |cpu| side(&cpu.enter(&stage.mm), cpu, stage)));
        }
        let outcome: Outcome = run.run();
        if !outcome.is_ok() {
            // What is left of it is in no state to be dropped.
            forget(stage);
            panic!("{} seed {seed} {waiting:?}: {}", L::NAME, outcome.story(30));
        }
        stage
    }

    fn end<L: Locking>(stage: Stage<L>) {
        let Stage { mm, file, children, .. } = stage;
        let sim = mm.platform().clone();
        drop((children, mm, file));
        sim.finish();
    }

    /// How many reads a fault needs while somebody takes the page out of memory, up to so many times, whenever he can: the most of all
    /// seeds. That somebody is quick enough is shown by what is seeded below.
    fn reads_beside_eviction<L: Locking>(waiting: Waiting) -> u64 {
        const EVICTIONS: u64 = 6;
        let one = |seed| {
            let stage = run::<L>(
                seed,
                waiting,
                Flags::SHARED,
                2,
                [
                    &|_, cpu, stage| {
                        assert!(cpu.call(|| stage.mm.fault_and_wait(A, Access::Read)).is_ok());
                        stage.done.store(true, SeqCst);
                    },
                    &|_, cpu, stage| {
                        while !stage.done.load(SeqCst) {
                            if stage.evicted.load(SeqCst) < EVICTIONS && cpu.call(|| stage.file.evict(0)) {
                                stage.evicted.fetch_add(1, SeqCst);
                            }
                            cpu.pause();
                        }
                    },
                ],
            );
            let (reads, evicted) = (stage.content.reads(), stage.evicted.load(SeqCst));
            assert_eq!(reads, evicted + 1, "{} seed {seed}", L::NAME);
            end(stage);
            reads
        };
        (0..seeds(100)).map(one).max().unwrap()
    }

    fn rounds<L: Locking>() {
        let [dropped, held] = BOTH.map(reads_beside_eviction::<L>);
        println!("{:18} at most {dropped} reads if dropped, {held} if held", L::NAME);
        assert_eq!((dropped, held), (1, 1), "the page went before the fault came again");
    }

    /// The file changes its length while its page is read, which is read anew then: nobody is denied it.
    fn read_anew<L: Locking>() {
        for (waiting, seed) in BOTH.into_iter().flat_map(|waiting| (0..seeds(50)).map(move |seed| (waiting, seed))) {
            let stage = run::<L>(
                seed,
                waiting,
                Flags::SHARED,
                2 + (seed % 23) as u32,
                [&|user, _, _| assert_eq!(user.load(A), Ok(BYTE)), &|_, cpu, stage| {
                    (0..seed % 7).for_each(|_| cpu.pause());
                    cpu.call(|| stage.file.truncate(100));
                    cpu.call(|| stage.file.extend(PAGE));
                }],
            );
            end(stage);
        }
    }

    /// Ticks that are more than any change needs.
    const FAR: u32 = 2000;

    /// How many of the seeds in which the fault waits when the change comes see the change done before the read.
    fn overtaken<L: Locking>(waiting: Waiting, flags: Flags, change: Side<'_, L>) -> [u64; 2] {
        let one = |seed| {
            let stage = run::<L>(
                seed,
                waiting,
                flags,
                FAR,
                [
                    &|_, cpu, stage| {
                        let result = cpu.call(|| stage.mm.fault_and_wait(A, Access::Write));
                        assert!(matches!(result, Ok(_) | Err(Denied::Unmapped)), "{result:?}");
                    },
                    &|user, cpu, stage| {
                        while cpu.sim().counts().sleeps == 0 {
                            spile_sync::hint::spin_loop();
                        }
                        if stage.read.load(SeqCst) {
                            stage.done.store(true, SeqCst);
                        }
                        change(user, cpu, stage);
                        stage.overtook.store(!stage.read.load(SeqCst), SeqCst);
                    },
                ],
            );
            let (late, overtook) = (stage.done.load(SeqCst), stage.overtook.load(SeqCst));
            let mapped = stage.mm.mapping_from(A).is_some_and(|mapping| mapping.range.start() == A);
            let page = stage.mm.page_table().peek(stage.mm.platform(), A);
            assert!(mapped || page.is_none(), "{page:?} where nothing is mapped");
            end(stage);
            [u64::from(!late), u64::from(overtook && !late)]
        };
        (0..seeds(100) / 10).map(one).fold([0; 2], |sum, one| [sum[0] + one[0], sum[1] + one[1]])
    }

    /// Whether changes of its mapping wait for a fault that sleeps with its hold.
    fn delays_its_own<L: Locking>() -> bool {
        !["spf_srcu", "spf_refcount"].contains(&L::NAME)
    }

    /// Whether all others do: where the hold is a share of the address space's lock, or of the topmost table, there being none below it yet.
    fn delays_all<L: Locking>() -> bool {
        !["range_lock", "vma_rwsem", "vma_refcount", "vma_refcount_2019"].contains(&L::NAME) && delays_its_own::<L>()
    }

    fn delay<L: Locking>() {
        let forks: Side<'_, L> = &|user, _, stage| stage.children.lock().unwrap().push(user.fork().unwrap());
        let unmaps: Side<'_, L> = &|user, _, _| user.unmap(Range::page_of(A)).unwrap();
        let elsewhere: Side<'_, L> = &|user, _, _| user.unmap(Range::page_of(B)).unwrap();
        let (own, all) = (delays_its_own::<L>(), delays_all::<L>());
        let changes = [
            ("fork", Flags::NONE, forks, own),
            ("munmap", Flags::SHARED, unmaps, own),
            ("munmap elsewhere", Flags::SHARED, elsewhere, all),
        ];
        for (name, flags, change, waits) in changes {
            let [dropped, held] = BOTH.map(|waiting| overtaken::<L>(waiting, flags, change));
            println!("{:18} {name:16} before the read in {dropped:?} if dropped, {held:?} if held", L::NAME);
            assert_eq!(dropped[0], dropped[1], "{name} waits for a read that no hold waits for");
            assert!(dropped[1] > 0 && held[0] > 0, "the read was always over: this shows nothing");
            assert_eq!(
                held[1],
                if waits { 0 } else { held[0] },
                "{name} waits, or does not, for a fault that sleeps with its hold"
            );
        }
    }

    spile::test_each_design! {
        a_page_is_taken_before_the_retry => rounds;
        a_change_waits_for_a_read => delay;
        a_page_that_is_read_anew_is_denied_to_nobody => read_anew;
    }
}

/// Seeded bugs, and who finds them.
#[cfg(feature = "sched")]
#[test]
fn controls() {
    controls::all_are_found(&[
        ("come-again-without-the-page", "beside::vma_refcount::a_page_is_taken_before_the_retry"),
        ("retry-without-the-page", "beside::vma_refcount::a_page_is_taken_before_the_retry"),
        ("read-for-nobody", "beside::vma_refcount::a_page_is_taken_before_the_retry"),
        ("wait-for-another-read", "vma_refcount::a_read_that_fails_is_told"),
        ("another-read-is-a-failure", "beside::vma_refcount::a_page_that_is_read_anew_is_denied_to_nobody"),
        ("held-unasked", "beside::spf_refcount::a_change_waits_for_a_read"),
    ]);
}
