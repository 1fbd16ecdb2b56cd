//! Where files' contents come from, and where they go: a disk whose transfers are done at once, or completed by somebody else.

use super::Space;
use super::host::Host;
use loom::sync::atomic::{AtomicUsize, Ordering};
use spile::backing::File;
use spile::{Attr, Backing, Flags, FrameId, Locking, Mm, Place, Prot, Range, Store, Transfer};
use std::sync::{Arc, Mutex};

/// Every byte of page `n` is this plus `n`.
pub const BYTE: u8 = 0x40;

/// A file of two pages, whose contents come from `disk`.
pub fn open<L: Locking>(s: &mut Space<L>, disk: Disk) {
    s.file = File::new(s.host.clone(), disk, 2 * spile::PAGE);
}

/// One whose contents come from nowhere.
pub fn open_nameless<L: Locking>(s: &mut Space<L>) {
    s.file = File::anonymous(s.host.clone(), 2 * spile::PAGE);
}

/// Maps it to `range`, shared, from page `first` on.
pub fn map_file<L: Locking>(s: &Space<L>, range: Range, first: u64) {
    map_file_as(s, range, first, Flags::SHARED);
}

/// The same, with these flags.
pub fn map_file_as<L: Locking>(s: &Space<L>, range: Range, first: u64, flags: Flags) {
    map_file_in(s, &s.mm, range, first, flags);
}

/// The same, in another space.
pub fn map_file_in<L: Locking>(s: &Space<L>, mm: &Mm<Host, L>, range: Range, first: u64, flags: Flags) {
    let backing = Backing::File(s.file.clone().unwrap(), first);
    let attr = Attr { prot: Prot::RW, flags: flags.with(Flags::MAY_WRITE), backing, name: None };
    mm.map(Place::Over(range), |_| attr).unwrap();
}

/// How transfers go. Its clones are one.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<State>>, Arc<AtomicUsize>);

#[derive(Default)]
struct State {
    slow: bool,
    takes_writes: bool,
    moving: Option<Moving>,
    started: usize,
    reads: usize,
    /// What was written to each page.
    written: [Option<u8>; 2],
}

/// A transfer under way.
struct Moving {
    page: u64,
    frame: FrameId,
    /// What the frame contained, if it is written.
    written: Option<u8>,
}

impl Disk {
    /// Its transfers are completed by [`finish`](Self::finish).
    pub fn slow() -> Self {
        let disk = Self::default();
        disk.set_slow(true);
        disk
    }

    /// It takes what is written.
    pub fn writable() -> Self {
        let disk = Self::default();
        disk.0.lock().unwrap().takes_writes = true;
        disk
    }

    /// From now on transfers are completed by [`finish`](Self::finish), or at once.
    pub fn set_slow(&self, slow: bool) {
        self.0.lock().unwrap().slow = slow;
    }

    /// How many reads were started.
    pub fn reads(&self) -> usize {
        self.0.lock().unwrap().reads
    }

    /// What page `n` has.
    pub fn byte(&self, page: u64) -> u8 {
        self.0.lock().unwrap().written[page as usize].unwrap_or(BYTE + page as u8)
    }

    /// Whether a write is under way.
    pub fn is_writing(&self) -> bool {
        self.0.lock().unwrap().moving.as_ref().is_some_and(|moving| moving.written.is_some())
    }

    /// Completes the transfer that was started, if one was. Whether one was.
    pub fn finish(&self, file: &File<Host>, ok: bool) -> bool {
        let (moving, started) = {
            let mut state = self.0.lock().unwrap();
            (state.moving.take(), state.started)
        };
        let Some(moving) = moving else { return false };
        // Acquire: what was done by who started it comes before.
        while self.1.load(Ordering::Acquire) < started {
            loom::thread::yield_now();
        }
        if ok {
            self.end(file, &moving);
        }
        // SAFETY: (1) it was started, and (2) taken by us alone; (3) over.
        unsafe { file.complete(moving.page, ok) };
        true
    }

    fn start(&self, file: &File<Host>, moving: Moving) -> Transfer {
        let mut state = self.0.lock().unwrap();
        state.reads += usize::from(moving.written.is_none());
        if !state.slow {
            drop(state);
            self.end(file, &moving);
            return Transfer::Done;
        }
        state.started += 1;
        state.moving = Some(moving);
        drop(state);
        // Release: who completes it waits for this.
        self.1.fetch_add(1, Ordering::Release);
        Transfer::Started
    }

    fn end(&self, file: &File<Host>, &Moving { page, frame, written }: &Moving) {
        match written {
            Some(byte) => {
                // It is there until the last byte was taken.
                file.platform().peek(frame);
                self.0.lock().unwrap().written[page as usize] = Some(byte);
            }
            None => file.platform().poke(frame, self.byte(page)),
        }
    }
}

impl Store<Host> for Disk {
    unsafe fn start_read(&self, file: &File<Host>, page: u64, frame: FrameId) -> Transfer {
        self.start(file, Moving { page, frame, written: None })
    }

    unsafe fn start_write(&self, file: &File<Host>, page: u64, frame: FrameId) -> Transfer {
        self.start(file, Moving { page, frame, written: Some(file.platform().peek(frame)) })
    }

    fn takes_writes(&self, _: &File<Host>) -> bool {
        self.0.lock().unwrap().takes_writes
    }
}
