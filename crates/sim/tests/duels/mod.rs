//! One CPU changes a mapping while others use it: short stories, in which every step is near the race.
//!
//! **Guarantee.** For each seed tried: what the changer unmapped is unmapped, at once and from then on; what it made read-only does not
//! change; what it stored in a mapping of its own choice no late discard of another takes away; a page in the same table
//! is not lost; a child sees two pages in an order in which they were written; and when all is unmapped, no table is left.
//!
//! **Mechanism.** The changer maps *scrap*, which others may discard, and *keeps*, which they may not: they look at the mapping they hold.
//! Seeds differ in what shares the table: nothing, so that it comes and goes; another page, written and discarded; a file's pages.

use spile::backing::File;
use spile::{Attr, Backing, Denied, Flags, Frames as _, Layout, Locking, Mm, PAGE, Place, Prot, Range, Unmapping, Vma};
use spile_sim::{Content, Cpu, Rng, Sim, User};
use spile_sync::sched::{Outcome, label};
use std::sync::Mutex;

const TABLE: u64 = 512 * PAGE;
const BASE: u64 = 0x8000_0000;
/// What the changer changes: two pages.
const STAGE: u64 = BASE + 4 * PAGE;
/// A page in the same table.
const NEAR: u64 = BASE + 9 * PAGE;
/// Two pages of a file, in the window that a fault maps around.
const FILED: u64 = BASE + 2 * PAGE;
/// Two pages in two tables, written in turn, the lower first.
const PAIR: [u64; 2] = [BASE + 4 * TABLE, BASE + 5 * TABLE];
const FILE_PAGES: u64 = 16;
/// What users store. The changer's values are below.
const USERS: u8 = 0x80;
const FILE_BYTE: u8 = 0xf0;
/// How many steps a seed takes, more or less.
const STEPS: u64 = 1500;

/// What a mapping is called whose pages may be discarded.
const SCRAP: &str = "scrap";

struct World<L: Locking> {
    sim: Sim,
    mm: Mm<Sim, L>,
    seed: u64,
    story: Story,
    file: Option<File<Sim>>,
    frames: usize,
    /// To be dropped at the end: an exit is long.
    children: Mutex<Vec<Mm<Sim, L>>>,
}

/// What a seed is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Story {
    /// Nothing else is in the table of the stage.
    Alone,
    /// Another page is.
    Near,
    /// A file's pages are.
    Filed,
    Protects,
    Forks,
    /// The table comes and goes, and nobody pauses.
    Hurries,
    /// The table stays, and what is in it is discarded or kept.
    Keeps,
}

const STORIES: [Story; 7] =
    [Story::Alone, Story::Near, Story::Filed, Story::Protects, Story::Forks, Story::Hurries, Story::Keeps];

/// Whether pages leave memory, by who would pause else.
fn swaps(seed: u64) -> bool {
    seed % 5 < 2
}

fn stage(first: u64, count: u64) -> Range {
    Range::with_len(STAGE + first * PAGE, count * PAGE).unwrap()
}

fn named(name: &'static str, prot: Prot) -> impl Fn(Range) -> Attr<Sim> {
    move |at| Attr { name: Some(name.into()), ..Attr::anon(at.start(), prot) }
}

fn is_scrap<L: Locking>(vma: &Vma<Sim, L>) -> bool {
    vma.attr().name.as_deref() == Some(SCRAP)
}

