//! `madvise`.
//!
//! **Guarantee.** Advice is applied up to the page that refuses it; holes are passed over and told in the end, except when
//! pages are populated, where a hole ends the walk.
//!
//! **Mechanism.** One function per page for each advice.

use super::space::Behind;
use super::{Broken, Naive};
use crate::abi::*;
use crate::subject::{Signal, VmFlags};

const READ_AHEAD: VmFlags = VmFlags(VmFlags::SEQUENTIAL.0 | VmFlags::RANDOM.0);

/// The flags that an advice sets and clears, if that is what it does.
fn change_of(advice: i32) -> Option<(VmFlags, VmFlags)> {
    let none = VmFlags::default();
    Some(match advice {
        MADV_NORMAL => (none, READ_AHEAD),
        MADV_SEQUENTIAL => (VmFlags::SEQUENTIAL, VmFlags::RANDOM),
        MADV_RANDOM => (VmFlags::RANDOM, VmFlags::SEQUENTIAL),
        MADV_DONTFORK => (VmFlags::DONT_FORK, none),
        MADV_DOFORK => (none, VmFlags::DONT_FORK),
        MADV_WIPEONFORK => (VmFlags::WIPE_ON_FORK, none),
        MADV_KEEPONFORK => (none, VmFlags::WIPE_ON_FORK),
        MADV_DONTDUMP => (VmFlags::DONT_DUMP, none),
        MADV_DODUMP => (none, VmFlags::DONT_DUMP),
        _ => return None,
    })
}

fn is_known(advice: i32) -> bool {
    let others = [MADV_WILLNEED, MADV_DONTNEED, MADV_FREE, MADV_COLD, MADV_PAGEOUT, MADV_POPULATE_READ, MADV_POPULATE_WRITE];
    change_of(advice).is_some() || others.contains(&advice)
}

impl Naive {
    pub(super) fn madvise(&mut self, addr: u64, len: u64, advice: i32) -> Result<(), i32> {
        let end = addr.wrapping_add(page_up(len));
        if !is_known(advice) || !is_aligned(addr) || len != 0 && page_up(len) == 0 || end < addr {
            return Err(EINVAL);
        }
        if [MADV_POPULATE_READ, MADV_POPULATE_WRITE].contains(&advice) {
            let write = advice == MADV_POPULATE_WRITE;
            return (addr..end).step_by(PAGE as usize).try_for_each(|page| self.advise_populate(page, write));
        }
        self.walk(addr, end, |naive, from, to| naive.advise(from, to, advice))
    }

    /// Part of one mapping.
    fn advise(&mut self, start: u64, end: u64, advice: i32) -> Result<(), i32> {
        let keeps = self.is_broken(Broken::DontneedKeeps);
        let forgets = advice == MADV_DODUMP && self.is_broken(Broken::DumpForgotten);
        let space = self.now_mut();
        let page = &space.pages[&start];
        let (old, anonymous) = (page.flags, page.behind == Behind::Nothing);
        match advice {
            MADV_DONTNEED | MADV_FREE | MADV_COLD | MADV_PAGEOUT if old.has(VmFlags::LOCKED) => return Err(EINVAL),
            MADV_FREE | MADV_WIPEONFORK if !anonymous => return Err(EINVAL),
            _ => {}
        }
        for page in space.pages.range_mut(start..end).map(|(_, page)| page) {
            match (advice, &mut page.own) {
                (MADV_DONTNEED, own) if !keeps => *own = None,
                (MADV_FREE, Some(own)) => own.give_away(),
                _ => {}
            }
        }
        let (set, clear) = change_of(advice).filter(|_| !forgets).unwrap_or_default();
        let new = old.without(clear).with(set);
        if new != old {
            space.change(start, end, |page| page.flags = new);
        }
        Ok(())
    }

    fn advise_populate(&mut self, addr: u64, write: bool) -> Result<(), i32> {
        let page = self.now().pages.get(&addr).ok_or(ENOMEM)?;
        // Here a mapping must be readable by its flags; that the processor would read it is not enough.
        if !page.flags.has(if write { VmFlags::WRITE } else { VmFlags::READ }) {
            return Err(EINVAL);
        }
        self.fault_in(addr, write).map_err(|signal| if signal == Signal::Bus { EFAULT } else { ENOMEM })
    }
}
