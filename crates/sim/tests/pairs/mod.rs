//! Two CPUs change one space, each its own place, while others use both: short stories again.
//!
//! **Guarantee.** For each seed tried: what a changer unmapped is unmapped, from then on and until it maps there again; what it stored in a
//! mapping that nobody discards stays there, or is what a user stored; what it made read-only does not change; and none of this depends on what
//! the other changes meanwhile. When all is unmapped, no table is left.
//!
//! **Mechanism.** The places of the two are in one table with nothing between them that is mapped, in one with room between, or in two; or they
//! touch, so that their mappings merge and are cut. Both may lie in what was one mapping in the beginning.

use spile::{Attr, Denied, Layout, Locking, Mm, PAGE, Place, Prot, Range, Vma};
use spile_sim::{Cpu, Rng, Sim, User};
use spile_sync::sched::{Outcome, label};

const TABLE: u64 = 512 * PAGE;
const BASE: u64 = 0x8000_0000;
/// The lower of the two places.
const LOWER: u64 = BASE + 4 * PAGE;
/// How long a place is.
const PAGES: u64 = 3;
/// Where the higher begins, in pages after the beginning of the lower.
const DISTANCES: [u64; 4] = [PAGES, PAGES, PAGES + 4, 512];
/// What users store. The changers' values are below.
const USERS: u8 = 0x80;
const STEPS: u64 = 2000;
/// What a mapping is called whose pages may be discarded.
const SCRAP: &str = "scrap";

struct World<L: Locking> {
    sim: Sim,
    mm: Mm<Sim, L>,
    seed: u64,
    frames: usize,
}

fn named(name: &'static str, prot: Prot) -> impl Fn(Range) -> Attr<Sim> {
    move |at| Attr { name: Some(name.into()), ..Attr::anon(at.start(), prot) }
}

fn is_scrap<L: Locking>(vma: &Vma<Sim, L>) -> bool {
    vma.attr().name.as_deref() == Some(SCRAP)
}

impl<L: Locking> World<L> {
    fn new(seed: u64, cpus: u64) -> Self {
        let sim = Sim::builder().cpus(cpus as usize).frames(200).seed(seed).build();
        let mm: Mm<Sim, L> = Mm::new(sim.clone(), Layout::default()).unwrap();
        let world = Self { frames: sim.free_frames(), sim, mm, seed };
        if seed.is_multiple_of(3) {
            let cpu = world.sim.cpu(0);
            let whole = Range::new(LOWER, world.place(1, 0, PAGES).end()).unwrap();
            cpu.enter(&world.mm).map(Place::Over(whole), named(SCRAP, Prot::RW)).unwrap();
        }
        world
    }

    /// Some pages of one of the two places.
    fn place(&self, which: u64, first: u64, count: u64) -> Range {
        let distance = DISTANCES[(self.seed / 8 % 4) as usize];
        Range::with_len(LOWER + (which * distance + first) * PAGE, count * PAGE).unwrap()
    }

    fn rng(&self, cpu: u64) -> Rng {
        Rng::new(self.seed.wrapping_mul(89).wrapping_add(cpu))
    }

    /// One of the two who map and unmap.
    fn change(&self, cpu: &Cpu<'_>, me: u64) {
        let mut rng = self.rng(me);
        let user = cpu.enter(&self.mm);
        for round in 0..2 + rng.below(3) {
            label(format_args!("round {round}"));
            user.map(Place::Over(self.place(me, 0, PAGES)), named(SCRAP, Prot::RW)).unwrap();
            user.store(self.place(me, rng.below(PAGES), 1).start(), 1).unwrap();
            let first = rng.below(PAGES);
            let part = self.place(me, first, 1 + rng.below(PAGES - first));
            match rng.below(3) {
                0 => {
                    label(format_args!("unmaps {part}"));
                    user.unmap(part).unwrap();
                    self.is_gone(&user, part);
                    cpu.pause();
                    self.is_gone(&user, part);
                }
                1 => self.protect(&user, part),
                _ => self.keep(&user, part, &mut rng),
            }
        }
        user.unmap(self.place(me, 0, PAGES)).unwrap();
        self.is_gone(&user, self.place(me, 0, PAGES));
    }

