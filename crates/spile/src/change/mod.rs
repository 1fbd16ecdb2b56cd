//! The sequence every change follows.
//!
//! **Guarantee.** A change without memory changes nothing. While it runs no fault sees a hole where a mapping is replaced, and when
//! it is over no CPU uses what it took away.
//!
//! **Mechanism.**
//!
//! ```text
//! lock → plan → allocate → claim → publish → quiesce → rewrite or zap → flush, await → release → unlock
//!   │      │        │         │        │          │                                       │
//!   │      │        │         │        │          └ nobody holds a replaced mapping       └ faults may hold the new ones
//!   │      │        │         │        └ one store: lookups find the new mappings, claimed
//!   │      │        │         └ no new hold of what will be replaced; identities are final (P10)
//!   │      │        └ the last thing that can fail, save nodes of the index, without which the claims are undone
//!   │      └ which mappings, in which window, merged by the rule of `merge`
//!   └ one change at a time; others may come in while this one rewrites or zaps, but not where it has the right to change
//! ```
//!
//! A [`Vma`] is never edited: [`Change::replace`] puts new ones in the place of the old. Claims of the old are permanent; the new are
//! born claimed, and [`Fresh`] releases them when it is dropped.

mod fork;
mod grow;
mod map;
mod merge;
mod protect;
#[cfg(feature = "linux")]
mod relocate;
mod unmap;

pub(crate) use grow::Ungrown;
pub use merge::Joins;

use crate::Event;
use crate::addr::{PAGE_SHIFT, Range};
use crate::flushing::Unmapping;
use crate::index::{Index, PIECES, Pieces, Writer};
use crate::locking::Locking;
use crate::mm::Mm;
use crate::paging::Displacing;
use crate::platform::Platform;
use crate::reclaim::sealed::Reclaim;
use crate::usage::Delta;
use crate::vma::{AnonId, Attr, Body, Link, Made, Vma};
use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use spile_sync::seeded;

/// There was no memory; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory;

/// The right to change an address space, or a part of it. Having one tells you: nobody else changes the same.
pub(crate) struct Change<'m, P: Platform, L: Locking> {
    pub(crate) mm: &'m Mm<P, L>,
    writer: <L::Index<P> as Index<P, L>>::Writer<'m>,
    /// Mappings to be, for changes that must not fail halfway: as many as two make of which one takes away and one adds.
    spares: Made<'m, P, L>,
    /// Where mappings stay claimed, also those that further changes put there.
    held: Option<Range>,
    /// That pages may be shown whose mappings it has taken out of the index.
    displacing: Option<Displacing<'m>>,
    // After the writer, whose right it is.
    right: L::Write<'m, P>,
}

/// What a change found out it would change, and has no right to.
pub(crate) struct Elsewhere(pub(crate) Range);

/// What shall stand at a range.
pub(crate) struct New<P: Platform> {
    pub(crate) attr: Attr<P>,
    pub(crate) whose: Whose,
    /// By what it is found from its file, if that is made already.
    pub(crate) link: Option<Link<P>>,
}

/// Whose the private pages of a new mapping are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Whose {
    /// There are none yet.
    Nobodys,
    /// Those of the mapping that is there now.
    TheOlds,
    /// Brought along from elsewhere.
    #[cfg(feature = "linux")]
    This(AnonId),
}

/// A part of a mapping that is or shall be: `attr` is what begins `skip` pages before it.
struct Piece<'a, P: Platform> {
    range: Range,
    attr: &'a Attr<P>,
    skip: u64,
    anon: AnonId,
    /// Of the mapping of which it is a part, or in whose place it comes, or made for it.
    link: Option<&'a Link<P>>,
}

impl<P: Platform> Clone for Piece<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P: Platform> Copy for Piece<'_, P> {}

/// A mapping, and its identity when it was looked at.
struct Seen<'a, P: Platform, L: Locking> {
    vma: &'a Vma<P, L>,
    anon: AnonId,
}

