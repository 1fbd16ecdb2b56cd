//! Real threads on the real allocator, with nodes that are written anew: what a sanitizer and miri shall look at.
#![cfg(not(loom))]

use spile_maple::{RangeTree, Span};
use spile_rcu::{Global, Rcu, RcuBox};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

const WIDTH: u64 = 16;
const SLOTS: u64 = if cfg!(miri) { 12 } else { 300 };
const ROUNDS: u64 = if cfg!(miri) { 60 } else { 60_000 };

static DROPS: AtomicUsize = AtomicUsize::new(0);

/// Says over which slot it was stored, twice: memory that serves something else would not.
#[derive(Clone)]
struct Label([u64; 2]);

impl Label {
    fn of(slot: u64) -> RcuBox<Self> {
        RcuBox::new(Self([slot, !slot]))
    }
}

impl Drop for Label {
    fn drop(&mut self) {
        self.0 = [0, 0];
        DROPS.fetch_add(1, Relaxed);
    }
}

fn keys(slot: u64) -> Span {
    Span::with_len(slot * WIDTH, WIDTH).unwrap()
}

/// Every key is always covered, by its slot's label. Two writers take turns, two readers look.
#[test]
fn two_writers_and_two_readers() {
    let tree = RangeTree::<RcuBox<Label>, Global>::from_sorted((0..SLOTS).map(|slot| (keys(slot), Label::of(slot)))).unwrap();
    let done = AtomicBool::new(false);
    let looks = AtomicUsize::new(0);
    let write = |who: u64| {
        for round in 0..ROUNDS {
            let random = (round * 2 + who).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
            let slot = random % SLOTS;
            let Some(mut writer) = tree.try_write() else {
                std::thread::yield_now();
                continue;
            };
            match random >> 32 & 3 {
                0 => drop(writer.store(keys(slot), Label::of(slot)).ok().unwrap()),
                1 => drop(writer.store(Span::with_len(slot * WIDTH + 3, 5).unwrap(), Label::of(slot)).ok().unwrap()),
                2 => {
                    let part = |from, len| (Span::with_len(slot * WIDTH + from, len).unwrap(), Some(Label::of(slot)));
                    drop(writer.replace(keys(slot), [part(0, 4), part(4, 1), part(5, 11)]).ok().unwrap());
                }
                _ => drop(writer.replace(keys(slot), [(keys(slot), Some(Label::of(slot)))]).ok().unwrap()),
            }
            if round % 1024 == 0 {
                writer.validate().unwrap();
                writer.trim();
            }
            drop(writer);
            Global.relieve();
        }
    };
    let read = |who: u64| {
        let mut i = who;
        while !done.load(Relaxed) {
            i += 1;
            let section = Global.read();
            let key = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
            let key = key % (SLOTS * WIDTH);
            let (span, label) = tree.get(&section, key).expect("covered");
            let slot = key / WIDTH;
            assert!(span.contains(key) && label.0 == [slot, !slot], "{:?} at {key:#x}", label.0);
            if i.is_multiple_of(16) {
                let mut upto = keys(slot).first();
                for (span, label) in tree.iter(&section, keys(slot)) {
                    assert_eq!(label.0, [slot, !slot]);
                    upto = upto.max(span.last() + 1);
                }
                assert_eq!(upto, keys(slot).last() + 1);
            }
            looks.fetch_add(1, Relaxed);
        }
    };
    std::thread::scope(|scope| {
        let (write, read) = (&write, &read);
        let writers = [0, 1].map(|who| scope.spawn(move || write(who)));
        let readers = [0, 1].map(|who| scope.spawn(move || read(who)));
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, Relaxed);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
    println!("{} lookups", looks.load(Relaxed));
}
