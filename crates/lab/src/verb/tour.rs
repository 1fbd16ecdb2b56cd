//! `spile` without a verb: in a quarter of a minute, what there is to see.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod real;

use super::End;
use super::replay::tell_differences;
use crate::concurrent::{Found, Plan, WINDOW, freely};
use crate::design::DESIGNS;
use crate::output::{self, Table, grouped, table};
use crate::parts::CORE;
use crate::race::{self, variant};
use crate::replay::Report;
use crate::source::{self, Source};
use crate::{interrupt, jobs};
use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};

/// The recording that is run on many CPUs, and how many of its steps: its first wave of threads.
const CROWDED: (&str, usize) = ("fibers", 9_000);
const CPUS: [usize; 3] = [2, 16, 64];
/// The race that is told.
const RACE: &str = "stack-rot";
/// So many seeds the shipped variant plays after the one that broke the other.
const MORE_SEEDS: u64 = 50;

/// # Errors
///
/// The recordings that came with the sources are not there, or a part of the tour could not be run.
pub fn run() -> Result<End> {
    interrupt::keep_what_is_done();
    println!(
        "spile: address spaces whose page faults take no lock of the whole. {} designs behind one trait, on the same work.\n",
        DESIGNS.len()
    );
    let sources = source::bundled().iter().map(|path| source::open(path)).collect::<Result<Vec<_>>>()?;
    let mut good = replays(&sources);
    if variant::can_play().is_err() {
        println!(
            "\nThis build has no seeded scheduler, so it counts no cache lines and tells no race: build it with `--features sched`."
        );
    } else if !interrupt::is_asked() {
        good &= crowd(&sources)?;
        good &= interrupt::is_asked() || story()?;
    }
    if !interrupt::is_asked() {
        println!();
        good &= real_memory()?;
    }
    println!("\n{NEXT}");
    Ok(if good && !interrupt::is_asked() { End::Good } else { End::Bad })
}

const NEXT: &str = "Next:
  spile replay TRACE --check --design all       your own recording, or one of the ten, checked against the kernel
  spile replay --concurrent --cpus 2,64 --placement free --html report.html
  spile bench pft mmap1 --threads 1,2 --host    the benchmarks of the field, and this kernel beside them
  spile bench pft --real --threads 1,2 --host   the same on real memory of this process
  spile race                                    the races that Linux had
  spile designs                                 what each design promises";

fn bar(len: usize, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}, {eta} left").expect("a template");
    ProgressBar::new(len as u64).with_style(style).with_message(what)
}

/// Does `work` with every job, and shows how far it is; results that there was time for.
fn all<J: Sync, R: Send>(jobs: &[J], what: &'static str, work: impl Fn(&J) -> R + Sync) -> Vec<R> {
    let bar = bar(jobs.len(), what);
    let results = jobs::each(jobs, &interrupt::is_asked, |job| {
        let result = work(job);
        bar.inc(1);
        result
    });
    bar.finish_and_clear();
    results.into_iter().flatten().collect()
}

