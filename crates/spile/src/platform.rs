//! What a platform supplies.
//!
//! **Guarantee.** These traits are all that the core asks of a host: a kernel, a process that pages its own memory, a simulator.
//! There is no global state and no other way out of the core.
//!
//! **Mechanism.** Six traits, cut by what the core needs. One type implements them all, usually a handle (a reference, an `Arc`,
//! or nothing at all) that is cheap to clone:
//!
//! | trait | answers |
//! |---|---|
//! | [`Frames`] | where pages come from, and what is in them |
//! | [`Mmu`] | what an entry of a page table looks like, and how other CPUs are told that it changed |
//! | [`Machine`] | how to spin, how to sleep, how not to be interrupted |
//! | [`Store`] | where the contents of files come from; `()` where there are no files |
//! | [`Reclaim`] | what becomes of pages for which there is no room; `()`: nothing |
//! | [`Platform`] | the five together, with the RCU domain and the core's own [`Shared`] state |
//!
//! In which state each may be called: a **fault** may run with interrupts off, on a stack that cannot sleep, and may have interrupted
//! anything but a holder of [`Machine::pin`]. A **verb** (map, unmap, fork, …) may sleep, and holds no lock of the caller's that
//! a fault wants.
//!
//! | call | from a fault | from a verb | under a table lock | may sleep | may allocate |
//! |---|---|---|---|---|---|
//! | all of [`Frames`] | yes | yes | `free`, `meta`, `read`, `write`, `copy` | no | frames only |
//! | `Mmu::encode`, `decode`, `admit`, `admit_around`, `commit`, `leave` | yes | yes | yes, always | no | no |
//! | `Mmu::issue`, `dispatch`, `acked` | yes | yes | when an entry's frame is replaced | no | no |
//! | `Machine::pin`, `relax` | yes | yes | yes | no | no |
//! | `Machine::sleep` | **no** | yes | never | yes | no |
//! | `Machine::wake` | yes | yes | never | no | no |
//! | `Store::start_read` | yes | yes | never | no | the store's business |
//! | `SwapStore::start_read`, `start_write` | yes | yes | never | no | no frames |
//! | `SwapStore::discard` | yes | yes | yes | no | no |

use crate::addr::{FrameId, PAGE, Range, Slot, SpaceId};
use crate::paging::{Format, Pte, Table, TableLock};
use crate::reclaim::Reclaim;
use crate::shared::Shared;
use spile_rcu::Rcu;
use spile_sync::atomic::{AtomicU32, Ordering};
use spile_sync::order;

/// The host of the core: the other traits, an RCU domain, and a place for what all its address spaces share.
pub trait Platform: Frames + Mmu + Machine + Clone + Send + Sync + 'static {
    /// The RCU domain: a handle that is cheap to clone.
    type Rcu: Rcu + Clone + Send + Sync + 'static;
    /// Where file contents come from.
    type Store: Store<Self>;
    /// What becomes of pages for which there is no room: `()`, nothing; or [`ToSwap`](crate::reclaim::ToSwap).
    type Reclaim: Reclaim<Self>;

    /// The domain of this platform's readers.
    fn rcu(&self) -> &Self::Rcu;

    /// The one [`Shared`] of this platform. Always the same.
    fn shared(&self) -> &Shared;
}

/// Where pages come from, and what is in them.
///
/// # Safety
///
/// An implementor owes: (1) a frame that [`alloc`](Self::alloc) gave is nobody else's until [`free`](Self::free); (2)
/// [`meta`](Self::meta) is the same for a frame always, and stays valid for ever; (3) [`table`](Self::table) is the memory of that
/// frame, and it and [`page`](Self::page) stay valid, if meaningless, after the frame was freed, until the grace periods of all sections that began before
/// are over; (4) where it is a [`Platform`], its clones are the same host, and no other host has the same [`Shared`].
pub unsafe trait Frames {
    /// A frame with unspecified contents, or none. Never sleeps, never waits.
    fn alloc(&self) -> Option<FrameId>;

