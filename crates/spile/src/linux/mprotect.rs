//! mprotect(2).

use super::{Errno, page_align, prot, step};
use crate::addr::{PAGE, Prot, Range};
use crate::change::Change;
use crate::locking::Locking;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::vma::{Attr, Flags, Vma};

const KNOWN: u32 = prot::READ | prot::WRITE | prot::EXEC | prot::SEM;

impl<P: Platform, L: Locking> Mm<P, L> {
    /// Changes what may be done with `addr..addr + len`. May sleep.
    ///
    /// # Errors
    ///
    /// As mprotect(2). `EINVAL`: nothing was changed. `ENOMEM`, `EACCES`: mappings below the one it is about were changed.
    pub fn mprotect(&self, addr: u64, len: u64, bits: u32) -> Result<(), Errno> {
        let grows = bits & (prot::GROWSDOWN | prot::GROWSUP);
        let bits = bits & !(prot::GROWSDOWN | prot::GROWSUP);
        if grows == prot::GROWSDOWN | prot::GROWSUP || !addr.is_multiple_of(PAGE) {
            return Err(Errno::EINVAL);
        }
        if len == 0 {
            return Ok(());
        }
        let end = addr.wrapping_add(page_align(len));
        if end <= addr {
            return Err(Errno::ENOMEM);
        }
        if bits & !KNOWN != 0 {
            return Err(Errno::EINVAL);
        }
        let Ok(range) = Range::new(addr, end.min(super::TASK_SIZE)) else { return Err(Errno::ENOMEM) };
        let mut gained = None;
        // Where a stack begins, and what lies below, is only seen with the right.
        let want = if grows == prot::GROWSDOWN { Range::EVERYTHING } else { range };
        let (range, done) = self.change(&[want], |change| {
            let range = change.grown(range, grows)?;
            let done = change.mprotect(range, bits, &mut gained);
            Ok::<_, Errno>((range, done))
        })?;
        if let Some(gained) = gained {
            self.populate_locked(gained);
        }
        done.and(if end > range.end() { Err(Errno::ENOMEM) } else { Ok(()) })
    }
}

impl<P: Platform, L: Locking> Change<'_, P, L> {
    /// With `PROT_GROWSDOWN` the range begins where the stack does.
    fn grown(&self, range: Range, grows: u32) -> Result<Range, Errno> {
        match grows {
            prot::GROWSDOWN => {
                let vma = self.first(range).ok_or(Errno::ENOMEM)?;
                let grows = vma.attr().flags.has(Flags::GROWS_DOWN);
                if grows { Ok(Range::of(vma.range().start(), range.end())) } else { Err(Errno::EINVAL) }
            }
            // Nothing grows up on this machine.
            prot::GROWSUP if self.at(range.start()).is_some() => Err(Errno::EINVAL),
            _ => Ok(range),
        }
    }

    /// Says in `gained` between where and where locked private memory became writable.
    fn mprotect(&mut self, range: Range, bits: u32, gained: &mut Option<Range>) -> Result<(), Errno> {
        let (prot, exec_only) = (Prot::from_bits(bits), self.mm.exec_only(bits));
        let mut rest = Some(range);
        while let Some(now) = rest {
            let vma = self.at(now.start()).ok_or(Errno::ENOMEM)?;
            let (whole, old) = (vma.range(), vma.attr());
            let part = now.overlap(whole).expect("it covers the start");
            if prot.has(Prot::W) && !old.flags.has(Flags::MAY_WRITE) {
                return Err(Errno::EACCES);
            }
            let flags = old.flags.without(Flags::EXEC_ONLY).with(exec_only);
            if old.prot != prot || old.flags != flags {
                let mut attr = Attr { prot, flags, ..old.skip(part.start() - whole.start()) };
                let was = (old.prot, old.flags);
                self.account(&mut attr, was, part, vma.anon().is_some())?;
                let cuts = usize::from(part.start() > whole.start()) + usize::from(part.end() < whole.end());
                if cuts > 0 && !self.mm.may_split() {
                    return Err(Errno::ENOMEM);
                }
                let (was_prot, was_flags) = was;
                self.alter(part, attr)?;
                let gains = prot.has(Prot::W) && !was_prot.has(Prot::W);
                if gains && was_flags.has(Flags::LOCKED) && !was_flags.has(Flags::SHARED) {
                    self.identify_locked(part);
                    *gained = Some(gained.map_or(part, |before: Range| before.around(part)));
                }
            }
            step(&mut rest, part);
        }
        Ok(())
    }

    /// Linux brings in the pages here, before it looks at the next mapping. We do when we hold nothing; but whose they are decides what
    /// merges with the next.
    fn identify_locked(&self, part: Range) {
        let on_demand = |vma: &&Vma<P, L>| vma.attr().flags.has(Flags::LOCK_ON_FAULT);
        if let Some(vma) = self.at(part.start()).filter(|vma| !on_demand(vma)) {
            self.identify(vma);
        }
    }

    /// A private mapping that becomes writable is promised memory from then on; one that no longer is, and never was written, is not.
    fn account(&self, attr: &mut Attr<P>, was: (Prot, Flags), part: Range, written: bool) -> Result<(), Errno> {
        let (old_prot, old) = was;
        if attr.prot.has(Prot::W) {
            let (mm, pages) = (self.mm, part.pages());
            let grows_data = !super::limits::is_data(old_prot, old);
            if grows_data && !mm.may_expand(attr.prot, attr.flags, pages) && mm.may_expand(old_prot, old, pages) {
                return Err(Errno::ENOMEM);
            }
            let exempt = Flags::ACCOUNTED.with(Flags::SHARED).with(Flags::NO_RESERVE);
            if !old_prot.has(Prot::W) && old.without(exempt) == old {
                attr.flags = attr.flags.with(Flags::ACCOUNTED);
            }
        } else if attr.backing.is_anon() && !written {
            attr.flags = attr.flags.without(Flags::ACCOUNTED);
        }
        Ok(())
    }
}
