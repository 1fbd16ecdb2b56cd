//! What regions did, as a recording that can be replayed.
//!
//! **Guarantee.** To note something takes an addition and a few stores, in a handler too: no memory, no lock. What is noted is the first that happened; of what comes when it is full it is
//! known how much that was, and the recording says so.
//!
//! **Mechanism.** Entries that are there from the beginning. Who notes takes the next by a counter, so their order is that of the counter: what happened before something else has the lower
//! number. Written out they are lines of the format `mmtrace 1`: a fault is a line, a verb is a call and its return, and after a change the mappings as the core has them follow.

use crate::PAGE;
use spile::linux::{advice, map};
use spile::{Access, Contents, Mapping};
use spile_sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// What was done to bytes of a region, and with what permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A fault, of a write or not.
    Fault { write: bool },
    /// The region was mapped, with these bits of permission.
    Map(u32),
    /// So is a mapping of the core's, after the last change.
    Is { prot: u32, offset: u64 },
    /// Taken away.
    Unmap,
    /// May be used so from then on.
    Protect(u32),
    /// An advice by Linux's number.
    Advise(i32),
    /// Made durable.
    Sync,
}

impl What {
    const FAULT: u64 = 1;
    const MAP: u64 = 2;
    const IS: u64 = 3;
    const UNMAP: u64 = 4;
    const PROTECT: u64 = 5;
    const ADVISE: u64 = 6;
    const SYNC: u64 = 7;

    /// As two words, the first of which is not 0.
    fn encode(self) -> (u64, u64) {
        match self {
            Self::Fault { write } => (Self::FAULT, write.into()),
            Self::Map(prot) => (Self::MAP, prot.into()),
            Self::Is { prot, offset } => (Self::IS | u64::from(prot) << 8, offset),
            Self::Unmap => (Self::UNMAP, 0),
            Self::Protect(prot) => (Self::PROTECT, prot.into()),
            Self::Advise(advice) => (Self::ADVISE, advice as u64),
            Self::Sync => (Self::SYNC, 0),
        }
    }

    /// None of words that nobody has written.
    fn decode(kind: u64, more: u64) -> Option<Self> {
        Some(match kind & 0xff {
            Self::FAULT => Self::Fault { write: more != 0 },
            Self::MAP => Self::Map(more as u32),
            Self::IS => Self::Is { prot: (kind >> 8) as u32, offset: more },
            Self::UNMAP => Self::Unmap,
            Self::PROTECT => Self::Protect(more as u32),
            Self::ADVISE => Self::Advise(more as i32),
            Self::SYNC => Self::Sync,
            _ => return None,
        })
    }
}

/// Something that happened.
#[derive(Clone, Copy, Debug)]
struct Event {
    what: What,
    at: u64,
    len: u64,
    /// Nanoseconds since the trace began.
    time: u64,
    thread: u32,
    region: u32,
}

/// Room for one.
#[derive(Debug, Default)]
struct Entry {
    /// The first word of [`What::encode`]; 0: not written.
    kind: AtomicU64,
    more: AtomicU64,
    at: AtomicU64,
    len: AtomicU64,
    time: AtomicU64,
    /// The region's number and the thread's.
    whose: AtomicU64,
}

impl Entry {
    fn write(&self, Event { what, at, len, time, thread, region }: Event) {
        let (kind, more) = what.encode();
        let words = [(&self.more, more), (&self.at, at), (&self.len, len), (&self.time, time)];
        // Relaxed: shown by the kind.
        words.into_iter().for_each(|(word, value)| word.store(value, Ordering::Relaxed));
        self.whose.store(u64::from(region) << 32 | u64::from(thread), Ordering::Relaxed);
        // Release: who sees it sees the words above.
        self.kind.store(kind, Ordering::Release);
    }

    fn read(&self) -> Option<Event> {
        // Acquire: with the words that were stored before it.
        let kind = self.kind.load(Ordering::Acquire);
        let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
        let (whose, what) = (load(&self.whose), What::decode(kind, load(&self.more))?);
        let (at, len, time) = (load(&self.at), load(&self.len), load(&self.time));
        Some(Event { what, at, len, time, thread: whose as u32, region: (whose >> 32) as u32 })
    }
}

