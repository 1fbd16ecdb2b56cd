//! `spile bench --sim`: what simulated CPUs do to cache lines, and between what bounds that would be time.

use super::Args;
use super::show::short;
use crate::bench::catalogue::MAPPER;
use crate::bench::model::{self, BAND, FITTED_TO, Fit, PUBLISHED};
use crate::bench::report::Row;
use crate::bench::scenes::{Cost, Costs, Scene};
use crate::bench::workload::Workload;
use crate::design::Design;
use crate::interrupt;
use crate::jobs;
use crate::output;
use crate::parts::{CORE, PARTS};
use crate::progress::Progress;
use anyhow::Result;
use serde_json::{Map, Value, json, to_value};
use std::sync::{Mutex, PoisonError};

/// What a design's operations cost in a scene.
struct Cell {
    design: &'static str,
    scene: Scene,
    cpus: usize,
    /// None: the scene is not played on so many.
    costs: Option<Costs>,
    /// The time of a fault alone, in nanoseconds, if it is known.
    local: Option<f64>,
}

/// What was counted, design by design.
#[derive(Default)]
pub struct Found(Vec<Cell>);

/// The scenes of the benchmarks that were named.
fn scenes(workloads: &[Workload], has_mapper: bool) -> Vec<Scene> {
    let is_named = |name: &str| workloads.iter().any(|workload| workload.name == name) || (has_mapper && name == MAPPER);
    Scene::ALL.into_iter().filter(|scene| is_named(scene.benchmark())).collect()
}

