//! What is mapped.
//!
//! **Guarantee.** Pages are what the rules say they are, and the first page of each mapping is marked as such.
//!
//! **Mechanism.** An ordered map from page addresses. A mapping is a run of pages of which only the first is marked; what
//! the kernel keeps once for a mapping is repeated in each of its pages. Where mappings join is in `joins.rs`.

use super::joins::Kin;
use super::memory::Content;
use crate::abi::PAGE;
use crate::subject::VmFlags;
use std::collections::BTreeMap;
use std::rc::Rc;

/// What lies behind a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behind {
    /// Nothing.
    Nothing,
    /// A page of an object of the store, through a file of the world if it has one.
    Object { object: usize, file: Option<usize> },
}

/// A mapped page.
#[derive(Clone)]
pub(super) struct Page {
    pub flags: VmFlags,
    /// Execution alone was asked for: with protection keys that forbids reading, which no flag tells.
    pub exec_only: bool,
    pub behind: Behind,
    /// The page of the object, or the number of the page that anonymous memory was first mapped at.
    pub at: u64,
    /// Private bytes, once there are some.
    pub own: Option<Content>,
    pub name: Option<Rc<str>>,
    /// Whether a mapping begins here.
    pub starts: bool,
    /// What decides, besides likeness, which neighbours a mapping joins.
    pub kin: Kin,
}

impl Page {
    pub fn is_accessible(&self) -> bool {
        self.flags.has_any(VmFlags::READ.with(VmFlags::WRITE).with(VmFlags::EXEC))
    }

    /// Whether a user's read goes through: any access allows it on x86, but for execution alone behind a key.
    pub fn is_readable(&self) -> bool {
        self.is_accessible() && !self.exec_only
    }

    /// Whether a write goes to the page itself, not to an object.
    pub fn is_private(&self) -> bool {
        !self.flags.has(VmFlags::MAY_SHARE)
    }
}

/// A process's memory.
#[derive(Clone, Default)]
pub(super) struct Space {
    pub pages: BTreeMap<u64, Page>,
    /// Pages that count as locked. The kernel keeps a number, and so do we: it is not always that of the locked pages.
    pub locked: u64,
    /// Bytes of the break.
    pub broke: u64,
}

impl Space {
    /// Pages that count as mapped.
    pub fn mapped(&self) -> u64 {
        self.pages.len() as u64 + crate::abi::page_up(self.broke) / PAGE
    }

    /// The first mapped page at or above `addr`.
    pub fn first_from(&self, addr: u64) -> Option<u64> {
        self.pages.range(addr..).next().map(|(addr, _)| *addr)
    }

    /// The mapped page below `addr`.
    pub fn last_below(&self, addr: u64) -> Option<u64> {
        self.pages.range(..addr).next_back().map(|(addr, _)| *addr)
    }

    /// Whether anything is mapped in the range.
    pub fn overlaps(&self, start: u64, end: u64) -> bool {
        start < end && self.pages.range(start..end).next().is_some()
    }

    /// The addresses mapped in the range.
    pub fn addrs(&self, start: u64, end: u64) -> Vec<u64> {
        if start >= end { Vec::new() } else { self.pages.range(start..end).map(|(addr, _)| *addr).collect() }
    }

    /// The mapping that the mapped page `addr` belongs to.
    pub fn bounds(&self, addr: u64) -> (u64, u64) {
        let (mut start, mut end) = (addr, addr + PAGE);
        while !self.pages[&start].starts {
            start -= PAGE;
        }
        while self.pages.get(&end).is_some_and(|page| !page.starts) {
            end += PAGE;
        }
        (start, end)
    }

    /// Removes what is mapped in the range.
    pub fn remove(&mut self, start: u64, end: u64) {
        for addr in self.addrs(start, end) {
            let page = self.pages.remove(&addr).expect("just listed");
            self.locked = self.locked.saturating_sub(page.flags.has(VmFlags::LOCKED).into());
        }
        self.split(end);
    }

    /// Whatever is mapped at `addr` begins there.
    pub fn split(&mut self, addr: u64) {
        if let Some(page) = self.pages.get_mut(&addr) {
            page.starts = true;
        }
    }
}
