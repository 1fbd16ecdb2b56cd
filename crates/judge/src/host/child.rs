//! The process that performs the calls.
//!
//! **Guarantee.** Between two requests the process changes nothing in the window, and nothing of its own that counts
//! against a limit. Whatever a call does to it is told or ends it.
//!
//! **Mechanism.** A loop over requests that allocates nothing: it was forked from a program that may have many threads, so
//! it keeps to system calls and memory it was born with. A fork within hands the loop to the child; the parent waits for
//! it to exit and then goes on.

use super::access;
use super::wire::{BULK, Glance, MOST_PAGES, Op, Region, Reply, Request, State};
use crate::abi::{PAGE, page_up};
use crate::subject::{Signal, hash_bytes};
use crate::world::World;
use core::ffi::c_int;
use libc::{c_long, syscall};

/// Who cannot exceed its limits: root may lock what it likes.
const NOBODY: u32 = 65534;

pub(super) struct Child {
    pub region: *mut Region,
    pub socket: c_int,
    pub window: (u64, u64),
    first_break: u64,
    mapped_outside: u64,
    depth: u32,
}

fn errno() -> i64 {
    // SAFETY: the thread's own.
    i64::from(unsafe { *libc::__errno_location() })
}

/// A system call's result, an error as its negative number.
fn outcome(result: c_long) -> i64 {
    if result == -1 { -errno() } else { result }
}

fn signal_of(fault: Option<Signal>) -> i32 {
    match fault {
        None => 0,
        Some(Signal::Segv) => libc::SIGSEGV,
        Some(Signal::Bus) => libc::SIGBUS,
    }
}

const fn returned(value: i64) -> Reply {
    Reply { state: State::Returned, signal: 0, value, second: 0 }
}

impl Child {
    pub fn new(region: *mut Region, socket: c_int, world: &World) -> Self {
        Self { region, socket, window: (world.start, world.end), first_break: 0, mapped_outside: 0, depth: 0 }
    }