    fn is_gone(&self, user: &User<'_, '_, L>, range: Range) {
        for at in (range.start()..range.end()).step_by(PAGE as usize) {
            assert_eq!(user.load(at), Err(Denied::Unmapped), "{at:#x} was unmapped");
        }
    }

    fn protect(&self, user: &User<'_, '_, L>, part: Range) {
        label(format_args!("protects {part}"));
        user.map(Place::Over(part), named("kept", Prot::RW)).unwrap();
        user.protect(part, Prot::R).unwrap();
        let before = user.load(part.start()).unwrap();
        user.cpu().pause();
        assert_eq!(user.store(part.start(), 2), Err(Denied::Protected));
        assert_eq!(user.load(part.start()), Ok(before), "what is read-only changed");
        user.protect(part, Prot::RW).unwrap();
        user.store(part.start(), 3).unwrap();
    }

    /// What nobody may discard.
    fn keep(&self, user: &User<'_, '_, L>, part: Range, rng: &mut Rng) {
        label(format_args!("keeps {part}"));
        user.map(Place::Over(part), named("kept", Prot::RW)).unwrap();
        let at = part.start() + rng.below(part.pages()) * PAGE;
        user.store(at, 7).unwrap();
        for when in ["at once", "after a while"] {
            let value = user.load(at).unwrap();
            assert!(value == 7 || value >= USERS, "{when}, {at:#x} has {value:#x}");
            user.cpu().pause();
        }
    }

    /// One of those who use both places.
    fn play(&self, cpu: &Cpu<'_>, me: u64) {
        let mut rng = self.rng(me);
        let user = cpu.enter(&self.mm);
        for _ in 0..8 {
            let at = self.place(rng.below(2), rng.below(PAGES), 1).start();
            match rng.below(6) {
                0 | 1 => _ = user.store(at, USERS + me as u8),
                2 | 3 => {
                    if let Ok(value) = user.load(at) {
                        assert!(value < USERS + 8, "{at:#x} has {value:#x}");
                    }
                }
                4 => _ = user.discard_if(Range::page_of(at), is_scrap),
                _ => cpu.pause(),
            }
        }
    }

    /// Unmaps what is left: then there are as many frames as at the beginning.
    fn end(self) -> Result<(), String> {
        super::consistent(&self.sim, &self.mm, [BASE..BASE + 24 * PAGE, BASE + TABLE..BASE + TABLE + 24 * PAGE])?;
        {
            let cpu = self.sim.cpu(0);
            let user = cpu.enter(&self.mm);
            let mut mapped = Vec::new();
            self.mm.each_vma(|vma| mapped.push(vma.range()));
            mapped.into_iter().for_each(|range| user.unmap(range).unwrap());
        }
        self.sim.settle();
        let left = self.frames - self.sim.free_frames();
        if left != 0 {
            return Err(format!("with nothing mapped, {left} tables are left"));
        }
        let Self { sim, mm, .. } = self;
        drop(mm);
        let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sim.finish()));
        end.map_err(|_| "frames were forgotten".into())
    }
}

pub fn one<L: Locking>(seed: u64) -> Outcome {
    let cpus = 2 + seed % 3;
    let world = World::<L>::new(seed, cpus);
    if (seed / 2).is_multiple_of(2) {
        world.sim.stall_one_in(16);
    }
    let sim = world.sim.clone();
    let part =
        |world: &World<L>, cpu: &Cpu<'_>, number| if number < 2 { world.change(cpu, number) } else { world.play(cpu, number) };
    super::played((seed, &sim, cpus, STEPS), world, part, World::end)
}
