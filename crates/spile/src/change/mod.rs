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
//!   └ one change at a time
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

use crate::addr::Range;
use crate::index::{IndexWriter, VmaBox};
use crate::locking::{Exclusive, Locking};
use crate::mm::Mm;
use crate::platform::Platform;
use crate::vma::{AnonId, Attr, Vma};
use core::ptr::NonNull;
use spile_maple::{Refused, Span};
use spile_rcu::RcuBox;
use spile_sync::seeded;

/// There was no memory; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory;

/// The right to change an address space. Having one tells you: nobody else has one of the same.
pub(crate) struct Change<'m, P: Platform, L: Locking> {
    pub(crate) mm: &'m Mm<P, L>,
    writer: IndexWriter<'m, P, L>,
    /// Mappings to be, for changes that must not fail halfway.
    spares: [Option<VmaBox<P, L>>; SPARES],
    // After the writer, whose right it is.
    #[allow(dead_code, reason = "its drop unlocks")]
    right: Exclusive<'m, P>,
}

/// How many mappings two changes make at most of which one takes away and one adds.
const SPARES: usize = 3;

/// What shall stand at a range.
pub(crate) struct New<P: Platform> {
    pub(crate) attr: Attr<P>,
    pub(crate) whose: Whose,
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

/// A mapping to be made.
struct Piece<P: Platform> {
    range: Range,
    attr: Attr<P>,
    anon: AnonId,
}

/// What a change of one range will replace, and by what.
struct Plan<P: Platform> {
    window: Range,
    pieces: [Option<Piece<P>>; 3],
    /// The identities that the plan relies on, by the start of their mapping.
    relied: [Option<(u64, AnonId)>; 3],
}

impl From<NoMemory> for Unpublished {
    fn from(_: NoMemory) -> Self {
        Unpublished::NoMemory
    }
}

/// Mappings in the index.
type Published<P, L> = [Option<NonNull<Vma<P, L>>>; 3];

enum Unpublished {
    NoMemory,
    /// A fault set an identity that the plan relied on.
    Raced,
}

/// Mappings that were just published and that no fault may hold yet. The drop releases them.
#[must_use = "dropping it lets faults in: zap or rewrite first"]
pub(crate) struct Fresh<'c, P: Platform, L: Locking> {
    vmas: Published<P, L>,
    /// Whether there was something in the range that was asked for.
    pub(crate) overlapped: bool,
    // No further change before these are released: they stay in the index until then.
    _change: core::marker::PhantomData<&'c mut P>,
}

impl<P: Platform, L: Locking> Drop for Fresh<'_, P, L> {
    fn drop(&mut self) {
        for vma in self.vmas.iter().flatten() {
            // SAFETY: (1) in the index, where only a further change could take it out, which needs the borrow we have.
            L::release(unsafe { &vma.as_ref().lock });
        }
    }
}

impl<'m, P: Platform, L: Locking> Change<'m, P, L> {
    /// Waits for the right to change.
    pub(crate) fn begin(mm: &'m Mm<P, L>) -> Self {
        let right = loop {
            match L::write(mm) {
                Ok(right) => break right,
                Err(token) => token.wait(),
            }
        };
        Self { mm, writer: mm.index.writer(&right), spares: [const { None }; SPARES], right }
    }

    /// The mapping that covers `at`.
    pub(crate) fn at(&self, at: u64) -> Option<&Vma<P, L>> {
        self.writer.get(at).map(|(_, vma)| vma)
    }

    /// The mappings that touch `range`, ascending.
    pub(crate) fn iter(&self, range: Range) -> impl DoubleEndedIterator<Item = &Vma<P, L>> {
        self.writer.iter(range.span()).map(|(_, vma)| vma)
    }

