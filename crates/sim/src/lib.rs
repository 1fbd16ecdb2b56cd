//! A machine in software, on which [`spile`] runs and is watched.
//!
//! **Guarantee.** What a rule of the core forbids panics here with a story: a stale translation that no flush is about, a frame freed while
//! some CPU can reach it or used after, a change whose flush is not awaited, a table that is still walked, a sleep with something held, a
//! wake-up that is missed, a frame that is forgotten.
//!
//! **Mechanism.** A [`Sim`] has frames with bytes, CPUs with translation caches that walk the core's own tables, files on a slow device, and
//! an RCU domain that waits for read sections alone. It is an ordinary value: threads may share it, one thread may play several CPUs in
//! turn, and with feature `sched` its CPUs are the threads of a seeded schedule, in which watching adds no yield point.
//!
//! ```
//! use spile::{Attr, Layout, Mm, Place, Prot, Range, VmaRefcount};
//! use spile_sim::Sim;
//!
//! let sim = Sim::new();
//! let mm: Mm<Sim, VmaRefcount> = Mm::new(sim.clone(), Layout::default())?;
//! let cpu = sim.cpu(0);
//! let child = {
//!     let user = cpu.enter(&mm);
//!     let at = user.map(Place::Anywhere(0x4000), |at| Attr::anon(at.start(), Prot::RW))?.start();
//!     user.store(at, 7).unwrap();
//!     let child = user.fork()?;
//!     user.store(at, 8).unwrap();
//!     assert_eq!(sim.cpu(1).enter(&child).load(at), Ok(7));
//!     child
//! };
//! drop((mm, child));
//! sim.finish();
//! # Ok::<(), spile::Error>(())
//! ```
#![deny(missing_docs)]

mod cpu;
mod frames;
mod in_use;
mod machine;
mod mmu;
mod rcu;
mod rng;
mod store;
mod swap;
mod tlb;
mod watch;

pub use cpu::{Cpu, User};
pub use frames::{Failures, Uses};
pub use in_use::InUse;
pub use machine::Pin;
pub use mmu::Flush;
pub use rcu::{Section, SimRcu};
pub use rng::Rng;
pub use store::Content;
pub use swap::{SwapDisk, Swapped};
pub use watch::Counts;

use frames::Arena;
use machine::Lanes;
use spile::backing::{File, SwapStore};
use spile::paging::Table;
use spile::reclaim::{Pressed, Reclaimer, Record, SecondChance, ToSwap};
use spile::{FrameId, FrameMeta, Frames, Layout, Machine, Mm, MmapLock, Platform, Shared};
use std::fmt;
use std::sync::Arc;
use store::Device;

/// A machine. Cheap to clone; the clones are one.
#[derive(Clone)]
pub struct Sim(Arc<Host>);

struct Host {
    rcu: SimRcu,
    lanes: Arc<Lanes>,
    arena: Arena,
    device: Device,
    reclaimer: Reclaimer<Sim>,
    shared: Shared,
}

/// What a machine shall be like.
#[derive(Clone, Copy, Debug)]
pub struct Builder {
    cpus: usize,
    frames: u32,
    swap: Option<u32>,
    seed: u64,
    interruptible: Option<bool>,
}

impl Builder {
    /// The number of CPUs: at most 128, and 4 unless told.
    pub fn cpus(mut self, cpus: usize) -> Self {
        assert!((1..=128).contains(&cpus), "between 1 and 128 CPUs");
        self.cpus = cpus;
        self
    }

    /// The number of frames: 1024 unless told.
    pub fn frames(mut self, frames: u32) -> Self {
        self.frames = frames;
        self
    }

    /// The number of swap slots; pages of files leave memory too. No page ever leaves it unless told.
    pub fn swap(mut self, slots: u32) -> Self {
        self.swap = Some(slots);
        self
    }

    /// What the machine's own choices depend on: which frame is next, when memory is given back early, whether requests interrupt what runs.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Whether requests of other CPUs interrupt what runs in the kernel, or wait until it spins, sleeps or ends: by the seed, unless told.
    pub fn interruptible(mut self, interruptible: bool) -> Self {
        self.interruptible = Some(interruptible);
        self
    }

    /// The machine.
    pub fn build(self) -> Sim {
        self.with_store(None)
    }

    /// The machine, with the contents of its swap slots in `store`: the device takes its time before it asks that, and compares what it reads with what it
    /// wrote. A store that answers later says when it is done by [`Sim::swapped`].
    pub fn build_on(self, store: Arc<dyn SwapStore<Sim>>) -> Sim {
        self.with_store(Some(store))
    }

