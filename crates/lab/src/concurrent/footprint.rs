//! What a step of a recording looks at, and what it changes.
//!
//! **Guarantee.** If two steps do not meet, their order makes no difference to what is mapped, and none to what is in memory.
//!
//! **Mechanism.** Changes and lines of the kernel reach as far as their range, and one byte further on either side, where mappings merge. A fault
//! reaches its page. The first store into a mapping gives it an anonymous identity, which decides about merges: it counts as a change of
//! the whole mapping. So does the growth of a stack.

use crate::lean::Lean;
use crate::replay::{FRAMES, Program, Report};
use crate::stage::Stage as _;
use spile::{PAGE, VmaRefcount};
use spile_mmtrace::{Call, Fault, Kind, Step};
use std::collections::{BTreeMap, HashMap};

/// What a step reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// The address space.
    mm: usize,
    /// The copy that it makes.
    copy: Option<usize>,
    reach: Reach,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Nothing,
    /// From one address to another, both included.
    Span {
        from: u64,
        to: u64,
        changes: bool,
    },
    Everything,
}

impl Footprint {
    /// Whether the order of the two matters.
    pub(super) fn meets(&self, other: &Self) -> bool {
        // A copy has no steps before it is made, and everything of it comes after.
        let one_space = self.mm == other.mm || other.copy == Some(self.mm);
        one_space
            && match (self.reach, other.reach) {
                (Reach::Nothing, _) | (_, Reach::Nothing) => false,
                (Reach::Everything, _) | (_, Reach::Everything) => true,
                (
                    Reach::Span { from, to, changes },
                    Reach::Span { from: others_from, to: others_to, changes: others_changes },
                ) => (changes || others_changes) && from <= others_to && others_from <= to,
            }
    }
}

/// The mappings of an address space that were stored to since somebody changed them last: from first address to end.
type Stored = BTreeMap<u64, u64>;

/// The footprints of steps, and what they need.
#[derive(Debug)]
pub struct Footprints {
    /// Of each step.
    pub steps: Vec<Footprint>,
    /// Frames and tables in use at most, one step after the other.
    pub frames: u32,
}

/// The footprints of `steps`, found by making them in order; `progress` is told how many are done.
pub fn footprints(steps: &[Step], progress: &mut dyn FnMut(usize)) -> Footprints {
    let program = Program::<_, VmaRefcount>::new(Lean::new(1, FRAMES, false), steps);
    let mut finder = Finder { program, stored: HashMap::new() };
    let mut found = Vec::with_capacity(steps.len());
    for step in steps {
        found.push(finder.find(step));
        if found.len().is_multiple_of(1024) {
            progress(found.len());
        }
    }
    let frames = finder.program.stage().peak() as u32;
    finder.program.finish();
    progress(found.len());
    Footprints { steps: found, frames }
}

struct Finder {
    program: Program<Lean, VmaRefcount>,
    stored: HashMap<usize, Stored>,
}

impl Finder {
    /// Makes the step.
    fn find(&mut self, step: &Step) -> Footprint {
        let heap = self.heap_end(step.mm);
        let before = self.before(step);
        let stage = self.program.stage().clone();
        stage.run(0, || self.program.step(step, &mut Report::default()));
        let reach = match step.kind {
            Kind::Call(Call::Brk { .. }, _) => {
                let (old, new) = (heap, self.heap_end(step.mm));
                // From 0: calls that move the break are in order, whatever they do.
                Reach::Span { from: 0, to: old.max(new), changes: true }
            }
            _ => before,
        };
        self.forget(step.mm, reach);
        let copy = match step.kind {
            Kind::Fork { child } => Some(child),
            _ => None,
        };
        Footprint { mm: step.mm, copy, reach }
    }

    fn heap_end(&self, mm: usize) -> u64 {
        self.program.space(mm).map_or(0, |space| space.mm.brk(0))
    }

    /// What the step reaches in the mappings as they are.
    fn before(&mut self, step: &Step) -> Reach {
        match &step.kind {
            Kind::Exec(..) | Kind::Fork { .. } | Kind::Compare(_) | Kind::Gone => Reach::Everything,
            Kind::Vma(line) => Reach::Span { from: line.start, to: line.end, changes: false },
            Kind::Fault(fault) => self.fault(step.mm, fault),
            Kind::Call(call, result) => change(call, *result),
        }
    }

    fn fault(&mut self, mm: usize, fault: &Fault) -> Reach {
        let at = fault.page * PAGE;
        let Some(space) = self.program.space(mm) else { return Reach::Nothing };
        let page = Reach::Span { from: at + 1, to: at + 1, changes: false };
        let Some(mapping) = space.mm.mapping_from(at) else { return page };
        let (start, end) = (mapping.range.start(), mapping.range.end());
        if at < start {
            return Reach::Span { from: at, to: end, changes: true };
        }
        let stored = self.stored.entry(mm).or_default();
        if !fault.write || stored.insert(start, end) == Some(end) {
            return page;
        }
        Reach::Span { from: start, to: end, changes: true }
    }

    /// What was changed may get another identity. (What merely got its first is remembered.)
    fn forget(&mut self, mm: usize, reach: Reach) {
        let Some(stored) = self.stored.get_mut(&mm) else { return };
        match reach {
            Reach::Span { from, to, changes: true } => {
                stored.retain(|start, end| (*start, *end) == (from, to) || *end < from || *start > to);
            }
            Reach::Everything => stored.clear(),
            Reach::Span { .. } | Reach::Nothing => {}
        }
    }
}

fn change(call: &Call, result: Result<u64, i32>) -> Reach {
    let (at, len) = match *call {
        Call::Mmap { len, .. } => match result {
            Ok(at) => (at, len),
            Err(_) => return Reach::Everything,
        },
        Call::Munmap { addr, len }
        | Call::Mprotect { addr, len, .. }
        | Call::Madvise { addr, len, .. }
        | Call::Mlock { addr, len, .. }
        | Call::Munlock { addr, len }
        | Call::AnonName { addr, len, .. } => (addr, len),
        Call::Mremap { .. } | Call::Brk { .. } => return Reach::Everything,
        Call::Other(_) => return Reach::Nothing,
    };
    let end = at.saturating_add(len).checked_next_multiple_of(PAGE).unwrap_or(u64::MAX);
    Reach::Span { from: at, to: end, changes: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(from: u64, to: u64, changes: bool) -> Footprint {
        Footprint { mm: 1, copy: None, reach: Reach::Span { from, to, changes } }
    }

    #[test]
    fn neighbours_meet_and_readers_do_not() {
        let change = span(0x2000, 0x4000, true);
        assert!(change.meets(&span(0x4000, 0x5000, true)), "they may merge");
        assert!(!change.meets(&span(0x5000, 0x6000, true)));
        let fault = |page: u64| span(page * PAGE + 1, page * PAGE + 1, false);
        assert!(change.meets(&fault(2)) && change.meets(&fault(3)));
        assert!(!change.meets(&fault(4)) && !change.meets(&fault(1)), "other pages");
        assert!(!fault(2).meets(&fault(2)), "two faults on a page are in no order");
        let elsewhere = Footprint { mm: 2, ..change };
        assert!(!change.meets(&elsewhere));
        let fork = Footprint { mm: 1, copy: Some(2), reach: Reach::Everything };
        assert!(elsewhere.meets(&fork) && change.meets(&fork), "what a copy does comes after it");
    }
}
