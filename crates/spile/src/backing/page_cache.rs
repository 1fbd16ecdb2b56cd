//! A file's pages in memory.
//!
//! **Guarantee.** A page is read once, however many faults want it, until it leaves memory; it does not as long as somebody has it, or a token for it.
//! Lookups take no lock and, where the page is there, write nothing but its count.
//!
//! **Mechanism.** A tree of tables as for addresses, whose entries go from empty to *reading* to *here* by compare-exchange:
//!
//! ```text
//!            a fault's claim              the store
//!   empty ──────────────────▶ reading ───────────────▶ here ⇄ here, dirty
//!     ▲                          │ it failed
//!     └───── the first to see ◀──┘ unreadable
//! ```
//!
//! and from *here* to empty, by [`File::evict`], which takes all holds at once, if there are no others: until the entry is empty nobody gets
//! one, and who wants the page spins.

use crate::addr::{FrameId, PAGE};
use crate::frame::{self, Frame};
use crate::paging::{BITS, LEVELS};
use crate::platform::{Platform, Store, Transfer};
use crate::shared::place_of;
use crate::wait::{self, Token};
use alloc::sync::{Arc, Weak};
use core::fmt;
use core::mem::ManuallyDrop;
use core::ops::Deref;
use spile_rcu::RcuBox;
use spile_sync::atomic::{AtomicU64, Ordering};
use spile_sync::seeded;

const READING: u64 = 1;
const HERE: u64 = 2;
const DIRTY: u64 = 4;
const UNREADABLE: u64 = 8;
const FRAME_SHIFT: u32 = 12;
/// Owners of a page that nobody else has: its file, and who asks.
const HELD_BY_US: u32 = 2;

/// An open file that can be mapped. Clones are one opening: their mappings merge. Those of two openings do not, though they show the same pages.
pub struct File<P: Platform> {
    object: Arc<Object<P>>,
    opening: u64,
}

impl<P: Platform> Clone for File<P> {
    fn clone(&self) -> Self {
        Self { object: Arc::clone(&self.object), opening: self.opening }
    }
}

/// An open file that goes as if this were not.
pub struct WeakFile<P: Platform> {
    object: Weak<Object<P>>,
    opening: u64,
}

impl<P: Platform> WeakFile<P> {
    /// The file, if it is open still.
    pub fn upgrade(&self) -> Option<File<P>> {
        Some(File { object: self.object.upgrade()?, opening: self.opening })
    }
}

/// What is open. Its end runs the host's code, and is a release as any: with nothing held, whoever drops the last use, and whatever that holds.
struct Object<P: Platform>(ManuallyDrop<RcuBox<Contents<P>>>);

/// Pages in memory, contents from a store.
struct Contents<P: Platform> {
    p: P,
    /// None: it begins as zeros.
    store: Option<P::Store>,
    id: u64,
    root: FrameId,
    /// In bytes.
    len: AtomicU64,
}

