//! Memory of regions that others map: what they see, and that nothing they do changes what the program sees.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod common;
mod pagers;

use common::{End, Map, in_child, watched};
use pagers::{Kept, built};
use spile_linux::{Features, PAGE, Pager, Region};
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

const PAGES: u64 = 128;

fn pager() -> Option<Pager> {
    built(Pager::builder().budget(64 * PAGE).shared())
}

/// Pages that have their number, and one more, as every word.
fn region(pager: &Pager) -> Region<Kept> {
    let kept = Kept::new(PAGES);
    (0..PAGES).for_each(|page| kept.set(page, page + 1));
    pager.region(kept, PAGES * PAGE).around(1).map().unwrap()
}

/// As another process would map it.
fn mapped(file: &File, flags: i32) -> Map {
    Map::new(PAGES, libc::PROT_READ, flags, file.as_raw_fd())
}

/// Word 7 of a page, that others may write meanwhile.
fn word(at: u64) -> u64 {
    // SAFETY: (1) mapped, and used as an atomic alone.
    unsafe { AtomicU64::from_ptr((at + 56) as *mut u64) }.load(Relaxed)
}

/// Adds to it.
fn add(region: &Region<Kept>, page: u64) {
    // SAFETY: (1) as above.
    unsafe { AtomicU64::from_ptr(region.as_ptr().add((page * PAGE + 56) as usize).cast()) }.fetch_add(1, Relaxed);
}

/// Has the first pages leave, and others come until they have: what has left is dropped when there is need of it.
fn wait_until(region: &Region<Kept>, have_left: impl Fn() -> bool) {
    region.evict(0..PAGES * PAGE);
    while !have_left() {
        region.prefetch(8 * PAGE..PAGES * PAGE).unwrap();
        region.evict(8 * PAGE..PAGES * PAGE);
    }
}

#[test]
fn others_see_what_is_in_memory_and_zeros_for_the_rest() {
    let _watched = watched();
    let Some(pager) = pager() else { return };
    let region = region(&pager);
    let others = mapped(&region.share().unwrap(), libc::MAP_SHARED);
    let pinned = region.pin(3 * PAGE..5 * PAGE).unwrap();
    assert_eq!([2, 3, 4, 5].map(|page| word(others.at(page))), [0, 4, 5, 0]);
    add(&region, 3);
    assert_eq!(word(others.at(3)), 5);
    let child = || [2, 3, 4].map(|page| word(others.at(page)).to_string()).join(" ");
    assert_eq!(in_child(child), ("0 5 5".into(), End::Exit(0)), "a child has the mapping, if not the region");
    // What was looked at in vain is not shown to the program.
    assert_eq!([2, 5].map(|page| word(region.as_ptr() as u64 + page * PAGE)), [3, 6]);
    assert_eq!([2, 5].map(|page| word(others.at(page))), [3, 6]);
    drop(pinned);
    wait_until(&region, || [2, 3, 4, 5].map(|page| word(others.at(page))) == [0; 4]);
    assert_eq!([2, 3, 4, 5].map(|page| word(region.as_ptr() as u64 + page * PAGE)), [3, 5, 5, 6]);
    drop(region);
    assert_eq!(word(others.at(3)), 0, "pages go with their region, not what is mapped");
}

#[test]
fn others_can_do_nothing_but_read() {
    let Some(pager) = pager() else { return };
    let region = region(&pager);
    let mut file = region.share().unwrap();
    region.prefetch(0..PAGE).unwrap();
    let mut bytes = [0; 2 * PAGE as usize];
    file.read_exact(&mut bytes).unwrap();
    assert_eq!((bytes[0], bytes[PAGE as usize]), (1, 0));
    file.seek(SeekFrom::Start(0)).unwrap();
    file.write_all(&[9]).unwrap_err();
    file.set_len(0).unwrap_err();
    let fd = OwnedFd::from(file);
    // SAFETY: (1) a call without pointers; (2) a new mapping overlaps nothing.
    let (hole, at) = unsafe {
        let how = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let hole = libc::fallocate(fd.as_raw_fd(), how, 0, PAGE as i64);
        (hole, libc::mmap(std::ptr::null_mut(), PAGE as usize, prot, libc::MAP_SHARED, fd.as_raw_fd(), 0))
    };
    assert_eq!((hole, at), (-1, libc::MAP_FAILED));
    assert_eq!(word(region.as_ptr() as u64), 1);
}

