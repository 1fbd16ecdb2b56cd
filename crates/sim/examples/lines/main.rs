//! Which shared cache lines a fault writes, and which come from another CPU, for each design on 2, 16 and 64 simulated CPUs.
//!
//! A cell is `writes / transfers` per fault. `--json` prints one object per line instead; `--where` adds the places in the source that
//! make up each cell.

mod scenes;

use scenes::{Apart, Cost, Costs, Part, Scene, measure};
use spile::Locking;

#[global_allocator]
static APART: Apart = Apart;

const CPUS: [usize; 3] = [2, 16, 64];

/// A design's costs, in the order of the columns.
struct Row {
    design: &'static str,
    costs: Vec<Costs>,
}

fn columns() -> impl Iterator<Item = (Scene, usize)> {
    Scene::ALL.into_iter().flat_map(|scene| CPUS.map(|cpus| (scene, cpus)))
}

fn row<L: Locking>() -> Row {
    Row { design: L::NAME, costs: columns().map(|(scene, cpus)| measure::<L>(scene, cpus)).collect() }
}

macro_rules! rows {
    ([$($module:ident $design:ident,)*]) => { [$(row::<spile::$design>),*] };
}

/// Without what is 0 to two digits.
fn short(per_fault: f64) -> String {
    let text = format!("{per_fault:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn cell(cost: Cost, faults: u64) -> String {
    format!("{} / {}", short(cost.writes as f64 / faults as f64), short(cost.transfers as f64 / faults as f64))
}

fn print_row(head: &str, cells: impl Iterator<Item = String>) {
    println!("| {head} | {} |", cells.collect::<Vec<_>>().join(" | "));
}

/// What one row says of all designs: the most.
fn most(rows: &[Row], column: usize, part: Part) -> String {
    let of = |row: &Row| row.costs[column].of(part);
    let writes = rows.iter().map(|row| of(row).writes).max().unwrap_or(0);
    let transfers = rows.iter().map(|row| of(row).transfers).max().unwrap_or(0);
    cell(Cost { writes, transfers }, rows[0].costs[column].faults)
}

fn print_table(rows: &[Row]) {
    print_row("writes / transfers", columns().map(|(scene, cpus)| format!("{}, {cpus}", scene.name())));
    println!("|---{}|", "|---".repeat(columns().count()));
    for row in rows {
        print_row(row.design, row.costs.iter().map(|costs| cell(costs.of(Part::Core), costs.faults)));
    }
    for part in Part::ALL.into_iter().filter(|part| *part != Part::Core) {
        print_row(&format!("*{}*", part.name()), (0..columns().count()).map(|column| most(rows, column, part)));
    }
}

fn print_json(row: &Row) {
    for ((scene, cpus), costs) in columns().zip(&row.costs) {
        let part = |part: Part| {
            let cost = costs.of(part);
            format!("\"{}\": {{\"writes\": {}, \"transfers\": {}}}", part.name(), cost.writes, cost.transfers)
        };
        let head = format!("\"design\": \"{}\", \"scene\": \"{}\", \"cpus\": {cpus}", row.design, scene.name());
        println!("{{{head}, \"faults\": {}, {}}}", costs.faults, Part::ALL.map(part).join(", "));
    }
}

fn print_places(row: &Row) {
    for ((scene, cpus), costs) in columns().zip(&row.costs) {
        println!("\n{}, {}, {cpus} CPUs", row.design, scene.name());
        costs.places.iter().for_each(|(place, cost)| println!("  {:16} {place}", cell(*cost, costs.faults)));
    }
}

fn main() {
    let asked = |flag: &str| std::env::args().any(|argument| argument == flag);
    let rows: Vec<Row> = spile::for_each_design!(rows!()).into_iter().map(|row| row()).collect();
    if asked("--json") {
        return rows.iter().for_each(print_json);
    }
    print_table(&rows);
    if asked("--where") {
        rows.iter().for_each(print_places);
    }
}