    /// The index, for searches of free space.
    pub(crate) fn index(&self) -> &IndexWriter<'m, P, L> {
        &self.writer
    }

    /// Puts `new`, or nothing, in the place of whatever is in `at`: mappings that stick out are cut, `new` is merged with its
    /// neighbours as `joins` allows. When it returns, lookups find the new state, no fault holds the old, and none the new. Pages
    /// are as they were.
    ///
    /// # Errors
    ///
    /// [`NoMemory`]; nothing was changed.
    pub(crate) fn replace(&mut self, at: Range, new: Option<&New<P>>, joins: Joins) -> Result<Fresh<'_, P, L>, NoMemory> {
        loop {
            let plan = self.plan(at, new, joins);
            match self.publish(at, plan) {
                Ok((vmas, overlapped)) => return Ok(Fresh { vmas, overlapped, _change: core::marker::PhantomData }),
                Err(Unpublished::Raced) => {}
                Err(Unpublished::NoMemory) => return Err(NoMemory),
            }
        }
    }

    fn plan(&self, at: Range, new: Option<&New<P>>, joins: Joins) -> Plan<P> {
        let left = at.start().checked_sub(1).and_then(|before| self.at(before));
        let right = self.at(at.end());
        let old = new.filter(|new| new.whose == Whose::TheOlds).and_then(|_| self.iter(at).next());
        let cut = |vma: &Vma<P, L>, range: Range| Piece {
            range,
            attr: vma.attr().skip(range.start() - vma.range().start()),
            anon: vma.anon(),
        };
        let mut below = left.and_then(|left| Some(cut(left, left.range().below(at.start())?)));
        let mut above = right.and_then(|right| Some(cut(right, right.range().above(at.end())?)));
        let relied = |vma: Option<&Vma<P, L>>| vma.map(|vma| (vma.range().start(), vma.anon()));
        let mut middle = new.map(|new| Piece { range: at, attr: new.attr.clone(), anon: new.whose.id(old) });
        let (with_below, with_above) = match &middle {
            Some(middle) => merge::decide(below.as_ref(), middle, above.as_ref(), joins),
            None => (false, false),
        };
        if let Some(middle) = &mut middle {
            if with_below {
                middle.take_below(below.take());
            }
            if with_above {
                middle.take_above(above.take());
            }
        }
        // A neighbour that neither merges nor is cut stays as it is.
        let cut_below = left.is_some_and(|left| left.range().end() > at.start());
        let cut_above = right.is_some_and(|right| right.range().start() < at.end());
        let mut window = at;
        for (vma, taken) in [(left, cut_below || with_below), (right, cut_above || with_above)] {
            if let Some(vma) = vma.filter(|_| taken) {
                window = window.around(vma.range());
            }
        }
        let pieces = [below.filter(|_| cut_below), middle, above.filter(|_| cut_above)];
        Plan { window, pieces, relied: [relied(left), relied(old), relied(right)] }
    }

    /// The new mappings, and whether there was something in `at`.
    fn publish(&mut self, at: Range, plan: Plan<P>) -> Result<(Published<P, L>, bool), Unpublished> {
        let mut boxes = [None, None, None];
        let mut usage = crate::usage::Delta::default();
        for (slot, piece) in boxes.iter_mut().zip(plan.pieces) {
            if let Some(Piece { range, attr, anon }) = piece {
                usage.add(range, &attr);
                *slot = Some((range.span(), self.boxed(Vma::new(range, attr, anon))?));
            }
        }
        let vmas = boxes.each_ref().map(|slot| slot.as_ref().map(|(_, vma)| NonNull::from(&**vma)));
        let mut overlapped = false;
        let claimed = self.claim(plan.window, &plan.relied, |vma| {
            overlapped |= vma.range().overlap(at).is_some();
            usage.remove(vma.range(), vma.attr());
        });
        if !claimed {
            return Err(Unpublished::Raced);
        }
        self.publish_claimed(plan.window.span(), boxes)?;
        self.mm.usage.apply(&usage);
        Ok((vmas, overlapped))
    }

    fn boxed(&mut self, vma: Vma<P, L>) -> Result<VmaBox<P, L>, NoMemory> {
        match self.spares.iter_mut().find_map(Option::take) {
            Some(mut spare) => {
                *spare = vma;
                Ok(spare)
            }
            None => RcuBox::try_new(vma).map_err(|_| NoMemory),
        }
    }

    /// Claims every mapping in `window`. False, and undone, if an identity is no longer what was relied on.
    fn claim(&self, window: Range, relied: &[Option<(u64, AnonId)>; 3], mut each: impl FnMut(&Vma<P, L>)) -> bool {
        let mut as_relied = true;
        for vma in self.iter(window) {
            if !seeded!("publish-without-claim") {
                L::claim(&vma.lock);
            }
            let anon = vma.anon.close();
            let start = vma.range().start();
            as_relied &= relied.iter().flatten().all(|(at, was)| *at != start || *was == anon);
            each(vma);
        }
        if !as_relied {
            self.unclaim(window);
        }
        as_relied
    }

    pub(crate) fn unclaim(&self, window: Range) {
        for vma in self.iter(window) {
            vma.anon.reopen();
            L::release(&vma.lock);
        }
    }

    /// One store in the index; then nobody holds what was displaced.
    fn publish_claimed(&mut self, window: Span, boxes: [Option<(Span, VmaBox<P, L>)>; 3]) -> Result<(), Unpublished> {
        let mm = self.mm;
        let mut boxes = boxes.into_iter().flatten().map(|(span, vma)| (span, Some(vma)));
        macro_rules! replace {
            ($($piece:expr),*) => {
                match self.writer.replace(window, [$($piece),*]) {
                    Ok(displaced) => {
                        displaced.inspect(|_, vma| L::quiesce(mm, &vma.lock));
                        Ok(())
                    }
                    Err(rejected) => Err(rejected.why),
                }
            };
        }
        let published = match (boxes.next(), boxes.next(), boxes.next()) {
            (Some(a), Some(b), Some(c)) => replace!(a, b, c),
            (Some(a), Some(b), None) => replace!(a, b),
            (Some(a), None, None) => replace!(a),
            _ => replace!(),
        };
        published.map_err(|why| {
            debug_assert_eq!(why, Refused::NoMemory, "a window covers what it cuts");
            self.unclaim(Range::of_span(window));
            Unpublished::NoMemory
        })
    }
}

impl Whose {
    fn id<P: Platform, L: Locking>(self, old: Option<&Vma<P, L>>) -> AnonId {
        match self {
            Whose::Nobodys => AnonId::NONE,
            Whose::TheOlds => old.map_or(AnonId::NONE, Vma::anon),
            #[cfg(feature = "linux")]
            Whose::This(id) => id,
        }
    }
}

impl<P: Platform> Piece<P> {
    fn take_below(&mut self, below: Option<Self>) {
        if let Some(below) = below {
            let anon = if self.anon.is_some() { self.anon } else { below.anon };
            *self = Piece { range: below.range.around(self.range), attr: below.attr, anon };
        }
    }

    fn take_above(&mut self, above: Option<Self>) {
        if let Some(above) = above {
            self.range = self.range.around(above.range);
            self.anon = if self.anon.is_some() { self.anon } else { above.anon };
        }
    }
}
