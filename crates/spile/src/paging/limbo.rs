//! Tables that are detached and flushed, and that a walk may still be in.
//!
//! **Guarantee.** A table goes back to the platform only after the grace periods of all walks that could have found it.
//!
//! **Mechanism.** A list of arrivals that anybody pushes to, and one batch that has its cookie. Whoever changes an address space, or
//! finds no frame, turns it: frees the batch if its period is over, makes the arrivals the next.

use super::PageTable;
use crate::addr::FrameId;
use crate::frame;
use crate::platform::Platform;
use crate::shared::place_of;
use crate::wait;
use spile_rcu::{Cookie, Rcu};
use spile_sync::atomic::{AtomicU32, Ordering};
use spile_sync::lock::Guarded;
use spile_sync::order;

/// Links are frame numbers plus one, so that 0 ends a list.
const END: u32 = 0;

/// A list of tables, linked through their frames' records.
#[derive(Debug)]
pub(super) struct Chain {
    first: u32,
    last: u32,
}

impl Chain {
    pub(super) const EMPTY: Self = Self { first: END, last: END };

    pub(super) fn push<P: Platform>(&mut self, p: &P, table: FrameId) {
        // Relaxed: a detached table's link is its list's.
        frame::meta(p, table).table.next.store(self.first, Ordering::Relaxed);
        self.first = table.0 + 1;
        if self.last == END {
            self.last = self.first;
        }
    }

    fn pop<P: Platform>(&mut self, p: &P) -> Option<FrameId> {
        let table = FrameId(self.first.checked_sub(1)?);
        self.first = frame::meta(p, table).table.next.load(Ordering::Relaxed);
        Some(table)
    }
}

#[derive(Debug)]
struct Batch {
    tables: Chain,
    cookie: Option<Cookie>,
}

/// All tables of a platform that wait.
#[derive(Debug)]
pub(crate) struct Limbo {
    arrivals: AtomicU32,
    batch: Guarded<Batch>,
}

impl Limbo {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self { arrivals: AtomicU32::new(END), batch: Guarded::new(Batch { tables: Chain::EMPTY, cookie: None }) }
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self { arrivals: AtomicU32::new(END), batch: Guarded::new(Batch { tables: Chain::EMPTY, cookie: None }) }
    }

    /// Takes over `chain`. Never waits.
    pub(super) fn add<P: Platform>(&self, p: &P, chain: &mut Chain) {
        let Some(last) = chain.last.checked_sub(1) else { return };
        let link = &frame::meta(p, FrameId(last)).table.next;
        let mut head = self.arrivals.load(Ordering::Relaxed);
        loop {
            link.store(head, Ordering::Relaxed);
            // Release [limbo-add]: whoever takes the list sees its links, and that the tables were unlinked before.
            match self.arrivals.compare_exchange(head, chain.first, order!("limbo-add", Release), Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => head = now,
            }
        }
        *chain = Chain::EMPTY;
    }

    /// Whether no table waits. A moment's truth; false if somebody is just turning.
    pub(crate) fn is_empty(&self) -> bool {
        let idle = self.arrivals.load(Ordering::Relaxed) == END;
        idle && self.batch.try_lock().is_some_and(|batch| batch.cookie.is_none())
    }

    /// Where those wait who wait for a table to go back.
    pub(crate) fn thing(&self) -> usize {
        place_of(self)
    }

    /// Frees what no walk can be in any more. Never waits; may drive a grace period.
    pub(crate) fn turn<P: Platform>(&self, p: &P) {
        let idle = self.arrivals.load(Ordering::Relaxed) == END;
        let Some(mut batch) = self.batch.try_lock() else { return };
        match batch.cookie {
            None if idle => return,
            Some(cookie) if !p.rcu().poll(cookie) && !spile_sync::seeded!("p8-table-without-grace") => {
                return p.rcu().drive();
            }
            _ => {}
        }
        if batch.cookie.is_some() {
            while let Some(table) = batch.tables.pop(p) {
                PageTable::give_table(p, table);
            }
            wait::happened(p, self.thing());
        }
        // Acquire: pairs with `add`. (No model shows it: the period's fence lies between this and every use of what it takes.)
        let arrivals = self.arrivals.swap(END, Ordering::Acquire);
        batch.tables = Chain { first: arrivals, last: END };
        batch.cookie = (arrivals != END).then(|| p.rcu().cookie());
        if batch.cookie.is_some() {
            p.rcu().drive();
        }
    }
}
