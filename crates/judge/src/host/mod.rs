//! The kernel this runs on, as a subject.
//!
//! **Guarantee.** Calls are performed by the kernel in a process of their own, without privilege and under the world's
//! limits. Whatever happens to that process is a [`Lost`], never a wait without end.
//!
//! **Mechanism.** The process is forked off, not started: it needs no file of its own, and a test can have many. Requests
//! and replies lie in shared memory (`wire.rs`), a byte through a socket says whose turn it is. The process itself is in
//! `child.rs`, accesses that may fault in `access.rs`.

mod access;
mod child;
mod smaps;
mod wire;

use crate::abi::PAGE;
use crate::call::Call;
use crate::subject::{Counters, Lost, MapLine, Outcome, PageView, Signal, Subject};
use crate::world::{Traits, World};
use child::Child;
use core::ffi::c_int;
use std::cell::Cell;
use std::ffi::CString;
use std::io;
use std::sync::Mutex;
use wire::{BULK, Glance, MOST_PAGES, NAME, Op, Region, Reply, Request, State};

/// Seconds without a reply after which the process counts as lost.
const PATIENCE_S: i64 = 20;
/// Where descriptors of the process begin; all others are closed in it.
const DESCRIPTORS: c_int = 400;

/// `MAP_PRIVATE`, `MAP_ANONYMOUS` and `MAP_FIXED`.
const FIXED: u32 = 0x32;

/// One process at a time is made, so that none inherits a socket of another that is half made.
static MAKING: Mutex<()> = Mutex::new(());

/// A process that performs calls.
pub struct Host {
    world: World,
    region: *mut Region,
    socket: c_int,
    /// The process, until it was waited for.
    process: Cell<Option<libc::pid_t>>,
}

fn lost(what: &str) -> Lost {
    Lost(format!("{what}: {}", io::Error::last_os_error()))
}

/// The kernel's release, for reports.
pub fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_string()
}

/// What this kernel and processor decide, asked of them.
///
/// # Errors
///
/// No process could be made to ask.
pub fn traits() -> Result<Traits, Lost> {
    let mut world = World::new(Traits::default());
    let number = |text: String| text.trim().parse().ok();
    let min_addr = std::fs::read_to_string("/proc/sys/vm/mmap_min_addr").ok().and_then(number).unwrap_or(65536);
    world.traits.min_addr = min_addr;
    let mut host = Host::new(&world)?;
    let (addr, len) = (world.start, PAGE);
    let map = |prot, at| Call::Mmap { addr: at, len, prot, flags: FIXED, file: None, offset: 0 };
    host.perform(&map(crate::abi::PROT_READ, addr))?;
    let named = host.perform(&Call::Name { addr, len, name: Some("a".to_string()) })?;
    host.perform(&map(crate::abi::PROT_EXEC, addr))?;
    let read = host.perform(&Call::Read { addr, len: 1 })?;
    Ok(Traits { anon_names: named.is_success(), exec_only: !read.is_success(), min_addr })
}

impl Host {
    /// A process with an empty window and fresh files.
    ///
    /// # Errors
    ///
    /// The system did not give a process, or it could not be set up.
    pub fn new(world: &World) -> Result<Self, Lost> {
        let _one = MAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let files = open_files(world)?;
        let made = Self::fork_off(world, &files);
        for file in files {
            // SAFETY: opened above, and the process has its own.
            unsafe { libc::close(file) };
        }
        let host = made?;
        match host.await_reply()? {
            Reply { state: State::Returned, .. } => Ok(host),
            _ => Err(Lost("the process could not be set up; it said why on standard error".to_string())),
        }
    }

