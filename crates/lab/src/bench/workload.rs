//! What a benchmark does: a definition, written as TOML.
//!
//! **Guarantee.** A definition that is read makes sense: what it says is known, and its sizes fit together. What is wrong is told with its line.
//!
//! **Mechanism.** Each thread has an area, or a part of one that all have, cut into units. Before anything is timed the `setup` is done once; then
//! the phases of a `pass`, in their order, again and again. A phase does its steps for the whole area, or for each unit.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// The bytes of a page.
pub const PAGE: u64 = spile::PAGE;
/// What one table maps: areas of different threads share none.
const SPAN: u64 = 512 * PAGE;
/// Where areas begin: far below what a kernel chooses by itself.
const BASE: u64 = 0x10_0000_0000;

/// A benchmark.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// What it is called.
    pub name: String,
    /// What it does.
    pub about: String,
    /// Whose benchmark it is, and how it differs from theirs.
    pub source: String,
    /// What one operation is.
    pub op: String,
    /// How many operations there are.
    pub ops: Ops,
    /// What must be known of a run with several threads.
    #[serde(default)]
    pub threads: Option<String>,
    /// How many pages an area has.
    pub pages: u64,
    /// How many of them are a unit.
    #[serde(default = "one")]
    pub unit: u64,
    /// How many pages are free between units.
    #[serde(default)]
    pub gap: u64,
    /// Whether each thread has an area, or all have one.
    #[serde(default)]
    pub area: Area,
    /// In what order a thread takes its units.
    #[serde(default)]
    pub order: Order,
    /// What is done once, and not timed.
    #[serde(default)]
    pub setup: Vec<Phase>,
    /// What is done again and again.
    pub pass: Vec<Phase>,
    /// What must happen.
    pub events: Expected,
}

fn one() -> u64 {
    1
}

/// How many operations there are: so many for each unit, and so many for each pass of a thread besides.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ops {
    /// For each unit.
    pub unit: u64,
    /// For each pass of a thread.
    pub pass: u64,
}

/// Who has an area.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Area {
    /// Each thread has one.
    #[default]
    Own,
    /// All have one, and each takes its share of the units. What is done to the whole area one of them does, while the others wait.
    One,
}

/// In what order a thread takes its units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// One after the other.
    #[default]
    Ascending,
    /// As a seed says; those of an area that all have are dealt so, too.
    Shuffled,
}

/// Steps for the area or for each unit.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// For what.
    pub on: On,
    /// What is done, in this order.
    #[serde(rename = "do")]
    pub steps: Vec<Step>,
    /// Whether it counts.
    #[serde(default = "yes")]
    pub timed: bool,
}

fn yes() -> bool {
    true
}

/// What steps are done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum On {
    /// The whole area.
    Area,
    /// Each of its units.
    Unit,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// mmap: private anonymous memory that can be read and written, there and nowhere else.
    Map,
    /// The same where the kernel likes; the area is there from then on. For areas only.
    MapAnywhere,
    /// munmap.
    Unmap,
    /// A byte is written in each page.
    Write,
    /// A byte is read in each page.
    Read,
    /// madvise, DONTNEED.
    Discard,
    /// mprotect: may be read.
    ProtectRead,
    /// mprotect: may be read and written.
    ProtectWrite,
    /// brk: a page more than in the beginning.
    BrkUp,
    /// brk: where it was in the beginning.
    BrkDown,
    /// fork, of which the child exits at once, and is waited for.
    Fork,
}

/// How often what must happen: exactly, whatever design.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expected {
    /// For each unit.
    pub unit: Counts,
    /// For each pass of a thread; of all threads together, if they have one area.
    pub pass: Counts,
}

/// How often something happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Counts {
    /// Faults that were resolved.
    pub faults: u64,
    /// Changes of mappings.
    pub changes: u64,
    /// Frames that were given for pages.
    pub frames: u64,
}

impl Counts {
    /// So many times as much.
    pub fn times(self, n: u64) -> Self {
        Self { faults: self.faults * n, changes: self.changes * n, frames: self.frames * n }
    }

    /// Both.
    pub fn plus(self, other: Self) -> Self {
        Self { faults: self.faults + other.faults, changes: self.changes + other.changes, frames: self.frames + other.frames }
    }
}

