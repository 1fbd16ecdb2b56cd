//! Pages that leave memory and come back, beside whatever else happens to them.
//!
//! **Guarantee.** No byte is lost and none is another's, whatever a page meets on its way out or in; a page is read once, whoever wants it; nobody waits for
//! ever; no frame and no slot is lost.
//!
//! **Mechanism.** A host with one slot or two, whose pages are old when they are looked at first: so one look sends them away. Where transfers take
//! time, somebody who sleeps completes them, or a thread of its own.

use super::host::{PLAIN, Setting};
use super::swap::Swap;
use super::{Act, Race, Side, Space, at, page, pages, race};
#[cfg(feature = "linux")]
use spile::PAGE;
use spile::reclaim::{Pressed as _, Reclaimed};
use spile::{Access, Denied, FaultKind, Locking, Mm, Outcome, Prot, Waiting};
use std::sync::Arc;

/// Two slots.
pub const SWAP: Setting = Setting { frames: 12, swap: 2, ..PLAIN };

/// A page with 7 in it.
fn written<L: Locking>(s: &mut Space<L>) {
    s.map(pages(0, 2), Prot::RW);
    s.put(at(0), 7).unwrap();
}

/// The same page, away.
fn away<L: Locking>(s: &mut Space<L>) {
    written(s);
    assert_eq!(reclaim(s), Reclaimed { freed: 1, writing: 0 });
}

/// The same page, of two spaces.
fn shared<L: Locking>(s: &mut Space<L>) {
    written(s);
    s.child = Some(s.mm.fork().unwrap()).into();
}

fn shared_and_away<L: Locking>(s: &mut Space<L>) {
    shared(s);
    assert_eq!(reclaim(s), Reclaimed { freed: 1, writing: 0 });
}

pub(super) fn reclaim<L: Locking>(s: &Space<L>) -> Reclaimed {
    s.host.reclaimer().reclaim(&s.host, 1)
}

pub(super) fn reclaims<L: Locking>(s: &Space<L>) {
    reclaim(s);
}

/// Transfers take time, and go on while somebody sleeps.
pub(super) fn slowly<L: Locking>(s: &Space<L>, ok: bool) {
    store(s).set_slow(true);
    s.host.while_asleep(move |host| _ = Swap::finish(host, ok));
}

pub(super) fn store<L: Locking>(s: &Space<L>) -> &Swap {
    s.host.reclaimer().area().store()
}

fn byte_of<L: Locking>(mm: &Mm<super::host::Host, L>) -> u8 {
    let mut byte = [0];
    mm.read_user(at(0), &mut byte).unwrap();
    byte[0]
}

/// The child's byte of page 0. Nobody else uses the child.
fn byte_of_child<L: Locking>(s: &Space<L>) -> u8 {
    byte_of(s.child.lock().unwrap().as_ref().unwrap())
}

/// Two beside each other, either of them first: of a word that one has looked at before it changes it, loom forgets that the other has looked at it, so
/// it does not try everything for one order.
fn either_first<L: Locking>(before: fn(&mut Space<L>), mut sides: Vec<Side<L>>, after: Side<L>) {
    for _ in 0..2 {
        Race { setting: SWAP, preemptions: 2, before, sides: sides.clone(), after }.run();
        sides.reverse();
    }
}

/// Two who do the same.
fn both<L: Locking>(before: fn(&mut Space<L>), side: Side<L>, after: Side<L>) {
    Race { setting: SWAP, preemptions: 2, before, sides: vec![side, side], after }.run();
}

fn out_and_write<L: Locking>() {
    either_first::<L>(written, vec![reclaims, |s| s.put(at(0), 9).unwrap()], |s| assert_eq!(s.get(at(0)), Ok(9)));
}

fn out_and_read<L: Locking>() {
    either_first::<L>(written, vec![reclaims, |s| assert_eq!(s.get(at(0)), Ok(7))], |s| assert_eq!(s.get(at(0)), Ok(7)));
}

/// A program that writes on, by the translation that its CPU has, until it is told to forget.
fn out_and_program<L: Locking>() {
    Race::<L> {
        setting: Setting { caching: 2, ..SWAP },
        preemptions: 2,
        before: written,
        sides: vec![reclaims, |s| {
            s.store(at(0), 8).unwrap();
            s.store(at(0), 9).unwrap();
        }],
        after: |s| assert_eq!(s.get(at(0)), Ok(9)),
    }
    .run();
}

