//! A host of a few frames and three CPUs, whose every access loom sees.
//!
//! **Guarantee.** A frame that is used when it is not what its user takes it for, or by a user whose access is not ordered after its
//! allocation and before its free, fails the model; so does a page shown while some CPU still caches another one at its address
//! (P5), and a frame that never comes home.
//!
//! **Mechanism.** What a frame is, and its bytes (one of them), are cells in which loom sees each access. Freed frames are not given again, unless
//! a model asks for it: so any late use is seen, whoever would have been next. Flush requests are two counters per CPU; a CPU serves them
//! where it spins, sleeps, or begins an operation. What a translation cache contains is truth, no memory: loom does not see it.

use super::UnsafeCell;
use super::swap::Swap;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use spile::paging::{Gather, Pte, Table};
use spile::reclaim::{Pressed, Reclaimer, Record, ToSwap};
use spile::{Access, FrameId, FrameMeta, Frames, Locking, Machine, Mm, Mmu, Platform, Range, Shared, SpaceId};
use spile_rcu::qsbr::{self, Qsbr, QsbrGuard};
use spile_rcu::{Cookie, Head, Rcu};
use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

pub const CPUS: usize = 3;

loom::thread_local! {
    static CPU: Cell<usize> = Cell::new(0);
}

/// The CPU of this thread.
pub fn cpu() -> usize {
    CPU.with(Cell::get)
}

/// From now on this thread runs on that CPU.
pub fn run_on(cpu: usize) {
    CPU.with(|this| this.set(cpu));
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Free,
    Data,
    Table,
    Zero,
}

struct Slot {
    meta: FrameMeta,
    table: Table,
    kind: UnsafeCell<Kind>,
    byte: UnsafeCell<u8>,
    /// From a free to the next allocation, where frames are given again.
    handed: AtomicUsize,
}

// SAFETY: (1) loom reports unordered accesses of the cells.
unsafe impl Sync for Slot {}

/// What a CPU remembers of the tables.
#[derive(Clone, Copy, Debug)]
struct Cached {
    space: SpaceId,
    at: u64,
    pte: Pte,
}

struct Core {
    asked: AtomicUsize,
    served: AtomicUsize,
    cache: Mutex<Vec<Cached>>,
}

/// The CPUs, of which the first so many cache translations.
struct Cores {
    caching: usize,
    all: [Core; CPUS],
}

impl Cores {
    /// This CPU does what it was asked to: forgets.
    fn serve(&self) {
        if cpu() >= self.caching {
            return;
        }
        let core = &self.all[cpu()];
        // Acquire: what it reads from the tables after this is not older than the request.
        let asked = core.asked.load(Ordering::Acquire);
        // Relaxed: its own. The maximum once it has left.
        let served = core.served.load(Ordering::Relaxed);
        if served < asked {
            core.cache.lock().unwrap().clear();
            // Release: what it did by old translations comes before.
            core.served.store(asked, Ordering::Release);
        }
    }
}

/// What differs between models.
#[derive(Clone, Copy)]
pub struct Setting {
    /// Frames, the zero frame aside.
    pub frames: u32,
    /// How many of the CPUs cache translations: the first so many.
    pub caching: usize,
    /// Whether grace periods end. Who lets them must tell the domain when CPUs read, or have it watch.
    pub periods: bool,
    /// Whether the domain knows of each section, and who waits for a grace period waits for them.
    pub watched: bool,
    /// Whether no table may be taken in a section: watched, and without a fault on the slow way.
    pub tables_ahead: bool,
    /// Whether the frame that was freed last is the next one given.
    pub reuse: bool,
    /// To how many slots pages can go.
    pub swap: u32,
    /// Whether the byte of a page may be read while it is written, as programs and devices do: what is read then may be old.
    pub torn: bool,
}

/// Ten frames, no caches, no end of grace periods, no reuse, no slots, no torn bytes.
pub const PLAIN: Setting =
    Setting { frames: 10, caching: 0, periods: false, watched: false, tables_ahead: false, reuse: false, swap: 0, torn: false };

struct World {
    setting: Setting,
    slots: Vec<Slot>,
    free: Mutex<Vec<FrameId>>,
    gone: Mutex<Vec<FrameId>>,
    cores: Arc<Cores>,
    shared: Shared,
    rcu: Domain,
    reclaimer: Reclaimer<Host>,
    /// Of each frame, where there are slots: each atomic costs each run.
    records: Vec<Record>,
    /// The byte of each frame, where they may be torn.
    torn: Vec<AtomicUsize>,
    /// Spaces that are gone.
    retired: Mutex<Vec<SpaceId>>,
    /// What happens while somebody sleeps.
    asleep: Mutex<Option<Arc<dyn Fn(&Host) + Send + Sync>>>,
}