impl<P: Platform, L: Locking> Clone for Seen<'_, P, L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P: Platform, L: Locking> Copy for Seen<'_, P, L> {}

/// What lies at a range and touches it.
struct Around<'a, P: Platform, L: Locking> {
    /// The mapping that covers or touches the range from below.
    below: Option<Seen<'a, P, L>>,
    /// The first mapping within.
    first: Option<Seen<'a, P, L>>,
    /// The mapping that covers or touches it from above.
    above: Option<Seen<'a, P, L>>,
}

impl<P: Platform, L: Locking> Clone for Around<'_, P, L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P: Platform, L: Locking> Copy for Around<'_, P, L> {}

/// What a change of one range will replace, and by what.
struct Plan<'a, P: Platform, L: Locking> {
    window: Range,
    pieces: [Option<Piece<'a, P>>; PIECES],
    around: Around<'a, P, L>,
}

/// Mappings that were just published and that no fault may hold yet. The drop releases them.
#[must_use = "dropping it lets faults in: zap or rewrite first"]
pub(crate) struct Fresh<'c, 'm, P: Platform, L: Locking> {
    vmas: [Option<NonNull<Vma<P, L>>>; PIECES],
    /// Whether there was something in the range that was asked for.
    pub(crate) overlapped: bool,
    // No further change before these are released: they stay in the index until then.
    change: &'c mut Change<'m, P, L>,
}

impl<P: Platform, L: Locking> Fresh<'_, '_, P, L> {
    /// Does what the entries of pages need, which may take long, while others may change what this one does not: what is known of other
    /// places, of limits and of usage is to be asked again afterwards.
    pub(crate) fn apart<T>(&mut self, work: impl FnOnce() -> T) -> T {
        L::apart(&mut self.change.right, work)
    }

    /// Takes away the pages of `at`, from which the change keeps faults away.
    pub(crate) fn zap(&mut self, at: Range) {
        let mm = self.change.mm;
        self.apart(|| mm.zap(at));
    }
}

impl<P: Platform, L: Locking> Drop for Fresh<'_, '_, P, L> {
    fn drop(&mut self) {
        for vma in self.vmas.iter().flatten() {
            // SAFETY: (1) in the index, where only a further change could take it out, which needs the borrow we have; of `release` (1) and
            // (2): this change put it there, and is over.
            unsafe { L::release(self.change.mm, vma.as_ref()) };
        }
    }
}

impl<'m, P: Platform, L: Locking> Change<'m, P, L> {
    /// Waits for the right to change `want`, and what touches it, and until nothing of it is being flushed.
    #[inline]
    pub(crate) fn begin(mm: &'m Mm<P, L>, want: &[Range]) -> Self {
        let right = L::write(mm, want);
        // Whoever reserved a place had this right, so it is found; nobody reserves another meanwhile.
        let right = if mm.flushing.is_any() { Self::after_flushes(mm, want, right) } else { right };
        Self::with(mm, right)
    }

