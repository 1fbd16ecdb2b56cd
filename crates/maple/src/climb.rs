//! The general way to make a change: new leaves, and as many of the nodes above them as need be.
//!
//! **Guarantee.** As [`splice`](crate::splice): one publication, memory first.
//!
//! **Mechanism.** A rebuild climbs. At each level the children from the window's left way to its right way give way to the new ones:
//!
//! ```text
//!  parents        … ├──── left parent ────┤ … ├──── right parent ────┤ …
//!  children         kept  kept │ replaced  …   replaced │ kept  kept        kept + new + kept → one, two or three parents
//!                              └── window's content ────┘
//! ```
//!
//! until one child is replaced by one child with the same part of the key space: that slot is the point of publication. Content
//! that became small takes in its neighbour under the same parent.
//!
//! Every leaf but the first begins with a range. Where a window takes that range away, what is before the next one goes to the
//! leaf before, so a key of an ancestor changes and the climb goes on to that ancestor.

use crate::buf::Buf;
use crate::gap;
use crate::handle::Handle;
use crate::node::{self, Child, Entry, INNER, Inner, Kind, LEAF, Leaf, NodePtr};
use crate::path::{Path, Step};
use crate::span::Span;
use crate::splice::{Cut, FEW, Hands, MAX_NEW, Spliced, with_roots};
use crate::stock::{Need, NoMemory, NodeAlloc, Stock};
use crate::writer::Refused;
use core::ptr::null_mut;
use spile_rcu::Rcu;
use spile_sync::atomic::AtomicPtr;

/// Two leaves, what comes between them, and a neighbour.
pub(crate) type Entries = Buf<Entry, { 3 * LEAF + MAX_NEW + 2 }>;
/// Two inner nodes, what comes between them, and a neighbour.
type Children = Buf<Child, { 3 * INNER + MAX_NEW + 2 }>;

/// A level's content, whichever kind, cut into nodes of nearly equal size.
fn parts<T>(content: &[T], most: usize) -> impl Iterator<Item = &[T]> {
    let count = content.len().div_ceil(most).max(1);
    let mut rest = content;
    (0..count).map(move |i| {
        let (part, tail) = rest.split_at(rest.len() / (count - i));
        rest = tail;
        part
    })
}

/// As `parts`, but a leaf that overflows at an end of the tree leaves most behind: the next range probably comes there too.
fn leaf_parts(entries: &[Entry], grows_up: bool, grows_down: bool) -> Buf<&[Entry], 8> {
    let mut cut = Buf::new();
    let few = entries.len().saturating_sub(LEAF - LEAF / 15);
    if (grows_up || grows_down) && entries.len() > LEAF && few < FEW {
        let (low, high) = entries.split_at(if grows_up { entries.len() - few } else { few });
        cut.extend([low, high]);
    } else if !entries.is_empty() {
        cut.extend(parts(entries, LEAF));
    }
    cut
}

/// Whether the two ways are one at this level.
fn is_one(l: &Step<'_>, r: &Step<'_>) -> bool {
    core::ptr::eq(l.inner, r.inner) && l.at == r.at
}

/// The node before `l`'s child or, if that is the first, the one after `r`'s; and whether it is the one before.
fn neighbour(l: &Step<'_>, r: &Step<'_>) -> Option<(NodePtr, bool)> {
    if l.at > 0 {
        Some((l.inner.child(l.at - 1), true))
    } else if r.at + 1 < r.inner.len() {
        Some((r.inner.child(r.at + 1), false))
    } else {
        None
    }
}

/// The children of `inner`, which ends at `last`. For the writer.
fn children_of(inner: &Inner, last: u64) -> impl ExactSizeIterator<Item = Child> {
    let step = Step { inner, at: 0, last };
    (0..inner.len()).map(move |i| child_of(&step, i))
}

/// Child `i` at `step`. For the writer.
fn child_of(step: &Step<'_>, i: usize) -> Child {
    // SAFETY: (1) this module's callers are the writer.
    Child { node: step.inner.child(i), last: step.last_of(i), gap: unsafe { step.inner.gap(i) } }
}

