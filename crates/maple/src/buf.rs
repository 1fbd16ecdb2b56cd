//! A short list on the stack.

use core::mem::MaybeUninit;
use core::ops::Deref;

/// At most `N` copies of `T`, allocated nowhere.
pub(crate) struct Buf<T: Copy, const N: usize> {
    items: [MaybeUninit<T>; N],
    len: usize,
}

impl<T: Copy, const N: usize> Buf<T, N> {
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self { items: [const { MaybeUninit::uninit() }; N], len: 0 }
    }

    /// # Panics
    ///
    /// When full.
    #[inline]
    pub(crate) fn push(&mut self, item: T) {
        self.items[self.len].write(item);
        self.len += 1;
    }

    pub(crate) fn extend(&mut self, items: impl IntoIterator<Item = T>) {
        for item in items {
            self.push(item);
        }
    }

    /// Puts `items` before those that are there.
    ///
    /// # Panics
    ///
    /// When full.
    pub(crate) fn prepend(&mut self, items: impl ExactSizeIterator<Item = T>) {
        let more = items.len();
        self.items.copy_within(..self.len, more);
        for (place, item) in self.items[..more].iter_mut().zip(items) {
            place.write(item);
        }
        self.len += more;
    }

    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    pub(crate) fn as_mut(&mut self) -> &mut [T] {
        // SAFETY: (1) the first `len` items were written by `push`.
        unsafe { core::slice::from_raw_parts_mut(self.items.as_mut_ptr().cast(), self.len) }
    }
}

impl<T: Copy, const N: usize> Deref for Buf<T, N> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: (1) the first `len` items were written by `push`.
        unsafe { core::slice::from_raw_parts(self.items.as_ptr().cast(), self.len) }
    }
}
