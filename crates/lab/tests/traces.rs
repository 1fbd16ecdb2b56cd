//! Recorded programs replayed through the core and compared with what the kernel had.
//!
//! **Guarantee.** For each recording found: every exit snapshot is the same mapping by mapping, not merged; nearly every line that the kernel wrote
//! after a change agrees; anonymous pages are the same. Three recordings come with the sources; `SPILE_TRACES` names a directory with more,
//! and `../shared/traces` beside the workspace is looked at too.
//!
//! **Mechanism.** [`spile_lab::replay`]. The controls change what is replayed or, in builds with seeded bugs, the merge rule, and must be found.

use spile::{Locking, VmaRefcount};
use spile_lab::replay::Report;
use spile_mmtrace::{Call, Kind, Step, Trace, steps};
use spile_sim::Sim;
use std::path::{Path, PathBuf};
use std::time::Instant;

fn bundled(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../mmtrace/traces").join(format!("{name}.mmt.xz"))
}

/// On a machine that is watched.
fn watched<L: Locking>(steps: &[Step], frames: u32) -> Report {
    spile_lab::replay::replayed_on::<_, L>(Sim::builder().cpus(1).frames(frames).build(), steps, &mut |_| ())
}

/// On one that only counts.
fn counted<L: Locking>(steps: &[Step]) -> Report {
    spile_lab::replay::replayed::<L>(steps, &mut |_| ())
}

fn tell(name: &str, design: &str, report: &Report, seconds: f64) {
    let of = |(all, good): (usize, usize)| format!("{good}/{all}");
    println!(
        "| {name} | {design} | {} | {} | {} | {} | {} | {} | {} | {:.0} |",
        report.steps,
        of(report.snapshots),
        of(report.lines),
        of(report.calls),
        of(report.faults),
        of(report.anon),
        of(report.file),
        report.steps as f64 / seconds
    );
    report
        .differences
        .iter()
        .take(if cfg!(debug_assertions) { 6 } else { 20 })
        .for_each(|difference| println!("    {difference}"));
}

fn must_agree(report: &Report) {
    assert!(report.agrees(), "of snapshots {:?}, of lines {:?}, of results {:?}", report.snapshots, report.lines, report.calls);
}

fn whole<L: Locking>(path: &Path, replayed: impl FnOnce(&[Step]) -> Report) -> Report {
    let trace = Trace::open(path).expect("a trace");
    let steps = steps(&trace).expect("a trace in order");
    let start = Instant::now();
    let report = replayed(&steps);
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("?");
    tell(name, L::NAME, &report, start.elapsed().as_secs_f64());
    report
}

fn ls_agrees<L: Locking>() {
    must_agree(&whole::<L>(&bundled("ls"), |steps| watched::<L>(steps, 10_000)));
}

fn redis_agrees<L: Locking>() {
    must_agree(&whole::<L>(&bundled("redis"), |steps| watched::<L>(steps, 60_000)));
}

/// With frames for less than a third of the pages.
fn squeezed_agrees<L: Locking>() {
    for name in ["ls", "redis"] {
        let trace = Trace::open(bundled(name)).expect("a trace");
        let steps = steps(&trace).expect("a trace in order");
        let squeezed = spile_lab::replay::squeezed::<L>(&steps, 30, 1, &mut |_| ());
        println!(
            "| {name} | {} | {} of {} pages | {:?} | {:?} |",
            L::NAME,
            squeezed.frames,
            squeezed.wanted.most_pages,
            squeezed.swapped,
            squeezed.report.counters.get("fallbacks")
        );
        assert!(squeezed.agrees(), "{}", squeezed.report.first_difference());
        assert!(squeezed.swapped.out > 0 && squeezed.swapped.back > 0, "nothing left memory: this shows nothing");
    }
}

spile::test_each_design! {
    squeezed => squeezed_agrees;
    ls => ls_agrees;
    redis => redis_agrees;
    others => others_agree;
}

#[test]
fn fibers() {
    must_agree(&whole::<VmaRefcount>(&bundled("fibers"), |steps| watched::<VmaRefcount>(steps, 100_000)));
}

/// All that can be found.
fn others_agree<L: Locking>() {
    // Without optimisation one design has to do.
    if cfg!(debug_assertions) && L::NAME != VmaRefcount::NAME {
        println!(
            "skipped: further recordings are replayed by {} without optimisation, and by {} in release",
            VmaRefcount::NAME,
            L::NAME
        );
        return;
    }
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/traces");
    let place = std::env::var_os("SPILE_TRACES").map_or(beside, PathBuf::from);
    let Ok(entries) = std::fs::read_dir(&place) else {
        println!("skipped: no further recordings, {} is not there (SPILE_TRACES names another directory)", place.display());
        return;
    };
    let only = std::env::var("SPILE_TRACE").unwrap_or_default();
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.to_string_lossy().ends_with(".mmt.xz") && path.to_string_lossy().contains(&only));
    paths.sort_by_key(|path| path.metadata().map_or(0, |data| data.len()));
    println!("| trace | design | steps | snapshots | V lines | calls | faults | anon | file | steps/s |");
    println!("|---|---|---|---|---|---|---|---|---|---|");
    // The largest take minutes in a build without optimisation.
    let limit = if cfg!(debug_assertions) { 600_000 } else { u64::MAX };
    for path in paths.iter().filter(|path| path.metadata().map_or(0, |data| data.len()) < limit) {
        must_agree(&whole::<L>(path, counted::<L>));
    }
}

/// A munmap that is not made is found, unless its range is mapped over before anybody looks.
#[test]
fn a_missing_munmap_is_found() {
    let trace = Trace::open(bundled("redis")).expect("a trace");
    let steps = steps(&trace).expect("a trace in order");
    let is_munmap = |step: &Step| matches!(step.kind, Kind::Call(Call::Munmap { .. }, _));
    let all: Vec<_> = (0..steps.len()).filter(|&at| is_munmap(&steps[at])).collect();
    let is_found = |at: &&usize| {
        let mut steps = steps.clone();
        steps.remove(**at);
        let report = counted::<VmaRefcount>(&steps);
        report.snapshots.1 < report.snapshots.0
    };
    let sample: Vec<_> = all.iter().step_by(if cfg!(debug_assertions) { 8 } else { 1 }).collect();
    let found = sample.iter().copied().filter(is_found).count();
    println!("{found} of {} munmaps that were left out were found", sample.len());
    assert!(found > 0, "nobody saw that one was missing");
}

/// Without the rule about anonymous identities, mappings merge that the kernel keeps apart.
#[cfg(feature = "sched")]
#[test]
fn a_missing_merge_rule_is_found() {
    let this = std::env::current_exe().expect("a test binary");
    let run = |mutation: &str| {
        let mut again = std::process::Command::new(&this);
        let output = again.args(["--exact", "fibers"]).env("SPILE_MUTATE", mutation).output().expect("it starts");
        output.status.success()
    };
    assert!(run("none"), "the recording does not even agree as it is");
    assert!(!run("bug:merge-all-identities"), "nobody saw that the rule was missing");
}
