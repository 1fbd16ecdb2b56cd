//! `spile replay --memory`: recorded programs with less memory than they want.

use super::bar;
use crate::design::Design;
use crate::output::{Table, grouped, table};
use crate::replay::{Report, Squeezed};
use crate::source::Source;
use serde::Serialize;
use std::time::Instant;

/// What a design made of a recording.
#[derive(Serialize)]
pub(super) struct Row {
    trace: String,
    design: &'static str,
    /// Frames for pages, of those that it wanted.
    frames: usize,
    wanted: usize,
    /// Pages written to slots, and read from there.
    out: u64,
    back: u64,
    /// Whether it is as the kernel had it, and nothing was refused for want of memory.
    pub(super) agrees: bool,
    seconds: f64,
    #[serde(flatten)]
    report: Report,
}

pub(super) fn row(source: &Source, design: &Design, percent: u8, seed: u64) -> Row {
    let bar = bar(source, design.name);
    let start = Instant::now();
    let squeezed = (design.squeezed)(&source.steps, percent.into(), seed, &mut |done| bar.set_position(done as u64));
    bar.finish_and_clear();
    let agrees = squeezed.agrees();
    let Squeezed { report, wanted, frames, swapped, .. } = squeezed;
    Row {
        trace: source.name.clone(),
        design: design.name,
        frames,
        wanted: wanted.most_pages,
        out: swapped.out,
        back: swapped.back,
        agrees,
        seconds: start.elapsed().as_secs_f64(),
        report,
    }
}

impl Row {
    /// Who it is, and what differs first.
    pub(super) fn difference(&self) -> (String, String) {
        (format!("{}, {}", self.trace, self.design), self.report.first_difference())
    }
}

pub(super) fn rows_table(rows: &[Row]) -> Table {
    let columns = [
        "trace",
        "design",
        "steps",
        "snapshots",
        "results",
        "faults",
        "missed",
        "fallbacks",
        "frames",
        "of pages",
        "out",
        "back",
        "seconds",
    ];
    let mut table = table(&columns, 2);
    for Row { trace, design, frames, wanted, out, back, seconds, report, .. } in rows {
        let of = |(all, good): (usize, usize)| format!("{good}/{all}");
        let all = |prefix: &str| {
            let counts = report.counters.iter().filter(|(label, _)| label.starts_with(prefix));
            grouped(counts.map(|(_, count)| count).sum())
        };
        table.add_row([
            trace.clone(),
            design.to_string(),
            grouped(report.steps as u64),
            of(report.snapshots),
            of(report.calls),
            of(report.faults),
            all("miss"),
            all("fallbacks"),
            grouped(*frames as u64),
            grouped(*wanted as u64),
            grouped(*out),
            grouped(*back),
            format!("{seconds:.1}"),
        ]);
    }
    table.note = "Good of all: exit snapshots, mapping by mapping; results of calls; faults allowed. Missed: faults that left the fast way; fallbacks: those that took the slow one. \
                  Frames: for pages, of those that it had in memory at most with as much as it wanted. Out and back: pages written to swap slots, and read from there; \
                  those of files that were not written come from where they came from. Seconds: of both runs on a simulated machine, no measurement."
        .into();
    table
}
