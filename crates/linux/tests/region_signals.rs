//! Faults and signals: whose a SIGBUS is, and what a thread keeps over a fault.
//!
//! A handler is installed once for a process, so who was there before is tried in children that begin anew.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod common;
mod pagers;

use common::alone::{Ended, alone, one_of};
use common::{End, Map, PAGE, bus, exit_by_sigbus, memfd, watched};
use pagers::{Asking, is_possible, pager};
use spile_linux::{Region, thread_can_fault};
use std::ffi::c_void;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::null_mut;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize};

/// A region that works, which it shows.
fn region() -> Region<Asking> {
    let region = pager(512 * PAGE).unwrap().map(Asking::numbered(256), 256 * PAGE).unwrap();
    works(&region, 0);
    region
}

/// Reads 32 pages of a region, from that one on, which were not read before.
fn works(region: &Region<Asking>, first: usize) {
    assert!(region.resident().iter().all(|bytes| bytes.end <= first as u64 * PAGE || bytes.start >= (first as u64 + 32) * PAGE));
    (first..first + 32).for_each(|page| assert_eq!(region.as_slice::<[u64; 512]>()[page][9], page as u64 + 1));
}

/// A page of a file that has ended before: no region's.
fn foreign() -> (Map, OwnedFd) {
    let file = memfd(1);
    let map = Map::shared(&file, 1);
    // SAFETY: (1) a call without pointers.
    assert_eq!(unsafe { libc::ftruncate(file.as_raw_fd(), 0) }, 0);
    (map, file)
}

type Handler = extern "C" fn(i32, *mut libc::siginfo_t, *mut c_void);

/// From now on SIGBUS goes there; gives who had it before.
fn install(handler: usize, flags: i32) -> libc::sigaction {
    // SAFETY: (1) zeros are an action without a mask; (2) handlers are the test's own.
    unsafe {
        let (mut action, mut before): (libc::sigaction, libc::sigaction) = std::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        assert_eq!(libc::sigaction(libc::SIGBUS, &raw const action, &raw mut before), 0);
        before
    }
}

extern "C" fn exit_plainly(signal: i32) {
    // SAFETY: (1) ends the child.
    unsafe { libc::_exit(signal + 1) };
}

/// Before there is a pager does `before`, then touches what is not a region's.
fn touch_foreign(before: fn()) {
    before();
    let _region = region();
    let (map, _file) = foreign();
    println!("{}", map.byte(0));
}

#[test]
fn a_fault_of_another_address_is_its_who_was_there_before() {
    if !is_possible() {
        return;
    }
    let rows: [(_, fn(), _); 5] = [
        ("SA_SIGINFO", exit_by_sigbus, bus(libc::BUS_ADRERR, 0)),
        ("a plain handler", || _ = install(exit_plainly as *const () as usize, 0), End::Exit(libc::SIGBUS + 1)),
        ("SIG_DFL", || _ = install(libc::SIG_DFL, 0), End::Signal(libc::SIGBUS)),
        ("SIG_IGN", || _ = install(libc::SIG_IGN, 0), End::Signal(libc::SIGBUS)),
        ("std's", || (), End::Signal(libc::SIGBUS)),
    ];
    for (row, before, expected) in rows {
        let Some(child) = one_of(row, || touch_foreign(before)) else { continue };
        println!("{row:16} {:?}", child.end);
        assert_eq!(child.end, expected, "{row}: {child:?}");
    }
}

static FILE: AtomicI32 = AtomicI32::new(-1);
static COUNT: AtomicUsize = AtomicUsize::new(0);
static CODE: AtomicI32 = AtomicI32::new(i32::MAX);

extern "C" fn lengthen(_: i32, _: *mut libc::siginfo_t, _: *mut c_void) {
    COUNT.fetch_add(1, Relaxed);
    // SAFETY: (1) a call without pointers.
    unsafe { libc::ftruncate(FILE.load(Relaxed), PAGE as i64) };
}

fn ends_well(child: &Ended) {
    assert_eq!(child.end, End::Exit(0), "{child:?}");
}

extern "C" fn count(_: i32) {
    COUNT.fetch_add(1, Relaxed);
}

#[test]
fn a_machine_check_of_a_region_is_its_who_was_there_before() {
    if !is_possible() {
        return;
    }
    ends_well(&alone(|| {
        install(count as *const () as usize, 0);
        let region = region();
        // SAFETY: (1) zeros are a record; the address is where the kernel puts it; (2) a signal to this thread, of a record that is there.
        let sent = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            info.si_signo = libc::SIGBUS;
            info.si_code = libc::BUS_MCEERR_AO;
            (&raw mut info).cast::<u8>().add(16).cast::<u64>().write(region.as_ptr() as u64);
            libc::syscall(libc::SYS_rt_tgsigqueueinfo, libc::getpid(), libc::gettid(), libc::SIGBUS, &raw const info)
        };
        assert_eq!((sent, COUNT.load(Relaxed)), (0, 1));
        works(&region, 64);
    }));
}