/// The recordings in order, through every design. Whether all agree.
fn replays(sources: &[Source]) -> bool {
    println!("1. Recorded programs, replayed by each design in the kernel's order, compared with what the kernel had");
    let pairs: Vec<_> = sources.iter().flat_map(|source| DESIGNS.iter().map(move |design| (source, design))).collect();
    let reports = all(&pairs, "replaying", |(source, design)| (design.replay)(&source.steps, &mut |_| ()));
    let columns =
        ["recording", "steps", "designs that agree", "exit snapshots", "lines after a change", "results of calls", "faults"];
    let mut table = table(&columns, 1);
    for (source, reports) in sources.iter().zip(reports.chunks(DESIGNS.len())) {
        let agreeing = reports.iter().filter(|report| report.agrees()).count();
        // The worst of them: good of all.
        let least = |pair: fn(&Report) -> (usize, usize)| {
            let (all, good) =
                reports.iter().map(pair).min_by_key(|(all, good)| good.wrapping_sub(*all) as isize).unwrap_or_default();
            format!("{good}/{all}")
        };
        table.add_row([
            source.name.clone(),
            grouped(source.steps.len() as u64),
            format!("{agreeing}/{}", reports.len()),
            least(|report| report.snapshots),
            least(|report| report.lines),
            least(|report| report.calls),
            least(|report| report.faults),
        ]);
    }
    println!("{table}\n");
    let bad = pairs.iter().zip(&reports).filter(|(_, report)| !report.agrees());
    let good = tell_differences(
        bad.map(|((source, design), report)| (format!("{}, {}", source.name, design.name), report.first_difference())),
    );
    good && reports.len() == pairs.len() && sources.iter().all(|source| source.torn.is_none())
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn real_memory() -> Result<bool> {
    real::run()
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn real_memory() -> Result<bool> {
    println!("4. Real memory\nLeft out: this is not Linux on x86-64.");
    Ok(true)
}

/// A crowd of threads on many CPUs, under every design. Whether all agree.
fn crowd(sources: &[Source]) -> Result<bool> {
    let (name, steps) = CROWDED;
    let source = sources.iter().find(|source| source.name == name).context("the recording of many threads is not there")?;
    let steps = &source.steps[..steps.min(source.steps.len())];
    println!("2. Where designs differ: threads that start, map, touch and unmap, on many simulated CPUs under a seeded schedule");
    let footprints = freely(steps);
    let plans = CPUS.map(|cpus| Plan::new(steps, &footprints, cpus, WINDOW * cpus));
    let pairs: Vec<_> = DESIGNS.iter().flat_map(|design| plans.iter().map(move |plan| (design, plan))).collect();
    let found = all(&pairs, "on many CPUs", |(design, plan)| design.simulate(steps, plan, 0));
    println!("{}\n", crowd_table(&found));
    let bad = pairs.iter().zip(&found).filter(|(_, found)| !found.agrees());
    let good = tell_differences(bad.map(|((design, _), found)| (format!("{name}, {}", design.name), found.first_difference())));
    Ok(good && found.len() == pairs.len())
}

fn crowd_table(found: &[Found]) -> Table {
    let [few, some, many] = CPUS;
    let columns = [
        "design".to_string(),
        format!("per fault\n{few} CPUs"),
        format!("\n{some}"),
        format!("\n{many}"),
        format!("per mmap\n{few} CPUs"),
        format!("\n{some}"),
        format!("\n{many}"),
        format!("waits\nper fault\n{many} CPUs"),
        format!("stale per\n1,000\n{many} CPUs"),
        format!("waits\nper change\n{many} CPUs"),
    ];
    let mut table = table(&columns.each_ref().map(String::as_str), 1);
    for (design, found) in DESIGNS.iter().zip(found.chunks_exact(CPUS.len())) {
        let last = &found[CPUS.len() - 1];
        let count = |label: &str| last.report.counters.get(label).copied().unwrap_or(0) as f64;
        let faults = last.faults_cost.count.max(1) as f64;
        let moved =
            |costs: &crate::concurrent::Costs| format!("{:.2}", costs.of(CORE).transfers as f64 / costs.count.max(1) as f64);
        let mut cells = vec![design.name.to_string()];
        cells.extend(found.iter().map(|found| moved(&found.faults_cost)));
        cells.extend(found.iter().map(|found| moved(&found.mmap_cost)));
        cells.push(format!("{:.3}", count("slow_writer") / faults));
        cells.push(format!("{:.1}", count("miss_stale") * 1000.0 / faults));
        cells.push(format!("{:.2}", count("write_waits") / count("writes").max(1.0)));
        table.add_row(cells);
    }
    table.note = "Per fault and per mmap: cache lines of the core's atomics that came from another CPU or were taken from it. Counts, not times.\n\
                  A fault waits for a writer as often as it comes in vain; stale: what it had found was changed before it was done."
        .into();
    table
}

/// A race, with the mistake and without. Whether the one was found, and the other passed.
fn story() -> Result<bool> {
    let race = race::named(RACE)?;
    let (mistake, design) = race.shown().next().context("a race has a mistake that shows it")?;
    println!("3. A race that Linux had, played by a seeded schedule: `spile race {RACE}`");
    println!("{}: {} ({}, {}). {}\n", race.name, race.title, race.since, race.source, race.wrong);
    let both = variant::both(&std::env::current_exe()?, race, mistake, design, 0, MORE_SEEDS)?;
    println!("{}", both.text(output::terminal_width().unwrap_or(output::WIDTH).into()));
    Ok(both.faulty.is_bad() && !both.shipped.is_bad())
}
