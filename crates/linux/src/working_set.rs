//! Which pages were wanted, in the order in which they were.
//!
//! **Guarantee.** A record holds the pages that were brought while it was made, the first so many, each as often as it was brought; and which were written, of the first so many writes that were
//! faults. To record takes one addition and one store: a handler may.
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
    /// Ascending.
    written: Vec<u64>,
}

/// What stands behind the number of a page that was written.
const WRITTEN: &str = " w";

/// Room for numbers of pages.
struct Log {
    pages: Box<[AtomicU64]>,
    next: AtomicUsize,
}

/// Room for a record.
pub struct Recorder {
    brought: Log,
    written: Log,
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
    /// For so many pages that are brought, and so many writes.
    pub fn new(most: usize) -> Self {
        Self { brought: Log::new(most), written: Log::new(most) }
    }

    /// Notes pages that were brought.
    pub fn note(&self, first: u64, count: usize) {
        self.brought.note(first, count);
    }

    /// Notes a page that may be written from now on.
    pub fn note_write(&self, page: u64) {
        self.written.note(page, 1);
    }

    /// What was noted so far.
    pub fn read(&self) -> WorkingSet {
        WorkingSet::of(self.brought.read()).with_written(self.written.read())
    }
}

impl Log {
    fn new(most: usize) -> Self {
        Self { pages: (0..most).map(|_| AtomicU64::new(u64::MAX)).collect(), next: AtomicUsize::new(0) }
    }

    fn note(&self, first: u64, count: usize) {
        // Relaxed: numbers; who reads them has seen the accesses that brought the pages, or may miss them.
        let from = self.next.fetch_add(count, Relaxed);
        for (word, page) in self.pages.iter().skip(from).zip(first..first + count as u64) {
            word.store(page, Relaxed);
        }
    }

    fn read(&self) -> Vec<u64> {
        let noted = self.next.load(Relaxed).min(self.pages.len());
        let pages = self.pages[..noted].iter().map(|word| word.load(Relaxed));
        // What has room and is not noted yet is left out.
        pages.filter(|page| *page != u64::MAX).collect()
    }
}

impl WorkingSet {
    /// Of these pages, by number.
    #[must_use]
    pub fn of(pages: Vec<u64>) -> Self {
        Self { pages, written: Vec::new() }
    }

    /// The same, of which these were written.
    #[must_use]
    pub fn with_written(self, mut written: Vec<u64>) -> Self {
        written.sort_unstable();
        written.dedup();
        Self { written, ..self }
    }

    /// Which pages were written, ascending: by a store that was a fault, by a call, or by who pinned them for that. Also those that had been brought before.
    #[must_use]
    pub fn written(&self) -> &[u64] {
        &self.written
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

    /// Writes them, a number per line; then those that were written, with a `w` behind.
    ///
    /// # Errors
    ///
    /// The writer's.
    pub fn save(&self, mut to: impl Write) -> io::Result<()> {
        self.pages.iter().try_for_each(|page| writeln!(to, "{page}"))?;
        self.written.iter().try_for_each(|page| writeln!(to, "{page}{WRITTEN}"))?;
        to.flush()
    }

    /// Reads what was [saved](Self::save).
    ///
    /// # Errors
    ///
    /// [`Unreadable`].
    pub fn load(from: impl BufRead) -> Result<Self, Unreadable> {
        let (mut pages, mut written) = (Vec::new(), Vec::new());
        for (nth, line) in (1..).zip(from.lines()) {
            let line = line.map_err(Unreadable::Read)?;
            let (list, number) = match line.trim().strip_suffix(WRITTEN) {
                Some(number) => (&mut written, number),
                None => (&mut pages, line.trim()),
            };
            let Ok(number) = number.parse() else { return Err(Unreadable::Line(nth, line)) };
            list.push(number);
        }
        Ok(Self::of(pages).with_written(written))
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
        let set = WorkingSet::of(vec![7, 0, 1 << 40]).with_written(vec![9, 0, 9]);
        assert_eq!(set.written(), [0, 9]);
        let mut bytes = Vec::new();
        set.save(&mut bytes).unwrap();
        assert_eq!(WorkingSet::load(&bytes[..]).unwrap(), set);
        let torn = WorkingSet::load(&b"7\nx8\n"[..]).unwrap_err();
        assert_eq!(torn.to_string(), "line 2 of the record, \"x8\", is no number of a page");
    }
}
