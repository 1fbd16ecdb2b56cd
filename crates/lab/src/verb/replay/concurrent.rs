//! `spile replay --concurrent`: the threads of recorded programs on several CPUs at once.

use super::{Args, Placement};
use crate::concurrent::{Cost, Costs, Footprints, Found, Plan, as_recorded, freely};
use crate::design::Design;
use crate::output::{Table, grouped, table};
use crate::parts::{CORE, TABLE};
use crate::report::chart::bars::{Bars, Form};
use crate::report::chart::{Axis, Chart, Plot};
use crate::report::{self, Section};
use crate::source::Source;
use crate::{interrupt, jobs};
use anyhow::{Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// What a design made of a recording on so many CPUs, all seeds together.
#[derive(Serialize)]
pub(super) struct Row {
    trace: String,
    cpus: usize,
    design: &'static str,
    placement: Placement,
    /// Seeds of the schedule that were run; 0 on threads of the host.
    seeds: u64,
    /// Where the recording is torn, if it is.
    torn: Option<String>,
    /// Those of the recorded kernel for which it took the lock of the address space.
    kernel_faults_with_lock: u64,
    #[serde(flatten)]
    pub(super) found: Found,
}

/// A row to be.
struct Job<'s> {
    source: &'s Source,
    plan: &'s Plan<'s>,
    design: &'static Design,
}

impl Row {
    /// Whether nothing differs that must not.
    pub(super) fn agrees(&self) -> bool {
        self.found.agrees()
    }

    /// What differs first.
    pub(super) fn first_difference(&self) -> String {
        self.found.first_difference()
    }

    pub(super) fn name(&self) -> String {
        format!("{}, {} CPUs, {}", self.trace, self.cpus, self.design)
    }

    fn count(&self, label: &str) -> u64 {
        self.found.report.counters.get(label).copied().unwrap_or(0)
    }
}

/// All rows of these recordings that there was time for.
pub(super) fn rows(args: &Args, sources: &[Source], designs: &[&'static Design]) -> Result<Vec<Row>> {
    ensure!(
        args.on_threads || cfg!(feature = "sched"),
        "simulated CPUs are not in this build; build with `--features sched`, or say --on-threads"
    );
    ensure!(args.cpus.iter().all(|cpus| (1..=128).contains(cpus)), "there can be between 1 and 128 CPUs");
    ensure!(args.window > 0, "in a window of no steps nobody does anything");
    ensure!(args.seeds > 0, "no seed, no schedule");
    let footprints: Vec<_> = sources.iter().map(|source| footprints(source, args.placement)).collect();
    let plan =
        |source: &Source, footprints, cpus: usize| Plan::new(&source.steps, footprints, cpus, args.window.saturating_mul(cpus));
    let of_source = sources.iter().zip(&footprints).flat_map(|pair| args.cpus.iter().map(move |cpus| (pair, *cpus)));
    let plans: Vec<_> = of_source.map(|((source, footprints), cpus)| (source, plan(source, footprints, cpus))).collect();
    let all: Vec<_> =
        plans.iter().flat_map(|(source, plan)| designs.iter().map(move |&design| Job { source, plan, design })).collect();
    let template = "{msg:40} {wide_bar} {pos}/{len}, {elapsed} gone, {eta} left";
    let bar = ProgressBar::new(all.len() as u64).with_style(ProgressStyle::with_template(template).expect("a template"));
    bar.tick();
    let work = |job: &Job<'_>| {
        bar.set_message(format!("{} on {} CPUs, {}", job.source.name, job.plan.cpus(), job.design.name));
        let row = job.row(args);
        bar.inc(1);
        row
    };
    // Threads of the host have all processors, one row after the other.
    let rows: Vec<_> = match args.on_threads {
        true => all.iter().take_while(|_| !interrupt::is_asked()).map(work).collect(),
        false => jobs::each(&all, &interrupt::is_asked, work).into_iter().flatten().collect(),
    };
    bar.finish_and_clear();
    if rows.len() < all.len() {
        eprintln!("ended early: {} of {} rows are there", rows.len(), all.len());
    }
    Ok(rows)
}

fn footprints(source: &Source, placement: Placement) -> Footprints {
    match placement {
        Placement::Recorded => {
            let bar = super::bar(source, "who meets whom");
            let footprints = as_recorded(&source.steps, &mut |done| bar.set_position(done as u64));
            bar.finish_and_clear();
            footprints
        }
        Placement::Free => freely(&source.steps),
    }
}

