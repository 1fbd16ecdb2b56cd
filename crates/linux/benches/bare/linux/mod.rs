//! The bench: contenders and prices in turns, round by round.

#[path = "../../../tests/common/mod.rs"]
mod common;

mod apart;
mod bed;
mod file;
mod handler;
mod here;
mod kernel;
mod leaving;
mod on_thread;
mod on_thread_copy;
mod on_thread_shared;
mod pager;
mod prices;
mod process;
mod report;
mod ring;
mod showing;
mod work;

use clap::Parser;
use file::File;
use prices::Trip;
use report::{Played, Price, Report};
use serde_json::json;
use spile_linux::{Ability, Engine, probe};
use std::path::PathBuf;
use std::process::{ExitCode, exit};
use std::sync::atomic::Ordering::Relaxed;
use work::{Ahead, CONTENDERS, Sample, WORKS, Work};

/// Pages of a file in memory, and of one that is not: the second has to be waited for.
const PAGES: [u64; 2] = [16_384, 2_048];

/// What a pager is measured against.
#[derive(Parser)]
struct Options {
    /// JSON instead of tables
    #[arg(long)]
    json: bool,
    /// Rounds of each contender
    #[arg(long, default_value_t = 13)]
    rounds: usize,
    /// Rounds of each price
    #[arg(long, default_value_t = 7)]
    price_rounds: usize,
    /// A directory of a tmpfs
    #[arg(long, default_value = "/dev/shm")]
    memory: PathBuf,
    /// A directory of a disk
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    disk: PathBuf,
    /// Only contenders of whose names this is a part, or that; and no prices
    #[arg(long)]
    only: Vec<String>,
    /// Only work of whose names this is a part, or that: "random", "write, disk"
    #[arg(long)]
    work: Vec<String>,
    /// Only so many threads: 1, or 2
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=2))]
    threads: Option<u64>,
    /// What cargo says
    #[arg(long, hide = true)]
    bench: bool,
}

/// Whether `name` has one of these parts, if there are any.
fn is_asked_for(parts: &[String], name: &str) -> bool {
    parts.is_empty() || parts.iter().any(|part| name.contains(part.as_str()))
}

/// Why it cannot be measured here.
fn skipped(options: &Options, why: &str) -> ExitCode {
    if options.json {
        println!("{:#}", json!({ "skipped": why }));
    } else {
        println!("skipped: {why}");
    }
    ExitCode::SUCCESS
}

pub fn run() -> ExitCode {
    let options = Options::parse();
    let probed = probe();
    let kernel = probed.kernel.clone();
    for ability in [Ability::Poison, Ability::Continue] {
        if let Some(why) = probed.why_not(ability) {
            return skipped(&options, &format!("{} is missing: {why}", ability.name()));
        }
    }
    match probed.engine {
        Ok(Engine::Move) => {}
        Ok(_) => {
            let why =
                probed.passed_over().map(|(_, ability, why)| format!("{} is missing: {why}", ability.name())).collect::<Vec<_>>();
            return skipped(&options, &why.join("; "));
        }
        Err(refused) => return skipped(&options, &refused.to_string()),
    }
    // A thread that found a wrong byte does not come to where the others wait.
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        told(panic);
        exit(101);
    }));
    match measure(&options, kernel) {
        Ok(report) if options.json => println!("{:#}", report.json()),
        Ok(report) => report.print(),
        Err(why) => return skipped(&options, &why.to_string()),
    }
    ExitCode::SUCCESS
}

