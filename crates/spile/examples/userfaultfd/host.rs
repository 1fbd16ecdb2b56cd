//! The host: real page tables, by way of userfaultfd.
//!
//! **Guarantee.** What the core's tables say of an address of the region is what the kernel shows there, and the handler never sleeps.
//!
//! **Mechanism.** A frame is a page of a pool beside the region, its *home*. [`Mmu::commit`] makes the kernel's entry into what the core's
//! shall be:
//!
//! | an entry that lets pass | is |
//! |---|---|
//! | writes | the frame itself, moved there by `UFFDIO_MOVE`; its home is empty |
//! | reads | the same, write-protected; or, if the frame was at home, a write-protected copy |
//! | nothing | empty; the frame is at home, with its bytes |
//!
//! So what is taken away is moved home, which is atomic and flushes. Region and pool stay out of forked processes: the kernel moves no page
//! that another process may see. A fork of the core's has no memory of its own: it is a snapshot, read through the core.

use libc::{c_int, c_void, siginfo_t};
use spile::paging::{Pte, Table};
use spile::*;
use std::cell::Cell;
use std::io::Error as Os;
use std::ptr::{null, null_mut};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::*};

/// Pages of the region.
pub const PAGES: usize = 2048;
pub const THREADS: u64 = 4;
/// Pages of the pool: the first, which stays full of zeros; the region and a snapshot; and one for each fault that comes second.
const FRAMES: usize = 1 + 2 * PAGES + THREADS as usize;
const TABLES: usize = 64;
const BEDS: usize = 64;
pub const SIZE: usize = PAGE as usize;

/// The numbers of the ioctls; their sizes are those of their arguments, all of them words.
const API: u64 = 0x3f;
const REGISTER: u64 = 0;
const COPY: u64 = 3;
const MOVE: u64 = 5;
const WRITEPROTECT: u64 = 6;

/// Write protection, SIGBUS instead of messages, the exact address in it, and MOVE.
const FEATURES: u64 = 1 | 1 << 7 | 1 << 11 | 1 << 16;
const USER_MODE_ONLY: c_int = 1;
const MISSING_AND_WP: u64 = 1 | 2;
const COPY_WP: u64 = 2;

/// Indices, last in first out. Above the top index, which is one more than it is, stands how often it changed.
pub struct Stack {
    top: AtomicU64,
    next: Box<[AtomicU32]>,
    pub len: AtomicUsize,
}

impl Stack {
    fn of(count: usize) -> Self {
        let next = (0..count as u32).map(AtomicU32::new).collect();
        Self { top: AtomicU64::new(count as u64), next, len: AtomicUsize::new(count) }
    }

    fn pop(&self) -> Option<u32> {
        let below =
            |top: u64| Some(((top >> 32) + 1) << 32 | u64::from(self.next[(top as u32).checked_sub(1)? as usize].load(Relaxed)));
        let top = self.top.fetch_update(AcqRel, Acquire, below).ok()?;
        self.len.fetch_sub(1, Relaxed);
        Some(top as u32 - 1)
    }

    fn push(&self, i: u32) {
        let above = |top: u64| {
            self.next[i as usize].store(top as u32, Relaxed);
            Some(((top >> 32) + 1) << 32 | u64::from(i + 1))
        };
        let _ = self.top.fetch_update(AcqRel, Acquire, above);
        self.len.fetch_add(1, Relaxed);
    }
}

pub struct Host {
    uffd: c_int,
    pub region: Range,
    pool: u64,
    /// Where a frame is, if not at home.
    away: Box<[AtomicU64]>,
    metas: Box<[FrameMeta]>,
    tables: Box<[Table]>,
    pub free: Stack,
    free_tables: Stack,
    shared: Shared,
    /// The address space that is real.
    pub space: AtomicU64,
    beds: [AtomicU32; BEDS],
}

