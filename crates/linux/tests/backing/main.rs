//! What backings promise: what is read of a page is what was written last, beside a model; and what cannot be done is said.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[path = "../common/mod.rs"]
mod common;

mod anonymous;
mod file;
mod generated;
mod logged;

use common::PAGE;
use spile_linux::backing::{Backing, Page};
use spile_sim::Rng;
use std::io;
use std::ops::Range;

/// Pages that begin where pages of memory do, last first, so that no two lie one behind the other.
struct Buffer(Vec<Aligned>);

#[derive(Clone)]
#[repr(C, align(4096))]
struct Aligned(Page);

impl Buffer {
    /// Pages of junk.
    fn new(pages: u64) -> Self {
        Self(vec![Aligned([0xa5; PAGE as usize]); pages as usize])
    }

    fn of(bytes: &[u8]) -> Self {
        let mut buffer = Self::new(bytes.len() as u64 / PAGE);
        buffer.pages_mut().into_iter().zip(bytes.chunks(PAGE as usize)).for_each(|(page, bytes)| page.copy_from_slice(bytes));
        buffer
    }

    fn pages(&self) -> Vec<&Page> {
        self.0.iter().rev().map(|page| &page.0).collect()
    }

    fn pages_mut(&mut self) -> Vec<&mut Page> {
        self.0.iter_mut().rev().map(|page| &mut page.0).collect()
    }
}

fn read(backing: &dyn Backing, pages: Range<u64>) -> io::Result<Vec<u8>> {
    let mut buffer = Buffer::new(pages.end - pages.start);
    backing.fill(pages.start, &mut buffer.pages_mut())?;
    Ok(buffer.pages().into_iter().flatten().copied().collect())
}

fn write(backing: &dyn Backing, first: u64, bytes: &[u8]) -> io::Result<()> {
    backing.write_back(first, &Buffer::of(bytes).pages())
}

/// A page that is told from others by the number, a random one, and compresses or not. One in eight is zeros.
fn page(number: u64) -> Page {
    let mut rng = Rng::new(number);
    let random = match rng.below(8) {
        0 => 0,
        1..4 => 8,
        _ => PAGE as usize,
    };
    let mut page = [0; PAGE as usize];
    page[PAGE as usize - random..].iter_mut().for_each(|byte| *byte = rng.next() as u8);
    page
}

fn bytes(first: u64, pages: u64) -> Vec<u8> {
    (first..first + pages).flat_map(page).collect()
}

/// What should be in a backing.
struct Model {
    contents: Vec<u8>,
    /// Whether pages that are discarded are zeros then.
    forgets: bool,
}

impl Model {
    /// What is in these pages; zeros beyond the end.
    fn bytes(&self, pages: &Range<u64>) -> Vec<u8> {
        (pages.start * PAGE..pages.end * PAGE).map(|at| self.contents.get(at as usize).copied().unwrap_or(0)).collect()
    }

    /// The part of these pages that there is.
    fn within(&mut self, pages: &Range<u64>) -> &mut [u8] {
        let len = self.contents.len();
        let [from, to] = [pages.start, pages.end].map(|page| ((page * PAGE) as usize).min(len));
        &mut self.contents[from..to]
    }

    /// Does something to pages among `pages`, and compares.
    fn act(&mut self, backing: &dyn Backing, pages: &Range<u64>, rng: &mut Rng) {
        let start = pages.start + rng.below(pages.end - pages.start);
        let most = if rng.one_in(8) { 200 } else { 6 };
        let some = start..start + 1 + rng.below(most.min(pages.end - start));
        match rng.below(10) {
            0..=3 => {
                let mut bytes = bytes(rng.next() >> 1, some.end - some.start);
                let part = self.within(&some);
                bytes[part.len()..].fill(0);
                part.copy_from_slice(&bytes[..part.len()]);
                write(backing, some.start, &bytes).expect("it is written");
            }
            4 => {
                backing.discard(some.clone());
                if self.forgets {
                    self.within(&some).fill(0);
                }
            }
            5 => backing.sync().expect("nothing fails"),
            _ => assert!(
                read(backing, some.clone()).expect("it is read") == self.bytes(&some),
                "pages {some:?} are not what they were"
            ),
        }
    }
}

/// Does many things to all pages, and to some beyond, and compares.
fn behaves(backing: &dyn Backing, model: &mut Model, seed: u64) {
    let pages = 0..(model.contents.len() as u64).div_ceil(PAGE) + 3;
    let mut rng = Rng::new(seed);
    (0..400).for_each(|_| model.act(backing, &pages, &mut rng));
    assert!(read(backing, pages.clone()).expect("it is read") == model.bytes(&pages), "seed {seed}");
}

/// The same by two threads, each with pages of its own, which lie between the other's.
fn behaves_for_two(backing: &dyn Backing, model: &Model, seed: u64) {
    let pages = (model.contents.len() as u64).div_ceil(PAGE);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let mut model = Model { contents: model.contents.clone(), ..*model };
            scope.spawn(move || {
                let mut rng = Rng::new(seed + thread);
                for _ in 0..1000 {
                    let page = rng.below(pages.div_ceil(2)) * 2 + thread;
                    model.act(backing, &(page..page + 1), &mut rng);
                }
            });
        }
    });
}

/// The control.
#[test]
#[should_panic(expected = "are not what they were")]
fn a_backing_that_forgets_is_found() {
    let backing = spile_linux::backing::Anonymous::on_heap(40).expect("there are slots");
    behaves(&backing, &mut Model { contents: vec![0; 40 * PAGE as usize], forgets: false }, 1);
}
