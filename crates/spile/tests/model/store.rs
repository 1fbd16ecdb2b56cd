//! Where files' contents come from: a disk whose reads somebody else completes.

use super::Space;
use super::host::Host;
use loom::sync::atomic::{AtomicUsize, Ordering};
use spile::backing::File;
use spile::{Attr, Backing, Flags, FrameId, Locking, Place, Prot, Range, Store, Transfer};
use std::sync::{Arc, Mutex};

/// Every byte of page `n` is this plus `n`.
pub const BYTE: u8 = 0x40;

/// A file of two pages, whose contents come from `disk`.
pub fn open<L: Locking>(s: &mut Space<L>, disk: Disk) {
    s.file = File::new(s.host.clone(), disk, 2 * spile::PAGE);
}

/// Maps it to `range`, shared, from page `first` on.
pub fn map_file<L: Locking>(s: &Space<L>, range: Range, first: u64) {
    map_file_as(s, range, first, Flags::SHARED);
}

/// The same, with these flags.
pub fn map_file_as<L: Locking>(s: &Space<L>, range: Range, first: u64, flags: Flags) {
    let backing = Backing::File(s.file.clone().unwrap(), first);
    let attr = Attr { prot: Prot::RW, flags: flags.with(Flags::MAY_WRITE), backing, name: None };
    s.mm.map(Place::Over(range), |_| attr).unwrap();
}

/// How reads go. Its clones are one.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<State>>, Arc<AtomicUsize>);

#[derive(Default)]
struct State {
    slow: bool,
    started: Option<(u64, FrameId)>,
    reads: usize,
}

impl Disk {
    /// Its reads are completed by [`finish`](Self::finish).
    pub fn slow() -> Self {
        let disk = Self::default();
        disk.0.lock().unwrap().slow = true;
        disk
    }

    /// How many reads were started.
    pub fn reads(&self) -> usize {
        self.0.lock().unwrap().reads
    }

    /// Completes the read that was started, if one was.
    pub fn finish(&self, file: &File<Host>, ok: bool) {
        let (started, reads) = {
            let mut state = self.0.lock().unwrap();
            (state.started.take(), state.reads)
        };
        if let Some((page, frame)) = started {
            // Acquire: what was done by who started it comes before.
            while self.1.load(Ordering::Acquire) < reads {
                loom::thread::yield_now();
            }
            if ok {
                file.platform().poke(frame, BYTE + page as u8);
            }
            // SAFETY: (1) it was started, and (2) taken by us alone; (3) filled above.
            unsafe { file.complete(page, ok) };
        }
    }
}

impl Store<Host> for Disk {
    unsafe fn start_read(&self, file: &File<Host>, page: u64, frame: FrameId) -> Transfer {
        let mut state = self.0.lock().unwrap();
        state.reads += 1;
        if state.slow {
            state.started = Some((page, frame));
            drop(state);
            // Release: who completes it waits for this.
            self.1.fetch_add(1, Ordering::Release);
            return Transfer::Started;
        }
        drop(state);
        file.platform().poke(frame, BYTE + page as u8);
        Transfer::Done
    }
}
