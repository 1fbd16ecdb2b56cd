//! SIGBUS: a thread has touched what is not there.
//!
//! **Guarantee.** A fault of a region is answered on the thread that took it. Every other SIGBUS is its who had the signal before, or the kernel's. Nothing is allocated here, and no lock
//! is taken that the interrupted thread could have: it was at a load or store of a region's, and the pager touches no region while it holds one.
//!
//! **Mechanism.** The handler is installed once for the process, with `SA_NODEFER`: what a backing touches may fault in turn; signals that others send wait until it is over. It remembers who
//! was there before.

use crate::PAGE;
use crate::host::lock;
use crate::registry::{Answer, Entry, Visit};
use spile::Access;
use std::io::Error;
use std::mem::MaybeUninit;
use std::ptr::{null, null_mut};
use std::sync::{Mutex, OnceLock};

/// Who had the signal before.
struct Before(libc::sigaction);

// SAFETY: (1) a record that is only read.
unsafe impl Send for Before {}
// SAFETY: (1) as above.
unsafe impl Sync for Before {}

static BEFORE: OnceLock<Before> = OnceLock::new();
static INSTALLING: Mutex<()> = Mutex::new(());

/// Bit of an x86 page fault's error: the access was a write.
const WRITE: i64 = 2;

/// From now on faults of regions are handled. Once for the process; who installs another handler afterwards hands on what is not his.
///
/// # Errors
///
/// The kernel's.
pub fn install() -> Result<(), Error> {
    let _one = lock(&INSTALLING);
    if BEFORE.get().is_some() {
        return Ok(());
    }
    let mut before = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: (1) room for a record; zeros are one.
    let before = unsafe {
        if libc::sigaction(libc::SIGBUS, null(), before.as_mut_ptr()) != 0 {
            return Err(Error::last_os_error());
        }
        before.assume_init()
    };
    // First: a fault may come at once.
    BEFORE.get_or_init(|| Before(before));
    // SAFETY: (1) zeros are an empty mask; (2) the handler keeps to what one may do.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_sigbus as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
        // A handler of another signal that touched a region could wait for a lock that this thread has.
        action.sa_mask = others();
        if libc::sigaction(libc::SIGBUS, &raw const action, null_mut()) != 0 {
            return Err(Error::last_os_error());
        }
    }
    Ok(())
}

/// All signals but those that an instruction raises.
fn others() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: (1) room for a set, which the first call fills.
    unsafe {
        libc::sigfillset(set.as_mut_ptr());
        for raised in [libc::SIGBUS, libc::SIGSEGV, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGABRT, libc::SIGSYS] {
            libc::sigdelset(set.as_mut_ptr(), raised);
        }
        set.assume_init()
    }
}

/// Runs `spawn` with the signals that a thread of the pager's own has, which inherits them: faults, and what the kernel sends for what a thread does.
pub fn without_others<T>(spawn: impl FnOnce() -> T) -> T {
    let mut before = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: (1) sets; (2) this thread's mask, which is as it was when this returns.
    unsafe {
        libc::pthread_sigmask(libc::SIG_SETMASK, &others(), before.as_mut_ptr());
        let spawned = spawn();
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), null_mut());
        spawned
    }
}

/// Whether this thread lets SIGBUS through. If not, its first fault of a region ends the process: the kernel does not wait.
#[must_use]
pub fn thread_can_fault() -> bool {
    let mut blocked = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: (1) room for a set, which is only read.
    unsafe {
        libc::pthread_sigmask(libc::SIG_SETMASK, null(), blocked.as_mut_ptr());
        libc::sigismember(blocked.as_ptr(), libc::SIGBUS) == 0
    }
}

extern "C" fn on_sigbus(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: (1) both are the kernel's, for this call; (2) this thread's.
    let (at, error, is_by_access, errno) = unsafe {
        let context = &*context.cast::<libc::ucontext_t>();
        (
            (*info).si_addr() as u64,
            context.uc_mcontext.gregs[libc::REG_ERR as usize],
            (*info).si_code == libc::BUS_ADRERR,
            *libc::__errno_location(),
        )
    };
    let access = if error & WRITE != 0 { Access::Write } else { Access::Read };
    let serve = |Entry(region): &Entry| match region.serve(at, access) {
        Ok(()) => Answer::Repeat,
        Err(why) => region.failed(at, access, why),
    };
    let answer = if is_by_access { Visit::begin().find(at).map_or(Answer::HandOn, serve) } else { Answer::HandOn };
    if answer == Answer::Broken {
        // SAFETY: (1) this signal's.
        unsafe { is_broken(info) };
    }
    if answer != Answer::Repeat {
        hand_on(signal, info, context);
    }
    // SAFETY: (1) this thread's.
    unsafe { *libc::__errno_location() = errno };
}

/// Lets the signal be one of a page that is broken, as kernels say it that know of such.
///
/// # Safety
///
/// (1) It is of an access, and nobody reads it meanwhile.
unsafe fn is_broken(info: *mut libc::siginfo_t) {
    /// Where the kernel says how much is broken, as a power of two: behind the address.
    const ORDER: usize = 24;
    // SAFETY: (1) says the caller; the field is within, and aligned.
    unsafe {
        (*info).si_code = libc::BUS_MCEERR_AR;
        info.cast::<u8>().add(ORDER).cast::<i16>().write(PAGE.ilog2() as i16);
    }
}

/// Whoever had the signal before has it.
fn hand_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let Some(Before(before)) = BEFORE.get() else { return };
    match before.sa_sigaction {
        // One that was sent, and is not wanted. (The kernel lets no access be ignored.)
        // SAFETY: (1) what the kernel gave.
        libc::SIG_IGN if unsafe { (*info).si_code } <= 0 => {}
        // The kernel's: the access is repeated, and ends the process.
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: (1) nobody handles it any more.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
            // SAFETY: (1) what the kernel gave.
            if unsafe { (*info).si_code } <= 0 {
                // SAFETY: (1) one that was sent is sent again.
                unsafe { libc::raise(signal) };
            }
        }
        handler if before.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: (1) so it was installed.
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                unsafe { std::mem::transmute(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: (1) so it was installed.
            let handler: extern "C" fn(libc::c_int) = unsafe { std::mem::transmute(handler) };
            handler(signal);
        }
    }
}
