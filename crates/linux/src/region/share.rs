//! A region's memory, for others.
//!
//! **Guarantee.** Who has it sees what is in memory, as the program has written it, and zeros where nothing is; never what was there before. Nothing that he does with it changes what the program sees.
//!
//! **Mechanism.** Another description of the region's memfd, which cannot be written ([`shares`](crate::host)).

use super::Region;
use crate::backing::Backing;
use spile::Locking;
use std::fs::File;
use std::io::{Error, ErrorKind, Result};

impl<B: Backing, L: Locking> Region<B, L> {
    /// The region's memory, to be mapped or read elsewhere, in this process or in another that is given the descriptor: byte `n` of the file is byte `n` of the region. It is to be read: it
    /// can be neither written, nor mapped to be written and shared, nor cut. It takes a pager that is [shared](crate::Builder::shared).
    ///
    /// **What is in memory is seen there as it is**, at once when the program writes it. **What is not in memory is zeros there**, and a page that leaves becomes zeros, without a word, at the latest when its
    /// memory is wanted for another: nobody brings it for such a reader, and zeros are all that tells him. So
    /// * [pin](Self::pin) what others are to see, as long as they look. That holds in any mapping, and for `read(2)`;
    /// * or the reader maps it `MAP_PRIVATE` and registers that with a [`Uffd`](crate::Uffd) of his own, for [missing and minor](crate::Uffd::register_minor) faults: then nothing is ever zeros by mistake. Where
    ///   nothing is he has a fault, and asks who has the region, by a way of their own, to bring it; what is there he has mapped by [`map_minor`](crate::Uffd::map_minor). When it leaves he has a fault again.
    ///
    /// Who looks at what is not there, by a mapping that is not registered, puts a page of zeros into the memory. The region never shows it: when its own page comes that one is written over, which
    /// such a reader may see half done. Until then, or until the last who maps the memory or has a descriptor is gone, it takes memory that no budget counts. `read(2)` does not do that.
    ///
    /// # Errors
    ///
    /// `Unsupported`: the pager is not shared. Otherwise the kernel's: it takes `/proc`.
    pub fn share(&self) -> Result<File> {
        self.memory.share().unwrap_or_else(|| Err(Error::new(ErrorKind::Unsupported, "the pager is not a shared one")))
    }
}
