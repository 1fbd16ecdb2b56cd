//! What regions of a pager did is played again by designs on a machine in software.
//!
//! **Guarantee.** A recording is read whole, each of its calls gives what it gave, the mappings after each change are the core's, and no fault is denied; under every design. What did not fit is
//! said.
//!
//! **Mechanism.** Two threads use two regions by all their verbs. The controls are recordings that are wrong: a line is left out, a mapping is another.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use spile_lab::design::DESIGNS;
use spile_lab::replay::Report;
use spile_linux::backing::Anonymous;
use spile_linux::{Allowed, PAGE, Pager};
use spile_mmtrace::{Kind, salvaged};

const PAGES: u64 = 64;

/// A pager, or a word why there is none.
fn pager() -> Option<Pager> {
    match Pager::builder().budget(1 << 20).build() {
        Ok(pager) => Some(pager),
        Err(refused) if refused.is_refused() => {
            println!("skipped: {refused}");
            None
        }
        Err(other) => panic!("{other}"),
    }
}

/// Everything that is noted, and how many faults.
fn used(pager: &Pager) -> u64 {
    let map = || pager.region(Anonymous::on_heap(PAGES).unwrap(), PAGES * PAGE).around(1).map().unwrap();
    let (mut first, mut second) = (map(), map());
    let mut faults = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| first.as_mut_slice::<u8>().chunks_mut(PAGE as usize).for_each(|page| page[0] = 1));
        scope.spawn(|| assert_eq!(second.as_slice::<u8>().iter().map(|byte| u64::from(*byte)).sum::<u64>(), 0));
    });
    second.protect(8 * PAGE..16 * PAGE, Allowed::Reads).unwrap();
    first.flush().unwrap();
    first.evict(0..PAGE);
    first.prefetch(0..PAGE).unwrap();
    first.discard(8 * PAGE..9 * PAGE);
    assert_eq!(first.as_slice::<u8>()[8 * PAGE as usize], 0);
    second.unmap(0..4 * PAGE).unwrap();
    for region in [&first, &second] {
        faults += region.status().faults.count();
    }
    faults
}

/// The recording of a pager, and its faults.
fn recording() -> Option<(String, u64)> {
    let pager = pager()?;
    let trace = pager.trace(10_000);
    let faults = used(&pager);
    let mut bytes = Vec::new();
    trace.write_to(&mut bytes).unwrap();
    assert_eq!(trace.lost(), 0);
    Some((String::from_utf8(bytes).unwrap(), faults))
}

/// What each design makes of it.
fn played(text: &str) -> Vec<Report> {
    let read = salvaged(text.as_bytes());
    assert!(read.torn.is_none(), "{}", read.torn.unwrap());
    DESIGNS.iter().map(|design| (design.replay)(&read.steps, &mut |_| ())).collect()
}

fn all_agrees(report: &Report) -> bool {
    let good = |(all, good)| all == good;
    report.agrees() && good(report.calls) && good(report.lines) && good(report.faults)
}

#[test]
fn what_regions_did_is_played_again() {
    let Some((text, faults)) = recording() else { return };
    let steps = salvaged(text.as_bytes()).steps;
    let count = |is: fn(&Kind) -> bool| steps.iter().filter(|step| is(&step.kind)).count();
    assert_eq!(count(|kind| matches!(kind, Kind::Fault(_))) as u64, faults);
    assert!(faults >= 2 * PAGES);
    // Two regions mapped and ended, each flushed when it ends, and what was done to them.
    assert!(count(|kind| matches!(kind, Kind::Call(..))) >= 2 * 3 + 6, "{text}");
    assert_eq!(count(|kind| matches!(kind, Kind::Vma(_))), 2 + 1, "two that were mapped, and what was protected of one");
    let threads: std::collections::BTreeSet<_> = steps.iter().map(|step| step.tid).collect();
    assert_eq!(threads.len(), 3);
    for (design, report) in DESIGNS.iter().zip(played(&text)) {
        assert!(all_agrees(&report), "{}: {report:?}\n{text}", design.name);
    }
}

/// Controls: what is not as it was is found.
#[test]
fn a_recording_that_is_wrong_is_found() {
    let Some((text, _)) = recording() else { return };
    let without = |what: &str| {
        let at = text.lines().position(|line| line.split(' ').nth(2) == Some(what)).unwrap();
        let kept = text.lines().enumerate().filter(|(n, _)| *n != at && *n != at + 1);
        kept.map(|(_, line)| format!("{line}\n")).collect::<String>()
    };
    for what in ["mmap", "mprotect"] {
        assert!(played(&without(what)).iter().all(|report| !all_agrees(report)), "without {what}");
    }
    assert!(played(&text.replace(" rw-s ", " r--s ")).iter().all(|report| !all_agrees(report)));
}

#[test]
fn what_does_not_fit_is_said() {
    let Some(pager) = pager() else { return };
    let trace = pager.trace(20);
    used(&pager);
    assert_eq!(trace.len(), 20);
    assert!(trace.lost() > 100);
    let mut bytes = Vec::new();
    trace.write_to(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.contains(&format!("# it was full: {} later events were lost\n", trace.lost())), "{text}");
    // What there is is whole.
    assert!(played(&text).iter().all(all_agrees), "{text}");
}
