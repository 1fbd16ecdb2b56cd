//! The plainest model of the calls: one entry per page.
//!
//! **Guarantee.** What a call returns, what is mapped and where mappings end, what may be read and which bytes are there
//! follow the rules of Linux 6.18 on x86-64. Every rule is written once, where it is used.
//!
//! **Mechanism.** A process is a map from addresses to pages, and a fork is a copy of it. A mapping is a
//! run of pages of which the first is marked. Nothing is shared with the implementation under test, and nothing is fast.

mod advise;
mod joins;
mod lock;
mod map;
mod memory;
mod protect;
mod remap;
mod space;

use crate::abi::*;
use crate::call::Call;
use crate::subject::{Backing, Counters, Lost, MapLine, Outcome, PageView, Subject, VmFlags, hash_bytes};
use crate::world::World;
use memory::Store;
use space::{Behind, Page, Space};

/// A rule that is broken on purpose, to see that a comparison notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// `MADV_DONTNEED` leaves private bytes as they are.
    DontneedKeeps,
    /// `MAP_FIXED_NOREPLACE` replaces.
    NoreplaceReplaces,
    /// A child sees what its parent marked `MADV_WIPEONFORK`.
    WipeForgotten,
    /// `mremap` does not move bytes.
    MoveLosesBytes,
    /// `msync(MS_INVALIDATE)` of locked memory is not refused.
    InvalidateLocked,
    /// Pages past the end of a file read as zero.
    NoBus,
    /// `mprotect` gives write access to a file that was not opened for it.
    WriteUnopened,
    /// `mlock` does not count.
    LockUncounted,
    /// Populating a private file mapping takes no copies.
    PopulateWithoutCopy,
    /// A child keeps the locks of its parent.
    ForkKeepsLocks,
    /// A hint is taken within the gap of a mapping that grows down.
    HintInGap,
    /// A mapping grows down as close to another one as it likes.
    GrowthWithoutGap,
    /// The object of a shared anonymous mapping grows with it.
    SharedGrows,
    /// `MREMAP_DONTUNMAP` unlocks what it moved, and nothing else.
    UnlocksOnlyMoved,
    /// `mremap` moves one mapping and refuses several.
    MovesOnlyOne,
    /// `madvise` stops at the first hole.
    HolesStopAdvice,
    /// A child's mappings join as if it had no parent.
    ForkWithoutLinks,
    /// A page that was written does not decide what its mapping joins.
    JoinsWithoutFamilies,
    /// `MADV_DODUMP` is forgotten.
    DumpForgotten,
}

impl Broken {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::DontneedKeeps,
        Self::NoreplaceReplaces,
        Self::WipeForgotten,
        Self::MoveLosesBytes,
        Self::InvalidateLocked,
        Self::NoBus,
        Self::WriteUnopened,
        Self::LockUncounted,
        Self::PopulateWithoutCopy,
        Self::ForkKeepsLocks,
        Self::HintInGap,
        Self::GrowthWithoutGap,
        Self::SharedGrows,
        Self::UnlocksOnlyMoved,
        Self::MovesOnlyOne,
        Self::HolesStopAdvice,
        Self::ForkWithoutLinks,
        Self::JoinsWithoutFamilies,
        Self::DumpForgotten,
    ];
}

/// Where a new mapping went.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    At(u64),
    Elsewhere,
}

/// The model.
pub struct Naive {
    world: World,
    store: Store,
    spaces: Vec<Space>,
    /// Families that were founded so far; see `joins.rs`.
    families: u32,
    broken: Option<Broken>,
}

impl Naive {
    /// A model with nothing mapped and fresh files.
    pub fn new(world: &World) -> Self {
        Self { world: world.clone(), store: Store::new(world), spaces: vec![Space::default()], families: 0, broken: None }
    }

    /// A model with one rule broken.
    #[must_use]
    pub fn broken(world: &World, rule: Broken) -> Self {
        Self { broken: Some(rule), ..Self::new(world) }
    }

    fn is_broken(&self, rule: Broken) -> bool {
        self.broken == Some(rule)
    }

    fn now(&self) -> &Space {
        self.spaces.last().expect("there is always a process")
    }

    fn now_mut(&mut self) -> &mut Space {
        self.spaces.last_mut().expect("there is always a process")
    }

    /// How many forks deep the subject is.
    pub fn depth(&self) -> usize {
        self.spaces.len() - 1
    }

    /// Whether the bytes of any page of the range may be one of several, since `MADV_FREE` gave it away.
    pub fn is_undetermined(&self, addr: u64, len: u64) -> bool {
        let pages = self.now().pages.range(page_down(addr)..page_up(addr.saturating_add(len)));
        pages.into_iter().any(|(_, page)| page.own.as_ref().is_some_and(|own| !own.others.is_empty()))
    }

    /// The hashes that the page at `addr` may have.
    pub fn candidates(&self, addr: u64) -> Vec<u64> {
        let Some(page) = self.now().pages.get(&addr) else { return Vec::new() };
        let others = page.own.iter().flat_map(|own| own.others.iter());
        let others = others.map(|bytes| hash_bytes(&bytes[..]));
        self.store
            .bytes_of(page, self.is_broken(Broken::NoBus))
            .map(|bytes| hash_bytes(&bytes[..]))
            .into_iter()
            .chain(others)
            .collect()
    }

