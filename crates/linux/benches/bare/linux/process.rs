//! Time of the process, its threads' CPUs, and its handler of SIGBUS.

use super::common::{Map, PAGE, owned};
use std::mem::{MaybeUninit, zeroed};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

/// CPU time of this process, in the program and in the kernel.
pub fn cpu() -> Duration {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: (1) room for a record, which the call fills; zeros are one, too.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let time = |of: libc::timeval| Duration::from_secs(of.tv_sec as u64) + Duration::from_micros(of.tv_usec as u64);
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// How long this process's threads have waited for a CPU: where others had it, and where there are more threads than CPUs.
pub fn waited() -> Duration {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return Duration::ZERO };
    let of_thread = |thread: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        stat.split(' ').nth(1)?.parse::<u64>().ok()
    };
    Duration::from_nanos(threads.flatten().filter_map(of_thread).sum())
}

/// This process, as one that is given advice about its memory.
pub struct Itself(OwnedFd);

impl Itself {
    pub fn new() -> Self {
        // SAFETY: (1) system calls without pointers.
        Self(owned(unsafe { libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) } as i32))
    }

    /// Drops pages by one call: whether the kernel does that, which it does of a process's own from Linux 6.13 on.
    ///
    /// # Safety
    ///
    /// (1) Who misses them expects to.
    pub unsafe fn drop_pages(&self, runs: &[libc::iovec]) -> bool {
        let whole: usize = runs.iter().map(|run| run.iov_len).sum();
        let fd = self.0.as_raw_fd();
        // SAFETY: (1) says the caller.
        let dropped = unsafe { libc::syscall(libc::SYS_process_madvise, fd, runs.as_ptr(), runs.len(), libc::MADV_DONTNEED, 0) };
        dropped == whole as i64
    }

    /// Whether it does.
    pub fn can_drop_pages() -> bool {
        let page = Map::anonymous(1);
        let run = libc::iovec { iov_base: page.at(0) as *mut libc::c_void, iov_len: PAGE as usize };
        // SAFETY: (1) nobody uses it.
        unsafe { Self::new().drop_pages(&[run]) }
    }
}

/// The clock of a thread's CPU time.
#[derive(Clone, Copy, Default)]
pub struct Clock(libc::clockid_t);

impl Clock {
    pub fn of_this_thread() -> Self {
        let mut clock = 0;
        // SAFETY: (1) this thread is there; (2) room for an id.
        assert_eq!(unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut clock) }, 0);
        Self(clock)
    }

    /// While the thread is there.
    pub fn now(self) -> Duration {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: (1) room for a time.
        assert_eq!(unsafe { libc::clock_gettime(self.0, &raw mut time) }, 0);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }
}

/// Keeps this thread on the `nth` CPU of those that the process may use.
pub fn pin(nth: usize) {
    // SAFETY: (1) sets of this program's, of the size that is said; zeros are an empty one.
    unsafe {
        let (mut all, mut one): (libc::cpu_set_t, libc::cpu_set_t) = zeroed();
        libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut all);
        let allowed = (0..libc::CPU_SETSIZE as usize).filter(|&cpu| libc::CPU_ISSET(cpu, &all));
        if let Some(cpu) = allowed.cycle().take(nth + 1).last() {
            libc::CPU_SET(cpu, &mut one);
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const one);
        }
    }
}

/// The third argument is a `ucontext_t`.
pub type OnSignal = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);

/// From now on SIGBUS is `handler`'s, also while it runs: whose it was before, if that was a handler of such arguments.
pub fn install(handler: OnSignal) -> Option<OnSignal> {
    // SAFETY: (1) all zeros are no handler, no flags and an empty mask; (2) the handler is for this program's faults, which has no others; (3) what was installed so is such a function.
    unsafe {
        let (mut action, mut before): (libc::sigaction, libc::sigaction) = zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
        assert_eq!(libc::sigaction(libc::SIGBUS, &raw const action, &raw mut before), 0);
        let is_handler = before.sa_flags & libc::SA_SIGINFO != 0;
        is_handler.then(|| std::mem::transmute::<usize, OnSignal>(before.sa_sigaction))
    }
}