/// What regions of a pager note.
#[derive(Debug)]
struct Log {
    start: Instant,
    entries: Box<[Entry]>,
    /// How many were wanted.
    next: AtomicU64,
    /// How many regions there were.
    regions: AtomicU32,
}

thread_local! {
    /// The thread's number; 0: none yet. `const` and without `Drop`: a plain word, which a signal handler may use.
    static THREAD: Cell<u32> = const { Cell::new(0) };
}

/// This thread's number, which no other gets.
fn thread() -> u32 {
    static LAST: AtomicU32 = AtomicU32::new(0);
    if THREAD.get() == 0 {
        // Relaxed: only that they differ. A handler that comes in between takes another, which is used from then on or once.
        THREAD.set(LAST.fetch_add(1, Ordering::Relaxed) + 1);
    }
    THREAD.get()
}

impl Log {
    fn new(most: usize) -> Self {
        let entries = (0..most).map(|_| Entry::default()).collect();
        Self { start: Instant::now(), entries, next: AtomicU64::new(0), regions: AtomicU32::new(0) }
    }

    fn note(&self, region: u32, what: What, bytes: Range<u64>) {
        // Relaxed: what happened before has a lower number, for one counter's changes are in the order in which they happen; entries show themselves.
        let nth = self.next.fetch_add(1, Ordering::Relaxed);
        let Some(entry) = usize::try_from(nth).ok().and_then(|nth| self.entries.get(nth)) else { return };
        let time = self.start.elapsed().as_nanos() as u64;
        entry.write(Event { what, at: bytes.start, len: bytes.end - bytes.start, time, thread: thread(), region });
    }

    fn lost(&self) -> u64 {
        // Relaxed: a number.
        self.next.load(Ordering::Relaxed).saturating_sub(self.entries.len() as u64)
    }

    /// Those that are written, up to the first that is not yet.
    fn events(&self) -> Vec<Event> {
        self.entries.iter().map_while(Entry::read).collect()
    }
}

/// A region's part in it: none, if nobody asked for a trace before it was mapped.
#[derive(Debug, Default)]
pub struct Noted(Option<(Arc<Log>, u32)>);

impl Noted {
    /// Another region.
    pub fn new(trace: Option<&Trace>) -> Self {
        // Relaxed: only that they differ.
        Self(trace.map(|Trace(log)| (log.clone(), log.regions.fetch_add(1, Ordering::Relaxed) + 1)))
    }

    /// Something happened to bytes of it. In a handler, too.
    #[inline]
    pub fn note(&self, what: What, bytes: Range<u64>) {
        if let Some((log, region)) = &self.0 {
            log.note(*region, what, bytes);
        }
    }

    /// A change happened, and so the mappings are now that `each` tells.
    pub fn change(&self, what: What, bytes: Range<u64>, each: impl FnOnce(&mut dyn FnMut(Mapping))) {
        if self.0.is_none() {
            return;
        }
        self.note(what, bytes.clone());
        each(&mut |mapping| {
            let range = mapping.range.start()..mapping.range.end();
            if let Contents::File(_, offset) = mapping.contents
                && range.start < bytes.end
                && bytes.start < range.end
            {
                self.note(What::Is { prot: mapping.prot.bits(), offset }, range);
            }
        });
    }
}

/// A recording of what regions of a pager do, from now on: of those that are mapped from now on.
///
/// ```
/// use spile_linux::Pager;
/// use spile_linux::backing::Anonymous;
///
/// # if spile_linux::probe().engine.is_ok() {
/// let pager = Pager::builder().budget(1 << 20).build()?;
/// let trace = pager.trace(10_000);
/// let mut region = pager.map(Anonymous::on_heap(256)?, 1 << 20)?;
/// region.as_mut_slice::<u64>()[5] = 1;
/// drop(region);
/// let mut recording = Vec::new();
/// trace.write_to(&mut recording)?; // a file that `spile replay` plays
/// # assert!(String::from_utf8(recording)?.starts_with("#mmtrace 1\n"));
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Noted are faults that were resolved, and the verbs [`map`](crate::Pager::map), [`protect`](crate::Region::protect), [`unmap`](crate::Region::unmap), [`discard`](crate::Region::discard),
/// [`evict`](crate::Region::evict), [`prefetch`](crate::Region::prefetch), [`flush`](crate::Region::flush) and the end of a region; not what pages leave by themselves, nor what `read_at` and
/// `write_at` bring.
#[derive(Clone, Debug)]
pub struct Trace(Arc<Log>);

