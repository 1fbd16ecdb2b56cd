//! One workload, three ways to reclaim memory: `Global`, `Qsbr` on a machine of threads, and crossbeam-epoch as the judge.
//!
//! The workload is a Treiber stack of checked nodes. Alone, a seeded run must give the same answers everywhere; with several
//! threads, each value that went in must come out once; and every node must be released exactly once.
#![cfg(all(feature = "std", not(loom)))]

use spile_rcu::qsbr::{Cpu, Machine, Qsbr};
use spile_rcu::{Global, Head, Rcu};
use std::cell::Cell;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicPtr, AtomicU8, Ordering};
use std::thread;

const THREADS: usize = 4;
const OPS: usize = if cfg!(miri) { 100 } else { 50_000 };

#[repr(C)]
struct Node {
    head: Head,
    next: *mut Node,
    value: usize,
    check: usize,
    released: *const [AtomicU8],
}

impl Node {
    fn verify(&self) {
        assert_eq!(self.check, !self.value, "a reader saw freed memory");
    }
}

/// # Safety
///
/// (1) `node` came from `Box::into_raw`; (2) nobody reaches it; (3) called once.
unsafe fn release(node: *mut Node) {
    // SAFETY: (1) to (3) by contract.
    let mut node = unsafe { Box::from_raw(node) };
    node.verify();
    node.check = node.value;
    // SAFETY: (1) the array outlives the run.
    let released = unsafe { &*node.released };
    released[node.value].fetch_add(1, Ordering::Relaxed);
}

unsafe fn release_head(head: NonNull<Head>) {
    // SAFETY: (1) the head is a node's first field.
    unsafe { release(head.cast().as_ptr()) };
}

