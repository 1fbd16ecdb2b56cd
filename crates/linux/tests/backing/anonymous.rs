//! Memory whose pages go to stores.

use super::{Model, PAGE, behaves, behaves_for_two, page, read, write};
use spile::Slot;
use spile_linux::backing::{Anonymous, Backing, Page};
use spile_sim::Rng;
use spile_stores::{Compressed, Memory, OnFile, Pages, Stored, Tiered};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::sync::Mutex;

const PAGES: u64 = 100;

/// A store that is asked for nothing, and told to forget nothing, that it has not. It refuses one page in so many, or gives it not back.
#[derive(Default)]
struct Strict {
    pages: Mutex<BTreeMap<u32, Box<Page>>>,
    refuses: u64,
    keeps_for_itself: bool,
}

impl Pages for Strict {
    fn put(&self, slot: Slot, page: &Page) -> bool {
        let mut pages = self.pages.lock().expect("nobody panicked");
        pages.remove(&slot.0);
        let takes = self.refuses == 0 || !u64::from(page[PAGE as usize - 1]).is_multiple_of(self.refuses);
        if takes {
            pages.insert(slot.0, Box::new(*page));
        }
        takes
    }

    fn get(&self, slot: Slot, page: &mut Page) -> bool {
        let pages = self.pages.lock().expect("nobody panicked");
        page.copy_from_slice(&pages[&slot.0][..]);
        !self.keeps_for_itself
    }

    fn forget(&self, slot: Slot) {
        assert!(self.pages.lock().expect("nobody panicked").remove(&slot.0).is_some(), "slot {} is empty", slot.0);
    }
}

impl Strict {
    fn slots(&self) -> BTreeSet<u64> {
        self.pages.lock().expect("nobody panicked").keys().map(|slot| u64::from(*slot)).collect()
    }
}

fn on<S: Pages>(store: S, pages: u64) -> Anonymous<S> {
    // SAFETY: (1) the stores of these tests give back what they were given.
    unsafe { Anonymous::new(store, pages) }.expect("there are slots")
}

/// Behaves, and has nothing in the end; gives the store's memory back to look at.
fn is_memory<S: Pages>(memory: Anonymous<S>) -> Anonymous<S> {
    assert!(memory.takes_writes());
    let mut model = Model { contents: vec![0; (PAGES * PAGE) as usize], forgets: true };
    (0..5).for_each(|seed| behaves(&memory, &mut model, seed));
    memory.discard(0..PAGES);
    model.contents.fill(0);
    behaves_for_two(&memory, &model, 17);
    memory.discard(0..u64::MAX);
    memory
}

#[test]
fn each_store_gives_back_what_was_written() {
    let memory = is_memory(Anonymous::on_heap(PAGES).expect("there are slots"));
    assert_eq!(memory.store().pages(), 0);
    let memory = is_memory(Anonymous::compressed(PAGES, u64::MAX).expect("there are slots"));
    assert_eq!(memory.store().stored(), Stored::default());
    let memory = is_memory(Anonymous::temporary_in(env!("CARGO_TARGET_TMPDIR"), PAGES).expect("a file can be made"));
    assert_eq!(memory.store().failures(), 0);
    let file = OnFile::temporary_in(env!("CARGO_TARGET_TMPDIR")).expect("a file can be made");
    let memory = is_memory(on(Tiered::new(PAGES as u32, Compressed::new(PAGES as u32, 8 * PAGE), file), PAGES));
    assert!(memory.store().first().stored().refused > 100, "the file was needed");
    assert_eq!((memory.store().first().stored().pages, memory.store().behind()), (0, 0));
    assert_eq!(is_memory(on(Strict::default(), PAGES)).store().slots(), BTreeSet::new());
}

#[test]
fn zeros_take_no_room() {
    let memory = Anonymous::on_heap(PAGES).expect("there are slots");
    let mut three = vec![0; 3 * PAGE as usize];
    write(&memory, 5, &three).expect("they need nothing");
    assert_eq!(memory.store().pages(), 0);
    three[2 * PAGE as usize - 1] = 1;
    write(&memory, 5, &three).expect("there is room");
    assert_eq!(memory.store().pages(), 1);
    assert_eq!(read(&memory, 5..8).expect("it is there"), three);
    three.fill(0);
    write(&memory, 5, &three).expect("they need nothing");
    assert_eq!(memory.store().pages(), 0, "what was there is forgotten");
    assert_eq!(read(&memory, 5..8).expect("it is there"), three);
}

