//! What every store promises.
//!
//! **Guarantee.** What a store gives is what was put last, whatever kind of page it is; what is forgotten takes no room.
//!
//! **Mechanism.** Pages of every kind, in an order by seed, beside a model.
#![cfg(unix)]

mod common;

use common::{KINDS, Spoiled, got, on_file, page};
use spile::{PAGE, Slot};
use spile_sim::Rng;
use spile_stores::{Compressed, Memory, Pages, Stored, Tiered};
use std::collections::BTreeMap;

const SLOTS: u32 = 24;

/// Puts, gets and forgets, and in the end forgets all.
fn keeps_what_is_put(store: &impl Pages) {
    let mut rng = Rng::new(1);
    let mut model = BTreeMap::new();
    for number in 0..3_000 {
        let slot = rng.below(SLOTS.into()) as u32;
        match rng.below(8) {
            0..=3 => {
                assert!(store.put(Slot(slot), &page(number)), "page {number} was refused");
                model.insert(slot, number);
            }
            4 => {
                store.forget(Slot(slot));
                model.remove(&slot);
            }
            _ => {
                let Some(kept) = model.get(&slot) else { continue };
                assert!(got(store, slot) == Some(page(*kept)), "page {kept} is not what it was");
            }
        }
    }
    (0..SLOTS).for_each(|slot| store.forget(Slot(slot)));
}

#[test]
fn memory() {
    let store = Memory::new(SLOTS);
    keeps_what_is_put(&store);
    assert_eq!(store.pages(), 0);
    assert_eq!(got(&store, 0), None, "what is forgotten is not given");
}

#[test]
fn compressed() {
    let store = Compressed::new(SLOTS, u64::MAX);
    keeps_what_is_put(&store);
    assert_eq!(store.stored(), Stored::default());
    assert_eq!(got(&store, 0), None, "what is forgotten is not given");
}

#[test]
fn file() {
    let store = on_file();
    keeps_what_is_put(&store);
    assert_eq!(store.failures(), 0);
}

#[test]
fn tiered() {
    let store = Tiered::new(SLOTS, Compressed::new(SLOTS, 2 * PAGE), on_file());
    keeps_what_is_put(&store);
    let refused = store.first().stored().refused;
    assert!(refused > 100, "the second was needed {refused} times");
    assert_eq!(store.first().stored(), Stored { refused, ..Stored::default() });
    assert_eq!((store.behind(), store.second().failures()), (0, 0));
    assert_eq!(got(&store, 0), None, "what is forgotten is not given");
}

/// The control.
#[test]
#[should_panic(expected = "is not what it was")]
fn a_changed_bit_is_found() {
    keeps_what_is_put(&Spoiled(Memory::new(SLOTS)));
}

/// What each kind of page costs, by itself.
#[test]
fn kinds_of_pages_cost_what_they_should() {
    let cost = |number| {
        let store = Compressed::new(1, PAGE);
        assert!(store.put(Slot(0), &page(number)));
        let stored = store.stored();
        println!("kind {}: {} bytes", number % KINDS, stored.bytes);
        (stored.bytes, stored.uniform, stored.plain)
    };
    assert_eq!((cost(0), cost(KINDS + 1)), ((1, 1, 0), (1, 1, 0)), "zeros, and a page of one byte");
    let (nearly, words, text, half) = (cost(2), cost(4), cost(5), cost(6));
    assert!(nearly.0 < 60 && nearly.1 == 0, "zeros but for the last byte: {nearly:?}");
    assert!(words.0 < 60, "a word again and again: {words:?}");
    assert!((500..PAGE / 2).contains(&text.0), "lines of text: {text:?}");
    assert!((PAGE / 2..PAGE * 5 / 8).contains(&half.0), "random bytes, half of them: {half:?}");
    assert_eq!(cost(3), (PAGE, 0, 1), "random bytes stay as they are");
}

/// A page that is put where another is takes its place, also in what is counted.
#[test]
fn what_is_replaced_is_counted_out() {
    let store = Compressed::new(1, PAGE);
    for number in [3, 0, 3, 5, 3] {
        assert!(store.put(Slot(0), &page(number)));
        assert_eq!(store.stored().pages, 1);
        assert!(got(&store, 0) == Some(page(number)));
    }
    assert_eq!((store.stored().bytes, store.stored().plain), (PAGE, 1));
    assert!((store.stored().ratio() - 1.0).abs() < 1e-9);
}
