//! The backing of other tests does what it says.

use super::{Buffer, Model, PAGE, behaves_for_two, page, read, write};
use crate::common::logged::{Event, Failed, Logged, Troubles};
use spile_linux::backing::Backing;
use std::collections::BTreeSet;
use std::time::Duration;

#[test]
fn it_is_memory() {
    let backing = Logged::zeros(20);
    let mut model = Model { contents: vec![1; 20 * PAGE as usize], forgets: false };
    write(&backing, 0, &model.contents).expect("nothing fails");
    // It takes no pages beyond its end, not even zeros.
    for seed in 0..500 {
        model.act(&backing, &(0..20), &mut spile_sim::Rng::new(seed));
    }
    assert!(backing.contents() == model.contents);
    assert_eq!(backing.failed(), Failed::default());
    behaves_for_two(&backing, &model, 3);
}

/// Writes 1 to pages 0 and 1, syncs, writes 2 to both and 3 to page 1.
fn written() -> Logged {
    let backing = Logged::zeros(2);
    write(&backing, 0, &[1; 2 * PAGE as usize]).expect("nothing fails");
    backing.sync().expect("nothing fails");
    write(&backing, 0, &[2; 2 * PAGE as usize]).expect("nothing fails");
    write(&backing, 1, &[3; PAGE as usize]).expect("nothing fails");
    backing
}

/// Every contents that a page can have behind `cut`, as stretches of bytes that are the same.
fn possible(backing: &Logged, cut: usize) -> BTreeSet<Vec<Vec<u8>>> {
    let stretches = |page: &[u8]| {
        let mut bytes = page.to_vec();
        bytes.dedup();
        bytes
    };
    (0..2000).map(|seed| backing.after_crash(cut, seed).chunks(PAGE as usize).map(stretches).collect()).collect()
}

#[test]
fn a_crash_leaves_of_each_write_nothing_a_part_or_all() {
    let backing = written();
    let log = backing.log();
    assert_eq!(log.len(), 6);
    assert_eq!(log[2], Event::Sync { began: 2 });
    assert_eq!(possible(&backing, 0), BTreeSet::from([vec![vec![0], vec![0]]]));
    let part = |old: u8, new: u8| [vec![old], vec![new], vec![new, old]];
    assert_eq!(possible(&backing, 1), part(0, 1).into_iter().map(|first| vec![first, vec![0]]).collect());
    let both =
        |old, new| part(old, new).into_iter().flat_map(move |first| part(old, new).map(|second| vec![first.clone(), second]));
    assert_eq!(possible(&backing, 2), both(0, 1).collect(), "each of two writes by itself");
    assert_eq!(possible(&backing, 3), BTreeSet::from([vec![vec![1], vec![1]]]), "what was synced is there");
    assert_eq!(possible(&backing, 5), both(1, 2).collect());
    // Of two writes to a page, the second is over what there is of the first.
    let second: BTreeSet<_> = possible(&backing, 6).into_iter().map(|pages| pages[1].clone()).collect();
    let expected = [&[1][..], &[2], &[3], &[2, 1], &[3, 1], &[3, 2], &[3, 2, 1]];
    assert_eq!(second, expected.map(<[u8]>::to_vec).into_iter().collect());
}

#[test]
fn the_same_seed_is_the_same_crash() {
    let backing = written();
    let crashes: BTreeSet<_> = (0..50).map(|seed| backing.after_crash(6, seed)).collect();
    assert!(crashes.len() > 30);
    assert!((0..50).all(|seed| crashes.contains(&backing.after_crash(6, seed))));
    let again = Logged::holding(backing.after_crash(3, 0), Troubles::default());
    assert_eq!(read(&again, 0..3).expect("nothing fails"), [[1; 2 * PAGE as usize].to_vec(), vec![0; PAGE as usize]].concat());
}

#[test]
fn a_sync_that_failed_makes_nothing_durable() {
    let backing = Logged::holding(vec![0; PAGE as usize], Troubles { syncs: 1, ..Troubles::default() });
    write(&backing, 0, &[1; PAGE as usize]).expect("nothing else fails");
    backing.sync().expect_err("it is to fail");
    assert_eq!(backing.log()[1..], [Event::FailedSync]);
    assert_eq!(possible(&backing, 2).len(), 3);
}

#[test]
fn one_in_so_many_fails() {
    let troubles = Troubles { seed: 5, fills: 3, writes: 4, syncs: 5, ..Troubles::default() };
    let backing = Logged::holding(vec![0; 8 * PAGE as usize], troubles);
    let mut failed = Failed::default();
    for number in 0..600 {
        failed.syncs += u64::from(backing.sync().is_err());
        if write(&backing, number % 7, &[page(number), page(number + 1)].concat()).is_err() {
            failed.writes += 1;
            let log = backing.log();
            let Some(Event::Write { page, bytes, landed }) = log.last() else { panic!("a part was written") };
            assert!((number % 7..number % 7 + 2).contains(page) && (1..PAGE as usize).contains(landed));
            let at = (page * PAGE) as usize;
            assert!(backing.contents()[at..at + landed] == bytes[..*landed]);
        }
        let mut buffer = Buffer::new(1);
        if backing.fill(number % 8, &mut buffer.pages_mut()).is_err() {
            failed.fills += 1;
            assert!(*buffer.pages()[0] == [0xdb; PAGE as usize], "junk");
        }
    }
    assert_eq!(failed, backing.failed());
    for (count, one_in) in [(failed.fills, 3), (failed.writes, 4), (failed.syncs, 5)] {
        assert!((count * one_in).abs_diff(600) < 150, "{failed:?}");
    }
}

/// What is written while a sync runs is not a part of it.
#[test]
fn a_slow_sync_is_of_what_was_there_when_it_began() {
    let troubles = Troubles { delay: Duration::from_millis(2), ..Troubles::default() };
    let backing = Logged::holding(vec![0; PAGE as usize], troubles);
    std::thread::scope(|scope| {
        scope.spawn(|| (0..100).for_each(|n| write(&backing, 0, &[n; PAGE as usize]).expect("nothing fails")));
        (0..100).for_each(|_| backing.sync().expect("nothing fails"));
    });
    let log = backing.log();
    let beside = |(n, event): &(usize, &Event)| matches!(event, Event::Sync { began } if began < n);
    assert!(log.iter().enumerate().any(|event| beside(&event)), "some were written beside a sync");
}

#[test]
#[should_panic(expected = "another call is about one of pages 1..3")]
fn two_calls_about_one_page_are_found() {
    let troubles = Troubles { delay: Duration::from_millis(20), ..Troubles::default() };
    let backing = Logged::holding(vec![0; 3 * PAGE as usize], troubles);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| (0..20).for_each(|_| drop(read(&backing, 0..2))));
        while !reader.is_finished() {
            backing.discard(1..3);
        }
    });
}

#[test]
#[should_panic(expected = "pages begin where pages of memory do")]
fn pages_that_begin_elsewhere_are_found() {
    let mut memory = [0; 2 * PAGE as usize];
    let at = 1 + usize::from((memory.as_ptr() as u64 + 1).is_multiple_of(PAGE));
    let page = (&mut memory[at..at + PAGE as usize]).try_into().expect("it is as long as a page");
    drop(Logged::zeros(1).fill(0, &mut [page]));
}
