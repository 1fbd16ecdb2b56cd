//! Lists of what reclaim looks through.
//!
//! **Guarantee.** Held as long as a lookup takes; nothing is allocated or dropped meanwhile.
//!
//! **Mechanism.** A vector under a spin lock, with its room made outside of that.

use crate::platform::Platform;
use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};
use spile_sync::lock::{Guarded, GuardedMut};

/// A lock that is held, and the promise not to be interrupted meanwhile.
pub(super) struct Held<'g, P: Platform, T> {
    guard: GuardedMut<'g, T>,
    // After the lock.
    _pin: P::Pin,
}

impl<P: Platform, T> Deref for Held<'_, P, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<P: Platform, T> DerefMut for Held<'_, P, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

/// Locks, with `relax` in between.
pub(super) fn lock<'g, P: Platform, T>(p: &P, what: &'g Guarded<T>) -> Held<'g, P, T> {
    loop {
        let pin = p.pin();
        if let Some(guard) = what.try_lock() {
            return Held { guard, _pin: pin };
        }
        drop(pin);
        p.relax();
    }
}

/// Puts `item` where `place` says, without allocating under the lock.
pub(super) fn insert<P: Platform, T>(p: &P, list: &Guarded<Vec<T>>, item: T, place: impl Fn(&[T]) -> usize) {
    // Goes, when it is over, after the lock.
    let mut room = Vec::new();
    loop {
        let wanted = {
            let mut list = lock(p, list);
            if list.len() == list.capacity() && room.capacity() > list.len() {
                room.append(&mut list);
                core::mem::swap(&mut room, &mut list);
            }
            if list.len() < list.capacity() {
                let at = place(&list);
                list.insert(at, item);
                return;
            }
            (list.len() + 1) * 2
        };
        room = Vec::with_capacity(wanted);
    }
}

/// Things that have numbers, in their order.
pub(super) struct Numbered<T>(Guarded<Vec<(u64, T)>>);

impl<T: Clone> Numbered<T> {
    pub(super) fn new() -> Self {
        Self(Guarded::new(Vec::new()))
    }

    pub(super) fn add<P: Platform>(&self, p: &P, number: u64, thing: T) {
        insert(p, &self.0, (number, thing), |all| all.partition_point(|(other, _)| *other < number));
    }

    pub(super) fn find<P: Platform>(&self, p: &P, number: u64) -> Option<T> {
        let all = lock(p, &self.0);
        let at = all.binary_search_by_key(&number, |(other, _)| *other).ok()?;
        Some(all[at].1.clone())
    }

    pub(super) fn remove<P: Platform>(&self, p: &P, number: u64) {
        let mut all = lock(p, &self.0);
        let gone = all.binary_search_by_key(&number, |(other, _)| *other).map(|at| all.remove(at));
        drop(all);
        drop(gone);
    }
}