impl<'t, H: Handle, R: Rcu, A: NodeAlloc> Hands<'t, H, R, A> {
    /// The general way: see the module.
    #[cold]
    #[inline(never)]
    pub(crate) fn rebuild(&mut self, left: &Path<'t>, right: &Path<'t>, cut: &Cut) -> Result<Spliced, Refused> {
        let mut climb = Climb::new(left.is_leftmost(), right.last);
        gather(&mut climb.entries, left.leaf(), right.leaf(), cut);
        let absorbed = climb.absorb_leaf(left, right);
        climb.note_beginning(left.first);
        self.reserve_for(&climb, Some((left, right))).map_err(|NoMemory| cut.give_up::<H>())?;
        // Nothing fails from here on.
        let before = self.stock.young().len();
        // SAFETY: (1) the writer's hands; (2) retired nodes are unlinked by the publication below, and reused only
        // after a cookie that a later change takes.
        unsafe {
            self.stock.retire(left.leaf);
            if right.leaf != left.leaf {
                self.stock.retire(right.leaf);
            }
            absorbed.into_iter().for_each(|leaf| self.stock.retire(leaf));
        }
        climb.build_leaves(self.stock, left.is_rightmost());
        self.climb(&mut climb, left, right);
        Ok(Spliced { retired: self.stock.young().len().saturating_sub(before), swapped: null_mut() })
    }

    /// From the parents of the new leaves up to the point of publication.
    fn climb(&mut self, climb: &mut Climb, left: &Path<'t>, right: &Path<'t>) {
        for level in (0..left.height()).rev() {
            let (l, r) = (left.step(level), right.step(level));
            if let Some(child) = climb.stands_for(&l, &r) {
                node::publish(l.inner.slot(l.at), child.node.raw());
                // SAFETY: (1) the writer's hands; the nodes from here up are in the tree.
                unsafe { left.set_gap(level + 1, child.gap) };
                return;
            }
            // SAFETY: (1) the writer's hands; what is retired is unlinked by the publication further up.
            unsafe { self.retire_between(&l, &r) };
            climb.join_kept(&l, &r);
            let above = level.checked_sub(1).map(|up| (left.step(up), right.step(up)));
            let absorbed = above.and_then(|(pl, pr)| climb.absorb_inner(&pl, &pr));
            // SAFETY: as above.
            unsafe {
                self.stock.retire(node_of(self.root, left, level));
                if !core::ptr::eq(l.inner, r.inner) {
                    self.stock.retire(node_of(self.root, right, level));
                }
                absorbed.into_iter().for_each(|inner| self.stock.retire(inner));
            }
            if level > 0 || climb.children.len() > 1 {
                climb.build_inner(self.stock);
            } else {
                climb.keep_children();
            }
        }
        self.crown(climb);
    }

    /// Puts a root over what is left, and publishes it.
    pub(crate) fn crown(&mut self, climb: &mut Climb) {
        while climb.items.len() > 1 {
            climb.children.clear();
            climb.children.extend(climb.items.iter().copied());
            climb.build_inner(self.stock);
        }
        let root = climb.items.first().map_or(NodePtr::NULL, |child| child.node);
        node::publish(self.root, root.raw());
        if spile_sync::seeded!("root-before-children") && root.is_inner() {
            // SAFETY: none: this is the bug that a model must find.
            unsafe { root.inner().child(0).write_late() };
        }
    }

    /// Retires whatever lies under the children strictly between the two ways at one level.
    ///
    /// # Safety
    ///
    /// The caller is the writer, about to unlink them.
    unsafe fn retire_between(&mut self, l: &Step<'t>, r: &Step<'t>) {
        // SAFETY: (1) the caller's.
        unsafe {
            if core::ptr::eq(l.inner, r.inner) {
                (l.at + 1..r.at).for_each(|i| self.retire_under(l.inner.child(i)));
            } else {
                (l.at + 1..l.inner.len()).for_each(|i| self.retire_under(l.inner.child(i)));
                (0..r.at).for_each(|i| self.retire_under(r.inner.child(i)));
            }
        }
    }

    /// # Safety
    ///
    /// As for [`retire_between`](Self::retire_between).
    pub(crate) unsafe fn retire_under(&mut self, node: NodePtr) {
        // SAFETY: (1) the caller's; (2) kinds are looked at.
        unsafe {
            if node.is_inner() {
                let inner = node.inner();
                (0..inner.len()).for_each(|i| self.retire_under(inner.child(i)));
            }
            self.stock.retire(node);
        }
    }

