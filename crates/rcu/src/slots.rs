//! Readers that own a slot each.
//!
//! **Guarantee.** Entering and leaving a section is wait-free: at most two loads, one store and the host's light barrier, on a
//! cache line that no other thread writes. A signal handler may enter and leave at any instruction of either. A period ends only
//! after every slot has been seen empty or entered later than the period's start.
//!
//! **Mechanism.** A slot's word is `period << 16 | nesting`:
//!
//! ```text
//!  63                      16 15        0
//! ┌──────────────────────────┬───────────┐   nesting = 0: not in a section
//! │ period it was entered in │  nesting  │   otherwise: in one since (at the latest) that period
//! └──────────────────────────┴───────────┘
//! ```
//!
//! Only its owner writes it. A handler that interrupts between the owner's load and store leaves the word as it found it, so
//! the owner's store is still right. Reader and driver form a Dekker pair: the reader stores its word, passes the *light*
//! barrier and reads pointers; the driver (after the unlinking) passes the *heavy* barrier and reads words. One of them sees the
//! other. Light and heavy are both a SeqCst fence, or a compiler fence and `membarrier(2)` ([`Host`]).
//!
//! Slots come in blocks, the first of them static, and are claimed by compare-exchange. They are given back by
//! their owner or, when its thread is gone, by a driver that asks the host; the owner word carries a
//! generation, so that a reused thread number is never mistaken for its predecessor.

use crate::backlog::Backlog;
use crate::grace::{Cookie, Grace};
use crate::head::Head;
use crate::{BACKLOG_BOUND, Rcu};
use core::marker::PhantomData;
use core::ptr::{NonNull, null_mut};
use spile_sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use spile_sync::lock::TryLock;
use spile_sync::{fence, order};

/// Slots in a block.
const BLOCK: usize = if cfg!(loom) { 2 } else { 32 };
/// Stripes of the backlog of a domain.
const STRIPES: usize = if cfg!(loom) { 1 } else { 16 };
const NESTING_BITS: u32 = 16;
const NESTING: u64 = (1 << NESTING_BITS) - 1;

/// Owner number of a free slot.
const FREE: u32 = 0;
/// Owner number of a slot that is being taken from a dead thread.
const BURIED: u32 = u32::MAX;

/// What a domain needs of the place it runs in.
pub trait Host {
    /// Between a reader's store of its word and its first read.
    fn light();
    /// Before a driver reads the words: orders it against the `light` of every thread.
    fn heavy();
    /// A zeroed block of slots that lives for ever, when all are taken; `None` if there is no memory.
    fn grow() -> Option<NonNull<Block>>;
    /// Whether the thread that claimed a slot as `owner` has ended. A false "no" only delays reuse.
    fn is_dead(owner: u32) -> bool;
    /// Called by a waiting `synchronize` in its `round`-th round.
    fn relax(round: u32);
    /// How many objects make one grace period worth its price, while other threads have slots.
    const BATCH: usize;
}

/// One reader's word, on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
pub struct Slot {
    /// Written by the owner alone (and by whoever buries a dead one).
    word: AtomicU64,
    /// `generation << 32 | owner`.
    owner: AtomicU64,
}

/// A block of slots and the link to the next.
#[derive(Debug)]
pub struct Block {
    slots: [Slot; BLOCK],
    next: AtomicPtr<Block>,
}

/// A domain of readers with one slot each.
#[derive(Debug)]
pub struct Domain<H> {
    grace: Grace,
    drive: TryLock,
    /// At least the number of claimed slots.
    claimed: AtomicUsize,
    first: Block,
    backlog: [Backlog; STRIPES],
    host: PhantomData<fn() -> H>,
}

macro_rules! constructors {
    ($($const:ident)?) => {
        impl Slot {
            $($const)? fn new() -> Self {
                Self { word: AtomicU64::new(0), owner: AtomicU64::new(FREE as u64) }
            }

            /// Whether the owner is in a section. Meaningful on the owner's thread.
            #[inline]
            pub fn in_section(&self) -> bool {
                // Relaxed: the owner reads its own store.
                self.word.load(Ordering::Relaxed) & NESTING != 0
            }
        }

        impl<H: Host> Domain<H> {
            /// A domain without readers.
            #[allow(clippy::new_without_default)]
            pub $($const)? fn new() -> Self {
                Self {
                    grace: Grace::new(),
                    drive: TryLock::new(),
                    claimed: AtomicUsize::new(0),
                    first: Block { slots: constructors!(@array $($const)? Slot), next: AtomicPtr::new(null_mut()) },
                    backlog: constructors!(@array $($const)? Backlog),
                    host: PhantomData,
                }
            }
        }
    };
    (@array const $t:ident) => { [const { $t::new() }; _] };
    (@array $t:ident) => { core::array::from_fn(|_| $t::new()) };
}
#[cfg(not(loom))]
constructors!(const);
#[cfg(loom)]
constructors!();