/// The first write since a fork copies.
fn out_and_copy<L: Locking>() {
    either_first::<L>(shared, vec![reclaims, |s| _ = s.fault(at(0), Access::Write).unwrap()], |s| {
        s.put(at(0), 9).unwrap();
        assert_eq!((s.get(at(0)), byte_of_child(s)), (Ok(9), 7));
    });
}

fn out_and_unmap<L: Locking>() {
    let unmaps: Side<L> = |s| s.mm.unmap(page(0)).unwrap();
    either_first::<L>(written, vec![reclaims, unmaps], |s| {
        assert_eq!(s.get(at(0)), Err(Denied::Unmapped));
        assert_eq!(s.host.reclaimer().area().used(), 0, "of a page that nobody has");
    });
}

fn out_and_fork<L: Locking>() {
    let forks: Side<L> = |s| *s.child.lock().unwrap() = Some(s.mm.fork().unwrap());
    either_first::<L>(written, vec![reclaims, forks], |s| {
        assert_eq!((s.get(at(0)), byte_of_child(s)), (Ok(7), 7));
        s.put(at(0), 9).unwrap();
        assert_eq!((s.get(at(0)), byte_of_child(s)), (Ok(9), 7));
    });
}

/// The page that leaves is the parent's, and the child goes.
fn out_and_exit<L: Locking>() {
    let exits: Side<L> = |s| drop(s.child.lock().unwrap().take());
    either_first::<L>(shared, vec![reclaims, exits], |s| assert_eq!(s.get(at(0)), Ok(7)));
}

/// One fetches, one forks.
fn in_and_fork<L: Locking>() {
    let forks: Side<L> = |s| *s.child.lock().unwrap() = Some(s.mm.fork().unwrap());
    either_first::<L>(away, vec![|s| s.put(at(0), 9).unwrap(), forks], |s| {
        assert_eq!(s.get(at(0)), Ok(9));
        assert!([7, 9].contains(&byte_of_child(s)));
    });
}

fn in_and_unmap<L: Locking>() {
    either_first::<L>(
        away,
        vec![|s| s.mm.unmap(page(0)).unwrap(), |s| {
            let seen = s.get(at(0));
            assert!([Ok(7), Err(Denied::Unmapped)].contains(&seen), "{seen:?}");
        }],
        |s| {
            assert_eq!(s.get(at(0)), Err(Denied::Unmapped));
            assert_eq!(s.host.reclaimer().area().used(), 0, "of a page that nobody has");
        },
    );
}

/// Each of two spaces fetches the page, and writes.
fn both_fetch<L: Locking>() {
    let child: Side<L> = |s| {
        let child = s.child.lock().unwrap().take().unwrap();
        child.write_user(at(0), &[9]).unwrap();
        *s.child.lock().unwrap() = Some(child);
    };
    either_first::<L>(shared_and_away, vec![|s| s.put(at(0), 8).unwrap(), child], |s| {
        assert_eq!((s.get(at(0)), byte_of_child(s)), (Ok(8), 9));
    });
}

/// The page is in memory for one of two spaces, and has a slot for the other.
fn half_away<L: Locking>(s: &mut Space<L>) {
    shared_and_away(s);
    assert_eq!(byte_of_child(s), 7);
}

fn out_again_and_write<L: Locking>() {
    either_first::<L>(half_away, vec![reclaims, |s| _ = s.fault(at(0), Access::Write).unwrap()], |s| {
        s.put(at(0), 9).unwrap();
        assert_eq!((s.get(at(0)), byte_of_child(s)), (Ok(9), 7));
    });
}

/// Both look at the same pages.
fn two_evictors<L: Locking>() {
    for before in [written as fn(&mut Space<L>), shared, half_away] {
        both::<L>(before, reclaims, |s| {
            reclaim(s);
            assert_eq!(s.entry(at(0)), None, "it is in no queue");
            assert_eq!(s.get(at(0)), Ok(7));
        });
    }
}

/// Pages that are transferred are looked at, too.
fn end_and_look<L: Locking>() {
    for before in [being_written as fn(&mut Space<L>), being_read] {
        for end in [ends_well as Side<L>, ends_badly] {
            either_first::<L>(before, vec![reclaims, end], |s| {
                // Of a read that failed he is told.
                assert!([Ok(7), Err(Denied::Bus)].contains(&s.get(at(0))));
                assert_eq!(s.get(at(0)), Ok(7));
            });
        }
    }
}

