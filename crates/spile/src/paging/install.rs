//! Putting a page where a fault wants it.
//!
//! **Guarantee.** Nothing is written unless, under the lock of the entry's table, the caller's hold is good, the table is linked and the
//! entry is as it was when the caller decided. Two faults on one page: one installs, the other is told.
//!
//! **Mechanism.** Walk without locks to the [`Spot`]; link tables where they are missing (each under its parent's lock, asking the
//! caller's hold, P2); lock the last; ask (P1); write.

use super::table::{Locked, index, kept, shown};
use super::{Gather, LEVELS, PageTable, Pte, Spares};
#[cfg(feature = "file")]
use crate::addr::PAGE;
use crate::addr::{FrameId, Prot, Range, Slot};
use crate::frame;
use crate::platform::{Platform, Refused};
use crate::reclaim::sealed::Reclaim;
use spile_rcu::Rcu;
use spile_sync::seeded;

/// How many pages that nobody asked for are shown at once, at most.
#[cfg(feature = "file")]
const TOGETHER: usize = if cfg!(loom) { 2 } else { 16 };

/// Why nothing was installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The caller's hold is no longer good.
    Stale,
    /// The entry is not what the caller saw: somebody else was here.
    Changed,
    /// There is no frame for a table, or the host has no memory.
    NoMemory,
    /// The space shows as many pages as it may.
    Full,
}

impl From<Refused> for Lost {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Busy => Lost::Changed,
            Refused::NoMemory => Lost::NoMemory,
        }
    }
}

impl<P: Platform> PageTable<P> {
    /// The table of level 0 for `at`, linked if it was missing: one of the spares, if there are such. In a read section. `None` inside means: walk
    /// again.
    pub(super) fn leaf_or_link(
        &self,
        p: &P,
        at: u64,
        spares: Option<&Spares<'_, P>>,
        good: &impl Fn() -> bool,
    ) -> Result<Option<FrameId>, Lost> {
        let mut table = self.root;
        for level in (1..LEVELS).rev() {
            let raw = frame::table(p, table).load(index(at, level));
            table = match raw {
                0 => match self.link(p, table, index(at, level), spares, good)? {
                    Some(child) => child,
                    None => return Ok(None),
                },
                raw => p.decode_table(raw),
            };
        }
        Ok(Some(table))
    }

    /// Links a new table at entry `i` of `parent`, or finds that somebody just did.
    fn link(
        &self,
        p: &P,
        parent: FrameId,
        i: usize,
        spares: Option<&Spares<'_, P>>,
        good: &impl Fn() -> bool,
    ) -> Result<Option<FrameId>, Lost> {
        let child = match spares {
            // Too few: a table was taken away since they were counted.
            Some(spares) => spares.take().ok_or(Lost::Changed)?,
            None => Self::take_table(p).ok_or(Lost::NoMemory)?,
        };
        let linked = Self::lock(p, parent).map(|parent| match parent.raw(i) {
            // P2: a zapper that found this entry empty has locked this table before us, after it had claimed.
            0 if !good() && !seeded!("p2-link-blindly") => Err(Lost::Stale),
            0 => {
                parent.fill(i, p.encode_table(child));
                Ok(child)
            }
            raw => Ok(p.decode_table(raw)),
        });
        match linked {
            Some(Ok(table)) if table == child => Ok(Some(child)),
            other => {
                Self::give_table(p, child);
                other.transpose()
            }
        }
    }
}

/// Where a page's entry is, and what was in it: found by one walk, in a read section that lasts as long as this.
pub(crate) struct Spot<'t, P: Platform> {
    p: &'t P,
    tables: &'t PageTable<P>,
    at: u64,
    leaf: Option<FrameId>,
    seen: Option<Pte>,
    /// What else the entry said.
    away: <P::Reclaim as Reclaim<P>>::Seen,
    /// Whether its page shall stay in memory.
    keeps: <P::Reclaim as Reclaim<P>>::Keeps,
    spares: Option<&'t Spares<'t, P>>,
    _section: <P::Rcu as Rcu>::Guard<'t>,
}

impl<P: Platform> PageTable<P> {
    /// Walks to the entry of `at`, a page's address. If there are spares, only these will be linked on the way. What is installed there is kept, if
    /// that `keeps`.
    #[inline(always)]
    pub(crate) fn spot<'t>(
        &'t self,
        p: &'t P,
        at: u64,
        spares: Option<&'t Spares<'t, P>>,
        keeps: impl FnOnce() -> bool,
    ) -> Spot<'t, P> {
        let section = p.rcu().read();
        let leaf = self.leaf(p, at);
        let raw = leaf.map(|leaf| frame::table(p, leaf).load(index(at, 0)));
        let seen = raw.and_then(|raw| shown(p, raw));
        let away = P::Reclaim::seen(p, raw.unwrap_or(0));
        Spot { p, tables: self, at, leaf, seen, away, keeps: P::Reclaim::keeps(keeps), spares, _section: section }
    }
}

