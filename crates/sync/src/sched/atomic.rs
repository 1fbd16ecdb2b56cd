//! Atomics whose every operation is a yield point.
//!
//! **Guarantee.** Names, layout and results are those of `core::sync::atomic`; the only addition is that inside a run the
//! scheduler decides, before each shared access, who goes first. `get_mut` and `into_inner` are exclusive and hence not
//! yield points, nor is `Debug`.
//!
//! **Mechanism.** Each method reports to the scheduler and then calls core's method of the same name.

use super::baton::point;
use super::story::Op;
use core::fmt;
use core::sync::atomic::{self as real, Ordering};

macro_rules! yielding {
    ($name:ident $(<$param:ident>)?, $value:ty, { $($rmw:ident: $op:ident),* }) => {
        #[doc = concat!("`core`'s `", stringify!($name), "`, each shared access of which is a yield point.")]
        #[repr(transparent)]
        pub struct $name $(<$param>)? (real::$name $(<$param>)?);

        impl $(<$param>)? $name $(<$param>)? {
            /// An atomic holding `value`.
            #[inline]
            pub const fn new(value: $value) -> Self {
                Self(real::$name::new(value))
            }

            /// Reads the value.
            #[inline]
            #[track_caller]
            pub fn load(&self, order: Ordering) -> $value {
                point(Op::Load, self.address());
                self.0.load(order)
            }

            /// Writes `value`.
            #[inline]
            #[track_caller]
            pub fn store(&self, value: $value, order: Ordering) {
                point(Op::Store, self.address());
                self.0.store(value, order);
            }

            /// Writes `value`, returns the previous one.
            #[inline]
            #[track_caller]
            pub fn swap(&self, value: $value, order: Ordering) -> $value {
                point(Op::Swap, self.address());
                self.0.swap(value, order)
            }

            /// Writes `new` if the value is `current`; returns the previous value, as `Ok` if it was written.
            #[inline]
            #[track_caller]
            pub fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                point(Op::CompareExchange, self.address());
                self.0.compare_exchange(current, new, success, failure)
            }

            /// The same as [`compare_exchange`](Self::compare_exchange): a spurious failure would not repeat by seed.
            #[inline]
            #[track_caller]
            pub fn compare_exchange_weak(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.compare_exchange(current, new, success, failure)
            }

            /// Writes what `with` makes of the value, until nobody was in between; returns the previous one, as `Ok` if it made one.
            #[inline]
            #[track_caller]
            pub fn fetch_update(
                &self,
                set: Ordering,
                fetch: Ordering,
                mut with: impl FnMut($value) -> Option<$value>,
            ) -> Result<$value, $value> {
                let mut value = self.load(fetch);
                while let Some(new) = with(value) {
                    match self.compare_exchange(value, new, set, fetch) {
                        Ok(previous) => return Ok(previous),
                        Err(other) => value = other,
                    }
                }
                Err(value)
            }

            $(
                #[doc = concat!("`core`'s `", stringify!($rmw), "`: returns the previous value.")]
                #[inline]
                #[track_caller]
                pub fn $rmw(&self, value: $value, order: Ordering) -> $value {
                    point(Op::$op, self.address());
                    self.0.$rmw(value, order)
                }
            )*

            /// The value, of which `&mut self` proves that nobody else looks at it.
            #[inline]
            pub fn get_mut(&mut self) -> &mut $value {
                self.0.get_mut()
            }

            /// The value, of which owning `self` proves that nobody else looks at it.
            #[inline]
            pub const fn into_inner(self) -> $value {
                self.0.into_inner()
            }

            #[inline]
            fn address(&self) -> usize {
                &raw const self.0 as usize
            }
        }

        impl $(<$param>)? fmt::Debug for $name $(<$param>)? {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl $(<$param>)? Default for $name $(<$param>)? {
            fn default() -> Self {
                Self(Default::default())
            }
        }

        impl $(<$param>)? From<$value> for $name $(<$param>)? {
            fn from(value: $value) -> Self {
                Self::new(value)
            }
        }
    };
}

macro_rules! yielding_integer {
    ($($name:ident, $value:ty;)*) => {
        $(yielding!($name, $value, {
            fetch_add: FetchAdd, fetch_sub: FetchSub, fetch_or: FetchOr, fetch_and: FetchAnd, fetch_max: FetchMax
        });)*
    };
}

yielding!(AtomicBool, bool, { fetch_or: FetchOr, fetch_and: FetchAnd });
yielding!(AtomicPtr<T>, *mut T, {});
yielding_integer! {
    AtomicU16, u16;
    AtomicU32, u32;
    AtomicU64, u64;
    AtomicUsize, usize;
}

/// `core`'s fence, as a yield point.
#[inline]
#[track_caller]
pub fn fence(order: Ordering) {
    point(Op::Fence, 0);
    real::fence(order);
}
