//! The lock of an address space: many readers or one writer, and nobody blocks in it.
//!
//! **Guarantee.** A [`SharedGuard`] and an [`Exclusive`] of one lock are never there at the same time, nor are two `Exclusive`s. Whoever is
//! refused gets a token that turns over when the lock may be free. A writer that has been refused keeps new readers out, so that
//! a stream of faults does not starve it. A reader that has been refused is next when one more writer has had the lock, so that a stream of changes
//! does not starve it: if it comes in time, for it may not come at all.
//!
//! **Mechanism.** One word:
//!
//! ```text
//! bit 63    a writer has it
//! bit 62    a writer was refused, and will come again
//! bit 61    it is a reader's turn, when no writer has it
//! bit 60    somebody waits: who leaves says so, until a writer has had it or a reader has come in whom nobody kept out
//! bit 59    a reader was refused: the next writer makes that its turn
//! below     the number of readers
//! ```
//!
//! In a reader's turn the first that comes is let in, whether a writer waits or not, and ends it. A writer that finds it spins for a while
//! before it ends it: whoever was refused is on his way, if he comes again, since the last writer told him.
//!
//! A reader that leaves does not touch the word again, for the lock may be gone then; the mark that he found is taken away by the next who comes in. If it
//! stayed until a writer comes, each last reader would tell waiters that are gone; and who waits for something that shares the event, and looks at it with
//! a share of the lock, would wake himself each time.

use crate::platform::Platform;
use crate::shared::place_of;
use crate::wait::{self, Token};
use spile_sync::atomic::{AtomicU64, Ordering};
use spile_sync::{order, seeded};

const WRITER: u64 = 1 << 63;
const WRITER_COMES: u64 = 1 << 62;
const READERS_TURN: u64 = 1 << 61;
const WAITED_FOR: u64 = 1 << 60;
const READER_WAITS: u64 = 1 << 59;
/// These keep readers out, but for one whose turn it is.
const CLOSED: u64 = WRITER | WRITER_COMES;
const READERS: u64 = READER_WAITS - 1;

/// How often a writer spins in a reader's turn.
pub(super) const PATIENCE: u32 = if cfg!(loom) { 1 } else { 64 };

/// The lock.
#[derive(Debug)]
pub struct RwLock(AtomicU64);

/// A share of the lock.
#[derive(Debug)]
pub struct SharedGuard<'m, P: Platform> {
    lock: &'m RwLock,
    p: &'m P,
}

/// All of the lock.
#[derive(Debug)]
pub struct Exclusive<'m, P: Platform> {
    lock: &'m RwLock,
    p: &'m P,
}

impl RwLock {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Where waiters wait.
    fn thing(&self) -> usize {
        place_of(self)
    }