    /// Every mapped page, as its mapping would be listed.
    pub fn pages_listed(&self) -> impl Iterator<Item = MapLine> {
        self.now().pages.iter().map(|(addr, page)| self.line_of(*addr, page))
    }

    fn line_of(&self, addr: u64, page: &Page) -> MapLine {
        let (backing, offset) = match page.behind {
            Behind::Nothing => (Backing::Anonymous, 0),
            Behind::Object { object, .. } => (self.store.backing(object), page.at * PAGE),
        };
        let name = page.name.as_deref().map(str::to_string);
        MapLine { start: addr, end: addr + PAGE, flags: page.flags, offset, backing, name }
    }

    fn view(&self, addr: u64) -> PageView {
        let Some(page) = self.now().pages.get(&addr) else { return PageView::Hidden(None) };
        let hash = self.store.bytes_of(page, self.is_broken(Broken::NoBus)).map(|bytes| hash_bytes(&bytes[..]));
        match (page.is_readable(), hash) {
            (true, Some(hash)) => PageView::Seen(hash),
            (true, None) => PageView::Bus,
            (false, hash) => PageView::Hidden(hash),
        }
    }

    fn fork(&mut self) {
        let keeps = self.is_broken(Broken::WipeForgotten);
        let mut child = self.now().clone();
        let locks = VmFlags::LOCKED.with(VmFlags::LOCK_ON_FAULT);
        let lost = if self.is_broken(Broken::ForkKeepsLocks) { VmFlags::default() } else { locks };
        child.locked = 0;
        child.pages.retain(|_, page| !page.flags.has(VmFlags::DONT_FORK));
        for page in child.pages.values_mut() {
            page.flags = page.flags.without(lost);
            if page.flags.has(VmFlags::WIPE_ON_FORK) && !keeps {
                page.own = None;
            }
        }
        self.fork_families(&mut child);
        self.spaces.push(child);
    }

    fn exit(&mut self) {
        if self.spaces.len() > 1 {
            self.spaces.pop();
        }
    }

    fn step(&mut self, call: &Call) -> Outcome {
        let result = match call {
            Call::Mmap { addr, len, prot, flags, file, offset } => {
                return placed(self.mmap(*addr, *len, *prot, *flags, *file, *offset));
            }
            Call::Mremap { old, old_len, new_len, flags, new_addr } => {
                return placed(self.mremap(*old, *old_len, *new_len, *flags, *new_addr));
            }
            Call::Read { addr, len } => return self.read(*addr, *len),
            Call::Write { addr, len, seed } => return self.write(*addr, *len, *seed),
            Call::Munmap { addr, len } => self.munmap(*addr, *len),
            Call::Mprotect { addr, len, prot } => self.mprotect(*addr, *len, *prot),
            Call::Brk { offset } => return Outcome::Done(self.brk(*offset)),
            Call::Madvise { addr, len, advice } => self.madvise(*addr, *len, *advice),
            Call::Mlock { addr, len } => self.mlock(*addr, *len, 0),
            Call::Mlock2 { addr, len, flags } => self.mlock(*addr, *len, *flags),
            Call::Munlock { addr, len } => self.munlock(*addr, *len),
            Call::Msync { addr, len, flags } => self.msync(*addr, *len, *flags),
            Call::Name { addr, len, name } => self.set_name(*addr, *len, name.as_deref()),
            Call::Fork => {
                self.fork();
                Ok(())
            }
            Call::Exit => {
                self.exit();
                Ok(())
            }
        };
        result.map(|()| 0).into()
    }
}

fn placed(result: Result<Place, i32>) -> Outcome {
    match result {
        Ok(Place::At(addr)) => Outcome::Done(addr),
        Ok(Place::Elsewhere) => Outcome::Elsewhere,
        Err(errno) => Outcome::Failed(errno),
    }
}

impl Subject for Naive {
    fn name(&self) -> &str {
        "naive model"
    }

    fn perform(&mut self, call: &Call) -> Result<Outcome, Lost> {
        Ok(self.step(call))
    }

    fn maps(&mut self) -> Result<Vec<MapLine>, Lost> {
        let mut lines: Vec<MapLine> = Vec::new();
        for (addr, page) in &self.now().pages {
            match lines.last_mut() {
                Some(line) if !page.starts && line.end == *addr => line.end += PAGE,
                _ => lines.push(self.line_of(*addr, page)),
            }
        }
        Ok(lines)
    }

    fn pages(&mut self, addrs: &[u64]) -> Result<Vec<PageView>, Lost> {
        Ok(addrs.iter().map(|addr| self.view(*addr)).collect())
    }

    fn counters(&mut self) -> Result<Option<Counters>, Lost> {
        let space = self.now();
        Ok(Some(Counters { mapped: space.mapped(), locked: space.locked }))
    }
}