    #[cold]
    fn after_flushes(mm: &'m Mm<P, L>, want: &[Range], mut right: L::Write<'m, P>) -> L::Write<'m, P> {
        while let Some(token) = mm.flushing.in_the_way(mm.platform(), want) {
            drop(right);
            token.wait();
            right = L::write(mm, want);
        }
        right
    }

    /// Waits for the right alone: what is wanted of places is asked by [`may_map`](Self::may_map).
    #[inline]
    pub(crate) fn begin_among_flushes(mm: &'m Mm<P, L>, want: &[Range]) -> Self {
        Self::with(mm, L::write(mm, want))
    }

    #[inline]
    fn with(mm: &'m Mm<P, L>, right: L::Write<'m, P>) -> Self {
        mm.count(Event::Write);
        // SAFETY: (1) whoever has the right makes one writer, here, and does not use it apart.
        let writer = unsafe { mm.index.writer() };
        Self { mm, writer, spares: Made::none(mm), held: None, displacing: None, right }
    }

    /// `range`, if the right is to change that too, and what touches it.
    pub(crate) fn may_take(&self, range: Range) -> Result<Range, Elsewhere> {
        if L::may_change(&self.right, range.with_neighbours()) { Ok(range) } else { Err(Elsewhere(range)) }
    }

    /// `range`, if something new may be mapped there.
    pub(crate) fn may_map(&self, range: Range) -> Result<Range, Elsewhere> {
        let range = self.may_take(range)?;
        if self.mm.flushing.is_any() && !self.is_admitted(range) { Err(Elsewhere(range)) } else { Ok(range) }
    }

    #[cold]
    fn is_admitted(&self, range: Range) -> bool {
        let admits = self.mm.unmapping == Unmapping::Admit && self.first(range).is_none();
        admits || self.mm.flushing.met(self.mm.platform(), &[range]).is_none()
    }

    /// A place in `range` that is to be left alone.
    pub(crate) fn reserved(&self, range: Range) -> Option<Range> {
        let reserves = self.mm.flushing.is_any() && self.mm.unmapping == Unmapping::Reserve;
        if reserves { self.mm.flushing.met(self.mm.platform(), &[range]) } else { None }
    }

    /// Ends it but for what keeps others from what it has taken away.
    pub(crate) fn downgrade(self) -> L::Tail<'m, P> {
        L::downgrade(self.right)
    }

    /// The mapping that covers `at`.
    pub(crate) fn at(&self, at: u64) -> Option<&Vma<P, L>> {
        self.writer.get(at)
    }

    /// The first mapping in `range`.
    pub(crate) fn first(&self, range: Range) -> Option<&Vma<P, L>> {
        self.writer.find(range.start()).filter(|vma| vma.range().start() < range.end())
    }

    /// The mappings that touch `range`, ascending.
    pub(crate) fn iter(&self, range: Range) -> impl DoubleEndedIterator<Item = &Vma<P, L>> {
        self.writer.iter(range)
    }

    /// The index, for searches.
    pub(crate) fn index(&self) -> &impl Writer<P, L> {
        &self.writer
    }

    /// Puts `new`, or nothing, in the place of whatever is in `at`: mappings that stick out are cut, `new` is merged with its
    /// neighbours as `joins` allows. When it returns, lookups find the new state, no fault holds the old, and none the new. Pages
    /// are as they were.
    ///
    /// # Errors
    ///
    /// [`NoMemory`]; nothing was changed.
    pub(crate) fn replace(&mut self, at: Range, new: Option<&New<P>>, joins: Joins) -> Result<Fresh<'_, 'm, P, L>, NoMemory> {
        loop {
            let plan = plan(&self.writer, at, new, joins);
            let mut usage = Delta::default();
            let mut made = make(self.mm, &mut self.spares, &plan, &mut usage)?;
            let (window, overlapped) = (plan.window, plan.around.first.is_some());
            debug_assert!(L::may_change(&self.right, window), "the right does not reach as far as {window}");
            L::exclude(&self.right, window);
            if !claim(self.mm, &self.writer, &plan, &mut usage) && !seeded!("plan-once") {
                // Beside those that were not used: a further change may count on them.
                let free = self.spares.boxes.iter_mut().filter(|spare| spare.is_none());
                free.zip(made.boxes.iter_mut().filter_map(Option::take)).for_each(|(spare, made)| *spare = Some(made));
                self.unclaim(window);
                self.mm.count(Event::Replan);
                continue;
            }
            let vmas = made.boxes.each_ref().map(|slot| slot.as_ref().map(|vma| NonNull::from(&**vma)));
            if P::Reclaim::KEEPS && self.displacing.is_none() {
                self.displacing = Some(self.mm.table.displace());
            }
            self.publish(window, &mut made.boxes)?;
            self.mm.usage.apply(&usage);
            return Ok(Fresh { vmas, overlapped, change: self });
        }
    }

    /// Claims the mappings that touch `range` and waits until nobody holds them, without replacing them yet.
    fn claim_all(&self, range: Range) {
        if !seeded!("fork-without-claim") {
            L::exclude(&self.right, range);
        }
        for vma in self.iter(range) {
            if !seeded!("fork-without-claim") {
                // SAFETY: (1) this is the right.
                unsafe { L::claim(self.mm, vma) };
            }
            vma.anon_cell().close();
        }
        self.iter(range).filter(|_| !seeded!("fork-without-claim")).for_each(|vma| L::quiesce(self.mm, vma));
        L::settle(self.mm);
    }

    /// Lets go of what is claimed in `window`, and not held.
    pub(crate) fn unclaim(&self, window: Range) {
        let is_held = |vma: &Vma<P, L>| self.held.is_some_and(|held| held.overlap(vma.range()).is_some());
        for vma in self.iter(window).filter(|vma| !is_held(vma)) {
            vma.anon_cell().reopen();
            // SAFETY: (1) this is the right; (2) in the index, and what claimed it is undone, or over.
            unsafe { L::release(self.mm, vma) };
        }
    }

    /// One store in the index; then nobody holds what was displaced.
    fn publish(&mut self, window: Range, boxes: &mut Pieces<P, L>) -> Result<(), NoMemory> {
        let (mm, mut claimed) = (self.mm, false);
        let published = self.writer.replace(window, boxes, |displaced| {
            claimed = true;
            // A wait that panics loses it: somebody may hold it still.
            let displaced = ManuallyDrop::new(displaced);
            L::quiesce(mm, &displaced);
            L::retire(mm, ManuallyDrop::into_inner(displaced));
        });
        if published.is_err() {
            self.unclaim(window);
        } else if claimed {
            L::settle(mm);
        }
        published
    }
}

