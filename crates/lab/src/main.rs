//! The command line.

use clap::{Parser, Subcommand};
use spile_lab::verb::{self, End};
use std::process::ExitCode;

/// It counts, and keeps things apart where cache lines are counted.
#[global_allocator]
static HEAP: spile_lab::heap::Heap = spile_lab::heap::Heap;

/// What the locking designs of an address space do to real programs. Without a verb: a tour.
#[derive(Parser, Debug)]
#[command(name = "spile", version)]
struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
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
        None => verb::tour::run(),
        Some(Verb::Replay(args)) => verb::replay::run(&args),
        Some(Verb::Bench(args)) => verb::bench::run(&args),
        Some(Verb::BenchHost) => spile_lab::bench::child::live().map(|()| End::Good),
        Some(Verb::Designs(args)) => verb::designs::run(&args),
        Some(Verb::Maps(args)) => verb::maps::run(&args),
        Some(Verb::Race(args)) => verb::race::run(&args),
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
