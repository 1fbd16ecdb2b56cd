//! `mremap`.
//!
//! **Guarantee.** A move without a change of size may span several mappings and the holes between them; everything else
//! stays within one.
//!
//! **Mechanism.** The parameters are checked first, then the mapping; whatever lies at a fixed destination is gone even if
//! the call fails after that.

use super::joins::{Join, Kin};
use super::space::{Behind, Page};
use super::{Broken, Naive, Place};
use crate::abi::*;
use crate::subject::VmFlags;

/// The arguments, with lengths rounded up.
#[derive(Clone, Copy)]
struct Remap {
    old: u64,
    old_len: u64,
    new_len: u64,
    flags: u32,
    new_addr: u64,
}

impl Remap {
    fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Whether the destination is given, or at least that there is one.
    fn goes(&self) -> bool {
        self.has(MREMAP_FIXED | MREMAP_DONTUNMAP)
    }

    fn check(&self) -> Result<(), i32> {
        let known = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP;
        if self.flags & !known != 0 || !is_aligned(self.old) || self.new_len == 0 || self.new_len > TASK_SIZE {
            return Err(EINVAL);
        }
        if !self.goes() {
            return Ok(());
        }
        let far = self.new_addr > TASK_SIZE - self.new_len || !is_aligned(self.new_addr);
        let resized = self.has(MREMAP_DONTUNMAP) && self.old_len != self.new_len;
        if far || !self.has(MREMAP_MAYMOVE) || resized || self.overlaps() { Err(EINVAL) } else { Ok(()) }
    }

    /// Source and destination overlap. A hint counts like a fixed address.
    fn overlaps(&self) -> bool {
        self.old.wrapping_add(self.old_len) > self.new_addr && self.new_addr + self.new_len > self.old
    }
}

impl Naive {
    pub(super) fn mremap(&mut self, old: u64, old_len: u64, new_len: u64, flags: u32, new_addr: u64) -> Result<Place, i32> {
        let remap = Remap { old, old_len: page_up(old_len), new_len: page_up(new_len), flags, new_addr };
        remap.check()?;
        if remap.has(MREMAP_FIXED) && remap.old_len == remap.new_len {
            return self.move_all(remap);
        }
        self.check_source(remap)?;
        if remap.goes() { self.move_one(remap) } else { self.resize(remap) }
    }

    /// Moves every mapping of the range, keeping the distances between them.
    fn move_all(&mut self, remap: Remap) -> Result<Place, i32> {
        let end = remap.old.wrapping_add(remap.old_len);
        let (mut at, mut target, mut last_end) = (remap.old, remap.new_addr, None);
        while let Some(page) = self.now().first_from(at).filter(|page| *page < end) {
            let (start, stop) = self.now().bounds(page);
            if last_end.is_none() && page > remap.old || last_end.is_some() && self.is_broken(Broken::MovesOnlyOne) {
                return Err(EFAULT);
            }
            let gap = last_end.map_or(0, |last_end| start - last_end);
            last_end = Some(stop);
            let len = stop.min(end) - page;
            let part = Remap { old: page, old_len: len, new_len: len, new_addr: target + gap, ..remap };
            self.check_source(part)?;
            self.move_one(part)?;
            (at, target) = (page + len, target + gap + len);
        }
        if last_end.is_none() { Err(EFAULT) } else { Ok(Place::At(remap.new_addr)) }
    }

    fn check_source(&self, remap: Remap) -> Result<(), i32> {
        let page = self.now().pages.get(&remap.old).ok_or(EFAULT)?;
        if remap.new_len <= remap.old_len && !remap.goes() {
            return Ok(());
        }
        // Only what is shared can be had twice.
        if remap.old_len == 0 && page.is_private() {
            return Err(EINVAL);
        }
        let source = remap.old_len.min(remap.new_len);
        if source > self.now().bounds(remap.old).1 - remap.old {
            return Err(EFAULT);
        }
        if remap.new_len <= remap.old_len {
            return Ok(());
        }
        let more = (remap.new_len - remap.old_len) / PAGE;
        if page.flags.has(VmFlags::LOCKED) && self.now().locked + more > self.world.limits.locked {
            return Err(EAGAIN);
        }
        self.check_expand(more)
    }

    /// A move of (part of) one mapping to a given place.
    fn move_one(&mut self, mut remap: Remap) -> Result<Place, i32> {
        if remap.has(MREMAP_FIXED) {
            self.munmap(remap.new_addr, remap.new_len)?;
            // A copy of nothing onto itself passes for one that does not overlap, and unmaps its own source.
            self.now().pages.get(&remap.old).ok_or(EFAULT)?;
        }
        let grown = remap.new_len.saturating_sub(remap.old_len);
        if remap.new_len < remap.old_len {
            self.munmap(remap.old + remap.new_len, remap.old_len - remap.new_len)?;
            remap.old_len = remap.new_len;
        }
        if remap.has(MREMAP_DONTUNMAP) {
            self.check_expand(remap.old_len / PAGE)?;
        }
        let place = self.choose(remap.new_addr, remap.new_len, remap.has(MREMAP_FIXED))?;
        self.transfer(remap, place, grown);
        Ok(place)
    }

