//! The kernel's own mapping of the file, by way of its page cache.
//!
//! It keeps what it has read, and writes back when it likes: nothing leaves. Of a tmpfs the cache is the file, so a fault only maps.

use super::common::Map;
use super::work::{Contender, Scene};
use std::ops::Range;
use std::os::fd::AsRawFd;

pub struct Kernel {
    map: Map,
}

impl Kernel {
    pub fn new(scene: Scene<'_>) -> Self {
        scene.file.forget();
        let map = Map::new(scene.file.pages, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, scene.file.cached.as_raw_fd());
        if scene.window == 1 && !scene.file.is_tmpfs {
            map.advise(libc::MADV_RANDOM);
        }
        Self { map }
    }
}

impl Contender for Kernel {
    fn at(&self) -> u64 {
        self.map.at(0)
    }

    fn prefetch(&self, pages: Range<u64>) {
        self.map.advise_pages(pages, libc::MADV_POPULATE_READ);
    }

    fn warms_up(&self) -> bool {
        false
    }
}
