//! Each ioctl does to memory what it says, says how far it came, and why it went no further.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod common;

use common::{End, Map, PAGE, bus, exit_by_sigbus, in_child, memfd, uffd};
use spile_linux::{Cause, Features, Stopped};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

/// The cause, and how many pages were done.
fn stopped(result: Result<(), Stopped>) -> (Cause, u64) {
    let stopped = result.expect_err("it is not to succeed");
    println!("{stopped}");
    assert_eq!(stopped.done() % PAGE, 0);
    (stopped.cause(), stopped.done() / PAGE)
}

// SAFETY of all ioctls here: (1) and (2) the memory is the test's, and nobody else uses it.

#[test]
fn what_cannot_be_registered_is_told_apart() {
    let (Some(one), Some(other)) = (uffd(Features::SIGBUS), uffd(Features::SIGBUS)) else { return };
    let map = Map::anonymous(2);
    // SAFETY: as above.
    unsafe {
        assert_eq!(stopped(one.register(map.at(0) + 1, PAGE)).0, Cause::Invalid);
        assert_eq!(stopped(one.register(map.at(0), 0)).0, Cause::Invalid);
        one.register(map.at(0), PAGE).unwrap();
        assert_eq!(stopped(other.register(map.at(0), 2 * PAGE)).0, Cause::Taken);
        one.unregister(map.at(0), PAGE).unwrap();
        other.register(map.at(0), 2 * PAGE).unwrap();
    }
    // In a process of its own, where no other thread maps anything there meanwhile.
    let child = || {
        let uffd = uffd(Features::SIGBUS).unwrap();
        let at = Map::anonymous(1).at(0);
        // SAFETY: (1) nothing is there.
        format!("{:?}", stopped(unsafe { uffd.register(at, PAGE) }))
    };
    assert_eq!(in_child(child), ("(Invalid, 0)".into(), End::Exit(0)));
}

#[test]
fn a_file_that_may_not_be_written_is_not_registered() {
    let Some(uffd) = uffd(Features::SIGBUS) else { return };
    let file = memfd(1);
    let path = std::ffi::CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
    // SAFETY: (1) a string of C.
    let read_only = common::owned(unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) });
    let map = Map::new(1, libc::PROT_READ, libc::MAP_SHARED, read_only.as_raw_fd());
    // SAFETY: as above.
    assert_eq!(stopped(unsafe { uffd.register_missing(map.at(0), PAGE) }).0, Cause::ReadOnly);
}

/// A child whose second page is missing, and who touches byte 9 of it.
fn touch_missing(features: Features) -> End {
    let child = || {
        let uffd = uffd(features).unwrap();
        let map = Map::anonymous(2);
        // SAFETY: as above.
        unsafe { uffd.register(map.at(0), map.len()).unwrap() };
        exit_by_sigbus();
        // SAFETY: (1) mapped.
        unsafe { ((map.at(1) + 9) as *const u8).read_volatile() };
        String::new()
    };
    in_child(child).1
}

#[test]
fn a_missing_page_raises_a_signal_that_names_the_byte() {
    if uffd(Features::SIGBUS.with(Features::EXACT_ADDRESS)).is_none() {
        return;
    }
    assert_eq!(touch_missing(Features::SIGBUS.with(Features::EXACT_ADDRESS)), bus(libc::BUS_ADRERR, 9));
    // The feature is of messages.
    assert_eq!(touch_missing(Features::SIGBUS), bus(libc::BUS_ADRERR, 9));
}

#[test]
fn what_another_thread_has_resolved_is_no_fault() {
    let Some(uffd) = uffd(Features::SIGBUS) else { return };
    let (map, source) = (Map::anonymous(1), Map::anonymous(1));
    source.write(0, 7);
    // SAFETY: as above.
    unsafe { uffd.register(map.at(0), PAGE).unwrap() };
    assert!(!map.is_there(0));
    std::thread::scope(|scope| {
        // SAFETY: as above.
        scope.spawn(|| unsafe { uffd.copy(map.at(0), source.at(0), PAGE, false).unwrap() });
    });
    assert_eq!(map.byte(0), 7);
}

