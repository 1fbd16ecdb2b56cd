//! The kernel and the core agree.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use spile::{Locking, VmaRefcount};
use spile_judge::compare::{Judge, Options, Report};
use spile_judge::host::{self, Host};
use spile_judge::us::Us;
use spile_judge::{Lost, Subject, World};

/// Judges the core by the kernel. `None` where there is no kernel to ask, which is printed.
fn judge<L: Locking>(calls: u64, seed: u64) -> Option<Report> {
    let world = match host::traits() {
        Ok(traits) => World::new(traits),
        Err(Lost(why)) => {
            println!("skipped: {why}");
            return None;
        }
    };
    let left = |world: &World| Ok(Box::new(Host::new(world)?) as Box<dyn Subject>);
    let right = |world: &World| Ok(Box::new(Us::<L>::new(world)) as Box<dyn Subject>);
    let options = Options { tries: 60, ..Options::default() };
    Some(Judge::new(&world, &left, &right, options).run(seed, calls, 400).expect("a side was lost"))
}

fn must_agree<L: Locking>(calls: u64, seed: u64) {
    let Some(report) = judge::<L>(calls, seed) else { return };
    println!("Linux {}\n{}", host::kernel_release(), report.tally.matrix());
    if let Some(finding) = &report.finding {
        panic!("{finding}");
    }
    assert!(report.tally.success_share() >= 0.6, "{}", report.tally.success_share());
}

fn calls() -> u64 {
    std::env::var("SPILE_JUDGE_CALLS").ok().and_then(|calls| calls.parse().ok()).unwrap_or(20_000)
}

#[test]
fn the_core_and_the_kernel_agree() {
    must_agree::<VmaRefcount>(calls(), 7);
}

fn agrees<L: Locking>() {
    must_agree::<L>(calls() / 8, 8);
}

spile::test_each_design! {
    and_the_kernel_agree => agrees;
}

/// Mappings that were written separately merge, in a core with that one bug: the kernel's do not.
#[cfg(feature = "sched")]
#[test]
fn a_missing_merge_rule_is_found() {
    if std::env::var_os("SPILE_MUTATE").is_some() {
        return;
    }
    if let Err(Lost(why)) = host::traits() {
        println!("skipped: {why}");
        return;
    }
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", "the_core_and_the_kernel_agree"]).env("SPILE_MUTATE", "bug:merge-all-identities");
    let output = again.env("SPILE_JUDGE_CALLS", "20000").env("RUST_BACKTRACE", "0").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let after = text.lines().find(|line| line.starts_with("after "));
    println!("{}", after.unwrap_or("not found"));
    assert!(!output.status.success() && after.is_some(), "nobody saw that the rule was missing:\n{text}");
}