/// The host. Its clones are one.
#[derive(Clone)]
pub struct Host(Arc<World>);

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a host")
    }
}

impl Host {
    pub fn new(setting: Setting) -> Self {
        let slot = |i| Slot {
            meta: FrameMeta::new(),
            table: Table::new(),
            kind: UnsafeCell::new(if i == 0 { Kind::Zero } else { Kind::Free }),
            byte: UnsafeCell::new(0),
            handed: AtomicUsize::new(0),
        };
        let core = |i| Core {
            asked: AtomicUsize::new(0),
            // Who caches nothing has served everything.
            served: AtomicUsize::new(if i < setting.caching { 0 } else { usize::MAX }),
            cache: Mutex::default(),
        };
        let cores = Arc::new(Cores { caching: setting.caching, all: std::array::from_fn(core) });
        Self(Arc::new(World {
            setting,
            slots: (0..=setting.frames).map(slot).collect(),
            free: Mutex::new((1..=setting.frames).rev().map(FrameId).collect()),
            gone: Mutex::default(),
            shared: Shared::new(),
            asleep: Mutex::default(),
            reclaimer: match setting.swap {
                0 => Reclaimer::idle(Swap::new(0)),
                slots => Reclaimer::new(Swap::new(slots), slots),
            },
            records: (0..=setting.frames).filter(|_| setting.swap > 0).map(|_| Record::new()).collect(),
            torn: (0..=setting.frames).filter(|_| setting.torn).map(|_| AtomicUsize::new(0)).collect(),
            retired: Mutex::default(),
            rcu: Domain::new(setting.periods, setting.watched, cores.clone()),
            cores,
        }))
    }

    /// From now on this happens in each round of each sleep.
    pub fn while_asleep(&self, happens: impl Fn(&Host) + Send + Sync + 'static) {
        *self.0.asleep.lock().unwrap() = Some(Arc::new(happens));
    }

    /// Nothing runs any more: everything must have come home.
    pub fn end(self) {
        let qsbr = &self.0.rcu.0.qsbr;
        self.0.rcu.0.periods.set(true);
        for _ in 0..3 {
            self.0.shared.relieve(&self);
        }
        qsbr.barrier();
        let home = self.0.free.lock().unwrap().len() + self.0.gone.lock().unwrap().len();
        assert_eq!(home, self.0.setting.frames as usize, "a frame was lost");
        assert_eq!(self.0.reclaimer.area().used(), 0, "a slot was lost");
    }

    fn slot(&self, frame: FrameId) -> &Slot {
        &self.0.slots[frame.0 as usize]
    }

    /// What a frame is, now. Its user must have heard of that.
    fn kind(&self, frame: FrameId) -> Kind {
        // SAFETY: (1) loom reports a change that is not ordered before or after.
        self.slot(frame).kind.with(|kind| unsafe { *kind })
    }

    fn becomes(&self, frame: FrameId, before: Kind, after: Kind) {
        self.slot(frame).kind.with_mut(|kind| {
            // SAFETY: (1) loom reports a use that is not ordered before or after.
            let kind = unsafe { &mut *kind };
            assert_eq!(*kind, before, "{frame:?} becomes {after:?}");
            *kind = after;
        });
    }

    fn take(&self, after: Kind) -> Option<FrameId> {
        let frame = self.0.free.lock().unwrap().pop()?;
        if self.0.setting.reuse {
            self.slot(frame).handed.fetch_add(0, Ordering::Acquire);
        }
        self.becomes(frame, Kind::Free, after);
        Some(frame)
    }

    fn give(&self, frame: FrameId, before: Kind) {
        assert_eq!(self.slot(frame).meta.refs(), 0, "{frame:?} was freed with an owner");
        self.becomes(frame, before, Kind::Free);
        if self.0.setting.reuse {
            self.slot(frame).handed.fetch_add(1, Ordering::Release);
            self.0.free.lock().unwrap().push(frame);
        } else {
            self.0.gone.lock().unwrap().push(frame);
        }
    }

