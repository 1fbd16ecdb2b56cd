//! What many rounds come to, as tables and as JSON.

use super::prices::{SIGNAL, Trip, UNPROTECT};
use super::work::Sample;
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

/// The rounds' quartiles, and the least.
#[derive(Clone, Copy)]
pub struct Spread {
    pub low: f64,
    pub median: f64,
    pub high: f64,
    pub best: f64,
}

impl Spread {
    pub fn of(mut rounds: Vec<f64>) -> Self {
        rounds.sort_by(f64::total_cmp);
        let at = |quarter: usize| rounds[(rounds.len() - 1) * quarter / 4];
        Self { low: at(1), median: at(2), high: at(3), best: at(0) }
    }

    fn json(self) -> Value {
        json!({ "best": self.best, "low": self.low, "median": self.median, "high": self.high })
    }

    fn text(self) -> String {
        format!("{:.0} ({:.0}-{:.0})", self.median, self.low, self.high)
    }
}

/// What a work is called, of a file that lies there.
pub fn of(work: &str, place: &str) -> String {
    format!("{work}, {place}")
}

/// A work through a contender: its rounds with one thread, and with two.
pub struct Played {
    pub place: &'static str,
    pub work: &'static str,
    pub contender: &'static str,
    pub rounds: [Vec<Sample>; 2],
}

impl Played {
    /// If so many were asked for.
    fn spread(&self, threads: usize, of: impl Fn(&Sample) -> f64) -> Option<Spread> {
        let rounds = &self.rounds[threads - 1];
        (!rounds.is_empty()).then(|| Spread::of(rounds.iter().map(of).collect()))
    }

    fn cpu(&self, threads: usize) -> Option<Spread> {
        self.spread(threads, |sample| sample.cpu)
    }

    fn wall(&self, threads: usize) -> Option<Spread> {
        self.spread(threads, |sample| sample.wall)
    }

    /// How much more two threads do than one: by the medians, and by the best.
    fn scales(&self) -> [Option<f64>; 2] {
        let scale = |of: fn(Spread) -> f64| Some(2.0 * of(self.wall(1)?) / of(self.wall(2)?));
        [scale(|wall| wall.median), scale(|wall| wall.best)]
    }

    /// Threads that waited for a CPU: the most of both medians.
    fn waited(&self) -> f64 {
        let medians = [1, 2].into_iter().filter_map(|threads| self.spread(threads, |sample| sample.waited));
        medians.map(|waited| waited.median).fold(0.0, f64::max)
    }

    fn row(&self) -> Vec<String> {
        let mut row = vec![of(self.work, self.place), self.contender.into()];
        let times = [1, 2].into_iter().flat_map(|threads| [self.wall(threads), self.cpu(threads)]);
        row.extend(times.map(|time| time.map_or(String::new(), Spread::text)));
        row.extend(self.scales().map(|scale| scale.map_or(String::new(), |scale| format!("{scale:.2}"))));
        row.push(format!("{:.2}", self.waited()));
        row
    }

    fn json(&self) -> Value {
        let of =
            |threads| json!({ "wall_ns": self.wall(threads).map(Spread::json), "cpu_ns": self.cpu(threads).map(Spread::json) });
        let [scale, best_scale] = self.scales();
        json!({
            "place": self.place, "work": self.work, "contender": self.contender,
            "one_thread": of(1), "two_threads": of(2), "scale": scale, "best_scale": best_scale, "threads_waiting": self.waited(),
        })
    }
}

/// The rounds of a step, by threads and batch.
pub type Cells = Vec<(u64, u64, Vec<f64>)>;

/// A step, or what was computed of several.
pub struct Price {
    pub name: String,
    pub cells: Cells,
}

/// Round by round.
fn combine(name: &str, one: &Price, other: &Price, with: fn(f64, f64) -> f64) -> Price {
    let find = |threads, batch| other.cells.iter().find(|cell| (cell.0, cell.1) == (threads, batch));
    let both = |(threads, batch, rounds): &(u64, u64, Vec<f64>)| {
        let others = &find(*threads, *batch)?.2;
        Some((*threads, *batch, rounds.iter().zip(others).map(|(a, b)| with(*a, *b)).collect()))
    };
    Price { name: name.into(), cells: one.cells.iter().filter_map(both).collect() }
}

