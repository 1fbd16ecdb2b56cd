//! The command line.

use clap::{Parser, Subcommand};
use spile_lab::verb::{self, End};
use std::process::ExitCode;

/// So that the same schedule counts the same cache lines in every process.
#[cfg(feature = "sched")]
#[global_allocator]
static APART: spile_lab::apart::Apart = spile_lab::apart::Apart;

/// What the locking designs of an address space do to real programs.
#[derive(Parser, Debug)]
#[command(name = "spile", version, arg_required_else_help = true)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    Replay(verb::replay::Args),
    Bench(verb::bench::Args),
    #[command(hide = true)]
    BenchHost,
    Designs(verb::designs::Args),
    Maps(verb::maps::Args),
    Race(verb::race::Args),
}

fn main() -> ExitCode {
    let ended = match Args::parse().verb {
        Verb::Replay(args) => verb::replay::run(&args),
        Verb::Bench(args) => verb::bench::run(&args),
        Verb::BenchHost => spile_lab::bench::child::live().map(|()| End::Good),
        Verb::Designs(args) => verb::designs::run(&args),
        Verb::Maps(args) => verb::maps::run(&args),
        Verb::Race(args) => verb::race::run(&args),
    };
    match ended {
        Ok(End::Good) => ExitCode::SUCCESS,
        Ok(End::Bad) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("spile: {error:#}");
            ExitCode::from(2)
        }
    }
}
