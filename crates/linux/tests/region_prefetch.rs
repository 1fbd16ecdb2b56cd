//! Pages that are brought by other threads: who awaits them blocks nobody, several reads are under way, and what is dropped begins no more.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::single_range_in_vec_init, reason = "runs of pages are ranges")]

mod common;
mod pagers;

use common::{PAGE, watched};
use pagers::{Asking, Kept, built};
use spile::Denied;
use spile_linux::{Pager, Prefetch};
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

const PAGES: u64 = 256;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The smallest executor.
fn block_on<F: Future>(future: F) -> F::Output {
    let (mut future, waker) = (pin!(future), Waker::from(Arc::new(Unpark(std::thread::current()))));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(came) => return came,
            Poll::Pending => std::thread::park(),
        }
    }
}

fn is_pending(future: &mut Prefetch) -> bool {
    pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

fn pager(workers: usize) -> Option<Pager> {
    built(Pager::builder().budget(512 * PAGE).workers(workers))
}

/// Who comes stands before it until it is opened.
#[derive(Default)]
struct Gate {
    is_open: Mutex<bool>,
    changed: Condvar,
    /// How many have come.
    came: AtomicUsize,
}

impl Gate {
    fn pass(&self) {
        self.came.fetch_add(1, Relaxed);
        drop(self.changed.wait_while(self.is_open.lock().unwrap(), |is_open| !*is_open).unwrap());
    }

    fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.changed.notify_all();
    }

    fn await_somebody(&self) {
        while self.came.load(Relaxed) == 0 {
            std::thread::yield_now();
        }
    }
}

/// A backing that fills nothing until the gate is open.
fn gated(gate: &Arc<Gate>) -> Asking {
    let gate = Arc::clone(gate);
    Asking::numbered(PAGES).fills(move |_, _| {
        gate.pass();
        Ok(())
    })
}

#[test]
fn what_is_awaited_is_there() {
    let _watched = watched();
    let Some(pager) = pager(4) else { return };
    let region = pager.map(Asking::numbered(PAGES), PAGES * PAGE).unwrap();
    block_on(region.prefetch_async(3 * PAGE + 5..PAGES * PAGE - 7)).unwrap();
    // Whole windows.
    assert_eq!(region.resident(), [0..PAGES * PAGE]);
    region.as_slice::<[u64; 512]>()[3..].iter().zip(4..).for_each(|(words, number)| assert_eq!(words[9], number));
    let status = region.status();
    assert_eq!((status.faults.count(), status.fills.count()), (0, PAGES / 16), "{status}");
    block_on(region.prefetch_async(7..7)).unwrap();
    // What is there is not brought again.
    block_on(region.prefetch_async(0..u64::MAX)).unwrap();
    assert_eq!(region.status().fills.count(), PAGES / 16);
}

/// How many reads were under way at once, at most.
fn most_at_once(workers: usize) -> Option<usize> {
    let (now, most) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let noted = Arc::clone(&most);
    let pager = pager(workers)?;
    let slow = Kept::new(PAGES);
    let slow = Asking::new(slow).fills(move |_, _| {
        noted.fetch_max(now.fetch_add(1, Relaxed) + 1, Relaxed);
        std::thread::sleep(Duration::from_millis(20));
        now.fetch_sub(1, Relaxed);
        Ok(())
    });
    let region = pager.map(slow, PAGES * PAGE).unwrap();
    block_on(region.prefetch_async(0..PAGES * PAGE)).unwrap();
    Some(most.load(Relaxed))
}

#[test]
fn several_reads_are_under_way_at_once() {
    let _watched = watched();
    let (Some(alone), Some(beside)) = (most_at_once(1), most_at_once(4)) else { return };
    assert_eq!((alone, beside), (1, 4));
}

