//! Bands: between which figures something lies, over a number such as of CPUs; and published points beside.

use super::scale::{short, ticks, told};
use super::{Axis, Entry, Margins, across, frame, pixels};
use crate::output::{Table, table};
use maud::{Markup, html};

/// Ranges over a number, and lines. Six of both together have a colour of their own.
#[derive(Debug)]
pub struct Bands {
    /// What is across. Each doubling is as wide as every other.
    pub across: Axis,
    /// What is up.
    pub up: Axis,
    /// Names, and between which figures something was, ascending.
    pub bands: Vec<(String, Vec<Span>)>,
    /// Names, and numbers and what others published there, ascending.
    pub lines: Vec<(String, Vec<(f64, f64)>)>,
}

/// A number, and the lowest and the highest there.
pub type Span = (f64, f64, f64);

const HEIGHT: f64 = 300.0;
/// Of the inner drawing, whose shape is its area's.
const WIDE: f64 = 1000.0;

impl Bands {
    pub(super) fn legend(&self) -> Vec<Entry> {
        let class = |i: usize| format!("c{}", i % 6);
        let names = self.bands.iter().map(|(name, _)| (name, false)).chain(self.lines.iter().map(|(name, _)| (name, true)));
        names.enumerate().map(|(i, (name, is_line))| Entry { class: class(i), name: name.clone(), is_line }).collect()
    }

    /// All numbers across, ascending.
    fn numbers(&self) -> Vec<f64> {
        let bands = self.bands.iter().flat_map(|(_, points)| points.iter().map(|(x, ..)| *x));
        let mut numbers: Vec<_> = bands.chain(self.lines.iter().flat_map(|(_, points)| points.iter().map(|(x, _)| *x))).collect();
        numbers.sort_by(f64::total_cmp);
        numbers.dedup();
        numbers
    }

    fn max(&self) -> f64 {
        let bands = self.bands.iter().flat_map(|(_, points)| points.iter().map(|(.., high)| *high));
        bands.chain(self.lines.iter().flat_map(|(_, points)| points.iter().map(|(_, y)| *y))).fold(0.0, f64::max)
    }

    pub(super) fn figures(&self) -> Table {
        let numbers = self.numbers();
        let names: Vec<_> = numbers.iter().map(|x| told(*x)).collect();
        let columns: Vec<_> = std::iter::once("").chain(names.iter().map(String::as_str)).collect();
        let mut table = table(&columns, 1);
        for (name, points) in &self.bands {
            let cell =
                |x: &f64| points.iter().find(|point| point.0 == *x).map_or(String::new(), |(_, low, high)| range(*low, *high));
            table.add_row(std::iter::once(name.clone()).chain(numbers.iter().map(cell)));
        }
        for (name, points) in &self.lines {
            let cell = |x: &f64| points.iter().find(|point| point.0 == *x).map_or(String::new(), |(_, y)| told(*y));
            table.add_row(std::iter::once(name.clone()).chain(numbers.iter().map(cell)));
        }
        table.note = format!("{}, by {}", self.up.0, self.across.0);
        table
    }

    pub(super) fn draw(&self, title: &str) -> Markup {
        let numbers = self.numbers();
        let (first, last) = (numbers.first().copied().unwrap_or(1.0).max(1.0), numbers.last().copied().unwrap_or(1.0));
        let doublings = (last / first).log2().max(f64::MIN_POSITIVE);
        let x = |number: f64| (number.max(first) / first).log2() / doublings;
        let ticks = ticks(self.max());
        let end = ticks.last().copied().unwrap_or(1.0);
        let y = |value: f64| HEIGHT * (1.0 - value / end);
        let margins = Margins { left: 56, right: 24, top: 24, bottom: 44 };
        let at = |number: f64, value: f64| format!("{},{}", pixels(x(number) * WIDE), pixels(y(value)));
        let around = |points: &[Span]| {
            let there = points.iter().map(|(number, low, _)| at(*number, *low));
            there.chain(points.iter().rev().map(|(number, _, high)| at(*number, *high))).collect::<Vec<_>>().join(" ")
        };
        let along =
            |points: &[(f64, f64)]| points.iter().map(|(number, value)| at(*number, *value)).collect::<Vec<_>>().join(" ");
        let legend = self.legend();
        let (of_bands, of_lines) = legend.split_at(self.bands.len());
        let inside = html! {
            text.axis x=(-(margins.left as i32)) y="-14" { (self.up.0) }
            @for tick in &ticks { text."axis end" x="-8" y=(pixels(y(*tick) + 4.0)) { (short(*tick)) } }
            @for tick in &ticks { line.grid x1="0" x2="100%" y1=(pixels(y(*tick))) y2=(pixels(y(*tick))) {} }
            @for number in &numbers { text."axis middle" x=(across(x(*number))) y=(pixels(HEIGHT + 16.0)) { (short(*number)) } }
            svg x="0" y="0" width="100%" height=(HEIGHT) viewBox={ "0 0 " (WIDE) " " (HEIGHT) } preserveAspectRatio="none" {
                @for ((_, points), entry) in self.bands.iter().zip(of_bands) {
                    polygon class={ "band " (entry.class) } points=(around(points)) { title { (entry.name) } }
                }
                @for ((_, points), entry) in self.lines.iter().zip(of_lines) {
                    polyline class={ "published " (entry.class) } points=(along(points)) { title { (entry.name) } }
                }
            }
            @for ((name, points), entry) in self.bands.iter().zip(of_bands) {
                @for (number, low, high) in points {
                    @for value in [low, high] {
                        circle class={ "mark " (entry.class) } cx=(across(x(*number))) cy=(pixels(y(*value))) r="3" {
                            title { (name) ", " (told(*number)) ": " (range(*low, *high)) }
                        }
                    }
                }
            }
            @for ((name, points), entry) in self.lines.iter().zip(of_lines) {
                @for (number, value) in points {
                    circle class={ "mark " (entry.class) } cx=(across(x(*number))) cy=(pixels(y(*value))) r="4" {
                        title { (name) ", " (told(*number)) ": " (told(*value)) }
                    }
                }
            }
            line.base x1="0" x2="100%" y1=(HEIGHT) y2=(HEIGHT) {}
            text."axis middle" x="50%" y=(pixels(HEIGHT + 36.0)) { (self.across.0) }
        };
        frame(title, "bands", &margins, HEIGHT, &inside)
    }
}

fn range(low: f64, high: f64) -> String {
    format!("{} to {}", told(low), told(high))
}
