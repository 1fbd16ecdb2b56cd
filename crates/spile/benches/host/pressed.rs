//! The same platform, with pages that can leave memory: for a store that does nothing, so that what is measured is the core.

use super::host::Host;
use spile::backing::SwapStore;
use spile::linux::{map, prot};
use spile::platform::{FrameMeta, Frames, Machine, Mmu, Platform};
use spile::reclaim::{self, Reclaimer, Record, SecondChance, ToSwap};
use spile::{Access, Done, FrameId, Layout, Mm, Outcome, PAGE, Range, Shared, Slot, SpaceId, Transfer, VmaRefcount};
use spile_rcu::Global;

/// Operations per scene.
const TIMES: u64 = 100;
const AT: u64 = 0x7000_0000_0000;

/// The platform.
#[derive(Clone, Copy)]
pub struct Pressed {
    host: Host,
    reclaimer: &'static Reclaimer<Pressed>,
    records: &'static [Record],
}

/// Where nothing is kept.
pub struct Nowhere;

// SAFETY: (1) to (4) as the host that it hands everything to, and each has its own.
unsafe impl Frames for Pressed {
    fn alloc(&self) -> Option<FrameId> {
        self.host.alloc()
    }
    unsafe fn free(&self, frame: FrameId) {
        // SAFETY: (1) and (2) the caller says the same.
        unsafe { self.host.free(frame) };
    }
    unsafe fn meta(&self, frame: FrameId) -> &FrameMeta {
        // SAFETY: (1) the caller says the same.
        unsafe { self.host.meta(frame) }
    }
    fn page(&self, frame: FrameId) -> *mut u8 {
        self.host.page(frame)
    }
    unsafe fn zero(&self, _: FrameId) {}
    unsafe fn copy(&self, _: FrameId, _: FrameId) {}
    fn zero_frame(&self) -> FrameId {
        self.host.zero_frame()
    }
}

// SAFETY: (1) and (2) as the host that it hands everything to.
unsafe impl Mmu for Pressed {
    type Flush = ();
    fn issue(&self, space: SpaceId, range: Range) {
        self.host.issue(space, range);
    }
}

impl Machine for Pressed {
    type Pin = ();
    fn pin(&self) {}
}

impl Platform for Pressed {
    type Rcu = Global;
    type Store = ();
    type Reclaim = ToSwap;
    fn rcu(&self) -> &Global {
        &Global
    }
    fn shared(&self) -> &Shared {
        self.host.shared()
    }
}

// SAFETY: (1) and (2) its own, for ever; (3) there is no MMU, and nobody uses a page: each is marked by the core.
unsafe impl reclaim::Pressed for Pressed {
    type Swap = Nowhere;
    type Policy = SecondChance;
    fn reclaimer(&self) -> &Reclaimer<Self> {
        self.reclaimer
    }
    fn free_frames(&self) -> usize {
        usize::MAX
    }
    fn record(&self, frame: FrameId) -> &Record {
        &self.records[frame.0 as usize]
    }
}

impl SwapStore<Pressed> for Nowhere {
    unsafe fn start_write(&self, _: &Pressed, _: Slot, _: FrameId) -> Transfer {
        Transfer::Done
    }
    unsafe fn start_read(&self, _: &Pressed, _: Slot, _: FrameId) -> Transfer {
        Transfer::Done
    }
    fn discard(&self, _: Slot) {}
}

/// An address space with a mapping of so many pages, in a table that is there.
pub fn untouched() -> Mm<Pressed, VmaRefcount> {
    const FRAMES: usize = 1_000;
    let records: Vec<Record> = (0..FRAMES).map(|_| Record::new()).collect();
    let reclaimer = Box::leak(Box::new(Reclaimer::new(Nowhere, 2 * TIMES as u32)));
    let host = Pressed { host: Host::new(FRAMES, false), reclaimer, records: records.leak() };
    let mm = Mm::new(host, Layout::default()).expect("there is memory");
    let rw = prot::READ | prot::WRITE;
    mm.mmap(AT, (TIMES + 1) * PAGE, rw, map::FIXED | map::ANONYMOUS | map::PRIVATE, None, 0).expect("there is memory");
    assert!(matches!(mm.fault(AT + TIMES * PAGE, Access::Write), Outcome::Done(_)));
    mm
}

/// With pages that were written.
pub fn written() -> Mm<Pressed, VmaRefcount> {
    let mm = untouched();
    faults(&mm);
    mm
}

/// With pages that have left memory.
pub fn away() -> Mm<Pressed, VmaRefcount> {
    let mm = written();
    reclaims(&mm);
    mm
}

/// Write faults on fresh pages.
pub fn faults(mm: &Mm<Pressed, VmaRefcount>) {
    (0..TIMES).for_each(|i| assert!(matches!(mm.fault(AT + i * PAGE, Access::Write), Outcome::Done(Done::Anon))));
}

/// All pages leave, and one more: each is looked at, found used, looked at again, and goes.
pub fn reclaims(mm: &Mm<Pressed, VmaRefcount>) {
    let p = mm.platform();
    let done = p.reclaimer.reclaim(p, usize::MAX);
    assert_eq!(done.freed as u64, TIMES + 1);
}

/// They come back.
pub fn returns(mm: &Mm<Pressed, VmaRefcount>) {
    (0..TIMES).for_each(|i| assert!(matches!(mm.fault(AT + i * PAGE, Access::Write), Outcome::Done(Done::Swapped))));
}
