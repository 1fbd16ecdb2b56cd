//! Limits of a process, and what counts against them.

use crate::addr::{PAGE_SHIFT, Prot, Range};
use crate::locking::Locking;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::usage::Kind;
use crate::vma::Flags;
use spile_sync::atomic::{AtomicU64, Ordering};

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `RLIMIT_AS`: bytes of all mappings.
    AddressSpace,
    /// `RLIMIT_DATA`: bytes of private writable mappings and the break.
    Data,
    /// `RLIMIT_STACK`: bytes of a mapping that grows.
    Stack,
    /// `RLIMIT_MEMLOCK`: bytes of locked mappings.
    Locked,
    /// `vm.max_map_count`: mappings.
    Mappings,
}

const LIMITS: usize = 5;

/// The limits of an address space. Nothing is limited but the number of mappings, to Linux's 65,530, and stacks, to 8 MiB, until
/// somebody says so.
#[derive(Debug)]
pub struct Limits([AtomicU64; LIMITS]);

impl Limits {
    pub(super) fn new() -> Self {
        let limits = Self(core::array::from_fn(|_| AtomicU64::new(u64::MAX)));
        limits.set(Limit::Mappings, 65_530);
        limits.set(Limit::Stack, 8 << 20);
        limits
    }

    pub(super) fn fork(&self) -> Self {
        Self(core::array::from_fn(|i| AtomicU64::new(self.0[i].load(Ordering::Relaxed))))
    }

    /// What it is: bytes, or mappings; `u64::MAX` is unlimited.
    pub fn get(&self, limit: Limit) -> u64 {
        // Relaxed: a number.
        self.0[limit as usize].load(Ordering::Relaxed)
    }

    /// Changes it for calls to come.
    pub fn set(&self, limit: Limit, value: u64) {
        self.0[limit as usize].store(value, Ordering::Relaxed);
    }

    fn pages(&self, limit: Limit) -> u64 {
        self.get(limit) >> PAGE_SHIFT
    }
}

/// Whether a mapping counts as data: private, writable, and not a stack.
pub(super) fn is_data(prot: Prot, flags: Flags) -> bool {
    prot.has(Prot::W) && !flags.has(Flags::SHARED) && !flags.has(Flags::GROWS_DOWN)
}

impl<P: Platform, L: Locking> Mm<P, L> {
    /// Whether `pages` more of that kind of mapping are within the limits.
    pub(super) fn may_expand(&self, prot: Prot, flags: Flags, pages: u64) -> bool {
        let limits = self.limits();
        let total = self.usage.get(Kind::Total) + pages;
        let data = self.usage.get(Kind::Data) + pages;
        total <= limits.pages(Limit::AddressSpace) && (!is_data(prot, flags) || data <= limits.pages(Limit::Data))
    }

    /// Whether `pages` more may be locked.
    pub(super) fn may_lock(&self, pages: u64) -> bool {
        self.usage.get(Kind::Locked) + pages <= self.limits().pages(Limit::Locked)
    }

    /// Whether a mapping that grows may take in `added`, and be `whole` bytes long.
    pub(crate) fn may_grow(&self, added: Range, whole: u64, flags: Flags) -> bool {
        let limits = self.limits();
        let total = self.usage.get(Kind::Total) + added.pages();
        added.start() >= self.layout.all.start()
            && whole <= limits.get(Limit::Stack)
            && total <= limits.pages(Limit::AddressSpace)
            && (!flags.has(Flags::LOCKED) || self.may_lock(added.pages()))
    }

    /// Whether nothing at all may be locked.
    pub(super) fn may_not_lock(&self) -> bool {
        self.limits().get(Limit::Locked) == 0
    }

    /// Whether one mapping can be cut in two.
    pub(super) fn may_split(&self) -> bool {
        self.usage.get(Kind::Mappings) < self.limits().get(Limit::Mappings)
    }

    /// Whether a mapping more can be made.
    pub(super) fn may_map(&self) -> bool {
        self.usage.get(Kind::Mappings) <= self.limits().get(Limit::Mappings)
    }
}
