//! Runs of pages that leave at once.

use super::common::PAGE;
use super::process::Itself;
use super::ring::{BATCH, Held};
use super::work::Scene;
use spile_linux::Uffd;

/// Addresses of a batch's runs, and their lengths.
#[derive(Default)]
pub struct Leaving {
    runs: [(u64, u64); BATCH],
    count: usize,
}

impl Leaving {
    /// Pages that lie at `at` leave: what is dirty is protected, and written to the file.
    pub fn note(&mut self, at: u64, run: &[Held], uffd: &Uffd, scene: &Scene<'_>) {
        let len = run.len() as u64 * PAGE;
        self.runs[self.count] = (at, len);
        self.count += 1;
        if run[0].is_dirty {
            // SAFETY: (1) who writes meanwhile faults.
            unsafe {
                uffd.protect(at, len, true).expect("it is there");
                scene.file.write(run[0].page, at, run.len() as u64);
            }
        }
    }

    pub fn runs(&self) -> &[(u64, u64)] {
        &self.runs[..self.count]
    }

    /// Drops them by one call, and what lies `besides` so far from them.
    ///
    /// # Safety
    ///
    /// (1) Who misses the pages faults, and reads what was written.
    pub unsafe fn drop(&self, itself: &Itself, besides: Option<u64>) {
        let run = |(at, len): &(u64, u64)| libc::iovec { iov_base: *at as *mut libc::c_void, iov_len: *len as usize };
        let mut all = [run(&(0, 0)); 2 * BATCH];
        let distances = [Some(0), besides];
        let runs = distances.iter().flatten().flat_map(|far| self.runs().iter().map(|(at, len)| (at.wrapping_add(*far), *len)));
        let count = all.iter_mut().zip(runs).map(|(one, of)| *one = run(&of)).count();
        // SAFETY: (1) says the caller.
        let is_done = count == 0 || unsafe { itself.drop_pages(&all[..count]) };
        assert!(is_done, "it was tried before");
    }
}
