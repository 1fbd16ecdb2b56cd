//! `Global` as a process meets it: threads that come and go, signal handlers, fork.
//!
//! Tests that leave something behind for the rest of the process (a leaked guard, another kind of barrier, a fork) run in a child
//! process: this binary again, with the name of a scene in `SPILE_RCU_SCENE`. `SPILE_SOAK_SECS` lengthens the signal storm.
#![cfg(all(feature = "std", not(loom)))]

use spile_rcu::{Global, Head, Rcu, RcuBox};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

const FEW: bool = cfg!(miri);

/// Counts its drops, and knows its value.
struct Counted {
    value: u64,
    check: u64,
    drops: Arc<AtomicUsize>,
}

impl Counted {
    fn new(value: u64, drops: &Arc<AtomicUsize>) -> Self {
        Self { value, check: !value, drops: drops.clone() }
    }

    fn verify(&self) {
        assert_eq!(self.check, !self.value, "a reader saw freed memory");
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.verify();
        self.check = self.value;
        self.drops.fetch_add(1, Ordering::Relaxed);
    }
}

/// A shared pointer that is read in sections and replaced.
struct Swap(AtomicPtr<Counted>);

impl Swap {
    fn new(first: Counted) -> Self {
        Self(AtomicPtr::new(RcuBox::into_raw(RcuBox::new(first)).as_ptr()))
    }

    fn read(&self) -> u64 {
        let section = Global.read();
        // SAFETY: (1) published by `replace` or `new`; (2) freed by `defer`, which waits for this section.
        let seen = unsafe { &*self.0.load(Ordering::Acquire) };
        seen.verify();
        let value = seen.value;
        drop(section);
        value
    }

    fn replace(&self, by: Counted) {
        self.replace_by(RcuBox::new(by));
    }

    /// Allocates nothing.
    fn replace_by(&self, by: RcuBox<Counted>) {
        let old = self.0.swap(RcuBox::into_raw(by).as_ptr(), Ordering::AcqRel);
        // SAFETY: (1) to (4): from `into_raw`, unlinked by the swap, only deferred.
        unsafe { RcuBox::from_raw(NonNull::new(old).expect("never null")) }.defer(&Global);
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        // SAFETY: (1) to (4): owned exclusively.
        drop(unsafe { RcuBox::from_raw(NonNull::new(*self.0.get_mut()).expect("never null")) });
    }
}

#[test]
fn deferred_from_four_threads_and_released_once() {
    let each = if FEW { 30 } else { 25_000 };
    let drops = Arc::new(AtomicUsize::new(0));
    thread::scope(|scope| {
        for t in 0..4 {
            let drops = &drops;
            scope.spawn(move || {
                for i in 0..each {
                    RcuBox::new(Counted::new(t * each + i, drops)).defer(&Global);
                    if i % 16 == 0 {
                        Global.relieve();
                    }
                }
            });
        }
    });
    Global.barrier();
    assert_eq!(drops.load(Ordering::Relaxed), 4 * each as usize);
}

#[test]
fn a_section_holds_its_period_up() {
    let section = Global.read();
    let cookie = Global.cookie();
    thread::scope(|scope| {
        scope.spawn(|| (0..100).for_each(|_| Global.drive()));
    });
    assert!(!Global.poll(cookie));
    drop(section);
    Global.synchronize();
    assert!(Global.poll(cookie));
}

#[test]
fn nested_in_any_order() {
    let (a, b) = (Global.read(), Global.read());
    let cookie = Global.cookie();
    drop(a);
    (0..10).for_each(|_| Global.drive());
    assert!(!Global.poll(cookie));
    drop(b);
    Global.synchronize();
    assert!(Global.poll(cookie));
}

#[test]
#[should_panic(expected = "synchronize() inside a read section would wait for itself: drop the guard first")]
fn synchronize_in_a_section_panics() {
    let _section = Global.read();
    Global.synchronize();
}

#[test]
fn relieve_in_a_section_does_nothing() {
    let drops = Arc::new(AtomicUsize::new(0));
    let section = Global.read();
    RcuBox::new(Counted::new(1, &drops)).defer(&Global);
    (0..100).for_each(|_| Global.relieve());
    assert_eq!(drops.load(Ordering::Relaxed), 0);
    drop(section);
    Global.barrier();
    assert_eq!(drops.load(Ordering::Relaxed), 1);
}