impl<L: Locking> World<L> {
    fn new(seed: u64, cpus: u64) -> Self {
        let sim = Sim::builder().cpus(cpus as usize).frames(200).swap(if swaps(seed) { 16 } else { 0 }).seed(seed).build();
        let mut mm: Mm<Sim, L> = Mm::new(sim.clone(), Layout::default()).unwrap();
        mm.set_unmapping(Unmapping::ALL[seed as usize / 5 % 3]);
        let story = STORIES[(seed / 8 % STORIES.len() as u64) as usize];
        let content = Content::new(vec![FILE_BYTE; (FILE_PAGES * PAGE) as usize]);
        let file = (story == Story::Filed).then(|| sim.file(&content, FILE_PAGES * PAGE).unwrap());
        let frames = sim.free_frames();
        let world = Self { sim, mm, seed, story, file, frames, children: Mutex::default() };
        let cpu = world.sim.cpu(0);
        let user = cpu.enter(&world.mm);
        let anon = |at: Range| Attr::anon(at.start(), Prot::RW);
        for at in PAIR.into_iter().filter(|_| story == Story::Forks) {
            user.map(Place::Over(Range::page_of(at)), anon).unwrap();
            user.store(at, 1).unwrap();
        }
        if matches!(story, Story::Near | Story::Keeps) {
            user.map(Place::Over(Range::page_of(NEAR)), anon).unwrap();
            user.load(NEAR).unwrap();
        }
        if let Some(file) = &world.file {
            let attr =
                |pages| Attr { prot: Prot::R, flags: Flags::SHARED, backing: Backing::File(file.clone(), pages), name: None };
            let whole = Range::with_len(BASE + 64 * TABLE, FILE_PAGES * PAGE).unwrap();
            user.map(Place::Over(whole), |_| attr(0)).unwrap();
            (0..FILE_PAGES).for_each(|n| assert_eq!(user.load(whole.start() + n * PAGE), Ok(FILE_BYTE)));
            user.unmap(whole).unwrap();
            user.map(Place::Over(Range::with_len(FILED, 2 * PAGE).unwrap()), |_| attr(4)).unwrap();
        }
        drop(user);
        world
    }

    fn rng(&self, cpu: u64) -> Rng {
        Rng::new(self.seed.wrapping_mul(97).wrapping_add(cpu))
    }

    /// The one who maps and unmaps.
    fn change(&self, cpu: &Cpu<'_>) {
        let mut rng = self.rng(0);
        let user = cpu.enter(&self.mm);
        for round in 0..1 + rng.below(4) {
            label(format_args!("round {round}"));
            if self.story == Story::Forks {
                self.be_child(&user, cpu);
                continue;
            }
            user.map(Place::Over(stage(0, 2)), named(SCRAP, Prot::RW)).unwrap();
            if rng.one_in(3) {
                user.store(STAGE, 1).unwrap();
            }
            if rng.one_in(4) && self.story != Story::Hurries {
                cpu.pause();
            }
            match rng.below(4) {
                _ if self.story == Story::Protects => self.protect_part(&user, &mut rng),
                _ if self.story == Story::Keeps => self.keep(&user, &mut rng),
                _ if self.story == Story::Hurries => user.unmap(stage(0, 2)).unwrap(),
                0 | 1 => {
                    let range = [stage(0, 2), stage(0, 1), stage(1, 1)][rng.below(3) as usize];
                    label(format_args!("unmaps {range}"));
                    user.unmap(range).unwrap();
                    self.is_gone(&user, range);
                    cpu.pause();
                    self.is_gone(&user, range);
                }
                _ => self.keep(&user, &mut rng),
            }
        }
        user.unmap(stage(0, 2)).unwrap();
        self.is_gone(&user, stage(0, 2));
    }

    /// Who writes a page first gives its mapping an identity, which its pieces keep.
    fn protect_part(&self, user: &User<'_, '_, L>, rng: &mut Rng) {
        label("protects part of it");
        user.protect(stage(rng.below(2), 1), Prot::R).unwrap();
        user.cpu().call(|| {
            let zero = self.sim.zero_frame();
            let written = |at| self.mm.page_table().peek(&self.sim, at).is_some_and(|pte| pte.frame != zero);
            for at in [STAGE, STAGE + PAGE].into_iter().filter(|at| written(*at)) {
                let owned = L::look(&self.mm, at, |vma| vma.expect("the stage is mapped").anon().is_some());
                assert!(owned, "{at:#x} is written and nobody's");
            }
        });
    }

    fn is_gone(&self, user: &User<'_, '_, L>, range: Range) {
        for at in (range.start()..range.end()).step_by(PAGE as usize) {
            assert_eq!(user.load(at), Err(Denied::Unmapped), "{at:#x} was unmapped");
        }
    }

    /// What nobody may discard.
    fn keep(&self, user: &User<'_, '_, L>, rng: &mut Rng) {
        label("maps what it keeps");
        user.map(Place::Over(stage(0, 2)), named("kept", Prot::RW)).unwrap();
        let at = STAGE + rng.below(2) * PAGE;
        user.store(at, 7).unwrap();
        let kept = |when| {
            let value = user.load(at).unwrap();
            assert!(value == 7 || value >= USERS, "{when}, {at:#x} has {value:#x}");
            value
        };
        kept("at once");
        user.cpu().pause();
        kept("after a while");
        if rng.one_in(2) {
            label("protects it");
            user.protect(Range::page_of(at), Prot::R).unwrap();
            let before = kept("read-only");
            user.cpu().pause();
            assert_eq!(kept("read-only"), before, "what is read-only changed");
            user.protect(Range::page_of(at), Prot::RW).unwrap();
        }
    }

