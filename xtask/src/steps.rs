//! What continuous integration does, and what stands behind the figures in the documents.

use crate::repo::root;
use crate::shell::{cargo, cargo_of, command, output, run, run_within, some_optimisation, succeeds, take_results, target_dir};
use crate::{builds, checks, counts, measure, models, tidy};
use anyhow::Result;
use std::time::{Duration, Instant};

/// Why a step was not done, if it was not.
type Skipped = Option<String>;
type Step = (&'static str, fn() -> Result<Skipped>);

const HOST: &str = "x86_64-unknown-linux-gnu";
const fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

const CI: &[Step] = &[
    ("test", || done(run(some_optimisation(&mut cargo(&["test", "--workspace"]))))),
    ("test, scheduler", test_sched),
    ("test, engines", engines),
    ("judge", || judge("100000")),
    ("format", || done(run(&mut cargo(&["fmt", "--all", "--check"])))),
    ("clippy", clippy),
    ("documentation", documentation),
    ("readme examples", readme),
    ("no_std", || done(builds::no_std())),
    ("msrv", || done(builds::msrv())),
    ("tidy", || done(tidy::run())),
    ("checks", || done(checks::run(&models::Options::quick()))),
    ("address sanitizer", || address_sanitizer(minutes(4))),
    ("miri", || miri(minutes(6))),
    ("counts", counts::run),
    ("package", || done(builds::package())),
    ("hosts", hosts),
    ("bench, quick", || bench(&["--quick"])),
];

const FULL: &[Step] = &[
    ("measure", || done(measure::run())),
    ("scheduler", || done(checks::stories(false, checks::Which::All))),
    ("checks", || done(checks::run(&models::Options::all()))),
    ("oracle", oracle),
    ("judge", || judge(JUDGE_CALLS)),
    ("traces", traces),
    ("signals", signals),
    ("tree_bench", || bench(&[])),
    ("times", || done(run(&mut cargo(&["bench", "-p", "spile", "--bench", "times"])))),
    ("rcu_cost", || done(run(&mut cargo(&["run", "--release", "-p", "spile-rcu", "--example", "rcu_cost"])))),
    ("counts", counts::run),
    ("lines", lines),
    ("pager", pager),
    ("bare pagers", || done(run(&mut cargo(&["bench", "-p", "spile-linux", "--bench", "bare"])))),
    ("miri", || miri(minutes(60))),
    ("address sanitizer", || address_sanitizer(minutes(30))),
    ("fuzz", fuzz),
    ("no_std", || done(builds::no_std())),
    ("package", || done(builds::package())),
    ("hosts", hosts),
];

/// Seeds of the oracle in `full`.
const ORACLE_SEEDS: &str = "5000";
/// Random calls before the kernel as judge in `full`.
const JUDGE_CALLS: &str = "1000000";
/// Seconds of signals in `full`.
const SOAK_SECS: &str = "60";
/// Seconds of fuzzing per target in `full`.
const FUZZ_SECS: &str = "300";

/// Everything that has to hold before a change is merged.
pub fn ci() -> Result<()> {
    perform(CI)
}

/// Every figure that the documents claim, measured anew.
pub fn full() -> Result<()> {
    let commit = output(&mut command("git", &["rev-parse", "HEAD"])).unwrap_or_else(|_| "not under git".into());
    println!("commit {}", commit.trim());
    println!("{}", output(&mut cargo(&["version"]))?.trim());
    println!("processors {}", std::thread::available_parallelism()?);
    println!(
        "SPILE_SEEDS={} SPILE_ORACLE_SEEDS={ORACLE_SEEDS} SPILE_SOAK_SECS={SOAK_SECS}, fuzz {FUZZ_SECS} s per target",
        checks::SEEDS
    );
    perform(FULL)
}

/// Runs the steps one after the other, also past a failure, and ends with a table.
fn perform(steps: &[Step]) -> Result<()> {
    let mut table = Vec::new();
    let mut failed = Vec::new();
    for (name, step) in steps {
        println!("\n==== {name}");
        let start = Instant::now();
        let outcome = step();
        let seconds = start.elapsed().as_secs_f32();
        let verdict = match outcome {
            Ok(None) => "ok".to_string(),
            Ok(Some(reason)) => format!("skipped: {reason}"),
            Err(error) => {
                println!("error: {error:#}");
                failed.push(*name);
                "FAILED".to_string()
            }
        };
        println!("==== {name}: {verdict}, {seconds:.0} s");
        table.push((*name, seconds, verdict, take_results()));
    }
    println!("\n==== summary");
    for (name, seconds, verdict, results) in &table {
        println!("{name:32} {seconds:5.0} s  {verdict}");
        results.iter().for_each(|result| println!("    {result}"));
    }
    anyhow::ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

fn done(outcome: Result<()>) -> Result<Skipped> {
    outcome.map(|()| None)
}

fn test_sched() -> Result<Skipped> {
    checks::stories(true, checks::Which::All)?;
    // A bug in the core, before the kernel as judge.
    let mut control = cargo(&["test", "-p", "spile-judge", "--features", "sched", "--test", "core"]);
    done(run(some_optimisation(&mut control).arg("a_missing_merge_rule_is_found")))
}

/// The core against the kernel it runs on: so many random calls per locking design, a quarter of them for the plainest one.
fn judge(calls: &str) -> Result<Skipped> {
    let mut tests = cargo(&["test", "--release", "-p", "spile-judge", "--test", "core"]);
    done(run(tests.env("SPILE_JUDGE_CALLS", calls).args(["--", "--nocapture"])))
}

fn clippy() -> Result<Skipped> {
    let deny = ["--", "-D", "warnings"];
    run(cargo(&["clippy", "--workspace", "--all-targets"]).args(deny))?;
    run(cargo(&["clippy", "-p", "spile-sync", "-p", "spile-rcu", "-p", "spile-maple", "--all-features", "--all-targets"])
        .args(deny))?;
    run(cargo(&[
        "clippy",
        "-p",
        "spile-sim",
        "-p",
        "spile-judge",
        "-p",
        "spile-lab",
        "--features",
        "spile-sim/sched,spile-sim/counters,spile-judge/sched,spile-lab/sched",
        "--all-targets",
    ])
    .args(deny))?;
    for package in builds::packages() {
        run(cargo(&["clippy", "-p", &package, "--no-default-features"]).args(deny))?;
    }
    Ok(None)
}

fn documentation() -> Result<Skipped> {
    let packages = builds::packages();
    let arguments = builds::with_packages(&["doc", "--no-deps"], &packages);
    done(run(cargo(&arguments).env("RUSTDOCFLAGS", "-Dwarnings")))
}

fn readme() -> Result<Skipped> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Ok(Some("there are examples of real memory, which is had on Linux on x86-64".into()));
    }
    done(builds::readme())
}