impl Job<'_> {
    fn row(&self, args: &Args) -> Row {
        let Self { source, plan, design } = self;
        let (found, seeds) =
            if args.on_threads { ((design.threaded)(&source.steps, plan, &|_| ()), 0) } else { self.simulated(args) };
        Row {
            trace: source.name.clone(),
            cpus: plan.cpus(),
            design: design.name,
            placement: args.placement,
            seeds,
            torn: source.torn.as_ref().map(ToString::to_string),
            kernel_faults_with_lock: source.kernel.faults_with_lock,
            found,
        }
    }

    /// All seeds together, and how many there were.
    fn simulated(&self, args: &Args) -> (Found, u64) {
        let mut all = Found::default();
        let mut seeds = 0;
        for seed in args.seed..args.seed.saturating_add(args.seeds) {
            seeds += 1;
            let found = self.design.simulate(&self.source.steps, self.plan, seed);
            let failed = found.failure.is_some();
            all.merge(found);
            if failed || interrupt::is_asked() {
                break;
            }
        }
        (all, seeds)
    }
}

/// Per operation, to two digits.
fn each(amount: u64, of: &Costs) -> String {
    match of.count {
        0 => "-".into(),
        count => format!("{:.2}", amount as f64 / count as f64),
    }
}

/// What a column says.
type Shown = fn(&Found) -> String;

/// The costs that are shown: a column each.
const SHOWN: [(&str, Shown); 6] = [
    ("writes\n/fault", |found| each(found.faults_cost.of(CORE).shared_writes, &found.faults_cost)),
    ("transfers\n/fault", |found| each(found.faults_cost.of(CORE).transfers, &found.faults_cost)),
    ("table's\n/fault", |found| each(found.faults_cost.of(TABLE).transfers, &found.faults_cost)),
    ("writes\n/mmap", |found| each(found.mmap_cost.of(CORE).shared_writes, &found.mmap_cost)),
    ("transfers\n/mmap", |found| each(found.mmap_cost.of(CORE).transfers, &found.mmap_cost)),
    ("transfers\n/change", |found| each(found.change_cost.of(CORE).transfers, &found.change_cost)),
];

/// Counters that are shown.
const COUNTED: [(&str, &[&str]); 6] = [
    ("contended", &["miss_contended"]),
    ("stale", &["miss_stale"]),
    ("raced", &["fast_raced", "slow_raced"]),
    ("waited for\na writer", &["slow_writer"]),
    ("writers\nwaited", &["write_waits"]),
    ("for holds\nor grace", &["hold_waits", "grace_waits"]),
];

pub(super) fn rows_table(rows: &[Row]) -> Table {
    let costs = SHOWN.iter().filter(|_| rows.iter().any(|row| row.seeds > 0));
    let mut columns = vec!["trace", "design", "CPUs", "agrees"];
    columns.extend(costs.clone().map(|(name, _)| *name));
    columns.extend(COUNTED.map(|(name, _)| name));
    columns.push("IPIs");
    let mut table = table(&columns, 2);
    for row in rows {
        let report = &row.found.report;
        let agrees = if row.agrees() { "yes" } else { "NO" };
        let mut cells = vec![row.trace.clone(), row.design.to_string(), row.cpus.to_string(), agrees.to_string()];
        cells.extend(costs.clone().map(|(_, cost)| cost(&row.found)));
        cells.extend(COUNTED.map(|(_, labels)| grouped(labels.iter().map(|label| row.count(label)).sum())));
        cells.push(grouped(report.ipis));
        table.add_row(cells);
    }
    table.note = note(rows);
    table
}

fn note(rows: &[Row]) -> String {
    let mut notes = vec![];
    if let Some(row) = rows.first() {
        notes.push(match row.placement {
            Placement::Recorded => "Everything is mapped where it was recorded, so threads follow each other as they did on two CPUs.",
            Placement::Free => {
                "Every mapping finds its own place, so threads are as much beside each other as the program allows; snapshots are compared in how \
                 much is mapped of each kind."
            }
        });
        if row.seeds > 0 {
            notes.push(
                "Writes to cache lines that another CPU has, and transfers of lines, of the core's atomics (beside them the page's table's), on \
                 simulated CPUs: counts, not times.",
            );
        }
    }
    let mut kernel: Vec<_> = rows.iter().map(|row| (row.trace.as_str(), row.kernel_faults_with_lock)).collect();
    kernel.dedup();
    let kernel: Vec<_> = kernel.into_iter().map(|(trace, count)| format!("{} of {trace}", grouped(count))).collect();
    format!("{} The recorded kernel took the lock of an address space for faults: {}.", notes.join(" "), kernel.join(", "))
}

