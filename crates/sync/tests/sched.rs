//! The seeded scheduler finds what it should, stays silent where it should, and repeats itself.
#![cfg(all(feature = "sched", not(loom)))]

use spile_sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use spile_sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, fence};
use spile_sync::cell::UnsafeCell;
use spile_sync::hint::spin_loop;
use spile_sync::lock::TryLock;
use spile_sync::sched::{self, Counters, Explored, Failure, Op, Outcome, Run, Strategy, explore};
use std::sync::Mutex;
use std::time::Instant;

const STRATEGIES: [Strategy; 2] = [Strategy::Random, Strategy::Pct { depth: 3 }];

/// Two threads that each add 1 `times` by `add`; the sum is checked.
fn two_adders(run: Run<'_>, times: u32, add: fn(&AtomicU32)) -> Outcome {
    let sum = AtomicU32::new(0);
    let body = || (0..times).for_each(|_| add(&sum));
    let outcome = run.spawn("left", body).spawn("right", body).run();
    outcome.check(sum.into_inner() == 2 * times, "an update was lost")
}

fn add_torn(sum: &AtomicU32) {
    let old = sum.load(Relaxed);
    sum.store(old + 1, Relaxed);
}

fn add_whole(sum: &AtomicU32) {
    sum.fetch_add(1, Relaxed);
}

#[test]
fn a_lost_update_is_found() {
    for strategy in STRATEGIES {
        let found = explore(0..100, strategy, |run| two_adders(run, 1, add_torn));
        let outcome = found.failure.expect("a seed below 100 loses an update");
        assert!(matches!(outcome.failure(), Some(Failure::Check { .. })));
    }
}

#[test]
fn an_atomic_update_is_never_lost() {
    for strategy in STRATEGIES {
        let explored = explore(0..300, strategy, |run| two_adders(run, 3, add_whole)).expect_ok();
        assert_eq!(explored.passed, 300);
        assert_eq!(explored.steps, 300 * 6);
    }
}

#[test]
fn a_seed_repeats_its_story() {
    let story = |seed, strategy| two_adders(Run::new(seed).strategy(strategy), 20, add_torn).story(usize::MAX);
    for strategy in STRATEGIES {
        let stories: Vec<_> = (0..20).map(|seed| story(seed, strategy)).collect();
        let again: Vec<_> = (0..20).map(|seed| story(seed, strategy)).collect();
        assert_eq!(stories, again);
        let events = |story: &String| story.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
        let first = events(&stories[0]);
        assert!(stories.iter().any(|other| events(other) != first), "{strategy:?}");
    }
}

/// A counter behind a spin lock, entered by compare-exchange or, broken, by load and store.
struct Locked {
    taken: AtomicBool,
    inside: AtomicU32,
    sum: AtomicU32,
}

impl Locked {
    const fn new() -> Self {
        Self { taken: AtomicBool::new(false), inside: AtomicU32::new(0), sum: AtomicU32::new(0) }
    }

    fn try_enter(&self, broken: bool) -> bool {
        if broken {
            let open = !self.taken.load(Acquire);
            if open {
                self.taken.store(true, Relaxed);
            }
            open
        } else {
            self.taken.compare_exchange(false, true, Acquire, Relaxed).is_ok()
        }
    }

    fn add(&self, broken: bool) {
        while !self.try_enter(broken) {
            spin_loop();
        }
        assert_eq!(self.inside.fetch_add(1, Relaxed), 0, "two inside");
        add_torn(&self.sum);
        self.inside.fetch_sub(1, Relaxed);
        self.taken.store(false, Release);
    }
}

fn three_lockers(run: Run<'_>, broken: bool) -> Outcome {
    let locked = Locked::new();
    let body = || (0..4).for_each(|_| locked.add(broken));
    let outcome = run.max_steps(5_000).spawn("a", body).spawn("b", body).spawn("c", body).run();
    outcome.check(locked.sum.load(Relaxed) == 12, "an update was lost")
}

