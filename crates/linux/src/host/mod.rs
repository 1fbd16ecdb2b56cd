//! The core's platform in a process of Linux.
//!
//! **Guarantee.** A program sees at an address what the core's tables say, by the kernel's: a change of the one is a change of the other, under the same lock. No byte is where two frames
//! are said to be, and memory is what frames there are, beside tables and a few pages that nobody has.
//!
//! **Mechanism.** A frame is the right to a page; [`place`] says where its bytes are: at an address of the program's, or in the [`stash`]. Pages are copied to where they are shown
//! (`UFFDIO_COPY`), protected if the access was a read: nobody has to be flushed for that. They are taken back by a move (`UFFDIO_MOVE`), which empties the address in one step; and
//! what an evictor has taken out of the tables is [`left`] where it is until its frame is free, and is dropped with others then ([`leaving`]).
//!
//! Where the engine is [`Engine::Shared`], regions are memfds, and what leaves becomes a hole ([`shares`]).
//!
//! | file | of the platform's traits |
//! |---|---|
//! | `frames` | [`Frames`](spile::Frames): whose page, and what is in it |
//! | `show` | [`Mmu`](spile::Mmu): what the program is shown |
//! | `contents` | [`Store`](spile::Store): from where it comes |
//! | this | the others |

mod contents;
mod drop_pages;
mod errands;
mod frames;
mod lanes;
mod leaving;
mod left;
mod memory;
mod pins;
mod place;
mod shares;
mod show;
mod sleep;
mod stash;

pub use contents::Contents;
#[cfg(feature = "tracing")]
pub use contents::is_asking;
pub use errands::Errands;
pub use lanes::{LANES, here, lock};
pub use memory::Memory;
pub use pins::{Pins, most_of, reserve};

use crate::{Engine, PAGE, Uffd};
use drop_pages::Advised;
use lanes::Lanes;
use leaving::Leaving;
use left::Left;
use place::Place;
use shares::Shares;
use sleep::Beds;
use spile::reclaim::{Marks, Pressed, Reclaimer, Record, SecondChance, ToSwap};
use spile::{FrameId, FrameMeta, Machine, PAGE as CORE_PAGE, Platform, Shared, Slot, Transfer};
use spile_rcu::Global;
use stash::Stash;
use std::io;
use std::sync::Arc;

const _: () = assert!(PAGE == CORE_PAGE);

/// A pager's frames, and all that is known of them.
#[derive(Clone)]
pub struct Host(Arc<Parts>);

pub struct Parts {
    engine: Engine,
    advised: Advised,
    places: Box<[Place]>,
    records: Box<[Record]>,
    /// Of frames, and of tables behind them.
    metas: Box<[FrameMeta]>,
    free: Lanes,
    left: Left,
    leaving: Leaving,
    pins: Pins,
    stash: Stash,
    /// Of [`Engine::Shared`].
    shares: Option<Arc<Shares>>,
    tables: Memory,
    free_tables: Lanes,
    shared: Shared,
    reclaimer: Reclaimer<Host>,
    beds: Beds,
    /// Dropped last: what is registered with one that is closed is read as zeros.
    uffd: Uffd,
}

/// The frame that is full of zeros, which nobody owns.
const ZEROS: FrameId = FrameId(0);
/// With fewer free frames pages leave: more than two runs, without which the core reads nothing ahead.
const FEW: usize = 3 * stash::RUN;
/// How many tables there may be beside one for each frame.
const MORE_TABLES: u32 = 1 << 16;

impl Host {
    /// With so many frames, of memory that `uffd` is asked for.
    ///
    /// # Errors
    ///
    /// The kernel's, of what is mapped for it.
    pub fn new(uffd: Uffd, engine: Engine, frames: u32) -> io::Result<Self> {
        let all = frames + 1;
        let tables = all + MORE_TABLES;
        let parts = Parts {
            advised: Advised::new(),
            places: (0..all).map(|_| Place::default()).collect(),
            records: (0..all).map(|_| Record::new()).collect(),
            metas: (0..all + tables).map(|_| FrameMeta::new()).collect(),
            free: Lanes::new(all as usize, 1..all),
            left: Left::new(all as usize),
            leaving: Leaving::new(),
            pins: Pins::new(all as usize),
            stash: Stash::new(&uffd, u64::from(all))?,
            shares: (engine == Engine::Shared).then(Arc::default),
            tables: Memory::new(u64::from(tables) * PAGE)?,
            free_tables: Lanes::new(tables as usize, 0..tables),
            shared: Shared::new(),
            reclaimer: Reclaimer::new(Nowhere, 0),
            beds: Beds::new(),
            engine,
            uffd,
        };
        parts.places[ZEROS.0 as usize].set(place::Where::Zeros);
        Ok(Self(Arc::new(parts)))
    }

