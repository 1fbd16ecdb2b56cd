//! The two variants of a race, the faulty and the shipped: each a process of its own, for a seeded bug is chosen when a process starts.

use super::story::Story;
use super::{Mistake, Race};
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Output};

/// What the command line calls a process that plays one variant and prints a [`Played`].
pub const AS_CHILD: &str = "--as-child";
/// The environment variable that chooses a seeded bug.
const MUTATE: &str = "SPILE_MUTATE";
/// A bug that no seed below this shows is not found.
pub const BOUND: u64 = 4000;
/// So many seeds are one process's, which gives no memory back.
const OF_A_CHILD: u64 = 250;
/// So many lines of what a child said before it failed are told.
const LAST_WORDS: usize = 6;
/// Rows of a story that are shown, more or less; and of the shipped one's those before the two part.
pub const ROWS_OF_THE_FAULTY: usize = 40;
const ROWS_OF_THE_SHIPPED: usize = 20;
const ROWS_BEFORE: usize = 4;

/// What became of a row of seeds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Played {
    /// The first seed.
    pub from: u64,
    /// How many passed, one after the other.
    pub passed: u64,
    /// Of the seed that failed, if one did; else of the first.
    pub story: Story,
}

impl Played {
    /// Whether a seed failed.
    pub fn is_bad(&self) -> bool {
        self.story.failure.is_some()
    }
}

/// A race under one design, with a mistake and without.
#[derive(Debug, Serialize)]
pub struct Both {
    /// Which design.
    pub design: &'static str,
    /// Which mistake.
    #[serde(flatten)]
    pub mistake: &'static Mistake,
    /// With the mistake: until a seed fails.
    pub faulty: Played,
    /// As it is: that seed, and some after it.
    pub shipped: Played,
    /// The step from which the two stories differ.
    pub parts: Option<u64>,
    /// The step from which the faulty one's is told without gaps, if something is left out before.
    pub cut: Option<u64>,
}

/// Fails, and says what to do, in a build that has no scheduler.
///
/// # Errors
///
/// It is one.
pub fn can_play() -> Result<()> {
    ensure!(
        cfg!(feature = "sched"),
        "this `spile` is built without the seeded scheduler and can play no race; build it with `cargo build --profile lab -p spile-lab --features sched`"
    );
    Ok(())
}

/// Plays seeds until one fails, in this process, and tells the one that does, else the first.
///
/// # Errors
///
/// This build cannot play, or there is no seed to be played.
#[cfg(feature = "sched")]
pub fn play(race: &Race, design: &str, from: u64, seeds: u64) -> Result<Played> {
    let mut first = None;
    for passed in 0..seeds {
        let outcome = race.play(design, from + passed);
        if !outcome.is_ok() {
            return Ok(Played { from, passed, story: super::telling::story(&outcome) });
        }
        first.get_or_insert_with(|| super::telling::story(&outcome));
    }
    Ok(Played { from, passed: seeds, story: first.context("no seed was to be played")? })
}

#[cfg(not(feature = "sched"))]
#[expect(missing_docs, reason = "as above")]
pub fn play(_: &Race, _: &str, _: u64, _: u64) -> Result<Played> {
    can_play().and_then(|()| bail!("nothing plays"))
}

/// Plays seeds until one fails, with a mistake or without, in processes of `spile`, which is at `binary`.
///
/// # Errors
///
/// A process cannot be started, or ends without a result.
pub fn played(binary: &Path, race: &Race, design: &str, bug: Option<&str>, from: u64, seeds: u64) -> Result<Played> {
    can_play()?;
    let mut all = child(binary, race, design, bug, from, seeds.min(OF_A_CHILD))?;
    while all.passed < seeds && !all.is_bad() {
        let next = child(binary, race, design, bug, from + all.passed, (seeds - all.passed).min(OF_A_CHILD))?;
        all.passed += next.passed;
        if next.is_bad() {
            all.story = next.story;
        }
    }
    Ok(all)
}

/// What one process plays.
fn child(binary: &Path, race: &Race, design: &str, bug: Option<&str>, from: u64, seeds: u64) -> Result<Played> {
    let mut child = Command::new(binary);
    child.args(["race", race.name, "--design", design, "--seed", &from.to_string(), "--more", &seeds.to_string(), AS_CHILD]);
    match bug {
        Some(bug) => child.env(MUTATE, format!("bug:{bug}")),
        None => child.env_remove(MUTATE),
    };
    let output = child.env("RUST_BACKTRACE", "0").output().context("another `spile` cannot be started")?;
    let variant = bug.map_or("the shipped variant".to_string(), |bug| format!("the variant with bug:{bug}"));
    result(&output).with_context(|| format!("{variant} of {} in {design} told nothing", race.name))
}

/// What a child has printed.
fn result(output: &Output) -> Result<Played> {
    if output.status.success() {
        return serde_json::from_slice(&output.stdout).context("what it printed is no result");
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<_> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n  ");
    bail!("it ended with {}; its last words:\n  {}", output.status, if last.is_empty() { "none" } else { &last })
}

/// Plays a race under one design: with the mistake from seed `from` on until one fails, then as it is, that seed and `more` after it.
///
/// # Errors
///
/// This build cannot play, or a variant ends without a result. That no seed fails with the mistake is no error, and is in what is returned.
pub fn both(binary: &Path, race: &Race, mistake: &'static Mistake, design: &'static str, from: u64, more: u64) -> Result<Both> {
    let mut faulty = played(binary, race, design, Some(mistake.bug), from, BOUND)?;
    let seed = faulty.story.seed;
    let mut shipped = played(binary, race, design, None, seed, more + 1)?;
    let parts = faulty.story.parts_from(&shipped.story);
    let (end, cut) = faulty.story.end(ROWS_OF_THE_FAULTY);
    faulty.story = end;
    shipped.story = match shipped.is_bad() {
        true => shipped.story.end(ROWS_OF_THE_FAULTY).0,
        false => shipped.story.middle(parts.unwrap_or(0), ROWS_BEFORE, ROWS_OF_THE_SHIPPED),
    };
    Ok(Both { design, mistake, faulty, shipped, parts, cut })
}

impl Both {
    /// Whether the mistake was found, and nothing else.
    pub fn is_good(&self) -> bool {
        self.faulty.is_bad() && !self.shipped.is_bad()
    }

    /// Both stories, for a terminal of this width.
    pub fn text(&self, width: usize) -> String {
        let Self { design, mistake, faulty, shipped, parts, cut } = self;
        let parts = (*parts, "from here on the two variants differ");
        let mut out = format!("{design} with bug:{}", mistake.bug);
        match &faulty.story.failure {
            Some(failure) => {
                _ = writeln!(out, ": {} seeds passed, then seed {} fails\n", faulty.passed, faulty.story.seed);
                _ = writeln!(
                    out,
                    "{}\n{failure}\n\nBroken: {}",
                    faulty.story.text(width, &[(*cut, "rows are left out above"), parts]),
                    mistake.broken
                );
            }
            None => _ = writeln!(out, ": {} seeds passed, and none shows it", faulty.passed),
        }
        _ = write!(out, "\n{design} as it is: ");
        match &shipped.story.failure {
            Some(failure) => {
                _ = writeln!(out, "seed {} FAILS\n\n{}\n{failure}", shipped.story.seed, shipped.story.text(width, &[]))
            }
            None => {
                let last = shipped.from + shipped.passed - 1;
                _ = writeln!(out, "seeds {} to {last} pass; seed {} where the two differ:\n", shipped.from, shipped.from);
                out += &shipped.story.text(width, &[parts]);
            }
        }
        out
    }
}
