//! A recorded program, run through the core.
//!
//! **Guarantee.** Every call and fault of the recording is made, in the order in which the kernel made the changes; what differs from what the
//! kernel had is counted and told with its line.
//!
//! **Mechanism.** An address space per recorded one, begun with the kernel's own list at its exec. Where the kernel chose an address the
//! recorded one is asked for. Files are as long as anybody wants.

use crate::lean::Lean;
use crate::stage::Stage;
use serde::Serialize;
use spile::backing::File;
use spile::linux::{Errno, FileRights, Opened, map, remap};
use spile::{Access, Attr, Backing, Contents, Flags, Layout, Locking, Mapping, Mm, Name, Place, Prot, Range};
use spile_mmtrace::{Call, Fault, FileArg, Kind, Snapshot, SnapshotVma, Step, VmaLine, What};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::Arc;

const PAGE: u64 = spile::PAGE;
/// The memory of the machine that programs are replayed on, in frames: as much as the largest recording needs, and more. It is not there before it is used.
pub const FRAMES: u32 = 500_000;
/// So many steps are made between two words to who shows progress.
const STRIDE: usize = 1024;

/// What a replay found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Steps made.
    pub steps: usize,
    /// Exit snapshots, and those that are the same in every mapping.
    pub snapshots: (usize, usize),
    /// `V` lines, and those that agree.
    pub lines: (usize, usize),
    /// Calls, and those with the recorded result.
    pub calls: (usize, usize),
    /// Faults, and those that were allowed.
    pub faults: (usize, usize),
    /// Mappings with anonymous pages in exit snapshots, and those within one per cent or one page.
    pub anon: (usize, usize),
    /// Mappings with file pages in exit snapshots, and those that the pages touched and a window around each explain.
    pub file: (usize, usize),
    /// What the address spaces counted, all together.
    pub counters: BTreeMap<&'static str, u64>,
    /// The first differences, told.
    pub differences: Vec<String>,
}

/// All of `steps` under one design on a machine that only counts; `progress` is told how many are done.
pub fn replayed<L: Locking>(steps: &[Step], progress: &mut dyn FnMut(usize)) -> Report {
    replayed_on::<_, L>(Lean::new(1, FRAMES, false), steps, progress)
}

/// The same on this machine.
pub fn replayed_on<P: Stage, L: Locking>(stage: P, steps: &[Step], progress: &mut dyn FnMut(usize)) -> Report {
    let mut replay = Replay::<P, L>::new(stage);
    replay.advance(steps, progress);
    replay.finish()
}

impl Report {
    /// Whether nothing differs that must not: snapshots, results of calls, and all but one in two hundred of the kernel's lines.
    pub fn agrees(&self) -> bool {
        let all_good = |(all, good)| all == good;
        let (lines, good) = self.lines;
        all_good(self.snapshots) && all_good(self.calls) && lines - good <= (lines / 200).max(2)
    }

    fn differ(&mut self, step: &Step, what: String) {
        if self.differences.len() < 20 {
            self.differences.push(format!("line {}, thread {}, space {}: {what}", step.line, step.tid, step.mm));
        }
    }
}

fn count(of: &mut (usize, usize), good: bool) -> bool {
    of.0 += 1;
    of.1 += usize::from(good);
    good
}

/// Runs steps of one trace.
pub struct Replay<P: Stage, L: Locking> {
    stage: P,
    spaces: HashMap<usize, Space<P, L>>,
    files: HashMap<u32, Arc<File<P>>>,
    names: HashMap<u64, Name>,
    /// Numbers of the trace's files by ours; those of nameless objects are not in it.
    numbers: HashMap<u64, u32>,
    report: Report,
}

struct Space<P: Stage, L: Locking> {
    mm: Mm<P, L>,
    has_break: bool,
}

impl<P: Stage, L: Locking> Replay<P, L> {
    /// On this machine.
    pub fn new(stage: P) -> Self {
        let (files, numbers) = (HashMap::new(), HashMap::new());
        Self { stage, spaces: HashMap::new(), files, names: HashMap::new(), numbers, report: Report::default() }
    }