/// What a signal costs without what its handler does.
pub fn signal_alone(prices: &[Price]) -> Option<Price> {
    let find = |name: &str| prices.iter().find(|price| price.name == name);
    Some(combine("SIGBUS and back, alone", find(SIGNAL)?, find(UNPROTECT)?, |whole, handler| whole - handler))
}

/// What all steps of a way cost.
pub fn whole(way: &Trip, steps: &[Price]) -> Option<Price> {
    let find = |name: &str| steps.iter().find(|price| price.name == name);
    let name = format!("{}: whole", way.steps[0].split_once(':')?.0);
    Some(combine(&name, find(way.steps[0])?, find(way.steps[1])?, |there, back| there + back))
}

impl Price {
    fn row(&self, columns: &[(u64, u64)]) -> Vec<String> {
        let cell = |(threads, batch): &(u64, u64)| {
            let cell = self.cells.iter().find(|cell| (cell.0, cell.1) == (*threads, *batch));
            cell.filter(|cell| !cell.2.is_empty()).map_or(String::new(), |cell| Spread::of(cell.2.clone()).text())
        };
        std::iter::once(self.name.clone()).chain(columns.iter().map(cell)).collect()
    }

    fn json(&self) -> Value {
        let cell = |(threads, batch, rounds): &(u64, u64, Vec<f64>)| json!({ "threads": threads, "batch": batch, "ns": Spread::of(rounds.clone()).json() });
        json!({ "name": self.name, "cells": self.cells.iter().filter(|cell| !cell.2.is_empty()).map(cell).collect::<Vec<_>>() })
    }
}

fn table(left: usize, header: Vec<String>, rows: impl Iterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header).add_rows(rows);
    table.column_iter_mut().skip(left).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}

/// All that was measured.
pub struct Report {
    /// Kernel, CPU, files.
    pub host: Vec<(&'static str, String)>,
    pub rounds: usize,
    pub played: Vec<Played>,
    pub prices: Vec<Price>,
    pub ways: Vec<Price>,
}

impl Report {
    pub fn print(&self) {
        for (what, is) in &self.host {
            println!("{what:8} {is}");
        }
        println!("\nns per page, median (quartiles).");
        println!(
            "Of work: of {} rounds of 64 stretches each, of each stretch the third that was disturbed least; waited: threads that had no CPU. Scale: what two threads do by what one does.",
            self.rounds
        );
        println!("Of prices and ways: of rounds in which all threads had their CPUs all the time.\n");
        let header = ["work", "contender", "wall, 1 thread", "CPU", "wall, 2 threads", "CPU", "scale", "best", "waited"];
        println!("{}\n", table(2, header.map(Into::into).into(), self.played.iter().map(Played::row)));
        for (title, prices, batches) in [("price", &self.prices, &[1, 4, 16][..]), ("way of showing", &self.ways, &[1, 16][..])] {
            let columns: Vec<_> =
                [1, 2].into_iter().flat_map(|threads| batches.iter().map(move |batch| (threads, *batch))).collect();
            let name =
                |(threads, batch): &(u64, u64)| format!("{threads} thread{} x{batch}", if *threads > 1 { "s" } else { "" });
            let header = std::iter::once(title.to_string()).chain(columns.iter().map(name)).collect();
            if !prices.is_empty() {
                println!("{}\n", table(1, header, prices.iter().map(|price| price.row(&columns))));
            }
        }
    }

    pub fn json(&self) -> Value {
        let host: serde_json::Map<_, _> = self.host.iter().map(|(what, is)| ((*what).into(), is.clone().into())).collect();
        json!({
            "host": host,
            "rounds": self.rounds,
            "work": self.played.iter().map(Played::json).collect::<Vec<_>>(),
            "prices": self.prices.iter().map(Price::json).collect::<Vec<_>>(),
            "showing": self.ways.iter().map(Price::json).collect::<Vec<_>>(),
        })
    }
}