#[test]
fn what_a_store_refuses_is_told_and_the_rest_is_kept() {
    let memory = on(Strict { refuses: 5, ..Strict::default() }, PAGES);
    let (mut rng, mut model, mut refused) = (Rng::new(4), BTreeMap::new(), 0);
    for _ in 0..3000 {
        let number = rng.below(PAGES);
        let contents = page(rng.next());
        match write(&memory, number, &contents) {
            Ok(()) => drop(model.insert(number, contents)),
            Err(error) => {
                refused += 1;
                assert_eq!(
                    (error.kind(), error.to_string()),
                    (ErrorKind::StorageFull, format!("the store does not take page {number}"))
                );
                // It stays in memory, until the program gives it up.
                model.remove(&number);
                memory.discard(number..number + 1);
            }
        }
        let any = rng.below(PAGES);
        let there = model.get(&any).map_or(&[0; PAGE as usize], |contents| contents);
        assert!(read(&memory, any..any + 1).expect("it is there") == there, "page {any} is not what it was");
    }
    assert!(refused > 100, "{refused} were refused");
    let kept = model.into_iter().filter(|(_, contents)| *contents != [0; PAGE as usize]).map(|(number, _)| number);
    assert_eq!(memory.store().slots(), kept.collect());
}

#[test]
fn what_a_store_does_not_give_back_is_told() {
    let memory = on(Strict { keeps_for_itself: true, ..Strict::default() }, PAGES);
    write(&memory, 3, &[1; PAGE as usize]).expect("it takes all");
    let error = read(&memory, 0..5).expect_err("page 3 is not to be had");
    assert_eq!(error.to_string(), "the store does not give page 3 back");
    assert_eq!(read(&memory, 0..3).expect("these were never written"), [0; 3 * PAGE as usize]);
}

#[test]
fn beyond_the_end_are_zeros_and_nothing_is_kept() {
    let memory = Anonymous::on_heap(PAGES).expect("there are slots");
    assert_eq!(memory.pages(), PAGES);
    let mut pages = vec![1; 3 * PAGE as usize];
    let error = write(&memory, PAGES - 1, &pages).expect_err("there is one");
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::InvalidInput, "cannot keep page 100: there are 100".to_string()));
    pages[PAGE as usize..].fill(0);
    write(&memory, PAGES - 1, &pages).expect("zeros are there already");
    assert_eq!(read(&memory, PAGES - 1..PAGES + 2).expect("it is there"), pages);
    let far = 1 << 50;
    assert_eq!(read(&memory, far..far + 1).expect("it is there"), [0; PAGE as usize]);
    write(&memory, far, &[1; PAGE as usize]).expect_err("there is no such page");
    memory.discard(PAGES..u64::MAX);
    assert_eq!(memory.store().pages(), 1);
}

/// Bits of as many pages as there are slots are looked at only where there are any.
#[test]
fn as_many_pages_as_slots() {
    let most = u64::from(u32::MAX);
    let memory = on(Strict::default(), most);
    let (mut rng, mut kept) = (Rng::new(9), BTreeSet::new());
    // Around the borders of words and larger things, and at both ends.
    let near = |rng: &mut Rng| (rng.below(4) << [6, 15, 20, 30][rng.below(4) as usize]).saturating_sub(2) + rng.below(5);
    for round in 0..3000 {
        if rng.one_in(3) {
            let (one, other) = (near(&mut rng), near(&mut rng));
            let some = one.min(other)..one.max(other);
            memory.discard(some.clone());
            kept.retain(|number| !some.contains(number));
        } else {
            let number = if rng.one_in(50) { most - 1 } else { near(&mut rng) };
            write(&memory, number, &[1 + round as u8 % 100; PAGE as usize]).expect("it takes all");
            kept.insert(number);
        }
        assert_eq!(memory.store().slots(), kept, "round {round}");
    }
    assert!(kept.contains(&(most - 1)));
    memory.discard(0..u64::MAX);
    assert_eq!(memory.store().slots(), BTreeSet::new());
}

#[test]
fn what_cannot_be_is_said() {
    let text = "there are slots for 4294967295 pages, and not for 4294967296";
    for error in [
        Anonymous::on_heap(1 << 32).map(drop).expect_err("they are too many"),
        Anonymous::compressed(1 << 32, 1).map(drop).expect_err("they are too many"),
        Anonymous::temporary_in("/missing", 1 << 32).map(drop).expect_err("they are too many"),
        // SAFETY: (1) it does.
        unsafe { Anonymous::new(Memory::new(1), 1 << 32) }.map(drop).expect_err("they are too many"),
    ] {
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::InvalidInput, text.to_string()));
    }
    let error = Anonymous::temporary_in("/missing/directory", 1).expect_err("it is not there");
    assert!(error.kind() == ErrorKind::NotFound && error.to_string().contains("/missing/directory"), "{error}");
}
