//! The core under test, on the simulator.
//!
//! **Guarantee.** A call reaches the core's verbs with the numbers it has; nothing is decided here but what a number means to a process: its files,
//! its break, its window.
//!
//! **Mechanism.** One simulated CPU. A fork's child is the subject until it exits.

use crate::abi::PAGE;
use crate::call::Call;
use crate::subject::{Backing, Counters, Lost, MapLine, Outcome, PageView, Signal, Subject, VmFlags, hash_bytes};
use crate::world::World;
use spile::linux::{Errno, FileRights, Limit, Opened};
use spile::{Attr, Denied, Flags, Kind, Layout, Locking, Mm, Name, Partial, Place, Prot, Range};
use spile_sim::{Content, Sim};
use std::collections::HashMap;

/// Where the break begins: anywhere outside of the window.
const BREAK: u64 = 0x5555_5555_5000;
/// Enough for what the limits allow, and for page caches.
const FRAMES: u32 = 20_000;

/// Address spaces of the core, the youngest of which is the subject.
pub struct Us<L: Locking> {
    world: World,
    sim: Sim,
    files: Vec<Opened<Sim>>,
    /// The world's objects by the core's numbers of files.
    objects: HashMap<u64, usize>,
    spaces: Vec<Mm<Sim, L>>,
}

impl<L: Locking> Drop for Us<L> {
    /// What waits for a grace period has the simulator, and is in it: it would stay for ever. And no frame may be missing.
    fn drop(&mut self) {
        self.spaces.clear();
        self.files.clear();
        if !std::thread::panicking() {
            self.sim.finish();
        }
    }
}

impl<L: Locking> Us<L> {
    /// With nothing mapped and fresh files.
    pub fn new(world: &World) -> Self {
        let sim = Sim::builder().cpus(1).frames(FRAMES).build();
        let mut objects = HashMap::new();
        let made: Vec<_> = (0..world.objects.len())
            .map(|object| {
                let len = world.objects[object].len;
                let bytes = (0..len).map(|at| World::byte(object, at)).collect();
                let file = sim.file(&Content::new(bytes), len).expect("a frame for a file");
                objects.insert(file.id(), object);
                file
            })
            .collect();
        let rights = |file: &crate::world::File| match (file.readable, file.writable) {
            (true, true) => FileRights::ReadWrite,
            (true, false) => FileRights::Read,
            _ => FileRights::Write,
        };
        let files = world.files.iter().map(|file| Opened { file: made[file.object].reopen(), rights: rights(file) }).collect();
        let all = Layout::default().all;
        let all = Range::new(world.traits.min_addr, all.end()).expect("whole pages");
        let layout = Layout { all, ..Layout::default() };
        let mm: Mm<Sim, L> = Mm::new(sim.clone(), layout).expect("a frame for an address space");
        mm.set_brk_start(BREAK, BREAK);
        mm.set_exec_only(world.traits.exec_only);
        let limits = [
            (Limit::AddressSpace, world.limits.mapped),
            (Limit::Locked, world.limits.locked),
            (Limit::Stack, world.limits.stack),
        ];
        limits.iter().for_each(|(limit, pages)| mm.limits().set(*limit, pages * PAGE));
        Self { world: world.clone(), sim, files, objects, spaces: vec![mm] }
    }

    fn now(&self) -> &Mm<Sim, L> {
        self.spaces.last().expect("there is always a process")
    }

