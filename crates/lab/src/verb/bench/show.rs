//! Tables and JSON of `spile bench`.

use super::{Args, Found};
use crate::bench::report::{Memory, Row, Waits};
use crate::bench::rounds::Spread;
use crate::output::{self, grouped};
use anyhow::Result;
use serde_json::{Value, json, to_value};

/// An array of objects; what each is says its `kind`.
pub fn json(found: &Found) -> Result<()> {
    let mut objects = Vec::new();
    let mut add = |kind: &str, value: Value| {
        let mut object = json!({ "kind": kind });
        if let (Some(object), Value::Object(more)) = (object.as_object_mut(), value) {
            object.extend(more);
        }
        objects.push(object);
    };
    for row in &found.rows {
        add("throughput", to_value(row)?);
    }
    for waits in &found.waits {
        add("latency", to_value(waits)?);
    }
    #[cfg(feature = "sched")]
    found.simulated.json(&mut add)?;
    output::json(&objects)
}

/// Tables, and what must be known to read them.
pub fn tables(args: &Args, found: &Found) {
    if !found.rows.is_empty() {
        throughput(&found.rows);
    }
    if !found.waits.is_empty() {
        latency(&found.waits);
    }
    #[cfg(feature = "sched")]
    found.simulated.tables(args);
    footnotes(args, found);
}

fn whole(number: f64) -> String {
    grouped(number.round() as u64)
}

fn around(Spread { min, max, .. }: Spread) -> String {
    format!("{}..{}", whole(min), whole(max))
}

/// Without what is 0 to `digits` digits.
pub fn short(number: f64, digits: usize) -> String {
    let text = format!("{number:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn known(number: Option<f64>) -> String {
    number.map_or_else(String::new, |number| short(number, 4))
}

fn throughput(rows: &[Row]) {
    let columns = [
        "benchmark",
        "design",
        "threads",
        "op/CPU-s",
        "min..max",
        "ns CPU/op",
        "of 1 thread",
        "op/s wall",
        "faults/op",
        "changes/op",
        "fast",
        "flushes/op",
    ];
    let mut table = output::table(&columns, 2);
    for row in rows {
        let times = &row.times;
        let is_alone = |other: &&Row| other.threads == 1 && (&other.benchmark, &other.design) == (&row.benchmark, &row.design);
        let alone = rows.iter().find(is_alone).filter(|_| row.threads > 1).map(|alone| alone.times.per_cpu_second.median);
        table.add_row([
            row.benchmark.clone(),
            row.design.clone(),
            format!("{}{}", row.threads, if row.oversubscribed { " (over)" } else { "" }),
            whole(times.per_cpu_second.median),
            around(times.per_cpu_second),
            short(times.ns_per_op.median, 0),
            alone.map_or_else(String::new, |alone| format!("{:.2}", times.per_cpu_second.median / alone)),
            whole(times.per_second.median),
            known(row.per_op.faults),
            known(row.per_op.changes),
            times.fast.map_or_else(String::new, |fast| format!("{:.1} %", fast * 100.0)),
            if row.memory == Memory::Real { String::new() } else { short(times.flushes_per_op, 4) },
        ]);
    }
    println!("{table}");
}

fn micros(ns: f64) -> String {
    format!("{:.1}", ns / 1e3)
}

fn latency(waits: &[Waits]) {
    let columns = [
        "benchmark",
        "design",
        "reader",
        "mmap median",
        "min..max",
        "p99",
        "max",
        "munmap median",
        "min..max",
        "p99",
        "max",
        "a reading",
        "KiB",
    ];
    let mut table = output::table(&columns, 3);
    let near = |spread: Spread| format!("{}..{}", micros(spread.min), micros(spread.max));
    for row in waits {
        let times = &row.times;
        let mut cells = vec![
            row.benchmark.to_string(),
            row.design.clone(),
            format!("{}{}", row.reader, if row.oversubscribed { " (over)" } else { "" }),
        ];
        for calls in [times.mmap, times.munmap] {
            cells.extend([micros(calls.median.median), near(calls.median), micros(calls.p99.median), micros(calls.max.median)]);
        }
        cells.push(times.reading.map_or_else(String::new, |reading| micros(reading.median)));
        cells.push(if times.reading.is_some() { grouped(times.bytes / 1024) } else { String::new() });
        table.add_row(cells);
    }
    println!("{table}");
}

const ON_NONE: &str = "The core pays for zeroing pages, and not for entering a kernel: the host's figures have system calls and exceptions in them.";
const ON_REAL_MEMORY: &str = "Designs: real memory of this process, by userfaultfd. A fault is a signal, and a page that the kernel copies in; to map is a region of the pager's, to unmap its end.\n\
                              The host, if it takes part: the kernel's own mmap and munmap of private anonymous memory, without a pager.";

fn footnotes(args: &Args, found: &Found) {
    let rounds = found.rows.iter().map(|row| row.times.rounds).chain(found.waits.iter().map(|row| row.times.rounds)).min();
    println!(
        "Medians of {} interleaved rounds, after one that is dropped; smallest and largest beside. Threads are pinned.",
        rounds.unwrap_or(0)
    );
    println!("A machine with few cores says nothing of scalability: only ratios within one run count.");
    if !found.waits.is_empty() {
        println!("Latencies in microseconds: of a round's calls, then the median of the rounds.");
    }
    if let Some(row) = found.rows.iter().find(|row| row.oversubscribed) {
        println!("(over): {} threads share CPUs, and wait for each other's time.", row.threads);
    }
    for (name, note) in notes(&found.rows) {
        println!("{name} with threads: {note}.");
    }
    if args.pages.is_some() {
        println!("Areas have {} pages, and not what the benchmarks say.", args.pages.unwrap_or(0));
    }
    println!("{}", if args.real { ON_REAL_MEMORY } else { ON_NONE });
    if args.host {
        println!("The host ran with 4 KiB pages alone (PR_SET_THP_DISABLE), in a process of its own.");
    }
    if cfg!(feature = "sched") {
        println!(
            "This build has the scheduler's hooks, which take time at every atomic: a build with --no-default-features measures the shipped code."
        );
    }
}

/// What must be known of benchmarks with threads, once each.
fn notes(rows: &[Row]) -> Vec<(&str, &str)> {
    let mut notes: Vec<_> = rows.iter().filter_map(|row| Some((row.benchmark.as_str(), row.note.as_deref()?))).collect();
    notes.dedup();
    notes
}
