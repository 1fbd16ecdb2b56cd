//! What was written is said, once, and nothing else.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::single_range_in_vec_init, reason = "runs of pages are ranges")]

use spile_linux::{NoTracking, Tracked};
use std::io::Write;
use std::ops::Range;
use std::os::fd::AsRawFd;

const PAGE: u64 = 4096;

fn tracked(len: u64) -> Option<Tracked> {
    match Tracked::new(len) {
        Ok(tracked) => Some(tracked),
        Err(NoTracking::Empty) => panic!("{len} bytes"),
        Err(why) => {
            println!("skipped: {why}");
            None
        }
    }
}

/// Pages as runs of bytes, the last cut off at `len`.
fn runs(pages: &[bool], len: u64) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for (page, _) in pages.iter().enumerate().filter(|(_, is_written)| **is_written) {
        let (start, end) = (page as u64 * PAGE, ((page as u64 + 1) * PAGE).min(len));
        match runs.last_mut() {
            Some(run) if run.end == start => run.end = end,
            _ => runs.push(start..end),
        }
    }
    runs
}

#[test]
fn what_was_written_is_said_once() {
    let pages = 1500;
    let len = pages * PAGE - 100;
    let Some(mut tracked) = tracked(len) else { return };
    let mut seed = 1u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for round in 0..60 {
        let mut written = vec![false; pages as usize];
        for _ in 0..random(1200) {
            let byte = random(len);
            tracked.as_mut_slice::<u8>()[byte as usize] = round;
            written[(byte / PAGE) as usize] = true;
        }
        // Reading writes nothing.
        (0..pages).for_each(|_| assert!(tracked.as_slice::<u8>()[random(len) as usize] <= round));
        assert_eq!(tracked.written().unwrap(), runs(&written, len), "round {round}");
        assert_eq!(tracked.written().unwrap(), []);
    }
}

#[test]
fn what_the_kernel_writes_is_written() {
    let Some(mut tracked) = tracked(8 * PAGE) else { return };
    let (from, mut into) = std::io::pipe().unwrap();
    into.write_all(&[7; 100]).unwrap();
    // SAFETY: (1) within the memory, which is this test's.
    let got = unsafe { libc::read(from.as_raw_fd(), tracked.as_ptr().add(3 * PAGE as usize - 50).cast(), 100) };
    assert_eq!(got, 100);
    assert_eq!(tracked.written().unwrap(), vec![2 * PAGE..4 * PAGE]);
    assert_eq!(tracked.as_slice::<u8>()[3 * PAGE as usize], 7);
}

#[test]
fn no_bytes_are_refused() {
    assert!(matches!(Tracked::new(0), Err(NoTracking::Empty)));
}
