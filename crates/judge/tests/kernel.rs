//! The kernel and the naive model agree, and where the model is broken on purpose they do not.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use spile_judge::compare::{Judge, Options, Report};
use spile_judge::host::{self, Host};
use spile_judge::naive::{Broken, Naive};
use spile_judge::world::Limits;
use spile_judge::{Lost, Subject, World};

/// Judges the kernel and a model. `None` where there is no kernel to ask, which is printed.
fn judge(calls: u64, tries: usize, model: impl Fn(&World) -> Naive) -> Option<Report> {
    judge_within(None, calls, tries, model)
}

/// The same, with other limits than the usual ones.
fn judge_within(limits: Option<Limits>, calls: u64, tries: usize, model: impl Fn(&World) -> Naive) -> Option<Report> {
    let world = match host::traits() {
        Ok(traits) => {
            let usual = World::new(traits);
            World { limits: limits.unwrap_or(usual.limits), ..usual }
        }
        Err(why) => {
            println!("skipped: {why}");
            return None;
        }
    };
    let left = |world: &World| Ok(Box::new(Host::new(world)?) as Box<dyn Subject>);
    let right = |world: &World| Ok(Box::new(model(world)) as Box<dyn Subject>);
    let options = Options { tries, ..Options::default() };
    Some(Judge::new(&world, &left, &right, options).run(7, calls, 400).expect("a side was lost"))
}

#[test]
fn model_and_kernel_agree() {
    let Some(report) = judge(20_000, 200, Naive::new) else { return };
    println!("Linux {}\n{}", host::kernel_release(), report.tally.matrix());
    if let Some(finding) = &report.finding {
        panic!("{finding}");
    }
    assert!(report.tally.success_share() >= 0.6, "{}", report.tally.success_share());
    assert!(report.tally.cells() >= 45, "only {} different results", report.tally.cells());
}

#[test]
fn they_agree_at_tight_limits() {
    for (mapped, locked) in [(30, 10), (12, 3), (100, 0)] {
        let limits = Limits { mapped, locked, stack: 64 };
        let Some(report) = judge_within(Some(limits), 5_000, 200, Naive::new) else { return };
        if let Some(finding) = &report.finding {
            panic!("{limits:?}: {finding}");
        }
    }
}

#[test]
fn every_broken_rule_is_found() {
    for rule in Broken::ALL {
        let Some(report) = judge(20_000, 0, |world| Naive::broken(world, rule)) else { return };
        let finding = report.finding.unwrap_or_else(|| panic!("{rule:?} was not found"));
        println!("{rule:?} is found after {} calls", finding.after);
    }
}

#[test]
fn a_finding_is_shortened() {
    let Some(report) = judge(20_000, 500, |world| Naive::broken(world, Broken::InvalidateLocked)) else { return };
    let finding = report.finding.expect("it is found");
    let verbs: Vec<_> = finding.calls.iter().map(spile_judge::Call::verb).collect();
    assert!(verbs.len() <= 4 && verbs.last() == Some(&"msync"), "{finding}");
}

#[test]
fn a_killed_process_is_lost() {
    let Ok(traits) = host::traits() else { return };
    let mut host = Host::new(&World::new(traits)).expect("there was one before");
    host.kill();
    let Lost(why) = host.perform(&spile_judge::Call::Fork).expect_err("nobody is there");
    assert!(why.contains("signal 9"), "{why}");
}