    /// The byte of a page.
    pub fn peek(&self, frame: FrameId) -> u8 {
        assert!(matches!(self.kind(frame), Kind::Data | Kind::Zero), "{frame:?} is read as a page");
        if let Some(byte) = self.0.torn.get(frame.0 as usize) {
            // Relaxed, here and in `poke`: as programs and devices do.
            return byte.load(Ordering::Relaxed) as u8;
        }
        // SAFETY: (1) loom reports a write that is not ordered before or after.
        self.slot(frame).byte.with(|byte| unsafe { *byte })
    }

    pub fn poke(&self, frame: FrameId, value: u8) {
        assert_eq!(self.kind(frame), Kind::Data, "{frame:?} is written as a page");
        if let Some(byte) = self.0.torn.get(frame.0 as usize) {
            return byte.store(value.into(), Ordering::Relaxed);
        }
        // SAFETY: (1) loom reports an access that is not ordered before or after.
        self.slot(frame).byte.with_mut(|byte| unsafe { *byte = value });
    }

    /// Empties `range`, where no fault is let in.
    pub fn zap<L: Locking>(&self, mm: &Mm<Host, L>, range: Range) {
        let mut gather = Gather::new(self, mm.page_table());
        // SAFETY: (1) one host, one space; (2) as the model says; (3) settled next.
        unsafe { mm.page_table().zap(self, range, &mut gather) };
        gather.settle(range);
    }

    /// Frames in use.
    pub fn in_use(&self) -> usize {
        let home = self.0.free.lock().unwrap().len() + self.0.gone.lock().unwrap().len();
        self.0.setting.frames as usize - home
    }

    fn caches(&self, cpu: usize) -> bool {
        cpu < self.0.setting.caching
    }

    /// This CPU runs no program any more.
    pub fn leave(&self) {
        if self.caches(cpu()) {
            let core = &self.0.cores.all[cpu()];
            core.cache.lock().unwrap().clear();
            // Release: as in `serve`.
            core.served.store(usize::MAX, Ordering::Release);
        }
    }

    /// Whether some CPU has a translation of `at`.
    pub fn is_cached(&self, at: u64) -> bool {
        self.0.cores.all.iter().any(|core| core.cache.lock().unwrap().iter().any(|cached| cached.at == at))
    }

    /// What the MMU of this CPU makes of an access: a frame, or a fault.
    pub fn translate<L: Locking>(&self, mm: &Mm<Host, L>, at: u64, access: Access) -> Option<FrameId> {
        self.0.cores.serve();
        let (space, core) = (mm.space(), &self.0.cores.all[cpu()]);
        let cached = core.cache.lock().unwrap().iter().find(|cached| cached.space == space && cached.at == at).copied();
        if let Some(cached) = cached {
            if access.allowed_by(cached.pte.prot) {
                return Some(cached.pte.frame);
            }
            core.cache.lock().unwrap().retain(|cached| cached.space != space || cached.at != at);
            return None;
        }
        let pte = mm.page_table().peek(self, at)?;
        if !access.allowed_by(pte.prot) {
            return None;
        }
        if self.caches(cpu()) {
            core.cache.lock().unwrap().push(Cached { space, at, pte });
        }
        Some(pte.frame)
    }

    /// This CPU begins to read what grace periods protect.
    pub fn online(&self) {
        self.0.rcu.0.enter();
    }

    /// This CPU reads nothing until it is online again.
    pub fn idle(&self) {
        self.0.rcu.0.leave();
    }
}

// SAFETY: (1) a frame is in one list or with one owner; (2) and (3) all lie in vectors that never move.
unsafe impl Frames for Host {
    fn alloc(&self) -> Option<FrameId> {
        self.take(Kind::Data)
    }

    unsafe fn free(&self, frame: FrameId) {
        self.give(frame, Kind::Data);
    }

    unsafe fn meta(&self, frame: FrameId) -> &FrameMeta {
        &self.slot(frame).meta
    }

    fn page(&self, _: FrameId) -> *mut u8 {
        std::ptr::null_mut()
    }

    unsafe fn zero(&self, frame: FrameId) {
        self.poke(frame, 0);
    }

    unsafe fn copy(&self, from: FrameId, to: FrameId) {
        self.poke(to, self.peek(from));
    }

    unsafe fn read(&self, frame: FrameId, _: usize, into: &mut [u8]) {
        into.fill(self.peek(frame));
    }

    unsafe fn write(&self, frame: FrameId, _: usize, from: &[u8]) {
        self.poke(frame, from[0]);
    }

    fn zero_frame(&self) -> FrameId {
        FrameId(0)
    }

