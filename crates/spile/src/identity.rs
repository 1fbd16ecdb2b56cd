//! Giving a mapping its anonymous identity.
//!
//! **Guarantee.** It is set at most once, and not while a change may copy it.
//!
//! **Mechanism.** A compare-exchange in the mapping's cell, which a claim closes (P10). Which one follows Linux: that of a neighbour which
//! nothing but permission keeps apart, so that the two can merge later, or a new one.

use crate::change::Change;
use crate::index::Writer;
use crate::locking::{Locking, Stable};
use crate::mm::Mm;
use crate::platform::Platform;
use crate::vma::{AnonId, Vma};

/// Sees to it that the mapping held has one. False if somebody is about to replace it.
#[inline]
pub(crate) fn ensure<P: Platform, L: Locking>(mm: &Mm<P, L>, hold: &impl Stable<P, L>) -> bool {
    hold.vma().anon().is_some() || set_beside(mm, hold)
}

#[cold]
fn set_beside<P: Platform, L: Locking>(mm: &Mm<P, L>, hold: &impl Stable<P, L>) -> bool {
    let vma = hold.vma();
    set(mm.platform(), vma, |at, theirs| hold.beside(mm, at, |other| other.and_then(theirs)))
}

impl<P: Platform, L: Locking> Change<'_, P, L> {
    /// Sees to it that `vma` has one.
    pub(crate) fn identify(&self, vma: &Vma<P, L>) {
        if !vma.anon().is_some() {
            set(self.mm.platform(), vma, |at, theirs| self.index().find(at).and_then(theirs));
        }
    }
}

/// Gives it that of the mapping above, or else below, if nothing but permission keeps the two apart and no parent has a part in it; or else
/// a new one. `find` asks the mapping at an address, or the next above.
fn set<P: Platform, L: Locking>(
    p: &P,
    vma: &Vma<P, L>,
    find: impl Fn(u64, &dyn Fn(&Vma<P, L>) -> Option<AnonId>) -> Option<AnonId>,
) -> bool {
    let usable = |other: &Vma<P, L>| Some(other.anon()).filter(|id| id.is_some() && !id.is_inherited());
    let above = find(vma.range().end(), &|above| usable(above).filter(|_| continues(vma, above)));
    let below = || find(vma.range().start().checked_sub(1)?, &|below| usable(below).filter(|_| continues(below, vma)));
    vma.anon_cell().set(above.or_else(below).unwrap_or_else(|| AnonId::new(p.shared().number())))
}

fn continues<P: Platform, L: Locking>(low: &Vma<P, L>, high: &Vma<P, L>) -> bool {
    let (a, b) = (low.attr(), high.attr());
    low.range().end() == high.range().start() && a.flags == b.flags && a.backing.continues_into(low.range().pages(), &b.backing)
}