    /// Sets the process up: limits, identity, signals, an empty window. The name of what failed, if something did.
    pub fn prepare(&mut self, world: &World) -> Result<(), &'static str> {
        let len = self.window.1 - self.window.0;
        // SAFETY: (1) raw calls without pointers into Rust's memory; (2) the window is proved empty before it is unmapped.
        unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE | libc::MAP_NORESERVE;
            let at = outcome(syscall(libc::SYS_mmap, self.window.0, len, 0, flags, -1, 0));
            if at != self.window.0 as i64 || syscall(libc::SYS_munmap, self.window.0, len) != 0 {
                return Err("the window is not free");
            }
            let now = syscall(libc::SYS_brk, 0);
            self.first_break = syscall(libc::SYS_brk, page_up(now as u64)) as u64;
            if !self.first_break.is_multiple_of(PAGE) || !access::install() {
                return Err("no break or no handler");
            }
        }
        self.restrict(world)?;
        self.drop_identity()
    }

    fn restrict(&mut self, world: &World) -> Result<(), &'static str> {
        let limits = &world.limits;
        self.mapped_outside = status_pages(b"VmSize:").ok_or("no size in /proc/self/status")?;
        for (resource, pages) in [
            (libc::RLIMIT_AS, self.mapped_outside + limits.mapped),
            (libc::RLIMIT_MEMLOCK, limits.locked),
            (libc::RLIMIT_STACK, limits.stack),
        ] {
            let limit = libc::rlimit { rlim_cur: pages * PAGE, rlim_max: pages * PAGE };
            // SAFETY: the structure lives through the call.
            if unsafe { libc::setrlimit(resource, &raw const limit) } != 0 {
                return Err("a limit cannot be set");
            }
        }
        Ok(())
    }

    fn drop_identity(&self) -> Result<(), &'static str> {
        // SAFETY: raw calls; the C library's own would ask threads that do not exist here.
        unsafe {
            if syscall(libc::SYS_geteuid) == 0 {
                let groups = syscall(libc::SYS_setgroups, 0, 0);
                let group = syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY);
                let user = syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY);
                if (groups, group, user) != (0, 0, 0) {
                    return Err("root cannot be given up");
                }
            }
            // A change of identity hides /proc/self from oneself.
            syscall(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
            syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        }
        Ok(())
    }

    fn request(&self) -> Request {
        // SAFETY: the region is mapped for as long as the process lives, and it is our turn.
        unsafe { (*self.region).request }
    }

    fn bulk(&self) -> *mut u8 {
        // SAFETY: as above; no reference is made.
        unsafe { (&raw mut (*self.region).bulk).cast() }
    }

    /// Sends a reply; the process ends if nobody hears it.
    pub fn reply(&self, reply: Reply) {
        // SAFETY: (1) it is our turn to write; (2) the byte lives through the call.
        unsafe {
            (*self.region).reply = reply;
            if libc::send(self.socket, [0_u8].as_ptr().cast(), 1, libc::MSG_NOSIGNAL) != 1 {
                libc::_exit(0);
            }
        }
    }

    /// Serves requests until the judge is gone.
    pub fn serve(&mut self) -> ! {
        loop {
            let mut byte = [0_u8];
            // SAFETY: the byte lives through the call.
            let got = unsafe { libc::recv(self.socket, byte.as_mut_ptr().cast(), 1, 0) };
            if got != 1 {
                // SAFETY: nothing needs to be put in order.
                unsafe { libc::_exit(0) }
            }
            let request = self.request();
            let reply = self.perform(&request);
            self.reply(reply);
        }
    }

    fn perform(&mut self, request: &Request) -> Reply {
        let [a, b, c, ..] = request.args;
        match request.op {
            Op::Syscall => returned(raw(&request.args)),
            Op::Place => self.place(&request.args),
            Op::Name => name(a, b, (c != 0).then_some(&request.name)),
            Op::Brk => {
                // SAFETY: the generator never goes below the first break, and nothing of ours lies above it.
                let now = unsafe { syscall(libc::SYS_brk, self.first_break + a) };
                returned(now - self.first_break as i64)
            }
            Op::Read => self.read(a, b),
            Op::Write => self.write(a, b, c as u8),
            Op::Fork => self.fork(),
            Op::Exit => self.exit(),
            Op::Listing => self.listing(),
            Op::Pages => self.pages(a as usize),
            Op::Counters => self.counters(),
        }
    }

    /// A call that yields a mapping. What lies outside the window is unmapped at once.
    fn place(&self, args: &[u64; 7]) -> Reply {
        let at = raw(args);
        let inside = (self.window.0..self.window.1).contains(&(at as u64));
        if at < 0 || inside {
            return returned(at);
        }
        let len = if args[0] == libc::SYS_mremap as u64 { args[3] } else { args[2] };
        // SAFETY: the kernel has just placed it where nothing was.
        unsafe { syscall(libc::SYS_munmap, at, page_up(len)) };
        Reply { state: State::Elsewhere, signal: 0, value: 0, second: 0 }
    }

    fn read(&self, addr: u64, len: u64) -> Reply {
        let len = len.min(BULK as u64);
        // SAFETY: (1) installed by `prepare`; (2) the bulk area is ours to write, the window nobody's.
        let (count, fault) = unsafe { access::copy(self.bulk() as u64, addr, len) };
        // SAFETY: so many bytes were just written.
        let hash = hash_bytes(unsafe { core::slice::from_raw_parts(self.bulk(), count as usize) });
        Reply { state: State::Copied, signal: signal_of(fault), value: count as i64, second: hash }
    }

    fn write(&self, addr: u64, len: u64, seed: u8) -> Reply {
        let len = len.min(BULK as u64);
        for at in 0..len {
            // SAFETY: within the bulk area, which is ours to write.
            unsafe { self.bulk().add(at as usize).write(World::written(seed, at)) };
        }
        // SAFETY: (1) installed by `prepare`; (2) the window is nobody's.
        let (count, fault) = unsafe { access::copy(addr, self.bulk() as u64, len) };
        Reply { state: State::Copied, signal: signal_of(fault), value: count as i64, second: 0 }
    }

    fn fork(&mut self) -> Reply {
        // SAFETY: one thread, which goes on in the child with all it has; the parent only waits.
        let child = unsafe { syscall(libc::SYS_fork) };
        if child == 0 {
            self.depth += 1;
            // SAFETY: raw call.
            unsafe { syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
            return returned(0);
        }
        if child < 0 {
            return returned(-errno());
        }
        let mut status: c_int = 0;
        // SAFETY: the status lives through the call.
        unsafe { syscall(libc::SYS_wait4, child, &raw mut status, 0, 0) };
        match status {
            0 => returned(0),
            _ => Reply { state: State::ChildDied, signal: 0, value: status.into(), second: 0 },
        }
    }

    fn exit(&mut self) -> Reply {
        if self.depth > 0 {
            // SAFETY: nothing needs to be put in order; the parent answers.
            unsafe { libc::_exit(0) }
        }
        returned(0)
    }

    fn listing(&self) -> Reply {
        let text = read_file(c"/proc/self/smaps", self.bulk(), BULK);
        Reply { state: if text.is_some() { State::Returned } else { State::Unable }, ..returned(text.unwrap_or(0) as i64) }
    }

    fn pages(&self, count: usize) -> Reply {
        let glances = self.bulk().cast::<Glance>();
        // SAFETY: a constant name.
        let debugger = unsafe { libc::open(c"/proc/self/mem".as_ptr(), libc::O_RDONLY) };
        for i in 0..count.min(MOST_PAGES) {
            // SAFETY: within the bulk area, which is ours.
            unsafe { glances.add(i).write(glance(glances.add(i).read().word, debugger)) };
        }
        // SAFETY: opened above.
        unsafe { libc::close(debugger) };
        returned(0)
    }

    fn counters(&self) -> Reply {
        match (status_pages(b"VmSize:"), status_pages(b"VmLck:")) {
            (Some(mapped), Some(locked)) => Reply { second: locked, ..returned(mapped as i64 - self.mapped_outside as i64) },
            _ => Reply { state: State::Unable, ..returned(0) },
        }
    }
}

