//! From a frame to every entry that shows it.
//!
//! **Guarantee.** A walk calls for each entry of a family that shows the page where it was first shown, also while spaces fork and end. What it does
//! not find keeps the page in memory, by the hold that every entry has.
//!
//! **Mechanism.** Nothing is written when a page is shared. A private page is born in one space, at one address; others get it by fork, at the same
//! address, and only from who has it. So its record names the space and the address, and a walk visits that space and those that descend from
//! it. What a visited entry says is trusted, not the record.
//!
//! A *family* is a space that was not forked, and all that descend from it, in one list: each space directly before its descendants. A fork's
//! child joins the list behind its parent *before* pages are copied, and a walk goes down the list; so it meets the child after it
//! emptied the parent's entry, or the copy was not made yet and is one of the emptied entry. A space that has ended stays in the list as long
//! as descendants of it are there.
//!
//! Not found is a page that moved (`mremap`) while it was shared, on the side that the record does not name; nor, for a moment, one whose record is being
//! written. It stays in memory until the moment is over; or until the other side is gone and it moves again, or is written, for then it gets
//! a record of its own.

use crate::addr::{PAGE_SHIFT, Slot, SpaceId};
use crate::paging::PageTable;
use crate::platform::Platform;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};
use spile_sync::atomic::{AtomicU32, AtomicU64, Ordering};
use spile_sync::lock::{Guarded, GuardedMut};
use spile_sync::{order, seeded};

/// What is known of a page, by its frame. A host has one for each. Written by whoever has the page alone, or has locked an entry that shows it; read
/// by evictors, who check what it says.
#[derive(Debug)]
pub struct Record {
    /// The number of the space to which it belongs; 0 if to none.
    space: AtomicU64,
    /// Its address there, in pages.
    page: AtomicU64,
    /// In which slot it may be too, plus one: verified there.
    slot: AtomicU32,
    /// The next in a queue.
    pub(super) next: AtomicU32,
    /// Whether it is in one.
    listed: AtomicU32,
}

impl Record {
    /// Of a frame that is no page.
    #[allow(clippy::new_without_default, reason = "a host makes them, deliberately")]
    pub fn new() -> Self {
        Self {
            space: AtomicU64::new(0),
            page: AtomicU64::new(0),
            slot: AtomicU32::new(0),
            next: AtomicU32::new(0),
            listed: AtomicU32::new(0),
        }
    }

    /// Whether the page is in no list, and is the caller's to put into one.
    pub fn enlist(&self) -> bool {
        // AcqRel: pairs with `delist`. A load would not do: it may miss that the page was delisted before its record was written.
        self.listed.swap(1, Ordering::AcqRel) == 0
    }

    /// The page, which the caller has taken out of its list, is in none until it is enlisted. Before anything else is asked of it.
    pub fn delist(&self) {
        // AcqRel [lru-listed]: who enlisted it before is seen by what is asked next; who does it after finds it delisted.
        self.listed.swap(0, order!("lru-listed", AcqRel));
    }

    // Relaxed, all that follow: what a record says is a hint. Who follows it asks the entry, or the slot's word.

    pub(super) fn forget(&self) {
        self.space.store(0, Ordering::Relaxed);
        self.slot.store(0, Ordering::Relaxed);
    }

    pub(super) fn belongs(&self, space: SpaceId, at: u64) {
        self.page.store(at >> PAGE_SHIFT, Ordering::Relaxed);
        self.space.store(space.0, Ordering::Relaxed);
    }

    /// Where it was shown first, if anywhere.
    pub(super) fn home(&self) -> Option<(SpaceId, u64)> {
        let space = self.space.load(Ordering::Relaxed);
        (space != 0).then(|| (SpaceId(space), self.page.load(Ordering::Relaxed) << PAGE_SHIFT))
    }

    pub(super) fn is_of(&self, slot: Slot) {
        self.slot.store(slot.0 + 1, Ordering::Relaxed);
    }

    pub(super) fn slot(&self) -> Option<Slot> {
        Some(Slot(self.slot.load(Ordering::Relaxed).checked_sub(1)?))
    }
}

/// A space in its family.
struct Member<P: Platform> {
    space: SpaceId,
    /// Generations from the founder.
    depth: u32,
    /// None: it has ended.
    tables: Option<Arc<PageTable<P>>>,
}

/// Spaces that can share pages.
struct Family<P: Platform> {
    /// The first of them, from which all descend.
    founder: SpaceId,
    /// Each directly before its descendants.
    members: Guarded<Vec<Member<P>>>,
}

