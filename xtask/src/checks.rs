//! What was explored of each race in each design, and which seeded bugs that has caught.
//!
//! **Guarantee.** A table with a cell for each design and each check: by which method, within which bound, and how many schedules; a model
//! that was stopped says so. A cell with nothing in it is an error, and so is a design with fewer than [`OWN`] caught bugs of its own kind.
//!
//! **Mechanism.** The designs are those of the sources. A model belongs to the first check one of whose names its own begins with, and to the
//! design whose module it is in, so that a new one is in the table without further work. Models, and the scheduler's tests, say in a
//! line each what they went through.

use crate::models::{self, Findings};
use crate::repo::{Repo, root};
use crate::shell::{cargo, explored_lines, run as run_command, some_optimisation};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

/// So many caught bugs of its own kind has each design.
const OWN: usize = 3;
/// Seeds of each of the scheduler's tests, where not a sample is wanted.
pub const SEEDS: &str = "20000";

/// A race.
struct Check {
    name: &'static str,
    /// How the names of its models begin.
    models: &'static [&'static str],
    /// What the scheduler's tests that are about it call themselves.
    stories: &'static [&'static str],
}

const fn check(name: &'static str, models: &'static [&'static str], stories: &'static [&'static str]) -> Check {
    Check { name, models, stories }
}

const CHECKS: &[Check] = &[
    check(
        "munmap",
        &[
            "fault_against_unmap",
            "cow_against_unmap",
            "pages_around_against_unmap",
            "program_reads_until_unmapped",
            "map_against_unmap",
        ],
        &["a late reader", "a page freed before the flush", "a table freed under a fault", "duels"],
    ),
    check(
        "MAP_FIXED",
        &["read_against_map_over", "fault_against_map_over", "write_in_a_new_mapping", "faults_after"],
        &["duels"],
    ),
    check("mprotect", &["fault_against_protect", "program_writes_until_protected"], &["duels"]),
    check("split", &["fault_against_split", "identity_against_claim"], &["pairs"]),
    check("merge", &["fault_against_merge"], &["pairs"]),
    check(
        "mremap",
        &[
            "fault_against_move",
            "fault_beside_a_move",
            "fault_against_arrival",
            "fault_against_dontunmap",
            "fault_against_growth",
            "program_reads_until_moved",
        ],
        &[],
    ),
    check("DONTNEED", &["fault_against_discard", "discard_"], &["two discards of a page", "duels"]),
    check("stack growth", &["fault_against_grow"], &["stack growth"]),
    check(
        "fork",
        &["program_against_fork", "both_sides_of_a_fork", "page_is_reused", "fork_against_unmap", "first_write_against_fork"],
        &["fork against the first write", "duels"],
    ),
    check(
        "two faults",
        &["two_faults_on_one_page", "new_page_is_walked_to", "program_reads_until_copied", "file_page_"],
        &["walks"],
    ),
    check("a munmap's flush", &["flush_and_"], &[]),
    check("a wait for a page", &["wait_against_", "wait_for_what_"], &[]),
    check(
        "swap",
        &["page_leaves_", "page_returns_", "transfer_ends_", "memory_leaves_", "memory_returns_"],
        &["tides", "ledgers in slots"],
    ),
    check("list of mappings", &["list_against"], &["a hole in the list"]),
    // Tables that come and go, and each design's lock.
    check("anything else", &[""], &["a recycled mapping", "a wake-up that is not sent", "walks", "crowds"]),
];

/// What a model, or several, went through.
#[derive(Clone, Copy, Default)]
pub struct Explored {
    runs: u64,
    models: u64,
    /// The fewest preemptions that bounded a part of it, and the most.
    fewest: u64,
    most: u64,
    /// There was no time for the rest of some part.
    stopped: bool,
}

impl Explored {
    /// What a model says when it has gone through one of its parts: `explored: 12 runs, 2 of 3 preemptions, stopped`.
    pub fn parse(line: &str) -> Option<Self> {
        // The test runner's own line may stand before it.
        let (_, said) = line.split_once("explored: ")?;
        let mut words = said.split_whitespace();
        let runs = words.next()?.parse().ok()?;
        let bound = words.nth(1)?.parse().ok()?;
        Some(Self { runs, models: 0, fewest: bound, most: bound, stopped: said.ends_with(", stopped") })
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.runs == 0
    }

    fn and(self, other: Self) -> Self {
        let fewest = if self.is_empty() { other.fewest } else { self.fewest.min(other.fewest) };
        Self {
            runs: self.runs + other.runs,
            models: self.models + other.models,
            fewest,
            most: self.most.max(other.most),
            stopped: self.stopped || other.stopped,
        }
    }
}

impl FromIterator<Explored> for Explored {
    fn from_iter<T: IntoIterator<Item = Explored>>(parts: T) -> Self {
        parts.into_iter().fold(Self::default(), Self::and)
    }
}

impl fmt::Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return Ok(());
        }
        let bounds = if self.fewest == self.most { self.most.to_string() } else { format!("{} to {}", self.fewest, self.most) };
        write!(f, "loom, {bounds} preemptions: {}", grouped(self.runs))?;
        if self.models > 1 {
            write!(f, " in {} models", self.models)?;
        }
        if self.stopped { f.write_str(", STOPPED") } else { Ok(()) }
    }
}

