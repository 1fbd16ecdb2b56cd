//! How many pages are read where one is wanted.
//!
//! **Guarantee.** A window is as many pages as were set last, begins at a multiple of that, and has the page that it is around. Of one page there is none.
//!
//! **Mechanism.** A power of two.

use core::ops::Range;
use spile_sync::atomic::{AtomicU32, Ordering};

/// The size of windows of pages.
pub(crate) struct Window {
    pages: AtomicU32,
}

impl Window {
    /// Of one page.
    pub(crate) fn new() -> Self {
        Self { pages: AtomicU32::new(1) }
    }

    /// From now on of so many pages.
    pub(crate) fn set(&self, pages: u32) {
        assert!(pages.is_power_of_two(), "{pages} pages: a window has a power of two");
        // Relaxed, here and where it is read: a number.
        self.pages.store(pages, Ordering::Relaxed);
    }

    /// The pages of the window that `page` lies in, if there are others.
    pub(crate) fn around(&self, page: u64) -> Option<Range<u64>> {
        let pages = u64::from(self.pages.load(Ordering::Relaxed));
        let first = page & !(pages - 1);
        (pages > 1).then_some(first..first + pages)
    }
}
