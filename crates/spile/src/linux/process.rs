//! What a process has opened.

use crate::backing::File;
use crate::platform::Platform;

/// For what a file was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileRights {
    /// `O_RDONLY`.
    Read,
    /// `O_RDWR`.
    ReadWrite,
    /// `O_WRONLY`: cannot be mapped.
    Write,
}

impl FileRights {
    pub(super) fn may_read(self) -> bool {
        self != FileRights::Write
    }

    pub(super) fn may_write(self) -> bool {
        self != FileRights::Read
    }
}

/// An open file: what a descriptor stands for.
#[derive(Clone, Debug)]
pub struct Opened<P: Platform> {
    /// The file.
    pub file: File<P>,
    /// For what it was opened.
    pub rights: FileRights,
}
