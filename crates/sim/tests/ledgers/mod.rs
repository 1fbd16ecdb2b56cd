//! A file that all write, or shared memory of no file, and that is written back, cut and put out of memory meanwhile: short stories, in which every step is near the race.
//!
//! **Guarantee.** For each seed tried: what a CPU counts up in a page of its own, through whatever mapping, nobody sees go down, and it itself never misses a count, but where
//! the file was cut; what a flush said is durable is, as far as it was stored before; a private copy is its owner's; at the end all is durable, or still there.
//!
//! **Mechanism.** A page of the file for each CPU, mapped by all, and one CPU that lets pages go or flushes all the time. Seeds differ in what the others do
//! besides: nothing, map anew, move, fork, copy; or in whether the file is cut.

use spile::backing::File;
use spile::linux::remap;
use spile::{Attr, Backing, Denied, Flags, Layout, Locking, Mm, PAGE, Place, Prot, Range};
use spile_sim::{Content, Cpu, Rng, Sim, User};
use spile_sync::sched::{Outcome, label};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};

const BASE: u64 = 0x8000_0000;
const ELSEWHERE: u64 = 0x9000_0000;
const STEPS: u64 = 1500;

struct World<L: Locking> {
    sim: Sim,
    mm: Mm<Sim, L>,
    /// None: it comes from nowhere.
    content: Option<Content>,
    file: File<Sim>,
    seed: u64,
    story: Story,
    cpus: u64,
    /// What each CPU has stored, at least.
    stored: Vec<AtomicU8>,
    children: Mutex<Vec<Mm<Sim, L>>>,
}

/// What a seed is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Story {
    Counts,
    Unmaps,
    Moves,
    Forks,
    Copies,
    Cuts,
}

const STORIES: [Story; 6] = [Story::Counts, Story::Unmaps, Story::Moves, Story::Forks, Story::Copies, Story::Cuts];

fn page(n: u64) -> u64 {
    BASE + n * PAGE
}

fn aside(n: u64) -> u64 {
    ELSEWHERE + n * PAGE
}

impl<L: Locking> World<L> {
    fn new(seed: u64, cpus: u64, is_stored: bool) -> Self {
        let slots = if is_stored { 0 } else { 2 * cpus as u32 };
        let sim = Sim::builder().cpus(cpus as usize).frames(200).swap(slots).seed(seed).build();
        let delay = (seed / 2 % 3) as u32;
        sim.swap().set_delay(delay);
        let content = is_stored.then(|| Content::new(vec![0; (cpus * PAGE) as usize]));
        let file = match &content {
            Some(content) => {
                content.set_delay(delay);
                sim.file(content, cpus * PAGE).unwrap()
            }
            None => File::anonymous(sim.clone(), cpus * PAGE).unwrap(),
        };
        let mm: Mm<Sim, L> = Mm::new(sim.clone(), Layout::default()).unwrap();
        let story = STORIES[(seed / 3 % STORIES.len() as u64) as usize];
        let stored = (0..cpus).map(|_| AtomicU8::new(0)).collect();
        let world = Self { sim, mm, content, file, seed, story, cpus, stored, children: Mutex::default() };
        {
            let cpu = world.sim.cpu(0);
            let user = cpu.enter(&world.mm);
            for n in 0..cpus {
                world.map(&user, page(n), n, Flags::SHARED);
            }
            if seed.is_multiple_of(2) {
                (0..cpus).for_each(|n| user.store(page(n), 0).unwrap());
            }
        }
        world
    }

    fn map(&self, user: &User<'_, '_, L>, at: u64, first: u64, flags: Flags) {
        let backing = Backing::File(self.file.clone(), first);
        let attr = Attr { prot: Prot::RW, flags: flags.with(Flags::MAY_WRITE), backing, name: None };
        user.map(Place::Over(Range::page_of(at)), |_| attr).unwrap();
    }

    fn rng(&self, cpu: u64) -> Rng {
        Rng::new(self.seed.wrapping_mul(101).wrapping_add(cpu))
    }

    /// The one who lets pages go, writes them back, and cuts. It counts in no page.
    fn keep(&self, cpu: &Cpu<'_>) {
        let mut rng = self.rng(0);
        for _ in 0..8 {
            match rng.below(5) {
                0 | 1 => _ = cpu.reclaim(1 + rng.below(4) as usize),
                4 => _ = cpu.call(|| self.file.evict(rng.below(self.cpus))),
                2 if self.story == Story::Cuts => {
                    label("cuts");
                    let left = 1 + rng.below(self.cpus);
                    cpu.call(|| self.file.truncate(left * PAGE));
                    self.content.iter().for_each(|content| content.resize((left * PAGE) as usize));
                    self.file.extend(self.cpus * PAGE);
                }
                2 => cpu.pause(),
                _ if self.content.is_none() => _ = cpu.reclaim(1),
                _ => self.flush(cpu),
            }
        }
    }

    fn flush(&self, cpu: &Cpu<'_>) {
        label("flushes");
        let before: Vec<u8> = self.stored.iter().map(|stored| stored.load(SeqCst)).collect();
        cpu.call(|| self.file.flush(0..self.cpus)).unwrap();
        let durable = self.content.as_ref().unwrap().durable();
        for (n, before) in before.into_iter().enumerate().filter(|_| self.story != Story::Cuts) {
            let now = durable[n * PAGE as usize];
            assert!(now >= before, "{now} is durable of cpu {n}, which had stored {before} before the flush");
        }
    }

