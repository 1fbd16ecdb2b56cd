//! Mappings that are cut, joined, replaced, moved and inherited, beside faults in each of them and beside whoever lists them.
//!
//! **Guarantee.** What may be done with a page before, during and after a change never fails; what a write has stored stays where its page
//! goes; a list of the mappings leaves out nothing that is mapped all the time, and shows no mapping that is neither of before nor of after.
//!
//! **Mechanism.** A [`Case`] is two pictures of the four pages; what has to be done lies in their difference. Linux's ten (the cover letter of
//! per-VMA locks for /proc/PID/maps, 2025: five merges that move a border, three into a gap, two splits) are among them.

use super::host::{Host, PLAIN, Setting};
use super::{Race, Side, Space, at, page, pages, race};
use spile::{Denied, Locking, Mapping, Mm, Prot, Range};
use std::sync::Arc;

const PREEMPTIONS: usize = 2;

/// A child has tables and pages of its own.
const FORKS: Setting = Setting { frames: 12, ..PLAIN };

/// A page each: `w` can be written, `W` was, `r` can be read, `x` is as `w` and in the place of another, `-` is not there. Alike neighbours are
/// one mapping.
type Picture = &'static [u8; 4];

/// Before, and after.
type Case = (Picture, Picture);

const SPLITS: [Case; 5] = [(b"www-", b"wrw-"), (b"www-", b"w-w-"), (b"ww--", b"rw--"), (b"-Ww-", b"-Wr-"), (b"-www", b"-w-w")];

const MERGES: [Case; 6] =
    [(b"wrw-", b"www-"), (b"wr--", b"ww--"), (b"wrr-", b"wwr-"), (b"-rw-", b"-ww-"), (b"-rrw", b"-rww"), (b"Wrw-", b"Www-")];

const FILLED_GAPS: [Case; 4] = [(b"w-w-", b"www-"), (b"-w--", b"-ww-"), (b"--w-", b"-ww-"), (b"W-w-", b"Www-")];

const REPLACED: [Case; 2] = [(b"www-", b"wxw-"), (b"wrw-", b"xxx-")];

fn kind(picture: Picture, n: u64) -> u8 {
    picture[n as usize].to_ascii_lowercase()
}

fn prot(kind: u8) -> Prot {
    match kind {
        b'r' => Prot::R,
        b'x' => Prot::RW.with(Prot::X),
        _ => Prot::RW,
    }
}

/// What is mapped, ascending.
fn mappings(picture: Picture) -> Vec<(Range, Prot)> {
    let mut all = Vec::new();
    let mut first = 0;
    for end in 1..=4 {
        if end < 4 && kind(picture, end) == kind(picture, first) {
            continue;
        }
        if kind(picture, first) != b'-' {
            all.push((pages(first, end), prot(kind(picture, first))));
        }
        first = end;
    }
    all
}

fn arrange<L: Locking>(s: &mut Space<L>, picture: Picture) {
    mappings(picture).into_iter().for_each(|(range, prot)| s.map(range, prot));
    (0..4).filter(|n| picture[*n as usize] == b'W').for_each(|n| s.put(at(n), 7).unwrap());
}

/// Does what makes the second picture of the first.
fn change<L: Locking>(s: &Space<L>, (before, after): Case) {
    let differs = |n: &u64| kind(before, *n) != kind(after, *n);
    let (first, last) = ((0..4).find(differs).unwrap(), (0..4).rfind(differs).unwrap());
    let range = pages(first, last + 1);
    match (kind(before, first), kind(after, first)) {
        (_, b'-') => s.mm.unmap(range).unwrap(),
        (b'-', new) | (_, new @ b'x') => s.map(range, prot(new)),
        (_, new) => s.mm.protect(range, prot(new)).unwrap(),
    }
}

/// How a write to a page of this kind ends.
fn write_to(kind: u8) -> Result<(), Denied> {
    match kind {
        b'-' => Err(Denied::Unmapped),
        b'r' => Err(Denied::Protected),
        _ => Ok(()),
    }
}

/// Somebody writes to page `n` meanwhile.
fn write_beside<L: Locking>(case: Case, n: u64) {
    let kinds = [kind(case.0, n), kind(case.1, n)];
    let old = if case.0[n as usize] == b'W' { 7 } else { 0 };
    let changes = move |s: &Space<L>| change(s, case);
    let writes = move |s: &Space<L>| {
        let written = s.put(at(n), 9);
        assert!(kinds.map(write_to).contains(&written), "{written:?}");
        if written.is_ok() {
            s.guarded.write();
        }
    };
    let after = move |s: &Space<L>| {
        let new = if s.guarded.read() == 1 { 9 } else { old };
        match (kinds[1], s.get(at(n))) {
            (b'-', is) => assert_eq!(is, Err(Denied::Unmapped)),
            (b'x', is) => assert!([Ok(new), Ok(0)].contains(&is), "{is:?}"),
            (_, is) => assert_eq!(is, Ok(new)),
        }
        assert_eq!(s.put(at(n), 1), write_to(kinds[1]));
    };
    race(PLAIN, PREEMPTIONS, move |s| arrange(s, case.0), vec![Arc::new(changes), Arc::new(writes)], after);
}

