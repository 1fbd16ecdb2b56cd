//! From a run's trace to its story: of thousands of accesses those by which CPUs meet.
//!
//! **Guarantee.** What the programs and the machine said is told whole. Of accesses those are told that read what another CPU wrote, with the write,
//! and those that another CPU's write came right after, with that write, where the core or the tree makes them.
//!
//! **Mechanism.** Per cache line the last write, and what each CPU has done to it since. Rounds of spinning and what allocators, grace periods and the
//! machine itself do are left out, and so are steps between the rows. What one CPU does in a row in one function is one row, and so are an access of a
//! program and its end, if nothing is told between.

use super::story::{Row, Story};
use spile_sync::sched::{Event, Failure, LineId, Op, Outcome, What};
use std::collections::BTreeMap;
use std::panic::Location;

/// Where accesses are what a race is about.
const OF_THE_CORE: &[&str] = &["crates/spile/src/", "crates/maple/src/"];
/// And where, there, they are not: memory that comes and goes, and counts.
const OF_MEMORY: &[&str] = &["limbo.rs", "platform.rs", "frame.rs", "stock.rs", "counters.rs", "pool.rs", "usage.rs"];
/// Nor where entries of page tables are read: the machine says what they are.
const OF_ENTRIES: &[(&str, &str)] = &[("table.rs", "load"), ("table.rs", "raw"), ("table.rs", "edit")];
/// So many accesses are one row at most.
const IN_A_ROW: usize = 4;
/// What the scheduler says of a CPU that panics.
const PANICKED: &str = "panicked";
/// Where functions begin, by file.
const FUNCTIONS: &[(&str, &[(u32, &str)])] = include!(concat!(env!("OUT_DIR"), "/functions.rs"));

/// The story of a run.
pub fn story(outcome: &Outcome) -> Story {
    let events = outcome.trace();
    let mut told = Told::default();
    for (event, meets) in events.iter().zip(meetings(events)) {
        match &event.what {
            // What comes after is destructors.
            _ if told.has_panicked => break,
            What::Label(text) => told.word(event, text),
            What::Access { op, line, transfer } if meets => {
                told.access(event, format!("{op} {line}{}", if *transfer { "*" } else { "" }))
            }
            _ => {}
        }
    }
    Story {
        seed: outcome.seed(),
        steps: outcome.steps(),
        switches: outcome.switches(),
        failure: outcome.failure().map(failure),
        cpus: outcome.thread_names().to_vec(),
        rows: told.rows,
        course: events.iter().map(|event| (event.step, event.thread, event.at.line())).collect(),
    }
}

/// The rows so far.
#[derive(Default)]
struct Told {
    rows: Vec<Row>,
    /// If the last are accesses: of which CPU, where, and how many.
    together: Option<(usize, &'static str, usize)>,
    has_panicked: bool,
}

impl Told {
    fn access(&mut self, event: &Event, text: String) {
        let place = function(event.at).unwrap_or("?");
        match (&mut self.together, self.rows.last_mut()) {
            (Some((cpu, of, count)), Some(row)) if *cpu == event.thread && *of == place && *count < IN_A_ROW => {
                *count += 1;
                row.text += &format!(", {text}");
            }
            _ => {
                let told = format!("{place}: {text}");
                self.together = Some((event.thread, place, 1));
                self.rows.push(Row { step: event.step, cpu: event.thread, text: told, at: Some(line(event.at)), times: 1 });
            }
        }
    }

    fn word(&mut self, event: &Event, text: &str) {
        self.together = None;
        self.has_panicked = text == PANICKED;
        let mut row = Row { step: event.step, cpu: event.thread, text: text.to_string(), at: None, times: 1 };
        // The machine speaks of what is done to it, and where it does so says nothing.
        row.at = event.at.file().contains("crates/lab/").then(|| line(event.at));
        if let Some((begun, cached)) = self.begun(&row) {
            row.step = self.rows[begun].step;
            row.text += &cached;
            self.rows.truncate(begun);
        }
        match self.rows.last_mut() {
            Some(last) if (last.cpu, &last.text, &last.at) == (row.cpu, &row.text, &row.at) => last.times += 1,
            _ => self.rows.push(row),
        }
    }

