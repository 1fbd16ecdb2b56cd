//! fork: a second address space with the same contents.

use super::{Change, NoMemory};
use crate::addr::Range;
use crate::index::Writer;
use crate::locking::Locking;
use crate::mm::{Error, Mm};
use crate::paging::Gather;
use crate::platform::Platform;
use crate::usage::Delta;
use crate::vma::{AnonId, Attr, Body, Flags, Made, Vma};
use crate::wait;

impl<P: Platform, L: Locking> Mm<P, L> {
    /// A copy of the address space, sharing pages until one side writes. Faults of this one are kept out while its pages are
    /// write-protected, not longer. May sleep.
    ///
    /// # Errors
    ///
    /// [`Error::NoMemory`]; nothing was changed, save that pages may be write-protected until they are written again.
    pub fn fork(&self) -> Result<Self, Error> {
        wait::with_room(self.platform(), || self.fork_now()).ok_or(Error::NoMemory)
    }

    fn fork_now(&self) -> Option<Self> {
        #[cfg_attr(not(feature = "linux"), allow(unused_mut, reason = "only Linux's verbs know more"))]
        let mut child = self.child()?;
        let parent = Change::begin(self, &[Range::EVERYTHING]);
        #[cfg(feature = "linux")]
        {
            child.linux = self.linux.fork();
        }
        let copied = parent.copy_into(&mut Change::begin(&child, &[Range::EVERYTHING]));
        drop(parent);
        self.relieve();
        copied.ok().map(|()| child)
    }
}

impl<P: Platform, L: Locking> Change<'_, P, L> {
    fn copy_into(&self, child: &mut Self) -> Result<(), NoMemory> {
        let all = Range::EVERYTHING;
        let mut gather = Gather::new(self.mm.platform(), &self.mm.table);
        self.claim_all(all);
        let copied = self.iter(all).try_for_each(|vma| child.copy_vma(self.mm, vma, &mut gather));
        // Claims are lifted after the flush: a fault that came in before would find pages that other CPUs still write.
        gather.settle(all);
        self.unclaim(all);
        copied
    }

    /// Of `parent`, whose change `gather` is of.
    fn copy_vma(&mut self, parent: &Mm<P, L>, vma: &Vma<P, L>, gather: &mut Gather<'_, P>) -> Result<(), NoMemory> {
        let (mm, p, flags) = (self.mm, parent.platform(), vma.attr().flags);
        if flags.has(Flags::DONT_FORK) {
            return Ok(());
        }
        let wiped = flags.has(Flags::WIPE_ON_FORK);
        // The child's private pages hang in the parent's chains as well as in its own.
        let anon = match vma.anon() {
            id if id.is_some() && !wiped => AnonId::new(p.shared().number()).inherited(),
            _ => AnonId::NONE,
        };
        let locks = Flags::LOCKED.with(Flags::LOCK_ON_FAULT);
        let attr = Attr { flags: flags.without(locks), ..vma.attr().clone() };
        let mut usage = Delta::default();
        usage.add(vma.range(), &attr);
        let mut copy = Made::none(mm);
        // Before its pages are there, and behind the parent's: who walks from a page to both comes to this one last.
        let link = attr.backing.link(mm, vma.range(), 0, None)?;
        let made = copy.boxes[0].insert(L::make(mm, || Body::new(vma.range(), attr, anon, link))?);
        // SAFETY: (1) this is the right to change the child, which nobody else knows; (2) put in its index next.
        unsafe { L::release(mm, made) };
        self.writer.replace(vma.range(), &mut copy.boxes, |_| unreachable!("nothing is there in the child"))?;
        mm.usage.apply(&usage);
        // What has no private page is found again by faults.
        if anon.is_some() {
            parent.table.share(p, &mm.table, vma.range(), gather).map_err(|_| NoMemory)?;
        }
        Ok(())
    }
}
