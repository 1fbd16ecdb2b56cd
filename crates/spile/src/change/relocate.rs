//! relocate: a mapping and its pages at another place.

use super::{Change, Joins, New, NoMemory, Whose};
use crate::addr::{PAGE_SHIFT, Range};
use crate::index::Writer;
use crate::locking::Locking;
use crate::paging::Gather;
use crate::platform::Platform;
use crate::vma::{AnonId, Attr, Backing, Body, Flags};
use core::mem::forget;

impl<P: Platform, L: Locking> Change<'_, P, L> {
    /// Makes sure that the next `changes` changes find memory, if one of them only takes away and the others only add.
    fn reserve(&mut self, changes: usize) -> Result<(), NoMemory> {
        self.writer.reserve(changes)?;
        for spare in self.spares.boxes.iter_mut().filter(|spare| spare.is_none()) {
            *spare = Some(L::make(self.mm, Body::nothing)?);
        }
        Ok(())
    }

    /// Moves what is in `from`, which lies in one mapping, to `to`, where nothing is. If `to` is longer, the rest of it is new. With
    /// `keep` the mapping stays where it was too, without its pages. A fault at `to` waits until the pages are there.
    ///
    /// # Errors
    ///
    /// [`NoMemory`]; nothing was changed.
    pub(crate) fn relocate(&mut self, from: Range, to: Range, keep: bool) -> Result<(), NoMemory> {
        let mm = self.mm;
        let vma = self.at(from.start()).expect("a mapping covers what is moved");
        // Behind that of the source: who walks from a page to both comes to this one last.
        let link = vma.attr().backing.link(mm, to, (from.start() - vma.range().start()) >> PAGE_SHIFT, None)?;
        // After this only tables can be missing.
        self.reserve(2)?;
        self.held = Some(from);
        self.claim_all(from);
        L::exclude(&self.right, to);
        // SAFETY: (1) the space's own; (2) both were checked by the verb; (3) by this change.
        let prepared = unsafe { mm.table.prepare_relocation(mm.platform(), from, to.start()) };
        if prepared.is_err() {
            // New tables may go again, and a fault beside the target may have come in there.
            L::exclude(&self.right, to);
            mm.zap(to);
            self.held = None;
            self.unclaim(from);
            return Err(NoMemory);
        }
        let vma = self.at(from.start()).expect("a mapping covers what is moved");
        let (whole, anon) = (vma.range(), vma.anon());
        let there = vma.attr().skip(from.start() - whole.start()).moved_to(to, anon.is_some());
        if !keep {
            // The source goes first: what is left of it may merge with the target.
            drop(reserved(self.replace(from, None, Joins::None)));
        }
        forget(reserved(self.replace(to, Some(&New { link: Some(link), ..New::of(there, Whose::This(anon)) }), Joins::Both)));
        let mut gather = Gather::new(mm.platform(), &mm.table);
        // SAFETY: (1) the space's own; (2) prepared above; (3) the source was held, and what is published is born claimed; (4) nothing was at
        // the target, says the caller.
        unsafe { mm.table.relocate(mm.platform(), from, to.start(), &mut gather) };
        gather.settle(from);
        // Tables that only the source needed.
        mm.zap(from);
        if keep {
            self.restate(whole, from);
        }
        self.held = None;
        // Only now may anybody fault there: the target may have merged with what is left of the source.
        self.unclaim(from);
        self.unclaim(to);
        Ok(())
    }

    /// What stays at `from`, a part of what was `whole`, whose pages were moved: it is not locked, and nobody's if nothing is left of it.
    /// Linux says so of all that it is by then, the target included if the two have merged. Stays claimed.
    fn restate(&mut self, whole: Range, from: Range) {
        let vma = self.at(from.start()).expect("it was kept");
        let (now, flags) = (vma.range(), vma.attr().flags);
        let is_nobodys = now == whole && whole == from;
        let locks = Flags::LOCKED.with(Flags::LOCK_ON_FAULT);
        if !is_nobodys && !flags.has(Flags::LOCKED) {
            return;
        }
        let (attr, link) = (Attr { flags: flags.without(locks), ..vma.attr().clone() }, vma.link().clone());
        let whose = if is_nobodys { Whose::This(AnonId::NONE) } else { Whose::TheOlds };
        forget(reserved(self.replace(now, Some(&New { link: Some(link), ..New::of(attr, whose) }), Joins::None)));
        if flags.has(Flags::LOCKED) {
            // Linux goes on counting what it unlocks here.
            self.mm.usage.leak_locked(now.pages());
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
