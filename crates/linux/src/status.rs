//! How a region is, and what it has done.
//!
//! **Guarantee.** Each number was so at some moment while it was asked for.
//!
//! **Mechanism.** A record, which prints itself in the manner of `/proc/PID/smaps`.

use crate::latency::Latency;
use crate::watchdog::Asked;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

/// How a region is, and what it has done since it was mapped. Sizes are in bytes.
#[derive(Clone, Debug)]
pub struct Status {
    /// Its addresses.
    pub at: Range<u64>,
    /// Whether it may be written.
    pub is_writable: bool,
    /// Its length.
    pub len: u64,
    /// How much it may show, if that is limited.
    pub limit: Option<u64>,
    /// What it shows.
    pub shown: u64,
    /// What is in memory.
    pub resident: u64,
    /// Of that, what differs from what the backing has.
    pub dirty: u64,
    /// What the backing has filled.
    pub filled: u64,
    /// What it was given back.
    pub written: u64,
    /// How often it failed.
    pub failed: u64,
    /// Signals: how long threads were in the handler.
    pub faults: Latency,
    /// How long the backing took to fill pages.
    pub fills: Latency,
    /// How long it took to keep one.
    pub writes: Latency,
    /// What the backing is asked for now, of several that for which it takes longest, and for how long already.
    pub asked: Option<(Asked, Duration)>,
}

impl Status {
    /// What was done since `earlier`, of the same region: numbers and times are of that stretch, and how it is, is as it is in this.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            filled: self.filled.wrapping_sub(earlier.filled),
            written: self.written.wrapping_sub(earlier.written),
            failed: self.failed.wrapping_sub(earlier.failed),
            faults: self.faults.since(&earlier.faults),
            fills: self.fills.since(&earlier.fills),
            writes: self.writes.since(&earlier.writes),
            ..self.clone()
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let write = if self.is_writable { 'w' } else { '-' };
        writeln!(f, "{:x}-{:x} r{write}-s 00000000 spile", self.at.start, self.at.end)?;
        let sizes = [
            ("Size:", Some(self.len)),
            ("Limit:", self.limit),
            ("Rss:", Some(self.shown)),
            ("Cached:", Some(self.resident)),
            ("Shared_Dirty:", Some(self.dirty)),
            ("Filled:", Some(self.filled)),
            ("Written:", Some(self.written)),
        ];
        for (name, bytes) in sizes.into_iter().filter_map(|(name, bytes)| Some((name, bytes?))) {
            writeln!(f, "{name:16}{:>12} kB", bytes.div_ceil(1024))?;
        }
        writeln!(f, "{:16}{:>12}", "Failed:", self.failed)?;
        for (name, times) in [("Faults:", &self.faults), ("Fills:", &self.fills), ("Writes:", &self.writes)] {
            writeln!(f, "{name:16}{times}")?;
        }
        self.asked.map_or(Ok(()), |(asked, lasts)| writeln!(f, "{:16}{asked}, for {lasts:?}", "Asked:"))
    }
}