    fn step(&mut self, call: &Call) -> Outcome {
        let mm = self.now();
        let done = |result: Result<(), Errno>| Outcome::from(result.map(|()| 0).map_err(|errno| errno.0));
        match call {
            Call::Mmap { addr, len, prot, flags, file, offset } => {
                let file = file.map(|file| &self.files[file]);
                self.placed(mm.mmap(*addr, *len, *prot, *flags, file, *offset), *len)
            }
            Call::Mremap { old, old_len, new_len, flags, new_addr } => {
                self.placed(mm.mremap(*old, *old_len, *new_len, *flags, *new_addr), *new_len)
            }
            Call::Munmap { addr, len } => done(mm.munmap(*addr, *len)),
            Call::Mprotect { addr, len, prot } => done(mm.mprotect(*addr, *len, *prot)),
            Call::Brk { offset } => Outcome::Done(mm.brk(BREAK.wrapping_add(*offset)) - BREAK),
            Call::Madvise { addr, len, advice } => done(mm.madvise(*addr, *len, *advice)),
            Call::Mlock { addr, len } => done(mm.mlock(*addr, *len)),
            Call::Mlock2 { addr, len, flags } => done(mm.mlock2(*addr, *len, *flags)),
            Call::Munlock { addr, len } => done(mm.munlock(*addr, *len)),
            Call::Msync { addr, len, flags } => done(mm.msync(*addr, *len, *flags)),
            // Where the kernel was built without names it knows no such call.
            Call::Name { .. } if !self.world.traits.anon_names => Outcome::Failed(Errno::EINVAL.0),
            Call::Name { addr, len, name } => {
                let name: Option<Name> = name.as_deref().map(Name::from);
                done(mm.set_anon_name(*addr, *len, name.as_ref()))
            }
            Call::Read { addr, len } => {
                let mut bytes = vec![0; *len as usize];
                let (count, fault) = copied(mm.read_user(*addr, &mut bytes), *len);
                Outcome::Bytes { count, hash: hash_bytes(&bytes[..count as usize]), fault }
            }
            Call::Write { addr, len, seed } => {
                let bytes: Vec<_> = (0..*len).map(|at| World::written(*seed, at)).collect();
                let (count, fault) = copied(mm.write_user(*addr, &bytes), *len);
                Outcome::Bytes { count, hash: 0, fault }
            }
            Call::Fork => {
                let child = mm.fork().expect("there is memory");
                self.spaces.push(child);
                Outcome::Done(0)
            }
            Call::Exit => {
                if self.spaces.len() > 1 {
                    self.spaces.pop();
                }
                Outcome::Done(0)
            }
        }
    }

    fn placed(&self, result: Result<u64, Errno>, len: u64) -> Outcome {
        match result {
            Ok(at) if !self.world.contains(at) => {
                self.now().munmap(at, len).expect("it was just mapped");
                Outcome::Elsewhere
            }
            result => result.map_err(|errno| errno.0).into(),
        }
    }

    fn lines(&self) -> Vec<MapLine> {
        let mut lines = Vec::new();
        self.now().each_mapping(|mapping| {
            let (backing, offset) = match mapping.contents {
                spile::Contents::Anon => (Backing::Anonymous, 0),
                spile::Contents::File(id, offset) => {
                    let object = self.objects.get(&id);
                    (object.map_or(Backing::SharedAnonymous, |object| Backing::Object(*object)), offset)
                }
            };
            let (start, end) = (mapping.range.start(), mapping.range.end());
            let name = mapping.name.as_deref().map(str::to_string);
            if self.world.contains(start) {
                lines.push(MapLine { start, end, flags: flags_of(mapping.prot, mapping.flags), offset, backing, name });
            }
        });
        lines
    }

    fn view(&self, at: u64) -> PageView {
        let mm = self.now();
        let mut bytes = [0; PAGE as usize];
        match mm.read_user(at, &mut bytes) {
            Ok(()) => PageView::Seen(hash_bytes(&bytes)),
            Err(Partial { why: Denied::Bus, .. }) => PageView::Bus,
            Err(_) => PageView::Hidden(self.hidden(at)),
        }
    }

    /// What is at `at`, for whoever may look at everything: the page that is there, or else what a fault would find.
    fn hidden(&self, at: u64) -> Option<u64> {
        let mm = self.now();
        let mut bytes = [0; PAGE as usize];
        if let Some(pte) = mm.page_table().peek(&self.sim, at) {
            // SAFETY: (1) the entry's, which nobody takes away: (2) there is one thread.
            unsafe { spile::Frames::read(&self.sim, pte.frame, 0, &mut bytes) };
            return Some(hash_bytes(&bytes));
        }
        let mut attr = None;
        mm.each_vma(|vma| {
            if vma.range().contains(at) {
                attr = Some(Attr { prot: Prot::R, flags: Flags::SHARED, name: None, ..vma.attr().clone() });
            }
            // Where it begins is where its first page is.
            if let (Some(attr), true) = (&mut attr, vma.range().contains(at)) {
                attr.backing = skipped(&attr.backing, (at - vma.range().start()) / PAGE);
            }
        });
        let scratch: Mm<Sim, L> = Mm::new(self.sim.clone(), Layout::default()).expect("a frame for an address space");
        let attr = attr?;
        scratch.map(Place::Over(Range::page_of(at)), |_| attr).expect("there is memory");
        scratch.read_user(at, &mut bytes).ok().map(|()| hash_bytes(&bytes))
    }
}

