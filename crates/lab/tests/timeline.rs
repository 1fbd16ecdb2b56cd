//! What was mapped when, compared with what a replay has at each moment, and with what the kernel called a heap and a stack.

use spile::{Mapping, VmaRefcount};
use spile_lab::replay::Replay;
use spile_lab::timeline::{Sort, Timeline};
use spile_mmtrace::{Call, Kind, Step, Trace, What, steps};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const MOMENTS: usize = 25;

fn recording(name: &str) -> Vec<Step> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mmtrace/traces").join(format!("{name}.mmt.xz"));
    steps(&Trace::open(path).expect("a trace")).expect("a trace in order")
}

type Spaces = BTreeMap<usize, BTreeSet<String>>;

/// What a timeline says was there at a moment.
fn told(timeline: &Timeline, moment: usize) -> Spaces {
    let mut spaces = Spaces::new();
    for (mm, stays) in &timeline.spaces {
        let there = stays.iter().filter(|stay| stay.first <= moment && moment < stay.end);
        spaces.insert(*mm, there.map(|stay| stay.mapping.to_string()).collect());
    }
    spaces.retain(|_, mappings| !mappings.is_empty());
    spaces
}

/// What is there at a moment, by a replay that goes no further.
fn there(steps: &[Step], timeline: &Timeline, moment: usize) -> Spaces {
    let until = timeline.ns(moment + 1);
    let end = steps.iter().position(|step| step.at_ns > until).unwrap_or(steps.len());
    let mut replay = Replay::<_, VmaRefcount>::new(steps);
    replay.advance(&steps[..end], &mut |_| ());
    let lines = |mappings: Vec<Mapping>| mappings.iter().map(Mapping::to_string).collect();
    replay.mappings().into_iter().map(|(mm, mappings)| (mm, lines(mappings))).collect()
}

fn differs_at(steps: &[Step], timeline: &Timeline) -> Option<usize> {
    (0..MOMENTS).step_by(6).find(|moment| told(timeline, *moment) != there(steps, timeline, *moment))
}

#[test]
fn every_moment_is_as_it_was() {
    for name in ["ls", "fibers"] {
        let steps = recording(name);
        let mut done = 0;
        let timeline = Timeline::recorded(&steps, MOMENTS, &mut |so_far| done = so_far);
        assert_eq!(differs_at(&steps, &timeline), None, "{name}");
        assert_eq!(done, steps.len(), "progress was not told to the end");
    }
}

/// The control: a timeline of a program that never unmaps is not that of one that does.
#[test]
fn another_timeline_is_found() {
    let steps = recording("fibers");
    let is_munmap = |step: &Step| matches!(step.kind, Kind::Call(Call::Munmap { .. }, _));
    let without: Vec<_> = steps.iter().filter(|step| !is_munmap(step)).cloned().collect();
    assert!(differs_at(&steps, &Timeline::recorded(&without, MOMENTS, &mut |_| ())).is_some());
}

/// Where the kernel says at an exit that a heap or a stack begins, and where the timeline does.
#[test]
fn heaps_and_stacks_are_known() {
    let mut seen = BTreeSet::new();
    for name in ["ls", "redis", "fibers"] {
        let steps = recording(name);
        let timeline = Timeline::recorded(&steps, MOMENTS, &mut |_| ());
        for step in &steps {
            let (Kind::Compare(snapshot), Some(stays)) = (&step.kind, timeline.spaces.get(&step.mm)) else { continue };
            for (what, sort) in [(What::Heap, Sort::Heap), (What::Stack, Sort::Stack)] {
                let of_kernel =
                    snapshot.vmas.iter().filter(|vma| vma.vma.what == what && vma.vma.prot != 0).map(|vma| vma.vma.end);
                let ours: BTreeSet<_> =
                    stays.iter().filter(|stay| stay.sort == sort).map(|stay| stay.mapping.range.end()).collect();
                let of_kernel: BTreeSet<_> = of_kernel.collect();
                // A heap ends elsewhere at each moment; the last one is the kernel's.
                assert!(of_kernel.is_subset(&ours), "{name}, {sort:?} of space {}: {of_kernel:x?}, {ours:x?}", step.mm);
                assert!(!of_kernel.is_empty() || ours.is_empty(), "{name}, {sort:?} of space {}: only ours {ours:x?}", step.mm);
                seen.extend(of_kernel.iter().map(|_| sort.label()));
            }
        }
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["heap", "stack"], "the recordings have neither");
}
