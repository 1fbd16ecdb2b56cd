//! The list of mappings: `/proc/PID/maps`.

use crate::addr::{Prot, Range};
use crate::locking::Locking;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::vma::{Backing, Flags, Name, Vma};
use core::fmt;

/// A mapping, as it was at some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// What it covers.
    pub range: Range,
    /// What may be done with it.
    pub prot: Prot,
    /// Its properties.
    pub flags: Flags,
    /// What is in it.
    pub contents: Contents,
    /// Its name, if it was given one.
    pub name: Option<Name>,
}

/// What is in a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Anonymous memory.
    Anon,
    /// A file, by its number, from this byte on.
    File(u64, u64),
}

impl Mapping {
    fn of<P: Platform, L: Locking>(vma: &Vma<P, L>) -> Self {
        let attr = vma.attr();
        let contents = match &attr.backing {
            Backing::Anon(_) => Contents::Anon,
            #[cfg(feature = "file")]
            Backing::File(file, page) => Contents::File(file.id(), page * crate::addr::PAGE),
            Backing::Never(never, _) => match *never {},
        };
        Self { range: vma.range(), prot: attr.prot, flags: attr.flags, contents, name: attr.name.clone() }
    }

    /// Whether stores are seen by others who map the same.
    pub fn is_shared(&self) -> bool {
        self.flags.has(Flags::SHARED)
    }
}

/// As a line of `/proc/PID/maps`, device and inode aside.
impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_shared() { 's' } else { 'p' };
        write!(f, "{:x}-{:x} {:?}{kind} ", self.range.start(), self.range.end(), self.prot)?;
        match self.contents {
            Contents::Anon => write!(f, "{:08x}", 0)?,
            Contents::File(file, offset) => write!(f, "{offset:08x} file{file}")?,
        }
        match &self.name {
            Some(name) => write!(f, " [anon:{name}]"),
            None => Ok(()),
        }
    }
}

impl<P: Platform, L: Locking> Mm<P, L> {
    /// Calls `each` with every mapping, ascending. Waits where the design's index may be looked at under the lock alone, mapping by mapping;
    /// else for nobody, and nobody for it.
    pub fn each_mapping(&self, mut each: impl FnMut(Mapping)) {
        let mut from = 0;
        while let Some(mapping) = self.mapping_from(from) {
            from = mapping.range.end();
            each(mapping);
        }
    }

    /// The mapping that covers `at`, or the next above.
    pub fn mapping_from(&self, at: u64) -> Option<Mapping> {
        L::look(self, at, |vma| vma.map(Mapping::of))
    }
}
