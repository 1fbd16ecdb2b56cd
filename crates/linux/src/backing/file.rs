//! Pages in a file.
//!
//! **Guarantee.** A page is read when the kernel has given all its bytes, and written when it has taken all; whatever else happens fails, and says at which byte of which file.
//! The file never grows. After a sync that failed none succeeds.
//!
//! **Mechanism.** `preadv(2)` and `pwritev(2)`, repeated when they were short or interrupted: first whole pages, then the bytes that fill none, by a call of their own. Past the page
//! cache only whole pages can go, so those bytes have a second descriptor, which goes through it.

use super::{Backing, Page};
use crate::PAGE;
use std::error::Error;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// How many pages one call moves at most. Their places are on the stack, which may be a signal handler's.
const MOST: usize = 64;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    writes: bool,
    direct: bool,
}

impl Mode {
    /// For reading.
    pub const READ: Self = Self { writes: false, direct: false };
    /// For reading and writing.
    pub const READ_WRITE: Self = Self { writes: true, direct: false };

    /// Whether pages go past the page cache (`O_DIRECT`): then they are in memory once, not twice, and who writes them waits for the device.
    #[must_use]
    pub const fn direct(self, direct: bool) -> Self {
        Self { direct, ..self }
    }

    fn open(self, path: &Path) -> io::Result<File> {
        let flags = if self.direct { libc::O_DIRECT } else { 0 };
        OpenOptions::new().read(true).write(self.writes).custom_flags(flags).open(path)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.writes { "reading and writing" } else { "reading" })?;
        f.write_str(if self.direct { " past the page cache (O_DIRECT)" } else { "" })
    }
}

/// Pages of a file that is there, as long as it is now. It is not made longer: what is written beyond its end has to be zeros, or is refused.
///
/// ```
/// use spile_linux::backing::{Backing, Mode, OnFile};
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("words");
/// std::fs::write(&path, "a few words")?;
/// // SAFETY: (1) nobody else has the file.
/// let file = unsafe { OnFile::open(&path, Mode::READ_WRITE) }?;
/// assert_eq!(file.len(), 11);
///
/// let mut page = [0xff; 4096];
/// file.fill(0, &mut [&mut page])?;
/// assert!(page.starts_with(b"a few words\0\0"));
///
/// page[..5].copy_from_slice(b"seven");
/// file.write_back(0, &[&page])?;
/// file.sync()?;
/// assert_eq!(std::fs::read(&path)?, b"seven words");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct OnFile {
    path: PathBuf,
    mode: Mode,
    len: u64,
    file: File,
    /// The same file, through the page cache, if `file` goes past it.
    cached: Option<File>,
    durability: Durability,
}

impl OnFile {
    /// The file at `path`.
    ///
    /// # Errors
    ///
    /// It is not there, is no regular file, or may not be opened so: the message names it, and the kind is the system's. `InvalidInput` past the page cache: the file system, or its
    /// device, does not do that with pages of 4096 bytes.
    ///
    /// # Safety
    ///
    /// (1) As long as this lives, nobody else changes what is in the file, nor how long it is: no other process, and in this one nothing but this.
    pub unsafe fn open(path: impl AsRef<Path>, mode: Mode) -> io::Result<Self> {
        let path = path.as_ref();
        let opened = Self::opened(path, mode);
        opened.map_err(|error| with_context(error, format!("cannot open {} for {mode}", path.display())))
    }

    fn opened(path: &Path, mode: Mode) -> io::Result<Self> {
        let file = mode.open(path)?;
        let found = file.metadata()?;
        if found.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if !found.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        let cached = if mode.direct { Some(mode.direct(false).open(path)?) } else { None };
        if let Some(cached) = &cached {
            let other = cached.metadata()?;
            if (found.dev(), found.ino()) != (other.dev(), other.ino()) {
                return Err(io::Error::other("another file was put in its place meanwhile"));
            }
        }
        let opened = Self { path: path.to_path_buf(), mode, len: found.len(), file, cached, durability: Durability::default() };
        opened.try_direct()?;
        Ok(opened)
    }