#[test]
fn a_copy_stops_where_a_page_is_there_or_none_is_to_be_copied() {
    let Some(uffd) = uffd(Features::SIGBUS) else { return };
    let (map, source) = (Map::anonymous(6), Map::anonymous(6));
    source.number(0..6);
    // SAFETY: as above.
    unsafe {
        uffd.register(map.at(0), map.len()).unwrap();
        uffd.copy(map.at(2), source.at(5), PAGE, false).unwrap();
        assert_eq!(stopped(uffd.copy(map.at(0), source.at(0), 6 * PAGE, false)), (Cause::PageThere, 2));
        assert_eq!([0, 1, 2].map(|page| map.byte(page)), [1, 2, 6]);
        assert!(!map.is_there(3));
        uffd.copy(map.at(3), source.at(3), PAGE, false).unwrap();
        assert_eq!(map.byte(3), 4);
        // What is missing is no source.
        uffd.register(source.at(0), source.len()).unwrap();
        libc::madvise(source.at(1) as *mut libc::c_void, PAGE as usize, libc::MADV_DONTNEED);
        assert_eq!(stopped(uffd.copy(map.at(4), source.at(0), 2 * PAGE, false)), (Cause::NoPage, 1));
        assert!(map.is_there(4) && !map.is_there(5));
        uffd.unregister(map.at(5), PAGE).unwrap();
        assert_eq!(stopped(uffd.copy(map.at(5), source.at(0), PAGE, false)).0, Cause::NotRegistered);
    }
}

#[test]
fn zeros_are_put_where_nothing_is() {
    let Some(uffd) = uffd(Features::SIGBUS) else { return };
    let map = Map::anonymous(3);
    map.write(1, 9);
    // SAFETY: as above.
    unsafe {
        uffd.register(map.at(0), map.len()).unwrap();
        assert_eq!(stopped(uffd.zero(map.at(0), 3 * PAGE)), (Cause::PageThere, 1));
        uffd.zero(map.at(2), PAGE).unwrap();
    }
    assert_eq!([0, 1, 2].map(|page| map.byte(page)), [0, 9, 0]);
    map.write(0, 3);
    assert_eq!(map.byte(0), 3);
}

#[test]
fn a_move_takes_the_page_with_its_bytes() {
    let Some(uffd) = uffd(Features::SIGBUS.with(Features::MOVE)) else { return };
    let (map, pool) = (Map::anonymous(5), Map::anonymous(5));
    pool.number(0..2);
    pool.number(3..5);
    // SAFETY: as above.
    unsafe {
        uffd.register(map.at(0), map.len()).unwrap();
        uffd.register(pool.at(0), pool.len()).unwrap();
        // The third is not there.
        assert_eq!(stopped(uffd.move_pages(map.at(0), pool.at(0), 5 * PAGE)), (Cause::NoPage, 2));
        assert_eq!([0, 1].map(|page| map.byte(page)), [1, 2]);
        assert!(!pool.is_there(0) && !pool.is_there(1) && !map.is_there(2));
        // The second is.
        assert_eq!(stopped(uffd.move_pages(map.at(1), pool.at(3), PAGE)), (Cause::PageThere, 0));
        assert_eq!(pool.byte(3), 4);
        // There and back.
        uffd.move_pages(pool.at(0), map.at(0), 2 * PAGE).unwrap();
        assert_eq!([0, 1].map(|page| pool.byte(page)), [1, 2]);
        assert!(!map.is_there(0));
        // Zeros that all share, too.
        uffd.zero(map.at(4), PAGE).unwrap();
        uffd.move_pages(map.at(0), map.at(4), PAGE).unwrap();
        assert_eq!(map.byte(0), 0);
        assert!(!map.is_there(4));
        uffd.unregister(map.at(4), PAGE).unwrap();
        assert_eq!(stopped(uffd.move_pages(map.at(4), pool.at(3), PAGE)).0, Cause::NotRegistered);
    }
}

