//! Bytes, and how they are reached.
//!
//! **Guarantee.** A private page shows its object's bytes until it is written, and its own from then on; a shared page is
//! its object's. A page past its object's end is SIGBUS, unless it has bytes of its own.
//!
//! **Mechanism.** Objects are lists of whole pages: bytes past the end of a file but on its last page can be written and
//! stay. `MADV_FREE` leaves it open whether a page's bytes are zero, so a page may have several contents; a write goes to
//! all of them.

use super::space::{Behind, Page};
use super::{Broken, Naive};
use crate::abi::*;
use crate::subject::{Backing, Outcome, Signal, VmFlags, hash_bytes};
use crate::world::World;
use std::rc::Rc;

pub(super) type Bytes = Rc<[u8; PAGE as usize]>;

/// The private bytes of a page.
#[derive(Clone)]
pub(super) struct Content {
    pub bytes: Bytes,
    /// What they may be as well.
    pub others: Vec<Bytes>,
}

impl Content {
    pub fn new(bytes: Bytes) -> Self {
        Self { bytes, others: Vec::new() }
    }

    /// The bytes may become zero at any time.
    pub fn give_away(&mut self) {
        self.others.push(zeros());
        self.tidy();
    }

    fn write(&mut self, at: usize, with: &[u8]) {
        for bytes in std::iter::once(&mut self.bytes).chain(&mut self.others) {
            Rc::make_mut(bytes)[at..at + with.len()].copy_from_slice(with);
        }
        self.tidy();
    }

    fn tidy(&mut self) {
        let bytes = &self.bytes;
        self.others.retain(|other| other != bytes);
        self.others.sort();
        self.others.dedup();
    }
}

pub(super) fn zeros() -> Bytes {
    Rc::new([0; PAGE as usize])
}

struct Object {
    pages: Vec<Bytes>,
    backing: Backing,
}

/// All objects: those of the world, and those of shared anonymous mappings.
pub(super) struct Store(Vec<Object>);

impl Store {
    pub fn new(world: &World) -> Self {
        let object = |index: usize| {
            let len = world.objects[index].len;
            let byte = |at| if at < len { World::byte(index, at) } else { 0 };
            let page = |page: u64| Rc::new(std::array::from_fn(|at| byte(page * PAGE + at as u64)));
            Object { pages: (0..page_up(len) / PAGE).map(page).collect(), backing: Backing::Object(index) }
        };
        Self((0..world.objects.len()).map(object).collect())
    }

    /// A new object for a shared anonymous mapping. It does not grow when the mapping does.
    pub fn add_anonymous(&mut self, pages: u64) -> usize {
        self.0.push(Object { pages: vec![zeros(); pages as usize], backing: Backing::SharedAnonymous });
        self.0.len() - 1
    }

    /// What does not happen when a mapping grows.
    pub fn grow(&mut self, object: usize, pages: u64) {
        self.0[object].pages.extend((0..pages).map(|_| zeros()));
    }

    pub fn backing(&self, object: usize) -> Backing {
        self.0[object].backing
    }

    /// The bytes that are there, if an access would find some.
    pub fn bytes_of(&self, page: &Page, endless: bool) -> Option<Bytes> {
        match (&page.own, page.behind) {
            (Some(own), _) => Some(own.bytes.clone()),
            (None, Behind::Nothing) => Some(zeros()),
            (None, Behind::Object { object, .. }) => {
                let bytes = usize::try_from(page.at).ok().and_then(|at| self.0[object].pages.get(at)).cloned();
                bytes.or_else(|| endless.then(zeros))
            }
        }
    }
}

impl Naive {
    /// Brings in a page that is mapped, for writing or reading, with no question of permission.
    pub(super) fn fault_in(&mut self, addr: u64, write: bool) -> Result<(), Signal> {
        let endless = self.is_broken(Broken::NoBus);
        // Even if the page turns out not to be there.
        if write && self.now().pages.get(&addr).is_some_and(Page::is_private) {
            self.found_family(addr);
        }
        let page = self.spaces.last_mut().and_then(|space| space.pages.get_mut(&addr)).ok_or(Signal::Segv)?;
        let bytes = self.store.bytes_of(page, endless).ok_or(Signal::Bus)?;
        if write && page.is_private() && page.own.is_none() {
            page.own = Some(Content::new(bytes));
        }
        Ok(())
    }

