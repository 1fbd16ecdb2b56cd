//! A kernel in miniature: a port of the core in `platform.rs`, and here what runs on it: a trap handler and a software MMU that walks the
//! tables, with programs that map, touch, write, protect, fork and unmap.
#![no_std]
// For printing.
extern crate std;

mod platform;

use core::sync::atomic::Ordering::*;
use platform::*;
use spile::backing::File;
use spile::paging::{BITS, LEVELS};
use spile::*;
use spile_rcu::Rcu;

type Space = Mm<Port, VmaRefcount>;

/// The page fault's entry: interrupts go off, and come back where it may sleep. Leads back to the program, or refuses.
fn trap(mm: &Space, at: u64, access: Access) -> Result<Done, Denied> {
    loop {
        let irqs = irqs_off();
        let outcome = mm.fault(at, access);
        drop(irqs);
        mm.platform().rcu().quiescent();
        match outcome {
            Outcome::Done(done) => return Ok(done),
            Outcome::Denied(denied) => return Err(denied),
            Outcome::Wait(token) => token.wait(),
            Outcome::Grow => mm.grow(at, |_, _, _| true)?,
        }
    }
}

/// An access as hardware makes it: translated by a walk of the tables, trapping where that fails, marking the entry.
fn access(mm: &Space, at: u64, access: Access) -> Result<*mut u8, Denied> {
    'again: loop {
        let mut table = mm.page_table().root();
        for level in (0..LEVELS).rev() {
            let i = (at >> (PAGE_SHIFT + BITS * level as u32)) as usize % (1 << BITS);
            let raw = mm.platform().table(table).load(i);
            let passes = raw >> 1 & 1 << access as u32 != 0;
            let marked = raw | ACCESSED | if access == Access::Write { DIRTY } else { 0 };
            match level {
                0 if raw & VALID != 0 && passes && mm.platform().table(table).mark(i, raw, marked) => {
                    return Ok(page(mm.platform().decode_table(raw)).wrapping_add((at % PAGE) as usize));
                }
                1.. if raw & VALID != 0 => table = mm.platform().decode_table(raw),
                _ => {
                    trap(mm, at, access)?;
                    continue 'again;
                }
            }
        }
    }
}

fn load(mm: &Space, at: u64) -> Result<u8, Denied> {
    // SAFETY: (1) a page of the arena, which the walk found; (2) this is the only hart.
    access(mm, at, Access::Read).map(|byte| unsafe { *byte })
}

fn store(mm: &Space, at: u64, value: u8) -> Result<(), Denied> {
    // SAFETY: (1), (2) as above.
    access(mm, at, Access::Write).map(|byte| unsafe { *byte = value })
}

fn main() {
    boot();
    let before = frames_in_use();
    let mm = Space::new(Port, Layout::default()).expect("there is memory");
    let heap = mm.map(Place::Anywhere(64 * PAGE), |at| Attr::anon(at.start(), Prot::RW)).expect("there is space");
    let at = |n: u64| heap.start() + n * PAGE;
    // Untouched memory is zeros; what is written is there.
    for n in 0..64 {
        assert_eq!(load(&mm, at(n)), Ok(0));
        assert_eq!(store(&mm, at(n) + n, n as u8), Ok(()));
    }
    // A file: the fault cannot wait for the disk, its caller does.
    let file = File::new(Port, Disk, 4 * PAGE).expect("there is memory");
    let attr = |_| Attr { prot: Prot::R, flags: Flags::NONE, backing: Backing::File(file.clone(), 0), name: None };
    let text = mm.map(Place::Anywhere(4 * PAGE), attr).expect("there is space");
    assert_eq!(load(&mm, text.start() + 3 * PAGE), Ok(3));
    assert_eq!(store(&mm, text.start(), 1), Err(Denied::Protected));
    // Protection is taken and given back.
    mm.protect(heap, Prot::R).expect("it is mapped");
    assert_eq!(store(&mm, at(9), 1), Err(Denied::Protected));
    assert_eq!(load(&mm, at(9) + 9), Ok(9));
    mm.protect(heap, Prot::RW).expect("it is mapped");
    // A fork shares until one side writes.
    let child = mm.fork().expect("there is memory");
    assert_eq!((store(&mm, at(7), 70), load(&child, at(7)), load(&child, at(7) + 7)), (Ok(()), Ok(0), Ok(7)));
    assert_eq!((store(&child, at(8), 80), load(&mm, at(8)), load(&child, at(8))), (Ok(()), Ok(0), Ok(80)));
    // What is unmapped is gone here, and stays there.
    mm.unmap(heap).expect("it is in the layout");
    assert_eq!((load(&mm, at(5) + 5), load(&child, at(5) + 5)), (Err(Denied::Unmapped), Ok(5)));
    drop((child, mm, file));
    // The mappings wait for a grace period, and the file for the mappings; then the tables, until somebody comes by.
    for _ in 0..3 {
        Port.rcu().synchronize();
        drop(Space::new(Port, Layout::default()));
    }
    assert_eq!(frames_in_use(), before, "a frame was lost");
    std::println!("port: 64 pages of memory, 4 of a file, a fork: {} flushes, all frames back", FLUSHES.load(Relaxed));
}
