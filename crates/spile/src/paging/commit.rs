//! Telling the platform, and the count of the space's pages, that an entry changes.
//!
//! **Guarantee.** Every change of what an entry of level 0 shows is told, under its table's lock. A fault may be refused, by the platform or by the space's limit, and then nothing
//! has changed; what is not a fault is not asked.
//!
//! **Mechanism.** What is counted are entries that show a page, zeros aside.

use super::install::Lost;
use super::{PageTable, Pte};
use crate::platform::Platform;
use crate::reclaim::sealed::Reclaim;
use spile_sync::seeded;

/// Whether an entry shows a page that is counted.
#[inline(always)]
fn is_counted<P: Platform>(p: &P, pte: Option<Pte>) -> bool {
    P::Reclaim::KEEPS && pte.is_some_and(|pte| pte.frame != p.zero_frame())
}

impl<P: Platform> PageTable<P> {
    /// How many pages it shows, and how many it may.
    pub(crate) fn residents(&self) -> &<P::Reclaim as Reclaim<P>>::Residents {
        &self.residents
    }

    /// Tells of a change of the entry of `at`, whose table the caller has locked.
    #[inline]
    pub(super) fn commit(&self, p: &P, at: u64, old: Option<Pte>, new: Option<Pte>) {
        self.count(p, old, new);
        self.announce(p, at, old, new);
    }

    /// Tells that an evictor has emptied the entry of `at`, whose table it has locked. Whether the page may leave.
    pub(super) fn leave(&self, p: &P, at: u64, old: Pte) -> bool {
        // SAFETY: (1) as every caller in this module has; (2) the entry was this one, and is empty.
        let leaves = unsafe { p.leave(self.space, at, old) }.is_ok() || seeded!("leave-what-is-in-use");
        if leaves {
            self.count(p, Some(old), None);
        }
        leaves
    }

    /// Asks before the entry of `at`, whose table the caller has locked, passes no writes any more, for its page is about to be written back. Whether it may.
    #[cfg(feature = "file")]
    pub(super) fn may_clean(&self, p: &P, at: u64, old: Pte, new: Pte) -> bool {
        // SAFETY: (1) and (2) as above.
        unsafe { p.clean(self.space, at, old, new) }.is_ok() || seeded!("protect-what-is-in-use")
    }

    #[inline]
    fn count(&self, p: &P, old: Option<Pte>, new: Option<Pte>) {
        match (is_counted(p, old), is_counted(p, new)) {
            (false, true) => P::Reclaim::charge_anyway(p, &self.residents),
            (true, false) if !seeded!("count-arrivals-only") => P::Reclaim::uncharge(p, &self.residents),
            _ => {}
        }
    }

    /// Tells the platform alone: of a change within one that was counted as a whole.
    pub(super) fn announce(&self, p: &P, at: u64, old: Option<Pte>, new: Option<Pte>) {
        // SAFETY: (1) as every caller in this module has; (2) the entries are those of before and after.
        unsafe { p.commit(self.space, at, old, new) };
    }

    /// Asks before a fault changes the entry of `at`, whose table it has locked.
    #[inline(always)]
    pub(super) fn admit(&self, p: &P, at: u64, old: Option<Pte>, new: Pte) -> Result<(), Lost> {
        let is_charged = self.charge(p, old, new)?;
        // SAFETY: (1) and (2) as above.
        let admitted = unsafe { p.admit(self.space, at, old, new) };
        if admitted.is_err() && is_charged {
            P::Reclaim::uncharge(p, &self.residents);
        }
        Ok(admitted?)
    }

    /// The same of pages that nobody asked for, which the caller has charged: how many, from the first on. What was charged for the others is given back.
    #[cfg(feature = "file")]
    pub(super) fn admit_around(&self, p: &P, pages: &[(u64, Pte)]) -> usize {
        // SAFETY: (1) and (2) as above.
        let admitted = unsafe { p.admit_around(self.space, pages) };
        let refused = pages.iter().skip(admitted).filter(|(_, pte)| is_counted(p, Some(*pte)));
        refused.for_each(|_| P::Reclaim::uncharge(p, &self.residents));
        admitted
    }

    /// Counts that an entry will show `new`. Whether that is one more.
    #[inline(always)]
    pub(super) fn charge(&self, p: &P, old: Option<Pte>, new: Pte) -> Result<bool, Lost> {
        let is_more = !is_counted(p, old) && is_counted(p, Some(new));
        if is_more && !P::Reclaim::charge(p, &self.residents) { Err(Lost::Full) } else { Ok(is_more) }
    }
}
