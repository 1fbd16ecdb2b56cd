//! What stores refuse, and how they tell.
//!
//! **Guarantee.** A budget is not exceeded, at no moment; what a file does not take or give fails, and its last error is there to be asked for.
#![cfg(unix)]

mod common;

use common::{got, on_file, page};
use spile::{PAGE, Slot};
use spile_stores::{Compressed, Doing, Memory, OnFile, Pages, Stored, Tiered};
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::thread;

/// A number of a page that does not become smaller.
fn random(n: u64) -> u64 {
    n * common::KINDS + 3
}

#[test]
fn a_budget_is_not_exceeded() {
    let store = Compressed::new(8, 2 * PAGE + 1);
    assert!(store.put(Slot(0), &page(random(0))));
    assert!(store.put(Slot(1), &page(0)));
    assert!(store.put(Slot(2), &page(random(2))));
    assert_eq!(store.stored().bytes, store.budget());
    assert!(!store.put(Slot(3), &page(0)), "not a byte more");
    assert_eq!(got(&store, 3), None);
    assert_eq!(store.stored(), Stored { pages: 3, uniform: 1, plain: 2, bytes: 2 * PAGE + 1, refused: 1 });
    store.forget(Slot(2));
    assert!(store.put(Slot(3), &page(random(3))), "there is room again");
    assert!(got(&store, 0) == Some(page(random(0))) && got(&store, 3) == Some(page(random(3))));
}

/// A page that is refused where another was does not leave the other.
#[test]
fn what_is_refused_leaves_nothing() {
    let store = Compressed::new(1, 100);
    assert!(store.put(Slot(0), &page(0)));
    assert!(!store.put(Slot(0), &page(random(0))));
    assert_eq!(got(&store, 0), None);
    assert_eq!(store.stored(), Stored { refused: 1, ..Stored::default() });
}

#[test]
fn slots_beyond_are_refused() {
    let (memory, compressed) = (Memory::new(2), Compressed::new(2, PAGE));
    let tiered = Tiered::new(2, Memory::new(3), on_file());
    assert!(!memory.put(Slot(2), &page(1)) && !compressed.put(Slot(2), &page(1)) && !tiered.put(Slot(2), &page(1)));
    assert_eq!((memory.pages(), compressed.stored().pages, tiered.first().pages()), (0, 0, 0), "nothing is left of them");
    memory.forget(Slot(2));
}

/// Threads at slots of their own, over a budget that is too small for them.
#[test]
fn a_budget_holds_for_all_threads_together() {
    const ROUNDS: u64 = 300;
    let budget = 3 * PAGE;
    let store = Compressed::new(8, budget);
    let work = |slot: u32| {
        let mut kept = 0;
        for round in 0..ROUNDS {
            let number = random(u64::from(slot) * ROUNDS + round) + round % 3;
            if store.put(Slot(slot), &page(number)) {
                kept += 1;
                assert!(store.stored().bytes <= budget);
                assert!(got(&store, slot) == Some(page(number)), "page {number} is not what it was");
            }
            store.forget(Slot(slot));
        }
        kept
    };
    let kept: u64 = thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|slot| scope.spawn(move || work(slot))).collect();
        threads.into_iter().map(|thread| thread.join().expect("it ended well")).sum()
    });
    let refused = 8 * ROUNDS - kept;
    assert_eq!(store.stored(), Stored { refused, ..Stored::default() });
}

/// What does not fit into the first is in the second, and stays there until it is put anew.
#[test]
fn what_the_first_refuses_goes_to_the_second() {
    let store = Tiered::new(4, Compressed::new(4, PAGE), Memory::new(4));
    let has = || (store.first().stored().pages, store.second().pages(), store.behind());
    assert!(store.put(Slot(0), &page(random(0))) && store.put(Slot(1), &page(random(1))));
    assert_eq!(has(), (1, 1, 1));
    store.forget(Slot(0));
    assert_eq!(has(), (0, 1, 1));
    assert!(got(&store, 0).is_none() && got(&store, 1) == Some(page(random(1))));
    assert!(store.put(Slot(1), &page(random(2))));
    assert_eq!(has(), (1, 0, 0), "it is in one of them");
    assert!(got(&store, 1) == Some(page(random(2))));
}

/// Where both refuse, nothing is left of what was there.
#[test]
fn what_both_refuse_is_refused() {
    let store = Tiered::new(2, Compressed::new(2, 1), Compressed::new(2, 1));
    assert!(store.put(Slot(0), &page(0)) && store.put(Slot(1), &page(1)));
    assert!(!store.put(Slot(0), &page(2)));
    assert_eq!((store.first().stored().pages, store.second().stored().pages), (0, 1));
    assert_eq!((got(&store, 0), got(&store, 1)), (None, Some(page(1))));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_device_is_told() {
    let store = OnFile::create("/dev/full").expect("it can be opened");
    assert!(store.take_failure().is_none());
    assert!(!store.put(Slot(3), &page(1)));
    assert_eq!(store.failures(), 1);
    let failure = store.take_failure().expect("it is there to be asked for");
    assert_eq!((failure.slot, failure.doing, failure.error.kind()), (Slot(3), Doing::Writing, ErrorKind::StorageFull));
    assert!(failure.to_string().starts_with("cannot write to slot 3: No space left"), "{failure}");
    assert!(failure.source().is_some() && store.take_failure().is_none());
    assert_eq!(store.failures(), 1);
}

/// A file that somebody cut gives a part of a page: that is none.
#[test]
fn a_part_of_a_page_is_none() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let path = directory.path().join("pages");
    let store = OnFile::create(&path).expect("it can be made");
    assert!(store.put(Slot(0), &page(5)) && store.put(Slot(1), &page(random(1))));
    let file = OpenOptions::new().write(true).open(&path).expect("it is there");
    file.set_len(PAGE + 17).expect("it can be cut");
    assert_eq!(got(&store, 1), None);
    let failure = store.take_failure().expect("it is there to be asked for");
    assert_eq!((failure.slot, failure.doing, failure.error.kind()), (Slot(1), Doing::Reading, ErrorKind::UnexpectedEof));
    assert!(got(&store, 0) == Some(page(5)), "the other is whole");
    assert!(format!("{store:?}").ends_with("1 transfers failed"), "{store:?}");
}

#[test]
fn a_file_that_may_not_be_written_is_told() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let path = directory.path().join("pages");
    File::create(&path).expect("it can be made");
    let store = OnFile::new(File::open(&path).expect("it is there"));
    assert!(!store.put(Slot(0), &page(1)));
    assert_eq!(store.take_failure().map(|failure| failure.doing), Some(Doing::Writing));
}

#[test]
fn where_no_file_can_be_made_is_told() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let missing = directory.path().join("missing");
    let error = OnFile::create(missing.join("pages")).expect_err("its directory is not there");
    assert_eq!(error.error().kind(), ErrorKind::NotFound);
    assert!(
        error.to_string().contains("cannot open for pages") && error.to_string().contains("missing/pages: No such"),
        "{error}"
    );
    let error = OnFile::temporary_in(&missing).expect_err("nor here");
    assert!(error.to_string().starts_with("cannot make a file for pages in") && error.source().is_some(), "{error}");
    OnFile::create(directory.path()).expect_err("a directory is no file");
}

/// What a program had in memory is nobody else's to read.
#[test]
fn a_file_is_for_the_user_alone() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().expect("a directory can be made");
    let path = directory.path().join("pages");
    let _store = OnFile::create(&path).expect("it can be made");
    let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o077, 0, "mode {mode:o}");
}