/// The word of an entry whose page is kept, if that `keeps`.
#[inline(always)]
fn word<P: Platform>(p: &P, pte: Pte, keeps: <P::Reclaim as Reclaim<P>>::Keeps) -> u64 {
    p.encode(pte) | if P::Reclaim::is_kept(keeps) { kept::<P>() } else { 0 }
}

impl<'t, P: Platform> Spot<'t, P> {
    /// The page's address.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// The entry, as it was when it was walked to.
    #[inline]
    pub(crate) fn seen(&self) -> Option<Pte> {
        self.seen
    }

    /// The word of its entry.
    #[inline(always)]
    fn word(&self, pte: Pte) -> u64 {
        word(self.p, pte, self.keeps)
    }

    /// Where its page was, if that was away.
    #[inline]
    pub(crate) fn away(&self) -> Option<Slot> {
        P::Reclaim::slot(self.away)
    }

    /// Locks the entry's table, linking it if need be. Returns when the caller's hold has been found good and the entry as it was seen.
    #[inline]
    fn lock(&self, good: impl Fn() -> bool) -> Result<(Locked<'t, P>, usize), Lost> {
        let (p, i) = (self.p, index(self.at, 0));
        let mut leaf = self.leaf;
        let locked = loop {
            let table = match leaf.take() {
                Some(table) => table,
                None => match self.tables.leaf_or_link(p, self.at, self.spares, &good)? {
                    Some(table) => table,
                    None => continue,
                },
            };
            // P3: one that was detached meanwhile is walked round.
            if let Some(locked) = PageTable::lock(p, table) {
                break locked;
            }
        };
        // P1: whoever invalidates holds does it before it locks this table to zap.
        if !good() && !seeded!("p1-install-blindly") {
            return Err(Lost::Stale);
        }
        let raw = locked.raw(i);
        let as_seen = match (self.seen, shown(self.p, raw)) {
            (None, None) => P::Reclaim::is_still(self.p, self.away, raw),
            (Some(seen), Some(now)) => seen.is_like(now),
            _ => false,
        };
        if as_seen || seeded!("p1-ignore-the-entry") { Ok((locked, i)) } else { Err(Lost::Changed) }
    }

    /// Calls `act` under the table's lock, if the entry is as it was seen.
    ///
    /// # Errors
    ///
    /// [`Lost`].
    pub(crate) fn if_as_seen<T>(&self, good: impl Fn() -> bool, act: impl FnOnce() -> T) -> Result<T, Lost> {
        let _locked = self.lock(good)?;
        Ok(act())
    }

    /// Fills the entry, which was seen empty. The table gets the caller's hold on the frame; on an error the caller keeps it.
    ///
    /// # Errors
    ///
    /// [`Lost`]; nothing was changed, save that tables may have been linked.
    #[inline]
    pub(crate) fn install(&self, new: Pte, good: impl Fn() -> bool) -> Result<(), Lost> {
        debug_assert!(self.seen.is_none() && self.away().is_none(), "a page is replaced, not installed");
        let (table, i) = self.lock(good)?;
        self.tables.admit(self.p, self.at, None, new)?;
        if seeded!("p1-ignore-the-entry") && table.raw(i) != 0 {
            table.empty(i);
        }
        table.fill(i, self.word(new));
        Ok(())
    }

    /// Shows the page that was away in `slot` and that `frame` has now. Where nobody else has it, it passes all that `prot` says, and is in no slot any
    /// more; else writes are kept out, and copy. The table gets the caller's hold on the frame; on an error the caller keeps it.
    ///
    /// # Errors
    ///
    /// [`Lost`]; nothing was changed.
    pub(crate) fn bring_in(&self, slot: Slot, frame: FrameId, prot: Prot, good: impl Fn() -> bool) -> Result<(), Lost> {
        let (table, i) = self.lock(good)?;
        // P1: the page may have been here since, and gone to the same slot again.
        if !P::Reclaim::still_has(self.p, slot, frame) && !seeded!("slot-unasked") {
            return Err(Lost::Changed);
        }
        let is_sole = P::Reclaim::is_sole(self.p, slot, frame);
        let new = Pte::new(frame, if is_sole { prot } else { prot.without(Prot::W) }).dirtied();
        self.tables.admit(self.p, self.at, None, new)?;
        P::Reclaim::returns(self.p, self.tables, frame, self.at, is_sole);
        table.exchange(i, self.word(new));
        P::Reclaim::give_up(self.p, slot);
        Ok(())
    }

