//! msync(2).

use super::{Errno, page_align};
use crate::addr::{PAGE, Range};
use crate::backing::File;
use crate::locking::Locking;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::reclaim::sealed::Reclaim;
use crate::vma::Backing;
use crate::vma::{Flags, Vma};

/// `MS_*`.
#[allow(missing_docs, reason = "Linux's names and numbers")]
pub mod sync {
    pub const ASYNC: u32 = 1;
    pub const INVALIDATE: u32 = 2;
    pub const SYNC: u32 = 4;
}

impl<P: Platform, L: Locking> Mm<P, L> {
    /// With `MS_SYNC` waits until what was stored to shared mappings in `addr..addr + len` is in their files, durable. Otherwise nothing has to be done: stores are seen by
    /// whoever maps the file, and are written back in time. On a host that does not know where pages are shown (`type Reclaim = ()`) it only checks. May sleep.
    ///
    /// # Errors
    ///
    /// `EINVAL`: flags or alignment. `EBUSY`: `MS_INVALIDATE` of a locked mapping. `EIO`: some of it could not be written; it is in memory still. `ENOMEM`: there is a
    /// hole; what is mapped was written.
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
        let mut rest = Range::new(addr, end.min(crate::addr::TABLE_END)).map(Some).map_err(|_| Errno::ENOMEM)?;
        let mut hole = rest.is_none_or(|range| range.end() < end);
        while let Some(range) = rest {
            // A mapping at a time, with nothing held while it is written.
            let part = L::look(self, range.start(), |vma| {
                let vma = vma.filter(|vma| vma.range().start() < range.end())?;
                let is_locked = vma.attr().flags.has(Flags::LOCKED);
                Some((vma.range().overlap(range)?, is_locked, shared(vma, range)))
            });
            let Some((part, is_locked, pages)) = part else { return Err(Errno::ENOMEM) };
            if flags & sync::INVALIDATE != 0 && is_locked {
                return Err(Errno::EBUSY);
            }
            hole |= part.start() > range.start();
            if flags & sync::SYNC != 0 {
                self.write_back(pages)?;
            }
            rest = range.above(part.end());
        }
        if hole { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    fn write_back(&self, pages: Option<FilePages<P>>) -> Result<(), Errno> {
        let Some((file, pages)) = pages else { return Ok(()) };
        P::Reclaim::flush(self.platform(), &file, pages).map_err(|_| Errno::EIO)
    }
}

/// Pages of a file.
type FilePages<P> = (File<P>, core::ops::Range<u64>);

/// What a mapping shares of a file in `range`.
fn shared<P: Platform, L: Locking>(vma: &Vma<P, L>, range: Range) -> Option<FilePages<P>> {
    let part = vma.range().overlap(range).filter(|_| vma.attr().is_shared())?;
    let Backing::File(file, _) = &vma.attr().backing else { return None };
    let first = vma.page_at(part.start());
    // Numbers that wrap are of no file's pages, on the one side or the other.
    Some((file.clone(), first.checked_add(part.pages()).map_or(0..u64::MAX, |end| first..end)))
}
