//! An entry of a page table, and its bits on x86-64.

use crate::addr::{FrameId, PAGE_SHIFT, Prot};

/// What an entry says.
///
/// Having a `Pte` tells you nothing of the table: it is a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pte {
    /// The page.
    pub frame: FrameId,
    /// What the MMU lets pass. `NONE` keeps the page and lets nothing pass.
    pub prot: Prot,
    /// It has been read or written since this was cleared.
    pub accessed: bool,
    /// It has been written since this was cleared.
    pub dirty: bool,
}

const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
/// Ignored by hardware in an entry that is not present: there is a page, and nothing may pass.
const WITHHELD: u64 = 1 << 8;
/// Ignored by hardware: what the entry's owner asked for, where x86 cannot say it.
const READ: u64 = 1 << 9;
const NO_EXEC: u64 = 1 << 63;
const FRAME: u64 = ((1 << 52) - 1) & !((1 << PAGE_SHIFT) - 1);

impl Pte {
    /// A page that has not been touched.
    pub const fn new(frame: FrameId, prot: Prot) -> Self {
        Self { frame, prot, accessed: false, dirty: false }
    }

    /// With another permission.
    pub const fn with_prot(self, prot: Prot) -> Self {
        Self { prot, ..self }
    }

    /// Marked as written.
    pub const fn dirtied(self) -> Self {
        Self { accessed: true, dirty: true, ..self }
    }

    /// Whether `other` is the same page with the same permission; hardware's bits aside.
    pub fn is_like(self, other: Self) -> bool {
        self.frame == other.frame && self.prot == other.prot
    }

    /// As x86-64 has it.
    pub const fn to_x86(self) -> u64 {
        let mut raw = (self.frame.0 as u64) << PAGE_SHIFT;
        raw |= if self.prot.bits() == 0 { WITHHELD } else { PRESENT | USER };
        raw |= if self.prot.has(Prot::R) { READ } else { 0 };
        raw |= if self.prot.has(Prot::W) { WRITE } else { 0 };
        raw |= if self.prot.has(Prot::X) { 0 } else { NO_EXEC };
        raw |= if self.accessed { ACCESSED } else { 0 };
        raw | if self.dirty { DIRTY } else { 0 }
    }

    /// What x86-64's bits mean.
    pub const fn from_x86(raw: u64) -> Option<Self> {
        if raw & (PRESENT | WITHHELD) == 0 {
            return None;
        }
        let mut bits = if raw & READ != 0 { Prot::R.bits() } else { 0 };
        bits |= if raw & WRITE != 0 { Prot::W.bits() } else { 0 };
        bits |= if raw & (NO_EXEC | WITHHELD) != 0 { 0 } else { Prot::X.bits() };
        let prot = if raw & WITHHELD != 0 { Prot::NONE } else { Prot::from_bits(bits) };
        let frame = FrameId(((raw & FRAME) >> PAGE_SHIFT) as u32);
        Some(Self { frame, prot, accessed: raw & ACCESSED != 0, dirty: raw & DIRTY != 0 })
    }

    pub(crate) const fn table_to_x86(table: FrameId) -> u64 {
        (table.0 as u64) << PAGE_SHIFT | PRESENT | WRITE | USER | ACCESSED
    }

    pub(crate) const fn table_from_x86(raw: u64) -> FrameId {
        FrameId(((raw & FRAME) >> PAGE_SHIFT) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_survive_their_bits() {
        for bits in 0..8 {
            for (accessed, dirty) in [(false, false), (true, false), (true, true)] {
                let pte = Pte { frame: FrameId(0xabcde), prot: Prot::from_bits(bits), accessed, dirty };
                assert_eq!(Pte::from_x86(pte.to_x86()), Some(pte));
            }
        }
        assert_eq!(Pte::from_x86(0), None);
        assert_eq!(Pte::table_from_x86(Pte::table_to_x86(FrameId(77))), FrameId(77));
    }
}