#[test]
fn a_spin_lock_excludes_and_progresses() {
    for strategy in STRATEGIES {
        let explored = explore(0..300, strategy, |run| three_lockers(run, false)).expect_ok();
        assert_eq!(explored.passed, 300);
    }
}

#[test]
fn a_broken_spin_lock_is_found() {
    for strategy in STRATEGIES {
        let found = explore(0..300, strategy, |run| three_lockers(run, true));
        let outcome = found.failure.expect("two inside");
        let Some(Failure::Panic { message, .. }) = outcome.failure() else {
            panic!("{}", outcome.story(100));
        };
        assert!(message.contains("two inside"), "{message}");
    }
}

/// A waiter for a flag, and somebody who does something else, then perhaps sets it.
fn waiter(run: Run<'_>, sets: bool) -> Outcome {
    let (flag, other) = (AtomicBool::new(false), AtomicU32::new(0));
    run.max_steps(2_000)
        .spawn("waiter", || {
            while !flag.load(Acquire) {
                spin_loop();
            }
        })
        .spawn("worker", || {
            (0..10).for_each(|_| add_whole(&other));
            if sets {
                flag.store(true, Release);
            }
        })
        .run()
}

#[test]
fn waiting_for_nobody_is_reported_with_its_place() {
    for strategy in STRATEGIES {
        let outcome = waiter(Run::new(1).strategy(strategy), false);
        assert_eq!(outcome.steps(), 2_000);
        let Some(Failure::Stuck { steps: 2_000, standing }) = outcome.failure() else {
            panic!("{}", outcome.story(100));
        };
        let [only] = &standing[..] else { panic!("{standing:?}") };
        let (op, at) = only.before.expect("a place");
        assert_eq!(only.thread, "waiter");
        assert!(matches!(op, Op::Load | Op::Spin));
        assert!(at.file().ends_with("sched.rs"));
        assert!(outcome.to_string().contains("'waiter' before"), "{outcome}");
    }
}

#[test]
fn a_limit_that_is_just_enough_is_enough() {
    assert!(two_adders(Run::new(0).max_steps(6), 3, add_whole).is_ok());
    assert!(!two_adders(Run::new(0).max_steps(5), 3, add_whole).is_ok());
    assert!(Run::new(0).run().is_ok(), "nobody has nothing to do");
}

#[test]
fn waiting_for_somebody_ends() {
    for strategy in STRATEGIES {
        let explored = explore(0..200, strategy, |run| waiter(run, true)).expect_ok();
        assert_eq!(explored.passed, 200);
    }
}

