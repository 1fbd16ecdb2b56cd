//! Pages stay in memory: what a host says that wants none of this.
//!
//! **Guarantee.** Nothing is kept, and nothing is done: a fault is what it is without reclaim.
//!
//! **Mechanism.** All that the core asks is answered at once, and types that would be in the way are empty.

use super::sealed::{Advice, Freeing, Reclaim};
use crate::addr::{FrameId, Range, Slot, SpaceId};
use crate::backing::InSlot;
#[cfg(feature = "file")]
use crate::backing::{File, Unwritten};
use crate::paging::{PageTable, Pte};
use crate::platform::Platform;
#[cfg(feature = "file")]
use crate::wait::Token;
use core::ops::Deref;

impl<P: Platform> Reclaim<P> for () {
    const KEEPS: bool = false;
    type Seen = ();
    type Keeps = ();
    type Residents = ();
    type Tables = Inline<PageTable<P>>;

    #[inline(always)]
    fn seen(_: &P, _: u64) {}

    #[inline(always)]
    fn slot((): ()) -> Option<Slot> {
        None
    }

    #[inline(always)]
    fn keeps(_: impl FnOnce() -> bool) {}

    #[inline(always)]
    fn is_kept((): ()) -> bool {
        false
    }

    #[inline(always)]
    fn is_still(_: &P, (): (), _: u64) -> bool {
        true
    }

    fn keep(_: &P, tables: PageTable<P>, _: Option<SpaceId>) -> Inline<PageTable<P>> {
        Inline(tables)
    }

    fn leave(_: &P, _: &Self::Tables) {}

    #[inline(always)]
    fn charge(_: &P, (): &()) -> bool {
        true
    }

    #[inline(always)]
    fn charge_anyway(_: &P, (): &()) {}

    #[inline(always)]
    fn uncharge(_: &P, (): &()) {}

    fn inherit((): &(), (): &()) {}

    fn shows_none((): &()) -> bool {
        true
    }

    #[inline(always)]
    fn begins(_: &P, _: FrameId) {}

    #[inline(always)]
    fn comes(_: &P, _: SpaceId, _: FrameId, _: u64) {}

    #[inline(always)]
    fn returns(_: &P, _: &PageTable<P>, _: FrameId, _: u64, _: bool) {}

    #[inline(always)]
    fn moved(_: &P, _: SpaceId, _: Pte, _: u64) {}

    #[inline(always)]
    fn share(_: &P, _: Slot) {}

    #[inline(always)]
    fn give_up(_: &P, _: Slot) {}

    fn find(_: &P, _: Slot) -> InSlot<'_, P> {
        InSlot::Gone
    }

    fn read_ahead(_: &P, _: &PageTable<P>, _: u64, _: Range) {}

    #[cfg(feature = "file")]
    fn read_slot_ahead(_: &P, _: Slot) {}

    fn can_spare(_: &P, _: u64) -> bool {
        false
    }

    fn tell_unreadable(_: &P, _: Slot) -> bool {
        false
    }

    fn still_has(_: &P, _: Slot, _: FrameId) -> bool {
        false
    }

    fn is_sole(_: &P, _: Slot, _: FrameId) -> bool {
        false
    }

    #[inline(always)]
    fn has_relief(_: &P) -> bool {
        false
    }

    #[inline(always)]
    fn advise(_: &P, _: &PageTable<P>, _: Range, _: Advice) {}

    fn free_some(_: &P) -> Freeing {
        Freeing::Nothing
    }

    fn has_room_soon(_: &P, _: &PageTable<P>) -> bool {
        false
    }

    fn free_room(_: &P, _: &PageTable<P>) -> Freeing {
        Freeing::Nothing
    }

    #[cfg(feature = "file")]
    type Links = ();
    #[cfg(feature = "file")]
    type Link = ();

    #[cfg(feature = "file")]
    fn opened(_: &P, _: &File<P>) {}

    #[cfg(feature = "file")]
    fn closed(_: &P, _: u64) {}

    #[cfg(feature = "file")]
    #[inline(always)]
    fn link(_: &P, _: &Self::Tables, _: Range, _: &File<P>, _: u64, _: Option<&()>) -> Option<()> {
        Some(())
    }

    #[cfg(feature = "file")]
    #[inline(always)]
    fn of_file(_: &P, _: FrameId, _: u64, _: u64) {}

    #[cfg(feature = "file")]
    #[inline(always)]
    fn take(_: &P, _: Slot, _: FrameId, _: impl FnOnce() -> bool) -> Result<bool, Token<'_, P>> {
        Ok(false)
    }

    #[cfg(feature = "file")]
    #[inline(always)]
    fn transfer_begins(_: &P) {}

    #[cfg(feature = "file")]
    #[inline(always)]
    fn read_ends(_: &P, _: Option<FrameId>) {}

    #[cfg(feature = "file")]
    fn write_ends(_: &P, _: FrameId, _: bool) {}

    #[cfg(feature = "file")]
    fn flush(_: &P, _: &File<P>, _: core::ops::Range<u64>) -> Result<(), Unwritten> {
        Ok(())
    }
}

/// Tables that nobody but their space finds.
#[derive(Debug)]
pub struct Inline<T>(T);

impl<T> Deref for Inline<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}
