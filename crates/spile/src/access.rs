//! Reading and writing user memory as a kernel does.
//!
//! **Guarantee.** Bytes are copied as an access by the program would: faults are taken, permissions kept, and where a page cannot be
//! accessed the copy stops and says how far it came. What was written is in the page that the program sees, and in no other's.
//!
//! **Mechanism.** Per page: where the entry allows the access, read through a hold on the frame; write under the table's lock, for a frame
//! that is only held may meanwhile be shared with a forked child, or be copied and left. Where the entry does not allow it, fault and wait.

use crate::addr::{Access, PAGE};
use crate::fault::Denied;
use crate::frame::Frame;
use crate::locking::Locking;
use crate::mm::Mm;
use crate::platform::Platform;

/// A copy that stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partial {
    /// How many bytes were copied.
    pub copied: usize,
    /// Why not more.
    pub why: Denied,
}

impl<P: Platform, L: Locking> Mm<P, L> {
    /// Copies from `at` on into `bytes`. May sleep.
    ///
    /// # Errors
    ///
    /// [`Partial`].
    pub fn read_user(&self, at: u64, bytes: &mut [u8]) -> Result<(), Partial> {
        let mut copied = 0;
        while copied < bytes.len() {
            let (at, len) = part(at, copied, bytes.len());
            let frame = self.pin_page(at).map_err(|why| Partial { copied, why })?;
            frame.read((at % PAGE) as usize, &mut bytes[copied..copied + len]);
            copied += len;
        }
        Ok(())
    }

    /// Copies `bytes` to `at` on. May sleep.
    ///
    /// # Errors
    ///
    /// [`Partial`].
    pub fn write_user(&self, at: u64, bytes: &[u8]) -> Result<(), Partial> {
        let mut copied = 0;
        while copied < bytes.len() {
            let (at, len) = part(at, copied, bytes.len());
            if self.table.write(self.platform(), at, &bytes[copied..copied + len]) {
                copied += len;
            } else {
                self.fault_and_wait(at, Access::Write).map_err(|why| Partial { copied, why })?;
            }
        }
        Ok(())
    }

    /// A hold on the page at `at`, to read from: what the program writes there after a fork, or after it was unmapped, is in another page. (To
    /// write, [`write_user`](Self::write_user).) May sleep.
    ///
    /// # Errors
    ///
    /// [`Denied`].
    pub fn pin_page(&self, at: u64) -> Result<Frame<'_, P>, Denied> {
        loop {
            if let Some(frame) = self.table.hold(self.platform(), at) {
                return Ok(frame);
            }
            self.fault_and_wait(at, Access::Read)?;
        }
    }
}

/// Where the next piece of a copy begins, and how long it is: up to the end of its page.
fn part(from: u64, copied: usize, len: usize) -> (u64, usize) {
    let at = from.wrapping_add(copied as u64);
    (at, (len - copied).min((PAGE - at % PAGE) as usize))
}
