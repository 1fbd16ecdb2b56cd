//! Regions: what was written is read again, with less memory than there are pages.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::single_range_in_vec_init, reason = "runs of pages are ranges")]

mod pagers;

use pagers::{Kept, built, pager};
use spile::Locking;
use spile_linux::backing::{Backing, Page};
use spile_linux::{Allowed, Asked, Builder, Engine, PAGE, Pager, WorkingSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread::sleep;
use std::time::Duration;

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

#[test]
fn a_stretch_is_told_by_its_ends() {
    let Some(pager) = pager(BUDGET) else { return };
    let mut region = pager.region(Kept::new(64), 64 * PAGE).around(1).map().unwrap();
    region.as_mut_slice::<u64>()[0] = 1;
    region.flush().unwrap();
    let before = region.status();
    (1..4).for_each(|page| region.as_mut_slice::<u64>()[page * 512] = 1);
    region.flush().unwrap();
    let since = region.status().since(&before);
    assert_eq!((since.filled, since.written, since.failed), (3 * PAGE, 3 * PAGE, 0));
    assert_eq!((since.faults.count(), since.fills.count(), since.writes.count() > 0), (3, 3, true), "{since}");
    assert_eq!((since.resident, since.dirty), (4 * PAGE, 0), "how it is, it is");
}

/// What is handed to other threads.
const fn is_shared<T: Send + Sync + 'static>() {}
const _: () = is_shared::<spile_linux::Region<Kept>>();
const _: () = is_shared::<spile_linux::Pinned<'static>>();
const _: () = is_shared::<spile_linux::PinnedMut<'static>>();
const _: () = is_shared::<spile_linux::PinnedPtr<'static>>();

#[test]
fn threads_share_a_region() {
    let Some(pager) = pager(BUDGET) else { return };
    let region = Arc::new(pager.region(Kept::new(256), 256 * PAGE).map().unwrap());
    let threads = [0, 1].map(|thread| {
        let region = Arc::clone(&region);
        std::thread::spawn(move || {
            for page in (0..256u64).filter(|page| page % 2 == thread) {
                // SAFETY: (1) a word of this thread's page.
                unsafe { region.write_shared(page * PAGE + 16, &(page + 7).to_ne_bytes()) }.unwrap();
                let mut word = [0; 8];
                region.read_at(page * PAGE + 16, &mut word).unwrap();
                assert_eq!(
                    (u64::from_ne_bytes(word), region.pin(page * PAGE..(page + 1) * PAGE).unwrap()[16]),
                    (page + 7, (page + 7) as u8)
                );
                match page % 3 {
                    0 => region.evict(0..256 * PAGE),
                    1 => region.flush().unwrap(),
                    _ => region.prefetch(0..64 * PAGE).unwrap(),
                }
                assert!(region.status().shown <= BUDGET);
            }
        })
    });
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    // Nobody else has it any more.
    let region = Arc::into_inner(region).unwrap();
    assert!(region.as_slice::<[u64; 512]>().iter().zip(7..).all(|(words, number)| words[2] == number));
}

#[test]
fn what_was_wanted_once_is_brought_again_in_that_order() {
    let Some(pager) = pager(BUDGET) else { return };
    let wanted = [700, 3, 4, 900, 5];
    let region = pager.region(Kept::new(PAGES), PAGES * PAGE).around(1).map().unwrap();
    region.record(4);
    wanted.iter().for_each(|page| assert_eq!(region.as_slice::<u64>()[page * 512], 0));
    let set = region.recorded();
    assert_eq!(set.pages(), [700, 3, 4, 900]);
    drop(region);
    let region = pager.region(Kept::new(PAGES), PAGES * PAGE).around(1).map().unwrap();
    region.replay(&set).unwrap();
    assert_eq!(region.resident(), [3, 700, 900].map(|page| page * PAGE..(page + if page == 3 { 2 } else { 1 }) * PAGE));
    set.pages().iter().for_each(|page| assert_eq!(region.as_slice::<u64>()[*page as usize * 512], 0));
    assert_eq!(region.status().faults.count(), 0, "{}", region.status());
    // What is not of the region is left out.
    region.replay(&WorkingSet::of(vec![PAGES, u64::MAX])).unwrap();
}

#[test]
fn what_was_written_is_noted() {
    let Some(pager) = pager(BUDGET) else { return };
    let mut region = pager.region(Kept::new(PAGES), PAGES * PAGE).around(1).map().unwrap();
    region.as_mut_slice::<u64>()[512] = 1;
    region.record(16);
    [7, 3, 5].iter().for_each(|page| assert_eq!(region.as_slice::<u64>()[page * 512], 0));
    region.as_mut_slice::<u64>()[3 * 512] = 1;
    region.write_at(9 * PAGE - 2, &[1; 4]).unwrap();
    drop(region.pin_mut(20 * PAGE..21 * PAGE).unwrap());
    let set = region.recorded();
    assert_eq!((set.pages(), set.written()), (&[7, 3, 5, 8, 9, 20][..], &[3, 8, 9, 20][..]));
}

#[test]
fn what_is_discarded_is_what_the_backing_says() {
    for engine in Engine::ALL {
        discard(Pager::builder().budget(BUDGET).engine(engine));
    }
}

fn discard(builder: Builder) {
    let Some(pager) = built(builder) else { return };
    let mut region = pager.map(Kept::new(64), 64 * PAGE).unwrap();
    region.as_mut_slice::<u64>().fill(9);
    region.backing().set(5, 77);
    assert_eq!(region.dirty(), [0..64 * PAGE]);
    // The page in which a part begins stays.
    region.discard(4 * PAGE + 1..6 * PAGE);
    assert_eq!(region.dirty(), [0..5 * PAGE, 6 * PAGE..64 * PAGE]);
    let words = region.as_slice::<u64>();
    assert_eq!([4, 5, 6].map(|page| words[page * 512 + 1]), [9, 77, 9]);
    // What was written is not lost with what is unmapped.
    region.unmap(10 * PAGE..12 * PAGE).unwrap();
    assert_eq!([10, 11].map(|page| region.backing().word(page, 3)), [9, 9]);
    let gone = region.read_at(11 * PAGE, &mut [0]).unwrap_err();
    assert_eq!(gone.to_string(), "byte 45056 is not of the region");
    region.protect(0..64 * PAGE, Allowed::Reads).unwrap_err();
    region.protect(0..10 * PAGE, Allowed::Reads).unwrap();
    assert_eq!(region.write_at(9 * PAGE, &[1]).unwrap_err().to_string(), "byte 36864 is protected from that");
    region.protect(0..9 * PAGE, Allowed::Nothing).unwrap();
    assert_eq!(region.read_at(8 * PAGE, &mut [0]).unwrap_err().to_string(), "byte 32768 is protected from that");
    region.protect(0..9 * PAGE, Allowed::Reads).unwrap();
    assert_eq!(region.as_slice::<u64>()[8 * 512], 9);
    region.protect(9 * PAGE..10 * PAGE, Allowed::Writes).unwrap();
    region.write_at(9 * PAGE, &[1]).unwrap();
    assert_eq!(region.as_slice::<u8>()[9 * PAGE as usize], 1);
}

#[test]
fn what_an_evictor_has_left_is_discarded_too() {
    let Some(pager) = pager(BUDGET) else { return };
    let mut region = pager.map(Kept::new(8), 8 * PAGE).unwrap();
    assert!(region.as_slice::<u64>().iter().all(|word| *word == 0));
    region.evict(0..8 * PAGE);
    region.backing().set(5, 77);
    region.discard(0..8 * PAGE);
    assert_eq!(region.as_slice::<u64>()[5 * 512], 77);
}

#[test]
fn a_region_that_is_not_whole_pages_ends_where_it_ends() {
    let Some(pager) = pager(BUDGET) else { return };
    let mut region = pager.map(Kept::new(3), 2 * PAGE + 5).unwrap();
    assert_eq!((region.as_slice::<u8>().len(), region.as_slice::<u64>().len()), (8197, 1024));
    region.as_mut_slice::<u8>()[8196] = 1;
    region.flush().unwrap();
    assert_eq!(region.backing().word(2, 0).to_le_bytes()[4], 1);
    region.write_at(8190, &[7; 7]).unwrap();
    let mut bytes = [0; 7];
    region.read_at(8190, &mut bytes).unwrap();
    assert_eq!(bytes, [7; 7]);
    let beyond = region.read_at(8190, &mut [0; 8]).unwrap_err();
    assert_eq!(beyond.to_string(), "byte 8197 is not of the region");
}

#[test]
fn more_pages_are_shown_than_a_region_may_for_no_moment() {
    let Some(pager) = pager(8 * BUDGET) else { return };
    let mut region = pager.region(Kept::new(PAGES), PAGES * PAGE).budget(64 * PAGE).map().unwrap();
    for page in 0..PAGES {
        region.as_mut_slice::<u64>()[page as usize * 512] = page;
        assert!(region.status().shown <= 64 * PAGE);
    }
    region.set_budget(Some(16 * PAGE)).unwrap();
    assert!(region.status().shown <= 16 * PAGE);
    (0..PAGES).for_each(|page| assert_eq!(region.as_slice::<u64>()[page as usize * 512], page));
    assert!(region.status().shown <= 16 * PAGE);
}

/// Is stuck at page 16 until somebody knows.
struct Slow(Kept, AtomicBool);

// SAFETY: (1) and (2) as the other.
unsafe impl Backing for Slow {
    fn fill(&self, first: u64, pages: &mut [&mut Page]) -> std::io::Result<()> {
        for _ in 0..20_000 {
            if first != 16 || self.1.load(Relaxed) {
                break;
            }
            sleep(Duration::from_millis(1));
        }
        self.0.fill(first, pages)
    }
}

#[test]
fn a_backing_that_is_stuck_is_told_once() {
    let Some(pager) = pager(BUDGET) else { return };
    let region = Arc::new(pager.map(Slow(Kept::new(64), AtomicBool::new(false)), 64 * PAGE).unwrap());
    let (told, hears) = mpsc::channel();
    let (limit, known) = (Duration::from_millis(60), Arc::downgrade(&region));
    let tell = move |asked, lasts| {
        told.send((asked, lasts)).unwrap();
        if asked == Asked::Fill(16) {
            known.upgrade().expect("it waits").backing().1.store(true, Relaxed);
        }
    };
    let watchdog = region.watch(limit, tell).unwrap();
    region.prefetch(0..64 * PAGE).unwrap();
    drop(watchdog);
    let heard: Vec<_> = hears.iter().collect();
    // Others may have lasted as long where threads wait for CPUs.
    assert_eq!(heard.iter().filter(|(asked, _)| *asked == Asked::Fill(16)).count(), 1, "{heard:?}");
    assert!(heard.iter().all(|(_, lasts)| *lasts > limit), "{heard:?}");
}

spile::test_each_design! { pages => two_threads_share_a_region; }

/// Each thread adds to all pages, more than there is memory for, in its own order.
fn two_threads_share_a_region<L: Locking>() {
    let Some(pager) = built(Pager::builder().budget(BUDGET).design::<L>()) else { return };
    let pages = 2 * BUDGET / PAGE;
    let region = pager.region(Kept::new(pages), pages * PAGE).around(4).map().unwrap();
    // SAFETY: (1) atomics: all threads use them as such.
    let word = |page: u64| unsafe { AtomicU64::from_ptr(region.as_ptr().add((page * PAGE) as usize).cast()) };
    std::thread::scope(|scope| {
        for step in [1, 3] {
            scope.spawn(move || (0..4 * pages).for_each(|n| _ = word(n * step % pages).fetch_add(1, Relaxed)));
        }
    });
    (0..pages).for_each(|page| assert_eq!(word(page).load(Relaxed), 8, "page {page}"));
    assert!(region.status().written > 0);
}
