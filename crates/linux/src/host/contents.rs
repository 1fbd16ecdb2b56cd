//! Contents of a region's pages: from its backing to frames, and back.
//!
//! **Guarantee.** A backing is given pages that nobody else has, a run of adjacent ones at once where a run is wanted. What it could not do is remembered, and counted.
//!
//! **Mechanism.** A page is read into a slot of the stash. Reads are begun in a fault and made by the thread that faults, when it holds nothing any more
//! ([`Errands`](super::Errands)); where nobody runs errands they are made at once. To be written pages are copied first, for a program may write them meanwhile.

use super::errands::Errands;
use super::lanes::lock;
use super::stash::RUN;
use super::{Host, Parts};
use crate::backing::{Backing, Page};
use crate::latency::Meter;
use crate::watchdog::{Asked, Calls};
use crate::working_set::{Recorder, WorkingSet};
use arrayvec::ArrayVec;
use spile::backing::File;
use spile::{FrameId, Store, Transfer};
use spile_sync::atomic::{AtomicU64, Ordering};
use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock};

/// What a region's backing has done.
#[derive(Debug, Default)]
pub struct Done {
    /// Calls of it to fill pages, and to keep some.
    pub fills: Meter,
    pub writes: Meter,
    /// Pages that were filled, and kept.
    pub filled: AtomicU64,
    pub written: AtomicU64,
    /// Calls that failed.
    pub failed: AtomicU64,
}

/// The contents of a region.
#[derive(Clone)]
pub struct Contents(Arc<Inner>);

struct Inner {
    backing: Arc<dyn Backing>,
    done: Done,
    last_error: Mutex<Option<io::Error>>,
    recorder: OnceLock<Recorder>,
    calls: Arc<Calls>,
}

thread_local! {
    /// Whether this thread is in a backing. `const` and without `Drop`: a plain word, which a signal handler may use.
    static ASKING: Cell<bool> = const { Cell::new(false) };
}

/// A copy of what is in a frame, in the stash: programs may write the frame meanwhile.
struct Copied<'h> {
    host: &'h Parts,
    slot: u32,
}

impl<'h> Copied<'h> {
    /// Of the first of `frames`, which are held, as many as there are slots for: none, if there is no memory.
    fn of_first(host: &'h Parts, frames: &[FrameId]) -> ArrayVec<Self, RUN> {
        let mut copies = ArrayVec::new();
        for frame in &frames[..frames.len().min(RUN)] {
            let slot = if copies.is_empty() { host.stash.buffer(&host.uffd) } else { host.stash.buffer_at_once(&host.uffd).ok() };
            let Some(slot) = slot else { break };
            copies.push(Self::of(host, *frame, slot));
        }
        copies
    }

    fn of(host: &'h Parts, frame: FrameId, slot: u32) -> Self {
        let pinned = host.places[frame.0 as usize].pin();
        // SAFETY: (1) held, says the caller, and pinned; (2) all of it; (3) the slot is this thread's.
        unsafe { host.copy_from(pinned.at, 0, host.stash.at(slot) as *mut u8, size_of::<Page>()) };
        Self { host, slot }
    }

    fn page(&self) -> &Page {
        // SAFETY: (1) the slot's, which nobody else has.
        unsafe { &*(self.host.stash.at(self.slot) as *const Page) }
    }
}

impl Drop for Copied<'_> {
    fn drop(&mut self) {
        self.host.stash.give(self.slot, &self.host.advised);
    }
}

/// This thread is in a backing.
struct Asking {
    was: bool,
}

impl Asking {
    fn begin() -> Self {
        Self { was: ASKING.replace(true) }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        ASKING.set(self.was);
    }
}

/// Whether this thread is in a backing: then it asks none to keep pages, which may wait for what that one holds, and would do so at any depth.
pub fn is_asking() -> bool {
    ASKING.get()
}

impl Contents {
    /// Those that `backing` has.
    pub fn new(backing: Arc<dyn Backing>) -> Self {
        Self(Arc::new(Inner {
            backing,
            done: Done::default(),
            last_error: Mutex::new(None),
            recorder: OnceLock::new(),
            calls: Arc::default(),
        }))
    }

    /// What the backing has done so far.
    pub fn done(&self) -> &Done {
        &self.0.done
    }

    /// Its last error, if there is one that was not taken yet.
    pub fn take_error(&self) -> Option<io::Error> {
        lock(&self.0.last_error).take()
    }

    /// What it is asked for now.
    pub fn calls(&self) -> &Arc<Calls> {
        &self.0.calls
    }

    /// What it has of `pages` is not wanted any more.
    pub fn discard(&self, pages: std::ops::Range<u64>) {
        self.0.backing.discard(pages);
    }

    /// From now on it is noted which pages are filled, the next `most` of them. Once.
    pub fn record(&self, most: usize) {
        self.0.recorder.get_or_init(|| Recorder::new(most));
    }

    /// A page may be written from now on.
    pub fn note_write(&self, page: u64) {
        self.0.recorder.get().into_iter().for_each(|recorder| recorder.note_write(page));
    }

    /// Those that were.
    pub fn recorded(&self) -> WorkingSet {
        self.0.recorder.get().map(Recorder::read).unwrap_or_default()
    }