/// The tests under AddressSanitizer. It needs no nightly compiler, only leave to use what is not stable.
fn address_sanitizer(limit: Duration) -> Result<Skipped> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Ok(Some(format!("the sanitizer is run on {HOST}")));
    }
    let tests = |more: &[&str]| {
        let mut tests =
            cargo(&["test", "-p", "spile-rcu", "-p", "spile-maple", "--lib", "--tests", "--no-fail-fast", "--target", HOST]);
        tests.args(more).env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", "-Zsanitizer=address");
        tests.env("CARGO_TARGET_DIR", target_dir("asan"));
        tests
    };
    run(&mut tests(&["--no-run"]))?;
    bounded(run_within(tests(&["--"]).args(NOT_SANITIZED.map(|test| format!("--skip={test}"))), limit)?, limit)
}

/// Tests of what the sanitizer forbids or distorts: a section that is leaked on purpose, and how many pages are mapped.
const NOT_SANITIZED: [&str; 2] = ["a_leaked_section_outlives_its_thread", "threads_in_sequence_need_no_more_slots"];

/// The tests under Miri, which shrinks their budgets.
fn miri(limit: Duration) -> Result<Skipped> {
    if !succeeds(&mut cargo_of("nightly", &["miri", "--version"])) {
        return Ok(Some("the component miri of the nightly toolchain is not installed".into()));
    }
    let tests = |package: &str, more: &[&str]| {
        let mut tests = cargo_of("nightly", &["miri", "test", "-p", package, "--lib", "--tests", "--no-fail-fast"]);
        tests.args(more).env("MIRIFLAGS", "-Zmiri-disable-isolation -Zmiri-strict-provenance");
        tests.env("CARGO_TARGET_DIR", target_dir("miri"));
        tests
    };
    let packages = ["spile-rcu", "spile-maple"];
    packages.iter().try_for_each(|package| run(&mut tests(package, &["--no-run"])))?;
    let (start, mut finished) = (Instant::now(), true);
    for package in packages {
        finished &= run_within(&mut tests(package, &[]), limit.saturating_sub(start.elapsed()))?;
    }
    bounded(finished, limit)
}

