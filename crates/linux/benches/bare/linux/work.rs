//! What is done to a file's pages through a contender, and how long that takes.
//!
//! **Guarantee.** Every page is missed: it is touched twice, with all others in between, of which one in eight fits. What is timed is the touches from when the frames are full on, as
//! many as there are pages. Every value that is read is compared.

use super::common::PAGE;
use super::file::{File, WORDS, word};
use super::handler::Handler;
use super::kernel::Kernel;
use super::on_thread::OnThread;
use super::on_thread_copy::OnThreadCopy;
use super::on_thread_shared::{OnThreadShared, Way};
use super::pager::Paged;
use super::process::{cpu, pin, waited};
use std::ops::Range;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::scope;
use std::time::Instant;

/// One page of so many is resident.
const SHARE: u64 = 8;
/// The touches that are timed are timed in so many stretches: where others use the CPUs too, some of them may be undisturbed.
const STRETCHES: u64 = 64;

/// A file, and how it is to be paged.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    pub file: &'a File,
    /// Threads, each of which has an equal part of the file.
    pub threads: u64,
    /// Frames of all parts.
    pub resident: u64,
    /// Pages that are brought by one fault.
    pub window: u64,
}

impl Scene<'_> {
    /// Frames of one part.
    pub fn frames(&self) -> u64 {
        self.resident / self.threads
    }
}

pub trait Contender: Sync {
    /// Where the file's first page is.
    fn at(&self) -> u64;

    /// Said by the thread of a part before it touches it.
    fn begin(&self, _part: usize) {}

    /// And when it will no more.
    fn end(&self, _part: usize) {}

    /// Whether what it costs is only seen when its frames are full.
    fn warms_up(&self) -> bool {
        true
    }

    /// Brings these pages, of its numbering.
    fn prefetch(&self, _pages: Range<u64>) {
        unreachable!("it is not asked to")
    }

    /// All threads have ended: what was written is in the file when this returns.
    fn finish(self: Box<Self>) {}
}

/// A kind of work.
pub struct Work {
    pub name: &'static str,
    pub is_random: bool,
    pub is_write: bool,
    pub window: u64,
    pub ahead: Ahead,
}

/// Whether pages are asked for by a call before they are touched.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ahead {
    No,
    /// So many at a time, which is timed.
    Timed(u64),
    /// All of a stretch, before that is timed.
    Before,
}

const FAULTS: Work = Work { name: "", is_random: false, is_write: false, window: 1, ahead: Ahead::No };

pub const WORKS: [Work; 5] = [
    Work { name: "random read", is_random: true, ..FAULTS },
    Work { name: "random write", is_random: true, is_write: true, ..FAULTS },
    Work { name: "sequential read, 16 pages per fault", window: 16, ..FAULTS },
    Work { name: "prefetch of 64 pages, read", window: 16, ahead: Ahead::Timed(64), ..FAULTS },
    Work { name: "read of what was prefetched", window: 16, ahead: Ahead::Before, ..FAULTS },
];

pub const CONTENDERS: [&str; 7] = [
    "on the thread, MOVE",
    "on the thread, COPY",
    "on the thread, COPY to a memfd",
    "on the thread, CONTINUE of a memfd",
    "handler thread, COPY",
    "spile",
    "kernel mmap",
];

/// Which of them can be asked for pages by a call.
pub const CAN_PREFETCH: Range<usize> = 5..7;

/// Which of them drop scattered pages by one call.
pub const NEED_DROPS: Range<usize> = 1..4;

/// Time per page.
#[derive(Clone, Copy)]
pub struct Sample {
    /// Of a thread, in ns.
    pub wall: f64,
    /// Of the process, in ns.
    pub cpu: f64,
    /// Threads that waited for a CPU.
    pub waited: f64,
}

/// The pages of a part, each once.
fn order(pages: u64, is_random: bool) -> Vec<u64> {
    let mut order: Vec<_> = (0..pages).collect();
    let mut seed = 1u64;
    for n in (1..order.len()).rev().take_while(|_| is_random) {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        order.swap(n, (seed >> 33) as usize % (n + 1));
    }
    order
}

/// One touch of a page that was written so often.
fn touch(work: &Work, at: u64, page: u64, writes: u64) {
    if work.is_write {
        // SAFETY: (1) mapped, or brought by the contender; (2) shared as an atomic alone.
        let counter = unsafe { AtomicU64::from_ptr((at + page * PAGE) as *mut u64) };
        assert_eq!(counter.fetch_add(1, Relaxed), word(page, 0).wrapping_add(writes), "page {page}");
    } else {
        let n = 1 + page % (WORDS - 1);
        // SAFETY: (1) as above.
        assert_eq!(unsafe { ((at + page * PAGE + n * 8) as *const u64).read_volatile() }, word(page, n), "page {page}");
    }
}

