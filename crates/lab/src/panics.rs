//! Panics that were caught.

use std::any::Any;

/// What one said.
pub(crate) fn said(why: &(dyn Any + Send)) -> &str {
    why.downcast_ref::<String>().map(String::as_str).or(why.downcast_ref::<&str>().copied()).unwrap_or("a panic")
}
