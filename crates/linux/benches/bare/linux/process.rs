//! Time of the process, its threads' CPUs, and its handler of SIGBUS.

use std::mem::{MaybeUninit, zeroed};
use std::ptr::null_mut;
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

/// From now on SIGBUS is `handler`'s, also while it runs.
pub fn install(handler: OnSignal) {
    // SAFETY: (1) all zeros are no handler, no flags and an empty mask; (2) the handler is for this program's faults, which has no others.
    unsafe {
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
        assert_eq!(libc::sigaction(libc::SIGBUS, &raw const action, null_mut()), 0);
    }
}
