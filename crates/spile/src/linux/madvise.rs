//! madvise(2), and names of anonymous memory (prctl's `PR_SET_VMA_ANON_NAME`).

use super::{Errno, page_align, populate};
use crate::addr::{Access, PAGE, Prot, Range};
use crate::change::Change;
use crate::locking::{Locking, Stable};
use crate::mm::Mm;
use crate::platform::Platform;
use crate::reclaim::sealed::{Advice, Reclaim};
use crate::vma::{Attr, Backing, Flags, Name};

/// `MADV_*`.
#[allow(missing_docs, reason = "Linux's names and numbers")]
pub mod advice {
    pub const NORMAL: i32 = 0;
    pub const RANDOM: i32 = 1;
    pub const SEQUENTIAL: i32 = 2;
    pub const WILLNEED: i32 = 3;
    pub const DONTNEED: i32 = 4;
    pub const FREE: i32 = 8;
    pub const DONTFORK: i32 = 10;
    pub const DOFORK: i32 = 11;
    pub const MERGEABLE: i32 = 12;
    pub const UNMERGEABLE: i32 = 13;
    pub const HUGEPAGE: i32 = 14;
    pub const NOHUGEPAGE: i32 = 15;
    pub const DONTDUMP: i32 = 16;
    pub const DODUMP: i32 = 17;
    pub const WIPEONFORK: i32 = 18;
    pub const KEEPONFORK: i32 = 19;
    pub const COLD: i32 = 20;
    pub const PAGEOUT: i32 = 21;
    pub const POPULATE_READ: i32 = 22;
    pub const POPULATE_WRITE: i32 = 23;
    pub const DONTNEED_LOCKED: i32 = 24;
}

/// What an advice asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// To change what the mappings are.
    Alter,
    /// To drop pages.
    Drop,
    /// To fault pages in.
    Populate(Access),
    /// Nothing that can be seen, if the mappings are of the right kind.
    Hint,
}

fn kind(advice: i32) -> Option<Kind> {
    Some(match advice {
        advice::NORMAL | advice::RANDOM | advice::SEQUENTIAL => Kind::Alter,
        advice::DONTFORK..=advice::KEEPONFORK => Kind::Alter,
        advice::DONTNEED | advice::DONTNEED_LOCKED => Kind::Drop,
        advice::WILLNEED | advice::FREE | advice::COLD | advice::PAGEOUT => Kind::Hint,
        advice::POPULATE_READ => Kind::Populate(Access::Read),
        advice::POPULATE_WRITE => Kind::Populate(Access::Write),
        _ => return None,
    })
}

impl<P: Platform, L: Locking> Mm<P, L> {
    /// Follows an advice about `addr..addr + len`. May sleep. `MADV_FREE`, `MADV_COLD` and `MADV_PAGEOUT` are for hosts whose pages can leave memory; on
    /// others they change nothing.
    ///
    /// # Errors
    ///
    /// As madvise(2). `ENOMEM` for a hole: what is mapped was advised all the same. Other errors: mappings below were advised.
    pub fn madvise(&self, addr: u64, len: u64, advice: i32) -> Result<(), Errno> {
        let kind = kind(advice).ok_or(Errno::EINVAL)?;
        let Some(range) = advised(addr, len)? else { return Ok(()) };
        match kind {
            Kind::Populate(access) => self.madvise_populate(range, access),
            Kind::Alter => self.change(&[range], |change| change.alter_all(range, |_, attr| altered(attr, advice))),
            Kind::Drop => {
                let even_locked = advice == advice::DONTNEED_LOCKED;
                match self.drop_held(range, even_locked) {
                    Some(dropped) => dropped,
                    None => self.change(&[range], |change| change.drop_pages(range, even_locked)),
                }
            }
            Kind::Hint => self.change(&[range], |change| {
                let (p, tables) = (self.platform(), &self.table);
                change.walk(range, |part, attr| {
                    hinted(attr, advice)?;
                    advice_of(advice).into_iter().for_each(|advice| P::Reclaim::advise(p, tables, part, advice));
                    Ok(())
                })
            }),
        }
    }

