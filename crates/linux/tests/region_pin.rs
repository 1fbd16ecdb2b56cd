//! Pages that are pinned: the kernel, and code that takes no signal, finds them where they are, whatever evicts and flushes meanwhile.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::single_range_in_vec_init, reason = "runs of pages are ranges")]

mod common;
mod pagers;

use common::accesses::{Came, Done, Failed, came};
use common::{PAGE, watched};
use pagers::{Asking, Kept, built, pager};
use spile::Denied;
use spile_linux::{Engine, NoPin, NoRegion, Pager, Region};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

const PAGES: u64 = 256;
/// How often what is pinned and let go again is evicted beside.
const ROUNDS: u64 = 20_000;
const FAULT: Came = Failed(libc::EFAULT);

/// A pager by each engine that there is.
fn each_engine(budget: u64, test: impl Fn(&Pager)) {
    let _watched = watched();
    Engine::ALL
        .into_iter()
        .filter_map(|engine| built(Pager::builder().budget(budget).engine(engine)))
        .for_each(|pager| test(&pager));
}

/// Has the kernel write the first byte of a page.
fn kernel_writes(at: *mut u8) -> Came {
    // SAFETY: (1) the kernel looks whether it may.
    came(unsafe { libc::syscall(libc::SYS_getrandom, at, 1, 0) })
}

/// Has the kernel read it.
fn kernel_reads(at: *const u8, file: &File) -> Came {
    // SAFETY: (1) as above.
    came(unsafe { libc::pwrite(file.as_raw_fd(), at.cast(), 1, 0) } as i64)
}

/// While `work` runs a thread lets pages leave, and another reads all of another region.
fn under_pressure(pager: &Pager, region: &Region<Asking>, work: impl FnOnce() + Send) {
    let other = pager.map(Asking::numbered(PAGES), PAGES * PAGE).unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                region.evict(0..PAGES * PAGE);
            }
        });
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                other.as_slice::<[u64; 512]>().iter().zip(1..).for_each(|(words, number)| assert_eq!(words[9], number));
            }
        });
        let worker = scope.spawn(work).join();
        is_over.store(true, Relaxed);
        worker.unwrap();
    });
}

#[test]
fn the_kernel_finds_what_is_pinned() {
    let file = tempfile::tempfile().unwrap();
    each_engine(128 * PAGE, |pager| {
        let mut region = pager.region(Asking::numbered(PAGES), PAGES * PAGE).around(1).map().unwrap();
        let at = |page: u64| (region.as_ptr() as u64 + page * PAGE) as *mut u8;
        {
            let pinned = region.pin(2 * PAGE..6 * PAGE).unwrap();
            region.evict(0..PAGES * PAGE);
            assert_eq!(region.resident(), [2 * PAGE..6 * PAGE]);
            (2..6).for_each(|page| assert_eq!((kernel_reads(at(page), &file), kernel_writes(at(page))), (Done(1), FAULT)));
            assert_eq!(kernel_reads(at(100), &file), FAULT, "what is not pinned was not brought");
            assert!(pinned.len() == 4 * PAGE as usize && pinned[PAGE as usize + 8] == 4);
        }
        region.evict(0..PAGES * PAGE);
        assert_eq!(region.resident(), []);
        let mut pinned = region.pin_mut(2 * PAGE + 1..3 * PAGE).unwrap();
        assert_eq!((kernel_writes(pinned.as_mut_ptr()), pinned.len()), (Done(1), PAGE as usize - 1));
        pinned[1] = 77;
        drop(pinned);
        region.evict(0..PAGES * PAGE);
        assert_eq!(region.as_slice::<u8>()[2 * PAGE as usize + 2], 77);
    });
}

#[test]
fn nobody_takes_what_is_being_pinned() {
    let file = tempfile::tempfile().unwrap();
    each_engine(128 * PAGE, |pager| {
        let region = pager.region(Asking::numbered(PAGES), PAGES * PAGE).around(1).map().unwrap();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Relaxed) {
                    region.evict(0..2 * PAGE);
                }
            });
            let pinner = scope.spawn(|| {
                for n in 0..ROUNDS {
                    let reading = region.pin(0..PAGE).unwrap();
                    assert_eq!(kernel_reads(reading.as_ptr(), &file), Done(1), "round {n}, to read");
                    let writing = region.pin_ptr(PAGE..2 * PAGE).unwrap();
                    assert_eq!(kernel_writes(writing.as_ptr()), Done(1), "round {n}, to write");
                }
            });
            let came = pinner.join();
            is_over.store(true, Relaxed);
            came.unwrap();
        });
        assert_eq!(region.pinnable(), 96 * PAGE);
    });
}

