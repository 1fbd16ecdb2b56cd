//! Spaces that can share private pages.
//!
//! **Guarantee.** A walk calls for each entry of a family that shows a page where it was first shown, also while spaces fork and end.
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

use super::lists::{Numbered, insert, lock};
use crate::addr::SpaceId;
use crate::paging::PageTable;
use crate::platform::Platform;
use alloc::sync::Arc;
use alloc::vec::Vec;
use spile_sync::lock::Guarded;
use spile_sync::seeded;

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

/// All spaces of a host, and the family of each.
pub(super) struct Spaces<P: Platform>(Numbered<Arc<Family<P>>>);

impl<P: Platform> Spaces<P> {
    pub(super) fn new() -> Self {
        Self(Numbered::new())
    }

    /// A space is there, a fork of `parent` or the first of a family; before anything is in its tables.
    pub(super) fn join(&self, p: &P, tables: &Arc<PageTable<P>>, parent: Option<SpaceId>) {
        let family = parent.and_then(|parent| self.family(p, parent));
        let founds = || Family { founder: tables.space(), members: Guarded::new(Vec::new()) };
        let family = family.unwrap_or_else(|| Arc::new(founds()));
        family.add(p, tables, parent);
        self.0.add(p, tables.space().0, family);
    }

    /// A space is about to go.
    pub(super) fn leave(&self, p: &P, space: SpaceId) {
        let Some(family) = self.family(p, space) else { return };
        // What goes with them goes after the locks.
        let tables = family.end(p, space);
        while let Some(gone) = family.drop_last_ended(p) {
            self.0.remove(p, gone.0);
        }
        drop(tables);
    }

    /// The family of a space.
    fn family(&self, p: &P, space: SpaceId) -> Option<Arc<Family<P>>> {
        self.0.find(p, space.0)
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
