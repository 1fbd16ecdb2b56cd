//! A region's bytes: as they lie in memory, and by calls.
//!
//! **Guarantee.** Who has them as a slice has them unchanged, or alone. A call that cannot have all says up to where it has come, and raises no signal.
//!
//! **Mechanism.** Slices are of the region's addresses. Calls go through the core, by a page on the stack.

use super::{Failed, Region};
use crate::PAGE;
use crate::backing::Backing;
use crate::host::Errands;
use crate::registry::Visit;
use bytemuck::{AnyBitPattern, NoUninit};
use spile::{Denied, Locking};

impl<B: Backing, L: Locking> Region<B, L> {
    /// Where it begins. Whoever uses it sees to it that no two threads write the same place, as ever.
    pub fn as_ptr(&self) -> *mut u8 {
        self.memory.at(0) as *mut u8
    }

    /// Its bytes, as so many `T` as they are. What is not in memory is brought when it is touched. Nobody writes them meanwhile: that takes the region alone, and a page that has left
    /// comes back with the same bytes, as the backing has promised.
    pub fn as_slice<T: AnyBitPattern>(&self) -> &[T] {
        self.memory.slice(self.len)
    }

    /// The same, to be written.
    ///
    /// # Panics
    ///
    /// If the region is not writable.
    pub fn as_mut_slice<T: AnyBitPattern + NoUninit>(&mut self) -> &mut [T] {
        assert!(self.is_writable, "the region was mapped to be read: say writable(true), or have a backing that takes writes");
        self.memory.slice_mut(self.len)
    }

    /// Copies from byte `at` on, without a signal: for code that may not take one, and to hear of errors.
    ///
    /// # Errors
    ///
    /// [`Failed`]: what lies before is copied.
    pub fn read_at(&self, at: u64, bytes: &mut [u8]) -> Result<(), Failed> {
        self.within(at, bytes.len())?;
        let mut page = [0; PAGE as usize];
        let mut from = at;
        for part in bytes.chunks_mut(PAGE as usize) {
            // Not straight into `part`, which may be of a region and fault, while the core has a hold on the page.
            let page = &mut page[..part.len()];
            let read = self.visit(|| self.served.mm.read_user(self.memory.at(0) + from, page));
            let copied = read.map_or_else(|partial| partial.copied, |()| part.len());
            part[..copied].copy_from_slice(&page[..copied]);
            from += copied as u64;
            read.map_err(|partial| self.failed(from, partial.why))?;
        }
        Ok(())
    }

    /// The same, of a write. It takes the region alone, as a slice to be written does: where threads share it, [`write_shared`](Self::write_shared).
    ///
    /// # Errors
    ///
    /// [`Failed`]: what lies before is written.
    pub fn write_at(&mut self, at: u64, bytes: &[u8]) -> Result<(), Failed> {
        // SAFETY: (1) nobody else has the region.
        unsafe { self.write_shared(at, bytes) }
    }

    /// The same, of a region that others use meanwhile: who has an `Arc` of it.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Safety
    ///
    /// (1) As long as this takes nobody reads these bytes of the region, by a slice, a call or a [pointer](Self::as_ptr), nor writes them; and who has a slice of them does not use it any more.
    pub unsafe fn write_shared(&self, at: u64, bytes: &[u8]) -> Result<(), Failed> {
        self.within(at, bytes.len())?;
        let mut page = [0; PAGE as usize];
        let mut to = at;
        for part in bytes.chunks(PAGE as usize) {
            // As in `read_at`: the core writes under the lock of a table.
            let page = &mut page[..part.len()];
            page.copy_from_slice(part);
            self.visit(|| self.served.mm.write_user(self.memory.at(0) + to, page))
                .map_err(|partial| self.failed(to + partial.copied as u64, partial.why))?;
            self.pages_of(&(to..to + part.len() as u64)).for_each(|page| self.served.contents().note_write(page));
            to += part.len() as u64;
        }
        Ok(())
    }

    /// Has the core do something that may begin reads.
    fn visit<T>(&self, copy: impl FnOnce() -> T) -> T {
        let _visit = Visit::begin();
        Errands::during(copy)
    }

    pub(super) fn within(&self, at: u64, len: usize) -> Result<(), Failed> {
        let is_within = at <= self.len && len as u64 <= self.len - at;
        if is_within { Ok(()) } else { Err(self.failed(self.len.max(at), Denied::Unmapped)) }
    }
}
