//! A whole tree at once: from sorted ranges, or as the copy of another.
//!
//! **Guarantee.** One pass over the ranges, one write per node; without memory everything built so far is given back.
//!
//! **Mechanism.** Leaves are filled to nine tenths and listed; then the nodes of the list are put under parents, and the parents
//! listed, until one node is left.

use crate::buf::Buf;
use crate::handle::Handle;
use crate::node::{self, Child, Class, Entry, INNER, Kind, LEAF, NodePtr, shows};
use crate::span::Span;
use crate::stock::{NoMemory, NodeAlloc, Stock};
use crate::tree::{RangeTree, by_ref, drop_under};
use crate::writer::Writer;
use core::fmt;
use spile_rcu::Rcu;

/// Room for a few insertions per node before it must be divided.
const LEAF_FILL: usize = LEAF - LEAF / 10;
const INNER_FILL: usize = INNER - INNER / 10;

/// Why a tree was not built from sorted ranges. The ranges taken so far have been dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unbuilt {
    /// There was no memory for nodes.
    NoMemory,
    /// This range does not lie wholly above the one before it.
    Unsorted(Span),
}

impl fmt::Display for Unbuilt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unbuilt::NoMemory => f.write_str("no memory for the tree's nodes; nothing was built"),
            Unbuilt::Unsorted(span) => write!(f, "{span} does not lie above the range before it; nothing was built"),
        }
    }
}

impl core::error::Error for Unbuilt {}

/// Nodes of one level, in order.
struct Queue {
    head: NodePtr,
    tail: NodePtr,
}

impl Queue {
    const EMPTY: Self = Self { head: NodePtr::NULL, tail: NodePtr::NULL };

    /// # Safety
    ///
    /// `node` is new, and in no other list.
    unsafe fn push(&mut self, node: NodePtr) {
        if self.head.is_null() {
            self.head = node;
        } else {
            // SAFETY: (1) listed nodes are the builder's alone.
            unsafe { self.tail.set_next(node) };
        }
        self.tail = node;
    }

    fn pop(&mut self) -> Option<NodePtr> {
        let node = self.head;
        if node.is_null() {
            return None;
        }
        // SAFETY: (1) listed nodes are the builder's alone.
        self.head = unsafe { node.next() };
        Some(node)
    }
}

/// A tree that nobody else sees yet.
struct Builder<'b, H: Handle, R, A> {
    stock: &'b mut Stock,
    rcu: &'b R,
    alloc: &'b A,
    pending: Buf<Entry, LEAF>,
    nodes: Queue,
    handles: core::marker::PhantomData<H>,
}

impl<H: Handle, R: Rcu, A: NodeAlloc> Builder<'_, H, R, A> {
    fn push(&mut self, span: Span, value: H) -> Result<(), NoMemory> {
        self.pending.push(Entry { span, raw: value.into_raw().as_ptr() });
        if self.pending.len() == LEAF_FILL { self.close_leaf() } else { Ok(()) }
    }

    fn close_leaf(&mut self) -> Result<(), NoMemory> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let kind = Kind::for_entries(&self.pending);
        let block = self.block(kind.class())?;
        // SAFETY: (1, 2) a block of the kind's class, ours; (3) the kind is for these entries; and the leaf is new.
        unsafe { self.nodes.push(node::write_leaf(block, kind, &self.pending)) };
        self.pending.clear();
        Ok(())
    }

    fn block(&mut self, class: Class) -> Result<core::ptr::NonNull<u8>, NoMemory> {
        self.stock.reserve(self.rcu, self.alloc, class.one())?;
        Ok(self.stock.take(class))
    }

    /// Puts parents over the nodes until one is left: the root, or null.
    fn root(&mut self) -> Result<NodePtr, NoMemory> {
        self.close_leaf()?;
        while self.nodes.head != self.nodes.tail {
            let mut parents = Queue::EMPTY;
            let raised = self.raise(&mut parents);
            if raised.is_err() {
                discard::<H>(self.stock, &mut parents);
            }
            raised?;
            self.nodes = parents;
        }
        Ok(self.nodes.head)
    }

    fn raise(&mut self, parents: &mut Queue) -> Result<(), NoMemory> {
        let mut first = 0;
        while !self.nodes.head.is_null() {
            // The block first: without it no node has left the list.
            let block = self.block(Class::Large)?;
            let mut children = Buf::<Child, INNER>::new();
            while children.len() < INNER_FILL
                && let Some(node) = self.nodes.pop()
            {
                let last = if self.nodes.head.is_null() { u64::MAX } else { first_under(self.nodes.head) - 1 };
                children.push(Child { node, last, gap: longest_under(node, Span::of(first, last)) });
                first = last.wrapping_add(1);
            }
            // SAFETY: (1, 2) a large block, ours; and the node is new.
            unsafe { parents.push(node::write_inner(block, &children)) };
        }
        Ok(())
    }
}

/// Gives back what was not put into the tree: memory ran out, or the caller's source unwound.
impl<H: Handle, R, A> Drop for Builder<'_, H, R, A> {
    fn drop(&mut self) {
        for entry in self.pending.iter() {
            // SAFETY: (1, 2) pushed by us, and in no leaf.
            drop(unsafe { H::from_raw(core::ptr::NonNull::new_unchecked(entry.raw)) });
        }
        let mut nodes = core::mem::replace(&mut self.nodes, Queue::EMPTY);
        discard::<H>(self.stock, &mut nodes);
    }
}

