//! A swap device: slots with bytes, that takes its time and fails now and then.
//!
//! **Guarantee.** What is read from a slot is what was written there last; a slot that nobody wrote, or that was discarded, is never read. A frame does not
//! change while it is written.
//!
//! **Mechanism.** Bytes by slot. A transfer that takes time waits in the machine's device; what a frame contained is taken when its write starts, and
//! compared when it ends.

use crate::Sim;
use crate::rng::Rng;
use spile::backing::SwapStore;
use spile::reclaim::Pressed as _;
use spile::{FrameId, Frames as _, PAGE, Slot, Transfer};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

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
pub struct SwapDisk(Mutex<Inner>);

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
    pub(crate) fn new(seed: u64) -> Self {
        let inner = Inner { bytes: BTreeMap::new(), delay: 0, fails: None, rng: Rng::new(seed), done: Swapped::default() };
        Self(Mutex::new(inner))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut inner = self.inner();
        let Inner { fails, rng, done, bytes, .. } = &mut *inner;
        if fails.is_some_and(|n| rng.one_in(n)) {
            done.failed += 1;
            return false;
        }
        match &transfer.written {
            Some(written) => {
                done.out += 1;
                bytes.insert(transfer.slot.0, written.clone());
                drop(inner);
                p.judge(
                    (*written != now)
                        .then(|| format!("{:?} changed while it was written to {:?}", transfer.frame, transfer.slot)),
                );
            }
            None => {
                done.back += 1;
                let found = bytes.get(&transfer.slot.0).cloned();
                drop(inner);
                p.judge(found.is_none().then(|| format!("{:?} is read, and nothing was written there", transfer.slot)));
                // SAFETY: (1) the device's until it is complete.
                unsafe { p.write(transfer.frame, 0, &found.unwrap_or_default()) };
            }
        }
        true
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
    }
}

impl Sim {
    /// All bytes of a frame that somebody holds.
    fn bytes(&self, frame: FrameId) -> Vec<u8> {
        let mut bytes = vec![0; PAGE as usize];
        // SAFETY: (1) held, says the core; (2) what changes it meanwhile is found out.
        unsafe { self.read(frame, 0, &mut bytes) };
        bytes
    }
}