/// To each page that is mapped before or after.
fn writes_beside<L: Locking>(cases: &[Case]) {
    for case in cases {
        for n in (0..4).filter(|n| [case.0, case.1].iter().any(|picture| kind(picture, *n) != b'-')) {
            println!("page {n} of {}", shown(case));
            write_beside::<L>(*case, n);
        }
    }
}

fn shown((before, after): &Case) -> String {
    format!("{} -> {}", before.escape_ascii(), after.escape_ascii())
}

/// Somebody lists the mappings meanwhile.
fn list_beside<L: Locking>(case: Case) {
    println!("{}", shown(&case));
    let changes = move |s: &Space<L>| change(s, case);
    let lists = move |s: &Space<L>| {
        let mut seen: Vec<Mapping> = Vec::new();
        s.mm.each_mapping(|mapping| seen.push(mapping));
        let known = [mappings(case.0), mappings(case.1)].concat();
        assert!(seen.iter().all(|mapping| known.contains(&(mapping.range, mapping.prot))), "{seen:?}");
        assert!(seen.is_sorted_by_key(|mapping| mapping.range.end()), "{seen:?}");
        for n in (0..4).filter(|n| kind(case.0, *n) != b'-' && kind(case.1, *n) != b'-') {
            assert!(seen.iter().any(|mapping| mapping.range.contains(at(n))), "page {n} is missing: {seen:?}");
        }
    };
    race(PLAIN, PREEMPTIONS, move |s| arrange(s, case.0), vec![Arc::new(changes), Arc::new(lists)], |_: &Space<L>| ());
}

fn splits<L: Locking>() {
    writes_beside::<L>(&SPLITS);
}

fn merges<L: Locking>() {
    writes_beside::<L>(&MERGES);
}

fn fills<L: Locking>() {
    writes_beside::<L>(&FILLED_GAPS);
}

fn lists<L: Locking>() {
    [&SPLITS[..], &MERGES, &FILLED_GAPS, &REPLACED].into_iter().flatten().for_each(|case| list_beside::<L>(*case));
}

/// The byte of a page of a child.
fn inherited<L: Locking>(child: &Mm<Host, L>, n: u64) -> Result<u8, Denied> {
    let mut byte = [0];
    child.read_user(at(n), &mut byte).map(|()| byte[0]).map_err(|partial| partial.why)
}

/// The child has the page or has it not, and its neighbour anyway.
fn fork_and_unmap<L: Locking>() {
    Race::<L> {
        setting: FORKS,
        preemptions: 2,
        before: |s| {
            s.map(pages(0, 2), Prot::RW);
            (0..2).for_each(|n| s.put(at(n), 7).unwrap());
        },
        sides: vec![
            |s| {
                let child = s.mm.fork().unwrap();
                let is_there = child.mapping_from(at(0)).unwrap().range.start() == at(0);
                let should = if is_there { Ok(7) } else { Err(Denied::Unmapped) };
                assert_eq!([inherited(&child, 0), inherited(&child, 1)], [should, Ok(7)]);
            },
            |s| s.mm.unmap(page(0)).unwrap(),
        ],
        after: |s| assert_eq!([s.get(at(0)), s.get(at(1))], [Err(Denied::Unmapped), Ok(7)]),
    }
    .run();
}

/// The child keeps what it saw of a page that the parent writes meanwhile, for the first time since it was read (page 0) or at all (page 1).
fn fork_and_write<L: Locking>() {
    fn writes<L: Locking, const N: u64>(s: &Space<L>) {
        s.put(at(N), 9).unwrap();
    }
    for side in [writes::<L, 0>, writes::<L, 1>] {
        Race::<L> {
            setting: FORKS,
            preemptions: 2,
            before: |s| {
                s.map(pages(0, 2), Prot::RW);
                s.put(at(0), 7).unwrap();
            },
            sides: vec![
                |s| {
                    let child = s.mm.fork().unwrap();
                    let seen = [0, 1, 1, 0].map(|n| inherited(&child, n).unwrap());
                    assert!([[7, 0, 0, 7], [9, 0, 0, 9], [7, 9, 9, 7]].contains(&seen), "{seen:?}");
                },
                side,
            ],
            after: |s| assert!([(Ok(9), Ok(0)), (Ok(7), Ok(9))].contains(&(s.get(at(0)), s.get(at(1))))),
        }
        .run();
    }
}

spile::test_each_design! {
    fault_against_split => splits;
    fault_against_merge => merges;
    fault_against_merge_in_a_gap => fills;
    list_against_changes => lists;
    fork_against_unmap => fork_and_unmap;
    first_write_against_fork => fork_and_write;
}

#[cfg(feature = "linux")]
mod moves {
    use super::*;
    use spile::linux::remap::{DONTUNMAP, FIXED, MAYMOVE};

