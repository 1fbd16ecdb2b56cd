//! A recorded program whose mappings are placed anew.
//!
//! **Guarantee.** Every call and fault is made, about the mapping that it was about; where that is is the core's choice, made when it is mapped. What is
//! mapped in the end is of the same size, kind by kind, as what the kernel had.
//!
//! **Mechanism.** As registers are renamed in a CPU. A program that was recorded on two CPUs gives addresses back before it asks for others, so the
//! recorded ones would put its threads in a row that it does not need. [`Renaming`] follows which *area* (what one mmap made) each address belongs
//! to, in the recorded order. Between steps of different areas there is no order but that of their threads. What was there at the exec, and the
//! heap, keep their addresses: area 0.

use super::footprint::{Footprint, Footprints, Span, end_of};
use crate::replay::{FRAMES, Program, Report, count, replayed};
use crate::stage::Stage;
use spile::linux::{map, remap};
use spile::{Locking, PAGE, VmaRefcount};
use spile_mmtrace::{Call, Fault, Kind, Step};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// What keeps its addresses.
const FIXED: u32 = 0;

/// How a step is made elsewhere.
#[derive(Debug)]
enum Move {
    /// As it is.
    As,
    /// It makes an area.
    New(u32),
    /// It is about these parts of areas, in recorded addresses.
    Parts(Box<[Part]>),
    /// It makes an area where these parts of others were.
    Over(Box<[Part]>, u32),
    /// It moves a part, or enlarges it, and so makes an area.
    Moves(Part, u32),
    /// It is not made: the kernel's lines are about places, and so is what it refused.
    Not,
}

#[derive(Clone, Debug)]
struct Part {
    area: u32,
    range: Range<u64>,
}

impl Part {
    fn len(&self) -> u64 {
        self.range.end - self.range.start
    }
}

/// Which areas steps are about.
#[derive(Debug)]
pub(super) struct Renaming {
    moves: Vec<Move>,
    areas: usize,
}

/// The footprints of `steps` where every area finds its own place.
pub fn freely(steps: &[Step]) -> Footprints {
    let mut namer = Namer::default();
    let (moves, footprints) = steps.iter().map(|step| namer.take(step)).unzip();
    let faults = steps.iter().filter(|step| matches!(step.kind, Kind::Fault(_))).count();
    let renaming = Some(Renaming { moves, areas: namer.areas as usize + 1 });
    let denied = replayed::<VmaRefcount>(steps, &mut |_| ()).denied();
    // As if nothing was given back: nobody knows what is in memory at once.
    Footprints { steps: footprints, frames: (faults as u32).min(FRAMES), denied, renaming }
}

/// The areas of an address space: from first address to end and area.
type Areas = BTreeMap<u64, (u64, u32)>;

#[derive(Default)]
struct Namer {
    spaces: HashMap<usize, Areas>,
    breaks: HashMap<usize, u64>,
    areas: u32,
}

impl Namer {
    fn take(&mut self, step: &Step) -> (Move, Footprint) {
        let (way, reach) = match &step.kind {
            Kind::Exec(snapshot, _) => {
                let fixed = |vma: &spile_mmtrace::SnapshotVma| (vma.vma.start, (vma.vma.end, FIXED));
                self.spaces.insert(step.mm, snapshot.vmas.iter().map(fixed).collect());
                (Move::As, None)
            }
            Kind::Fork { child } => {
                let copy = self.spaces.get(&step.mm).cloned().unwrap_or_default();
                self.spaces.insert(*child, copy);
                return (Move::As, Footprint::everything(step.mm, Some(*child)));
            }
            Kind::Compare(_) => (Move::As, None),
            Kind::Gone => {
                self.spaces.remove(&step.mm);
                (Move::As, None)
            }
            Kind::Vma(_) => (Move::Not, Some(Vec::new())),
            Kind::Fault(fault) => {
                let at = fault.page * PAGE;
                let end = at.saturating_add(PAGE);
                let parts = self.parts(step.mm, at, end);
                let parts = if parts.is_empty() { vec![Part { area: FIXED, range: at..end }] } else { parts };
                let reach = spans(&parts, false);
                (Move::Parts(parts.into()), Some(reach))
            }
            Kind::Call(call, result) => self.call(step.mm, call, *result),
        };
        let footprint = match reach {
            None => Footprint::everything(step.mm, None),
            Some(reach) => Footprint::spans(step.mm, reach),
        };
        (way, footprint)
    }

