//! `spile maps`: what was mapped at a moment of a recording.

use super::End;
use crate::replay::Replay;
use crate::source;
use anyhow::{Context, Result, bail, ensure};
use spile::VmaRefcount;
use spile_mmtrace::Step;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

#[derive(clap::Args, Debug)]
/// The address spaces of a recorded program at a moment
pub struct Args {
    /// A recording
    trace: PathBuf,
    /// The moment: `1.5s`, `250ms`, `90000ns` since the beginning, or `line:1234`
    #[arg(long, value_name = "T")]
    at: Moment,
    /// Only the address space that this thread of the recording uses then
    #[arg(long, value_name = "P")]
    pid: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Ns(u64),
    Line(usize),
}

impl Moment {
    fn has_come(self, step: &Step) -> bool {
        match self {
            Moment::Ns(ns) => step.at_ns > ns,
            Moment::Line(line) => step.line > line,
        }
    }
}

impl FromStr for Moment {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(line) = text.strip_prefix("line:") {
            return Ok(Moment::Line(line.parse().context("a line is a number")?));
        }
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let scale = match &text[digits.len()..] {
            "s" => 1e9,
            "ms" => 1e6,
            "us" => 1e3,
            "ns" => 1.0,
            unit => bail!("`{unit}` is no unit of time; write 1.5s, 250ms, 90us, 10ns or line:1234"),
        };
        let number: f64 = digits.parse().with_context(|| format!("`{digits}` is not a number"))?;
        ensure!(number >= 0.0, "a recording begins at 0");
        Ok(Moment::Ns((number * scale) as u64))
    }
}

/// # Errors
///
/// The recording cannot be read, or nobody is there then.
pub fn run(args: &Args) -> Result<End> {
    let source = source::open(&args.trace)?;
    // Calls stand where their changes were made, so steps are nearly in the order of time.
    let until: Vec<_> = source.steps.iter().filter(|step| !args.at.has_come(step)).cloned().collect();
    let mut users: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
    for step in &until {
        let threads = users.entry(step.mm).or_default();
        if !threads.contains(&step.tid) {
            threads.push(step.tid);
        }
    }
    let mut replay = Replay::<_, VmaRefcount>::new(&until);
    replay.advance(&until, &mut |_| ());
    let mut shown = 0;
    for (mm, mappings) in replay.mappings() {
        let threads = users.get(&mm).map_or(&[][..], Vec::as_slice);
        if args.pid.is_some_and(|pid| !threads.contains(&pid)) {
            continue;
        }
        let names: Vec<_> = threads.iter().map(u32::to_string).collect();
        println!("address space {mm}, threads {}: {} mappings", names.join(" "), mappings.len());
        mappings.iter().for_each(|mapping| println!("  {mapping}"));
        shown += 1;
    }
    ensure!(
        shown > 0,
        "nobody has an address space then; the recording lasts to {} ns",
        source.steps.last().map_or(0, |step| step.at_ns)
    );
    match source.torn {
        None => Ok(End::Good),
        Some(torn) => {
            eprintln!("{}: {torn}", args.trace.display());
            Ok(End::Bad)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read() {
        let read = |text: &str| text.parse::<Moment>();
        assert_eq!(read("1.5s").unwrap(), Moment::Ns(1_500_000_000));
        assert_eq!(read("250ms").unwrap(), Moment::Ns(250_000_000));
        assert_eq!(read("line:12").unwrap(), Moment::Line(12));
        assert!(read("7 parsecs").is_err() && read("-1s").is_err() && read("12").is_err());
    }
}