fn owner_of(word: u64) -> u32 {
    word as u32
}

fn owned_by(previous: u64, owner: u32) -> u64 {
    ((previous >> 32).wrapping_add(1) << 32) | u64::from(owner)
}

impl<H: Host> Domain<H> {
    /// Claims a slot for the thread numbered `owner` (neither 0 nor `u32::MAX`). Lock-free, allocates nothing but blocks
    /// by [`Host::grow`]. A slot that a dead thread of the same number left is taken over. `None`: no memory.
    pub fn claim(&self, owner: u32) -> Option<&Slot> {
        let mut block = &self.first;
        loop {
            for slot in &block.slots {
                if self.try_claim(slot, owner) {
                    return Some(slot);
                }
            }
            block = self.next_or_grow(block)?;
        }
    }

    fn try_claim(&self, slot: &Slot, owner: u32) -> bool {
        let seen = slot.owner.load(Ordering::Relaxed);
        let fresh = owner_of(seen) == FREE;
        if !fresh && owner_of(seen) != owner {
            return false;
        }
        if fresh {
            // Before the claim, so that the count never runs below the truth: see `alone`.
            self.claimed.fetch_add(1, Ordering::Relaxed);
        }
        // Acquire [claim-owner]: pairs with the Release of `give_back`, so that the word reads 0.
        let claimed = slot.owner.compare_exchange(seen, owned_by(seen, owner), order!("claim-owner", Acquire), Ordering::Relaxed);
        if claimed.is_err() {
            if fresh {
                self.claimed.fetch_sub(1, Ordering::Relaxed);
            }
            return false;
        }
        if !fresh {
            // A namesake's leftover: it is dead, or it is this very thread, interrupted between here and its return.
            slot.word.store(0, Ordering::Relaxed);
        }
        // [claim] against [alone]: a driver that does not count this slot has unlinked before what we read next.
        fence!("claim");
        true
    }

    fn next_or_grow<'d>(&'d self, block: &'d Block) -> Option<&'d Block> {
        // Acquire [grow]: the block's zeroes are visible before its address.
        let next = block.next.load(Ordering::Acquire);
        let next = match NonNull::new(next) {
            Some(next) => next,
            None => {
                let fresh = H::grow()?;
                // Release [grow]: see above. A block that loses the race is leaked: it was mapped, not allocated, and
                // this happens at most once per thread and block.
                match block.next.compare_exchange(null_mut(), fresh.as_ptr(), Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => fresh,
                    Err(winner) => NonNull::new(winner)?,
                }
            }
        };
        // SAFETY: (1) blocks are never freed; (2) published with its contents.
        Some(unsafe { next.as_ref() })
    }

    /// Gives a slot back. Its owner is in no section and uses it no more.
    pub fn give_back(&self, slot: &Slot) {
        debug_assert!(!slot.in_section(), "a slot was given back inside a read section");
        let seen = slot.owner.load(Ordering::Relaxed);
        // Release [give-back]: the last exit happens before the next claim, and before a scan that skips this slot.
        slot.owner.store(owned_by(seen, FREE), order!("give-back", Release));
        self.claimed.fetch_sub(1, Ordering::Relaxed);
    }

    /// Enters a section on the caller's own slot.
    ///
    /// # Panics
    ///
    /// At 65,535 sections of one thread inside each other, which leaked guards alone can reach.
    #[inline(always)]
    pub fn enter(&self, slot: &Slot) {
        let word = slot.word.load(Ordering::Relaxed);
        if word & NESTING == 0 {
            let entered = self.grace.epoch() << NESTING_BITS | 1;
            // Release [enter]: a scan that reads this entry has also seen the exit from the section before it.
            slot.word.store(entered, order!("enter", Release));
            if !spile_sync::seeded!("no-light-barrier") {
                // [light] against [heavy]: either the driver sees this entry or we see its unlinking.
                H::light();
            }
        } else {
            assert!(word & NESTING != NESTING, "read sections nest deeper than 65,535: a guard leaks");
            slot.word.store(word + 1, Ordering::Relaxed);
        }
    }

    /// Leaves the innermost section of the caller's own slot.
    #[inline(always)]
    pub fn leave(&self, slot: &Slot) {
        let word = slot.word.load(Ordering::Relaxed);
        debug_assert!(word & NESTING != 0, "left a section that was not entered");
        let left = if spile_sync::seeded!("unnested-leave") { 0 } else { word - 1 };
        // Release [leave]: our reads happen before the scan that sees us gone, and so before the free.
        slot.word.store(left, order!("leave", Release));
    }

    /// See [`Rcu::cookie`].
    pub fn cookie(&self) -> Cookie {
        self.grace.cookie()
    }