#[test]
fn who_waits_blocks_no_thread() {
    let _watched = watched();
    let (Some(pager), gate) = (pager(2), Arc::<Gate>::default()) else { return };
    let (slow, quick) = (pager.map(gated(&gate), PAGES * PAGE).unwrap(), pager.map(Kept::new(PAGES), PAGES * PAGE).unwrap());
    let mut awaited = slow.prefetch_async(0..16 * PAGE);
    gate.await_somebody();
    assert!(is_pending(&mut awaited));
    // Another worker is free.
    block_on(quick.prefetch_async(0..PAGES * PAGE)).unwrap();
    assert!(is_pending(&mut awaited));
    gate.open();
    block_on(awaited).unwrap();
}

#[test]
fn what_is_dropped_begins_no_more_reads() {
    let _watched = watched();
    let (Some(pager), gate) = (pager(1), Arc::<Gate>::default()) else { return };
    let region = pager.map(gated(&gate), PAGES * PAGE).unwrap();
    let unwanted = region.prefetch_async(0..PAGES * PAGE);
    gate.await_somebody();
    drop(unwanted);
    gate.open();
    // Of one worker, the next comes when that has ended.
    block_on(region.prefetch_async(128 * PAGE..129 * PAGE)).unwrap();
    assert_eq!(region.resident(), [0..16 * PAGE, 128 * PAGE..144 * PAGE]);
}

#[test]
fn the_first_that_fails_is_said_and_others_are_brought() {
    let _watched = watched();
    let Some(pager) = pager(4) else { return };
    let bad = |page: u64| page == 37 || page == 200;
    let backing = Asking::numbered(PAGES).fills(move |first, count| {
        if (first..first + count as u64).any(bad) { Err(io::Error::other("on fire")) } else { Ok(()) }
    });
    let region = pager.map(backing, PAGES * PAGE).unwrap();
    let failed = block_on(region.prefetch_async(0..PAGES * PAGE)).unwrap_err();
    assert_eq!((failed.at, failed.why), (37 * PAGE, Denied::Bus));
    let there = region.resident();
    let has = |page: u64| there.iter().any(|run| run.contains(&(page * PAGE)));
    assert!((0..PAGES).all(|page| has(page) != bad(page)), "{there:?}");
}

#[test]
fn a_region_that_ends_waits_for_nobody_who_has_not_begun() {
    let _watched = watched();
    let (Some(pager), gate) = (pager(1), Arc::<Gate>::default()) else { return };
    let [slow, other] = [gated(&gate), Asking::numbered(PAGES)].map(|backing| pager.map(backing, PAGES * PAGE).unwrap());
    let under_way = slow.prefetch_async(0..PAGE);
    gate.await_somebody();
    let late = other.prefetch_async(16 * PAGE..PAGES * PAGE);
    // Whoever ends a region waits for faults that are under way, of any: so that is done beside.
    let ends = std::thread::spawn(move || drop(other));
    let failed = std::thread::scope(|scope| {
        scope.spawn(|| {
            // So long that it has ended or waits; it need not have.
            std::thread::sleep(Duration::from_millis(50));
            gate.open();
        });
        ends.join().unwrap();
        block_on(late)
    });
    block_on(under_way).unwrap();
    drop(slow);
    // Either it was quicker, or it is told.
    failed.err().into_iter().for_each(|failed| assert_eq!((failed.at % (16 * PAGE), failed.why), (0, Denied::Unmapped)));
    assert_eq!(pager.usage().used, 0);
}

/// Whom it is not well to wake.
struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("of a waker");
    }
}

#[test]
fn a_waker_that_panics_takes_no_worker_with_it() {
    let _watched = watched();
    let (Some(pager), gate) = (pager(1), Arc::<Gate>::default()) else { return };
    let region = pager.map(gated(&gate), PAGES * PAGE).unwrap();
    let mut awaited = region.prefetch_async(0..PAGE);
    let waker = Waker::from(Arc::new(Panics));
    assert!(pin!(&mut awaited).poll(&mut Context::from_waker(&waker)).is_pending());
    gate.open();
    // By the same worker.
    block_on(region.prefetch_async(32 * PAGE..33 * PAGE)).unwrap();
    block_on(awaited).unwrap();
}
