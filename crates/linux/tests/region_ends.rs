//! Regions that end: what was theirs is gone with them, and nothing else.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod common;
mod pagers;

use common::{End, PAGE, in_child, pipe, watched};
use pagers::{Asking, Kept, pager};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::sync::Arc;

#[test]
fn a_region_that_is_gone_has_let_go_of_its_backing_and_tables() {
    let Some(pager) = pager(64 * PAGE) else { return };
    let before = pager.usage().tables;
    for _ in 0..50 {
        let (held, by_backing) = (Arc::new(()), Arc::new(()));
        let (a, b) = (held.clone(), by_backing.clone());
        let asking = Asking::numbered(256).fills(move |_, _| (Arc::strong_count(&a) > 0).then_some(()).ok_or_else(unreachable));
        let asking = asking.writes(move |_, _| (Arc::strong_count(&b) > 0).then_some(()).ok_or_else(unreachable));
        let mut region = pager.map(asking, 256 * PAGE).unwrap();
        region.as_mut_slice::<u64>().iter_mut().step_by(512).for_each(|word| *word += 1);
        drop(region);
        assert_eq!((Arc::strong_count(&held), Arc::strong_count(&by_backing)), (1, 1));
        assert_eq!(pager.usage().used, 0);
    }
    // Other tests have pagers of their own, but the same readers, for whom what is gone may wait.
    assert!(pager.usage().tables <= before + 8, "{before} tables, then {:?}", pager.usage());
}

fn unreachable() -> std::io::Error {
    std::io::Error::other("a count of none")
}

#[test]
fn a_child_that_drops_a_region_does_nothing_to_its_parents() {
    let _watched = watched();
    let Some(pager) = pager(64 * PAGE) else { return };
    let mut region = pager.region(Asking::numbered(256), 256 * PAGE).around(1).map().unwrap();
    region.as_mut_slice::<u64>().iter_mut().step_by(512).for_each(|word| *word += 1);
    let (pager, mut region) = (std::mem::ManuallyDrop::new(pager), std::mem::ManuallyDrop::new(region));
    let (said, end) = in_child(|| {
        // SAFETY: (1) the child's copies, once.
        unsafe {
            std::mem::ManuallyDrop::drop(&mut *(&raw const region).cast_mut());
            std::mem::ManuallyDrop::drop(&mut *(&raw const pager).cast_mut());
        }
        "gone".into()
    });
    assert_eq!((said.as_str(), end), ("gone", End::Exit(0)));
    for (word, number) in region.as_mut_slice::<u64>().iter_mut().step_by(512).zip(2..) {
        assert_eq!(*word, number);
        *word += 1;
    }
    drop(std::mem::ManuallyDrop::into_inner(region));
    assert_eq!(pager.usage().used, 0);
    drop(std::mem::ManuallyDrop::into_inner(pager));
}

#[test]
fn what_a_pipe_has_of_a_page_stays_as_it_was() {
    let Some(pager) = pager(64 * PAGE) else { return };
    let mut spliced = pager.region(Kept::new(8), 8 * PAGE).around(1).map().unwrap();
    let other = pager.map(Asking::numbered(1024), 1024 * PAGE).unwrap();
    spliced.as_mut_slice::<u64>().fill(0xabcd);
    let (from, into) = pipe();
    let page = libc::iovec { iov_base: spliced.as_ptr().cast(), iov_len: PAGE as usize };
    // SAFETY: (1) a page that is there.
    assert_eq!(unsafe { libc::vmsplice(into.as_raw_fd(), &raw const page, 1, 0) }, PAGE as isize);
    drop(spliced);
    (0..1024).for_each(|page| assert_eq!(other.as_slice::<u64>()[page * 512], page as u64 + 1));
    let mut got = [0; PAGE as usize];
    std::fs::File::from(from).read_exact(&mut got).unwrap();
    assert!(got.chunks(8).all(|word| word == 0xabcd_u64.to_ne_bytes()), "{:x?}", &got[..8]);
}
