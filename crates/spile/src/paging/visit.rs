//! Tables that others come to by the files that their space shows.
//!
//! **Guarantee.** Who has come in finds tables that are there, until it goes. While mappings are displaced whose pages may still be shown, it can be asked.
//!
//! **Mechanism.** A count of visitors with a mark: when the space ends it is set, and the end waits for those who are there. They do not sleep.

use super::PageTable;
use crate::platform::Platform;
use spile_sync::atomic::{AtomicU32, Ordering};
use spile_sync::order;
#[cfg(feature = "file")]
use spile_sync::seeded;

/// The space has ended.
const CLOSED: u32 = 1 << 31;

/// That a change has displaced mappings, and has not yet taken their pages away.
#[derive(Debug)]
#[must_use = "it ends when it is dropped"]
pub(crate) struct Displacing<'t>(&'t AtomicU32);

impl Drop for Displacing<'_> {
    fn drop(&mut self) {
        // Release: pairs with `is_displacing`. Whoever finds nobody at it finds no pages of what was displaced.
        self.0.fetch_sub(1, Ordering::Release);
    }
}

impl<P: Platform> PageTable<P> {
    /// Calls `each`, unless the space has ended.
    #[cfg(feature = "file")]
    pub(crate) fn visit<T>(&self, each: impl FnOnce() -> T) -> Option<T> {
        // Relaxed: of this and the closing one is first. Who finds it open is counted, and waited for; who finds it closed looks at nothing.
        let is_open = self.visitors.fetch_add(1, Ordering::Relaxed) & CLOSED == 0;
        let done = (is_open || seeded!("visit-what-has-ended")).then(each);
        // Release [visit-over]: what was done here comes before the tables go.
        self.visitors.fetch_sub(1, order!("visit-over", Release));
        done
    }

    /// Lets nobody in any more, and waits until all are gone. Spins.
    pub(crate) fn close(&self, p: &P) {
        // Acquire [visits-over], both times: of the last of those who were there.
        let mut visitors = self.visitors.fetch_or(CLOSED, order!("visits-over", Acquire));
        while visitors & !CLOSED != 0 {
            p.relax();
            visitors = self.visitors.load(order!("visits-over", Acquire));
        }
    }

    /// From now until the drop of what it returns pages may be shown whose mappings are not found.
    pub(crate) fn displace(&self) -> Displacing<'_> {
        // Relaxed: who drops a mapping after that releases it, and is met there (`Links`).
        self.displacing.fetch_add(1, Ordering::Relaxed);
        Displacing(&self.displacing)
    }

    /// Whether that is so now.
    #[cfg(feature = "file")]
    pub(crate) fn is_displacing(&self) -> bool {
        // Acquire: as above. (Loom knows nothing of `alloc`'s counts, by which it is ordered after what was displaced: there it reads the newest.)
        let displacing =
            if cfg!(loom) { self.displacing.fetch_add(0, Ordering::Acquire) } else { self.displacing.load(Ordering::Acquire) };
        displacing != 0
    }
}