#[test]
fn who_registers_his_mapping_is_never_shown_zeros_for_what_is_missing() {
    let _watched = watched();
    let Some(pager) = pager() else { return };
    let Some(uffd) = common::uffd(Features::SIGBUS.with(Features::MINOR_SHMEM)) else { return };
    let region = region(&pager);
    let others = mapped(&region.share().unwrap(), libc::MAP_PRIVATE);
    // SAFETY: (1) nobody touches it but the kernel, which is refused.
    unsafe { uffd.register_minor(others.at(0), others.len()) }.unwrap();
    assert!(!others.is_there(6));
    // SAFETY: (1) as above.
    unsafe { uffd.map_minor(others.at(6), PAGE, false) }.unwrap_err();
    region.prefetch(6 * PAGE..7 * PAGE).unwrap();
    assert!(!others.is_there(6), "he is told first");
    // SAFETY: (1) as above.
    unsafe { uffd.map_minor(others.at(6), PAGE, false) }.unwrap();
    assert_eq!(word(others.at(6)), 7);
    add(&region, 6);
    assert_eq!(word(others.at(6)), 8);
    wait_until(&region, || !others.is_there(6));
    assert_eq!(word(region.as_ptr() as u64 + 6 * PAGE), 8);
}

#[test]
fn what_the_kernel_shows_no_more_is_shown_again_as_it_was() {
    let _watched = watched();
    let Some(pager) = pager() else { return };
    let region = region(&pager);
    let filled = || region.status().filled / PAGE;
    (0..4).for_each(|page| assert_eq!(word(region.as_ptr() as u64 + page * PAGE), page + 1));
    (0..2).for_each(|page| add(&region, page));
    // As the kernel does to swap them: of each kind one is read next, and one is written.
    let lose = || {
        // SAFETY: (1) the bytes stay in the region's memory.
        assert_eq!(unsafe { libc::madvise(region.as_ptr().cast(), 4 * PAGE as usize, libc::MADV_DONTNEED) }, 0);
    };
    lose();
    (0..4).for_each(|page| assert_eq!(word(region.as_ptr() as u64 + page * PAGE), page + 1 + u64::from(page < 2)));
    lose();
    (0..4).for_each(|page| add(&region, page));
    assert_eq!(filled(), 4, "none of them was brought again");
    // What the pager itself reads and writes, of pages that are lost.
    lose();
    let mut bytes = [0; 8];
    region.read_at(56, &mut bytes).unwrap();
    assert_eq!(u64::from_ne_bytes(bytes), 3);
    lose();
    region.flush().unwrap();
    assert_eq!([0, 1, 2, 3].map(|page| region.backing().word(page, 7)), [3, 4, 4, 5]);
    lose();
    region.evict(0..PAGES * PAGE);
    assert_eq!([0, 1, 2, 3].map(|page| word(region.as_ptr() as u64 + page * PAGE)), [3, 4, 4, 5]);
}

/// Adds to all words by two threads, beside somebody who has pages leave and somebody who looks at all of them by his mapping, there or not.
#[test]
fn who_looks_on_sees_no_old_bytes_and_takes_none_away() {
    let _watched = watched();
    let Some(pager) = pager() else { return };
    let region = region(&pager);
    let others = mapped(&region.share().unwrap(), libc::MAP_SHARED);
    let (rounds, done) = (60, AtomicBool::new(false));
    let seen = std::thread::scope(|scope| {
        let look = || {
            let (mut newest, mut seen) = (vec![0; PAGES as usize], [0u64; 2]);
            while !done.load(Relaxed) {
                for page in 0..PAGES {
                    let is = word(others.at(page));
                    assert!(is == 0 || is >= newest[page as usize], "page {page}: {is} after {}", newest[page as usize]);
                    newest[page as usize] = is.max(newest[page as usize]);
                    seen[usize::from(is > 0)] += 1;
                }
            }
            seen
        };
        let looks = scope.spawn(look);
        let evicts = scope.spawn(|| {
            while !done.load(Relaxed) {
                region.evict(0..PAGES * PAGE);
            }
        });
        let adds = |step: u64| (0..rounds * PAGES).for_each(|n| add(&region, n * step % PAGES));
        let threads = [1, 3].map(|step| scope.spawn(move || adds(step)));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        done.store(true, Relaxed);
        evicts.join().unwrap();
        looks.join().unwrap()
    });
    (0..PAGES).for_each(|page| assert_eq!(word(region.as_ptr() as u64 + page * PAGE), page + 1 + 2 * rounds, "page {page}"));
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}: what was there was seen, and what was not");
}

#[test]
fn what_is_not_shared_is_not_given() {
    let Some(pager) = built(Pager::builder()) else { return };
    assert_eq!(region(&pager).share().unwrap_err().kind(), ErrorKind::Unsupported);
}
