//! Runs the contenders in turns and prints the table: see [`main`](crate).

use crate::contender::{Contender, Shared};
use crate::layout::World;
use crate::ops::Op;
use crate::pair::Beside;
use crate::report::{Results, Row, Unit};
use crate::{clock, holes, memory, musts, ops, ours, pair, peers, report};
use clap::Parser;
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[global_allocator]
static HEAP: memory::Counting = memory::Counting;

/// Measures the range tree beside other maps.
#[derive(Parser)]
struct Arguments {
    /// 1,000 and 10,000 ranges, 3 short rounds
    #[arg(long)]
    quick: bool,
    /// An object a line instead of a table
    #[arg(long)]
    json: bool,
    /// How many ranges
    #[arg(long, value_delimiter = ',')]
    n: Vec<usize>,
    /// This contender alone, by its name in the table
    #[arg(long)]
    only: Option<String>,
    /// Operations whose name contains this, alone
    #[arg(long)]
    op: Option<String>,
    /// Rounds of each operation
    #[arg(long)]
    rounds: Option<usize>,
    /// Hunts for holes in ours for so many seconds
    #[arg(long, value_name = "SECONDS")]
    holes: Option<f64>,
}

/// How much of everything.
struct Effort {
    rounds: usize,
    writes: usize,
    /// For each two-thread round.
    time: Duration,
    ticks_per_ns: f64,
}

/// A contender that can be kept in a list.
trait Seat {
    fn name(&self) -> &'static str;
    /// Builds it and checks it.
    fn fill(&mut self, world: &World);
    fn run(&mut self, op: Op, world: &World, round: usize, effort: &Effort) -> Vec<f64>;
    /// Checks it and drops it.
    fn empty(&mut self, world: &World);
}

type Pair<T> = fn(&T, Beside, &World, Duration, f64) -> Vec<f64>;

struct Place<T> {
    map: T,
    /// Absent where threads cannot share it.
    pair: Option<Pair<T>>,
}

fn alone<T: Contender + 'static>() -> Box<dyn Seat> {
    Box::new(Place { map: T::empty(), pair: None })
}

fn shared<T: Shared>() -> Box<dyn Seat> {
    Box::new(Place { map: T::empty(), pair: Some(pair::run::<T>) })
}

impl<T: Contender> Seat for Place<T> {
    fn name(&self) -> &'static str {
        T::NAME
    }

    fn fill(&mut self, world: &World) {
        self.map = T::build(&world.shuffled);
        ops::check(&self.map, world);
    }

    fn run(&mut self, op: Op, world: &World, round: usize, effort: &Effort) -> Vec<f64> {
        match (op, self.pair) {
            (Op::Pair(beside), Some(pair)) => pair(&self.map, beside, world, effort.time, effort.ticks_per_ns),
            (Op::Pair(_), None) => vec![],
            _ => ops::run(&mut self.map, op, world, round, effort.writes),
        }
    }

    fn empty(&mut self, world: &World) {
        ops::check(&self.map, world);
        self.map = T::empty();
    }
}

fn contenders() -> Vec<Box<dyn Seat>> {
    vec![
        shared::<ours::OurTree>(),
        alone::<ours::OurOwnedTree>(),
        shared::<ours::OurMap>(),
        alone::<peers::BTree>(),
        shared::<peers::LockedBTree>(),
        shared::<peers::LockedRangeMap>(),
        shared::<peers::Concurrent>(),
        shared::<peers::Skip>(),
        shared::<peers::Index>(),
        shared::<peers::Floor>(),
    ]
}

/// All rounds of one operation, the contenders taking turns.
fn measure(seats: &mut [Box<dyn Seat>], op: Op, world: &World, effort: &Effort, results: &mut Results) {
    let rounds = if op.is_exact() { 1 } else { effort.rounds };
    for round in 0..rounds {
        for seat in &mut *seats {
            let figures = seat.run(op, world, round, effort);
            let rows = op.rows().iter().zip(figures).filter(|(row, figure)| row.unit != Unit::Bytes || !figure.is_nan());
            rows.for_each(|(row, figure)| results.add(*row, world.n(), seat.name(), figure));
        }
    }
}

