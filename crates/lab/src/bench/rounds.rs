//! Contenders that take turns.
//!
//! **Guarantee.** Within a round each contender plays once, so whatever else the machine does hits all of them alike. What is told of several rounds is
//! the median, and how far they lie apart. A contender that did not do what the definition says is no result but an error.
//!
//! **Mechanism.** In a first round, which is not told, each finds out how many passes take about as long as it was asked for: memory and code are there
//! afterwards.

use super::child::HOST;
use super::play::{Contender, Sample};
use super::workload::{Counts, Workload};
use crate::interrupt;
use anyhow::{Result, ensure};
use serde::Serialize;
use std::time::Duration;

/// The smallest, the middle and the largest of some numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The middle.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of these numbers; none if there are none.
    pub fn of(numbers: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut numbers: Vec<_> = numbers.into_iter().collect();
        numbers.sort_by(f64::total_cmp);
        let (min, max) = (*numbers.first()?, *numbers.last()?);
        let middle = numbers.len() / 2;
        let median = if numbers.len() % 2 == 1 { numbers[middle] } else { (numbers[middle - 1] + numbers[middle]) / 2.0 };
        Some(Self { median, min, max })
    }
}

/// How long contenders play.
#[derive(Clone, Copy, Debug)]
pub struct Rounds {
    /// How many rounds are told.
    pub count: usize,
    /// How long a contender plays in each, about.
    pub time: Duration,
}

/// Lets them play, and says of each what it did in each round that was finished. `progress` is told what begins.
///
/// # Errors
///
/// Somebody is gone, or did not do what the definition says.
pub fn play(
    contenders: &mut [Box<dyn Contender>],
    workload: &Workload,
    threads: usize,
    rounds: Rounds,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Vec<Sample>>> {
    let mut passes = Vec::new();
    for contender in &mut *contenders {
        progress(contender.name());
        passes.push(passes_in(&mut **contender, workload, threads, rounds.time)?);
    }
    let mut samples = vec![Vec::new(); contenders.len()];
    for _ in 0..rounds.count {
        let mut round = Vec::new();
        for (contender, passes) in contenders.iter_mut().zip(&passes) {
            if interrupt::is_asked() {
                return Ok(samples);
            }
            progress(contender.name());
            let sample = contender.play(*passes)?;
            check(contender.name(), workload, threads, &sample)?;
            round.push(sample);
        }
        samples.iter_mut().zip(round).for_each(|(samples, sample)| samples.push(sample));
    }
    Ok(samples)
}

/// How many passes take so long.
fn passes_in(contender: &mut dyn Contender, workload: &Workload, threads: usize, time: Duration) -> Result<u64> {
    let mut passes = 1;
    loop {
        let sample = contender.play(passes)?;
        check(contender.name(), workload, threads, &sample)?;
        let share = time.as_secs_f64() / sample.wall.as_secs_f64().max(1e-9);
        if share < 2.0 {
            return Ok(((passes as f64 * share) as u64).max(1));
        }
        // The first are slower than those to come.
        passes = (passes as f64 * share.min(10.0)) as u64;
    }
}

/// Whether what happened is what the definition says: exactly, where it is counted; but of several threads a fault may prepare a frame in vain.
///
/// # Errors
///
/// It is not.
pub fn check(name: &str, workload: &Workload, threads: usize, sample: &Sample) -> Result<()> {
    let (found, expected) = (sample.events.counts, workload.events_in_pass(threads).times(sample.passes));
    let is_right = match (name, threads) {
        (HOST, _) => is_near(found, expected, sample.passes),
        (_, 1) => found == expected,
        _ => found.frames >= expected.frames && Counts { frames: expected.frames, ..found } == expected,
    };
    ensure!(
        is_right,
        "{name} does not do what {} says: {expected:?} in {} passes, and not {found:?}",
        workload.name,
        sample.passes
    );
    Ok(())
}

/// The host counts only faults, and those of the program around it, too.
fn is_near(found: Counts, expected: Counts, passes: u64) -> bool {
    const AROUND: u64 = 64;
    (expected.faults..=expected.faults + AROUND * (passes + 1)).contains(&found.faults)
}