    /// Names the anonymous mappings of `addr..addr + len`, or takes their names away. Different names keep mappings from merging. May
    /// sleep.
    ///
    /// # Errors
    ///
    /// As prctl(2): `EINVAL`, `EBADF` where a file is mapped, `ENOMEM` for a hole.
    pub fn set_anon_name(&self, addr: u64, len: u64, name: Option<&Name>) -> Result<(), Errno> {
        let printable =
            |name: &Name| name.len() < 80 && name.bytes().all(|b| (0x20..0x7f).contains(&b) && !b"\\`$[]".contains(&b));
        if !name.is_none_or(printable) {
            return Err(Errno::EINVAL);
        }
        let Some(range) = advised(addr, len)? else { return Ok(()) };
        self.change(&[range], |change| {
            change.alter_all(range, |_, attr| match &attr.backing {
                Backing::File(file, _) if file.store().is_some() => Err(Errno::EBADF),
                _ => Ok(Attr { name: name.cloned(), ..attr.clone() }),
            })
        })
    }

    /// DONTNEED within one mapping, held as a fault holds it: nobody who changes another mapping is waited for. `None` if that cannot
    /// be.
    fn drop_held(&self, range: Range, even_locked: bool) -> Option<Result<(), Errno>> {
        let hold = L::try_stabilise(self, range.start()).ok()?;
        if !hold.range().covers(range) {
            return None;
        }
        if let Err(errno) = droppable(hold.vma().attr(), even_locked) {
            return Some(Err(errno));
        }
        // P4: the hold is asked for each table, and lasts until every CPU has forgotten the pages.
        self.drop_pages(range, || hold.still_valid()).then_some(Ok(()))
    }

    fn madvise_populate(&self, range: Range, access: Access) -> Result<(), Errno> {
        for at in (range.start()..range.end()).step_by(PAGE as usize) {
            let wants = if access == Access::Write { Prot::W } else { Prot::R };
            let allows = |vma: &crate::Vma<P, L>| vma.attr().prot.has(wants);
            let allowed = L::look(self, at, |vma| vma.filter(|vma| vma.range().contains(at)).map(allows)).ok_or(Errno::ENOMEM)?;
            if !allowed {
                return Err(Errno::EINVAL);
            }
            self.fault_and_wait(at, access).map_err(populate::errno_of)?;
        }
        Ok(())
    }
}

/// The range that is advised; none if it is empty.
fn advised(addr: u64, len: u64) -> Result<Option<Range>, Errno> {
    let rounded = page_align(len);
    let end = addr.wrapping_add(rounded);
    if !addr.is_multiple_of(PAGE) || (len != 0 && rounded == 0) || end < addr {
        return Err(Errno::EINVAL);
    }
    if rounded == 0 {
        return Ok(None);
    }
    // Nothing is mapped above the address space.
    Range::new(addr, end.min(crate::addr::TABLE_END)).map(Some).map_err(|_| Errno::ENOMEM)
}

fn altered<P: Platform>(attr: &Attr<P>, advice: i32) -> Result<Attr<P>, Errno> {
    let (old, special) = (attr.flags, attr.flags.has(Flags::SPECIAL));
    let access = Flags::RANDOM.with(Flags::SEQUENTIAL);
    let huge = Flags::HUGE_PAGE.with(Flags::NO_HUGE_PAGE);
    let flags = match advice {
        advice::NORMAL => old.without(access),
        advice::RANDOM => old.without(access).with(Flags::RANDOM),
        advice::SEQUENTIAL => old.without(access).with(Flags::SEQUENTIAL),
        advice::DONTFORK => old.with(Flags::DONT_FORK),
        advice::DOFORK if special => return Err(Errno::EINVAL),
        advice::DOFORK => old.without(Flags::DONT_FORK),
        advice::WIPEONFORK if !attr.backing.is_anon() => return Err(Errno::EINVAL),
        advice::WIPEONFORK => old.with(Flags::WIPE_ON_FORK),
        advice::KEEPONFORK => old.without(Flags::WIPE_ON_FORK),
        advice::DONTDUMP => old.with(Flags::DONT_DUMP),
        advice::DODUMP if special => return Err(Errno::EINVAL),
        advice::DODUMP => old.without(Flags::DONT_DUMP),
        advice::MERGEABLE if attr.is_shared() || special => old,
        advice::MERGEABLE => old.with(Flags::MERGEABLE),
        advice::UNMERGEABLE => old.without(Flags::MERGEABLE),
        advice::HUGEPAGE | advice::NOHUGEPAGE if special => return Err(Errno::EINVAL),
        advice::HUGEPAGE => old.without(huge).with(Flags::HUGE_PAGE),
        advice::NOHUGEPAGE => old.without(huge).with(Flags::NO_HUGE_PAGE),
        _ => return Err(Errno::EINVAL),
    };
    Ok(Attr { flags, ..attr.clone() })
}