/// A report of what was found.
pub(super) fn report(rows: &[Row]) -> report::Report {
    let sections = rows.chunk_by(|one, next| one.trace == next.trace).map(|rows| Section {
        heading: rows[0].trace.clone(),
        text: "Threads of a recorded program on several CPUs at once, by each design. What steps have to do with each other is done in the recorded order."
            .into(),
        tables: vec![rows_table(rows)],
        charts: charts(rows),
    });
    report::Report::new("Recorded programs on many CPUs", sections.collect())
}

/// A bar for each design and number of CPUs.
fn compared(rows: &[Row], subject: &str, unit: &str, how: &str, value: impl Fn(&Row) -> Option<f64>) -> Chart {
    let mut cpus: Vec<_> = rows.iter().map(|row| row.cpus).collect();
    cpus.sort_unstable();
    cpus.dedup();
    let mut designs: Vec<_> = rows.iter().map(|row| row.design).collect();
    designs.sort_unstable();
    designs.dedup();
    designs.sort_by_key(|design| rows.iter().position(|row| row.design == *design));
    let of = |design: &str, cpus: usize| rows.iter().find(|row| row.design == design && row.cpus == cpus).and_then(&value);
    let groups: Vec<(String, Vec<_>)> =
        designs.iter().map(|design| (design.to_string(), cpus.iter().map(|cpus| of(design, *cpus)).collect())).collect();
    let last = |values: &[Option<f64>]| values.last().copied().flatten().unwrap_or(0.0);
    let most = groups.iter().max_by(|a, b| last(&a.1).total_cmp(&last(&b.1)));
    let least = groups.iter().min_by(|a, b| last(&a.1).total_cmp(&last(&b.1)));
    let range = least.zip(most).map_or_else(String::new, |(least, most)| {
        format!(
            ": on {} CPUs from {:.2} ({}) to {:.2} ({})",
            cpus.last().unwrap_or(&0),
            last(&least.1),
            least.0,
            last(&most.1),
            most.0
        )
    });
    let series = cpus.iter().map(|cpus| format!("{cpus} CPUs")).collect();
    let plot = Plot::Bars(Bars { axis: Axis(unit.into()), form: Form::Beside, group: "design".into(), series, groups });
    Chart { title: format!("{subject}{range}"), caption: how.into(), plot }
}

fn charts(rows: &[Row]) -> Vec<Chart> {
    let mut charts = costs_charts(rows);
    charts.push(causes(rows));
    charts
}

/// Why faults left the fast way, or came again, on most CPUs.
fn causes(rows: &[Row]) -> Chart {
    const CAUSES: [(&str, &[&str]); 4] = [
        ("a change was at the mapping", &["miss_contended"]),
        ("it was changed meanwhile", &["miss_stale"]),
        ("a stack had to grow", &["miss_grow"]),
        ("another fault was first", &["fast_raced", "slow_raced"]),
    ];
    let most = rows.iter().map(|row| row.cpus).max().unwrap_or(0);
    let per_thousand = |row: &Row, labels: &[&str]| {
        let count: u64 = labels.iter().map(|label| row.count(label)).sum();
        Some(count as f64 * 1000.0 / row.count("lookups").max(1) as f64)
    };
    let of = |row: &Row| CAUSES.iter().map(|(_, labels)| per_thousand(row, labels)).collect();
    let groups = rows.iter().filter(|row| row.cpus == most).map(|row| (row.design.to_string(), of(row))).collect();
    let plot = Bars {
        axis: Axis("per 1,000 faults that looked for their mapping".into()),
        form: Form::Stacked,
        group: "design".into(),
        series: CAUSES.map(|(cause, _)| cause.to_string()).to_vec(),
        groups,
    };
    Chart {
        title: format!("Faults that left the fast way on {most} CPUs, by cause"),
        caption: "Counted in the core, each time that a fault came.".into(),
        plot: Plot::Bars(plot),
    }
}

fn costs_charts(rows: &[Row]) -> Vec<Chart> {
    let how = "Accesses of the core's atomics for which a cache line came from another simulated CPU or was taken from it; the allocator, and what is no \
               atomic, is not seen.";
    let chart = |subject, unit, costs: fn(&Found) -> &Costs| {
        let value = move |row: &Row| {
            let Cost { transfers, .. } = costs(&row.found).of(CORE);
            let count = costs(&row.found).count;
            (row.seeds > 0 && count > 0).then(|| transfers as f64 / count as f64)
        };
        compared(rows, subject, unit, how, value)
    };
    if rows.iter().all(|row| row.seeds == 0) {
        return Vec::new();
    }
    vec![
        chart("Cache lines that a fault moves", "transfers per fault", |found| &found.faults_cost),
        chart("Cache lines that an mmap moves", "transfers per mmap", |found| &found.mmap_cost),
        chart("Cache lines that other changes move", "transfers per change", |found| &found.change_cost),
    ]
}
