//! Benchmarks do what their definitions say.
//!
//! **Guarantee.** Under every design each bundled definition makes exactly the faults and changes that it claims and takes as many frames; so does
//! the host, as far as it counts. Definitions that make no sense are refused, with the line.
//!
//! **Mechanism.** Tiny sizes. The controls are loops that are wrong: they skip pages, count an operation twice, forget a call; and all are found.

use serde_json::Value;
use spile_lab::bench::catalogue;
use spile_lab::bench::child::{Child, HOST};
use spile_lab::bench::mapper::{Mapper, Reader};
use spile_lab::bench::play::{Contender, Sample};
use spile_lab::bench::rounds::check;
use spile_lab::bench::target::machine;
use spile_lab::bench::workload::{Area, On, Order, Phase, Step, Workload};
use spile_lab::design::DESIGNS;
use spile_lab::lean::Lean;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

#[cfg(feature = "sched")]
#[global_allocator]
static HEAP: spile_lab::heap::Heap = spile_lab::heap::Heap;

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

/// On real memory too, which the pager counts; where there is one.
#[test]
fn designs_do_on_real_memory_what_definitions_say() {
    let is_for_it = |workload: &Workload| !["brk1", "fork"].contains(&workload.name.as_str()) && !maps_units(workload);
    for workload in tiny() {
        for (threads, design) in [1, 2].into_iter().flat_map(|threads| DESIGNS.iter().map(move |design| (threads, design))) {
            match (design.real)(&workload, threads) {
                Ok(mut contender) => {
                    assert!(is_for_it(&workload), "{} is not refused", workload.name);
                    let sample = contender.play(PASSES).unwrap();
                    check(design.name, &workload, threads, &sample)
                        .unwrap_or_else(|error| panic!("{threads} threads: {error:#}"));
                }
                Err(why) if is_for_it(&workload) => return println!("skipped: {why:#}"),
                Err(why) => assert!(why.to_string().contains("whole"), "{why:#}"),
            }
        }
    }
}

fn maps_units(workload: &Workload) -> bool {
    let by_unit = |phase: &Phase| phase.on == On::Unit && phase.steps.iter().any(|step| [Step::Map, Step::Unmap].contains(step));
    workload.setup.iter().chain(&workload.pass).any(by_unit)
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

fn spile(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spile"));
    command.arg("bench").args(arguments).stderr(Stdio::piped()).stdout(Stdio::piped());
    command
}

fn objects(output: &Output) -> Vec<Value> {
    let objects = serde_json::from_slice(&output.stdout);
    objects.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Without what is never the same twice.
fn without_times(mut objects: Vec<Value>) -> Vec<Value> {
    objects.iter_mut().for_each(|object| _ = object.as_object_mut().unwrap().remove("times"));
    objects
}

#[test]
fn the_same_again_gives_the_same_but_for_times() {
    let run = || {
        let few =
            ["page_fault1", "brk1", "mapper", "--rounds", "1", "--ms", "1", "--pages", "64", "--calls", "50", "--json", "--host"];
        let output = spile(&few).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        objects(&output)
    };
    let (first, second) = (run(), run());
    // Two benchmarks and three readers.
    assert_eq!(first.len(), (DESIGNS.len() + 1) * 5);
    assert!(first.iter().all(|object| object["times"]["rounds"] == 1));
    assert_eq!(without_times(first), without_times(second));
}

#[test]
fn scenarios_come_from_files() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(file, "{}", GOOD.replace("pages = 512", "pages = 16").replace("name = \"pf\"", "name = \"mine\"")).unwrap();
    let path = file.path().to_str().unwrap();
    let output = spile(&["--scenario", path, "--design", "rcu", "--rounds", "1", "--ms", "1", "--json"]).output().unwrap();
    let found = objects(&output);
    assert_eq!(
        (found.len(), &found[0]["benchmark"], &found[0]["per_op"]["faults"]),
        (1, &Value::from("mine"), &Value::from(1.0))
    );
    // A definition that claims what does not happen is no result.
    let mut wrong = tempfile::NamedTempFile::new().unwrap();
    write!(wrong, "{}", GOOD.replace("changes = 2", "changes = 3")).unwrap();
    let output = spile(&["--scenario", wrong.path().to_str().unwrap(), "--rounds", "1", "--ms", "1"]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && error.contains("does not do what pf says"), "{error}");
    let mut unknown = tempfile::NamedTempFile::new().unwrap();
    write!(unknown, "{}", GOOD.replace("pages = 512", "pagse = 512")).unwrap();
    let output = spile(&["--scenario", unknown.path().to_str().unwrap()]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && error.contains("pagse") && error.contains("line 6"), "{error}");
}

#[test]
fn what_is_done_when_somebody_wants_an_end_is_told() {
    let endless = ["page_fault1", "pft", "--design", "rcu", "--rounds", "1000000", "--ms", "1", "--pages", "64", "--json"];
    let mut running = spile(&endless).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(running.try_wait().unwrap().is_none(), "it is at work");
    assert!(Command::new("kill").args(["-INT", &running.id().to_string()]).status().unwrap().success());
    let output = running.wait_with_output().unwrap();
    let found = objects(&output);
    assert_eq!((output.status.code(), found.len()), (Some(1), 1), "it began with the first, and never came to the second");
    let rounds = found[0]["times"]["rounds"].as_u64().unwrap();
    assert!(rounds > 0 && rounds < 1_000_000, "{rounds} rounds");
}

#[cfg(feature = "sched")]
#[test]
fn simulated_lines_repeat_in_every_process() {
    let asked = [
        "page_fault1",
        "pft",
        "mmap1",
        "brk1",
        "fork",
        "mapper",
        "--calls",
        "5",
        "--design",
        "rcu,mmap_lock,vma_refcount",
        "--sim",
        "2,4",
        "--rounds",
        "1",
        "--ms",
        "1",
        "--pages",
        "64",
    ];
    let run = || objects(&spile(&asked).arg("--json").output().unwrap());
    let (first, second) = (run(), run());
    let kinds = |kind: &str| first.iter().filter(|object| object["kind"] == kind).count();
    assert_eq!((kinds("throughput"), kinds("lines"), kinds("model")), (15, 48, 2));
    assert_eq!(without_times(first.clone()), without_times(second));
    let band = |design: &str| {
        let of = |object: &&Value| object["design"] == design && object["scene"] == "own table" && object["cpus"] == 4;
        first.iter().find(of).unwrap()["times"]["per_second"].clone()
    };
    let width = |band: Value| band[1].as_f64().unwrap() / band[0].as_f64().unwrap();
    assert!(width(band("mmap_lock")) > 1.2, "a contended line is worth a band");
    assert_eq!(width(band("rcu")), 1.0, "without one there is none");
}

#[test]
fn samples_say_what_an_operation_costs() {
    use std::time::Duration;
    let sample = Sample { ops: 1000, cpu: Duration::from_micros(200), wall: Duration::from_micros(100), ..Sample::default() };
    assert_eq!((sample.ns_per_op(), sample.per_cpu_second(), sample.per_second().round()), (200.0, 5e6, 1e7));
}