    /// Makes `steps`, which come after those made before.
    pub fn advance(&mut self, steps: &[Step], progress: &mut dyn FnMut(usize)) {
        let stage = self.stage.clone();
        let mut done = 0;
        for some in steps.chunks(STRIDE) {
            stage.run(0, || some.iter().for_each(|step| self.step(step)));
            done += some.len();
            progress(done);
        }
    }

    /// Nothing comes any more: what was found. All memory must have come home.
    pub fn finish(mut self) -> Report {
        let left: Vec<_> = self.spaces.keys().copied().collect();
        left.into_iter().for_each(|mm| self.gone(mm));
        self.files.clear();
        self.stage.finish();
        self.report
    }

    /// The mappings of each address space, by its number.
    pub fn mappings(&self) -> BTreeMap<usize, Vec<Mapping>> {
        let of = |space: &Space<P, L>| {
            let mut mappings = Vec::new();
            space.mm.each_mapping(|mapping| mappings.push(mapping));
            mappings
        };
        self.spaces.iter().map(|(mm, space)| (*mm, of(space))).collect()
    }

    /// The last user of an address space has left it.
    fn gone(&mut self, mm: usize) {
        let Some(space) = self.spaces.remove(&mm) else { return };
        for (label, count) in space.mm.counters().iter() {
            *self.report.counters.entry(label).or_default() += count;
        }
    }

    fn step(&mut self, step: &Step) {
        self.report.steps += 1;
        match &step.kind {
            Kind::Exec(snapshot, faults) => self.exec(step, snapshot, faults),
            Kind::Fork { child } => self.fork(step, *child),
            Kind::Call(call, result) => self.call(step, call, *result),
            Kind::Vma(line) => self.line(step, line),
            Kind::Fault(fault) => self.fault(step, fault),
            Kind::Compare(snapshot) => self.compare(step, snapshot),
            Kind::Gone => self.gone(step.mm),
        }
    }

    fn file(&mut self, number: u32) -> Arc<File<P>> {
        let stage = &self.stage;
        let numbers = &mut self.numbers;
        let file = self.files.entry(number).or_insert_with(|| {
            let file = File::new(stage.clone(), P::Store::default(), 1 << 44).expect("a frame for a file");
            numbers.insert(file.id(), number);
            file
        });
        file.clone()
    }

    fn exec(&mut self, step: &Step, snapshot: &Snapshot, faults: &[Fault]) {
        let mm = Mm::new(self.stage.clone(), Layout::default()).expect("a frame for an address space");
        for vma in &snapshot.vmas {
            let Ok(range) = Range::new(vma.vma.start, vma.vma.end) else { continue };
            let attr = self.attr_of(vma, range);
            mm.map(Place::Over(range), |_| attr).expect("there is memory");
        }
        self.spaces.insert(step.mm, Space { mm, has_break: false });
        faults.iter().for_each(|fault| self.fault(step, fault));
        self.write_arguments(step, snapshot);
    }

    /// The arguments were written to the stack without a fault: its top pages are there.
    fn write_arguments(&mut self, step: &Step, snapshot: &Snapshot) {
        let mm = &self.spaces[&step.mm].mm;
        for vma in snapshot.vmas.iter().filter(|vma| vma.vma.what == What::Stack) {
            let resident = || mm.resident(vma.vma.start).map_or(0, |(_, resident)| resident.anon * 4);
            let mut at = vma.vma.end;
            while resident() < vma.anon_kib {
                at -= PAGE;
                mm.fault_and_wait(at, Access::Write).expect("a stack can be written");
            }
        }
    }

