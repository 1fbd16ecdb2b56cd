//! `spile replay`: recorded programs through the designs, checked against what the kernel had.

mod report;

use super::End;
use crate::design::{self, Design};
use crate::output::{self, Table, grouped};
use crate::replay::Report;
use crate::source::{self, Source};
use crate::timeline::Timeline;
use anyhow::{Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::path::PathBuf;
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
}

/// What a design made of a recording.
#[derive(Serialize)]
struct Row {
    trace: String,
    design: &'static str,
    #[serde(flatten)]
    report: Report,
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
    let mut rows = Vec::new();
    let mut recordings = Vec::new();
    for path in &traces {
        let source = source::open(path)?;
        if let Some(torn) = &source.torn {
            eprintln!("{}: {torn}; what comes before it is replayed", path.display());
        }
        let first = rows.len();
        rows.extend(designs.iter().map(|design| row(&source, design)));
        if args.html.is_some() {
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
    let differs = args.check && !tell_differences(&rows);
    let is_torn = rows.iter().any(|row| row.torn.is_some());
    Ok(if differs || is_torn { End::Bad } else { End::Good })
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
    Row { trace: source.name.clone(), design: design.name, report, torn, seconds: start.elapsed().as_secs_f64() }
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
        "no VMA",
        "contended",
        "stale",
        "writes",
        "steps/s",
    ];
    let mut table = output::table(&columns, 2);
    for Row { trace, design, report, seconds, .. } in rows {
        let of = |(all, good): (usize, usize)| format!("{good}/{all}");
        let count = |label| grouped(report.counters.get(label).copied().unwrap_or(0));
        let fast = report.counters.iter().filter(|(label, _)| label.starts_with("fast")).map(|(_, count)| count).sum();
        table.add_row([
            trace.clone(),
            design.to_string(),
            grouped(report.steps as u64),
            of(report.snapshots),
            of(report.lines),
            of(report.calls),
            of(report.faults),
            grouped(fast),
            count("miss_no_vma"),
            count("miss_contended"),
            count("miss_stale"),
            count("writes"),
            grouped((report.steps as f64 / seconds) as u64),
        ]);
    }
    table.note = "Good of all: exit snapshots, mapping by mapping, not merged; lines the kernel wrote after a change; results of calls; faults \
                  allowed. Steps per second are those of one run by the wall clock: no measurement."
        .into();
    table
}

/// Whether nothing differs that must not; else the first difference of each is told.
fn tell_differences(rows: &[Row]) -> bool {
    let bad: Vec<_> = rows.iter().filter(|row| !row.report.agrees()).collect();
    for Row { trace, design, report, .. } in &bad {
        let first = report.differences.first().map_or("and nothing was told".into(), ToString::to_string);
        eprintln!("{trace}, {design}: differs from the kernel: {first}");
    }
    bad.is_empty()
}
