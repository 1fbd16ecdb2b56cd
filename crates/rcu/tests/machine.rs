//! `Qsbr` on a simulated machine: each thread is a CPU, and their number is chosen at run time.
#![cfg(all(feature = "std", not(loom)))]

use spile_rcu::qsbr::{Cpu, Machine, Qsbr};
use spile_rcu::{Rcu, RcuBox};
use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::thread;

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

fn cpus(count: usize) -> Vec<Cpu> {
    (0..count).map(|_| Cpu::new()).collect()
}

/// A machine whose CPUs are all offline.
fn machine(cpus: &[Cpu]) -> Qsbr<'_, Threads> {
    // SAFETY: (1) to (4): each test below numbers its threads, makes its own CPUs, and reads between `online` and `idle`.
    unsafe { Qsbr::new(cpus, Threads) }
}

/// The three reports. Each test calls them between sections.
fn online(qsbr: &Qsbr<'_, Threads>) {
    // SAFETY: (1) in no section.
    unsafe { qsbr.online() };
}

fn quiescent(qsbr: &Qsbr<'_, Threads>) {
    // SAFETY: (1) in no section.
    unsafe { qsbr.quiescent() };
}

fn idle(qsbr: &Qsbr<'_, Threads>) {
    // SAFETY: (1) in no section.
    unsafe { qsbr.idle() };
}

fn on_cpu<R>(cpu: usize, f: impl FnOnce() -> R) -> R {
    let before = CPU.replace(cpu);
    let result = f();
    CPU.set(before);
    result
}

#[test]
fn each_online_cpu_is_waited_for() {
    for count in 1..8 {
        let cpus = cpus(count);
        let qsbr = &machine(&cpus);
        (0..count).for_each(|cpu| on_cpu(cpu, || online(qsbr)));
        let cookie = qsbr.cookie();
        for cpu in 0..count {
            qsbr.drive();
            assert!(!qsbr.poll(cookie), "CPU {cpu} has not reported");
            on_cpu(cpu, || quiescent(qsbr));
        }
        qsbr.drive();
        assert!(qsbr.poll(cookie));
    }
}

#[test]
fn idle_and_offline_cpus_are_not_waited_for() {
    let cpus = cpus(4);
    let qsbr = &machine(&cpus);
    (0..2).for_each(|cpu| on_cpu(cpu, || online(qsbr)));
    let cookie = qsbr.cookie();
    qsbr.drive();
    on_cpu(0, || quiescent(qsbr));
    on_cpu(1, || idle(qsbr));
    // A quiescent state of an idle CPU does not bring it online.
    on_cpu(1, || quiescent(qsbr));
    on_cpu(3, || quiescent(qsbr));
    qsbr.drive();
    assert!(qsbr.poll(cookie));

    // One that comes online while a period runs was not there when it started.
    let cookie = qsbr.cookie();
    qsbr.drive();
    on_cpu(2, || online(qsbr));
    on_cpu(0, || quiescent(qsbr));
    qsbr.drive();
    assert!(qsbr.poll(cookie));
    let cookie = qsbr.cookie();
    qsbr.drive();
    on_cpu(0, || quiescent(qsbr));
    qsbr.drive();
    assert!(!qsbr.poll(cookie), "the newcomer is waited for by the next");
}

#[test]
fn no_cpu_at_all() {
    let cpus = cpus(1);
    let qsbr = &machine(&cpus);
    let cookie = qsbr.cookie();
    qsbr.synchronize();
    assert!(qsbr.poll(cookie));
}

#[test]
fn guards_know_their_domain() {
    let (these, those) = (cpus(1), cpus(1));
    let (here, there) = (machine(&these), machine(&those));
    assert!(here.protects(&here.read()) && !here.protects(&there.read()));
}

/// Relieving in a section is allowed: it must not report a quiescent state, nor wait.
#[test]
fn relieve_inside_a_section() {
    let cpus = cpus(1);
    let qsbr = &machine(&cpus);
    online(qsbr);
    let section = qsbr.read();
    let cookie = qsbr.cookie();
    for i in 0..10 * spile_rcu::BACKLOG_BOUND {
        RcuBox::new(i).defer(qsbr);
    }
    (0..10).for_each(|_| qsbr.relieve());
    assert!(!qsbr.poll(cookie));
    assert_eq!(qsbr.backlog(), 10 * spile_rcu::BACKLOG_BOUND);
    drop(section);
    idle(qsbr);
    qsbr.barrier();
    assert_eq!(qsbr.backlog(), 0);
}

/// CPUs that read, replace, go idle and come back.
#[test]
fn a_machine_of_threads() {
    static DROPS: AtomicUsize = AtomicUsize::new(0);
    struct Checked(u64, u64);
    impl Drop for Checked {
        fn drop(&mut self) {
            assert_eq!(self.0, !self.1);
            self.1 = self.0;
            DROPS.fetch_add(1, Ordering::Relaxed);
        }
    }
    let rounds: u64 = if cfg!(miri) { 30 } else { 20_000 };
    for count in [2, 3, 5] {
        DROPS.store(0, Ordering::Relaxed);
        let cpus = cpus(count);
        let qsbr = &machine(&cpus);
        let shared = AtomicPtr::new(RcuBox::into_raw(RcuBox::new(Checked(0, !0))).as_ptr());
        thread::scope(|scope| {
            for cpu in 0..count {
                let shared = &shared;
                scope.spawn(move || {
                    CPU.set(cpu);
                    online(qsbr);
                    for i in 0..rounds {
                        let section = qsbr.read();
                        // SAFETY: (1) published below; (2) deferred when unlinked.
                        let seen = unsafe { &*shared.load(Ordering::Acquire) };
                        assert_eq!(seen.0, !seen.1);
                        drop(section);
                        if i % 4 == cpu as u64 % 4 {
                            let new = RcuBox::into_raw(RcuBox::new(Checked(i, !i)));
                            let old = shared.swap(new.as_ptr(), Ordering::AcqRel);
                            // SAFETY: (1) to (4): from `into_raw`, unlinked by the swap, only deferred.
                            unsafe { RcuBox::from_raw(NonNull::new(old).unwrap()) }.defer(qsbr);
                        }
                        match i % 32 {
                            7 => idle(qsbr),
                            9 => qsbr.relieve(),
                            _ => quiescent(qsbr),
                        }
                        if i % 32 == 7 {
                            online(qsbr);
                        }
                    }
                    idle(qsbr);
                });
            }
        });
        qsbr.barrier();
        // SAFETY: (1) to (4): owned alone.
        drop(unsafe { RcuBox::from_raw(NonNull::new(shared.into_inner()).unwrap()) });
        let replaced: u64 = (0..count as u64).map(|cpu| (0..rounds).filter(|i| i % 4 == cpu % 4).count() as u64).sum();
        assert_eq!(DROPS.load(Ordering::Relaxed) as u64, replaced + 1);
    }
}