    /// See [`Rcu::poll`].
    pub fn poll(&self, cookie: Cookie) -> bool {
        self.grace.poll(cookie)
    }

    /// See [`Rcu::batch`]; `mine` is the caller's slot.
    pub fn batch(&self, mine: Option<&Slot>) -> usize {
        if self.others(mine) == 0 { 32 } else { H::BATCH }
    }

    /// See [`Rcu::drive`]; `mine` is the caller's slot.
    pub fn drive(&self, mine: Option<&Slot>) {
        if let Some(_driving) = self.drive.try_lock() {
            self.advance(mine);
        }
    }

    /// See [`Rcu::defer`]; `stripe` spreads the callers.
    ///
    /// # Safety
    ///
    /// The contract of [`Rcu::defer`].
    pub unsafe fn defer(&self, head: NonNull<Head>, stripe: usize) {
        // SAFETY: (1) the caller's contract is the callee's.
        unsafe { self.backlog[stripe % STRIPES].push(head) };
    }

    /// See [`Rcu::backlog`].
    pub fn backlog(&self) -> usize {
        self.backlog.iter().map(Backlog::count).sum()
    }

    /// See [`Rcu::relieve`]; `mine` is the caller's slot.
    pub fn relieve(&self, mine: Option<&Slot>) {
        if mine.is_some_and(Slot::in_section) {
            return;
        }
        let waiting = self.backlog();
        if waiting > 8 * BACKLOG_BOUND {
            self.synchronize(mine);
        } else if waiting > BACKLOG_BOUND {
            self.help(mine);
        }
    }

    /// See [`Rcu::synchronize`]; `mine` is the caller's slot.
    pub fn synchronize(&self, mine: Option<&Slot>) {
        assert!(
            !mine.is_some_and(Slot::in_section),
            "synchronize() inside a read section would wait for itself: drop the guard first"
        );
        let cookie = self.cookie();
        let mut round = 0;
        while !self.poll(cookie) {
            self.help(mine);
            if self.poll(cookie) {
                break;
            }
            if round % 64 == 63 {
                self.bury();
            }
            H::relax(round);
            round += 1;
        }
        self.help(mine);
    }

    /// Waits until everything deferred before this call has been released.
    ///
    /// # Panics
    ///
    /// Inside a read section.
    pub fn barrier(&self, mine: Option<&Slot>) {
        // One period ends the batch that waits, the next the one that arrived meanwhile, the third what
        // a release deferred; whoever else is releasing right now is waited for by the count.
        while self.backlog() > 0 {
            self.synchronize(mine);
        }
    }

    /// Moves time on and runs what is due. Holds nothing while a release runs.
    fn help(&self, mine: Option<&Slot>) {
        let Some(driving) = self.drive.try_lock() else {
            return;
        };
        self.advance(mine);
        // SAFETY: (1) the drive lock is held.
        let due: [_; STRIPES] = core::array::from_fn(|i| unsafe { self.backlog[i].turn(&self.grace) });
        drop(driving);
        for (stripe, chain) in self.backlog.iter().zip(due) {
            // SAFETY: (1) this chain came from this stripe's `turn`.
            unsafe { stripe.release(chain) };
        }
    }

    fn others(&self, mine: Option<&Slot>) -> usize {
        self.claimed.load(Ordering::Relaxed).saturating_sub(mine.is_some() as usize)
    }

    /// Under the drive lock.
    fn advance(&self, mine: Option<&Slot>) {
        let barrier = || {
            // [alone] against [claim]: a slot that is not counted here is claimed after this fence, and its owner sees what
            // was unlinked before it.
            fence!("alone");
            if self.others(mine) != 0 && !spile_sync::seeded!("no-heavy-barrier") {
                H::heavy();
            }
        };
        self.grace.advance(barrier, |period| self.all_later_than(period));
    }

    fn blocks(&self) -> impl Iterator<Item = &Block> {
        let following = |block: &&Block| {
            let next = NonNull::new(block.next.load(Ordering::Acquire));
            // SAFETY: (1) blocks are never freed; (2) published with their contents [grow].
            next.map(|next| unsafe { next.as_ref() })
        };
        core::iter::successors(Some(&self.first), following)
    }

    fn all_later_than(&self, period: u64) -> bool {
        self.blocks().flat_map(|block| &block.slots).all(|slot| {
            // Acquire [scan]: pairs with `leave` (and `enter`): the reads of the section that ended come before us.
            let word = slot.word.load(order!("scan", Acquire));
            word & NESTING == 0 || word >> NESTING_BITS >= period
        })
    }

