//! fork: a second address space with the same contents.

use super::{Change, NoMemory};
use crate::addr::Range;
use crate::index::{IndexWriter, VmaBox};
use crate::locking::Locking;
use crate::mm::{Error, Mm};
use crate::paging::Gather;
use crate::platform::Platform;
use crate::usage::Delta;
use crate::vma::{AnonId, Attr, Flags, Vma};
use spile_rcu::RcuBox;
use spile_sync::seeded;

impl<P: Platform, L: Locking> Mm<P, L> {
    /// A copy of the address space, sharing pages until one side writes. Faults of this one are kept out while its pages are
    /// write-protected, not longer. May sleep.
    ///
    /// # Errors
    ///
    /// [`Error::NoMemory`]; nothing was changed, save that pages may be write-protected until they are written again.
    pub fn fork(&self) -> Result<Self, Error> {
        let mut child = Self::new(self.platform().clone(), self.layout)?;
        let parent = Change::begin(self);
        #[cfg(feature = "linux")]
        {
            child.linux = self.linux.fork();
        }
        let copied = parent.copy_into(&mut child);
        drop(parent);
        self.platform().shared().relieve(self.platform());
        copied.map(|()| child).map_err(|NoMemory| Error::NoMemory)
    }
}

impl<P: Platform, L: Locking> Change<'_, P, L> {
    fn copy_into(&self, child: &mut Mm<P, L>) -> Result<(), NoMemory> {
        let all = Range::of(0, crate::addr::TABLE_END);
        let mut gather = Gather::new(self.mm.platform(), &self.mm.table);
        let mut claimed = 0;
        let copied = self.iter(all).try_for_each(|vma| {
            if !seeded!("fork-without-claim") {
                L::claim(&vma.lock);
                L::quiesce(self.mm, &vma.lock);
            }
            vma.anon.close();
            claimed = vma.range().end();
            self.copy_vma(vma, child, &mut gather)
        });
        // Claims are lifted after the flush: a fault that came in before would find pages that other CPUs still write.
        gather.settle(all);
        for vma in self.iter(all).take_while(|vma| vma.range().end() <= claimed) {
            vma.anon.reopen();
            L::release(&vma.lock);
        }
        copied
    }

    fn copy_vma(&self, vma: &Vma<P, L>, child: &mut Mm<P, L>, gather: &mut Gather<'_, P>) -> Result<(), NoMemory> {
        let (p, flags) = (self.mm.platform(), vma.attr().flags);
        if flags.has(Flags::DONT_FORK) {
            return Ok(());
        }
        let wiped = flags.has(Flags::WIPE_ON_FORK);
        // The child's private pages hang in the parent's chains as well as in its own.
        let anon = match vma.anon.get() {
            id if id.is_some() && !wiped => AnonId::new(p.shared().number()).inherited(),
            _ => AnonId::NONE,
        };
        let locks = Flags::LOCKED.with(Flags::LOCK_ON_FAULT);
        let attr = Attr { flags: flags.without(locks), ..vma.attr().clone() };
        let mut usage = Delta::default();
        usage.add(vma.range(), &attr);
        let copy = RcuBox::try_new(Vma::new(vma.range(), attr, anon)).map_err(|_| NoMemory)?;
        L::release(&copy.lock);
        store::<P, L>(&mut child.index.writer_mut(), vma.range(), copy)?;
        child.usage.apply(&usage);
        // What has no private page is found again by faults.
        if anon.is_some() {
            self.mm.table.share(p, &child.table, vma.range(), gather).map_err(|_| NoMemory)?;
        }
        Ok(())
    }
}

fn store<P: Platform, L: Locking>(writer: &mut IndexWriter<'_, P, L>, range: Range, vma: VmaBox<P, L>) -> Result<(), NoMemory> {
    writer.replace(range.span(), [(range.span(), Some(vma))]).map(drop).map_err(|_| NoMemory)
}
