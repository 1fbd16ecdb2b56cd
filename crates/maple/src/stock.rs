//! Where a writer's nodes come from and where they go.
//!
//! **Guarantee.** A retired node is written anew, or its memory given back, only after the grace period that began after it left
//! the tree. Taking a node that was reserved cannot fail.
//!
//! **Mechanism.** The stock belongs to the tree and is touched by its writer alone. Nodes go round without leaving it:
//!
//! ```text
//! memory ──reserve──→ free ──take──→ (in the tree) ──retire──→ young ──a batch is full──→ waiting + cookie ──period over──→ free
//! ```
//!
//! A grace period is asked for when a batch is worth its price (`Rcu::batch`), never waited for; meanwhile new memory is
//! used. What lies free beyond [`KEPT`] goes back to the allocator when a batch comes home.

use crate::node::{Class, NodePtr};
use core::alloc::Layout;
use core::fmt;
use core::ptr::NonNull;
use spile_rcu::{Cookie, Rcu};

/// Free nodes of one class that a tree keeps for its next writes.
const KEPT: usize = 64;

/// There was no memory. Nothing has been changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory;

impl fmt::Display for NoMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no memory for the tree's nodes; nothing was changed")
    }
}

impl core::error::Error for NoMemory {}

/// Where a tree gets its memory. Called by the writer alone, never by a reader.
///
/// # Safety
///
/// An implementor owes what `GlobalAlloc` owes: a block fits its layout and is nobody else's until it is given back.
pub unsafe trait NodeAlloc {
    /// A block, or `None`; never unwinds. Whether it may sleep is the implementor's and its callers' agreement.
    fn allocate(&self, layout: Layout) -> Option<NonNull<u8>>;

    /// Takes a block back.
    ///
    /// # Safety
    ///
    /// (1) `block` came from `allocate` of this allocator with this `layout`; (2) nobody uses it.
    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout);
}

/// The program's global allocator.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heap;

// SAFETY: (1) the global allocator keeps `GlobalAlloc`'s promises.
unsafe impl NodeAlloc for Heap {
    fn allocate(&self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: (1) nodes are not of size zero.
        NonNull::new(unsafe { alloc::alloc::alloc(layout) })
    }

    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: (1, 2) the caller's.
        unsafe { alloc::alloc::dealloc(block.as_ptr(), layout) };
    }
}

// SAFETY: (1) the referenced allocator keeps them.
unsafe impl<A: NodeAlloc + ?Sized> NodeAlloc for &A {
    fn allocate(&self, layout: Layout) -> Option<NonNull<u8>> {
        (**self).allocate(layout)
    }

    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: (1, 2) the caller's.
        unsafe { (**self).deallocate(block, layout) };
    }
}

/// A list of nodes that are out of the tree.
#[derive(Debug)]
pub(crate) struct List {
    top: NodePtr,
    len: usize,
}

impl List {
    pub(crate) const EMPTY: Self = Self { top: NodePtr::NULL, len: 0 };

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn top(&self) -> NodePtr {
        self.top
    }

    /// # Safety
    ///
    /// (1) `node` is initialised, out of every list, and readers aside the writer's alone; (2) the caller is that writer.
    pub(crate) unsafe fn push(&mut self, node: NodePtr) {
        // SAFETY: (1, 2) the caller's.
        unsafe { node.set_next(self.top) };
        self.top = node;
        self.len += 1;
    }

    /// # Safety
    ///
    /// The caller is the writer.
    pub(crate) unsafe fn pop(&mut self) -> Option<NodePtr> {
        let node = self.top;
        if node.is_null() {
            return None;
        }
        // SAFETY: (1) listed, so initialised and out of the tree; (2) the caller's.
        self.top = unsafe { node.next() };
        self.len -= 1;
        Some(node)
    }
}

/// A link written into free memory.
struct Free(Option<NonNull<Free>>);

/// Free memory of one class.
#[derive(Debug)]
struct Shelf {
    class: Class,
    top: Option<NonNull<Free>>,
    len: usize,
}

