//! Whose the faults of this thread are.
//!
//! A thread says which pager it uses and which part is its own. The handler of SIGBUS leads a fault there; those of a thread that has not said so are handed on.

use super::process::{OnSignal, install};
use std::cell::Cell;
use std::sync::OnceLock;

/// A pager on the thread that faults.
pub trait Resolve {
    /// A page of a part is missed, or written and protected.
    fn resolve(&self, part: usize, fault: Fault);
}

/// What the kernel says of an access.
pub struct Fault {
    pub at: u64,
    /// The page is there, and protected.
    pub is_there: bool,
    pub is_write: bool,
}

thread_local! {
    static HERE: Cell<Option<(*const dyn Resolve, usize)>> = const { Cell::new(None) };
}

/// Whose the other threads' faults are.
static BEFORE: OnceLock<OnSignal> = OnceLock::new();

extern "C" fn on_signal(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let Some((pager, part)) = HERE.get() else {
        return BEFORE.get().expect("a signal on a thread that has no part")(signal, info, context);
    };
    // SAFETY: (1) the thread lets go of the pager before it ends; (2) both are the kernel's, and of a fault.
    let (pager, at, error) = unsafe {
        let context = &*context.cast::<libc::ucontext_t>();
        (&*pager, (*info).si_addr() as u64, context.uc_mcontext.gregs[libc::REG_ERR as usize])
    };
    pager.resolve(part, Fault { at, is_there: error & 1 != 0, is_write: error & 2 != 0 });
}

/// Faults are led to the pagers of their threads from now on, and the others to who has them now. Once.
pub fn lead() {
    if let Some(before) = install(on_signal) {
        BEFORE.set(before).expect("it is called once");
    }
}

/// This thread's faults are the pager's, and of this part, until it [leaves](leave): the pager lives as long.
pub fn enter(pager: &(dyn Resolve + '_), part: usize) {
    // SAFETY: (1) the lifetime alone is another: the caller leaves before the pager ends.
    let pager = unsafe { std::mem::transmute::<*const (dyn Resolve + '_), *const (dyn Resolve + 'static)>(&raw const *pager) };
    HERE.set(Some((pager, part)));
}

/// They are nobody's.
pub fn leave() {
    HERE.set(None);
}
