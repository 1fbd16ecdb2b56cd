//! An address space over time: a rectangle for each mapping.
//!
//! Only what is mapped at some time takes room up and down, and less than in proportion: between the smallest and the largest mapping of a program there are
//! ten powers of ten. The ends of all mappings divide the addresses into parts; a part's height grows with the logarithm of its
//! size. Neighbours make a region, whose parts share what the region gets: by their number and size, so that no region takes all the room because one of its ends moves.

use super::scale::{short, ticks, time};
use super::{Axis, Entry, Margins, across, frame, pixels};
use maud::{Markup, html};

/// A mapping for some time.
#[derive(Clone, Debug)]
pub struct Area {
    /// Its first byte.
    pub low: u64,
    /// The byte after its last.
    pub high: u64,
    /// When it comes, in nanoseconds.
    pub from_ns: u64,
    /// When it goes.
    pub to_ns: u64,
    /// Which of the kinds it is.
    pub kind: usize,
    /// What else is to be said of it.
    pub told: String,
}

/// What was mapped when.
#[derive(Debug)]
pub struct Spaces {
    /// What kinds there are; six at most.
    pub kinds: Vec<String>,
    /// How long it lasted, in nanoseconds.
    pub end_ns: u64,
    /// In any order. None covers another at a time.
    pub areas: Vec<Area>,
}

const HEIGHT: f64 = 440.0;
/// A hole this large divides what was placed apart; above it an address is written.
const FAR: u64 = 1 << 30;
/// The room that a hole takes, beside regions of some tens.
const HOLE: f64 = 1.0;
const FAR_HOLE: f64 = 5.0;
/// The room for a region's parts because of their number, at most.
const MOST: f64 = 100.0;
/// What is less high than this has no stroke around it, in pixels.
const THIN: f64 = 3.0;
/// Addresses are not written nearer to each other, in pixels.
const LETTER: f64 = 14.0;

/// Addresses from one to the next at which something begins or ends, and the room they take, in parts of the whole.
struct Part {
    low: u64,
    high: u64,
    is_mapped: bool,
    room: f64,
}

impl Spaces {
    /// All parts, ascending.
    fn parts(&self) -> Vec<Part> {
        let mut ends: Vec<(u64, i64)> = self.areas.iter().flat_map(|area| [(area.low, 1), (area.high, -1)]).collect();
        ends.sort_unstable();
        let mut parts: Vec<Part> = Vec::new();
        let mut depth = 0;
        for pair in ends.windows(2) {
            let ((low, step), (high, _)) = (pair[0], pair[1]);
            depth += step;
            if low < high {
                parts.push(Part { low, high, is_mapped: depth > 0, room: 0.0 });
            }
        }
        parts.chunk_by_mut(|one, next| one.is_mapped && next.is_mapped).for_each(give_room);
        let all: f64 = parts.iter().map(|part| part.room).sum();
        parts.iter_mut().for_each(|part| part.room /= all);
        parts
    }

    pub(super) fn legend(&self) -> Vec<Entry> {
        let is_there = |kind: &usize| self.areas.iter().any(|area| area.kind == *kind);
        let entry = |i: usize| Entry { class: format!("c{i}"), name: self.kinds[i].clone(), is_line: false };
        (0..self.kinds.len()).filter(is_there).map(entry).collect()
    }

    pub(super) fn draw(&self, title: &str) -> Markup {
        let parts = self.parts();
        // Low addresses are at the bottom.
        let mut below = 0.0;
        let mut lows = Vec::new();
        for part in &parts {
            lows.push((part.low, below));
            below += part.room;
        }
        let y = |address: u64| {
            let at = lows.partition_point(|(low, _)| *low < address);
            HEIGHT * (1.0 - lows.get(at).map_or(below, |(_, below)| *below))
        };
        let margins = Margins { left: 104, right: 12, top: 24, bottom: 44 };
        let (end, unit) = time(self.end_ns, self.end_ns);
        let ticks: Vec<_> = ticks(end).into_iter().filter(|tick| *tick <= end).collect();
        let of_kind = |kind: usize| self.areas.iter().filter(move |area| area.kind == kind);
        let inside = html! {
            text.axis x=(-(margins.left as i32)) y="-14" { "address, lowest at the bottom" }
            @for (address, at) in self.addresses(&parts, y) { text."axis end code" x="-8" y=(pixels(at)) { (format!("{address:x}")) } }
            @for tick in &ticks {
                line.grid x1=(across(tick / end)) x2=(across(tick / end)) y1="0" y2=(HEIGHT) {}
                text."axis middle" x=(across(tick / end)) y=(pixels(HEIGHT + 16.0)) { (short(*tick)) }
            }
            @for kind in 0..self.kinds.len() {
                g class={ "c" (kind) } { @for area in of_kind(kind) { (self.area(area, y(area.low), y(area.high))) } }
            }
            line.base x1="0" x2="100%" y1=(HEIGHT) y2=(HEIGHT) {}
            text."axis middle" x="50%" y=(pixels(HEIGHT + 36.0)) { (Axis(format!("time of the recording, {unit}")).0) }
        };
        frame(title, "map", &margins, HEIGHT, &inside)
    }

