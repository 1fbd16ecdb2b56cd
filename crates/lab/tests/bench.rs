//! Benchmarks do what their definitions say.
//!
//! **Guarantee.** Under every design each bundled definition makes exactly the faults and changes that it claims and takes as many frames; so does
//! the host, as far as it counts. Definitions that make no sense are refused, with the line.
//!
//! **Mechanism.** Tiny sizes. The controls are loops that are wrong: they skip pages, count an operation twice, forget a call; and all are found.

use spile_lab::bench::catalogue;
use spile_lab::bench::child::{Child, HOST};
use spile_lab::bench::mapper::{Mapper, Reader};
use spile_lab::bench::play::{Contender, Sample};
use spile_lab::bench::rounds::check;
use spile_lab::bench::target::machine;
use spile_lab::bench::workload::{Area, Order, Step, Workload};
use spile_lab::design::DESIGNS;
use spile_lab::lean::Lean;
use std::path::Path;

#[cfg(feature = "sched")]
#[global_allocator]
static APART: spile_lab::apart::Apart = spile_lab::apart::Apart;

const PASSES: u64 = 3;

/// All definitions, with areas of 64 pages.
fn tiny() -> impl Iterator<Item = Workload> {
    catalogue::all().into_iter().map(|workload| if workload.pages > 1 { workload.with_pages(64).unwrap() } else { workload })
}

/// What `played` did under each design, judged by `defined`.
fn judged(played: &Workload, defined: &Workload, threads: usize) -> Vec<anyhow::Result<()>> {
    let lean = machine(played, threads, 1);
    let judge = |design: &spile_lab::design::Design| {
        let sample = (design.contender)(&lean, played, threads).play(PASSES)?;
        check(design.name, defined, threads, &sample)
    };
    DESIGNS.iter().map(judge).collect()
}

#[test]
fn designs_do_what_definitions_say() {
    for workload in tiny() {
        for threads in [1, 2] {
            for result in judged(&workload, &workload, threads) {
                result.unwrap_or_else(|error| panic!("{threads} threads: {error:#}"));
            }
        }
    }
}

#[test]
fn nothing_is_forgotten() {
    let workload = catalogue::find("page_fault1").unwrap().with_pages(64).unwrap();
    let lean = machine(&workload, 1, 1);
    for design in DESIGNS {
        (design.contender)(&lean, &workload, 1).play(PASSES).unwrap();
        spile_lab::stage::Stage::finish(&lean);
    }
}

fn assert_all_found(wrong: &Workload, right: &Workload, what: &str) {
    for (design, result) in DESIGNS.iter().zip(judged(wrong, right, 1)) {
        assert!(result.is_err(), "{}: {what} is not found in {}", design.name, right.name);
    }
}

/// Control: loops that do less than they claim, or count more than they do.
#[test]
fn wrong_loops_are_found() {
    for right in tiny() {
        let mut wrong = right.clone();
        // Every second page is left out, or every second unit.
        wrong.pages /= 2;
        let is_by_unit = right.events.unit.faults + right.events.unit.changes > 0;
        if is_by_unit {
            assert_all_found(&wrong, &right, "a loop over half of the pages");
        }
        let mut wrong = right.clone();
        wrong.events.unit = right.events.unit.times(2);
        wrong.events.pass = right.events.pass.times(2);
        assert_all_found(&right, &wrong, "an operation that is counted twice");
    }
    let right = catalogue::find("brk1").unwrap();
    let mut wrong = right.clone();
    wrong.pass[0].steps = vec![Step::BrkUp];
    assert_all_found(&wrong, &right, "a break that never goes down");
    let right = catalogue::find("tlb_flush2").unwrap().with_pages(64).unwrap();
    let mut wrong = right.clone();
    wrong.pass[0].steps = vec![Step::Write, Step::Read];
    assert_all_found(&wrong, &right, "a page that is never dropped");
}

#[test]
fn the_host_does_what_definitions_say() {
    for workload in tiny() {
        for threads in [1, 2] {
            let mut child = Child::start(Path::new(env!("CARGO_BIN_EXE_spile"))).unwrap();
            child.begin(&workload, threads).unwrap();
            let sample = child.play(PASSES).unwrap();
            check(HOST, &workload, threads, &sample).unwrap();
        }
    }
    // Control: a loop that skips pages, on the host.
    let workload = catalogue::find("page_fault1").unwrap().with_pages(4096).unwrap();
    let mut child = Child::start(Path::new(env!("CARGO_BIN_EXE_spile"))).unwrap();
    child.begin(&workload.clone().with_pages(2048).unwrap(), 1).unwrap();
    assert!(check(HOST, &workload, 1, &child.play(PASSES).unwrap()).is_err());
}