    fn with_store(self, store: Option<Arc<dyn SwapStore<Sim>>>) -> Sim {
        let interruptible = self.interruptible.unwrap_or_else(|| Rng::new(self.seed).one_in(2));
        let lanes = Arc::new(Lanes::new(self.cpus, self.seed, interruptible));
        let disk = SwapDisk::new(self.seed ^ 2, store);
        Sim(Arc::new(Host {
            rcu: SimRcu::new(Arc::clone(&lanes), self.seed ^ 1),
            lanes,
            arena: Arena::new(self.frames, self.cpus, self.seed),
            device: Device::default(),
            reclaimer: match self.swap {
                Some(slots) => Reclaimer::new(disk, slots),
                None => Reclaimer::idle(disk),
            },
            shared: Shared::new(),
        }))
    }
}

impl Default for Sim {
    fn default() -> Self {
        Self::new()
    }
}

impl Sim {
    /// A machine with 4 CPUs and 1024 frames.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// A machine of your own.
    pub fn builder() -> Builder {
        Builder { cpus: 4, frames: 1024, swap: None, seed: 0, interruptible: None }
    }

    pub(crate) fn lanes(&self) -> &Arc<Lanes> {
        &self.0.lanes
    }

    pub(crate) fn arena(&self) -> &Arena {
        &self.0.arena
    }

    pub(crate) fn device(&self) -> &Device {
        &self.0.device
    }

    /// From now on, lets a CPU be late at one in `n` of the places where it allocates a frame, follows an entry to a table, locks one or
    /// changes an entry: for races that need it.
    pub fn stall_one_in(&self, n: u64) {
        self.lanes().stall_one_in(n);
    }

    /// From now on, lets allocations of frames fail.
    pub fn fail(&self, failures: Failures) {
        self.arena().fail(failures);
    }

    /// How many frames were asked for since [`fail`](Self::fail).
    pub fn frames_asked(&self) -> u64 {
        self.arena().asked()
    }

    /// How many frames nobody has.
    pub fn free_frames(&self) -> usize {
        self.arena().free_count()
    }

    /// How many frames are in use, and were.
    pub fn uses(&self) -> Uses {
        self.arena().uses()
    }

    /// The swap device.
    pub fn swap(&self) -> &SwapDisk {
        self.0.reclaimer.area().store()
    }

    /// What it did so far.
    pub fn counts(&self) -> Counts {
        self.lanes().watch.state().counts
    }

    /// A file of `len` bytes; none without a frame.
    pub fn file(&self, content: &Content, len: u64) -> Option<File<Sim>> {
        File::new(self.clone(), content.clone(), len)
    }

    /// Lets all that waits for a grace period, or is being read, come to its end. With nothing held, and every CPU at rest.
    pub fn settle(&self) {
        while !self.device().is_idle() {
            self.device().tick();
        }
        self.rcu().barrier();
        // A space that comes and goes takes the tables that wait along: those that arrive, those that wait, and its own.
        self.fail(Failures::Never);
        for _ in 0..4 {
            drop(Mm::<Sim, MmapLock>::new(self.clone(), Layout::default()));
        }
        self.rcu().barrier();
    }

    /// Checks that nothing is left, when all spaces and files are gone.
    ///
    /// # Panics
    ///
    /// If a frame was forgotten, or something is under way.
    pub fn finish(&self) {
        self.settle();
        self.assert_all_free();
    }

    /// Checks that every frame is free and that nothing is under way.
    ///
    /// # Panics
    ///
    /// If not.
    pub fn assert_all_free(&self) {
        self.lanes().watch.check(|state| ((), state.at_rest()));
        let used = self.0.reclaimer.area().used();
        self.lanes().watch.expect(used == 0, || format!("{used} swap slots were forgotten"));
        let left = self.arena().in_use();
        self.lanes().watch.expect(left.is_empty(), || format!("frames were forgotten, with so many owners: {left:?}"));
    }

    fn judge(&self, wrong: Option<String>) {
        self.lanes().watch.check(|_| ((), wrong));
    }
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} CPUs; {:?}; {:?}", self.lanes().count(), self.arena(), self.device())
    }
}

impl Platform for Sim {
    type Rcu = SimRcu;
    type Store = Content;
    type Reclaim = ToSwap;

    fn rcu(&self) -> &SimRcu {
        &self.0.rcu
    }