fn measure(options: &Options, kernel: String) -> std::io::Result<Report> {
    let [memory, disk] = [(&options.memory, PAGES[0]), (&options.disk, PAGES[1])].map(|(path, pages)| File::new(path, pages));
    let (memory, disk) = (memory?, disk?);
    // This order: the bare pagers hand on what is not theirs.
    pager::lead();
    here::lead();
    let mut host = host(kernel, &memory, &disk);
    let played = play(options, &memory, &disk);
    host.push((
        "pinned",
        format!("{} moves were made again, because the page was not let go of yet", on_thread::PINNED.load(Relaxed)),
    ));
    if !process::Itself::can_drop_pages() {
        host.push((
            "skipped",
            format!(
                "{}, and their call: process_madvise of a process's own pages is missing (Linux 6.13)",
                CONTENDERS[work::NEED_DROPS].join("; ")
            ),
        ));
    }
    if !options.only.is_empty() {
        return Ok(Report { host, rounds: options.rounds, played, prices: Vec::new(), ways: Vec::new() });
    }
    process::install(prices::on_signal);
    let mut prices = price(options, prices::TRIPS_OF_CALLS, &memory);
    prices.extend(report::signal_alone(&prices));
    let mut ways = price(options, showing::WAYS, &memory);
    ways.extend(showing::WAYS.iter().filter_map(|way| report::whole(way, &ways)).collect::<Vec<_>>());
    Ok(Report { host, rounds: options.rounds, played, prices, ways })
}

fn host(kernel: String, memory: &File, disk: &File) -> Vec<(&'static str, String)> {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name| info.lines().find(|line| line.starts_with(name))?.split_once(": ").map(|(_, value)| value.to_string());
    let cpus = std::thread::available_parallelism().map_or(1, Into::into);
    let file = |file: &File| {
        let kind = if file.is_tmpfs { "tmpfs" } else { "not tmpfs" };
        let way = if file.is_direct { "with" } else { "without" };
        format!("{} KiB, {kind}, pagers read and write it {way} O_DIRECT", file.pages * 4)
    };
    vec![
        ("kernel", format!("Linux {kernel}")),
        ("CPU", format!("{}, {cpus} of them", field("model name").unwrap_or_else(|| "unknown".into()))),
        ("memory", file(memory)),
        ("disk", file(disk)),
        ("load", std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().into()),
    ]
}

fn play(options: &Options, memory: &File, disk: &File) -> Vec<Played> {
    let can_drop = process::Itself::can_drop_pages();
    let is_possible =
        move |which: &usize| (!work::NEED_DROPS.contains(which) || can_drop) && is_asked_for(&options.only, CONTENDERS[*which]);
    let mut played = Vec::new();
    for (place, file) in [("memory", memory), ("disk", disk)] {
        let mut rounds: Vec<_> = WORKS
            .iter()
            .filter(|work| is_asked_for(&options.work, &report::of(work.name, place)))
            .flat_map(|work| {
                let is_able = move |which: &usize| work.ahead == Ahead::No || work::CAN_PREFETCH.contains(which);
                let which = (0..CONTENDERS.len()).filter(is_possible).filter(is_able);
                which.map(move |which| (work, which, [Vec::new(), Vec::new()]))
            })
            .collect();
        for _ in 0..options.rounds {
            for (work, which, rounds) in &mut rounds {
                (1..).zip(rounds).filter(|(threads, _)| options.threads.is_none_or(|only| only == *threads)).for_each(
                    |(threads, rounds)| {
                        rounds.push(work::play(file, work, *which, threads));
                    },
                );
            }
        }
        let told = |(work, which, rounds): (&Work, usize, [Vec<Vec<Sample>>; 2])| {
            let rounds = rounds.map(|rounds| work::undisturbed(&rounds));
            Played { place, work: work.name, contender: CONTENDERS[which], rounds }
        };
        played.extend(rounds.into_iter().map(told));
    }
    played
}

fn price(options: &Options, trips: &[Trip], file: &File) -> Vec<Price> {
    let cells = |trip: &Trip| {
        [1, 2].into_iter().flat_map(|threads| trip.batches.iter().map(move |&batch| (threads, batch, Vec::new()))).collect()
    };
    let of_trip = |trip: &Trip| trip.steps.iter().map(|step| Price { name: (*step).into(), cells: cells(trip) }).collect();
    let mut prices: Vec<Vec<Price>> = trips.iter().map(of_trip).collect();
    for _ in 0..options.price_rounds {
        for (trip, steps) in trips.iter().zip(&mut prices) {
            for nth in 0..steps[0].cells.len() {
                let (threads, batch, _) = steps[0].cells[nth];
                let medians = prices::round(file, trip, batch, threads);
                steps.iter_mut().zip(medians).for_each(|(step, median)| step.cells[nth].2.extend(median));
            }
        }
    }
    prices.into_iter().flatten().collect()
}
