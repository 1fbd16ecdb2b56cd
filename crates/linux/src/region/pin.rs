//! Pages that stay: for code that may not fault.
//!
//! **Guarantee.** As long as a guard lives its bytes are in memory, and shown at their addresses; and writable there, if it was asked for that. What is pinned to be written counts as
//! written until the guard is gone. There is room for others beside what is pinned.
//!
//! **Mechanism.** A hold on each frame, which evictors see, and a count at the frame ([`Pins`](crate::host::Pins)), which is asked for under the lock of its table. So who looked before the
//! hold was there does not take the page, and a flush does not protect it.

use super::{NoPin, Region};
use crate::PAGE;
use crate::backing::Backing;
use crate::host::{Errands, Host, most_of, reserve};
use crate::registry::Visit;
use spile::{Access, Denied, Frame, Locking};
use spile_sync::atomic::{AtomicU64, Ordering};
use std::ops::{Deref, DerefMut, Range};

/// Room among those that may be pinned, and the pages that have it.
struct Held<'r> {
    host: &'r Host,
    /// How many pages of the region are pinned.
    of_region: &'r AtomicU64,
    room: u64,
    frames: Vec<Frame<'r, Host>>,
    access: Access,
}

impl Held<'_> {
    fn is_to_write(&self) -> bool {
        self.access == Access::Write
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let _visit = Visit::begin();
        let is_to_write = self.is_to_write();
        for frame in self.frames.drain(..) {
            self.host.pins().unpin(frame.id(), is_to_write);
        }
        // Relaxed: a number.
        self.of_region.fetch_sub(self.room, Ordering::Relaxed);
        self.host.pins().give(self.room);
    }
}

/// Bytes of a region that stay in memory as long as this lives, and can be read where they are without a fault: by system calls, and by code that may not take a signal.
#[must_use = "they may leave when it is dropped"]
pub struct Pinned<'r>(PinnedPtr<'r>);

/// The same, to be written too. As long as it lives nobody else has the region.
#[must_use = "they may leave when it is dropped"]
pub struct PinnedMut<'r>(PinnedPtr<'r>);

/// Bytes of a region that stay in memory as long as this lives, and can be read and written where they are without a fault: for who says himself that no two write the same place.
#[must_use = "they may leave when it is dropped"]
pub struct PinnedPtr<'r> {
    at: u64,
    len: usize,
    _held: Held<'r>,
}

impl PinnedPtr<'_> {
    /// Where they begin. Whoever uses them sees to it that no two threads write the same place, as ever.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.at as *mut u8
    }

    /// How many they are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether they are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Deref for Pinned<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: (1) bytes of a region's, which is there as long as this; (2) nobody writes them: that takes the region alone, as with a slice of it.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr(), self.0.len) }
    }
}

impl Deref for PinnedMut<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: (1) as above; (2) this has the region alone.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr(), self.0.len) }
    }
}

impl DerefMut for PinnedMut<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: (1) and (2) as above; they are writable.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_ptr(), self.0.len) }
    }
}

impl<B: Backing, L: Locking> Region<B, L> {
    /// Brings the pages of `bytes`, and keeps them in memory, and shown where they are, as long as what this gives lives: to be handed to a system call, or to code that may not take a signal.
    ///
    /// What is pinned is of the budget: of the pager's and of the region's own three quarters can be pinned, no more, and never the last four pages, so that others go on finding room. A page that is pinned twice counts
    /// twice. [`evict`](Self::evict), other regions and a smaller [budget](Self::set_budget) leave it where it is; [`flush`](Self::flush) writes it back like any other. May sleep, as a fault
    /// does: with no lock held that the backing takes.
    ///
    /// # Errors
    ///
    /// [`NoPin`]: nothing is pinned.
    pub fn pin(&self, bytes: Range<u64>) -> Result<Pinned<'_>, NoPin> {
        self.pinned(bytes, Access::Read).map(Pinned)
    }

    /// The same of bytes that are about to be written: by the program, by a system call, or by a device (`O_DIRECT`, registered buffers).
    ///
    /// They count as written as long as they are pinned, whoever writes them, and stay writable: a [`flush`](Self::flush) keeps what they are when it comes to them, and they are
    /// [dirty](Self::dirty) still when it is over. (Linux protects a pinned page of a file when it writes it back, hears of it no more when a device goes on to write, and has it marked as
    /// dirty by who lets it go. Here nobody has to know.)
    ///
    /// # Errors
    ///
    /// As [`pin`](Self::pin); and where the region is not writable.
    pub fn pin_mut(&mut self, bytes: Range<u64>) -> Result<PinnedMut<'_>, NoPin> {
        self.pinned(bytes, Access::Write).map(PinnedMut)
    }

    /// As [`pin_mut`](Self::pin_mut), for who uses the region from several threads by its [address](Self::as_ptr): no reference is made.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn pin_ptr(&self, bytes: Range<u64>) -> Result<PinnedPtr<'_>, NoPin> {
        self.pinned(bytes, Access::Write)
    }

    /// How many bytes more can be pinned now.
    pub fn pinnable(&self) -> u64 {
        let of_region = self.most_pinned().map(|most| most.saturating_sub(self.served.pinned.load(Ordering::Relaxed)));
        of_region.unwrap_or(u64::MAX).min(self.served.mm.platform().pins().room()) * PAGE
    }

    fn most_pinned(&self) -> Option<u64> {
        self.served.mm.limit().map(most_of)
    }

    fn pinned(&self, bytes: Range<u64>, access: Access) -> Result<PinnedPtr<'_>, NoPin> {
        let len = bytes.end.saturating_sub(bytes.start) as usize;
        self.within(bytes.start, len)?;
        let _visit = Visit::begin();
        let pages = if len == 0 { 0..0 } else { self.pages_of(&bytes) };
        let mut held = self.make_room(pages.end - pages.start, access).ok_or_else(|| NoPin::Budget(self.pinnable()))?;
        for page in pages {
            let pinned = self.pin_page(self.memory.at(page), access);
            held.frames.push(pinned.map_err(|why| self.failed((page * PAGE).max(bytes.start), why))?);
        }
        Ok(PinnedPtr { at: self.memory.at(0) + bytes.start, len, _held: held })
    }

    /// Room to pin so many.
    fn make_room(&self, pages: u64, access: Access) -> Option<Held<'_>> {
        let (host, of_region) = (self.served.mm.platform(), &self.served.pinned);
        reserve(of_region, pages, self.most_pinned().unwrap_or(u64::MAX)).then_some(())?;
        let room = if host.pins().reserve(pages) { pages } else { 0 };
        if room < pages {
            of_region.fetch_sub(pages, Ordering::Relaxed);
            return None;
        }
        Some(Held { host, of_region, room, frames: Vec::with_capacity(pages as usize), access })
    }

    /// Has the page at `at` stay there.
    fn pin_page(&self, at: u64, access: Access) -> Result<Frame<'_, Host>, Denied> {
        let (mm, host, is_to_write) = (&self.served.mm, self.served.mm.platform(), access == Access::Write);
        loop {
            self.served.fault(at, access)?;
            let frame = Errands::during(|| mm.pin_page(at))?;
            host.pins().pin(frame.id(), is_to_write);
            // Whoever has not found it pinned has let go of the lock under which this looks.
            let shown = Errands::during(|| mm.pin_page(at)).map(|shown| shown.id());
            if shown == Ok(frame.id()) && (!is_to_write || host.is_writable(frame.id(), at)) {
                return Ok(frame);
            }
            host.pins().unpin(frame.id(), is_to_write);
            shown?;
        }
    }
}
