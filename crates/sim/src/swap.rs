//! A swap device: slots with bytes, that takes its time and fails now and then.
//!
//! **Guarantee.** What is read from a slot is what was written there last, also where the bytes are in a store that somebody else wrote; a slot that
//! nobody wrote, or that was discarded, is never read. A frame does not change while it is written.
//!
//! **Mechanism.** Bytes by slot. A transfer that takes time waits in the machine's device; what a frame contained is taken when its write starts, and
//! compared when it ends. A store is asked when the transfer ends; what it brings is compared with the bytes.

use crate::Sim;
use crate::rng::Rng;
use spile::backing::SwapStore;
use spile::reclaim::Pressed as _;
use spile::{FrameId, Frames as _, PAGE, Slot, Transfer};
use std::collections::BTreeMap;
use std::fmt;
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

/// A swap device.
pub struct SwapDisk {
    inner: Mutex<Inner>,
    /// Where pages come from, unless from the bytes that are remembered.
    store: Option<Arc<dyn SwapStore<Sim>>>,
}

struct Inner {
    bytes: BTreeMap<u32, Vec<u8>>,
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
        let inner = Inner { bytes: BTreeMap::new(), delay: 0, fails: None, rng: Rng::new(seed), done: Swapped::default() };
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
        if self.end(p, &transfer) { Transfer::Done } else { Transfer::Failed }
    }

    /// Does it. Whether it succeeded.
    fn end(&self, p: &Sim, transfer: &Moving) -> bool {
        let now = p.bytes(transfer.frame);
        let ok = !self.fails()
            && match &transfer.written {
                Some(written) => self.write(p, transfer, written, &now),
                None => self.read(p, transfer),
            };
        let Inner { done, .. } = &mut *self.inner();
        match (ok, &transfer.written) {
            (false, _) => done.failed += 1,
            (true, Some(_)) => done.out += 1,
            (true, None) => done.back += 1,
        }
        ok
    }

    fn fails(&self) -> bool {
        let Inner { fails, rng, .. } = &mut *self.inner();
        fails.is_some_and(|n| rng.one_in(n))
    }

    fn write(&self, p: &Sim, Moving { slot, frame, .. }: &Moving, written: &[u8], now: &[u8]) -> bool {
        p.judge((written != now).then(|| format!("{frame:?} changed while it was written to {slot:?}")));
        // SAFETY: (1) held until this is complete, says the core.
        if self.store.as_ref().is_some_and(|store| !is_done(unsafe { store.start_write(p, *slot, *frame) })) {
            return false;
        }
        self.inner().bytes.insert(slot.0, written.to_vec());
        true
    }

    fn read(&self, p: &Sim, Moving { slot, frame, .. }: &Moving) -> bool {
        let found = self.inner().bytes.get(&slot.0).cloned();
        p.judge(found.is_none().then(|| format!("{frame:?} is to be read from {slot:?}, and nothing was written there")));
        let found = found.unwrap_or_default();
        let Some(store) = &self.store else {
            // SAFETY: (1) the device's until it is complete.
            unsafe { p.write(*frame, 0, &found) };
            return true;
        };
        // SAFETY: (1) as above, and it is the store's meanwhile.
        let ok = is_done(unsafe { store.start_read(p, *slot, *frame) });
        p.judge(
            (ok && p.bytes(*frame) != found).then(|| format!("what the store read from {slot:?} is not what was written there")),
        );
        ok
    }
}

/// Whether a store that answers at once did it.
fn is_done(answer: Transfer) -> bool {
    assert_ne!(answer, Transfer::Started, "it is the device that takes its time: its store answers at once");
    answer == Transfer::Done
}

/// A transfer under way.
struct Moving {
    slot: Slot,
    frame: FrameId,
    /// What the frame contained, if it is written.
    written: Option<Vec<u8>>,
}

impl Moving {
    fn complete(self, p: &Sim) {
        let ok = p.swap().end(p, &self);
        // SAFETY: (1) it was started, and is in the device's list no more; (2) it is over; (3) the machine's own.
        unsafe { p.reclaimer().complete(p, self.slot, ok) };
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
    /// All bytes of a frame that somebody holds.
    pub(crate) fn bytes(&self, frame: FrameId) -> Vec<u8> {
        let mut bytes = vec![0; PAGE as usize];
        // SAFETY: (1) held, says the core; (2) what changes it meanwhile is found out.
        unsafe { self.read(frame, 0, &mut bytes) };
        bytes
    }
}
