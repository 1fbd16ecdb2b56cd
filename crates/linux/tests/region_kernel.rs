//! What the kernel's own accesses to a region come to, where its pages are missing, were read, or were written: a table of documented results.
//!
//! Each row is a thing that a program may do, and what is documented of it, with pages that are `"/"`, a path.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod common;
mod pagers;

use common::accesses::*;
use common::alone::alone;
use common::{End, PAGE, watched};
use pagers::{Asking, Kept, pager};
use spile_linux::{Engine, Pager, Region, thread_can_fault};
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

type Row = (&'static str, Came, fn(*mut c_void) -> Came);

const PAGE_BYTES: usize = PAGE as usize;
const FAULT: Came = Failed(libc::EFAULT);

/// A futex that has another value: one of this process alone, for which its address is enough.
fn own_futex(at: *mut c_void) -> Came {
    // SAFETY: (1) the kernel looks whether it may.
    came(unsafe { libc::syscall(libc::SYS_futex, at, libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG, 1, 0, 0, 0) })
}

/// Nothing is there.
const MISSING: &[Row] = &[
    ("pread", FAULT, read::<8>),
    ("pwrite", FAULT, write::<8>),
    ("read of a pipe", FAULT, read_pipe),
    ("recv", FAULT, receive),
    ("O_DIRECT", FAULT, read_direct),
    ("futex", FAULT, futex),
    ("own futex", FAULT, own_futex),
    ("a path", FAULT, path),
    ("process_vm_readv", FAULT, read_other),
    ("MADV_POPULATE_WRITE", FAULT, populate),
    ("mlock", Failed(libc::ENOMEM), lock),
];

/// The first page was written, the second is missing.
const HALF: &[Row] = &[("pread", Done(PAGE as i64), read::<TWO_PAGES>), ("pwrite", Done(PAGE as i64), write::<TWO_PAGES>)];

/// Both were prefetched, which is a read: they may be read, and are protected.
const READ: &[Row] = &[
    ("pread", FAULT, read::<8>),
    ("pwrite", Done(8), write::<8>),
    ("pwrite of both", Done(2 * PAGE as i64), write::<TWO_PAGES>),
    ("read of a pipe", FAULT, read_pipe),
    ("recv", FAULT, receive),
    ("O_DIRECT", FAULT, read_direct),
    ("own futex", Failed(libc::EAGAIN), own_futex),
    ("a path", Done(0), path),
    ("process_vm_readv", Done(1), read_other),
    ("MADV_POPULATE_WRITE", FAULT, populate),
    ("mlock", Failed(libc::ENOMEM), lock),
];

/// Both were written.
const WRITTEN: &[Row] = &[
    ("pread", Done(2 * PAGE as i64), read::<TWO_PAGES>),
    ("pwrite", Done(2 * PAGE as i64), write::<TWO_PAGES>),
    ("O_DIRECT", Done(PAGE as i64), read_direct),
    ("futex", Failed(libc::EAGAIN), futex),
    ("own futex", Failed(libc::EAGAIN), own_futex),
    ("a path", Done(0), path),
    ("process_vm_readv", Done(1), read_other),
    ("MADV_POPULATE_WRITE", Done(0), populate),
    ("mlock", Done(0), lock),
];

/// What comes of it where memory is shared, if that is something else: the kernel locks private pages as what may be written, and shared ones as what may be read.
const OF_SHARED: [(&str, &str, Came); 1] = [("read", "mlock", Done(0))];

/// A region of two pages that are a path.
fn region(pager: &Pager) -> Region<Kept> {
    let kept = Kept::new(2);
    (0..2).for_each(|page| kept.set(page, u64::from(b'/')));
    pager.region(kept, 2 * PAGE).around(1).map().unwrap()
}

/// Does what the rows say, each with a region that `prepare` has made so; whatever came of it, the region can be used then.
fn compare(what: &str, rows: &[Row], prepare: fn(&mut Region<Kept>)) {
    let _watched = watched();
    let Some(pager) = pager(64 * PAGE) else { return };
    let mut wrong = Vec::new();
    for (name, documented, act) in rows {
        let mut region = region(&pager);
        prepare(&mut region);
        let is = act(region.as_ptr().cast());
        println!("{what:10} {name:20} {is:?}");
        let of_shared = OF_SHARED.iter().find(|row| pager.engine() == Engine::Shared && (row.0, row.1) == (what, *name));
        let documented = of_shared.map_or(documented, |row| &row.2);
        if is != *documented {
            wrong.push(format!("{name}: {is:?}, and not {documented:?}"));
        }
        region.as_mut_slice::<u64>()[513] = 7;
        region.evict(0..2 * PAGE);
        assert_eq!(region.as_slice::<u64>()[513], 7, "{name}");
    }
    assert!(wrong.is_empty(), "{what}: {}", wrong.join("; "));
}

fn write_again(region: &mut Region<Kept>, page: u64) {
    let mut bytes = [0; PAGE_BYTES];
    region.read_at(page * PAGE, &mut bytes).unwrap();
    region.write_at(page * PAGE, &bytes).unwrap();
}

#[test]
fn the_kernels_accesses_to_what_is_missing_fail() {
    compare("missing", MISSING, |_| {});
}

#[test]
fn the_kernels_accesses_end_where_it_begins_to_be_missing() {
    compare("half there", HALF, |region| write_again(region, 0));
}

#[test]
fn the_kernel_may_read_what_was_prefetched() {
    compare("read", READ, |region| region.prefetch(0..2 * PAGE).unwrap());
}

#[test]
fn the_kernel_may_do_anything_with_what_was_written() {
    compare("written", WRITTEN, |region| (0..2).for_each(|page| write_again(region, page)));
}

/// Has this thread not let SIGBUS through.
fn block_sigbus() {
    // SAFETY: (1) a set of this function's; (2) this thread's mask.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigaddset(&raw mut set, libc::SIGBUS);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
    assert!(!thread_can_fault());
}

/// Writes all pages of a region several times and reads them, without a signal.
fn use_without_signals(region: &mut Region<Kept>) {
    block_sigbus();
    let pages = region.len() / PAGE;
    for round in 1..5u64 {
        // Across the ends of pages.
        (0..pages - 1).for_each(|page| region.write_at((page + 1) * PAGE - 4, &(page * round).to_ne_bytes()).unwrap());
        for page in 0..pages - 1 {
            let mut word = [0; 8];
            region.read_at((page + 1) * PAGE - 4, &mut word).unwrap();
            assert_eq!(u64::from_ne_bytes(word), page * round);
        }
    }
}

#[test]
fn calls_need_no_signal() {
    let _watched = watched();
    let Some(pager) = pager(64 * PAGE) else { return };
    let mut region = pager.region(Kept::new(256), 256 * PAGE).around(1).map().unwrap();
    std::thread::scope(|scope| scope.spawn(|| use_without_signals(&mut region)).join()).unwrap();
}

#[test]
fn calls_need_no_signal_where_others_fault_and_have_pages_leave() {
    let _watched = watched();
    let Some(pager) = pager(64 * PAGE) else { return };
    let mut region = pager.region(Kept::new(256), 256 * PAGE).around(1).map().unwrap();
    let other = pager.map(Asking::numbered(256), 256 * PAGE).unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                other.as_slice::<[u64; 512]>().iter().zip(1..).for_each(|(words, number)| assert_eq!(words[9], number));
            }
        });
        let user = scope.spawn(|| use_without_signals(&mut region)).join();
        is_over.store(true, Relaxed);
        user.unwrap();
    });
}

