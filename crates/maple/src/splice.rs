//! How a change is made: what stood in a window is replaced by new entries, and one store shows it.
//!
//! **Guarantee.** Readers see the tree before or after a change, however many nodes it touches; memory is reserved before
//! anything is written; a change fails whole or succeeds whole.
//!
//! **Mechanism.** Three ways, the cheapest that fits:
//!
//! | way | when | nodes | what is stored |
//! |---|---|---|---|
//! | in place | an entry with exactly the window's span (erased or not) is there, and its leaf need not change shape | 0 | the entry's slot |
//! | one leaf | the window lies in one leaf, which stays between its bounds and begins where it began | 1 | the child slot above the leaf |
//! | rebuild | everything else: split, merge, several leaves, root grown or shrunk | some per level | the lowest slot under which everything changed lies, or the root ([`climb`](crate::climb)) |
//!
//! Every leaf but the first begins with a range, so that each free area lies in one leaf ([`gap`](crate::gap) relies on it).

use crate::buf::Buf;
use crate::climb::{self, Climb};
use crate::handle::Handle;
use crate::node::{self, Entry, INNER, Kind, LEAF, Leaf, NodePtr, RESERVED, shows};
use crate::path::Path;
use crate::span::Span;
use crate::stock::{Need, NoMemory, NodeAlloc, Stock};
use crate::writer::Refused;
use core::marker::PhantomData;
use core::ptr::{NonNull, null_mut};
use spile_rcu::Rcu;
use spile_sync::atomic::AtomicPtr;

/// The most entries one change may bring.
pub const MAX_NEW: usize = 16;

/// Content below this looks for a neighbour to join.
pub(crate) const FEW: usize = if LEAF < 8 { 2 } else { 8 };

/// What comes in the place of a window: its new entries between the remainders of what sticks out.
pub(crate) type Middle = Buf<Entry, { MAX_NEW + 2 }>;

/// What a change did.
pub(crate) struct Spliced {
    /// How many of the youngest retired nodes it unlinked.
    pub(crate) retired: usize,
    /// What it took out of a slot in place.
    pub(crate) swapped: *mut (),
}

impl Spliced {
    pub(crate) const NOTHING: Self = Self { retired: 0, swapped: null_mut() };
}

/// A change to make.
pub(crate) struct Change<'c> {
    /// Whatever lies in it goes; what sticks out of it stays.
    pub(crate) window: Span,
    /// Ascending, apart, within the window.
    pub(crate) new: &'c [Entry],
    /// Makes a second handle of one that is divided in two; without it nothing that shows a handle may be cut at all.
    pub(crate) divide: Option<fn(NonNull<()>) -> NonNull<()>>,
}

/// The writer's hands: the root, the stock, and the domain to wait for.
pub(crate) struct Hands<'t, H, R, A> {
    pub(crate) root: &'t AtomicPtr<()>,
    pub(crate) stock: &'t mut Stock,
    pub(crate) rcu: &'t R,
    pub(crate) alloc: &'t A,
    pub(crate) handles: PhantomData<H>,
}

/// Where a change cuts the leaves it touches.
pub(crate) struct Cut {
    /// The entries of the left leaf that stay: those below this index.
    pub(crate) from: usize,
    /// The entries of the right leaf that stay: those from this index on.
    pub(crate) upto: usize,
    /// What comes between them.
    pub(crate) middle: Middle,
    /// The second handle that was made for a divided range, or null.
    spare: *mut (),
}

impl Cut {
    /// To be made where it lies: it is too long to be moved about.
    #[inline(always)]
    fn new(from: usize) -> Self {
        Self { from, upto: from, middle: Middle::new(), spare: null_mut() }
    }