    /// How a call is made, and what it reaches; none if that is everything.
    fn call(&mut self, mm: usize, call: &Call, result: Result<u64, i32>) -> (Move, Option<Vec<Span>>) {
        // A call of brk that fails tells where the break is.
        let Ok(result) = result else { return (Move::Not, Some(Vec::new())) };
        let (at, len) = match *call {
            Call::Mmap { len, flags, .. } if flags & (map::FIXED | map::FIXED_NOREPLACE) == 0 => {
                let area = self.place(mm, result..end_of(result, len));
                let span = Span { area, from: result, to: end_of(result, len).saturating_sub(1), changes: true };
                return (Move::New(area), Some(vec![span]));
            }
            Call::Mmap { len, .. } => (result, len),
            Call::Mremap { old, old_len, new_len, flags, .. } => {
                return self.moves(mm, old..end_of(old, old_len), new_len, flags, result);
            }
            Call::Brk { .. } => {
                let from = *self.breaks.entry(mm).or_insert(result);
                if result > from {
                    self.cut(mm, from..result);
                    self.areas_of(mm).insert(from, (end_of(result, 0), FIXED));
                }
                // From 0: calls that move the break are in order, whatever they do.
                return (Move::As, Some(vec![Span { area: FIXED, from: 0, to: result.max(from), changes: true }]));
            }
            _ => match call.range() {
                Some(range) => range,
                None => return (Move::Not, Some(Vec::new())),
            },
        };
        let range = at..end_of(at, len);
        let mut parts = self.parts(mm, range.start, range.end);
        match call {
            Call::Munmap { .. } => self.cut(mm, range.clone()),
            // What is mapped over an area, and nowhere else, is a part of it.
            Call::Mmap { .. } if !parts.iter().any(|part| part.range == range) => {
                let area = self.place(mm, range.clone());
                let mut reach = spans(&parts, true);
                reach.push(Span { area, from: range.start, to: range.end.saturating_sub(1), changes: true });
                return (Move::Over(parts.into(), area), Some(reach));
            }
            _ => {}
        }
        if parts.is_empty() {
            parts.push(Part { area: FIXED, range });
        }
        let reach = spans(&parts, true);
        (Move::Parts(parts.into()), Some(reach))
    }

    fn moves(&mut self, mm: usize, old: Range<u64>, new_len: u64, flags: u32, at: u64) -> (Move, Option<Vec<Span>>) {
        let part = self.parts(mm, old.start, old.end).into_iter().next();
        let Some(part) = part else { return (Move::As, None) };
        if flags & remap::DONTUNMAP == 0 {
            self.cut(mm, old);
        }
        let area = self.place(mm, at..end_of(at, new_len));
        (Move::Moves(part, area), None)
    }

    fn areas_of(&mut self, mm: usize) -> &mut Areas {
        self.spaces.entry(mm).or_default()
    }

    /// A new area.
    fn place(&mut self, mm: usize, range: Range<u64>) -> u32 {
        self.areas += 1;
        let area = self.areas;
        self.cut(mm, range.clone());
        self.areas_of(mm).insert(range.start, (range.end, area));
        area
    }

    /// The parts of areas between two addresses.
    fn parts(&mut self, mm: usize, from: u64, to: u64) -> Vec<Part> {
        let areas = self.areas_of(mm);
        let before = areas.range(..from).next_back().filter(|(_, (end, _))| *end > from);
        let met = before.into_iter().chain(areas.range(from..to));
        met.map(|(start, (end, area))| Part { area: *area, range: from.max(*start)..to.min(*end) }).collect()
    }

    /// Nothing is there any more.
    fn cut(&mut self, mm: usize, range: Range<u64>) {
        let areas = self.areas_of(mm);
        let before = areas.range(..range.start).next_back().filter(|(_, (end, _))| *end > range.start);
        let mut met: Vec<_> = before.map(|(start, end)| (*start, *end)).into_iter().collect();
        met.extend(areas.range(range.clone()).map(|(start, end)| (*start, *end)));
        for (start, (end, area)) in met {
            areas.remove(&start);
            if start < range.start {
                areas.insert(start, (range.start, area));
            }
            if end > range.end {
                areas.insert(range.end, (end, area));
            }
        }
    }
}

fn spans(parts: &[Part], changes: bool) -> Vec<Span> {
    parts
        .iter()
        .map(|part| Span { area: part.area, from: part.range.start, to: part.range.end.saturating_sub(1), changes })
        .collect()
}

/// A program whose areas are where the core puts them.
pub(super) struct Freely<'r> {
    renaming: &'r Renaming,
    /// By how much each area has moved; written once, by the step that all others of the area come after.
    moved: Box<[AtomicU64]>,
}