    /// Devices may want larger pieces than pages, which nothing says before they are asked.
    fn try_direct(&self) -> io::Result<()> {
        #[repr(align(4096))]
        struct Aligned(Page);
        if self.mode.direct {
            self.fill(0, &mut [&mut Box::new(Aligned([0; PAGE as usize])).0])?;
        }
        Ok(())
    }

    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bytes of page `number` are in the file.
    fn part(&self, number: u64) -> usize {
        self.len.saturating_sub(number.saturating_mul(PAGE)).min(PAGE) as usize
    }

    /// The bytes of the file that are in so many pages.
    fn bytes(&self, first: u64, pages: usize) -> Range<u64> {
        let from = first.saturating_mul(PAGE);
        from..from.saturating_add(pages as u64 * PAGE).min(self.len)
    }

    /// Moves `bytes`, which begin with a page.
    ///
    /// # Safety
    ///
    /// (1) `page` says where each page of `bytes` is, from number 0 on; (2) until this returns they are there, and nobody writes them; (3) nor reads them, if the file is read.
    unsafe fn transfer(&self, doing: Doing, bytes: Range<u64>, mut page: impl FnMut(usize) -> *mut u8) -> io::Result<()> {
        let from = bytes.start;
        let done = each_piece(bytes, |piece| {
            let file = if piece.is_whole { &self.file } else { self.cached.as_ref().unwrap_or(&self.file) };
            let (vectors, count) = piece.vectors(from, &mut page);
            let (fd, vectors, at) = (file.as_raw_fd(), vectors.as_ptr(), piece.at as libc::off_t);
            // SAFETY: (1) `count` vectors of bytes in the pages, says the caller; (2) they are there, and nobody else's as far as it matters, says he.
            let moved = unsafe {
                match doing {
                    Doing::Reading => libc::preadv(fd, vectors, count, at),
                    Doing::Writing => libc::pwritev(fd, vectors, count, at),
                }
            };
            u64::try_from(moved).map_err(|_| io::Error::last_os_error())
        });
        done.map_err(|(at, error)| with_context(error, format!("cannot {doing} {} at byte {at}", self.path.display())))
    }

    /// What would be lost if these pages were written.
    fn refuse(&self, first: u64, pages: &[&Page]) -> io::Result<()> {
        let refused = |kind, why: String| Err(io::Error::new(kind, format!("cannot write {}: {why}", self.path.display())));
        if !self.mode.writes {
            return refused(io::ErrorKind::Unsupported, format!("it was opened for {}", self.mode));
        }
        let is_beyond = |(number, page): &(u64, &&Page)| page[self.part(*number)..].iter().any(|byte| *byte != 0);
        match (first..).zip(pages).find(is_beyond) {
            None => Ok(()),
            Some((number, _)) => refused(
                io::ErrorKind::FileTooLarge,
                format!("page {number} has more than zeros beyond its end, at byte {}", self.len),
            ),
        }
    }
}

// SAFETY: (1) nobody else writes the file, says who opened it, and of what `write_back` has taken all is there, or zeros beyond the end, which `fill` makes; (2) before that it has what
// the file has, and `discard` does nothing.
unsafe impl Backing for OnFile {
    fn fill(&self, first: u64, pages: &mut [&mut Page]) -> io::Result<()> {
        for (number, page) in (first..).zip(pages.iter_mut()) {
            page[self.part(number)..].fill(0);
        }
        let bytes = self.bytes(first, pages.len());
        // SAFETY: (1) these pages; (2) and (3) borrowed alone until this returns.
        unsafe { self.transfer(Doing::Reading, bytes, |n| pages[n].as_mut_ptr()) }
    }