    /// Takes a frame back. Its count is zero.
    ///
    /// # Safety
    ///
    /// (1) [`alloc`](Self::alloc) gave it; (2) it is the caller's alone, who does not use it any more.
    unsafe fn free(&self, frame: FrameId);

    /// What the core keeps per frame.
    ///
    /// # Safety
    ///
    /// (1) There is such a frame: `alloc` or [`alloc_table`](Self::alloc_table) gave it at some time, or it is the zero frame.
    unsafe fn meta(&self, frame: FrameId) -> &FrameMeta;

    /// Where the frame's bytes are, aligned to a page. Null if they are not in reach always: then the four below and
    /// [`table`](Self::table) are the host's own. A number that is no frame's is answered anyhow, or panics.
    fn page(&self, frame: FrameId) -> *mut u8;

    /// Fills a frame with zeros.
    ///
    /// # Safety
    ///
    /// (1) It is the caller's alone.
    unsafe fn zero(&self, frame: FrameId) {
        // SAFETY: (1) a page of the host's, and the caller's alone.
        unsafe { self.page(frame).write_bytes(0, PAGE as usize) };
    }

    /// Copies a page.
    ///
    /// # Safety
    ///
    /// (1) The caller has a hold on `from`; (2) `to` is another frame, and the caller's alone.
    unsafe fn copy(&self, from: FrameId, to: FrameId) {
        // SAFETY: (1) two pages of the host's, and two frames; (2) the target is the caller's alone, the source may be written by a
        // program meanwhile, as any memory that is shared with one.
        unsafe { self.page(to).copy_from_nonoverlapping(self.page(from), PAGE as usize) };
    }

    /// Copies bytes out, from `offset` on.
    ///
    /// # Panics
    ///
    /// If they are not all in the page.
    ///
    /// # Safety
    ///
    /// (1) The caller has a hold on the frame; (2) nobody but a program writes it meanwhile.
    unsafe fn read(&self, frame: FrameId, offset: usize, into: &mut [u8]) {
        assert!(is_within(offset, into.len()), "within a page");
        // SAFETY: (1) within a page of the host's, which is held; (2) the bytes are nobody's in particular.
        unsafe { self.page(frame).add(offset).copy_to_nonoverlapping(into.as_mut_ptr(), into.len()) };
    }

    /// Copies bytes in, from `offset` on.
    ///
    /// # Panics
    ///
    /// If they are not all in the page.
    ///
    /// # Safety
    ///
    /// (1) The frame is the caller's alone; or it holds a program's page, and writes what the program may.
    unsafe fn write(&self, frame: FrameId, offset: usize, from: &[u8]) {
        assert!(is_within(offset, from.len()), "within a page");
        // SAFETY: (1) within a page of the host's, which the caller may write.
        unsafe { self.page(frame).add(offset).copy_from_nonoverlapping(from.as_ptr(), from.len()) };
    }

    /// The frame that every read of untouched anonymous memory sees. It is full of zeros, never written, and never freed.
    fn zero_frame(&self) -> FrameId;

    /// A frame whose [`table`](Self::table) is empty: from a reserve per CPU, where the platform keeps one, so that a fault
    /// rarely has to zero a page for a table. Never sleeps.
    fn alloc_table(&self) -> Option<FrameId> {
        let frame = self.alloc()?;
        // SAFETY: (1) it was just given, to become a table.
        unsafe { self.table(frame).clear() };
        Some(frame)
    }

    /// Takes a table's frame back. All its entries are empty.
    ///
    /// # Safety
    ///
    /// (1) [`alloc_table`](Self::alloc_table) gave it; (2) it is in no tree; (3) nobody finds it any more, walks that may have found it are over.
    unsafe fn free_table(&self, frame: FrameId) {
        // SAFETY: (1) as provided, `alloc` gave it; (2) the caller's alone, as it says.
        unsafe { self.free(frame) };
    }

