//! relocate: a mapping and its pages at another place.

use super::{Change, Joins, New, NoMemory, SPARES, Whose};
use crate::addr::{PAGE_SHIFT, Range};
use crate::locking::Locking;
use crate::paging::Gather;
use crate::platform::Platform;
use crate::vma::{AnonId, Attr, Backing, Flags, Vma};
use spile_rcu::RcuBox;

impl<P: Platform, L: Locking> Change<'_, P, L> {
    /// Makes sure that the next `changes` changes find memory, if one of them only takes away and the others only add.
    fn reserve(&mut self, changes: usize) -> Result<(), NoMemory> {
        self.writer.reserve_changes(changes, SPARES).map_err(|_| NoMemory)?;
        for spare in self.spares.iter_mut().filter(|spare| spare.is_none()) {
            let nothing = Vma::new(Range::page_of(0), Attr::anon(0, crate::Prot::NONE), AnonId::NONE);
            *spare = Some(RcuBox::try_new(nothing).map_err(|_| NoMemory)?);
        }
        Ok(())
    }

    /// Claims the mappings in `range` and waits until nobody holds them, without replacing them yet.
    fn hold(&mut self, range: Range) {
        self.held = Some(range);
        for vma in self.iter(range) {
            L::claim(&vma.lock);
            vma.anon.close();
            L::quiesce(self.mm, &vma.lock);
        }
    }

    /// Moves what is in `from`, which lies in one mapping, to `to`, where nothing is. If `to` is longer, the rest of it is new. With
    /// `keep` the mapping stays where it was too, without its pages. A fault at `to` waits until the pages are there.
    ///
    /// # Errors
    ///
    /// [`NoMemory`]; nothing was changed.
    pub(crate) fn relocate(&mut self, from: Range, to: Range, keep: bool) -> Result<(), NoMemory> {
        let mm = self.mm;
        // After this only tables can be missing.
        self.reserve(2)?;
        self.hold(from);
        if mm.table.prepare_relocation(mm.platform(), from, to.start()).is_err() {
            mm.zap(to);
            self.held = None;
            self.unclaim(from);
            return Err(NoMemory);
        }
        let vma = self.at(from.start()).expect("a mapping covers what is moved");
        let (whole, anon) = (vma.range(), vma.anon());
        let source = vma.attr().clone();
        let there = source.skip(from.start() - whole.start()).moved_to(to, anon.is_some());
        // The source goes first: what is left of it may merge with the target.
        match (keep, whole == from) {
            (false, _) => drop(reserved(self.replace(from, None, Joins::None))),
            // Without pages a mapping is nobody's.
            (true, true) => self.restate(whole, &source, Whose::This(AnonId::NONE)),
            (true, false) if source.flags.has(Flags::LOCKED) => self.restate(whole, &source, Whose::TheOlds),
            (true, false) => {}
        }
        let fresh = reserved(self.replace(to, Some(&New { attr: there, whose: Whose::This(anon) }), Joins::Both));
        let mut gather = Gather::new(mm.platform(), &mm.table);
        mm.table.relocate(mm.platform(), from, to.start(), &mut gather);
        gather.settle(from);
        // Tables that only the source needed. Before anybody may fault there again: the target may have merged with what is left of it.
        mm.zap(from);
        drop(fresh);
        self.held = None;
        self.unclaim(from);
        Ok(())
    }

    /// What stays of a mapping whose pages will be moved: it is not locked. Claimed until they are.
    fn restate(&mut self, whole: Range, source: &Attr<P>, whose: Whose) {
        let flags = source.flags.without(Flags::LOCKED.with(Flags::LOCK_ON_FAULT));
        let attr = Attr { flags, ..source.clone() };
        core::mem::forget(reserved(self.replace(whole, Some(&New { attr, whose }), Joins::None)));
        if source.flags.has(Flags::LOCKED) {
            // Linux goes on counting what it unlocks here.
            self.mm.usage.leak_locked(whole.pages());
        }
    }
}

/// What a change made for which memory was reserved.
fn reserved<T>(made: Result<T, NoMemory>) -> T {
    made.unwrap_or_else(|NoMemory| unreachable!("memory was reserved"))
}

impl<P: Platform> Attr<P> {
    /// For another place: anonymous pages that were never written are numbered anew.
    fn moved_to(self, to: Range, written: bool) -> Self {
        match self.backing {
            Backing::Anon(_) if !written => Self { backing: Backing::Anon(to.start() >> PAGE_SHIFT), ..self },
            _ => self,
        }
    }
}
