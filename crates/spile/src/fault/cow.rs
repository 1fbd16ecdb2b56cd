//! A write to a page of private memory that may be shared: with a forked space, a file, or all who read zeros.

use super::{Denied, Done, Failed, Resolved, identify, own};
use crate::frame::{Frame, meta};
use crate::locking::{Locking, Stable};
use crate::mm::Mm;
use crate::paging::{Pte, Spot};
use crate::platform::Platform;
use crate::reclaim::sealed::Reclaim;
use spile_sync::seeded;

/// Lets the page that `seen` shows be written: as it is, if nobody else has it, or as a copy. (A page that only lacks what its
/// mapping has meanwhile gained gets here too; then nothing is copied either.)
pub(super) fn make_writable<'m, P: Platform, L: Locking>(
    mm: &'m Mm<P, L>,
    hold: &impl Stable<P, L>,
    spot: &Spot<'_, P>,
    seen: Pte,
) -> Resolved<'m, P> {
    let (p, prot) = (mm.platform(), hold.vma().attr().in_mmu());
    let is_sole = |pte: Pte| seeded!("reuse-a-shared-page") || pte.frame != p.zero_frame() && meta(p, pte.frame).refs() == 1;
    // Asked again under the table's lock, where nobody can share the page: a fork claims the mapping first.
    let reuse = |now: Pte| {
        is_sole(now).then(|| {
            P::Reclaim::returns(p, &mm.table, now.frame, spot.at(), true);
            own(now.frame, prot)
        })
    };
    if is_sole(seen) {
        spot.upgrade(|| hold.still_valid(), reuse)?;
        return Ok(Done::Reused);
    }
    identify(mm, hold)?;
    let frame = Frame::alloc(p).ok_or(Failed::Denied(Denied::NoMemory))?;
    // SAFETY: (1) shown when it is filled; (2) what was seen is the entry's still, when the entry is replaced.
    let fill = || unsafe { frame.imitate(seen.frame) };
    P::Reclaim::comes(p, mm.space(), frame.id(), spot.at());
    spot.replace(own(frame.id(), prot), || hold.still_valid(), fill)?;
    frame.give();
    Ok(Done::Copied)
}