/// The third of the rounds that was disturbed least: of each stretch for itself, so each comes as often as the others.
pub fn undisturbed(rounds: &[Vec<Sample>]) -> Vec<Sample> {
    let of_stretch = |n: usize| {
        let mut samples: Vec<_> = rounds.iter().map(|round| round[n]).collect();
        samples.sort_by(|one, other| one.waited.total_cmp(&other.waited));
        samples
    };
    let stretches: Vec<_> = (0..STRETCHES as usize).map(of_stretch).collect();
    let mean =
        |nth: usize, of: fn(&Sample) -> f64| stretches.iter().map(|samples| of(&samples[nth])).sum::<f64>() / STRETCHES as f64;
    let round = |nth| Sample { wall: mean(nth, |of| of.wall), cpu: mean(nth, |of| of.cpu), waited: mean(nth, |of| of.waited) };
    (0..rounds.len().div_ceil(3)).map(round).collect()
}

/// Plays `work` through contender `which`, on so many threads.
pub fn play(file: &File, work: &Work, which: usize, threads: u64) -> Vec<Sample> {
    let scene = Scene { file, threads, resident: file.pages / SHARE, window: work.window };
    let samples = scope(|scope| {
        let contender: Box<dyn Contender> = match which {
            0 => Box::new(OnThread::new(scene)),
            1 => Box::new(OnThreadCopy::new(scene)),
            2 => Box::new(OnThreadShared::new(scene, Way::Copy)),
            3 => Box::new(OnThreadShared::new(scene, Way::Continue)),
            4 => Box::new(Handler::new(scene, scope)),
            5 => Box::new(Paged::new(scene)),
            _ => Box::new(Kernel::new(scene)),
        };
        let samples = time(scene, work, &*contender);
        contender.finish();
        samples
    });
    if work.is_write {
        file.writes.fetch_add(2, Relaxed);
        file.check();
    }
    samples
}

fn time(scene: Scene<'_>, work: &Work, contender: &dyn Contender) -> Vec<Sample> {
    let pages = scene.file.pages / scene.threads;
    let warm = if contender.warms_up() { scene.frames() } else { 0 };
    let order = order(pages, work.is_random);
    let meet = Barrier::new(scene.threads as usize + 1);
    let before = scene.file.writes.load(Relaxed);
    let part = |part: u64| {
        pin(part as usize);
        contender.begin(part as usize);
        let run = |touches: Range<u64>| {
            for nth in touches {
                let page = part * pages + order[(nth % pages) as usize];
                touch(work, contender.at(), page, before + nth / pages);
            }
        };
        // In sequence: they lie together, but where the part begins anew.
        let prefetch = |touches: &Range<u64>| {
            let first = part * pages + touches.start % pages;
            contender.prefetch(first..(first + touches.end - touches.start).min((part + 1) * pages));
        };
        run(0..warm);
        let stretch = |n| {
            let touches = warm + n * pages / STRETCHES..warm + (n + 1) * pages / STRETCHES;
            if work.ahead == Ahead::Before {
                prefetch(&touches);
            }
            meet.wait();
            meet.wait();
            let since = Instant::now();
            match work.ahead {
                Ahead::Timed(count) => touches.clone().step_by(count as usize).for_each(|nth| {
                    let some = nth..(nth + count).min(touches.end);
                    prefetch(&some);
                    run(some);
                }),
                Ahead::No | Ahead::Before => run(touches),
            }
            (since, Instant::now())
        };
        let times: Vec<_> = (0..STRETCHES).map(stretch).collect();
        meet.wait();
        meet.wait();
        run(warm + pages..2 * pages);
        contender.end(part as usize);
        times
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..scene.threads).map(|n| scope.spawn(move || part(n))).collect();
        let look = |_| {
            meet.wait();
            let (until, waited, from) = (cpu(), waited(), cpu());
            meet.wait();
            (until, waited, from)
        };
        let spent: Vec<_> = (0..=STRETCHES).map(look).collect();
        let times: Vec<Vec<_>> = threads.into_iter().map(|thread| thread.join().expect("every byte is right")).collect();
        let sample = |n: usize| {
            let since = times.iter().map(|of_thread| of_thread[n].0).min().expect("there are threads");
            let until = times.iter().map(|of_thread| of_thread[n].1).max().expect("there are threads");
            let (ns, count) = ((until - since).as_nanos() as f64, (pages / STRETCHES) as f64);
            Sample {
                wall: ns / count,
                cpu: (spent[n + 1].0 - spent[n].2).as_nanos() as f64 / count / scene.threads as f64,
                waited: spent[n + 1].1.saturating_sub(spent[n].1).as_nanos() as f64 / ns,
            }
        };
        (0..STRETCHES as usize).map(sample).collect()
    })
}
