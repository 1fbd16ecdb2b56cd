//! What the models have in common: a host, a design that holds nothing, and a race of two or three threads over one address space.

#[cfg(feature = "file")]
pub mod files;
pub mod flushes;
pub mod host;
pub mod limits;
pub mod reclaim;
pub mod shapes;
#[cfg(feature = "file")]
pub mod shared;
#[cfg(feature = "file")]
pub mod store;
pub mod swap;
#[cfg(feature = "file")]
pub mod waits;

pub use loom::cell::UnsafeCell;

use host::{Host, Setting, run_on};
use loom::thread;
use spile::paging::Pte;
use spile::{Access, Attr, Denied, Done, Frames as _, Layout, Locking, Mm, Outcome, PAGE, Place, Prot, Range, TABLE_END};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// The address of page `n` of four. Pages 0 and 1 are in one table, 2 and 3 in another.
pub const fn at(n: u64) -> u64 {
    n * PAGE
}

/// Page `n`.
pub fn page(n: u64) -> Range {
    Range::page_of(at(n))
}

/// Pages from `first` up to, and without, `end`.
pub fn pages(first: u64, end: u64) -> Range {
    Range::new(at(first), at(end)).unwrap()
}

/// A number from outside.
fn asked(variable: &str) -> Option<usize> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Runs `f` in every interleaving of so many preemptions, and prints how many runs that were, for `cargo xtask checks`.
///
/// With fewer, where a sample is wanted: `SPILE_PREEMPTIONS` at most; and, one more after the other, until there were `SPILE_RUNS` with one number.
/// After `SPILE_SECONDS` in this process it is left at what was run, and said so.
pub fn model(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    let f = Arc::new(f);
    let most = asked("SPILE_PREEMPTIONS").unwrap_or(preemptions).min(preemptions);
    let enough = asked("SPILE_RUNS");
    let mut bound = if enough.is_some() { most.min(1) } else { most };
    loop {
        let (runs, stopped) = explore(bound, f.clone());
        if bound == most || stopped || enough.is_some_and(|enough| runs >= enough) {
            let why = if stopped { ", stopped" } else { "" };
            println!("explored: {runs} runs, {bound} of {preemptions} preemptions{why}");
            return;
        }
        bound += 1;
    }
}

/// How many runs there were, and whether there was no time for others.
fn explore(bound: usize, f: Arc<impl Fn() + Send + Sync + 'static>) -> (usize, bool) {
    static BEGUN: OnceLock<Instant> = OnceLock::new();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(bound);
    builder.max_branches = 20_000;
    builder.max_permutations = None;
    let limit = asked("SPILE_SECONDS").map(|seconds| Duration::from_secs(seconds as u64));
    let left = limit.map(|limit| limit.saturating_sub(BEGUN.get_or_init(Instant::now).elapsed()));
    builder.max_duration = left;
    // How often it looks at the clock.
    builder.checkpoint_interval = 500;
    let (runs, start) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    builder.check({
        let runs = runs.clone();
        move || {
            runs.fetch_add(1, Relaxed);
            f();
        }
    });
    (runs.load(Relaxed), left.is_some_and(|left| start.elapsed() >= left))
}

/// Something that must not be read while it is written.
pub struct Guarded(UnsafeCell<usize>);

// SAFETY: (1) loom reports unordered accesses.
unsafe impl Sync for Guarded {}

impl Guarded {
    pub fn read(&self) -> usize {
        // SAFETY: (1) loom reports a write that is not ordered before or after.
        self.0.with(|value| unsafe { *value })
    }

    pub fn write(&self) {
        // SAFETY: (1) loom reports an access that is not ordered before or after.
        self.0.with_mut(|value| unsafe { *value += 1 });
    }
}

/// An address space, and what the models put beside it.
pub struct Space<L: Locking> {
    pub host: Host,
    pub mm: Mm<Host, L>,
    /// What a lock guards.
    pub guarded: Guarded,
    /// A forked space, in models that have one.
    pub child: Mutex<Option<Mm<Host, L>>>,
    /// What the models about files map.
    #[cfg(feature = "file")]
    pub file: Option<spile::backing::File<Host>>,
}

impl<L: Locking> Space<L> {
    pub fn new(setting: Setting) -> Self {
        let setting = Setting { watched: setting.watched || L::WAITS_FOR_READERS, ..setting };
        let host = Host::new(setting);
        let layout = Layout { all: Range::new(0, TABLE_END).unwrap(), base: TABLE_END, stack_gap: 0 };
        let mm = Mm::new(host.clone(), layout).unwrap();
        Self {
            host,
            mm,
            guarded: Guarded(UnsafeCell::new(0)),
            child: Mutex::new(None),
            #[cfg(feature = "file")]
            file: None,
        }
    }

    /// Maps private memory.
    pub fn map(&self, range: Range, prot: Prot) {
        self.mm.map(Place::Over(range), |at| Attr::anon(at.start(), prot)).unwrap();
    }