/// Whoever unmaps a page that is leaving knows that no CPU uses it any more, be it his own.
fn out_and_program_unmaps<L: Locking>() {
    let unmaps: Side<L> = |s| {
        let _ = s.load(at(0));
        s.mm.unmap(page(0)).unwrap();
        assert_eq!(s.host.translate(&s.mm, at(0), Access::Read), None, "unmapped, and this CPU still reads");
    };
    for sides in [vec![unmaps, reclaims], vec![reclaims, unmaps]] {
        Race { setting: Setting { caching: 2, ..SWAP }, preemptions: 2, before: written, sides, after: |_| () }.run();
    }
}

/// A fault finds the page, and by the time it shows it the page was written, and left to the same slot again.
fn out_in_out<L: Locking>() {
    Race::<L> {
        setting: Setting { swap: 1, ..SWAP },
        preemptions: 2,
        before: away,
        sides: vec![|s| _ = s.fault(at(0), Access::Read).unwrap(), |s| {
            s.put(at(0), 9).unwrap();
            reclaim(s);
        }],
        after: |s| assert_eq!(s.get(at(0)), Ok(9)),
    }
    .run();
}

/// What one has fetched the other's MMU finds; also if a third has shown it, before he has given the slot up.
fn fetched_and_walked_to<L: Locking>() {
    let fetches: Side<L> = |s| drop(s.mm.fault(at(0), Access::Read));
    let walks: Side<L> = |s| {
        if let Some(frame) = s.host.translate(&s.mm, at(0), Access::Read) {
            assert_eq!(s.host.peek(frame), 7);
        }
    };
    for sides in [vec![fetches, walks], vec![fetches, fetches, walks]] {
        Race { setting: SWAP, preemptions: 2, before: away, sides, after: |_| () }.run();
    }
}

/// Both want it, and it is read once.
fn read_once<L: Locking>() {
    let reads: Side<L> = |s| assert_eq!(s.get(at(0)), Ok(7));
    let before: fn(&mut Space<L>) = |s| {
        away(s);
        slowly(s, true);
    };
    both::<L>(before, reads, |s| assert_eq!(store(s).begun(), (1, 1)));
}

/// The same of a store that answers at once, while the other looks.
fn read_at_once<L: Locking>() {
    let reads: Side<L> = |s| assert_eq!(s.get(at(0)), Ok(7));
    both::<L>(away, reads, |s| assert_eq!(store(s).begun(), (1, 1)));
}

fn told_once<L: Locking>() {
    one_is_told::<L>(SWAP, away);
}

/// Two want a page that is `away`. The first read fails, of which one is told; the other's succeeds.
pub(super) fn one_is_told<L: Locking>(setting: Setting, away: fn(&mut Space<L>)) {
    let reads: Side<L> = |s| match s.get(at(0)) {
        Ok(byte) => assert_eq!(byte, 7),
        Err(why) => {
            assert_eq!(why, Denied::Bus);
            // Loom reports it, if both do.
            s.guarded.write();
        }
    };
    let before = move |s: &mut Space<L>| {
        away(s);
        store(s).set_slow(true);
        s.host.while_asleep(|host| _ = Swap::finish(host, host.reclaimer().area().store().begun().0 > 1));
    };
    let after: Side<L> = |s| {
        assert_eq!(s.guarded.read(), 1, "of one failure");
        assert_eq!(s.get(at(0)), Ok(7));
    };
    let both: Vec<Act<L>> = vec![Arc::new(reads), Arc::new(reads)];
    race(setting, 2, before, both, after);
}

/// Both pages are away, transfers take time, and who wants one reads the other too.
fn both_away<L: Locking>(s: &mut Space<L>) {
    s.map(pages(0, 2), Prot::RW);
    s.put(at(0), 7).unwrap();
    s.put(at(1), 8).unwrap();
    assert_eq!(s.host.reclaimer().reclaim(&s.host, 2), Reclaimed { freed: 2, writing: 0 });
    s.host.reclaimer().set_readahead(2);
    store(s).set_slow(true);
}

/// What is read ahead another wants, or gives up.
fn read_ahead<L: Locking>() {
    let wants: Side<L> = |s| drop(s.mm.fault(at(0), Access::Read));
    let mut others: Vec<Side<L>> = vec![|s| drop(s.mm.fault(at(1), Access::Read))];
    #[cfg(feature = "linux")]
    others.push(|s| s.mm.madvise(at(1), PAGE, spile::linux::advice::DONTNEED).unwrap());
    for other in others {
        for sides in [vec![wants, other], vec![other, wants]] {
            let after: Side<L> = |s| {
                while Swap::finish(&s.host, true) {}
                assert_eq!(s.get(at(0)), Ok(7));
                assert!(store(s).begun().0 <= 2, "each is read once");
            };
            Race { setting: Setting { frames: 24, ..SWAP }, preemptions: 2, before: both_away, sides, after }.run();
        }
    }
}

