//! `mmap`, `munmap` and `brk`.
//!
//! **Guarantee.** Errors are found in the kernel's order, so that a call with two faults names the same one.
//!
//! **Mechanism.** The address is chosen first, then limits, then the file; only when nothing can fail any more is the old
//! mapping taken away.

use super::joins::{Join, Kin};
use super::space::{Behind, Page};
use super::{Broken, Naive, Place};
use crate::abi::*;
use crate::subject::VmFlags;

/// Pages that a mapping which grows down keeps free below it.
const GUARD: u64 = 256 * PAGE;

/// The flags that a mapping has whoever maps it.
const MAY: VmFlags = VmFlags(VmFlags::MAY_READ.0 | VmFlags::MAY_WRITE.0 | VmFlags::MAY_EXEC.0);

/// Protection bits as flags.
pub(super) fn access_of(prot: u32) -> VmFlags {
    let bits = [(PROT_READ, VmFlags::READ), (PROT_WRITE, VmFlags::WRITE), (PROT_EXEC, VmFlags::EXEC)];
    bits.iter().filter(|(bit, _)| prot & bit != 0).fold(VmFlags::default(), |flags, (_, flag)| flags.with(*flag))
}

/// The flags that `mmap` flags stand for.
fn flags_of(flags: u32) -> VmFlags {
    let bits = [
        (MAP_GROWSDOWN, VmFlags::GROWS_DOWN),
        (MAP_LOCKED, VmFlags::LOCKED),
        (MAP_NORESERVE, VmFlags::NO_RESERVE),
        (MAP_STACK, VmFlags::NO_HUGE_PAGE),
        // It is kept even where it means nothing.
        (MAP_SYNC, VmFlags::SYNC),
    ];
    bits.iter().filter(|(bit, _)| flags & bit != 0).fold(MAY, |all, (_, flag)| all.with(*flag))
}

impl Naive {
    pub(super) fn mmap(
        &mut self,
        addr: u64,
        len: u64,
        prot: u32,
        flags: u32,
        file: Option<usize>,
        offset: u64,
    ) -> Result<Place, i32> {
        if !is_aligned(offset) {
            return Err(EINVAL);
        }
        let file = if flags & MAP_ANONYMOUS == 0 { Some(file.ok_or(EBADF)?) } else { None };
        if len == 0 {
            return Err(EINVAL);
        }
        let len = page_up(len);
        if len == 0 {
            return Err(ENOMEM);
        }
        let fixed = flags & (MAP_FIXED | MAP_FIXED_NOREPLACE) != 0;
        let addr = if fixed { addr } else { self.round_hint(addr) };
        let place = self.choose(addr, len, fixed)?;
        if flags & MAP_FIXED_NOREPLACE != 0 && self.now().overlaps(addr, addr + len) && !self.is_broken(Broken::NoreplaceReplaces)
        {
            return Err(EEXIST);
        }
        self.check_lock(flags, len)?;
        let all = self.file_rules(prot, flags, file, offset, len)?.with(access_of(prot));
        self.check_room(addr, len, place)?;
        self.insert(place, len, all, prot, file, offset / PAGE, flags)
    }

    fn round_hint(&self, addr: u64) -> u64 {
        let addr = page_down(addr);
        if addr != 0 && addr < self.world.traits.min_addr { page_up(self.world.traits.min_addr) } else { addr }
    }

    /// Where a mapping goes. A hint is taken if the room is free and not within the gap of a mapping that grows down.
    pub(super) fn choose(&self, addr: u64, len: u64, fixed: bool) -> Result<Place, i32> {
        if len > TASK_SIZE {
            return Err(ENOMEM);
        }
        if fixed {
            return match () {
                () if addr > TASK_SIZE - len => Err(ENOMEM),
                () if !is_aligned(addr) => Err(EINVAL),
                () if addr < self.world.traits.min_addr => Err(EPERM),
                () => Ok(Place::At(addr)),
            };
        }
        if addr == 0 || addr > TASK_SIZE - len {
            return Ok(Place::Elsewhere);
        }
        let (space, gapped) = (self.now(), !self.is_broken(Broken::HintInGap));
        let free = match space.first_from(addr) {
            None => true,
            Some(above) if gapped && space.pages[&above].flags.has(VmFlags::GROWS_DOWN) => {
                addr + len <= above.saturating_sub(GUARD)
            }
            Some(above) => addr + len <= above,
        };
        // A mapping that contains `addr` has a page there, so the first page from `addr` is within it.
        Ok(if free { Place::At(addr) } else { Place::Elsewhere })
    }

    fn check_lock(&self, flags: u32, len: u64) -> Result<(), i32> {
        let limit = self.world.limits.locked;
        if flags & MAP_LOCKED == 0 {
            Ok(())
        } else if limit == 0 {
            Err(EPERM)
        } else if self.now().locked + len / PAGE > limit {
            Err(EAGAIN)
        } else {
            Ok(())
        }
    }