    /// Makes an access possible, as a trap handler would, letting a stack grow without further questions.
    pub fn fault(&self, at: u64, access: Access) -> Result<Done, Denied> {
        loop {
            match self.mm.fault(at, access) {
                Outcome::Done(done) => return Ok(done),
                Outcome::Denied(denied) => return Err(denied),
                Outcome::Grow => self.mm.grow(at, |_, _, _| true)?,
                Outcome::Wait(token) => token.wait(),
            }
        }
    }

    /// The kernel's way to a page's byte.
    pub fn get(&self, at: u64) -> Result<u8, Denied> {
        let mut byte = [0];
        self.mm.read_user(at, &mut byte).map(|()| byte[0]).map_err(|partial| partial.why)
    }

    pub fn put(&self, at: u64, value: u8) -> Result<(), Denied> {
        self.mm.write_user(at, &[value]).map_err(|partial| partial.why)
    }

    /// A program's load, by the MMU of its CPU.
    pub fn load(&self, at: u64) -> Result<u8, Denied> {
        self.access(at, Access::Read).map(|frame| self.host.peek(frame))
    }

    pub fn store(&self, at: u64, value: u8) -> Result<(), Denied> {
        self.access(at, Access::Write).map(|frame| self.host.poke(frame, value))
    }

    fn access(&self, at: u64, access: Access) -> Result<spile::FrameId, Denied> {
        loop {
            if let Some(frame) = self.host.translate(&self.mm, at, access) {
                return Ok(frame);
            }
            self.fault(at, access)?;
        }
    }

    /// The entry of an address.
    pub fn entry(&self, at: u64) -> Option<Pte> {
        self.mm.page_table().peek(&self.host, at)
    }

    /// Whether a table leads to the entry of an address.
    pub fn has_table(&self, at: u64) -> bool {
        // SAFETY: (1) the root, of a space that is there.
        let root = unsafe { self.host.table(self.mm.page_table().root()) };
        root.load((at / PAGE / 2) as usize) != 0
    }

    /// No page is where nothing is mapped, none lets pass what its mapping does not, each private one has an owner, and no table is
    /// where nothing is mapped.
    pub fn check(&self) {
        for n in 0..4 {
            let Some(pte) = self.entry(at(n)) else { continue };
            let vma = self.mapped(at(n)).unwrap_or_else(|| panic!("{pte:?} at page {n}, where nothing is mapped"));
            assert!(vma.prot.has(pte.prot), "{pte:?} at page {n} of {vma:?}");
            let private = vma.is_anon && pte.frame.0 != 0;
            assert!(!private || vma.has_owner, "{pte:?} at page {n} of {vma:?}, and nobody's");
        }
        for n in (0..4).step_by(2).filter(|n| self.has_table(at(*n))) {
            let mapped = (n..n + 2).any(|n| self.mapped(at(n)).is_some());
            assert!(mapped, "a table for pages {n} and {}, where nothing is mapped", n + 1);
        }
    }

    fn mapped(&self, at: u64) -> Option<Mapped> {
        L::look(&self.mm, at, |vma| {
            let vma = vma.filter(|vma| vma.range().contains(at))?;
            let attr = vma.attr();
            Some(Mapped { prot: attr.prot, is_anon: attr.backing.is_anon(), has_owner: vma.anon().is_some() })
        })
    }

    /// Nothing runs any more.
    fn end(self) {
        let host = self.host.clone();
        drop(self);
        host.end();
    }
}

/// What the check wants to know of a mapping.
#[derive(Debug)]
struct Mapped {
    prot: Prot,
    is_anon: bool,
    has_owner: bool,
}

/// What a thread does.
pub type Side<L> = fn(&Space<L>);

/// Two or three threads over one address space, on CPUs 0 to 2.
pub struct Race<L: Locking> {
    pub setting: Setting,
    pub preemptions: usize,
    /// What was before, by CPU 0.
    pub before: fn(&mut Space<L>),
    /// What runs beside each other.
    pub sides: Vec<Side<L>>,
    /// What must be afterwards.
    pub after: Side<L>,
}

impl<L: Locking> Race<L> {
    pub fn run(self) {
        let sides = self.sides.into_iter().map(|side| Arc::new(side) as Act<L>).collect();
        race(self.setting, self.preemptions, self.before, sides, self.after);
    }
}

/// What a thread does, if that is known only when the model is made.
pub type Act<L> = Arc<dyn Fn(&Space<L>) + Send + Sync>;

/// A [`Race`] of such.
pub fn race<L: Locking>(
    setting: Setting,
    preemptions: usize,
    before: impl Fn(&mut Space<L>) + Send + Sync + 'static,
    sides: Vec<Act<L>>,
    after: impl Fn(&Space<L>) + Send + Sync + 'static,
) {
    model(preemptions, move || {
        let mut space = Space::<L>::new(setting);
        before(&mut space);
        let space = Arc::new(space);
        let others = sides.iter().enumerate().skip(1);
        let others: Vec<_> = others
            .map(|(cpu, side)| {
                let (space, side) = (space.clone(), side.clone());
                thread::spawn(move || {
                    run_on(cpu);
                    side(&space);
                    space.host.leave();
                })
            })
            .collect();
        sides[0](&space);
        space.host.leave();
        others.into_iter().for_each(|other| other.join().unwrap());
        after(&space);
        space.check();
        Arc::into_inner(space).expect("the others are gone").end();
    });
}
