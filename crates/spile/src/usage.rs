//! What an address space covers, in pages by kind: what limits are about.
//!
//! **Guarantee.** Exact whenever nobody has the right to change.
//!
//! **Mechanism.** Counted where mappings are published, and nowhere else: what comes and what goes. Written with the right to change; read
//! by anybody.

use crate::addr::{Prot, Range};
use crate::platform::Platform;
use crate::vma::{Attr, Flags};
use spile_sync::atomic::{AtomicU64, Ordering};

const KINDS: usize = 5;

/// Which number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// How many mappings there are.
    Mappings,
    /// All pages.
    Total,
    /// Pages of locked mappings.
    Locked,
    /// Pages of private writable mappings that do not grow: data.
    Data,
    /// Pages of mappings that grow.
    Stack,
}

/// The numbers of an address space.
#[derive(Debug)]
pub struct Usage([AtomicU64; KINDS]);

/// How they change.
#[derive(Default)]
pub(crate) struct Delta([i64; KINDS]);

impl Delta {
    pub(crate) fn add<P: Platform>(&mut self, range: Range, attr: &Attr<P>) {
        self.count(range, attr, 1);
    }

    pub(crate) fn remove<P: Platform>(&mut self, range: Range, attr: &Attr<P>) {
        self.count(range, attr, -1);
    }

    fn count<P: Platform>(&mut self, range: Range, attr: &Attr<P>, sign: i64) {
        let pages = sign * range.pages() as i64;
        let (flags, private) = (attr.flags, !attr.is_shared());
        let grows = flags.has(Flags::GROWS_DOWN);
        self.0[Kind::Mappings as usize] += sign;
        self.0[Kind::Total as usize] += pages;
        self.0[Kind::Locked as usize] += if flags.has(Flags::LOCKED) { pages } else { 0 };
        self.0[Kind::Data as usize] += if private && attr.prot.has(Prot::W) && !grows { pages } else { 0 };
        self.0[Kind::Stack as usize] += if grows { pages } else { 0 };
    }
}

impl Usage {
    pub(crate) fn new() -> Self {
        Self(core::array::from_fn(|_| AtomicU64::new(0)))
    }

    /// One of the numbers: mappings, or pages.
    pub fn get(&self, kind: Kind) -> u64 {
        // Relaxed: a number; those who act on it have the right to change.
        self.0[kind as usize].load(Ordering::Relaxed)
    }

    /// Counts pages as locked that no locked mapping has.
    #[cfg(feature = "linux")]
    pub(crate) fn leak_locked(&self, pages: u64) {
        let locked = &self.0[Kind::Locked as usize];
        locked.store(locked.load(Ordering::Relaxed) + pages, Ordering::Relaxed);
    }

    pub(crate) fn apply(&self, delta: &Delta) {
        for (number, change) in self.0.iter().zip(delta.0) {
            if change != 0 {
                number.store(number.load(Ordering::Relaxed).wrapping_add_signed(change), Ordering::Relaxed);
            }
        }
    }
}