    fn fork_off(world: &World, files: &[c_int]) -> Result<Self, Lost> {
        let region = new_region()?;
        let mut ends = [0; 2];
        // SAFETY: the array lives through the call.
        if unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET, 0, ends.as_mut_ptr()) } != 0 {
            return Err(lost("socketpair"));
        }
        // SAFETY: the child keeps to system calls and to memory it was born with.
        let process = unsafe { libc::fork() };
        if process == 0 {
            live(region, ends[1], world, files);
        }
        // SAFETY: the process has its own.
        unsafe { libc::close(ends[1]) };
        if process < 0 {
            return Err(lost("fork"));
        }
        let patience = libc::timeval { tv_sec: PATIENCE_S, tv_usec: 0 };
        let len = size_of::<libc::timeval>() as libc::socklen_t;
        // SAFETY: the structure lives through the call.
        unsafe { libc::setsockopt(ends[0], libc::SOL_SOCKET, libc::SO_RCVTIMEO, (&raw const patience).cast(), len) };
        Ok(Self { world: world.clone(), region, socket: ends[0], process: Cell::new(Some(process)) })
    }

    fn await_reply(&self) -> Result<Reply, Lost> {
        let mut byte = [0_u8];
        // SAFETY: the byte lives through the call.
        match unsafe { libc::recv(self.socket, byte.as_mut_ptr().cast(), 1, 0) } {
            // SAFETY: it is our turn: the process wrote its reply before the byte.
            1 => Ok(unsafe { (*self.region).reply }),
            0 => Err(self.ended()),
            // The process was killed before it had read the request.
            _ if io::Error::last_os_error().kind() == io::ErrorKind::ConnectionReset => Err(self.ended()),
            _ => Err(lost("no reply")),
        }
    }

    /// Kills the process, to see what is said of that.
    pub fn kill(&self) {
        if let Some(process) = self.process.get() {
            // SAFETY: the process is ours and not yet waited for, so the number is still its.
            unsafe { libc::kill(process, libc::SIGKILL) };
        }
    }

    fn ended(&self) -> Lost {
        Lost(format!("the process ended: {}", self.fate()))
    }

    /// How the process ended. Its socket is closed a moment before it can be waited for.
    fn fate(&self) -> String {
        let Some(process) = self.process.get() else { return "some time ago".to_string() };
        let mut status = 0;
        for _ in 0..100 {
            // SAFETY: the status lives through the call.
            if unsafe { libc::waitpid(process, &raw mut status, libc::WNOHANG) } == process {
                self.process.set(None);
                let killed = libc::WIFSIGNALED(status);
                let signal = libc::WTERMSIG(status);
                return if killed { format!("killed by signal {signal}") } else { format!("status {status:#x}") };
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        "it still runs".to_string()
    }

    fn ask(&self, op: Op, args: [u64; 7], name: [u8; NAME]) -> Result<Reply, Lost> {
        // SAFETY: (1) it is our turn, since the last reply was received; (2) the byte lives through the call.
        let sent = unsafe {
            (*self.region).request = Request { op, args, name };
            libc::send(self.socket, [0_u8].as_ptr().cast(), 1, libc::MSG_NOSIGNAL)
        };
        if sent != 1 {
            return Err(self.ended());
        }
        let reply = self.await_reply()?;
        match reply.state {
            State::ChildDied => Err(Lost(format!("a forked child died with status {:#x}", reply.value))),
            State::Unable => Err(Lost("the process cannot look at itself".to_string())),
            _ => Ok(reply),
        }
    }

    fn bulk(&self) -> *mut u8 {
        // SAFETY: mapped as long as `self`; no reference is made.
        unsafe { (&raw mut (*self.region).bulk).cast() }
    }

    fn glance_at(&mut self, addrs: &[u64]) -> Result<Vec<PageView>, Lost> {
        let glances = self.bulk().cast::<Glance>();
        for (i, addr) in addrs.iter().enumerate() {
            // SAFETY: at most `MOST_PAGES` fit, and it is our turn.
            unsafe { glances.add(i).write(Glance { word: *addr, signal: 0, has_hash: 0 }) };
        }
        self.ask(Op::Pages, [addrs.len() as u64, 0, 0, 0, 0, 0, 0], [0; NAME])?;
        // SAFETY: as above; the process has replied.
        Ok((0..addrs.len()).map(|i| view_of(unsafe { glances.add(i).read() })).collect())
    }
}

impl Subject for Host {
    fn name(&self) -> &str {
        "kernel"
    }

    fn perform(&mut self, call: &Call) -> Result<Outcome, Lost> {
        let (op, args, name) = encode(call);
        let reply = self.ask(op, args, name)?;
        Ok(match reply.state {
            State::Elsewhere => Outcome::Elsewhere,
            State::Copied => {
                let fault = fault_of(reply.signal);
                Outcome::Bytes { count: reply.value as u64, hash: reply.second, fault }
            }
            _ if (-4095..0).contains(&reply.value) => Outcome::Failed(-reply.value as i32),
            _ => Outcome::Done(reply.value as u64),
        })
    }

    fn maps(&mut self) -> Result<Vec<MapLine>, Lost> {
        let len = self.ask(Op::Listing, [0; 7], [0; NAME])?.value as usize;
        // SAFETY: so many bytes were written, and it is our turn.
        let bytes = unsafe { core::slice::from_raw_parts(self.bulk(), len.min(BULK)) };
        smaps::parse(&String::from_utf8_lossy(bytes), &self.world)
    }

    fn pages(&mut self, addrs: &[u64]) -> Result<Vec<PageView>, Lost> {
        let mut views = Vec::with_capacity(addrs.len());
        for part in addrs.chunks(MOST_PAGES) {
            views.extend(self.glance_at(part)?);
        }
        Ok(views)
    }

    fn counters(&mut self) -> Result<Option<Counters>, Lost> {
        let reply = self.ask(Op::Counters, [0; 7], [0; NAME])?;
        Ok(Some(Counters { mapped: reply.value as u64, locked: reply.second }))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill();
        if let Some(process) = self.process.get() {
            // SAFETY: the process is ours and not yet waited for.
            unsafe { libc::waitpid(process, core::ptr::null_mut(), 0) };
        }
        // SAFETY: the socket and the region are ours, and used no more.
        unsafe {
            libc::close(self.socket);
            libc::munmap(self.region.cast(), size_of::<Region>());
        }
    }
}

fn new_region() -> Result<*mut Region, Lost> {
    let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: new memory, wherever there is room.
    let region = unsafe { libc::mmap(core::ptr::null_mut(), size_of::<Region>(), prot, flags, -1, 0) };
    if region == libc::MAP_FAILED { Err(lost("mmap")) } else { Ok(region.cast()) }
}

/// The world's files, opened as it says.
fn open_files(world: &World) -> Result<Vec<c_int>, Lost> {
    let objects: Vec<c_int> = (0..world.objects.len()).map(|i| new_object(i, world.objects[i].len)).collect::<Result<_, _>>()?;
    let open = |file: &crate::world::File| {
        let mode = match (file.readable, file.writable) {
            (true, true) => libc::O_RDWR,
            (true, false) => libc::O_RDONLY,
            _ => libc::O_WRONLY,
        };
        let path = CString::new(format!("/proc/self/fd/{}", objects[file.object])).expect("it has no zero in it");
        // SAFETY: the path lives through the call.
        match unsafe { libc::open(path.as_ptr(), mode | libc::O_CLOEXEC) } {
            -1 => Err(lost("a file cannot be opened again")),
            file => Ok(file),
        }
    };
    let files = world.files.iter().map(open).collect();
    for object in &objects {
        // SAFETY: opened above; the files are opened on their own.
        unsafe { libc::close(*object) };
    }
    files
}

fn new_object(index: usize, len: u64) -> Result<c_int, Lost> {
    let name = CString::new(format!("{}{index}", smaps::FILE_NAME)).expect("it has no zero in it");
    let bytes: Vec<u8> = (0..len).map(|at| World::byte(index, at)).collect();
    // SAFETY: (1) the name lives through the call; (2) so do the bytes.
    unsafe {
        let file = libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC);
        if file < 0 || libc::write(file, bytes.as_ptr().cast(), bytes.len()) != bytes.len() as isize {
            return Err(lost("memfd_create"));
        }
        Ok(file)
    }
}