    /// Reserves what a rebuild may take at most.
    pub(crate) fn reserve_for(&mut self, climb: &Climb, ways: Option<(&Path<'t>, &Path<'t>)>) -> Result<(), NoMemory> {
        let mut need = climb.leaves_needed();
        let mut count = need.small + need.large;
        if let Some((left, right)) = ways {
            let mut same_part = climb.stands_alone();
            for level in (0..left.height()).rev() {
                let (l, r) = (left.step(level), right.step(level));
                if same_part && count == 1 && is_one(&l, &r) {
                    return self.stock.reserve(self.rcu, self.alloc, need);
                }
                // Kept on the left and on the right, and new. When those that are sure to come (not one more that was taken
                // in below) are few, a neighbour may be taken in, and two nodes come of it.
                let kept = l.at + (r.inner.len() - 1 - r.at);
                let least = if kept > FEW { 1 } else { 2 };
                count = (kept + count).div_ceil(INNER).max(least);
                need.large += count;
                // The node that must be told of a moved beginning stands in this one, or further up.
                same_part = same_part || l.at > 0;
            }
        }
        self.stock.reserve(self.rcu, self.alloc, with_roots(need, count))
    }
}

/// The node of step `level` of `path`, with its kind.
fn node_of(root: &AtomicPtr<()>, path: &Path<'_>, level: usize) -> NodePtr {
    let slot = match level.checked_sub(1) {
        Some(up) => path.step(up).inner.slot(path.step(up).at),
        None => root,
    };
    NodePtr::from_raw(node::own(slot))
}

/// What stays of the leaves a change cuts, with what it brings; erased entries go.
pub(crate) fn gather(entries: &mut Entries, left: Leaf<'_>, right: Leaf<'_>, cut: &Cut) {
    entries.extend((0..cut.from).filter_map(|i| left.live(i)));
    entries.extend(cut.middle.iter().copied());
    entries.extend((cut.upto..right.len()).filter_map(|i| right.live(i)));
}

/// What a rebuild carries from level to level.
pub(crate) struct Climb {
    pub(crate) entries: Entries,
    children: Children,
    /// The new nodes of the level below.
    items: Buf<Child, { MAX_NEW + 8 }>,
    /// The last key of the part of the key space that the content stands for.
    last: u64,
    /// Whether that part begins at key 0.
    leftmost: bool,
    /// The node before the content now reaches to this key, and has not been told.
    reach: Option<u64>,
    /// The beginning of the key space was left to the node after the content, and it has not been told.
    beginning: bool,
    /// Whether a neighbour before the content, or after it, has been taken in at this level.
    took_before: bool,
    took_after: bool,
}

impl Climb {
    /// To be made where it lies: it is too long to be moved about.
    #[inline(always)]
    pub(crate) fn new(leftmost: bool, last: u64) -> Self {
        Self {
            entries: Entries::new(),
            children: Children::new(),
            items: Buf::new(),
            last,
            leftmost,
            reach: None,
            beginning: false,
            took_before: false,
            took_after: false,
        }
    }

    /// Lets leaf content that became small take in a neighbour under the same parent; which.
    fn absorb_leaf(&mut self, left: &Path<'_>, right: &Path<'_>) -> Option<NodePtr> {
        let up = left.height().checked_sub(1)?;
        if self.entries.len() >= FEW {
            return None;
        }
        let (l, r) = (left.step(up), right.step(up));
        let (sibling, before) = neighbour(&l, &r)?;
        // SAFETY: (1) leaves are where the ways end; (2) in the tree, whose writer we are.
        let leaf = unsafe { sibling.leaf() };
        if before {
            let mut joined = Buf::<Entry, LEAF>::new();
            joined.extend(leaf.entries());
            self.entries.prepend(joined.iter().copied());
            self.leftmost = left.first_before() == 0;
        } else {
            self.entries.extend(leaf.entries());
            self.last = r.last_of(r.at + 1);
        }
        self.took(before);
        Some(sibling)
    }

    /// Lets inner content that became small take in a neighbour under the same parent; which. `l` and `r` are the parent's steps.
    fn absorb_inner(&mut self, l: &Step<'_>, r: &Step<'_>) -> Option<NodePtr> {
        if self.children.len() >= FEW {
            return None;
        }
        let (sibling, before) = neighbour(l, r)?;
        // SAFETY: (1) neighbours of inner nodes are inner; (2) in the tree, whose writer we are.
        let inner = unsafe { sibling.inner() };
        if before {
            let count = inner.len();
            self.children.prepend(children_of(inner, l.last_of(l.at - 1)));
            self.tell_before(count);
        } else {
            self.last = r.last_of(r.at + 1);
            self.children.extend(children_of(inner, self.last));
            self.tell_beginning();
        }
        self.took(before);
        Some(sibling)
    }

    fn took(&mut self, before: bool) {
        self.took_before = before;
        self.took_after = !before;
    }

