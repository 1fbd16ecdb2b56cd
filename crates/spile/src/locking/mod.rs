//! How a fault holds its mapping still, and how a change makes faults let go.
//!
//! **Guarantee.** While a fault has a [`Stable`] whose `still_valid` is true under the lock of the page's table, the mapping it names
//! covers the page, and whoever unmaps or replaces it has not begun to zap.
//!
//! **Mechanism.** One fault path and one change sequence serve all designs; a design answers the questions of [`Locking`].
//!
//! | design | a fault holds | still valid | claim | quiesce |
//! |---|---|---|---|---|
//! | [`MmapLock`] | the address space's lock, shared | always | nothing: the lock is exclusive | nothing |
//! | [`VmaRefcount`] | a reference on the mapping | always | new references are refused | waits until the old ones are gone |
//!
//! A design that misses its fast way falls back to the address space's lock ([`Shared`](Held)), which is the same for all.

mod mmap_lock;
mod rwlock;
mod vma_refcount;

pub use mmap_lock::MmapLock;
pub use rwlock::{Exclusive, RwLock, SharedGuard};
pub use vma_refcount::VmaRefcount;

use crate::addr::Range;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::vma::Vma;
use crate::wait::Token;
use core::ptr::NonNull;

/// What was not got on the fast way. Also the label of its counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// No mapping covers the address, and none above it grows down. Final.
    NoVma,
    /// No mapping covers the address; the one above it grows down.
    Grow,
    /// Somebody changes the mapping, or holds the lock.
    Contended,
    /// The mapping was replaced while it was looked at.
    Stale,
}

/// The answer of a slow way that never blocks.
#[derive(Debug)]
pub enum Slowly<'m, T, P: Platform> {
    /// Here it is.
    Held(T),
    /// No mapping covers the address.
    NoVma,
    /// No mapping covers the address; the one above it grows down.
    Grow,
    /// Not now. Wait for this, and ask again.
    Wait(Token<'m, P>),
}

/// A mapping that is held still.
pub trait Stable<P: Platform, L: Locking> {
    /// The mapping.
    fn vma(&self) -> &Vma<P, L>;

    /// The addresses for which the hold is good: what a fault may touch (P9).
    fn range(&self) -> Range;

    /// Asked under the lock of the table that is about to be written (P1, P2, P4).
    fn still_valid(&self) -> bool;
}

/// A design. It holds nothing itself: its state is in the address space and in each mapping.
///
/// # Safety
///
/// A mapping is *claimed* from [`born_claimed`](Self::born_claimed) or [`claim`](Self::claim) on, until [`release`](Self::release); a claim that
/// is never released lasts for ever. A *hold* is what [`try_stabilise`](Self::try_stabilise) and [`stabilise`](Self::stabilise) give.
/// An implementor owes:
///
/// (1) a hold names a mapping that was found in that `mm` and covers that `at`, and was not claimed when it was held; its
/// [`vma`](Stable::vma) is always that one, and alive as long as the hold: it has a read section of the platform's domain that began before
/// the mapping was found, or `quiesce` waits for it, or it keeps [`write`](Self::write) from being answered;
///
/// (2) its [`range`](Stable::range) lies within that mapping, and contains `at`;
///
/// (3) when [`quiesce`](Self::quiesce) has returned, each hold of the mapping from before the claim is gone, or its
/// [`still_valid`](Stable::still_valid) is false for ever under each table lock that is taken after; what was done under a hold by then
/// happened before that return, or is seen by whoever takes the table's lock next. Nor is a claimed mapping held anew;
///
/// (4) who holds a mapping, and has then locked a table, sees what was done to that table before the mapping's release;
///
/// (5) `write` gives the right to change that `mm` and no other.
///
/// For a design whose holds keep `write` from being answered, (1), (3) and (4) hold without claims, which are made by who has that right, or in
/// a mapping that nobody can find.
pub unsafe trait Locking: Sized + Send + Sync + 'static {
    /// What it is called.
    const NAME: &'static str;
    /// Its state in an address space, beside the lock that all designs have.
    type PerMm: Default + Send + Sync;
    /// Its state in a mapping.
    type PerVma: Send + Sync;
    /// What a fault holds on the fast way.
    type Fast<'m, P: Platform>: Stable<P, Self>;

    /// The state of a mapping that no fault may have yet.
    fn born_claimed() -> Self::PerVma;

    /// Holds the mapping at `at`, a page's address. Never waits.
    ///
    /// # Errors
    ///
    /// [`Miss`].
    fn try_stabilise<P: Platform>(mm: &Mm<P, Self>, at: u64) -> Result<Self::Fast<'_, P>, Miss>;

    /// Holds the mapping at `at` on the way that all designs share. Never blocks.
    fn stabilise<P: Platform>(mm: &Mm<P, Self>, at: u64) -> Slowly<'_, Held<'_, P, Self>, P> {
        Held::at(mm, at)
    }

    /// The right to change the address space. Never blocks; the caller waits and asks again until it is given.
    fn write<P: Platform>(mm: &Mm<P, Self>) -> Result<Exclusive<'_, P>, Token<'_, P>> {
        mm.lock.write(mm.platform())
    }

    /// Refuses new holds of a mapping. With the right to change.
    fn claim(vma: &Self::PerVma);

    /// Lets faults hold a mapping (again). With the right to change.
    fn release(vma: &Self::PerVma);

    /// Waits until nobody holds a claimed mapping. May sleep.
    fn quiesce<P: Platform>(mm: &Mm<P, Self>, vma: &Self::PerVma);
}

/// A mapping held by the address space's lock, shared: nobody changes anything.
#[derive(Debug)]
pub struct Held<'m, P: Platform, L: Locking> {
    vma: NonNull<Vma<P, L>>,
    _lock: SharedGuard<'m, P>,
}

impl<'m, P: Platform, L: Locking> Held<'m, P, L> {
    /// The mapping at `at`, if the lock is free to share.
    pub(crate) fn try_at(mm: &'m Mm<P, L>, at: u64) -> Result<Self, Miss> {
        let lock = mm.lock.try_read(mm.platform()).ok_or(Miss::Contended)?;
        Self::under(mm, lock, at)
    }

    fn at(mm: &'m Mm<P, L>, at: u64) -> Slowly<'m, Self, P> {
        match mm.lock.read(mm.platform()) {
            Err(token) => Slowly::Wait(token),
            Ok(lock) => match Self::under(mm, lock, at) {
                Ok(held) => Slowly::Held(held),
                Err(Miss::Grow) => Slowly::Grow,
                Err(_) => Slowly::NoVma,
            },
        }
    }

    fn under(mm: &'m Mm<P, L>, lock: SharedGuard<'m, P>, at: u64) -> Result<Self, Miss> {
        let vma = mm.index.locked(&lock, at).ok_or_else(|| mm.miss(at))?;
        Ok(Self { vma, _lock: lock })
    }
}

impl<P: Platform, L: Locking> Stable<P, L> for Held<'_, P, L> {
    #[inline]
    fn vma(&self) -> &Vma<P, L> {
        // SAFETY: (1) found in the index under the shared lock; (2) only a change, which needs all of the lock, defers it.
        unsafe { self.vma.as_ref() }
    }

    fn range(&self) -> Range {
        self.vma().range()
    }

    fn still_valid(&self) -> bool {
        true
    }
}
