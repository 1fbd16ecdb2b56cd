//! `spile race`: known races, with the mistake that makes each and without.

use super::End;
use crate::design::DESIGNS;
use crate::output;
use crate::race::variant::{self, Both};
use crate::race::{self, CATALOGUE, Mistake, Race};
use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

#[derive(clap::Args, Debug)]
/// Known races of memory management: the faulty variant and the shipped one, interleaving by interleaving
pub struct Args {
    /// Which race; a table of all if there is none
    name: Option<String>,
    /// The first seed to try
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The designs to show it in: names with commas between, or all; the first in the table if there is none
    #[arg(long, value_delimiter = ',')]
    design: Vec<String>,
    /// So many seeds more must pass as shipped
    #[arg(long, default_value_t = 300, value_name = "N")]
    more: u64,
    /// An object instead of text
    #[arg(long)]
    json: bool,
    /// Plays `more` seeds of one design in this process, until one fails, and prints the result for whoever has started it
    #[arg(long, hide = true, requires = "name")]
    as_child: bool,
}

/// What is printed of a race.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    race: &'static Race,
    seed: u64,
    shown: Vec<Both>,
    good: bool,
}

/// # Errors
///
/// The race or a design is not known, this build cannot play, or a variant ends without a result.
pub fn run(args: &Args) -> Result<End> {
    let Some(name) = &args.name else {
        match args.json {
            true => output::json(&CATALOGUE)?,
            false => print_catalogue(),
        }
        return Ok(End::Good);
    };
    let race = race::named(name)?;
    if args.as_child {
        let design = args.design.first().context("a child plays one design")?;
        output::json(&variant::play(race, design, args.seed, args.more)?)?;
        return Ok(End::Good);
    }
    variant::can_play()?;
    let this = std::env::current_exe().context("this program does not know where it is")?;
    let shown = chosen(race, &args.design)?.into_iter().map(|(mistake, design)| show(&this, args, race, mistake, design));
    let shown = shown.collect::<Result<Vec<_>>>()?;
    let good = shown.iter().all(Both::is_good);
    let report = Report { race, seed: args.seed, shown, good };
    match args.json {
        true => output::json(&report)?,
        false => print(&report),
    }
    Ok(if good { End::Good } else { End::Bad })
}

/// What of a race is shown: in these designs, or in the first.
fn chosen(race: &'static Race, designs: &[String]) -> Result<Vec<(&'static Mistake, &'static str)>> {
    if designs.is_empty() {
        return Ok(race.shown().take(1).collect());
    }
    let all: Vec<_> = race.shown().map(|(_, design)| design).collect();
    if let Some(other) = designs.iter().find(|name| *name != "all" && !all.contains(&name.as_str())) {
        bail!("{} is not shown in `{other}`; it is in {} and all", race.name, all.join(", "));
    }
    Ok(race.shown().filter(|(_, design)| designs.iter().any(|name| name == "all" || name == design)).collect())
}

fn show(this: &Path, args: &Args, race: &'static Race, mistake: &'static Mistake, design: &'static str) -> Result<Both> {
    let style = ProgressStyle::with_template("{spinner} {msg}, {elapsed}").expect("a template");
    let bar = ProgressBar::new_spinner().with_style(style);
    bar.set_message(format!("{}: {design} with bug:{}, and without", race.name, mistake.bug));
    bar.enable_steady_tick(Duration::from_millis(100));
    let both = variant::both(this, race, mistake, design, args.seed, args.more);
    bar.finish_and_clear();
    both
}

fn print(report: &Report) {
    let Report { race, shown, .. } = report;
    let width = output::terminal_width().unwrap_or(output::WIDTH).into();
    println!("{}: {} ({}, {})\n{}\n", race.name, race.title, race.since, race.source, race.wrong);
    shown.iter().for_each(|both| println!("{}", both.text(width)));
    println!(
        "L#: a cache line, by first touch; *: it was another CPU's. Left out: spinning, RCU, allocation, and what no other CPU meets."
    );
    let is_shown =
        |mistake: &Mistake, design: &str| shown.iter().any(|both| both.design == design && both.mistake.bug == mistake.bug);
    let left: BTreeSet<_> =
        race.shown().filter(|(mistake, design)| !is_shown(mistake, design)).map(|(_, design)| design).collect();
    if !left.is_empty() {
        println!("Also in {}: --design NAME,... or --design all", Vec::from_iter(left).join(", "));
    }
}

fn print_catalogue() {
    let mut table = output::table(&["race", "since", "what goes wrong", "seeded bug", "designs"], 5);
    for race in CATALOGUE {
        let bugs: Vec<_> = race.mistakes.iter().map(|mistake| mistake.bug).collect();
        let designs: BTreeSet<_> = race.shown().map(|(_, design)| design).collect();
        let designs = if designs.len() == DESIGNS.len() { "all".into() } else { Vec::from_iter(designs).join(", ") };
        table.add_row([race.name.into(), race.since.to_string(), race.wrong.into(), bugs.join("\n"), designs]);
    }
    table.wraps = true;
    println!(
        "{table}\n`spile race NAME` finds an interleaving in which the bug shows, tells it, and plays the same seed as shipped."
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn designs_are_chosen_among_those_that_show_it() {
        let race = race::named("late-reader").unwrap();
        let of = |names: &[&str]| chosen(race, &names.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(of(&[]).unwrap().len(), 1);
        assert_eq!(of(&["all"]).unwrap().len(), race.shown().count());
        assert_eq!(of(&["rcu", "vma_rwsem"]).unwrap().len(), 2);
        assert!(of(&["pt_range"]).unwrap_err().to_string().contains("vma_refcount"));
    }
}