/// What a file knows of a page.
pub(crate) enum Found<'m, P: Platform> {
    /// It is in memory. A hold on it.
    Here(Frame<'m, P>),
    /// It is being read.
    Reading(Token<'m, P>),
    /// The file ends before it.
    BeyondEnd,
    /// The store could not read it.
    Unreadable,
    /// There is no frame for it.
    NoMemory,
}

impl<P: Platform> File<P> {
    /// A file of `len` bytes whose contents come from `store`; none without a frame.
    pub fn new(p: P, store: P::Store, len: u64) -> Option<Self> {
        Self::with_store(p, Some(store), len)
    }

    /// A nameless object of `len` bytes that begins as zeros: what processes share that share anonymous memory.
    pub fn anonymous(p: P, len: u64) -> Option<Self> {
        Self::with_store(p, None, len)
    }

    fn with_store(p: P, store: Option<P::Store>, len: u64) -> Option<Self> {
        let root = frame::relieved(&p, P::alloc_table)?;
        let id = p.shared().number();
        let contents = RcuBox::new(Contents { p, store, id, root, len: AtomicU64::new(len) });
        Some(Self { object: Arc::new(Object(ManuallyDrop::new(contents))), opening: id })
    }

    /// The same file, opened once more.
    pub fn reopen(&self) -> Self {
        Self { object: Arc::clone(&self.object), opening: self.object.p.shared().number() }
    }

    /// Whether both are one opening of one file.
    pub fn is_same(&self, other: &Self) -> bool {
        self.opening == other.opening && self.id() == other.id()
    }

    /// The same opening, which does not keep it open.
    pub fn downgrade(&self) -> WeakFile<P> {
        WeakFile { object: Arc::downgrade(&self.object), opening: self.opening }
    }

    /// Its number, the same for each opening. Never reused.
    pub fn id(&self) -> u64 {
        self.object.id
    }

    /// The platform.
    pub fn platform(&self) -> &P {
        &self.object.p
    }

    /// Where its contents come from, if not from nowhere.
    pub fn store(&self) -> Option<&P::Store> {
        self.object.store.as_ref()
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        // Relaxed: who must not miss a change asks under a table's lock, after the page left the file.
        self.object.len.load(Ordering::Relaxed)
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lets the file be longer. What is added reads as the store says.
    pub fn extend(&self, len: u64) {
        self.object.len.fetch_max(len, Ordering::Relaxed);
    }

    /// How many pages there are: no more than its tables can tell apart.
    fn pages(&self) -> u64 {
        self.len().div_ceil(PAGE).min(1 << (BITS * LEVELS as u32))
    }

    /// The table and entry of `page`; linked, if `p` may allocate.
    fn slot(&self, page: u64, link: bool) -> Option<(FrameId, usize)> {
        let p = &self.object.p;
        let index = |level: usize| (page >> (BITS * level as u32)) as usize & ((1 << BITS) - 1);
        let mut table = self.object.root;
        for level in (1..LEVELS).rev() {
            table = match frame::table(p, table).load(index(level)) {
                0 if !link => return None,
                0 => self.link(table, index(level))?,
                raw => decode_frame(raw),
            };
        }
        Some((table, index(0)))
    }

    fn link(&self, parent: FrameId, i: usize) -> Option<FrameId> {
        let p = &self.object.p;
        let child = frame::relieved(p, P::alloc_table)?;
        match frame::table(p, parent).exchange(i, 0, encode_frame(child)) {
            Ok(()) => Some(child),
            Err(raw) => {
                // SAFETY: (1) just taken; (2) it did not get into the tree, (3) so nobody has found it.
                unsafe { p.free_table(child) };
                Some(decode_frame(raw))
            }
        }
    }

    /// `page`, its read begun if nobody has. Never sleeps.
    pub(crate) fn page<'m>(&self, p: &'m P, page: u64) -> Found<'m, P> {
        if page >= self.pages() {
            return Found::BeyondEnd;
        }
        let Some((table, i)) = self.slot(page, true) else { return Found::NoMemory };
        // Of who begins the read too: until the answer nobody takes the page away.
        let mut _begun = None;
        loop {
            // Before the entry is looked at, or its completion could be missed.
            let token = Token::for_thing(p, self.thing(page));
            let raw = frame::table(p, table).load(i);
            match raw & (READING | HERE | UNREADABLE) {
                0 => match self.begin(p, table, i, page) {
                    Ok(frame) => _begun = frame.filter(|_| !seeded!("read-for-nobody")),
                    Err(found) => return found,
                },
                UNREADABLE => {
                    if frame::table(p, table).exchange(i, raw, 0).is_ok() {
                        return Found::Unreadable;
                    }
                }
                state => {
                    let Some(frame) = self.hold(p, table, i, raw) else {
                        p.relax();
                        continue;
                    };
                    return if state == HERE { Found::Here(frame) } else { Found::Reading(token.holding(frame)) };
                }
            }
        }
    }

    /// A hold on the frame of entry `i`, if it is still `raw`.
    fn hold<'m>(&self, p: &'m P, table: FrameId, i: usize, raw: u64) -> Option<Frame<'m, P>> {
        let frame = Frame::try_share(p, decode_frame(raw))?;
        // The count went up, so the frame is some page's; it is this one's if the entry says so still.
        (frame::table(p, table).load(i) & !DIRTY == raw & !DIRTY).then_some(frame)
    }

    /// Claims the empty entry `i` and starts the read. A hold on its frame, if nobody was quicker.
    fn begin<'m>(&self, p: &'m P, table: FrameId, i: usize, page: u64) -> Result<Option<Frame<'m, P>>, Found<'m, P>> {
        let frame = Frame::alloc(p).ok_or(Found::NoMemory)?;
        let (id, files) = (frame.id(), Frame::share(p, frame.id()));
        if frame::table(p, table).exchange(i, 0, encode_frame(id) | READING).is_err() {
            return Ok(None);
        }
        // The file has its hold now.
        files.give();
        let read = match &self.object.store {
            // SAFETY: (1) the file's, and nobody touches what is being read.
            Some(store) => unsafe { store.start_read(self, page, id) },
            None => {
                // SAFETY: (1) as above.
                unsafe { p.zero(id) };
                Transfer::Done
            }
        };
        match read {
            Transfer::Done => self.end(page, true),
            Transfer::Failed => self.end(page, false),
            Transfer::Started => {}
        }
        Ok(Some(frame))
    }

    /// The read of `page` is over; its frame is filled, if `ok`. By anybody, in any state in which [`Machine::wake`](crate::Machine::wake)
    /// may be called.
    ///
    /// # Safety
    ///
    /// (1) The store began to read `page`, and answers or has answered [`Started`](Transfer::Started); (2) nobody else completes that read: a second
    /// call would end the next read of the page, if there is one; (3) the store does not use the frame any more.
    pub unsafe fn complete(&self, page: u64, ok: bool) {
        self.end(page, ok);
    }

    /// Shows the page that is being read, or gives it up. Nothing, if none is being read.
    fn end(&self, page: u64, ok: bool) {
        let (table, i) = self.slot(page, false).expect("a page that is being read has its entry");
        let raw = frame::table(&self.object.p, table).load(i);
        debug_assert_eq!(raw & (READING | HERE), READING, "a read that did not begin was completed");
        if raw & READING == 0 {
            return;
        }
        let done = if ok { raw & !READING | HERE } else { UNREADABLE };
        let changed = frame::table(&self.object.p, table).exchange(i, raw, done);
        debug_assert!(changed.is_ok(), "a page that is being read was changed");
        if changed.is_err() {
            return;
        }
        if !ok {
            frame::put(&self.object.p, decode_frame(raw));
        }
        wait::happened(&self.object.p, self.thing(page));
    }

    /// Where those wait who wait for `page`.
    fn thing(&self, page: u64) -> usize {
        place_of(&*self.object).wrapping_add((page as usize) << 4)
    }

    /// `page`, if it is in memory. A hold on it.
    pub(crate) fn cached<'m>(&self, p: &'m P, page: u64) -> Option<Frame<'m, P>> {
        if page >= self.pages() {
            return None;
        }
        let (table, i) = self.slot(page, false)?;
        let raw = frame::table(p, table).load(i);
        if raw & HERE == 0 { None } else { self.hold(p, table, i, raw) }
    }

    /// Whether `page` lies in the file and is `frame`. Asked under a table's lock (P1).
    pub(crate) fn still_has(&self, p: &P, page: u64, frame: FrameId) -> bool {
        let here = |(table, i)| {
            let raw = frame::table(p, table).load(i);
            raw & HERE != 0 && decode_frame(raw) == frame
        };
        page < self.pages() && self.slot(page, false).is_some_and(here)
    }

    /// `page`, which is in memory and about to be writable somewhere, differs from the store. The caller has a hold on its frame, or has locked an
    /// entry that has one: else it may have left, and nothing is noted.
    pub(crate) fn set_dirty(&self, p: &P, page: u64) {
        let Some((table, i)) = self.slot(page, false) else { return };
        loop {
            let raw = frame::table(p, table).load(i);
            if raw & HERE == 0 || raw & DIRTY != 0 || frame::table(p, table).exchange(i, raw, raw | DIRTY).is_ok() {
                return;
            }
        }
    }

    /// Takes `page` out of memory, if it is there, does not differ from the store, and nobody else has it: no entry of a page table, no fault
    /// that waits for it, no token. Whether it did. Never sleeps.
    pub fn evict(&self, page: u64) -> bool {
        let p = &self.object.p;
        let Some((table, i)) = self.slot(page, false) else { return false };
        let raw = frame::table(p, table).load(i);
        if raw & HERE == 0 || raw & DIRTY != 0 {
            return false;
        }
        // Now it is this page's, and will be.
        let Some(frame) = self.hold(p, table, i, raw) else { return false };
        let meta = frame::meta(p, frame.id());
        // Who looks meanwhile spins.
        let _pin = p.pin();
        if !meta.freeze(HELD_BY_US) && !seeded!("evict-what-is-held") {
            return false;
        }
        if frame::table(p, table).exchange(i, raw, 0).is_err() {
            // It is dirty.
            meta.thaw(HELD_BY_US);
            return false;
        }
        // SAFETY: (1) a page of the file's; (2) nobody has a hold, nor gets one.
        unsafe { p.free(frame.give()) };
        true
    }

    /// Whether `page` is in memory and differs from the store.
    pub fn is_dirty(&self, page: u64) -> bool {
        let dirty = |(table, i)| frame::table(&self.object.p, table).load(i) & DIRTY != 0;
        self.slot(page, false).is_some_and(dirty)
    }
}

