//! The address spaces of a recorded program, and what a step does to them.
//!
//! **Guarantee.** A call is made so that what the kernel chose is chosen; what differs from what the kernel had is reported with its line. Steps
//! that do not concern each other can be made by several CPUs at once.
//!
//! **Mechanism.** An address space per recorded one, begun with the kernel's own list at its exec. Where the kernel chose an address the
//! recorded one is asked for. Files are as long as anybody wants, and are there from the beginning: nothing is locked while the core is at work.

use super::echo::Echo;
use super::report::{Report, count};
use crate::stage::Stage;
use spile::backing::File;
use spile::linux::{Errno, FileRights, Opened, map, prot, remap};
use spile::{Access, Attr, Backing, Contents, Counters, Denied, Flags, Layout, Locking, Mapping, Mm, Name, Place, Prot, Range};
use spile_mmtrace::{Call, Fault, FileArg, Kind, Snapshot, SnapshotVma, Step, VmaLine, What};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const PAGE: u64 = spile::PAGE;
/// The length of every file: nobody maps beyond it.
const FILE_LEN: u64 = 1 << 44;

/// A recorded program.
pub(crate) struct Program<P: Stage, L: Locking> {
    stage: P,
    spaces: Mutex<HashMap<usize, Arc<Space<P, L>>>>,
    files: HashMap<u32, File<P>>,
    names: HashMap<u64, Name>,
    /// Numbers of the recording's files by ours; those of nameless objects are not in it.
    numbers: HashMap<u64, u32>,
    /// What the address spaces counted that are gone.
    counted: Mutex<Counters>,
    /// Accesses of which the recording does not tell, if such are made.
    echo: Option<Mutex<Echo>>,
}

/// An address space of it.
pub(crate) struct Space<P: Stage, L: Locking> {
    pub(crate) mm: Mm<P, L>,
    has_break: AtomicBool,
}

