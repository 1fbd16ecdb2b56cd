//! What a queue of transfers promises, beside whatever store.
//!
//! **Guarantee.** Who begins a transfer does not wait for the store, but who begins a read where too many are waiting; each transfer ends once, whatever the store does; a
//! queue ends when all of it is over, also where one of its workers ends it.
//!
//! **Mechanism.** A store that waits for the test, and what the workers said, in their order.

mod common;

use common::{Failing, page};
use spile::backing::SwapStore;
use spile::{FrameId, Frames as _, PAGE, Slot, Transfer};
use spile_sim::Sim;
use spile_stores::{Memory, Over, Page, Pages, Queued};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// A store that does nothing without a word, but for whoever made it.
struct Gated {
    store: Memory,
    maker: ThreadId,
    /// It has begun something.
    begun: Sender<Slot>,
    words: Mutex<Receiver<()>>,
}

impl Gated {
    fn new() -> (Self, Receiver<Slot>, Sender<()>) {
        let ((begun, has_begun), (say, words)) = (channel(), channel());
        (Self { store: Memory::new(16), maker: thread::current().id(), begun, words: Mutex::new(words) }, has_begun, say)
    }

    fn wait(&self, slot: Slot) {
        if thread::current().id() == self.maker {
            return;
        }
        self.begun.send(slot).expect("the test listens");
        self.words.lock().expect("nobody panics with it").recv_timeout(LONG).expect("the test says so");
    }
}

impl Pages for Gated {
    fn put(&self, slot: Slot, page: &Page) -> bool {
        self.wait(slot);
        self.store.put(slot, page)
    }

    fn get(&self, slot: Slot, page: &mut Page) -> bool {
        self.wait(slot);
        self.store.get(slot, page)
    }

    fn forget(&self, slot: Slot) {
        self.store.forget(slot);
    }
}

/// What workers said: the slot, and whether it went well.
type Said = Arc<Mutex<Vec<(u32, bool)>>>;

fn queued<S: Pages>(store: S, workers: usize, places: usize) -> (Queued<Sim, S>, Said) {
    let said = Said::default();
    let heard = said.clone();
    let complete = move |over: Over<'_, Sim>| heard.lock().expect("nobody panics with it").push((over.slot.0, over.ok));
    (Queued::telling(store, workers, places, complete).expect("there are threads"), said)
}

/// A frame with a page by number.
fn frame(sim: &Sim, number: u64) -> FrameId {
    let frame = sim.alloc().expect("there are frames");
    // SAFETY: (1) it is the test's alone.
    unsafe { sim.write(frame, 0, &page(number)) };
    frame
}

fn has(sim: &Sim, frame: FrameId, number: u64) -> bool {
    let mut bytes = [0; PAGE as usize];
    // SAFETY: (1) the test's; (2) no transfer is under way.
    unsafe { sim.read(frame, 0, &mut bytes) };
    bytes == page(number)
}

fn write<S: Pages>(store: &Queued<Sim, S>, sim: &Sim, slot: u32, frame: FrameId) -> Transfer {
    // SAFETY: (1) the test keeps it.
    unsafe { store.start_write(sim, Slot(slot), frame) }
}

fn read<S: Pages>(store: &Queued<Sim, S>, sim: &Sim, slot: u32, frame: FrameId) -> Transfer {
    // SAFETY: (1) the test keeps it, and leaves it alone.
    unsafe { store.start_read(sim, Slot(slot), frame) }
}

#[test]
fn what_is_begun_is_made() {
    let sim = Sim::new();
    let (store, said) = queued(Memory::new(16), 3, 16);
    let frames: Vec<_> = (0..16).map(|n| frame(&sim, n)).collect();
    for (n, frame) in frames.iter().enumerate() {
        assert_eq!(write(&store, &sim, n as u32, *frame), Transfer::Started);
    }
    store.wait_until_idle();
    for (n, frame) in frames.iter().rev().enumerate() {
        assert_eq!(read(&store, &sim, n as u32, *frame), Transfer::Started);
    }
    store.wait_until_idle();
    assert!(frames.iter().rev().enumerate().all(|(n, frame)| has(&sim, *frame, n as u64)));
    let mut all = said.lock().unwrap().clone();
    all.sort_unstable();
    let twice: Vec<_> = (0..16).flat_map(|n| [(n, true); 2]).collect();
    assert_eq!((all, store.queue()), (twice, Default::default()), "each ended once");
    // What was not written cannot be read.
    SwapStore::<Sim>::discard(&store, Slot(3));
    assert_eq!(read(&store, &sim, 3, frames[0]), Transfer::Started);
    store.wait_until_idle();
    assert_eq!(said.lock().unwrap().last(), Some(&(3, false)));
}