impl Shelf {
    const fn new(class: Class) -> Self {
        Self { class, top: None, len: 0 }
    }

    fn put(&mut self, block: NonNull<u8>) {
        let free = block.cast::<Free>();
        // SAFETY: (1) a block of either class has room for a link and is aligned for it; (2) it is this stock's alone.
        unsafe { free.write(Free(self.top)) };
        self.top = Some(free);
        self.len += 1;
    }

    fn take(&mut self) -> Option<NonNull<u8>> {
        let free = self.top?;
        // SAFETY: (1) written by `put`.
        self.top = unsafe { free.read() }.0;
        self.len -= 1;
        Some(free.cast())
    }

    fn fill(&mut self, alloc: &impl NodeAlloc, upto: usize) -> Result<(), NoMemory> {
        while self.len < upto {
            self.put(alloc.allocate(self.class.layout()).ok_or(NoMemory)?);
        }
        Ok(())
    }

    fn shrink(&mut self, alloc: &impl NodeAlloc, downto: usize) {
        while self.len > downto {
            let Some(block) = self.take() else { return };
            // SAFETY: (1) every block of the stock came from this allocator with this class's layout; (2) it is free.
            unsafe { alloc.deallocate(block, self.class.layout()) };
        }
    }
}

/// How many nodes of each class a change may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// 512-byte nodes.
    pub small: usize,
    /// 768-byte nodes.
    pub large: usize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Stock {
    small: Shelf,
    large: Shelf,
    young: List,
    waiting: List,
    cookie: Option<Cookie>,
    #[cfg(any(loom, feature = "sched"))]
    graves: List,
    #[cfg(any(loom, feature = "sched"))]
    closing: bool,
}

impl Stock {
    pub(crate) const fn new() -> Self {
        Self {
            #[cfg(any(loom, feature = "sched"))]
            graves: List::EMPTY,
            #[cfg(any(loom, feature = "sched"))]
            closing: false,
            small: Shelf::new(Class::Small),
            large: Shelf::new(Class::Large),
            young: List::EMPTY,
            waiting: List::EMPTY,
            cookie: None,
        }
    }

    fn shelf(&mut self, class: Class) -> &mut Shelf {
        match class {
            Class::Small => &mut self.small,
            Class::Large => &mut self.large,
        }
    }

    /// Makes sure that `need` can be taken.
    pub(crate) fn reserve<R: Rcu, A: NodeAlloc>(&mut self, rcu: &R, alloc: &A, need: Need) -> Result<(), NoMemory> {
        if self.small.len >= need.small && self.large.len >= need.large {
            return Ok(());
        }
        self.turn(rcu);
        self.small.fill(alloc, need.small)?;
        self.large.fill(alloc, need.large)
    }

    /// A block that was reserved.
    #[inline]
    pub(crate) fn take(&mut self, class: Class) -> NonNull<u8> {
        match self.shelf(class).take() {
            Some(block) => block,
            None => unreachable!("a change took more nodes than its bound"),
        }
    }

    /// A block of a change that was given up before anyone saw it.
    ///
    /// # Safety
    ///
    /// (1) `node` is out of the tree and no reader has ever been able to reach it; (2) the caller is the writer.
    pub(crate) unsafe fn put_back(&mut self, node: NodePtr) {
        #[cfg(any(loom, feature = "sched"))]
        if !self.closing {
            // Under a checker the memory is not reused: a reader that still comes is told, not harmed.
            node.poison();
            // SAFETY: (1, 2) the caller's.
            unsafe { self.graves.push(node) };
            return;
        }
        let class = node.kind().class();
        // SAFETY: (1) the caller's.
        let block = unsafe { node.unmake() };
        self.shelf(class).put(block);
    }

