//! Bytes in runs.
//!
//! **Guarantee.** Ranges that ascend are kept so, and none ends where the next begins.
//!
//! **Mechanism.** One that begins where the last ends makes that longer.

use std::ops::Range;

/// Adds `bytes` behind those that `runs` has.
pub fn add(runs: &mut Vec<Range<u64>>, bytes: Range<u64>) {
    match runs.last_mut() {
        Some(run) if run.end == bytes.start => run.end = bytes.end,
        _ => runs.push(bytes),
    }
}