    fn area(&self, area: &Area, bottom: f64, top: f64) -> Markup {
        let share = |ns: u64| ns as f64 / self.end_ns.max(1) as f64;
        let (from, wide) = (share(area.from_ns), share(area.to_ns) - share(area.from_ns));
        let high = (bottom - top).max(0.5);
        let class = if high < THIN { "mark thin" } else { "mark" };
        html! {
            rect class=(class) x=(across(from)) y=(pixels(top)) width=(across(wide)) height=(pixels(high)) { title { (area.told) } }
        }
    }

    /// Where regions begin, after holes, as far as there is room to write it: address, and pixel.
    fn addresses(&self, parts: &[Part], y: impl Fn(u64) -> f64) -> Vec<(u64, f64)> {
        let is_begin = |i: &usize| parts[*i].is_mapped && (*i == 0 || !parts[*i - 1].is_mapped);
        let is_far = |i: usize| i == 0 || parts[i - 1].high - parts[i - 1].low >= FAR;
        let begins: Vec<_> = (0..parts.len()).filter(is_begin).collect();
        let (far, near): (Vec<_>, Vec<_>) = begins.into_iter().partition(|i| is_far(*i));
        let mut written: Vec<(u64, f64)> = Vec::new();
        for i in far.into_iter().chain(near) {
            let at = y(parts[i].low);
            if written.iter().all(|(_, other)| (other - at).abs() >= LETTER) {
                written.push((parts[i].low, at));
            }
        }
        written
    }
}

/// Among the parts of a region, or to a hole.
fn give_room(region: &mut [Part]) {
    let pages = |part: &Part| ((part.high - part.low) / spile::PAGE).max(1) as f64;
    if let [hole] = region
        && !hole.is_mapped
    {
        hole.room = if hole.high - hole.low >= FAR { FAR_HOLE } else { HOLE };
        return;
    }
    let of_size = region.iter().map(pages).sum::<f64>().log2() / 2.0;
    let of_region = 2.0 + of_size + (2.0 * (region.len() as f64).powf(0.75)).min(MOST);
    let weight = |part: &Part| 1.0 + pages(part).log2();
    let all: f64 = region.iter().map(weight).sum();
    region.iter_mut().for_each(|part| part.room = of_region * weight(part) / all);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(ranges: &[(u64, u64)]) -> Spaces {
        let area = |&(low, high): &(u64, u64)| Area { low, high, from_ns: 0, to_ns: 1, kind: 0, told: String::new() };
        Spaces { kinds: vec!["a".into()], end_ns: 1, areas: ranges.iter().map(area).collect() }
    }

    #[test]
    fn only_what_is_mapped_takes_room() {
        // Two neighbours, then a hole of a terabyte, then one that begins twice: it grew.
        let parts =
            space(&[(0x1000, 0x2000), (0x2000, 0x4000), (1 << 40, (1 << 40) + 0x1000), (1 << 40, (1 << 40) + 0x3000)]).parts();
        let ends: Vec<_> = parts.iter().map(|part| (part.low, part.is_mapped)).collect();
        assert_eq!(ends, [(0x1000, true), (0x2000, true), (0x4000, false), (1 << 40, true), ((1 << 40) + 0x1000, true)]);
        assert!((parts.iter().map(|part| part.room).sum::<f64>() - 1.0).abs() < 1e-9);
        assert!(parts[1].room > parts[0].room, "the larger gets more");
        assert!(parts[2].room < 0.6, "a terabyte of nothing takes the most room");
    }

    #[test]
    fn addresses_do_not_overlap() {
        let ranges: Vec<_> = (0..300).map(|i| (i * 0x10_000, i * 0x10_000 + 0x1000)).collect();
        let space = space(&ranges);
        let parts = space.parts();
        let written = space.addresses(&parts, |address| address as f64 / 0x10_000 as f64);
        assert!(written.len() > 10 && written.len() < 300 / LETTER as usize + 2, "{}", written.len());
    }
}
