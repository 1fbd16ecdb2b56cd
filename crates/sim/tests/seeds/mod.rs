//! How many seeds a test tries.

/// What `SPILE_SEEDS` says, or as many as usual.
pub fn seeds(normal: u64) -> u64 {
    std::env::var("SPILE_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(normal)
}