/// A file whose pages have their number, and one more, as every word, and that is read past the page cache. Or a word why not.
fn direct() -> Option<(tempfile::TempDir, File)> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("input");
    let words: Vec<u8> = (0..PAGES).flat_map(|page| [page + 1; 512]).flat_map(u64::to_ne_bytes).collect();
    let mut file = File::create(&path).unwrap();
    file.write_all(&words).and_then(|()| file.sync_all()).unwrap();
    let opened = File::options().read(true).custom_flags(libc::O_DIRECT).open(path);
    let file = opened.map_err(|error| println!("skipped: O_DIRECT: {error}")).ok()?;
    Some((directory, file))
}

/// Reads so many pages from there.
fn input(file: &File, page: u64, into: *mut u8, pages: u64) -> Came {
    let (len, from) = ((pages * PAGE) as usize, (page * PAGE) as i64);
    // SAFETY: (1) the kernel looks whether it may.
    came(unsafe { libc::pread(file.as_raw_fd(), into.cast(), len, from) } as i64)
}

#[test]
fn input_past_the_page_cache_goes_to_what_is_pinned() {
    let Some((_directory, file)) = direct() else { return };
    each_engine(128 * PAGE, |pager| {
        let region = pager.region(Asking::new(Kept::new(PAGES)), PAGES * PAGE).map().unwrap();
        region.evict(0..PAGES * PAGE);
        assert_eq!(input(&file, 0, region.as_ptr(), 8), FAULT, "what is not pinned is missing");
        under_pressure(pager, &region, || {
            for page in (0..PAGES).step_by(8) {
                let pinned = region.pin_ptr(page * PAGE..(page + 8) * PAGE).unwrap();
                assert_eq!(input(&file, page, pinned.as_ptr(), 8), Done(8 * PAGE as i64));
            }
        });
        for (words, number) in region.as_slice::<[u64; 512]>().iter().zip(1..) {
            assert!(words.iter().all(|word| *word == number), "page {}: {words:?}", number - 1);
        }
    });
}

#[test]
fn a_flush_leaves_what_is_pinned_to_be_written() {
    each_engine(128 * PAGE, |pager| {
        let region = pager.region(Kept::new(PAGES), PAGES * PAGE).around(1).map().unwrap();
        // SAFETY: (1) an atomic: all use it as such.
        let word = unsafe { AtomicU64::from_ptr(region.as_ptr().cast()) };
        let faults = || region.status().faults.count();
        let pinned = region.pin_ptr(0..PAGE).unwrap();
        word.store(1, Relaxed);
        region.flush().unwrap();
        assert_eq!((region.backing().word(0, 0), region.dirty()), (1, vec![0..PAGE]));
        word.store(2, Relaxed);
        assert_eq!(kernel_writes(pinned.as_ptr().wrapping_add(8)), Done(1));
        assert_eq!(faults(), 0, "no store has found it protected");
        drop(pinned);
        region.flush().unwrap();
        assert_eq!((region.backing().word(0, 0), region.dirty()), (2, vec![]));
        // Now it is like any other: what was flushed is protected, and so is what is pinned to be read.
        let reading = region.pin(0..PAGE).unwrap();
        word.store(3, Relaxed);
        assert_eq!(faults(), 1);
        region.flush().unwrap();
        assert_eq!((kernel_writes(region.as_ptr()), region.dirty(), reading[0]), (FAULT, vec![], 3));
    });
}

#[test]
fn a_quarter_stays_for_others() {
    each_engine(64 * PAGE, |pager| {
        let (region, other) = [(); 2].map(|()| pager.map(Asking::numbered(PAGES), PAGES * PAGE).unwrap()).into();
        assert_eq!(region.pinnable(), 48 * PAGE);
        let first = region.pin(0..40 * PAGE).unwrap();
        // Also by another region.
        assert_eq!((region.pinnable(), other.pinnable()), (8 * PAGE, 8 * PAGE));
        assert!(matches!(other.pin(0..9 * PAGE), Err(NoPin::Budget(most)) if most == 8 * PAGE));
        let second = other.pin(8..8 * PAGE).unwrap();
        assert_eq!(other.pin(0..1).err().unwrap().to_string().split("that").next(), Some("more than the 0 bytes "));
        other.as_slice::<[u64; 512]>().iter().zip(1..).for_each(|(words, number)| assert_eq!(words[9], number));
        drop((first, second));
        assert_eq!(region.pinnable(), 48 * PAGE);
        // And of its own.
        region.set_budget(Some(8 * PAGE)).unwrap();
        assert!(matches!(region.pin(0..5 * PAGE), Err(NoPin::Budget(most)) if most == 4 * PAGE));
        let _most = region.pin(0..4 * PAGE).unwrap();
        // Nor are they ever more than that.
        region.set_budget(Some(12 * PAGE)).unwrap();
        let _more = region.pin(4 * PAGE..8 * PAGE).unwrap();
        let refused = region.set_budget(Some(11 * PAGE)).unwrap_err();
        assert!(matches!(refused, NoRegion::Pinned { pinned, .. } if pinned == 8 * PAGE), "{refused}");
        region.as_slice::<[u64; 512]>().iter().zip(1..).for_each(|(words, number)| assert_eq!(words[9], number));
    });
}

