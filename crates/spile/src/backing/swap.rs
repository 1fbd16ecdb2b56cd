//! Slots: where pages are for which there is no room.
//!
//! **Guarantee.** What is in a slot does not change as long as an entry, of a page table or of a file, says it. It is read once, however many faults want it. No
//! frame is given up whose contents the store has not got, and no slot is used anew while an entry, a transfer or an evictor has it.
//!
//! **Mechanism.** A word per slot: how many entries say it, the frame that has its contents, and what happens to it. All changes of the word
//! are compare-exchanges; there is no lock.
//!
//! ```text
//!            an evictor            entries are counted in          the store has it
//!   free ────────────────▶ claimed ─────────────────────▶ writing ─────────────────▶ here, stored ──▶ stored
//!     ▲                       │                              │ it has not                  ▲            │ a fault
//!     │ no entry, and nobody  │                              ▼                             │            ▼
//!     └── else is at it ◀─────┴────────────────────────── here ◀── an evictor, again       └──────── reading
//!                                                                                        (or unreadable, which the first to see takes away;
//!                                                                                        or stored, as before, if nobody had asked for it)
//! ```
//!
//! *Here* means that a frame has the contents, on which the slot has a hold: so nobody writes that frame, for a write to a page that has
//! another owner goes to a copy. This is what others call a swap cache.

use crate::addr::{FrameId, Slot};
use crate::frame::{self, Frame};
use crate::platform::{Platform, Transfer};
use crate::shared::place_of;
use crate::wait::{self, Token};
use alloc::boxed::Box;
use core::fmt;
use spile_sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use spile_sync::{order, seeded};

/// A frame has the contents.
const HERE: u64 = 1;
/// A frame is being filled with them.
const READING: u64 = 2;
/// They are being written.
const WRITING: u64 = 4;
/// An evictor is at it; or, with nothing else, it is about to be free.
const CLAIMED: u64 = 8;
/// The store could not read them.
const UNREADABLE: u64 = 16;
/// The store has them.
const STORED: u64 = 32;
/// What is being read was begun for nobody: if that fails, who wants it reads anew.
const AHEAD: u64 = 64;
/// Who has one of these sees to it that the slot is freed when it is over.
const BUSY: u64 = READING | WRITING | CLAIMED;
/// One entry.
const ENTRY: u64 = 1 << 8;
const FRAME_SHIFT: u32 = 32;
const ENTRIES: u64 = (1 << FRAME_SHIFT) - ENTRY;

/// Where the contents of slots are. Like all that a fault calls, it does not sleep.
pub trait SwapStore<P: Platform>: Send + Sync + 'static {
    /// Starts to write `frame` to `slot`. Nobody changes the frame until that is over.
    ///
    /// # Safety
    ///
    /// (1) `frame` is held until the store answers, or completes what it has started.
    unsafe fn start_write(&self, p: &P, slot: Slot, frame: FrameId) -> Transfer;

    /// Starts to read `slot`, to which something was written, into `frame`.
    ///
    /// # Safety
    ///
    /// (1) `frame` is the store's alone until it answers, or completes what it has started.
    unsafe fn start_read(&self, p: &P, slot: Slot, frame: FrameId) -> Transfer;

    /// What is in `slot`, if anything, is not wanted any more. Called under a table's lock, from within the completion of a transfer of that slot, and where the last
    /// clone of a file goes.
    fn discard(&self, slot: Slot);
}

/// Slots, and the store behind them.
pub struct SwapArea<S> {
    store: S,
    words: Box<[AtomicU64]>,
    /// Where to look for a free slot first: a hint.
    next: AtomicU32,
    /// Writes under way.
    flying: AtomicU32,
    /// Reads under way.
    landing: AtomicU32,
    /// No slot is free.
    full: AtomicBool,
}

/// What a fault finds in a slot.
pub enum InSlot<'p, P: Platform> {
    /// A hold on the frame that has the contents.
    Here(Frame<'p, P>),
    /// They are being read.
    Reading(Token<'p, P>),
    /// The store could not read them.
    Unreadable,
    /// There is no frame for them.
    NoMemory,
    /// No entry says the slot: so neither does the fault's.
    Gone,
}

/// What a transfer's end did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Completed {
    /// The page is written, and its frame free.
    Freed,
    /// The page is in memory: it was read, or somebody has it.
    Kept(FrameId),
    /// The same, because it could not be written.
    Failed(FrameId),
    /// It could not be read.
    Unread,
}