    /// The frame as a table.
    ///
    /// # Safety
    ///
    /// (1) It is one that [`alloc_table`](Self::alloc_table) gave, for as long as the reference is used; or it was found by an MMU's walk, and
    /// every CPU has been told of its free only after the walk.
    unsafe fn table(&self, frame: FrameId) -> &Table {
        #[cfg(not(any(loom, feature = "sched")))]
        const {
            assert!(size_of::<Table>() == PAGE as usize, "a table fills a page")
        };
        // SAFETY: (1) a page of the host's, aligned, and as large as a table; (2) any bytes are a table, and it is atomics; (3) it stays one as
        // long as the caller says.
        unsafe { &*self.page(frame).cast() }
    }
}

fn is_within(offset: usize, len: usize) -> bool {
    offset <= PAGE as usize && len <= PAGE as usize - offset
}

/// What the core keeps per frame. A platform has one for each, zeroed by [`FrameMeta::new`], at the same place for ever.
#[derive(Debug)]
pub struct FrameMeta {
    /// How many page table entries, page caches, tokens and callers hold the frame. None hold a table: whoever finds its number where
    /// a page of a file was must not get hold of it.
    refs: AtomicU32,
    /// The lock and state of a frame that is a table.
    pub(crate) table: TableLock,
}

#[cold]
fn forgotten() -> ! {
    panic!("holds on a frame were forgotten, and there can be no more");
}

impl FrameMeta {
    /// Of a free frame.
    #[cfg(not(loom))]
    #[allow(clippy::new_without_default, reason = "loom's is not const")]
    pub const fn new() -> Self {
        Self { refs: AtomicU32::new(0), table: TableLock::new() }
    }

    /// Of a free frame.
    #[cfg(loom)]
    #[allow(clippy::new_without_default, reason = "as above")]
    pub fn new() -> Self {
        Self { refs: AtomicU32::new(0), table: TableLock::new() }
    }

    /// How many hold the frame. A moment's truth.
    pub fn refs(&self) -> u32 {
        // Acquire [frame-sole]: whoever finds itself the sole owner has seen the others' last accesses.
        self.refs.load(order!("frame-sole", Acquire))
    }

    /// A new frame has its first owner.
    pub(crate) fn first(&self) {
        debug_assert_eq!(self.refs.load(Ordering::Relaxed), 0, "a free frame has no owner");
        // Release: who still knows the frame from what it was before, and gets a hold by `try_get`, sees that it is no longer that. (No
        // model shows it: in none a page that left its file is another's while somebody still looks for it.)
        self.refs.store(1, Ordering::Release);
    }

    /// So many owners that some must have forgotten their holds.
    const TOO_MANY: u32 = 1 << 31;

    /// One owner more, by somebody who is or holds one.
    ///
    /// # Panics
    ///
    /// If there are too many: before the count comes round, and the frame is freed under them.
    pub(crate) fn get(&self) {
        // Relaxed: the caller's own hold keeps the frame.
        let before = self.refs.fetch_add(1, Ordering::Relaxed);
        debug_assert_ne!(before, 0, "a free frame was taken");
        if before >= Self::TOO_MANY {
            // Relaxed: as above.
            self.refs.fetch_sub(1, Ordering::Relaxed);
            forgotten();
        }
    }

    /// One owner more, unless there is none.
    ///
    /// # Panics
    ///
    /// As [`get`](Self::get).
    pub(crate) fn try_get(&self) -> bool {
        // Relaxed: who finds no owner looks again for what led him here, with a pause, until that is gone.
        let mut refs = self.refs.load(Ordering::Relaxed);
        while refs != 0 {
            if refs >= Self::TOO_MANY {
                forgotten();
            }
            // Acquire: the same of a frame that has a new owner; pairs with `first`. Relaxed on failure: it is looked for again.
            match self.refs.compare_exchange(refs, refs + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => refs = now,
            }
        }
        false
    }

