//! Putting a page where a fault wants it.
//!
//! **Guarantee.** Nothing is written unless, under the lock of the entry's table, the caller's hold is good, the table is linked and the
//! entry is as it was when the caller decided. Two faults on one page: one installs, the other is told.
//!
//! **Mechanism.** Walk without locks, linking tables where they are missing (each under its parent's lock, asking the caller's
//! hold, P2); lock the last; ask (P1); write.

use super::table::{Locked, index};
use super::{Gather, LEVELS, PageTable, Pte};
use crate::addr::{FrameId, Range};
use crate::platform::Platform;
use spile_rcu::Rcu;
use spile_sync::seeded;

/// Why nothing was installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The caller's hold is no longer good.
    Stale,
    /// The entry is not what the caller saw: somebody else was here.
    Changed,
    /// There is no frame for a table.
    NoTable,
}

impl<P: Platform> PageTable<P> {
    /// The table of level 0 for `at`, linked if it was missing. In a read section. `None` inside means: walk again.
    pub(super) fn leaf_or_link(&self, p: &P, at: u64, good: &impl Fn() -> bool) -> Result<Option<FrameId>, Lost> {
        let mut table = self.root;
        for level in (1..LEVELS).rev() {
            let raw = p.table(table).load(index(at, level));
            table = match raw {
                0 => match self.link(p, table, index(at, level), good)? {
                    Some(child) => child,
                    None => return Ok(None),
                },
                raw => p.decode_table(raw),
            };
        }
        Ok(Some(table))
    }

    /// Links a new table at entry `i` of `parent`, or finds that somebody just did.
    fn link(&self, p: &P, parent: FrameId, i: usize, good: &impl Fn() -> bool) -> Result<Option<FrameId>, Lost> {
        let child = Self::take_table(p).ok_or(Lost::NoTable)?;
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

    /// Locks the table of `at`, linking it if need be, and calls `write` with the entry's place once the caller's hold has been
    /// found good and the entry like `seen`.
    fn with_entry<T>(
        &self,
        p: &P,
        at: u64,
        seen: Option<Pte>,
        good: impl Fn() -> bool,
        write: impl FnOnce(&Locked<'_, P>, usize) -> Result<T, Lost>,
    ) -> Result<T, Lost> {
        let _section = p.rcu().read();
        let locked = loop {
            let Some(leaf) = self.leaf_or_link(p, at, &good)? else { continue };
            if let Some(locked) = Self::lock(p, leaf) {
                break locked;
            }
        };
        // P1: whoever invalidates holds does it before it locks this table to zap.
        if !good() && !seeded!("p1-install-blindly") {
            return Err(Lost::Stale);
        }
        let i = index(at, 0);
        let as_seen = match (seen, locked.get(i)) {
            (None, None) => true,
            (Some(seen), Some(now)) => seen.is_like(now),
            _ => false,
        };
        if !as_seen && !seeded!("p1-ignore-the-entry") {
            return Err(Lost::Changed);
        }
        write(&locked, i)
    }

    /// Fills the empty entry of `at`. The table gets the caller's hold on the frame; on an error the caller keeps it.
    ///
    /// # Errors
    ///
    /// [`Lost`]; nothing was changed, save that tables may have been linked.
    pub fn install(&self, p: &P, at: u64, new: Pte, good: impl Fn() -> bool) -> Result<(), Lost> {
        self.with_entry(p, at, None, good, |table, i| {
            if !p.commit(self.space, at, None, Some(new)) {
                return Err(Lost::Changed);
            }
            if seeded!("p1-ignore-the-entry") && table.raw(i) != 0 {
                table.empty(i);
            }
            table.fill(i, p.encode(new));
            Ok(())
        })
    }

    /// Fills what entries of `around` are empty with what `page` gives for them, all in the table of one leaf, as far as they lie
    /// in it. Stops where the caller's hold is no longer good. Never links, never waits: for pages that nobody asked for.
    pub fn install_around(&self, p: &P, around: Range, good: impl Fn() -> bool, mut page: impl FnMut(u64) -> Option<Pte>) {
        let _section = p.rcu().read();
        let Some(locked) = self.leaf(p, around.start()).and_then(|leaf| Self::lock(p, leaf)) else { return };
        if !good() {
            return;
        }
        let part = super::table::parts(around, 1).next().unwrap_or(around);
        for at in (part.start()..part.end()).step_by(crate::addr::PAGE as usize) {
            let i = index(at, 0);
            if locked.raw(i) != 0 {
                continue;
            }
            if let Some(pte) = page(at) {
                if p.commit(self.space, at, None, Some(pte)) {
                    locked.fill(i, p.encode(pte));
                } else {
                    crate::frame::put(p, pte.frame);
                }
            }
        }
    }

    /// Lets the entry of `at`, which is like `seen`, pass more: `allow` is asked under the lock and says what it shall be.
    /// Nothing is flushed: a CPU that has the old entry faults once and finds this one.
    ///
    /// # Errors
    ///
    /// [`Lost`]; nothing was changed. `Changed` also where `allow` declines.
    pub fn upgrade(
        &self,
        p: &P,
        at: u64,
        seen: Pte,
        good: impl Fn() -> bool,
        allow: impl Fn(Pte) -> Option<Pte>,
    ) -> Result<(), Lost> {
        self.with_entry(p, at, Some(seen), good, |table, i| {
            let old = table.get(i).ok_or(Lost::Changed)?;
            let new = allow(old).ok_or(Lost::Changed)?;
            if !p.commit(self.space, at, Some(old), Some(new)) {
                return Err(Lost::Changed);
            }
            table.edit(i, |now| Pte { accessed: now.accessed || new.accessed, dirty: now.dirty || new.dirty, ..new });
            Ok(())
        })
    }

    /// Puts another page in the place of `seen` (P5): the entry is emptied, every CPU has forgotten it, `fill` is called to bring the
    /// new page up to date, and only then the new one is shown; all under the table's lock, which is spun for with `relax`.
    /// The table gives up its hold on the old frame and gets the caller's on the new; on an error the caller keeps it.
    ///
    /// # Errors
    ///
    /// [`Lost`]; nothing was changed.
    pub fn replace(&self, p: &P, at: u64, seen: Pte, new: Pte, good: impl Fn() -> bool, fill: impl FnOnce()) -> Result<(), Lost> {
        let mut gather = Gather::new(p, self);
        self.with_entry(p, at, Some(seen), good, |table, i| {
            let old = p.decode(table.empty(i)).ok_or(Lost::Changed)?;
            let committed = p.commit(self.space, at, Some(old), None);
            debug_assert!(committed, "only installs are refused");
            gather.changed(Range::page_of(at));
            gather.frame(old.frame);
            if !seeded!("p5-set-before-flush") {
                gather.flush();
            }
            fill();
            let committed = p.commit(self.space, at, None, Some(new));
            debug_assert!(committed, "nobody else is here");
            table.fill(i, p.encode(new));
            Ok(())
        })
    }
}
