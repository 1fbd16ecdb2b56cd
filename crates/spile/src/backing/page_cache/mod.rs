//! A file's pages in memory.
//!
//! **Guarantee.** A page is read once, however many faults want it, until it leaves memory; it does not as long as somebody has it, or a token for it.
//! Lookups take no lock and, where the page is there, write nothing but its count.
//!
//! **Mechanism.** A tree of tables as for addresses, whose entries go from empty to *reading* to *here* by compare-exchange:
//!
//! ```text
//!            a fault's claim              the store          a write       being written
//!   empty ──────────────────▶ reading ───────────────▶ here ─────────▶ dirty ──────────▶ writing, and dirty again or not
//!     ▲                          │ it failed            ▲                ▲ it failed         │
//!     └───── the first to see ◀──┘ unreadable           └────────────────┴───────────────────┘ it is written
//!            (at once, if nobody had asked for it)
//! ```
//!
//! and from *here* to empty, by [`File::evict`], which marks the entry and then takes all holds at once, if there are no others: until the entry is empty nobody gets
//! one, and who wants the page spins. How pages are written is in `dirty`, how they are lost when the file becomes shorter in `cut`; and what is *away*, in a slot, because it
//! differs from nothing that is stored elsewhere, in `away`.

mod ahead;
mod away;
mod cut;
mod dirty;

pub use dirty::Unwritten;
pub(crate) use dirty::{Started, Write, Writes};

use crate::addr::{FrameId, PAGE};
use crate::backing::Window;
use crate::frame::{self, Frame};
use crate::paging::{BITS, LEVELS};
use crate::platform::{Platform, Store, Transfer};
use crate::reclaim::sealed::Reclaim;
use crate::shared::place_of;
use crate::wait::{self, Token};
use alloc::sync::{Arc, Weak};
use core::fmt;
use core::mem::ManuallyDrop;
use core::ops::{Deref, Range};
use spile_rcu::RcuBox;
use spile_sync::atomic::{AtomicU64, Ordering};
use spile_sync::seeded;

const READING: u64 = 1;
const HERE: u64 = 2;
const DIRTY: u64 = 4;
const UNREADABLE: u64 = 8;
/// The store writes it.
const WRITING: u64 = 16;
/// It is the file's no more: what a transfer that is under way has of it goes with that.
const LOST: u64 = 32;
/// Somebody takes it out of memory, if nobody has it.
const LEAVING: u64 = 64;
/// It is in a slot, whose number is where that of the frame would be.
const AWAY: u64 = 128;
/// What is being read was begun for nobody: if that fails, who wants it reads anew.
const AHEAD: u64 = 256;
const FRAME_SHIFT: u32 = 12;
/// What its tables can tell apart.
const MOST_PAGES: u64 = 1 << (BITS * LEVELS as u32);
/// Owners of a page that nobody else has: its file, and who asks.
const HELD_BY_US: u32 = 2;