impl Workload {
    /// Reads a definition.
    ///
    /// # Errors
    ///
    /// It does not make sense; says where.
    pub fn parse(text: &str) -> Result<Self> {
        let workload: Self = toml::from_str(text)?;
        workload.check().with_context(|| format!("the definition of {}", workload.name))?;
        Ok(workload)
    }

    /// Reads a file with one.
    ///
    /// # Errors
    ///
    /// It cannot be read, or does not make sense.
    pub fn open(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn check(&self) -> Result<()> {
        ensure!(self.pages > 0 && self.unit > 0, "areas and units have pages");
        ensure!(self.pages.is_multiple_of(self.unit), "{} pages cannot be cut into units of {}", self.pages, self.unit);
        ensure!(self.pages + self.units() * self.gap <= 1 << 24, "an area of more than 64 GiB");
        ensure!(self.ops.unit + self.ops.pass > 0, "there is no operation");
        ensure!(self.pass.iter().any(|phase| phase.timed), "nothing of a pass is timed");
        let phases = || self.setup.iter().chain(&self.pass);
        ensure!(phases().all(|phase| !phase.steps.is_empty()), "a phase does nothing");
        let strays = |phase: &Phase| phase.on == On::Unit && phase.steps.contains(&Step::MapAnywhere);
        ensure!(!phases().any(strays), "map-anywhere is for areas: units have their places in them");
        let whole = |phase: &Phase| phase.on == On::Area && phase.steps.contains(&Step::Map);
        ensure!(self.gap == 0 || !phases().any(whole), "an area with gaps is mapped by units");
        let moves = phases().any(|phase| phase.steps.contains(&Step::MapAnywhere));
        ensure!(!moves || self.area == Area::Own, "map-anywhere is for areas of one thread: others would have to be told");
        Ok(())
    }

    /// The same with areas of so many pages.
    ///
    /// # Errors
    ///
    /// They cannot be cut into its units.
    pub fn with_pages(mut self, pages: u64) -> Result<Self> {
        self.pages = pages;
        self.check()?;
        Ok(self)
    }

    /// How many units an area has.
    pub fn units(&self) -> u64 {
        self.pages / self.unit
    }

    /// From a unit's beginning to the next one's, in bytes.
    pub fn stride(&self) -> u64 {
        (self.unit + self.gap) * PAGE
    }

    /// The length of an area with its gaps, in bytes.
    pub fn area_len(&self) -> u64 {
        self.units() * self.stride()
    }

    /// Where the area of `thread` is: with a table's span between it and the next.
    pub fn area_of(&self, thread: usize) -> u64 {
        match self.area {
            Area::One => BASE,
            Area::Own => BASE + thread as u64 * (self.area_len().next_multiple_of(SPAN) + SPAN),
        }
    }

    /// How many areas there are.
    pub fn areas(&self, threads: usize) -> usize {
        if self.area == Area::One { 1 } else { threads }
    }

    /// Which units of its area `thread` of `threads` takes, in its order.
    pub fn units_of(&self, thread: usize, threads: usize) -> Vec<u64> {
        let mut units: Vec<u64> = (0..self.units()).collect();
        if self.order == Order::Shuffled {
            let alone = if self.area == Area::One { 0 } else { thread as u64 };
            fastrand::Rng::with_seed(alone).shuffle(&mut units);
        }
        match self.area {
            Area::Own => units,
            Area::One => {
                let part = |n: usize| units.len() * n / threads;
                units[part(thread)..part(thread + 1)].to_vec()
            }
        }
    }

    /// How many operations so many threads make in one pass.
    pub fn ops_in_pass(&self, threads: usize) -> u64 {
        self.units() * self.areas(threads) as u64 * self.ops.unit + threads as u64 * self.ops.pass
    }

    /// What must happen in one pass of so many threads.
    pub fn events_in_pass(&self, threads: usize) -> Counts {
        let areas = self.areas(threads) as u64;
        self.events.unit.times(self.units() * areas).plus(self.events.pass.times(areas))
    }

    /// How many pages are in use at most, tables not counted.
    pub fn frames(&self, threads: usize) -> u64 {
        self.pages * self.areas(threads) as u64
    }
}
