//! Taking hold of a page through its entry.

use super::PageTable;
use super::table::index;
use crate::addr::{Access, TABLE_END};
use crate::frame::Frame;
use crate::platform::Platform;
use spile_rcu::Rcu;

impl<P: Platform> PageTable<P> {
    /// A hold on the page at `at`, if its entry allows `access`; a write marks it dirty, as the MMU would.
    pub(crate) fn hold<'p>(&self, p: &'p P, at: u64, access: Access) -> Option<Frame<'p, P>> {
        if at >= TABLE_END {
            return None;
        }
        let _section = p.rcu().read();
        let locked = Self::lock(p, self.leaf(p, at)?)?;
        let pte = locked.get(index(at, 0)).filter(|pte| access.allowed_by(pte.prot))?;
        if access == Access::Write && !pte.dirty {
            locked.edit(index(at, 0), super::Pte::dirtied);
        }
        Some(Frame::share(p, pte.frame))
    }
}
