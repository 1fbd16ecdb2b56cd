//! Dropping pages that are scattered.
//!
//! **Guarantee.** When it returns there is nothing at these addresses, and no CPU has what was there.
//!
//! **Mechanism.** One call for all, which flushes other CPUs once (`process_madvise`, which takes this advice about one's own process from Linux 6.13 on); where the kernel does not
//! take that, one for each run of adjacent pages.

use crate::PAGE;
use spile_sync::atomic::{AtomicBool, Ordering};
use std::io::Error;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// To drop, also what the program has locked (`mlock`): it may lock a region, of which pages leave all the same. From Linux 5.18 on.
const DROP: i32 = libc::MADV_DONTNEED_LOCKED;

/// How many pages are dropped by one call, at most.
pub const MOST: usize = 32;

/// This process, as one that is advised.
pub struct Advised {
    /// None: it cannot be named.
    itself: Option<OwnedFd>,
    /// The kernel has not taken it: it is not asked again.
    is_refused: AtomicBool,
}

impl Advised {
    /// Asks the kernel for its name.
    pub fn new() -> Self {
        // SAFETY: (1) calls without pointers.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) } as i32;
        // SAFETY: (1) new, and nobody else's.
        let itself = (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) });
        Self { itself, is_refused: AtomicBool::new(false) }
    }

    /// Drops the pages at these addresses, [`MOST`] at most, and sorts them.
    ///
    /// # Safety
    ///
    /// (1) Private pages of the caller's, of which nobody wants the bytes.
    pub unsafe fn drop_pages(&self, pages: &mut [u64]) {
        pages.sort_unstable();
        let mut runs = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; MOST];
        let mut count = 0;
        for page in pages.iter() {
            match runs[..count].last_mut() {
                Some(run) if run.iov_base as u64 + run.iov_len as u64 == *page => run.iov_len += PAGE as usize,
                _ => {
                    runs[count] = libc::iovec { iov_base: *page as *mut libc::c_void, iov_len: PAGE as usize };
                    count += 1;
                }
            }
        }
        let done = if count > 1 { self.at_once(&runs[..count]) } else { 0 };
        let mut done = done;
        for run in &runs[..count] {
            let skipped = done.min(run.iov_len);
            done -= skipped;
            if skipped < run.iov_len {
                drop_run(run.iov_base as u64 + skipped as u64, run.iov_len - skipped);
            }
        }
    }

    /// How many bytes were dropped by one call, from the first on.
    fn at_once(&self, runs: &[libc::iovec]) -> usize {
        let Some(itself) = self.itself.as_ref().filter(|_| !self.is_refused.load(Ordering::Relaxed)) else { return 0 };
        // SAFETY: (1) the pages are nobody's, says the caller.
        let done = unsafe { libc::syscall(libc::SYS_process_madvise, itself.as_raw_fd(), runs.as_ptr(), runs.len(), DROP, 0) };
        if done < 0 && matches!(Error::last_os_error().raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::EPERM)) {
            // Relaxed: a hint. A pidfd that a fork has inherited names the parent: the child has no such pages.
            self.is_refused.store(true, Ordering::Relaxed);
        }
        done.max(0) as usize
    }
}

fn drop_run(at: u64, len: usize) {
    let mut advice = DROP;
    loop {
        // SAFETY: (1) as in `at_once`.
        let result = unsafe { libc::madvise(at as *mut libc::c_void, len, advice) };
        match Error::last_os_error().raw_os_error() {
            _ if result == 0 => return,
            Some(libc::EINVAL) if advice == DROP => advice = libc::MADV_DONTNEED,
            Some(libc::EAGAIN | libc::EINTR) => std::thread::yield_now(),
            errno => crate::report::abort(format_args!("a page at {at:#x} could not be dropped: errno {errno:?}")),
        }
    }
}
