//! What the kernel's own accesses to missing memory come to, and what becomes of it over a fork and when the descriptor is closed: a table of documented results.
//!
//! Each row is a thing that a program may do, what is documented of it, and what it came to here.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod common;

use common::accesses::*;
use common::{End, Map, PAGE, in_child, uffd};
use spile_linux::{Features, Uffd};
use std::ffi::c_void;

/// What is done: with missing memory, the first page of two that is, or a protected one.
type Row = (&'static str, Came, fn(*mut c_void) -> Came);

const MISSING: &[Row] = &[
    ("pread", Failed(libc::EFAULT), read::<8>),
    ("pwrite", Failed(libc::EFAULT), write::<8>),
    ("read of a pipe", Failed(libc::EFAULT), read_pipe),
    ("recv", Failed(libc::EFAULT), receive),
    ("O_DIRECT", Failed(libc::EFAULT), read_direct),
    ("futex", Failed(libc::EFAULT), futex),
    ("a path", Failed(libc::EFAULT), path),
    ("process_vm_readv", Failed(libc::EFAULT), read_other),
    ("MADV_POPULATE_WRITE", Failed(libc::EFAULT), populate),
    ("mlock", Failed(libc::ENOMEM), lock),
];

const HALF: &[Row] = &[("pread", Done(PAGE as i64), read::<TWO_PAGES>), ("pwrite", Done(PAGE as i64), write::<TWO_PAGES>)];

const PROTECTED: &[Row] = &[
    ("pread", Failed(libc::EFAULT), read::<8>),
    ("pwrite", Done(8), write::<8>),
    ("read of a pipe", Failed(libc::EFAULT), read_pipe),
];

/// Does what the rows say, each with two pages that `prepare` has made so.
fn compare(what: &str, rows: &[Row], prepare: fn(&Uffd, &Map)) {
    let mut wrong = Vec::new();
    for (name, documented, act) in rows {
        let Some(uffd) = uffd(Features::SIGBUS.with(Features::PAGEFAULT_FLAG_WP)) else { return };
        let map = Map::anonymous(2);
        // SAFETY: (1) the test's own.
        unsafe { uffd.register(map.at(0), map.len()).unwrap() };
        prepare(&uffd, &map);
        let is = act(map.at(0) as *mut c_void);
        println!("{what:10} {name:20} {is:?}");
        if is != *documented {
            wrong.push(format!("{name}: {is:?}, and not {documented:?}"));
        }
    }
    assert!(wrong.is_empty(), "{what}: {}", wrong.join("; "));
}

/// Puts a page there.
fn fill(uffd: &Uffd, map: &Map) {
    // SAFETY: (1) the test's own.
    unsafe { uffd.zero(map.at(0), PAGE).unwrap() };
}

#[test]
fn the_kernels_accesses_to_what_is_missing_fail() {
    compare("missing", MISSING, |_, _| {});
}

#[test]
fn the_kernels_accesses_end_where_it_begins_to_be_missing() {
    compare("half there", HALF, fill);
}

#[test]
fn the_kernels_writes_of_what_is_protected_fail() {
    compare("protected", PROTECTED, |uffd, map| {
        fill(uffd, map);
        // SAFETY: (1) the test's own.
        unsafe { uffd.protect(map.at(0), PAGE, true).unwrap() };
    });
}

/// What a child finds on a page that is missing in its parent, who has said `advice` of it before.
fn found_by_a_child(advice: Option<i32>) -> Option<(String, End)> {
    let uffd = uffd(Features::SIGBUS)?;
    let map = Map::inherited(1);
    advice.into_iter().for_each(|advice| map.advise(advice));
    // SAFETY: (1) the test's own.
    unsafe { uffd.register(map.at(0), PAGE).unwrap() };
    Some(in_child(|| map.byte(0).to_string()))
}

#[test]
fn a_forked_child_finds_zeros_in_silence_or_is_told_by_sigsegv() {
    let Some(zeros) = found_by_a_child(None) else { return };
    assert_eq!(zeros, ("0".into(), End::Exit(0)));
    let Some((_, end)) = found_by_a_child(Some(libc::MADV_DONTFORK)) else { return };
    assert_eq!(end, End::Signal(libc::SIGSEGV));
}

#[test]
fn what_is_missing_is_zeros_when_the_descriptor_is_closed() {
    if uffd(Features::SIGBUS).is_none() {
        return;
    }
    // In a process of its own: a child of another test would have the descriptor too.
    let before = || {
        let uffd = uffd(Features::SIGBUS).unwrap();
        let map = Map::anonymous(1);
        // SAFETY: (1) the test's own.
        unsafe { uffd.register(map.at(0), PAGE).unwrap() };
        assert!(!map.is_there(0));
        drop(uffd);
        map.byte(0).to_string()
    };
    assert_eq!(in_child(before), ("0".into(), End::Exit(0)));
    let during = || {
        let uffd = uffd(Features::NONE).unwrap();
        let map = Map::anonymous(1);
        // SAFETY: (1) the test's own.
        unsafe { uffd.register(map.at(0), PAGE).unwrap() };
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| map.byte(0));
            common::await_waiter(&uffd);
            drop(uffd);
            waiter.join().unwrap().to_string()
        })
    };
    assert_eq!(in_child(during), ("0".into(), End::Exit(0)));
}