/// The life of the process.
fn live(region: *mut Region, socket: c_int, world: &World, files: &[c_int]) -> ! {
    // SAFETY: descriptors are numbers; those that are kept lie above all others.
    unsafe {
        libc::dup2(socket, DESCRIPTORS);
        for (i, file) in files.iter().enumerate() {
            libc::dup2(*file, DESCRIPTORS + 1 + i as c_int);
        }
        libc::syscall(libc::SYS_close_range, 3, DESCRIPTORS - 1, 0);
        libc::syscall(libc::SYS_close_range, DESCRIPTORS + 1 + files.len() as c_int, c_int::MAX, 0);
    }
    let mut child = Child::new(region, DESCRIPTORS, world);
    let prepared = child.prepare(world);
    if let Err(why) = prepared {
        // SAFETY: the text lives through the call. Nothing that allocates or locks.
        unsafe { libc::write(2, why.as_ptr().cast(), why.len()) };
    }
    let state = if prepared.is_ok() { State::Returned } else { State::Unable };
    child.reply(Reply { state, signal: 0, value: 0, second: 0 });
    child.serve()
}

fn encode(call: &Call) -> (Op, [u64; 7], [u8; NAME]) {
    let mut text = [0; NAME];
    let system = |number: libc::c_long, a: u64, b: u64, c: u64| (Op::Syscall, [number as u64, a, b, c, 0, 0, 0]);
    let (op, args) = match call {
        Call::Mmap { addr, len, prot, flags, file, offset } => {
            let file = file.map_or(u64::MAX, |file| (DESCRIPTORS + 1) as u64 + file as u64);
            (Op::Place, [libc::SYS_mmap as u64, *addr, *len, (*prot).into(), (*flags).into(), file, *offset])
        }
        Call::Mremap { old, old_len, new_len, flags, new_addr } => {
            (Op::Place, [libc::SYS_mremap as u64, *old, *old_len, *new_len, (*flags).into(), *new_addr, 0])
        }
        Call::Munmap { addr, len } => system(libc::SYS_munmap, *addr, *len, 0),
        Call::Mprotect { addr, len, prot } => system(libc::SYS_mprotect, *addr, *len, (*prot).into()),
        Call::Madvise { addr, len, advice } => system(libc::SYS_madvise, *addr, *len, *advice as u64),
        Call::Mlock { addr, len } => system(libc::SYS_mlock, *addr, *len, 0),
        Call::Mlock2 { addr, len, flags } => system(libc::SYS_mlock2, *addr, *len, (*flags).into()),
        Call::Munlock { addr, len } => system(libc::SYS_munlock, *addr, *len, 0),
        Call::Msync { addr, len, flags } => system(libc::SYS_msync, *addr, *len, (*flags).into()),
        Call::Brk { offset } => (Op::Brk, [*offset, 0, 0, 0, 0, 0, 0]),
        Call::Name { addr, len, name } => {
            let bytes = name.as_deref().unwrap_or("").as_bytes();
            let kept = bytes.len().min(NAME - 1);
            text[..kept].copy_from_slice(&bytes[..kept]);
            (Op::Name, [*addr, *len, name.is_some().into(), 0, 0, 0, 0])
        }
        Call::Read { addr, len } => (Op::Read, [*addr, *len, 0, 0, 0, 0, 0]),
        Call::Write { addr, len, seed } => (Op::Write, [*addr, *len, (*seed).into(), 0, 0, 0, 0]),
        Call::Fork => (Op::Fork, [0; 7]),
        Call::Exit => (Op::Exit, [0; 7]),
    };
    (op, args, text)
}

fn fault_of(signal: i32) -> Option<Signal> {
    match signal {
        0 => None,
        libc::SIGBUS => Some(Signal::Bus),
        _ => Some(Signal::Segv),
    }
}

fn view_of(glance: Glance) -> PageView {
    let hash = (glance.has_hash != 0).then_some(glance.word);
    match (fault_of(glance.signal), hash) {
        (None, Some(hash)) => PageView::Seen(hash),
        (Some(Signal::Bus), _) => PageView::Bus,
        (_, hash) => PageView::Hidden(hash),
    }
}