#[test]
fn who_was_there_before_may_repair_it() {
    if !is_possible() {
        return;
    }
    ends_well(&alone(|| {
        install(lengthen as *const () as usize, libc::SA_SIGINFO);
        let region = region();
        let (map, file) = foreign();
        FILE.store(file.as_raw_fd(), Relaxed);
        assert_eq!(map.byte(0), 0);
        works(&region, 64);
        assert_eq!(COUNT.load(Relaxed), 1, "and he was not asked about regions");
    }));
}

static INNER: AtomicUsize = AtomicUsize::new(0);

extern "C" fn hand_on(signal: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
    COUNT.fetch_add(1, Relaxed);
    // SAFETY: (1) a handler with three arguments, which was installed.
    let inner: Handler = unsafe { std::mem::transmute(INNER.load(Relaxed)) };
    inner(signal, info, context);
}

#[test]
fn who_comes_afterwards_hands_on_what_is_a_regions() {
    if !is_possible() {
        return;
    }
    let child = alone(|| {
        exit_by_sigbus();
        let region = region();
        let before = install(hand_on as *const () as usize, libc::SA_SIGINFO | libc::SA_NODEFER);
        assert_ne!(before.sa_flags & libc::SA_SIGINFO, 0);
        INNER.store(before.sa_sigaction, Relaxed);
        works(&region, 64);
        assert!((2..=32).contains(&COUNT.load(Relaxed)), "all of 32 pages");
        println!("handed on");
        println!("{}", foreign().0.byte(0));
    });
    assert!(child.out.contains("handed on"), "{child:?}");
    assert_eq!(child.end, bus(libc::BUS_ADRERR, 0), "and then to the first");
}

extern "C" fn note_code(_: i32, info: *mut libc::siginfo_t, _: *mut c_void) {
    COUNT.fetch_add(1, Relaxed);
    // SAFETY: (1) the kernel's, for this call.
    CODE.store(unsafe { (*info).si_code }, Relaxed);
}

/// Sends SIGBUS to the process, and then to the thread; afterwards a region has its faults as before.
fn send() {
    let region = region();
    // SAFETY: (1) calls without pointers.
    unsafe { libc::kill(libc::getpid(), libc::SIGBUS) };
    works(&region, 64);
    // SAFETY: (1) as above.
    unsafe { libc::raise(libc::SIGBUS) };
    works(&region, 128);
}

#[test]
fn a_signal_that_was_sent_is_its_who_was_there_before() {
    if !is_possible() {
        return;
    }
    let noted = one_of("SA_SIGINFO", || {
        install(note_code as *const () as usize, libc::SA_SIGINFO);
        send();
        assert_eq!((COUNT.load(Relaxed), CODE.load(Relaxed)), (2, libc::SI_TKILL));
    });
    noted.iter().for_each(ends_well);
    let ignored = one_of("SIG_IGN", || {
        install(libc::SIG_IGN, 0);
        send();
    });
    ignored.iter().for_each(ends_well);
    let deadly = one_of("SIG_DFL", || {
        install(libc::SIG_DFL, 0);
        send();
    });
    deadly.iter().for_each(|child| assert_eq!(child.end, End::Signal(libc::SIGBUS), "{child:?}"));
}

/// Calls itself until the stack ends.
fn overflow(depth: u64) -> u64 {
    let room = std::hint::black_box([depth; 64]);
    if depth == u64::MAX { 0 } else { overflow(depth + 1) + room[depth as usize % 64] }
}

#[test]
fn a_stack_that_overflows_is_said_to() {
    if !is_possible() {
        return;
    }
    let child = alone(|| {
        let region = region();
        let thread = std::thread::Builder::new().stack_size(1 << 18).name("deep".into());
        thread.spawn(move || region.as_slice::<u64>()[64 * 512] + overflow(0)).unwrap().join().unwrap();
    });
    assert_eq!(child.end, End::Signal(libc::SIGABRT), "{child:?}");
    assert!(child.err.contains("'deep'") && child.err.contains("has overflowed its stack"), "{child:?}");
}

#[test]
fn a_thread_that_blocks_the_signal_is_killed_and_knew() {
    if !is_possible() {
        return;
    }
    let child = alone(|| {
        let region = region();
        assert!(thread_can_fault());
        // SAFETY: (1) a set of this function's, and this thread's mask.
        unsafe {
            let mut set = std::mem::zeroed();
            libc::sigaddset(&raw mut set, libc::SIGBUS);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, null_mut());
        }
        assert!(!thread_can_fault());
        println!("what is there can be read: {}", region.as_slice::<u64>()[0]);
        println!("not reached: {}", region.as_slice::<u64>()[64 * 512]);
    });
    assert!(child.out.contains("can be read: 1") && !child.out.contains("not reached"), "{child:?}");
    assert_eq!(child.end, End::Signal(libc::SIGBUS));
}

