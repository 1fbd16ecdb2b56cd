//! Locks of what tables map: for designs in which faults and changes keep out of each other's way by them.
//!
//! **Guarantee.** Who shares the span of the lowest table on the way to an address keeps out whoever excludes a range around it, and the other way
//! round; nobody else. What was done under a share is seen by who excludes next, and what was done while excluding by who shares next.
//!
//! **Mechanism.** Each table has a word: how many share it, and whether it is excluded. A fault walks to the lowest table that there is and
//! shares it; any on the way would do, but the lowest it has in common with the fewest. A change excludes every table of its range, from the root
//! down: under an excluded table nobody links a new one, and of those above, which may lose a table that became empty, it keeps out nobody
//! but faults that would link one there. There is one change at a time, so what is excluded is its own. (The locking protocol of
//! CortenMM, Zhang et al., SOSP 2025, which begins at the lowest table that maps all of the range, and never frees that; its tables have one lock
//! for both purposes; here a share may outlast what spins, so that the lock of the entries stays apart.)

use super::table::{PageTable, index, parts, span_of};
use super::{LEVELS, TableLock};
use crate::addr::{FrameId, Range};
use crate::frame;
use crate::platform::Platform;
use crate::shared::place_of;
use crate::wait::{self, Token};
use spile_rcu::Rcu;
use spile_sync::atomic::{AtomicU16, Ordering};
use spile_sync::{order, seeded};

const EXCLUDED: u16 = 1 << 15;
const WAITED_FOR: u16 = 1 << 14;
const SHARES: u16 = WAITED_FOR - 1;

/// The word.
#[derive(Debug)]
pub(super) struct SpanLock(AtomicU16);

impl SpanLock {
    #[cfg(not(loom))]
    pub(super) const fn new() -> Self {
        Self(AtomicU16::new(0))
    }

    #[cfg(loom)]
    pub(super) fn new() -> Self {
        Self(AtomicU16::new(0))
    }

    /// For a new table.
    pub(super) fn renew(&self) {
        // Relaxed: nobody else knows the table. One that was excluded when it was unlinked stayed so until now.
        self.0.store(0, Ordering::Relaxed);
    }

    #[inline]
    fn try_share(&self) -> bool {
        let mut word = self.0.load(Ordering::Relaxed);
        while (word & EXCLUDED == 0 || seeded!("share-what-is-excluded")) && word & SHARES < SHARES {
            // Acquire [span-share]: what the last change did is seen.
            match self.0.compare_exchange(word, word + 1, order!("span-share", Acquire), Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    fn unshare<P: Platform>(&self, p: &P) {
        let thing = place_of(self);
        // Release [span-unshare]: what was done is seen by who excludes.
        let before = self.0.fetch_sub(1, order!("span-unshare", Release));
        if before & SHARES == 1 && before & WAITED_FOR != 0 {
            wait::happened(p, thing);
        }
    }

    /// May sleep, and calls `waits` before.
    fn exclude<P: Platform>(&self, p: &P, waits: impl Fn()) {
        // Relaxed: nothing is read yet.
        if self.0.fetch_or(EXCLUDED, Ordering::Relaxed) & EXCLUDED != 0 {
            return;
        }
        // Acquire [span-exclude]: what was done under shares is seen.
        let shared = || self.0.load(order!("span-exclude", Acquire)) & SHARES != 0;
        while shared() && !seeded!("exclude-beside-shares") {
            let token = Token::for_thing(p, place_of(self));
            self.0.fetch_or(WAITED_FOR, Ordering::Relaxed);
            if shared() {
                waits();
                token.wait();
            }
        }
    }

    fn readmit(&self) {
        // Relaxed: excluded by us, or not at all.
        if self.0.load(Ordering::Relaxed) & EXCLUDED != 0 {
            // Release [span-readmit]: who shares sees what was done.
            self.0.store(0, order!("span-readmit", Release));
        }
    }
}

/// A share of the span of a table.
#[derive(Debug)]
pub struct SpanShare<'m, P: Platform> {
    p: &'m P,
    table: &'m TableLock,
    range: Range,
}

impl<P: Platform> SpanShare<'_, P> {
    /// What the table maps.
    pub fn range(&self) -> Range {
        self.range
    }
}

impl<P: Platform> Drop for SpanShare<'_, P> {
    fn drop(&mut self) {
        self.table.span.unshare(self.p);
    }
}

impl<P: Platform> PageTable<P> {
    /// A share of the lowest table on the way to `at`, unless a change excludes it.
    #[inline(always)]
    pub(crate) fn share_span<'m>(&self, p: &'m P, at: u64) -> Option<SpanShare<'m, P>> {
        let _section = p.rcu().read();
        let (table, level) = self.lowest(p, at);
        let table = &frame::meta(p, table).table;
        table.span.try_share().then(|| SpanShare { p, table, range: span_of(at, level) })
    }

    /// The lowest table on the way to `at`, and its level.
    fn lowest(&self, p: &P, at: u64) -> (FrameId, usize) {
        let (mut table, mut level) = (self.root, LEVELS - 1);
        while level > 0
            && let Some(child) = Self::child_now(p, table, index(at, level))
        {
            (table, level) = (child, level - 1);
        }
        (table, level)
    }

    /// Waits until nobody shares the tables of `range`, and lets nobody do so. With the right to change, which alone unlinks tables. May
    /// sleep, and calls `waits` before each time.
    pub(crate) fn exclude_span(&self, p: &P, range: Range, waits: impl Fn() + Copy) {
        self.each_span(p, self.root, LEVELS - 1, range, &move |lock: &SpanLock| lock.exclude(p, waits));
    }

    /// Undoes that.
    pub(crate) fn readmit_span(&self, p: &P, range: Range) {
        self.each_span(p, self.root, LEVELS - 1, range, &SpanLock::readmit);
    }

    /// Calls `act` with the lock of `table`, and then with those of the tables below it that map something of `range`.
    fn each_span(&self, p: &P, table: FrameId, level: usize, range: Range, act: &impl Fn(&SpanLock)) {
        act(&frame::meta(p, table).table.span);
        if level == 0 || seeded!("exclude-the-top-alone") {
            return;
        }
        for part in parts(range, level) {
            if let Some(child) = Self::child_now(p, table, index(part.start(), level)) {
                self.each_span(p, child, level - 1, part, act);
            }
        }
    }
}
