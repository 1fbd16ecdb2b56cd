//! The first access to a page of anonymous memory.

use super::{Done, Failed, Resolved, identify, own};
use crate::addr::{Access, Prot};
use crate::frame::Frame;
use crate::locking::{Locking, Stable};
use crate::mm::Mm;
use crate::paging::{Pte, Spot};
use crate::platform::Platform;
use crate::reclaim::sealed::Reclaim;

pub(super) fn fault<'m, P: Platform, L: Locking>(
    mm: &'m Mm<P, L>,
    hold: &impl Stable<P, L>,
    spot: &Spot<'_, P>,
    access: Access,
) -> Resolved<'m, P> {
    let (p, prot) = (mm.platform(), hold.vma().attr().in_mmu());
    if access != Access::Write {
        // All readers of untouched memory share one frame, which nobody owns.
        let zero = Pte::new(p.zero_frame(), prot.without(Prot::W));
        spot.install(zero, || hold.still_valid())?;
        return Ok(Done::Zero);
    }
    identify(mm, hold)?;
    let frame = Frame::zeroed(p).ok_or(Failed::Denied(super::Denied::NoMemory))?;
    P::Reclaim::comes(p, mm.space(), frame.id(), spot.at());
    spot.install(own(frame.id(), prot), || hold.still_valid())?;
    frame.give();
    Ok(Done::Anon)
}
