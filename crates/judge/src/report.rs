//! What a run came to.
//!
//! **Guarantee.** Every call that was judged is in the matrix once, under what the left side said.
//!
//! **Mechanism.** A map of counts by verb and result, and two ways of writing it.

use crate::call::Call;
use crate::subject::Outcome;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Counts of results by verb.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    counts: BTreeMap<(&'static str, String), u64>,
    calls: u64,
    successes: u64,
}

impl Tally {
    /// Counts a call.
    pub fn add(&mut self, call: &Call, outcome: &Outcome) {
        *self.counts.entry((call.verb(), outcome.column())).or_default() += 1;
        self.calls += 1;
        self.successes += u64::from(outcome.is_success());
    }

    /// Calls that were judged.
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// The share of calls that succeeded.
    pub fn success_share(&self) -> f64 {
        self.successes as f64 / self.calls.max(1) as f64
    }

    /// How often a verb had a result.
    pub fn count(&self, verb: &str, column: &str) -> u64 {
        self.counts.iter().filter(|((v, c), _)| *v == verb && c == column).map(|(_, count)| count).sum()
    }

    /// Cells of the matrix that are not empty.
    pub fn cells(&self) -> usize {
        self.counts.len()
    }

    fn columns(&self) -> Vec<&str> {
        let mut columns: Vec<&str> = self.counts.keys().map(|(_, column)| column.as_str()).collect();
        columns.sort_unstable_by_key(|column| (*column != "ok", *column != "elsewhere", *column));
        columns.dedup();
        columns
    }

    /// The matrix of verbs and results, as text.
    pub fn matrix(&self) -> String {
        let columns = self.columns();
        let mut text = format!("{:10}", "");
        for column in &columns {
            let _ = write!(text, "{column:>11}");
        }
        for verb in Call::VERBS {
            let _ = write!(text, "\n{verb:10}");
            for column in &columns {
                match self.count(verb, column) {
                    0 => text.push_str("          ."),
                    count => {
                        let _ = write!(text, "{count:>11}");
                    }
                }
            }
        }
        text
    }

    /// The matrix as JSON.
    pub fn json(&self) -> String {
        let row = |verb: &&str| {
            let cells = self.counts.iter().filter(|((v, _), _)| v == verb);
            let cells: Vec<_> = cells.map(|((_, column), count)| format!("\"{column}\": {count}")).collect();
            format!("\"{verb}\": {{{}}}", cells.join(", "))
        };
        format!("{{{}}}", Call::VERBS.iter().map(row).collect::<Vec<_>>().join(", "))
    }
}