    /// A user's access to a page: may it, and is there something?
    fn touch(&mut self, addr: u64, write: bool) -> Result<(), Signal> {
        if !self.now().pages.contains_key(&addr) {
            self.grow_to(addr).ok_or(Signal::Segv)?;
        }
        let page = &self.now().pages[&addr];
        let allowed = if write { page.flags.has(VmFlags::WRITE) } else { page.is_readable() };
        if allowed { self.fault_in(addr, write) } else { Err(Signal::Segv) }
    }

    /// A mapping above that grows down takes the page in, if limits and the gap to the mapping below allow.
    fn grow_to(&mut self, addr: u64) -> Option<()> {
        /// Pages that must lie between a mapping that grows and an accessible one below it that does not.
        const GUARD: u64 = 256 * PAGE;
        let limits = self.world.limits;
        let space = self.now();
        let first = space.first_from(addr)?;
        let above = space.pages[&first].clone();
        let below = space.last_below(addr).map(|below| (below + PAGE, &space.pages[&below]));
        let careless = self.is_broken(Broken::GrowthWithoutGap);
        let near = !careless
            && below
                .is_some_and(|(end, page)| !page.flags.has(VmFlags::GROWS_DOWN) && page.is_accessible() && addr - end < GUARD);
        if !above.flags.has(VmFlags::GROWS_DOWN) || near {
            return None;
        }
        // Whether or not limits allow what follows.
        self.found_family(first);
        let space = self.now_mut();
        let above = space.pages[&first].clone();
        let (size, more) = ((space.bounds(first).1 - addr) / PAGE, (first - addr) / PAGE);
        let counted = above.flags.has(VmFlags::LOCKED);
        let too_much = size > limits.stack
            || space.mapped() + more > limits.mapped
            || counted && space.locked + more > limits.locked
            || more > above.at;
        if too_much {
            return None;
        }
        for i in 1..=more {
            let page = Page { at: above.at - i, own: None, starts: i == more, ..above.clone() };
            space.pages.insert(first - i * PAGE, page);
        }
        space.pages.get_mut(&first)?.starts = false;
        space.locked += if counted { more } else { 0 };
        Some(())
    }

    pub(super) fn read(&mut self, addr: u64, len: u64) -> Outcome {
        let mut read = Vec::new();
        let fault = self.each_part(addr, len, false, |naive, page, part, _| {
            let bytes = naive.store.bytes_of(&naive.now().pages[&page], true).expect("just brought in");
            read.extend_from_slice(&bytes[part]);
        });
        Outcome::Bytes { count: read.len() as u64, hash: hash_bytes(&read), fault }
    }

    pub(super) fn write(&mut self, addr: u64, len: u64, seed: u8) -> Outcome {
        let mut count = 0;
        let fault = self.each_part(addr, len, true, |naive, page, part, from| {
            let with: Vec<u8> = part.clone().map(|i| World::written(seed, from + (i - part.start) as u64)).collect();
            naive.put(page, part.start, &with);
            count += with.len() as u64;
        });
        Outcome::Bytes { count, hash: 0, fault }
    }

    /// Goes through the pages of a range until one faults; `each` gets the page, the part of it, and where in the range.
    fn each_part(
        &mut self,
        addr: u64,
        len: u64,
        write: bool,
        mut each: impl FnMut(&mut Self, u64, std::ops::Range<usize>, u64),
    ) -> Option<Signal> {
        let mut done = 0;
        while done < len {
            let at = addr + done;
            let (page, first) = (page_down(at), (at % PAGE) as usize);
            if let Err(signal) = self.touch(page, write) {
                return Some(signal);
            }
            let more = (PAGE as usize - first).min((len - done) as usize);
            each(self, page, first..first + more, done);
            done += more as u64;
        }
        None
    }

    fn put(&mut self, addr: u64, at: usize, with: &[u8]) {
        let page = self.spaces.last_mut().and_then(|space| space.pages.get_mut(&addr)).expect("just brought in");
        match (&mut page.own, page.behind) {
            (Some(own), _) => own.write(at, with),
            (None, Behind::Object { object, .. }) => {
                if let Some(bytes) = self.store.0[object].pages.get_mut(page.at as usize) {
                    Rc::make_mut(bytes)[at..at + with.len()].copy_from_slice(with);
                }
            }
            (None, Behind::Nothing) => unreachable!("a private page has bytes of its own once it is written"),
        }
    }
}