    /// Finds out what `change` cuts out of the leaves at its ends, between whose entries `from` and `upto` it lies: the first
    /// that end at or after its window's ends.
    #[inline]
    fn find(&mut self, left: Leaf<'_>, right: Leaf<'_>, change: &Change<'_>) -> Result<(), Refused> {
        let cut = self;
        let window = change.window;
        let mut divided = None;
        if let Some(entry) = left.live(cut.from).filter(|e| e.span.first() < window.first()) {
            change.may_cut(&entry)?;
            cut.middle.push(Entry { span: Span::of(entry.span.first(), window.first() - 1), raw: entry.raw });
            divided = (entry.span.last() > window.last()).then_some(entry.raw);
        }
        cut.middle.extend(change.new.iter().copied());
        if cut.upto < right.len() && right.span(cut.upto).first() <= window.last() {
            if let Some(entry) = right.live(cut.upto).filter(|e| e.span.last() > window.last()) {
                change.may_cut(&entry)?;
                let mut raw = entry.raw;
                if let (Some(divided), Some(divide)) = (divided.filter(|&raw| shows(raw)).and_then(NonNull::new), change.divide) {
                    raw = divide(divided).as_ptr();
                    cut.spare = raw;
                }
                cut.middle.push(Entry { span: Span::of(window.last() + 1, entry.span.last()), raw });
            }
            cut.upto += 1;
        }
        Ok(())
    }

    /// Takes the room of erased entries beside the cut, so that a leaf does not fill up where ranges come and go.
    #[inline]
    fn take_erased(&mut self, leaf: Leaf<'_>) {
        let is_erased = |i: usize| node::own(leaf.slot(i)).is_null();
        while !self.middle.is_empty() && self.from > 0 && is_erased(self.from - 1) {
            self.from -= 1;
        }
        while !self.middle.is_empty() && self.upto < leaf.len() && is_erased(self.upto) {
            self.upto += 1;
        }
    }

    /// Nothing is there, and nothing comes.
    fn is_bare(&self, one_leaf: bool) -> bool {
        one_leaf && self.from == self.upto && self.middle.is_empty()
    }

    /// Gives back the second handle, of a change that found no memory.
    pub(crate) fn give_up<H: Handle>(&self) -> Refused {
        if let Some(spare) = NonNull::new(self.spare) {
            // SAFETY: (1) made by `divide`; (2) it is in no node.
            drop(unsafe { H::from_raw(spare) });
        }
        Refused::NoMemory
    }
}

impl Change<'_> {
    fn may_cut(&self, entry: &Entry) -> Result<(), Refused> {
        if self.divide.is_some() || entry.raw == RESERVED { Ok(()) } else { Err(Refused::Cuts(entry.span)) }
    }
}

impl<'t, H: Handle, R: Rcu, A: NodeAlloc> Hands<'t, H, R, A> {
    /// Makes `change`.
    ///
    /// # Safety
    ///
    /// (1) The caller is the tree's writer; (2) the change's entries are ascending, apart and in its window.
    #[inline]
    pub(crate) unsafe fn splice(&mut self, change: &Change<'_>) -> Result<Spliced, Refused> {
        if spile_sync::seeded!("two-steps") && !change.new.is_empty() {
            // SAFETY: (1, 2) the caller's; but readers see a hole.
            let _ = unsafe { self.splice(&Change { new: &[], ..*change }) };
        }
        let mut left = Path::new();
        // SAFETY: (1) the caller's.
        if !unsafe { left.walk(self.root, change.window.first()) } {
            return self.plant(change);
        }
        let from = left.leaf().index(change.window.first());
        if let Some(swapped) = self.in_place(&left, from, change) {
            return Ok(Spliced { retired: 0, swapped });
        }
        let mut cut = Cut::new(from);
        if change.window.last() > left.last {
            let mut right = Path::new();
            // SAFETY: (1) the caller's.
            unsafe { right.walk(self.root, change.window.last()) };
            cut.upto = right.leaf().index(change.window.last());
            cut.find(left.leaf(), right.leaf(), change)?;
            return self.rebuild(&left, &right, &cut);
        }
        // A window covers few entries: counting on is shorter than searching again.
        let leaf = left.leaf();
        while cut.upto < leaf.len() && leaf.span(cut.upto).last() < change.window.last() {
            cut.upto += 1;
        }
        cut.find(leaf, leaf, change)?;
        if cut.is_bare(true) {
            return Ok(Spliced::NOTHING);
        }
        cut.take_erased(leaf);
        match stays_a_leaf(&left, &cut) {
            Some(keep) => self.one_leaf(&left, &cut, keep),
            None => self.rebuild(&left, &left, &cut),
        }
    }