    /// Takes a node that was unlinked; readers may still be in it.
    ///
    /// # Safety
    ///
    /// (1) `node` is no longer reachable from the root; (2) the caller is the writer.
    #[inline]
    pub(crate) unsafe fn retire(&mut self, node: NodePtr) {
        // SAFETY: (1, 2) the caller's.
        unsafe { self.young.push(node) };
    }

    /// The nodes retired since the last time a batch was closed, newest first.
    pub(crate) fn young(&self) -> &List {
        &self.young
    }

    /// Brings home the batch whose period is over; closes the next one when it is worth a period.
    #[cold]
    #[inline(never)]
    fn turn<R: Rcu>(&mut self, rcu: &R) {
        if self.waiting.len + self.young.len < rcu.batch() {
            return;
        }
        if self.cookie.is_none() {
            self.close(rcu);
        } else if spile_sync::seeded!("stale-cookie") {
            // SAFETY: none: this is the bug that a model must find.
            unsafe {
                while let Some(node) = self.young.pop() {
                    self.waiting.push(node);
                }
            }
        }
        rcu.drive();
        self.come_home(rcu);
    }

    fn close<R: Rcu>(&mut self, rcu: &R) {
        self.waiting = core::mem::replace(&mut self.young, List::EMPTY);
        self.cookie = Some(rcu.cookie());
    }

    fn come_home<R: Rcu>(&mut self, rcu: &R) {
        if !self.cookie.is_some_and(|cookie| rcu.poll(cookie) || spile_sync::seeded!("reuse-at-once")) {
            return;
        }
        self.cookie = None;
        // SAFETY: (1) the nodes' period is over, so no reader has them; (2) the stock is the writer's.
        unsafe {
            while let Some(node) = self.waiting.pop() {
                self.put_back(node);
            }
        }
    }

    /// Gives back all memory whose period is over, without waiting.
    pub(crate) fn trim<R: Rcu, A: NodeAlloc>(&mut self, rcu: &R, alloc: &A) {
        if self.cookie.is_none() && self.young.len > 0 {
            self.close(rcu);
        }
        rcu.drive();
        self.come_home(rcu);
        self.shrink_to(alloc, 0);
    }

    /// Gives unused reservations back, down to what the next writes will want.
    pub(crate) fn unreserve<A: NodeAlloc>(&mut self, alloc: &A) {
        self.shrink_to(alloc, KEPT);
    }

    fn shrink_to<A: NodeAlloc>(&mut self, alloc: &A, kept: usize) {
        self.small.shrink(alloc, kept);
        self.large.shrink(alloc, kept);
    }

    /// Bytes held outside the tree: free, and waiting for readers.
    pub(crate) fn bytes(&self) -> (usize, usize) {
        let free = self.small.len * Class::Small.layout().size() + self.large.len * Class::Large.layout().size();
        let bytes_of = |list: &List| {
            let mut bytes = 0;
            let mut node = list.top;
            while !node.is_null() {
                bytes += node.kind().class().layout().size();
                // SAFETY: (1) listed; (2) the stock is the writer's.
                node = unsafe { node.next() };
            }
            bytes
        };
        (free, bytes_of(&self.young) + bytes_of(&self.waiting))
    }

    /// Gives everything back at once.
    ///
    /// # Safety
    ///
    /// No reader of the tree is left.
    pub(crate) unsafe fn close_down<A: NodeAlloc>(&mut self, alloc: &A) {
        let lists = [core::mem::replace(&mut self.young, List::EMPTY), core::mem::replace(&mut self.waiting, List::EMPTY)];
        #[cfg(any(loom, feature = "sched"))]
        let lists = {
            self.closing = true;
            let [young, waiting] = lists;
            [young, waiting, core::mem::replace(&mut self.graves, List::EMPTY)]
        };
        for mut nodes in lists {
            // SAFETY: (1) listed nodes are out of the tree, and no reader is left; (2) the caller is the last user.
            while let Some(node) = unsafe { nodes.pop() } {
                // SAFETY: as above.
                unsafe { self.put_back(node) };
            }
        }
        self.shrink_to(alloc, 0);
    }
}
