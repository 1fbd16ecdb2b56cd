//! map: something new at a range.

use super::{Change, Joins, New, NoMemory, Whose};
use crate::addr::Range;
use crate::locking::Locking;
use crate::platform::Platform;
use crate::vma::Attr;

impl<P: Platform, L: Locking> Change<'_, P, L> {
    /// Maps `attr` at `at`, in the place of whatever is there: a fault sees the old mapping or waits and sees the new, never a hole.
    ///
    /// # Errors
    ///
    /// [`NoMemory`]; nothing was changed.
    ///
    /// # Panics
    ///
    /// If `attr` shows a file of another platform. Nothing was changed.
    pub(crate) fn map(&mut self, at: Range, attr: Attr<P>) -> Result<(), NoMemory> {
        let mm = self.mm;
        // All others are made of those that this one has let in.
        assert!(attr.backing.is_of(mm.platform()), "the file belongs to another platform");
        let mut fresh = self.replace(at, Some(&New::of(attr, Whose::Nobodys)), Joins::Both)?;
        if fresh.overlapped {
            fresh.zap(at);
        }
        Ok(())
    }
}
