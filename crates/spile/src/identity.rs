//! Giving a mapping its anonymous identity.
//!
//! **Guarantee.** It is set at most once, and not while a change may copy it.
//!
//! **Mechanism.** A compare-exchange in the mapping's cell, which a claim closes (P10). Which one follows Linux: that of a neighbour which
//! nothing but permission keeps apart, so that the two can merge later, or a new one.

use crate::locking::Locking;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::vma::{AnonId, Vma};
use spile_rcu::Rcu;

/// Sees to it that `vma` has one. False if somebody is about to replace it.
#[inline]
pub(crate) fn ensure<P: Platform, L: Locking>(mm: &Mm<P, L>, vma: &Vma<P, L>) -> bool {
    vma.anon.get().is_some() || set(mm, vma)
}

#[cold]
fn set<P: Platform, L: Locking>(mm: &Mm<P, L>, vma: &Vma<P, L>) -> bool {
    let id = neighbours(mm, vma).unwrap_or_else(|| AnonId::new(mm.platform().shared().number()));
    vma.anon.set(id)
}

/// That of the mapping above, or else below, if nothing but permission keeps the two apart and no parent has a part in it.
fn neighbours<P: Platform, L: Locking>(mm: &Mm<P, L>, vma: &Vma<P, L>) -> Option<AnonId> {
    let section = mm.platform().rcu().read();
    let range = vma.range();
    let above = mm.index.find(&section, range.end()).filter(|above| continues(vma, above));
    let below = || mm.index.find(&section, range.start().checked_sub(1)?).filter(|below| continues(below, vma));
    let usable = |other: &Vma<P, L>| Some(other.anon.get()).filter(|id| id.is_some() && !id.is_inherited());
    above.and_then(usable).or_else(|| below().and_then(usable))
}

fn continues<P: Platform, L: Locking>(low: &Vma<P, L>, high: &Vma<P, L>) -> bool {
    let (a, b) = (low.attr(), high.attr());
    low.range().end() == high.range().start() && a.flags == b.flags && a.backing.continues_into(low.range().pages(), &b.backing)
}
