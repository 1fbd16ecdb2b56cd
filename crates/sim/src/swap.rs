//! A swap device: slots with bytes, that takes its time and fails now and then.
//!
//! **Guarantee.** What is read from a slot is what was written there last, also where the bytes are in a store that somebody else wrote; a slot that
//! nobody wrote, or that was discarded, is never read. A frame does not change while it is written.
//!
//! **Mechanism.** Bytes by slot. A transfer that takes time waits in the machine's device; what a frame contained is taken when its write starts, and
//! compared when it ends. A store is asked when the device's time is over; what it brings is compared with the bytes, when it answers or says that it is done.

use crate::Sim;
use crate::rng::Rng;
use spile::backing::SwapStore;
use spile::reclaim::Pressed as _;
use spile::{FrameId, Frames as _, PAGE, Slot, Transfer};
use std::collections::BTreeMap;
use std::fmt;
use std::iter::Sum;
use std::ops::Add;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a swap device did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swapped {
    /// Pages written.
    pub out: u64,
    /// Pages read.
    pub back: u64,
    /// Transfers that failed.
    pub failed: u64,
}

impl fmt::Display for Swapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pages written, {} read, {} transfers failed", self.out, self.back, self.failed)
    }
}

impl Add for Swapped {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { out: self.out + other.out, back: self.back + other.back, failed: self.failed + other.failed }
    }
}

impl Sum for Swapped {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

/// A swap device.
pub struct SwapDisk {
    inner: Mutex<Inner>,
    /// Where pages come from, unless from the bytes that are remembered.
    store: Option<Arc<dyn SwapStore<Sim>>>,
}

struct Inner {
    bytes: BTreeMap<u32, Vec<u8>>,
    /// Transfers that are the store's now, by slot.
    moving: BTreeMap<u32, Moving>,
    delay: u32,
    fails: Option<u64>,
    rng: Rng,
    done: Swapped,
}

impl fmt::Debug for SwapDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.inner();
        write!(f, "{} slots written, {} ticks away; {:?}", inner.bytes.len(), inner.delay, inner.done)
    }
}