    fn attr_of(&mut self, vma: &SnapshotVma, range: Range) -> Attr<P> {
        let flags = [
            ("gd", Flags::GROWS_DOWN),
            ("lo", Flags::LOCKED),
            ("dc", Flags::DONT_FORK),
            ("wf", Flags::WIPE_ON_FORK),
            ("dd", Flags::DONT_DUMP),
            ("nr", Flags::NO_RESERVE),
            ("ac", Flags::ACCOUNTED),
            ("hg", Flags::HUGE_PAGE),
            ("nh", Flags::NO_HUGE_PAGE),
            ("mw", Flags::MAY_WRITE),
            ("de", Flags::SPECIAL),
        ];
        let flags = flags.iter().filter(|(name, _)| vma.has(name)).fold(Flags::NONE, |all, (_, flag)| all.with(*flag));
        let flags = flags.with(Flags::when(vma.vma.shared, Flags::SHARED));
        let backing = match vma.vma.what {
            What::File(number) => Backing::File(self.file(number), vma.vma.offset / PAGE),
            _ => Backing::Anon(range.start() / PAGE),
        };
        Attr { prot: Prot::from_bits(vma.vma.prot), flags, backing, name: None }
    }

    fn fork(&mut self, step: &Step, child: usize) {
        let Some(Space { mm, has_break }) = self.spaces.get(&step.mm) else { return };
        let space = Space { mm: mm.fork().expect("there is memory"), has_break: *has_break };
        self.spaces.insert(child, space);
    }

    fn fault(&mut self, step: &Step, fault: &Fault) {
        let Some(Space { mm, .. }) = self.spaces.get(&step.mm) else { return };
        let access = match fault {
            Fault { write: true, .. } => Access::Write,
            Fault { exec: true, .. } => Access::Exec,
            _ => Access::Read,
        };
        let outcome = mm.fault_and_wait(fault.page * PAGE, access);
        if !count(&mut self.report.faults, outcome.is_ok()) {
            self.report.differ(step, format!("a fault at {:x}, {access:?}, is denied: {outcome:?}", fault.page * PAGE));
        }
    }

    fn call(&mut self, step: &Step, call: &Call, result: Result<u64, i32>) {
        if !self.spaces.contains_key(&step.mm) {
            return;
        }
        let ours = self.perform(step.mm, call, result);
        let Some(ours) = ours else { return };
        if !count(&mut self.report.calls, ours.map_err(|errno| errno.0) == result) {
            self.report.differ(step, format!("{call:x?} gives {ours:x?}, and gave {result:x?}"));
        }
    }

    /// Makes a call so that what the kernel chose is chosen. `None` for calls that do nothing here.
    fn perform(&mut self, mm: usize, call: &Call, result: Result<u64, i32>) -> Option<Result<u64, Errno>> {
        let file = match *call {
            Call::Mmap { file: FileArg::File(number), prot, .. } => {
                let rights = if prot & 2 != 0 { FileRights::ReadWrite } else { FileRights::Read };
                Some(Opened { file: self.file(number), rights })
            }
            _ => None,
        };
        let name = match *call {
            Call::AnonName { name, .. } if name != 0 => {
                Some(self.names.entry(name).or_insert_with(|| format!("name {name:x}").into()).clone())
            }
            _ => None,
        };
        let Space { mm, has_break } = self.spaces.get_mut(&mm)?;
        let done = |done: Result<(), Errno>| Some(done.map(|()| 0));
        match *call {
            Call::Mmap { addr, len, prot, flags, offset, .. } => {
                let (addr, fixed) = result.map_or((addr, 0), |at| (at, map::FIXED));
                Some(mm.mmap(addr, len, prot, flags | fixed, file.as_ref(), offset))
            }
            Call::Munmap { addr, len } => done(mm.munmap(addr, len)),
            Call::Mprotect { addr, len, prot } => done(mm.mprotect(addr, len, prot)),
            Call::Madvise { addr, len, advice } => done(mm.madvise(addr, len, advice as i32)),
            Call::Mremap { old, old_len, new_len, flags, new } => match result {
                Ok(at) if at != old => Some(mm.mremap(old, old_len, new_len, flags | remap::FIXED, at)),
                _ => Some(mm.mremap(old, old_len, new_len, flags, new)),
            },
            Call::Brk { addr } => {
                if !*has_break {
                    let start = result.unwrap_or(0);
                    mm.set_brk_start(start, start);
                    *has_break = true;
                }
                Some(Ok(mm.brk(addr)))
            }
            Call::Mlock { addr, len, flags } => done(mm.mlock2(addr, len, flags)),
            Call::Munlock { addr, len } => done(mm.munlock(addr, len)),
            Call::AnonName { addr, len, .. } => done(mm.set_anon_name(addr, len, name.as_ref())),
            Call::Other(_) => None,
        }
    }

