//! Pages in a file.
//!
//! **Guarantee.** A page is put when the kernel has taken all its bytes, and got when it has given all of them; whatever else happens fails, is counted, and the
//! last of it is told to who asks.
//!
//! **Mechanism.** Slot `n` is the page at `n` pages from the beginning, written by `pwrite(2)` and read by `pread(2)`, repeated when they were short or
//! interrupted. Nothing is remembered of slots, so to forget one does nothing: its place in the file is written anew with the next page.

use crate::pages::{Doing, Page, Pages};
use spile::{PAGE, Slot};
use std::error::Error;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Pages in a file, as large as the highest slot that was ever written. Nobody else may write it.
///
/// It is not flushed: pages need not outlive the process, and what the kernel has taken it gives back. What it can no longer write to a device it told
/// was taken, it may lose; a file that was opened with `O_DSYNC` ([`new`](Self::new)) tells that in time.
pub struct OnFile {
    file: File,
    trouble: Mutex<Trouble>,
}

#[derive(Default)]
struct Trouble {
    count: u64,
    last: Option<Failure>,
}

/// A transfer that failed.
#[derive(Debug)]
pub struct Failure {
    /// The page's slot.
    pub slot: Slot,
    /// What was to be done.
    pub doing: Doing,
    /// Why it could not be.
    pub error: io::Error,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.doing {
            Doing::Writing => "write to",
            Doing::Reading => "read from",
        };
        write!(f, "cannot {verb} slot {}: {}", self.slot.0, self.error)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.error)
    }
}

/// There is no file for pages.
#[derive(Debug)]
pub struct NoFile {
    what: &'static str,
    path: PathBuf,
    error: io::Error,
}

impl NoFile {
    /// Why not.
    pub fn error(&self) -> &io::Error {
        &self.error
    }
}

impl fmt::Display for NoFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}: {}", self.what, self.path.display(), self.error)
    }
}

impl Error for NoFile {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.error)
    }
}

impl OnFile {
    /// In the file at `path`, which is emptied, or made for the user alone.
    ///
    /// # Errors
    ///
    /// [`NoFile`]: it cannot be opened for reading and writing.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, NoFile> {
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path.as_ref());
        Self::opened(opened, "open for pages", path.as_ref())
    }

    /// In a file without a name in `directory`, that is gone with the store. Not all directories are on a disk; `/tmp` may be memory.
    ///
    /// # Errors
    ///
    /// [`NoFile`]: none can be made there.
    pub fn temporary_in(directory: impl AsRef<Path>) -> Result<Self, NoFile> {
        Self::opened(tempfile::tempfile_in(directory.as_ref()), "make a file for pages in", directory.as_ref())
    }

    /// In `file`, which was opened for reading and writing, and not for appending.
    pub fn new(file: File) -> Self {
        Self { file, trouble: Mutex::default() }
    }

    fn opened(file: io::Result<File>, what: &'static str, path: &Path) -> Result<Self, NoFile> {
        file.map(Self::new).map_err(|error| NoFile { what, path: path.to_path_buf(), error })
    }

    /// How many transfers failed so far.
    pub fn failures(&self) -> u64 {
        self.trouble().count
    }

    /// The last that did, if nobody has taken it yet.
    pub fn take_failure(&self) -> Option<Failure> {
        self.trouble().last.take()
    }

    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a transfer succeeded. If not, it is remembered.
    fn note(&self, slot: Slot, doing: Doing, outcome: io::Result<()>) -> bool {
        let Err(error) = outcome else { return true };
        let before = {
            let mut trouble = self.trouble();
            trouble.count += 1;
            trouble.last.replace(Failure { slot, doing, error })
        };
        drop(before);
        false
    }
}

fn place(slot: Slot) -> u64 {
    u64::from(slot.0) * PAGE
}

impl fmt::Debug for OnFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trouble = self.trouble();
        write!(f, "pages in {:?}, {} transfers failed", self.file, trouble.count)?;
        trouble.last.as_ref().map_or(Ok(()), |last| write!(f, "; {last}"))
    }
}

impl Pages for OnFile {
    fn put(&self, slot: Slot, page: &Page) -> bool {
        self.note(slot, Doing::Writing, self.file.write_all_at(page, place(slot)))
    }

    fn get(&self, slot: Slot, page: &mut Page) -> bool {
        self.note(slot, Doing::Reading, self.file.read_exact_at(page, place(slot)))
    }

    fn forget(&self, _: Slot) {}
}