/// Whoever completes the transfer that was started.
fn completes<L: Locking>(s: &Space<L>, ok: bool) {
    while !Swap::finish(&s.host, ok) {
        loom::thread::yield_now();
    }
}

pub fn ends_well<L: Locking>(s: &Space<L>) {
    completes(s, true);
}

pub(super) fn ends_badly<L: Locking>(s: &Space<L>) {
    completes(s, false);
}

/// A device beside whoever sleeps for it.
fn read_and_completion<L: Locking>() {
    let before: fn(&mut Space<L>) = |s| {
        away(s);
        store(s).set_slow(true);
    };
    either_first::<L>(before, vec![|s| assert_eq!(s.get(at(0)), Ok(7)), ends_well], |_| ());
}

/// A page that is being written.
pub fn being_written<L: Locking>(s: &mut Space<L>) {
    written(s);
    store(s).set_slow(true);
    assert_eq!(reclaim(s), Reclaimed { freed: 0, writing: 1 });
    store(s).set_slow(false);
}

/// A page that is being read.
fn being_read<L: Locking>(s: &mut Space<L>) {
    away(s);
    store(s).set_slow(true);
    assert!(matches!(s.mm.fault(at(0), Access::Read), Outcome::Wait(_)));
    store(s).set_slow(false);
}

fn written_and_wanted<L: Locking>() {
    for end in [ends_well as Side<L>, ends_badly] {
        either_first::<L>(being_written, vec![|s| s.put(at(0), 9).unwrap(), end], |s| assert_eq!(s.get(at(0)), Ok(9)));
    }
}

fn moved_and_unwanted<L: Locking>() {
    for before in [being_written as fn(&mut Space<L>), being_read] {
        for end in [ends_well as Side<L>, ends_badly] {
            either_first::<L>(before, vec![|s| s.mm.unmap(page(0)).unwrap(), end], |s| {
                assert_eq!(s.host.reclaimer().area().used(), 0, "of a page that nobody has");
            });
        }
    }
}

/// Somebody wants the memory of a page that is being read, while its fault waits for it.
fn waited_for<L: Locking>() {
    let before: fn(&mut Space<L>) = |s| {
        away(s);
        s.mm.set_waiting(FaultKind::Swap, Waiting::Hold);
        slowly(s, true);
    };
    let reads: Side<L> = |s| assert_eq!(s.mm.fault_and_wait(at(0), Access::Read).map(drop), Ok(()));
    either_first::<L>(before, vec![reads, reclaims], |s| {
        assert_eq!(store(s).begun().0, 1);
        while Swap::finish(&s.host, true) {}
    });
}

/// A frame whose page is gone is still in a queue, and becomes another page while its turn comes.
fn arrives_in_its_turn<L: Locking>() {
    Race::<L> {
        setting: Setting { reuse: true, ..SWAP },
        preemptions: 2,
        before: |s| {
            written(s);
            s.mm.unmap(page(0)).unwrap();
        },
        sides: vec![reclaims, |s| s.put(at(1), 9).unwrap()],
        after: |s| {
            reclaim(s);
            assert_eq!(s.entry(at(1)), None, "it is in no queue");
            assert_eq!(s.get(at(1)), Ok(9));
        },
    }
    .run();
}

/// Two pages arrive while the queues are asked.
fn arrive_beside_a_look<L: Locking>() {
    either_first::<L>(
        |s| s.map(pages(0, 2), Prot::RW),
        vec![
            |s| {
                s.put(at(0), 7).unwrap();
                s.put(at(1), 8).unwrap();
            },
            reclaims,
        ],
        |s| {
            s.host.reclaimer().reclaim(&s.host, 2);
            assert_eq!((s.entry(at(0)), s.entry(at(1))), (None, None), "they are in no queue");
            assert_eq!((s.get(at(0)), s.get(at(1))), (Ok(7), Ok(8)));
        },
    );
}

/// The root, a table, and room for one page of two.
const SHORT: Setting = Setting { frames: 3, reuse: true, ..SWAP };

/// Each can go while the other is wanted. One may be refused, if the other was at the only frame as often as he looked.
fn one_frame_for_two<L: Locking>() {
    Race::<L> {
        setting: SHORT,
        preemptions: 1,
        before: written,
        sides: vec![|s| assert!([Ok(()), Err(Denied::NoMemory)].contains(&s.put(at(1), 8))), |s| {
            drop(s.mm.fault(at(0), Access::Read))
        }],
        after: |s| {
            s.put(at(1), 8).unwrap();
            assert_eq!((s.get(at(0)), s.get(at(1))), (Ok(7), Ok(8)));
        },
    }
    .run();
}