/// A region whose backing reads another, whose backing reads another, and so on: so many. The innermost counts.
fn nested(depth: usize, window: u32, filled: &'static AtomicU64) -> Option<Region<Asking>> {
    let pager = pager(1024 * PAGE)?;
    let map = |backing| pager.region(backing, 64 * PAGE).around(window).map().unwrap();
    let innermost = map(Asking::numbered(64).fills(|_, count| {
        filled.fetch_add(count as u64, Relaxed);
        Ok(())
    }));
    Some((1..depth).fold(innermost, |inner, _| {
        map(Asking::numbered(64).fills(move |first, count| {
            let pages = first as usize..first as usize + count;
            pages.for_each(|page| assert_eq!(inner.as_slice::<[u64; 512]>()[page][9], page as u64 + 1));
            Ok(())
        }))
    }))
}

#[test]
fn a_backing_may_touch_another_region() {
    let _watched = watched();
    static FILLED: AtomicU64 = AtomicU64::new(0);
    for (depth, window) in [(2, 1), (2, 16), (16, 1), (16, 16)] {
        FILLED.store(0, Relaxed);
        let Some(region) = nested(depth, window, &FILLED) else { return };
        (0..64).rev().for_each(|page| assert_eq!(region.as_slice::<[u64; 512]>()[page][511], page as u64 + 1));
        assert_eq!(FILLED.load(Relaxed), 64, "each once, {depth} deep");
    }
}

fn errno() -> *mut i32 {
    // SAFETY: (1) this thread's.
    unsafe { libc::__errno_location() }
}

#[test]
fn errno_is_kept() {
    let backing = Asking::numbered(64).fills(|_, _| {
        // SAFETY: (1) the kernel refuses it.
        assert_eq!(unsafe { libc::close(-1) }, -1);
        Ok(())
    });
    let Some(pager) = pager(64 * PAGE) else { return };
    let region = pager.map(backing, 64 * PAGE).unwrap();
    let word = region.as_ptr().cast::<u64>();
    // SAFETY: (1) this thread's; (2) the region's.
    let (read, error) = unsafe {
        *errno() = 77;
        (word.read_volatile(), *errno())
    };
    assert_eq!((read, error), (1, 77));
}

static WORDS: AtomicUsize = AtomicUsize::new(0);
static SUM: AtomicU64 = AtomicU64::new(0);

/// Touches a page of a region, another one each time.
extern "C" fn touch(_: i32) {
    let nth = COUNT.fetch_add(1, Relaxed) % 256;
    // SAFETY: (1) a region of so many pages, which nobody writes.
    SUM.fetch_add(unsafe { (WORDS.load(Relaxed) as *const u64).add(nth * 512).read_volatile() }, Relaxed);
}

/// From now on SIGUSR1 touches this region.
fn touch_by_signal(region: &Region<Asking>) {
    WORDS.store(region.as_ptr() as usize, Relaxed);
    // SAFETY: (1) a handler of the test's.
    unsafe { libc::signal(libc::SIGUSR1, touch as *const () as usize) };
}

#[test]
fn a_handler_of_another_signal_may_touch_a_region() {
    if !is_possible() {
        return;
    }
    ends_well(&alone(|| {
        let pager = pager(64 * PAGE).unwrap();
        let region = pager.map(Asking::numbered(256), 256 * PAGE).unwrap();
        touch_by_signal(&region);
        // SAFETY: (1) a call without pointers.
        (0..512).for_each(|_| assert_eq!(unsafe { libc::raise(libc::SIGUSR1) }, 0));
        assert_eq!(SUM.load(Relaxed), 256 * 257);
    }));
}

#[test]
fn a_handler_that_interrupts_faults_may_touch_a_region() {
    if !is_possible() {
        return;
    }
    ends_well(&alone(|| {
        let pager = pager(64 * PAGE).unwrap();
        let region = pager.region(Asking::numbered(256), 256 * PAGE).around(1).map().unwrap();
        let other = pager.map(Asking::numbered(256), 256 * PAGE).unwrap();
        touch_by_signal(&other);
        // SAFETY: (1) a question.
        let this = unsafe { libc::pthread_self() };
        std::thread::scope(|scope| {
            let sender = scope.spawn(move || {
                for _ in 0..20_000 {
                    // SAFETY: (1) a thread that waits for this one.
                    unsafe { libc::pthread_kill(this, libc::SIGUSR1) };
                    std::thread::yield_now();
                }
            });
            while !sender.is_finished() {
                region.as_slice::<[u64; 512]>().iter().zip(1..).for_each(|(words, number)| assert_eq!(words[9], number));
            }
        });
    }));
}