fn measure_all(seats: &mut [Box<dyn Seat>], ops: &[Op], n: usize, effort: &Effort, results: &mut Results) {
    let world = World::new(n);
    let begin = Instant::now();
    seats.iter_mut().for_each(|seat| seat.fill(&world));
    let has_pairs = ops.iter().any(|op| matches!(op, Op::Pair(_)));
    let hand_over = |row, results: &mut Results| {
        if has_pairs {
            results.add(Row { name: row, unit: Unit::Ns, threads: 2 }, n, report::OURS, clock::hand_over(effort.ticks_per_ns));
        }
    };
    let mut has_paired = false;
    for &op in ops {
        if matches!(op, Op::Pair(_)) && !std::mem::replace(&mut has_paired, true) {
            hand_over("cache line hand-over, before", results);
        }
        eprintln!("{:6.1} s  n = {n}: {}", begin.elapsed().as_secs_f64(), op.rows()[0].name);
        measure(seats, op, &world, effort, results);
    }
    hand_over("cache line hand-over, after", results);
    seats.iter_mut().for_each(|seat| seat.empty(&world));
}

fn hunt(seconds: f64, n: usize) -> ExitCode {
    let bag = holes::hunt(n, Duration::from_secs_f64(seconds));
    println!("n = {n}: {} lookups beside {} writes: {} holes", bag.lookups, bag.writes, bag.holes);
    if bag.holes == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Arguments {
    fn sizes(&self) -> Vec<usize> {
        match (self.quick, self.n.is_empty()) {
            (_, false) => self.n.clone(),
            (true, true) => vec![1_000, 10_000],
            (false, true) => vec![100, 1_000, 10_000, 100_000, 1_000_000],
        }
    }

    fn effort(&self) -> Effort {
        let (rounds, writes, time) = if self.quick { (3, 5_000, 30) } else { (5, 20_000, 80) };
        Effort {
            rounds: self.rounds.unwrap_or(rounds),
            writes,
            time: Duration::from_millis(time),
            ticks_per_ns: clock::ticks_per_ns(),
        }
    }

    fn ops(&self) -> Vec<Op> {
        let part = self.op.as_deref().unwrap_or("");
        ops::ALL.iter().copied().filter(|op| op.rows().iter().any(|row| row.name.contains(part))).collect()
    }

    fn seats(&self) -> Result<Vec<Box<dyn Seat>>, String> {
        let mut seats = contenders();
        let Some(only) = &self.only else { return Ok(seats) };
        let names: Vec<_> = seats.iter().map(|seat| seat.name()).collect();
        seats.retain(|seat| seat.name() == only);
        if seats.is_empty() { Err(format!("--only {only}: there are {names:?}")) } else { Ok(seats) }
    }
}

fn refuse(why: &str) -> ExitCode {
    eprintln!("{why}");
    ExitCode::from(2)
}

/// The whole program.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.n.iter().any(|&n| n < 64) {
        return refuse("--n: 64 ranges are the least");
    }
    if let Some(seconds) = arguments.holes {
        return hunt(seconds, arguments.n.first().copied().unwrap_or(1000));
    }
    let mut seats = match arguments.seats() {
        Ok(seats) => seats,
        Err(why) => return refuse(&why),
    };
    let (ops, effort) = (arguments.ops(), arguments.effort());
    let mut results = Results::new(seats.iter().map(|seat| seat.name()).collect());
    for n in arguments.sizes() {
        measure_all(&mut seats, &ops, n, &effort, &mut results);
    }
    if arguments.json {
        report::print_json(&results);
        musts::print_aside(&results);
    } else {
        report::print_table(&results);
        musts::print(&results);
    }
    ExitCode::SUCCESS
}
