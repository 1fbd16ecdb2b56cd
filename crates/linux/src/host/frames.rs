//! Frames: the right to a page, and what is in it.
//!
//! **Guarantee.** A frame has a page of its own or none: one that is new has none until something is put there.
//!
//! **Mechanism.** Bytes are copied where they are, pinned meanwhile. Numbers behind those of frames are tables', whose memory the program is never shown.

use super::place::Where;
use super::stash::RUN;
use super::{Host, Parts, ZEROS};
use crate::PAGE;
use crate::backing::Page;
use arrayvec::ArrayVec;
use spile::paging::Table;
use spile::{FrameId, FrameMeta, Frames};
use std::ptr::null_mut;

/// A page of zeros, to copy from.
#[repr(align(4096))]
pub(super) struct Zeros([u8; PAGE as usize]);

pub(super) static ZERO_PAGE: Zeros = Zeros([0; PAGE as usize]);

impl Zeros {
    pub(super) fn at(&self) -> u64 {
        self.0.as_ptr() as u64
    }
}

impl Parts {
    /// Where the bytes of a frame lie that are there: of one whose place is pinned, or that is the caller's.
    pub(super) fn lies(&self, place: Where) -> u64 {
        match place {
            Where::Nowhere | Where::Zeros => ZERO_PAGE.at(),
            Where::Stash(slot) => self.stash.at(slot),
            Where::Shown { at, .. } => at,
        }
    }

    /// The bytes of a frame have left that place.
    pub(super) fn vacate(&self, place: Where) {
        if let Where::Stash(slot) = place {
            self.stash.give(slot, &self.advised);
        }
    }

    /// A page for `frame`, the caller's alone, to write to, with what it has where that is said; or there is no memory.
    pub(super) fn buffer(&self, frame: FrameId) -> Option<*mut u8> {
        let place = &self.places[frame.0 as usize];
        if let Where::Stash(slot) = place.get() {
            return Some(self.stash.at(slot) as *mut u8);
        }
        let slot = self.stash.buffer(&self.uffd)?;
        place.set(Where::Stash(slot));
        Some(self.stash.at(slot) as *mut u8)
    }

    /// A page for each of `frames`, the caller's alone, to write to: of adjacent ones, if there are such; or there is no memory.
    pub(super) fn buffers_for(&self, frames: &[FrameId]) -> Option<ArrayVec<*mut Page, RUN>> {
        let is_run = frames.len() > 1 && frames.iter().all(|frame| self.places[frame.0 as usize].get() == Where::Nowhere);
        let first = if is_run { self.stash.buffers(&self.uffd, frames.len()) } else { None };
        if let Some(first) = first {
            (first..).zip(frames).for_each(|(slot, frame)| self.places[frame.0 as usize].set(Where::Stash(slot)));
        }
        frames.iter().map(|frame| self.buffer(*frame).map(<*mut u8>::cast)).collect()
    }

    /// What there is where the core takes no refusal: the kernel has no page.
    pub(super) fn must_have<T>(&self, page: Option<T>) -> T {
        page.unwrap_or_else(|| crate::report::abort(format_args!("the kernel has no memory for a page")))
    }
}

// SAFETY: (1) a number is in one list, or somebody's; (2) records are boxed, and never moved; (3) tables' memory stays mapped, and what is written there is tables alone; pages are not in
// reach, and what is overridden here pins them; (4) a clone is the same.
unsafe impl Frames for Host {
    fn alloc(&self) -> Option<FrameId> {
        loop {
            if let Some(frame) = self.0.free.take() {
                return Some(FrameId(frame));
            }
            if !self.0.leaving.drop_some(&self.0) {
                return None;
            }
        }
    }

    unsafe fn free(&self, frame: FrameId) {
        let place = &self.0.places[frame.0 as usize];
        let before = place.get();
        place.set(Where::Nowhere);
        match before {
            Where::Shown { at, .. } => self.0.leaving.note(at, frame.0, &self.0),
            elsewhere => {
                self.0.vacate(elsewhere);
                self.0.free.give(frame.0);
            }
        }
    }

    unsafe fn meta(&self, frame: FrameId) -> &FrameMeta {
        &self.0.metas[frame.0 as usize]
    }

    fn page(&self, _: FrameId) -> *mut u8 {
        null_mut()
    }

    unsafe fn zero(&self, frame: FrameId) {
        let place = &self.0.places[frame.0 as usize];
        let before = place.get();
        place.set(Where::Zeros);
        self.0.vacate(before);
    }

    unsafe fn copy(&self, from: FrameId, to: FrameId) {
        let pinned = self.0.places[from.0 as usize].pin();
        let into = self.0.must_have(self.0.buffer(to));
        // SAFETY: (1) pinned; (2) all of it; (3) the other's page is the caller's alone.
        unsafe { self.0.copy_from(pinned.at, 0, into, PAGE as usize) };
    }

    unsafe fn read(&self, frame: FrameId, offset: usize, into: &mut [u8]) {
        assert!(offset + into.len() <= PAGE as usize, "within a page");
        let pinned = self.0.places[frame.0 as usize].pin();
        // SAFETY: (1) pinned; (2) asserted; (3) a slice.
        unsafe { self.0.copy_from(pinned.at, offset, into.as_mut_ptr(), into.len()) };
    }

    unsafe fn write(&self, frame: FrameId, offset: usize, from: &[u8]) {
        assert!(offset + from.len() <= PAGE as usize, "within a page");
        let place = &self.0.places[frame.0 as usize];
        let page = match (place.get(), &self.0.shares) {
            (Where::Shown { at, .. }, Some(shares)) => return shares.write(at + offset as u64, from),
            // As the program would: if it may not, it faults.
            (Where::Shown { at, .. }, None) => at as *mut u8,
            (before, _) => {
                let page = self.0.must_have(self.0.buffer(frame));
                if matches!(before, Where::Zeros) {
                    // SAFETY: (1) a page of the stash, this frame's.
                    unsafe { page.write_bytes(0, PAGE as usize) };
                }
                page
            }
        };
        // SAFETY: (1) within the page, which the caller may write.
        unsafe { page.add(offset).copy_from_nonoverlapping(from.as_ptr(), from.len()) };
    }

    fn zero_frame(&self) -> FrameId {
        ZEROS
    }

    fn alloc_table(&self) -> Option<FrameId> {
        let table = self.0.free_tables.take()?;
        Some(FrameId(self.0.places.len() as u32 + table))
    }

    unsafe fn free_table(&self, frame: FrameId) {
        self.0.free_tables.give(frame.0 - self.0.places.len() as u32);
    }

    unsafe fn table(&self, frame: FrameId) -> &Table {
        let page = self.0.tables.at(u64::from(frame.0) - self.0.places.len() as u64);
        // SAFETY: (1) a page of tables', which stays mapped; (2) zeros are an empty table, and one that was given back is empty.
        unsafe { &*(page as *const Table) }
    }
}