/// What became of a page that an evictor took to a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// Its frame is free.
    Gone,
    /// It is being written; the completion says more.
    Writing,
    /// It may be in use.
    Kept,
}

/// The right to a slot, of an evictor, or of who takes its page back. Having one tells you: the slot is this frame's, and nobody frees it, writes or reads it.
#[must_use = "it is to be finished"]
pub(crate) struct Claim<'p, S> {
    area: &'p SwapArea<S>,
    slot: Slot,
}

fn frame_of(raw: u64) -> FrameId {
    FrameId((raw >> FRAME_SHIFT) as u32)
}

fn without_frame(raw: u64) -> u64 {
    raw & ((ENTRY - 1) | ENTRIES)
}

/// `raw`, or if nobody has the slot any more, what it is while it is being freed.
fn settled(raw: u64) -> u64 {
    if raw & (ENTRIES | BUSY) == 0 { CLAIMED } else { raw }
}

impl<S> SwapArea<S> {
    /// So many free slots of `store`.
    pub fn new(store: S, slots: u32) -> Self {
        let words = (0..slots).map(|_| AtomicU64::new(0)).collect();
        Self {
            store,
            words,
            next: AtomicU32::new(0),
            flying: AtomicU32::new(0),
            landing: AtomicU32::new(0),
            full: AtomicBool::new(false),
        }
    }

    /// The store.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// How many slots there are.
    pub fn slots(&self) -> u32 {
        self.words.len() as u32
    }

    /// How many are in use. Exact when nobody uses them.
    pub fn used(&self) -> u32 {
        self.words.iter().filter(|word| word.load(Ordering::Relaxed) != 0).count() as u32
    }

    /// How many frames they have: of pages that are being read or written, or have been and not yet gone. Exact when nobody uses them.
    pub fn frames(&self) -> u32 {
        let has_frame = |word: &&AtomicU64| word.load(Ordering::Relaxed) & (HERE | READING) != 0;
        self.words.iter().filter(has_frame).count() as u32
    }

    /// How many writes are under way.
    pub fn writing(&self) -> u32 {
        // Acquire: whoever finds none finds what they were about too. (No model shows it: who looks for a frame after that meets the host's own
        // order of frees and allocations.)
        self.flying.load(Ordering::Acquire)
    }

    /// How many reads are under way: each has a frame, which can leave again.
    pub(crate) fn reading(&self) -> u32 {
        // Acquire: as above.
        self.landing.load(Ordering::Acquire)
    }

    fn word(&self, slot: Slot) -> &AtomicU64 {
        &self.words[slot.0 as usize]
    }

    fn load(&self, slot: Slot) -> u64 {
        // Acquire [slot-load]: who finds a frame finds its contents.
        self.word(slot).load(order!("slot-load", Acquire))
    }

    fn exchange(&self, slot: Slot, seen: u64, new: u64) -> bool {
        // Release [slot-update]: the contents come before the word that says so, and all use of a slot before its end. Acquire: who ends it
        // has seen that. Relaxed on failure: it is looked at again.
        self.word(slot).compare_exchange(seen, new, order!("slot-update", AcqRel), Ordering::Relaxed).is_ok()
    }

    /// Changes the word as `to` says, until it declines. What it was.
    fn change(&self, slot: Slot, to: impl Fn(u64) -> Option<u64>) -> Option<u64> {
        loop {
            let raw = self.load(slot);
            if self.exchange(slot, raw, to(raw)?) {
                return Some(raw);
            }
        }
    }

    /// Where those wait who wait for the end of some transfer.
    pub(crate) fn ends(&self) -> usize {
        place_of(&self.landing)
    }

    /// Where those wait who wait for `slot`.
    fn thing(&self, slot: Slot) -> usize {
        place_of(self.word(slot)).wrapping_add((slot.0 as usize) << 4)
    }

    /// Whether `frame` has the contents of `slot`, which an entry says. Asked under that entry's table's lock (P1).
    pub(crate) fn still_has(&self, slot: Slot, frame: FrameId) -> bool {
        let raw = self.load(slot);
        raw & HERE != 0 && frame_of(raw) == frame
    }

    /// As [`Reclaim::tell_unreadable`](crate::reclaim::sealed::Reclaim::tell_unreadable).
    pub(crate) fn tell_unreadable(&self, slot: Slot) -> bool {
        self.change(slot, |raw| (raw & UNREADABLE != 0).then_some(raw & !UNREADABLE)).is_some()
    }