    /// A change of size where the mapping is, or a move to wherever there is room.
    fn resize(&mut self, remap: Remap) -> Result<Place, i32> {
        let Remap { old, old_len, new_len, .. } = remap;
        if new_len <= old_len {
            if new_len < old_len {
                self.munmap(old + new_len, old_len - new_len)?;
            }
            return Ok(Place::At(old));
        }
        let (_, end) = self.now().bounds(old);
        let grown = new_len - old_len;
        // The gap of a mapping that grows down does not stand in the way of one that grows up to it.
        let room = end.checked_add(grown).is_some_and(|new_end| new_end <= TASK_SIZE && !self.now().overlaps(end, new_end));
        if end - old == old_len && room {
            self.extend(old, end, grown);
            return Ok(Place::At(old));
        }
        if !remap.has(MREMAP_MAYMOVE) {
            return Err(ENOMEM);
        }
        self.transfer(remap, Place::Elsewhere, grown);
        Ok(Place::Elsewhere)
    }

    fn extend(&mut self, old: u64, end: u64, grown: u64) {
        let last = self.now().pages[&(end - PAGE)].clone();
        if let Behind::Object { object, file: None } = last.behind
            && self.is_broken(Broken::SharedGrows)
        {
            self.store.grow(object, grown / PAGE);
        }
        let space = self.now_mut();
        for i in 0..grown / PAGE {
            let page = Page { at: last.at + 1 + i, own: None, starts: i == 0, ..last.clone() };
            space.pages.insert(end + i * PAGE, page);
        }
        let locked = space.pages[&old].flags.has(VmFlags::LOCKED);
        space.locked += if locked { grown / PAGE } else { 0 };
        space.join(end, end + grown, Join::Grown);
        if locked {
            self.populate_what_can(end, end + grown);
        }
    }

    /// Moves pages. Elsewhere is out of the window and unmapped at once, so what went there is lost.
    fn transfer(&mut self, remap: Remap, place: Place, grown: u64) {
        let Remap { old, old_len, new_len, .. } = remap;
        let moved = self.take(remap, place);
        let space = self.now_mut();
        let whole = space.pages.contains_key(&old) && space.bounds(old) == (old, old + old_len);
        let locked = moved[0].flags.has(VmFlags::LOCKED);
        if let Place::At(new) = place {
            for (i, page) in moved.into_iter().enumerate() {
                space.pages.insert(new + i as u64 * PAGE, page);
            }
            space.locked += if locked { new_len / PAGE } else { 0 };
            // It may join its own source, if that was never written.
            space.join(new, new + new_len, Join::New);
        }
        if remap.has(MREMAP_DONTUNMAP) {
            self.keep_source(old, old_len, place, whole);
        } else if old_len > 0 {
            space.remove(old, old + old_len);
        }
        if let Place::At(new) = place
            && locked
            && grown > 0
        {
            self.populate_what_can(new + old_len, new + new_len);
        }
    }

    /// The pages of the destination, with the bytes of the source.
    fn take(&mut self, remap: Remap, place: Place) -> Vec<Page> {
        let Remap { old, old_len, new_len, .. } = remap;
        let loses = self.is_broken(Broken::MoveLosesBytes);
        let space = self.now_mut();
        let first = space.pages[&old].clone();
        let at = match place {
            // Anonymous memory that was never written has no place that it was first mapped at.
            Place::At(new) if first.behind == Behind::Nothing && first.kin.family.is_none() => new / PAGE,
            _ => first.at,
        };
        let take = |i: u64| {
            let source = space.pages.get_mut(&(old + i * PAGE)).filter(|_| i < old_len / PAGE);
            let own = source.and_then(|page| page.own.take()).filter(|_| !loses);
            Page { at: at + i, own, starts: i == 0, ..first.clone() }
        };
        (0..new_len / PAGE).map(take).collect()
    }

    /// What `MREMAP_DONTUNMAP` does to the mapping that pages were taken from.
    fn keep_source(&mut self, old: u64, len: u64, place: Place, whole: bool) {
        let only_moved = self.is_broken(Broken::UnlocksOnlyMoved);
        let space = self.now_mut();
        let (mut start, mut end) = space.bounds(old);
        let joined = matches!(place, Place::At(new) if (start..end).contains(&new));
        if only_moved {
            (start, end) = (old, old + len);
        }
        for page in space.pages.range_mut(start..end).map(|(_, page)| page) {
            // The whole mapping is unlocked, even where it was not moved, and the count of locked pages is not told.
            // Nor does it join its neighbours, which it may now be like.
            page.flags = page.flags.without(VmFlags::LOCKED.with(VmFlags::LOCK_ON_FAULT));
            if whole && !joined {
                page.kin = Kin::default();
            }
        }
    }
}
