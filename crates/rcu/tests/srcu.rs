//! `Srcu` among threads that sleep in its sections.
#![cfg(all(feature = "std", not(loom)))]

use spile_rcu::qsbr::Machine;
use spile_rcu::srcu::{Srcu, SrcuGuard};
use spile_rcu::{BACKLOG_BOUND, Rcu, RcuBox};
use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

thread_local! {
    static HINT: Cell<usize> = const { Cell::new(0) };
}

struct Threads;

impl Machine for Threads {
    fn cpu(&self) -> usize {
        HINT.get()
    }
    fn relax(&self, _: u32) {
        thread::yield_now();
    }
}

type Domain = Srcu<Threads, 3>;

/// Whether time passes `cookie` by as many steps as it needs when nothing is in its way.
fn passes<R: Rcu>(rcu: &R, cookie: spile_rcu::Cookie) -> bool {
    (0..2).for_each(|_| rcu.drive());
    rcu.poll(cookie)
}

#[test]
fn each_shard_is_waited_for() {
    let domain = Domain::new(Threads);
    // Past the number of shards the hint goes round.
    for hint in [0, 1, 2, 3, 7, usize::MAX] {
        HINT.set(hint);
        let section = domain.read();
        let cookie = domain.cookie();
        assert!(!passes(&domain, cookie) && !passes(&domain, cookie));
        HINT.set(hint / 2);
        drop(section);
        assert!(passes(&domain, cookie));
    }
}

/// One section or more runs at each moment, and yet time goes on.
#[test]
fn later_sections_are_not_waited_for() {
    let domain = Domain::new(Threads);
    let mut running = domain.read();
    for _ in 0..10 {
        let cookie = domain.cookie();
        assert!(!passes(&domain, cookie));
        let relayed = (0..2).any(|_| {
            running = domain.read();
            passes(&domain, cookie)
        });
        assert!(relayed, "at most a period that ran before, and the cookie's own");
    }
    drop(running);
}

#[test]
fn sections_nest_and_end_in_any_order() {
    let domain = Domain::new(Threads);
    let (outer, inner) = (domain.read(), domain.read());
    let cookie = domain.cookie();
    drop(outer);
    assert!(!passes(&domain, cookie));
    drop(inner);
    assert!(passes(&domain, cookie));
}

#[test]
fn leaked_section_is_never_over() {
    let domain = Domain::new(Threads);
    std::mem::forget(domain.read());
    let cookie = domain.cookie();
    assert!((0..10).all(|_| !passes(&domain, cookie)));
}

#[test]
fn guards_know_their_domain() {
    let domains = [Srcu::<_, 1>::new(Threads), Srcu::new(Threads)];
    for (i, j) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        assert_eq!(domains[i].protects(&domains[j].read()), i == j);
    }
}

/// A section that sleeps holds up its own domain, and ends on another thread.
#[test]
fn section_sleeps_and_changes_threads() {
    static HERE: Domain = Srcu::new(Threads);
    static ELSEWHERE: Domain = Srcu::new(Threads);
    fn is_send_and_sync<T: Send + Sync>(_: &T) {}
    let section = HERE.read();
    is_send_and_sync(&section);
    let cookie = HERE.cookie();
    let (wake, woken) = mpsc::channel::<()>();
    let sleeper = thread::spawn(move || {
        woken.recv().unwrap();
        HINT.set(2);
        drop::<SrcuGuard<'_>>(section);
    });
    ELSEWHERE.synchronize();
    assert!(!passes(&HERE, cookie));
    wake.send(()).unwrap();
    HERE.synchronize();
    assert!(HERE.poll(cookie));
    sleeper.join().unwrap();
}

/// Relieving in a section is allowed: it must not wait.
#[test]
fn relieve_inside_a_section() {
    let domain = Domain::new(Threads);
    let section = domain.read();
    for i in 0..10 * BACKLOG_BOUND {
        HINT.set(i);
        RcuBox::new(i).defer(&domain);
    }
    (0..10).for_each(|_| domain.relieve());
    assert_eq!(domain.backlog(), 10 * BACKLOG_BOUND);
    drop(section);
    domain.barrier();
    assert_eq!(domain.backlog(), 0);
}

/// Threads that read over naps, replace what they read, and wait.
#[test]
fn threads_read_replace_and_wait() {
    static DROPS: AtomicUsize = AtomicUsize::new(0);
    struct Checked(u64, u64);
    impl Drop for Checked {
        fn drop(&mut self) {
            assert_eq!(self.0, !self.1);
            self.1 = self.0;
            DROPS.fetch_add(1, Ordering::Relaxed);
        }
    }
    const THREADS: usize = 4;
    let rounds: u64 = if cfg!(miri) { 20 } else { 5_000 };
    let domain = &Domain::new(Threads);
    let shared = &AtomicPtr::new(RcuBox::into_raw(RcuBox::new(Checked(0, !0))).as_ptr());
    thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                for i in 0..rounds {
                    // Nobody promises that the hint stays.
                    HINT.set(thread + i as usize / 100);
                    let section = domain.read();
                    // SAFETY: (1) published below; (2) deferred when unlinked.
                    let seen = unsafe { &*shared.load(Ordering::Acquire) };
                    if i % 16 == 3 {
                        thread::yield_now();
                    }
                    assert_eq!(seen.0, !seen.1);
                    drop(section);
                    if i % 4 == 0 {
                        let new = RcuBox::into_raw(RcuBox::new(Checked(i, !i)));
                        let old = shared.swap(new.as_ptr(), Ordering::AcqRel);
                        // SAFETY: (1) to (4): from `into_raw`, unlinked by the swap, only deferred.
                        unsafe { RcuBox::from_raw(NonNull::new(old).unwrap()) }.defer(domain);
                    }
                    match i % 64 {
                        9 => domain.synchronize(),
                        30 => domain.relieve(),
                        _ => {}
                    }
                }
            });
        }
    });
    domain.barrier();
    // SAFETY: (1) to (4): owned alone.
    drop(unsafe { RcuBox::from_raw(NonNull::new(shared.load(Ordering::Relaxed)).unwrap()) });
    let replaced = THREADS * rounds.div_ceil(4) as usize;
    assert_eq!(DROPS.load(Ordering::Relaxed), replaced + 1);
}