/// The one who waits for a frame, and a device.
fn frame_and_completion<L: Locking>() {
    Race::<L> {
        setting: SHORT,
        preemptions: 2,
        before: |s| {
            written(s);
            store(s).set_slow(true);
        },
        sides: vec![|s| s.put(at(1), 8).unwrap(), ends_well],
        after: |s| {
            slowly(s, true);
            assert_eq!((s.get(at(0)), s.get(at(1))), (Ok(7), Ok(8)));
        },
    }
    .run();
}

/// A child goes whose own page is looked at.
fn exit_of_the_owner<L: Locking>() {
    let before: fn(&mut Space<L>) = |s| {
        shared(s);
        s.child.lock().unwrap().as_ref().unwrap().write_user(at(0), &[9]).unwrap();
    };
    let exits: Side<L> = |s| drop(s.child.lock().unwrap().take());
    either_first::<L>(before, vec![|s| _ = s.host.reclaimer().reclaim(&s.host, 2), exits], |s| assert_eq!(s.get(at(0)), Ok(7)));
}

spile::test_each_design! {
    page_is_read_ahead => read_ahead;
    page_leaves_beside_a_write => out_and_write;
    page_leaves_beside_an_unmap => out_and_unmap;
    page_leaves_beside_a_fork => out_and_fork;
    page_leaves_beside_an_exit => out_and_exit;
    page_returns_beside_a_fork => in_and_fork;
    page_returns_beside_an_unmap => in_and_unmap;
    transfer_ends_beside_an_unmap => moved_and_unwanted;
}

#[cfg(feature = "linux")]
mod moves {
    use super::*;
    use spile::linux::remap::{FIXED, MAYMOVE};

    fn out_and_move<L: Locking>() {
        let moves: Side<L> = |s| assert_eq!(s.mm.mremap(at(0), PAGE, PAGE, MAYMOVE | FIXED, at(2)), Ok(at(2)));
        either_first::<L>(written, vec![reclaims, moves], |s| {
            assert_eq!((s.get(at(0)), s.get(at(2))), (Err(Denied::Unmapped), Ok(7)));
        });
    }

    fn in_and_move<L: Locking>() {
        let moves: Side<L> = |s| assert_eq!(s.mm.mremap(at(0), PAGE, PAGE, MAYMOVE | FIXED, at(2)), Ok(at(2)));
        let fetches: Side<L> = |s| assert!(matches!(s.fault(at(0), Access::Write), Ok(_) | Err(Denied::Unmapped)));
        either_first::<L>(away, vec![moves, fetches], |s| {
            assert_eq!((s.get(at(0)), s.get(at(2))), (Err(Denied::Unmapped), Ok(7)));
        });
    }

    spile::test_each_design! {
        page_leaves_beside_a_move => out_and_move;
        page_returns_beside_a_move => in_and_move;
    }
}

/// What the design has no part in.
macro_rules! test_one_design {
    ($($name:ident => $test:ident;)*) => {
        mod one_design {
            $(
                #[test]
                fn $name() {
                    super::$test::<spile::MmapLock>();
                }
            )*
        }
    };
}

test_one_design! {
    page_leaves_beside_a_read => out_and_read;
    page_leaves_beside_a_program => out_and_program;
    page_leaves_beside_an_evictor => two_evictors;
    page_leaves_again_beside_a_write => out_again_and_write;
    transfer_ends_beside_an_evictor => end_and_look;
    page_leaves_beside_a_programs_unmap => out_and_program_unmaps;
    page_leaves_beside_a_copy => out_and_copy;
    page_returns_to_two_spaces => both_fetch;
    page_returns_by_the_same_slot => out_in_out;
    fetched_page_is_walked_to => fetched_and_walked_to;
    page_is_fetched_once => read_once;
    page_is_fetched_at_once => read_at_once;
    failure_is_told_once => told_once;
    read_ends_beside_its_fault => read_and_completion;
    write_ends_beside_a_fault => written_and_wanted;
    waited_for_page_stays => waited_for;
    page_arrives_in_its_turn => arrives_in_its_turn;
    pages_arrive_beside_a_look => arrive_beside_a_look;
    one_frame_for_two_pages => one_frame_for_two;
    frame_is_waited_for => frame_and_completion;
    owner_exits_beside_a_walk => exit_of_the_owner;
}