    fn write_back(&self, first: u64, pages: &[&Page]) -> io::Result<()> {
        self.refuse(first, pages)?;
        let bytes = self.bytes(first, pages.len());
        // SAFETY: (1) these pages; (2) borrowed until this returns; (3) the file is written, so they are only read.
        unsafe { self.transfer(Doing::Writing, bytes, |n| pages[n].as_ptr().cast_mut()) }
    }

    fn takes_writes(&self) -> bool {
        self.mode.writes
    }

    /// By `fdatasync(2)`. If that fails the kernel forgets that there was anything to write, and what it says next is not about these pages: so every later one fails too. Only opening
    /// the file anew begins again, with what is in it then.
    fn sync(&self) -> io::Result<()> {
        let outcome = self.durability.sync(|| self.file.sync_data());
        outcome.map_err(|error| with_context(error, format!("what was written to {} may never be durable", self.path.display())))
    }
}

#[derive(Clone, Copy)]
enum Doing {
    Reading,
    Writing,
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reading => "read",
            Self::Writing => "write",
        })
    }
}

/// What one call is asked for: whole pages, or bytes within one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    /// The first byte, of the file.
    at: u64,
    len: u64,
    is_whole: bool,
}

impl Piece {
    /// The first of these bytes.
    fn first_of(Range { start: at, end }: Range<u64>) -> Self {
        let (within, whole) = (at % PAGE, (end - at) / PAGE * PAGE);
        let is_whole = within == 0 && whole > 0;
        let len = if is_whole { whole.min(MOST as u64 * PAGE) } else { (end - at).min(PAGE - within) };
        Self { at, len, is_whole }
    }

    /// Where it is in memory, and in how many parts, if `page` says where the pages from the byte `from` on are.
    fn vectors(self, from: u64, mut page: impl FnMut(usize) -> *mut u8) -> ([libc::iovec; MOST], libc::c_int) {
        let mut vectors = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; MOST];
        let (first, count) = (((self.at - from) / PAGE) as usize, self.len.div_ceil(PAGE) as usize);
        for (n, vector) in vectors[..count].iter_mut().enumerate() {
            vector.iov_base = page(first + n).wrapping_add((self.at % PAGE) as usize).cast();
            vector.iov_len = self.len.min(PAGE) as usize;
        }
        (vectors, count as libc::c_int)
    }
}

/// Has `call` move all of `bytes`; it says how many it did of what it is asked for. If they stop, where and why.
fn each_piece(bytes: Range<u64>, mut call: impl FnMut(Piece) -> io::Result<u64>) -> Result<(), (u64, io::Error)> {
    let mut at = bytes.start;
    while at < bytes.end {
        match call(Piece::first_of(at..bytes.end)) {
            Ok(0) => return Err((at, io::Error::new(io::ErrorKind::UnexpectedEof, "the file has become shorter"))),
            Ok(count) => at += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err((at, error)),
        }
    }
    Ok(())
}

/// The first failure to make pages durable.
#[derive(Debug, Default)]
struct Durability(Mutex<Option<(io::ErrorKind, String)>>);

impl Durability {
    /// The lock is held meanwhile: the kernel tells a failure once, and whoever else asks beside it would be told that all is well.
    fn sync(&self, flush: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.is_none() {
            *failed = flush().err().map(|error| (error.kind(), error.to_string()));
        }
        failed.as_ref().map_or(Ok(()), |(kind, text)| Err(io::Error::new(*kind, text.clone())))
    }
}

/// An error, and what it stopped.
#[derive(Debug)]
struct Context {
    what: String,
    error: io::Error,
}

fn with_context(error: io::Error, what: String) -> io::Error {
    io::Error::new(error.kind(), Context { what, error })
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.error)
    }
}

impl Error for Context {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spile_sim::Rng;