/// A way to reclaim memory.
trait Scheme: Sync {
    /// What a thread holds while it takes part.
    type Local<'s>
    where
        Self: 's;
    fn join(&self, number: usize) -> Self::Local<'_>;
    /// Runs `f` in a read section; what `f` passes to its argument is released later.
    fn section<R>(local: &Self::Local<'_>, f: impl FnOnce(&dyn Fn(*mut Node)) -> R) -> R;
    fn between(local: &Self::Local<'_>);
    fn part(local: Self::Local<'_>);
    /// Releases all that is left.
    fn finish(self);
}

/// # Safety
///
/// As [`Rcu::defer`], for a node.
unsafe fn defer(rcu: &impl Rcu, node: *mut Node) {
    // SAFETY: (1) the head is the node's first field; the rest by contract.
    unsafe { rcu.defer(NonNull::new(node).unwrap().cast()) };
}

struct Ours;

impl Scheme for Ours {
    type Local<'s> = ();
    fn join(&self, _: usize) {}
    fn section<R>((): &(), f: impl FnOnce(&dyn Fn(*mut Node)) -> R) -> R {
        let _section = Global.read();
        // SAFETY: (1) the stack retires a node it unlinked, (2) once; (3) nodes are freed anywhere.
        f(&|node| unsafe { defer(&Global, node) })
    }
    fn between((): &()) {
        Global.relieve();
    }
    fn part((): ()) {}
    fn finish(self) {
        Global.barrier();
    }
}

struct Epochs(crossbeam_epoch::Collector);

impl Scheme for Epochs {
    type Local<'s> = crossbeam_epoch::LocalHandle;
    fn join(&self, _: usize) -> crossbeam_epoch::LocalHandle {
        self.0.register()
    }
    fn section<R>(local: &Self::Local<'_>, f: impl FnOnce(&dyn Fn(*mut Node)) -> R) -> R {
        let guard = local.pin();
        // SAFETY: (1) as above.
        f(&|node| unsafe { guard.defer_unchecked(move || release(node)) })
    }
    fn between(_: &Self::Local<'_>) {}
    fn part(_: Self::Local<'_>) {}
    fn finish(self) {}
}

thread_local! {
    static CPU: Cell<usize> = const { Cell::new(0) };
}

struct Threads;

impl Machine for Threads {
    fn cpu(&self) -> usize {
        CPU.get()
    }
    fn relax(&self, _: u32) {
        thread::yield_now();
    }
}

struct Cpus<'c>(Qsbr<'c, Threads>);

fn all_offline() -> [Cpu; THREADS] {
    [const { Cpu::new() }; THREADS]
}

impl<'c> Cpus<'c> {
    fn new(cpus: &'c [Cpu; THREADS]) -> Self {
        // SAFETY: (1) `join` numbers the threads; (2) sections lie between `join` and `part`; (3) each caller brings new ones; (4)
        // `finish` comes after all sections.
        Self(unsafe { Qsbr::new(cpus, Threads) })
    }
}

impl<'c> Scheme for Cpus<'c> {
    type Local<'s>
        = &'s Self
    where
        'c: 's;
    fn join(&self, number: usize) -> &Self {
        CPU.set(number);
        // SAFETY: (1) no section yet.
        unsafe { self.0.online() };
        self
    }
    fn section<R>(local: &Self::Local<'_>, f: impl FnOnce(&dyn Fn(*mut Node)) -> R) -> R {
        let _section = local.0.read();
        // SAFETY: (1) as above.
        f(&|node| unsafe { defer(&local.0, node) })
    }
    fn between(local: &Self::Local<'_>) {
        // SAFETY: (1) between sections.
        unsafe { local.0.quiescent() };
        local.0.relieve();
    }
    fn part(local: Self::Local<'_>) {
        // SAFETY: (1) the last section is over.
        unsafe { local.0.idle() };
    }
    fn finish(self) {
        self.0.barrier();
    }
}

struct Stack(AtomicPtr<Node>);

impl Stack {
    fn push(&self, value: usize, released: &[AtomicU8]) {
        let node = Node { head: Head::new(release_head), next: null_mut(), value, check: !value, released };
        let node = Box::into_raw(Box::new(node));
        let mut top = self.0.load(Ordering::Relaxed);
        loop {
            // SAFETY: (1) ours until it is pushed.
            unsafe { (*node).next = top };
            match self.0.compare_exchange(top, node, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }

    /// In a section of the scheme that `retire` belongs to: so a node is not pushed again while somebody compares with it.
    fn pop(&self, retire: &dyn Fn(*mut Node)) -> Option<usize> {
        let mut top = self.0.load(Ordering::Acquire);
        loop {
            // SAFETY: (1) reached in a section.
            let node = unsafe { top.as_ref() }?;
            node.verify();
            let value = node.value;
            match self.0.compare_exchange(top, node.next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    retire(top);
                    return Some(value);
                }
                Err(now) => top = now,
            }
        }
    }
}

/// Values popped by one thread that pushes and pops at random, in order.
fn work<S: Scheme>(scheme: &S, stack: &Stack, number: usize, released: &[AtomicU8]) -> Vec<usize> {
    let local = scheme.join(number);
    let (mut random, mut popped) = (0x9E37_79B9_7F4A_7C15u64 ^ number as u64, Vec::new());
    for i in 0..OPS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if random >> 63 == 0 {
            stack.push(number * OPS + i, released);
        } else {
            popped.extend(S::section(&local, |retire| stack.pop(retire)));
        }
        S::between(&local);
    }
    S::part(local);
    popped
}

/// What each thread popped, and last what was left.
fn run<S: Scheme>(scheme: S, threads: usize) -> Vec<Vec<usize>> {
    let released: Vec<AtomicU8> = (0..threads * OPS).map(|_| AtomicU8::new(0)).collect();
    let stack = Stack(AtomicPtr::new(null_mut()));
    let mut popped: Vec<_> = thread::scope(|scope| {
        let workers = (0..threads).map(|number| {
            let (scheme, stack, released) = (&scheme, &stack, &released[..]);
            scope.spawn(move || work(scheme, stack, number, released))
        });
        workers.collect::<Vec<_>>().into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let local = scheme.join(0);
    popped.push(std::iter::from_fn(|| S::section(&local, |retire| stack.pop(retire))).collect());
    S::part(local);
    scheme.finish();

    let mut out = vec![0u8; threads * OPS];
    popped.iter().flatten().for_each(|&value| out[value] += 1);
    for (value, released) in released.iter().enumerate() {
        assert!(out[value] <= 1, "{value} was popped {} times", out[value]);
        assert_eq!(released.load(Ordering::Relaxed), out[value], "releases of {value}");
    }
    popped
}

/// How many values went in is decided by the seeds, so as many come out everywhere.
fn count(popped: &[Vec<usize>]) -> usize {
    popped.iter().map(Vec::len).sum()
}

/// Under Miri, which does not accept what crossbeam-epoch does with its list, `Global` judges.
fn judge(threads: usize) -> Vec<Vec<usize>> {
    if cfg!(miri) { run(Ours, threads) } else { run(Epochs(crossbeam_epoch::Collector::new()), threads) }
}

#[test]
fn alone_all_give_the_same_answers() {
    let judge = judge(1);
    assert_eq!(run(Ours, 1), judge);
    assert_eq!(run(Cpus::new(&all_offline()), 1), judge);
}

#[test]
fn together_all_release_everything_once() {
    let judge = count(&judge(THREADS));
    assert_eq!(count(&run(Ours, THREADS)), judge);
    assert_eq!(count(&run(Cpus::new(&all_offline()), THREADS)), judge);
}