    /// No owner instead of so many, who are the caller's and gone by that. False if there are others.
    #[cfg(feature = "file")]
    pub(crate) fn freeze(&self, owners: u32) -> bool {
        // AcqRel: accesses of earlier owners come before the free, as in `put`. Relaxed on failure: nothing is done.
        self.refs.compare_exchange(owners, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// So many owners again, where the caller has [frozen](Self::freeze) all.
    #[cfg(feature = "file")]
    pub(crate) fn thaw(&self, owners: u32) {
        // Release: pairs with `try_get`: who gets a hold now comes after what the owners did whose holds were taken. (No model shows it: he has also loaded the
        // word of a slot that was changed in between.)
        self.refs.store(owners, Ordering::Release);
    }

    /// One owner less. True for the last.
    pub(crate) fn put(&self) -> bool {
        // Release [frame-put], Acquire [frame-put]: accesses of all owners come before the free.
        let before = self.refs.fetch_sub(1, order!("frame-put", AcqRel));
        debug_assert_ne!(before, 0, "a free frame was freed");
        before == 1
    }
}

/// What an entry of a page table looks like, and how other CPUs are told that it changed.
///
/// What is provided is x86-64's format, and does nothing about translation caches; a host whose MMU reads the core's tables says its own
/// [`Format`] if that differs, and always flushes. A host whose tables are elsewhere (a process, whose are the kernel's) keeps the format and
/// overrides [`commit`](Self::commit).
///
/// An entry must let pass what [`Access::allowed_by`](crate::Access::allowed_by) says of its permission: the core answers a fault at one
/// that should have passed with `Spurious`, and the access would fault for ever. So where accessed and dirty bits are set by a
/// trap, the trap's handler sets them ([`Table::mark`]) before it asks the core.
///
/// # Safety
///
/// An implementor owes: (1) `decode(encode(x)) == Some(x)`, up to the bits that hardware sets, the same of slots, none of which is taken for a
/// page's entry, and an empty entry is 0: where nothing of the format is overridden, [`Format`] sees to that; (2) once [`acked`](Self::acked) is true of a flush, no CPU uses a translation that was read
/// from the range before the flush was issued.
pub unsafe trait Mmu {
    /// A flush under way. `()` where it is done at once.
    type Flush;

    /// Where the parts of an entry are. The four below go by it, and a format that bits do not describe overrides them.
    const FORMAT: Format = Format::X86_64;

    /// The bits of an entry.
    fn encode(&self, pte: Pte) -> u64 {
        const { assert!(Self::FORMAT.is_sound(), "parts of the format overlap or are missing") };
        Self::FORMAT.encode(pte)
    }

    /// The meaning of an entry's bits, unless its page is away ([`decode_slot`](Self::decode_slot)).
    fn decode(&self, raw: u64) -> Option<Pte> {
        Self::FORMAT.decode(raw)
    }

    /// The bits of an entry whose page is away: not 0, and nothing passes.
    fn encode_slot(&self, slot: Slot) -> u64 {
        Self::FORMAT.encode_slot(slot)
    }

    /// Where the page of an entry is, if it is away. Asked before [`decode`](Self::decode), on hosts where pages go away.
    fn decode_slot(&self, raw: u64) -> Option<Slot> {
        Self::FORMAT.decode_slot(raw)
    }

    /// The bits of an entry that leads to a lower table.
    fn encode_table(&self, table: FrameId) -> u64 {
        Self::FORMAT.encode_table(table)
    }

    /// The lower table that an entry leads to.
    fn decode_table(&self, raw: u64) -> FrameId {
        Self::FORMAT.decode_table(raw)
    }

    /// Asked under the table's lock before a fault fills an entry or lets it pass more: where the tables that count are not the core's,
    /// this is when they change. As provided it is [`commit`](Self::commit), and refuses nothing.
    ///
    /// # Errors
    ///
    /// [`Refused`]; nothing changed, and the fault is told.
    ///
    /// # Safety
    ///
    /// (1) The caller is about to change the entry of `at` in the core's tables of `space`, and has locked the table; (2) that entry changes
    /// from `old` to `new`, whose frames it keeps until the call is over.
    unsafe fn admit(&self, space: SpaceId, at: u64, old: Option<Pte>, new: Pte) -> Result<(), Refused> {
        // SAFETY: (1) and (2) the caller says the same.
        unsafe { self.commit(space, at, old, Some(new)) };
        Ok(())
    }

    /// The same of pages that nobody asked for, at addresses that ascend, all in one table, whose entries are empty: how many of them, from the first on, may be shown. The others
    /// are left out. As provided each is asked for alone.
    ///
    /// # Safety
    ///
    /// As [`admit`](Self::admit), of each.
    unsafe fn admit_around(&self, space: SpaceId, pages: &[(u64, Pte)]) -> usize {
        // SAFETY: (1) and (2) the caller says the same.
        pages.iter().take_while(|(at, new)| unsafe { self.admit(space, *at, None, *new) }.is_ok()).count()
    }

    /// Called under the table's lock for every other change of the entry of `at`, after it was emptied and before it is filled or
    /// passes less. Cannot fail.
    ///
    /// # Safety
    ///
    /// As [`admit`](Self::admit).
    unsafe fn commit(&self, _space: SpaceId, _at: u64, _old: Option<Pte>, _new: Option<Pte>) {}

    /// Called instead, after the entry of `at` was emptied by an evictor: nobody wants the page of `old`, so far. As provided it is [`commit`](Self::commit), and refuses nothing. A host whose
    /// tables are elsewhere may leave the page where it is, if nobody can write it there, until its frame is [freed](Frames::free) or shown again: what is read of it meanwhile
    /// might have been read before. Where a page of a file is shown at several addresses it might not: what is written at one is read at the others.
    ///
    /// # Errors
    ///
    /// [`Refused`]: somebody besides the program has the page, and may write it; nothing changed, and it stays.
    ///
    /// # Safety
    ///
    /// As [`admit`](Self::admit).
    unsafe fn leave(&self, space: SpaceId, at: u64, old: Pte) -> Result<(), Refused> {
        // SAFETY: (1) and (2) the caller says the same.
        unsafe { self.commit(space, at, Some(old), None) };
        Ok(())
    }

    /// Called instead, before an entry passes no writes any more because its page is about to be written back. As provided it is [`commit`](Self::commit), and refuses nothing.
    ///
    /// # Errors
    ///
    /// [`Refused`]: somebody writes the page there who may not fault. Nothing changed: it stays writable, and dirty, and what is written back is what it is by then.
    ///
    /// # Safety
    ///
    /// As [`admit`](Self::admit).
    unsafe fn clean(&self, space: SpaceId, at: u64, old: Pte, new: Pte) -> Result<(), Refused> {
        // SAFETY: (1) and (2) the caller says the same.
        unsafe { self.commit(space, at, Some(old), Some(new)) };
        Ok(())
    }

    /// Begins to make every CPU forget its translations of `range`: flushes this one, notes it for the others.
    fn issue(&self, space: SpaceId, range: Range) -> Self::Flush;

    /// Asks the other CPUs, without waiting for them.
    fn dispatch(&self, _flush: &mut Self::Flush) {}

    /// Whether they have all done it. The core calls [`Machine::relax`] in between.
    fn acked(&self, _flush: &mut Self::Flush) -> bool {
        true
    }

    /// Address space `space` is gone: no CPU runs in it, and its number will not be used again.
    ///
    /// # Safety
    ///
    /// (1) It is so.
    unsafe fn retire(&self, _space: SpaceId) {}
}

/// Why a host did not [`admit`](Mmu::admit) an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Somebody else is at it: the fault starts again.
    Busy,
    /// It has no memory for it.
    NoMemory,
}

/// How to spin, how to sleep, and how not to be interrupted.
pub trait Machine {
    /// A promise not to be preempted, migrated or interrupted by something that faults. `()` where nothing is below the core
    /// that could. The core holds one while it has a table lock.
    type Pin;

