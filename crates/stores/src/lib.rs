//! Where pages go that have left memory: stores for [`spile`]'s swap slots, for hosts with an operating system.
//!
//! **Guarantee.** What is read from a slot is what was written there last, as far as heap and file give back what they were given; or the read fails. What
//! cannot be written fails, so that the page stays in memory. Nothing fails in silence: the core is told, a budget's refusals are counted, and the last error of a
//! file can be asked for.
//!
//! **Mechanism.** A store keeps [`Pages`] by number; [`AtOnce`] makes it a [`SwapStore`](spile::backing::SwapStore) of any host, and so does [`Queued`], whose
//! threads move the pages. They have the crate's only `unsafe`. Stores can be put together: [`Tiered`] has two.
//!
//! | store | where pages are | a page costs |
//! |---|---|---|
//! | [`Memory`] | the heap | itself |
//! | [`Compressed`] | the heap, by LZ4, up to a budget | what LZ4 makes of it, at most itself |
//! | `OnFile` (on Unix) | a file | its place in the file |
//! | [`Tiered`] | the first store, or the second where the first has no room | |
//!
//! | for the core | a transfer is over |
//! |---|---|
//! | [`AtOnce`] | when the call returns |
//! | [`Queued`] | when a thread of the store's has made it; the core is told then |
//!
//! ```
//! use spile::{Attr, Layout, Mm, PAGE, Place, Prot, VmaRefcount};
//! use spile_sim::Sim;
//! use spile_stores::{AtOnce, Compressed};
//! use std::sync::Arc;
//!
//! let store = Arc::new(AtOnce(Compressed::new(64, 8 * PAGE)));
//! let sim = Sim::builder().frames(24).swap(64).build_on(store.clone());
//! let mm: Mm<Sim, VmaRefcount> = Mm::new(sim.clone(), Layout::default())?;
//! {
//!     let cpu = sim.cpu(0);
//!     let user = cpu.enter(&mm);
//!     let at = user.map(Place::Anywhere(60 * PAGE), |at| Attr::anon(at.start(), Prot::RW))?.start();
//!     (0..60).for_each(|n| user.store(at + n * PAGE, n as u8).unwrap());
//!     assert!(store.stored().pages > 36 && store.stored().ratio() > 7.0);
//!     (0..60).for_each(|n| assert_eq!(user.load(at + n * PAGE), Ok(n as u8)));
//! }
//! drop(mm);
//! sim.finish();
//! # Ok::<(), spile::Error>(())
//! ```
//!
//! A host of your own says `type Swap = AtOnce<Compressed>`, and `Reclaimer::new(AtOnce(Compressed::new(slots, budget)), slots)`; or, for pages in a file,
//!
//! ```
//! # #[cfg(unix)] {
//! use spile::reclaim::{Pressed, Reclaimer};
//! use spile_stores::{OnFile, Queued};
//! use std::error::Error;
//!
//! /// With four threads, and room for 256 reads and as many writes to wait for one.
//! fn reclaimer<H: Pressed<Swap = Queued<H, OnFile>>>(slots: u32) -> Result<Reclaimer<H>, Box<dyn Error>> {
//!     Ok(Reclaimer::new(Queued::new(OnFile::temporary_in("/var/tmp")?, 4, 256)?, slots))
//! }
//! # }
//! ```
//!
//! # Where they may be used
//!
//! They use the heap and locks of `std`: so they are for a process that handles its faults in a thread, not for an interrupt or signal handler, and not for
//! a heap whose own memory they would take away. With [`AtOnce`] a transfer is over when the call returns. For `OnFile` that means that a fault waits for the
//! file with what it holds, and changes of that mapping wait for the fault. With [`Queued`] it waits for a token, as the address space says: with what it
//! holds or without.
//!
//! Each slot has a lock of its own, and the core is at a slot alone, so nobody waits for one. What is counted, and what is queued, is behind a lock that is held for a few
//! additions; nothing is allocated, copied, compressed or written under it. `discard`, which the core calls under a table's lock, takes these two and gives
//! memory back to the heap. It allocates nothing, and makes no system call of its own.
#![deny(missing_docs)]

mod compressed;
#[cfg(unix)]
mod file;
mod memory;
mod pages;
mod queued;
mod slots;
mod tiered;

pub use compressed::{Compressed, Stored};
#[cfg(unix)]
pub use file::{Failure, NoFile, OnFile};
pub use memory::Memory;
pub use pages::{AtOnce, Doing, Page, Pages};
pub use queued::{Over, Queue, Queued};
pub use tiered::Tiered;
