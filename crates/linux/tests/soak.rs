//! Everything at once, of many regions, for a while: no wrong byte, nobody who hangs, and no more memory than was said.
//!
//! Longer: `SPILE_SOAK_REGIONS=1000 SPILE_SOAK_SECS=600 cargo test --release -p spile-linux --test soak -- --nocapture all_at_once`.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod pagers;
mod proofs;
mod soaks;

use pagers::pager;
use proofs::{seed, size};
use soaks::{Kind, Scene};
use spile_linux::PAGE;
use std::process::Command;
use std::time::Duration;

/// The pager's budget in pages.
const BUDGET: u64 = 4096;

#[test]
fn all_at_once() {
    let Some(pager) = pager(BUDGET * PAGE) else { return };
    let kind = std::env::var("SPILE_SOAK_KIND").map_or(Kind::Sound, |name| Kind::named(&name));
    let scene = Scene {
        seed: seed("SPILE_SOAK_SEED"),
        regions: size("SPILE_SOAK_REGIONS", 40),
        lasts: Duration::from_secs(size("SPILE_SOAK_SECS", 5)),
        patience: Duration::from_secs(size("SPILE_SOAK_PATIENCE", 20)),
        kind,
    };
    let report = soaks::run(&pager, scene);
    println!("{report}");
    assert!(report.memory.was_scarce(), "there was memory for all");
    println!("when all are gone: {:?}", pager.usage());
    assert_eq!(pager.usage().used, 0, "frames are lost");
}

/// What the same says when its backings are not what they should be.
fn said_of(kind: &str) -> String {
    let this = std::env::current_exe().expect("it runs");
    let variables = [("SPILE_SOAK_KIND", kind), ("SPILE_SOAK_PATIENCE", "2"), ("SPILE_SOAK_SECS", "20")];
    let ended = Command::new(this).args(["--exact", "all_at_once", "--nocapture"]).envs(variables).output().expect("it starts");
    assert!(!ended.status.success(), "nothing was found");
    String::from_utf8_lossy(&ended.stderr).into_owned()
}

#[test]
fn a_backing_that_forgets_is_found() {
    let Some(_) = pager(BUDGET * PAGE) else { return };
    let said = said_of("forgets");
    assert!(said.contains("wrong:") && said.contains("SPILE_SOAK_SEED="), "{said}");
}

#[test]
fn a_backing_that_hangs_is_found() {
    let Some(_) = pager(BUDGET * PAGE) else { return };
    let said = said_of("hangs");
    assert!(said.contains("nobody got on") && said.contains("SPILE_SOAK_SEED="), "{said}");
}
