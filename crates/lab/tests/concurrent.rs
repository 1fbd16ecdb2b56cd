//! Recorded programs on several CPUs at once.
//!
//! **Guarantee.** Under every design what the kernel had is what there is, wherever mappings are put: on simulated CPUs by several seeds, and on threads of the host. The
//! same seed gives the same counts. A core with a bug that only CPUs beside each other show is found, and so is a plan that forgets what steps need.
//!
//! **Mechanism.** [`spile_lab::concurrent`] on the recordings that come with the sources.

use spile::Locking;
use spile_lab::concurrent::threads::threaded;
use spile_lab::concurrent::{Footprints, Found, Plan, WINDOW, as_recorded, freely};
use spile_mmtrace::{Step, Trace, steps};
use std::path::Path;

/// Counts depend on no allocator.
#[cfg(feature = "sched")]
#[global_allocator]
static HEAP: spile_lab::heap::Heap = spile_lab::heap::Heap;

fn recording(name: &str) -> Vec<Step> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mmtrace/traces").join(format!("{name}.mmt.xz"));
    steps(&Trace::open(path).expect("a trace")).expect("a trace in order")
}

fn both(steps: &[Step]) -> [Footprints; 2] {
    [as_recorded(steps, &mut |_| ()), freely(steps)]
}

fn must_agree(found: &Found) {
    let told = || found.report.differences.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(found.agrees(), "{}\n{:?}", found.failure.clone().unwrap_or_else(told), found.report);
    assert_eq!(found.report.calls.0, found.report.calls.1);
}

fn on_threads<L: Locking>() {
    let steps = recording("redis");
    for footprints in both(&steps) {
        must_agree(&threaded::<L>(&steps, &Plan::new(&steps, &footprints, 3, WINDOW), &|_| ()));
    }
}

#[cfg(feature = "sched")]
mod on_simulated_cpus {
    use super::*;
    use spile::VmaRefcount;
    use spile_lab::concurrent::simulated::simulated;

    pub fn agrees<L: Locking>() {
        let (ls, redis, fibers) = (recording("ls"), recording("redis"), recording("fibers"));
        let recordings = [(&ls[..], 2), (&redis[..], 3), (&fibers[..3000], 8)];
        for (steps, cpus) in recordings {
            for (seed, footprints) in both(steps).iter().enumerate() {
                let plan = Plan::new(steps, footprints, cpus, WINDOW * cpus);
                must_agree(&simulated::<L>(steps, &plan, seed as u64, &|_| ()));
            }
        }
    }

    fn crowd() -> Found {
        let steps = &recording("fibers")[..3000];
        let footprints = freely(steps);
        simulated::<VmaRefcount>(steps, &Plan::new(steps, &footprints, 16, WINDOW * 16), 7, &|_| ())
    }

    #[test]
    fn counts_repeat() {
        let count = || serde_json::to_string(&crowd()).expect("it is plain data");
        assert_eq!(count(), count());
    }

    #[test]
    fn cpus_are_beside_each_other() {
        let found = crowd();
        must_agree(&found);
        assert!(found.report.ipis > 100, "{} requests to flush: CPUs do not run the program", found.report.ipis);
        assert!(found.report.counters["write_waits"] > 100, "changes never meet");
    }

    /// Runs under a bug that is seeded from outside.
    #[test]
    #[ignore = "the control below runs it"]
    fn agrees_with_what_is_seeded() {
        agrees::<VmaRefcount>();
    }

    #[test]
    fn bugs_of_cpus_beside_each_other_are_found() {
        let this = std::env::current_exe().expect("a test binary");
        let passes = |mutation: &str| {
            let mut again = std::process::Command::new(&this);
            let test = "on_simulated_cpus::agrees_with_what_is_seeded";
            let output =
                again.args(["--exact", test, "--include-ignored"]).env("SPILE_MUTATE", mutation).output().expect("it starts");
            assert!(String::from_utf8_lossy(&output.stdout).contains("running 1 test"), "the test is called otherwise");
            output.status.success()
        };
        assert!(passes("none"), "it does not agree as it is");
        for bug in ["no-await", "fork-without-flush", "p8-free-before-flush", "unlock-without-a-word"] {
            assert!(!passes(&format!("bug:{bug}")), "nobody saw {bug}");
        }
    }

    /// A plan for other steps needs too little.
    #[test]
    fn a_plan_that_forgets_is_found() {
        let steps = &recording("fibers")[..3000];
        let mut forgetful = as_recorded(steps, &mut |_| ());
        forgetful.forget(|at| at % 7 == 0);
        let plan = Plan::new(steps, &forgetful, 16, WINDOW * 16);
        let disagrees = |seed| !simulated::<VmaRefcount>(steps, &plan, seed, &|_| ()).agrees();
        assert!((0..4).any(disagrees), "steps that need each other came in any order, and nobody saw it");
    }
}

#[cfg(not(feature = "sched"))]
mod on_simulated_cpus {
    pub fn agrees<L: spile::Locking>() {
        println!("skipped: {} on simulated CPUs needs the feature sched", L::NAME);
    }
}

fn simulated_cpus<L: Locking>() {
    on_simulated_cpus::agrees::<L>();
}

spile::test_each_design! {
    on_simulated_cpus => simulated_cpus;
    on_threads => on_threads;
}