/// Counts what `args` ask for.
pub fn count(args: &Args, workloads: &[Workload], has_mapper: bool, designs: &[&'static Design], rows: &[Row]) -> Found {
    let scenes = scenes(workloads, has_mapper);
    for workload in
        workloads.iter().filter(|workload| !args.sim.is_empty() && Scene::ALL.iter().all(|s| s.benchmark() != workload.name))
    {
        eprintln!("{}: nothing is simulated", workload.name);
    }
    let asked = |design| scenes.iter().flat_map(move |scene| args.sim.iter().map(move |cpus| (design, *scene, *cpus)));
    let all: Vec<(&Design, _, _)> = designs.iter().flat_map(|design| asked(*design)).collect();
    let progress = Mutex::new(Progress::new(all.len() as u64));
    let count = |(design, scene, cpus): &(&'static Design, Scene, usize)| {
        let what = format!("{} on {cpus} simulated CPUs, {}", scene.name(), design.name);
        progress.lock().unwrap_or_else(PoisonError::into_inner).begin(&what);
        let is_alone = |row: &&Row| row.threads == 1 && row.design == design.name && row.benchmark == scene.benchmark();
        let measured = rows.iter().find(is_alone).map(|row| row.times.ns_per_op.median);
        let costs = (design.lines)(*scene, *cpus);
        Cell { design: design.name, scene: *scene, cpus: *cpus, costs, local: args.local.or(measured) }
    };
    // Those at the end that nobody wants any more are missing.
    Found(jobs::each(&all, &interrupt::is_asked, count).into_iter().map_while(|cell| cell).collect())
}

fn cell(cost: Cost, ops: u64) -> String {
    let each = |number: u64| short(number as f64 / ops as f64, 2);
    format!("{} / {}", each(cost.writes), each(cost.transfers))
}

impl Cell {
    /// Faults per second of all CPUs, in the worst case and in the best. None where CPUs wait for more than lines, or a fault's time is not known.
    fn band(&self) -> Option<(f64, f64)> {
        if self.scene.is_of_waits() {
            return None;
        }
        let costs = self.costs.as_ref()?;
        let (writes, fetches, local) = (costs.writes_by_line(), costs.fetches(), self.local?);
        let at = |c: f64| model::throughput(self.cpus, local + fetches * c, &writes, c);
        Some((at(BAND.1), at(BAND.0)))
    }
}

impl Found {
    fn columns(&self) -> Vec<(Scene, usize)> {
        let Some(first) = self.0.first() else { return Vec::new() };
        self.0.iter().take_while(|cell| cell.design == first.design).map(|cell| (cell.scene, cell.cpus)).collect()
    }

    /// The cells of each design that has all of them.
    fn rows(&self) -> impl Iterator<Item = &[Cell]> {
        self.0.chunks_exact(self.columns().len().max(1))
    }

    /// Adds an object for each cell, and for each published series.
    pub fn json(&self, add: &mut impl FnMut(&str, Value)) -> Result<()> {
        for cell in &self.0 {
            let part = |costs: &Costs, part: usize| Ok((PARTS[part].to_string(), to_value(costs.of(part))?));
            let parts = |costs| (0..PARTS.len()).map(|number| part(costs, number)).collect::<Result<Map<_, _>>>();
            let parts = cell.costs.as_ref().map(parts).transpose()?;
            let band = cell.band().map(|(worst, best)| json!({ "local_ns": cell.local, "per_second": [worst, best] }));
            add(
                "lines",
                json!({
                    "benchmark": cell.scene.benchmark(),
                    "scene": cell.scene.name(),
                    "design": cell.design,
                    "cpus": cell.cpus,
                    "ops": cell.costs.as_ref().map(|costs| costs.ops),
                    "parts": parts,
                    "times": band,
                }),
            );
        }
        for series in PUBLISHED.iter().filter(|_| !self.0.is_empty()) {
            let fit = Fit::of(series);
            add("model", json!({ "series": series.name, "source": series.source, "c_ns": fit.c, "rows": fit.rows }));
        }
        Ok(())
    }

    /// Prints what was counted, and what it may mean.
    pub fn tables(&self, args: &Args) {
        if self.0.is_empty() {
            return;
        }
        self.lines();
        if args.places {
            self.places();
        }
        self.bands();
        fits();
    }

    fn lines(&self) {
        let columns = self.columns();
        let names: Vec<_> = columns.iter().map(|(scene, cpus)| format!("{}, {cpus}", scene.name())).collect();
        let head: Vec<_> = ["writes / transfers per operation"].into_iter().chain(names.iter().map(String::as_str)).collect();
        let mut table = output::table(&head, 1);
        for row in self.rows() {
            let cells = row.iter().map(|of| of.costs.as_ref().map_or("-".into(), |costs| cell(costs.of(CORE), costs.ops)));
            table.add_row([row[0].design.to_string()].into_iter().chain(cells));
        }
        for part in (0..PARTS.len()).filter(|part| *part != CORE) {
            table.add_row([PARTS[part].to_string()].into_iter().chain((0..columns.len()).map(|column| self.most(column, part))));
        }
        println!("{table}");
        println!(
            "Counted on simulated CPUs. Designs: what the core does; below them the most that any has in other parts. -: changes are played on 64 CPUs at most."
        );
    }

    fn most(&self, column: usize, part: usize) -> String {
        let counted: Vec<_> = self.rows().filter_map(|row| row[column].costs.as_ref()).collect();
        let most = |number: fn(&Cost) -> u64| counted.iter().map(|costs| number(&costs.of(part))).max().unwrap_or(0);
        let ops = counted.first().map_or(1, |costs| costs.ops);
        cell(Cost { writes: most(|cost| cost.writes), transfers: most(|cost| cost.transfers) }, ops)
    }

    fn places(&self) {
        for Cell { design, scene, cpus, costs, .. } in &self.0 {
            println!("\n{design}, {}, {cpus} CPUs", scene.name());
            let Some(costs) = costs else { continue };
            costs.places.iter().for_each(|(place, cost)| println!("  {:16} {place}", cell(*cost, costs.ops)));
        }
    }

    fn bands(&self) {
        let has_band: Vec<_> = self.rows().next().map_or(&[][..], |row| row).iter().map(|cell| cell.band().is_some()).collect();
        if !has_band.contains(&true) {
            return;
        }
        let of_bands = || self.columns().into_iter().zip(&has_band).filter(|(_, has)| **has).map(|(column, _)| column);
        let names: Vec<_> = of_bands().map(|(scene, cpus)| format!("{}, {cpus}", scene.name())).collect();
        let head: Vec<_> = ["million faults/s", "ns alone"].into_iter().chain(names.iter().map(String::as_str)).collect();
        let mut table = output::table(&head, 1);
        for row in self.rows() {
            let bands = row.iter().filter_map(Cell::band);
            let cells = bands.map(|(worst, best)| match worst / best > 0.995 {
                true => short(best / 1e6, 1),
                false => format!("{}..{}", short(worst / 1e6, 1), short(best / 1e6, 1)),
            });
            let mut locals: Vec<_> =
                row.iter().filter(|cell| cell.band().is_some()).filter_map(|cell| cell.local).map(|ns| short(ns, 0)).collect();
            locals.dedup();
            table.add_row([row[0].design.to_string(), locals.join(", ")].into_iter().chain(cells));
        }
        println!("{table}");
        let (from, to) = BAND;
        println!(
            "SIMULATED, not measured: the counts above, the time of a page alone, and {from}..{to} ns for each write of a contended line."
        );
        println!("What waits for the holder of a lock is not in it, so scenes that are mostly that have no band.");
    }
}

fn fits() {
    let threads = PUBLISHED[0].rows.map(|(threads, _)| format!("{threads}"));
    let head: Vec<_> = ["pft, 1000 faults/CPU-s", "c"].into_iter().chain(threads.iter().map(String::as_str)).collect();
    let mut table = output::table(&head, 1);
    for series in &PUBLISHED {
        let fit = Fit::of(series);
        let cells = |of: fn(&(usize, f64, f64)) -> String| fit.rows.iter().map(of);
        table.add_row([series.name.to_string(), String::new()].into_iter().chain(cells(|(_, measured, _)| short(*measured, 1))));
        table.add_row(["  the model".into(), format!("{} ns", fit.c)].into_iter().chain(cells(|(.., says)| short(*says, 1))));
        let off = cells(|(_, measured, says)| format!("{:+.0} %", (says / measured - 1.0) * 100.0));
        table.add_row(["  off by".to_string(), String::new()].into_iter().chain(off));
    }
    println!("{table}");
    println!(
        "The model's c is taken from rows of up to {FITTED_TO} threads; it has not seen the others. Measured: {}.",
        PUBLISHED[0].source
    );
}
