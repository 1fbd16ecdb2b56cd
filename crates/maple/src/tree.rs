//! The tree and what a reader may ask it.
//!
//! **Guarantee.** Under a read section every lookup is wait-free: it descends once, with no loop that another thread could
//! prolong, no store to shared memory, no allocation, no lock. It may run in a signal or interrupt handler that interrupted the
//! writer itself. A lookup returns the state of its key at some moment during the call; two lookups of one reader
//! never go back in time; a key that is covered before and after a change is never seen uncovered.
//!
//! **Mechanism.** The whole tree hangs on one root word, and each change becomes visible by one store: into the root, into a
//! child slot, or into an entry's slot. Nodes are not edited but replaced ([`node`](crate::node)), and a replaced node is a state
//! the tree was in, so a reader needs neither a dead mark nor a retry. What it reached stays allocated because the writer frees
//! nodes and handles a grace period after the store that unlinked them.
//!
//! Why a frozen node is a valid state. Let a reader hold node `X`, replaced at time `t`. It held `X` before `t`. Each slot of
//! `X` keeps the value it had at `t`, so what the reader finds through it was current at `t` or, where the child lives on,
//! later; both lie within the reader's call. The same holds for the child by induction.

use crate::handle::Handle;
use crate::iter::Iter;
use crate::node::{self, Leaf, NodePtr, RESERVED, shows};
use crate::span::Span;
use crate::stock::{Heap, NodeAlloc, Stock};
use crate::writer::Writer;
use core::marker::PhantomData;
use core::ptr::{NonNull, null_mut};
use spile_rcu::Rcu;
use spile_sync::atomic::AtomicPtr;
use spile_sync::cell::UnsafeCell;
use spile_sync::lock::TryLock;

/// More levels than the address space has room for nodes.
pub(crate) const MAX_HEIGHT: usize = 24;

/// A B-tree of disjoint ranges of `u64`, each with a handle `H`; readers by RCU `R`, nodes from `A`.
///
/// What readers are promised: every lookup is wait-free where it says so, sees a state of the tree at some moment during the call,
/// and two lookups of one reader never go back in time. How it changes: [`Writer`].
pub struct RangeTree<H: Handle, R: Rcu, A: NodeAlloc = Heap> {
    pub(crate) root: AtomicPtr<()>,
    pub(crate) rcu: R,
    pub(crate) alloc: A,
    writing: TryLock,
    /// Touched by the writer alone.
    pub(crate) stock: UnsafeCell<Stock>,
    handles: PhantomData<H>,
}

// SAFETY: (1) the tree owns its handles and nodes, and both may be freed by any thread.
unsafe impl<H: Handle, R: Rcu + Send, A: NodeAlloc + Send> Send for RangeTree<H, R, A> {}
// SAFETY: (1) readers get `H::Ref`, and `H: Send + Sync`; (2) the stock is touched by the one writer alone, which the claim
// on `writing` (or a caller's promise) makes one; (3) `rcu` and `allocator` hand out references, and both are `Sync`.
unsafe impl<H: Handle, R: Rcu + Sync, A: NodeAlloc + Send + Sync> Sync for RangeTree<H, R, A> {}

#[cfg(feature = "std")]
#[cfg(not(loom))]
impl<H: Handle> RangeTree<H, spile_rcu::Global> {
    /// An empty tree in the process's RCU domain, with nodes from the heap. Allocates nothing.
    pub const fn new() -> Self {
        Self {
            root: AtomicPtr::new(null_mut()),
            rcu: spile_rcu::Global,
            alloc: Heap,
            writing: TryLock::new(),
            stock: UnsafeCell::new(Stock::new()),
            handles: PhantomData,
        }
    }
}

#[cfg(feature = "std")]
#[cfg(not(loom))]
impl<H: Handle> Default for RangeTree<H, spile_rcu::Global> {
    fn default() -> Self {
        Self::new()
    }
}

impl<H: Handle, R: Rcu, A: NodeAlloc> RangeTree<H, R, A> {
    /// An empty tree whose readers are `rcu`'s and whose nodes come from `alloc`. Allocates nothing.
    pub fn with(rcu: R, alloc: A) -> Self {
        Self {
            root: AtomicPtr::new(null_mut()),
            rcu,
            alloc,
            writing: TryLock::new(),
            stock: UnsafeCell::new(Stock::new()),
            handles: PhantomData,
        }
    }

