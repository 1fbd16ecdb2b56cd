//! The benchmarks that come with the program.
//!
//! **Mechanism.** Definitions in `workloads/`, a file each; `mapper`, which measures how long single calls take, is a program of its own.

use super::workload::Workload;
use anyhow::{Result, bail};

macro_rules! bundled {
    ($($name:literal)*) => {
        &[$(include_str!(concat!("../../workloads/", $name, ".toml"))),*]
    };
}

const DEFINITIONS: &[&str] = bundled! {
    "page_fault1" "pft" "mmap1" "brk1" "fork"
    "mmap_pf" "mmap_pf_rand" "pf" "pf_rand" "munmap" "munmap_virt" "tlb_flush2" "mprotect"
};

/// The benchmark of latencies.
pub const MAPPER: &str = "mapper";
/// What is run if nothing is named.
pub const USUAL: [&str; 6] = ["page_fault1", "pft", "mmap1", "brk1", "fork", MAPPER];
/// The same, on real memory.
pub const REAL: [&str; 3] = ["pft", "page_fault1", "mmap1"];

/// All that have definitions.
///
/// # Panics
///
/// If one does not make sense, which a test says.
pub fn all() -> Vec<Workload> {
    DEFINITIONS.iter().map(|text| Workload::parse(text).expect("bundled definitions make sense")).collect()
}

/// The one with this name.
///
/// # Errors
///
/// There is none.
pub fn find(name: &str) -> Result<Workload> {
    let all = all();
    let names: Vec<_> = all.iter().map(|workload| workload.name.clone()).collect();
    match all.into_iter().find(|workload| workload.name == name) {
        Some(workload) => Ok(workload),
        None => bail!("no benchmark is called `{name}`; there are {} and {MAPPER}", names.join(", ")),
    }
}
