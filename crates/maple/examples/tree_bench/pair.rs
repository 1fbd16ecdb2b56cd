//! What is measured with two threads, on CPUs 0 and 1.
//!
//! Figures are medians over chunks in which the thread kept its CPU and the other one got on too: on a shared machine the rest
//! is not concurrency. Half of the keys of a reader beside a writer lie in the ranges that the writer splits and merges. A p99 is
//! that of lookups timed one by one, at the price of the timing (about 20 ns).

use crate::clock;
use crate::contender::Shared;
use crate::layout::{Asked, KEYS, Random, Range, World};
use crate::report::{Row, Unit, median};
use hdrhistogram::Histogram;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::JoinHandle;
use std::time::Duration;

/// Who runs beside the reader that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    Nobody,
    Reader,
    /// Splits and merges as fast as it can.
    Writer,
    /// A split and a merge every 20 us.
    PacedWriter,
}

const PACE_NS: f64 = 20_000.0;
/// Lookups in a chunk: 16 times 64, each 64 followed by one that is timed by itself.
const RUNS: usize = 16;
const RUN: usize = 64;

const fn row(name: &'static str, unit: Unit) -> Row {
    Row { name, unit, threads: 2 }
}

impl Beside {
    pub fn rows(self) -> &'static [Row] {
        match self {
            Beside::Nobody => const { &[Row { name: "reader alone", unit: Unit::Ns, threads: 1 }] },
            Beside::Reader => const { &[row("2 readers, each", Unit::Ns)] },
            Beside::Writer => {
                const {
                    &[
                        row("reader beside writer", Unit::Ns),
                        row("reader beside writer, p99", Unit::Ns),
                        row("writer beside reader", Unit::Ns),
                        row("holes beside writer", Unit::Count),
                    ]
                }
            }
            Beside::PacedWriter => {
                const {
                    &[
                        row("reader beside paced", Unit::Ns),
                        row("reader beside paced, p99", Unit::Ns),
                        row("paced beside reader", Unit::Ns),
                        row("holes beside paced", Unit::Count),
                    ]
                }
            }
        }
    }

    fn is_writer(self) -> bool {
        matches!(self, Beside::Writer | Beside::PacedWriter)
    }
}

/// A counter in lines of its own.
#[repr(align(128))]
struct Progress(AtomicU64);

/// What the two threads know of each other.
struct Table {
    progress: [Progress; 2],
    begin: Barrier,
    over: AtomicBool,
}

impl Table {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn of(&self, cpu: usize) -> u64 {
        self.progress[cpu].0.load(Ordering::Relaxed)
    }

    /// This thread is the only one that writes its counter.
    fn advance(&self, cpu: usize, by: u64) {
        self.progress[cpu].0.store(self.of(cpu) + by, Ordering::Relaxed);
    }
}

/// What a reader saw.
struct Seen {
    chunks: Vec<f64>,
    singles: Histogram<u64>,
    holes: u64,
}

/// One round: a figure for each of `beside`'s rows. NaN: there was no such chunk, the thread starved.
pub fn run<T: Shared>(map: &T, beside: Beside, world: &World, time: Duration, ticks_per_ns: f64) -> Vec<f64> {
    let threads = if beside == Beside::Nobody { 1 } else { 2 };
    let table = Arc::new(Table {
        progress: [const { Progress(AtomicU64::new(0)) }; 2],
        begin: Barrier::new(threads + 1),
        over: AtomicBool::new(false),
    });
    let asked = Arc::new(if beside.is_writer() { world.asked_of_victims.clone() } else { world.asked.clone() });
    // Who copies everything has no time for even one write while the reader fills a chunk.
    let need = match beside {
        Beside::Nobody => 0,
        Beside::Reader => (RUNS * RUN / 2) as u64,
        Beside::Writer | Beside::PacedWriter => u64::from(!T::COPIES_ALL),
    };
    let read = |cpu| reader(map.clone(), cpu, Arc::clone(&table), Arc::clone(&asked), need);
    let mine = read(0);
    let other = (beside == Beside::Reader).then(|| read(1));
    let writer = beside.is_writer().then(|| {
        let pace = if beside == Beside::PacedWriter { PACE_NS * ticks_per_ns } else { 0.0 };
        writer(map.clone(), Arc::clone(&table), world.victims.clone(), pace as u64, !T::COPIES_ALL)
    });
    table.begin.wait();
    std::thread::sleep(time);
    table.over.store(true, Ordering::Relaxed);
    let mut seen = mine.join().expect("the reader does not panic");
    seen.chunks.extend(other.into_iter().flat_map(|other| other.join().expect("the reader does not panic").chunks));
    let ns = |ticks: Vec<f64>| median(ticks) / ticks_per_ns;
    match writer {
        None => vec![ns(seen.chunks)],
        Some(writer) => {
            let p99 = match seen.singles.len() {
                0 => f64::NAN,
                _ => seen.singles.value_at_quantile(0.99) as f64 / ticks_per_ns,
            };
            let written = writer.join().expect("the writer does not panic");
            vec![ns(seen.chunks), p99, ns(written), seen.holes as f64]
        }
    }
}

