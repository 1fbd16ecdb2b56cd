//! What a range holds: one pointer-sized owned handle.

use core::ptr::NonNull;
use spile_rcu::{Rcu, RcuBox};

/// A pointer-sized owner that a tree can keep in a slot.
///
/// # Safety
///
/// An implementor owes: (1) [`into_raw`](Handle::into_raw) never gives the address 1, which marks reserved ranges; (2) a raw
/// handle stays valid wherever the tree moves, until [`from_raw`](Handle::from_raw) takes it back; (3) `by_ref` may be called from
/// any thread, also while the handle is being retired and until its grace period is over; (4) `retire` frees nothing that `by_ref`
/// reaches before that; (5) a value may be made by `from_raw`, moved and borrowed (to be cloned or retired) while readers hold what
/// `by_ref` gave them, so it claims no exclusive access to it: `Box` does, `NonNull` does not.
pub unsafe trait Handle: Sized + Send + Sync + 'static {
    /// What a reader gets: a reference, or a copy.
    type Ref<'g>: Copy;

    /// Whether [`retire`](Handle::retire) does anything. Where it does not, nobody looks for what a change displaced.
    const OWNS: bool = true;

    /// Gives up ownership.
    fn into_raw(self) -> NonNull<()>;

    /// Takes ownership back.
    ///
    /// # Safety
    ///
    /// (1) `raw` came from [`into_raw`](Handle::into_raw) of this type; (2) it is taken back once.
    unsafe fn from_raw(raw: NonNull<()>) -> Self;

    /// What readers see behind `raw`.
    ///
    /// # Safety
    ///
    /// (1) `raw` came from [`into_raw`](Handle::into_raw) of this type; (2) during `'g` it is not freed.
    unsafe fn by_ref<'g>(raw: NonNull<()>) -> Self::Ref<'g>;

    /// Drops the handle once no reader that could have found it is left. Never waits, never allocates.
    fn retire<R: Rcu>(self, rcu: &R);
}

// SAFETY: (1) the value lies behind a head, so its address is above 1; (2) it is on the heap; (3) `T: Sync`;
// (4) `defer` waits for a grace period; (5) it is a `NonNull`.
unsafe impl<T: Send + Sync + 'static> Handle for RcuBox<T> {
    type Ref<'g> = &'g T;

    fn into_raw(self) -> NonNull<()> {
        RcuBox::into_raw(self).cast()
    }

    unsafe fn from_raw(raw: NonNull<()>) -> Self {
        // SAFETY: (1, 2) the caller's contract is the callee's.
        unsafe { RcuBox::from_raw(raw.cast()) }
    }

    unsafe fn by_ref<'g>(raw: NonNull<()>) -> Self::Ref<'g> {
        // SAFETY: (1) `raw` points to a `T`; (2) alive during `'g`.
        unsafe { raw.cast().as_ref() }
    }

    fn retire<R: Rcu>(self, rcu: &R) {
        self.defer(rcu);
    }
}

// SAFETY: (1) no object lies at address 1, and references to nothing are refused; (2, 3, 4, 5) it is never freed, nor owned.
unsafe impl<T: Sync + 'static> Handle for &'static T {
    type Ref<'g> = &'g T;

    const OWNS: bool = false;

    fn into_raw(self) -> NonNull<()> {
        const { assert!(size_of::<T>() > 0 || align_of::<T>() > 1, "a reference to nothing may have the address 1") };
        NonNull::from(self).cast()
    }

    unsafe fn from_raw(raw: NonNull<()>) -> Self {
        // SAFETY: (1) `raw` came from a `&'static T`.
        unsafe { raw.cast().as_ref() }
    }

    unsafe fn by_ref<'g>(raw: NonNull<()>) -> Self::Ref<'g> {
        // SAFETY: as above.
        unsafe { raw.cast().as_ref() }
    }

    fn retire<R: Rcu>(self, _: &R) {}
}

/// A number as a handle: an index, a tag, an identity. Below 2^62 (2^30 on a 32-bit machine).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(usize);

impl Token {
    /// The highest number.
    pub const MAX: usize = usize::MAX >> 2;

    /// `number` as a handle, if it is not above [`Token::MAX`].
    pub const fn new(number: usize) -> Option<Self> {
        if number <= Self::MAX { Some(Self(number)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> usize {
        self.0
    }
}

// SAFETY: (1) raw handles are even and not zero; (2, 3, 4, 5) there is nothing behind them.
unsafe impl Handle for Token {
    type Ref<'g> = Token;

    const OWNS: bool = false;

    fn into_raw(self) -> NonNull<()> {
        // SAFETY: (1) `number + 1` is at least 1 and at most 2^62, so twice that is neither zero nor overflows.
        unsafe { NonNull::new_unchecked(core::ptr::without_provenance_mut((self.0 + 1) << 1)) }
    }

    unsafe fn from_raw(raw: NonNull<()>) -> Self {
        Self((raw.addr().get() >> 1) - 1)
    }

    unsafe fn by_ref<'g>(raw: NonNull<()>) -> Self::Ref<'g> {
        Self((raw.addr().get() >> 1) - 1)
    }

    fn retire<R: Rcu>(self, _: &R) {}
}
