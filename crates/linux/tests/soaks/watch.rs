//! Who does what, and since when: whoever does not get on ends the process, with what everybody does.

use super::{Scene, wrong};
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// What a worker does: a verb, of a region.
#[derive(Default)]
pub struct Doing {
    steps: AtomicU64,
    verb: AtomicU64,
    slot: AtomicU64,
}

impl Doing {
    pub fn begin(&self, verb: u64, slot: usize) {
        self.verb.store(verb, Relaxed);
        self.slot.store(slot as u64, Relaxed);
        self.steps.fetch_add(1, Relaxed);
    }
}

pub struct Watched(Vec<Doing>);

impl Watched {
    pub fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| Doing::default()).collect())
    }

    pub fn of(&self, worker: usize) -> &Doing {
        &self.0[worker]
    }

    pub fn watch(&self, scene: &Scene, is_over: &AtomicBool) {
        let mut seen: Vec<_> = self.0.iter().map(|_| (0, Instant::now())).collect();
        while !is_over.load(Relaxed) {
            std::thread::sleep(scene.patience / 20);
            for (doing, (steps, since)) in self.0.iter().zip(&mut seen) {
                let now = doing.steps.load(Relaxed);
                if *steps != now {
                    (*steps, *since) = (now, Instant::now());
                }
            }
            if seen.iter().any(|(_, since)| since.elapsed() > scene.patience) {
                wrong(scene, format_args!("wrong: nobody got on:{}", self.told(&seen)));
            }
        }
    }

    fn told(&self, seen: &[(u64, Instant)]) -> String {
        let mut told = String::new();
        for (nth, (doing, (steps, since))) in self.0.iter().zip(seen).enumerate() {
            let verb = super::workers::name(nth, doing.verb.load(Relaxed));
            let slot = doing.slot.load(Relaxed);
            _ = write!(told, "\nworker {nth}: {verb} of region {slot}, step {steps}, for {:.1?}", since.elapsed());
        }
        told
    }
}
