//! The one who changes the tree.
//!
//! **Guarantee.** Using a [`Writer`] tells you: nobody else uses one of this tree. Each verb is one atomic step for readers, and
//! either happens whole or, on an error, not at all, and then gives back what it was given.
//!
//! **Mechanism.** A verb turns into one change of one window ([`splice`](crate::splice)). What it displaces is returned as
//! [`Displaced`], whose drop hands each handle to RCU.

use crate::gap::{self, Fit};
use crate::handle::Handle;
use crate::iter::Iter;
use crate::node::{self, Entry, NodePtr, RESERVED, shows};
use crate::span::Span;
use crate::splice::{Change, Hands, MAX_NEW, Spliced};
use crate::stock::{Need, NoMemory, NodeAlloc, Stock};
use crate::tree::{RangeTree, by_ref};
use core::fmt;
use core::mem::ManuallyDrop;
use core::ptr::{NonNull, null_mut};
use spile_rcu::Rcu;
use spile_sync::lock::TryLockGuard;

/// The right to change a tree, from [`RangeTree::try_write`], [`write_mut`](RangeTree::write_mut) or
/// [`write_unchecked`](RangeTree::write_unchecked).
pub struct Writer<'t, H: Handle, R: Rcu, A: NodeAlloc> {
    tree: &'t RangeTree<H, R, A>,
    _claim: Option<TryLockGuard<'t>>,
}

/// Why a [`Writer::replace`] was refused. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There was no memory for nodes.
    NoMemory,
    /// This range sticks out of the window, and one of its ends would be cut off. Widen the window to cover it, and say what
    /// shall stand there.
    Cuts(Span),
    /// The entry of this index is outside the window, or not above the one before it.
    Misplaced(usize),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::NoMemory => fmt::Display::fmt(&NoMemory, f),
            Refused::Cuts(span) => write!(f, "the window cuts {span}; widen it to cover that range; nothing was changed"),
            Refused::Misplaced(i) => {
                write!(f, "entry {i} is outside the window or not above the one before; nothing was changed")
            }
        }
    }
}

impl core::error::Error for Refused {}

/// What shall stand in a window: ascending spans, each with its handle, or reserved.
pub type Pieces<H, const N: usize> = [(Span, Option<H>); N];

/// A refusal together with what it was about.
#[derive(Debug)]
pub struct Rejected<T, E> {
    /// Why.
    pub why: E,
    /// What the caller gave.
    pub given: T,
}

impl<T: fmt::Debug, E: fmt::Display + fmt::Debug> fmt::Display for Rejected<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.why, f)
    }
}

impl<T: fmt::Debug, E: fmt::Display + fmt::Debug> core::error::Error for Rejected<T, E> {}

impl<'t, H: Handle, R: Rcu, A: NodeAlloc> Writer<'t, H, R, A> {
    pub(crate) fn new(tree: &'t RangeTree<H, R, A>, claim: Option<TryLockGuard<'t>>) -> Self {
        Self { tree, _claim: claim }
    }

