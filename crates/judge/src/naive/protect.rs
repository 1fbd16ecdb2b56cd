//! `mprotect`, `msync` and names.
//!
//! **Guarantee.** What lies before the page that stopped a call is changed, what lies after it is not.
//!
//! **Mechanism.** Pages in order; a hole or a refusal ends the walk.

use super::map::access_of;
use super::space::Behind;
use super::{Broken, Naive};
use crate::abi::*;
use crate::subject::VmFlags;
use std::rc::Rc;

const ACCESS: VmFlags = VmFlags(VmFlags::READ.0 | VmFlags::WRITE.0 | VmFlags::EXEC.0);
/// Bytes of the longest name, without its end.
const LONGEST_NAME: usize = 79;

impl Naive {
    pub(super) fn mprotect(&mut self, addr: u64, len: u64, prot: u32) -> Result<(), i32> {
        let (down, up) = (prot & PROT_GROWSDOWN != 0, prot & PROT_GROWSUP != 0);
        let prot = prot & !(PROT_GROWSDOWN | PROT_GROWSUP);
        if down && up || !is_aligned(addr) {
            return Err(EINVAL);
        }
        if len == 0 {
            return Ok(());
        }
        let end = addr.wrapping_add(page_up(len));
        if end <= addr {
            return Err(ENOMEM);
        }
        if prot & !(PROT_READ | PROT_WRITE | PROT_EXEC | PROT_SEM) != 0 {
            return Err(EINVAL);
        }
        let first = self.now().first_from(addr).filter(|first| *first < end).ok_or(ENOMEM)?;
        let start = if down { self.grown_from(first)? } else { addr };
        if first > addr && !down {
            return Err(ENOMEM);
        }
        if up {
            return Err(EINVAL);
        }
        self.each_mapping(start, end, |naive, from, to| naive.protect(from, to, prot))
    }

    /// With `PROT_GROWSDOWN` the range begins where its first mapping does, and that must grow down.
    fn grown_from(&self, first: u64) -> Result<u64, i32> {
        let grows = self.now().pages[&first].flags.has(VmFlags::GROWS_DOWN);
        if grows { Ok(self.now().bounds(first).0) } else { Err(EINVAL) }
    }

    /// Part of one mapping.
    fn protect(&mut self, start: u64, end: u64, prot: u32) -> Result<(), i32> {
        let page = &self.now().pages[&start];
        let (old, access) = (page.flags, access_of(prot));
        // The flag that allows an access lies four bits above it.
        if !self.is_broken(Broken::WriteUnopened) && !old.has(VmFlags(access.0 << 4)) {
            return Err(EACCES);
        }
        let exec_only = self.world.traits.exec_only && prot == PROT_EXEC;
        let mut new = old.without(ACCESS).with(access);
        if new == old && exec_only == page.exec_only {
            return Ok(());
        }
        let writable = access.has(VmFlags::WRITE);
        let counted = VmFlags::ACCOUNTED.with(VmFlags::WRITE).with(VmFlags::SHARED).with(VmFlags::NO_RESERVE);
        if writable && !old.has_any(counted) {
            new = new.with(VmFlags::ACCOUNTED);
        } else if !writable && page.behind == Behind::Nothing && page.kin.family.is_none() {
            // Nothing was written, so nothing is committed any more.
            new = new.without(VmFlags::ACCOUNTED);
        }
        self.now_mut().change(start, end, |page| {
            page.flags = new;
            page.exec_only = exec_only;
        });
        let was = old.0 & (VmFlags::WRITE.0 | VmFlags::SHARED.0 | VmFlags::LOCKED.0);
        if writable && was == VmFlags::LOCKED.0 {
            self.populate_what_can(start, end);
        }
        Ok(())
    }

    pub(super) fn msync(&mut self, addr: u64, len: u64, flags: u32) -> Result<(), i32> {
        let both = flags & (MS_ASYNC | MS_SYNC) == MS_ASYNC | MS_SYNC;
        if flags & !(MS_ASYNC | MS_INVALIDATE | MS_SYNC) != 0 || !is_aligned(addr) || both {
            return Err(EINVAL);
        }
        let end = addr.wrapping_add(page_up(len));
        if end < addr {
            return Err(ENOMEM);
        }
        let strict = flags & MS_INVALIDATE != 0 && !self.is_broken(Broken::InvalidateLocked);
        let mut holes = false;
        for page in (addr..end).step_by(PAGE as usize) {
            match self.now().pages.get(&page) {
                // A hole ends the walk only for `MS_ASYNC` alone, which has nothing to do anyway.
                None if flags == MS_ASYNC => return Err(ENOMEM),
                None => holes = true,
                Some(page) if strict && page.flags.has(VmFlags::LOCKED) => return Err(EBUSY),
                Some(_) => {}
            }
        }
        if holes { Err(ENOMEM) } else { Ok(()) }
    }

    pub(super) fn set_name(&mut self, addr: u64, len: u64, name: Option<&str>) -> Result<(), i32> {
        let bad = |byte: u8| !(0x20..0x7f).contains(&byte) || b"\\`$[]".contains(&byte);
        let refused = name.is_some_and(|name| name.len() > LONGEST_NAME || name.bytes().any(bad));
        if !self.world.traits.anon_names || refused || !is_aligned(addr) || len != 0 && page_up(len) == 0 {
            return Err(EINVAL);
        }
        let end = addr.wrapping_add(page_up(len));
        if end < addr {
            return Err(EINVAL);
        }
        let name: Option<Rc<str>> = name.map(Rc::from);
        self.walk(addr, end, |naive, from, to| {
            let page = &naive.now().pages[&from];
            if matches!(page.behind, Behind::Object { file: Some(_), .. }) {
                return Err(EBADF);
            }
            if page.name != name {
                naive.now_mut().change(from, to, |page| page.name.clone_from(&name));
            }
            Ok(())
        })
    }

    /// Calls `each` for the parts of mappings that lie in a range, in order, until one refuses. A hole is an error in the
    /// end only.
    pub(super) fn walk(
        &mut self,
        start: u64,
        end: u64,
        mut each: impl FnMut(&mut Self, u64, u64) -> Result<(), i32>,
    ) -> Result<(), i32> {
        let (mut at, mut holes) = (start, false);
        while at < end {
            let Some(first) = self.now().first_from(at).filter(|first| *first < end) else { return Err(ENOMEM) };
            holes |= first > at;
            if holes && self.is_broken(Broken::HolesStopAdvice) {
                break;
            }
            at = self.now().bounds(first).1.min(end);
            each(self, first, at)?;
        }
        if holes { Err(ENOMEM) } else { Ok(()) }
    }

    /// The same, but a hole ends it.
    pub(super) fn each_mapping(
        &mut self,
        start: u64,
        end: u64,
        mut each: impl FnMut(&mut Self, u64, u64) -> Result<(), i32>,
    ) -> Result<(), i32> {
        let mut at = start;
        while at < end {
            if !self.now().pages.contains_key(&at) {
                return Err(ENOMEM);
            }
            let stop = self.now().bounds(at).1.min(end);
            each(self, at, stop)?;
            at = stop;
        }
        Ok(())
    }
}