    /// Gives back the slots of threads that have ended without doing so. Their sections, if any, ended with them.
    pub fn bury(&self) {
        let Some(_driving) = self.drive.try_lock() else {
            return;
        };
        for slot in self.blocks().flat_map(|block| &block.slots) {
            let seen = slot.owner.load(Ordering::Relaxed);
            let owner = owner_of(seen);
            if owner == FREE || owner == BURIED || !H::is_dead(owner) {
                continue;
            }
            // The generation makes this fail if a new thread of the same number has taken the slot over meanwhile.
            let buried = owned_by(seen, BURIED);
            if slot.owner.compare_exchange(seen, buried, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                slot.word.store(0, Ordering::Relaxed);
                self.give_back(slot);
            }
        }
    }

    /// After a fork, in the child, whose only thread owns `mine`: the other owners are gone, and `mine` has a new number.
    /// The parent's forking thread must have held [`hold_still`](Self::hold_still) across the fork.
    #[cfg(all(feature = "std", not(loom)))]
    pub(crate) fn forked(&self, mine: Option<&Slot>, owner: u32) {
        for slot in self.blocks().flat_map(|block| &block.slots) {
            let seen = slot.owner.load(Ordering::Relaxed);
            if mine.is_some_and(|mine| core::ptr::eq(mine, slot)) {
                slot.owner.store(owned_by(seen, owner), Ordering::Relaxed);
            } else if owner_of(seen) != FREE {
                slot.word.store(0, Ordering::Relaxed);
                self.give_back(slot);
            }
        }
    }

    #[cfg(all(feature = "std", not(loom)))]
    pub(crate) fn drive_lock(&self) -> &TryLock {
        &self.drive
    }

    /// Takes the drive lock for the duration of a fork, so that the child's copy of the lists is whole.
    #[cfg(all(feature = "std", not(loom)))]
    pub(crate) fn hold_still(&self) -> spile_sync::lock::TryLockGuard<'_> {
        loop {
            if let Some(held) = self.drive.try_lock() {
                return held;
            }
            H::relax(64);
        }
    }
}

/// A reader of a [`Domain`] that was handed its slot by name: the form for hosts without thread-locals.
#[derive(Debug)]
pub struct Reader<'d, H: Host> {
    domain: &'d Domain<H>,
    slot: &'d Slot,
    /// The slot is its thread's: not `Send`, not `Sync`.
    pinned: PhantomData<*mut ()>,
}

impl<'d, H: Host> Reader<'d, H> {
    /// Claims a slot of `domain` as `owner` (neither 0 nor `u32::MAX`, of one live reader only). `None`: no memory.
    pub fn new(domain: &'d Domain<H>, owner: u32) -> Option<Self> {
        let slot = domain.claim(owner)?;
        Some(Self { domain, slot, pinned: PhantomData })
    }

    /// See [`Domain::barrier`].
    pub fn barrier(&self) {
        self.domain.barrier(Some(self.slot));
    }
}

impl<H: Host> Drop for Reader<'_, H> {
    fn drop(&mut self) {
        // A section whose guard was leaked keeps its slot: what it may still reach must stay.
        if !self.slot.in_section() {
            self.domain.give_back(self.slot);
        }
    }
}

/// A section of a [`Reader`].
#[derive(Debug)]
pub struct Section<'r, H: Host>(&'r Reader<'r, H>);

impl<H: Host> Drop for Section<'_, H> {
    fn drop(&mut self) {
        self.0.domain.leave(self.0.slot);
    }
}

// SAFETY: (1) `enter` and `leave` keep the slot's word as the module says, so a period whose cookie was taken during the
// section waits for it; (2) `protects` compares domains; (3) leave → scan → complete → poll is a chain of
// release/acquire pairs.
unsafe impl<H: Host> Rcu for Reader<'_, H> {
    type Guard<'r>
        = Section<'r, H>
    where
        Self: 'r;

    fn read(&self) -> Section<'_, H> {
        self.domain.enter(self.slot);
        Section(self)
    }

    fn protects(&self, guard: &Section<'_, H>) -> bool {
        core::ptr::eq(guard.0.domain, self.domain)
    }

    fn cookie(&self) -> Cookie {
        self.domain.cookie()
    }

    fn poll(&self, cookie: Cookie) -> bool {
        self.domain.poll(cookie)
    }

    fn drive(&self) {
        self.domain.drive(Some(self.slot));
    }

    fn batch(&self) -> usize {
        self.domain.batch(Some(self.slot))
    }

    unsafe fn defer(&self, head: NonNull<Head>) {
        // SAFETY: (1) the caller's contract is the callee's.
        unsafe { self.domain.defer(head, core::ptr::from_ref(self.slot).addr() >> 7) };
    }

    fn backlog(&self) -> usize {
        self.domain.backlog()
    }

    fn relieve(&self) {
        self.domain.relieve(Some(self.slot));
    }

    fn synchronize(&self) {
        self.domain.synchronize(Some(self.slot));
    }
}