/// Two threads that wait for each other's flag before they set their own.
#[test]
fn a_deadlock_names_both() {
    let (a, b) = (AtomicBool::new(false), AtomicBool::new(false));
    let wait_then_set = |theirs: &AtomicBool, mine: &AtomicBool| {
        while !theirs.load(Acquire) {
            spin_loop();
        }
        mine.store(true, Release);
    };
    for strategy in STRATEGIES {
        let run = Run::new(3).strategy(strategy).max_steps(500);
        let outcome = run.spawn("a", || wait_then_set(&a, &b)).spawn("b", || wait_then_set(&b, &a)).run();
        let Some(Failure::Stuck { standing, .. }) = outcome.failure() else {
            panic!("{}", outcome.story(100));
        };
        let names: Vec<_> = standing.iter().map(|s| s.thread.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
    }
}

#[repr(align(64))]
struct OwnLine(AtomicU64);

/// Both threads add `times` to the counters they are given; returns what the adding after the first cost per CPU.
fn after_warm_up(seed: u64, counters: [&AtomicU64; 2], times: u64) -> (Outcome, [Counters; 2]) {
    let costs = Mutex::new([Counters::default(); 2]);
    let body = || {
        let (thread, cpu) = (sched::thread_index().unwrap(), sched::cpu().unwrap());
        counters[thread].fetch_add(1, Relaxed);
        let before = sched::counters().unwrap();
        (0..times).for_each(|_| _ = counters[thread].fetch_add(1, Relaxed));
        costs.lock().unwrap()[cpu] = sched::counters().unwrap() - before;
    };
    let outcome = Run::new(seed).spawn("left", body).spawn("right", body).run();
    (outcome, costs.into_inner().unwrap())
}

#[test]
fn a_shared_line_is_counted() {
    let shared = OwnLine(AtomicU64::new(0));
    for seed in 0..20 {
        let (outcome, costs) = after_warm_up(seed, [&shared.0, &shared.0], 50);
        let total = outcome.expect_ok().total();
        assert_eq!((total.ops, total.rmws, total.cold), (102, 102, 1));
        assert!(total.transfers > 0 && total.shared_writes > 0, "{total:?}");
        assert_eq!(costs.map(|c| c.rmws), [50, 50]);
    }
}

#[test]
fn an_own_line_costs_nothing_after_warm_up() {
    let (left, right) = (OwnLine(AtomicU64::new(0)), OwnLine(AtomicU64::new(0)));
    for seed in 0..20 {
        let (outcome, costs) = after_warm_up(seed, [&left.0, &right.0], 50);
        assert_eq!(outcome.expect_ok().total().cold, 2);
        for cost in costs {
            assert_eq!((cost.rmws, cost.transfers, cost.shared_writes), (50, 0, 0));
        }
    }
}

/// One thread, then another on a CPU of its own: each row of the directory's table once.
#[test]
fn each_kind_of_access_has_its_price() {
    let (line, turn) = (OwnLine(AtomicU64::new(0)), OwnLine(AtomicU64::new(0)));
    let cost = |f: &dyn Fn()| {
        let before = sched::counters().unwrap();
        f();
        let cost = sched::counters().unwrap() - before;
        (cost.cold, cost.transfers, cost.shared_writes)
    };
    let wait_for = |n| {
        while turn.0.load(SeqCst) != n {
            spin_loop();
        }
    };
    let read = || _ = line.0.load(Relaxed);
    let write = || line.0.store(1, Relaxed);
    let fail = || _ = line.0.compare_exchange(7, 8, Relaxed, Relaxed).unwrap_err();
    Run::new(5)
        .spawn("a", || {
            assert_eq!(cost(&read), (1, 0, 0));
            assert_eq!(cost(&write), (0, 0, 0));
            turn.0.store(1, SeqCst);
            wait_for(2);
            assert_eq!(cost(&read), (0, 0, 0));
            assert_eq!(cost(&write), (0, 1, 1));
            turn.0.store(3, SeqCst);
        })
        .spawn("b", || {
            wait_for(1);
            assert_eq!(cost(&read), (0, 1, 0));
            assert_eq!(cost(&|| fence(SeqCst)), (0, 0, 0));
            turn.0.store(2, SeqCst);
            wait_for(3);
            assert_eq!(cost(&fail), (0, 1, 1));
            assert_eq!(cost(&write), (0, 0, 0));
        })
        .run()
        .expect_ok();
}

#[test]
fn threads_of_one_cpu_share_its_lines() {
    let shared = OwnLine(AtomicU64::new(0));
    let body = || (0..20).for_each(|_| _ = shared.0.fetch_add(1, Relaxed));
    let apart = Run::new(2).spawn("a", body).spawn("b", body).run().expect_ok();
    let together = Run::new(2).cpus(1).spawn("a", body).spawn("b", body).run().expect_ok();
    let placed = Run::new(2).spawn_on(3, "a", body).spawn_on(3, "b", body).run().expect_ok();
    assert!(apart.total().shared_writes > 0);
    assert_eq!(together.total().shared_writes, 0);
    assert_eq!((placed.total().shared_writes, placed.counters()[3].rmws), (0, 40));
}

/// Sets its flag when dropped, as a guard does.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Release);
    }
}

