//! munmaps that let others in while they take pages away.

use super::host::{PLAIN, Setting};
use super::{Act, Space, at, page, race};
use spile::{Access, Attr, Denied, Locking, Place, Prot, Unmapping};
use std::sync::Arc;

const FORMS: [Unmapping; 2] = [Unmapping::Reserve, Unmapping::Admit];

/// A page that was written, and beside it another mapping with one, in the same table.
fn two_written<L: Locking>(s: &mut Space<L>) {
    s.map(page(0), Prot::RW);
    s.map(page(1), Prot::RW.with(Prot::X));
    s.put(at(0), 7).unwrap();
    s.put(at(1), 8).unwrap();
}

fn unmaps<L: Locking>(s: &Space<L>) {
    s.mm.unmap(page(0)).unwrap();
}

fn beside_an_unmap<L: Locking>(other: fn(&Space<L>), after: fn(&Space<L>)) {
    for form in FORMS {
        let before = move |s: &mut Space<L>| {
            s.mm.set_unmapping(form);
            two_written(s);
        };
        let sides = vec![Arc::new(unmaps) as Act<L>, Arc::new(other)];
        race(SETTING, 2, before, sides, move |s| {
            after(s);
            assert_eq!(s.get(at(1)), Ok(8), "what lies beside it");
        });
    }
}

const SETTING: Setting = Setting { frames: 14, caching: 2, ..PLAIN };

/// Whoever maps the place, before or after it was emptied, has zeros, and keeps what he writes unless it is unmapped.
fn maps_it<L: Locking>() {
    let maps: fn(&Space<L>) = |s| {
        s.map(page(0), Prot::RW);
        let seen = s.load(at(0));
        assert!([Ok(0), Err(Denied::Unmapped)].contains(&seen), "of the old mapping: {seen:?}");
        let _ = s.store(at(0), 9);
    };
    let after: fn(&Space<L>) = |s| {
        let seen = s.get(at(0));
        assert!([Ok(9), Err(Denied::Unmapped)].contains(&seen), "{seen:?}");
    };
    beside_an_unmap(maps, after);
}

/// Somewhere else, which is not where pages go.
fn maps_anywhere<L: Locking>() {
    let maps: fn(&Space<L>) = |s| {
        let place = s.mm.map(Place::Anywhere(spile::PAGE), |at| Attr::anon(at.start(), Prot::RW)).unwrap();
        s.put(place.start(), 9).unwrap();
        assert_eq!(s.get(place.start()), Ok(9));
    };
    beside_an_unmap(maps, |_| ());
}

/// What lies beside the place, in the same table, is protected, or unmapped and mapped again.
fn changes_beside_it<L: Locking>() {
    let protects: fn(&Space<L>) = |s| {
        s.mm.protect(page(1), Prot::R).unwrap();
        assert_eq!(s.fault(at(1), Access::Write), Err(Denied::Protected));
    };
    beside_an_unmap(protects, |_| ());
    let replaces: fn(&Space<L>) = |s| {
        s.mm.unmap(page(1)).unwrap();
        s.map(page(1), Prot::RW);
        s.put(at(1), 8).unwrap();
    };
    beside_an_unmap(replaces, |_| ());
}

/// A fork's child has what was mapped, and nothing of what was taken away.
fn forks<L: Locking>() {
    let forks: fn(&Space<L>) = |s| *s.child.lock().unwrap() = Some(s.mm.fork().unwrap());
    beside_an_unmap(forks, |s| {
        let child = s.child.lock().unwrap().take().unwrap();
        let mut byte = [0];
        let seen = child.read_user(at(0), &mut byte).map(|()| byte[0]).map_err(|partial| partial.why);
        assert!([Ok(7), Err(Denied::Unmapped)].contains(&seen), "{seen:?}");
        child.read_user(at(1), &mut byte).unwrap();
        assert_eq!(byte, [8]);
    });
}

#[cfg(feature = "linux")]
fn moves_in<L: Locking>() {
    use spile::linux::remap::{FIXED, MAYMOVE};
    let moves: fn(&Space<L>) = |s| {
        assert_eq!(s.mm.mremap(at(2), spile::PAGE, spile::PAGE, MAYMOVE | FIXED, at(0)), Ok(at(0)));
    };
    for form in FORMS {
        let before = move |s: &mut Space<L>| {
            s.mm.set_unmapping(form);
            two_written(s);
            s.map(page(2), Prot::RW);
            s.put(at(2), 6).unwrap();
        };
        race(SETTING, 2, before, vec![Arc::new(unmaps) as Act<L>, Arc::new(moves)], |s| {
            let seen = s.get(at(0));
            assert!([Ok(6), Err(Denied::Unmapped)].contains(&seen), "{seen:?}");
        });
    }
}

spile::test_each_design! {
    flush_and_map => maps_it;
    flush_and_map_anywhere => maps_anywhere;
    flush_and_change_beside => changes_beside_it;
    flush_and_fork => forks;
}

#[cfg(feature = "linux")]
mod moves {
    use super::moves_in;

    spile::test_each_design! {
        flush_and_move_in => moves_in;
    }
}
