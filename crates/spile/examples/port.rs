//! The smallest port to a kernel: what it writes to have the core on one hart of a RISC-V, a trap handler, and a program's accesses.
//!
//! **Guarantee.** Nothing here needs `std`. A fault runs with interrupts off from its beginning to its end.
#![no_std]
extern crate std; // For printing.

use core::sync::atomic::{AtomicBool, AtomicU8, Ordering::*};
use spile::paging::Format;
use spile::*;
use spile_rcu::{Rcu, qsbr};

type Space = Mm<Port, VmaRefcount>;

const FRAMES: usize = 256;
#[repr(align(4096))]
struct Memory([[AtomicU8; PAGE as usize]; FRAMES]);
static MEMORY: Memory = Memory([const { [const { AtomicU8::new(0) }; PAGE as usize] }; FRAMES]);
static META: [FrameMeta; FRAMES] = [const { FrameMeta::new() }; FRAMES];
static USED: [AtomicBool; FRAMES] = [const { AtomicBool::new(false) }; FRAMES];
static SHARED: Shared = Shared::new();
static CPUS: [qsbr::Cpu; 1] = [qsbr::Cpu::new()];
// SAFETY: (1) there is one hart, number 0; (2) `main` begins with it; (3) nobody else has `CPUS`; (4) nobody waits in a section.
static QSBR: qsbr::Qsbr<'static, Port> = unsafe { qsbr::Qsbr::new(&CPUS, Port) };
static DOMAIN: &qsbr::Qsbr<'static, Port> = &QSBR;
static INTERRUPTS: AtomicBool = AtomicBool::new(true);

/// Interrupts are off until it is dropped, then as they were.
struct Irqs(bool);
impl Drop for Irqs {
    fn drop(&mut self) {
        INTERRUPTS.store(self.0, Relaxed);
    }
}

#[derive(Clone, Copy)]
struct Port;
impl Platform for Port {
    type Rcu = &'static qsbr::Qsbr<'static, Port>;
    type Store = ();
    type Reclaim = ();
    fn rcu(&self) -> &Self::Rcu {
        &DOMAIN
    }
    fn shared(&self) -> &Shared {
        &SHARED
    }
}

// SAFETY: (1) a frame is marked as used from `alloc` to `free`; (2) and (3) both are static.
unsafe impl Frames for Port {
    fn alloc(&self) -> Option<FrameId> {
        (1..FRAMES).find(|i| !USED[*i].swap(true, Acquire)).map(|i| FrameId(i as u32))
    }
    unsafe fn free(&self, frame: FrameId) {
        USED[frame.0 as usize].store(false, Release);
    }
    unsafe fn meta(&self, frame: FrameId) -> &FrameMeta {
        &META[frame.0 as usize]
    }
    fn page(&self, frame: FrameId) -> *mut u8 {
        MEMORY.0[frame.0 as usize].as_ptr().cast_mut().cast()
    }
    fn zero_frame(&self) -> FrameId {
        FrameId(0)
    }
}

// SAFETY: (1) the format is Sv48's; (2) there is one hart, and `issue` is its sfence.vma: this one caches nothing.
unsafe impl Mmu for Port {
    type Flush = ();
    /// Bit 0 says that an entry is valid, bit 4 that it is a program's. Bits 8 and 9 are left to software.
    const FORMAT: Format = Format {
        page: 1 | 1 << 4,
        withheld: 1 << 8,
        away: 1 << 9,
        kept: 0,
        table: 1,
        read: 1 << 1,
        write: 1 << 2,
        exec: 1 << 3,
        forbids: 0,
        accessed: 1 << 6,
        dirty: 1 << 7,
        frame: 10,
    };
    fn issue(&self, _space: SpaceId, _range: Range) {}
}

impl Machine for Port {
    type Pin = Irqs;
    fn pin(&self) -> Irqs {
        Irqs(INTERRUPTS.swap(false, Relaxed))
    }
}
impl qsbr::Machine for Port {
    fn cpu(&self) -> usize {
        0
    }
    fn relax(&self, _round: u32) {
        // SAFETY: (1) nobody waits in a section.
        unsafe { DOMAIN.quiescent() };
    }
}

/// The page fault's entry: back to the program when the access can be repeated.
fn trap(mm: &Space, at: u64, access: Access) -> Result<(), Denied> {
    let irqs = Port.pin();
    let outcome = mm.fault(at, access);
    assert!(!INTERRUPTS.load(Relaxed), "the fault let interrupts in");
    drop(irqs);
    // SAFETY: (1) the fault has left its sections.
    unsafe { DOMAIN.quiescent() };
    mm.finish(at, outcome)
}

/// An access as hardware makes it: walks the tables, and traps where it may not pass. (It marks nothing, for nothing is written back.)
fn access(mm: &Space, at: u64, access: Access) -> Result<&'static AtomicU8, Denied> {
    loop {
        match mm.page_table().peek(&Port, at) {
            Some(pte) if access.allowed_by(pte.prot) => return Ok(&MEMORY.0[pte.frame.0 as usize][(at % PAGE) as usize]),
            _ => trap(mm, at, access)?,
        }
    }
}

fn main() -> Result<(), Error> {
    // SAFETY: (1) nobody reads yet.
    unsafe { DOMAIN.online() };
    let load = |mm: &Space, at| access(mm, at, Access::Read).map(|byte| byte.load(Relaxed));
    let store = |mm: &Space, at, value| access(mm, at, Access::Write).map(|byte| byte.store(value, Relaxed));
    let mm = Space::new(Port, Layout::default())?;
    let heap = mm.map(Place::Anywhere(64 * PAGE), |at| Attr::anon(at.start(), Prot::RW))?;
    let at = |n: u64| heap.start() + n * PAGE;
    for n in 0..64 {
        assert_eq!((load(&mm, at(n)), store(&mm, at(n), n as u8)), (Ok(0), Ok(())));
    }
    mm.protect(Range::page_of(at(9)), Prot::R)?;
    assert_eq!((load(&mm, at(9)), store(&mm, at(9), 1)), (Ok(9), Err(Denied::Protected)));
    // A fork shares until one side writes.
    let child = mm.fork()?;
    assert_eq!((store(&mm, at(7), 70), load(&child, at(7))), (Ok(()), Ok(7)));
    assert_eq!((store(&child, at(8), 80), load(&mm, at(8))), (Ok(()), Ok(8)));
    // What is unmapped is gone here, and stays there.
    mm.unmap(heap)?;
    assert_eq!((load(&mm, at(5)), load(&child, at(5))), (Err(Denied::Unmapped), Ok(5)));
    // Pages go back at once, mappings and tables after a grace period.
    drop((mm, child));
    DOMAIN.synchronize();
    SHARED.relieve(&Port);
    assert!(USED.iter().all(|used| !used.load(Relaxed)), "a frame was lost");
    std::println!("port: 64 pages, a fork: all frames are back");
    Ok(())
}