/// What lies at `at` and touches it.
fn around<P: Platform, L: Locking>(index: &impl Writer<P, L>, at: Range) -> Around<'_, P, L> {
    let from = |key| index.find(key).map(Seen::now);
    let mut next = from(at.start().saturating_sub(1));
    let below = next.filter(|seen| seen.range().start() < at.start());
    if below.is_some_and(|below| below.range().end() <= at.start()) {
        next = from(at.start());
    }
    let first = next.filter(|seen| seen.range().start() < at.end());
    let above = match first {
        Some(first) if first.range().contains(at.end()) => Some(first),
        Some(_) => index.get(at.end()).map(Seen::now),
        None => next.filter(|seen| seen.range().start() == at.end()),
    };
    Around { below, first, above }
}

fn plan<'a, P: Platform, L: Locking>(
    index: &'a impl Writer<P, L>,
    at: Range,
    new: Option<&'a New<P>>,
    joins: Joins,
) -> Plan<'a, P, L> {
    let around = around(index, at);
    let (below, above) = (around.below, around.above);
    let below_piece = below.and_then(|vma| Some(vma.part(vma.range().below(at.start())?)));
    let above_piece = above.and_then(|vma| Some(vma.part(vma.range().above(at.end())?)));
    let mut middle = new.map(|new| new.piece(at, around.first));
    let (with_below, with_above) = match &middle {
        Some(middle) => merge::decide(below_piece.as_ref(), middle, above_piece.as_ref(), joins),
        None => (false, false),
    };
    if let Some(middle) = &mut middle {
        *middle = merge::joined(below_piece.filter(|_| with_below), *middle, above_piece.filter(|_| with_above));
    }
    // A neighbour that neither merges nor is cut stays as it is.
    let cut_below = below.filter(|vma| vma.range().end() > at.start());
    let cut_above = above.filter(|vma| vma.range().start() < at.end());
    let taken = [cut_below.or(below.filter(|_| with_below)), cut_above.or(above.filter(|_| with_above))];
    let window = taken.into_iter().flatten().fold(at, |window, vma| window.around(vma.range()));
    let pieces = [
        below_piece.filter(|_| cut_below.is_some() && !with_below),
        middle,
        above_piece.filter(|_| cut_above.is_some() && !with_above),
    ];
    Plan { window, pieces, around }
}

