//! Pages that differ from the store, and how they get there.
//!
//! **Guarantee.** A page that was written is *dirty* until a write of it has succeeded that began after the last change. One write of a page is
//! under way at a time. A failed write leaves it dirty, and is counted. What is away, in a slot, is dirty.
//!
//! **Mechanism.** Who writes a page back makes it clean first, then sees to it that no CPU changes it without a fault, and only then starts to write; a
//! fault makes it dirty again. So a change that the write may have missed is noted.

use super::{DIRTY, File, HERE, LEAVING, LOST, WRITING, decode_frame};
use crate::addr::FrameId;
use crate::frame::{self, Frame};
use crate::platform::{Platform, Store, Transfer};
use crate::reclaim::sealed::Reclaim;
use crate::wait::{self, Token};
use core::fmt;
use core::ops::Range;
use spile_sync::atomic::Ordering;
use spile_sync::seeded;

/// What was written is not all in the store, or the store cannot say that it is durable. Pages that could not be written stay as they are, dirty: the next flush
/// tries again, and asks for the store's word again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unwritten;

impl fmt::Display for Unwritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not all of it is durable; what could not be written is in memory still, and can be flushed again")
    }
}

impl core::error::Error for Unwritten {}

/// A write of a page that has begun: the page is clean, and being written.
pub(crate) struct Write<'m, P: Platform> {
    file: File<P>,
    page: u64,
    held: Frame<'m, P>,
}

/// How a write was started.
pub(crate) struct Started<P: Platform> {
    pub(crate) file: File<P>,
    pub(crate) page: u64,
    /// Where the page is, on which nobody has a hold for this.
    pub(crate) frame: FrameId,
    pub(crate) how: Transfer,
}

/// Writes that have begun, and are started together: `N` at most.
pub(crate) struct Writes<'m, P: Platform, const N: usize> {
    begun: [Option<Write<'m, P>>; N],
    count: usize,
}

impl<P: Platform> Write<'_, P> {
    /// The frame that is written.
    pub(crate) fn frame(&self) -> FrameId {
        self.held.id()
    }

    /// Whether `next` is of the page after this one.
    fn is_before(&self, next: &Self) -> bool {
        self.page + 1 == next.page && self.file.id() == next.file.id()
    }

    /// Its store has answered.
    fn started(self, how: Transfer) -> Started<P> {
        let Self { file, page, held } = self;
        let frame = held.id();
        drop(held);
        if how != Transfer::Started {
            file.end_write(page, how == Transfer::Done);
        }
        Started { file, page, frame, how }
    }
}