impl<P: Platform> Deref for Object<P> {
    type Target = Contents<P>;

    #[inline]
    fn deref(&self) -> &Contents<P> {
        &self.0
    }
}

impl<P: Platform> Drop for Object<P> {
    fn drop(&mut self) {
        // SAFETY: (1) taken once, here.
        let contents = unsafe { ManuallyDrop::take(&mut self.0) };
        let rcu = contents.p.rcu().clone();
        contents.defer(&rcu);
    }
}

impl<P: Platform> Contents<P> {
    fn free_under(&self, table: FrameId, level: usize) {
        for i in 0..1 << BITS {
            let raw = frame::table(&self.p, table).load(i);
            if raw == 0 {
                continue;
            }
            if level > 0 {
                self.free_under(decode_frame(raw), level - 1);
            } else if raw & (HERE | READING) != 0 {
                frame::put(&self.p, decode_frame(raw));
            }
            let emptied = frame::table(&self.p, table).exchange(i, raw, 0);
            debug_assert!(emptied.is_ok(), "a dropped file has no users");
        }
        // SAFETY: (1) so were all of the tree; (2) and (3) the file is gone, and nobody else looks there.
        unsafe { self.p.free_table(table) };
    }
}

fn encode_frame(frame: FrameId) -> u64 {
    // Entries that lead to tables must not be 0 either.
    (u64::from(frame.0) << FRAME_SHIFT) | (1 << (FRAME_SHIFT - 1))
}

fn decode_frame(raw: u64) -> FrameId {
    FrameId((raw >> FRAME_SHIFT) as u32)
}

impl<P: Platform> Drop for Contents<P> {
    fn drop(&mut self) {
        self.free_under(self.root, LEVELS - 1);
    }
}

impl<P: Platform> fmt::Debug for File<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file{} of {} bytes", self.id(), self.len())
    }
}
