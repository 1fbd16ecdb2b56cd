//! The range tree beside what else could serve as an index of memory ranges, in one run.
//!
//! Contenders take turns within each round of each operation, so that what disturbs the machine disturbs all; printed are the
//! medians of the rounds. Ranges and keys are [`layout`]'s, one-thread operations [`ops`]', two-thread ones [`pair`]'s. At
//! the end stands what the tree must reach and aims at ([`musts`]). `--holes` hunts for lookups that miss what is always there
//! ([`holes`]).
//!
//! Needs Linux, and CPUs 0 and 1 for the two-thread rows; compare those only at equal cache-line hand-over, which is printed
//! before and after.

#[cfg(target_os = "linux")]
mod clock;
#[cfg(target_os = "linux")]
mod contender;
#[cfg(target_os = "linux")]
mod holes;
#[cfg(target_os = "linux")]
mod layout;
#[cfg(target_os = "linux")]
mod memory;
#[cfg(target_os = "linux")]
mod musts;
#[cfg(target_os = "linux")]
mod ops;
#[cfg(target_os = "linux")]
mod ours;
#[cfg(target_os = "linux")]
mod pair;
#[cfg(target_os = "linux")]
mod peers;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod table;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    table::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("tree_bench pins threads and reads CPU clocks by Linux calls; it does not run here");
}
