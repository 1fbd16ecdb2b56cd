//! Where a file's pages are shown.
//!
//! **Guarantee.** A walk finds every entry that shows a page of the file, and every place where a CPU may still use one that was just taken away; also while mappings
//! come, go, are cut and move.
//!
//! **Mechanism.** A [`Link`] per mapping: the tables of its space, and by how much its addresses are ahead of the file's pages. Mappings are replaced by others; those
//! that take the place of one, whole or in parts, share its link, which says at least the pages that they show. Nothing is asked of mappings themselves: what an entry
//! says is trusted.
//!
//! A link is put at the end of the file's list before its mapping is published, and walks go from the front. What moves (mremap) moves from a link to a newer one: so
//! a walk that comes too late for the old place comes to the new one afterwards. A link stays as long as a mapping has it, or, if its space has displaced mappings and
//! not yet taken their pages away, until it has. Those that nobody has any more go when the list wants room.

use super::lists::lock;
use crate::addr::{PAGE_SHIFT, Range};
use crate::paging::PageTable;
use crate::platform::Platform;
use alloc::sync::Arc;
use alloc::vec::Vec;
use spile_sync::atomic::{AtomicU64, Ordering, fence};
use spile_sync::lock::Guarded;
use spile_sync::seeded;

/// A place where pages of a file are shown.
pub struct Link<P: Platform> {
    tables: Arc<PageTable<P>>,
    /// An address, in pages, less the page of the file that is there.
    ahead: u64,
    /// The pages of the file that may be shown: no fewer than are.
    first: AtomicU64,
    end: AtomicU64,
}

/// All such places of a file, the newest last.
pub struct Links<P: Platform>(Guarded<Vec<Arc<Link<P>>>>);

impl<P: Platform> Default for Links<P> {
    fn default() -> Self {
        Self(Guarded::new(Vec::new()))
    }
}

impl<P: Platform> Link<P> {
    /// For a mapping of `range`, with `page` of the file first.
    pub(super) fn new(tables: &Arc<PageTable<P>>, range: Range, page: u64) -> Self {
        Self {
            tables: Arc::clone(tables),
            ahead: (range.start() >> PAGE_SHIFT).wrapping_sub(page),
            first: AtomicU64::new(pages(range, page).start),
            end: AtomicU64::new(pages(range, page).end),
        }
    }

    fn may_show(&self, page: u64) -> bool {
        // Relaxed, here and in `widen`: under the list's lock.
        (self.first.load(Ordering::Relaxed)..self.end.load(Ordering::Relaxed)).contains(&page)
    }

    /// Whether somebody may find a page by it that no other link tells of.
    fn is_wanted(self: &Arc<Self>) -> bool {
        // The list's own is one.
        if Arc::strong_count(self) > 1 {
            return true;
        }
        // Acquire: whoever let go of it last had begun to displace before.
        fence(Ordering::Acquire);
        self.tables.is_displacing() && !seeded!("unlink-before-the-zap")
    }
}

/// The pages of a mapping of `range`, with `page` first: all, if their numbers wrap.
fn pages(range: Range, page: u64) -> core::ops::Range<u64> {
    page.checked_add(range.pages()).map_or(0..u64::MAX, |end| page..end)
}

impl<P: Platform> Links<P> {
    /// Puts `link` at the end. False if there is no memory.
    pub(super) fn add(&self, p: &P, link: &Arc<Link<P>>) -> bool {
        // What nobody wants goes, when it is over, after the lock.
        let mut room = Vec::new();
        loop {
            let wanted = {
                let mut list = lock(p, &self.0);
                let is_full = list.len() == list.capacity();
                let wanted = if is_full { list.iter().filter(|link| link.is_wanted()).count() } else { 0 };
                if is_full && room.capacity() > wanted {
                    // As many as were counted at most: none comes that nobody wanted.
                    room.extend(list.iter().filter(|link| link.is_wanted()).cloned());
                    core::mem::swap(&mut room, &mut list);
                }
                if list.len() < list.capacity() {
                    let at = if seeded!("newest-first") { 0 } else { list.len() };
                    list.insert(at, Arc::clone(link));
                    return true;
                }
                (wanted + 1) * 2
            };
            room = Vec::new();
            if room.try_reserve_exact(wanted).is_err() {
                return false;
            }
        }
    }

    /// `link` is for a mapping of `range` too, with `page` first, of which nothing moves here: before that is published.
    pub(super) fn widen(&self, p: &P, link: &Link<P>, range: Range, page: u64) {
        debug_assert_eq!(link.ahead, (range.start() >> PAGE_SHIFT).wrapping_sub(page), "what merges goes on without a seam");
        // Who walks past it before has seen to it that faults there see what he did.
        let _list = lock(p, &self.0);
        let pages = pages(range, page);
        link.first.store(link.first.load(Ordering::Relaxed).min(pages.start), Ordering::Relaxed);
        link.end.store(link.end.load(Ordering::Relaxed).max(pages.end), Ordering::Relaxed);
    }

    /// Calls `each` with the tables of every place where `page` may be shown, and the address there. Under the list's lock: `each` may lock a table.
    pub(crate) fn visit(&self, p: &P, page: u64, mut each: impl FnMut(&Arc<PageTable<P>>, u64)) {
        let list = lock(p, &self.0);
        for link in list.iter().filter(|link| link.may_show(page)) {
            link.tables.visit(|| each(&link.tables, page.wrapping_add(link.ahead) << PAGE_SHIFT));
        }
    }
}
