//! Where files' contents come from: a disk whose reads somebody else completes.

use super::host::Host;
use spile::backing::File;
use spile::{FrameId, Read, Store};
use std::sync::{Arc, Mutex};

/// Every byte of page `n` is this plus `n`.
pub const BYTE: u8 = 0x40;

/// How reads go. Its clones are one.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<State>>);

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
        let started = self.0.lock().unwrap().started.take();
        if let Some((page, frame)) = started {
            if ok {
                file.platform().poke(frame, BYTE + page as u8);
            }
            // SAFETY: (1) it was started, and (2) taken by us alone; (3) filled above.
            unsafe { file.complete(page, ok) };
        }
    }
}

impl Store<Host> for Disk {
    unsafe fn start_read(&self, file: &Arc<File<Host>>, page: u64, frame: FrameId) -> Read {
        let mut state = self.0.lock().unwrap();
        state.reads += 1;
        if state.slow {
            state.started = Some((page, frame));
            return Read::Started;
        }
        drop(state);
        file.platform().poke(frame, BYTE + page as u8);
        Read::Done
    }
}