/// Counts the chunks that are worth something: the thread kept its CPU, and the other one advanced by `need`.
struct Chunk<'t> {
    table: &'t Table,
    other: usize,
    need: u64,
    others: u64,
    preemptions: i64,
}

impl<'t> Chunk<'t> {
    fn first(table: &'t Table, cpu: usize, need: u64) -> Self {
        Self { table, other: 1 - cpu, need, others: table.of(1 - cpu), preemptions: clock::preemptions() }
    }

    fn was_shared(&mut self) -> bool {
        let preemptions = clock::preemptions();
        let kept_cpu = std::mem::replace(&mut self.preemptions, preemptions) == preemptions;
        kept_cpu && self.table.of(self.other) - self.others >= self.need
    }

    fn begin(&mut self) -> u64 {
        self.others = self.table.of(self.other);
        clock::ticks()
    }
}

fn reader<T: Shared>(map: T, cpu: usize, table: Arc<Table>, asked: Arc<Vec<Asked>>, need: u64) -> JoinHandle<Seen> {
    std::thread::spawn(move || {
        clock::pin_to_cpu(cpu);
        let mut seen = Seen { chunks: vec![], singles: Histogram::new(3).expect("three digits are allowed"), holes: 0 };
        let mut at = 0;
        table.begin.wait();
        let mut chunk = Chunk::first(&table, cpu, need);
        while !table.is_over() {
            let mut singles = [0; RUNS];
            let begin = chunk.begin();
            for single in &mut singles {
                for _ in 0..RUN {
                    seen.holes += u64::from(is_hole(&map, asked[at % KEYS]));
                    at += 1;
                }
                let begin = clock::ticks();
                black_box(map.lookup(asked[at % KEYS].0));
                *single = clock::ticks() - begin;
                at += 1;
            }
            let ticks = clock::ticks() - begin - singles.iter().sum::<u64>();
            table.advance(cpu, (RUNS * RUN) as u64);
            if chunk.was_shared() {
                seen.chunks.push(ticks as f64 / (RUNS * RUN) as f64);
                for single in singles {
                    seen.singles.record(single).expect("the histogram grows");
                }
            }
        }
        seen
    })
}

/// Whether a key that is always mapped was not found, or with a value that it never had.
fn is_hole<T: Shared>(map: &T, (key, value): Asked) -> bool {
    map.lookup(key).unwrap_or(0) | 1 != value | 1
}

/// `pace` in ticks, 0 for as fast as it can. Returns ticks per split or merge.
fn writer<T: Shared>(mut map: T, table: Arc<Table>, victims: Vec<Range>, pace: u64, needs_reader: bool) -> JoinHandle<Vec<f64>> {
    std::thread::spawn(move || {
        clock::pin_to_cpu(1);
        let pairs = if pace == 0 { 32 } else { 1 };
        let mut random = Random::new(31);
        let mut chunks = vec![];
        table.begin.wait();
        let mut chunk = Chunk::first(&table, 1, u64::from(needs_reader && pace == 0));
        let mut due = clock::ticks();
        while !table.is_over() {
            while clock::ticks() < due {
                std::hint::spin_loop();
            }
            due += pace;
            let begin = chunk.begin();
            for _ in 0..pairs {
                let range = victims[random.below(victims.len())];
                map.split(range);
                map.merge(range);
                table.advance(1, 2);
            }
            let ticks = clock::ticks() - begin;
            if chunk.was_shared() {
                chunks.push(ticks as f64 / (2 * pairs) as f64);
            }
        }
        chunks
    })
}