    fn alloc_table(&self) -> Option<FrameId> {
        assert!(!(self.0.setting.tables_ahead && self.0.rcu.0.is_in_a_section()), "a table is taken in a section");
        let frame = self.take(Kind::Table)?;
        // SAFETY: (1) it was just taken.
        unsafe { self.slot(frame).table.clear() };
        Some(frame)
    }

    unsafe fn free_table(&self, frame: FrameId) {
        self.give(frame, Kind::Table);
    }

    unsafe fn table(&self, frame: FrameId) -> &Table {
        assert_eq!(self.kind(frame), Kind::Table, "{frame:?} is walked");
        &self.slot(frame).table
    }
}

// SAFETY: (1) x86-64's format, whose accessed bits this MMU does not set; (2) a flush is over when each other CPU has forgotten everything or caches nothing.
unsafe impl Mmu for Host {
    /// How many requests each CPU must have served.
    type Flush = [usize; CPUS];

    /// Without the accessed bit: every page may leave when it is looked at first.
    fn encode(&self, pte: Pte) -> u64 {
        Self::FORMAT.encode(Pte { accessed: false, ..pte })
    }

    unsafe fn commit(&self, space: SpaceId, at: u64, _: Option<Pte>, new: Option<Pte>) {
        let Some(new) = new else { return };
        // P5, and what a move between addresses owes: nobody caches another page here, or this page elsewhere. (None of the models
        // maps a page twice.)
        for core in &self.0.cores.all {
            for cached in core.cache.lock().unwrap().iter().filter(|cached| cached.space == space) {
                let (same_page, same_place) = (cached.pte.frame == new.frame, cached.at == at);
                assert_eq!(same_page, same_place, "{new:?} is shown at {at:#x} while a CPU has {cached:?}");
            }
        }
    }

    unsafe fn retire(&self, space: SpaceId) {
        self.0.retired.lock().unwrap().push(space);
    }

    fn issue(&self, space: SpaceId, range: Range) -> [usize; CPUS] {
        assert!(!self.0.retired.lock().unwrap().contains(&space), "{space:?} is gone, and flushed");
        self.0.cores.all[cpu()].cache.lock().unwrap().retain(|cached| cached.space != space || !range.contains(cached.at));
        std::array::from_fn(|other| {
            if other == cpu() || !self.caches(other) {
                return 0;
            }
            // Release: the changes of the tables come before; Acquire: of requests by several CPUs the last stands for all.
            self.0.cores.all[other].asked.fetch_add(1, Ordering::AcqRel) + 1
        })
    }

    fn acked(&self, flush: &mut [usize; CPUS]) -> bool {
        // Acquire: what was done by old translations comes before.
        flush.iter().zip(&self.0.cores.all).all(|(asked, core)| *asked == 0 || core.served.load(Ordering::Acquire) >= *asked)
    }
}

impl Machine for Host {
    type Pin = ();

    fn cpu(&self) -> usize {
        cpu()
    }

    fn pin(&self) {}

    fn relax(&self) {
        self.0.cores.serve();
        thread::yield_now();
    }

    fn sleep(&self, _: usize, still: &dyn Fn() -> bool) {
        while still() {
            let happens = self.0.asleep.lock().unwrap().clone();
            if let Some(happens) = happens {
                happens(self);
            }
            self.relax();
        }
    }

    fn wake(&self, _: usize) {}
}

impl Platform for Host {
    type Rcu = Domain;
    #[cfg(feature = "file")]
    type Store = super::store::Disk;
    #[cfg(not(feature = "file"))]
    type Store = ();
    type Reclaim = ToSwap;

    fn rcu(&self) -> &Domain {
        &self.0.rcu
    }

    fn shared(&self) -> &Shared {
        &self.0.shared
    }
}

// SAFETY: (1) the world's own; (2) in a vector that never moves.
unsafe impl Pressed for Host {
    type Swap = Swap;
    type Policy = spile::reclaim::SecondChance;

    fn reclaimer(&self) -> &Reclaimer<Self> {
        &self.0.reclaimer
    }

    fn free_frames(&self) -> usize {
        self.0.free.lock().unwrap().len()
    }

    fn record(&self, frame: FrameId) -> &Record {
        &self.0.records[frame.0 as usize]
    }
}

/// The CPUs, as `Qsbr` sees them.
pub struct Ports(Arc<Cores>);

impl qsbr::Machine for Ports {
    fn cpu(&self) -> usize {
        cpu()
    }

    /// Whoever is waited for may itself wait for a flush.
    fn relax(&self, _: u32) {
        self.0.serve();
        thread::yield_now();
    }

