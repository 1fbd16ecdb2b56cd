//! Emptying a range.
//!
//! **Guarantee.** Whatever was installed in the range by somebody whose hold ended before the zap began is gone, and its frames ride in
//! the gather. Tables that became empty are detached.
//!
//! **Mechanism.** A descent that locks the last table of each part; and each table in which it finds an empty entry (P2), for a fault
//! may be about to link there that asked its hold before it ended.

use super::table::{PageTable, away, index, parts};
use super::{Gather, LEVELS};
use crate::addr::{FrameId, PAGE, Range, TABLE_END};
use crate::platform::Platform;
use crate::reclaim::sealed::Reclaim;
use spile_rcu::Rcu;
use spile_sync::seeded;

/// What keeps others from the range that is zapped.
trait Hold {
    /// Whether it still does.
    fn is_good(&self) -> bool;
    /// Whether it keeps out faults too: then tables that become empty can go.
    fn is_exclusive(&self) -> bool;
    /// Whether a fault may still be about to link a table that asked its hold before it ended (P2).
    fn has_latecomers(&self) -> bool {
        true
    }
}

/// Nobody else is left.
struct Alone;

/// A claim.
struct Always;

/// A hold that others can have too, as long as it is good.
struct While<F>(F);

impl Hold for Alone {
    fn is_good(&self) -> bool {
        true
    }

    fn is_exclusive(&self) -> bool {
        true
    }

    fn has_latecomers(&self) -> bool {
        false
    }
}

impl Hold for Always {
    fn is_good(&self) -> bool {
        true
    }

    fn is_exclusive(&self) -> bool {
        true
    }
}

impl<F: Fn() -> bool> Hold for While<F> {
    fn is_good(&self) -> bool {
        (self.0)()
    }

    fn is_exclusive(&self) -> bool {
        false
    }
}

impl<P: Platform> PageTable<P> {
    /// Empties `range`, and detaches tables that became empty. The caller's claims keep installs out of the range.
    ///
    /// # Safety
    ///
    /// (1) `p` is the platform of these tables, and `gather` was made for them; (2) the caller's claims keep faults out of `range`, or those who
    /// fault there lose their pages; (3) `gather` is settled before the claims end.
    pub unsafe fn zap(&self, p: &P, range: Range, gather: &mut Gather<'_, P>) {
        let _section = p.rcu().read();
        self.zap_under(p, self.root, LEVELS - 1, range, gather, &Always);
    }

    /// Empties everything: the space is gone, nobody faults or changes.
    pub(crate) fn zap_all(&self, p: &P, gather: &mut Gather<'_, P>) {
        let _section = p.rcu().read();
        self.zap_under(p, self.root, LEVELS - 1, Range::of(0, TABLE_END), gather, &Alone);
    }

    /// Empties `range` as long as the caller's hold is good (P4), under holds that let others fault there. False if it was not.
    ///
    /// # Safety
    ///
    /// (1) `p` is the platform of these tables, and `gather` was made for them; (2) `good` is true under a table's lock only as long as the
    /// caller has a hold of the mapping of `range`, or the right to change it.
    pub unsafe fn zap_while(&self, p: &P, range: Range, gather: &mut Gather<'_, P>, good: impl Fn() -> bool) -> bool {
        let _section = p.rcu().read();
        self.zap_under(p, self.root, LEVELS - 1, range, gather, &While(good))
    }

    fn zap_under(&self, p: &P, table: FrameId, level: usize, range: Range, gather: &mut Gather<'_, P>, hold: &impl Hold) -> bool {
        if level == 0 {
            return self.zap_leaf(p, table, range, gather, hold);
        }
        parts(range, level).all(|part| {
            let i = index(part.start(), level);
            let child = if hold.has_latecomers() { Self::child(p, table, i) } else { Self::child_now(p, table, i) };
            let Some(child) = child else { return true };
            let whole = self.zap_under(p, child, level - 1, part, gather, hold);
            if hold.is_exclusive() && Self::seems_empty(p, child) {
                Self::unlink(p, table, i, child, || gather.table(part, child));
            }
            whole
        })
    }

    fn zap_leaf(&self, p: &P, table: FrameId, range: Range, gather: &mut Gather<'_, P>, hold: &impl Hold) -> bool {
        let mut rest = Some(range);
        while let Some(now) = rest {
            // A detached table is empty for ever.
            let Some(locked) = Self::lock(p, table) else { return true };
            if !hold.is_good() && !seeded!("p4-zap-blindly") {
                return false;
            }
            let mut at = now.start();
            while at < now.end() && !gather.is_full() {
                let i = index(at, 0);
                if locked.raw(i) != 0 {
                    self.zap_entry(p, &locked, at, gather);
                }
                at += PAGE;
            }
            drop(locked);
            rest = now.above(at);
            if rest.is_some() {
                gather.flush();
            }
        }
        true
    }

    fn zap_entry(&self, p: &P, locked: &super::table::Locked<'_, P>, at: u64, gather: &mut Gather<'_, P>) {
        let raw = locked.empty(index(at, 0));
        if let Some(slot) = away(p, raw) {
            // No CPU knows of it; and of the page that was there before it, whoever sent it away sees to that.
            return P::Reclaim::give_up(p, slot);
        }
        let old = p.decode(raw);
        self.commit(p, at, old, None);
        gather.changed(Range::page_of(at));
        if let Some(old) = old {
            gather.frame(old.frame);
        }
    }

    /// Takes an empty child out of its parent (P3), and says so under the parent's lock. Not if it is no longer empty, or no longer the child.
    fn unlink(p: &P, parent: FrameId, i: usize, child: FrameId, done: impl FnOnce()) {
        let Some(parent) = Self::lock(p, parent) else { return };
        if parent.raw(i) != p.encode_table(child) {
            return;
        }
        let Some(child) = Self::lock(p, child).filter(|child| child.is_empty()) else { return };
        parent.empty(i);
        child.detach();
        done();
    }

    /// Whether there is any table but the topmost.
    pub(crate) fn is_in_use(&self, p: &P) -> bool {
        !Self::seems_empty(p, self.root)
    }

    /// Frees the tables of a space that is gone: everything has been zapped, and nobody walks.
    pub(crate) fn destroy(&self, p: &P) {
        debug_assert!(Self::seems_empty(p, self.root), "a space with pages was destroyed");
        debug_assert!(P::Reclaim::shows_none(self.residents()), "pages of a space were miscounted");
        // SAFETY: (1) so the caller says.
        unsafe { p.retire(self.space) };
        Self::give_table(p, self.root);
    }
}