/// `12,345`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What the scheduler's tests have said.
#[derive(Default)]
struct Stories {
    /// Seeds of each story in each design.
    seeds: BTreeMap<(String, String), u64>,
    /// Seeded bugs that were found, with the design.
    caught: Vec<(String, String)>,
}

impl Stories {
    fn read(lines: &[String], designs: &[String]) -> Self {
        let mut stories = Self::default();
        for (before, _) in lines.iter().filter_map(|line| line.split_once(" seeds passed")) {
            let mut words = before.split_whitespace().map(str::to_string);
            let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            if designs.contains(&second) {
                // A control's: the bug, the design, after how many seeds.
                stories.caught.push((first, second));
            } else if let Some((bug, story)) = before.strip_prefix("==== ").and_then(|found| found.split_once(": ")) {
                let design = story.rsplit_once(": ").and_then(|(story, _)| story.rsplit(' ').next());
                stories.caught.extend(design.map(|design| (bug.into(), design.into())));
            } else if let Some((story, seeds)) = before.rsplit_once(": ") {
                let (Some((story, design)), Ok(seeds)) = (story.rsplit_once(' '), seeds.parse()) else { continue };
                stories.seeds.insert((story.into(), design.into()), seeds);
            }
        }
        stories
    }

    fn of(&self, check: &Check, design: &str) -> u64 {
        check.stories.iter().filter_map(|story| self.seeds.get(&(story.to_string(), design.to_string()))).sum()
    }
}

/// The designs, as the sources list them.
fn designs() -> Result<Vec<String>> {
    let text = std::fs::read_to_string(root().join("crates/spile/src/locking/mod.rs"))?;
    let (_, list) = text.split_once("\ndesigns! {").context("no list of designs")?;
    let (list, _) = list.split_once('}').context("a list without an end")?;
    Ok(list.lines().filter_map(|line| Some(line.trim().split_once("::")?.0.to_string())).collect())
}

/// The design that a model is of, if it is of one.
fn design_of<'d>(model: &str, designs: &'d [String]) -> Option<&'d String> {
    let is_in = |design: &&String| model.split("::").any(|module| module == design.as_str());
    designs.iter().find(is_in).or_else(|| designs.iter().find(|design| model.ends_with(&format!("_of_{design}"))))
}

fn check_of(model: &str) -> &'static Check {
    let name = model.rsplit("::").next().unwrap_or(model);
    CHECKS.iter().find(|check| check.models.iter().any(|begin| name.starts_with(begin))).expect("the last takes all")
}