#[test]
fn a_release_may_defer() {
    struct Chained(u32, Arc<AtomicUsize>);
    impl Drop for Chained {
        fn drop(&mut self) {
            self.1.fetch_add(1, Ordering::Relaxed);
            if self.0 > 0 {
                RcuBox::new(Chained(self.0 - 1, self.1.clone())).defer(&Global);
            }
        }
    }
    let drops = Arc::new(AtomicUsize::new(0));
    RcuBox::new(Chained(9, drops.clone())).defer(&Global);
    Global.barrier();
    assert_eq!(drops.load(Ordering::Relaxed), 10);
}

#[test]
fn a_head_in_an_object_of_ones_own() {
    static RELEASED: AtomicUsize = AtomicUsize::new(0);
    #[repr(C)]
    struct Own {
        head: Head,
        value: [u64; 3],
    }
    unsafe fn release(head: NonNull<Head>) {
        // SAFETY: (1) the head is the first field of a boxed `Own`; (2) called once.
        let own = unsafe { Box::from_raw(head.cast::<Own>().as_ptr()) };
        RELEASED.fetch_add(own.value[2] as usize, Ordering::Relaxed);
    }
    let own = Box::leak(Box::new(Own { head: Head::new(release), value: [1, 2, 3] }));
    // SAFETY: (1) nobody reaches it; (2) once; (3) any thread may free it.
    unsafe { Global.defer(NonNull::from(own).cast()) };
    Global.barrier();
    assert_eq!(RELEASED.load(Ordering::Relaxed), 3);
}

#[test]
fn readers_beside_writers() {
    let rounds = if FEW { 20 } else { 20_000 };
    let drops = Arc::new(AtomicUsize::new(0));
    let swap = Swap::new(Counted::new(0, &drops));
    thread::scope(|scope| {
        for t in 0..2 {
            let (swap, drops) = (&swap, &drops);
            scope.spawn(move || (0..rounds).for_each(|_| assert!(swap.read() < 2 * rounds)));
            scope.spawn(move || {
                for i in 0..rounds {
                    swap.replace(Counted::new(t * rounds + i, drops));
                    Global.relieve();
                }
            });
        }
    });
    Global.barrier();
    assert_eq!(drops.load(Ordering::Relaxed), 2 * rounds as usize);
}

#[test]
fn read_in_a_destructor_of_a_thread_local() {
    struct Late(Arc<Swap>);
    impl Drop for Late {
        fn drop(&mut self) {
            self.0.read();
        }
    }
    thread_local! {
        static LATE: std::cell::RefCell<Option<Late>> = const { std::cell::RefCell::new(None) };
    }
    let drops = Arc::new(AtomicUsize::new(0));
    let swap = Arc::new(Swap::new(Counted::new(0, &drops)));
    for reads_before in [false, true] {
        let swap = swap.clone();
        let ended = thread::spawn(move || {
            if reads_before {
                swap.read();
            }
            LATE.set(Some(Late(swap)));
        });
        ended.join().unwrap();
    }
    swap.replace(Counted::new(1, &drops));
    Global.barrier();
    assert_eq!(drops.load(Ordering::Relaxed), 1);
}

#[test]
fn a_guard_in_a_thread_local_ends_with_it() {
    thread_local! {
        static KEPT: std::cell::RefCell<Option<spile_rcu::GlobalGuard>> = const { std::cell::RefCell::new(None) };
    }
    thread::spawn(|| KEPT.set(Some(Global.read()))).join().unwrap();
    Global.synchronize();
}

#[test]
fn more_threads_at_once_than_a_block_has_slots() {
    let threads = if FEW { 35 } else { 200 };
    let drops = Arc::new(AtomicUsize::new(0));
    let swap = Swap::new(Counted::new(0, &drops));
    let all_in = Barrier::new(threads + 1);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let section = Global.read();
                all_in.wait();
                swap.read();
                all_in.wait();
                drop(section);
            });
        }
        all_in.wait();
        let cookie = Global.cookie();
        (0..10).for_each(|_| Global.drive());
        assert!(!Global.poll(cookie));
        swap.replace(Counted::new(1, &drops));
        all_in.wait();
    });
    Global.barrier();
    assert_eq!(drops.load(Ordering::Relaxed), 1);
}

