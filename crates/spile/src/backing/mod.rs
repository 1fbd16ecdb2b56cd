//! Where the contents of mappings come from, and where they go. Knows neither locks nor page tables.

#[cfg(feature = "file")]
mod page_cache;
mod swap;
mod window;

#[cfg(feature = "file")]
pub use page_cache::{File, Unwritten, WeakFile};
#[cfg(feature = "file")]
pub(crate) use page_cache::{Found, Started, Write, Writes};
pub(crate) use swap::{Claim, Completed, InSlot, Left};
pub use swap::{SwapArea, SwapStore};
pub(crate) use window::Window;