    /// A share, if no writer has the lock or waits for it.
    #[inline]
    pub fn try_read<'m, P: Platform>(&'m self, p: &'m P) -> Option<SharedGuard<'m, P>> {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let is_plain =
                word & (CLOSED | READERS_TURN | WAITED_FOR) == 0 || (seeded!("read-beside-writer") && word & WRITER != 0);
            let shared = if is_plain { word + 1 } else { Self::with_reader(word)? };
            // Acquire [rw-read]: what the last writer changed is seen.
            match self.0.compare_exchange(word, shared, order!("rw-read", Acquire), Ordering::Relaxed) {
                Ok(_) => return Some(SharedGuard { lock: self, p }),
                Err(now) => word = now,
            }
        }
    }

    /// The word with one more reader, if he may come in: where nobody keeps him out, or it is his turn.
    #[cold]
    #[inline(never)]
    fn with_reader(word: u64) -> Option<u64> {
        if word & (CLOSED | READERS_TURN) == 0 {
            // The mark goes away, but whoever made it, and found the lock closed after that, is told. A writer closed the lock by the step that marked it, so that
            // another has had it since, and told him as it left. For a reader it was closed by a writer that has it or waits for it: the one has marked it again as it took
            // it, for the reader's sake (`for_reader`), and the other as it closed it. While it is closed the mark stays.
            let gone = if seeded!("mark-for-ever") { 0 } else { WAITED_FOR };
            return Some((word + 1) & !gone);
        }
        (word & (WRITER | READERS_TURN) == READERS_TURN).then_some((word + 1) & !READERS_TURN)
    }

    /// A share, or what to wait for. Who was told to wait is let in after the next writer, if he comes in time.
    ///
    /// # Errors
    ///
    /// The token.
    pub fn read<'m, P: Platform>(&'m self, p: &'m P) -> Result<SharedGuard<'m, P>, Token<'m, P>> {
        self.or_token(p, READER_WAITS, || self.try_read(p))
    }

    /// All of it, if nobody has any. May spin, where a reader is on his way.
    #[inline]
    fn try_write<'m, P: Platform>(&'m self, p: &'m P) -> Option<Exclusive<'m, P>> {
        let mut word = self.0.load(Ordering::Relaxed);
        while word & (WRITER | READERS) == 0 || (seeded!("write-beside-readers") && word & WRITER == 0) {
            if word & READERS_TURN != 0 && !seeded!("turn-without-time") {
                word = self.give_way(p);
                continue;
            }
            // Other writers that wait say so again when they come again.
            let kept = word & if seeded!("write-beside-readers") { WAITED_FOR | READERS } else { WAITED_FOR };
            let taken = WRITER | kept | if word & READER_WAITS != 0 { Self::for_reader() } else { 0 };
            // Acquire [rw-write]: what was changed or read under the lock before is done.
            match self.0.compare_exchange(word, taken, order!("rw-write", Acquire), Ordering::Relaxed) {
                Ok(_) => return Some(Exclusive { lock: self, p }),
                Err(now) => word = now,
            }
        }
        None
    }

    /// What a writer notes who finds that a reader was refused: that it is his turn next, and that he waits; for another reader may have taken his mark away.
    #[inline]
    fn for_reader() -> u64 {
        let turn = if seeded!("no-turn-for-readers") { 0 } else { READERS_TURN };
        let told = if seeded!("take-in-silence") { 0 } else { WAITED_FOR };
        turn | told
    }

    /// Waits for a reader whose turn it is, but not for ever: he may not come. The word after that.
    #[cold]
    fn give_way<P: Platform>(&self, p: &P) -> u64 {
        for _ in 0..PATIENCE {
            p.relax();
            // Relaxed, here and below: nothing is read or given up.
            let word = self.0.load(Ordering::Relaxed);
            if word & READERS_TURN == 0 {
                return word;
            }
        }
        self.0.fetch_and(!READERS_TURN, Ordering::Relaxed) & !READERS_TURN
    }

    /// All of it, or what to wait for. Who was told to wait keeps readers out until it has come again.
    ///
    /// # Errors
    ///
    /// The token.
    pub fn write<'m, P: Platform>(&'m self, p: &'m P) -> Result<Exclusive<'m, P>, Token<'m, P>> {
        self.or_token(p, WRITER_COMES, || self.try_write(p))
    }

    /// All of it. May sleep, and calls `waits` before it does so for the first time.
    pub fn wait_for_all<'m, P: Platform>(&'m self, p: &'m P, waits: impl FnOnce()) -> Exclusive<'m, P> {
        let mut waits = Some(waits);
        loop {
            match self.write(p) {
                Ok(all) => break all,
                Err(token) => {
                    if let Some(waits) = waits.take() {
                        waits();
                    }
                    token.wait();
                }
            }
        }
    }

    /// A share. May sleep.
    pub fn wait_for_share<'m, P: Platform>(&'m self, p: &'m P) -> SharedGuard<'m, P> {
        loop {
            match self.read(p) {
                Ok(share) => break share,
                Err(token) => token.wait(),
            }
        }
    }

    /// For a seeded bug: a stack grows under what is no more than a share.
    #[inline]
    pub(crate) fn let_others_in(&self) {
        if seeded!("grow-with-a-share") {
            self.0.fetch_and(!WRITER, Ordering::Relaxed);
        }
    }

    #[inline]
    fn or_token<'m, P: Platform, T>(&'m self, p: &'m P, mark: u64, attempt: impl Fn() -> Option<T>) -> Result<T, Token<'m, P>> {
        match attempt() {
            Some(guard) => Ok(guard),
            None => self.or_mark(p, mark, attempt),
        }
    }

    /// The same, after a refusal.
    #[cold]
    #[inline(never)]
    fn or_mark<'m, P: Platform, T>(&'m self, p: &'m P, mark: u64, attempt: impl Fn() -> Option<T>) -> Result<T, Token<'m, P>> {
        // The moment first, then the mark, then the lock once more: who leaves after that sees the mark, or one that was made in its place, and turns the
        // moment over.
        let token = Token::for_thing(p, self.thing());
        // Relaxed: if the word is an old one, that was marked, it is as if we had marked it then. Who has left since turns the moment over after that, for had
        // our moment seen it, we would see the word that he left.
        if self.0.load(Ordering::Relaxed) & (WAITED_FOR | mark) != WAITED_FOR | mark {
            self.0.fetch_or(WAITED_FOR | mark, Ordering::Relaxed);
        }
        attempt().ok_or(token)
    }

    /// After the word said that somebody waits.
    #[cold]
    fn wake<P: Platform>(&self, p: &P) {
        wait::happened(p, self.thing());
    }
}

impl<P: Platform> SharedGuard<'_, P> {
    /// Whether it is a share of `lock`.
    pub(super) fn is_of(&self, lock: &RwLock) -> bool {
        core::ptr::eq(self.lock, lock)
    }
}

impl<P: Platform> Drop for SharedGuard<'_, P> {
    fn drop(&mut self) {
        let thing = self.lock.thing();
        // Release [rw-unread]: what was read is read before a writer changes it. After this a writer may free the lock.
        let before = self.lock.0.fetch_sub(1, order!("rw-unread", Release));
        if before & READERS == 1 && before & WAITED_FOR != 0 {
            wait::happened(self.p, thing);
        }
    }
}

impl<'m, P: Platform> Exclusive<'m, P> {
    /// Keeps a share of the lock: readers come in, writers stay out.
    pub fn downgrade(self) -> SharedGuard<'m, P> {
        let (lock, p) = (self.lock, self.p);
        core::mem::forget(self);
        // Release [rw-downgrade]: readers see what was changed.
        let before = lock.0.fetch_sub(WRITER - 1, order!("rw-downgrade", Release));
        if before & WAITED_FOR != 0 {
            lock.wake(p);
        }
        SharedGuard { lock, p }
    }
}

impl<P: Platform> Exclusive<'_, P> {
    /// For a seeded bug: pages are taken away with no lock any more.
    #[inline]
    pub(super) fn let_others_in(&self) {
        if seeded!("unlock-before-the-zap") {
            self.lock.0.fetch_and(!WRITER, Ordering::Relaxed);
        }
    }
}

impl<P: Platform> Drop for Exclusive<'_, P> {
    fn drop(&mut self) {
        // Release [rw-unwrite]: the next holder sees what was changed.
        let before = self.lock.0.fetch_and(!(WRITER | WAITED_FOR), order!("rw-unwrite", Release));
        if before & WAITED_FOR != 0 && !seeded!("unlock-without-a-word") {
            self.lock.wake(self.p);
        }
    }
}
