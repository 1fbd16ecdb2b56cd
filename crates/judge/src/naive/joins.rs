//! Which mappings become one.
//!
//! **Guarantee.** Mappings begin and end where those of Linux 6.18 do.
//!
//! **Mechanism.** Neighbours that are alike and continue each other join when one of them appears or changes, never at
//! other times: what a fork or a removal makes alike stays apart. Being alike is not enough. A private mapping that was
//! written belongs to a *family* (the kernel's `anon_vma`), which its pages name as their owner; two families cannot
//! become one. A forked child's mapping founds a family of its own and stays linked to those it came from. Joined to a
//! mapping without a family it would spread these links, so it does not.

use super::space::{Page, Space};
use super::{Broken, Naive};
use crate::abi::PAGE;
use crate::subject::VmFlags;
use std::rc::Rc;

/// The family of a mapping, and all families its pages may belong to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kin {
    pub family: Option<u32>,
    links: Rc<Vec<u32>>,
}

impl Kin {
    fn founder(family: u32) -> Self {
        Self { family: Some(family), links: Rc::new(vec![family]) }
    }

    /// What a forked child's mapping gets, if its parent's had a family.
    fn child(&self, family: u32) -> Self {
        let mut links = self.links.to_vec();
        links.push(family);
        Self { family: Some(family), links: Rc::new(links) }
    }

    fn is_forked(&self) -> bool {
        self.family.is_some() && self.links.len() != 1
    }

    /// Whether a mapping of this kin may take in pages of `other`.
    fn admits(&self, other: &Self) -> bool {
        match (self.family, other.family) {
            (None, Some(_)) => !other.is_forked(),
            (Some(_), None) => !self.is_forked(),
            (ours, theirs) => ours == theirs,
        }
    }

    /// Whether two mappings may be one as far as their families go, whatever they came from.
    fn is_compatible(&self, other: &Self) -> bool {
        self.family.is_none() || other.family.is_none() || self.family == other.family
    }

    fn or(self, other: impl FnOnce() -> Self) -> Self {
        if self.family.is_some() { self } else { other() }
    }
}

/// How pages came to be where they are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Join {
    /// As a new mapping.
    New,
    /// A mapping has grown by them. Then the links of a forked family do spread to the mapping above.
    Grown,
    /// A mapping or part of one was changed; whether it reaches to the mapping's first and last page.
    Changed { left: bool, right: bool },
}

impl Join {
    fn sides(self) -> (bool, bool) {
        match self {
            Self::New | Self::Grown => (true, true),
            Self::Changed { left, right } => (left, right),
        }
    }
}

/// Whether `after` continues `before`, but for their kin.
fn continues(before: &Page, after: &Page) -> bool {
    before.flags == after.flags
        && before.exec_only == after.exec_only
        && before.behind == after.behind
        && before.name == after.name
        && before.at + 1 == after.at
}

/// Whether two neighbours are so much alike that one may have the other's family: their access may differ.
fn may_share_family(before: &Page, after: &Page) -> bool {
    let access = VmFlags::READ.with(VmFlags::WRITE).with(VmFlags::EXEC);
    before.flags.without(access) == after.flags.without(access)
        && before.exec_only == after.exec_only
        && before.behind == after.behind
        && before.at + 1 == after.at
}

impl Space {
    fn set_kin(&mut self, addr: u64, kin: &Kin) {
        let (start, end) = self.bounds(addr);
        for page in self.pages.range_mut(start..end).map(|(_, page)| page) {
            page.kin = kin.clone();
        }
    }

    /// Joins the pages `start..end`, which are one mapping or part of one and have just been made or changed, to the
    /// mappings on their sides where they may.
    pub fn join(&mut self, start: u64, end: u64, how: Join) {
        let (left, right) = how.sides();
        let kin = self.pages[&start].kin.clone();
        let below = start.checked_sub(PAGE).and_then(|below| self.pages.get(&below)).filter(|_| left);
        let above = self.pages.get(&end).filter(|_| right);
        let below = below.filter(|below| continues(below, &self.pages[&start]) && below.kin.admits(&kin));
        let above = above.filter(|above| continues(&self.pages[&(end - PAGE)], above));
        let above = above.filter(|above| above.kin.admits(&kin) || how == Join::Grown && above.kin.family.is_none());
        let (below, above) = (below.map(|page| page.kin.clone()), above.map(|page| page.kin.clone()));
        // Both fit in, but they may not fit each other; then the lower one wins.
        let above = above.filter(|above| below.as_ref().is_none_or(|below| below.is_compatible(above)));
        self.pages.get_mut(&start).expect("it is mapped").starts = below.is_none();
        if let Some(page) = self.pages.get_mut(&end) {
            page.starts = above.is_none();
        }
        let kin = below.unwrap_or_default().or(|| above.unwrap_or_default()).or(|| kin);
        // What the part was cut from keeps its own.
        self.set_kin(start, &kin);
    }

    /// Changes part of a mapping, and joins it to its neighbours where it now may.
    pub fn change(&mut self, start: u64, end: u64, change: impl Fn(&mut Page)) {
        let left = self.pages[&start].starts;
        let right = self.pages.get(&end).is_none_or(|page| page.starts);
        for page in self.pages.range_mut(start..end).map(|(_, page)| page) {
            change(page);
        }
        self.join(start, end, Join::Changed { left, right });
    }

    /// The family that a neighbour of the mapping at `addr` would lend it.
    fn neighbours_family(&self, addr: u64) -> Option<u32> {
        let (start, end) = self.bounds(addr);
        let (first, last) = (&self.pages[&start], &self.pages[&(end - PAGE)]);
        let lends = |page: &Page| page.kin.family.filter(|_| !page.kin.is_forked());
        let above = self.pages.get(&end).filter(|above| may_share_family(last, above)).and_then(lends);
        let below = || self.pages.get(&(start - PAGE)).filter(|below| may_share_family(below, first)).and_then(lends);
        above.or_else(below)
    }
}

impl Naive {
    fn new_family(&mut self) -> u32 {
        self.families += 1;
        self.families
    }

    /// The mapping at `addr` gets a family, because a page of it is about to be its own.
    pub(super) fn found_family(&mut self, addr: u64) {
        if self.now().pages[&addr].kin.family.is_some() || self.is_broken(Broken::JoinsWithoutFamilies) {
            return;
        }
        let lent = self.now().neighbours_family(addr);
        let family = lent.unwrap_or_else(|| self.new_family());
        self.now_mut().set_kin(addr, &Kin::founder(family));
    }

    /// The families of a forked child, which is not yet the subject.
    pub(super) fn fork_families(&mut self, child: &mut Space) {
        let starts: Vec<u64> = child.pages.iter().filter(|(_, page)| page.starts).map(|(addr, _)| *addr).collect();
        for start in starts {
            let page = &child.pages[&start];
            if page.flags.has(VmFlags::WIPE_ON_FORK) {
                // It has nothing of its parent's.
                child.set_kin(start, &Kin::default());
            } else if page.kin.family.is_some() && !self.is_broken(Broken::ForkWithoutLinks) {
                let kin = page.kin.child(self.new_family());
                child.set_kin(start, &kin);
            }
        }
    }
}
