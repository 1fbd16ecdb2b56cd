//! A bit for each number.
//!
//! **Guarantee.** Who asks about a number is told what was said of it last, whatever others say of other numbers meanwhile. A long stretch of which nothing was ever said takes a few bytes.
//!
//! **Mechanism.** Words of bits, in pieces that are allocated when something is said of the first of their numbers. All accesses are Relaxed: calls about one number are
//! in an order, which is the caller's, so each finds in the word what the one before it left there, or what somebody made of that for other numbers; and no other memory depends on a bit.

use spile_sync::atomic::{AtomicU64, Ordering};
use std::ops::Range;
use std::sync::OnceLock;

/// Numbers in a word.
const WORD: u64 = u64::BITS as u64;
/// Words of a piece.
const WORDS: u64 = 512;
/// Numbers of a piece.
const PIECE: u64 = WORDS * WORD;

/// A bit for each number below a bound.
pub struct Bits(Box<[OnceLock<Box<[AtomicU64]>>]>);

impl Bits {
    /// None is set.
    pub fn new(bound: u64) -> Self {
        Self((0..bound.div_ceil(PIECE)).map(|_| OnceLock::new()).collect())
    }

    /// Whether it is set.
    pub fn has(&self, number: u64) -> bool {
        let piece = self.0[(number / PIECE) as usize].get();
        piece.is_some_and(|words| words[word(number)].load(Ordering::Relaxed) & bit(number) != 0)
    }

    pub fn set(&self, number: u64) {
        let piece = self.0[(number / PIECE) as usize].get_or_init(|| (0..WORDS).map(|_| AtomicU64::new(0)).collect());
        piece[word(number)].fetch_or(bit(number), Ordering::Relaxed);
    }

    pub fn clear(&self, number: u64) {
        if let Some(words) = self.0[(number / PIECE) as usize].get() {
            words[word(number)].fetch_and(!bit(number), Ordering::Relaxed);
        }
    }

    /// Those of `range` that are set, in their order.
    pub fn set_in(&self, range: Range<u64>) -> impl Iterator<Item = u64> {
        let pieces = if range.is_empty() { 0..0 } else { range.start / PIECE..range.end.div_ceil(PIECE) };
        pieces.flat_map(move |piece| {
            let words = self.0[piece as usize].get().map_or(&[][..], |words| words);
            let from = range.start.max(piece * PIECE);
            let to = range.end.min((piece + 1) * PIECE);
            let first = if words.is_empty() { 0 } else { word(from) };
            let last = if words.is_empty() { 0 } else { word(to - 1) + 1 };
            let numbers =
                move |(n, word): (usize, &AtomicU64)| ones(word.load(Ordering::Relaxed), piece * PIECE + n as u64 * WORD);
            let within = move |number: &u64| (from..to).contains(number);
            words.iter().enumerate().take(last).skip(first).flat_map(numbers).filter(within)
        })
    }
}

fn word(number: u64) -> usize {
    (number % PIECE / WORD) as usize
}

fn bit(number: u64) -> u64 {
    1 << (number % WORD)
}

/// The numbers from `first` on whose bits are in `word`.
fn ones(word: u64, first: u64) -> impl Iterator<Item = u64> {
    let rest = |word: &u64| Some(word & (word - 1)).filter(|rest| *rest != 0);
    std::iter::successors(Some(word).filter(|word| *word != 0), rest).map(move |word| first + u64::from(word.trailing_zeros()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    /// Of a word, half the numbers are one thread's, and half the other's.
    #[test]
    fn nobody_undoes_what_another_says_of_other_numbers() {
        let (bits, start) = (Bits::new(WORD), Barrier::new(2));
        let of = |thread: u64| (thread..WORD).step_by(2);
        let change = |thread| {
            start.wait();
            for _ in 0..50_000 {
                of(thread).for_each(|number| bits.set(number));
                assert!(of(thread).all(|number| bits.has(number)));
                of(thread).for_each(|number| bits.clear(number));
                assert!(!of(thread).any(|number| bits.has(number)));
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| change(0));
            change(1);
        });
        assert_eq!(bits.set_in(0..WORD).count(), 0);
    }
}