    /// The bytes of the file that `piece` has, by where it is in memory, if page `n` is at the address `(n + 1) << 16`.
    fn places(piece: Piece, from: u64) -> Vec<u64> {
        let (vectors, count) = piece.vectors(from, |n| std::ptr::without_provenance_mut((n + 1) << 16));
        let place = |at: u64| from + ((at >> 16) - 1) * PAGE + at % (1 << 16);
        let each = vectors[..count as usize].iter().map(|vector| (vector.iov_base.addr() as u64, vector.iov_len as u64));
        each.flat_map(|(at, len)| (at..at + len).map(place)).collect()
    }

    /// Moves bytes from one list to another by pieces, of which a call moves a part, none, or is interrupted.
    fn moved(bytes: Range<u64>, seed: u64) -> (Vec<u8>, Vec<u8>, u64) {
        let mut rng = Rng::new(seed);
        let from: Vec<u8> = (0..bytes.end).map(|_| rng.next() as u8).collect();
        let mut into = vec![0; from.len()];
        let mut calls = 0;
        let done = each_piece(bytes.clone(), |piece| {
            calls += 1;
            assert!(piece.at + piece.len <= bytes.end && piece.len > 0);
            assert!(places(piece, bytes.start).into_iter().eq(piece.at..piece.at + piece.len), "{piece:?} is elsewhere");
            if piece.is_whole {
                assert!(piece.at % PAGE == 0 && piece.len % PAGE == 0 && piece.len <= MOST as u64 * PAGE);
            } else {
                assert_eq!(piece.at / PAGE, (piece.at + piece.len - 1) / PAGE, "bytes of one page");
            }
            if rng.one_in(4) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let count = if rng.one_in(2) { piece.len } else { 1 + rng.below(piece.len) };
            let part = piece.at as usize..(piece.at + count) as usize;
            into[part.clone()].copy_from_slice(&from[part]);
            Ok(count)
        });
        done.expect("nothing stops it");
        (from, into, calls)
    }

    #[test]
    fn short_and_interrupted_calls_go_on_where_they_stopped() {
        let mut most = 0;
        for seed in 0..100 {
            let mut rng = Rng::new(seed);
            let first = rng.below(3) * PAGE;
            let bytes = first..first + rng.below(200 * PAGE);
            let (from, into, calls) = moved(bytes, seed);
            assert!(from[first as usize..] == into[first as usize..], "seed {seed}");
            assert!(into[..first as usize].iter().all(|byte| *byte == 0), "seed {seed}: what was not asked for");
            most = most.max(calls);
        }
        assert!(most > 10, "calls were short: {most}");
    }

    #[test]
    fn who_stops_says_where() {
        let stopped = |outcome: fn() -> io::Result<u64>| {
            let mut calls = 0;
            let stop = each_piece(0..3 * PAGE, |_| {
                calls += 1;
                if calls == 1 { Ok(PAGE + 512) } else { outcome() }
            });
            let (at, error) = stop.expect_err("it stops");
            (at, error.kind(), calls)
        };
        assert_eq!(stopped(|| Ok(0)), (PAGE + 512, io::ErrorKind::UnexpectedEof, 2));
        assert_eq!(stopped(|| Err(io::ErrorKind::StorageFull.into())), (PAGE + 512, io::ErrorKind::StorageFull, 2));
    }

    #[test]
    fn after_a_sync_that_failed_none_succeeds() {
        let durability = Durability::default();
        durability.sync(|| Ok(())).expect("it did");
        let first = durability.sync(|| Err(io::Error::from_raw_os_error(libc::ENOSPC))).expect_err("it failed");
        let mut asked = false;
        let later = durability.sync(|| {
            asked = true;
            Ok(())
        });
        let later = later.expect_err("it stays so");
        assert_eq!((first.kind(), first.to_string()), (later.kind(), later.to_string()));
        assert_eq!(later.kind(), io::ErrorKind::StorageFull);
        assert!(!asked, "the kernel's answer would mean nothing");
    }
}
