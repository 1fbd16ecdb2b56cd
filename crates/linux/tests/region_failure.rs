//! Backings that fail: who touches a page that cannot be had is told, never given zeros, and never left waiting; what cannot be written back stays.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::single_range_in_vec_init, reason = "runs of pages are ranges")]

mod common;
mod pagers;

use common::alone::{Ended, alone, one_of};
use common::{End, PAGE, bus, exit_by_sigbus, watched};
use pagers::{Asking, Kept, is_possible, pager};
use spile::Denied;
use spile_linux::{Ability, Allowed, Failed, OnFailure, Pager, Region, Unwritten};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize};

const PAGES: u64 = 64;
/// The page that fails.
const BAD: u64 = 5;

fn broken() -> io::Result<()> {
    Err(io::Error::other("the disk is on fire"))
}

/// A backing that cannot fill that page, and says so in this way.
fn backing(fail: fn() -> io::Result<()>) -> Asking {
    Asking::numbered(PAGES).fills(move |first, count| if (first..first + count as u64).contains(&BAD) { fail() } else { Ok(()) })
}

fn map(pager: &Pager, backing: Asking, on_failure: OnFailure) -> Region<Asking> {
    pager.region(backing, PAGES * PAGE).on_failure(on_failure).map().unwrap()
}

/// Touches the page that fails, beside those that do not.
fn touch(fail: fn() -> io::Result<()>, on_failure: OnFailure) {
    let region = map(&pager(256 * PAGE).unwrap(), backing(fail), on_failure);
    let words = region.as_slice::<[u64; 512]>();
    assert_eq!(words[BAD as usize - 1][9], BAD);
    println!("not reached: {}", words[BAD as usize][9]);
}

fn ended(child: &Ended, end: End) {
    assert!(!child.out.contains("not reached") && child.end == end, "{end:?}, and not {child:?}");
}

#[test]
fn who_touches_what_fails_has_the_signal() {
    if !is_possible() {
        return;
    }
    type Fail = fn() -> io::Result<()>;
    let ways: [(_, Fail); 2] = [("an error", broken), ("a panic", || panic!("the disk is on fire"))];
    for (way, fail) in ways {
        let handled = one_of(&format!("{way}, handled"), || {
            exit_by_sigbus();
            touch(fail, OnFailure::Signal);
        });
        // The word's byte within its page, 72, is more than a status has room for.
        handled.iter().for_each(|child| ended(child, bus(libc::BUS_ADRERR, 31)));
        let deadly = one_of(&format!("{way}, deadly"), || touch(fail, OnFailure::Signal));
        deadly.iter().for_each(|child| ended(child, End::Signal(libc::SIGBUS)));
    }
}

#[test]
fn who_wants_so_is_told_why_the_process_ends() {
    if !is_possible() {
        return;
    }
    let child = alone(|| touch(broken, OnFailure::Abort));
    ended(&child, End::Signal(libc::SIGABRT));
    let byte = format!("byte {}", BAD * PAGE + 72);
    for part in ["spile: ", "Read", &byte, "cannot be had from the backing", "the disk is on fire"] {
        assert!(child.err.contains(part), "no {part:?} in {:?}", child.err);
    }
}

/// Whether pages can be poisoned here, or a word why not.
fn can_poison() -> bool {
    let report = spile_linux::probe();
    if let Some(why) = report.why_not(Ability::Poison) {
        println!("skipped: {why}");
    }
    report.engine.is_ok() && report.can(Ability::Poison)
}

/// What the handler of the test below has.
static POISONED: AtomicPtr<Region<Asking>> = AtomicPtr::new(std::ptr::null_mut());
static MENDED: AtomicBool = AtomicBool::new(false);
static SIGNALS: AtomicUsize = AtomicUsize::new(0);