    fn be_child(&self, user: &User<'_, '_, L>, cpu: &Cpu<'_>) {
        label("forks");
        let child = user.fork().unwrap();
        let mut pair = [0; 2];
        for (at, byte) in PAIR.into_iter().zip(&mut pair) {
            cpu.call(|| child.read_user(at, std::slice::from_mut(byte))).unwrap();
        }
        assert!(pair[1] <= pair[0], "the child has {pair:?}, of which the second was never ahead");
        self.children.lock().unwrap().push(child);
    }

    /// Writes the pair, or looks at it in the other order.
    fn count_up(&self, user: &User<'_, '_, L>, me: u64) {
        let mut last = 0;
        for count in 2..8 {
            if me == 1 {
                PAIR.iter().for_each(|at| user.store(*at, count).unwrap());
            } else {
                let (second, first) = (user.load(PAIR[1]).unwrap(), user.load(PAIR[0]).unwrap());
                assert!(last <= second && second <= first, "cpu {me} saw {second} before {first}, after {last}");
                last = second;
            }
        }
    }

    /// One of those who use it.
    fn play(&self, cpu: &Cpu<'_>, me: u64) {
        let mut rng = self.rng(me);
        let user = cpu.enter(&self.mm);
        let mut near = 0;
        if self.story == Story::Forks {
            return self.count_up(&user, me);
        }
        for _ in 0..8 {
            let at = STAGE + rng.below(2) * PAGE;
            match if self.story == Story::Keeps { 4 } else { rng.below(if me == 1 { 8 } else { 6 }) } {
                0 | 1 => _ = user.store(at, USERS + me as u8),
                2 | 3 => {
                    if let Ok(value) = user.load(at) {
                        assert!(value < USERS + 8, "{at:#x} has {value:#x}");
                    }
                }
                4 => {
                    label("discards");
                    user.discard_if(Range::page_of(at), is_scrap);
                }
                5 if self.file.is_some() => assert_eq!(user.load(FILED + rng.below(2) * PAGE), Ok(FILE_BYTE)),
                6 | 7 if self.story == Story::Near => {
                    if user.discard(Range::page_of(NEAR)) {
                        near = 0;
                    }
                    assert_eq!(user.load(NEAR), Ok(near), "the page near by");
                    near += 1;
                    user.store(NEAR, near).unwrap();
                    assert_eq!(user.load(NEAR), Ok(near), "the page near by");
                }
                _ if swaps(self.seed) => _ = cpu.reclaim(2),
                _ => cpu.pause(),
            }
        }
    }

    /// Unmaps what is left: then there are as many frames as at the beginning.
    fn end(self) -> Result<(), String> {
        self.children.lock().unwrap().clear();
        super::consistent(&self.sim, &self.mm, std::iter::once(BASE..BASE + 16 * PAGE))?;
        {
            let cpu = self.sim.cpu(0);
            let user = cpu.enter(&self.mm);
            let mut mapped = Vec::new();
            self.mm.each_vma(|vma| mapped.push(vma.range()));
            mapped.into_iter().for_each(|range| user.unmap(range).unwrap());
        }
        self.sim.settle();
        // Some of its pages may have left; now all have.
        let cached = self.file.as_ref().map_or(0, |file| {
            (0..FILE_PAGES).for_each(|page| _ = file.evict(page));
            3
        });
        let left = self.frames - cached - self.sim.free_frames();
        if left != 0 {
            return Err(format!("with nothing mapped, {left} tables are left"));
        }
        let Self { sim, mm, file, .. } = self;
        drop((mm, file));
        let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sim.finish()));
        end.map_err(|_| "frames were forgotten".into())
    }
}

pub fn one<L: Locking>(seed: u64) -> Outcome {
    let cpus = 2 + seed % 3;
    let world = World::<L>::new(seed, cpus);
    if (seed / 2).is_multiple_of(2) {
        world.sim.stall_one_in(if world.story == Story::Hurries { 8 } else { 24 });
    }
    let sim = world.sim.clone();
    let part = |world: &World<L>, cpu: &Cpu<'_>, number| if number == 0 { world.change(cpu) } else { world.play(cpu, number) };
    super::played((seed, &sim, cpus, STEPS), world, part, World::end)
}