    /// The tree. Not for callers: a writer of `write_mut` holds no claim, and a second one could be had by `try_write`.
    pub(crate) fn tree(&self) -> &'t RangeTree<H, R, A> {
        self.tree
    }

    #[inline]
    fn stock(&mut self) -> &mut Stock {
        // SAFETY: (1) this is the tree's only writer, and the stock is the writer's; (2) borrowed as long as `self`.
        self.tree.stock.with_mut(|stock| unsafe { &mut *stock })
    }

    #[inline]
    fn hands(&mut self) -> Hands<'_, H, R, A> {
        let tree = self.tree;
        let handles = core::marker::PhantomData;
        Hands { root: &tree.root, stock: self.stock(), rcu: &tree.rcu, alloc: &tree.alloc, handles }
    }

    #[inline]
    fn splice(&mut self, change: &Change<'_>) -> Result<Spliced, Refused> {
        // SAFETY: (1) this is the writer; (2) the verbs below check their changes.
        unsafe { self.hands().splice(change) }
    }

    fn displaced(&mut self, done: Spliced, window: Span) -> Displaced<'_, H, R> {
        let node = self.stock().young().top();
        Displaced {
            rcu: &self.tree.rcu,
            window,
            swapped: done.swapped,
            node,
            nodes: done.retired,
            at: 0,
            handles: core::marker::PhantomData,
        }
    }

    /// The range that covers `key`, and what it holds, without a read section.
    #[inline]
    pub fn get(&self, key: u64) -> Option<(Span, H::Ref<'_>)> {
        let (span, raw) = self.tree.entry_at(key)?;
        // SAFETY: (1) shown by this tree; (2) only this writer could unlink it, and is borrowed meanwhile.
        shows(raw.as_ptr()).then(|| (span, unsafe { by_ref::<H>(raw.as_ptr()) }))
    }

    /// The first range that ends at or after `key`, and what it holds, without a read section: the one that covers it, or the next.
    #[inline]
    pub fn find(&self, key: u64) -> Option<(Span, H::Ref<'_>)> {
        // SAFETY: (1) only this writer could unlink what is found, and is borrowed meanwhile.
        unsafe { self.tree.find_unguarded(key) }
    }

    /// The ranges that touch `within`, ascending (or, by `rev`, descending), without a read section.
    pub fn iter(&self, within: Span) -> Iter<'_, H> {
        Iter::new(&self.tree.root, within)
    }

    /// Puts `value` over `span`, whatever was there. A range that sticks out at one end is shortened; one that sticks out at both
    /// is divided, and its upper part holds a clone of its handle.
    ///
    /// # Errors
    ///
    /// Without memory `value` comes back and nothing was changed. After a [`reserve`](Self::reserve) for this store there
    /// is memory.
    #[inline]
    pub fn store(&mut self, span: Span, value: H) -> Result<Displaced<'_, H, R>, Rejected<H, NoMemory>>
    where
        H: Clone,
    {
        let raw = value.into_raw();
        let new = [Entry { span, raw: raw.as_ptr() }];
        match self.splice(&Change { window: span, new: &new, divide: Some(divide::<H>) }) {
            Ok(done) => Ok(self.displaced(done, span)),
            // SAFETY: (1, 2) taken apart above and nowhere else.
            Err(_) => Err(Rejected { why: NoMemory, given: unsafe { H::from_raw(raw) } }),
        }
    }

    /// Frees `span`: what lies in it goes; what sticks out stays, as for [`store`](Self::store).
    ///
    /// # Errors
    ///
    /// Without memory nothing was changed.
    #[inline]
    pub fn erase(&mut self, span: Span) -> Result<Displaced<'_, H, R>, NoMemory>
    where
        H: Clone,
    {
        self.fill(span, &[])
    }

    /// Reserves `span`: lookups see nothing there, the search for free space sees it taken. Undone by `erase` or a `store` over it.
    ///
    /// # Errors
    ///
    /// Without memory nothing was changed.
    pub fn store_reserved(&mut self, span: Span) -> Result<Displaced<'_, H, R>, NoMemory>
    where
        H: Clone,
    {
        self.fill(span, &[Entry { span, raw: RESERVED }])
    }

    #[inline]
    fn fill(&mut self, span: Span, new: &[Entry]) -> Result<Displaced<'_, H, R>, NoMemory>
    where
        H: Clone,
    {
        match self.splice(&Change { window: span, new, divide: Some(divide::<H>) }) {
            Ok(done) => Ok(self.displaced(done, span)),
            Err(_) => Err(NoMemory),
        }
    }

    /// Makes `entries` all that is in `window`, in one step: a split, a merge, a replacement, an erasure. `None` reserves.
    /// Unlike [`store`](Self::store) it needs no clone, because it cuts nothing.
    ///
    /// # Errors
    ///
    /// [`Refused`], with the entries, and nothing was changed.
    pub fn replace<const N: usize>(
        &mut self,
        window: Span,
        entries: Pieces<H, N>,
    ) -> Result<Displaced<'_, H, R>, Rejected<Pieces<H, N>, Refused>> {
        const { assert!(N <= MAX_NEW, "a change brings at most 16 ranges") };
        let misplaced =
            (0..N).find(|&i| !window.covers(entries[i].0) || (i > 0 && entries[i - 1].0.last() >= entries[i].0.first()));
        if let Some(i) = misplaced {
            return Err(Rejected { why: Refused::Misplaced(i), given: entries });
        }
        let new = entries.map(|(span, value)| {
            let raw = value.map_or(RESERVED, |value| value.into_raw().as_ptr());
            Entry { span, raw }
        });
        match self.splice(&Change { window, new: &new, divide: None }) {
            Ok(done) => Ok(self.displaced(done, window)),
            Err(why) => {
                let given = new.map(|entry| {
                    // SAFETY: (1, 2) taken apart above and nowhere else.
                    let value = shows(entry.raw).then(|| unsafe { H::from_raw(NonNull::new_unchecked(entry.raw)) });
                    (entry.span, value)
                });
                Err(Rejected { why, given })
            }
        }
    }

    /// Frees everything, in one step.
    pub fn clear(&mut self) -> Displaced<'_, H, R> {
        let tree = self.tree;
        let root = NodePtr::from_raw(node::own(&tree.root));
        let mut done = Spliced { retired: 0, swapped: null_mut() };
        if !root.is_null() {
            node::publish(&tree.root, null_mut());
            let before = self.stock().young().len();
            // SAFETY: (1) this is the writer; (2) unlinked by the store above.
            unsafe { self.hands().retire_under(root) };
            done.retired = self.stock().young().len() - before;
        }
        self.displaced(done, Span::ALL)
    }

    /// Makes sure that the next change of `window` which brings at most `entries` ranges finds memory (to erase, say 0: one
    /// range in place of another of the same span takes nothing, its erasure may). What it does not use stays
    /// for later changes; [`unreserve`](Self::unreserve) and [`trim`](Self::trim) give it back.
    ///
    /// # Errors
    ///
    /// Without memory nothing was changed.
    pub fn reserve(&mut self, window: Span, entries: usize) -> Result<(), NoMemory> {
        let need = self.bound(window, entries);
        let tree = self.tree;
        self.stock().reserve(&tree.rcu, &tree.alloc, need)
    }

    /// Makes sure that the next `changes` changes, wherever they are, find memory if each brings at most `entries` ranges: for what
    /// must not fail halfway and is more than one change.
    ///
    /// # Errors
    ///
    /// Without memory nothing was changed.
    pub fn reserve_changes(&mut self, changes: usize, entries: usize) -> Result<(), NoMemory> {
        let tree = self.tree;
        // SAFETY: (1) this is the writer.
        let need = unsafe { crate::splice::bound_of_all(&tree.root, changes, entries) };
        self.stock().reserve(&tree.rcu, &tree.alloc, need)
    }

    /// How many nodes a change of `window` that brings at most `entries` ranges can take: none where one range takes the place of
    /// another of the same span, one of either class where it stays within a leaf, a few per level otherwise.
    pub fn bound(&self, window: Span, entries: usize) -> Need {
        let tree = self.tree;
        // SAFETY: (1) this is the writer.
        unsafe { crate::splice::bound(&tree.root, window, entries) }
    }

    /// Gives back to the allocator what is reserved beyond a few nodes.
    pub fn unreserve(&mut self) {
        let tree = self.tree;
        self.stock().unreserve(&tree.alloc);
    }

    /// Gives back to the allocator all memory outside the tree that no reader may still be in. Never waits.
    pub fn trim(&mut self) {
        let tree = self.tree;
        self.stock().trim(&tree.rcu, &tree.alloc);
    }

    /// The lowest key of `within` at which `fit` is free.
    pub fn lowest_gap(&self, fit: Fit, within: Span) -> Option<u64> {
        // SAFETY: (1) this is the writer.
        unsafe { gap::lowest(NodePtr::from_raw(node::own(&self.tree.root)), fit, within) }
    }

    /// The highest key of `within` at which `fit` is free.
    pub fn highest_gap(&self, fit: Fit, within: Span) -> Option<u64> {
        // SAFETY: (1) this is the writer.
        unsafe { gap::highest(NodePtr::from_raw(node::own(&self.tree.root)), fit, within) }
    }

    pub(crate) fn stock_bytes(&mut self) -> (usize, usize) {
        self.stock().bytes()
    }
}

