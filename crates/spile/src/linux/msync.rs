//! msync(2).

use super::{Errno, page_align};
use crate::addr::{PAGE, Range};
use crate::locking::Locking;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::vma::Flags;

/// `MS_*`.
#[allow(missing_docs, reason = "Linux's names and numbers")]
pub mod sync {
    pub const ASYNC: u32 = 1;
    pub const INVALIDATE: u32 = 2;
    pub const SYNC: u32 = 4;
}

impl<P: Platform, L: Locking> Mm<P, L> {
    /// Checks that `addr..addr + len` is mapped. Stores to shared mappings are in the file at once, for the pages are the file's; nothing
    /// is written to its store yet.
    ///
    /// # Errors
    ///
    /// `EINVAL`: flags or alignment. `ENOMEM`: there is a hole. `EBUSY`: `MS_INVALIDATE` of a locked mapping.
    pub fn msync(&self, addr: u64, len: u64, flags: u32) -> Result<(), Errno> {
        let known = sync::ASYNC | sync::INVALIDATE | sync::SYNC;
        if flags & !known != 0 || !addr.is_multiple_of(PAGE) || flags & (sync::ASYNC | sync::SYNC) == sync::ASYNC | sync::SYNC {
            return Err(Errno::EINVAL);
        }
        let end = addr.wrapping_add(page_align(len));
        if end < addr {
            return Err(Errno::ENOMEM);
        }
        if end == addr {
            return Ok(());
        }
        let range = Range::new(addr, end.min(crate::addr::TABLE_END)).map_err(|_| Errno::ENOMEM)?;
        self.change(&[range], |change| {
            let (mut covered, mut hole) = (range.start(), false);
            for vma in change.iter(range) {
                if flags & sync::INVALIDATE != 0 && vma.attr().flags.has(Flags::LOCKED) {
                    return Err(Errno::EBUSY);
                }
                hole |= vma.range().start() > covered;
                covered = vma.range().end();
            }
            if hole || covered < range.end() { Err(Errno::ENOMEM) } else { Ok(()) }
        })
    }
}