/// Protection, whether shared, and the file.
type KindOf = (u32, bool, Option<u32>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The numbers of all files that `steps` tell of.
fn files_of(steps: &[Step]) -> impl Iterator<Item = u32> {
    steps.iter().flat_map(|step| match &step.kind {
        Kind::Exec(snapshot, _) => snapshot.vmas.iter().filter_map(|vma| file_of(vma.vma.what)).collect(),
        Kind::Call(Call::Mmap { file: FileArg::File(number), .. }, _) => vec![*number],
        _ => Vec::new(),
    })
}

fn file_of(what: What) -> Option<u32> {
    match what {
        What::File(number) => Some(number),
        _ => None,
    }
}

/// The names that `steps` give to mappings.
fn names_of(steps: &[Step]) -> impl Iterator<Item = u64> {
    steps.iter().filter_map(|step| match step.kind {
        Kind::Call(Call::AnonName { name, .. }, _) if name != 0 => Some(name),
        _ => None,
    })
}

impl<P: Stage, L: Locking> Space<P, L> {
    /// The first call of brk tells where the heap begins.
    pub(crate) fn begin_break(&self, start: u64) {
        // Relaxed: a recording's calls of brk come one after the other.
        if !self.has_break.swap(true, Ordering::Relaxed) {
            self.mm.set_brk_start(start, start);
        }
    }
}

impl<P: Stage, L: Locking> Program<P, L> {
    /// A program that will make these steps, on this machine.
    pub(crate) fn new(stage: P, steps: &[Step]) -> Self {
        let open = |_| File::new(stage.clone(), P::Store::default(), FILE_LEN).expect("a frame for a file");
        let mut files = HashMap::new();
        files_of(steps).for_each(|number| _ = files.entry(number).or_insert_with(|| open(number)));
        let numbers = files.iter().map(|(number, file)| (file.id(), *number)).collect();
        let names = names_of(steps).map(|name| (name, format!("name {name:x}").into())).collect();
        Self { stage, spaces: Mutex::default(), files, names, numbers, counted: Mutex::default(), echo: None }
    }

    /// The same, which uses its pages again. Where memory is scarce some is freed before each step.
    pub(crate) fn with_echo(self, seed: u64) -> Self {
        Self { echo: Some(Mutex::new(Echo::new(seed))), ..self }
    }

    /// The machine.
    pub(crate) fn stage(&self) -> &P {
        &self.stage
    }

    /// The address space with this number, if it is there.
    pub(crate) fn space(&self, mm: usize) -> Option<Arc<Space<P, L>>> {
        lock(&self.spaces).get(&mm).cloned()
    }

    /// What each space has once, and its place in the list of them.
    pub(crate) const SPACE: usize = size_of::<Space<P, L>>() + 4 * size_of::<usize>();

    /// How many address spaces there are, and how many mappings in all of them.
    pub(crate) fn extent(&self) -> (usize, usize) {
        let spaces = lock(&self.spaces);
        let mappings = |space: &Arc<Space<P, L>>| {
            let mut count = 0;
            space.mm.each_mapping(|_| count += 1);
            count
        };
        (spaces.len(), spaces.values().map(mappings).sum())
    }

    /// The levels of the highest index, if indices can tell.
    pub(crate) fn height(&self) -> Option<usize> {
        lock(&self.spaces).values().filter_map(|space| space.mm.height()).max()
    }

    /// The mappings of each address space, by its number.
    pub(crate) fn mappings(&self) -> BTreeMap<usize, Vec<Mapping>> {
        let of = |space: &Space<P, L>| {
            let mut mappings = Vec::new();
            space.mm.each_mapping(|mapping| mappings.push(mapping));
            mappings
        };
        lock(&self.spaces).iter().map(|(mm, space)| (*mm, of(space))).collect()
    }

    /// Nothing comes any more: what was counted in all address spaces. All memory must have come home.
    pub(crate) fn finish(mut self) -> Counters {
        let left: Vec<_> = lock(&self.spaces).keys().copied().collect();
        left.into_iter().for_each(|mm| self.gone(mm));
        self.files.clear();
        self.stage.finish();
        *lock(&self.counted)
    }

    /// The last user of an address space has left it.
    fn gone(&self, mm: usize) {
        let space = lock(&self.spaces).remove(&mm);
        if let Some(space) = space {
            self.stage.vacate(&space.mm);
            let counted = space.mm.counters();
            let mut all = lock(&self.counted);
            *all = *all + counted;
        }
    }

    /// Makes a step, and reports.
    pub(crate) fn step(&self, step: &Step, report: &mut Report) {
        report.steps += 1;
        let mut echo = self.echo.as_ref().map(lock);
        if let Some(echo) = &mut echo {
            self.stage.balance();
            match step.kind {
                Kind::Exec(..) | Kind::Gone => echo.gone(step.mm),
                Kind::Fork { child } => echo.fork(step.mm, child),
                _ => {}
            }
        }
        match &step.kind {
            Kind::Exec(snapshot, faults) => return self.exec(step, snapshot, faults, report),
            Kind::Gone => return self.gone(step.mm),
            _ => {}
        }
        let Some(space) = self.space(step.mm) else { return };
        self.stage.stay(&space.mm);
        match &step.kind {
            Kind::Fork { child } => self.fork(&space, *child),
            Kind::Call(call, result) => self.call(&space, step, call, *result, report),
            Kind::Vma(line) => self.line(&space, step, line, report),
            Kind::Fault(fault) => {
                fault_at(&space, step, fault, report);
                if let Some(echo) = &mut echo {
                    let (at, access) = (fault.page * PAGE, access_of(fault));
                    report.without_memory += echo.after(&self.stage, &space.mm, step.mm, at, access);
                }
            }
            Kind::Compare(snapshot) => self.compare(&space, step, snapshot, report),
            Kind::Exec(..) | Kind::Gone => {}
        }
    }

    fn exec(&self, step: &Step, snapshot: &Snapshot, faults: &[Fault], report: &mut Report) {
        let mm = Mm::new(self.stage.clone(), Layout::default()).expect("a frame for an address space");
        for vma in &snapshot.vmas {
            let Ok(range) = Range::new(vma.vma.start, vma.vma.end) else { continue };
            let attr = self.attr_of(vma, range);
            if let Err(why) = mm.map(Place::Over(range), |_| attr) {
                report.differ(step, format!("{range} of the list at its exec cannot be mapped: {why}"));
            }
        }
        let space = Arc::new(Space { mm, has_break: AtomicBool::new(false) });
        lock(&self.spaces).insert(step.mm, Arc::clone(&space));
        faults.iter().for_each(|fault| fault_at(&space, step, fault, report));
        write_arguments(&space.mm, snapshot);
    }

    fn attr_of(&self, vma: &SnapshotVma, range: Range) -> Attr<P> {
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
            What::File(number) => Backing::File(self.files[&number].clone(), vma.vma.offset / PAGE),
            _ => Backing::Anon(range.start() / PAGE),
        };
        Attr { prot: Prot::from_bits(vma.vma.prot), flags, backing, name: None }
    }

    fn fork(&self, parent: &Space<P, L>, child: usize) {
        let has_break = AtomicBool::new(parent.has_break.load(Ordering::Relaxed));
        let space = Space { mm: parent.mm.fork().expect("there is memory"), has_break };
        lock(&self.spaces).insert(child, Arc::new(space));
    }

    fn call(&self, space: &Space<P, L>, step: &Step, call: &Call, result: Result<u64, i32>, report: &mut Report) {
        let Some(ours) = self.perform(space, call, result) else { return };
        if !count(&mut report.calls, ours.map_err(|errno| errno.0) == result) {
            report.differ(step, format!("{call:x?} gives {ours:x?}, and gave {result:x?}"));
        }
    }

    /// Makes a call so that what the kernel chose is chosen. `None` for calls that do nothing here.
    fn perform(&self, space: &Space<P, L>, call: &Call, result: Result<u64, i32>) -> Option<Result<u64, Errno>> {
        match (call, result) {
            (&Call::Mmap { len, prot, flags, file, offset, .. }, Ok(addr)) => {
                self.make(space, &Call::Mmap { addr, len, prot, flags: flags | map::FIXED, file, offset })
            }
            (&Call::Mremap { old, old_len, new_len, flags, .. }, Ok(new)) if new != old => {
                self.make(space, &Call::Mremap { old, old_len, new_len, flags: flags | remap::FIXED, new })
            }
            (Call::Brk { .. }, Ok(now)) => {
                space.begin_break(now);
                self.make(space, call)
            }
            _ => self.make(space, call),
        }
    }

    /// Makes a call as it is. `None` for calls that do nothing here.
    pub(crate) fn make(&self, space: &Space<P, L>, call: &Call) -> Option<Result<u64, Errno>> {
        let mm = &space.mm;
        let done = |done: Result<(), Errno>| Some(done.map(|()| 0));
        match *call {
            Call::Mmap { addr, len, prot, flags, file, offset } => {
                let file = self.opened(file, prot);
                Some(mm.mmap(addr, len, prot, flags, file.as_ref(), offset))
            }
            Call::Munmap { addr, len } => done(mm.munmap(addr, len)),
            Call::Mprotect { addr, len, prot } => done(mm.mprotect(addr, len, prot)),
            Call::Madvise { addr, len, advice } => done(mm.madvise(addr, len, advice as i32)),
            Call::Mremap { old, old_len, new_len, flags, new } => Some(mm.mremap(old, old_len, new_len, flags, new)),
            Call::Brk { addr } => Some(Ok(mm.brk(addr))),
            Call::Mlock { addr, len, flags } => done(mm.mlock2(addr, len, flags)),
            Call::Munlock { addr, len } => done(mm.munlock(addr, len)),
            Call::AnonName { addr, len, name } => done(mm.set_anon_name(addr, len, self.names.get(&name))),
            Call::Other(_) => None,
        }
    }

    fn opened(&self, file: FileArg, prot: u32) -> Option<Opened<P>> {
        let FileArg::File(number) = file else { return None };
        let rights = if prot & prot::WRITE != 0 { FileRights::ReadWrite } else { FileRights::Read };
        Some(Opened { file: self.files[&number].clone(), rights })
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

    fn line(&self, space: &Space<P, L>, step: &Step, line: &VmaLine, report: &mut Report) {
        let ours = space.mm.mapping_from(line.start);
        let agrees = ours.as_ref().is_some_and(|ours| self.agrees(ours, line));
        if !count(&mut report.lines, agrees) {
            let ours = ours.map_or("nothing".into(), |ours| ours.to_string());
            report.differ(step, format!("ours is {ours}, the kernel's {line:x?}"));
        }
    }

    fn compare(&self, space: &Space<P, L>, step: &Step, snapshot: &Snapshot, report: &mut Report) {
        let mm = &space.mm;
        let mut ours = Vec::new();
        mm.each_mapping(|mapping| ours.push(mapping));
        let theirs: Vec<_> = snapshot.vmas.iter().filter(|vma| Range::new(vma.vma.start, vma.vma.end).is_ok()).collect();
        let same = ours.len() == theirs.len() && ours.iter().zip(&theirs).all(|(ours, vma)| self.agrees(ours, &vma.vma));
        for vma in theirs.iter().filter(|_| same) {
            let (_, resident) = mm.resident(vma.vma.start).expect("compared above");
            let within = |ours: u64, kib: u64| (ours * 4).abs_diff(kib) <= (kib / 100).max(4);
            let file_kib = vma.rss_kib.saturating_sub(vma.anon_kib);
            if vma.anon_kib > 0 && !count(&mut report.anon, within(resident.anon, vma.anon_kib)) {
                let what = format!("{} anonymous pages, the kernel has {} KiB in {:x?}", resident.anon, vma.anon_kib, vma.vma);
                report.differ(step, what);
            }
            if file_kib > 0 {
                count(&mut report.file, resident.file * 4 <= file_kib && file_kib <= resident.file * 4 * 16);
            }
        }
        if !count(&mut report.snapshots, same) {
            let told = self.tell(&ours, &theirs);
            report.differ(step, told);
        }
    }

    /// The bytes that are mapped of each kind, wherever they are: ours, and those of the kernel.
    fn sums(&self, space: &Space<P, L>, snapshot: &Snapshot) -> [BTreeMap<KindOf, u64>; 2] {
        let mut sums = [BTreeMap::new(), BTreeMap::new()];
        space.mm.each_mapping(|mapping| {
            let file = match mapping.contents {
                Contents::File(id, _) => self.numbers.get(&id).copied(),
                Contents::Anon => None,
            };
            *sums[0].entry((mapping.prot.bits(), mapping.is_shared(), file)).or_default() += mapping.range.len();
        });
        for SnapshotVma { vma, .. } in snapshot.vmas.iter().filter(|vma| Range::new(vma.vma.start, vma.vma.end).is_ok()) {
            // What processes share without a name is a file to the kernel, too.
            let file = file_of(vma.what).filter(|number| self.files.contains_key(number));
            *sums[1].entry((vma.prot, vma.shared, file)).or_default() += vma.end - vma.start;
        }
        sums
    }

    /// Compares how much is mapped, of each kind, with what the kernel has, and not where.
    pub(crate) fn compare_sums(&self, space: &Space<P, L>, step: &Step, snapshot: &Snapshot, report: &mut Report) {
        let [ours, theirs] = self.sums(space, snapshot);
        if !count(&mut report.snapshots, ours == theirs) {
            report.differ(step, format!("bytes by protection, sharing and file are {ours:x?}, the kernel's {theirs:x?}"));
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

fn access_of(fault: &Fault) -> Access {
    match fault {
        Fault { write: true, .. } => Access::Write,
        Fault { exec: true, .. } => Access::Exec,
        _ => Access::Read,
    }
}

fn fault_at<P: Stage, L: Locking>(space: &Space<P, L>, step: &Step, fault: &Fault, report: &mut Report) {
    let access = access_of(fault);
    let outcome = space.mm.fault_and_wait(fault.page * PAGE, access);
    report.without_memory += usize::from(matches!(outcome, Err(Denied::NoMemory)));
    if !count(&mut report.faults, outcome.is_ok()) {
        report.differ(step, format!("a fault at {:x}, {access:?}, is denied: {outcome:?}", fault.page * PAGE));
    }
}

/// The arguments were written to the stack without a fault: its top pages are there.
fn write_arguments<P: Stage, L: Locking>(mm: &Mm<P, L>, snapshot: &Snapshot) {
    for vma in snapshot.vmas.iter().filter(|vma| vma.vma.what == What::Stack) {
        let resident = || mm.resident(vma.vma.start).map_or(0, |(_, resident)| resident.anon * 4);
        let mut pages = (vma.vma.start / PAGE..vma.vma.end / PAGE).rev();
        while resident() < vma.anon_kib
            && let Some(at) = pages.next()
        {
            // Who lies about its stack is found when it is compared.
            _ = mm.fault_and_wait(at * PAGE, Access::Write);
        }
    }
}
