//! Which pages were wanted, in the order in which they were.
//!
//! **Guarantee.** A record holds the pages that were brought while it was made, the first so many, each as often as it was brought. To record takes one addition and one store: a handler may.
//!
//! **Mechanism.** Room that is made before. Brought again in that order, and before they are wanted, they need no fault: what is restored from a snapshot touches nearly the same pages each time.

use crate::PAGE;
use spile_sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::fmt;
use std::io::{self, BufRead, Write};

/// Pages of a region, by number, in the order in which they were brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkingSet {
    pages: Vec<u64>,
}

/// Room for a record.
pub struct Recorder {
    pages: Box<[AtomicU64]>,
    next: AtomicUsize,
}

/// A record that cannot be read.
#[derive(Debug)]
pub enum Unreadable {
    /// The reader's error.
    Read(io::Error),
    /// This line, from 1 on, is no number of a page.
    Line(u64, String),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => write!(f, "cannot read the record: {error}"),
            Self::Line(line, text) => write!(f, "line {line} of the record, {text:?}, is no number of a page"),
        }
    }
}

impl std::error::Error for Unreadable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(error) => Some(error),
            Self::Line(..) => None,
        }
    }
}

impl Recorder {
    /// For so many pages.
    pub fn new(most: usize) -> Self {
        Self { pages: (0..most).map(|_| AtomicU64::new(u64::MAX)).collect(), next: AtomicUsize::new(0) }
    }

    /// Notes pages that were brought.
    pub fn note(&self, first: u64, count: usize) {
        // Relaxed: numbers; who reads them has seen the accesses that brought the pages, or may miss them.
        let from = self.next.fetch_add(count, Relaxed);
        for (word, page) in self.pages.iter().skip(from).zip(first..first + count as u64) {
            word.store(page, Relaxed);
        }
    }

    /// What was noted so far.
    pub fn read(&self) -> WorkingSet {
        let noted = self.next.load(Relaxed).min(self.pages.len());
        let pages = self.pages[..noted].iter().map(|word| word.load(Relaxed));
        // What has room and is not noted yet is left out.
        WorkingSet { pages: pages.filter(|page| *page != u64::MAX).collect() }
    }
}

impl WorkingSet {
    /// Of these pages, by number.
    #[must_use]
    pub fn of(pages: Vec<u64>) -> Self {
        Self { pages }
    }

    /// Their numbers.
    #[must_use]
    pub fn pages(&self) -> &[u64] {
        &self.pages
    }

    /// How many bytes they have.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.pages.len() as u64 * PAGE
    }

    /// Writes them, a number per line.
    ///
    /// # Errors
    ///
    /// The writer's.
    pub fn save(&self, mut to: impl Write) -> io::Result<()> {
        self.pages.iter().try_for_each(|page| writeln!(to, "{page}"))?;
        to.flush()
    }

    /// Reads what was [saved](Self::save).
    ///
    /// # Errors
    ///
    /// [`Unreadable`].
    pub fn load(from: impl BufRead) -> Result<Self, Unreadable> {
        let number = |(nth, line): (usize, io::Result<String>)| {
            let line = line.map_err(Unreadable::Read)?;
            line.trim().parse().map_err(|_| Unreadable::Line(nth as u64 + 1, line))
        };
        Ok(Self { pages: from.lines().enumerate().map(number).collect::<Result<_, _>>()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_read_as_far_as_there_is_room() {
        let recorder = Recorder::new(5);
        recorder.note(10, 2);
        recorder.note(3, 1);
        assert_eq!(recorder.read().pages(), [10, 11, 3]);
        recorder.note(20, 4);
        assert_eq!(recorder.read().pages(), [10, 11, 3, 20, 21]);
        assert_eq!(recorder.read().bytes(), 5 * PAGE);
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let set = WorkingSet::of(vec![7, 0, 1 << 40]);
        let mut bytes = Vec::new();
        set.save(&mut bytes).unwrap();
        assert_eq!(WorkingSet::load(&bytes[..]).unwrap(), set);
        let torn = WorkingSet::load(&b"7\nx8\n"[..]).unwrap_err();
        assert_eq!(torn.to_string(), "line 2 of the record, \"x8\", is no number of a page");
    }
}