    /// The descriptor.
    pub fn uffd(&self) -> &Uffd {
        &self.0.uffd
    }

    /// Memory for a region, whose faults are this pager's.
    ///
    /// # Errors
    ///
    /// What could not be done, and the kernel's.
    pub fn memory(&self, len: u64) -> Result<Memory, (&'static str, io::Error)> {
        let memory = match &self.0.shares {
            Some(shares) => Memory::shared(len, shares),
            None => Memory::new(len),
        };
        let memory = memory.map_err(|error| ("map the region", error))?;
        let (at, len) = (memory.at(0), memory.len());
        // SAFETY: (1) nobody uses it yet, and who will has its faults handled.
        let registered =
            unsafe { if self.0.shares.is_some() { self.0.uffd.register_shared(at, len) } else { self.0.uffd.register(at, len) } };
        registered.map_err(|stopped| ("register the region with the userfaultfd", stopped.error()))?;
        Ok(memory)
    }

    /// Which pages stay where they are.
    pub fn pins(&self) -> &Pins {
        &self.0.pins
    }

    /// Whether the page of `frame` is at `at`, and may be written there. By who has it pinned to be written, and has had the lock of its table since.
    pub fn is_writable(&self, frame: FrameId, at: u64) -> bool {
        self.0.places[frame.0 as usize].get() == place::Where::Shown { at, is_protected: false }
    }

    /// How many frames there are.
    pub fn frames(&self) -> usize {
        self.0.places.len() - 1
    }

    /// How many pages of memory there are beside those that frames have, about: tables not counted.
    pub fn idle(&self) -> usize {
        self.0.stash.idle()
    }

    /// How many tables there are, each a page.
    pub fn tables(&self) -> usize {
        (self.0.metas.len() - self.0.places.len()) - self.0.free_tables.count()
    }

    /// Lets pages leave if few frames are free, by who is about to need some: so that there are always some to read ahead.
    pub fn balance(&self) {
        // Not from within a backing, which might be asked for more.
        if contents::is_asking() {
            return;
        }
        // Of those that can leave: else nothing is enough, and each fault takes what the one before has brought.
        let low = (self.pins().others() / 3).min(FEW);
        self.reclaimer().balance(self, Marks { low, high: low + stash::RUN });
    }

    /// Nobody is shown anything in `range` any more: so that it may be unmapped.
    pub fn forget(&self, range: &std::ops::Range<u64>) {
        self.0.leaving.drop_within(range, &self.0);
    }
}

impl Machine for Host {
    type Pin = ();

    fn pin(&self) {}

    fn cpu(&self) -> usize {
        lanes::here()
    }

    fn relax(&self) {
        // Whoever is waited for may have this CPU.
        std::thread::yield_now();
    }

    fn sleep(&self, key: usize, still: &dyn Fn() -> bool) {
        // What this thread has begun nobody else ends.
        if !Errands::run() {
            self.0.beds.sleep(key, still);
        }
    }

    fn wake(&self, key: usize) {
        self.0.beds.wake(key);
    }
}

impl Platform for Host {
    type Rcu = Global;
    type Store = Contents;
    type Reclaim = ToSwap;

    fn rcu(&self) -> &Global {
        &Global
    }

    fn shared(&self) -> &Shared {
        &self.0.shared
    }
}

// SAFETY: (1) the host's own; (2) one for each frame; (3) no page is private, so nothing is dropped because nobody is known to have written it, and who writes a page of a file faults.
unsafe impl Pressed for Host {
    type Swap = Nowhere;
    type Policy = SecondChance;

    fn reclaimer(&self) -> &Reclaimer<Self> {
        &self.0.reclaimer
    }

    fn free_frames(&self) -> usize {
        self.0.free.count() + self.0.leaving.count()
    }

    fn record(&self, frame: FrameId) -> &Record {
        &self.0.records[frame.0 as usize]
    }
}

/// Of no slots.
pub struct Nowhere;

impl spile::backing::SwapStore<Host> for Nowhere {
    unsafe fn start_write(&self, _: &Host, _: Slot, _: FrameId) -> Transfer {
        Transfer::Failed
    }

    unsafe fn start_read(&self, _: &Host, _: Slot, _: FrameId) -> Transfer {
        Transfer::Failed
    }

    fn discard(&self, _: Slot) {}
}
