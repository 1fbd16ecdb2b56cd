//! Memory that is alike in every process: of which no two pieces share a cache line, and which comes again in an order that is the program's.
//!
//! **Guarantee.** From [`keep_apart`] on which atomics share a line, which are one, and the low bits of addresses, by which the core chooses where to sleep,
//! are the program's doing and not the allocator's: two processes that play the same seed play the same story. Before, and in a process that
//! never asks, memory is the system's.
//!
//! **Mechanism.** Each thread takes pieces of whole lines from chunks of its own, which begin at multiples of their size, and gives no chunk back. So it is
//! for a process that plays some seeds and ends. A small piece that the thread gives back is its next one of that size, as with other
//! allocators; one that is another thread's, or from before, is left alone. [`anew`] begins a chunk, so that a seed does not depend on those before it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of a line, as the scheduler counts them.
const LINE: usize = 64;
/// Pieces of fewer lines come again.
const SMALL: usize = 17;
/// Bytes of a chunk, and what its address is a multiple of.
const CHUNK: usize = 1 << 20;

static IS_APART: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// What is left of this thread's chunk: where, and how much.
    static LEFT: Cell<(*mut u8, usize)> = const { Cell::new((ptr::null_mut(), 0)) };
}

thread_local! {
    /// Pieces of this thread's chunk that were given back, by their lines; the first word of each says which is next.
    static BACK: [Cell<*mut u8>; SMALL] = const { [const { Cell::new(ptr::null_mut()) }; SMALL] };
}

#[global_allocator]
static MEMORY: Apart = Apart;

/// From now on, for as long as this process lives.
pub fn keep_apart() {
    // Relaxed, here and below: whichever thread sees it late gets a piece of the other kind, and both kinds may be left alone.
    IS_APART.store(true, Ordering::Relaxed);
}

/// This thread's next piece is the first of a chunk.
pub fn anew() {
    LEFT.set((ptr::null_mut(), 0));
    forget_back();
}

/// What was given back belongs to a chunk that is not this thread's any more.
fn forget_back() {
    BACK.with(|back| back.iter().for_each(|list| list.set(ptr::null_mut())));
}

/// How many lines a piece has, if it is one that may come again.
fn small(layout: Layout) -> Option<usize> {
    let lines = layout.size().div_ceil(LINE);
    (lines < SMALL && layout.align() <= LINE).then_some(lines)
}

/// The piece of so many lines that was given back last, if there is one.
fn again(lines: usize) -> Option<*mut u8> {
    BACK.with(|back| {
        let piece = Some(back[lines].get()).filter(|piece| !piece.is_null())?;
        // SAFETY: (1) whoever gave it back wrote the next one there; (2) nobody has it since.
        back[lines].set(unsafe { piece.cast::<*mut u8>().read() });
        Some(piece)
    })
}

/// Keeps a piece of so many lines, if it is of this thread's chunk.
fn keep(piece: *mut u8, lines: usize) {
    let (next, left) = LEFT.get();
    let end = next.addr() + left;
    if (end.wrapping_sub(CHUNK)..end).contains(&piece.addr()) {
        BACK.with(|back| {
            // SAFETY: (1) a piece of a chunk has a line at least, and begins at one; (2) it was given back: nobody else has it.
            unsafe { piece.cast::<*mut u8>().write(back[lines].replace(piece)) };
        });
    }
}

struct Apart;

fn is_apart() -> bool {
    IS_APART.load(Ordering::Relaxed)
}

/// A piece that is nobody's; null if there is no memory.
fn piece(layout: Layout) -> *mut u8 {
    let (Some(size), align) = (layout.size().checked_next_multiple_of(LINE), layout.align()) else { return ptr::null_mut() };
    if size > CHUNK / 2 || align > LINE {
        let Ok(alone) = Layout::from_size_align(size, align.max(CHUNK)) else { return ptr::null_mut() };
        // SAFETY: (1) a layout's size is not 0 here, for the caller's is not.
        return unsafe { System.alloc(alone) };
    }
    if let Some(piece) = small(layout).and_then(again) {
        return piece;
    }
    let (mut next, mut left) = LEFT.get();
    if left < size {
        forget_back();
        // SAFETY: (1) it is not 0.
        next = unsafe { System.alloc(Layout::from_size_align(CHUNK, CHUNK).expect("a power of two")) };
        left = CHUNK;
    }
    if next.is_null() {
        return next;
    }
    LEFT.set((next.wrapping_add(size), left - size));
    next
}

// SAFETY: (1) pieces are the system's memory, of no less than was asked for, and each is one caller's; (2) what was got while `is_apart` held is never
// given to the system, for it holds for ever; (3) nothing here unwinds: the one layout that is expected is a constant.
unsafe impl GlobalAlloc for Apart {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_apart() {
            return piece(layout);
        }
        // SAFETY: (1) the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !is_apart() {
            // SAFETY: (1) the caller's.
            return unsafe { System.alloc_zeroed(layout) };
        }
        let piece = piece(layout);
        if !piece.is_null() {
            // SAFETY: (1) it has as many bytes.
            unsafe { piece.write_bytes(0, layout.size()) };
        }
        piece
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        if !is_apart() {
            // SAFETY: (1) it was got from the system, for nothing else ever was; (2) the caller's.
            unsafe { System.dealloc(piece, layout) };
        } else if let Some(lines) = small(layout) {
            keep(piece, lines);
        }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !is_apart() {
            // SAFETY: (1) as above; (2) the caller's.
            return unsafe { System.realloc(old, layout, size) };
        }
        let Ok(wanted) = Layout::from_size_align(size, layout.align()) else { return ptr::null_mut() };
        let new = piece(wanted);
        if !new.is_null() {
            // SAFETY: (1) both have as many bytes; (2) a new piece overlaps no other; (3) the old one is the caller's to give.
            unsafe {
                ptr::copy_nonoverlapping(old, new, size.min(layout.size()));
                self.dealloc(old, layout);
            }
        }
        new
    }
}
