//! unmap: nothing at a range any more.

use super::{Change, Joins, NoMemory};
use crate::addr::Range;
use crate::flushing::Unmapping;
use crate::locking::Locking;
use crate::platform::Platform;

impl<P: Platform, L: Locking> Change<'_, P, L> {
    /// Takes away whatever is in `at`, as a part of something greater. When it returns no CPU uses any of its pages.
    ///
    /// # Errors
    ///
    /// [`NoMemory`] where a mapping had to be cut; nothing was changed.
    #[cfg(feature = "linux")]
    pub(crate) fn take_away(&mut self, at: Range) -> Result<(), NoMemory> {
        let mut fresh = self.replace(at, None, Joins::None)?;
        if fresh.overlapped {
            fresh.zap(at);
        }
        Ok(())
    }

    /// The same, and that is all: pages are taken away when the mappings are gone, with as little held as keeps others from the place.
    ///
    /// # Errors
    ///
    /// As above.
    pub(crate) fn unmap(mut self, at: Range) -> Result<(), NoMemory> {
        let mm = self.mm;
        let overlapped = self.replace(at, None, Joins::None)?.overlapped;
        let _displacing = self.displacing.take();
        if L::LETS_GO && mm.unmapping != Unmapping::Share && overlapped {
            self.zap_reserved(at);
        } else {
            let tail = self.downgrade();
            if overlapped {
                mm.zap(at);
            }
            drop(tail);
        }
        mm.relieve();
        Ok(())
    }

    /// Takes away the pages of `at`, where nothing is mapped any more, with the place reserved, and nothing held.
    #[cold]
    fn zap_reserved(self, at: Range) {
        let mm = self.mm;
        let place = mm.flushing.reserve(mm.platform(), at);
        let tail = match place {
            None => Some(self.downgrade()),
            Some(_) => {
                drop(self);
                None
            }
        };
        mm.zap(at);
        drop((tail, place));
    }
}
