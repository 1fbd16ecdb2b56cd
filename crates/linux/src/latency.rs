//! How long things took.
//!
//! **Guarantee.** To note a time takes one addition to a word that few others write: a signal handler may. Nothing allocates but the making of a [`Meter`].
//!
//! **Mechanism.** Times are counted by size: two classes for each power of two nanoseconds, for each of a few CPUs. What is told of a class is where it ends: at most half as much again.

use crate::host::{LANES, here};
use spile_sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::fmt;
use std::time::{Duration, Instant};

/// Powers of two that are told apart: from 2^6 ns to 2^36.
const SMALLEST: u32 = 6;
const CLASSES: usize = 60;

#[derive(Debug)]
#[repr(align(128))]
struct Lane([AtomicU64; CLASSES]);

/// Counts times.
#[derive(Debug)]
pub struct Meter(Box<[Lane]>);

impl Default for Meter {
    fn default() -> Self {
        Self((0..LANES).map(|_| Lane([const { AtomicU64::new(0) }; CLASSES])).collect())
    }
}

impl Meter {
    /// Does it, and notes how long that took.
    pub fn time<T>(&self, what: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let done = what();
        // Relaxed: a number, as where they are read.
        self.0[here()].0[class_of(start.elapsed())].fetch_add(1, Relaxed);
        done
    }

    /// What was noted so far.
    pub fn read(&self) -> Latency {
        let of = |class: usize| self.0.iter().map(|lane| lane.0[class].load(Relaxed)).sum();
        Latency(std::array::from_fn(of))
    }
}

fn class_of(time: Duration) -> usize {
    let ns = (time.as_nanos() as u64).max(1 << SMALLEST);
    let power = ns.ilog2();
    let half = ns >> (power - 1) & 1;
    (((power - SMALLEST) * 2) as usize + half as usize).min(CLASSES - 1)
}

/// Where a class ends.
fn end_of(class: usize) -> Duration {
    let start = 1u64 << (SMALLEST as usize + class / 2);
    Duration::from_nanos(if class.is_multiple_of(2) { start + start / 2 } else { 2 * start })
}

/// How long things took: how many took how long.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Latency([u64; CLASSES]);

impl Latency {
    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The time that this part of them did not exceed: 0.5 for the median, 1 for the longest. None, if there were none.
    ///
    /// # Panics
    ///
    /// If it is no part: below 0, or above 1.
    #[must_use]
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        assert!((0.0..=1.0).contains(&part), "a part lies between 0 and 1");
        let nth = ((self.count() as f64 * part).ceil() as u64).max(1);
        let mut seen = 0;
        let class = self.0.iter().position(|count| {
            seen += count;
            seen >= nth
        })?;
        Some(end_of(class))
    }

    /// How many took how long: where each class ends, and how many are in it, of those that have any.
    pub fn classes(&self) -> impl Iterator<Item = (Duration, u64)> {
        self.0.iter().enumerate().filter(|(_, count)| **count > 0).map(|(class, count)| (end_of(class), *count))
    }

    /// What came since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self(std::array::from_fn(|class| self.0[class].wrapping_sub(before.0[class])))
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.count())?;
        let Some(median) = self.quantile(0.5) else { return Ok(()) };
        let (most, longest) = (self.quantile(0.99).unwrap_or(median), self.quantile(1.0).unwrap_or(median));
        write!(f, ", half within {median:?}, 99 % within {most:?}, all within {longest:?}")
    }
}

impl fmt::Debug for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.classes()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_class_that_ends_next() {
        for ns in [0, 1, 64, 95, 96, 97, 127, 128, 1_000, 3_511, 1 << 20, (1 << 20) + 1, 1 << 34] {
            let time = Duration::from_nanos(ns);
            let class = class_of(time);
            assert!(time < end_of(class), "{time:?} in {class}");
            assert!(class == 0 || time >= end_of(class - 1), "{time:?} in {class}");
        }
        assert_eq!(class_of(Duration::from_secs(10_000)), CLASSES - 1);
    }

    #[test]
    fn quantiles_are_of_what_was_noted() {
        let meter = Meter::default();
        assert_eq!(meter.read().quantile(0.5), None);
        assert_eq!(meter.read().to_string(), "0");
        meter.time(|| ());
        meter.time(|| std::thread::sleep(Duration::from_millis(3)));
        let read = meter.read();
        assert_eq!(read.count(), 2);
        let (median, longest) = (read.quantile(0.5).unwrap(), read.quantile(1.0).unwrap());
        assert!(median <= longest && longest > Duration::from_millis(3), "{median:?}, {longest:?}");
        assert_eq!(read.since(&read).count(), 0);
    }
}
