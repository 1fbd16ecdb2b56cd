//! The trace of a run and how people read it.
//!
//! **Guarantee.** A story names threads, source lines and cache lines by first touch; it holds no address and no time, so
//! the same seed prints the same text.
//!
//! **Mechanism.** One column per simulated thread, one row per event, time running down. Loads and spins that one thread
//! does in a row without anybody between are folded into one row: nobody could tell their order apart.

use super::lines::LineId;
use std::fmt::{self, Write};
use std::panic::Location;

/// What a yield point is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Op {
    /// `load`
    Load,
    /// `store`
    Store,
    /// `swap`
    Swap,
    /// `compare_exchange`, strong or weak, successful or not
    CompareExchange,
    /// `fetch_add`
    FetchAdd,
    /// `fetch_sub`
    FetchSub,
    /// `fetch_or`
    FetchOr,
    /// `fetch_and`
    FetchAnd,
    /// `fetch_max`
    FetchMax,
    /// `fence`
    Fence,
    /// `spin_loop`
    Spin,
}

/// What the counters and the strategies distinguish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Load,
    Store,
    Rmw,
    Fence,
    Spin,
}

impl Op {
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Load => Kind::Load,
            Self::Store => Kind::Store,
            Self::Fence => Kind::Fence,
            Self::Spin => Kind::Spin,
            _ => Kind::Rmw,
        }
    }

    pub(super) fn writes(self) -> bool {
        matches!(self.kind(), Kind::Store | Kind::Rmw)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Load => "load",
            Self::Store => "store",
            Self::Swap => "swap",
            Self::CompareExchange => "cas",
            Self::FetchAdd => "fetch_add",
            Self::FetchSub => "fetch_sub",
            Self::FetchOr => "fetch_or",
            Self::FetchAnd => "fetch_and",
            Self::FetchMax => "fetch_max",
            Self::Fence => "fence",
            Self::Spin => "spin",
        })
    }
}

/// What happened in an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A load, store or read-modify-write of a cache line.
    Access {
        /// The operation.
        op: Op,
        /// The cache line.
        line: LineId,
        /// Whether another CPU had to be asked for the line.
        transfer: bool,
    },
    /// A fence or a round of spinning: no line is touched.
    Pause(Op),
    /// A word from the program: [`label`](super::label), or its panic.
    Label(Box<str>),
}

/// One entry of the trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The number of the yield point, from 1; a label has that of the last one before it.
    pub step: u64,
    /// Index of the simulated thread.
    pub thread: usize,
    /// What it did.
    pub what: What,
    /// Where.
    pub at: &'static Location<'static>,
}

impl Event {
    fn folds(&self) -> bool {
        matches!(self.what, What::Access { op: Op::Load, .. } | What::Pause(Op::Spin))
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = Place(self.at);
        match &self.what {
            What::Access { op, line, transfer } => {
                let mark = if *transfer { "*" } else { "" };
                write!(f, "{place} {op} {line}{mark}")
            }
            What::Pause(op) => write!(f, "{place} {op}"),
            What::Label(text) => write!(f, "> {text}"),
        }
    }
}

/// A source location without its directories.
pub(super) struct Place(pub(super) &'static Location<'static>);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.0.file();
        let file = path.rsplit(['/', '\\']).next().unwrap_or(path);
        write!(f, "{file}:{}", self.0.line())
    }
}

const PAGE_WIDTH: usize = 120;
const STEP_WIDTH: usize = 8;
const COLUMN_WIDTH_MIN: usize = 22;
const COLUMN_WIDTH_MAX: usize = 44;

/// One row to be: the step of its first event and its folded texts with their counts.
struct Row {
    step: Option<u64>,
    thread: usize,
    folds: bool,
    parts: Vec<(String, usize)>,
}

impl Row {
    fn of(event: &Event) -> Self {
        let labelled = matches!(event.what, What::Label(_));
        Self {
            step: (!labelled).then_some(event.step),
            thread: event.thread,
            folds: event.folds(),
            parts: vec![(event.to_string(), 1)],
        }
    }

    /// Takes `event` in, unless it is of another kind or does not fit.
    fn absorb(&mut self, event: &Event, width: usize) -> bool {
        if self.thread != event.thread || !self.folds || !event.folds() {
            return false;
        }
        let text = event.to_string();
        if let Some((_, times)) = self.parts.iter_mut().find(|(part, _)| *part == text) {
            *times += 1;
            return true;
        }
        let fits = self.text().len() + ", ".len() + text.len() < width;
        if fits {
            self.parts.push((text, 1));
        }
        fits
    }

    fn text(&self) -> String {
        let part = |(text, times): &(String, usize)| match times {
            1 => text.clone(),
            _ => format!("{text} x{times}"),
        };
        self.parts.iter().map(part).collect::<Vec<_>>().join(", ")
    }
}

/// The events as columns, headed by the names of the threads that occur in them. Fits into 120 columns with up to five
/// threads, long labels apart.
pub(super) fn columns(names: &[String], events: &[Event]) -> String {
    let shown: Vec<usize> = (0..names.len()).filter(|&thread| events.iter().any(|event| event.thread == thread)).collect();
    let width = ((PAGE_WIDTH - STEP_WIDTH) / shown.len().max(1)).clamp(COLUMN_WIDTH_MIN, COLUMN_WIDTH_MAX);
    let mut out = heading(names, &shown, width);
    for row in fold(events, width) {
        let step = row.step.map_or(String::new(), |step| step.to_string());
        let column = shown.iter().position(|&thread| thread == row.thread).unwrap_or(0);
        let indent = column * width;
        let _ = writeln!(out, "{step:>6}  {:indent$}{}", "", row.text());
    }
    out
}

fn heading(names: &[String], shown: &[usize], width: usize) -> String {
    let mut out = format!("{:>6}  ", "step");
    for &thread in shown {
        let _ = write!(out, "{:width$}", names[thread]);
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn fold(events: &[Event], width: usize) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for event in events {
        let absorbed = rows.last_mut().is_some_and(|row| row.absorb(event, width));
        if !absorbed {
            rows.push(Row::of(event));
        }
    }
    rows
}
