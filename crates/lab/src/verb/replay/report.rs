//! What a replay found, as a report.

use super::{Row, table};
use crate::output::grouped;
use crate::report::chart::bars::{Bars, Form};
use crate::report::chart::scale::{bytes, time, told};
use crate::report::chart::spaces::{Area, Spaces};
use crate::report::chart::{Axis, Chart, Plot};
use crate::report::{Report, Section};
use crate::timeline::{Sort, Stay, Timeline};
use std::ops::Range;

/// At so many moments of a recording its mappings are looked at.
pub(super) const MOMENTS: usize = 200;
/// So many address spaces of a recording are drawn.
const SPACES: usize = 2;
/// More rectangles than this nobody tells apart; the moments are made fewer.
const RECTANGLES: usize = 4000;
/// So many moments become one at most. It divides [`MOMENTS`].
const COARSEST: usize = 8;

/// A figure of a design, made of counters.
struct Measure {
    subject: &'static str,
    unit: &'static str,
    /// By this one the others are divided, and multiplied by that.
    per: (&'static str, f64),
    parts: &'static [(&'static str, &'static str)],
    how: &'static str,
}

const MEASURES: &[Measure] = &[
    Measure {
        subject: "Faults that left the fast way",
        unit: "per 1,000 faults that looked for their mapping",
        per: ("lookups", 1000.0),
        parts: &[
            ("miss_contended", "contended"),
            ("miss_grow", "a mapping must grow first"),
            ("miss_no_vma", "no mapping"),
            ("miss_stale", "stale"),
        ],
        how: "Counted in the core, where the fast way of a fault ends, by cause.",
    },
    Measure {
        subject: "Waits of changes",
        unit: "waits per change",
        per: ("writes", 1.0),
        parts: &[
            ("grace_waits", "for a grace period"),
            ("hold_waits", "until faults let go"),
            ("write_waits", "for the right to change"),
        ],
        how: "Counted in the core, each time the right to change was given, and each time a change waited.",
    },
    Measure {
        subject: "Memory that changes leave to grace periods",
        unit: "bytes of mappings per change",
        per: ("writes", 1.0),
        parts: &[("deferred_bytes", "bytes")],
        how: "Counted in the core: mappings that were replaced and may still be read.",
    },
];

/// Of `rows`. For each recording it is said which of them are of it, and what was mapped when.
pub(super) fn report(rows: &[Row], recordings: &[(Range<usize>, Timeline)]) -> Report {
    let all = Section {
        heading: "All recordings".into(),
        text: "Recorded programs went through spile, call by call and fault by fault, in the order in which the kernel made the changes; what the \
               kernel had is compared with what spile has. Where there is a slash, so many were good, of so many."
            .into(),
        tables: vec![table(rows)],
        charts: Vec::new(),
    };
    let sections = recordings.iter().map(|(range, timeline)| section(&rows[range.clone()], timeline));
    Report::new("Recorded programs through locking designs", std::iter::once(all).chain(sections).collect())
}

fn section(rows: &[Row], timeline: &Timeline) -> Section {
    let first = &rows[0];
    let mut texts = vec![format!("{} steps. {}", grouped(first.report.steps as u64), agreement(rows))];
    let mut charts = maps(&first.trace, timeline);
    for measure in MEASURES {
        match measure.comparison(rows).told(measure.how) {
            Told::Chart(chart) => charts.push(chart),
            Told::Sentence(sentence) => texts.push(sentence),
        }
    }
    Section { heading: first.trace.clone(), text: texts.join("\n\n"), tables: Vec::new(), charts }
}

fn agreement(rows: &[Row]) -> String {
    let bad: Vec<_> = rows.iter().filter(|row| !row.report.agrees()).map(|row| row.design).collect();
    let torn =
        rows.iter().find_map(|row| row.torn.as_ref()).map(|torn| format!(" The recording is torn: {torn}.")).unwrap_or_default();
    match bad.as_slice() {
        [] => format!("Every design that was asked agrees with the kernel.{torn}"),
        bad => format!("These differ from the kernel: {}.{torn}", bad.join(", ")),
    }
}

impl Measure {
    fn comparison(&self, rows: &[Row]) -> Comparison {
        let mut comparison =
            Comparison::of(self.subject, self.unit, self.parts.iter().map(|(_, name)| name.to_string()).collect());
        for row in rows {
            let count = |label: &str| row.report.counters.get(label).copied().unwrap_or(0) as f64;
            let (per, scale) = self.per;
            let value = |&(label, _): &(&str, _)| Some(count(label) * scale / count(per).max(1.0));
            comparison.groups.push((row.design.to_string(), self.parts.iter().map(value).collect()));
        }
        comparison
    }
}

/// Figures of designs.
struct Comparison {
    subject: &'static str,
    unit: &'static str,
    series: Vec<String>,
    groups: Vec<(String, Vec<Option<f64>>)>,
}

enum Told {
    Chart(Chart),
    /// Designs do not differ, or there is one: a chart would show nothing.
    Sentence(String),
}

impl Comparison {
    fn of(subject: &'static str, unit: &'static str, series: Vec<String>) -> Self {
        Self { subject, unit, series, groups: Vec::new() }
    }