/// The first table. Fails if a cell is empty.
fn explored_table(designs: &[String], findings: &Findings, stories: &Stories) -> Result<String> {
    let mut table = "| design |".to_string();
    CHECKS.iter().for_each(|check| _ = write!(table, " {} |", check.name));
    table += &format!("\n|---|{}\n", "---|".repeat(CHECKS.len()));
    let mut empty = Vec::new();
    for design in designs {
        _ = write!(table, "| `{design}` |");
        for check in CHECKS {
            let is_of = |model: &str| design_of(model, designs) == Some(design) && check_of(model).name == check.name;
            let of_models = findings.explored.iter().filter(|(model, _)| is_of(model));
            let by_loom: Explored = of_models.map(|(_, explored)| Explored { models: 1, ..*explored }).collect();
            let by_stories = match stories.of(check, design) {
                0 => String::new(),
                seeds => format!("sched, random and PCT: {} seeds", grouped(seeds)),
            };
            let methods: Vec<_> = [by_loom.to_string(), by_stories].into_iter().filter(|method| !method.is_empty()).collect();
            if methods.is_empty() {
                empty.push(format!("{} in {design}", check.name));
            }
            _ = write!(table, " {} |", methods.join("; "));
        }
        table.push('\n');
    }
    ensure!(empty.is_empty(), "{table}\nnothing was explored of {}", empty.join(", "));
    Ok(table)
}

/// Whether a bug is about how mappings are held and changed, and not about pages, where all designs are alike.
fn is_own(paths: &[String]) -> bool {
    let places = [
        "crates/spile/src/locking/",
        "crates/spile/src/change/",
        "crates/spile/src/mm.rs",
        "crates/spile/src/paging/span.rs",
        "crates/spile/src/paging/spares.rs",
    ];
    paths.iter().any(|path| places.iter().any(|place| path.starts_with(place)))
}

/// The second table. Fails if a design has too few caught bugs of its own kind, or one that was not caught.
fn bugs_table(designs: &[String], findings: &Findings, stories: &Stories) -> Result<String> {
    let names = Repo::load()?.names();
    let paths = |bug: &str| names.iter().filter(|(name, _)| name.key() == bug).map(|(_, path)| path.clone()).collect::<Vec<_>>();
    let mut table = "| design | own bugs, caught of seeded | others | the own ones |\n|---|---|---|---|\n".to_string();
    let mut wrong = Vec::new();
    for design in designs {
        let of_design = |models: &[String]| models.iter().any(|model| design_of(model, designs) == Some(design));
        let mut bugs: BTreeMap<String, bool> = BTreeMap::new();
        for (key, named, by) in findings.tried.iter().filter(|(key, ..)| key.starts_with("bug:")) {
            if of_design(named) || of_design(by) {
                bugs.insert(key.clone(), of_design(by));
            }
        }
        bugs.extend(stories.caught.iter().filter(|(_, of)| of == design).map(|(bug, _)| (format!("bug:{bug}"), true)));
        let (own, others): (Vec<_>, Vec<_>) = bugs.iter().partition(|(bug, _)| is_own(&paths(bug)));
        let caught = |bugs: &[(&String, &bool)]| bugs.iter().filter(|(_, caught)| **caught).count();
        let list: Vec<_> = own.iter().map(|(bug, caught)| if **caught { (*bug).clone() } else { format!("{bug} NOT") }).collect();
        let (own_caught, others_caught) = (caught(&own), caught(&others));
        _ = writeln!(
            table,
            "| `{design}` | {own_caught} of {} | {others_caught} of {} | {} |",
            own.len(),
            others.len(),
            list.join(", ")
        );
        if own_caught < OWN || own_caught < own.len() || others_caught < others.len() {
            wrong.push(design.as_str());
        }
    }
    ensure!(wrong.is_empty(), "{table}\ntoo few bugs of their own kind are caught, or not all, in {}", wrong.join(", "));
    Ok(table)
}

/// Which of the tests on the scheduler's atomics.
#[derive(Clone, Copy)]
pub enum Which {
    /// All.
    All,
    /// Those that tell what the tables say.
    Tabled,
}