fn raw(args: &[u64; 7]) -> i64 {
    let [number, a, b, c, d, e, f] = *args;
    // SAFETY: the judge only passes ranges of the window, of nothing, or past the end; no pointer into Rust's memory.
    outcome(unsafe { syscall(number as c_long, a, b, c, d, e, f) })
}

fn name(addr: u64, len: u64, name: Option<&[u8]>) -> Reply {
    const PR_SET_VMA: c_int = 0x5356_4d41;
    let text = name.map_or(core::ptr::null(), <[u8]>::as_ptr);
    // SAFETY: the name ends with a zero, and lives through the call.
    returned(outcome(unsafe { syscall(libc::SYS_prctl, PR_SET_VMA, 0, addr, len, text) }))
}

/// A page as a user sees it, and where a user may not, as a debugger does.
fn glance(addr: u64, debugger: c_int) -> Glance {
    #[repr(align(8))]
    struct Page([u8; PAGE as usize]);
    let mut page = Page([0; PAGE as usize]);
    // SAFETY: (1) installed by `prepare`; (2) the page is lent to the call.
    let (_, fault) = unsafe { access::copy(page.0.as_mut_ptr() as u64, addr, PAGE) };
    let mut has_hash = fault.is_none();
    if fault == Some(Signal::Segv) {
        // SAFETY: the page is as long as what is asked for.
        let got = unsafe { libc::pread(debugger, page.0.as_mut_ptr().cast(), PAGE as usize, addr as i64) };
        has_hash = got == PAGE as isize;
    }
    Glance { word: if has_hash { hash_bytes(&page.0) } else { 0 }, signal: signal_of(fault), has_hash: has_hash.into() }
}

/// Reads a file of /proc. `None` if it does not fit.
fn read_file(path: &core::ffi::CStr, to: *mut u8, most: usize) -> Option<usize> {
    let mut len = 0;
    // SAFETY: (1) the path ends with a zero; (2) `to` has room for `most` bytes, of which `len` are taken.
    unsafe {
        let file = libc::open(path.as_ptr(), libc::O_RDONLY);
        loop {
            let got = libc::read(file, to.add(len).cast(), most - len);
            if got <= 0 {
                libc::close(file);
                return (got == 0 && len < most).then_some(len);
            }
            len += got as usize;
        }
    }
}

/// A line of /proc/self/status, in pages.
fn status_pages(key: &[u8]) -> Option<u64> {
    let mut text = [0_u8; 4096];
    let len = read_file(c"/proc/self/status", text.as_mut_ptr(), text.len())?;
    let line = text.get(..len)?.split(|byte| *byte == b'\n').find(|line| line.starts_with(key))?;
    let digits = line.iter().filter(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0')) / 4)
}