impl<'r> Freely<'r> {
    pub(super) fn new(renaming: &'r Renaming) -> Self {
        Self { renaming, moved: (0..renaming.areas).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Where a recorded address of an area is.
    fn now(&self, area: u32, at: u64) -> u64 {
        // Relaxed: who asks comes after who placed it, by the plan.
        at.wrapping_add(self.moved[area as usize].load(Ordering::Relaxed))
    }

    fn place(&self, area: u32, recorded: u64, now: u64) {
        // Relaxed: as above.
        self.moved[area as usize].store(now.wrapping_sub(recorded), Ordering::Relaxed);
    }

    /// Makes the step at this place of the recording.
    pub(super) fn step<P: Stage, L: Locking>(&self, program: &Program<P, L>, at: usize, step: &Step, report: &mut Report) {
        let call = match (&step.kind, &self.renaming.moves[at]) {
            (_, Move::Not) => return,
            (Kind::Fault(fault), Move::Parts(parts)) => {
                let page = self.now(parts[0].area, fault.page * PAGE) / PAGE;
                let moved = Step { kind: Kind::Fault(Fault { page, ..*fault }), ..*step };
                return program.step(&moved, report);
            }
            (Kind::Compare(snapshot), _) => {
                report.steps += 1;
                if let Some(space) = program.space(step.mm) {
                    program.compare_sums(&space, step, snapshot, report);
                }
                return;
            }
            (Kind::Call(call, result), way @ (Move::New(_) | Move::Over(..) | Move::Parts(_) | Move::Moves(..))) => {
                (call, *result, way)
            }
            _ => return program.step(step, report),
        };
        report.steps += 1;
        let Some(space) = program.space(step.mm) else { return };
        program.stage().stay(&space.mm);
        let (call, result, way) = call;
        let made = |call: Call| program.make(&space, &call).unwrap_or(Ok(0)).map_err(|errno| errno.0);
        let ours = match (way, call) {
            (Move::New(area) | Move::Over(_, area), Call::Mmap { len, prot, flags, file, offset, .. }) => {
                if let Move::Over(parts, _) = way {
                    let gone = |part: &Part| Call::Munmap { addr: self.now(part.area, part.range.start), len: part.len() };
                    parts.iter().for_each(|part| _ = made(gone(part)));
                }
                let flags = flags & !(map::FIXED | map::FIXED_NOREPLACE);
                let placed = made(Call::Mmap { addr: 0, len: *len, prot: *prot, flags, file: *file, offset: *offset });
                placed.inspect(|now| self.place(*area, result.unwrap_or(0), *now))
            }
            (Move::Moves(part, area), Call::Mremap { old_len, new_len, flags, .. }) => {
                let old = self.now(part.area, part.range.start);
                let flags = (flags & !remap::FIXED) | remap::MAYMOVE;
                let placed = made(Call::Mremap { old, old_len: *old_len, new_len: *new_len, flags, new: 0 });
                placed.inspect(|now| self.place(*area, result.unwrap_or(0), *now))
            }
            (Move::Parts(parts), call) => {
                parts.iter().try_fold(0, |_, part| made(about(call, self.now(part.area, part.range.start), part)))
            }
            _ => unreachable!("only calls that map make areas"),
        };
        if !count(&mut report.calls, ours.is_ok() == result.is_ok()) {
            report.differ(step, format!("{call:x?}, placed anew, gives {ours:x?}, and gave {result:x?}"));
        }
    }
}

/// Makes a step, at the recorded place or where it was placed anew.
pub(super) fn made<P: Stage, L: Locking>(
    program: &Program<P, L>,
    freely: Option<&Freely<'_>>,
    at: usize,
    step: &Step,
    report: &mut Report,
) {
    match freely {
        Some(freely) => freely.step(program, at, step, report),
        None => program.step(step, report),
    }
}

/// The call, about a part that begins at `addr` now.
fn about(call: &Call, addr: u64, part: &Part) -> Call {
    let len = part.len();
    match *call {
        Call::Mmap { prot, flags, file, offset, .. } => {
            let flags = (flags & !map::FIXED_NOREPLACE) | map::FIXED;
            Call::Mmap { addr, len, prot, flags, file, offset }
        }
        Call::Munmap { .. } => Call::Munmap { addr, len },
        Call::Mprotect { prot, .. } => Call::Mprotect { addr, len, prot },
        Call::Madvise { advice, .. } => Call::Madvise { addr, len, advice },
        Call::Mlock { flags, .. } => Call::Mlock { addr, len, flags },
        Call::Munlock { .. } => Call::Munlock { addr, len },
        Call::AnonName { name, .. } => Call::AnonName { addr, len, name },
        Call::Mremap { .. } | Call::Brk { .. } | Call::Other(_) => unreachable!("they are not about parts"),
    }
}
