//! Slots in memory, whose transfers are done at once, or by whoever says so.
//!
//! **Guarantee.** A slot that is read before it was written, or after it was discarded, fails the model; so does a frame that changes while it is written,
//! and an access that is not ordered after the last one.
//!
//! **Mechanism.** The byte of a slot is a cell in which loom sees each access. A transfer that was started looks at the frame once when it starts and once
//! when it ends.

use super::UnsafeCell;
use super::host::Host;
use loom::sync::atomic::{AtomicUsize, Ordering};
use spile::backing::SwapStore;
use spile::reclaim::Pressed as _;
use spile::{FrameId, Slot, Transfer};
use std::sync::Mutex;

/// Where pages go.
pub struct Swap {
    bytes: Vec<UnsafeCell<Option<u8>>>,
    state: Mutex<State>,
    /// How many transfers were started, for whoever completes them.
    started: AtomicUsize,
}

// SAFETY: (1) loom reports unordered accesses of the cells.
unsafe impl Sync for Swap {}

#[derive(Default)]
struct State {
    slow: bool,
    moving: Vec<Moving>,
    started: usize,
    reads: usize,
    writes: usize,
}

/// A transfer under way.
struct Moving {
    slot: Slot,
    frame: FrameId,
    /// What the frame contained, if it is written.
    written: Option<u8>,
}

impl Swap {
    pub fn new(slots: u32) -> Self {
        let bytes = (0..slots).map(|_| UnsafeCell::new(None)).collect();
        Self { bytes, state: Mutex::default(), started: AtomicUsize::new(0) }
    }

    /// From now on transfers are completed by [`finish`](Self::finish), or at once.
    pub fn set_slow(&self, slow: bool) {
        self.state.lock().unwrap().slow = slow;
    }

    /// How many reads and how many writes were begun.
    pub fn begun(&self) -> (usize, usize) {
        let state = self.state.lock().unwrap();
        (state.reads, state.writes)
    }

    /// Completes the transfer that was started first, if one was. Whether one was.
    pub fn finish(p: &Host, ok: bool) -> bool {
        let this = p.reclaimer().area().store();
        let (moving, started) = {
            let mut state = this.state.lock().unwrap();
            if state.moving.is_empty() {
                return false;
            }
            (state.moving.remove(0), state.started)
        };
        // Acquire: what was done by who started it comes before.
        while this.started.load(Ordering::Acquire) < started {
            loom::thread::yield_now();
        }
        let slot = moving.slot;
        if ok {
            this.end(p, &moving);
        }
        // SAFETY: (1) it was started, and taken by us alone; (2) over; (3) the host's.
        unsafe { p.reclaimer().complete(p, slot, ok) };
        true
    }

    fn start(&self, p: &Host, moving: Moving) -> Transfer {
        let slow = {
            let mut state = self.state.lock().unwrap();
            *if moving.written.is_some() { &mut state.writes } else { &mut state.reads } += 1;
            state.slow
        };
        if !slow {
            self.end(p, &moving);
            return Transfer::Done;
        }
        let mut state = self.state.lock().unwrap();
        state.started += 1;
        state.moving.push(moving);
        drop(state);
        // Release: who completes it waits for this.
        self.started.fetch_add(1, Ordering::Release);
        Transfer::Started
    }

    fn end(&self, p: &Host, moving: &Moving) {
        let Moving { slot, frame, written } = *moving;
        match written {
            Some(byte) => {
                assert_eq!(p.peek(frame), byte, "{frame:?} changed while it was written to {slot:?}");
                self.set(slot, Some(byte));
            }
            None => {
                // SAFETY: (1) loom reports an access that is not ordered before or after.
                let byte = self.bytes[slot.0 as usize].with(|byte| unsafe { *byte });
                p.poke(frame, byte.unwrap_or_else(|| panic!("{slot:?} is read, and nothing is there")));
            }
        }
    }

    fn set(&self, slot: Slot, to: Option<u8>) {
        // SAFETY: (1) loom reports an access that is not ordered before or after.
        self.bytes[slot.0 as usize].with_mut(|byte| unsafe { *byte = to });
    }
}

impl SwapStore<Host> for Swap {
    unsafe fn start_write(&self, p: &Host, slot: Slot, frame: FrameId) -> Transfer {
        self.start(p, Moving { slot, frame, written: Some(p.peek(frame)) })
    }

    unsafe fn start_read(&self, p: &Host, slot: Slot, frame: FrameId) -> Transfer {
        self.start(p, Moving { slot, frame, written: None })
    }

    fn discard(&self, slot: Slot) {
        self.set(slot, None);
    }
}