    fn shared(&self) -> &Shared {
        &self.0.shared
    }
}

// SAFETY: (1) the machine's only one; (2) each frame's own, which never moves.
unsafe impl Pressed for Sim {
    type Swap = SwapDisk;
    type Policy = SecondChance;

    fn reclaimer(&self) -> &Reclaimer<Sim> {
        &self.0.reclaimer
    }

    fn free_frames(&self) -> usize {
        Sim::free_frames(self)
    }

    fn record(&self, frame: FrameId) -> &Record {
        self.arena().record(frame)
    }
}

impl Machine for Sim {
    type Pin = Pin;

    fn cpu(&self) -> usize {
        self.lanes().cpu()
    }

    fn pin(&self) -> Pin {
        self.lanes().pin()
    }

    fn relax(&self) {
        self.rcu().spins();
        self.lanes().relax();
    }

    fn sleep(&self, key: usize, still: &dyn Fn() -> bool) {
        let (watch, cpu) = (&self.lanes().watch, self.lanes().cpu());
        watch.check(|state| ((), state.sleeps(cpu)));
        let kernel = watch.state().cpus[cpu].kernel;
        if kernel {
            self.rcu().idle();
        }
        let _awake = Awake { sim: self, cpu, kernel };
        self.lanes().sleep(key, still, self.device());
    }

    fn wake(&self, key: usize) {
        self.lanes().wake(key);
    }
}

/// Ends a sleep, also one that unwinds.
struct Awake<'s> {
    sim: &'s Sim,
    cpu: usize,
    kernel: bool,
}

impl Drop for Awake<'_> {
    fn drop(&mut self) {
        let lanes = self.sim.lanes();
        lanes.watch.state().cpus[self.cpu].asleep = false;
        if self.kernel {
            self.sim.rcu().online();
        }
        lanes.serve();
    }
}

impl Sim {
    /// The words of a frame that should be a table.
    pub(crate) fn words(&self, frame: FrameId) -> &Table {
        let (table, wrong) = self.arena().table(frame);
        self.judge(wrong);
        table
    }
}

// SAFETY: (1) the arena gives a frame once, which it asserts; (2) slots are never moved or freed while a handle lives; (3) nor their
// tables.
unsafe impl Frames for Sim {
    fn alloc(&self) -> Option<FrameId> {
        self.lanes().stall();
        self.arena().alloc()
    }

    unsafe fn free(&self, frame: FrameId) {
        let cpu = self.lanes().cpu();
        self.lanes().watch.check(|state| ((), state.freed(cpu, frame)));
        self.judge(self.arena().free(frame));
    }

    unsafe fn meta(&self, frame: FrameId) -> &FrameMeta {
        self.arena().meta(frame)
    }

    fn page(&self, _: FrameId) -> *mut u8 {
        // Bytes are watched, so nobody gets at them but by what follows.
        std::ptr::null_mut()
    }

    unsafe fn zero(&self, frame: FrameId) {
        self.judge(self.arena().touch(frame, true, None, |bytes| bytes.fill(0)).err());
    }

    unsafe fn copy(&self, from: FrameId, to: FrameId) {
        let copied = self.arena().touch(from, false, None, |bytes| bytes.to_vec());
        let pasted = copied.and_then(|bytes| self.arena().touch(to, true, None, |into| into.copy_from_slice(&bytes)));
        self.judge(pasted.err());
    }

    unsafe fn read(&self, frame: FrameId, offset: usize, into: &mut [u8]) {
        let read = self.arena().touch(frame, false, None, |bytes| into.copy_from_slice(&bytes[offset..offset + into.len()]));
        self.judge(read.err());
    }

    unsafe fn write(&self, frame: FrameId, offset: usize, from: &[u8]) {
        let written = self.arena().touch(frame, true, None, |bytes| bytes[offset..offset + from.len()].copy_from_slice(from));
        self.judge(written.err());
    }

    fn zero_frame(&self) -> FrameId {
        self.arena().zero()
    }

    fn alloc_table(&self) -> Option<FrameId> {
        self.arena().alloc_table(self.lanes().cpu())
    }

    unsafe fn free_table(&self, frame: FrameId) {
        let cpu = self.lanes().cpu();
        self.lanes().watch.check(|state| ((), state.freed_table(cpu, frame)));
        self.judge(self.arena().free_table(frame, cpu));
    }

    unsafe fn table(&self, frame: FrameId) -> &Table {
        self.words(frame)
    }
}
