//! An entry of a page table, and where its parts are in the MMU's word.

use crate::addr::{FrameId, Prot, Slot};

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
}

/// Where the parts of an entry are in an MMU's word.
///
/// What has no bit in hardware takes one that it ignores. [`Mmu`](crate::Mmu) checks, when it is compiled, that the parts do not overlap.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// Set in the entry of a page to which something may pass.
    pub page: u64,
    /// Set instead where nothing may: to hardware, an entry that is not there.
    pub withheld: u64,
    /// Set instead where the page is away, in a slot whose number takes the frame's place: to hardware, an entry that is not there.
    pub away: u64,
    /// Set besides where the page shall stay in memory: an evictor leaves it alone. May be 0 on a host where no page leaves.
    pub kept: u64,
    /// Set in the entry that leads to a table.
    pub table: u64,
    /// The bit that says whether reads may pass.
    pub read: u64,
    /// The bit that says whether writes may pass.
    pub write: u64,
    /// The bit that says whether fetches may pass.
    pub exec: u64,
    /// Those of these three that are set where it may *not* pass.
    pub forbids: u64,
    /// The bit that hardware sets when the page is used.
    pub accessed: u64,
    /// The bit that hardware sets when the page is written.
    pub dirty: u64,
    /// The lowest bit of the frame's number.
    pub frame: u32,
}

impl Format {
    /// That of x86-64. Bits 8 to 11 are ignored by hardware.
    pub const X86_64: Self = Self {
        page: 1 | 1 << 2,
        withheld: 1 << 8,
        away: 1 << 10,
        kept: 1 << 11,
        table: 1 | 1 << 1 | 1 << 2 | 1 << 5,
        read: 1 << 9,
        write: 1 << 1,
        exec: 1 << 63,
        forbids: 1 << 63,
        accessed: 1 << 5,
        dirty: 1 << 6,
        frame: 12,
    };

    /// Whether entries keep what is put into them.
    pub const fn is_sound(self) -> bool {
        let frame = (u32::MAX as u64) << self.frame;
        let parts = [self.page, self.withheld, self.away, self.read, self.write, self.exec, self.accessed, self.dirty, frame];
        let (mut taken, mut i) = (0, 0);
        while i < parts.len() {
            if parts[i] == 0 || parts[i] & taken != 0 {
                return false;
            }
            taken |= parts[i];
            i += 1;
        }
        let may = self.read | self.write | self.exec;
        self.kept & taken == 0 && self.frame < u32::BITS && self.table != 0 && self.table & frame == 0 && self.forbids & !may == 0
    }

    /// The word of an entry.
    #[inline]
    pub const fn encode(self, pte: Pte) -> u64 {
        let mut raw = self.forbids | (pte.frame.0 as u64) << self.frame;
        raw |= if pte.prot.bits() == 0 { self.withheld } else { self.page };
        raw ^= if pte.prot.has(Prot::R) { self.read } else { 0 };
        raw ^= if pte.prot.has(Prot::W) { self.write } else { 0 };
        raw ^= if pte.prot.has(Prot::X) { self.exec } else { 0 };
        raw |= if pte.accessed { self.accessed } else { 0 };
        raw | if pte.dirty { self.dirty } else { 0 }
    }

    /// What a word means that shows a page; none if it is 0.
    #[inline]
    pub const fn decode(self, raw: u64) -> Option<Pte> {
        if raw == 0 {
            return None;
        }
        let may = raw ^ self.forbids;
        let mut prot = if may & self.read != 0 { Prot::R } else { Prot::NONE };
        prot = if may & self.write != 0 { prot.with(Prot::W) } else { prot };
        prot = if may & self.exec != 0 { prot.with(Prot::X) } else { prot };
        let (accessed, dirty) = (raw & self.accessed != 0, raw & self.dirty != 0);
        Some(Pte { frame: self.decode_table(raw), prot, accessed, dirty })
    }

    /// The word of an entry whose page is away.
    #[inline]
    pub const fn encode_slot(self, slot: Slot) -> u64 {
        (slot.0 as u64) << self.frame | self.away
    }

    /// Where the page of an entry is, if it is away.
    #[inline]
    pub const fn decode_slot(self, raw: u64) -> Option<Slot> {
        let is_here = raw & (self.page | self.withheld) != 0;
        if raw & self.away == 0 || is_here { None } else { Some(Slot((raw >> self.frame) as u32)) }
    }

    /// The word of an entry that leads to a table.
    #[inline]
    pub const fn encode_table(self, table: FrameId) -> u64 {
        (table.0 as u64) << self.frame | self.table
    }

    /// The table that an entry leads to.
    #[inline]
    pub const fn decode_table(self, raw: u64) -> FrameId {
        FrameId((raw >> self.frame) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ARM's, which says more by forbidding.
    const AARCH64: Format = Format {
        page: 3 | 1 << 6,
        withheld: 1 << 55,
        away: 1 << 58,
        kept: 0,
        table: 3,
        read: 1 << 56,
        write: 1 << 7,
        exec: 1 << 54,
        forbids: 1 << 7 | 1 << 54,
        accessed: 1 << 10,
        dirty: 1 << 57,
        frame: 12,
    };

    #[test]
    fn entries_survive_their_bits() {
        for format in [Format::X86_64, AARCH64] {
            assert!(format.is_sound());
            for bits in 0..8 {
                for (accessed, dirty) in [(false, false), (true, false), (true, true)] {
                    let pte = Pte { frame: FrameId(0xfedc_ba98), prot: Prot::from_bits(bits), accessed, dirty };
                    assert_eq!(format.decode(format.encode(pte)), Some(pte));
                }
            }
            assert_eq!(format.decode(0), None);
            assert_eq!(format.decode_slot(format.encode_slot(Slot(u32::MAX))), Some(Slot(u32::MAX)));
            assert_eq!(format.decode_slot(format.encode(Pte::new(FrameId(1), Prot::NONE))), None);
            assert_eq!(format.decode_slot(0), None);
            assert_eq!(format.decode_table(format.encode_table(FrameId(77))), FrameId(77));
        }
    }

    #[test]
    fn words_are_those_of_x86() {
        let word = |prot| Format::X86_64.encode(Pte::new(FrameId(5), prot));
        assert_eq!(word(Prot::NONE), 0x8000_0000_0000_5100);
        assert_eq!(word(Prot::RW), 0x8000_0000_0000_5207);
        assert_eq!(word(Prot::R.with(Prot::X)), 0x5205);
        assert_eq!(Format::X86_64.encode_table(FrameId(5)), 0x5027);
    }

    #[test]
    fn parts_that_overlap_are_found() {
        let x86 = Format::X86_64;
        assert!(!Format { withheld: 0, ..x86 }.is_sound());
        assert!(!Format { dirty: x86.accessed, ..x86 }.is_sound());
        assert!(!Format { exec: 1 << 12, ..x86 }.is_sound());
        assert!(!Format { frame: 40, ..x86 }.is_sound());
        assert!(!Format { kept: x86.dirty, ..x86 }.is_sound());
        assert!(!Format { forbids: x86.page, ..x86 }.is_sound());
    }
}