#[test]
fn what_a_fork_shares_is_not_moved_before_it_is_written() {
    if uffd(Features::SIGBUS.with(Features::MOVE)).is_none() {
        return;
    }
    // In a process of its own, which no other test forks.
    let child = || {
        let uffd = uffd(Features::SIGBUS.with(Features::MOVE)).unwrap();
        let (map, pool) = (Map::anonymous(2), Map::inherited(1));
        // SAFETY: as above.
        unsafe { uffd.register(map.at(0), map.len()).unwrap() };
        // SAFETY: as above.
        let try_move = || unsafe { uffd.move_pages(map.at(0), pool.at(0), PAGE) };
        pool.write(0, 7);
        assert_eq!(in_child(String::new).1, End::Exit(0));
        // The other one has ended.
        let after_fork = stopped(try_move());
        pool.write(0, 8);
        let after_write = try_move();
        pool.write(0, 9);
        pool.advise(libc::MADV_DONTFORK);
        assert_eq!(in_child(String::new).1, End::Exit(0));
        // SAFETY: as above.
        let not_shared = unsafe { uffd.move_pages(map.at(1), pool.at(0), PAGE) };
        format!("{after_fork:?} {after_write:?} {not_shared:?} {}", map.byte(0))
    };
    assert_eq!(in_child(child), ("(Shared, 0) Ok(()) Ok(()) 8".into(), End::Exit(0)));
}

#[test]
fn pages_of_a_memfd_are_mapped_if_they_are_there() {
    let Some(uffd) = uffd(Features::SIGBUS.with(Features::MINOR_SHMEM)) else { return };
    let file = memfd(4);
    let (shown, map) = (Map::shared(&file, 4), Map::shared(&file, 4));
    shown.number(0..3);
    // SAFETY: as above.
    unsafe {
        uffd.register_minor(map.at(0), map.len()).unwrap();
        assert!(!map.is_there(0));
        uffd.map_minor(map.at(1), PAGE, false).unwrap();
        assert_eq!(stopped(uffd.map_minor(map.at(0), 4 * PAGE, false)), (Cause::PageThere, 1));
        assert_eq!(stopped(uffd.map_minor(map.at(2), 2 * PAGE, false)), (Cause::NoPage, 1));
    }
    assert_eq!([0, 1, 2].map(|page| map.byte(page)), [1, 2, 3]);
    // It is the same page.
    shown.write(0, 9);
    assert_eq!(map.byte(0), 9);
    assert!(!map.is_there(3));
}

#[test]
fn what_is_protected_is_read_and_not_written() {
    let Some(uffd) = uffd(Features::SIGBUS.with(Features::PAGEFAULT_FLAG_WP)) else { return };
    let (map, source) = (Map::anonymous(3), Map::anonymous(1));
    source.number(0..1);
    map.write(0, 5);
    // SAFETY: as above.
    unsafe {
        uffd.register(map.at(0), map.len()).unwrap();
        uffd.protect(map.at(0), PAGE, true).unwrap();
        uffd.copy(map.at(1), source.at(0), PAGE, true).unwrap();
    }
    assert_eq!([0, 1].map(|page| (map.byte(page), map.takes_writes(page))), [(5, false), (1, false)]);
    // SAFETY: as above.
    unsafe { uffd.protect(map.at(0), 2 * PAGE, false).unwrap() };
    map.write(0, 6);
    assert!(map.takes_writes(1));
    let elsewhere = Map::anonymous(1);
    // SAFETY: as above.
    assert_eq!(stopped(unsafe { uffd.protect(elsewhere.at(0), PAGE, true) }).0, Cause::NotRegistered);
}

#[test]
fn a_write_of_what_is_protected_raises_a_signal() {
    if uffd(Features::SIGBUS.with(Features::PAGEFAULT_FLAG_WP)).is_none() {
        return;
    }
    let child = || {
        let uffd = uffd(Features::SIGBUS.with(Features::PAGEFAULT_FLAG_WP)).unwrap();
        let map = Map::anonymous(1);
        map.write(0, 1);
        // SAFETY: as above.
        unsafe {
            uffd.register(map.at(0), PAGE).unwrap();
            uffd.protect(map.at(0), PAGE, true).unwrap();
        }
        exit_by_sigbus();
        assert_eq!(map.byte(0), 1);
        map.write(0, 2);
        String::new()
    };
    assert_eq!(in_child(child).1, bus(libc::BUS_ADRERR, 0));
}

/// Whether what is missing is protected, and its write stopped, in memory that faults for protection alone.
fn is_missing_protected(features: Features) -> Option<bool> {
    let uffd = uffd(features)?;
    let map = Map::anonymous(1);
    // SAFETY: as above.
    unsafe {
        uffd.register_writes(map.at(0), PAGE).unwrap();
        uffd.protect(map.at(0), PAGE, true).unwrap();
    }
    Some(!map.takes_writes(0))
}

