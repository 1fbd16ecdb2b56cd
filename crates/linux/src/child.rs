//! A fault that is resolved in a signal handler on the thread that took it, tried.
//!
//! **Guarantee.** The program's own signal handlers are neither replaced nor called, and none of its memory is copied.
//!
//! **Mechanism.** A child that shares this process's memory and not its handlers, as `posix_spawn(3)` starts one: this thread is stopped until it has ended, and no other is. It has
//! a stack of its own and this thread's thread-locals, by which its handler finds what it is about. It ends as the kernel's, so nothing runs at its exit.

use crate::PAGE;
use crate::pages::Pages;
use crate::stopped::Stopped;
use crate::trial::Why;
use crate::uffd::Uffd;
use std::cell::Cell;
use std::io::Error;
use std::mem::{MaybeUninit, zeroed};
use std::ptr::{null, null_mut};

const STACK_PAGES: u64 = 32;
/// A child whose access neither ends nor raises a signal is ended then.
const SECONDS: u32 = 10;
const NO_SIGNAL: &str = "no signal came for a missing page";
const ELSEWHERE: &str = "the signal is about another address than the access";
const OTHER_BYTES: &str = "the access found other bytes than the handler had put there";

/// What the child does, and what came of it.
struct Case<'a> {
    uffd: &'a Uffd,
    /// A byte of a page that is missing.
    touched: u64,
    /// What is to be on it.
    source: u64,
    signals: Cell<u32>,
    seen: Cell<u64>,
    resolved: Cell<Result<(), Stopped>>,
    found: Cell<u8>,
}

thread_local! {
    static CASE: Cell<*const Case<'static>> = const { Cell::new(null()) };
}

extern "C" fn on_signal(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: (1) the case outlives the child, whose thread-locals are its parent's; the parent is stopped.
    let case = unsafe { &*CASE.get() };
    // SAFETY: (1) the kernel's, and of a fault.
    case.seen.set(unsafe { (*info).si_addr() } as u64);
    case.signals.set(case.signals.get() + 1);
    // SAFETY: (1) the page is the trial's, which wants it resolved; (2) its source is written by nobody.
    case.resolved.set(unsafe { case.uffd.copy(case.touched & !(PAGE - 1), case.source, PAGE, false) });
    if case.resolved.get().is_err() || case.signals.get() > 1 {
        // The access would fault for ever.
        // SAFETY: (1) ends the child alone.
        unsafe { libc::_exit(1) };
    }
}

extern "C" fn child(case: *mut libc::c_void) -> libc::c_int {
    // SAFETY: (1) the parent's, which is stopped.
    let case = unsafe { &*case.cast::<Case>() };
    // SAFETY: (1) all zeros are no handler and no flags.
    let mut action: libc::sigaction = unsafe { zeroed() };
    action.sa_sigaction = on_signal as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    let mut let_in = MaybeUninit::uninit();
    // SAFETY: (1) it is written before it is read; (2) handlers, the mask and the alarm are the child's own.
    unsafe {
        libc::sigemptyset(let_in.as_mut_ptr());
        libc::sigaddset(let_in.as_mut_ptr(), libc::SIGBUS);
        libc::sigaddset(let_in.as_mut_ptr(), libc::SIGALRM);
        libc::sigaction(libc::SIGBUS, &raw const action, null_mut());
        libc::signal(libc::SIGALRM, libc::SIG_DFL);
        libc::sigprocmask(libc::SIG_UNBLOCK, let_in.as_ptr(), null_mut());
        libc::alarm(SECONDS);
    }
    // SAFETY: (1) mapped.
    case.found.set(unsafe { (case.touched as *const u8).read_volatile() });
    0
}

/// Starts the child and waits for it, with all signals blocked: a handler of the program's must not run in it.
fn run(case: &Case) -> Result<(), Error> {
    let stack = Pages::anonymous(STACK_PAGES)?;
    let (mut all, mut old) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    CASE.set((&raw const *case).cast());
    // SAFETY: (1) both sets are written before they are read.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), old.as_mut_ptr());
    }
    let top = (stack.at(0) + stack.len()) as *mut libc::c_void;
    // SAFETY: (1) the stack is the child's, and mapped until it has ended; (2) it uses what the parent lends it, which is stopped; it allocates nothing, locks nothing and
    // does not panic.
    let pid = unsafe { libc::clone(child, top, libc::CLONE_VM | libc::CLONE_VFORK, (&raw const *case).cast_mut().cast()) };
    let error = Error::last_os_error();
    // SAFETY: (1) a child that sends no signal when it ends; (2) the mask is the one of before.
    unsafe {
        if pid > 0 {
            libc::waitpid(pid, null_mut(), libc::__WALL);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, old.as_ptr(), null_mut());
    }
    CASE.set(null());
    if pid > 0 { Ok(()) } else { Err(error) }
}

/// Touches a byte of page `missing`, which is registered and not there, so that the handler puts a copy of page `source` there.
pub fn fault(uffd: &Uffd, pages: &Pages, source: u64, missing: u64) -> Result<(), Why> {
    const OFFSET: u64 = 123;
    let case = Case {
        uffd,
        touched: pages.at(missing) + OFFSET,
        source: pages.at(source),
        signals: Cell::new(0),
        seen: Cell::new(0),
        resolved: Cell::new(Ok(())),
        found: Cell::new(0),
    };
    run(&case).map_err(|error| Why::System("clone(2)", error))?;
    case.resolved.get().map_err(Why::Stopped)?;
    // SAFETY: (1) ours, and there.
    let expected = unsafe { ((case.source + OFFSET) as *const u8).read_volatile() };
    match (case.signals.get(), case.seen.get() == case.touched, case.found.get() == expected) {
        (1, true, true) => Ok(()),
        (0, ..) => Err(Why::Wrong(NO_SIGNAL)),
        (_, false, _) => Err(Why::Wrong(ELSEWHERE)),
        _ => Err(Why::Wrong(OTHER_BYTES)),
    }
}