impl<'m, P: Platform, const N: usize> Writes<'m, P, N> {
    /// None.
    pub(crate) fn new() -> Self {
        Self { begun: [const { None }; N], count: 0 }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// And this one. There is room for it.
    pub(crate) fn add(&mut self, write: Write<'m, P>) {
        self.begun[self.count] = Some(write);
        self.count += 1;
    }

    /// Starts them, those of adjacent pages of a file by one call of its store. Never sleeps. `over` hears how each went.
    pub(crate) fn start(mut self, mut over: impl FnMut(Started<P>)) {
        let begun = &mut self.begun[..self.count];
        begun.sort_unstable_by_key(|write| write.as_ref().map(|write| (write.file.id(), write.page)));
        for run in begun.chunk_by_mut(|a, b| a.as_ref().zip(b.as_ref()).is_some_and(|(a, b)| a.is_before(b))) {
            Self::start_run(run, &mut over);
        }
    }

    /// Starts those of adjacent pages.
    fn start_run(run: &mut [Option<Write<'m, P>>], over: &mut impl FnMut(Started<P>)) {
        let Some((file, first)) = run[0].as_ref().map(|write| (write.file.clone(), write.page)) else { return };
        let (mut frames, count) = ([FrameId(0); N], run.len());
        frames.iter_mut().zip(run.iter().flatten()).for_each(|(frame, write)| *frame = write.frame());
        let mut writes = run.iter_mut().filter_map(Option::take);
        let answer = |how| over(writes.next().expect("one answer for each page").started(how));
        match file.store() {
            // SAFETY: (1) of each: the file's, which has a hold until it is written.
            Some(store) => unsafe { store.start_writes(&file, first, &frames[..count], answer) },
            None => (0..count).map(|_| Transfer::Failed).for_each(answer),
        }
    }
}

impl<P: Platform> File<P> {
    /// `page`, which is in memory and about to be writable somewhere, differs from the store. Where it becomes writable in an entry, under the lock of that
    /// entry's table: who makes it clean looks there afterwards. The caller has a hold on its frame, or has locked an entry that has one: else it may have left,
    /// and nothing is noted.
    pub(crate) fn set_dirty(&self, page: u64) {
        self.change(page, |raw| (raw & (HERE | DIRTY) == HERE).then_some(raw | DIRTY));
    }

    /// Whether `page`, in memory or away in a slot, differs from the store.
    pub fn is_dirty(&self, page: u64) -> bool {
        self.state(page) & DIRTY != 0
    }

    /// Whether `page` is being written to the store.
    pub(crate) fn is_writing(&self, page: u64) -> bool {
        self.state(page) & WRITING != 0
    }

    /// How many pages, in memory or away in slots, differ from the store. Exact when nobody changes them.
    pub fn dirty_pages(&self) -> u64 {
        let mut dirty = 0;
        self.each_cached(0..u64::MAX, |_, raw| dirty += u64::from(raw & DIRTY != 0));
        dirty
    }

    /// Whether its store takes what was written.
    pub(crate) fn takes_writes(&self) -> bool {
        self.store().is_some_and(|store| store.takes_writes(self))
    }

    /// The first page of `pages` that is dirty.
    pub(crate) fn next_dirty(&self, pages: Range<u64>) -> Option<u64> {
        self.next_with(pages, DIRTY)
    }

    /// The first page of `pages` that is being written.
    pub(crate) fn next_writing(&self, pages: Range<u64>) -> Option<u64> {
        self.next_with(pages, WRITING)
    }

    fn next_with(&self, pages: Range<u64>, state: u64) -> Option<u64> {
        let mut found = None;
        self.each_while(pages, |page, raw| {
            found = (raw & state != 0).then_some(page);
            found.is_none()
        });
        found
    }

    /// `page` is clean, and being written, if it was dirty and nobody writes it. The caller sees to it that every CPU faults before it writes the page again, and then
    /// [starts](Writes::start) it.
    pub(crate) fn begin_write<'m>(&self, p: &'m P, page: u64) -> Option<Write<'m, P>> {
        let (table, i) = self.slot(page, false)?;
        loop {
            let raw = frame::table(p, table).load(i);
            if raw & (HERE | DIRTY | WRITING | LOST) != HERE | DIRTY {
                return None;
            }
            // Before it is being written: when that is over, the file's own may go.
            let held = if raw & LEAVING == 0 { self.hold(p, table, i, raw) } else { None };
            let begun = held.filter(|_| frame::table(p, table).exchange(i, raw, raw & !DIRTY | WRITING).is_ok());
            if let Some(held) = begun {
                P::Reclaim::transfer_begins(p);
                return Some(Write { file: self.clone(), page, held });
            }
            p.relax();
        }
    }

    /// `page` is written, if `ok`, or stays dirty.
    pub(super) fn end_write(&self, page: u64, ok: bool) {
        let p = self.platform();
        if !ok {
            // Relaxed: the entry's change, next, releases it to whoever waits for that.
            self.object.failed.fetch_add(1, Ordering::Relaxed);
        }
        let ended = self.change(page, |raw| match raw & (WRITING | LOST) {
            WRITING if ok || seeded!("failed-write-is-clean") => Some(raw & !WRITING),
            WRITING => Some(raw & !WRITING | DIRTY),
            0 | LOST => None,
            _ => Some(0),
        });
        debug_assert!(ended.is_some(), "a write that did not begin was completed");
        let Some(raw) = ended else { return };
        let frame = decode_frame(raw);
        if raw & LOST != 0 {
            frame::put(p, frame);
        }
        P::Reclaim::write_ends(p, frame, ok);
        wait::happened(p, self.thing(page));
    }

    /// Until nobody writes `page`. With nothing held; may sleep.
    pub(crate) fn await_write(&self, p: &P, page: u64) {
        loop {
            let token = Token::for_thing(p, self.thing(page));
            if !self.is_writing(page) || seeded!("flush-without-waiting") {
                return;
            }
            token.wait();
        }
    }

    /// How many writes have failed so far.
    pub(crate) fn failed_writes(&self) -> u64 {
        // Relaxed: who waited for a write has acquired the end of it.
        self.object.failed.load(Ordering::Relaxed)
    }
}
