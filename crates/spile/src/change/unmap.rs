//! unmap: nothing at a range any more.

use super::{Change, Joins, NoMemory};
use crate::addr::Range;
use crate::locking::Locking;
use crate::platform::Platform;

impl<'m, P: Platform, L: Locking> Change<'m, P, L> {
    /// Takes away whatever is in `at`. When it returns no CPU uses any of its pages.
    ///
    /// # Errors
    ///
    /// [`NoMemory`] where a mapping had to be cut; nothing was changed.
    pub(crate) fn unmap(&mut self, at: Range) -> Result<(), NoMemory> {
        let mm = self.mm;
        let fresh = self.replace(at, None, Joins::None)?;
        if fresh.overlapped {
            mm.zap(at);
        }
        Ok(())
    }
}
