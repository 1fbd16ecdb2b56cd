//! Bars: a figure for each design, or several.

use super::scale::{short, ticks, told};
use super::{Axis, Entry, Margins, across, frame, pixels};
use crate::output::{Table, table};
use maud::{Markup, html};

/// How the bars of a group stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Beside each other; series come in an order, such as of numbers of CPUs, and are darker one after the other. Three can be told apart.
    Beside,
    /// End to end; series are parts of a whole. Six have a colour of their own.
    Stacked,
}

/// Groups of bars, one below the other.
#[derive(Debug)]
pub struct Bars {
    /// What their length is.
    pub axis: Axis,
    /// How they stand.
    pub form: Form,
    /// What a group is, such as a design.
    pub group: String,
    /// What the bars of a group are.
    pub series: Vec<String>,
    /// Groups, and for each series a value of at least zero, if there is one.
    pub groups: Vec<(String, Vec<Option<f64>>)>,
}

const TOP: f64 = 4.0;
const BETWEEN: f64 = 8.0;
/// So many letters of a group's name are shown.
const LETTERS: usize = 24;

/// A bar: where it begins and how long it is, in shares of the axis.
struct Bar {
    series: usize,
    top: f64,
    from: f64,
    long: f64,
    value: f64,
}

impl Bars {
    fn thickness(&self) -> f64 {
        if self.form == Form::Beside && self.series.len() > 1 { 12.0 } else { 16.0 }
    }

    fn group_height(&self) -> f64 {
        let lines = if self.form == Form::Beside { self.series.len().max(1) } else { 1 };
        lines as f64 * (self.thickness() + 1.0) + BETWEEN
    }

    /// The length of what is drawn for a group, longest bar or all together.
    fn length(&self, values: &[Option<f64>]) -> f64 {
        let values = values.iter().flatten().copied();
        if self.form == Form::Beside { values.fold(0.0, f64::max) } else { values.sum() }
    }

    fn max(&self) -> f64 {
        self.groups.iter().map(|(_, values)| self.length(values)).fold(0.0, f64::max)
    }

    fn class(&self, series: usize) -> String {
        match self.form {
            // The last is the darkest, whatever their number: it is what the chart is about.
            Form::Beside if self.series.len() > 1 => format!("s{}", (series + 3).saturating_sub(self.series.len()).min(2)),
            Form::Beside => "c0".into(),
            Form::Stacked => format!("c{}", series % 6),
        }
    }

    /// What is drawn of the series, if there are several: a part that is nothing everywhere is left out, and the others keep their colours.
    pub(super) fn legend(&self) -> Vec<Entry> {
        let has_value = |i: usize| self.groups.iter().any(|(_, values)| values.get(i).is_some_and(|value| *value > Some(0.0)));
        let is_there = |i: &usize| self.series.len() > 1 && (self.form == Form::Beside || has_value(*i));
        let entry = |i: usize| Entry { class: self.class(i), name: self.series[i].clone(), is_line: false };
        (0..self.series.len()).filter(is_there).map(entry).collect()
    }

    pub(super) fn figures(&self) -> Table {
        let columns: Vec<_> = std::iter::once(&self.group).chain(&self.series).map(String::as_str).collect();
        let mut table = table(&columns, 1);
        for (name, values) in &self.groups {
            let cells = (0..self.series.len()).map(|i| values.get(i).copied().flatten().map_or(String::new(), told));
            table.add_row(std::iter::once(name.clone()).chain(cells));
        }
        table.note = self.axis.0.clone();
        table
    }

    /// The bars of a group whose top is there.
    fn bars(&self, values: &[Option<f64>], top: f64, end: f64) -> Vec<Bar> {
        let mut from = 0.0;
        let mut bars = Vec::new();
        for (series, value) in values.iter().enumerate().filter_map(|(i, value)| Some((i, (*value)?))) {
            let long = value / end;
            match self.form {
                Form::Beside => {
                    bars.push(Bar { series, top: top + series as f64 * (self.thickness() + 1.0), from: 0.0, long, value });
                }
                Form::Stacked if value > 0.0 => {
                    bars.push(Bar { series, top, from, long, value });
                    from += long;
                }
                Form::Stacked => {}
            }
        }
        bars
    }

