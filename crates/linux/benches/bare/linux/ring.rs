//! Which pages are resident, the oldest first, in batches of neighbouring frames.

/// Pages that leave at once.
pub const BATCH: usize = 16;

/// A page of the file that is resident.
#[derive(Clone, Copy)]
pub struct Held {
    pub page: u64,
    pub is_dirty: bool,
}

/// One entry per frame. Frames are taken in turn, so the batch that comes next holds the oldest pages.
pub struct Ring {
    held: Vec<Option<Held>>,
    next: usize,
}

impl Ring {
    pub fn new(frames: u64) -> Self {
        assert!((frames as usize).is_multiple_of(BATCH));
        Self { held: vec![None; frames as usize], next: 0 }
    }

    /// The frame of `window` new pages, neighbours. `evict` is told of the pages that have to leave for them: the first one's frame, and pages that are neighbours as their
    /// frames are, all of them dirty or none.
    pub fn take(&mut self, first: u64, window: u64, is_dirty: bool, evict: impl FnMut(u64, &[Held])) -> u64 {
        let frame = self.next % self.held.len();
        if frame.is_multiple_of(BATCH) {
            self.empty(frame..frame + BATCH, evict);
        }
        for (n, held) in self.held[frame..][..window as usize].iter_mut().enumerate() {
            *held = Some(Held { page: first + n as u64, is_dirty });
        }
        self.next += window as usize;
        frame as u64
    }

    /// Everything leaves.
    pub fn drain(&mut self, mut evict: impl FnMut(u64, &[Held])) {
        for frame in (0..self.held.len()).step_by(BATCH) {
            self.empty(frame..frame + BATCH, &mut evict);
        }
    }

    fn empty(&mut self, frames: std::ops::Range<usize>, mut evict: impl FnMut(u64, &[Held])) {
        let mut leaving = [Held { page: 0, is_dirty: false }; BATCH];
        let mut count = 0;
        let first = frames.start as u64;
        // A batch is filled from its beginning.
        for held in self.held[frames].iter_mut().map_while(Option::take) {
            leaving[count] = held;
            count += 1;
        }
        let mut frame = first;
        for run in leaving[..count].chunk_by(|a, b| a.page + 1 == b.page && a.is_dirty == b.is_dirty) {
            evict(frame, run);
            frame += run.len() as u64;
        }
    }

    /// Page `page` was written after all.
    pub fn dirty(&mut self, page: u64) {
        let held = self.held.iter_mut().flatten().find(|held| held.page == page);
        held.expect("a protected page is resident").is_dirty = true;
    }
}
