//! Pages that are away, in slots.

use super::{Denied, Done, Failed, Resolved};
use crate::addr::Slot;
use crate::backing::InSlot;
use crate::locking::{Locking, Stable};
use crate::mm::Mm;
use crate::paging::Spot;
use crate::platform::Platform;
use crate::reclaim::sealed::Reclaim;
use crate::vma::Flags;
use spile_sync::seeded;

/// An access to a page of private memory that is away: shows it again, read from its slot if it is not in memory. A write to one that somebody else has
/// too faults once more, and copies.
pub(super) fn fault<'m, P: Platform, L: Locking>(
    mm: &'m Mm<P, L>,
    hold: &impl Stable<P, L>,
    spot: &Spot<'_, P>,
    slot: Slot,
) -> Resolved<'m, P> {
    let frame = match P::Reclaim::find(mm.platform(), slot) {
        InSlot::Here(frame) => frame,
        InSlot::Reading(token) => {
            if !hold.vma().attr().flags.has(Flags::RANDOM) {
                P::Reclaim::read_ahead(mm.platform(), &mm.table, spot.at(), hold.range());
            }
            return Err(Failed::Wait(token));
        }
        InSlot::Unreadable => {
            // Of this entry's page, or of another's that has the slot by now.
            let tell = || seeded!("told-to-all") || P::Reclaim::tell_unreadable(mm.platform(), slot);
            let told = spot.if_as_seen(|| hold.still_valid(), tell)?;
            return Err(if told { Failed::Denied(Denied::Bus) } else { Failed::Again });
        }
        InSlot::NoMemory => return Err(Failed::Denied(Denied::NoMemory)),
        InSlot::Gone => return Err(Failed::Again),
    };
    spot.bring_in(slot, frame.id(), hold.vma().attr().in_mmu(), || hold.still_valid())?;
    frame.give();
    Ok(Done::Swapped)
}