    /// The first ranges of an empty tree.
    #[cold]
    fn plant(&mut self, change: &Change<'_>) -> Result<Spliced, Refused> {
        if change.new.is_empty() {
            return Ok(Spliced::NOTHING);
        }
        let mut climb = Climb::new(true, u64::MAX);
        climb.entries.extend(change.new.iter().copied());
        self.reserve_for(&climb, None).map_err(|NoMemory| Refused::NoMemory)?;
        climb.build_leaves(self.stock, false);
        self.crown(&mut climb);
        Ok(Spliced::NOTHING)
    }

    /// Stores into the slot of entry `i`, if that is all there is to do; what was in it.
    #[inline]
    fn in_place(&mut self, path: &Path<'t>, i: usize, change: &Change<'_>) -> Option<*mut ()> {
        let leaf = path.leaf();
        if i >= leaf.len() || leaf.span(i) != change.window {
            return None;
        }
        let slot = leaf.slot(i);
        let before = node::own(slot);
        let after = match change.new {
            [one] if one.span == change.window => one.raw,
            [] if may_erase(path, leaf, i) => null_mut(),
            _ => return None,
        };
        node::publish(slot, after);
        let taken = |raw: *mut ()| if raw.is_null() { None } else { Some(change.window) };
        if before.is_null() != after.is_null() {
            let (old, new) = (taken(before).into_iter(), taken(after).into_iter());
            // SAFETY: (1) the writer's hands; nothing was unlinked.
            unsafe { path.refill(leaf, (i, i + 1), leaf, old, new) };
        }
        Some(before)
    }

    /// Replaces a leaf by one with the same part of the key space.
    #[inline]
    fn one_leaf(&mut self, path: &Path<'t>, cut: &Cut, keep: Erased) -> Result<Spliced, Refused> {
        let old = path.leaf();
        let node = self.spliced_leaf(old, cut, keep).map_err(|NoMemory| cut.give_up::<H>())?;
        if spile_sync::seeded!("edit-in-place") && node.kind() == path.leaf.kind() {
            path.leaf.overwrite(node);
            return Ok(Spliced::NOTHING);
        }
        if spile_sync::seeded!("retire-before-publish") {
            // SAFETY: none: this is the bug that a model must find.
            unsafe { self.stock.put_back(path.leaf) };
        }
        node::publish(path.slot(self.root), node.raw());
        if spile_sync::seeded!("publish-before-initialise") {
            node.write_late();
        }
        let before = (cut.from..cut.upto).filter_map(|i| old.live(i)).map(|e| e.span);
        // SAFETY: (1) the writer's hands; the inner nodes are still in the tree, the old leaf no longer.
        unsafe {
            path.refill(old, (cut.from, cut.upto), node.leaf(), before, cut.middle.iter().map(|e| e.span));
            if !spile_sync::seeded!("retire-before-publish") {
                self.stock.retire(path.leaf);
            }
        }
        if spile_sync::seeded!("write-to-replaced") {
            (cut.from..cut.upto).for_each(|i| node::publish(old.slot(i), null_mut()));
        }
        Ok(Spliced { retired: 1, swapped: null_mut() })
    }

    /// A new leaf: `old` with the middle of `cut` in the place of what it cuts out.
    #[inline]
    fn spliced_leaf(&mut self, old: Leaf<'t>, cut: &Cut, keep: Erased) -> Result<NodePtr, NoMemory> {
        if let Leaf::Narrow(narrow) = old
            && keep == Erased::Stay
            && narrow.can_hold(&cut.middle)
        {
            self.stock.reserve(self.rcu, self.alloc, Need { small: 1, large: 0 })?;
            let block = self.stock.take(node::Class::Small);
            // SAFETY: (1, 2) a reserved small block; (3) checked; (4) the caller keeps the leaf within its bounds.
            return Ok(unsafe { narrow.splice_into(block, cut.from, &cut.middle, cut.upto) });
        }
        let mut entries = climb::Entries::new();
        climb::gather(&mut entries, old, old, cut);
        let kind = Kind::for_entries(&entries);
        self.stock.reserve(self.rcu, self.alloc, kind.class().one())?;
        // SAFETY: (1, 2) a reserved block of the kind's class; (3) the kind is for these entries.
        Ok(unsafe { node::write_leaf(self.stock.take(kind.class()), kind, &entries) })
    }
}

