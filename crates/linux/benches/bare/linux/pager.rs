//! This crate's pager, of the same file: it has as many frames as the others have, all threads' together.

use super::common::PAGE;
use super::work::{Contender, Scene};
use spile::VmaRefcount;
use spile_linux::backing::{Mode, OnFile};
use spile_linux::{Pager, Region};
use std::ops::Range;

pub struct Paged {
    region: Region<OnFile>,
    /// It is there as long as the region.
    _pager: Pager,
}

fn pager(budget: u64) -> Pager {
    Pager::builder().budget(budget).build().expect("the probe says so")
}

/// Faults of regions are handled from now on: the first pager sees to that.
pub fn lead() {
    drop(pager(Pager::<VmaRefcount>::LEAST));
}

impl Paged {
    pub fn new(scene: Scene<'_>) -> Self {
        let (file, pager) = (scene.file, pager(scene.resident * PAGE));
        // SAFETY: (1) who plays with this pager changes the file by it alone.
        let backing = unsafe { OnFile::open(file.path(), Mode::READ_WRITE.direct(file.is_direct)) }.expect("it is there");
        let region = pager.region(backing, file.pages * PAGE).around(scene.window as u32).map().expect("there is memory");
        Self { region, _pager: pager }
    }
}

impl Contender for Paged {
    fn at(&self) -> u64 {
        self.region.as_ptr() as u64
    }

    fn prefetch(&self, pages: Range<u64>) {
        self.region.prefetch(pages.start * PAGE..pages.end * PAGE).expect("the file has them");
    }

    fn finish(self: Box<Self>) {
        self.region.flush().expect("the file takes all");
    }
}
