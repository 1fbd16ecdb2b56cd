//! Backings that touch other regions of their pager, whose faults have pages leave in turn.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod common;
mod pagers;

use common::{PAGE, watched};
use pagers::{Asking, pager};
use spile_linux::Region;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

const INDEX: u64 = 1024;

/// A region that a backing looks something up in.
type Index = Arc<Region<Asking>>;

fn look_up(index: &Index, page: u64) {
    let page = page * 7 % INDEX;
    assert_eq!(index.as_slice::<u64>()[page as usize * 512], page + 1);
}

#[test]
fn a_backing_is_not_asked_to_keep_pages_while_it_has_its_lock() {
    let _watched = watched();
    let Some(pager) = pager(64 * PAGE) else { return };
    let index: Index = Arc::new(pager.region(Asking::numbered(INDEX), INDEX * PAGE).around(1).map().unwrap());
    let lock = Arc::new(Mutex::new(()));
    let (locks, keeps) = (lock.clone(), lock);
    let asking = Asking::numbered(INDEX).fills(move |first, _| {
        let _locked = locks.lock().unwrap();
        look_up(&index, first);
        Ok(())
    });
    let asking = asking.writes(move |_, _| keeps.lock().map(drop).map_err(|_| std::io::Error::other("poisoned")));
    let mut region = pager.region(asking, INDEX * PAGE).around(1).map().unwrap();
    for (word, number) in region.as_mut_slice::<u64>().iter_mut().step_by(512).zip(1..) {
        assert_eq!(*word, number);
        *word = 0;
    }
    assert!(region.as_slice::<u64>().iter().step_by(512).all(|word| *word == 0));
}

#[test]
fn a_backing_that_keeps_a_page_is_not_asked_to_keep_another_for_that() {
    let _watched = watched();
    let Some(pager) = pager(256 * PAGE) else { return };
    let index: Index = Arc::new(pager.region(Asking::numbered(INDEX), INDEX * PAGE).around(1).map().unwrap());
    let (depth, deepest) = (AtomicU64::new(0), Arc::new(AtomicU64::new(0)));
    let seen = deepest.clone();
    let asking = Asking::numbered(INDEX).writes(move |first, _| {
        seen.fetch_max(depth.fetch_add(1, Relaxed) + 1, Relaxed);
        look_up(&index, first);
        depth.fetch_sub(1, Relaxed);
        Ok(())
    });
    let mut region = pager.region(asking, INDEX * PAGE).around(1).map().unwrap();
    region.as_mut_slice::<u64>().iter_mut().step_by(512).for_each(|word| *word = 7);
    assert!(region.as_slice::<u64>().iter().step_by(512).all(|word| *word == 7));
    assert_eq!(deepest.load(Relaxed), 1);
}
