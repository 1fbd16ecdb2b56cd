//! `mapper`: how long a process that maps and unmaps waits for those who look at its mappings. (After Paul McKenney's proc-mmap_sem-test.)
//!
//! **Guarantee.** Every call is timed; the clock's price, some tens of nanoseconds, is in it. The reader, if there is one, is at work from before the first
//! to after the last.
//!
//! **Mechanism.** 128 MiB are mapped and written. Then a page of it is chosen by a seed, and mapped anew and written in one call, or unmapped, as
//! a coin falls. As many calls as there are pages come before any is timed: the original gets there in some seconds, and the region is in thousands of
//! pieces then. The original naps for 10 µs between calls; this one does not, so that the reader is met more often.

use super::clock;
use super::target::Target;
use super::workload::PAGE;
use serde::{Deserialize, Serialize};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const BASE: u64 = 0x20_0000_0000;

/// Who looks at the mappings meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reader {
    /// Nobody.
    None,
    /// One who reads them as `/proc/PID/maps` has them.
    Maps,
    /// One who reads them as `/proc/PID/smaps` has them: with the pages of each.
    Smaps,
}

impl Reader {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::None, Self::Maps, Self::Smaps];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Maps => "maps",
            Self::Smaps => "smaps",
        }
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Mapper {
    /// The pages of the region.
    pub pages: u64,
    /// How many calls are made.
    pub calls: u64,
    /// Who looks.
    pub reader: Reader,
    /// Chooses pages, and tosses coins.
    pub seed: u64,
}

/// How long calls of a kind took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// How many there were.
    pub count: u64,
    /// Half took no longer.
    pub median: Duration,
    /// 99 of 100 took no longer.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

impl Latency {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at =
            |part: usize| times.get((times.len() * part / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default();
        Self { count: times.len() as u64, median: at(50), p99: at(99), max: at(100) }
    }
}

/// What was measured.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Latencies {
    /// Mapping a page, and writing it.
    pub mmap: Latency,
    /// Unmapping one, which may be gone already.
    pub munmap: Latency,
    /// How often the reader has read everything.
    pub readings: u64,
    /// How much it read each time, in bytes, on average.
    pub bytes: u64,
    /// CPU time of a reading.
    pub reading: Duration,
    /// Changes of mappings, and faults, that the target has counted for the calls.
    pub changes: u64,
    /// As above.
    pub faults: u64,
}

impl Mapper {
    /// Measures `target`, in which nothing is mapped. The region is gone afterwards.
    pub fn measure(self, target: &impl Target) -> Latencies {
        let (over, ready) = (AtomicBool::new(false), Barrier::new(1 + usize::from(self.reader != Reader::None)));
        let mut found = Latencies::default();
        target.run(0, || {
            target.map(Some(BASE), self.pages * PAGE);
            target.write(BASE, self.pages * PAGE);
            // Whoever is timed has other dice.
            let mut dice = fastrand::Rng::with_seed(!self.seed);
            (0..self.pages).for_each(|_| _ = self.call(target, &mut dice));
        });
        thread::scope(|scope| {
            let reader =
                (self.reader != Reader::None).then(|| scope.spawn(|| target.run(1, || self.read(target, &ready, &over))));
            let mapper = scope.spawn(|| target.run(0, || self.remap(target, &ready, &over)));
            found = mapper.join().expect("calls do not fail");
            if let Some((readings, bytes, time)) = reader.map(|reader| reader.join().expect("reading does not fail")) {
                found.readings = readings;
                found.bytes = bytes / readings;
                found.reading = time / u32::try_from(readings).unwrap_or(u32::MAX);
            }
        });
        target.run(0, || target.unmap(BASE, self.pages * PAGE));
        found
    }

    fn remap(self, target: &impl Target, ready: &Barrier, over: &AtomicBool) -> Latencies {
        let mut dice = fastrand::Rng::with_seed(self.seed);
        let (mut mmap, mut munmap) = (Vec::with_capacity(self.calls as usize), Vec::with_capacity(self.calls as usize));
        clock::pin(0);
        ready.wait();
        let before = target.events();
        for _ in 0..self.calls {
            let (maps, time) = self.call(target, &mut dice);
            if maps { &mut mmap } else { &mut munmap }.push(time);
        }
        let counts = target.events().since(before).counts;
        // Relaxed: nothing but the end is told.
        over.store(true, Ordering::Relaxed);
        Latencies {
            mmap: Latency::of(mmap),
            munmap: Latency::of(munmap),
            changes: counts.changes,
            faults: counts.faults,
            ..Latencies::default()
        }
    }

    /// A call: whether it maps, and how long it took.
    fn call(self, target: &impl Target, dice: &mut fastrand::Rng) -> (bool, Duration) {
        let (at, maps) = (BASE + dice.u64(0..self.pages) * PAGE, dice.bool());
        let since = Instant::now();
        match maps {
            true => target.map_over(at, PAGE),
            false => target.unmap(at, PAGE),
        }
        (maps, since.elapsed())
    }

    /// How often everything was read, how many bytes that was, and the time of the thread.
    fn read(self, target: &impl Target, ready: &Barrier, over: &AtomicBool) -> (u64, u64, Duration) {
        let (mut text, mut readings, mut bytes) = (String::new(), 0, 0);
        let mut watch = clock::Stopwatch::new();
        clock::pin(1);
        ready.wait();
        watch.start();
        while readings == 0 || !over.load(Ordering::Relaxed) {
            readings += 1;
            bytes += match self.reader {
                Reader::Smaps => target.list_with_pages(&mut text),
                _ => target.list(&mut text),
            } as u64;
        }
        watch.stop();
        (readings, bytes, watch.spent())
    }
}
