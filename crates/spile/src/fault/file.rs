//! Pages of files.

use super::{Denied, Done, Failed, FaultKind, Resolved, identify, own};
use crate::addr::{Access, PAGE, Prot, Range};
use crate::backing::{File, Found};
use crate::locking::{Locking, Stable};
use crate::mm::Mm;
use crate::paging::{Pte, Spot};
use crate::platform::Platform;
use crate::reclaim::sealed::Reclaim;
use crate::vma::Flags;
use spile_sync::seeded;

/// How many pages of a file one fault maps, if they are there: a part of one table.
const AROUND: u64 = if cfg!(loom) { 2 } else { 16 };

/// The first access to a page of a file mapping.
pub(super) fn fault<'m, P: Platform, L: Locking>(
    mm: &'m Mm<P, L>,
    hold: &impl Stable<P, L>,
    file: &File<P>,
    spot: &Spot<'_, P>,
    access: Access,
) -> Resolved<'m, P> {
    let p = mm.platform();
    let (vma, page) = (hold.vma(), hold.vma().page_at(spot.at()));
    let (attr, write) = (vma.attr(), access == Access::Write);
    let copies = FaultKind::of(attr, access) == FaultKind::FileCopy;
    if copies {
        // Before it is known whether there is a page, as Linux does.
        identify(mm, hold)?;
    }
    let cached = match file.page(p, page) {
        Found::Here(frame) => frame,
        Found::Reading(token) => {
            if !attr.flags.has(Flags::RANDOM) {
                file.read_ahead(p, page);
            }
            return Err(Failed::Wait(token));
        }
        Found::BeyondEnd | Found::Unreadable => return Err(Failed::Denied(Denied::Bus)),
        Found::NoMemory => return Err(Failed::Denied(Denied::NoMemory)),
    };
    // P1: the page may leave its file, or the file end before it, until the entry is written.
    let good = || hold.still_valid() && file.still_has(p, page, cached.id());
    if copies {
        let copy = cached.duplicate().ok_or(Failed::Denied(Denied::NoMemory))?;
        P::Reclaim::comes(p, mm.space(), copy.id(), spot.at());
        spot.install(own(copy.id(), attr.in_mmu()), good)?;
        copy.give();
        return Ok(Done::Copied);
    }
    let blindly = seeded!("dirty-before-the-lock");
    if write {
        if blindly {
            file.set_dirty(page);
        }
        // Last under the table's lock: who makes it clean locks the table after that, and finds the entry.
        let dirtied = || {
            good()
                && (blindly || {
                    file.set_dirty(page);
                    true
                })
        };
        spot.install(own(cached.id(), attr.in_mmu()), dirtied)?;
    } else {
        spot.install(Pte::new(cached.id(), attr.in_mmu().without(Prot::W)), good)?;
    }
    cached.give();
    if !write && !attr.flags.has(Flags::RANDOM) {
        around(mm, hold, file, spot.at());
    }
    Ok(if write { Done::Dirtied } else { Done::File })
}

/// Maps what else is cached near `at`, clipped to what is held (P9).
fn around<P: Platform, L: Locking>(mm: &Mm<P, L>, hold: &impl Stable<P, L>, file: &File<P>, at: u64) {
    let p = mm.platform();
    let window = at & !(AROUND * PAGE - 1);
    let window = Range::of(window, window + AROUND * PAGE);
    let held = if seeded!("p9-unclipped") { window } else { hold.range() };
    let Some(window) = window.overlap(held) else { return };
    let prot = hold.vma().attr().in_mmu().without(Prot::W);
    let first = hold.vma().page_at(hold.vma().range().start());
    let page_at = |at: u64| first.wrapping_add(at.wrapping_sub(hold.vma().range().start()) / PAGE);
    mm.table.install_around(
        p,
        window,
        || hold.vma().attr().flags.has(Flags::LOCKED),
        || hold.still_valid(),
        |at| {
            let frame = file.cached(p, page_at(at))?;
            Some(Pte::new(frame.give(), prot))
        },
    );
}

/// A write to a page of a shared file mapping that is mapped for reading: from now on it is dirty.
pub(super) fn make_writable<'m, P: Platform, L: Locking>(
    mm: &'m Mm<P, L>,
    hold: &impl Stable<P, L>,
    file: &File<P>,
    spot: &Spot<'_, P>,
    seen: Pte,
) -> Resolved<'m, P> {
    let (p, page) = (mm.platform(), hold.vma().page_at(spot.at()));
    if file.ends_before(page) {
        // It is about to be taken away.
        return Err(Failed::Denied(Denied::Bus));
    }
    let prot = hold.vma().attr().in_mmu();
    let good = || hold.still_valid() && file.still_has(p, page, seen.frame);
    let blindly = seeded!("dirty-before-the-lock");
    if blindly {
        file.set_dirty(page);
    }
    let dirtied = |now: Pte| {
        // Under the table's lock, where the entry's hold keeps the page in the file. Before, it may leave the file and come again in the same frame,
        // clean, and all would be as it was seen.
        if !blindly {
            file.set_dirty(page);
        }
        Some(own(now.frame, prot))
    };
    spot.upgrade(good, dirtied)?;
    Ok(Done::Dirtied)
}
