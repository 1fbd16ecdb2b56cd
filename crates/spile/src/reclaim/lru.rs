//! Which page leaves next.
//!
//! **Guarantee.** Every page that can leave is in one queue, once; one that is freed meanwhile drops out when its turn comes.
//!
//! **Mechanism.** Second chance. A page arrives on a stack of the CPU that shows it, without a lock. Evictors take the stacks over to the end of
//! the queue of *inactive* pages, and take from its front: what was accessed since it was looked at last goes to the *active* queue; what was
//! not leaves. When there are fewer inactive pages than active ones, those that have been active longest become inactive. Links are in the
//! records of frames. Nobody searches a queue: a frame whose page is gone stays where it is, and if it becomes a page again it is
//! there already.

use super::Pressed;
use super::lists::lock;
use crate::addr::FrameId;
use spile_sync::atomic::{AtomicU32, Ordering};
use spile_sync::lock::Guarded;
use spile_sync::order;

/// How many pages are looked at in one go.
#[cfg(not(loom))]
pub(super) const BATCH: usize = 16;
#[cfg(loom)]
pub(super) const BATCH: usize = 2;

/// How many stacks of arrivals there are.
const LANES: usize = if cfg!(loom) { 1 } else { 32 };

/// Links are frame numbers plus one, so that 0 ends a list.
const END: u32 = 0;

/// A stack on lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Lane(AtomicU32);

/// A queue, linked through the records of its frames.
#[derive(Debug, Default)]
struct Queue {
    first: u32,
    last: u32,
    len: usize,
}

#[derive(Debug, Default)]
struct Queues {
    active: Queue,
    inactive: Queue,
}

/// Which page leaves next: a host's choice. One of its own keeps its lists in memory of its own; [`Record::enlist`](super::Record::enlist) says whether a page is in one already.
pub trait Policy<P: Pressed>: Default + Send + Sync + 'static {
    /// `frame` has a page that can leave. By faults, under a table's lock or not: never waits, and does not allocate. May be called again for a page
    /// that is in a list.
    fn arrive(&self, p: &P, frame: FrameId);

    /// Takes the next pages to look at out of the lists, each delisted ([`Record::delist`](super::Record::delist)) before it is given. How many there were in them. Without a table's
    /// lock; spins for nothing that sleeps.
    fn take(&self, p: &P, pages: &mut [Option<FrameId>]) -> usize;

    /// `frame`, which was looked at, stays: because it was used since, or because somebody has it. Called as `take`.
    fn stays(&self, p: &P, frame: FrameId, was_used: bool);
}

/// Second chance: pages in the order in which they came and were used last, as far as that is known.
#[derive(Debug)]
pub struct SecondChance {
    lanes: [Lane; LANES],
    queues: Guarded<Queues>,
}

impl Queue {
    fn push<P: Pressed>(&mut self, p: &P, frame: FrameId) {
        // Relaxed, here and below: under the queues' lock.
        p.record(frame).next.store(END, Ordering::Relaxed);
        match self.last.checked_sub(1) {
            Some(last) => p.record(FrameId(last)).next.store(frame.0 + 1, Ordering::Relaxed),
            None => self.first = frame.0 + 1,
        }
        self.last = frame.0 + 1;
        self.len += 1;
    }

    fn pop<P: Pressed>(&mut self, p: &P) -> Option<FrameId> {
        let frame = FrameId(self.first.checked_sub(1)?);
        self.first = p.record(frame).next.load(Ordering::Relaxed);
        self.last = if self.first == END { END } else { self.last };
        self.len -= 1;
        Some(frame)
    }
}

impl SecondChance {
    /// Puts what has arrived into the queue of inactive pages: few at a time under the lock, for there may be very many.
    fn take_over<P: Pressed>(&self, p: &P) {
        for lane in self.lanes.iter().filter(|lane| lane.0.load(Ordering::Relaxed) != END) {
            // Acquire: pairs with `arrive`.
            let mut head = lane.0.swap(END, Ordering::Acquire);
            while head != END {
                let mut queues = lock(p, &self.queues);
                for _ in 0..BATCH {
                    let Some(frame) = head.checked_sub(1).map(FrameId) else { break };
                    head = p.record(frame).next.load(Ordering::Relaxed);
                    queues.inactive.push(p, frame);
                }
            }
        }
    }
}

impl Default for SecondChance {
    fn default() -> Self {
        Self { lanes: core::array::from_fn(|_| Lane(AtomicU32::new(END))), queues: Guarded::new(Queues::default()) }
    }
}

impl<P: Pressed> Policy<P> for SecondChance {
    fn arrive(&self, p: &P, frame: FrameId) {
        let (record, lane) = (p.record(frame), &self.lanes[p.cpu() % LANES].0);
        if !record.enlist() {
            return;
        }
        let mut head = lane.load(Ordering::Relaxed);
        loop {
            record.next.store(head, Ordering::Relaxed);
            // Release [lru-arrive]: whoever takes the stack sees its links.
            match lane.compare_exchange(head, frame.0 + 1, order!("lru-arrive", Release), Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    fn take(&self, p: &P, pages: &mut [Option<FrameId>]) -> usize {
        self.take_over(p);
        let mut queues = lock(p, &self.queues);
        let all = queues.active.len + queues.inactive.len;
        for page in pages {
            if queues.inactive.len < queues.active.len {
                let oldest = queues.active.pop(p);
                oldest.into_iter().for_each(|frame| queues.inactive.push(p, frame));
            }
            *page = queues.inactive.pop(p);
            page.iter().for_each(|frame| p.record(*frame).delist());
        }
        all
    }

    fn stays(&self, p: &P, frame: FrameId, was_used: bool) {
        if p.record(frame).enlist() {
            let mut queues = lock(p, &self.queues);
            let queue = if was_used { &mut queues.active } else { &mut queues.inactive };
            queue.push(p, frame);
        }
    }
}