    /// Whether `ours` is what the kernel has.
    fn agrees(&self, ours: &Mapping, line: &VmaLine) -> bool {
        let contents = match (ours.contents, line.what) {
            (Contents::File(id, offset), What::File(number)) => {
                // What processes share without a name is a file to the kernel too.
                let same = self.numbers.get(&id).is_none_or(|ours| *ours == number);
                same && offset == line.offset
            }
            (Contents::Anon, what) => !matches!(what, What::File(_)),
            _ => false,
        };
        contents
            && (ours.range.start(), ours.range.end()) == (line.start, line.end)
            && ours.prot.bits() == line.prot
            && ours.is_shared() == line.shared
    }

    fn line(&mut self, step: &Step, line: &VmaLine) {
        let Some(Space { mm, .. }) = self.spaces.get(&step.mm) else { return };
        let ours = mm.mapping_from(line.start);
        let agrees = ours.as_ref().is_some_and(|ours| self.agrees(ours, line));
        if !count(&mut self.report.lines, agrees) {
            let ours = ours.map_or("nothing".into(), |ours| ours.to_string());
            self.report.differ(step, format!("ours is {ours}, the kernel's {line:x?}"));
        }
    }

    fn compare(&mut self, step: &Step, snapshot: &Snapshot) {
        let Some(Space { mm, .. }) = self.spaces.get(&step.mm) else { return };
        let mut ours = Vec::new();
        mm.each_mapping(|mapping| ours.push(mapping));
        let theirs: Vec<_> = snapshot.vmas.iter().filter(|vma| Range::new(vma.vma.start, vma.vma.end).is_ok()).collect();
        let same = ours.len() == theirs.len() && ours.iter().zip(&theirs).all(|(ours, vma)| self.agrees(ours, &vma.vma));
        for vma in theirs.iter().filter(|_| same) {
            let (_, resident) = mm.resident(vma.vma.start).expect("compared above");
            let within = |ours: u64, kib: u64| (ours * 4).abs_diff(kib) <= (kib / 100).max(4);
            let file_kib = vma.rss_kib - vma.anon_kib;
            if vma.anon_kib > 0 && !count(&mut self.report.anon, within(resident.anon, vma.anon_kib)) {
                let what = format!("{} anonymous pages, the kernel has {} KiB in {:x?}", resident.anon, vma.anon_kib, vma.vma);
                self.report.differences.push(what);
            }
            if file_kib > 0 {
                count(&mut self.report.file, resident.file * 4 <= file_kib && file_kib <= resident.file * 4 * 16);
            }
        }
        if !count(&mut self.report.snapshots, same) {
            let told = self.tell(&ours, &theirs);
            self.report.differ(step, told);
        }
    }

    /// The lines that one side has and the other has not.
    fn tell(&self, ours: &[Mapping], theirs: &[&SnapshotVma]) -> String {
        let mut told = format!("{} mappings, the kernel has {}", ours.len(), theirs.len());
        for mapping in ours.iter().filter(|mapping| !theirs.iter().any(|vma| self.agrees(mapping, &vma.vma))) {
            let _ = write!(told, "\n  ours   {mapping} {:?}", mapping.flags);
        }
        for vma in theirs.iter().filter(|vma| !ours.iter().any(|mapping| self.agrees(mapping, &vma.vma))) {
            let _ = write!(told, "\n  kernel {:x?} {:?}", vma.vma, vma.flags);
        }
        told
    }
}
