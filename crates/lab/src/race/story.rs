//! An interleaving, as people read it: a column for each CPU, time running down.

use serde::{Deserialize, Serialize};

/// Columns of a step's number and what is after it.
const STEP: usize = 7;
/// So many rows of a CPU are told though what is between is not.
const CARRIED: usize = 3;
/// A column is not narrower, however narrow the terminal.
const NARROWEST: usize = 20;

/// Something a CPU did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// When, in steps of the schedule.
    pub step: u64,
    /// Which CPU.
    pub cpu: usize,
    /// What: accesses by cache lines in the order of their first touch, with a star where another CPU had the line.
    pub text: String,
    /// In which line of the sources, if that says something.
    pub at: Option<String>,
    /// How often in a row.
    pub times: u64,
}

impl Row {
    fn whole(&self) -> String {
        let at = self.at.as_ref().map_or(String::new(), |at| format!("{at} "));
        let times = if self.times > 1 { format!(" x{}", self.times) } else { String::new() };
        format!("{at}{}{times}", self.text)
    }
}

/// What happened in a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Story {
    /// Of which seed.
    pub seed: u64,
    /// How many steps there were.
    pub steps: u64,
    /// How often another CPU went on.
    pub switches: u64,
    /// What went wrong, if something did.
    pub failure: Option<String>,
    /// The CPUs.
    pub cpus: Vec<String>,
    /// What they did.
    pub rows: Vec<Row>,
    /// Every step, by its number, its CPU and its line: what a story is compared by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub course: Vec<(u64, usize, u32)>,
}

impl Story {
    /// The step from which two runs of one seed go different ways, if they do.
    pub fn parts_from(&self, other: &Self) -> Option<u64> {
        let same = self.course.iter().zip(&other.course).take_while(|(one, other)| one == other).count();
        self.course.get(same).or(other.course.get(same)).map(|(step, ..)| *step)
    }

    /// Only `rows` of it, at most, from `before` rows before `step` on.
    pub fn middle(&self, step: u64, before: usize, rows: usize) -> Self {
        let first = self.rows.iter().take_while(|row| row.step < step).count().saturating_sub(before);
        let rows = self.rows.iter().skip(first).take(rows).cloned().collect();
        Self { rows, course: Vec::new(), ..self.clone() }
    }

    /// Only the last `rows` of it, and of each CPU of those the last it did before, with the step of the first of the former, if something is left out.
    pub fn end(&self, rows: usize) -> (Self, Option<u64>) {
        let first = self.rows.len().saturating_sub(rows);
        let (before, end) = self.rows.split_at(first);
        let is_last = |n: usize, row: &Row| before[n + 1..].iter().filter(|later| later.cpu == row.cpu).count() < CARRIED;
        let acts = |row: &Row| end.iter().any(|later| later.cpu == row.cpu);
        let carried = before.iter().enumerate().filter(|(n, row)| acts(row) && is_last(*n, row)).map(|(_, row)| row);
        let rows: Vec<_> = carried.chain(end).cloned().collect();
        let cut = (rows.len() < self.rows.len()).then(|| end[0].step);
        (Self { rows, course: Vec::new(), ..self.clone() }, cut)
    }

    /// Columns of at most `width` letters together, without how it ended. Before the first row from a step of `marks` on a line says what is marked.
    pub fn text(&self, width: usize, marks: &[(Option<u64>, &str)]) -> String {
        let shown: Vec<usize> = (0..self.cpus.len()).filter(|cpu| self.rows.iter().any(|row| row.cpu == *cpu)).collect();
        let column = (width.saturating_sub(STEP) / shown.len().max(1)).max(NARROWEST) - 2;
        let line = |step: &str, cells: &[String]| {
            let cells: Vec<_> = cells.iter().map(|cell| format!("{cell:column$}")).collect();
            format!("{step:>5}  {}", cells.join("│ ")).trim_end().to_string() + "\n"
        };
        let names: Vec<_> = shown.iter().map(|cpu| self.cpus[*cpu].clone()).collect();
        let mut out = line("step", &names);
        let first_of = |step: Option<u64>| self.rows.iter().position(|row| step.is_some_and(|step| row.step >= step));
        let marks: Vec<_> = marks.iter().map(|(step, what)| (first_of(*step), what)).collect();
        for (n, row) in self.rows.iter().enumerate() {
            for (_, what) in marks.iter().filter(|(first, _)| *first == Some(n) && n > 0) {
                out += &format!("{:┄^width$}\n", format!(" {what} "));
            }
            for (n, part) in wrapped(&row.whole(), column - 1).into_iter().enumerate() {
                let step = if n == 0 { row.step.to_string() } else { String::new() };
                let cells: Vec<_> = shown.iter().map(|cpu| if *cpu == row.cpu { part.clone() } else { String::new() }).collect();
                out += &line(&step, &cells);
            }
        }
        out
    }
}

/// Lines of at most `width` letters, if no word is longer; those after the first are indented.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_string()),
            Some(_) => lines.push(format!("  {word}")),
        }
    }
    lines
}
