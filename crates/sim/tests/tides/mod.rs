//! Pages that come and go while they are used: short stories, in which every step is near the race.
//!
//! **Guarantee.** For each seed tried: what a CPU counts up in a page of its own nobody sees go down, in memory or not, and it itself never misses a count; a
//! child has what its parent had when it was forked, and keeps it; a locked page is there; a space shows no more than it may; a fault that waits reads its page once, where nothing is changed meanwhile; what was unmapped and mapped again begins with zero. At the end there is
//! no slot in use.
//!
//! **Mechanism.** A page for each CPU and one for all, few slots, so that they are soon used again, and one CPU that lets pages go all the time. Seeds differ in
//! what the others do besides: nothing, fork, unmap, end, lock, free, wait; or in that there is a limit.

use spile::linux::advice;
use spile::reclaim::Pressed as _;
use spile::{Access, Attr, Frames as _, Layout, Locking, Mm, PAGE, Place, Prot, Range};
use spile_sim::{Cpu, Rng, Sim, User};
use spile_sync::sched::{Outcome, label};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const BASE: u64 = 0x8000_0000;
const STEPS: u64 = 1500;

struct World<L: Locking> {
    sim: Sim,
    mm: Mm<Sim, L>,
    seed: u64,
    story: Story,
    cpus: u64,
    /// Faults that may have waited for a page.
    waits: AtomicU64,
    /// To be dropped at the end, where the story is not about that.
    children: Mutex<Vec<Mm<Sim, L>>>,
}

/// What a seed is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Story {
    Counts,
    Forks,
    Unmaps,
    Ends,
    Locks,
    Frees,
    Waits,
    Limits,
}

const STORIES: [Story; 8] =
    [Story::Counts, Story::Forks, Story::Unmaps, Story::Ends, Story::Locks, Story::Frees, Story::Waits, Story::Limits];

fn page(n: u64) -> u64 {
    BASE + n * PAGE
}

fn map<L: Locking>(user: &User<'_, '_, L>, n: u64) {
    user.map(Place::Over(Range::page_of(page(n))), |at| Attr::anon(at.start(), Prot::RW)).unwrap();
}

impl<L: Locking> World<L> {
    fn new(seed: u64, cpus: u64) -> Self {
        let slots = cpus as u32 + (seed / 4 % 3) as u32 * 4;
        let sim = Sim::builder().cpus(cpus as usize).frames(200).swap(slots).seed(seed).build();
        sim.swap().set_delay((seed / 2 % 3) as u32);
        // One read for each page that is waited for is another story.
        let reads_ahead = seed / 6 % 2 == 1 && STORIES[(seed / 3 % STORIES.len() as u64) as usize] != Story::Waits;
        sim.reclaimer().set_readahead(if reads_ahead { 4 } else { 1 });
        let mm: Mm<Sim, L> = Mm::new(sim.clone(), Layout::default()).unwrap();
        let story = STORIES[(seed / 3 % STORIES.len() as u64) as usize];
        {
            let cpu = sim.cpu(0);
            let user = cpu.enter(&mm);
            for n in 0..cpus {
                map(&user, n);
                user.store(page(n), 1).unwrap();
            }
            if story == Story::Limits {
                mm.set_limit(Some(2));
            }
            // All have left memory, or none.
            if seed.is_multiple_of(2) {
                cpu.reclaim(usize::MAX);
            }
        }
        Self { sim, mm, seed, story, cpus, waits: AtomicU64::new(0), children: Mutex::default() }
    }

    fn rng(&self, cpu: u64) -> Rng {
        Rng::new(self.seed.wrapping_mul(101).wrapping_add(cpu))
    }

    /// The one who lets pages go. It counts in no page.
    fn ebb(&self, cpu: &Cpu<'_>) {
        let mut rng = self.rng(0);
        for _ in 0..10 {
            cpu.reclaim(1 + rng.below(3) as usize);
            if rng.one_in(3) {
                cpu.pause();
            }
        }
    }