    /// Compares where the content begins with where its part, from `first` on, did.
    fn note_beginning(&mut self, first: u64) {
        match self.entries.first() {
            _ if self.took_before => {}
            Some(entry) if self.leftmost || entry.span.first() == first => {}
            Some(entry) => self.reach = Some(entry.span.first() - 1),
            None if self.leftmost => self.beginning = true,
            None => self.reach = Some(self.last),
        }
    }

    /// Whether nodes beside the content need not be told anything.
    fn stands_alone(&self) -> bool {
        self.reach.is_none() && !self.beginning && !self.took_before && !self.took_after
    }

    /// The new child, if it alone stands for what the one child of both ways stood for.
    fn stands_for(&self, l: &Step<'_>, r: &Step<'_>) -> Option<Child> {
        match *self.items {
            [child] if is_one(l, r) && self.stands_alone() => Some(child),
            _ => None,
        }
    }

    /// How many leaves the entries will take, by class.
    fn leaves_needed(&self) -> Need {
        if (1..=LEAF).contains(&self.entries.len()) {
            return Kind::for_entries(&self.entries).class().one();
        }
        // Which way the tree grows is not known here: all ways of cutting are counted.
        let mut most = Need::default();
        for (up, down) in [(false, false), (true, false), (false, true)] {
            let mut need = Need::default();
            for part in leaf_parts(&self.entries, up, down).iter() {
                match Kind::for_entries(part).class() {
                    node::Class::Small => need.small += 1,
                    node::Class::Large => need.large += 1,
                }
            }
            most.small = most.small.max(need.small);
            most.large = most.large.max(need.large);
        }
        most
    }

    /// Writes the leaves.
    pub(crate) fn build_leaves(&mut self, stock: &mut Stock, rightmost: bool) {
        let cut = leaf_parts(&self.entries, rightmost, self.leftmost);
        for (i, part) in cut.iter().enumerate() {
            let first = if i == 0 && self.leftmost { 0 } else { part[0].span.first() };
            let last = cut.get(i + 1).map_or(self.last, |next| next[0].span.first() - 1);
            let kind = Kind::for_entries(part);
            // SAFETY: (1, 2) a reserved block of the kind's class; (3) the kind is for these entries.
            let node = unsafe { node::write_leaf(stock.take(kind.class()), kind, part) };
            self.items.push(Child { node, last, gap: gap::longest_among(part, Span::of(first, last)) });
        }
    }

    /// Puts the new nodes between what their parents keep.
    fn join_kept(&mut self, l: &Step<'_>, r: &Step<'_>) {
        let from = l.at - self.took_before as usize;
        let upto = r.at + self.took_after as usize;
        self.children.clear();
        self.children.extend((0..from).map(|i| child_of(l, i)));
        self.tell_before(from);
        self.children.extend(self.items.iter().copied());
        self.children.extend((upto + 1..r.inner.len()).map(|i| child_of(r, i)));
        self.tell_beginning();
        self.last = r.last;
        if self.children.is_empty() && self.reach.is_some() {
            self.reach = Some(self.last);
        }
        self.took_before = false;
        self.took_after = false;
    }

    /// Tells the node before the content, which is child `at - 1` if there is one, how far it reaches now.
    fn tell_before(&mut self, at: usize) {
        if let Some(before) = self.children.as_mut()[..at].last_mut()
            && let Some(reach) = self.reach.take()
            && !spile_sync::seeded!("skip-the-reach")
        {
            before.last = reach;
            // SAFETY: (1) this module's callers are the writer.
            before.gap = unsafe { gap::extend_end(before.node, before.gap, reach) };
        }
    }

    /// Tells the first node that the tree begins with it.
    fn tell_beginning(&mut self) {
        if self.beginning
            && let Some(first) = self.children.as_mut().first_mut()
        {
            // SAFETY: (1) this module's callers are the writer.
            first.gap = unsafe { gap::extend_beginning(first.node, first.gap) };
            self.beginning = false;
        }
    }

    /// Writes the children into inner nodes.
    fn build_inner(&mut self, stock: &mut Stock) {
        self.items.clear();
        if self.children.is_empty() {
            return;
        }
        for part in parts(&self.children, INNER) {
            // SAFETY: (1, 2) a reserved large block.
            let node = unsafe { node::write_inner(stock.take(node::Class::Large), part) };
            let gap = part.iter().fold(0, |gap, child| gap.max(child.gap));
            self.items.push(Child { node, last: part[part.len() - 1].last, gap });
        }
    }

    /// A root of one child is that child.
    fn keep_children(&mut self) {
        self.items.clear();
        self.items.extend(self.children.iter().copied());
    }
}
