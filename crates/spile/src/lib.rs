//! A virtual memory manager whose page faults take no address-space-wide lock.
//!
//! **Guarantee.** [`Mm::fault`] never sleeps and never blocks; with [`VmaRefcount`] it waits for nobody who changes another mapping. What a
//! change took away no CPU uses when the change returns. Without memory a change changes nothing.
//!
//! **Mechanism.** Mappings ([`Vma`]) are immutable and found in an RCU-safe range tree; a design of [`locking`] says how a fault holds
//! one still; [`paging`] installs under the lock of one page table and asks there whether the hold is still good. The host brings
//! frames, an MMU, a way to sleep and an RCU domain ([`platform`]).
#![no_std]
#![deny(missing_docs)]

extern crate alloc;

mod access;
mod addr;
pub mod backing;
mod change;
mod fault;
mod flushing;
mod frame;
mod identity;
pub mod index;
mod limit;
#[cfg(feature = "linux")]
pub mod linux;
pub mod locking;
mod mm;
mod observe;
pub mod paging;
pub mod platform;
pub mod reclaim;
mod shared;
mod usage;
mod vma;
mod wait;

pub use access::Partial;
pub use addr::{Access, BadRange, FrameId, PAGE, PAGE_SHIFT, Prot, Range, Slot, SpaceId, TABLE_END};
pub use change::NoMemory;
pub use fault::{Denied, Done, FaultKind, Outcome, Waiting};
pub use flushing::Unmapping;
pub use frame::Frame;
pub use locking::{
    BTreeMapRwLock, Locking, MmapLock, MmapLockRbTree, PtRange, RangeLock, RcuLateZap, RcuPrealloc, SpfRefcount, SpfSeq, SpfSrcu,
    UnderRcu, VmaRefcount, VmaRefcount2019, VmaRwsem,
};
pub use mm::{Attached, Error, Layout, Mm, Place};
#[cfg(feature = "counters")]
pub use observe::Counters;
pub(crate) use observe::Way;
pub use observe::{Contents, Event, Mapping, Resident};
pub use platform::{FrameMeta, Frames, Machine, Mmu, Platform, Refused, Store, Transfer};
pub use shared::Shared;
pub use usage::{Kind, Usage};
pub use vma::{AnonId, Attr, Backing, Flags, Name, Vma};
pub use wait::Token;