    /// Makes the promise; its drop ends it. Nests: pins of one CPU end in the reverse order of their beginning, so that each may put back
    /// what it found.
    fn pin(&self) -> Self::Pin;

    /// Where the caller runs: a small number, of the CPU or of the thread. A hint, by which is kept apart what others would share; a wrong
    /// one costs time and nothing else.
    fn cpu(&self) -> usize {
        0
    }

    /// Called in each round of each spinning loop. Must serve pending flush requests of other CPUs, which may wait for this one
    /// while they hold what it spins for. What is provided serves none, so it does only where no other CPU is waited for: who overrides
    /// [`Mmu::acked`] overrides this too.
    fn relax(&self) {
        spile_sync::hint::spin_loop();
    }

    /// Blocks while `still()` is true, until somebody calls [`wake`](Self::wake) with this key. May return early. `still` turns
    /// false before `wake` is called, and must be asked after the caller is known to `wake`.
    ///
    /// The two that are provided do for a host without a scheduler: who waits looks again and again, and whom it waits for runs on
    /// another CPU, or interrupts it.
    fn sleep(&self, _key: usize, still: &dyn Fn() -> bool) {
        if still() {
            self.relax();
        }
    }

    /// Wakes all who sleep with this key. Who overrides `sleep` overrides this too.
    fn wake(&self, _key: usize) {}
}

/// How the contents of a page come, or go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// They are there.
    Done,
    /// The store will say when they are, or when they cannot be: by `File::complete`, or [`Reclaimer::complete`](crate::reclaim::Reclaimer::complete).
    Started,
    /// They cannot be.
    Failed,
}