/// The first time it has the backing work again; then it looks whether that has changed anything, and has the page discarded. The access is repeated each time.
extern "C" fn mends(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: (1) the kernel's, of a fault.
    let (code, at) = unsafe { ((*info).si_code, (*info).si_addr() as u64) };
    let nth = SIGNALS.fetch_add(1, Relaxed);
    // SAFETY: (1) the test's, which is in a load.
    let region = unsafe { &mut *POISONED.load(Relaxed) };
    println!("signal {nth} of {code} at {}", at - region.as_ptr() as u64);
    MENDED.store(true, Relaxed);
    if nth == 1 {
        let failed = region.read_at(BAD * PAGE, &mut [0]).unwrap_err();
        assert!(failed.is_poisoned() && failed.why == Denied::Bus, "{failed}");
        assert!(region.prefetch(0..PAGES * PAGE).unwrap_err().is_poisoned());
        assert_eq!(region.poisoned(), [BAD * PAGE..(BAD + 1) * PAGE]);
        assert!(region.resident().iter().all(|run| !run.contains(&(BAD * PAGE))));
        region.discard(0..PAGES * PAGE);
        assert_eq!(region.poisoned(), []);
    }
}

#[test]
fn what_is_poisoned_stays_so_until_it_is_discarded() {
    if !can_poison() {
        return;
    }
    let handled = one_of("handled", || {
        exit_by_sigbus();
        touch(broken, OnFailure::Poison);
    });
    handled.iter().for_each(|child| ended(child, bus(libc::BUS_MCEERR_AR, 31)));
    let mended = one_of("mended", || {
        // SAFETY: (1) zeros are a handler without flags and mask; (2) it interrupts one load of this thread's, and no lock is held there.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = mends as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut());
        }
        let fails = |first: u64, count| {
            let is_bad = (first..first + count as u64).contains(&BAD) && !MENDED.load(Relaxed);
            if is_bad { broken() } else { Ok(()) }
        };
        let mut region = map(&pager(256 * PAGE).unwrap(), Asking::numbered(PAGES).fills(fails), OnFailure::Poison);
        POISONED.store(&raw mut region, Relaxed);
        let word = (region.as_ptr() as u64 + BAD * PAGE + 16) as *const u64;
        // SAFETY: (1) a word of the region.
        println!("read {}", unsafe { word.read_volatile() });
        assert_eq!(region.as_slice::<[u64; 512]>()[BAD as usize + 1][9], BAD + 2);
    });
    let at = BAD * PAGE + 16;
    let code = libc::BUS_MCEERR_AR;
    let said = format!("signal 0 of {code} at {at}\nsignal 1 of {code} at {at}\nread {}", BAD + 1);
    mended.iter().for_each(|child| assert!(child.out.contains(&said) && child.end == End::Exit(0), "{child:?}"));
}

#[test]
fn a_write_to_what_is_to_be_read_has_the_signal() {
    if !is_possible() {
        return;
    }
    let nothing = one_of("nothing may be done", || {
        exit_by_sigbus();
        let mut region = pager(256 * PAGE).unwrap().map(Asking::numbered(PAGES), PAGES * PAGE).unwrap();
        region.prefetch(0..PAGES * PAGE).unwrap();
        region.protect(0..PAGE, Allowed::Nothing).unwrap();
        assert_eq!(region.as_slice::<u64>()[512], 2);
        println!("not reached: {}", region.as_slice::<u64>()[2]);
    });
    nothing.iter().for_each(|child| ended(child, bus(libc::BUS_ADRERR, 16)));
    for (row, is_there) in [("there", true), ("missing", false)] {
        let child = one_of(row, || {
            exit_by_sigbus();
            let pager = pager(256 * PAGE).unwrap();
            let region = pager.region(Asking::numbered(PAGES), PAGES * PAGE).writable(false).map().unwrap();
            if is_there {
                assert_eq!(region.as_slice::<u64>()[0], 1);
            }
            // SAFETY: (1) a word of the region: who may not write it is told.
            unsafe { region.as_ptr().add(8).write_volatile(7) };
            println!("not reached");
        });
        child.iter().for_each(|child| ended(child, bus(libc::BUS_ADRERR, 8)));
    }
}