    /// Whether one entry says `slot`, the caller's, whose table it has locked, and nothing is done with its contents: without that entry the slot
    /// will be free, and have no hold on the frame.
    pub(crate) fn is_last(&self, slot: Slot) -> bool {
        let others = if seeded!("sole-while-written") { ENTRIES } else { ENTRIES | BUSY };
        self.load(slot) & others == ENTRY
    }

    /// One entry more says `slot`, by somebody who has locked the table of another, or has a claim.
    pub(crate) fn share(&self, slot: Slot) {
        let shared = self.change(slot, |raw| (raw & ENTRIES != ENTRIES).then_some(raw + ENTRY));
        assert!(shared.is_some(), "entries of a slot were forgotten, and there can be no more");
    }
}

impl<S> SwapArea<S> {
    /// One entry less.
    pub(crate) fn give_up<P: Platform>(&self, p: &P, slot: Slot)
    where
        S: SwapStore<P>,
    {
        self.update(p, slot, |raw| {
            debug_assert!(raw & ENTRIES != 0, "nobody's slot was given up");
            if seeded!("slot-freed-in-use") { raw & !(ENTRIES | BUSY) } else { raw - ENTRY }
        });
    }

    /// Changes the word, and if nobody has the slot any more, frees it. What the word was.
    fn update<P: Platform>(&self, p: &P, slot: Slot, to: impl Fn(u64) -> u64) -> u64
    where
        S: SwapStore<P>,
    {
        let raw = self.change(slot, |raw| Some(settled(to(raw)))).unwrap_or(0);
        let end = to(raw);
        if settled(end) == CLAIMED {
            self.store.discard(slot);
            // Release: as in `exchange`.
            self.word(slot).store(0, Ordering::Release);
            // Release: pairs with `claim`.
            self.full.store(false, Ordering::Release);
            if end & HERE != 0 {
                frame::put(p, frame_of(end));
            }
        }
        raw
    }

    /// A free slot for the contents of `frame`, on which it gets a hold.
    pub(crate) fn claim<P: Platform>(&self, frame: &Frame<'_, P>, p: &P) -> Option<Claim<'_, S>> {
        if self.full.load(Ordering::Relaxed) {
            return None;
        }
        let free = self.take_free(frame.id()).or_else(|| {
            // AcqRel: a slot that was freed before this is said is found; one that is freed after unsays it.
            self.full.swap(true, Ordering::AcqRel);
            let free = self.take_free(frame.id())?;
            // Release: as where a slot is freed.
            self.full.store(false, Ordering::Release);
            Some(free)
        })?;
        Frame::share(p, frame.id()).give();
        Some(Claim { area: self, slot: free })
    }

    /// Any free slot, from now on `frame`'s.
    fn take_free(&self, frame: FrameId) -> Option<Slot> {
        let slots = self.slots();
        let first = self.next.load(Ordering::Relaxed);
        let mut all = (first..slots).chain(0..first.min(slots)).map(Slot);
        let claimed = u64::from(frame.0) << FRAME_SHIFT | HERE | CLAIMED;
        let free = all.find(|slot| self.load(*slot) == 0 && self.exchange(*slot, 0, claimed))?;
        self.next.store((free.0 + 1) % slots, Ordering::Relaxed);
        Some(free)
    }

    /// The slot that has the contents of `frame` already, if it is `slot` and nobody is at it. The caller has a hold on the frame.
    pub(crate) fn claim_again(&self, slot: Slot, frame: FrameId) -> Option<Claim<'_, S>> {
        let others = if seeded!("claim-what-is-written") { BUSY & !WRITING } else { BUSY };
        let is_its = |raw: u64| raw & (HERE | others) == HERE && frame_of(raw) == frame;
        self.words.get(slot.0 as usize)?;
        self.change(slot, |raw| is_its(raw).then_some(raw | CLAIMED))?;
        Some(Claim { area: self, slot })
    }