/// Reads come before writes that wait already; what there is no room for is refused, or made at once.
#[test]
fn a_full_queue_sends_nobody_to_sleep() {
    let sim = Sim::new();
    let (gated, begun, say) = Gated::new();
    let (store, said) = queued(gated, 1, 2);
    let frames: Vec<_> = (0..8).map(|n| frame(&sim, n)).collect();
    // One is being made, so many wait as there is room for.
    assert_eq!(write(&store, &sim, 0, frames[0]), Transfer::Started);
    assert_eq!(begun.recv_timeout(LONG), Ok(Slot(0)));
    assert_eq!(
        [1, 2, 3].map(|n| write(&store, &sim, n, frames[n as usize])),
        [Transfer::Started, Transfer::Started, Transfer::Failed]
    );
    assert_eq!([4, 5].map(|n| read(&store, &sim, n, frames[n as usize])), [Transfer::Started, Transfer::Started]);
    assert_eq!((store.queue().under_way, store.queue().refused, store.queue().at_once), (5, 1, 0));
    assert!(said.lock().unwrap().is_empty());
    // One more is read by who asks, and nothing is said of it but the answer.
    assert!(store.store.put(Slot(6), &page(66)));
    assert_eq!(read(&store, &sim, 6, frames[6]), Transfer::Done);
    assert!(has(&sim, frames[6], 66) && store.queue().at_once == 1);
    (0..5).for_each(|_| say.send(()).unwrap());
    store.wait_until_idle();
    assert_eq!(*said.lock().unwrap(), [(0, true), (4, false), (5, false), (1, true), (2, true)]);
}

#[test]
fn the_end_waits_for_what_was_begun() {
    let sim = Sim::new();
    let (gated, begun, say) = Gated::new();
    let (store, said) = queued(gated, 2, 8);
    (0..6).for_each(|n| assert_eq!(write(&store, &sim, n, frame(&sim, n.into())), Transfer::Started));
    assert_eq!(store.queue().under_way, 6);
    let teller = thread::spawn(move || {
        begun.recv_timeout(LONG).unwrap();
        (0..6).for_each(|_| say.send(()).unwrap());
        begun
    });
    drop(store);
    let mut all = said.lock().unwrap().clone();
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3, 4, 5].map(|n| (n, true)), "each ended once");
    teller.join().unwrap();
}

/// A host that nobody has any more, but for a transfer, goes with that: and its store with it, in the worker.
#[test]
fn a_worker_may_end_its_queue() {
    for workers in [1, 2] {
        let (gated, begun, say) = Gated::new();
        let (store, said) = queued(gated, workers, 8);
        let store = Arc::new(store);
        let sim = Sim::builder().swap(8).build_on(store.clone());
        assert_eq!(write(&store, &sim, 0, frame(&sim, 0)), Transfer::Started);
        drop((store, sim));
        assert_eq!(begun.recv_timeout(LONG), Ok(Slot(0)));
        say.send(()).unwrap();
        // The store is gone, and its sender with it.
        assert!(begun.recv_timeout(LONG) == Err(std::sync::mpsc::RecvTimeoutError::Disconnected), "with {workers} workers");
        assert_eq!(*said.lock().unwrap(), [(0, true)]);
    }
}

#[test]
fn a_store_that_panics_has_failed() {
    let sim = Sim::new();
    let (store, said) = queued(Failing::new(Memory::new(16), 2, true), 1, 16);
    let kept = frame(&sim, 5);
    (0..8).for_each(|n| assert_eq!(write(&store, &sim, n, kept), Transfer::Started));
    store.wait_until_idle();
    assert_eq!(*said.lock().unwrap(), [0, 1, 2, 3, 4, 5, 6, 7].map(|n| (n, n % 2 == 0)));
    assert_eq!((store.queue().panics, store.queue().under_way), (4, 0));
    assert_eq!(read(&store, &sim, 0, kept), Transfer::Started);
    store.wait_until_idle();
    assert_eq!(said.lock().unwrap().last(), Some(&(0, true)));
}

/// What goes wrong where a transfer is told of is not lost with the thread.
#[test]
fn a_panic_of_who_is_told_comes_at_the_end() {
    let sim = Sim::new();
    let complete = |over: Over<'_, Sim>| assert_ne!(over.slot, Slot(1), "it was not expected");
    let store = Queued::telling(Memory::new(16), 1, 16, complete).unwrap();
    (0..4).for_each(|n| assert_eq!(write(&store, &sim, n, frame(&sim, 1)), Transfer::Started));
    store.wait_until_idle();
    assert_eq!((store.pages(), store.queue().panics), (4, 0), "the others are made all the same");
    let end = catch_unwind(AssertUnwindSafe(|| drop(store))).expect_err("it was lost");
    assert!(end.downcast_ref::<String>().is_some_and(|why| why.contains("it was not expected")));
}