    /// The RCU domain of this tree's readers.
    pub fn rcu(&self) -> &R {
        &self.rcu
    }

    /// The allocator of this tree's nodes.
    pub fn allocator(&self) -> &A {
        &self.alloc
    }

    /// The right to write, unless somebody has it. One compare-exchange; who waits, and how, is the caller's business.
    #[inline]
    pub fn try_write(&self) -> Option<Writer<'_, H, R, A>> {
        let claim = self.writing.try_lock()?;
        Some(Writer::new(self, Some(claim)))
    }

    /// The right to write, for an exclusive owner. Costs nothing.
    #[inline]
    pub fn write_mut(&mut self) -> Writer<'_, H, R, A> {
        Writer::new(self, None)
    }

    /// The right to write, for a caller whose own lock keeps other writers out. Costs nothing.
    ///
    /// # Safety
    ///
    /// Of all writers of this tree, by whichever of the three ways, one is used at a time, until nothing that it lent is used either; what
    /// it has done happens before the next is used.
    #[inline]
    pub unsafe fn write_unchecked(&self) -> Writer<'_, H, R, A> {
        Writer::new(self, None)
    }

    #[inline(always)]
    fn check(&self, guard: &R::Guard<'_>) {
        assert!(self.rcu.protects(guard), "the read section belongs to another RCU domain than this tree's");
    }

    /// The range that covers `key`, and what it holds. Wait-free.
    ///
    /// # Panics
    ///
    /// If `guard` is of another RCU domain; so do the other lookups.
    #[inline(always)]
    pub fn get<'g>(&'g self, guard: &'g R::Guard<'_>, key: u64) -> Option<(Span, H::Ref<'g>)> {
        self.check(guard);
        let entry = self.leaf_of(key)?.covering(key)?;
        if !shows(entry.raw) {
            return None;
        }
        // SAFETY: (1) published by this tree's writer; (2) unlinked handles live until this section ends.
        Some((entry.span, unsafe { by_ref::<H>(entry.raw) }))
    }

    /// The first range that ends at or after `key`, and what it holds: the one that covers it, or the next. Lock-free: it goes on
    /// to a further leaf only past ranges that were erased or reserved there.
    #[inline]
    pub fn find<'g>(&'g self, guard: &'g R::Guard<'_>, key: u64) -> Option<(Span, H::Ref<'g>)> {
        self.check(guard);
        // SAFETY: (1) the section's, and unlinked handles live until it ends.
        unsafe { self.find_unguarded(key) }
    }

    /// # Safety
    ///
    /// In a read section that lasts for `'g`, or by the writer, who unlinks nothing during it.
    #[inline(always)]
    pub(crate) unsafe fn find_unguarded<'g>(&'g self, key: u64) -> Option<(Span, H::Ref<'g>)> {
        let leaf = self.leaf_of(key)?;
        let here = (leaf.index(key)..leaf.len()).map(|i| leaf.entry(i)).find(|entry| shows(entry.raw));
        match here {
            // SAFETY: (1) published by this tree's writer; (2) the caller's.
            Some(entry) => Some((entry.span, unsafe { by_ref::<H>(entry.raw) })),
            None => Iter::<H>::new(&self.root, Span::of(key, u64::MAX)).next(),
        }
    }

    /// The last range that begins at or before `key`, and what it holds: the one that covers it, or the one before.
    pub fn find_back<'g>(&'g self, guard: &'g R::Guard<'_>, key: u64) -> Option<(Span, H::Ref<'g>)> {
        self.iter(guard, Span::of(0, key)).next_back()
    }

    /// The first range that begins after `key`.
    pub fn next<'g>(&'g self, guard: &'g R::Guard<'_>, key: u64) -> Option<(Span, H::Ref<'g>)> {
        let above = Span::new(key.checked_add(1)?, u64::MAX)?;
        self.iter(guard, above).find(|(span, _)| span.first() > key)
    }

    /// The last range that ends before `key`.
    pub fn prev<'g>(&'g self, guard: &'g R::Guard<'_>, key: u64) -> Option<(Span, H::Ref<'g>)> {
        let below = Span::new(0, key.checked_sub(1)?)?;
        self.iter(guard, below).rfind(|(span, _)| span.last() < key)
    }

    /// The ranges that touch `within`, ascending (or, by `rev`, descending). A range that nobody changes meanwhile is seen exactly
    /// once; one that is replaced may be seen before or after the change, and its pieces twice, but the keys
    /// that stay covered are never skipped.
    pub fn iter<'g>(&'g self, guard: &'g R::Guard<'_>, within: Span) -> Iter<'g, H> {
        self.check(guard);
        Iter::new(&self.root, within)
    }

    /// Whether no range, reserved ones included, touches `within`.
    pub fn is_free(&self, guard: &R::Guard<'_>, within: Span) -> bool {
        self.check(guard);
        Iter::<H>::new(&self.root, within).next_entry().is_none()
    }

    /// Whether there is no range at all, reserved ones included. A moment's truth.
    pub fn is_empty(&self, guard: &R::Guard<'_>) -> bool {
        self.is_free(guard, Span::ALL)
    }

    /// How many levels of nodes there are, the leaves included: so many a lookup passes. A moment's truth.
    pub fn height(&self, guard: &R::Guard<'_>) -> usize {
        self.check(guard);
        let mut at = NodePtr::from_raw(node::load(&self.root));
        let mut height = usize::from(!at.is_null());
        while height > 0 && at.is_inner() {
            // SAFETY: (1) of that kind; (2) reached under the section.
            at = unsafe { at.inner() }.child(0);
            height += 1;
        }
        height
    }

    #[inline(always)]
    fn leaf_of(&self, key: u64) -> Option<Leaf<'_>> {
        let mut at = NodePtr::from_raw(node::load(&self.root));
        if at.is_null() {
            return None;
        }
        while at.is_inner() {
            // SAFETY: (1) of that kind; (2) reached under a section, or by the writer.
            let inner = unsafe { at.inner() };
            at = inner.child(inner.index(key));
        }
        // SAFETY: as above.
        Some(unsafe { at.leaf() })
    }

    /// The writer's lookup.
    pub(crate) fn entry_at(&self, key: u64) -> Option<(Span, NonNull<()>)> {
        let entry = self.leaf_of(key)?.covering(key)?;
        Some((entry.span, NonNull::new(entry.raw)?))
    }
}