    /// No node of an index comes home during a run.
    const BATCH: usize = usize::MAX;
}

struct Period {
    qsbr: Qsbr<'static, Ports>,
    cpus: NonNull<[qsbr::Cpu]>,
    periods: Switch,
    watched: bool,
    /// What each CPU is in, as it knows itself.
    depth: [std::sync::atomic::AtomicUsize; CPUS],
}

impl Period {
    /// This CPU is in something more that a grace period waits for.
    fn enter(&self) {
        if self.depth[cpu()].fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 {
            // SAFETY: (1) it was in nothing.
            unsafe { self.qsbr.online() };
        }
    }

    /// Whether this CPU is, where that is watched.
    fn is_in_a_section(&self) -> bool {
        self.depth[cpu()].load(std::sync::atomic::Ordering::Relaxed) > 0
    }

    fn leave(&self) {
        if self.depth[cpu()].fetch_sub(1, std::sync::atomic::Ordering::Relaxed) == 1 {
            // SAFETY: (1) it is in nothing any more.
            unsafe { self.qsbr.idle() };
        }
    }
}

/// A section, of which the domain knows if it watches.
pub struct Section<'r> {
    domain: &'r Domain,
    _section: QsbrGuard<'r, Ports>,
}

impl Drop for Section<'_> {
    fn drop(&mut self) {
        if self.domain.0.watched {
            self.domain.0.leave();
        }
    }
}

/// Set before anything runs, and when everything has.
struct Switch(std::sync::atomic::AtomicBool);

impl Switch {
    fn set(&self, on: bool) {
        self.0.store(on, std::sync::atomic::Ordering::Relaxed);
    }

    fn is_on(&self) -> bool {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}

// SAFETY: (1) the words of a domain, which owns them and may itself be sent and shared.
unsafe impl Send for Period {}
// SAFETY: as above.
unsafe impl Sync for Period {}

impl Drop for Period {
    fn drop(&mut self) {
        // SAFETY: (1) it came from a box; (2) the domain, which alone refers to it, is not used any more.
        drop(unsafe { Box::from_raw(self.cpus.as_ptr()) });
    }
}

/// The shipped domain, whose grace periods end only in models that are about that: they would double the others' steps.
#[derive(Clone)]
pub struct Domain(Arc<Period>);

impl Domain {
    fn new(periods: bool, watched: bool, cores: Arc<Cores>) -> Self {
        let cpus: Box<[qsbr::Cpu]> = (0..CPUS).map(|_| qsbr::Cpu::new()).collect();
        let cpus = NonNull::from(Box::leak(cpus));
        // SAFETY: (1) freed by the drop of what refers to it.
        let words: &'static [qsbr::Cpu] = unsafe { cpus.as_ref() };
        // SAFETY: (1) threads name a CPU below their number; (2) to (4) as the models do.
        let qsbr = unsafe { Qsbr::new(words, Ports(cores)) };
        let depth = std::array::from_fn(|_| 0.into());
        Self(Arc::new(Period { qsbr, cpus, periods: Switch(periods.into()), watched, depth }))
    }
}

// SAFETY: (1) the promises are `Qsbr`'s; where periods do not end, nothing is over.
unsafe impl Rcu for Domain {
    type Guard<'r> = Section<'r>;

    fn read(&self) -> Section<'_> {
        if self.0.watched {
            self.0.enter();
        }
        Section { domain: self, _section: self.0.qsbr.read() }
    }

    fn protects(&self, section: &Section<'_>) -> bool {
        self.0.qsbr.protects(&section._section)
    }

    fn cookie(&self) -> Cookie {
        self.0.qsbr.cookie()
    }

    fn poll(&self, cookie: Cookie) -> bool {
        self.0.periods.is_on() && self.0.qsbr.poll(cookie)
    }

    fn drive(&self) {
        if self.0.periods.is_on() {
            self.0.qsbr.drive();
        }
    }

    fn batch(&self) -> usize {
        self.0.qsbr.batch()
    }

    unsafe fn defer(&self, head: NonNull<Head>) {
        // SAFETY: (1) the caller's contract is the callee's.
        unsafe { self.0.qsbr.defer(head) };
    }

    fn backlog(&self) -> usize {
        self.0.qsbr.backlog()
    }

    fn relieve(&self) {}

    fn synchronize(&self) {
        assert!(self.0.watched, "who waits for sections must have them watched");
        self.0.qsbr.synchronize();
    }
}
