//! How many pages a space shows, and how many it may.
//!
//! **Guarantee.** A fault does not bring a space above its limit. What was charged and is not shown any more is given back. The count is exact whenever nobody is
//! changing it.
//!
//! **Mechanism.** What is counted are entries that show a page: one that two spaces show counts in both, and one that is on its way to a slot in none. Pages are *charged*
//! several at a time; what is charged and not shown yet is in stocks, one for a few CPUs, so that faults that run beside each other write no word in common; with a small
//! limit there are none. Who finds no room takes back what is in the stocks. (Linux charges a cgroup so.) What leaves at the limit is for `clock` to say.

use spile_sync::atomic::{AtomicU32, AtomicU64, Ordering};
use spile_sync::lock::TryLock;
use spile_sync::seeded;

/// How many stocks there are.
const STOCKS: usize = if cfg!(loom) { 1 } else { 16 };
/// What is charged at once beside what is wanted.
const MOST_IN_STOCK: u64 = if cfg!(loom) { 1 } else { 16 };

/// A word on a line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Stock(AtomicU64);

/// How many pages a space shows, and how many it may.
#[derive(Debug)]
pub struct Residents {
    limit: AtomicU64,
    /// Shown, or in a stock.
    charged: AtomicU64,
    stocks: [Stock; STOCKS],
    /// Where the clock's hand is: an address.
    pub(super) hand: AtomicU64,
    /// How often somebody made no room, since somebody did or a fault was refused.
    pub(super) fruitless: AtomicU32,
    /// Held by who makes room.
    pub(super) maker: TryLock,
}

// Relaxed, all that follow: numbers. No page is found by them.

impl Default for Residents {
    fn default() -> Self {
        Self {
            limit: AtomicU64::new(u64::MAX),
            charged: AtomicU64::new(0),
            stocks: core::array::from_fn(|_| Stock::default()),
            hand: AtomicU64::new(0),
            fruitless: AtomicU32::new(0),
            maker: TryLock::new(),
        }
    }
}

impl Residents {
    /// How many it may show.
    pub(crate) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// How much is to be in a stock: in all of them together about a quarter of the limit, at most.
    fn most_in_stock(&self) -> u64 {
        (self.limit() / (8 * STOCKS as u64)).min(MOST_IN_STOCK)
    }

    fn stock(&self, cpu: usize) -> &AtomicU64 {
        &self.stocks[cpu % STOCKS].0
    }

    /// From now on it may show so many.
    pub(super) fn set_limit(&self, pages: u64) {
        self.limit.store(pages, Ordering::Relaxed);
        // What is charged could be shown.
        self.give_back();
    }

    /// How many pages are shown.
    pub(crate) fn shown(&self) -> u64 {
        let in_stock: u64 = self.stocks.iter().map(|stock| stock.0.load(Ordering::Relaxed)).sum();
        self.charged.load(Ordering::Relaxed).saturating_sub(in_stock)
    }

    /// Whether it may show no more.
    pub(super) fn is_full(&self) -> bool {
        self.shown() >= self.limit()
    }

    /// One more is about to be shown. False: it may not.
    pub(super) fn charge(&self, cpu: usize) -> bool {
        let stock = self.stock(cpu);
        loop {
            let (charged, limit) = (self.charged.load(Ordering::Relaxed), self.limit());
            let is_above = charged > limit && !seeded!("stock-above-the-limit");
            if !is_above && take_one(stock) {
                if self.charged.load(Ordering::Relaxed) <= limit || seeded!("stock-above-the-limit") {
                    return true;
                }
                // Others were charged meanwhile who are not asked: it is theirs.
                stock.fetch_add(1, Ordering::Relaxed);
            }
            let room = limit.saturating_sub(charged);
            if room == 0 && !seeded!("charge-beyond-the-limit") {
                if self.give_back() {
                    continue;
                }
                return false;
            }
            let some = room.min(1 + self.most_in_stock()).max(1);
            let is_charged = self.charged.compare_exchange(charged, charged + some, Ordering::Relaxed, Ordering::Relaxed).is_ok();
            if is_charged || seeded!("charge-without-asking-again") {
                stock.fetch_add(some - 1, Ordering::Relaxed);
                return true;
            }
        }
    }

    /// The same, whether it may or not.
    pub(super) fn charge_anyway(&self, cpu: usize) {
        if !take_one(self.stock(cpu)) {
            self.charged.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One less is shown.
    pub(super) fn uncharge(&self, cpu: usize) {
        let stock = self.stock(cpu);
        let in_stock = stock.fetch_add(1, Ordering::Relaxed) + 1;
        // Above the limit nothing is in stock: or it could be charged once more.
        let is_above = self.charged.load(Ordering::Relaxed) > self.limit();
        if is_above || in_stock > 2 * self.most_in_stock() {
            self.empty(stock);
        }
    }

    /// Empties all stocks. Whether there was anything.
    fn give_back(&self) -> bool {
        self.stocks.iter().filter(|stock| self.empty(&stock.0)).count() > 0
    }

    fn empty(&self, stock: &AtomicU64) -> bool {
        let some = stock.swap(0, Ordering::Relaxed);
        self.charged.fetch_sub(some, Ordering::Relaxed);
        some > 0
    }
}

/// Takes one out of a stock, if there is one.
fn take_one(stock: &AtomicU64) -> bool {
    let mut in_stock = stock.load(Ordering::Relaxed);
    while in_stock > 0 {
        match stock.compare_exchange(in_stock, in_stock - 1, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return true,
            Err(now) => in_stock = now,
        }
    }
    false
}