    /// The entry that says `slot` has `frame` instead, on which the caller has a hold, if that has the contents, nobody else is at them, and the entry `takes` it. Whether it
    /// has; or until when somebody is at it.
    #[cfg(feature = "file")]
    pub(crate) fn take<'p, P: Platform>(
        &self,
        p: &'p P,
        slot: Slot,
        frame: FrameId,
        takes: impl FnOnce() -> bool,
    ) -> Result<bool, Token<'p, P>>
    where
        S: SwapStore<P>,
    {
        // Before the word is looked at, or the end could be missed.
        let token = Token::for_thing(p, self.thing(slot));
        let Some(claim) = self.claim_again(slot, frame) else {
            let raw = self.load(slot);
            // Else it is about to be free, of which nobody is told, or read into another frame.
            let is_its = raw & HERE != 0 && frame_of(raw) == frame;
            return if raw & BUSY != 0 && is_its { Err(token) } else { Ok(false) };
        };
        let taken = takes();
        self.update(p, slot, |raw| (raw & !CLAIMED) - if taken { ENTRY } else { 0 });
        claim.ends(p);
        Ok(taken)
    }

    /// The contents of `slot`, which an entry said a moment ago: their read begun if nobody has. `begins` is told of the new frame before anybody
    /// else is. Never sleeps.
    pub(crate) fn find<'p, P: Platform>(&self, p: &'p P, slot: Slot, begins: impl Fn(FrameId)) -> InSlot<'p, P>
    where
        S: SwapStore<P>,
    {
        // Of who begins the read too: until the answer nobody takes the page away.
        let mut _begun = None;
        loop {
            // Before the word is looked at, or the completion could be missed.
            let token = Token::for_thing(p, self.thing(slot));
            let raw = self.load(slot);
            if raw & ENTRIES == 0 {
                return InSlot::Gone;
            }
            if raw & (HERE | READING) != 0 {
                let Some(frame) = self.hold(p, slot, raw) else {
                    p.relax();
                    continue;
                };
                let token = if seeded!("moment-after-the-look") { Token::for_thing(p, self.thing(slot)) } else { token };
                return if raw & HERE != 0 { InSlot::Here(frame) } else { InSlot::Reading(token.holding(frame)) };
            }
            if raw & UNREADABLE != 0 {
                return InSlot::Unreadable;
            }
            match self.begin(p, slot, raw, READING, &begins) {
                Some(frame) => _begun = frame,
                None => return InSlot::NoMemory,
            }
        }
    }

    /// Starts to read `slot`, if an entry says it, it is away, and there is a frame. Nobody waits for it.
    pub(crate) fn read_ahead<P: Platform>(&self, p: &P, slot: Slot, begins: impl Fn(FrameId))
    where
        S: SwapStore<P>,
    {
        let raw = self.load(slot);
        let is_away = raw & (HERE | UNREADABLE | BUSY) == 0 && (raw & ENTRIES != 0 || seeded!("read-ahead-what-is-free"));
        if is_away {
            self.begin(p, slot, raw, READING | AHEAD, &begins);
        }
    }

    /// A hold on the frame of `slot`, if its word is still about `raw`'s.
    fn hold<'p, P: Platform>(&self, p: &'p P, slot: Slot, raw: u64) -> Option<Frame<'p, P>> {
        let frame = Frame::try_share(p, frame_of(raw))?;
        let now = self.load(slot);
        let is_same = now & (HERE | READING) == raw & (HERE | READING) && frame_of(now) == frame_of(raw);
        is_same.then_some(frame)
    }

    /// Starts to read `slot`, which is in `state` then, if its word is still `raw`; none without a frame.
    fn begin<'p, P: Platform>(
        &self,
        p: &'p P,
        slot: Slot,
        raw: u64,
        state: u64,
        begins: &impl Fn(FrameId),
    ) -> Option<Option<Frame<'p, P>>>
    where
        S: SwapStore<P>,
    {
        let frame = Frame::alloc(p)?;
        let slots = Frame::share(p, frame.id());
        begins(frame.id());
        let reading = without_frame(raw) | u64::from(frame.id().0) << FRAME_SHIFT | state;
        if !self.exchange(slot, raw, reading) {
            return Some(None);
        }
        // Relaxed: a number; who finds it not raised yet looks again.
        self.landing.fetch_add(1, Ordering::Relaxed);
        // SAFETY: (1) the slot's, and nobody touches what is being read.
        let read = unsafe { self.store.start_read(p, slot, slots.give()) };
        if read != Transfer::Started {
            self.complete(p, slot, read == Transfer::Done);
            // Who wants a frame may have seen that it was under way, and its page can leave now. (Of what was started the reclaimer tells.)
            if !seeded!("read-at-once-in-silence") && !seeded!("read-without-a-word") {
                wait::happened(p, self.ends());
            }
        }
        Some(Some(frame))
    }

    /// The transfer of `slot` is over.
    pub(crate) fn complete<P: Platform>(&self, p: &P, slot: Slot, ok: bool) -> Completed
    where
        S: SwapStore<P>,
    {
        let raw = self.load(slot);
        debug_assert!(raw & (READING | WRITING) != 0, "a transfer that did not begin was completed");
        let completed = if raw & READING != 0 { self.was_read(p, slot, ok) } else { self.was_written(p, slot, ok) };
        if !seeded!("read-without-a-word") {
            wait::happened(p, self.thing(slot));
        }
        completed
    }

    fn was_read<P: Platform>(&self, p: &P, slot: Slot, ok: bool) -> Completed
    where
        S: SwapStore<P>,
    {
        let raw = self.update(p, slot, |raw| {
            let is_ahead = raw & AHEAD != 0 && !seeded!("told-of-what-nobody-asked");
            let raw = raw & !(READING | AHEAD);
            match ok {
                true => raw | HERE | STORED,
                false => without_frame(raw) | if is_ahead { 0 } else { UNREADABLE },
            }
        });
        if !ok {
            frame::put(p, frame_of(raw));
        }
        // Release: see `reading`.
        self.landing.fetch_sub(1, Ordering::Release);
        if ok { Completed::Kept(frame_of(raw)) } else { Completed::Unread }
    }

    fn was_written<P: Platform>(&self, p: &P, slot: Slot, ok: bool) -> Completed
    where
        S: SwapStore<P>,
    {
        let stored = if ok { STORED } else { 0 };
        let frame = frame_of(self.update(p, slot, |raw| raw & !WRITING | stored));
        let completed = match ok && self.strip(p, slot, frame) {
            true => Completed::Freed,
            // Some entry may show it, also where none says the slot any more.
            false if ok => Completed::Kept(frame),
            false => Completed::Failed(frame),
        };
        // Release: see `writing`.
        self.flying.fetch_sub(1, Ordering::Release);
        completed
    }

    /// Gives up the frame of `slot`, if that is still `frame`, stored, nobody is at it, and nobody else has it. Whether it did.
    ///
    /// Somebody may get a hold on it in between. A fault then finds, under its table's lock, that the slot has it no more.
    fn strip<P: Platform>(&self, p: &P, slot: Slot, frame: FrameId) -> bool {
        let is_so = |raw: u64| raw & (HERE | STORED | BUSY) == HERE | STORED && frame_of(raw) == frame;
        let is_alone = || frame::meta(p, frame).refs() == 1 || seeded!("forget-what-is-held");
        let stripped = self.change(slot, |raw| (is_so(raw) && is_alone()).then(|| without_frame(raw) & !HERE));
        if stripped.is_some() {
            frame::put(p, frame);
        }
        stripped.is_some()
    }
}