/// Whether entry `i` may become an erased one: not the one the leaf begins with, and not one of few.
fn may_erase(path: &Path<'_>, leaf: Leaf<'_>, i: usize) -> bool {
    (i > 0 || path.is_leftmost()) && leaf.has_more_than(path.few())
}

/// What becomes of the erased entries of a leaf that is replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Erased {
    /// They are copied with the rest, which is quickest.
    Stay,
    /// They make room.
    Go,
}

/// Whether the leaf of `path`, cut by `cut`, stays one that its parent need not look at: not too full, not too empty, and beginning
/// where it began.
fn stays_a_leaf(path: &Path<'_>, cut: &Cut) -> Option<Erased> {
    let leaf = path.leaf();
    let begins = cut.from > 0 || cut.middle.first().is_some_and(|e| e.span.first() == path.first);
    let mut live = (0..cut.from).chain(cut.upto..leaf.len()).filter(|&i| leaf.live(i).is_some());
    let count = cut.from + cut.middle.len() + leaf.len() - cut.upto;
    let stays = if count > LEAF {
        let count = cut.middle.len() + live.count();
        ((path.few()..=LEAF).contains(&count)).then_some(Erased::Go)
    } else {
        (count >= path.few() && (!cut.middle.is_empty() || live.next().is_some())).then_some(Erased::Stay)
    };
    stays.filter(|_| begins || path.is_leftmost())
}

/// See [`Writer::bound`](crate::Writer::bound).
///
/// # Safety
///
/// The caller is the writer of the tree under `root`.
pub(crate) unsafe fn bound(root: &AtomicPtr<()>, window: Span, entries: usize) -> Need {
    let leaves = |most: usize| Need { small: most, large: most };
    let (mut left, mut right) = (Path::new(), Path::new());
    // SAFETY: (1) the caller's.
    if unsafe { !left.walk(root, window.first()) || !right.walk(root, window.last()) } {
        return with_roots(leaves(entries.div_ceil(LEAF)), entries.div_ceil(LEAF));
    }
    let leaf = left.leaf();
    let at = leaf.index(window.first());
    if entries == 1 && at < leaf.len() && leaf.span(at) == window {
        return Need::default();
    }
    let few = left.few();
    let touched = leaf.entries().filter(|e| e.span.overlaps(window)).count();
    let begins = left.is_leftmost() || window.first() > left.first;
    if left.leaf == right.leaf && begins && leaf.len() + entries < LEAF && leaf.entries().count() >= touched + few {
        return leaves(1);
    }
    worst(left.height(), entries)
}

/// How many nodes any change of a tree of `height` inner levels can take that brings at most `entries` ranges.
fn worst(height: usize, entries: usize) -> Need {
    let mut count = (2 * LEAF + entries).div_ceil(LEAF);
    let mut need = Need { small: count, large: count };
    for _ in 0..height {
        count = (2 * INNER + count).div_ceil(INNER);
        need.large += count;
    }
    with_roots(need, count)
}

/// How many nodes `changes` changes can take, wherever they are, if each brings at most `entries` ranges.
///
/// # Safety
///
/// The caller is the writer of the tree under `root`.
pub(crate) unsafe fn bound_of_all(root: &AtomicPtr<()>, changes: usize, entries: usize) -> Need {
    let mut path = Path::new();
    // SAFETY: (1) the caller's.
    let height = if unsafe { path.walk(root, 0) } { path.height() } else { 0 };
    // Each may let the tree grow by a level.
    let most = worst(height + changes, entries);
    Need { small: changes * most.small, large: changes * most.large }
}

/// Adds the levels that a root of `count` nodes takes.
pub(crate) fn with_roots(mut need: Need, mut count: usize) -> Need {
    while count > 1 {
        count = count.div_ceil(INNER);
        need.large += count;
    }
    need
}
