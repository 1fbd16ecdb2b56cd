//! A backing in memory for tests: it logs what is asked of it, fails and dawdles by seed, says what a crash would have left, and demands of its caller what the trait says.

use super::PAGE;
use spile_linux::backing::{Backing, Page};
use spile_sim::Rng;
use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

/// What goes wrong, by seed: one call in so many, or none if that is 0.
#[derive(Clone, Copy, Default)]
pub struct Troubles {
    pub seed: u64,
    pub fills: u64,
    /// A write that fails may have been made in part.
    pub writes: u64,
    pub syncs: u64,
    /// What a call takes at most.
    pub delay: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A page was written, up to so many bytes: all of them, unless the write failed.
    Write {
        page: u64,
        bytes: Box<Page>,
        landed: usize,
    },
    /// A sync ended well: what was in the log when it began, the first so many events, is durable.
    Sync {
        began: usize,
    },
    FailedSync,
    Discard(Range<u64>),
}

/// How many calls failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failed {
    pub fills: u64,
    pub writes: u64,
    pub syncs: u64,
}

pub struct Logged {
    troubles: Troubles,
    before: Vec<u8>,
    state: Mutex<State>,
}

struct State {
    rng: Rng,
    contents: Vec<u8>,
    log: Vec<Event>,
    failed: Failed,
    busy: BTreeSet<u64>,
}

impl State {
    fn fails(&mut self, one_in: u64) -> bool {
        one_in > 0 && self.rng.one_in(one_in)
    }

    fn write(&mut self, page: u64, bytes: &Page, landed: usize) {
        apply(&mut self.contents, page, bytes, landed);
        self.log.push(Event::Write { page, bytes: Box::new(*bytes), landed });
    }
}

/// The first `landed` bytes of a page are new.
fn apply(contents: &mut [u8], page: u64, bytes: &Page, landed: usize) {
    let at = (page * PAGE) as usize;
    contents[at..at + landed].copy_from_slice(&bytes[..landed]);
}

/// Some of a page's bytes, and not all.
fn torn(rng: &mut Rng) -> usize {
    1 + rng.below(PAGE - 1) as usize
}

/// A call about pages that no other call may be about.
struct Busy<'a>(&'a Logged, Range<u64>);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        self.1.clone().for_each(|page| assert!(state.busy.remove(&page)));
    }
}

impl Logged {
    /// With these bytes, which are of whole pages.
    pub fn holding(contents: Vec<u8>, troubles: Troubles) -> Self {
        assert_eq!(contents.len() as u64 % PAGE, 0);
        let (rng, before) = (Rng::new(troubles.seed), contents.clone());
        let state = State { rng, contents, log: Vec::new(), failed: Failed::default(), busy: BTreeSet::new() };
        Self { troubles, before, state: Mutex::new(state) }
    }

    /// So many pages of zeros, and nothing goes wrong.
    pub fn zeros(pages: u64) -> Self {
        Self::holding(vec![0; (pages * PAGE) as usize], Troubles::default())
    }

    pub fn contents(&self) -> Vec<u8> {
        self.state().contents.clone()
    }

    pub fn log(&self) -> Vec<Event> {
        self.state().log.clone()
    }

    pub fn failed(&self) -> Failed {
        self.state().failed
    }

    /// What is there after a crash behind the first `cut` events: of each write that no sync has made durable nothing, all, or its first bytes, as the seed says.
    pub fn after_crash(&self, cut: usize, seed: u64) -> Vec<u8> {
        let log = &self.state().log[..cut];
        let synced = |event: &Event| if let Event::Sync { began } = event { Some(*began) } else { None };
        let durable = log.iter().filter_map(synced).max().unwrap_or(0);
        let (mut rng, mut contents) = (Rng::new(seed), self.before.clone());
        for (n, event) in log.iter().enumerate() {
            let Event::Write { page, bytes, landed } = event else { continue };
            let reached = match rng.below(3) {
                _ if n < durable => *landed,
                0 => 0,
                1 => *landed,
                _ => torn(&mut rng).min(*landed),
            };
            apply(&mut contents, *page, bytes, reached);
        }
        contents
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panicked")
    }

    fn dawdle(&self) {
        let most = self.troubles.delay.as_nanos() as u64;
        if most > 0 {
            let delay = self.state().rng.below(most);
            thread::sleep(Duration::from_nanos(delay));
        }
    }

    /// Begins a call about these pages, which is alone with them, and takes its time.
    fn alone(&self, pages: Range<u64>) -> Busy<'_> {
        let is_alone = {
            let mut state = self.state();
            let is_alone = pages.clone().all(|page| !state.busy.contains(&page));
            state.busy.extend(pages.clone().filter(|_| is_alone));
            is_alone
        };
        assert!(is_alone, "another call is about one of pages {pages:?}");
        self.dawdle();
        Busy(self, pages)
    }
}

fn is_aligned(page: &Page) -> bool {
    (page.as_ptr() as u64).is_multiple_of(PAGE)
}

// SAFETY: (1) bytes are kept, but for a write that failed, after which nobody asks; (2) `discard` changes nothing.
unsafe impl Backing for Logged {
    fn fill(&self, first: u64, pages: &mut [&mut Page]) -> io::Result<()> {
        assert!(pages.iter().all(|page| is_aligned(page)), "pages begin where pages of memory do");
        let _busy = self.alone(first..first + pages.len() as u64);
        let mut state = self.state();
        if state.fails(self.troubles.fills) {
            state.failed.fills += 1;
            pages.iter_mut().for_each(|page| page.fill(0xdb));
            return Err(io::Error::other(format!("page {first} is not to be had")));
        }
        for (number, page) in (first..).zip(pages) {
            let at = (number * PAGE) as usize;
            match state.contents.get(at..at + PAGE as usize) {
                Some(bytes) => page.copy_from_slice(bytes),
                None => page.fill(0),
            }
        }
        Ok(())
    }

    fn write_back(&self, first: u64, pages: &[&Page]) -> io::Result<()> {
        assert!(pages.iter().all(|page| is_aligned(page)), "pages begin where pages of memory do");
        let _busy = self.alone(first..first + pages.len() as u64);
        let mut state = self.state();
        assert!((first + pages.len() as u64) * PAGE <= state.contents.len() as u64, "there are no such pages");
        if !state.fails(self.troubles.writes) {
            (first..).zip(pages).for_each(|(page, bytes)| state.write(page, bytes, PAGE as usize));
            return Ok(());
        }
        state.failed.writes += 1;
        let whole = state.rng.below(pages.len() as u64) as usize;
        (first..).zip(&pages[..whole]).for_each(|(page, bytes)| state.write(page, bytes, PAGE as usize));
        let landed = torn(&mut state.rng);
        state.write(first + whole as u64, pages[whole], landed);
        Err(io::Error::other(format!("page {} was written in part", first + whole as u64)))
    }

    fn takes_writes(&self) -> bool {
        true
    }

    fn sync(&self) -> io::Result<()> {
        let began = self.state().log.len();
        self.dawdle();
        let mut state = self.state();
        if state.fails(self.troubles.syncs) {
            state.failed.syncs += 1;
            state.log.push(Event::FailedSync);
            return Err(io::Error::other("nothing is durable"));
        }
        state.log.push(Event::Sync { began });
        Ok(())
    }

    fn discard(&self, pages: Range<u64>) {
        let mut state = self.state();
        let is_alone = state.busy.range(pages.clone()).next().is_none();
        state.log.push(Event::Discard(pages.clone()));
        drop(state);
        assert!(is_alone, "another call is about one of pages {pages:?}");
    }
}
