//! Regions: what was written is read again, with less memory than there are pages.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod pagers;

use pagers::{Kept, pager};
use spile_linux::PAGE;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A budget of a few pages, and a region of many.
const BUDGET: u64 = 128 * PAGE;
const PAGES: u64 = 1024;

#[test]
fn a_region_is_its_backing() {
    let Some(pager) = pager(BUDGET) else { return };
    let kept = Kept::new(PAGES);
    (0..PAGES).for_each(|page| kept.set(page, page * 3 + 1));
    let region = pager.map(kept, PAGES * PAGE).unwrap();
    let words = region.as_slice::<u64>();
    for page in 0..PAGES {
        assert_eq!(words[page as usize * 512], page * 3 + 1);
        assert_eq!(words[page as usize * 512 + 511], page * 3 + 1);
    }
    let status = region.status();
    assert!(status.resident <= BUDGET, "{status}");
    assert_eq!((status.filled / PAGE, status.fills.count()), (PAGES, PAGES / 16), "each page once, sixteen at a time");
}

#[test]
fn what_was_written_is_read_again() {
    let Some(pager) = pager(BUDGET) else { return };
    let mut region = pager.region(Kept::new(PAGES), PAGES * PAGE).around(1).map().unwrap();
    for round in 0..4 {
        let words = region.as_mut_slice::<u64>();
        for n in 0..PAGES {
            let page = n * 389 % PAGES;
            assert_eq!(words[page as usize * 512 + 7], if round == 0 { 0 } else { page * 1000 + round - 1 });
            words[page as usize * 512 + 7] = page * 1000 + round;
        }
    }
    region.flush().unwrap();
    assert_eq!(region.status().dirty, 0);
    (0..PAGES).for_each(|page| assert_eq!(region.backing().word(page, 7), page * 1000 + 3));
    assert!(pager.usage().used <= BUDGET / PAGE);
    drop(region);
    assert_eq!(pager.usage().used, 0);
}

#[test]
fn threads_write_beside_an_evictor() {
    let Some(pager) = pager(BUDGET) else { return };
    let mut region = pager.region(Kept::new(256), 256 * PAGE).around(1).map().unwrap();
    region.as_mut_slice::<u64>();
    let region = &region;
    // SAFETY: (1) atomics: all threads use them as such.
    let word = |page: u64| unsafe { AtomicU64::from_ptr(region.as_ptr().add((page * PAGE) as usize).cast()) };
    let rounds = 100;
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..2u64 {
            let done = &done;
            scope.spawn(move || {
                for n in 0..rounds * 256 {
                    word((n * (thread * 2 + 1)) % 256).fetch_add(1, Relaxed);
                }
                done.fetch_add(1, Relaxed);
            });
        }
        while done.load(Relaxed) < 2 {
            region.evict(0..256 * PAGE);
        }
    });
    (0..256).for_each(|page| assert_eq!(word(page).load(Relaxed), rounds * 2, "page {page}"));
}