/// What needs Linux, signals, or a process of its own.
#[cfg(all(target_os = "linux", not(miri)))]
mod linux {
    use super::*;
    use std::process::Command;
    use std::ptr::null_mut;
    use std::time::{Duration, Instant};

    /// Each runs in a child process, once with membarrier and once with fences where that makes a difference.
    const SCENES: &[(&str, fn())] = &[
        ("sequential_threads", sequential_threads),
        ("leaked_section", leaked_section),
        ("panicking_release", panicking_release),
        ("first_read_in_a_handler", first_read_in_a_handler),
        ("signal_storm", signal_storm),
        ("fork_beside_sections", fork_beside_sections),
        ("fork_inside_a_section", fork_inside_a_section),
        ("fork_before_use", fork_before_use),
        ("kind_of_barrier", kind_of_barrier),
        ("four_threads", deferred_from_four_threads_and_released_once),
        ("readers_beside_writers", readers_beside_writers),
        ("holds_up", a_section_holds_its_period_up),
    ];

    /// The stage: does nothing unless called as a child.
    #[test]
    fn scene() {
        if let Ok(name) = std::env::var("SPILE_RCU_SCENE") {
            SCENES.iter().find(|(scene, _)| *scene == name).expect("a scene of this name").1();
        }
    }

    fn play(name: &str, fences: bool) -> std::process::Output {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "linux::scene", "--nocapture"]).env("SPILE_RCU_SCENE", name).env_remove("SPILE_RCU_FENCES");
        if fences {
            child.env("SPILE_RCU_FENCES", "1");
        }
        child.output().unwrap()
    }

    fn play_both(name: &str) {
        for fences in [false, true] {
            let output = play(name, fences);
            assert!(output.status.success(), "{name}, fences {fences}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }

    macro_rules! scenes {
        ($($test:ident: $scene:literal;)*) => {$(
            #[test]
            fn $test() {
                play_both($scene);
            }
        )*};
    }
    scenes! {
        threads_in_sequence_need_no_more_slots: "sequential_threads";
        a_leaked_section_outlives_its_thread: "leaked_section";
        the_first_section_may_be_in_a_handler: "first_read_in_a_handler";
        sections_in_handlers_beside_everything: "signal_storm";
        fork_while_others_read: "fork_beside_sections";
        fork_while_reading: "fork_inside_a_section";
        fork_before_the_first_section: "fork_before_use";
        both_kinds_of_barrier: "kind_of_barrier";
        released_once_with_both: "four_threads";
        readers_and_writers_with_both: "readers_beside_writers";
        periods_held_up_with_both: "holds_up";
    }

    fn kind_of_barrier() {
        if std::env::var_os("SPILE_RCU_FENCES").is_some() {
            assert!(!Global.uses_membarrier());
        }
    }

    /// Blocks that were mapped: anonymous mappings grow by one page or two for each.
    fn mapped_pages() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').next().unwrap().parse().unwrap()
    }

    fn sequential_threads() {
        let read = || drop(Global.read());
        (0..200).for_each(|_| thread::spawn(read).join().unwrap());
        let before = mapped_pages();
        (0..10_000).for_each(|_| thread::spawn(read).join().unwrap());
        let grown = mapped_pages().saturating_sub(before);
        // 10,000 slots would be more than 300 pages.
        assert!(grown < 64, "{grown} pages more after 10,000 threads");
        Global.synchronize();
    }

    /// `Box::leak` makes a guard lend references that outlive its thread, so its section must too.
    fn leaked_section() {
        let drops = Arc::new(AtomicUsize::new(0));
        let swap: &'static Swap = Box::leak(Box::new(Swap::new(Counted::new(7, &drops))));
        let leaker = thread::spawn(|| {
            let _forever = Box::leak(Box::new(Global.read()));
            // SAFETY: (1) published by `new`; (2) protected as long as the guard, which is for ever.
            unsafe { &*swap.0.load(Ordering::Acquire) }
        });
        let lent: &'static Counted = leaker.join().unwrap();
        swap.replace(Counted::new(8, &drops));
        let cookie = Global.cookie();
        // Enough threads to have the dead asked after.
        for _ in 0..100 {
            thread::spawn(|| drop(Global.read())).join().unwrap();
            Global.drive();
            Global.relieve();
        }
        assert!(!Global.poll(cookie));
        lent.verify();
        assert_eq!(drops.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_panicking_release_aborts() {
        let output = play("panicking_release", false);
        assert!(!output.status.success());
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("cannot unwind") && !text.contains("went on"), "{text}");
    }

    fn panicking_release() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("dropped");
            }
        }
        RcuBox::new(Bomb).defer(&Global);
        let _ = std::panic::catch_unwind(|| Global.barrier());
        eprintln!("went on");
    }

    static SHARED: AtomicPtr<Swap> = AtomicPtr::new(null_mut());
    static HANDLED: AtomicUsize = AtomicUsize::new(0);

    /// Reads, and drives now and then.
    extern "C" fn handler(_: libc::c_int) {
        // SAFETY: (1) leaked by `handle`; (2) the handler allocates nothing and takes no lock.
        let swap = unsafe { &*SHARED.load(Ordering::Acquire) };
        let outer = Global.read();
        swap.read();
        drop(outer);
        if HANDLED.fetch_add(1, Ordering::Relaxed).is_multiple_of(8) {
            Global.drive();
        }
    }

    fn handle(signal: libc::c_int) -> (&'static Swap, Arc<AtomicUsize>) {
        let drops = Arc::new(AtomicUsize::new(0));
        let swap = Box::leak(Box::new(Swap::new(Counted::new(0, &drops))));
        SHARED.store(swap, Ordering::Release);
        // SAFETY: (1) the action is whole; (2) the handler is async-signal-safe.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as extern "C" fn(libc::c_int) as usize;
            action.sa_flags = libc::SA_RESTART;
            assert_eq!(libc::sigaction(signal, &action, null_mut()), 0);
        }
        (swap, drops)
    }

    fn first_read_in_a_handler() {
        let (swap, drops) = handle(libc::SIGUSR1);
        for i in 0..200 {
            // SAFETY: (1) raise signals the calling thread, which has a handler.
            let raised = thread::spawn(|| assert_eq!(unsafe { libc::raise(libc::SIGUSR1) }, 0));
            raised.join().unwrap();
            swap.replace(Counted::new(i, &drops));
        }
        assert_eq!(HANDLED.load(Ordering::Relaxed), 200);
        Global.barrier();
        assert_eq!(drops.load(Ordering::Relaxed), 200);
    }

    fn soak() -> Duration {
        let seconds = std::env::var("SPILE_SOAK_SECS").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
        Duration::from_secs(seconds)
    }

    /// Signals at some 10 kHz into a thread that reads, nests, replaces and helps, and into ever new threads' first reads.
    fn signal_storm() {
        let (swap, drops) = handle(libc::SIGUSR1);
        let (until, mut replaced) = (Instant::now() + soak(), 0);
        // SAFETY: (1) pthread_self cannot fail.
        let target = unsafe { libc::pthread_self() } as usize;
        thread::scope(|scope| {
            scope.spawn(move || {
                while Instant::now() < until {
                    // SAFETY: (1) the target waits for this thread before it goes on.
                    unsafe { libc::pthread_kill(target as libc::pthread_t, libc::SIGUSR1) };
                    thread::sleep(Duration::from_micros(50));
                }
            });
            scope.spawn(move || {
                while Instant::now() < until {
                    scope.spawn(|| {
                        // SAFETY: (1) raise signals the calling thread.
                        unsafe { libc::raise(libc::SIGUSR1) };
                        swap.read();
                    });
                    thread::sleep(Duration::from_millis(2));
                }
            });
            while Instant::now() < until {
                let outer = Global.read();
                swap.read();
                drop(outer);
                swap.replace(Counted::new(replaced, &drops));
                replaced += 1;
                Global.relieve();
            }
        });
        Global.barrier();
        assert_eq!(drops.load(Ordering::Relaxed), replaced as usize);
        assert!(HANDLED.load(Ordering::Relaxed) > 1000, "too few signals: {HANDLED:?}");
    }

    /// Forks; the child runs `child` and exits 0. Its whole life may take 10 seconds.
    fn fork_and(child: impl FnOnce()) {
        // SAFETY: (1) the child uses what the tests of fork are about, and ends by `_exit`.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        if pid == 0 {
            // SAFETY: (1) alarm has no conditions.
            unsafe { libc::alarm(10) };
            let ok = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).is_ok();
            // SAFETY: as for alarm.
            unsafe { libc::_exit(if ok { 0 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: (1) our own child; (2) `status` is ours.
        assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "the child ended with status {status:#x}");
    }

    /// Everything a process does, in a child.
    fn live(swap: &Swap) {
        let drops = Arc::new(AtomicUsize::new(0));
        swap.read();
        for i in 0..100 {
            swap.replace(Counted::new(i, &drops));
        }
        Global.synchronize();
        thread::scope(|scope| {
            scope.spawn(|| swap.read());
        });
        Global.barrier();
        // The first one replaced counts elsewhere.
        assert_eq!(drops.load(Ordering::Relaxed), 99);
    }

    /// Tells the other threads to end, when a child fails too.
    struct Ended<'a>(&'a AtomicUsize);

    impl Drop for Ended<'_> {
        fn drop(&mut self) {
            self.0.store(2, Ordering::Relaxed);
        }
    }

    /// Takes its time, so that a fork meets it in the middle.
    struct SlowToDrop;

    impl Drop for SlowToDrop {
        fn drop(&mut self) {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Act 0: one thread sits in a section, one reads, one replaces and drives. Act 1: no section is long, and one
    /// releases all the time. Act 2: the end.
    fn fork_beside_sections() {
        let drops = Arc::new(AtomicUsize::new(0));
        let swap = Swap::new(Counted::new(0, &drops));
        let act = AtomicUsize::new(0);
        let during = |acts: std::ops::Range<usize>| acts.contains(&act.load(Ordering::Relaxed));
        let seated = Barrier::new(2);
        thread::scope(|scope| {
            let ended = Ended(&act);
            scope.spawn(|| {
                let _section = Global.read();
                seated.wait();
                while during(0..1) {
                    thread::yield_now();
                }
            });
            scope.spawn(|| {
                while during(0..2) {
                    swap.read();
                }
            });
            // A swap cell of its own: the child must not meet one that this thread was about to write.
            scope.spawn(|| {
                let own = Swap::new(Counted::new(0, &drops));
                while during(0..2) {
                    // Bounded, for each child releases all of it.
                    if Global.backlog() < 1000 {
                        own.replace(Counted::new(1, &drops));
                    }
                    Global.drive();
                    if during(1..2) {
                        (0..4).for_each(|_| RcuBox::new(SlowToDrop).defer(&Global));
                        Global.synchronize();
                    }
                }
            });
            seated.wait();
            (0..10).for_each(|_| fork_and(|| live(&swap)));
            act.store(1, Ordering::Relaxed);
            (0..20).for_each(|_| fork_and(|| live(&swap)));
            drop(ended);
        });
        Global.barrier();
    }

    fn fork_inside_a_section() {
        let drops = Arc::new(AtomicUsize::new(0));
        let swap = Swap::new(Counted::new(0, &drops));
        let section = Global.read();
        // SAFETY: (1) published by `new`; (2) protected by `section`, in the child too.
        let held = unsafe { &*swap.0.load(Ordering::Acquire) };
        fork_and(|| {
            let cookie = Global.cookie();
            (0..10).for_each(|_| Global.drive());
            assert!(!Global.poll(cookie), "the child inherits the section");
            held.verify();
        });
        fork_and(|| {
            // SAFETY: (1) a bitwise copy of the guard ends this process's section; the original is never dropped here.
            drop(unsafe { std::ptr::read(&section) });
            live(&swap);
        });
        drop(section);
        Global.synchronize();
    }

    fn fork_before_use() {
        fork_and(|| {
            let drops = Arc::new(AtomicUsize::new(0));
            live(&Swap::new(Counted::new(0, &drops)));
        });
        let drops = Arc::new(AtomicUsize::new(0));
        live(&Swap::new(Counted::new(0, &drops)));
    }
}
