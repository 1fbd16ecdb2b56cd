//! What is measured: the same for instruction counts and for times.

use super::host::Host;
use spile::linux::{FileRights, Opened, map, prot};
use spile::{Access, Layout, Locking, Mm, Outcome, PAGE};

/// Operations per scene.
pub const TIMES: usize = 100;
/// Mappings around what is measured, as a program has.
const MAPPINGS: u64 = 64;
/// Where the measured pages are: in the middle of the mappings.
const AREA: u64 = 0x7000_0000_0000;
/// Enough for all but fork. No more: each benchmark under valgrind makes a machine.
const FRAMES: usize = 2_000;
const RW: u32 = prot::READ | prot::WRITE;
const FIXED: u32 = map::FIXED | map::ANONYMOUS | map::PRIVATE;

/// An address space like a small program's: mappings with holes between them, some touched.
pub fn program<L: Locking>(zeroes: bool) -> Mm<Host, L> {
    let host = Host::new(FRAMES, zeroes);
    let mm = Mm::new(host, Layout::default()).expect("there is memory");
    for i in 0..MAPPINGS {
        let at = AREA + ((i * 64) << 20) + i * PAGE;
        mm.mmap(at, 17 * PAGE, RW, FIXED, None, 0).expect("there is memory");
        touch(&mm, at, Access::Write);
    }
    mm
}

/// One fault that must be resolved.
pub fn touch<L: Locking>(mm: &Mm<Host, L>, at: u64, access: Access) {
    assert!(matches!(mm.fault(at, access), Outcome::Done(_)));
}

/// Pages that have not been touched, beside one that has: so tables are there.
pub fn untouched<L: Locking>() -> Mm<Host, L> {
    let mm = program::<L>(false);
    let at = area();
    mm.mmap(at, (TIMES as u64 + 1) * PAGE, RW, FIXED, None, 0).expect("there is memory");
    touch(&mm, at + TIMES as u64 * PAGE, Access::Write);
    mm
}

/// Where [`untouched`] and its like have their pages.
pub fn area() -> u64 {
    AREA + (20 << 20)
}

/// A file whose pages are in memory, mapped page by page with holes, so that no fault maps for another.
pub fn cached_file<L: Locking>() -> Mm<Host, L> {
    let mm = program::<L>(false);
    let file = spile::backing::File::new(*mm.platform(), (), TIMES as u64 * PAGE).expect("there is memory");
    let opened = Opened { file, rights: FileRights::Read };
    // Once at another place, so that all pages are read and all tables there.
    for round in 0..2 {
        for i in 0..TIMES as u64 {
            let at = area() + (round * 1024 + 2 * i) * PAGE;
            mm.mmap(at, PAGE, prot::READ, map::FIXED | map::SHARED, Some(&opened), i * PAGE).expect("there is memory");
            if round == 1 {
                touch(&mm, at, Access::Read);
            }
        }
    }
    touch_beside(&mm);
    mm
}

/// A page in the same table as the measured ones, but not among them.
fn touch_beside<L: Locking>(mm: &Mm<Host, L>) {
    let at = area() + 400 * PAGE;
    mm.mmap(at, PAGE, RW, FIXED, None, 0).expect("there is memory");
    touch(mm, at, Access::Write);
}

/// A heap between mappings, for the break.
pub fn heap<L: Locking>() -> Mm<Host, L> {
    let mm = program::<L>(false);
    mm.set_brk_start(area(), area());
    assert_eq!(mm.brk(area() + PAGE), area() + PAGE);
    mm
}

/// 100 mappings with 100 pages each.
pub fn parent<L: Locking>() -> Mm<Host, L> {
    let host = Host::new(12_000, false);
    let mm = Mm::new(host, Layout::default()).expect("there is memory");
    for i in 0..100 {
        let at = AREA + i * 200 * PAGE;
        mm.mmap(at, 100 * PAGE, RW, FIXED, None, 0).expect("there is memory");
        (0..100).for_each(|page| touch(&mm, at + page * PAGE, Access::Write));
    }
    mm
}

/// Write faults on fresh anonymous pages.
pub fn anon_faults<L: Locking>(mm: &Mm<Host, L>) {
    (0..TIMES as u64).for_each(|i| touch(mm, area() + i * PAGE, Access::Write));
}

/// Faults that find everything done: the way to the entry and back.
pub fn spurious_faults<L: Locking>(mm: &Mm<Host, L>) {
    (0..TIMES).for_each(|_| touch(mm, area() + TIMES as u64 * PAGE, Access::Write));
}

/// Holding a mapping and letting it go.
pub fn lookups<L: Locking>(mm: &Mm<Host, L>) {
    (0..TIMES as u64).for_each(|i| {
        let hold = L::try_stabilise(mm, area() + i * PAGE);
        assert!(hold.is_ok());
    });
}

/// Read faults on pages of a file that are in memory.
pub fn file_faults<L: Locking>(mm: &Mm<Host, L>) {
    (0..TIMES as u64).for_each(|i| touch(mm, area() + 2 * i * PAGE, Access::Read));
}

/// mmap and munmap of 16 KiB that nobody touches.
pub fn map_unmap<L: Locking>(mm: &Mm<Host, L>) {
    for i in 0..TIMES as u64 {
        let at = area() + 8 * i * PAGE;
        mm.mmap(at, 4 * PAGE, RW, FIXED, None, 0).expect("there is memory");
        mm.munmap(at, 4 * PAGE).expect("there is memory");
    }
}

/// mmap where there is room, and munmap.
pub fn map_anywhere_unmap<L: Locking>(mm: &Mm<Host, L>) {
    for _ in 0..TIMES {
        let at = mm.mmap(0, 4 * PAGE, RW, map::ANONYMOUS | map::PRIVATE, None, 0).expect("there is room");
        mm.munmap(at, 4 * PAGE).expect("there is memory");
    }
}

/// mprotect of a middle page, which splits, and back, which merges.
pub fn split_merge<L: Locking>(mm: &Mm<Host, L>) {
    for i in 1..=TIMES as u64 / 2 {
        mm.mprotect(area() + i * PAGE, PAGE, prot::READ).expect("there is memory");
        mm.mprotect(area() + i * PAGE, PAGE, RW).expect("there is memory");
    }
}

/// The break, up by a page each.
pub fn grow_break<L: Locking>(mm: &Mm<Host, L>) {
    (2..TIMES as u64 + 2).for_each(|i| assert_eq!(mm.brk(area() + i * PAGE), area() + i * PAGE));
}

/// fork, the child kept.
pub fn fork<L: Locking>(mm: &Mm<Host, L>) -> Mm<Host, L> {
    mm.fork().expect("there is memory")
}

/// As [`program`], without zeroing.
pub fn program_with_memory<L: Locking>() -> Mm<Host, L> {
    program::<L>(false)
}
