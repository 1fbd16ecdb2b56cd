//! What is said where a region, or an access to one, cannot be had.
//!
//! **Guarantee.** Who is told why, is told of which byte, and of the backing's own error if that is why.
//!
//! **Mechanism.** A type for each question: [`NoRegion`] to map one, [`Failed`] to touch it, [`Unwritten`] to have it durable.

use super::build::{LEAST, MOST, MOST_AROUND};
use crate::Ability;
use spile::Denied;
use std::fmt;
use std::io;

/// There is no region.
#[derive(Debug)]
pub enum NoRegion {
    /// It would have no bytes, or more than addresses tell apart.
    Length(u64),
    /// A window that is no power of two, or of more than [`RegionBuilder::MOST_AROUND`](crate::RegionBuilder::MOST_AROUND) pages.
    Window(u32),
    /// It is to do what the kernel cannot here.
    Lacks(Ability),
    /// A budget of less than [`RegionBuilder::LEAST`](crate::RegionBuilder::LEAST) bytes.
    Budget(u64),
    /// So many bytes are pinned that this budget would leave too few for others.
    Pinned {
        /// The budget.
        budget: u64,
        /// How many are pinned.
        pinned: u64,
    },
    /// The kernel refused something that it needs.
    Kernel(&'static str, io::Error),
    /// The pager has no memory for its tables.
    NoMemory,
}

impl fmt::Display for NoRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(len) => write!(f, "a region of {len} bytes: it takes 1 at least, and {MOST} at most"),
            Self::Window(pages) => write!(f, "a window of {pages} pages: it takes a power of two, {MOST_AROUND} at most"),
            Self::Budget(bytes) => write!(f, "a budget of {bytes} bytes: a region takes {LEAST} at least"),
            Self::Pinned { budget, pinned } => write!(
                f,
                "a budget of {budget} bytes: {pinned} are pinned, which leaves too few for others; let go of some first"
            ),
            Self::Lacks(ability) => {
                write!(f, "the kernel has no {} here, which takes", ability.name())?;
                ability.needs().names().try_for_each(|(name, version)| write!(f, " {name} (Linux {version})"))
            }
            Self::Kernel(what, error) => write!(f, "cannot {what}: {error}"),
            Self::NoMemory => f.write_str("the pager has no memory for the region's tables"),
        }
    }
}

impl std::error::Error for NoRegion {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Kernel(_, error) => Some(error),
            _ => None,
        }
    }
}

/// An access that cannot be had.
#[derive(Debug)]
pub struct Failed {
    /// Which byte of the region.
    pub at: u64,
    /// Why not, as the core says it.
    pub why: Denied,
    /// The backing's last error, if that is why.
    pub error: Option<io::Error>,
}

impl Failed {
    /// Whether the page is [poisoned](crate::OnFailure::Poison): it is not tried again.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.error.as_ref().and_then(io::Error::raw_os_error) == Some(libc::EHWPOISON)
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.why {
            Denied::Unmapped => "is not of the region",
            Denied::Protected => "is protected from that",
            Denied::Bus => "cannot be had from the backing",
            Denied::NoMemory => "finds no memory: what is there cannot leave",
        };
        write!(f, "byte {} {why}", self.at)?;
        self.error.as_ref().map_or(Ok(()), |error| write!(f, ": {error}"))
    }
}

impl std::error::Error for Failed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.as_ref().map(|error| error as _)
    }
}

/// Not all of a region is durable; what could not be written is in memory still, and can be flushed again.
#[derive(Debug)]
pub struct Unwritten(pub Option<io::Error>);

impl fmt::Display for Unwritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        spile::backing::Unwritten.fmt(f)?;
        self.0.as_ref().map_or(Ok(()), |error| write!(f, ": {error}"))
    }
}

impl std::error::Error for Unwritten {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.as_ref().map(|error| error as _)
    }
}

/// Pages that cannot be pinned.
#[derive(Debug)]
pub enum NoPin {
    /// So few would be left for others: so many bytes can be pinned now.
    Budget(u64),
    /// They cannot be had, or not be written.
    Failed(Failed),
}

impl From<Failed> for NoPin {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}

impl fmt::Display for NoPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Budget(bytes) => write!(
                f,
                "more than the {bytes} bytes that can be pinned now: pin less, let go of others, or have a larger budget"
            ),
            Self::Failed(failed) => failed.fmt(f),
        }
    }
}

impl std::error::Error for NoPin {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Budget(_) => None,
            Self::Failed(failed) => failed.source(),
        }
    }
}