/// The tests on the scheduler's atomics, in two builds: of the library and the simulator with small nodes and with counters, which add no step to a
/// story; and of the lab, whose counts are of the nodes that users have. What they went through is a part of the table of checks.
pub fn stories(quick: bool, which: Which) -> Result<()> {
    let checkers = [
        "spile-sync/sched",
        "spile-maple/sched",
        "spile-maple/small-nodes",
        "spile-sim/sched",
        "spile-sim/small-nodes",
        "spile-sim/counters",
    ];
    let builds: [(&[&str], &str, &str); 2] = [
        (&["-p", "spile-sync", "-p", "spile-maple", "-p", "spile-sim"], &checkers.join(","), "sched"),
        (&["-p", "spile-lab"], "sched", "known_races"),
    ];
    for (packages, features, tabled) in builds {
        let mut tests = cargo(&["test"]);
        tests.args(packages).args(["--features", features]);
        match which {
            Which::All => tests.arg("--tests"),
            Which::Tabled => tests.args(["--test", tabled]),
        };
        if quick {
            some_optimisation(&mut tests);
        } else {
            tests.arg("--release").env("SPILE_SEEDS", SEEDS);
        }
        run_command(tests.args(["--", "--show-output"]))?;
    }
    Ok(())
}

/// The models, the scheduler's tests unless they were run before, and both tables.
pub fn run(options: &models::Options) -> Result<()> {
    let designs = designs()?;
    if explored_lines().is_empty() {
        stories(options.quick, Which::Tabled)?;
    }
    let findings = models::run(options)?;
    let stories = Stories::read(&explored_lines(), &designs);
    let tables = [explored_table(&designs, &findings, &stories), bugs_table(&designs, &findings, &stories)];
    for table in tables.iter().flatten() {
        println!("\n{table}");
    }
    tables.into_iter().try_for_each(|table| table.map(|_| ()))
}

/// `checks` by itself: of the mutations the seeded bugs alone.
pub fn run_alone(options: &models::Options) -> Result<()> {
    let only = options.only.clone().or(Some("bug:".into()));
    let mut options = options.clone();
    options.only = only;
    run(&options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(models: &[&str]) -> Findings {
        let explored = |model: &&str| (model.to_string(), Explored::parse("explored: 1234 runs, 2 of 3 preemptions").unwrap());
        Findings { explored: models.iter().map(explored).collect(), tried: Vec::new() }
    }

    #[test]
    fn an_empty_cell_is_an_error() {
        let designs = ["rcu".to_string(), "spf_seq".to_string()];
        let all = CHECKS.iter().map(|check| format!("rcu::{}x", check.models[0])).collect::<Vec<_>>();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let table = explored_table(&designs[..1], &findings(&all), &Stories::default()).unwrap();
        assert!(table.contains("loom, 2 preemptions: 1,234 |"), "{table}");
        let why = explored_table(&designs, &findings(&all), &Stories::default()).unwrap_err().to_string();
        assert!(why.contains("nothing was explored of munmap in spf_seq"), "{why}");
    }

    #[test]
    fn a_stopped_model_says_so() {
        let stopped = Explored::parse("test rcu::x ... explored: 500 runs, 3 of 3 preemptions, stopped").unwrap();
        let both = stopped.and(Explored::parse("explored: 1500 runs, 2 of 2 preemptions").unwrap());
        assert_eq!(both.to_string(), "loom, 2 to 3 preemptions: 2,000, STOPPED");
    }

    #[test]
    fn stories_are_read() {
        let lines = [
            "duels rcu: 600 seeds passed, 12 steps",
            "a late reader rcu: 300 seeds passed",
            "no-await                 mmap_lock        duels mmap_lock: 3 seeds passed",
            "==== two-steps: a hole in the list spf_seq: 2 seeds passed; then",
        ];
        let stories = Stories::read(&lines.map(String::from), &["rcu", "mmap_lock"].map(String::from));
        assert_eq!(stories.of(&CHECKS[0], "rcu"), 900);
        assert_eq!(stories.caught, [("no-await", "mmap_lock"), ("two-steps", "spf_seq")].map(|(a, b)| (a.into(), b.into())));
    }

    #[test]
    fn too_few_bugs_are_an_error() {
        let designs = ["rcu".to_string()];
        let stories = Stories { caught: vec![("no-revalidation".into(), "rcu".into())], ..Stories::default() };
        let why = bugs_table(&designs, &findings(&[]), &stories).unwrap_err().to_string();
        assert!(why.contains("| `rcu` | 1 of 1 | 0 of 0 | bug:no-revalidation |"), "{why}");
    }
}
