//! The one door for commands of this workspace.

mod builds;
mod checks;
mod counts;
mod measure;
mod models;
mod repo;
mod shell;
mod source;
mod steps;
mod tidy;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The one door for commands of this workspace")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check the rules that the compiler does not
    Tidy,
    /// Run the exhaustive models, and show that each named fault makes one fail
    Models(models::Options),
    /// What was explored of each race in each design, and which seeded bugs that catches: two tables
    Checks(models::Options),
    /// Everything that has to hold before a change is merged; .ci/run installs what it needs first
    Ci,
    /// Every figure that the documents claim, measured anew; takes hours
    Full,
    /// Compare instruction counts with their bounds
    Counts,
    /// Lines, longest functions, unsafe blocks and their proofs, per file
    Measure,
    /// Build the library crates without std
    #[command(name = "no_std", alias = "no-std")]
    NoStd,
    /// Check the library crates with the oldest compiler they promise
    Msrv,
    /// Package the library crates and build them from their packages
    Package,
    /// Compile and run the examples in the READMEs
    Readme,
}

fn perform(command: Command) -> Result<()> {
    match command {
        Command::Tidy => tidy::run(),
        Command::Models(options) => models::run(&options).map(|_| ()),
        Command::Checks(options) => checks::run_alone(&options),
        Command::Ci => steps::ci(),
        Command::Full => steps::full(),
        Command::Counts => counts::run().map(|_| ()),
        Command::Measure => measure::run(),
        Command::NoStd => builds::no_std(),
        Command::Msrv => builds::msrv(),
        Command::Package => builds::package(),
        Command::Readme => builds::readme(),
    }
}

fn main() -> ExitCode {
    match perform(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