impl SwapDisk {
    pub(crate) fn new(seed: u64, store: Option<Arc<dyn SwapStore<Sim>>>) -> Self {
        let (bytes, moving) = (BTreeMap::new(), BTreeMap::new());
        let inner = Inner { bytes, moving, delay: 0, fails: None, rng: Rng::new(seed), done: Swapped::default() };
        Self { inner: Mutex::new(inner), store }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets transfers take this many ticks; with 0 they are done at once.
    pub fn set_delay(&self, ticks: u32) {
        self.inner().delay = ticks;
    }

    /// Lets one in `n` transfers fail, by the seed; none with `None`.
    pub fn fail_one_in(&self, n: Option<u64>) {
        self.inner().fails = n;
    }

    /// What it did so far.
    pub fn done(&self) -> Swapped {
        self.inner().done
    }

    /// How many slots have something in them.
    pub fn written(&self) -> usize {
        self.inner().bytes.len()
    }

    fn start(&self, p: &Sim, transfer: Moving) -> Transfer {
        let delay = self.inner().delay;
        if delay > 0 {
            let sim = p.clone();
            p.device().add(delay, Box::new(move || transfer.complete(&sim)));
            return Transfer::Started;
        }
        self.make(p, transfer)
    }

    /// Does it, or lets the store do it.
    fn make(&self, p: &Sim, transfer: Moving) -> Transfer {
        let Moving { slot, frame, .. } = transfer;
        if self.fails() {
            self.inner().done.failed += 1;
            return Transfer::Failed;
        }
        let is_read = transfer.written.is_none();
        let found = self.inner().bytes.get(&slot.0).cloned().unwrap_or_default();
        let is_missing = is_read && found.is_empty();
        p.judge(is_missing.then(|| format!("{frame:?} is to be read from {slot:?}, and nothing was written there")));
        // Before the store knows of it: it may be over before that has answered.
        self.inner().moving.insert(slot.0, transfer);
        let answer = match &self.store {
            // SAFETY: (1) the device's until it is complete, and the store's meanwhile.
            Some(store) if is_read => unsafe { store.start_read(p, slot, frame) },
            // SAFETY: (1) held until this is complete, says the core.
            Some(store) => unsafe { store.start_write(p, slot, frame) },
            None => {
                if is_read {
                    // SAFETY: (1) as above.
                    unsafe { p.write(frame, 0, &found) };
                }
                Transfer::Done
            }
        };
        if answer != Transfer::Started {
            let wrong = self.end(p, slot, answer == Transfer::Done);
            p.judge(wrong);
        }
        answer
    }

    fn fails(&self) -> bool {
        let Inner { fails, rng, .. } = &mut *self.inner();
        fails.is_some_and(|n| rng.one_in(n))
    }

    /// The store is done with the transfer of `slot`. What is wrong with that, if anything.
    fn end(&self, p: &Sim, slot: Slot, ok: bool) -> Option<String> {
        let moving = self.inner().moving.remove(&slot.0);
        let Some(Moving { frame, written, .. }) = moving else {
            return Some(format!("a transfer of {slot:?} ends that was not begun"));
        };
        let now = p.bytes(frame);
        let Inner { bytes, done, .. } = &mut *self.inner();
        match written {
            _ if !ok => {
                done.failed += 1;
                None
            }
            Some(written) => {
                done.out += 1;
                let wrong = (written != now).then(|| format!("{frame:?} changed while it was written to {slot:?}"));
                bytes.insert(slot.0, written);
                wrong
            }
            None => {
                done.back += 1;
                let is_so = bytes.get(&slot.0) == Some(&now);
                (!is_so).then(|| format!("what the store read from {slot:?} is not what was written there"))
            }
        }
    }
}

/// A transfer under way.
struct Moving {
    slot: Slot,
    frame: FrameId,
    /// What the frame contained, if it is written.
    written: Option<Vec<u8>>,
}

impl Moving {
    /// The device's time for it is over.
    fn complete(self, p: &Sim) {
        let slot = self.slot;
        let answer = p.swap().make(p, self);
        if answer != Transfer::Started {
            // SAFETY: (1) it was started, and is in the device's list no more; (2) it is over; (3) the machine's own.
            unsafe { p.reclaimer().complete(p, slot, answer == Transfer::Done) };
        }
    }
}

impl SwapStore<Sim> for SwapDisk {
    unsafe fn start_write(&self, p: &Sim, slot: Slot, frame: FrameId) -> Transfer {
        self.start(p, Moving { slot, frame, written: Some(p.bytes(frame)) })
    }

    unsafe fn start_read(&self, p: &Sim, slot: Slot, frame: FrameId) -> Transfer {
        self.start(p, Moving { slot, frame, written: None })
    }

    fn discard(&self, slot: Slot) {
        self.inner().bytes.remove(&slot.0);
        if let Some(store) = &self.store {
            store.discard(slot);
        }
    }
}

impl Sim {
    /// The transfer of `slot` that the machine's store has started is over. By whoever runs as a CPU ([`run_on`](Self::run_on)).
    ///
    /// # Panics
    ///
    /// If the frame, or what was read, is not as it was written; when the core has been told.
    ///
    /// # Safety
    ///
    /// (1) The store answered or answers [`Started`](Transfer::Started), and nobody else says this of that transfer; (2) it does not use the frame any more.
    pub unsafe fn swapped(&self, slot: Slot, ok: bool) {
        let wrong = self.swap().end(self, slot, ok);
        // SAFETY: (1) and (2) the caller says the same; (3) the machine's own.
        unsafe { self.reclaimer().complete(self, slot, ok) };
        self.judge(wrong);
    }

    /// All bytes of a frame that somebody holds.
    pub(crate) fn bytes(&self, frame: FrameId) -> Vec<u8> {
        let mut bytes = vec![0; PAGE as usize];
        // SAFETY: (1) held, says the core; (2) what changes it meanwhile is found out.
        unsafe { self.read(frame, 0, &mut bytes) };
        bytes
    }
}