#[test]
fn what_is_missing_is_protected_with_a_feature() {
    let features = Features::SIGBUS.with(Features::PAGEFAULT_FLAG_WP);
    let Some(without) = is_missing_protected(features) else { return };
    assert!(!without);
    let Some(with) = is_missing_protected(features.with(Features::WP_UNPOPULATED)) else { return };
    assert!(with);
}

#[test]
fn what_is_poisoned_raises_a_signal_until_a_page_is_copied_there() {
    let features = Features::SIGBUS.with(Features::POISON);
    let Some(uffd) = uffd(features) else { return };
    let (map, source) = (Map::anonymous(3), Map::anonymous(1));
    source.number(0..1);
    map.write(2, 7);
    // SAFETY: as above.
    unsafe {
        uffd.register(map.at(0), map.len()).unwrap();
        assert_eq!(stopped(uffd.poison(map.at(0), 3 * PAGE)), (Cause::PageThere, 2));
        assert_eq!(stopped(uffd.poison(map.at(0), PAGE)), (Cause::PageThere, 0));
        assert_eq!(stopped(uffd.zero(map.at(0), PAGE)), (Cause::PageThere, 0));
        assert!(!map.is_there(0) && map.byte(2) == 7);
        uffd.copy(map.at(0), source.at(0), PAGE, false).unwrap();
    }
    assert_eq!(map.byte(0), 1);
    let child = || {
        let uffd = common::uffd(features).unwrap();
        let map = Map::anonymous(1);
        // SAFETY: as above.
        unsafe {
            uffd.register(map.at(0), PAGE).unwrap();
            uffd.poison(map.at(0), PAGE).unwrap();
        }
        exit_by_sigbus();
        map.byte(0);
        String::new()
    };
    let end = in_child(child).1;
    // As the kernel was built: with CONFIG_MEMORY_FAILURE, or without.
    let codes = [libc::BUS_MCEERR_AR, libc::BUS_ADRERR];
    println!("poisoned: {end:?}");
    assert!(codes.iter().any(|code| end == bus(*code, 0)), "{end:?}");
}

/// `UFFDIO_COPY` which wakes nobody: the crate has no use for it.
fn copy_without_waking(uffd: &spile_linux::Uffd, at: u64, from: u64) {
    let mut words = [at, from, PAGE, 1, 0];
    // SAFETY: (1) the struct is of the size that the request says.
    assert_eq!(unsafe { libc::ioctl(uffd.as_fd().as_raw_fd(), 0xc028_aa03_u32 as libc::Ioctl, words.as_mut_ptr()) }, 0);
}

#[test]
fn who_waits_is_not_woken_by_a_page_that_is_there_but_by_wake() {
    const A_WHILE: Duration = Duration::from_millis(100);
    let Some(uffd) = uffd(Features::NONE) else { return };
    let (map, source) = (Map::anonymous(1), Map::anonymous(1));
    source.write(0, 4);
    // SAFETY: as above.
    unsafe { uffd.register(map.at(0), PAGE).unwrap() };
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| map.byte(0));
        common::await_waiter(&uffd);
        copy_without_waking(&uffd, map.at(0), source.at(0));
        // SAFETY: as above.
        assert_eq!(stopped(unsafe { uffd.copy(map.at(0), source.at(0), PAGE, false) }).0, Cause::PageThere);
        std::thread::sleep(A_WHILE);
        let was_asleep = !waiter.is_finished();
        let start = Instant::now();
        uffd.wake(map.at(0), PAGE).unwrap();
        assert_eq!(waiter.join().unwrap(), 4);
        assert!(was_asleep, "woken by a page that is there");
        println!("woken after {:?}", start.elapsed());
    });
}

#[test]
fn what_is_unregistered_is_zeros() {
    let Some(uffd) = uffd(Features::SIGBUS) else { return };
    let map = Map::anonymous(2);
    map.write(0, 3);
    // SAFETY: as above.
    unsafe {
        uffd.register(map.at(0), map.len()).unwrap();
        assert!(!map.is_there(1));
        uffd.unregister(map.at(0), map.len()).unwrap();
    }
    assert_eq!([0, 1].map(|page| map.byte(page)), [3, 0]);
}