    /// Lets the entry, which was seen in use, pass more: `allow` is asked under the lock and says what it shall be. Nothing is
    /// flushed: a CPU that has the old entry faults once and finds this one.
    ///
    /// # Errors
    ///
    /// [`Lost`]; nothing was changed. `Changed` also where `allow` declines.
    pub(crate) fn upgrade(&self, good: impl Fn() -> bool, allow: impl Fn(Pte) -> Option<Pte>) -> Result<(), Lost> {
        let (table, i) = self.lock(good)?;
        let old = table.get(i).ok_or(Lost::Changed)?;
        let new = allow(old).ok_or(Lost::Changed)?;
        self.tables.admit(self.p, self.at, Some(old), new)?;
        table.edit(i, |now| Pte { accessed: now.accessed || new.accessed, dirty: now.dirty || new.dirty, ..new });
        Ok(())
    }

    /// Puts another page in the place of the one that was seen (P5): the entry is emptied, every CPU has forgotten it, `fill` is
    /// called to bring the new page up to date, and only then the new one is shown; all under the table's lock, which is spun for
    /// with `relax`. The table gives up its hold on the old frame and gets the caller's on the new; on an error the caller keeps it.
    ///
    /// # Errors
    ///
    /// [`Lost`]; nothing was changed.
    pub(crate) fn replace(&self, new: Pte, good: impl Fn() -> bool, fill: impl FnOnce()) -> Result<(), Lost> {
        let (p, at) = (self.p, self.at);
        let mut gather = Gather::new(p, self.tables);
        let (table, i) = self.lock(good)?;
        self.tables.charge(p, table.get(i), new)?;
        let old = p.decode(table.empty(i)).ok_or(Lost::Changed)?;
        self.tables.announce(p, at, Some(old), None);
        gather.changed(Range::page_of(at));
        if !seeded!("p5-set-before-flush") {
            gather.flush();
        }
        // The hold that the entry had on the old page is ours until its bytes are copied: its other owners may go meanwhile.
        fill();
        self.tables.announce(p, at, None, Some(new));
        table.fill(i, self.word(new));
        drop(table);
        frame::put(p, old.frame);
        Ok(())
    }
}

impl<P: Platform> PageTable<P> {
    /// Fills what entries of `around` are empty with what `page` gives for them, all in the table of one leaf, as far as they lie
    /// in it; they are kept, if that `keeps`. Stops where the caller's hold is no longer good. Never links, never waits: for pages that nobody asked for.
    #[cfg(feature = "file")]
    pub(crate) fn install_around(
        &self,
        p: &P,
        around: Range,
        keeps: impl FnOnce() -> bool,
        good: impl Fn() -> bool,
        mut page: impl FnMut(u64) -> Option<Pte>,
    ) {
        let keeps = P::Reclaim::keeps(keeps);
        let _section = p.rcu().read();
        let Some(locked) = self.leaf(p, around.start()).and_then(|leaf| Self::lock(p, leaf)) else { return };
        if !good() {
            return;
        }
        let part = super::table::parts(around, 1).next().unwrap_or(around);
        let mut wanted = (part.start()..part.end()).step_by(PAGE as usize).filter(|at| locked.raw(index(*at, 0)) == 0);
        let mut found = [(0, Pte::new(p.zero_frame(), Prot::NONE)); TOGETHER];
        loop {
            let mut count = 0;
            for at in wanted.by_ref() {
                let Some(pte) = page(at) else { continue };
                found[count] = (at, pte);
                count += 1;
                if count == TOGETHER {
                    break;
                }
            }
            if count == 0 {
                return;
            }
            self.show_around(p, &locked, &found[..count], keeps);
        }
    }

    /// Fills entries with pages that nobody asked for, as far as the space's limit and the platform let it; gives up the holds on the others.
    #[cfg(feature = "file")]
    fn show_around(&self, p: &P, locked: &Locked<'_, P>, pages: &[(u64, Pte)], keeps: <P::Reclaim as Reclaim<P>>::Keeps) {
        let charged = pages.iter().take_while(|(_, pte)| self.charge(p, None, *pte).is_ok()).count();
        let admitted = self.admit_around(p, &pages[..charged]);
        for (n, (at, pte)) in pages.iter().enumerate() {
            if n < admitted {
                locked.fill(index(*at, 0), word(p, *pte, keeps));
            } else {
                frame::put(p, pte.frame);
            }
        }
    }
}