#[test]
fn a_write_by_call_to_what_is_to_be_read_is_refused() {
    let Some(pager) = pager(256 * PAGE) else { return };
    let mut region = pager.region(Asking::numbered(PAGES), PAGES * PAGE).writable(false).map().unwrap();
    let Failed { at, why, error } = region.write_at(8, &[7]).unwrap_err();
    assert!(at == 8 && why == Denied::Protected && error.is_none(), "{at} {why:?} {error:?}");
    assert_eq!(region.as_slice::<u64>()[1], 1);
}

fn said(failed: &Failed, at: u64) {
    assert_eq!((failed.at, failed.why), (at, Denied::Bus), "{failed}");
    assert_eq!(failed.error.as_ref().map(ToString::to_string).as_deref(), Some("the disk is on fire"), "{failed}");
}

#[test]
fn calls_say_what_failed_and_where_and_do_the_rest() {
    let _watched = watched();
    let Some(pager) = pager(256 * PAGE) else { return };
    let mut region = map(&pager, backing(broken), OnFailure::Abort);
    said(&region.prefetch(0..PAGES * PAGE).unwrap_err(), BAD * PAGE);
    let mut bytes = vec![0xEE; 8 * PAGE as usize];
    said(&region.read_at(2 * PAGE + 8, &mut bytes).unwrap_err(), BAD * PAGE);
    let (had, rest) = bytes.split_at(3 * PAGE as usize - 8);
    assert!(had.iter().all(|byte| [0, 3, 4, 5].contains(byte)) && had[had.len() - 8] == BAD as u8, "what lies before is had");
    assert!(rest.iter().all(|byte| *byte == 0xEE), "and nothing of zeros behind it");
    said(&region.write_at(BAD * PAGE + 4, b"some").unwrap_err(), BAD * PAGE + 4);
    said(&region.write_at(BAD * PAGE - 4, b"some and more").unwrap_err(), BAD * PAGE);
    assert_eq!(region.as_slice::<u8>()[BAD as usize * PAGE as usize - 4..][..4], *b"some");
}

#[test]
fn a_panic_is_an_error() {
    let _watched = watched();
    let Some(pager) = pager(256 * PAGE) else { return };
    let region = map(&pager, backing(|| panic!("the disk is on fire")), OnFailure::Abort);
    let failed = region.prefetch(0..PAGES * PAGE).unwrap_err();
    assert_eq!((failed.at, failed.why), (BAD * PAGE, Denied::Bus));
    assert!(failed.to_string().contains("panicked"), "{failed}");
    assert_eq!(region.as_slice::<u64>()[512 * (BAD as usize + 1)], BAD + 2);
}

#[test]
fn a_page_that_fails_keeps_none_beside_it_from_being_had() {
    let _watched = watched();
    let Some(pager) = pager(256 * PAGE) else { return };
    let region = map(&pager, backing(broken), OnFailure::Abort);
    for page in (0..16).filter(|page| *page != BAD) {
        assert_eq!(region.as_slice::<[u64; 512]>()[page as usize][9], page + 1);
    }
    said(&region.prefetch(BAD * PAGE..(BAD + 1) * PAGE).unwrap_err(), BAD * PAGE);
}

/// Something that can be switched on and off.
fn switch() -> (Arc<AtomicBool>, Arc<AtomicBool>) {
    let switch = Arc::new(AtomicBool::new(true));
    (switch.clone(), switch)
}