    /// One of those who write.
    fn play(&self, cpu: &Cpu<'_>, me: u64) {
        let mut rng = self.rng(me);
        let user = cpu.enter(&self.mm);
        let mut count = 0;
        let mut seen = vec![0; self.cpus as usize];
        for _ in 0..8 {
            match rng.below(8) {
                0..=3 => self.count_up(&user, page(me), me, &mut count),
                4 if self.story == Story::Unmaps => {
                    label("maps anew");
                    user.unmap(Range::page_of(page(me))).unwrap();
                    self.map(&user, page(me), me, Flags::SHARED);
                    self.count_up(&user, page(me), me, &mut count);
                }
                4 if self.story == Story::Moves => self.go_and_return(&user, me, &mut count),
                4 if self.story == Story::Copies => self.copy(&user, me, &mut count),
                4 if self.story == Story::Forks => {
                    label("forks");
                    let child = user.fork().unwrap();
                    count += 1;
                    cpu.call(|| child.write_user(page(me), &[count])).unwrap();
                    self.stored[me as usize].store(count, SeqCst);
                    self.children.lock().unwrap().push(child);
                }
                _ => {
                    let other = 1 + rng.below(self.cpus - 1);
                    // Where it is being mapped anew, or moved, there may be nothing.
                    if let Ok(now) = user.load(page(other)) {
                        let before = &mut seen[other as usize];
                        let is_cut = self.story == Story::Cuts && now < *before;
                        assert!(now >= *before || is_cut, "cpu {me} saw {before} of {other}, then {now}");
                        *before = now;
                    }
                }
            }
        }
        self.count_up(&user, page(me), me, &mut count);
    }

    fn count_up(&self, user: &User<'_, '_, L>, at: u64, me: u64, count: &mut u8) {
        let may_be_cut = self.story == Story::Cuts;
        let (before, next) = (user.load(at), *count + 1);
        assert!(
            before == Ok(*count) || may_be_cut && matches!(before, Ok(0) | Err(Denied::Bus)),
            "cpu {me}'s own page has {before:?}, not {count}"
        );
        match user.store(at, next) {
            Ok(()) => {
                *count = next;
                self.stored[me as usize].store(next, SeqCst);
                let after = user.load(at);
                assert!(
                    after == Ok(next) || may_be_cut && matches!(after, Ok(0) | Err(Denied::Bus)),
                    "cpu {me} stored {next}, and reads {after:?}"
                );
            }
            Err(denied) => assert!(may_be_cut && denied == Denied::Bus, "cpu {me} stores to its page: {denied:?}"),
        }
    }

    /// To another place and back, and counts there.
    fn go_and_return(&self, user: &User<'_, '_, L>, me: u64, count: &mut u8) {
        label("moves");
        let moves = |from, to| user.cpu().call(|| self.mm.mremap(from, PAGE, PAGE, remap::MAYMOVE | remap::FIXED, to)).unwrap();
        moves(page(me), aside(me));
        self.count_up(user, aside(me), me, count);
        moves(aside(me), page(me));
    }

    /// Its own copy, which nobody else writes, and which no flush is about.
    fn copy(&self, user: &User<'_, '_, L>, me: u64, count: &mut u8) {
        label("copies");
        self.map(user, aside(me), me, Flags::NONE);
        assert_eq!(user.load(aside(me)), Ok(*count), "cpu {me}'s page, seen from aside");
        user.store(aside(me), 200).unwrap();
        self.count_up(user, page(me), me, count);
        assert_eq!(user.load(aside(me)), Ok(200), "cpu {me}'s copy");
        user.unmap(Range::page_of(aside(me))).unwrap();
    }

    fn end(self) -> Result<(), String> {
        let Self { sim, mm, content, file, story, cpus, stored, children, .. } = self;
        let end = std::panic::AssertUnwindSafe(|| {
            drop(children);
            sim.cpu(0).call(|| file.flush(0..cpus)).unwrap();
            let mut kept = vec![0; (cpus * PAGE) as usize];
            match content {
                Some(content) => kept = content.durable(),
                None => sim.cpu(0).call(|| mm.read_user(page(0), &mut kept)).unwrap(),
            }
            for (n, stored) in stored.into_iter().enumerate().filter(|_| story != Story::Cuts) {
                assert_eq!(kept[n * PAGE as usize], stored.into_inner(), "what cpu {n} wrote last is not durable, or gone");
            }
            drop((mm, file));
            sim.finish();
        });
        std::panic::catch_unwind(end).map_err(|what| format!("at the end: {:?}", what.downcast_ref::<String>()))
    }
}

pub fn one<L: Locking>(seed: u64, is_stored: bool) -> Outcome {
    let cpus = 3 + seed % 2;
    let world = World::<L>::new(seed, cpus, is_stored);
    if (seed / 2).is_multiple_of(2) {
        world.sim.stall_one_in(16);
    }
    let sim = world.sim.clone();
    let part = |world: &World<L>, cpu: &Cpu<'_>, number| if number == 0 { world.keep(cpu) } else { world.play(cpu, number) };
    super::played((seed, &sim, cpus, STEPS), world, part, World::end)
}
