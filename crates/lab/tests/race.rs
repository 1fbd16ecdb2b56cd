//! `spile race`, as a shell sees it.
//!
//! **Guarantee.** The same arguments print the same bytes; a mistake that is found and a seed that passes as shipped are success; names that are not
//! known, and children that tell nothing, are told.
#![cfg(feature = "sched")]

use serde_json::Value;
use spile_lab::race::{CATALOGUE, Race, named, variant};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

const SPILE: &str = env!("CARGO_BIN_EXE_spile");

fn spile(arguments: &[&str]) -> Output {
    Command::new(SPILE).args(arguments).output().expect("it starts")
}

#[test]
fn names_are_unique() {
    let names: BTreeSet<_> = CATALOGUE.iter().map(|race| race.name).collect();
    let titles: BTreeSet<_> = CATALOGUE.iter().map(|race| race.title).collect();
    assert_eq!([names.len(), titles.len()], [CATALOGUE.len(); 2]);
    for race in CATALOGUE {
        let shown: BTreeSet<_> = race.shown().map(|(mistake, design)| (mistake.bug, design)).collect();
        assert!(!shown.is_empty() && shown.len() == race.shown().count(), "{}: {shown:?}", race.name);
    }
}

#[test]
fn the_same_bytes_twice() {
    for race in CATALOGUE {
        let run = || spile(&["race", race.name, "--json", "--more", "20"]);
        let (one, other) = (run(), run());
        assert!(one.status.success(), "{}: {}", race.name, String::from_utf8_lossy(&one.stderr));
        assert!(one.stdout == other.stdout, "{} differs between two runs", race.name);
        let told: Value = serde_json::from_slice(&one.stdout).expect("it is JSON");
        let shown = &told["shown"][0];
        assert_eq!((&told["name"], &told["good"]), (&Value::from(race.name), &Value::from(true)));
        assert!(shown["faulty"]["story"]["failure"].is_string() && shown["shipped"]["story"]["failure"].is_null());
        assert!(!String::from_utf8_lossy(&one.stdout).contains(env!("CARGO_MANIFEST_DIR")), "a path of this machine");
    }
}

/// From a later seed on another one fails, and is told with how many passed before.
#[test]
fn seeds_begin_where_they_are_told() {
    let told = spile(&["race", "late-reader", "--seed", "1000", "--json", "--more", "0"]);
    let told: Value = serde_json::from_slice(&told.stdout).expect("it is JSON");
    let faulty = &told["shown"][0]["faulty"];
    let number = |value: &Value| value.as_u64().expect("a number");
    assert_eq!(number(&faulty["from"]), 1000);
    assert_eq!(number(&faulty["story"]["seed"]), 1000 + number(&faulty["passed"]));
    assert_eq!(told["shown"][0]["shipped"]["passed"], 1);
}

/// What stands in place of the program: it fails, or prints something else.
#[cfg(unix)]
#[test]
fn a_child_without_a_result_is_told() {
    let race: &Race = named("late-reader").unwrap();
    let why = |program: &str| format!("{:#}", variant::played(Path::new(program), race, "rcu", None, 0, 1).unwrap_err());
    assert!(why("/bin/false").contains("the shipped variant of late-reader in rcu told nothing: it ended with"));
    assert!(why("/bin/true").contains("what it printed is no result"));
    assert!(why("/nowhere").contains("cannot be started"));
}

#[test]
fn what_is_not_known_is_told() {
    let said = |arguments: &[&str]| {
        let output = spile(arguments);
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let unknown = said(&["race", "nothing"]);
    assert!(CATALOGUE.iter().all(|race| unknown.contains(race.name)), "{unknown}");
    let elsewhere = said(&["race", "late-reader", "--design", "pt_range"]);
    assert!(elsewhere.contains("vma_refcount"), "{elsewhere}");
}

/// A control: a race whose mistake does not show is not good.
#[test]
fn a_mistake_that_no_seed_shows_is_a_failure() {
    // The order of a range lock's wake-ups is nothing to a design without one.
    let race = named("lost-wake").unwrap();
    let mistake = race.mistakes.iter().find(|mistake| mistake.bug == "leave-without-a-word").unwrap();
    let both = variant::both(Path::new(SPILE), race, mistake, "rcu", 0, 0).unwrap();
    assert!(!both.is_good() && !both.faulty.is_bad(), "{}", both.text(100));
    assert!(both.text(100).contains("none shows it"));
}

#[test]
fn stories_fit_a_terminal() {
    let race = named("recycled").unwrap();
    let (mistake, design) = race.shown().next().unwrap();
    let both = variant::both(Path::new(SPILE), race, mistake, design, 0, 0).unwrap();
    for width in [100, 120] {
        let story = both.faulty.story.text(width, &[]);
        let widest = story.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= width, "{widest} letters in\n{story}");
        assert!(story.lines().count() > 20 && story.contains("vma_refcount.rs:"), "{story}");
    }
}