/// Makes the mappings of `plan`: the last thing that can fail, save nodes of the index.
fn make<'m, P: Platform, L: Locking>(
    mm: &'m Mm<P, L>,
    spares: &mut Made<'m, P, L>,
    plan: &Plan<'_, P, L>,
    usage: &mut Delta,
) -> Result<Made<'m, P, L>, NoMemory> {
    let mut made = Made::none(mm);
    for (slot, piece) in made.boxes.iter_mut().zip(&plan.pieces) {
        let Some(Piece { range, attr, skip, anon, link }) = piece else { continue };
        let link = attr.backing.link(mm, *range, *skip, *link)?;
        let body = || Body::new(*range, attr.skip_pages(*skip), *anon, link);
        let vma = match spares.boxes.iter_mut().find_map(Option::take) {
            Some(spare) => {
                // SAFETY: (1) claimed since it was made for this change, so nobody has held it.
                unsafe { spare.rewrite(body()) };
                spare
            }
            None => L::make(mm, body)?,
        };
        if seeded!("born-released") {
            // SAFETY: none: this is the bug.
            unsafe { L::release(mm, &vma) };
        }
        usage.add(*range, vma.attr());
        *slot = Some(vma);
    }
    Ok(made)
}

/// Claims every mapping in the plan's window. False if a fault has set an identity that the plan relies on.
fn claim<P: Platform, L: Locking>(mm: &Mm<P, L>, index: &impl Writer<P, L>, plan: &Plan<'_, P, L>, usage: &mut Delta) -> bool {
    let Around { below, first, above } = plan.around;
    let mut as_relied = true;
    let mut claim = |vma: &Vma<P, L>| {
        if !seeded!("publish-without-claim") {
            // SAFETY: (1) called by a change.
            unsafe { L::claim(mm, vma) };
        }
        let anon = vma.anon_cell().close();
        let relied = [below, first, above].into_iter().flatten();
        as_relied &= relied.filter(|seen| core::ptr::eq(seen.vma, vma)).all(|seen| seen.anon == anon);
        usage.remove(vma.range(), vma.attr());
    };
    match first {
        Some(only) if only.range() == plan.window => claim(only.vma),
        Some(_) => index.iter(plan.window).for_each(claim),
        // Only neighbours that merge.
        None => {
            [below, above].into_iter().flatten().filter(|seen| plan.window.covers(seen.range())).for_each(|seen| claim(seen.vma))
        }
    }
    as_relied
}

impl<'a, P: Platform, L: Locking> Seen<'a, P, L> {
    fn now(vma: &'a Vma<P, L>) -> Self {
        Self { vma, anon: vma.anon() }
    }

    fn range(&self) -> Range {
        self.vma.range()
    }

    /// What of the mapping is in `range`.
    fn part(&self, range: Range) -> Piece<'a, P> {
        let skip = (range.start() - self.range().start()) >> PAGE_SHIFT;
        Piece { range, attr: self.vma.attr(), skip, anon: self.anon, link: Some(self.vma.link()) }
    }
}

impl<P: Platform> New<P> {
    pub(crate) fn of(attr: Attr<P>, whose: Whose) -> Self {
        Self { attr, whose, link: None }
    }

    /// At `at`, where `old` is the first.
    fn piece<'a, L: Locking>(&'a self, at: Range, old: Option<Seen<'a, P, L>>) -> Piece<'a, P> {
        let olds = old.filter(|_| self.whose == Whose::TheOlds).map(|old| old.vma.link());
        Piece { range: at, attr: &self.attr, skip: 0, anon: self.whose.id(old), link: self.link.as_ref().or(olds) }
    }
}

impl Whose {
    fn id<P: Platform, L: Locking>(self, old: Option<Seen<'_, P, L>>) -> AnonId {
        match self {
            Whose::Nobodys => AnonId::NONE,
            Whose::TheOlds => old.map_or(AnonId::NONE, |old| old.anon),
            #[cfg(feature = "linux")]
            Whose::This(id) => id,
        }
    }
}