/// A second handle of a range that is divided in two.
fn divide<H: Handle + Clone>(raw: NonNull<()>) -> NonNull<()> {
    // SAFETY: (1) called by a change with the tree's own handle, which stays where it is: it is only looked at, to be cloned.
    let divided = ManuallyDrop::new(unsafe { H::from_raw(raw) });
    H::into_raw((*divided).clone())
}

/// What a change took out of the tree. Dropping it hands each handle to RCU, to be dropped after a grace period; leaking it leaks them.
#[must_use = "dropping it retires what was displaced"]
pub struct Displaced<'w, H: Handle, R: Rcu> {
    rcu: &'w R,
    window: Span,
    /// The handle that an in-place change took out, null if there was none.
    swapped: *mut (),
    /// The youngest of the `nodes` retired nodes that are left to look at, and the next entry of it.
    node: NodePtr,
    nodes: usize,
    at: usize,
    handles: core::marker::PhantomData<H>,
}

impl<H: Handle, R: Rcu> Displaced<'_, H, R> {
    /// The next displaced handle and the span it had, in no particular order.
    fn pop(&mut self) -> Option<(Span, NonNull<()>)> {
        if shows(self.swapped) {
            let swapped = core::mem::replace(&mut self.swapped, null_mut());
            return NonNull::new(swapped).map(|raw| (self.window, raw));
        }
        while self.nodes > 0 {
            if !self.node.is_inner() {
                // SAFETY: (1) of that kind; (2) retired nodes are not reused before the writer, borrowed by us, goes on.
                let leaf = unsafe { self.node.leaf() };
                self.at = self.at.max(leaf.index(self.window.first()));
                while self.at < leaf.len() && leaf.span(self.at).first() <= self.window.last() {
                    let entry = leaf.entry(self.at);
                    self.at += 1;
                    if shows(entry.raw) && self.window.covers(entry.span) {
                        return NonNull::new(entry.raw).map(|raw| (entry.span, raw));
                    }
                }
            }
            // SAFETY: (1) listed by the change that made us; (2) its writer is borrowed by us.
            self.node = unsafe { self.node.next() };
            self.nodes -= 1;
            self.at = 0;
        }
        None
    }

    /// Calls `each` with every displaced range and what it held, then retires them. Returns how many there were.
    pub fn inspect(mut self, mut each: impl FnMut(Span, H::Ref<'_>)) -> usize {
        let mut count = 0;
        while let Some((span, raw)) = self.pop() {
            // Where our drop finds it, should `each` unwind.
            self.swapped = raw.as_ptr();
            // SAFETY: (1) shown by the tree until just now; (2) we own it.
            each(span, unsafe { by_ref::<H>(raw.as_ptr()) });
            self.swapped = null_mut();
            // SAFETY: (1, 2) owned, and popped once.
            unsafe { H::from_raw(raw) }.retire(self.rcu);
            count += 1;
        }
        count
    }

    /// Gives each displaced handle to `to`, in no particular order: for those who retire them in a way of their own.
    ///
    /// # Safety
    ///
    /// (1) `to` and who it gives them to keep each handle, and what it owns, until a grace period that begins after this call is over, as far as
    /// readers may have found it.
    #[inline]
    pub unsafe fn hand_over(self, mut to: impl FnMut(H)) {
        // If `to` panics the rest is lost: what it would have waited for may be there still when a grace period is over.
        let mut rest = ManuallyDrop::new(self);
        while let Some((_, raw)) = rest.pop() {
            // SAFETY: (1, 2) owned, and popped once.
            to(unsafe { H::from_raw(raw) });
        }
    }

    /// Waits for a grace period and gives the handles themselves, with the spans they had.
    ///
    /// # Panics
    ///
    /// Inside a read section of the tree's domain.
    pub fn take(mut self) -> impl Iterator<Item = (Span, H)>
    where
        Self: Sized,
    {
        self.rcu.synchronize();
        core::iter::from_fn(move || {
            let (span, raw) = self.pop()?;
            // SAFETY: (1, 2) owned, popped once; no reader that could have found it is left.
            Some((span, unsafe { H::from_raw(raw) }))
        })
    }
}

impl<H: Handle, R: Rcu> Drop for Displaced<'_, H, R> {
    #[inline]
    fn drop(&mut self) {
        while H::OWNS
            && let Some((_, raw)) = self.pop()
        {
            // SAFETY: (1, 2) owned, and popped once.
            let handle = unsafe { H::from_raw(raw) };
            if spile_sync::seeded!("free-displaced-at-once") {
                drop(handle);
            } else {
                handle.retire(self.rcu);
            }
        }
    }
}
