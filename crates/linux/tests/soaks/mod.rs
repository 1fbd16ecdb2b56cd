//! Random verbs on many regions.

mod book;
mod memory;
mod watch;
mod workers;

use book::{Book, BookOf};
use memory::Memory;
use spile_linux::{OnFailure, PAGE, Pager, Region};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};
use watch::Watched;
use workers::{THREADS, Worker};

use crate::proofs::Numbers;

/// What backings are like.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// They fail at times, and say so.
    Sound,
    /// Some writes they forget.
    Forgets,
    /// Some reads never end.
    Hangs,
}

impl Kind {
    pub fn named(name: &str) -> Self {
        match name {
            "forgets" => Self::Forgets,
            "hangs" => Self::Hangs,
            other => panic!("SPILE_SOAK_KIND={other}: it is forgets or hangs"),
        }
    }
}

/// What is played.
#[derive(Clone, Copy)]
pub struct Scene {
    pub seed: u64,
    pub regions: u64,
    pub lasts: Duration,
    /// How long nothing may happen.
    pub patience: Duration,
    pub kind: Kind,
}

/// Says what is wrong, and ends the process: also where a panic would be taken for an error, or leave others waiting.
pub fn wrong(scene: &Scene, what: fmt::Arguments<'_>) -> ! {
    let Scene { seed, regions, lasts, .. } = scene;
    let seconds = lasts.as_secs();
    say(format_args!("{what}\nagain: SPILE_SOAK_SEED={seed} SPILE_SOAK_REGIONS={regions} SPILE_SOAK_SECS={seconds}"));
    std::process::abort()
}

/// At once, and not as macros print, which is kept for a test's end.
fn say(what: fmt::Arguments<'_>) {
    use std::io::Write;
    _ = writeln!(std::io::stderr(), "{what}");
}

/// Numbers of what happened.
macro_rules! totals {
    ($($name:ident),*) => {
        #[derive(Default)]
        pub struct Totals { $(pub $name: AtomicU64),* }

        impl fmt::Display for Totals {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                $(write!(f, concat!(stringify!($name), " {}, "), self.$name.load(Relaxed))?;)*
                Ok(())
            }
        }
    };
}

totals!(
    reads,
    writes,
    copied_out,
    copied_in,
    refused_accesses,
    prefetched,
    evictions,
    budgets,
    flushes,
    refused_flushes,
    mapped,
    filled,
    written,
    refused_fills,
    refused_writes,
    refused_syncs
);

/// Adds one.
pub fn count(total: &AtomicU64) {
    total.fetch_add(1, Relaxed);
}

/// A region, and what must be there.
pub struct Slot {
    /// Held by who touches the region, alone by who lets its fills fail.
    pub touched: RwLock<()>,
    pub region: RwLock<Option<Region<BookOf>>>,
    pub book: Arc<Book>,
    /// How often each thread has written its word of each page.
    pub counts: [Mutex<Vec<u64>>; THREADS],
}

impl Slot {
    /// All that threads wrote was kept. Nobody has the region now.
    pub fn holds_all(&self) {
        for (thread, counts) in self.counts.iter().enumerate() {
            let counts = counts.lock().unwrap();
            (0..).zip(counts.iter()).for_each(|(page, count)| self.book.holds(page, thread, *count));
        }
    }
}

/// All that workers share.
pub struct World<'p> {
    pub pager: &'p Pager,
    pub scene: Scene,
    pub slots: Vec<Slot>,
    pub totals: Arc<Totals>,
    pub is_over: AtomicBool,
    /// Held by who does something, alone by who measures.
    pub running: RwLock<()>,
}

impl<'p> World<'p> {
    fn new(pager: &'p Pager, scene: Scene) -> Self {
        let totals = Arc::new(Totals::default());
        let mut numbers = Numbers::new(scene.seed);
        // Several times what the budget has room for.
        let longest = (8 * pager.usage().budget / scene.regions).clamp(32, 512);
        let slot = |id| {
            let pages = 8 + numbers.below(longest);
            let book = Arc::new(Book::new(id, pages, scene, totals.clone()));
            let counts = std::array::from_fn(|_| Mutex::new(vec![0; pages as usize]));
            Slot { touched: RwLock::new(()), region: RwLock::new(None), book, counts }
        };
        let slots = (0..scene.regions).map(slot).collect();
        let world = Self { pager, scene, slots, totals, is_over: AtomicBool::new(false), running: RwLock::new(()) };
        world.slots.iter().for_each(|slot| *slot.region.write().unwrap() = Some(world.map(&slot.book, &mut numbers)));
        world
    }

    /// Touches all pages, so that the budget is used.
    fn fill(&self) {
        for slot in &self.slots {
            let region = slot.region.read().unwrap();
            let region = region.as_ref().expect("it is mapped");
            region.prefetch(0..region.len()).unwrap_or_else(|failed| wrong(&self.scene, format_args!("wrong: {failed}")));
            slot.book.is_calm.store(false, Relaxed);
        }
    }

    /// Maps the pages of a book, or the first of them.
    pub fn map(&self, book: &Arc<Book>, numbers: &mut Numbers) -> Region<BookOf> {
        let pages = if numbers.one_in(2) { book.pages() } else { 1 + numbers.below(book.pages()) };
        let around = 1 << numbers.below(5);
        count(&self.totals.mapped);
        let builder = self.pager.region(BookOf(book.clone()), pages * PAGE).around(around).on_failure(OnFailure::Abort);
        builder.map().unwrap_or_else(|error| wrong(&self.scene, format_args!("wrong: a region was refused: {error}")))
    }

    /// Everything is written back, and is what threads wrote.
    fn end(self) {
        for slot in &self.slots {
            slot.book.is_calm.store(true, Relaxed);
            let region = slot.region.write().unwrap().take();
            if let Some(Err(error)) = region.as_ref().map(Region::flush) {
                wrong(&self.scene, format_args!("wrong: the last flush failed: {error}"));
            }
            drop(region);
            slot.holds_all();
        }
    }
}

/// What was found.
pub struct Report {
    seed: u64,
    took: Duration,
    totals: Arc<Totals>,
    pub memory: Memory,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SPILE_SOAK_SEED={}, {:.0?}: {}{}", self.seed, self.took, self.totals, self.memory)
    }
}

/// Plays a scene.
pub fn run(pager: &Pager, scene: Scene) -> Report {
    say(format_args!("SPILE_SOAK_SEED={}", scene.seed));
    let mut memory = Memory::new(pager);
    let world = World::new(pager, scene);
    let watched = Watched::new(workers::ALL.len());
    world.fill();
    let since = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| watched.watch(&scene, &world.is_over));
        for (nth, verbs) in workers::ALL.iter().enumerate() {
            let (world, watched) = (&world, &watched);
            scope.spawn(move || Worker::new(world, nth, watched.of(nth)).run(verbs));
        }
        while since.elapsed() < scene.lasts {
            memory.look(&world);
            std::thread::sleep(Duration::from_millis(5));
        }
        world.is_over.store(true, Relaxed);
    });
    let totals = world.totals.clone();
    world.end();
    Report { seed: scene.seed, took: since.elapsed(), totals, memory }
}
