//! What is told to who listens, as events of the crate `tracing`: with the feature of that name.
//!
//! **Guarantee.** None comes out of a handler of SIGBUS, nor from within a backing, where a listener's locks and the heap may be what was interrupted. What happens there is counted, and told by the
//! region's next verb.
//!
//! **Mechanism.** A function for each event, which is empty without the feature.
#![cfg_attr(not(feature = "tracing"), allow(unused_variables, clippy::needless_pass_by_value, reason = "nobody listens"))]

use crate::probe::{Engine, Refused};
use crate::region::Unwritten;
use crate::watchdog::Asked;
use std::ops::Range;
use std::time::Duration;

/// An event, unless this thread is in a backing.
#[cfg(feature = "tracing")]
macro_rules! event {
    ($level:ident, $($what:tt)*) => {
        if !crate::host::is_asking() {
            tracing::$level!(target: "spile", $($what)*);
        }
    };
}

/// Nobody listens.
#[cfg(not(feature = "tracing"))]
macro_rules! event {
    ($($what:tt)*) => {
        ()
    };
}

/// The probe has chosen.
pub fn chosen(chosen: &Result<Engine, Refused>, kernel: &str) {
    match chosen {
        Ok(engine) => event!(info, kernel, "pages are put {engine}"),
        Err(refused) => event!(warn, kernel, "there is no pager: {refused}"),
    }
}

/// A region was mapped.
pub fn mapped(at: &Range<u64>, is_writable: bool) {
    event!(info, region = at.start, len = at.end - at.start, writable = is_writable, "region mapped");
}

/// A region has ended.
pub fn ended(at: &Range<u64>) {
    event!(info, region = at.start, "region ended");
}

/// Pages were flushed, or not all of them.
pub fn flushed(region: u64, pages: &Range<u64>, came: &Result<(), Unwritten>) {
    match came {
        Ok(()) => event!(debug, region, first = pages.start, pages = pages.end - pages.start, "flushed"),
        Err(unwritten) => event!(error, region, first = pages.start, pages = pages.end - pages.start, "flush: {unwritten}"),
    }
}

/// A region may show so many bytes, and shows so many less than it did.
pub fn limited(region: u64, limit: Option<u64>, left: u64) {
    event!(info, region, limit, left, "budget changed");
}

/// Calls of the backing have failed since that was told last.
pub fn failed(region: u64, calls: u64) {
    event!(warn, region, calls, "the backing failed");
}

/// A call of the backing lasts long.
pub fn lasts(region: u64, asked: Asked, lasts: Duration) {
    event!(warn, region, ms = lasts.as_millis() as u64, "the backing is asked {asked}, and does not answer");
}
