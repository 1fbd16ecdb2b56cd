//! What steps reach where everything is mapped at the recorded place.
//!
//! **Guarantee.** Steps that do not meet leave the same mappings in any order, merged alike: every line and snapshot of the kernel agrees.
//!
//! **Mechanism.** A replay in order. Changes and lines of the kernel reach as far as their range, and one byte further, where mappings merge. A fault
//! reaches its page. The first store into a mapping gives it an anonymous identity, which decides about merges: it counts as a change of
//! the whole mapping. So does the growth of a stack.

use super::footprint::{Footprint, Footprints, Span, end_of};
use crate::lean::Lean;
use crate::replay::{FRAMES, Program, Report};
use crate::stage::Stage as _;
use spile::linux::advice;
use spile::{PAGE, VmaRefcount};
use spile_mmtrace::{Call, Fault, Kind, Step};
use std::collections::{BTreeMap, HashMap};

/// What a step reaches; none: everything.
type Reach = Option<Vec<Span>>;

fn span(from: u64, to: u64, changes: bool) -> Reach {
    Some(vec![Span { area: 0, from, to, changes }])
}

/// The mappings of an address space that were stored to since somebody changed them last: from first address to end.
type Stored = BTreeMap<u64, u64>;

/// The footprints of `steps` where they were recorded; `progress` is told how many are done.
pub fn as_recorded(steps: &[Step], progress: &mut dyn FnMut(usize)) -> Footprints {
    let program = Program::<_, VmaRefcount>::new(Lean::new(1, FRAMES, false), steps);
    let mut finder = Finder { program, stored: HashMap::new(), report: Report::default() };
    let mut found = Vec::with_capacity(steps.len());
    for step in steps {
        found.push(finder.find(step));
        if found.len().is_multiple_of(1024) {
            progress(found.len());
        }
    }
    let frames = finder.program.stage().peak() as u32;
    let denied = finder.report.denied();
    finder.program.finish();
    progress(found.len());
    Footprints { steps: found, frames, denied, renaming: None }
}

struct Finder {
    program: Program<Lean, VmaRefcount>,
    stored: HashMap<usize, Stored>,
    report: Report,
}

impl Finder {
    /// Makes the step.
    fn find(&mut self, step: &Step) -> Footprint {
        let heap = self.heap_end(step.mm);
        let before = self.before(step);
        let stage = self.program.stage().clone();
        stage.run(0, || self.program.step(step, &mut self.report));
        let reach = match step.kind {
            Kind::Call(Call::Brk { .. }, _) => {
                let (old, new) = (heap, self.heap_end(step.mm));
                // From 0: calls that move the break are in order, whatever they do.
                span(0, old.max(new), true)
            }
            _ => before,
        };
        if !matches!(step.kind, Kind::Fault(_)) {
            self.forget(step.mm, reach.as_deref());
        }
        match (reach, &step.kind) {
            (Some(spans), _) => Footprint::spans(step.mm, spans),
            (None, Kind::Fork { child }) => Footprint::everything(step.mm, Some(*child)),
            (None, _) => Footprint::everything(step.mm, None),
        }
    }

    fn heap_end(&self, mm: usize) -> u64 {
        self.program.space(mm).map_or(0, |space| space.mm.brk(0))
    }

    /// What the step reaches in the mappings as they are.
    fn before(&mut self, step: &Step) -> Reach {
        match &step.kind {
            Kind::Exec(..) | Kind::Fork { .. } | Kind::Compare(_) | Kind::Gone => None,
            Kind::Vma(line) => span(line.start, line.end, false),
            Kind::Fault(fault) => self.fault(step.mm, fault),
            Kind::Call(call, result) => change(call, *result),
        }
    }

    fn fault(&mut self, mm: usize, fault: &Fault) -> Reach {
        let at = fault.page * PAGE;
        let Some(space) = self.program.space(mm) else { return Some(Vec::new()) };
        let page = span(at + 1, at + 1, false);
        let Some(mapping) = space.mm.mapping_from(at) else { return page };
        let (start, end) = (mapping.range.start(), mapping.range.end());
        if at < start {
            return span(at, end, true);
        }
        let stored = self.stored.entry(mm).or_default();
        if !fault.write || stored.insert(start, end) == Some(end) {
            return page;
        }
        span(start, end, true)
    }

    /// What was changed may get another identity.
    fn forget(&mut self, mm: usize, reach: Option<&[Span]>) {
        let Some(stored) = self.stored.get_mut(&mm) else { return };
        let Some(spans) = reach else { return stored.clear() };
        for span in spans.iter().filter(|span| span.changes) {
            stored.retain(|start, end| *end < span.from || *start > span.to);
        }
    }
}

fn change(call: &Call, result: Result<u64, i32>) -> Reach {
    let (at, len) = match *call {
        // It gives the mappings that it reaches identities.
        Call::Madvise { advice, .. } if advice as i32 == advice::POPULATE_WRITE => return None,
        Call::Mmap { len, .. } => (result.ok()?, len),
        Call::Other(_) => return Some(Vec::new()),
        _ => call.range()?,
    };
    span(at, end_of(at, len), true)
}