/// What is a benchmark's is told by its definition, and not by chance.
#[test]
fn definitions_are_those_of_the_field() {
    let find = |name| catalogue::find(name).unwrap();
    let (page_fault1, pft) = (find("page_fault1"), find("pft"));
    assert_eq!((page_fault1.area, pft.area), (Area::Own, Area::One), "mappings of their own, and one for all");
    assert_eq!((page_fault1.pages, pft.pages), (32768, 32768), "128 MiB");
    assert_eq!((page_fault1.ops_in_pass(2), pft.ops_in_pass(2)), (65536, 32768));
    assert_eq!(find("mmap1").ops_in_pass(2), 2, "a pair is one");
    assert_eq!(find("brk1").ops_in_pass(1), 2, "each brk is one");
    assert!(catalogue::find("nothing").is_err());
}

#[test]
fn units_are_dealt_once() {
    for order in [Order::Ascending, Order::Shuffled] {
        for area in [Area::One, Area::Own] {
            let workload = Workload { order, area, ..catalogue::find("pft").unwrap().with_pages(67).unwrap() };
            let mut all: Vec<_> = (0..3).flat_map(|thread| workload.units_of(thread, 3)).collect();
            all.sort_unstable();
            let times = if area == Area::One { 1 } else { 3 };
            let expected: Vec<_> = (0..67).flat_map(|unit| vec![unit; times]).collect();
            assert_eq!(all, expected, "{order:?} {area:?}");
        }
    }
}

#[test]
fn mapper_makes_its_calls() {
    let lean = Lean::new(2, 4096, true);
    for design in DESIGNS {
        for reader in Reader::ALL {
            let found = (design.latencies)(&lean, Mapper { pages: 256, calls: 500, reader, seed: 7 });
            let (mmap, munmap) = (found.mmap.count, found.munmap.count);
            assert_eq!(mmap + munmap, 500, "{}", design.name);
            assert_eq!((found.changes, found.faults), (500, mmap), "{}: a change a call, and a fault a page", design.name);
            assert_eq!(found.readings > 0, reader != Reader::None, "{}", design.name);
            assert!(found.mmap.median <= found.mmap.p99 && found.mmap.p99 <= found.mmap.max, "{}", design.name);
            assert!(reader == Reader::None || found.bytes > 100, "{}: a region with holes is more than a line", design.name);
        }
    }
    let mut child = Child::start(Path::new(env!("CARGO_BIN_EXE_spile"))).unwrap();
    for reader in Reader::ALL {
        let found = child.map(Mapper { pages: 256, calls: 500, reader, seed: 7 }).unwrap();
        assert_eq!(found.mmap.count + found.munmap.count, 500);
        assert_eq!(found.readings > 0, reader != Reader::None);
    }
}

const GOOD: &str = include_str!("../workloads/pf.toml");

#[test]
fn definitions_without_sense_are_refused() {
    Workload::parse(GOOD).unwrap();
    let refused = |from: &str, to: &str| {
        let text = GOOD.replacen(from, to, 1);
        assert_ne!(text, GOOD, "{from} is not in it");
        format!("{:#}", Workload::parse(&text).unwrap_err())
    };
    for (from, to, tells) in [
        ("pages = 512", "pages = 512\npagse = 1", "pagse"),
        ("pages = 512", "pages = 512\npagse = 1", "line 7"),
        ("timed = false", "time = false", "time"),
        ("\"write\"", "\"wrote\"", "wrote"),
        ("\"write\"", "\"wrote\"", "line 15"),
        ("pages = 512", "", "missing field `pages`"),
        ("pages = 512", "pages = 512\nunit = 7", "units of 7"),
        ("ops.unit = 1", "ops.unit = 0", "no operation"),
        ("frames = 1", "frame = 1", "line 24"),
        ("do = [\"map\"]", "do = []", "does nothing"),
    ] {
        let error = refused(from, to);
        assert!(error.contains(tells), "{to}: `{error}` does not tell {tells}");
    }
}

#[test]
fn samples_say_what_an_operation_costs() {
    use std::time::Duration;
    let sample = Sample { ops: 1000, cpu: Duration::from_micros(200), wall: Duration::from_micros(100), ..Sample::default() };
    assert_eq!((sample.ns_per_op(), sample.per_cpu_second(), sample.per_second().round()), (200.0, 5e6, 1e7));
}