#[derive(Clone, Copy)]
pub struct Uffd(pub &'static Host);

/// An ioctl with words, which are read and written.
fn uffdio<const N: usize>(uffd: c_int, number: u64, mut words: [u64; N]) -> Result<(), c_int> {
    let request = 3 << 30 | (size_of_val(&words) as u64) << 16 | 0xaa << 8 | number;
    loop {
        // SAFETY: (1) the size is part of the request; (2) what the ioctls do to memory is said where they are asked for.
        if unsafe { libc::ioctl(uffd, request as _, words.as_mut_ptr()) } == 0 {
            return Ok(());
        }
        match Os::last_os_error().raw_os_error().unwrap_or(0) {
            // The address space is being changed, or a reader has the page pinned: both pass.
            libc::EAGAIN | libc::EBUSY => yield_now(),
            error => return Err(error),
        }
    }
}

fn yield_now() {
    // SAFETY: (1) it touches nothing.
    unsafe { libc::sched_yield() };
}

impl Host {
    fn home(&self, frame: FrameId) -> u64 {
        self.pool + u64::from(frame.0) * PAGE
    }

    /// Lets the kernel show at `at` what `new` says. `false` if somebody else has; the table's lock keeps those out.
    fn show(&self, at: u64, new: Pte) -> bool {
        let home = self.home(new.frame);
        let shown = if new.prot.has(Prot::W) {
            uffdio(self.uffd, MOVE, [at, home, PAGE, 0, 0]).inspect(|()| self.away[new.frame.0 as usize].store(at, Release))
        } else {
            uffdio(self.uffd, COPY, [at, home, PAGE, COPY_WP, 0])
        };
        match shown {
            Ok(()) => true,
            Err(libc::EEXIST) => false,
            Err(error) => die("a page could not be shown", error),
        }
    }

    /// Takes away what was shown at `at`. The frame is at home then.
    fn hide(&self, at: u64, old: Pte) {
        let away = &self.away[old.frame.0 as usize];
        if away.load(Acquire) != at {
            // SAFETY: (1) a copy, in the region.
            unsafe { libc::madvise(at as *mut c_void, SIZE, libc::MADV_DONTNEED) };
        } else if let Err(error) = uffdio(self.uffd, MOVE, [self.home(old.frame), at, PAGE, 0, 0]) {
            die("a page could not be taken away", error);
        } else {
            away.store(0, Release);
        }
    }

    /// Copies what is in a frame, wherever it is: by a system call, which fails where memory is missing, and again if it moved.
    fn copy_out(&self, frame: FrameId, offset: usize, into: *mut u8, len: usize) {
        let away = &self.away[frame.0 as usize];
        loop {
            let at = away.load(Acquire);
            let from = if at == 0 { self.home(frame) } else { at } + offset as u64;
            let [to, from] = [into.cast(), from as *mut c_void].map(|iov_base| libc::iovec { iov_base, iov_len: len });
            // SAFETY: (1) `into` has room, by the callers; (2) the rest is checked by the kernel.
            let copied = unsafe { libc::process_vm_readv(libc::getpid(), &to, 1, &from, 1, 0) };
            match copied == len as isize {
                true if away.load(Acquire) == at => return,
                false if Os::last_os_error().raw_os_error() != Some(libc::EFAULT) => die("process_vm_readv", 0),
                _ => yield_now(),
            }
        }
    }
}

// SAFETY: (1) a frame is in the stack or somebody's; (2), (3) records and tables are never freed.
unsafe impl Frames for Uffd {
    fn alloc(&self) -> Option<FrameId> {
        self.0.free.pop().map(|i| FrameId(i + 1))
    }
    fn free(&self, frame: FrameId) {
        self.0.free.push(frame.0 - 1);
    }
    fn meta(&self, frame: FrameId) -> &FrameMeta {
        &self.0.metas[frame.0 as usize]
    }
    fn page(&self, _: FrameId) -> *mut u8 {
        // A frame's bytes are where it is mapped, if it is.
        std::ptr::null_mut()
    }
    fn zero(&self, frame: FrameId) {
        // SAFETY: (1) a new frame is at home, (2) and nobody else's.
        unsafe { (self.0.home(frame) as *mut u8).write_bytes(0, SIZE) }
    }
    fn copy(&self, from: FrameId, to: FrameId) {
        self.0.copy_out(from, 0, self.0.home(to) as *mut u8, SIZE);
    }
    fn read(&self, frame: FrameId, offset: usize, into: &mut [u8]) {
        self.0.copy_out(frame, offset, into.as_mut_ptr(), into.len());
    }
    fn write(&self, frame: FrameId, offset: usize, from: &[u8]) {
        assert_eq!(self.0.away[frame.0 as usize].load(Acquire), 0, "the program's own memory is the program's to write");
        // SAFETY: (1) at home, where nobody else writes; (2) the piece ends in the page.
        unsafe { ((self.0.home(frame) as *mut u8).add(offset)).copy_from_nonoverlapping(from.as_ptr(), from.len()) }
    }
    fn zero_frame(&self) -> FrameId {
        FrameId(0)
    }
    fn alloc_table(&self) -> Option<FrameId> {
        let i = self.0.free_tables.pop()?;
        self.0.tables[i as usize].clear();
        Some(FrameId(FRAMES as u32 + i))
    }
    fn free_table(&self, frame: FrameId) {
        self.0.free_tables.push(frame.0 - FRAMES as u32);
    }
    fn table(&self, frame: FrameId) -> &Table {
        &self.0.tables[frame.0 as usize - FRAMES]
    }
}

// SAFETY: (1) the format is the core's; (2) `commit` flushes: the kernel does, before a move, a protection or a discard returns.
unsafe impl Mmu for Uffd {
    type Flush = ();
    fn admit(&self, space: SpaceId, at: u64, old: Option<Pte>, new: Pte) -> Result<(), Refused> {
        if self.change(space, at, old, Some(new)) { Ok(()) } else { Err(Refused::Busy) }
    }
    fn commit(&self, space: SpaceId, at: u64, old: Option<Pte>, new: Option<Pte>) {
        assert!(self.change(space, at, old, new), "only installs are refused");
    }
    fn issue(&self, _space: SpaceId, _range: Range) {}
}

impl Uffd {
    /// Changes what the kernel has at `at`. False if somebody else did.
    fn change(&self, space: SpaceId, at: u64, old: Option<Pte>, new: Option<Pte>) -> bool {
        let host = self.0;
        if space.0 != host.space.load(Relaxed) {
            return true;
        }
        let shown = |pte: Option<Pte>| pte.filter(|pte| pte.prot != Prot::NONE);
        match (shown(old), shown(new)) {
            (Some(old), Some(new)) if old.prot.has(Prot::W) == new.prot.has(Prot::W) => true,
            (Some(old), Some(new)) if host.away[old.frame.0 as usize].load(Acquire) == at => {
                let protected = uffdio(host.uffd, WRITEPROTECT, [at, PAGE, u64::from(!new.prot.has(Prot::W))]);
                protected.map_or_else(|error| die("a page could not be protected", error), |()| true)
            }
            (old, new) => {
                if let Some(old) = old {
                    host.hide(at, old);
                }
                new.is_none_or(|new| host.show(at, new))
            }
        }
    }
}

impl Machine for Uffd {
    type Pin = ();
    fn pin(&self) {}
    fn relax(&self) {
        thread_local! {
            static CALLS: Cell<u32> = const { Cell::new(0) };
        }
        CALLS.set(CALLS.get().wrapping_add(1));
        // A table is locked for a system call or two. Yielding at once costs half of what two threads do; never yielding, a time slice
        // whenever the one who has the lock was preempted.
        if CALLS.get().is_multiple_of(256) { yield_now() } else { std::hint::spin_loop() }
    }
    fn sleep(&self, key: usize, still: &dyn Fn() -> bool) {
        let bed = &self.0.beds[key % BEDS];
        let before = bed.load(Acquire);
        if still() {
            // SAFETY: (1) a word of ours; it sleeps only while the word is what it was before `still` was asked.
            unsafe {
                libc::syscall(
                    libc::SYS_futex,
                    bed.as_ptr(),
                    libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
                    before,
                    null::<c_void>(),
                )
            };
        }
    }
    fn wake(&self, key: usize) {
        let bed = &self.0.beds[key % BEDS];
        bed.fetch_add(1, Release);
        // SAFETY: (1) a word of ours.
        unsafe { libc::syscall(libc::SYS_futex, bed.as_ptr(), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, c_int::MAX) };
    }
}

impl Platform for Uffd {
    type Rcu = spile_rcu::Global;
    type Store = ();
    fn rcu(&self) -> &spile_rcu::Global {
        &spile_rcu::Global
    }
    fn shared(&self) -> &Shared {
        &self.0.shared
    }
}

pub static MM: OnceLock<Mm<Uffd, VmaRefcount>> = OnceLock::new();
/// Who handled SIGBUS before us.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();
pub static FAULTS: AtomicUsize = AtomicUsize::new(0);
pub static DENIED: AtomicUsize = AtomicUsize::new(0);

fn die(why: &str, error: c_int) -> ! {
    eprintln!("userfaultfd: {why}: {}", Os::from_raw_os_error(error));
    std::process::abort()
}

/// The kernel found no page, or a write-protected one. It was an access to the region, so nothing of ours was interrupted: the core
/// touches no managed memory.
extern "C" fn on_sigbus(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: (1) the kernel's, for this call; (2) errno is this thread's.
    let (at, access, errno) = unsafe { ((*info).si_addr() as u64, access(context), *libc::__errno_location()) };
    let Some(mm) = MM.get().filter(|mm| mm.layout().all.contains(at)) else { return chain(signal, info, context) };
    FAULTS.fetch_add(1, Relaxed);
    match mm.fault(at, access) {
        Outcome::Done(_) => {}
        // A handler must not sleep for long: it comes again by the access.
        Outcome::Wait(token) => {
            while !token.is_over() {
                yield_now();
            }
        }
        // As this program wants it, an access waits until it is allowed. Others would raise SIGSEGV.
        Outcome::Denied(Denied::Protected) => {
            DENIED.fetch_add(1, Relaxed);
            yield_now();
        }
        Outcome::Denied(Denied::NoMemory) => die("a fault without a frame", libc::ENOMEM),
        Outcome::Denied(_) | Outcome::Grow => die("an access to unmapped memory", libc::EFAULT),
    }
    // SAFETY: (2) as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Somebody else's SIGBUS.
fn chain(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let Some(before) = BEFORE.get() else { return };
    // SAFETY: (1) what sigaction gave back is a handler of the kind its flags say, or one of two constants.
    unsafe {
        match before.sa_sigaction {
            libc::SIG_IGN => {}
            // The access comes again, and ends the process.
            libc::SIG_DFL => drop(libc::signal(signal, libc::SIG_DFL)),
            handler if before.sa_flags & libc::SA_SIGINFO != 0 => {
                std::mem::transmute::<usize, extern "C" fn(c_int, *mut siginfo_t, *mut c_void)>(handler)(signal, info, context)
            }
            handler => std::mem::transmute::<usize, extern "C" fn(c_int)>(handler)(signal),
        }
    }
}

/// # Safety
///
/// (1) `context` is a signal handler's.
#[cfg(target_arch = "x86_64")]
unsafe fn access(context: *mut c_void) -> Access {
    // SAFETY: (1) the caller's contract.
    let error = unsafe { (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs[libc::REG_ERR as usize] };
    if error & 2 != 0 { Access::Write } else { Access::Read }
}

/// # Safety
///
/// (1) `context` is a signal handler's.
#[cfg(target_arch = "aarch64")]
unsafe fn access(context: *mut c_void) -> Access {
    const ESR_MAGIC: u32 = 0x4553_5201;
    // SAFETY: (1) behind the registers, from the next multiple of 16 on, lie records of a magic, a size and contents, up to an
    // empty one; that of the syndrome is among them at each fault.
    unsafe {
        let mut record = (&raw mut (*context.cast::<libc::ucontext_t>()).uc_mcontext).cast::<u8>().add(288);
        while record.cast::<u32>().read() != ESR_MAGIC {
            record = record.add(record.cast::<u32>().add(1).read() as usize);
        }
        if record.add(8).cast::<u64>().read() & 1 << 6 != 0 { Access::Write } else { Access::Read }
    }
}

fn check(result: c_int, what: &str) -> Result<(), String> {
    if result == 0 { Ok(()) } else { Err(format!("{what}: {}", Os::last_os_error())) }
}

pub fn mmap(pages: usize) -> Result<*mut c_void, String> {
    // SAFETY: (1) a new mapping overlaps nothing; (2) so it is ours to advise.
    unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let at = libc::mmap(null_mut(), pages * SIZE, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        if at == libc::MAP_FAILED {
            return Err(format!("mmap: {}", Os::last_os_error()));
        }
        libc::madvise(at, pages * SIZE, libc::MADV_NOHUGEPAGE);
        check(libc::madvise(at, pages * SIZE, libc::MADV_DONTFORK), "MADV_DONTFORK")?;
        Ok(at)
    }
}

/// A userfaultfd, the region and the pool, one behind the other.
pub fn host() -> Result<Host, String> {
    // SAFETY: (1) a system call without pointers.
    let uffd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK | USER_MODE_ONLY) } as c_int;
    if uffd < 0 {
        return Err(format!("userfaultfd(2): {}", Os::last_os_error()));
    }
    uffdio(uffd, API, [0xaa, FEATURES, 0]).map_err(|_| "this kernel's userfaultfd has no UFFDIO_MOVE (Linux 6.8)")?;
    let base = mmap(PAGES + FRAMES)?;
    let pool = base.wrapping_byte_add(PAGES * SIZE);
    // SAFETY: (1) the new mapping's.
    check(unsafe { libc::madvise(pool, FRAMES * SIZE, libc::MADV_POPULATE_WRITE) }, "MADV_POPULATE_WRITE")?;
    let [base, len] = [base as u64, ((PAGES + FRAMES) * SIZE) as u64];
    uffdio(uffd, REGISTER, [base, len, MISSING_AND_WP, 0])
        .map_err(|e| format!("UFFDIO_REGISTER: {}", Os::from_raw_os_error(e)))?;
    Ok(Host {
        uffd,
        region: Range::with_len(base, (PAGES * SIZE) as u64).map_err(|bad| bad.to_string())?,
        pool: pool as u64,
        away: (0..FRAMES).map(|_| AtomicU64::new(0)).collect(),
        metas: (0..FRAMES + TABLES).map(|_| FrameMeta::new()).collect(),
        tables: (0..TABLES).map(|_| Table::new()).collect(),
        free: Stack::of(FRAMES - 1),
        free_tables: Stack::of(TABLES),
        shared: Shared::new(),
        space: AtomicU64::new(0),
        beds: [const { AtomicU32::new(0) }; BEDS],
    })
}

/// The handler, and for this thread a stack for it that is large enough.
pub fn handle_faults() {
    // SAFETY: (1) the stack is this thread's, and leaked; (2) the handler keeps to what a handler may do.
    unsafe {
        let stack = libc::stack_t { ss_sp: vec![0u8; 1 << 16].leak().as_mut_ptr().cast(), ss_flags: 0, ss_size: 1 << 16 };
        libc::sigaltstack(&stack, null_mut());
        if BEFORE.get().is_none() {
            let (mut ours, mut before): (libc::sigaction, libc::sigaction) = (std::mem::zeroed(), std::mem::zeroed());
            ours.sa_sigaction = on_sigbus as *const () as usize;
            ours.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_ONSTACK;
            libc::sigaction(libc::SIGBUS, null(), &mut before);
            let _ = BEFORE.set(before);
            libc::sigaction(libc::SIGBUS, &ours, null_mut());
        }
    }
}
