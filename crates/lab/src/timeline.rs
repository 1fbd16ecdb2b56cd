//! What was mapped when, over a whole recording.
//!
//! **Guarantee.** What was mapped at a moment is in it, for as long as it was there at each further moment. What comes and goes between two moments is not.
//!
//! **Mechanism.** A replay that stops at moments in even distances of the recording's time and looks at every address space. Only what differs from the moment
//! before is kept.

use crate::replay::Replay;
use spile::{Contents, Flags, Mapping, Prot, Range, VmaRefcount};
use spile_mmtrace::{Call, Kind, Step, What};
use std::collections::BTreeMap;

/// The design that is replayed. Any would do: a test for each says that its mappings are the kernel's.
type Design = VmaRefcount;

/// What a mapping is to its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// Anonymous memory, not further known.
    Anonymous,
    /// Within the break.
    Heap,
    /// Grows downwards.
    Stack,
    /// A private mapping of a file.
    File,
    /// A shared mapping.
    Shared,
    /// Nothing may be done with it: a guard, or reserved.
    NoAccess,
}

impl Sort {
    /// All, in the order of legends.
    pub const ALL: [Self; 6] = [Self::Anonymous, Self::Heap, Self::Stack, Self::File, Self::Shared, Self::NoAccess];

    /// What it is called.
    pub fn label(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Heap => "heap",
            Self::Stack => "stack",
            Self::File => "file",
            Self::Shared => "shared",
            Self::NoAccess => "no access",
        }
    }

    fn of(mapping: &Mapping, heap: Option<&(u64, u64)>) -> Self {
        let is_heap = || heap.is_some_and(|&(start, now)| mapping.range.start() < now && mapping.range.end() > start);
        match mapping.contents {
            _ if mapping.prot == Prot::NONE => Self::NoAccess,
            _ if mapping.is_shared() => Self::Shared,
            Contents::File(..) => Self::File,
            _ if mapping.flags.has(Flags::GROWS_DOWN) => Self::Stack,
            _ if is_heap() => Self::Heap,
            Contents::Anon => Self::Anonymous,
        }
    }
}

/// A mapping, and how long it was there as it is.
#[derive(Clone, Debug)]
pub struct Stay {
    /// The mapping.
    pub mapping: Mapping,
    /// What it is to its program.
    pub sort: Sort,
    /// The number of the moment at which it was seen first.
    pub first: usize,
    /// The number of the moment at which it was no longer seen.
    pub end: usize,
}

impl Stay {
    fn is_same(&self, mapping: &Mapping, sort: Sort) -> bool {
        let what = |mapping: &Mapping| (mapping.range, mapping.prot, mapping.contents);
        what(&self.mapping) == what(mapping) && self.sort == sort
    }
}

/// What was mapped when.
pub struct Timeline {
    /// How many moments were looked at. Each is the end of one of so many equal parts of the recording.
    pub moments: usize,
    /// How long the recording is.
    pub end_ns: u64,
    /// By the numbers of the address spaces.
    pub spaces: BTreeMap<usize, Vec<Stay>>,
    /// What is still there.
    present: BTreeMap<usize, BTreeMap<Range, Stay>>,
    /// Where the break of each address space begins, and where it is.
    breaks: BTreeMap<usize, (u64, u64)>,
}

impl Timeline {
    /// Of a whole recording, at so many moments; `progress` is told how many steps are done.
    pub fn recorded(steps: &[Step], moments: usize, progress: &mut dyn FnMut(usize)) -> Self {
        let end_ns = steps.iter().map(|step| step.at_ns).max().unwrap_or(0);
        let empty = BTreeMap::new;
        let mut this = Self { moments, end_ns, spaces: BTreeMap::new(), present: empty(), breaks: BTreeMap::new() };
        let mut replay = Replay::<_, Design>::new(steps);
        let mut done = 0;
        for moment in 0..moments {
            let until = this.ns(moment + 1);
            // Calls stand where their changes were made, so steps are nearly in the order of time.
            let count = steps[done..].iter().position(|step| step.at_ns > until).unwrap_or(steps.len() - done);
            let some = &steps[done..done + count];
            replay.advance(some, &mut |made| progress(done + made));
            done += count;
            some.iter().for_each(|step| this.follow_break(step));
            this.look(moment, replay.mappings());
        }
        this.look(moments, BTreeMap::new());
        replay.finish();
        this
    }

    /// When the part before a moment began.
    pub fn ns(&self, moment: usize) -> u64 {
        (u128::from(self.end_ns) * moment as u128 / self.moments as u128) as u64
    }

    fn follow_break(&mut self, step: &Step) {
        match &step.kind {
            Kind::Exec(snapshot, _) => {
                let heap = snapshot.vmas.iter().find(|vma| vma.vma.what == What::Heap);
                match heap {
                    Some(heap) => _ = self.breaks.insert(step.mm, (heap.vma.start, heap.vma.end)),
                    None => _ = self.breaks.remove(&step.mm),
                }
            }
            Kind::Fork { child } => {
                let inherited = self.breaks.get(&step.mm).copied();
                self.breaks.extend(inherited.map(|range| (*child, range)));
            }
            Kind::Call(Call::Brk { .. }, Ok(now)) => self.breaks.entry(step.mm).or_insert((*now, *now)).1 = *now,
            _ => {}
        }
    }

    /// Compares with what was there the last time.
    fn look(&mut self, moment: usize, mut spaces: BTreeMap<usize, Vec<Mapping>>) {
        self.present.keys().for_each(|mm| _ = spaces.entry(*mm).or_default());
        for (mm, mappings) in spaces {
            let heap = self.breaks.get(&mm);
            let mut before = self.present.remove(&mm).unwrap_or_default();
            let mut now = BTreeMap::new();
            for mapping in mappings {
                let sort = Sort::of(&mapping, heap);
                let stays = before.get(&mapping.range).is_some_and(|stay| stay.is_same(&mapping, sort));
                let stay = if stays { before.remove(&mapping.range) } else { None };
                let range = mapping.range;
                now.insert(range, stay.unwrap_or(Stay { mapping, sort, first: moment, end: moment }));
            }
            let over = before.into_values().map(|stay| Stay { end: moment, ..stay });
            self.spaces.entry(mm).or_default().extend(over);
            if !now.is_empty() {
                self.present.insert(mm, now);
            }
        }
    }
}