/// Gives back nodes, and drops what they hold.
fn discard<H: Handle>(stock: &mut Stock, nodes: &mut Queue) {
    while let Some(node) = nodes.pop() {
        // SAFETY: (1, 2) nobody has seen the nodes.
        unsafe { drop_under::<H>(stock, node) };
    }
}

/// The first key of the first range under `node`, which is the builder's.
fn first_under(mut node: NodePtr) -> u64 {
    // SAFETY: (1) kinds are looked at; (2) the builder's alone.
    unsafe {
        while node.is_inner() {
            node = node.inner().child(0);
        }
        node.leaf().span(0).first()
    }
}

/// The longest free area under `node`, which is the builder's.
fn longest_under(node: NodePtr, part: Span) -> u64 {
    // SAFETY: (1) kinds are looked at; (2) the builder's alone.
    unsafe { if node.is_inner() { node.inner().max_gap() } else { node.leaf().longest_gap(part) } }
}

impl<H: Handle, R: Rcu, A: NodeAlloc> RangeTree<H, R, A> {
    /// A tree of ascending ranges, built in one pass.
    ///
    /// # Errors
    ///
    /// [`Unbuilt`], when memory is short or the ranges do not ascend.
    pub fn with_sorted(rcu: R, alloc: A, ranges: impl IntoIterator<Item = (Span, H)>) -> Result<Self, Unbuilt> {
        let mut tree = Self::with(rcu, alloc);
        tree.fill(|push| {
            let mut above: Option<Span> = None;
            for (span, value) in ranges {
                if above.is_some_and(|above| above.last() >= span.first()) {
                    return Err(Unbuilt::Unsorted(span));
                }
                above = Some(span);
                push(span, value).map_err(|NoMemory| Unbuilt::NoMemory)?;
            }
            Ok(())
        })?;
        Ok(tree)
    }

    /// Fills an empty tree with what `source` pushes.
    fn fill<E: From<NoMemory>>(
        &mut self,
        source: impl FnOnce(&mut dyn FnMut(Span, H) -> Result<(), NoMemory>) -> Result<(), E>,
    ) -> Result<(), E> {
        let Self { root, rcu, alloc, stock, .. } = self;
        // SAFETY: (1) the tree is borrowed exclusively.
        let stock = stock.with_mut(|stock| unsafe { &mut *stock });
        let pending = Buf::new();
        let mut builder = Builder { stock, rcu, alloc, pending, nodes: Queue::EMPTY, handles: core::marker::PhantomData };
        let filled = source(&mut |span, value| builder.push(span, value));
        match filled.and_then(|()| Ok(builder.root()?)) {
            Ok(top) => {
                builder.nodes = Queue::EMPTY;
                node::publish(root, top.raw());
                Ok(())
            }
            Err(why) => Err(why),
        }
    }
}

impl From<NoMemory> for Unbuilt {
    fn from(NoMemory: NoMemory) -> Self {
        Unbuilt::NoMemory
    }
}

#[cfg(all(feature = "std", not(loom)))]
impl<H: Handle> RangeTree<H, spile_rcu::Global> {
    /// [`with_sorted`](Self::with_sorted) in the process's RCU domain, with nodes from the heap.
    ///
    /// # Errors
    ///
    /// As for `with_sorted`.
    pub fn from_sorted(ranges: impl IntoIterator<Item = (Span, H)>) -> Result<Self, Unbuilt> {
        Self::with_sorted(spile_rcu::Global, crate::Heap, ranges)
    }
}

impl<H: Handle, R: Rcu, A: NodeAlloc> Writer<'_, H, R, A> {
    /// A new tree with those ranges for which `each` gives a handle: what fork wants. One pass; reserved ranges are left
    /// out, for whoever reserved them frees them in this tree only.
    ///
    /// # Errors
    ///
    /// Without memory the handles given so far are dropped.
    pub fn duplicate<S: Rcu, B: NodeAlloc>(
        &self,
        rcu: S,
        alloc: B,
        mut each: impl FnMut(Span, H::Ref<'_>) -> Option<H>,
    ) -> Result<RangeTree<H, S, B>, NoMemory> {
        let mut copy = RangeTree::with(rcu, alloc);
        let root = NodePtr::from_raw(node::own(&self.tree().root));
        if root.is_null() {
            return Ok(copy);
        }
        copy.fill(|push| {
            visit(root, &mut |entry| {
                // SAFETY: (1) shown by this tree; (2) whose writer we are, so nothing is unlinked meanwhile.
                match each(entry.span, unsafe { by_ref::<H>(entry.raw) }) {
                    Some(value) => push(entry.span, value),
                    None => Ok(()),
                }
            })
        })?;
        Ok(copy)
    }
}

/// Calls `each` with every entry under `node` that shows a handle, in order, until it fails. For the writer.
fn visit<E>(node: NodePtr, each: &mut impl FnMut(Entry) -> Result<(), E>) -> Result<(), E> {
    // SAFETY: (1) kinds are looked at; (2) in the tree, whose writer calls.
    unsafe {
        if node.is_inner() {
            let inner = node.inner();
            return (0..inner.len()).try_for_each(|i| visit(inner.child(i), each));
        }
        node.leaf().entries().filter(|entry| shows(entry.raw)).try_for_each(each)
    }
}