    pub(super) fn draw(&self, title: &str) -> Markup {
        let ticks = ticks(self.max());
        let end = ticks.last().copied().unwrap_or(1.0);
        let height = TOP + self.groups.len() as f64 * self.group_height();
        let letters = self.groups.iter().map(|(name, _)| name.chars().count().min(LETTERS)).max().unwrap_or(0);
        let margins = Margins { left: letters * 7 + 14, right: 56, top: 0, bottom: 44 };
        let top = |i: usize| TOP + i as f64 * self.group_height();
        let middle = |i: usize| top(i) + (self.group_height() - BETWEEN) / 2.0 + 4.0;
        let inside = html! {
            @for (i, (name, _)) in self.groups.iter().enumerate() {
                text.end x="-10" y=(pixels(middle(i))) { (cut(name)) @if cut(name) != *name { title { (name) } } }
            }
            @for tick in &ticks {
                line.grid x1=(across(tick / end)) x2=(across(tick / end)) y1="0" y2=(pixels(height)) {}
                text."axis middle" x=(across(tick / end)) y=(pixels(height + 16.0)) { (short(*tick)) }
            }
            @for (i, (name, values)) in self.groups.iter().enumerate() {
                @for bar in self.bars(values, top(i), end) { (self.bar(name, &bar)) }
                @if self.form == Form::Stacked { (self.label(self.length(values), top(i), end)) }
            }
            line.base x1="0" x2="0" y1="0" y2=(pixels(height)) {}
            text."axis middle" x="50%" y=(pixels(height + 36.0)) { (self.axis.0) }
        };
        let class = if self.form == Form::Stacked { "stack" } else { "beside" };
        frame(title, class, &margins, height, &inside)
    }

    fn bar(&self, group: &str, bar: &Bar) -> Markup {
        let class = format!("mark {}", self.class(bar.series));
        html! {
            rect class=(class) x=(across(bar.from)) y=(pixels(bar.top)) width=(across(bar.long)) height=(pixels(self.thickness())) {
                title { (group) ", " (self.series[bar.series]) ": " (told(bar.value)) }
            }
            @if self.form == Form::Beside { (self.label(bar.value, bar.top, bar.value / bar.long.max(f64::MIN_POSITIVE))) }
        }
    }

    /// The value, where the bar ends.
    fn label(&self, value: f64, top: f64, end: f64) -> Markup {
        let share = if value > 0.0 { value / end } else { 0.0 };
        html! { text.axis x=(across(share)) dx="5" y=(pixels(top + self.thickness() / 2.0 + 4.0)) { (told(value)) } }
    }
}

fn cut(name: &str) -> String {
    if name.chars().count() <= LETTERS { name.to_string() } else { name.chars().take(LETTERS - 1).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bars(form: Form) -> Bars {
        let groups =
            vec![("a".to_string(), vec![Some(1.0), None, Some(3.0)]), ("b".to_string(), vec![Some(0.0), Some(2.0), Some(6.0)])];
        let series = ["x", "y", "z"].map(String::from).to_vec();
        Bars { axis: Axis("n".into()), form, group: "who".into(), series, groups }
    }

    #[test]
    fn stacked_bars_stand_end_to_end() {
        let stacked = bars(Form::Stacked);
        assert_eq!(stacked.max(), 8.0);
        let ends: Vec<_> =
            stacked.bars(&stacked.groups[1].1, 0.0, 8.0).iter().map(|bar| (bar.from, bar.from + bar.long)).collect();
        assert_eq!(ends, [(0.0, 0.25), (0.25, 1.0)], "nothing takes no room");
    }

    #[test]
    fn bars_beside_each_other_do_not_touch() {
        let beside = bars(Form::Beside);
        assert_eq!(beside.max(), 6.0);
        let drawn = beside.bars(&beside.groups[0].1, 10.0, 6.0);
        assert_eq!(drawn.len(), 2, "what has no value has no bar");
        assert!(
            drawn[0].top + beside.thickness() < drawn[1].top && drawn[1].top + beside.thickness() < 10.0 + beside.group_height()
        );
    }
}