impl Trace {
    /// With room for `most` events.
    pub(crate) fn new(most: usize) -> Self {
        Self(Arc::new(Log::new(most)))
    }

    /// How many events it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.events().len()
    }

    /// Whether nothing has happened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many came when it was full.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.0.lost()
    }

    /// Writes it as a recording in the format `mmtrace 1`: for `spile replay`. Events that come meanwhile may be in it or not.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write_to(&self, mut out: impl Write) -> io::Result<()> {
        let events = self.0.events();
        writeln!(out, "#mmtrace 1\n# regions of a pager of spile-linux; f1 is the first, and so on")?;
        if self.lost() > 0 {
            writeln!(out, "# it was full: {} later events were lost", self.lost())?;
        }
        let regions = events.iter().map(|event| event.region).max().unwrap_or(0);
        (1..=regions).try_for_each(|region| writeln!(out, "f f{region} file"))?;
        writeln!(out, "0 1 x\n0 1 S exec 0")?;
        let mut lines = Lines { out, time: 0, threads: BTreeMap::new() };
        events.iter().try_for_each(|event| lines.event(event))
    }
}

/// Lines of a recording.
struct Lines<W> {
    out: W,
    /// That of the last.
    time: u64,
    /// Numbers that the recording gives to threads, in the order in which they appear.
    threads: BTreeMap<u32, usize>,
}

/// A thread that shares the address space.
const SHARES: u64 = 0x10100;
const SYNC: u64 = 4;

impl<W: Write> Lines<W> {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        // Who was interrupted between taking its number and its time is late.
        let since = event.time.saturating_sub(self.time);
        self.time += since;
        let next = self.threads.len() + 1;
        let thread = *self.threads.entry(event.thread).or_insert(next);
        if thread == next && next > 1 {
            writeln!(self.out, "0 1 c {thread} {SHARES:x}")?;
        }
        let Event { what, at, len, region, .. } = *event;
        let out = &mut self.out;
        write!(out, "{since} {thread} ")?;
        let result = match what {
            What::Fault { write } => return writeln!(out, "P {:x} {}", at / PAGE, if write { 6 } else { 4 }),
            What::Is { prot, offset } => {
                let mark = |bit, mark| if prot & bit != 0 { mark } else { '-' };
                let (read, write) = (mark(1, 'r'), mark(2, 'w'));
                return writeln!(out, "V {at:x} {:x} {read}{write}-s {offset:x} f{region}", at + len);
            }
            What::Map(prot) => {
                writeln!(out, "mmap {at:x} {len:x} {prot:x} {:x} f{region} 0", map::SHARED)?;
                at
            }
            What::Unmap => writeln!(out, "munmap {at:x} {len:x}").map(|()| 0)?,
            What::Protect(prot) => writeln!(out, "mprotect {at:x} {len:x} {prot:x}").map(|()| 0)?,
            What::Advise(advice) => writeln!(out, "madvise {at:x} {len:x} {advice:x}").map(|()| 0)?,
            What::Sync => writeln!(out, "msync {at:x} {len:x} {SYNC:x}").map(|()| 0)?,
        };
        writeln!(out, "0 {thread} = {result:x}")
    }
}

impl From<Access> for What {
    fn from(access: Access) -> Self {
        Self::Fault { write: access == Access::Write }
    }
}

/// The advice that a verb is.
pub const DISCARD: What = What::Advise(advice::DONTNEED);
pub const EVICT: What = What::Advise(advice::PAGEOUT);
pub const PREFETCH: What = What::Advise(advice::WILLNEED);