    /// From page 0 to page 2, in another table.
    fn moves<L: Locking>(s: &Space<L>, flags: u32) {
        assert_eq!(s.mm.mremap(at(0), spile::PAGE, spile::PAGE, MAYMOVE | FIXED | flags, at(2)), Ok(at(2)));
    }

    fn one_written_page<L: Locking>(s: &mut Space<L>) {
        s.map(pages(0, 2), Prot::RW);
        s.put(at(0), 7).unwrap();
    }

    /// What is written to the source before the move goes along, be it the first write or another.
    fn from_the_source<L: Locking>() {
        for old in [0, 7] {
            let before = move |s: &mut Space<L>| {
                s.map(pages(0, 2), Prot::RW);
                if old > 0 {
                    s.put(at(0), old).unwrap();
                }
            };
            let writes = |s: &Space<L>| match s.put(at(0), 9) {
                Ok(()) => s.guarded.write(),
                Err(denied) => assert_eq!(denied, Denied::Unmapped),
            };
            let after = move |s: &Space<L>| {
                let new = if s.guarded.read() == 1 { 9 } else { old };
                assert_eq!([s.get(at(0)), s.get(at(2))], [Err(Denied::Unmapped), Ok(new)]);
            };
            race(PLAIN, PREEMPTIONS, before, vec![Arc::new(|s: &Space<L>| moves(s, 0)), Arc::new(writes)], after);
        }
    }

    /// What is written beside what moves stays.
    fn beside_the_source<L: Locking>() {
        Race::<L> {
            setting: PLAIN,
            preemptions: PREEMPTIONS,
            before: one_written_page,
            sides: vec![|s| moves(s, 0), |s| s.put(at(1), 9).unwrap()],
            after: |s| assert_eq!([s.get(at(1)), s.get(at(2))], [Ok(9), Ok(7)]),
        }
        .run();
    }

    /// Who finds the target finds the pages that were moved there.
    fn at_the_target<L: Locking>() {
        Race::<L> {
            setting: PLAIN,
            preemptions: PREEMPTIONS,
            before: one_written_page,
            sides: vec![|s| moves(s, 0), |s| {
                let seen = s.get(at(2));
                assert!([Ok(7), Err(Denied::Unmapped)].contains(&seen), "{seen:?}");
            }],
            after: |s| assert_eq!(s.get(at(2)), Ok(7)),
        }
        .run();
    }

    /// The source stays: a write there is in what was moved, or in the empty page that is there then.
    fn from_what_stays<L: Locking>() {
        Race::<L> {
            setting: PLAIN,
            preemptions: PREEMPTIONS,
            before: one_written_page,
            sides: vec![|s| moves(s, DONTUNMAP), |s| s.put(at(0), 9).unwrap()],
            after: |s| {
                let seen = [s.get(at(0)), s.get(at(2))];
                assert!([[Ok(9), Ok(7)], [Ok(0), Ok(9)]].contains(&seen), "{seen:?}");
            },
        }
        .run();
    }

    /// A mapping becomes longer where it is.
    fn grows_upwards<L: Locking>() {
        fn writes<L: Locking, const N: u64>(s: &Space<L>) {
            if s.put(at(N), 9).is_ok() {
                s.guarded.write();
            }
        }
        for (n, side) in [(0, writes::<L, 0> as Side<L>), (1, writes::<L, 1>), (2, writes::<L, 2>)] {
            let grows = |s: &Space<L>| assert_eq!(s.mm.mremap(at(0), spile::PAGE, 3 * spile::PAGE, 0, 0), Ok(at(0)));
            let after = move |s: &Space<L>| {
                let written = s.guarded.read() == 1;
                assert!(written || n > 0, "mapped before, during and after");
                assert_eq!(s.get(at(n)), Ok(if written { 9 } else { 0 }));
                assert_eq!(s.mm.mapping_from(at(0)).unwrap().range, pages(0, 3));
            };
            race(PLAIN, PREEMPTIONS, |s| s.map(page(0), Prot::RW), vec![Arc::new(grows), Arc::new(side)], after);
        }
    }

    /// Who lists the mappings finds what does not move.
    fn list<L: Locking>() {
        Race::<L> {
            setting: PLAIN,
            preemptions: PREEMPTIONS,
            before: |s| {
                one_written_page(s);
                s.map(page(3), Prot::RW);
            },
            sides: vec![|s| moves(s, 0), |s| {
                let mut seen = Vec::new();
                s.mm.each_mapping(|mapping| seen.push(mapping.range));
                let is_there = |n: &u64| seen.iter().any(|range| range.contains(at(*n)));
                assert!([1, 3].iter().all(is_there), "{seen:?}");
            }],
            after: |_| (),
        }
        .run();
    }

    spile::test_each_design! {
        fault_against_move => from_the_source;
        fault_beside_a_move => beside_the_source;
        fault_against_arrival => at_the_target;
        fault_against_dontunmap => from_what_stays;
        fault_against_growth_in_place => grows_upwards;
        list_against_move => list;
    }
}
