//! Where the contents of mappings come from. Knows neither locks nor page tables.

mod page_cache;

pub use page_cache::File;
pub(crate) use page_cache::Found;