    /// Asks the backing. Whether it did what it was asked for: who panics did not.
    fn ask(&self, asked: Asked, question: impl FnOnce(&dyn Backing) -> io::Result<()>) -> bool {
        let _under_way = self.0.calls.begin(asked);
        let _asking = Asking::begin();
        let answer = catch_unwind(AssertUnwindSafe(|| question(&*self.0.backing)));
        let answer = answer.unwrap_or_else(|_| Err(io::Error::other("the backing panicked")));
        answer.map_err(|error| self.fails(error)).is_ok()
    }

    fn fails(&self, error: io::Error) {
        // Relaxed, here and below: numbers.
        self.0.done.failed.fetch_add(1, Ordering::Relaxed);
        *lock(&self.0.last_error) = Some(error);
    }

    fn fill(&self, first: u64, pages: &mut [&mut Page]) -> bool {
        let Done { fills, filled, .. } = &self.0.done;
        let is_filled = fills.time(|| self.ask(Asked::Fill(first), |backing| backing.fill(first, pages)));
        if is_filled {
            filled.fetch_add(pages.len() as u64, Ordering::Relaxed);
            self.0.recorder.get().into_iter().for_each(|recorder| recorder.note(first, pages.len()));
        }
        is_filled
    }

    /// Fills `frames` with the pages from `first` on, and says of each whether that succeeded.
    ///
    /// # Safety
    ///
    /// (1) They are the caller's alone.
    pub(super) unsafe fn fill_frames(&self, host: &Parts, first: u64, frames: &[FrameId], mut over: impl FnMut(u64, bool)) {
        let mut pages: ArrayVec<&mut Page, RUN> = match host.buffers_for(frames) {
            // SAFETY: (1) the frames', and so another for each.
            Some(buffers) => unsafe { buffers.into_iter().map(|page| &mut *page).collect() },
            None => {
                self.fails(io::ErrorKind::OutOfMemory.into());
                return (first..).zip(frames).for_each(|(page, _)| over(page, false));
            }
        };
        let is_filled = self.fill(first, &mut pages);
        for (n, page) in pages.iter_mut().enumerate() {
            // One that cannot be had does not keep others from being had.
            let is_filled = is_filled || frames.len() > 1 && self.fill(first + n as u64, std::slice::from_mut(page));
            over(first + n as u64, is_filled);
        }
    }

    /// Has what is in the first of `frames`, which are held, kept as the pages from `first` on, as many as can be copied at once. Of each, whether it is.
    fn write_frames(&self, host: &Parts, first: u64, frames: &[FrameId]) -> ArrayVec<bool, RUN> {
        let copies = Copied::of_first(host, frames);
        let pages: ArrayVec<&Page, RUN> = copies.iter().map(Copied::page).collect();
        if pages.is_empty() {
            self.fails(io::ErrorKind::OutOfMemory.into());
            return [false].into_iter().collect();
        }
        let is_written = self.write_back(first, &pages);
        // One that cannot be kept does not keep others from being kept.
        let is_kept = |(page, copy): (u64, &&Page)| is_written || pages.len() > 1 && self.write_back(page, &[copy]);
        (first..).zip(&pages).map(is_kept).collect()
    }

    fn write_back(&self, first: u64, pages: &[&Page]) -> bool {
        let Done { writes, written, .. } = &self.0.done;
        let is_written = writes.time(|| self.ask(Asked::WriteBack(first), |backing| backing.write_back(first, pages)));
        if is_written {
            written.fetch_add(pages.len() as u64, Ordering::Relaxed);
        }
        is_written
    }
}

impl Store<Host> for Contents {
    unsafe fn start_read(&self, file: &File<Host>, page: u64, frame: FrameId) -> Transfer {
        if Errands::take(file, page, frame) {
            return Transfer::Started;
        }
        let (host, mut is_filled) = (&*file.platform().0, false);
        // SAFETY: (1) says the caller.
        unsafe { self.fill_frames(host, page, &[frame], |_, filled| is_filled = filled) };
        if is_filled { Transfer::Done } else { Transfer::Failed }
    }

    unsafe fn start_write(&self, file: &File<Host>, page: u64, frame: FrameId) -> Transfer {
        let mut how = Transfer::Failed;
        // SAFETY: (1) says the caller.
        unsafe { self.start_writes(file, page, &[frame], |answer| how = answer) };
        how
    }

    unsafe fn start_writes(&self, file: &File<Host>, first: u64, frames: &[FrameId], mut answer: impl FnMut(Transfer)) {
        if is_asking() {
            return frames.iter().for_each(|_| answer(Transfer::Failed));
        }
        // A backing may wait for who wants a page that this thread is to read.
        Errands::run();
        let mut done = 0;
        while done < frames.len() {
            let written = self.write_frames(&file.platform().0, first + done as u64, &frames[done..]);
            done += written.len();
            written.into_iter().for_each(|is_written| answer(if is_written { Transfer::Done } else { Transfer::Failed }));
        }
    }

    fn takes_writes(&self, _: &File<Host>) -> bool {
        self.0.backing.takes_writes()
    }

    fn sync(&self, _: &File<Host>) -> bool {
        self.ask(Asked::Sync, |backing| backing.sync())
    }
}