/// Which family a space is of.
struct Known<P: Platform> {
    space: SpaceId,
    family: Arc<Family<P>>,
}

/// All spaces of a host.
pub(super) struct Spaces<P: Platform>(Guarded<Vec<Known<P>>>);

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
fn insert<P: Platform, T>(p: &P, list: &Guarded<Vec<T>>, item: T, place: impl Fn(&[T]) -> usize) {
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

impl<P: Platform> Spaces<P> {
    pub(super) fn new() -> Self {
        Self(Guarded::new(Vec::new()))
    }

    /// A space is there, a fork of `parent` or the first of a family; before anything is in its tables.
    pub(super) fn join(&self, p: &P, tables: &Arc<PageTable<P>>, parent: Option<SpaceId>) {
        let family = parent.and_then(|parent| self.family(p, parent));
        let founds = || Family { founder: tables.space(), members: Guarded::new(Vec::new()) };
        let family = family.unwrap_or_else(|| Arc::new(founds()));
        family.add(p, tables, parent);
        let known = Known { space: tables.space(), family };
        insert(p, &self.0, known, |all| all.partition_point(|known| known.space.0 < tables.space().0));
    }

    /// A space is about to go.
    pub(super) fn leave(&self, p: &P, space: SpaceId) {
        let Some(family) = self.family(p, space) else { return };
        // What goes with them goes after the locks.
        let tables = family.end(p, space);
        while let Some(gone) = family.drop_last_ended(p) {
            let mut all = lock(p, &self.0);
            let known = all.binary_search_by_key(&gone.0, |known| known.space.0).map(|i| all.remove(i));
            drop(all);
            drop(known);
        }
        drop(tables);
    }

    /// The family of a space.
    fn family(&self, p: &P, space: SpaceId) -> Option<Arc<Family<P>>> {
        let all = lock(p, &self.0);
        let at = all.binary_search_by_key(&space.0, |known| known.space.0).ok()?;
        Some(Arc::clone(&all[at].family))
    }

    /// The first of the family of a space. Also under the lock of a table, which comes after the family's.
    pub(super) fn founder(&self, p: &P, space: SpaceId) -> Option<SpaceId> {
        Some(self.family(p, space)?.founder)
    }

    /// Calls `each` with the tables of every space in which a page of `space` can be shown at its address, each directly before its descendants.
    /// Under the family's lock: `each` may lock a table.
    pub(super) fn visit(&self, p: &P, space: SpaceId, each: impl FnMut(&Arc<PageTable<P>>)) {
        let Some(family) = self.family(p, space) else { return };
        let members = lock(p, &family.members);
        let Some(first) = members.iter().position(|member| member.space == space) else { return };
        let line = Family::line(&members, first);
        members[first..first + line].iter().filter_map(|member| member.tables.as_ref()).for_each(each);
    }
}

impl<P: Platform> Family<P> {
    /// How many there are of the member at `first`, and all that descend from it.
    fn line(members: &[Member<P>], first: usize) -> usize {
        let depth = members[first].depth;
        1 + members[first + 1..].iter().take_while(|member| member.depth > depth).count()
    }

    fn add(&self, p: &P, tables: &Arc<PageTable<P>>, parent: Option<SpaceId>) {
        let parent = parent.and_then(|parent| {
            let members = lock(p, &self.members);
            members.iter().find(|member| member.space == parent).map(|member| (parent, member.depth + 1))
        });
        let depth = parent.map_or(0, |(_, depth)| depth);
        let member = Member { space: tables.space(), depth, tables: Some(Arc::clone(tables)) };
        // The parent is there as long as this lasts: it is being forked.
        let behind = |members: &[Member<P>]| {
            parent
                .and_then(|(parent, _)| members.iter().position(|member| member.space == parent))
                .map_or(0, |at| at + usize::from(!seeded!("child-before-its-parent")))
        };
        insert(p, &self.members, member, behind);
    }

    /// `space` has no pages any more to be found. Its tables.
    fn end(&self, p: &P, space: SpaceId) -> Option<Arc<PageTable<P>>> {
        let mut members = lock(p, &self.members);
        members.iter_mut().find(|member| member.space == space)?.tables.take()
    }

    /// Takes away one that has ended and has no descendants.
    fn drop_last_ended(&self, p: &P) -> Option<SpaceId> {
        let mut members = lock(p, &self.members);
        let is_last = |at: &usize| members[*at].tables.is_none() && Self::line(&members, *at) == 1;
        let at = (0..members.len()).rev().find(is_last)?;
        Some(members.remove(at).space)
    }
}