#[test]
fn what_others_write_leaves_beside_what_is_pinned() {
    each_engine(64 * PAGE, |pager| {
        let [region, other] = [(); 2].map(|()| pager.map(Asking::numbered(PAGES), PAGES * PAGE).unwrap());
        let _most = region.pin(0..region.pinnable()).unwrap();
        for page in 0..PAGES {
            // SAFETY: (1) an atomic: all use it as such.
            unsafe { AtomicU64::from_ptr((other.as_ptr() as u64 + page * PAGE) as *mut u64) }.fetch_add(1, Relaxed);
        }
        other.as_slice::<[u64; 512]>().iter().zip(1..).for_each(|(words, number)| assert_eq!(words[0], number + 1));
    });
}

#[test]
fn a_store_to_two_pages_ends_beside_what_is_pinned() {
    each_engine(64 * PAGE, |pager| {
        let [region, other] = [(); 2].map(|()| pager.map(Asking::numbered(PAGES), PAGES * PAGE).unwrap());
        let _most = region.pin(0..region.pinnable()).unwrap();
        for page in 1..PAGES {
            let at = other.as_ptr() as u64 + page * PAGE - 4;
            // SAFETY: (1) one store of eight bytes of the region's, which nobody else uses.
            unsafe { std::arch::asm!("mov [{}], {}", in(reg) at, in(reg) page << 32) };
        }
        assert!((1..PAGES).all(|page| other.as_slice::<u32>()[page as usize * 1024] == page as u32));
    });
}

#[test]
fn what_cannot_be_had_is_not_pinned() {
    let _watched = watched();
    let Some(pager) = pager(64 * PAGE) else { return };
    let fails =
        |first: u64, count| if (first..first + count as u64).contains(&5) { Err(io::Error::other("on fire")) } else { Ok(()) };
    let mut region = pager.region(Asking::numbered(PAGES).fills(fails), PAGES * PAGE).writable(false).map().unwrap();
    let why = |no: NoPin| match no {
        NoPin::Failed(failed) => (failed.at, failed.why, failed.error.map(|error| error.to_string())),
        NoPin::Budget(most) => panic!("{most}"),
    };
    let failed = region.pin(3 * PAGE + 7..9 * PAGE).map(drop).unwrap_err();
    assert_eq!(why(failed), (5 * PAGE, Denied::Bus, Some("on fire".into())));
    assert_eq!(why(region.pin_mut(3..9).map(drop).unwrap_err()), (3, Denied::Protected, None));
    assert_eq!(why(region.pin(PAGE..PAGES * PAGE + 1).map(drop).unwrap_err()), (PAGES * PAGE, Denied::Unmapped, None));
    assert_eq!((region.pinnable(), region.pin(9..9).unwrap().len()), (48 * PAGE, 0));
}

#[test]
fn a_guard_that_is_forgotten_keeps_its_frames_and_nothing_else() {
    each_engine(128 * PAGE, |pager| {
        let mut region = pager.map(Asking::numbered(PAGES), PAGES * PAGE).unwrap();
        std::mem::forget(region.pin_mut(3 * PAGE..5 * PAGE).unwrap());
        region.as_mut_slice::<u64>().fill(9);
        region.flush().unwrap();
        assert_eq!((region.dirty(), region.backing().kept.word(3, 7)), (vec![3 * PAGE..5 * PAGE], 9));
        drop(region);
        assert_eq!(pager.usage().used, 2);
        let region = pager.map(Asking::numbered(PAGES), PAGES * PAGE).unwrap();
        region.as_slice::<[u64; 512]>().iter().zip(1..).for_each(|(words, number)| assert_eq!(words[9], number));
        assert_eq!(region.pinnable(), 94 * PAGE);
    });
}
