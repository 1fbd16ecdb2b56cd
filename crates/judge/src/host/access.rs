//! User accesses that may fault.
//!
//! **Guarantee.** [`copy`] moves bytes in order until one cannot be moved, and says how many were and which signal stopped
//! it. A fault anywhere else in the process still kills it.
//!
//! **Mechanism.** The copy is a routine with a known first and last instruction. The handler of SIGSEGV and SIGBUS moves
//! an instruction pointer that lies between them to the routine's end, where the counter is the result.

use crate::subject::Signal;
use core::arch::global_asm;
use core::ffi::{c_int, c_void};
use core::ptr::{addr_of, addr_of_mut};

// Words where everything is a multiple of eight, since looking at pages is most of the work; else bytes. A word that is
// aligned never lies across two pages, so the count is exact in both.
global_asm!(
    ".globl spile_judge_copy",
    ".globl spile_judge_copy_end",
    "spile_judge_copy:",
    "xor eax, eax",
    "mov r8, rdi",
    "or r8, rsi",
    "or r8, rdx",
    "test r8b, 7",
    "jnz 4f",
    "2:",
    "cmp rax, rdx",
    "jae spile_judge_copy_end",
    "mov rcx, [rsi + rax]",
    "mov [rdi + rax], rcx",
    "add rax, 8",
    "jmp 2b",
    "4:",
    "cmp rax, rdx",
    "jae spile_judge_copy_end",
    "mov cl, [rsi + rax]",
    "mov [rdi + rax], cl",
    "inc rax",
    "jmp 4b",
    "spile_judge_copy_end:",
    "ret",
);

unsafe extern "C" {
    fn spile_judge_copy(to: u64, from: u64, len: u64) -> u64;
    fn spile_judge_copy_end();
}

const STACK: usize = 32 << 10;

#[repr(align(16))]
struct HandlerStack {
    _bytes: [u8; STACK],
}

// Both belong to the one thread of the child.
static mut CAUGHT: c_int = 0;
static mut HANDLER_STACK: HandlerStack = HandlerStack { _bytes: [0; STACK] };

/// Copies until a fault.
///
/// # Safety
///
/// 1. [`install`] was called in this process. 2. What is written at `to` and read at `from`, as far as it is mapped, is
///    nothing that Rust knows of, or is lent to this call.
pub unsafe fn copy(to: u64, from: u64, len: u64) -> (u64, Option<Signal>) {
    // SAFETY: (1) one thread, and the handler runs only within the call below; (2) as promised by the caller.
    unsafe {
        CAUGHT = 0;
        let count = spile_judge_copy(to, from, len);
        let fault = match CAUGHT {
            0 => None,
            libc::SIGBUS => Some(Signal::Bus),
            _ => Some(Signal::Segv),
        };
        (count, fault)
    }
}

extern "C" fn on_fault(signal: c_int, _info: *mut libc::siginfo_t, context: *mut c_void) {
    let context = context.cast::<libc::ucontext_t>();
    let (first, end) = (spile_judge_copy as *const () as usize as i64, spile_judge_copy_end as *const () as usize as i64);
    // SAFETY: (1) the kernel hands over the context of the interrupted code; (2) `CAUGHT` is this thread's.
    unsafe {
        let at = &mut (*context).uc_mcontext.gregs[libc::REG_RIP as usize];
        if (first..end).contains(at) {
            CAUGHT = signal;
            *at = end;
        } else {
            // Not ours: the access is repeated without a handler, and kills.
            libc::signal(signal, libc::SIG_DFL);
        }
    }
}

/// Installs the handler. Returns whether that worked.
///
/// # Safety
///
/// The process has one thread, and no other use for the two signals.
pub unsafe fn install() -> bool {
    // SAFETY: (1) the structures are plain data, zero is a value of theirs; (2) the stack is a static of this size, used
    // by nothing else; (3) the handler only touches its context and a static of the one thread.
    unsafe {
        let mut stack: libc::stack_t = core::mem::zeroed();
        stack.ss_sp = addr_of_mut!(HANDLER_STACK).cast();
        stack.ss_size = STACK;
        let mut action: libc::sigaction = core::mem::zeroed();
        action.sa_sigaction = on_fault as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        let null = core::ptr::null_mut();
        libc::sigaltstack(addr_of!(stack), null) == 0
            && libc::sigaction(libc::SIGSEGV, addr_of!(action), core::ptr::null_mut()) == 0
            && libc::sigaction(libc::SIGBUS, addr_of!(action), core::ptr::null_mut()) == 0
    }
}
