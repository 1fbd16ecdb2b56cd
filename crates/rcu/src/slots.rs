//! Readers that own a slot each.
//!
//! **Guarantee.** Entering and leaving a section is wait-free: at most two loads, one store and the host's light barrier, on a
//! cache line that no other thread writes. A signal handler may enter and leave at any instruction of either, provided that it
//! leaves what it entered, and that alone. A period ends only after every slot has been seen empty or entered later than the
//! period's start.
//!
//! **Mechanism.** A slot's word is the number of a period, which ends in 16 bits of 1, and in these the nesting:
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
//! Slots come in blocks, the first of them part of the domain, and are claimed by compare-exchange. They are given back by
//! their owner or, when its thread is gone, by a claim that finds none free and asks the host; the owner word carries a
//! generation, so that a reused thread number is never mistaken for its predecessor. A section whose guard was leaked is
//! never over, whatever becomes of its thread.
//!
//! Period numbers have 48 bits in a word. Past them (nine years of a period per microsecond) each running section
//! is taken for an old one and waited for: slower, not wrong.

use crate::backlog::Backlog;
use crate::grace::{Cookie, Grace, STEP};
use crate::head::Head;
use crate::{BACKLOG_BOUND, Rcu};
use core::marker::PhantomData;
use core::ptr::{NonNull, null_mut};
use spile_sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use spile_sync::lock::TryLock;
use spile_sync::{fence, order, seeded};

/// Slots in a block.
const BLOCK: usize = if cfg!(loom) { 3 } else { 32 };
/// Stripes of the backlog of a domain.
const STRIPES: usize = if cfg!(loom) { 1 } else { 16 };
const NESTING: u64 = STEP - 1;

/// Owner number of a free slot.
const FREE: u32 = 0;

