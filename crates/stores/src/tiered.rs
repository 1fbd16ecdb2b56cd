//! Two stores, one behind the other.
//!
//! **Guarantee.** A page is in one of the two: in the first, or if that refused it, in the second.
//!
//! **Mechanism.** A word for each slot: which store has it. A page stays where it was put; it is not moved when the first has room again.

use crate::pages::{Page, Pages};
use crate::slots::Slots;
use spile::Slot;
use std::fmt;

/// Two stores, one behind the other: what the first refuses goes to the second. Three are two, one of which is two.
pub struct Tiered<A, B> {
    first: A,
    second: B,
    places: Slots<Tier>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tier {
    First,
    Second,
}

impl<A: Pages, B: Pages> Tiered<A, B> {
    /// For so many slots; those beyond are refused.
    pub fn new(slots: u32, first: A, second: B) -> Self {
        Self { first, second, places: Slots::new(slots) }
    }

    /// The first.
    pub fn first(&self) -> &A {
        &self.first
    }

    /// The second.
    pub fn second(&self) -> &B {
        &self.second
    }

    /// How many pages the second has. Exact when nobody uses it.
    pub fn behind(&self) -> usize {
        self.places.count(|tier| *tier == Tier::Second)
    }

    fn forget_in(&self, tier: Tier, slot: Slot) {
        match tier {
            Tier::First => self.first.forget(slot),
            Tier::Second => self.second.forget(slot),
        }
    }
}

impl<A: fmt::Debug, B: fmt::Debug> fmt::Debug for Tiered<A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}; behind it, {:?}", self.first, self.second)
    }
}

impl<A: Pages, B: Pages> Pages for Tiered<A, B> {
    fn put(&self, slot: Slot, page: &Page) -> bool {
        self.forget(slot);
        let tier = if self.first.put(slot, page) {
            Tier::First
        } else if self.second.put(slot, page) {
            Tier::Second
        } else {
            return false;
        };
        let is_kept = self.places.put(slot, tier);
        if !is_kept {
            self.forget_in(tier, slot);
        }
        is_kept
    }

    fn get(&self, slot: Slot, page: &mut Page) -> bool {
        let tier = self.places.with(slot, |place| *place).flatten();
        match tier {
            Some(Tier::First) => self.first.get(slot, page),
            Some(Tier::Second) => self.second.get(slot, page),
            None => false,
        }
    }

    fn forget(&self, slot: Slot) {
        if let Some(tier) = self.places.take(slot) {
            self.forget_in(tier, slot);
        }
    }
}