#[test]
fn from_region_to_region_is_as_from_anywhere() {
    let _watched = watched();
    let Some(pager) = pager(64 * PAGE) else { return };
    let from = pager.map(Asking::numbered(256), 256 * PAGE).unwrap();
    let mut to = pager.region(Kept::new(256), 256 * PAGE).around(1).map().unwrap();
    to.write_at(0, from.as_slice()).unwrap();
    to.as_slice::<[u64; 512]>().iter().zip(1..).for_each(|(words, number)| assert_eq!(words[511], number));
    from.read_at(0, &mut to.as_mut_slice()[PAGE_BYTES..][..PAGE_BYTES * 255]).unwrap();
    to.as_slice::<[u64; 512]>()[1..].iter().zip(1..).for_each(|(words, number)| assert_eq!(words[511], number));
}

#[test]
fn what_the_program_has_locked_leaves_too_and_is_kept() {
    let _watched = watched();
    let Some(pager) = pager(64 * PAGE) else { return };
    let mut region = pager.region(Kept::new(256), 256 * PAGE).around(1).map().unwrap();
    region.write_at(9 * PAGE, b"kept").unwrap();
    assert_eq!(lock((region.as_ptr() as usize + 9 * PAGE_BYTES) as *mut c_void), Done(0));
    // Some pages, of which one is locked, together.
    for _ in 0..2 {
        (0..256).for_each(|page| region.as_mut_slice::<u64>()[page * 512 + 9] = page as u64);
        (0..256).for_each(|page| assert_eq!(region.as_slice::<u64>()[page * 512 + 9], page as u64));
        assert_eq!(region.as_slice::<u8>()[9 * PAGE_BYTES..][..4], *b"kept");
    }
    // It is moved then, or would be.
    drop(region);
    assert_eq!(pager.usage().used, 0);
}

#[test]
fn a_region_of_a_process_that_locks_all_its_memory_is_no_region_of_zeros() {
    if pager(64 * PAGE).is_none() {
        return;
    }
    let child = alone(|| {
        // SAFETY: (1) a call without pointers.
        let result = unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) };
        if result != 0 {
            return println!("skipped: mlockall: {}", std::io::Error::last_os_error());
        }
        let pager = pager(64 * PAGE).unwrap();
        let mut region = pager.map(Asking::numbered(256), 256 * PAGE).unwrap();
        region.as_slice::<[u64; 512]>().iter().zip(1..).for_each(|(words, number)| assert_eq!(words[9], number));
        region.write_at(0, b"kept").unwrap();
        // SAFETY: (1) as above.
        unsafe { libc::mlockall(libc::MCL_CURRENT) };
        region.as_slice::<[u64; 512]>()[1..].iter().zip(2..).for_each(|(words, number)| assert_eq!(words[9], number));
        assert_eq!(region.as_slice::<u8>()[..4], *b"kept");
        drop(region);
        assert_eq!(pager.usage().used, 0);
    });
    println!("{}", child.out);
    assert_eq!(child.end, End::Exit(0), "{child:?}");
}