/// # Safety
///
/// (1) `raw` is shown by a slot of a tree of `H`; (2) it is not freed during `'g`.
#[inline(always)]
pub(crate) unsafe fn by_ref<'g, H: Handle>(raw: *mut ()) -> H::Ref<'g> {
    debug_assert!(!raw.is_null() && raw != RESERVED);
    // SAFETY: (1) slots that show something are not null; (2) the caller's.
    unsafe { H::by_ref(NonNull::new_unchecked(raw)) }
}

impl<H: Handle, R: Rcu, A: NodeAlloc> Drop for RangeTree<H, R, A> {
    fn drop(&mut self) {
        let root = NodePtr::from_raw(node::own(&self.root));
        self.stock.with_mut(|stock| {
            // SAFETY: (1) readers borrow the tree, so none is left; (2) `&mut self` is the only user.
            let stock = unsafe { &mut *stock };
            if !root.is_null() {
                // SAFETY: as above.
                unsafe { drop_under::<H>(stock, root) };
            }
            // SAFETY: as above.
            unsafe { stock.close_down(&self.alloc) };
        });
    }
}

/// Drops the handles and nodes under `node`, `node` included.
///
/// # Safety
///
/// (1) No reader of the tree is left; (2) the caller is its only user.
pub(crate) unsafe fn drop_under<H: Handle>(stock: &mut Stock, node: NodePtr) {
    // SAFETY: (1, 2) the caller's.
    unsafe {
        if node.is_inner() {
            let inner = node.inner();
            for i in 0..inner.len() {
                drop_under::<H>(stock, inner.child(i));
            }
        } else {
            for entry in node.leaf().entries().filter(|e| shows(e.raw)) {
                drop(H::from_raw(NonNull::new_unchecked(entry.raw)));
            }
        }
        stock.retire(node);
    }
}
