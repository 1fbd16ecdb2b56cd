//! What a kernel writes to have the core: its frames, its page tables' bits, its interrupts.
//!
//! **Guarantee.** Nothing here needs `std`. Whoever sleeps has interrupts on; a fault and a read section have them off.
//!
//! **Mechanism.** One hart of a RISC-V with Sv48 tables. Frames are a static arena with a bitmap; an interrupt is a call that `sleep` makes
//! while it is halted.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering::*};
use spile::backing::File;
use spile::paging::Pte;
use spile::{FrameId, FrameMeta, Frames, Machine, Mmu, PAGE, Platform, Prot, Range, Read, Shared, SpaceId, Store};
use spile_rcu::qsbr::{self, Cpu, Qsbr, QsbrGuard};
use spile_rcu::{Cookie, Head, Rcu};
use spile_sync::lock::Guarded;

extern crate alloc;
use alloc::{boxed::Box, sync::Arc};

const FRAMES: usize = 512;
#[repr(align(4096))]
struct Arena(UnsafeCell<[[u8; PAGE as usize]; FRAMES]>);
// SAFETY: (1) plain memory: the core says who touches which page of it, and when.
unsafe impl Sync for Arena {}
static ARENA: Arena = Arena(UnsafeCell::new([[0; PAGE as usize]; FRAMES]));
static META: [FrameMeta; FRAMES] = [const { FrameMeta::new() }; FRAMES];
/// A bit per frame. Frame 0 is full of zeros and never given.
static USED: [AtomicU64; FRAMES / 64] = [const { AtomicU64::new(0) }; FRAMES / 64];
static SHARED: Shared = Shared::new();
static DOMAIN: AtomicPtr<Qsbr<'static, Hart>> = AtomicPtr::new(core::ptr::null_mut());
static CPUS: [Cpu; 1] = [const { Cpu::new() }];
pub static INTERRUPTS: AtomicBool = AtomicBool::new(true);
pub static FLUSHES: AtomicUsize = AtomicUsize::new(0);
/// A page of a file, and the frame it is being read into.
type Reading = (Arc<File<Port>>, u64, FrameId);
/// What the disk is doing. Taken with interrupts off.
static DISK: Guarded<Option<Reading>> = Guarded::new(None);

/// Interrupts are off until it is dropped, then as they were.
pub struct Irqs(bool);
pub fn irqs_off() -> Irqs {
    Irqs(INTERRUPTS.swap(false, SeqCst))
}
impl Drop for Irqs {
    fn drop(&mut self) {
        INTERRUPTS.store(self.0, SeqCst);
    }
}

#[derive(Clone, Copy)]
pub struct Port;
impl Platform for Port {
    type Rcu = Domain;
    type Store = Disk;
    fn rcu(&self) -> &Domain {
        &Domain
    }
    fn shared(&self) -> &Shared {
        &SHARED
    }
}

/// The core's state and its one hart begin.
pub fn boot() {
    USED[0].fetch_or(1, Relaxed);
    // SAFETY: (1) there is one hart, number 0; (2) it is online before anybody reads; (3) `CPUS` is this domain's; (4) verbs wait with
    // interrupts on, sections have them off.
    let domain = Box::leak(Box::new(unsafe { Qsbr::new(&CPUS, Hart) }));
    // SAFETY: (1) nobody reads yet.
    unsafe { domain.online() };
    DOMAIN.store(domain, Release);
}

pub fn frames_in_use() -> u32 {
    USED.iter().map(|word| word.load(Relaxed).count_ones()).sum()
}

pub fn page(frame: FrameId) -> *mut u8 {
    ARENA.0.get().cast::<u8>().wrapping_add(frame.0 as usize * PAGE as usize)
}
// SAFETY: (1) a frame's bit is set from `alloc` to `free`; (2) and (3) both are static.
unsafe impl Frames for Port {
    fn alloc(&self) -> Option<FrameId> {
        // The lowest bit that is not set. Acquire: whoever freed it has done with it.
        let take =
            |word: &AtomicU64| word.fetch_update(Acquire, Relaxed, |bits| (bits != u64::MAX).then(|| bits | (bits + 1))).ok();
        USED.iter().zip(0..).find_map(|(word, i)| Some(FrameId(64 * i + take(word)?.trailing_ones())))
    }
    fn free(&self, frame: FrameId) {
        USED[frame.0 as usize / 64].fetch_and(!(1 << (frame.0 % 64)), Release);
    }
    fn meta(&self, frame: FrameId) -> &FrameMeta {
        &META[frame.0 as usize]
    }
    fn page(&self, frame: FrameId) -> *mut u8 {
        page(frame)
    }
    fn zero_frame(&self) -> FrameId {
        FrameId(0)
    }
}

/// Bits of an Sv48 entry. Read, write and execute are those of [`Prot`], one further up. The last two are software's: a page that
/// nothing may touch, and one for which reading was not asked, though whoever may write or execute may read.
pub const VALID: u64 = 1;
pub const USER: u64 = 1 << 4;
pub const ACCESSED: u64 = 1 << 6;
pub const DIRTY: u64 = 1 << 7;
const WITHHELD: u64 = 1 << 8;
const NOT_READ: u64 = 1 << 9;
const PPN: u32 = 10;