#[test]
fn a_panic_is_reported_and_the_others_unwind() {
    for seed in 0..50 {
        let (never, dropped) = (AtomicBool::new(false), AtomicBool::new(false));
        let outcome = Run::new(seed)
            .spawn("bystander", || {
                let _guard = SetOnDrop(&dropped);
                sched::label("started");
                while !never.load(Acquire) {
                    spin_loop();
                }
            })
            .spawn("victim", || {
                while !dropped.load(Relaxed) {
                    assert!(never.load(Relaxed), "seen: {}", 42);
                }
            })
            .run();
        let Some(Failure::Panic { thread, message, at }) = outcome.failure() else {
            panic!("{}", outcome.story(100));
        };
        assert_eq!((thread.as_str(), message.as_str()), ("victim", "seen: 42"));
        assert!(at.as_ref().expect("a place").contains("sched.rs"));
        // The bystander either never started or its guard was dropped.
        let started = outcome.trace().iter().any(|event| event.thread == 0);
        assert_eq!(dropped.load(Relaxed), started);
    }
    assert!(two_adders(Run::new(0), 3, add_whole).is_ok(), "the process is usable");
}

/// A destructor that waits for another thread's destructor gets its turn also while both unwind.
#[test]
fn destructors_may_wait_for_each_other() {
    struct WaitOnDrop<'a>(&'a AtomicBool);
    impl Drop for WaitOnDrop<'_> {
        fn drop(&mut self) {
            while !self.0.load(Acquire) {
                spin_loop();
            }
        }
    }
    for strategy in STRATEGIES {
        for seed in 0..50 {
            let (flag, started) = (AtomicBool::new(false), AtomicU32::new(0));
            let both_started = || {
                started.fetch_add(1, Relaxed);
                while started.load(Relaxed) < 2 {
                    spin_loop();
                }
            };
            let outcome = Run::new(seed)
                .strategy(strategy)
                .spawn("waits", || {
                    let _guard = WaitOnDrop(&flag);
                    both_started();
                    panic!("on purpose");
                })
                .spawn("sets", || {
                    let _guard = SetOnDrop(&flag);
                    both_started();
                })
                .run();
            assert!(!outcome.is_ok() && flag.load(Relaxed));
        }
    }
}

#[test]
fn a_caught_panic_is_the_programs_own_affair() {
    let caught = || {
        let result = std::panic::catch_unwind(|| panic!("caught"));
        assert!(result.is_err());
    };
    Run::new(0).spawn("catcher", caught).run().expect_ok();
}

#[test]
fn a_story_has_a_column_per_thread() {
    let slot = OwnLine(AtomicU64::new(0));
    let run = Run::new(0).spawn("reader", || {
        sched::label("entered");
        while slot.0.load(Acquire) == 0 {
            spin_loop();
        }
        sched::label(format_args!("read {}", slot.0.load(Acquire)));
    });
    let outcome = run.spawn("writer", || slot.0.store(1, Release)).run().expect_ok();
    let story = outcome.story(100);
    println!("{story}");
    let lines: Vec<_> = story.lines().collect();
    assert!(lines[1].contains("reader") && lines[1].contains("writer"));
    assert!(story.contains("> entered") && story.contains("> read 1"));
    assert!(story.contains(" store L1") && story.contains("sched.rs:"));
    assert!(lines.iter().all(|line| line.len() <= 120), "{story}");
    assert_eq!(lines.last(), Some(&outcome.to_string().as_str()));
    assert!(outcome.story(1).lines().count() == 4, "the last event alone");
}

#[test]
fn a_kept_trace_is_the_end_of_the_whole_one() {
    let whole = two_adders(Run::new(9), 20, add_torn);
    let kept = two_adders(Run::new(9).keep_events(7), 20, add_torn);
    assert_eq!(kept.trace(), &whole.trace()[whole.trace().len() - 7..]);
    assert_eq!(two_adders(Run::new(9).keep_events(0), 20, add_torn).total(), whole.total());
}

