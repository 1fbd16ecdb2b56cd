//! Pages whose neighbours nobody touches.
//!
//! **Guarantee.** The kernel knows them by a lock of their own (`anon_vma`), which a move takes: moves of other such pages do not wait for it.
//!
//! **Mechanism.** A mapping takes the lock of its neighbours, if they are alike and have one. These have a page on each side that is never there.

use super::common::{Map, PAGE};

pub struct Apart(Map);

impl Apart {
    pub fn new(pages: u64) -> Self {
        let map = Map::anonymous(pages + 2);
        for guard in [0, pages + 1] {
            // SAFETY: (1) ours, and nobody uses it.
            assert_eq!(unsafe { libc::mprotect(map.at(guard) as *mut libc::c_void, PAGE as usize, libc::PROT_NONE) }, 0);
        }
        Self(map)
    }

    pub fn at(&self, page: u64) -> u64 {
        self.0.at(page + 1)
    }

    pub fn len(&self) -> u64 {
        self.0.len() - 2 * PAGE
    }
}
