//! The host's own kernel, by system calls.
//!
//! **Guarantee.** The process has pages of one size: large ones are switched off for it. What is mapped is where nothing else is.
//!
//! **Mechanism.** This runs in a process of its own ([`child`](super::child)), so that nobody else's heap or mappings are in the way. It counts the faults
//! of that process, and nothing else: the kernel does not say more.

use super::target::{Events, Target};
use super::workload::{Counts, PAGE};
use anyhow::{Context, Result};
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};
use std::ffi::c_void;
use std::fs::File;
use std::io::Read as _;
use std::ptr;

/// This process.
#[derive(Debug)]
pub struct Host {
    /// Where the break was in the beginning.
    brk: u64,
}

fn brk(to: u64) -> u64 {
    // SAFETY: (1) the break goes no further down than it was when this process began to measure, and nothing is put into what it adds.
    unsafe { libc::syscall(libc::SYS_brk, to) as u64 }
}

fn pointer(at: u64) -> *mut c_void {
    ptr::with_exposed_provenance_mut(at as usize)
}

const RW: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);

fn map(at: Option<u64>, len: u64, more: MapFlags) -> u64 {
    let at = at.map_or(ptr::null_mut(), pointer);
    // SAFETY: (1) new memory, where nothing is or where the kernel likes, or over what a workload has mapped and keeps no reference to.
    let mapped = unsafe { rustix::mm::mmap_anonymous(at, len as usize, RW, MapFlags::PRIVATE | more) };
    mapped.expect("nothing is there, and there is memory").expose_provenance() as u64
}

/// Writes a byte of each page.
///
/// # Safety
///
/// (1) They are memory that may be written, and nobody has a reference to it; (2) no other thread uses those bytes.
#[inline]
pub(super) unsafe fn write(at: u64, len: u64) {
    for page in (at..at + len).step_by(PAGE as usize) {
        // SAFETY: (1) and (2) the caller's.
        unsafe { pointer(page).cast::<u8>().write_volatile(1) };
    }
}

/// Reads one.
///
/// # Safety
///
/// (1) They are memory that may be read; (2) no other thread writes those bytes.
#[inline]
pub(super) unsafe fn read(at: u64, len: u64) {
    for page in (at..at + len).step_by(PAGE as usize) {
        // SAFETY: (1) and (2) the caller's.
        unsafe { pointer(page).cast::<u8>().read_volatile() };
    }
}

/// What `/proc` says of this process.
fn slurp(name: &str, text: &mut String) -> usize {
    text.clear();
    let mut file = File::open(name).expect("/proc is there");
    file.read_to_string(text).expect("it is text")
}

impl Host {
    /// Of a process that begins to measure.
    ///
    /// # Errors
    ///
    /// Large pages cannot be switched off.
    pub fn new() -> Result<Self> {
        rustix::thread::disable_transparent_huge_pages(true).context("large pages cannot be switched off")?;
        Ok(Self { brk: brk(0).next_multiple_of(PAGE) })
    }
}

impl Target for Host {
    fn run<T>(&self, _: usize, program: impl FnOnce() -> T) -> T {
        program()
    }

    fn map(&self, at: Option<u64>, len: u64) -> u64 {
        map(at, len, if at.is_some() { MapFlags::FIXED_NOREPLACE } else { MapFlags::empty() })
    }

    fn map_over(&self, at: u64, len: u64) {
        map(Some(at), len, MapFlags::FIXED | MapFlags::POPULATE);
    }

    fn unmap(&self, at: u64, len: u64) {
        // SAFETY: (1) a workload's memory, to which nobody has a reference.
        unsafe { rustix::mm::munmap(pointer(at), len as usize) }.expect("there is memory");
    }

    fn write(&self, at: u64, len: u64) {
        // SAFETY: (1) a workload's memory, mapped to be written; (2) a thread writes to what is its own.
        unsafe { write(at, len) };
    }

    fn read(&self, at: u64, len: u64) {
        // SAFETY: (1) a workload's memory, mapped to be read; (2) a thread reads what is its own.
        unsafe { read(at, len) };
    }

    fn discard(&self, at: u64, len: u64) {
        // SAFETY: (1) a workload's memory, to which nobody has a reference.
        unsafe { rustix::mm::madvise(pointer(at), len as usize, Advice::LinuxDontNeed) }.expect("it is mapped");
    }

    fn protect(&self, at: u64, len: u64, writable: bool) {
        let bits = if writable { MprotectFlags::READ | MprotectFlags::WRITE } else { MprotectFlags::READ };
        // SAFETY: (1) a workload's memory, to which nobody has a reference.
        unsafe { rustix::mm::mprotect(pointer(at), len as usize, bits) }.expect("it is mapped, and there is memory");
    }

    fn brk(&self, above: u64) {
        brk(self.brk + above);
    }

    fn fork(&self) {
        // SAFETY: (1) the child calls nothing but `_exit`, which needs no lock that somebody may have held.
        let child = unsafe { libc::fork() };
        assert!(child >= 0, "there is memory for a child");
        if child == 0 {
            // SAFETY: (1) ends the child, without destructors.
            unsafe { libc::_exit(0) };
        }
        // SAFETY: (1) nobody wants to know how it ended.
        let gone = unsafe { libc::waitpid(child, ptr::null_mut(), 0) };
        assert_eq!(gone, child, "the child is ours");
    }

    fn list(&self, text: &mut String) -> usize {
        slurp("/proc/self/maps", text)
    }

    fn list_with_pages(&self, text: &mut String) -> usize {
        slurp("/proc/self/smaps", text)
    }

    fn events(&self) -> Events {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: (1) room for a record, which the call fills; zeros are one, too.
        let usage = unsafe {
            libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
            usage.assume_init()
        };
        let faults = (usage.ru_minflt + usage.ru_majflt) as u64;
        Events { counts: Counts { faults, ..Counts::default() }, ..Events::default() }
    }
}