#[test]
fn outside_a_run_atomics_just_work() {
    let mut value = AtomicUsize::new(1);
    assert_eq!(value.fetch_add(5, SeqCst), 1);
    assert_eq!(value.fetch_sub(2, SeqCst), 6);
    assert_eq!(value.fetch_or(3, SeqCst), 4);
    assert_eq!(value.fetch_and(6, SeqCst), 7);
    assert_eq!(value.fetch_max(9, SeqCst), 6);
    assert_eq!(value.swap(1, SeqCst), 9);
    assert_eq!(value.compare_exchange(1, 2, SeqCst, Relaxed), Ok(1));
    assert_eq!(value.compare_exchange_weak(1, 3, SeqCst, Relaxed), Err(2));
    *value.get_mut() += 1;
    assert_eq!(format!("{value:?}"), "3");
    assert_eq!(value.into_inner(), 3);
    let mut target = 1;
    let pointer = AtomicPtr::new(&raw mut target);
    assert_eq!(pointer.load(Relaxed), &raw mut target);
    fence(SeqCst);
    spin_loop();
    sched::label("heard by nobody");
    assert_eq!((sched::counters(), sched::thread_index(), sched::cpu()), (None, None, None));

    let sum = AtomicU32::new(0);
    std::thread::scope(|scope| {
        (0..4).for_each(|_| _ = scope.spawn(|| (0..1000).for_each(|_| add_whole(&sum))));
    });
    assert_eq!(sum.into_inner(), 4000);
}

/// A number that only the holder of the lock touches.
struct Guarded {
    lock: TryLock,
    value: UnsafeCell<u32>,
}

// SAFETY: 1. `value` is reached only in `with`; 2. `with` holds the lock's one guard while it does so.
unsafe impl Sync for Guarded {}

impl Guarded {
    fn with<R>(&self, f: impl FnOnce(&mut u32) -> R) -> R {
        let _guard = loop {
            match self.lock.try_lock() {
                Some(guard) => break guard,
                None => spin_loop(),
            }
        };
        // SAFETY: 1. the guard excludes every other `with`; 2. the reference ends with `f`, before the guard.
        self.value.with_mut(|value| f(unsafe { &mut *value }))
    }
}

#[test]
fn try_lock_excludes() {
    let bystander = AtomicU32::new(0);
    for strategy in STRATEGIES {
        let explored: Explored = explore(0..200, strategy, |run| {
            let guarded = Guarded { lock: TryLock::new(), value: UnsafeCell::new(0) };
            let body = || {
                for _ in 0..5 {
                    guarded.with(|value| {
                        let old = *value;
                        add_whole(&bystander); // a yield point inside
                        *value = old + 1;
                    });
                }
            };
            let outcome = run.spawn("a", body).spawn("b", body).spawn("c", body).run();
            let free = guarded.lock.try_lock().is_some();
            outcome.check(free, "still locked").check(guarded.with(|v| *v) == 15, "an update was lost")
        });
        assert_eq!(explored.expect_ok().passed, 200);
    }
}

/// Run with `--ignored --nocapture --release`.
#[test]
#[ignore = "a measurement"]
fn yield_points_per_second() {
    for threads in 1..=4 {
        for strategy in STRATEGIES {
            let started = Instant::now();
            let explored = explore(0..20, strategy, |run| {
                let sum = AtomicU32::new(0);
                let body = || (0..100_000 / threads).for_each(|_| add_whole(&sum));
                let run = (0..threads).fold(run.max_steps(u64::MAX), |run, t| run.spawn(t.to_string(), body));
                run.run()
            });
            let rate = explored.expect_ok().steps as f64 / started.elapsed().as_secs_f64();
            println!("{threads} threads, {strategy:?}: {:.0} thousand per second", rate / 1e3);
        }
    }
    let started = Instant::now();
    let runs = explore(0..2_000, Strategy::Random, |run| two_adders(run, 1, add_whole)).expect_ok().passed;
    println!("{:.0} short runs per second", runs as f64 / started.elapsed().as_secs_f64());
}

