//! Linux's verbs, with its flags, limits and errors.
//!
//! **Guarantee.** Each verb takes the numbers that the system call takes and answers as Linux 6.18 on x86-64 does: the same result or errno, the
//! same mappings, split and merged the same way. Where Linux applies a call in part before it fails, so do we.
//!
//! **Mechanism.** A verb checks its numbers in Linux's order, then makes changes by the primitives of the core. One verb, one file. What is
//! different on purpose stands in docs/linux.md.

mod abi;
mod brk;
mod limits;
mod madvise;
mod mlock;
mod mmap;
mod mprotect;
mod mremap;
mod msync;
mod munmap;
mod populate;
mod process;

pub use abi::{Errno, map, prot};
pub use limits::{Limit, Limits};
pub use madvise::advice;
pub use mlock::MLOCK_ONFAULT;
pub use mremap::remap;
pub use msync::sync;
pub use process::{FileRights, Opened};

use crate::addr::{PAGE, Range, TABLE_END};
use crate::locking::Locking;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::vma::Flags;
use spile_sync::atomic::{AtomicBool, Ordering};

/// What Linux's verbs know of an address space beside its mappings.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) brk: brk::Break,
    pub(crate) limits: Limits,
    /// Whether the processor can keep memory that may be executed from being read.
    withholds_reads: AtomicBool,
}

impl State {
    pub(crate) fn new() -> Self {
        Self { brk: brk::Break::new(), limits: Limits::new(), withholds_reads: AtomicBool::new(false) }
    }

    /// That of a forked space.
    pub(crate) fn fork(&self) -> Self {
        let withholds = self.withholds_reads.load(Ordering::Relaxed);
        Self { brk: self.brk.fork(), limits: self.limits.fork(), withholds_reads: AtomicBool::new(withholds) }
    }
}

/// One past the highest address a program may map: Linux's `TASK_SIZE`.
const TASK_SIZE: u64 = if cfg!(loom) { TABLE_END } else { TABLE_END / 2 - PAGE };

/// Rounds up to whole pages; wraps to 0 at the top, as Linux's does.
const fn page_align(len: u64) -> u64 {
    len.wrapping_add(PAGE - 1) & !(PAGE - 1)
}

impl<P: Platform, L: Locking> Mm<P, L> {
    /// Says whether `PROT_EXEC` alone keeps memory from being read, as on processors with protection keys. Not unless told.
    pub fn set_exec_only(&self, withholds_reads: bool) {
        // Relaxed: a setting, for calls to come.
        self.linux.withholds_reads.store(withholds_reads, Ordering::Relaxed);
    }

    /// The property of a mapping with these `PROT_*` bits, all of them.
    fn exec_only(&self, bits: u32) -> Flags {
        Flags::when(bits == prot::EXEC && self.linux.withholds_reads.load(Ordering::Relaxed), Flags::EXEC_ONLY)
    }

    /// The limits of the address space.
    pub fn limits(&self) -> &Limits {
        &self.linux.limits
    }
}

/// Where a walk over the mappings of a range stands.
///
/// Linux changes mapping after mapping and stops at the first hole or refusal; what lies below stays changed.
fn step(rest: &mut Option<Range>, part: Range) {
    *rest = rest.and_then(|now| now.above(part.end()));
}