    fn told(self, how: &str) -> Told {
        let Self { subject, unit, series, groups } = self;
        let sum = |values: &[Option<f64>]| values.iter().flatten().sum::<f64>();
        let sums: Vec<_> = groups.iter().map(|(_, values)| sum(values)).collect();
        let (low, high) = (sums.iter().copied().fold(f64::INFINITY, f64::min), sums.iter().copied().fold(0.0, f64::max));
        let who =
            |value: f64| some(groups.iter().zip(&sums).filter(|(_, sum)| **sum == value).map(|((design, _), _)| design.as_str()));
        if groups.windows(2).all(|pair| pair[0].1 == pair[1].1) {
            let amount = if high == 0.0 { "none".to_string() } else { format!("{} {unit}", told(high)) };
            let who = if groups.len() > 2 { "every design".into() } else { who(high) };
            return Told::Sentence(format!("{subject}: {amount}, with {who}."));
        }
        let title = format!("{subject}: from {} ({}) to {} ({})", told(low), who(low), told(high), who(high));
        let form = if series.len() > 1 { Form::Stacked } else { Form::Beside };
        let plot = Plot::Bars(Bars { axis: Axis(unit.into()), form, group: "design".into(), series, groups });
        Told::Chart(Chart { title, caption: how.into(), plot })
    }
}

/// Names, if they are few.
fn some<'a>(names: impl Iterator<Item = &'a str>) -> String {
    match names.collect::<Vec<_>>().as_slice() {
        [one] => one.to_string(),
        [one, other] => format!("{one} and {other}"),
        all => format!("{} designs", all.len()),
    }
}

/// The address spaces in which most was mapped for longest.
fn maps(trace: &str, timeline: &Timeline) -> Vec<Chart> {
    let weight = |stays: &[Stay]| stays.iter().map(|stay| stay.end - stay.first).sum::<usize>();
    let mut spaces: Vec<_> = timeline.spaces.iter().filter(|(_, stays)| weight(stays) > 0).collect();
    let count = spaces.len();
    spaces.sort_by_key(|(mm, stays)| (std::cmp::Reverse(weight(stays)), **mm));
    spaces.truncate(SPACES);
    spaces.into_iter().map(|(mm, stays)| map(trace, timeline, (*mm, count), stays)).collect()
}

fn map(trace: &str, timeline: &Timeline, (mm, count): (usize, usize), stays: &[Stay]) -> Chart {
    let (stays, step) = thinned(stays);
    let present = |moment: usize| stays.iter().filter(|stay| stay.first <= moment && moment < stay.end).count();
    let counts = (0..timeline.moments).step_by(step).map(present);
    let (first, most) = (counts.clone().find(|count| *count > 0).unwrap_or(0), counts.max().unwrap_or(0));
    let seen = match first == most {
        true => format!("{} mappings", grouped(most as u64)),
        false => format!("{} mappings at first, {} at most", grouped(first as u64), grouped(most as u64)),
    };
    let which = match count {
        1 => format!("The address space of {trace}."),
        _ => format!("Of the {count} address spaces of {trace}, one of those with most mappings for longest."),
    };
    let caption = format!(
        "{which} A rectangle is a mapping, as it was at the end of each of {} equal parts of the recording; what comes and goes \
         within one is not seen. Up and down there is room only for what is mapped at some time, and for large mappings less than in proportion.",
        timeline.moments / step
    );
    let area = |stay: &Stay| area(timeline, stay);
    let kinds = Sort::ALL.map(|sort| sort.label().to_string()).to_vec();
    let plot = Spaces { kinds, end_ns: timeline.end_ns, areas: stays.iter().map(area).collect() };
    Chart { title: format!("Address space {mm} over time: {seen}"), caption, plot: Plot::Spaces(plot) }
}

/// Only what was there at every so manieth moment, so that it can be looked at.
fn thinned(stays: &[Stay]) -> (Vec<Stay>, usize) {
    let at = |step: usize| {
        // The moments are the last of each `step`; what is seen at one was there in the whole of its part.
        let down = |moment: usize| moment / step * step;
        let thin = |stay: &Stay| Stay { first: down(stay.first), end: down(stay.end), ..stay.clone() };
        stays.iter().map(thin).filter(|stay| stay.first < stay.end).collect::<Vec<_>>()
    };
    let mut step = 1;
    let mut thin = at(step);
    while thin.len() > RECTANGLES && step < COARSEST {
        step *= 2;
        thin = at(step);
    }
    (thin, step)
}

fn area(timeline: &Timeline, stay: &Stay) -> Area {
    let Stay { mapping, sort, first, end } = stay;
    let (low, high) = (mapping.range.start(), mapping.range.end());
    let (from_ns, to_ns) = (timeline.ns(*first), timeline.ns(*end));
    let ((from, _), (to, unit)) = (time(from_ns, timeline.end_ns), time(to_ns, timeline.end_ns));
    let told = format!("{mapping}\n{}, {}, {} to {} {unit}", sort.label(), bytes(high - low), told(from), told(to));
    let kind = Sort::ALL.iter().position(|of| of == sort).expect("all are listed");
    Area { low, high, from_ns, to_ns, kind, told }
}