    /// What the kind of mapping and the file decide: the flags, or why not.
    fn file_rules(&self, prot: u32, flags: u32, file: Option<usize>, offset: u64, len: u64) -> Result<VmFlags, i32> {
        let all = flags_of(flags);
        let grows = flags & MAP_GROWSDOWN != 0;
        let shared = VmFlags::SHARED.with(VmFlags::MAY_SHARE);
        let Some(file) = file.map(|file| &self.world.files[file]) else {
            return match flags & MAP_TYPE {
                MAP_SHARED if grows => Err(EINVAL),
                MAP_SHARED => Ok(all.with(shared)),
                MAP_PRIVATE => Ok(all),
                _ => Err(EINVAL),
            };
        };
        if offset / PAGE > (i64::MAX as u64 - len) / PAGE {
            return Err(EOVERFLOW);
        }
        let kind = flags & MAP_TYPE;
        if ![MAP_SHARED, MAP_SHARED_VALIDATE, MAP_PRIVATE].contains(&kind) {
            return Err(EINVAL);
        }
        // `MAP_FIXED_NOREPLACE` is younger than the flags that may be validated, so it is refused here.
        if kind == MAP_SHARED_VALIDATE && flags & !MAP_LEGACY != 0 {
            return Err(EOPNOTSUPP);
        }
        if kind != MAP_PRIVATE && prot & PROT_WRITE != 0 && !file.writable || !file.readable {
            return Err(EACCES);
        }
        match (kind, file.writable) {
            _ if grows => Err(EINVAL),
            (MAP_PRIVATE, _) => Ok(all),
            (_, true) => Ok(all.with(shared)),
            (_, false) => Ok(all.with(VmFlags::MAY_SHARE).without(VmFlags::MAY_WRITE)),
        }
    }

    /// `RLIMIT_AS`: what is replaced does not count. It is cut out before this is known, and the cuts stay if it fails.
    fn check_room(&mut self, addr: u64, len: u64, place: Place) -> Result<(), i32> {
        let replaced = if place == Place::Elsewhere { 0 } else { self.now().addrs(addr, addr + len).len() as u64 };
        let room = self.check_expand(len / PAGE - replaced);
        if room.is_err() && replaced > 0 {
            self.now_mut().split(addr);
            self.now_mut().split(addr + len);
        }
        room
    }

    /// `RLIMIT_AS` for so many more pages.
    pub(super) fn check_expand(&self, pages: u64) -> Result<(), i32> {
        if self.now().mapped().saturating_add(pages) > self.world.limits.mapped { Err(ENOMEM) } else { Ok(()) }
    }

    #[allow(clippy::too_many_arguments)] // They are those of the call.
    fn insert(
        &mut self,
        place: Place,
        len: u64,
        flags: VmFlags,
        prot: u32,
        file: Option<usize>,
        offset: u64,
        map_flags: u32,
    ) -> Result<Place, i32> {
        let Place::At(addr) = place else { return Ok(place) };
        let pages = len / PAGE;
        let behind = match file {
            Some(file) => Behind::Object { object: self.world.files[file].object, file: Some(file) },
            None if flags.has(VmFlags::MAY_SHARE) => Behind::Object { object: self.store.add_anonymous(pages), file: None },
            None => Behind::Nothing,
        };
        let first = match behind {
            Behind::Nothing => addr / PAGE,
            Behind::Object { file: None, .. } => 0,
            Behind::Object { .. } => offset,
        };
        let counted = flags.has(VmFlags::WRITE) && !flags.has_any(VmFlags::SHARED.with(VmFlags::NO_RESERVE));
        let flags = if counted { flags.with(VmFlags::ACCOUNTED) } else { flags };
        let exec_only = self.world.traits.exec_only && prot == PROT_EXEC;
        let space = self.now_mut();
        space.remove(addr, addr + len);
        for i in 0..pages {
            let (starts, kin) = (i == 0, Kin::default());
            let page = Page { flags, exec_only, behind, at: first + i, own: None, name: None, starts, kin };
            space.pages.insert(addr + i * PAGE, page);
        }
        space.locked += if flags.has(VmFlags::LOCKED) { pages } else { 0 };
        space.join(addr, addr + len, Join::New);
        if flags.has(VmFlags::LOCKED) || map_flags & (MAP_POPULATE | MAP_NONBLOCK) == MAP_POPULATE {
            self.populate_what_can(addr, addr + len);
        }
        Ok(place)
    }

    pub(super) fn munmap(&mut self, addr: u64, len: u64) -> Result<(), i32> {
        if !is_aligned(addr) || addr > TASK_SIZE || len > TASK_SIZE - addr || page_up(len) == 0 {
            return Err(EINVAL);
        }
        self.now_mut().remove(addr, addr + page_up(len));
        Ok(())
    }

    pub(super) fn brk(&mut self, offset: u64) -> u64 {
        let (old, new) = (page_up(self.now().broke), page_up(offset));
        if new <= old || self.check_expand((new - old) / PAGE).is_ok() {
            self.now_mut().broke = offset;
        }
        self.now().broke
    }
}
