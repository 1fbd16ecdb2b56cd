//! Programs whose pages are numbered, and of whose pages every byte is known.
//!
//! **Guarantee.** A program loads what it stored last, or zero where it has mapped anew; what it has mapped is denied only where a device fails, and what it
//! has not is. At the end it has all of it, and then nothing is left.
//!
//! **Mechanism.** Beside each space a model of one byte per page, which a fork copies.

use spile::{Attr, Denied, Layout, Locking, Mm, PAGE, Place, Prot, Range};
use spile_sim::{Cpu, Sim, Swapped, User};
use std::collections::BTreeMap;

const BASE: u64 = 0x4000_0000;
/// How many there are in a family at most.
pub const SPACES: usize = 4;

pub fn at(n: u64) -> u64 {
    BASE + n * PAGE
}

pub fn pages(first: u64, count: u64) -> Range {
    Range::with_len(at(first), count * PAGE).unwrap()
}

pub fn map<L: Locking>(user: &User<'_, '_, L>, range: Range) {
    user.map(Place::Over(range), |at| Attr::anon(at.start(), Prot::RW)).unwrap();
}

pub fn space<L: Locking>(sim: &Sim) -> Mm<Sim, L> {
    Mm::new(sim.clone(), Layout::default()).unwrap()
}

/// What is mapped, and the byte of each page.
#[derive(Clone, Default)]
pub struct Bytes(BTreeMap<u64, u8>);

impl Bytes {
    pub fn is_mapped(&self, n: u64) -> bool {
        self.0.contains_key(&n)
    }

    pub fn map<L: Locking>(&mut self, user: &User<'_, '_, L>, first: u64, count: u64) {
        map(user, pages(first, count));
        (first..first + count).for_each(|n| _ = self.0.insert(n, 0));
    }

    pub fn unmap<L: Locking>(&mut self, user: &User<'_, '_, L>, first: u64, count: u64) {
        user.unmap(pages(first, count)).unwrap();
        self.0.retain(|n, _| !(first..first + count).contains(n));
    }

    /// Stores to page `n`, be it mapped or not. Whether a device `fails` is for the caller to say.
    pub fn store<L: Locking>(&mut self, user: &User<'_, '_, L>, n: u64, byte: u8, fails: bool, told: &str) {
        match user.store(at(n), byte) {
            Ok(()) => _ = self.0.insert(n, byte).unwrap_or_else(|| panic!("{told} was stored to")),
            Err(denied) => self.is_right(denied, n, fails, told),
        }
    }

    /// The same, of a load.
    pub fn load<L: Locking>(&self, user: &User<'_, '_, L>, n: u64, fails: bool, told: &str) {
        match user.load(at(n)) {
            Ok(byte) => assert_eq!(Some(&byte), self.0.get(&n), "{told}"),
            Err(denied) => self.is_right(denied, n, fails, told),
        }
    }

    fn is_right(&self, denied: Denied, n: u64, fails: bool, told: &str) {
        match denied {
            Denied::Bus => assert!(fails, "{told}"),
            Denied::Unmapped => assert!(!self.is_mapped(n), "{told} is mapped"),
            denied => panic!("{told}: {denied:?}"),
        }
    }
}

pub struct Program<L: Locking> {
    pub mm: Mm<Sim, L>,
    pub bytes: Bytes,
}

impl<L: Locking> Program<L> {
    /// That has mapped nothing.
    pub fn new(sim: &Sim) -> Self {
        Self { mm: space(sim), bytes: Bytes::default() }
    }

    pub fn fork(&self, cpu: &Cpu<'_>, told: &str) -> Self {
        let mm = cpu.call(|| self.mm.fork()).unwrap_or_else(|error| panic!("{told}: {error}"));
        Self { mm, bytes: self.bytes.clone() }
    }
}

/// Nothing fails any more, all that the programs have is there, and they end. What the device has done for them until then.
pub fn end<L: Locking>(sim: &Sim, programs: Vec<Program<L>>, seed: u64) -> Swapped {
    let done = sim.swap().done();
    sim.swap().fail_one_in(None);
    for Program { mm, bytes } in programs {
        {
            let cpu = sim.cpu(0);
            let user = cpu.enter(&mm);
            // What could not be read before may be told once more.
            let load = |n| user.load(at(n)).or_else(|_| user.load(at(n)));
            bytes.0.iter().for_each(|(n, byte)| assert_eq!(load(*n), Ok(*byte), "seed {seed}, page {n} at the end"));
        }
        sim.cpu(0).call(|| drop(mm));
    }
    sim.finish();
    done
}
