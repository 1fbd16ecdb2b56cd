//! Getting at a page through its entry.
//!
//! **Guarantee.** What is written is in the page that the entry shows, and the entry allows it.
//!
//! **Mechanism.** The lock of the entry's table, held over the write: whoever shares or replaces the page needs it too.

use super::table::{Locked, index};
use super::{PageTable, Pte};
use crate::addr::{Access, PAGE, TABLE_END};
use crate::frame::Frame;
use crate::platform::Platform;
use spile_rcu::Rcu;

impl<P: Platform> PageTable<P> {
    /// A hold on the page at `at`, if its entry allows reading. Marks it accessed, as the MMU would.
    pub(crate) fn hold<'p>(&self, p: &'p P, at: u64) -> Option<Frame<'p, P>> {
        self.at_entry(p, at, Access::Read, |locked, pte| {
            if !pte.accessed {
                locked.edit(index(at, 0), |now| Pte { accessed: true, ..now });
            }
            Frame::share(p, pte.frame)
        })
    }

    /// Copies `bytes`, which do not reach beyond the page, to `at`, if the page's entry allows writing, and marks it accessed and dirty, as the MMU would.
    /// Whether it did.
    pub(crate) fn write(&self, p: &P, at: u64, bytes: &[u8]) -> bool {
        let written = self.at_entry(p, at, Access::Write, |locked, pte| {
            if !(pte.dirty && pte.accessed) {
                locked.edit(index(at, 0), Pte::dirtied);
            }
            // SAFETY: (1) the entry's, which the lock keeps, and it allows it.
            unsafe { p.write(pte.frame, (at % PAGE) as usize, bytes) };
        });
        written.is_some()
    }

    /// Calls `act` under the table's lock, if the entry allows `access`.
    fn at_entry<T>(&self, p: &P, at: u64, access: Access, act: impl FnOnce(&Locked<'_, P>, Pte) -> T) -> Option<T> {
        if at >= TABLE_END {
            return None;
        }
        let _section = p.rcu().read();
        let locked = Self::lock(p, self.leaf(p, at)?)?;
        let pte = locked.get(index(at, 0)).filter(|pte| access.allowed_by(pte.prot))?;
        Some(act(&locked, pte))
    }
}
