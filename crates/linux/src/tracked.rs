//! Memory that knows which of its pages were written.
//!
//! **Guarantee.** A page that was written since it was asked for last is among those that are said, and one that was not is not. No write is held up but by the kernel, for less than a
//! microsecond, and by the first to each page alone.
//!
//! **Mechanism.** The kernel notes first writes (`WP_ASYNC`, Linux 6.7); to ask finds them and begins anew in one step (`PAGEMAP_SCAN`). No handler and no signal has a part in it, so system
//! calls may write there too. It is ordinary memory: nothing of it leaves. For what is paged there is [`Region::dirty`](crate::Region::dirty).

use crate::door::{Door, Shut};
use crate::host::Memory;
use crate::runs;
use crate::scan::{self, Pagemap};
use crate::uffd::{Features, Uffd};
use crate::{PAGE, Stopped};
use bytemuck::{AnyBitPattern, NoUninit};
use std::fmt;
use std::io;
use std::ops::Range;

/// Memory that knows which of its pages were written.
///
/// ```
/// # use spile_linux::{NoTracking, PAGE, Tracked};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut state = match Tracked::new(1 << 20) {
///     Ok(state) => state,
///     Err(refused) => return Ok(println!("skipped: {refused}")),
/// };
/// state.as_mut_slice::<u64>()[1000] = 1;
/// let written = state.written()?; // a checkpoint copies these
/// assert_eq!(written, [PAGE..2 * PAGE]);
/// assert_eq!(state.written()?, []);
/// # Ok(())
/// # }
/// ```
pub struct Tracked {
    memory: Memory,
    len: u64,
    pagemap: Pagemap,
    /// Closed after the memory is gone.
    _uffd: Uffd,
}

/// Writes cannot be tracked.
#[derive(Debug)]
pub enum NoTracking {
    /// It would have no bytes.
    Empty,
    /// No userfaultfd opens, or the kernel lacks `WP_ASYNC`: why, and what would change that.
    Shut(Shut),
    /// The kernel does not take the memory.
    Stopped(Stopped),
    /// It has none, or does not say what was written.
    Kernel(&'static str, io::Error),
}

impl NoTracking {
    /// Whether tracking is not for this process here, whatever is asked for: the kernel does not know it, or does not let it.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Shut(_) | Self::Stopped(_))
    }
}

impl fmt::Display for NoTracking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("no bytes were asked for"),
            Self::Shut(shut) => shut.fmt(f),
            Self::Stopped(stopped) => stopped.fmt(f),
            Self::Kernel(what, error) => write!(f, "cannot {what}: {error}"),
        }
    }
}

impl std::error::Error for NoTracking {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Empty => None,
            Self::Shut(shut) => Some(&shut.error),
            Self::Stopped(stopped) => Some(stopped),
            Self::Kernel(_, error) => Some(error),
        }
    }
}

impl Tracked {
    /// So many bytes of zeros, none of them written.
    ///
    /// # Errors
    ///
    /// [`NoTracking`].
    pub fn new(len: u64) -> Result<Self, NoTracking> {
        if len == 0 {
            return Err(NoTracking::Empty);
        }
        let uffd = Door::for_own_faults(Features::WP_ASYNC).map_err(NoTracking::Shut)?;
        let memory = Memory::new(len.next_multiple_of(PAGE)).map_err(|error| NoTracking::Kernel("map the memory", error))?;
        // SAFETY: (1) nobody waits for what the kernel notes by itself.
        let protected = unsafe {
            uffd.register_writes(memory.at(0), memory.len()).and_then(|()| uffd.protect(memory.at(0), memory.len(), true))
        };
        protected.map_err(NoTracking::Stopped)?;
        let pagemap = Pagemap::open().map_err(|error| NoTracking::Kernel("open /proc/self/pagemap", error))?;
        let mut tracked = Self { memory, len, pagemap, _uffd: uffd };
        // Whether it is answered.
        tracked.written().map_err(|error| NoTracking::Kernel("ask for what was written (PAGEMAP_SCAN, Linux 6.7)", error))?;
        Ok(tracked)
    }

    /// Where it begins.
    pub fn as_ptr(&self) -> *mut u8 {
        self.memory.at(0) as *mut u8
    }

    /// It, as so many `T` as they are.
    pub fn as_slice<T: AnyBitPattern>(&self) -> &[T] {
        self.memory.slice(self.len)
    }

    /// The same, to be written.
    pub fn as_mut_slice<T: AnyBitPattern + NoUninit>(&mut self) -> &mut [T] {
        self.memory.slice_mut(self.len)
    }

    /// Which pages were written since this was asked last, as bytes, ascending: from now on none.
    ///
    /// # Errors
    ///
    /// The kernel's: then some may have been taken for not written. Ask for all.
    pub fn written(&mut self) -> io::Result<Vec<Range<u64>>> {
        let start = self.memory.at(0);
        let mut written = Vec::new();
        self.pagemap.scan(start..start + self.memory.len(), scan::WRITTEN, scan::PROTECT, |found| {
            runs::add(&mut written, found.start - start..(found.end - start).min(self.len));
        })?;
        Ok(written)
    }
}

impl fmt::Debug for Tracked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tracked bytes at {:#x}", self.len, self.memory.at(0))
    }
}