#[test]
fn who_sleeps_is_not_chosen_until_it_is_woken() {
    for strategy in STRATEGIES.into_iter().chain([Strategy::Stretches { mean: 4 }]) {
        let done = Mutex::new(false);
        let steps = AtomicU32::new(0);
        let outcome = Run::new(3)
            .strategy(strategy)
            .spawn("sleeper", || {
                while !*done.lock().unwrap() {
                    sched::sleep();
                }
                assert_eq!(steps.load(Relaxed), 50);
            })
            .spawn("worker", || {
                (0..50).for_each(|_| _ = steps.fetch_add(1, Relaxed));
                *done.lock().unwrap() = true;
                sched::wake(0);
                sched::wake(0);
            })
            .run()
            .expect_ok();
        assert_eq!(outcome.steps(), 51, "a sleeper takes no steps");
    }
}

#[test]
fn a_sleep_that_nobody_ends_is_told() {
    let outcome = Run::new(0).spawn("sleeper", sched::sleep).spawn("worker", || ()).run();
    assert!(matches!(outcome.failure(), Some(Failure::Asleep { .. })), "{outcome}");
    assert!(outcome.to_string().contains("'sleeper' before spin"), "{outcome}");
}

#[test]
fn accesses_are_charged_to_classes() {
    const BEFORE: u32 = line!() + 8;
    #[repr(align(64))]
    struct Apart(AtomicU32);
    let (ours, theirs) = (Apart(AtomicU32::new(0)), Apart(AtomicU32::new(0)));
    // The first line below is of class 1, the second of class 2, and the third of whatever its cache line is.
    let outcome = Run::new(0)
        .classify(|at| [1, 2].into_iter().find(|n| at.line() == BEFORE + u32::from(*n)))
        .spawn("all", || {
            // These lines are counted from the constant above.
            ours.0.store(1, Relaxed);
            theirs.0.store(1, Relaxed);
            let sum: u32 = [&ours, &theirs, &theirs].iter().map(|one| one.0.load(Relaxed)).sum();
            assert_eq!(sum, 3);
            let classes = sched::counters_by_class().unwrap();
            assert_eq!(classes.map(|class| (class.stores, class.loads))[..4], [(0, 0), (1, 1), (1, 2), (0, 0)]);
            assert_eq!(sched::counters().unwrap().ops, 5);
        })
        .run();
    outcome.expect_ok();
}

#[test]
fn memory_that_was_given_back_is_nobodys() {
    #[repr(align(64))]
    struct Line(AtomicU32);
    for (given_back, transfers) in [(false, 1), (true, 0)] {
        let line = Line(AtomicU32::new(0));
        let written = Mutex::new(false);
        let outcome = Run::new(0)
            .spawn("first", || {
                line.0.store(1, Relaxed);
                if given_back {
                    sched::given_back((&raw const line).addr(), size_of::<Line>());
                }
                *written.lock().unwrap() = true;
                sched::wake(1);
            })
            .spawn("second", || {
                while !*written.lock().unwrap() {
                    sched::sleep();
                }
                line.0.store(2, Relaxed);
            })
            .run()
            .expect_ok();
        assert_eq!(outcome.total().transfers, transfers);
    }
}

#[test]
fn places_have_names_of_their_own_run() {
    let word = Box::new(AtomicU64::new(0));
    let address = (&raw const *word).addr();
    assert_eq!(spile_sync::whereabouts(address), address);
    let run = Run::new(0).spawn("one", || {
        word.store(1, Relaxed);
        assert_eq!(spile_sync::whereabouts(address), 64 + address % 64, "the first line that was touched");
    });
    run.run().expect_ok();
}