    /// One of those who use pages.
    fn play(&self, cpu: &Cpu<'_>, me: u64) {
        if self.story == Story::Waits {
            return self.wait(cpu, me);
        }
        let mut rng = self.rng(me);
        let user = cpu.enter(&self.mm);
        let mut count = 1;
        let mut seen = vec![0; self.cpus as usize];
        for _ in 0..8 {
            match rng.below(8) {
                0..=3 => {
                    assert_eq!(user.load(page(me)), Ok(count), "cpu {me}'s own page, before");
                    count += 1;
                    user.store(page(me), count).unwrap();
                    assert_eq!(user.load(page(me)), Ok(count), "cpu {me}'s own page, after");
                }
                4 if self.story == Story::Unmaps => {
                    label("maps anew");
                    user.unmap(Range::page_of(page(me))).unwrap();
                    map(&user, me);
                    assert_eq!(user.load(page(me)), Ok(0), "a page that is new");
                    user.store(page(me), count).unwrap();
                }
                4 if self.story == Story::Frees => {
                    label("frees");
                    cpu.call(|| self.mm.madvise(page(me), PAGE, advice::FREE)).unwrap();
                    let now = user.load(page(me)).unwrap();
                    assert!(now == count || now == 0, "cpu {me}'s page is free, and has {now}");
                    user.store(page(me), count).unwrap();
                }
                4 if self.story == Story::Locks => self.lock(cpu, &mut rng, me),
                4 if matches!(self.story, Story::Forks | Story::Ends) => {
                    label("forks");
                    let child = user.fork().unwrap();
                    self.look_at_child(cpu, &child, me, count);
                    if self.story == Story::Ends {
                        cpu.call(|| drop(child));
                    } else {
                        self.children.lock().unwrap().push(child);
                    }
                }
                _ => {
                    let other = 1 + rng.below(self.cpus - 1);
                    // In the middle of mapping anew there may be nothing, and in a new page or a free one nothing yet.
                    if let Ok(now) = user.load(page(other)) {
                        let before = &mut seen[other as usize];
                        assert!(
                            now >= *before || (now == 0 && matches!(self.story, Story::Unmaps | Story::Frees)),
                            "cpu {me} saw {before} of {other}, then {now}"
                        );
                        *before = now.max(*before);
                    }
                }
            }
        }
        assert_eq!(user.load(page(me)), Ok(count), "cpu {me}'s own page, at the end");
    }

    /// Sends all pages away and waits until its own is back, which takes one read, however many pages are let go meanwhile.
    fn wait(&self, cpu: &Cpu<'_>, me: u64) {
        let user = cpu.enter(&self.mm);
        for _ in 0..4 {
            // Not by madvise: a change lets faults of some designs start anew.
            cpu.reclaim(usize::MAX);
            self.waits.fetch_add(1, Relaxed);
            cpu.call(|| self.mm.fault_and_wait(page(me), Access::Read)).unwrap();
        }
        drop(user);
    }

    /// Locks its page, which stays until it unlocks it.
    fn lock(&self, cpu: &Cpu<'_>, rng: &mut Rng, me: u64) {
        label("locks");
        cpu.call(|| self.mm.mlock(page(me), PAGE)).unwrap();
        for _ in 0..1 + rng.below(3) {
            let is_here = cpu.call(|| self.mm.page_table().peek(&self.sim, page(me))).is_some();
            assert!(is_here, "cpu {me}'s page is locked, and left");
            cpu.pause();
        }
        cpu.call(|| self.mm.munlock(page(me), PAGE)).unwrap();
    }

    fn look_at_child(&self, cpu: &Cpu<'_>, child: &Mm<Sim, L>, me: u64, count: u8) {
        let read = |n| {
            let mut byte = [0];
            cpu.call(|| child.read_user(page(n), &mut byte)).unwrap();
            byte[0]
        };
        assert_eq!(read(me), count, "cpu {me}'s page in a child");
        let other = 1 + me % (self.cpus - 1);
        let before = read(other);
        cpu.call(|| child.write_user(page(me), &[200])).unwrap();
        assert_eq!((read(me), read(other)), (200, before), "pages of a child that nobody else writes");
    }

    fn end(self) -> Result<(), String> {
        let Self { sim, mm, children, waits, story, cpus, .. } = self;
        let (reads, waits) = (sim.swap().done().back, waits.into_inner());
        if story == Story::Waits && reads > waits {
            return Err(format!("{waits} faults that waited read {reads} pages"));
        }
        let shown = (0..cpus).filter(|n| mm.page_table().peek(&sim, page(*n)).is_some_and(|pte| pte.frame != sim.zero_frame()));
        let (shown, counted) = (shown.count() as u64, mm.resident_pages());
        if shown != counted || mm.limit().is_some_and(|limit| shown > limit) {
            return Err(format!("{counted} pages were counted, and {shown} are shown of {:?}", mm.limit()));
        }
        drop((children, mm));
        let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sim.finish()));
        end.map_err(|_| "frames or slots were forgotten".into())
    }
}

pub fn one<L: Locking>(seed: u64) -> Outcome {
    let cpus = 3 + seed % 2;
    let world = World::<L>::new(seed, cpus);
    if (seed / 2).is_multiple_of(2) {
        world.sim.stall_one_in(16);
    }
    let sim = world.sim.clone();
    let part = |world: &World<L>, cpu: &Cpu<'_>, number| if number == 0 { world.ebb(cpu) } else { world.play(cpu, number) };
    super::played((seed, &sim, cpus, STEPS), world, part, World::end)
}