/// Where the contents of a file come from. Its drop is a release, after a grace period: with nothing held, on any thread, and it must not panic.
pub trait Store<P: Platform>: Send + Sync + Sized + 'static {
    /// Starts to read page `page` of `file` into `frame`, which is the file's alone until the read is complete. What lies
    /// beyond the end of the file must become zeros. Never sleeps. Who answers `Started` keeps a clone of `file` until the read is complete: with the
    /// last one the file goes, `frame` with it, and who waits for the page would wait for ever.
    ///
    /// # Safety
    ///
    /// (1) `frame` is the store's alone until it answers `Done` or `Failed`, or completes the read that it has started; or until `file` is gone.
    #[cfg(feature = "file")]
    unsafe fn start_read(&self, file: &crate::backing::File<P>, page: u64, frame: FrameId) -> Transfer;

    /// Starts to write `frame` to page `page` of `file`; of the last page, what lies in the file. Programs may change the frame meanwhile: then the page is
    /// written once more, later. Never sleeps. Who answers `Started` keeps a clone of `file`, as above. Only where it [`takes_writes`](Self::takes_writes).
    ///
    /// # Safety
    ///
    /// (1) `frame` is held until the store answers, or completes what it has started.
    #[cfg(feature = "file")]
    unsafe fn start_write(&self, _file: &crate::backing::File<P>, _page: u64, _frame: FrameId) -> Transfer {
        Transfer::Failed
    }

    /// The same of adjacent pages, from `first` on. `answer` is to be told of each, in their order, once: how it went may be told before those after it are begun.
    ///
    /// # Safety
    ///
    /// As [`start_write`](Self::start_write), of each, until its answer.
    #[cfg(feature = "file")]
    unsafe fn start_writes(
        &self,
        file: &crate::backing::File<P>,
        first: u64,
        frames: &[FrameId],
        mut answer: impl FnMut(Transfer),
    ) {
        for (page, frame) in (first..).zip(frames) {
            // SAFETY: (1) the caller says the same.
            answer(unsafe { self.start_write(file, page, *frame) });
        }
    }

    /// Whether what was written in memory can be written back. If not, pages that were written stay in memory.
    #[cfg(feature = "file")]
    fn takes_writes(&self, _file: &crate::backing::File<P>) -> bool {
        false
    }

    /// Makes durable what was written to `file`. Whether it is: who has said no says so until it is, for what was written is not written again. May sleep.
    #[cfg(feature = "file")]
    fn sync(&self, _file: &crate::backing::File<P>) -> bool {
        true
    }
}

/// No files, or files that begin as zeros.
impl<P: Platform> Store<P> for () {
    #[cfg(feature = "file")]
    unsafe fn start_read(&self, file: &crate::backing::File<P>, _page: u64, frame: FrameId) -> Transfer {
        // SAFETY: (1) until it answers.
        unsafe { file.platform().zero(frame) };
        Transfer::Done
    }
}