#[test]
fn a_page_can_be_had_when_the_backing_works_again() {
    let _watched = watched();
    let Some(pager) = pager(256 * PAGE) else { return };
    let (is_broken, switch) = switch();
    let backing = Asking::numbered(PAGES).fills(move |_, _| if switch.load(Relaxed) { broken() } else { Ok(()) });
    let region = map(&pager, backing, OnFailure::Abort);
    for page in 0..PAGES {
        said(&region.prefetch(page * PAGE..(page + 1) * PAGE).unwrap_err(), page * PAGE);
    }
    assert!(region.resident().is_empty(), "{:?}", region.resident());
    assert!(region.status().failed > 0);
    is_broken.store(false, Relaxed);
    for (words, number) in region.as_slice::<[u64; 512]>().iter().zip(1..) {
        assert_eq!((words[0], words[511]), (number, number));
    }
}

#[test]
fn threads_that_wait_for_what_fails_are_all_told() {
    let _watched = watched();
    let Some(pager) = pager(256 * PAGE) else { return };
    let backing = Asking::numbered(PAGES).fills(|_, _| {
        std::thread::sleep(std::time::Duration::from_millis(2));
        broken()
    });
    let region = map(&pager, backing, OnFailure::Abort);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..8 {
                    let failed = region.prefetch(BAD * PAGE..(BAD + 1) * PAGE).unwrap_err();
                    assert_eq!((failed.at, failed.why), (BAD * PAGE, Denied::Bus));
                }
            });
        }
    });
}

/// A region whose backing takes nothing as long as the switch is on.
fn unwritable(pager: &Pager) -> (Arc<AtomicBool>, Region<Asking>) {
    let (is_broken, switch) = switch();
    let backing = Asking::numbered(PAGES).writes(move |_, _| if switch.load(Relaxed) { broken() } else { Ok(()) });
    (is_broken, map(pager, backing, OnFailure::Abort))
}

#[test]
fn what_cannot_be_written_back_stays_and_is_written_later() {
    let _watched = watched();
    let Some(pager) = pager(256 * PAGE) else { return };
    let (is_broken, mut region) = unwritable(&pager);
    region.as_mut_slice::<[u64; 512]>()[BAD as usize][9] = 99;
    for _ in 0..2 {
        let Unwritten(error) = region.flush().unwrap_err();
        assert_eq!(error.unwrap().to_string(), "the disk is on fire");
        region.evict(0..PAGES * PAGE);
        assert!(matches!(&region.dirty()[..], [bytes] if *bytes == (BAD * PAGE..(BAD + 1) * PAGE)), "{:?}", region.dirty());
        assert_eq!(region.as_slice::<[u64; 512]>()[BAD as usize][9], 99);
        assert_eq!(region.backing().kept.word(BAD, 9), BAD + 1);
    }
    is_broken.store(false, Relaxed);
    region.flush().unwrap();
    assert!(region.dirty().is_empty());
    assert_eq!((region.backing().kept.word(BAD, 9), region.backing().kept.word(BAD, 8)), (99, BAD + 1));
    region.evict(0..PAGES * PAGE);
    assert_eq!(region.as_slice::<[u64; 512]>()[BAD as usize][9], 99);
}

#[test]
fn memory_that_is_full_of_what_cannot_leave_is_an_error() {
    let _watched = watched();
    let Some(pager) = pager(64 * PAGE) else { return };
    let (is_broken, mut region) = unwritable(&pager);
    let mut other = pager.region(Kept::new(PAGES), PAGES * PAGE).around(1).map().unwrap();
    (0..PAGES).for_each(|page| region.write_at(page * PAGE, &[77]).unwrap());
    let failed = other.write_at(8, &[7]).unwrap_err();
    assert_eq!((failed.at, failed.why), (8, Denied::NoMemory), "{failed}");
    assert_eq!(other.prefetch(0..PAGE).unwrap_err().why, Denied::NoMemory);
    // What was written is there still.
    region.as_slice::<[u8; PAGE as usize]>().iter().for_each(|page| assert_eq!(page[0], 77));
    is_broken.store(false, Relaxed);
    (0..PAGES).for_each(|page| other.write_at(page * PAGE, &[7]).unwrap());
    region.flush().unwrap();
    (0..PAGES).for_each(|page| assert_eq!(region.backing().kept.word(page, 0) & 0xFF, 77));
}
