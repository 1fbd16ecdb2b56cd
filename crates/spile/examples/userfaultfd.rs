//! A process that pages its own memory: real faults on real pages, resolved by the core on the thread that took them.
//!
//! **Guarantee.** What a thread wrote it reads again, while others fault on the same pages and change what may be done with them. Where
//! userfaultfd or its MOVE cannot be had, it says why and ends.
//!
//! **Mechanism.** A region is registered with a userfaultfd that raises SIGBUS instead of sending messages; the handler asks the core. A
//! frame is a page of a pool behind the region, its *home*. Where the core's entry lets writes pass, the kernel's is the frame itself, moved
//! there by `UFFDIO_MOVE`; where reads, the same, write-protected, or a protected copy if the frame was at home; where nothing, it is empty
//! and the frame at home, with its bytes. So what is taken away is moved home, which is atomic and flushes.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod linux {
    use libc::{c_int, c_void, siginfo_t, ucontext_t};
    use spile::paging::Pte;
    use spile::*;
    use spile_rcu::{Global, Rcu};
    use std::io::Error as Os;
    use std::ptr::null_mut;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
    use std::thread::yield_now;
    use std::time::{Duration, Instant};

    const PAGES: u64 = 2048;
    const THREADS: u64 = 4;
    const ROUNDS: u64 = 200;
    /// The one that stays full of zeros, the region's, tables, and one for each fault that comes second.
    const FRAMES: usize = 1 + PAGES as usize + 32 + THREADS as usize;

    /// Numbers of ioctls and of their modes, and the features: write protection, SIGBUS, the exact address, MOVE.
    const API: u64 = 0x3f;
    const REGISTER: u64 = 0;
    const COPY: u64 = 3;
    const MOVE: u64 = 5;
    const WRITEPROTECT: u64 = 6;
    const FEATURES: u64 = 1 | 1 << 7 | 1 << 11 | 1 << 16;
    const USER_MODE_ONLY: c_int = 1;
    const MISSING_AND_WP: u64 = 1 | 2;
    const COPY_WP: u64 = 2;

    static META: [FrameMeta; FRAMES] = [const { FrameMeta::new() }; FRAMES];
    static USED: [AtomicBool; FRAMES] = [const { AtomicBool::new(false) }; FRAMES];
    /// Where a frame is, if not at home.
    static AWAY: [AtomicU64; FRAMES] = [const { AtomicU64::new(0) }; FRAMES];
    static SHARED: Shared = Shared::new();
    static MM: OnceLock<Mm<Host, VmaRefcount>> = OnceLock::new();
    static FAULTS: AtomicUsize = AtomicUsize::new(0);

    #[derive(Clone, Copy, Debug)]
    struct Host {
        uffd: c_int,
        /// Where the region begins; behind it lies the pool.
        base: u64,
    }

    impl Host {
        /// An ioctl with words, which are read and written.
        fn uffdio<const N: usize>(&self, number: u64, mut words: [u64; N]) -> Result<(), Os> {
            let request = 3 << 30 | (size_of_val(&words) as u64) << 16 | 0xaa << 8 | number;
            // SAFETY: (1) the size is part of the request; (2) what the ioctls do to memory is said where they are asked for.
            while unsafe { libc::ioctl(self.uffd, request, words.as_mut_ptr()) } != 0 {
                let error = Os::last_os_error();
                // The address space is being changed, or a reader has the page pinned: both pass.
                if !matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY)) {
                    return Err(error);
                }
                yield_now();
            }
            Ok(())
        }

        fn home(&self, frame: FrameId) -> u64 {
            self.base + (PAGES + u64::from(frame.0)) * PAGE
        }

        /// Lets the kernel show at `at` what `new` says. The table's lock keeps others out.
        fn show(&self, at: u64, new: Pte) {
            let home = self.home(new.frame);
            let shown = if new.prot.has(Prot::W) {
                AWAY[new.frame.0 as usize].store(at, Relaxed);
                self.uffdio(MOVE, [at, home, PAGE, 0, 0])
            } else {
                self.uffdio(COPY, [at, home, PAGE, COPY_WP, 0])
            };
            shown.expect("the page is empty");
        }

        /// Takes away what was shown at `at`. The frame is at home then.
        fn hide(&self, at: u64, old: Pte) {
            let away = &AWAY[old.frame.0 as usize];
            if away.load(Relaxed) == at {
                self.uffdio(MOVE, [self.home(old.frame), at, PAGE, 0, 0]).expect("its home is empty");
                away.store(0, Relaxed);
            } else {
                // SAFETY: (1) a copy, in the region.
                unsafe { libc::madvise(at as *mut c_void, PAGE as usize, libc::MADV_DONTNEED) };
            }
        }
    }

    // SAFETY: (1) a frame is marked as used from `alloc` to `free`; (2) records are static; (3) the pool stays, and tables are at home.
    unsafe impl Frames for Host {
        fn alloc(&self) -> Option<FrameId> {
            // Round and round, so that the next free one is near.
            static NEXT: AtomicUsize = AtomicUsize::new(0);
            let mut next = (0..FRAMES).map(|_| NEXT.fetch_add(1, Relaxed) % FRAMES);
            next.find(|i| *i != 0 && !USED[*i].load(Relaxed) && !USED[*i].swap(true, Acquire)).map(|i| FrameId(i as u32))
        }
        unsafe fn free(&self, frame: FrameId) {
            USED[frame.0 as usize].store(false, Release);
        }
        unsafe fn meta(&self, frame: FrameId) -> &FrameMeta {
            &META[frame.0 as usize]
        }
        fn page(&self, frame: FrameId) -> *mut u8 {
            // New frames, tables and zeros are at home. Others the core would touch in a fork, or in a system call: there are none here.
            assert_eq!(AWAY[frame.0 as usize].load(Relaxed), 0, "what the program is shown is the program's to touch");
            self.home(frame) as *mut u8
        }
        fn zero_frame(&self) -> FrameId {
            FrameId(0)
        }
    }

    // SAFETY: (1) the format is the core's; (2) `commit` flushes: the kernel does, before a move, a protection or a discard returns.
    unsafe impl Mmu for Host {
        type Flush = ();
        unsafe fn commit(&self, _space: SpaceId, at: u64, old: Option<Pte>, new: Option<Pte>) {
            let shown = |pte: Option<Pte>| pte.filter(|pte| pte.prot != Prot::NONE);
            match (shown(old), shown(new)) {
                // The kernel is told of reads and writes alone.
                (Some(old), Some(new)) if old.prot.has(Prot::W) == new.prot.has(Prot::W) => {}
                (Some(old), Some(new)) if AWAY[old.frame.0 as usize].load(Relaxed) == at => {
                    self.uffdio(WRITEPROTECT, [at, PAGE, u64::from(!new.prot.has(Prot::W))]).expect("a page is there");
                }
                (old, new) => {
                    old.into_iter().for_each(|old| self.hide(at, old));
                    new.into_iter().for_each(|new| self.show(at, new));
                }
            }
        }
        fn issue(&self, _space: SpaceId, _range: Range) {}
    }

    impl Machine for Host {
        type Pin = ();
        fn pin(&self) {}
        fn relax(&self) {
            yield_now(); // Who has the lock may be preempted.
        }
    }

    impl Platform for Host {
        type Rcu = Global;
        type Store = ();
        type Reclaim = ();
        fn rcu(&self) -> &Global {
            &Global
        }
        fn shared(&self) -> &Shared {
            &SHARED
        }
    }

    /// The kernel found no page, or a protected one. In the region, that interrupted nothing of the core's, which touches none of its pages.
    extern "C" fn on_sigbus(_signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
        // SAFETY: (1) both are the kernel's, for this call.
        let (at, registers) = unsafe { ((*info).si_addr() as u64, (*context.cast::<ucontext_t>()).uc_mcontext.gregs) };
        let Some(mm) = MM.get().filter(|mm| mm.layout().all.contains(at)) else {
            // SAFETY: (1) somebody else's: the access is repeated, and ends the process.
            unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
            return;
        };
        let errno = Os::last_os_error();
        match mm.fault(at, if registers[libc::REG_ERR as usize] & 2 != 0 { Access::Write } else { Access::Read }) {
            Outcome::Done(_) => {
                FAULTS.fetch_add(1, Relaxed);
            }
            // A handler does not sleep; and in this program an access waits until it is allowed. Both come again by the access.
            Outcome::Wait(_) | Outcome::Denied(Denied::Protected) => yield_now(),
            wrong => panic!("{wrong:?} at {at:#x}"),
        }
        // SAFETY: (1) this thread's.
        unsafe { *libc::__errno_location() = errno.raw_os_error().unwrap_or(0) };
    }

    fn check(result: c_int) -> Result<(), Os> {
        if result == 0 { Ok(()) } else { Err(Os::last_os_error()) }
    }

    fn mmap(pages: u64) -> Result<u64, Os> {
        let (len, flags) = ((pages * PAGE) as usize, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
        // SAFETY: (1) a new mapping overlaps nothing.
        let at = unsafe { libc::mmap(null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        check(c_int::from(at == libc::MAP_FAILED))?;
        // SAFETY: (1) it is ours to advise. Without it too the kernel may know no huge pages.
        unsafe { libc::madvise(at, len, libc::MADV_NOHUGEPAGE) };
        Ok(at as u64)
    }

    /// A userfaultfd, the region and the pool; and the handler.
    fn host() -> Result<Host, Os> {
        // SAFETY: (1) a system call without pointers.
        let uffd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK | USER_MODE_ONLY) } as c_int;
        check(c_int::from(uffd < 0))?;
        let host = Host { uffd, base: mmap(PAGES + FRAMES as u64)? };
        host.uffdio(API, [0xaa, FEATURES, 0])?;
        let (pool, len) = (host.home(FrameId(0)), FRAMES * PAGE as usize);
        // SAFETY: (1) the new mapping's: every home has its page.
        check(unsafe { libc::madvise(pool as *mut c_void, len, libc::MADV_POPULATE_WRITE) })?;
        host.uffdio(REGISTER, [host.base, (PAGES + FRAMES as u64) * PAGE, MISSING_AND_WP, 0])?;
        // SAFETY: (1) a struct of integers; (2) the handler keeps to what one may do.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_sigbus as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            check(libc::sigaction(libc::SIGBUS, &action, null_mut()))?;
        }
        Ok(host)
    }

    /// Word `i` of page `page` of the memory at `base`.
    fn word(base: u64, page: u64, i: u64) -> &'static AtomicU64 {
        // SAFETY: (1) it is never given back to the kernel, (2) and aligned; (3) all of the program's accesses come by here.
        unsafe { AtomicU64::from_ptr((base + page * PAGE + i * 8) as *mut u64) }
    }

    /// Thread `thread` writes its word of every page in every round, and finds there what it wrote before.
    fn write_all(base: u64, thread: u64) {
        for (round, page) in (0..=ROUNDS).flat_map(|round| (0..PAGES).map(move |i| (round, (i + thread * 97) % PAGES))) {
            let at = word(base, page, thread);
            // Half of the threads read first, and so write to what is mapped for reading.
            if round > 0 || thread < THREADS / 2 {
                assert_eq!(at.load(Relaxed), round * (page + 1), "page {page} of thread {thread}");
            }
            if round < ROUNDS {
                at.store((round + 1) * (page + 1), Relaxed);
            }
        }
    }

    /// Nanoseconds of the first write to each page, the median.
    fn median(base: u64) -> u128 {
        let time = |page| {
            let start = Instant::now();
            word(base, page, 0).store(1, Relaxed);
            start.elapsed().as_nanos()
        };
        let mut times: Vec<_> = (0..PAGES).map(time).collect();
        times.sort_unstable();
        times[times.len() / 2]
    }

    pub fn run() -> Result<(), Os> {
        let host = host()?;
        let part = |from, pages| Range::with_len(host.base + from * PAGE, pages * PAGE).expect("whole pages");
        let (region, read_only, hidden) = (part(0, PAGES), part(PAGES / 4, PAGES / 4), part(PAGES / 2, PAGES / 4));
        let mm = Mm::new(host, Layout { all: region, base: region.end(), stack_gap: 0 }).expect("there is memory");
        let mm = MM.get_or_init(|| mm);
        let map = || mm.map(Place::At(region), |at| Attr::anon(at.start(), Prot::RW)).expect("nothing is mapped");
        map();
        let sum = || (PAGES / 4..PAGES / 2).map(|page| word(host.base, page, 0).load(Relaxed)).sum::<u64>();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || write_all(host.base, thread))).collect();
            while !threads.iter().all(|thread| thread.is_finished()) {
                // A quarter may not be written for a moment, another not even be read.
                mm.protect(read_only, Prot::R).expect("it is mapped");
                let quiet = sum() == sum();
                for (range, prot) in [(hidden, Prot::NONE), (read_only, Prot::RW), (hidden, Prot::RW)] {
                    mm.protect(range, prot).expect("it is mapped");
                }
                assert!(quiet, "somebody wrote where nobody may");
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let faults = FAULTS.load(Relaxed);
        mm.unmap(region).expect("there is memory");
        assert!(matches!(mm.fault(host.base, Access::Read), Outcome::Denied(Denied::Unmapped)));
        map();
        let ours = median(host.base);
        mm.unmap(region).expect("there is memory");
        // The root of the tables stays; the others wait for a grace period.
        Global.synchronize();
        SHARED.relieve(&host);
        assert_eq!(USED.iter().filter(|used| used.load(Relaxed)).count(), 1, "a frame did not come back");
        let native = median(mmap(PAGES)?);
        println!(
            "userfaultfd: {THREADS} threads, {faults} faults, no byte wrong, no frame lost; {ours} ns per first write, native {native}"
        );
        Ok(())
    }
}

fn main() {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    if let Err(why) = linux::run() {
        println!("userfaultfd: skipped: {why} (it takes the right to userfaultfd(2), and Linux 6.8 for its MOVE)");
    }
    #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
    println!("userfaultfd: skipped: this is not Linux on x86-64");
}
