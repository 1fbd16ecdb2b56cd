//! Pages to store, and stores to put them in.
#![allow(dead_code, reason = "each test uses some")]

pub mod programs;

use spile::{PAGE, Slot};
use spile_sim::Rng;
use spile_stores::{OnFile, Page, Pages};
use std::sync::atomic::{AtomicU64, Ordering};

/// How many kinds of pages there are.
pub const KINDS: u64 = 7;

/// A page by number, of the kind that the number says: number 0 is zeros, and no two of the others are the same but for those of one byte.
pub fn page(number: u64) -> Page {
    let mut rng = Rng::new(number);
    let mut page = [0; PAGE as usize];
    match number % KINDS {
        0 => {}
        1 => page.fill(1 + (number / KINDS) as u8 % 255),
        2 => page[PAGE as usize - 1] = 1 + (number / KINDS) as u8 % 255,
        3 => page.iter_mut().for_each(|byte| *byte = rng.next() as u8),
        4 => page.chunks_mut(8).for_each(|word| word.copy_from_slice(&number.to_le_bytes())),
        5 => page.chunks_mut(16).for_each(|line| line.copy_from_slice(format!("line {:11}", rng.below(1000)).as_bytes())),
        _ => page[..PAGE as usize / 2].iter_mut().for_each(|byte| *byte = rng.next() as u8),
    }
    page
}

/// What a store has in a slot.
pub fn got(store: &impl Pages, slot: u32) -> Option<Page> {
    let mut page = [0x5a; PAGE as usize];
    store.get(Slot(slot), &mut page).then_some(page)
}

/// A file that is gone with the test.
pub fn on_file() -> OnFile {
    OnFile::temporary_in(std::env::temp_dir()).expect("a file can be made where files are made for a moment")
}

/// What a store gives, with one bit of it changed.
pub struct Spoiled<S>(pub S);

impl<S: Pages> Pages for Spoiled<S> {
    fn put(&self, slot: Slot, page: &Page) -> bool {
        self.0.put(slot, page)
    }

    fn get(&self, slot: Slot, page: &mut Page) -> bool {
        let ok = self.0.get(slot, page);
        page[1234] ^= 1;
        ok
    }

    fn forget(&self, slot: Slot) {
        self.0.forget(slot);
    }
}

/// What a store does, but for one in so many transfers: that fails, or panics.
pub struct Failing<S> {
    store: S,
    one_in: u64,
    count: AtomicU64,
    panics: bool,
}

impl<S> Failing<S> {
    pub fn new(store: S, one_in: u64, panics: bool) -> Self {
        Self { store, one_in, count: AtomicU64::new(0), panics }
    }

    fn fails(&self) -> bool {
        let fails = self.count.fetch_add(1, Ordering::Relaxed) % self.one_in == self.one_in - 1;
        assert!(!fails || !self.panics, "this is what is asked for");
        fails
    }
}

impl<S: Pages> Pages for Failing<S> {
    fn put(&self, slot: Slot, page: &Page) -> bool {
        !self.fails() && self.store.put(slot, page)
    }

    fn get(&self, slot: Slot, page: &mut Page) -> bool {
        !self.fails() && self.store.get(slot, page)
    }

    fn forget(&self, slot: Slot) {
        self.store.forget(slot);
    }
}