fn skipped(backing: &spile::Backing<Sim>, pages: u64) -> spile::Backing<Sim> {
    match backing {
        spile::Backing::File(file, page) => spile::Backing::File(file.clone(), page + pages),
        other => other.clone(),
    }
}

fn copied(result: Result<(), Partial>, len: u64) -> (u64, Option<Signal>) {
    match result {
        Ok(()) => (len, None),
        Err(Partial { copied, why: Denied::Bus }) => (copied as u64, Some(Signal::Bus)),
        Err(Partial { copied, .. }) => (copied as u64, Some(Signal::Segv)),
    }
}

/// As the kernel's listing has them.
fn flags_of(prot: Prot, flags: Flags) -> VmFlags {
    let shared = flags.has(Flags::SHARED);
    let may_write = flags.has(Flags::MAY_WRITE);
    let table = [
        (prot.has(Prot::R), VmFlags::READ),
        (prot.has(Prot::W), VmFlags::WRITE),
        (prot.has(Prot::X), VmFlags::EXEC),
        // A file that cannot be written is mapped shared in name only.
        (shared && may_write, VmFlags::SHARED),
        (shared, VmFlags::MAY_SHARE),
        (true, VmFlags::MAY_READ.with(VmFlags::MAY_EXEC)),
        (may_write, VmFlags::MAY_WRITE),
        (flags.has(Flags::GROWS_DOWN), VmFlags::GROWS_DOWN),
        (flags.has(Flags::LOCKED), VmFlags::LOCKED),
        (flags.has(Flags::LOCK_ON_FAULT), VmFlags::LOCK_ON_FAULT),
        (flags.has(Flags::SEQUENTIAL), VmFlags::SEQUENTIAL),
        (flags.has(Flags::RANDOM), VmFlags::RANDOM),
        (flags.has(Flags::DONT_FORK), VmFlags::DONT_FORK),
        (flags.has(Flags::ACCOUNTED), VmFlags::ACCOUNTED),
        (flags.has(Flags::NO_RESERVE), VmFlags::NO_RESERVE),
        (flags.has(Flags::WIPE_ON_FORK), VmFlags::WIPE_ON_FORK),
        (flags.has(Flags::DONT_DUMP), VmFlags::DONT_DUMP),
        (flags.has(Flags::NO_HUGE_PAGE), VmFlags::NO_HUGE_PAGE),
        (flags.has(Flags::SYNC), VmFlags::SYNC),
    ];
    table.iter().filter(|(on, _)| *on).fold(VmFlags::default(), |all, (_, flag)| all.with(*flag))
}

impl<L: Locking> Subject for Us<L> {
    fn name(&self) -> &str {
        L::NAME
    }

    fn perform(&mut self, call: &Call) -> Result<Outcome, Lost> {
        let sim = self.sim.clone();
        Ok(sim.run_on(0, |_| self.step(call)))
    }

    fn maps(&mut self) -> Result<Vec<MapLine>, Lost> {
        let sim = self.sim.clone();
        Ok(sim.run_on(0, |_| self.lines()))
    }

    fn pages(&mut self, addrs: &[u64]) -> Result<Vec<PageView>, Lost> {
        let sim = self.sim.clone();
        Ok(sim.run_on(0, |_| addrs.iter().map(|at| self.view(*at)).collect()))
    }

    fn counters(&mut self) -> Result<Option<Counters>, Lost> {
        let usage = self.now().usage();
        Ok(Some(Counters { mapped: usage.get(Kind::Total), locked: usage.get(Kind::Locked) }))
    }
}
