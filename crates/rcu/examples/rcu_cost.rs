//! What a read section costs: nanoseconds of thread CPU time for enter + load a pointer + read behind it + leave.
//!
//! All contenders run in alternating rounds; printed is each one's median. `--json` prints one object per line. The fence
//! variant of ours is measured in a child process, for a process decides once.

use haphazard::HazardPointer;
use seize::{Collector, Guard};
use spile_rcu::qsbr::Machine;
use spile_rcu::srcu::Srcu;
use spile_rcu::{Global, Rcu};
use std::hint::black_box;
use std::sync::atomic::{AtomicPtr, Ordering};

const ROUNDS: usize = 31;
const OPS: u32 = 1_000_000;

struct OneShard;

impl Machine for OneShard {
    fn cpu(&self) -> usize {
        0
    }
    fn relax(&self, _: u32) {}
}

static SLEEPY: Srcu<OneShard, 1> = Srcu::new(OneShard);

/// CPU time of this thread, ns.
fn thread_time() -> f64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: (1) `now` is ours to write.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut now) };
    now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
}

fn ns_per_op(op: impl Fn() -> u64) -> f64 {
    let begin = thread_time();
    // A sum, not a `black_box` each: that one is a store, and would wait in line with the section's.
    let mut sum = 0;
    for _ in 0..OPS {
        sum += op();
    }
    black_box(sum);
    (thread_time() - begin) / f64::from(OPS)
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

type Round<'a> = Box<dyn Fn() -> f64 + 'a>;

fn contenders(plain: &'static AtomicPtr<u64>) -> Vec<(&'static str, Round<'static>)> {
    let ours = if Global.uses_membarrier() { "spile-rcu, membarrier" } else { "spile-rcu, fences" };
    // SAFETY: (1) what each contender points to is never freed.
    let read = |pointer: *const u64| unsafe { *pointer };
    let collector: &'static Collector = Box::leak(Box::new(Collector::new()));
    let hazardous: &'static haphazard::AtomicPtr<u64> = Box::leak(Box::new(haphazard::AtomicPtr::from(Box::new(7))));
    let epochal: &'static crossbeam_epoch::Atomic<u64> = Box::leak(Box::new(crossbeam_epoch::Atomic::new(7)));
    vec![
        ("acquire load", Box::new(move || ns_per_op(|| read(plain.load(Ordering::Acquire))))),
        (
            ours,
            Box::new(move || {
                ns_per_op(|| {
                    let _section = Global.read();
                    read(plain.load(Ordering::Acquire))
                })
            }),
        ),
        (
            "Srcu, uncontended",
            Box::new(move || {
                ns_per_op(|| {
                    let _section = SLEEPY.read();
                    read(plain.load(Ordering::Acquire))
                })
            }),
        ),
        (
            "crossbeam-epoch",
            Box::new(move || {
                ns_per_op(|| {
                    let guard = crossbeam_epoch::pin();
                    read(epochal.load(Ordering::Acquire, &guard).as_raw())
                })
            }),
        ),
        (
            "seize",
            Box::new(move || {
                ns_per_op(|| {
                    let guard = collector.enter();
                    read(guard.protect(plain, Ordering::Acquire))
                })
            }),
        ),
        (
            "haphazard, reused",
            Box::new(move || {
                let hazard = std::cell::RefCell::new(HazardPointer::new());
                ns_per_op(|| {
                    let mut hazard = hazard.borrow_mut();
                    let value = *hazardous.safe_load(&mut hazard).expect("not null");
                    hazard.reset_protection();
                    value
                })
            }),
        ),
    ]
}

fn main() {
    let json = std::env::args().any(|argument| argument == "--json");
    let plain: &'static AtomicPtr<u64> = Box::leak(Box::new(AtomicPtr::new(Box::leak(Box::new(7)))));
    let contenders = contenders(plain);
    let mut samples = vec![Vec::new(); contenders.len()];
    for _ in 0..ROUNDS {
        for ((_, round), samples) in contenders.iter().zip(&mut samples) {
            samples.push(round());
        }
    }
    let is_child = std::env::var_os("SPILE_RCU_FENCES").is_some();
    for ((name, _), samples) in contenders.iter().zip(samples) {
        if is_child && !name.starts_with("spile-rcu") {
            continue;
        }
        let ns = median(samples);
        match json {
            true => println!(r#"{{"op":"enter+load+read+leave","contender":"{name}","ns":{ns:.2}}}"#),
            false => println!("{name:24}{ns:6.2} ns"),
        }
    }
    if !is_child {
        let mut child = std::process::Command::new(std::env::current_exe().expect("our own path"));
        child.args(std::env::args().skip(1)).env("SPILE_RCU_FENCES", "1");
        child.status().expect("the child runs");
    }
}
