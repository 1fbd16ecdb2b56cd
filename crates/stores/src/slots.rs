//! Something for each slot.
//!
//! **Guarantee.** A slot's place is found at once, is never moved, and is waited for by nobody as long as nobody else is at that slot.
//!
//! **Mechanism.** A boxed slice with a lock for each slot, which is there from the beginning: so nothing grows while somebody waits.

use spile::Slot;
use std::sync::{Mutex, PoisonError};

/// What is kept for each of so many slots.
pub(crate) struct Slots<T>(Box<[Mutex<Option<T>>]>);

impl<T> Slots<T> {
    pub(crate) fn new(slots: u32) -> Self {
        Self((0..slots).map(|_| Mutex::new(None)).collect())
    }

    /// Does something with a slot's place; none where there is no such slot.
    pub(crate) fn with<R>(&self, slot: Slot, act: impl FnOnce(&mut Option<T>) -> R) -> Option<R> {
        let place = self.0.get(slot.0 as usize)?;
        Some(act(&mut place.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Puts `new` there. False where there is no such slot.
    pub(crate) fn put(&self, slot: Slot, new: T) -> bool {
        self.with(slot, |place| place.replace(new)).is_some()
    }

    /// What was there, if anything.
    pub(crate) fn take(&self, slot: Slot) -> Option<T> {
        self.with(slot, Option::take).flatten()
    }

    /// Of how many slots that is so. Exact when nobody uses them.
    pub(crate) fn count(&self, is_so: impl Fn(&T) -> bool) -> usize {
        let is_one = |slot: &u32| self.with(Slot(*slot), |place| place.as_ref().is_some_and(&is_so)) == Some(true);
        (0..self.0.len() as u32).filter(is_one).count()
    }
}

/// These bytes on the heap; none where that has no room.
pub(crate) fn on_heap(bytes: &[u8]) -> Option<Box<[u8]>> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(bytes.len()).ok()?;
    copy.extend_from_slice(bytes);
    Some(copy.into_boxed_slice())
}