impl<S> Claim<'_, S> {
    /// The slot.
    pub(crate) fn slot(&self) -> Slot {
        self.slot
    }

    /// No CPU writes the frame any more, and what entries there were say the slot: writes it, or gives the slot up. `held` is the evictor's own hold.
    pub(crate) fn finish<P: Platform>(self, p: &P, held: Frame<'_, P>) -> Left
    where
        S: SwapStore<P>,
    {
        let (area, slot, frame) = (self.area, self.slot, held.id());
        let is_to_write = |raw: u64| raw & ENTRIES != 0 && raw & STORED == 0;
        let raw = area.update(p, slot, |raw| raw & !CLAIMED | if is_to_write(raw) { WRITING } else { 0 });
        drop(held);
        if !is_to_write(raw) {
            self.ends(p);
            let is_free = raw & ENTRIES != 0 && area.strip(p, slot, frame);
            return if is_free { Left::Gone } else { Left::Kept };
        }
        area.flying.fetch_add(1, Ordering::Relaxed);
        // SAFETY: (1) the slot's hold.
        match unsafe { area.store.start_write(p, slot, frame) } {
            Transfer::Started => Left::Writing,
            done => match area.complete(p, slot, done == Transfer::Done) {
                Completed::Freed => Left::Gone,
                _ => Left::Kept,
            },
        }
    }

    /// Gives the slot up, unless entries say it, with which it stays as it is.
    pub(crate) fn cancel<P: Platform>(self, p: &P)
    where
        S: SwapStore<P>,
    {
        self.area.update(p, self.slot, |raw| raw & !CLAIMED);
        self.ends(p);
    }

    /// Tells those who wait until nobody is at the slot. (A write tells them when it ends.)
    fn ends<P: Platform>(self, p: &P) {
        if !seeded!("claim-ends-without-a-word") {
            wait::happened(p, self.area.thing(self.slot));
        }
    }
}

impl<S> fmt::Debug for SwapArea<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} slots in use", self.used(), self.slots())
    }
}