/// Whether the pages of a mapping may be dropped.
fn droppable<P: Platform>(attr: &Attr<P>, even_locked: bool) -> Result<(), Errno> {
    let kept = attr.flags.has(Flags::LOCKED) && !even_locked || attr.flags.has(Flags::SPECIAL);
    if kept { Err(Errno::EINVAL) } else { Ok(()) }
}

/// What reclaim hears of it.
fn advice_of(advice: i32) -> Option<Advice> {
    match advice {
        advice::COLD => Some(Advice::Cold),
        advice::PAGEOUT => Some(Advice::Out),
        advice::FREE => Some(Advice::Free),
        _ => None,
    }
}

/// Whether a mapping is of the kind that the advice is for.
fn hinted<P: Platform>(attr: &Attr<P>, advice: i32) -> Result<(), Errno> {
    let unfit = match advice {
        advice::FREE => !attr.backing.is_anon() || attr.flags.has(Flags::LOCKED),
        advice::COLD | advice::PAGEOUT => attr.flags.has(Flags::LOCKED),
        _ => false,
    };
    if unfit { Err(Errno::EINVAL) } else { Ok(()) }
}

impl<P: Platform, L: Locking> Change<'_, P, L> {
    /// Calls `each` for every mapping's part of `range`. At the end `ENOMEM` if there were holes.
    fn walk(&mut self, range: Range, mut each: impl FnMut(Range, &Attr<P>) -> Result<(), Errno>) -> Result<(), Errno> {
        let mut covered = range.start();
        let mut holes = false;
        for vma in self.iter(range) {
            let part = vma.range().overlap(range).expect("it touches the range");
            holes |= part.start() > covered;
            each(part, vma.attr())?;
            covered = part.end();
        }
        if holes || covered < range.end() { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// Makes every mapping's part of `range` into what `new` says. At the end `ENOMEM` if there were holes.
    pub(super) fn alter_all(
        &mut self,
        range: Range,
        new: impl Fn(Range, &Attr<P>) -> Result<Attr<P>, Errno>,
    ) -> Result<(), Errno> {
        let mut rest = Some(range);
        let mut holes = false;
        while let Some(now) = rest {
            let Some(vma) = self.first(now) else {
                holes = true;
                break;
            };
            let part = vma.range().overlap(now).expect("it touches the rest");
            holes |= part.start() > now.start();
            let old = vma.attr().skip(part.start() - vma.range().start());
            let cuts = part != vma.range();
            let attr = new(part, &old)?;
            if attr.flags != old.flags || attr.name != old.name {
                if cuts && !self.mm.may_split() {
                    return Err(Errno::ENOMEM);
                }
                self.alter(part, attr)?;
            }
            rest = now.above(part.end());
        }
        if holes { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// DONTNEED: the pages go; the next access finds zeros, or the file.
    fn drop_pages(&mut self, range: Range, even_locked: bool) -> Result<(), Errno> {
        let mm = self.mm;
        self.walk(range, |part, attr| {
            droppable(attr, even_locked)?;
            mm.drop_pages(part, || true);
            Ok(())
        })
    }
}