// SAFETY: (1) all of an entry is kept in bits of its own; (2) one hart: `issue` is its sfence.vma.
unsafe impl Mmu for Port {
    type Flush = ();
    fn encode(&self, pte: Pte) -> u64 {
        let passes = match pte.prot {
            Prot::NONE => WITHHELD,
            prot if prot.has(Prot::R) => VALID | USER | u64::from(prot.bits()) << 1,
            prot => VALID | USER | NOT_READ | u64::from(prot.with(Prot::R).bits()) << 1,
        };
        let marks = if pte.accessed { ACCESSED } else { 0 } | if pte.dirty { DIRTY } else { 0 };
        u64::from(pte.frame.0) << PPN | marks | passes
    }
    fn decode(&self, raw: u64) -> Option<Pte> {
        let asked = Prot::from_bits((raw >> 1) as u32).without(if raw & NOT_READ == 0 { Prot::NONE } else { Prot::R });
        let pte = Pte { accessed: raw & ACCESSED != 0, dirty: raw & DIRTY != 0, ..Pte::new(self.decode_table(raw), asked) };
        (raw & (VALID | WITHHELD) != 0).then_some(pte)
    }
    fn encode_table(&self, table: FrameId) -> u64 {
        u64::from(table.0) << PPN | VALID
    }
    fn decode_table(&self, raw: u64) -> FrameId {
        FrameId((raw >> PPN) as u32)
    }
    fn issue(&self, _space: SpaceId, _range: Range) {
        FLUSHES.fetch_add(1, Relaxed);
    }
}

impl Machine for Port {
    type Pin = Irqs;
    fn pin(&self) -> Irqs {
        irqs_off()
    }
    fn relax(&self) {
        core::hint::spin_loop();
    }
    fn sleep(&self, _key: usize, still: &dyn Fn() -> bool) {
        assert!(INTERRUPTS.load(SeqCst), "asleep with interrupts off");
        while still() {
            // Halted, until a device interrupts; with more threads, a scheduler's turn.
            disk_interrupt();
        }
    }
    fn wake(&self, _key: usize) {}
}

/// A disk whose page `n` is full of bytes `n`.
pub struct Disk;
impl Store<Port> for Disk {
    fn start_read(&self, file: &Arc<File<Port>>, page: u64, frame: FrameId) -> Read {
        let _irqs = irqs_off();
        match DISK.try_lock().as_deref_mut() {
            Some(idle @ None) => *idle = Some((file.clone(), page, frame)),
            _ => return Read::Failed,
        }
        Read::Started
    }
}
fn disk_interrupt() {
    let _irqs = irqs_off();
    let read = DISK.try_lock().and_then(|mut disk| disk.take());
    if let Some((file, n, frame)) = read {
        // SAFETY: (1) a page of the arena, (2) which is the file's alone until the read is complete.
        unsafe { page(frame).write_bytes(n as u8, PAGE as usize) };
        file.complete(n, true);
    }
}

pub struct Hart;
impl qsbr::Machine for Hart {
    fn cpu(&self) -> usize {
        0
    }
    fn relax(&self, _round: u32) {
        Domain.quiescent();
    }
}

/// The RCU domain's handle. A section is of one hart: with interrupts off, nothing takes a preempted verb to another meanwhile.
#[derive(Clone, Copy)]
pub struct Domain;
impl Domain {
    fn get(&self) -> &'static Qsbr<'static, Hart> {
        // SAFETY: (1) leaked by `boot`, which comes first.
        unsafe { &*DOMAIN.load(Acquire) }
    }
    /// This hart returns to user mode, or else holds nothing.
    pub fn quiescent(&self) {
        // SAFETY: (1) called outside of sections.
        unsafe { self.get().quiescent() }
    }
}
macro_rules! hand_on {
    ($($name:ident($($arg:ident: $of:ty)?) $(-> $to:ty)?;)*) => {
        $(fn $name(&self, $($arg: $of)?) $(-> $to)? {
            self.get().$name($($arg)?)
        })*
    };
}
// SAFETY: (1) it hands on to a domain; what it adds is that a section's interrupts are off.
unsafe impl Rcu for Domain {
    type Guard<'r> = (QsbrGuard<'r, Hart>, Irqs);
    fn read(&self) -> Self::Guard<'_> {
        let irqs = irqs_off();
        (self.get().read(), irqs)
    }
    fn protects(&self, guard: &Self::Guard<'_>) -> bool {
        self.get().protects(&guard.0)
    }
    unsafe fn defer(&self, head: core::ptr::NonNull<Head>) {
        let _irqs = irqs_off();
        // SAFETY: (1) the caller's contract is the callee's.
        unsafe { self.get().defer(head) }
    }
    hand_on! { cookie() -> Cookie; poll(cookie: Cookie) -> bool; drive(); batch() -> usize; backlog() -> usize; relieve(); synchronize(); }
}
