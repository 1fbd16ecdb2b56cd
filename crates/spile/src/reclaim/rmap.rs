//! From a frame to every entry that shows it.
//!
//! **Guarantee.** What a walk does not find keeps the page in memory, by the hold that every entry has. What it finds it does not trust: an entry is asked under
//! its table's lock whether it shows the frame.
//!
//! **Mechanism.** A frame's [`Record`] says whose page it is: born in a space, at an address (`families` knows to whom it can have come from there); or
//! such a page of a file (`links` knows where that is mapped).

use super::Pressed;
use super::Reclaimer;
use crate::addr::{FrameId, PAGE_SHIFT, Slot, SpaceId};
#[cfg(feature = "file")]
use crate::backing::File;
use crate::paging::PageTable;
use alloc::sync::Arc;
use spile_sync::atomic::{AtomicU32, AtomicU64, Ordering};
use spile_sync::order;

/// What is known of a page, by its frame. A host has one for each. Written by whoever has the page alone, or has locked an entry that shows it; read
/// by evictors, who check what it says.
#[derive(Debug)]
pub struct Record {
    /// Twice the number of the space to which it belongs, or of the file, plus one; 0 if to none.
    whose: AtomicU64,
    /// Its address there, in pages.
    page: AtomicU64,
    /// In which slot it may be too, plus one: verified there.
    slot: AtomicU32,
    /// The next in a queue.
    pub(super) next: AtomicU32,
    /// Whether it is in one.
    listed: AtomicU32,
}

impl Record {
    /// Of a frame that is no page.
    #[allow(clippy::new_without_default, reason = "a host makes them, deliberately")]
    pub fn new() -> Self {
        Self {
            whose: AtomicU64::new(0),
            page: AtomicU64::new(0),
            slot: AtomicU32::new(0),
            next: AtomicU32::new(0),
            listed: AtomicU32::new(0),
        }
    }

    /// Whether the page is in no list, and is the caller's to put into one.
    pub fn enlist(&self) -> bool {
        // AcqRel: pairs with `delist`. A load would not do: it may miss that the page was delisted before its record was written.
        self.listed.swap(1, Ordering::AcqRel) == 0
    }

    /// The page, which the caller has taken out of its list, is in none until it is enlisted. Before anything else is asked of it.
    pub fn delist(&self) {
        // AcqRel [lru-listed]: who enlisted it before is seen by what is asked next; who does it after finds it delisted.
        self.listed.swap(0, order!("lru-listed", AcqRel));
    }

    // Relaxed, all that follow: what a record says is a hint. Who follows it asks the entry, or the slot's word.

    pub(super) fn forget(&self) {
        self.whose.store(0, Ordering::Relaxed);
        self.slot.store(0, Ordering::Relaxed);
    }

    pub(super) fn belongs(&self, space: SpaceId, at: u64) {
        self.page.store(at >> PAGE_SHIFT, Ordering::Relaxed);
        self.whose.store(space.0 << 1, Ordering::Relaxed);
    }

    #[cfg(feature = "file")]
    pub(super) fn is_page(&self, file: u64, page: u64) {
        self.page.store(page, Ordering::Relaxed);
        self.whose.store(file << 1 | 1, Ordering::Relaxed);
    }

    /// Whether it belongs to somebody.
    pub(super) fn is_anyones(&self) -> bool {
        self.whose.load(Ordering::Relaxed) != 0
    }

    /// Whether it belongs to a space.
    pub(super) fn is_private(&self) -> bool {
        let whose = self.whose.load(Ordering::Relaxed);
        whose != 0 && whose & 1 == 0
    }

    pub(super) fn is_of(&self, slot: Slot) {
        self.slot.store(slot.0 + 1, Ordering::Relaxed);
    }

    pub(super) fn slot(&self) -> Option<Slot> {
        Some(Slot(self.slot.load(Ordering::Relaxed).checked_sub(1)?))
    }
}

/// Whose page it is.
pub(super) enum Home<P: Pressed> {
    /// Born in that space, at that address.
    Space(SpaceId, u64),
    /// That of the file.
    #[cfg(feature = "file")]
    File(File<P>, u64),
    #[cfg(not(feature = "file"))]
    #[allow(dead_code, reason = "nobody's: there are no files")]
    Never(core::convert::Infallible, core::marker::PhantomData<P>),
}

impl<P: Pressed> Home<P> {
    /// Whether `frame` is its page; of a space it is not known.
    #[cfg_attr(not(feature = "file"), allow(unused_variables, reason = "only files are asked"))]
    pub(super) fn has(&self, p: &P, frame: FrameId) -> bool {
        match self {
            Home::Space(..) => true,
            #[cfg(feature = "file")]
            Home::File(file, page) => file.still_has(p, *page, frame),
            #[cfg(not(feature = "file"))]
            Home::Never(never, _) => match *never {},
        }
    }
}

impl<P: Pressed> Reclaimer<P> {
    /// Whose page is in `frame`, if it is one's.
    #[inline]
    pub(super) fn home(&self, p: &P, frame: FrameId) -> Option<Home<P>> {
        let record = p.record(frame);
        let (whose, page) = (record.whose.load(Ordering::Relaxed), record.page.load(Ordering::Relaxed));
        match whose & 1 {
            _ if whose == 0 => None,
            0 => Some(Home::Space(SpaceId(whose >> 1), page << PAGE_SHIFT)),
            #[cfg(feature = "file")]
            _ => Some(Home::File(self.files.find(p, whose >> 1)?.upgrade()?, page)),
            #[cfg(not(feature = "file"))]
            _ => None,
        }
    }

    /// Calls `each` with the tables, and the address there, of every entry that may show the page. Under the lock of its family, or of its file's list: `each` may
    /// lock a table.
    #[inline]
    pub(super) fn visit(&self, p: &P, home: &Home<P>, mut each: impl FnMut(&Arc<PageTable<P>>, u64)) {
        match home {
            Home::Space(space, at) => self.spaces.visit(p, *space, |tables| each(tables, *at)),
            #[cfg(feature = "file")]
            Home::File(file, page) => file.links().visit(p, *page, each),
            #[cfg(not(feature = "file"))]
            Home::Never(never, _) => match *never {},
        }
    }
}