/// What a domain needs of the place it runs in.
///
/// # Safety
///
/// An implementor owes that
/// (1) a [`light`](Self::light) and a [`heavy`](Self::heavy) come one after the other: if `light` is first, loads after `heavy`
/// see what was stored before `light`; if `heavy` is first, loads after `light` see what was stored before `heavy`;
/// (2) neither is moved, by compiler or processor, against the memory accesses of its thread;
/// (3) [`grow`](Self::grow) returns a new block each time, all zeroes, that lives for ever;
/// (4) after [`is_dead`](Self::is_dead) returned true, the thread that claimed as that owner runs no more, and all it did
/// happened before.
pub unsafe trait Host {
    /// Between a reader's store of its word and its first read.
    fn light();
    /// Before a driver reads the words: orders it against the `light` of every thread.
    fn heavy();
    /// A zeroed block of slots that lives for ever, when all are taken; `None` if there is no memory. May be called in a
    /// signal handler if readers are made there.
    fn grow() -> Option<NonNull<Block>>;
    /// Whether the thread that claimed a slot as `owner` has ended. A wrong "no" only delays reuse.
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
    /// Written by the owner alone.
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
            pub(crate) fn in_section(&self) -> bool {
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

/// Out of line, so that the outermost entry is straight.
#[cold]
#[inline(never)]
fn one_deeper(word: u64) -> u64 {
    assert!(word & NESTING != NESTING, "read sections nest deeper than 65,535: a guard leaks");
    word + 1
}

impl<H: Host> Domain<H> {
    /// Claims a slot for the thread numbered `owner`, which is not 0. Lock-free, allocates nothing but blocks by
    /// [`Host::grow`]. `None`: no memory.
    pub(crate) fn claim(&self, owner: u32) -> Option<&Slot> {
        debug_assert!(owner != FREE, "0 is the number of no thread");
        loop {
            if let Some(slot) = self.slots().find(|slot| self.try_claim(slot, owner)) {
                return Some(slot);
            }
            if self.bury() == 0 {
                self.append(H::grow()?);
            }
        }
    }

    fn try_claim(&self, slot: &Slot, owner: u32) -> bool {
        let seen = slot.owner.load(Ordering::Relaxed);
        if owner_of(seen) != FREE {
            return false;
        }
        // Before the claim, so that the count never runs below the truth: see `alone`. Relaxed: [claim] orders it.
        self.claimed.fetch_add(1, Ordering::Relaxed);
        // Relaxed: the fence below acquires what [give-back] released, so that the word reads 0.
        let claimed = slot.owner.compare_exchange(seen, owned_by(seen, owner), Ordering::Relaxed, Ordering::Relaxed);
        if claimed.is_err() {
            self.claimed.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        // [claim] against [alone]: a driver that does not count this slot has unlinked before what we read next.
        fence!("claim");
        true
    }

    /// Appends a block. One that loses a race goes behind the winner's.
    fn append(&self, block: NonNull<Block>) {
        let mut last = &self.first;
        // Release [grow]: the block's zeroes are visible before its address. Acquire [grow]: the same of the one we step to.
        while let Err(next) = last.next.compare_exchange(null_mut(), block.as_ptr(), Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: (1) not null, or the exchange had not failed; (2) blocks are never freed; (3) published with its contents.
            last = unsafe { &*next };
        }
    }

    /// Gives a slot back.
    ///
    /// # Safety
    ///
    /// (1) `slot` was claimed here by the caller, (2) is in no section, and (3) is not used again.
    pub(crate) unsafe fn give_back(&self, slot: &Slot) {
        debug_assert!(!slot.in_section(), "a slot was given back inside a read section");
        let freed = self.free(slot, slot.owner.load(Ordering::Relaxed));
        debug_assert!(freed, "a slot was given back by another than its owner");
    }

    /// Frees a slot that is in no section, if its owner is still the one that was `seen`.
    fn free(&self, slot: &Slot, seen: u64) -> bool {
        // Release [give-back]: the last exit happens before the next claim.
        let freed = slot.owner.compare_exchange(seen, owned_by(seen, FREE), order!("give-back", Release), Ordering::Relaxed);
        if freed.is_ok() {
            // Release [uncount]: the reads of its last section happen before a driver that counts this slot no more, and so
            // may skip the heavy barrier and see an even older word.
            self.claimed.fetch_sub(1, order!("uncount", Release));
        }
        freed.is_ok()
    }

    /// Enters a section on the caller's own slot.
    ///
    /// # Safety
    ///
    /// `slot` was claimed here by the caller, and is not given back.
    ///
    /// # Panics
    ///
    /// At 65,535 sections of one thread inside each other, which leaked guards alone can reach.
    #[inline(always)]
    pub(crate) unsafe fn enter(&self, slot: &Slot) {
        // Relaxed: our own store, or that of a handler which found and left the same.
        let word = slot.word.load(Ordering::Relaxed);
        let outermost = word & NESTING == 0;
        let entered = if outermost { self.grace.epoch() } else { one_deeper(word) };
        // Release [enter]: a scan that reads this entry has also seen the exit from the section before it; the inner entry of
        // a nested one too, for a plain store carries on nothing that an earlier one released.
        slot.word.store(entered, order!("enter", Release));
        // [light] against [heavy]: either the driver sees this entry or we see its unlinking. In a nested section too: a handler
        // may have interrupted the outer entry between its store and its barrier.
        if !seeded!("no-light-barrier") && (outermost || !seeded!("no-light-barrier-nested")) {
            H::light();
        }
    }

    /// Leaves the innermost section of the caller's own slot.
    ///
    /// # Safety
    ///
    /// `slot` was claimed here by the caller, who entered it once more than left it.
    #[inline(always)]
    pub(crate) unsafe fn leave(&self, slot: &Slot) {
        let word = slot.word.load(Ordering::Relaxed);
        debug_assert!(word & NESTING != 0, "left a section that was not entered");
        let left = if seeded!("unnested-leave") { 0 } else { word - 1 };
        // Release [leave]: our reads happen before the scan that sees us gone, and so before the free.
        slot.word.store(left, order!("leave", Release));
    }

    /// See [`Rcu::cookie`].
    pub(crate) fn cookie(&self) -> Cookie {
        self.grace.cookie()
    }

    /// See [`Rcu::poll`].
    pub(crate) fn poll(&self, cookie: Cookie) -> bool {
        self.grace.poll(cookie)
    }

    /// See [`Rcu::batch`]; `mine` is the caller's slot.
    pub(crate) fn batch(&self, mine: Option<&Slot>) -> usize {
        if self.others(mine) == 0 { 32 } else { H::BATCH }
    }

    /// See [`Rcu::drive`]; `mine` is the caller's slot.
    pub(crate) fn drive(&self, mine: Option<&Slot>) {
        if let Some(_driving) = self.drive.try_lock() {
            self.advance(mine);
        }
    }

    /// See [`Rcu::defer`]; `stripe` spreads the callers.
    ///
    /// # Safety
    ///
    /// The contract of [`Rcu::defer`].
    pub(crate) unsafe fn defer(&self, head: NonNull<Head>, stripe: usize) {
        // SAFETY: (1) the caller's contract is the callee's.
        unsafe { self.backlog[stripe % STRIPES].push(head) };
    }

    /// See [`Rcu::backlog`].
    pub(crate) fn backlog(&self) -> usize {
        self.backlog.iter().map(Backlog::count).sum()
    }

    /// See [`Rcu::relieve`]; `mine` is the caller's slot.
    pub(crate) fn relieve(&self, mine: Option<&Slot>) {
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
    pub(crate) fn synchronize(&self, mine: Option<&Slot>) {
        assert!(
            !mine.is_some_and(Slot::in_section),
            "synchronize() inside a read section would wait for itself: drop the guard first"
        );
        self.grace.wait(|| self.help(mine), H::relax);
    }

    /// See [`Reader::barrier`]; `mine` is the caller's slot.
    pub(crate) fn barrier(&self, mine: Option<&Slot>) {
        // One period ends the batch that waits, the next the one that arrived meanwhile, the third what
        // a release deferred; whoever else is releasing right now is waited for by the count.
        let mut round = 0;
        while self.backlog() > 0 {
            self.synchronize(mine);
            H::relax(round);
            round += 1;
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

    /// How many slots others may be reading with.
    fn others(&self, mine: Option<&Slot>) -> usize {
        // Acquire [count-slots]: pairs with [uncount].
        self.claimed.load(order!("count-slots", Acquire)).saturating_sub(usize::from(mine.is_some()))
    }

    /// Under the drive lock.
    fn advance(&self, mine: Option<&Slot>) {
        let barrier = || {
            // [alone] against [claim]: a slot that is not counted here is claimed after this fence, and its owner sees what
            // was unlinked before it.
            fence!("alone");
            if self.others(mine) != 0 && !seeded!("no-heavy-barrier") {
                H::heavy();
            }
        };
        self.grace.advance(barrier, |period| self.all_later_than(period));
    }

    fn blocks(&self) -> impl Iterator<Item = &Block> {
        let following = |block: &&Block| {
            // Acquire [grow]: the block's zeroes are visible before its address.
            let next = NonNull::new(block.next.load(Ordering::Acquire));
            // SAFETY: (1) blocks are never freed; (2) published with their contents [grow].
            next.map(|next| unsafe { next.as_ref() })
        };
        core::iter::successors(Some(&self.first), following)
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.blocks().flat_map(|block| &block.slots)
    }

    fn all_later_than(&self, period: u64) -> bool {
        self.slots().all(|slot| {
            // Acquire [scan]: pairs with `leave` (and `enter`): the reads of the section that ended come before us.
            let word = slot.word.load(order!("scan", Acquire));
            let outside = word & NESTING == 0 || (seeded!("skip-nested") && word & NESTING > 1);
            outside || word >= period
        })
    }

    /// Gives back the slots of threads that have ended without doing so; how many.
    fn bury(&self) -> usize {
        self.slots().filter(|slot| self.try_bury(slot)).count()
    }

    /// A thread that ended inside a section keeps its slot: the guard was leaked, and what was reached by it may have been handed
    /// to a thread that lives.
    fn try_bury(&self, slot: &Slot) -> bool {
        let seen = slot.owner.load(Ordering::Relaxed);
        let owner = owner_of(seen);
        // The word is final once the owner is dead. The generation makes `free` fail if the slot was given to a new owner
        // meanwhile, one of the same number too.
        owner != FREE && H::is_dead(owner) && !slot.in_section() && self.free(slot, seen)
    }

    /// After a fork, in the child, whose only thread owns `mine`: the other owners are gone, and `mine` has a new number.
    ///
    /// # Safety
    ///
    /// (1) The caller is the only thread; (2) it took [`hold_still`](Self::hold_still) before the fork and still has it; (3) what
    /// sections of the other threads protected is not used in this process.
    #[cfg(all(feature = "std", not(loom)))]
    #[allow(dead_code, reason = "where fork is not followed")]
    pub(crate) unsafe fn forked(&self, mine: Option<&Slot>, owner: u32) {
        for slot in self.slots() {
            let seen = slot.owner.load(Ordering::Relaxed);
            if mine.is_some_and(|mine| core::ptr::eq(mine, slot)) {
                slot.owner.store(owned_by(seen, owner), Ordering::Relaxed);
            } else if owner_of(seen) != FREE {
                slot.word.store(0, Ordering::Relaxed);
                self.free(slot, seen);
            }
        }
        for stripe in &self.backlog {
            // SAFETY: (1) and (2) by this function's contract.
            unsafe { stripe.recount() };
        }
    }

    #[cfg(all(feature = "std", not(loom)))]
    #[allow(dead_code, reason = "where fork is not followed")]
    pub(crate) fn drive_lock(&self) -> &TryLock {
        &self.drive
    }

    /// Takes the drive lock for the duration of a fork, so that the child's copy of the lists is whole.
    #[cfg(all(feature = "std", not(loom)))]
    #[allow(dead_code, reason = "where fork is not followed")]
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
    /// Claims a slot of `domain` as `owner`. `None`: no memory.
    ///
    /// # Safety
    ///
    /// (1) `owner` is not 0; (2) until this reader is dropped, [`Host::is_dead`] says no to `owner`.
    pub unsafe fn new(domain: &'d Domain<H>, owner: u32) -> Option<Self> {
        let slot = domain.claim(owner)?;
        Some(Self { domain, slot, pinned: PhantomData })
    }

    /// Waits until everything deferred before this call has been released, and what others defer meanwhile. What the
    /// releases did happens before the return.
    ///
    /// # Panics
    ///
    /// Inside a read section.
    pub fn barrier(&self) {
        self.domain.barrier(Some(self.slot));
    }
}

impl<H: Host> Drop for Reader<'_, H> {
    fn drop(&mut self) {
        // A section whose guard was leaked keeps its slot: what it may still reach must stay.
        if !self.slot.in_section() {
            // SAFETY: (1) claimed by `new`; (2) in no section; (3) this is its last use.
            unsafe { self.domain.give_back(self.slot) };
        }
    }
}

/// A section of a [`Reader`].
#[derive(Debug)]
#[must_use = "the section ends when the guard is dropped"]
pub struct Section<'r, H: Host>(&'r Reader<'r, H>);

impl<H: Host> Drop for Section<'_, H> {
    fn drop(&mut self) {
        // SAFETY: (1) the reader's own slot; (2) this guard entered it, and leaves it once.
        unsafe { self.0.domain.leave(self.0.slot) };
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
        // SAFETY: (1) the reader's own slot, as long as the reader lives.
        unsafe { self.domain.enter(self.slot) };
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
