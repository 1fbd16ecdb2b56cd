//! One deliberate fault at a time, chosen by name when the program starts.
//!
//! A model proves something only if it can fail: each named ordering, fence and seeded bug is one line of shipped code that
//! `SPILE_MUTATE` turns into its faulty variant, in the checked backends alone.

/// Whether the fault called `name` is switched on. Constant false in the shipped backend.
#[cfg(not(any(loom, feature = "sched")))]
#[inline(always)]
pub const fn mutated(_name: &str) -> bool {
    false
}

/// Whether the fault called `name` is switched on: `SPILE_MUTATE`, read once.
#[cfg(any(loom, feature = "sched"))]
pub fn mutated(name: &str) -> bool {
    use std::sync::OnceLock;
    static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("SPILE_MUTATE").ok()).as_deref() == Some(name)
}
