//! What the judge and the process it commands write to each other.
//!
//! **Guarantee.** Both sides are the same program, so the layouts agree.
//!
//! **Mechanism.** One shared region: a request, a reply, and a bulk area for listings and pages. Whose turn it is to
//! write is told by one byte through a socket, which also tells when the other side is gone.

use core::mem::size_of;

/// Bytes of the bulk area.
pub const BULK: usize = 2 << 20;
/// Bytes of a name, with its end.
pub const NAME: usize = 96;
/// Pages that one request may ask for.
pub const MOST_PAGES: usize = 8192;

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Op {
    /// `args[0]` is a system call's number, the others are its arguments.
    Syscall,
    /// A call whose result is an address that must lie in the window; the second argument from the end is its length.
    Place,
    /// `prctl` to name the range of `args[0]` and `args[1]`; `args[2]` says whether there is a name.
    Name,
    /// The break is moved to `args[0]` above the first.
    Brk,
    /// `args[1]` bytes are read at `args[0]`.
    Read,
    /// `args[1]` bytes are written at `args[0]`, with seed `args[2]`.
    Write,
    /// The process forks, and the child answers.
    Fork,
    /// The child exits, and the parent answers.
    Exit,
    /// The text of `/proc/self/smaps` is wanted in the bulk area.
    Listing,
    /// The pages whose addresses stand in the bulk area are looked at.
    Pages,
    /// The counters.
    Counters,
}

/// A request.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Request {
    /// What is asked.
    pub op: Op,
    /// Its arguments.
    pub args: [u64; 7],
    /// A name, if one is passed.
    pub name: [u8; NAME],
}

/// What became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum State {
    /// `value` is the result, or the negative error number.
    Returned,
    /// The mapping lay outside the window.
    Elsewhere,
    /// `value` bytes were copied before the signal.
    Copied,
    /// A child died of a signal; `value` is the status.
    ChildDied,
    /// What was asked for cannot be had.
    Unable,
}

/// A reply.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Reply {
    /// What became of the request.
    pub state: State,
    /// Zero, SIGSEGV or SIGBUS.
    pub signal: i32,
    /// The result.
    pub value: i64,
    /// A hash, or a second result.
    pub second: u64,
}

/// A looked-at page.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Glance {
    /// The address on the way in; the hash on the way out.
    pub word: u64,
    /// Zero, SIGSEGV or SIGBUS.
    pub signal: i32,
    /// Whether there is a hash.
    pub has_hash: i32,
}

/// The shared region.
#[repr(C, align(4096))]
pub struct Region {
    /// Written by the judge.
    pub request: Request,
    /// Written by the process.
    pub reply: Reply,
    /// Listings and pages.
    pub bulk: [u8; BULK],
}

const _: () = assert!(size_of::<Glance>() * MOST_PAGES <= BULK);
