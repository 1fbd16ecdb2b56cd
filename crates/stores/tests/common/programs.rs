//! Programs whose pages are numbered, and do not all fit into memory.

use super::page;
use spile::{Attr, Denied, Layout, Locking, Mm, PAGE, Place, Prot, Range};
use spile_sim::{Cpu, Rng, Sim, User};
use std::collections::BTreeMap;

const BASE: u64 = 0x4000_0000;
/// How many pages each program writes.
pub const WORK: u64 = 24;
pub const SPACES: usize = 3;
pub const SLOTS: u32 = 2 * WORK as u32 * SPACES as u32;

pub fn at(n: u64) -> u64 {
    BASE + n * PAGE
}

pub fn pages(first: u64, count: u64) -> Range {
    Range::with_len(at(first), count * PAGE).unwrap()
}

pub fn map<L: Locking>(user: &User<'_, '_, L>, first: u64, count: u64) {
    user.map(Place::Over(pages(first, count)), |at| Attr::anon(at.start(), Prot::RW)).unwrap();
}

pub fn write<L: Locking>(user: &User<'_, '_, L>, n: u64, number: u64) -> Result<(), Denied> {
    user.cpu().call(|| user.mm().write_user(at(n), &page(number))).map_err(|partial| partial.why)
}

/// Reads a page, and compares all of it.
pub fn expect<L: Locking>(user: &User<'_, '_, L>, n: u64, number: u64, told: &str) -> Result<(), Denied> {
    let mut bytes = [0; PAGE as usize];
    user.cpu().call(|| user.mm().read_user(at(n), &mut bytes)).map_err(|partial| partial.why)?;
    assert!(bytes == page(number), "{told}: page {n} is not number {number}, which was written there");
    Ok(())
}

pub struct Program<L: Locking> {
    pub mm: Mm<Sim, L>,
    /// The number of what is in each page.
    pub numbers: BTreeMap<u64, u64>,
}

impl<L: Locking> Program<L> {
    /// Writes or reads a page, or maps it anew. What is denied is told to `denied`.
    pub fn act(&mut self, cpu: &Cpu<'_>, rng: &mut Rng, told: &str, denied: impl Fn(Denied)) {
        let user = cpu.enter(&self.mm);
        let n = rng.below(WORK);
        match rng.below(12) {
            0 => {
                map(&user, n, 1);
                self.numbers.insert(n, 0);
            }
            1..=5 => {
                let number = rng.below(1 << 20);
                match write(&user, n, number) {
                    Ok(()) => _ = self.numbers.insert(n, number),
                    Err(why) => denied(why),
                }
            }
            6 => _ = cpu.reclaim(rng.below(20) as usize),
            _ => expect(&user, n, self.numbers[&n], told).unwrap_or_else(denied),
        }
    }

    pub fn check(&self, sim: &Sim, told: &str) {
        let cpu = sim.cpu(0);
        let user = cpu.enter(&self.mm);
        self.numbers.iter().for_each(|(n, number)| assert_eq!(expect(&user, *n, *number, told), Ok(()), "{told}: page {n}"));
    }

    pub fn fork(&self, cpu: &Cpu<'_>) -> Result<Self, spile::Error> {
        let mm = cpu.call(|| self.mm.fork())?;
        Ok(Self { mm, numbers: self.numbers.clone() })
    }
}

/// A program that has written all its pages.
pub fn first<L: Locking>(sim: &Sim) -> Program<L> {
    let mm = Mm::new(sim.clone(), Layout::default()).unwrap();
    let cpu = sim.cpu(0);
    let user = cpu.enter(&mm);
    map(&user, 0, WORK);
    let numbers: BTreeMap<_, _> = (0..WORK).map(|n| (n, n)).collect();
    numbers.iter().for_each(|(n, number)| write(&user, *n, *number).unwrap());
    drop(user);
    Program { mm, numbers }
}

pub fn seeds() -> u64 {
    std::env::var("SPILE_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(3)
}