    /// The row in which began what `end` ends, if nothing is told since but what was cached for it.
    fn begun(&self, end: &Row) -> Option<(usize, String)> {
        let is_begun = |row: &Row| {
            row.cpu == end.cpu && row.times == 1 && end.text.strip_prefix(&row.text).is_some_and(|rest| rest.starts_with(": "))
        };
        let last = self.rows.len().checked_sub(1)?;
        if is_begun(&self.rows[last]) {
            return Some((last, String::new()));
        }
        let cached = self.rows[last].text.strip_prefix("TLB ").filter(|_| self.rows[last].cpu == end.cpu)?;
        let (_, pte) = cached.split_once(": ")?;
        let before = last.checked_sub(1).filter(|before| is_begun(&self.rows[*before]))?;
        Some((before, format!(", TLB: {pte}")))
    }
}

/// What happened to a cache line since it was written.
#[derive(Default)]
struct Line {
    /// The last write: its event and its CPU.
    written: Option<(usize, usize)>,
    /// The last access of each CPU.
    last: BTreeMap<usize, usize>,
}

/// Of each event whether CPUs meet in it.
fn meetings(events: &[Event]) -> Vec<bool> {
    let mut meets = vec![false; events.len()];
    let mut lines: BTreeMap<LineId, Line> = BTreeMap::new();
    for (n, event) in events.iter().enumerate() {
        let What::Access { op, line, .. } = event.what else { continue };
        if !is_of_the_core(event.at) {
            continue;
        }
        let line = lines.entry(line).or_default();
        let seen = line.last.get(&event.thread).copied();
        if let Some((write, _)) = line.written.filter(|(write, by)| *by != event.thread && seen.is_none_or(|seen| seen < *write))
        {
            (meets[write], meets[n]) = (true, true);
        }
        if op != Op::Load {
            let since = line.written.map_or(0, |(write, _)| write);
            for (_, before) in line.last.iter().filter(|(cpu, before)| **cpu != event.thread && **before >= since) {
                (meets[*before], meets[n]) = (true, true);
            }
            line.written = Some((n, event.thread));
        }
        line.last.insert(event.thread, n);
    }
    meets
}

fn file(at: &'static Location<'static>) -> &'static str {
    at.file().rsplit(['/', '\\']).next().unwrap_or_default()
}

fn line(at: &'static Location<'static>) -> String {
    format!("{}:{}", file(at), at.line())
}

/// The function that a place is in.
fn function(at: &'static Location<'static>) -> Option<&'static str> {
    let of_file = FUNCTIONS.iter().find(|(file, _)| at.file().ends_with(file)).map_or(&[][..], |(_, functions)| functions);
    of_file.iter().rev().find(|(begins, _)| *begins <= at.line()).map(|(_, name)| *name)
}

fn is_of_the_core(at: &'static Location<'static>) -> bool {
    let is_entry = || OF_ENTRIES.iter().any(|(of, name)| file(at) == *of && function(at) == Some(name));
    OF_THE_CORE.iter().any(|place| at.file().contains(place)) && !OF_MEMORY.contains(&file(at)) && !is_entry()
}

/// From the root of the workspace, and without what the machine remembers, which the story has.
fn failure(failure: &Failure) -> String {
    let told = match failure {
        Failure::Panic { thread, message, at } => {
            let at = at.as_deref().unwrap_or("an unknown place");
            let at = at.find("crates/").map_or(at, |from| &at[from..]);
            let at = at.rsplit_once(':').map_or(at, |(line, _)| line);
            format!("{thread}, {at}: {message}")
        }
        other => other.to_string(),
    };
    told.split_once("\n  what happened there last").map_or(told.clone(), |(before, _)| before.to_string())
}
