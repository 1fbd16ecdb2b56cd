//! Figures, and how they are shown.

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};
use std::collections::HashMap;

/// A line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub name: &'static str,
    pub unit: Unit,
    pub threads: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Ns,
    Bytes,
    /// Summed over the rounds, not a median.
    Count,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Unit::Ns => "ns",
            Unit::Bytes => "bytes",
            Unit::Count => "count",
        }
    }
}

/// NaN if there are none; what is NaN is left out.
pub fn median(mut samples: Vec<f64>) -> f64 {
    samples.retain(|sample| !sample.is_nan());
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
}

/// All rounds' figures.
pub struct Results {
    samples: HashMap<(&'static str, usize, &'static str), Vec<f64>>,
    /// The rows that have figures, in the order in which they came.
    rows: Vec<Row>,
    contenders: Vec<&'static str>,
    sizes: Vec<usize>,
}

impl Results {
    pub fn new(contenders: Vec<&'static str>) -> Self {
        Self { contenders, samples: HashMap::new(), rows: vec![], sizes: vec![] }
    }

    pub fn add(&mut self, row: Row, n: usize, contender: &'static str, figure: f64) {
        if !self.rows.iter().any(|known| known.name == row.name) {
            self.rows.push(row);
        }
        if !self.sizes.contains(&n) {
            self.sizes.push(n);
        }
        self.samples.entry((row.name, n, contender)).or_default().push(figure);
    }

    pub fn sizes(&self) -> &[usize] {
        &self.sizes
    }

    pub fn contenders(&self) -> &[&'static str] {
        &self.contenders
    }

    fn is_sum(&self, name: &str) -> bool {
        self.rows.iter().any(|row| row.name == name && row.unit == Unit::Count)
    }

    /// The median, or the sum of what is counted.
    pub fn get(&self, name: &'static str, n: usize, contender: &'static str) -> Option<f64> {
        let samples = self.samples.get(&(name, n, contender))?;
        let figure = if self.is_sum(name) { samples.iter().sum() } else { median(samples.clone()) };
        Some(figure).filter(|figure| !figure.is_nan())
    }

    /// From the lowest to the highest round, as a part of the median.
    fn spread(&self, name: &'static str, n: usize, contender: &'static str) -> Option<f64> {
        let samples = self.samples.get(&(name, n, contender))?;
        let lowest = samples.iter().copied().fold(f64::INFINITY, f64::min);
        let highest = samples.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let median = self.get(name, n, contender)?;
        (!self.is_sum(name) && median > 0.0).then(|| (highest - lowest) / median)
    }

    fn ratio(&self, name: &'static str, n: usize, contender: &'static str, to: &'static str) -> Option<f64> {
        let to = self.get(name, n, to).filter(|&to| to > 0.0)?;
        Some(self.get(name, n, contender)? / to)
    }
}

pub const OURS: &str = "RangeTree";
pub const BTREE: &str = "BTreeMap";
pub const LOCKED: &str = "RwLock<BTreeMap>";

/// A figure short enough for a column.
pub fn short(figure: f64) -> String {
    match figure.abs() {
        size if size < 10.0 => format!("{figure:.2}"),
        size if size < 100.0 => format!("{figure:.1}"),
        _ => format!("{figure:.0}"),
    }
}

/// A column per contender; `~` after a figure whose rounds lie more than a quarter of it apart.
pub fn print_table(results: &Results) {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    let mut header = vec!["operation".to_string(), "n".into(), "threads".into()];
    header.extend(results.contenders.iter().map(ToString::to_string));
    header.extend([format!("{OURS} / {BTREE}"), format!("{OURS} / {LOCKED}")]);
    table.set_header(header);
    for row in &results.rows {
        for &n in &results.sizes {
            table.add_row(cells(results, *row, n));
        }
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
    println!("ns, unless bytes or holes; medians of rounds, `~`: the rounds lie more than a quarter of the median apart.");
}

fn cells(results: &Results, row: Row, n: usize) -> Vec<String> {
    let mut cells = vec![row.name.to_string(), n.to_string(), row.threads.to_string()];
    for contender in &results.contenders {
        let is_wide = results.spread(row.name, n, contender).is_some_and(|spread| spread > 0.25);
        let figure = results.get(row.name, n, contender);
        cells.push(figure.map_or(String::new(), |figure| short(figure) + if is_wide { "~" } else { "" }));
    }
    for to in [BTREE, LOCKED] {
        cells.push(results.ratio(row.name, n, OURS, to).map_or(String::new(), |ratio| format!("{ratio:.2}")));
    }
    cells
}

fn json_number(number: Option<f64>) -> String {
    number.map_or("null".into(), |number| format!("{number:.3}"))
}

/// An object a line. `value` is in `unit`; `ns` is null where that is not a time.
pub fn print_json(results: &Results) {
    for row in &results.rows {
        for &n in &results.sizes {
            for contender in &results.contenders {
                if results.samples.contains_key(&(row.name, n, contender)) {
                    println!("{}", json_line(results, *row, n, contender));
                }
            }
        }
    }
}

fn json_line(results: &Results, row: Row, n: usize, contender: &'static str) -> String {
    let Row { name, unit, threads } = row;
    let value = results.get(name, n, contender);
    let ns = json_number(value.filter(|_| unit == Unit::Ns));
    let to_btree = json_number(results.ratio(name, n, contender, BTREE));
    let to_locked = json_number(results.ratio(name, n, contender, LOCKED));
    let spread = json_number(results.spread(name, n, contender));
    let (unit, value) = (unit.name(), json_number(value));
    [
        format!(r#"{{"op":"{name}","contender":"{contender}","n":{n},"threads":{threads},"ns":{ns}"#),
        format!(r#""ratio_to_btreemap":{to_btree},"ratio_to_rwlock_btreemap":{to_locked}"#),
        format!(r#""spread":{spread},"unit":"{unit}","value":{value}}}"#),
    ]
    .join(",")
}
