//! `spile replay`: recorded programs through the designs, checked against what the kernel had.

mod concurrent;
mod report;
mod squeezed;

use super::End;
use crate::concurrent::WINDOW;
use crate::design::{self, Design};
use crate::interrupt;
use crate::output::{self, Table, grouped};
use crate::replay::{Fullest, Report};
use crate::source::{self, Source};
use crate::timeline::Timeline;
use anyhow::{Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;

#[derive(clap::Args, Debug)]
/// Recorded programs through each design, checked against the kernel's own snapshots
pub struct Args {
    /// Recordings; the bundled ones if there are none
    traces: Vec<PathBuf>,
    /// The designs: names with commas between, or all
    #[arg(long, value_delimiter = ',', default_value = design::USUAL)]
    design: Vec<String>,
    /// Fails, and says where, if a snapshot or a result differs, or too many of the kernel's lines do
    #[arg(long)]
    check: bool,
    /// An array of objects instead of a table
    #[arg(long)]
    json: bool,
    /// Also a report: one HTML file with tables and charts
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// With frames for so many per cent of the pages that each recording wants: the others are in swap slots. Pages are used again besides, by the seed
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100), conflicts_with_all = ["concurrent", "html"])]
    memory: Option<u8>,
    /// Threads beside each other, on simulated CPUs under a seeded schedule: how many cache lines faults and changes move
    #[arg(long)]
    concurrent: bool,
    /// How many CPUs: numbers with commas between
    #[arg(long, value_delimiter = ',', default_value = "2", requires = "concurrent")]
    cpus: Vec<usize>,
    /// On threads of this computer, and not on simulated CPUs
    #[arg(long, requires = "concurrent")]
    on_threads: bool,
    /// Where mappings are put
    #[arg(long, value_enum, default_value = "recorded", requires = "concurrent")]
    placement: Placement,
    /// The first seed: of schedules, or of what is used again
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many seeds
    #[arg(long, default_value_t = 1, requires = "concurrent")]
    seeds: u64,
    /// How far a step may come before its time, in steps of the recording for each CPU
    #[arg(long, default_value_t = WINDOW, requires = "concurrent")]
    window: usize,
}

/// Where mappings are put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Placement {
    /// Where the kernel put them: what there is at the end can be compared mapping by mapping.
    Recorded,
    /// Anew: threads that used the same addresses one after the other can go beside each other.
    Free,
}

/// What a design made of a recording.
#[derive(Serialize)]
struct Row {
    trace: String,
    design: &'static str,
    #[serde(flatten)]
    report: Report,
    /// Faults for which the recorded kernel took the lock of an address space.
    kernel_faults_with_lock: u64,
    /// Where the recording is torn, if it is.
    torn: Option<String>,
    seconds: f64,
}

/// # Errors
///
/// A recording cannot be read, a design is not known, or the report cannot be written.
pub fn run(args: &Args) -> Result<End> {
    let designs = design::chosen(&args.design)?;
    ensure!(!designs.is_empty(), "no design was named");
    let traces = if args.traces.is_empty() { source::bundled() } else { args.traces.clone() };
    args.html.as_deref().map(crate::report::probe).transpose()?;
    interrupt::keep_what_is_done();
    let good = match args.memory {
        _ if args.concurrent => beside_each_other(args, &traces, &designs)?,
        Some(percent) => with_less(args, percent, &traces, &designs)?,
        None => in_order(args, &traces, &designs)?,
    };
    Ok(if good && !interrupt::is_asked() { End::Good } else { End::Bad })
}

fn opened(path: &Path) -> Result<Source> {
    let source = source::open(path)?;
    if let Some(torn) = &source.torn {
        eprintln!("{}: {torn}; what comes before it is replayed", path.display());
    }
    Ok(source)
}

