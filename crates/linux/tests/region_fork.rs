//! Regions of a process that forks.
//!
//! A child has no region, and is told so; the parent has them as before.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod common;
mod pagers;

use common::{End, PAGE, in_child, pipe, watched};
use pagers::{Asking, pager};
use spile_linux::Region;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

const PAGES: u64 = 256;

/// A region of more pages than there is memory for.
fn region() -> Option<Region<Asking>> {
    Some(pager(64 * PAGE)?.region(Asking::numbered(PAGES), PAGES * PAGE).around(1).map().unwrap())
}

/// Adds 1 to a word of each page, and has pages leave.
fn work(region: &mut Region<Asking>, round: u64) {
    for (words, number) in region.as_mut_slice::<[u64; 512]>().iter_mut().zip(1..) {
        assert_eq!(words[9], number + round);
        words[9] += 1;
    }
    region.evict(0..32 * PAGE);
    region.flush().unwrap();
    assert_eq!(region.backing().kept.word(PAGES - 1, 9), PAGES + round + 1);
}

#[test]
fn a_child_that_touches_a_region_is_killed() {
    let Some(region) = region() else { return };
    let words = region.as_slice::<u64>();
    assert_eq!(words[0], 1);
    for (what, word) in [("there", 0), ("missing", 200 * 512)] {
        let (said, end) = in_child(|| words[word].to_string());
        assert_eq!((said.as_str(), end), ("", End::Signal(libc::SIGSEGV)), "{what}");
    }
    assert_eq!((words[0], words[200 * 512]), (1, 201));
}

/// A child that lives until it is dropped, and does nothing.
struct Child(i32, Option<OwnedFd>);

impl Child {
    fn new() -> Self {
        let (from, into) = pipe();
        // SAFETY: (1) the child does nothing but wait for the end of a pipe, and ends.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        if pid == 0 {
            let mut poll = libc::pollfd { fd: from.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: (1) one struct; (2) ends the child.
            unsafe {
                libc::alarm(60);
                libc::close(into.as_raw_fd());
                libc::poll(&raw mut poll, 1, -1);
                libc::_exit(0);
            }
        }
        Self(pid, Some(into))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Other children may have the pipe.
        // SAFETY: (1) our child, which nobody has waited for.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            assert_eq!(libc::waitpid(self.0, std::ptr::null_mut(), 0), self.0);
        }
        self.1 = None;
    }
}

#[test]
fn a_parent_goes_on_while_a_child_lives_and_afterwards() {
    let _watched = watched();
    let Some(pager) = pager(64 * PAGE) else { return };
    let map = || pager.region(Asking::numbered(PAGES), PAGES * PAGE).around(1).map().unwrap();
    let (mut region, mut other) = (map(), map());
    work(&mut region, 0);
    work(&mut other, 0);
    let child = Child::new();
    // Pages that were shown before leave for good: they are moved out.
    assert!(!other.resident().is_empty());
    drop(other);
    work(&mut region, 1);
    work(&mut region, 2);
    region.unmap(0..16 * PAGE).unwrap();
    drop(child);
    region.as_mut_slice::<[u64; 512]>()[16..].iter_mut().zip(17..).for_each(|(words, number)| assert_eq!(words[9], number + 3));
    drop(region);
    assert_eq!(pager.usage().used, 0);
}

#[test]
fn a_command_can_be_run() {
    let _watched = watched();
    let Some(mut region) = region() else { return };
    for round in 0..4 {
        work(&mut region, round);
        // Its words are the parent's until it is another program.
        let output = Command::new("echo").arg(region.as_slice::<u64>()[512 * 99].to_string()).output().unwrap();
        assert_eq!(output.stdout, b"100\n");
        // And by a fork, as there is something to be done before.
        use std::os::unix::process::CommandExt;
        let mut command = Command::new("echo");
        // SAFETY: (1) a call without pointers.
        unsafe { command.arg("forked").pre_exec(|| Ok(_ = libc::getpid())) };
        assert_eq!(command.output().unwrap().stdout, b"forked\n");
    }
}

#[test]
fn a_fork_beside_threads_that_fault_and_have_pages_leave_loses_nothing() {
    let _watched = watched();
    let Some(mut region) = region() else { return };
    region.as_mut_slice::<u64>();
    let region = &region;
    // SAFETY: (1) atomics: all threads use them as such.
    let word = |page: u64| unsafe { AtomicU64::from_ptr(region.as_ptr().add((page * PAGE) as usize + 72).cast()) };
    let (is_over, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for step in [1, 3] {
            let (is_over, rounds) = (&is_over, &rounds);
            scope.spawn(move || {
                while !is_over.load(Relaxed) {
                    (0..PAGES).for_each(|n| _ = word(n * step % PAGES).fetch_add(1, Relaxed));
                    rounds.fetch_add(1, Relaxed);
                }
            });
        }
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                region.evict(0..PAGES * PAGE);
            }
        });
        let children: Vec<Child> = (0..40).map(|_| Child::new()).collect();
        drop(children);
        while rounds.load(Relaxed) < 8 {
            drop(Child::new());
        }
        is_over.store(true, Relaxed);
    });
    let rounds = rounds.load(Relaxed);
    (0..PAGES).for_each(|page| assert_eq!(word(page).load(Relaxed), page + 1 + rounds, "page {page}"));
}

/// Of the mappings that are registered with a userfaultfd: how many there are, and how many of them a child has too.
fn registered(smaps: &str) -> (usize, usize) {
    let flags = smaps.lines().filter_map(|line| line.strip_prefix("VmFlags:"));
    let registered = flags.filter(|flags| flags.split_whitespace().any(|flag| flag == "um"));
    registered
        .fold((0, 0), |(all, shared), flags| (all + 1, shared + usize::from(flags.split_whitespace().all(|flag| flag != "dc"))))
}

#[test]
fn nothing_of_the_pager_is_a_childs() {
    // Without a region the stash is there already.
    let Some(pager) = pager(64 * PAGE) else { return };
    let smaps = || fs::read_to_string("/proc/self/smaps").unwrap();
    let (stash, shared) = registered(&smaps());
    assert!(stash > 0 && shared == 0, "{stash}, {shared}");
    let region = pager.map(Asking::numbered(PAGES), PAGES * PAGE).unwrap();
    assert_eq!(region.as_slice::<u64>()[0], 1);
    assert_eq!(registered(&smaps()).1, 0);
    let (said, end) = in_child(|| format!("{:?}", registered(&smaps())));
    assert_eq!((said.as_str(), end), ("(0, 0)", End::Exit(0)));
}