/// What a bounded run says: one that was stopped has shown less than it could, but no failure.
fn bounded(finished: bool, limit: Duration) -> Result<Skipped> {
    Ok((!finished).then(|| format!("the rest, not through after {} s; nothing had failed", limit.as_secs())))
}

/// The core on hosts other than the simulator: a kernel in miniature, this process's own memory, and the programs of the pager, which check what they did.
fn hosts() -> Result<Skipped> {
    for host in ["port", "userfaultfd"] {
        run(&mut cargo(&["run", "--release", "-p", "spile", "--example", host]))?;
    }
    for entry in std::fs::read_dir(root().join("crates/linux/examples"))? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        // `probe` says by its exit status whether there can be a pager here; the others say so too, and that is no failure.
        if name != "probe" {
            run(some_optimisation(&mut cargo(&["run", "-p", "spile-linux", "--example", name])))?;
        }
    }
    // Who listens takes a feature.
    done(run(some_optimisation(&mut cargo(&["test", "-p", "spile-linux", "--features", "tracing", "--test", "events"]))))
}

/// The tests of regions by each engine that is not the best. Where it cannot be had they say so.
fn engines() -> Result<Skipped> {
    for engine in ["copy", "shared"] {
        run(some_optimisation(&mut cargo(&["test", "-p", "spile-linux", "--tests"])).env("SPILE_ENGINE", engine))?;
    }
    Ok(None)
}

/// The pager's proofs at their full length: increments against an evictor, crashes, and everything at once.
fn pager() -> Result<Skipped> {
    let proof = |test: &str, sizes: &[(&str, &str)], more: &[&str]| {
        let mut tests =
            cargo(&["test", "--release", "-p", "spile-linux", "--test", test, "--", "--nocapture", "--test-threads=1"]);
        run(tests.args(more).envs(sizes.iter().copied()))
    };
    proof("eviction_race", &[("SPILE_RACE_INCREMENTS", "1000000000"), ("SPILE_RACE_EVICTIONS", "20000")], &[])?;
    proof("durability", &[("SPILE_CRASH_PROGRAMS", "20000"), ("SPILE_CRASH_FLUSHES", "20000")], &[])?;
    done(proof("soak", &[("SPILE_SOAK_REGIONS", "1000"), ("SPILE_SOAK_SECS", "600")], &["all_at_once"]))
}

/// Shared cache lines per fault, for each design.
fn lines() -> Result<Skipped> {
    let mut spile = cargo(&["run", "--profile", "lab", "-p", "spile-lab", "--features", "sched", "--"]);
    done(run(spile.args(["bench", "page_fault1", "pft", "mapper", "--sim", "2,16,64", "--pages", "4096"])))
}

fn bench(arguments: &[&str]) -> Result<Skipped> {
    let mut bench = cargo(&["run", "--release", "-p", "spile-maple", "--example", "tree_bench", "--"]);
    done(run(bench.args(arguments)))
}

/// The tests that take signals, in both crates that promise something to handlers.
fn signals() -> Result<Skipped> {
    let mut tests =
        cargo(&["test", "--release", "-p", "spile-rcu", "-p", "spile-maple", "--test", "process", "--test", "signals"]);
    done(run(tests.env("SPILE_SOAK_SECS", SOAK_SECS)))
}

fn oracle() -> Result<Skipped> {
    let mut tests = cargo(&["test", "--release", "-p", "spile-maple", "--test", "oracle"]);
    done(run(tests.env("SPILE_ORACLE_SEEDS", ORACLE_SEEDS)))
}

/// The recordings: the bundled ones, and those where `SPILE_TRACES` says.
fn traces() -> Result<Skipped> {
    done(run(&mut cargo(&["test", "--release", "-p", "spile-lab", "--test", "traces", "--", "--nocapture"])))
}

fn fuzz() -> Result<Skipped> {
    if !root().join("fuzz/Cargo.toml").exists() {
        return Ok(Some("there is no fuzz/".into()));
    }
    if !succeeds(&mut cargo_of("nightly", &["fuzz", "--version"])) {
        return Ok(Some("cargo-fuzz is not installed".into()));
    }
    for target in output(&mut cargo_of("nightly", &["fuzz", "list"]))?.lines() {
        let time = format!("-max_total_time={FUZZ_SECS}");
        run(&mut cargo_of("nightly", &["fuzz", "run", target, "--", &time]))?;
    }
    Ok(None)
}