/// An open file that can be mapped. Clones are one opening: their mappings merge. Those of two openings do not, though they show the same pages.
///
/// With the last clone, those of mappings and transfers included, the pages go, also those that differ from the store: a host keeps one as long as
/// [`dirty_pages`](Self::dirty_pages) tells of some that it wants, and flushes before it drops that.
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
    /// How many writes have failed.
    failed: AtomicU64,
    /// Of which page somebody was told last that it could not be read; above that, how often anybody was told of any.
    told: AtomicU64,
    /// How many pages are read where one is wanted.
    readahead: Window,
    /// Where its pages are shown.
    links: <P::Reclaim as Reclaim<P>>::Links,
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
    /// A file of `len` bytes whose contents come from `store`; none without a frame. May sleep, where pages can leave memory for it.
    pub fn new(p: P, store: P::Store, len: u64) -> Option<Self> {
        Self::with_store(p, Some(store), len)
    }

    /// A nameless object of `len` bytes that begins as zeros: what processes share that share anonymous memory. None without a frame; may sleep, as above.
    pub fn anonymous(p: P, len: u64) -> Option<Self> {
        Self::with_store(p, None, len)
    }

    fn with_store(p: P, store: Option<P::Store>, len: u64) -> Option<Self> {
        let root = wait::with_room(&p, || frame::relieved(&p, P::alloc_table))?;
        let id = p.shared().number();
        let none = || AtomicU64::new(0);
        let (len, failed, told, links) = (AtomicU64::new(len), none(), none(), Default::default());
        let readahead = Window::new();
        let contents = RcuBox::new(Contents { p, store, id, root, len, failed, told, readahead, links });
        let file = Self { object: Arc::new(Object(ManuallyDrop::new(contents))), opening: id };
        P::Reclaim::opened(file.platform(), &file);
        Some(file)
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

    /// Lets the file be longer. What is added reads as the store says, and in the page of the old end as zeros. Never sleeps.
    pub fn extend(&self, len: u64) {
        let was = self.len();
        if len > was {
            // Programs may have stored there.
            self.zero_tail(&self.object.p, was);
            self.object.len.fetch_max(len, Ordering::Relaxed);
        }
    }

    /// Where its pages are shown.
    pub(crate) fn links(&self) -> &<P::Reclaim as Reclaim<P>>::Links {
        &self.object.links
    }

    /// How many pages there are: no more than its tables can tell apart.
    fn pages(&self) -> u64 {
        self.len().div_ceil(PAGE).min(MOST_PAGES)
    }

    /// Changes the entry of `page` as `to` says, until it declines. What it was.
    fn change(&self, page: u64, to: impl Fn(u64) -> Option<u64>) -> Option<u64> {
        let (table, i) = self.slot(page, false)?;
        loop {
            let raw = frame::table(&self.object.p, table).load(i);
            if frame::table(&self.object.p, table).exchange(i, raw, to(raw)?).is_ok() {
                return Some(raw);
            }
        }
    }

    /// What the entry of `page` says.
    fn state(&self, page: u64) -> u64 {
        self.slot(page, false).map_or(0, |(table, i)| frame::table(&self.object.p, table).load(i))
    }

    /// Whether it has no such page.
    pub(crate) fn ends_before(&self, page: u64) -> bool {
        page >= self.pages()
    }

    /// The table and entry of `page`; linked, if `p` may allocate.
    fn slot(&self, page: u64, link: bool) -> Option<(FrameId, usize)> {
        let p = &self.object.p;
        if page >= MOST_PAGES {
            return None;
        }
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
        if self.ends_before(page) {
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
                // It goes when its transfer is over; then there may be another.
                _ if raw & LOST != 0 => return Found::Reading(token),
                0 if away::is_away::<P>(raw) => match self.fetch(p, page, raw) {
                    Some(found) => return found,
                    None => p.relax(),
                },
                0 => match self.begin(p, table, i, page, READING) {
                    // What was begun is lost if the file is shorter by now.
                    Ok(_) if self.ends_before(page) && !seeded!("read-again-beyond-the-end") => return Found::BeyondEnd,
                    Ok(frame) => _begun = frame.filter(|_| !seeded!("read-for-nobody")),
                    Err(found) => return found,
                },
                UNREADABLE => {
                    self.note_told(page);
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

    /// Somebody is about to be told that `page` could not be read.
    fn note_told(&self, page: u64) {
        let word = &self.object.told;
        let with = |old: u64| (old & !(MOST_PAGES - 1)).wrapping_add(MOST_PAGES) | page;
        // Relaxed, here and on failure: a guess.
        let mut old = word.load(Ordering::Relaxed);
        // AcqRel: it comes after the failure, and all that was told before; and before the change of the entry, which releases it to who finds another read there.
        while let Err(now) = word.compare_exchange(old, with(old), Ordering::AcqRel, Ordering::Relaxed) {
            old = now;
        }
    }

    /// What was told so far, for [`was_told`](Self::was_told): before a read is found under way.
    pub(crate) fn told(&self) -> u64 {
        // Acquire: what finds a read under way after this finds none whose failure was told before.
        self.object.told.load(Ordering::Acquire)
    }

    /// Whether somebody was told of `page` since. No, where of another one since that; or where it could not be found out yet by who has not looked at the entry after.
    pub(crate) fn was_told(&self, page: u64, since: u64) -> bool {
        // Relaxed: the entry's load came before, and acquired it.
        let told = self.object.told.load(Ordering::Relaxed);
        told != since && told & (MOST_PAGES - 1) == page
    }

    /// A hold on the frame of entry `i`, if it is still `raw`.
    fn hold<'m>(&self, p: &'m P, table: FrameId, i: usize, raw: u64) -> Option<Frame<'m, P>> {
        let frame = Frame::try_share(p, decode_frame(raw))?;
        // The count went up, so the frame is some page's; it is this one's if the entry says so still.
        let page = |raw: u64| raw & !(DIRTY | WRITING | LEAVING);
        (page(frame::table(p, table).load(i)) == page(raw)).then_some(frame)
    }

    /// Claims the empty entry `i`, which is in `state` then, and starts the read. A hold on its frame, if nobody was quicker.
    fn begin<'m>(&self, p: &'m P, table: FrameId, i: usize, page: u64, state: u64) -> Result<Option<Frame<'m, P>>, Found<'m, P>> {
        let frame = Frame::alloc(p).ok_or(Found::NoMemory)?;
        let (id, files) = (frame.id(), Frame::share(p, frame.id()));
        P::Reclaim::of_file(p, id, self.id(), page);
        if frame::table(p, table).exchange(i, 0, encode_frame(id) | state).is_err() {
            return Ok(None);
        }
        // The file has its hold now.
        files.give();
        self.lose_if_beyond_end(page);
        P::Reclaim::transfer_begins(p);
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

    /// The transfer of `page` is over: its frame is filled, or written, if `ok`. By anybody, in any state in which
    /// [`Machine::wake`](crate::Machine::wake) may be called.
    ///
    /// # Safety
    ///
    /// (1) The store began to read or write `page`, and answers or has answered [`Started`](Transfer::Started); (2) nobody else completes that: a second
    /// call would end the next transfer of the page, if there is one; (3) the store does not use the frame any more.
    pub unsafe fn complete(&self, page: u64, ok: bool) {
        if self.state(page) & READING != 0 { self.end(page, ok) } else { self.end_write(page, ok) }
    }

    /// Shows the page that is being read, or gives it up. Nothing, if none is being read.
    fn end(&self, page: u64, ok: bool) {
        let p = &self.object.p;
        let ended = self.change(page, |raw| match raw & (READING | LOST) {
            READING if ok => Some(raw & !(READING | AHEAD) | HERE),
            READING if raw & AHEAD != 0 && !seeded!("told-of-what-nobody-asked") => Some(0),
            READING => Some(UNREADABLE),
            0 | LOST => None,
            _ => Some(0),
        });
        debug_assert!(ended.is_some(), "a read that did not begin was completed");
        let Some(raw) = ended else { return };
        let frame = decode_frame(raw);
        let is_there = ok && raw & LOST == 0;
        if !is_there {
            frame::put(p, frame);
        }
        P::Reclaim::read_ends(p, is_there.then_some(frame));
        wait::happened(p, self.thing(page));
    }

    /// Where those wait who wait for `page`.
    fn thing(&self, page: u64) -> usize {
        place_of(&*self.object).wrapping_add((page as usize) << 4)
    }

    /// `page`, if it is in memory. A hold on it.
    pub(crate) fn cached<'m>(&self, p: &'m P, page: u64) -> Option<Frame<'m, P>> {
        if self.ends_before(page) {
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
        !self.ends_before(page) && self.slot(page, false).is_some_and(here)
    }

    /// How many pages are in memory, or are being read. Exact when nobody changes that.
    pub fn cached_pages(&self) -> u64 {
        let mut cached = 0;
        self.each_cached(0..u64::MAX, |_, raw| cached += u64::from(raw & (HERE | READING) != 0));
        cached
    }

    /// Calls `each` with every page of `pages` that is in memory, or away in a slot, ascending, and whether it differs from the store. A moment's truth of each. `each` is called
    /// with nothing locked.
    pub fn each_page(&self, pages: Range<u64>, mut each: impl FnMut(u64, bool)) {
        self.each_cached(pages, |page, raw| {
            if raw & HERE != 0 || away::is_away::<P>(raw) {
                each(page, raw & DIRTY != 0);
            }
        });
    }

    /// Calls `each` with the frame of every page of `pages` that is in memory, with nothing locked.
    pub(crate) fn each_frame(&self, pages: Range<u64>, mut each: impl FnMut(FrameId)) {
        self.each_cached(pages, |_, raw| {
            if raw & HERE != 0 {
                each(decode_frame(raw));
            }
        });
    }

    /// How many frames its tables have. Exact when nobody changes them.
    pub fn table_frames(&self) -> u64 {
        frame::tables_under(&self.object.p, self.object.root, LEVELS - 1, &decode_frame)
    }

    /// Takes `page` out of memory, if it is there, does not differ from the store, and nobody else has it: no entry of a page table, no fault
    /// that waits for it, no token. Whether it did. Never sleeps.
    pub fn evict(&self, page: u64) -> bool {
        let p = &self.object.p;
        let raw = self.state(page);
        let Some((table, i)) = self.slot(page, false).filter(|_| raw & (HERE | LOST) == HERE) else { return false };
        // Now it is this page's, and will be.
        let Some(frame) = self.hold(p, table, i, raw) else { return false };
        self.evict_held(p, page, frame)
    }

    /// The same, of a page that is in `frame`, on which the caller has a hold that it gives up.
    pub(crate) fn evict_held(&self, p: &P, page: u64, frame: Frame<'_, P>) -> bool {
        // Who wants the file's hold meanwhile spins.
        let _pin = p.pin();
        if !self.freeze(p, page, encode_frame(frame.id()) | HERE, HELD_BY_US) && !seeded!("evict-what-is-held") {
            return false;
        }
        self.change(page, |_| Some(0));
        // SAFETY: (1) a page of the file's; (2) nobody has a hold, nor gets one.
        unsafe { p.free(frame.give()) };
        true
    }

    /// Marks `page` as leaving, if its entry is `raw`, and takes all holds on its frame at once, if there are so many `owners`, of which the file is one: nobody gets
    /// one until the caller has changed the entry. Whether it did; if not, nothing is marked. Pinned.
    fn freeze(&self, p: &P, page: u64, raw: u64, owners: u32) -> bool {
        // First: as long as it is leaving, one of the holds is the file's. Of two others, who has one would give it up meanwhile.
        let claims = |now| (now == raw).then_some(raw | LEAVING);
        if !seeded!("leave-unclaimed") && self.change(page, claims).is_none() {
            // It was written, or is being written, or is another page's.
            return false;
        }
        let is_frozen = frame::meta(p, decode_frame(raw)).freeze(owners);
        if !is_frozen {
            self.change(page, |raw| Some(raw & !LEAVING));
        }
        is_frozen
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
            } else if away::is_away::<P>(raw) {
                P::Reclaim::give_up(&self.p, away::slot_of(raw));
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
        P::Reclaim::closed(&self.p, self.id);
        self.free_under(self.root, LEVELS - 1);
    }
}

impl<P: Platform> fmt::Debug for File<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file{} of {} bytes", self.id(), self.len())
    }
}