/// Whether nothing is torn, and nothing differs or nobody asked.
fn in_order(args: &Args, traces: &[PathBuf], designs: &[&'static Design]) -> Result<bool> {
    let mut rows = Vec::new();
    let mut recordings = Vec::new();
    for path in traces {
        source::probe(path)?;
    }
    // One after the other: the large ones take room.
    for path in traces.iter().take_while(|_| !interrupt::is_asked()) {
        let source = opened(path)?;
        let first = rows.len();
        rows.extend(designs.iter().take_while(|_| !interrupt::is_asked()).map(|design| row(&source, design)));
        if args.html.is_some() && rows.len() > first {
            recordings.push((first..rows.len(), timeline(&source)));
        }
    }
    match args.json {
        true => output::json(&rows)?,
        false => println!("{}", table(&rows)),
    }
    if let Some(path) = &args.html {
        report::report(&rows, &recordings).write(path)?;
    }
    let bad = rows.iter().filter(|row| !row.report.agrees());
    let good = !args.check || tell_differences(bad.map(Row::difference));
    Ok(good && rows.iter().all(|row| row.torn.is_none()))
}

/// The same.
fn with_less(args: &Args, percent: u8, traces: &[PathBuf], designs: &[&'static Design]) -> Result<bool> {
    let mut rows = Vec::new();
    for path in traces.iter().take_while(|_| !interrupt::is_asked()) {
        let source = opened(path)?;
        let one = |design: &&'static Design| squeezed::row(&source, design, percent, args.seed);
        rows.extend(designs.iter().take_while(|_| !interrupt::is_asked()).map(one));
    }
    match args.json {
        true => output::json(&rows)?,
        false => println!("{}", squeezed::rows_table(&rows)),
    }
    // Memory that is refused, or a page that is lost, is no result, asked for or not.
    Ok(tell_differences(rows.iter().filter(|row| !row.agrees).map(squeezed::Row::difference)))
}

/// The same.
fn beside_each_other(args: &Args, traces: &[PathBuf], designs: &[&'static Design]) -> Result<bool> {
    let sources = traces.iter().map(|path| opened(path)).collect::<Result<Vec<_>>>()?;
    let rows = concurrent::rows(args, &sources, designs)?;
    match args.json {
        true => output::json(&rows)?,
        false => println!("{}", concurrent::rows_table(&rows)),
    }
    if let Some(path) = &args.html {
        concurrent::report(&rows).write(path)?;
    }
    let bad = rows.iter().filter(|row| !row.agrees());
    // A schedule that did not come to its end is no result, asked for or not.
    let bad = bad.filter(|row| args.check || row.found.failure.is_some());
    let good = tell_differences(bad.map(|row| (row.name(), row.first_difference())));
    Ok(good && sources.iter().all(|source| source.torn.is_none()))
}

/// Whether there are none; the first of each is told.
pub(super) fn tell_differences(bad: impl Iterator<Item = (String, String)>) -> bool {
    bad.inspect(|(who, what)| eprintln!("{who}: {what}")).count() == 0
}

/// How far a recording is.
fn bar(source: &Source, what: &str) -> ProgressBar {
    let style = "{msg:30} {wide_bar} {pos}/{len} steps, {per_sec}, {eta} left";
    let bar = ProgressBar::new(source.steps.len() as u64).with_style(ProgressStyle::with_template(style).expect("a template"));
    bar.set_message(format!("{} {what}", source.name));
    bar
}

fn timeline(source: &Source) -> Timeline {
    let bar = bar(source, "over time");
    let timeline = Timeline::recorded(&source.steps, report::MOMENTS, &mut |done| bar.set_position(done as u64));
    bar.finish_and_clear();
    timeline
}

fn row(source: &Source, design: &Design) -> Row {
    let bar = bar(source, design.name);
    let start = Instant::now();
    let report = (design.replay)(&source.steps, &mut |done| bar.set_position(done as u64));
    bar.finish_and_clear();
    let torn = source.torn.as_ref().map(ToString::to_string);
    let kernel_faults_with_lock = source.kernel.faults_with_lock;
    Row {
        trace: source.name.clone(),
        design: design.name,
        report,
        kernel_faults_with_lock,
        torn,
        seconds: start.elapsed().as_secs_f64(),
    }
}

impl Row {
    /// Who it is, and what differs first.
    fn difference(&self) -> (String, String) {
        (format!("{}, {}", self.trace, self.design), self.report.first_difference())
    }
}

fn table(rows: &[Row]) -> Table {
    let columns = [
        "trace",
        "design",
        "steps",
        "snapshots",
        "V lines",
        "results",
        "faults",
        "fast",
        "missed",
        "kernel's\nwith lock",
        "writes",
        "flushes",
        "mappings\nat most",
        "bytes\neach",
        "levels",
        "steps/s",
    ];
    let mut table = output::table(&columns, 2);
    for Row { trace, design, report, kernel_faults_with_lock, seconds, .. } in rows {
        let of = |(all, good): (usize, usize)| format!("{good}/{all}");
        let count = |label| grouped(report.counters.get(label).copied().unwrap_or(0));
        let all =
            |prefix| grouped(report.counters.iter().filter(|(label, _)| label.starts_with(prefix)).map(|(_, count)| count).sum());
        let of_fullest = |figure: fn(&Fullest) -> Option<usize>| {
            report.fullest.as_ref().and_then(figure).map_or("-".into(), |figure| grouped(figure as u64))
        };
        table.add_row([
            trace.clone(),
            design.to_string(),
            grouped(report.steps as u64),
            of(report.snapshots),
            of(report.lines),
            of(report.calls),
            of(report.faults),
            all("fast"),
            all("miss"),
            grouped(*kernel_faults_with_lock),
            count("writes"),
            grouped(report.flushes),
            of_fullest(|full| Some(full.mappings)),
            of_fullest(|full| Some(full.bytes / full.mappings.max(1))),
            of_fullest(|full| full.height),
            grouped((report.steps as f64 / seconds) as u64),
        ]);
    }
    table.note = "Good of all: exit snapshots, mapping by mapping, not merged; lines the kernel wrote after a change; results of calls; faults \
                  allowed. Missed: faults that left the fast way; beside it those for which the recorded kernel took the lock. Bytes: of a mapping and its index, with the nodes that it keeps for changes and those that readers may still be in. Levels: of the highest index then, as far as it tells. Steps per second are those of one run by the wall clock: no measurement."
        .into();
    table
}
