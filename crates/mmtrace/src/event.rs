//! What a line of a trace says.

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The number of its line, from 1.
    pub line: usize,
    /// Nanoseconds since the trace began.
    pub at_ns: u64,
    /// The thread, numbered in order of appearance.
    pub tid: u32,
    /// What happened.
    pub op: Op,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// The thread's process has a new, empty address space; what follows until the snapshot is the loader's work.
    ExecBegin,
    /// A process or thread was made.
    Clone {
        /// The new thread.
        child: u32,
        /// Linux's `CLONE_*`.
        flags: u64,
    },
    /// The thread is gone.
    Exit {
        /// It was the last of its group.
        last: bool,
    },
    /// A call began.
    Call(Call),
    /// The thread's last call ended: its result, or a positive errno.
    Return(Result<u64, i32>),
    /// A mapping as the kernel had it after the thread's change.
    Vma(VmaLine),
    /// A page fault.
    Fault(Fault),
    /// The lock of an address space was taken or given back.
    Lock {
        /// Taken; else given back.
        acquired: bool,
        /// For writing.
        write: bool,
        /// Of another process's address space.
        other: bool,
        /// It was tried, and not got.
        failed: bool,
    },
    /// All mappings, from the kernel.
    Snapshot(Snapshot),
    /// Something this crate does not look into.
    Other(String),
}

/// The file of a mapping call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileArg {
    /// None was given.
    None,
    /// A file of the table.
    File(u32),
    /// A descriptor that the recording does not resolve.
    Unknown,
}

/// A memory call, as the program made it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names of the calls' own arguments")]
pub enum Call {
    Mmap { addr: u64, len: u64, prot: u32, flags: u32, file: FileArg, offset: u64 },
    Munmap { addr: u64, len: u64 },
    Mprotect { addr: u64, len: u64, prot: u32 },
    Madvise { addr: u64, len: u64, advice: u32 },
    Mremap { old: u64, old_len: u64, new_len: u64, flags: u32, new: u64 },
    Brk { addr: u64 },
    Mlock { addr: u64, len: u64, flags: u32 },
    Munlock { addr: u64, len: u64 },
    AnonName { addr: u64, len: u64, name: u64 },
    Other(String),
}

impl Call {
    /// The addresses that the call is about, as it was made: none of those that choose some, move some, or do nothing here.
    pub fn range(&self) -> Option<(u64, u64)> {
        match *self {
            Self::Munmap { addr, len }
            | Self::Mprotect { addr, len, .. }
            | Self::Madvise { addr, len, .. }
            | Self::Mlock { addr, len, .. }
            | Self::Munlock { addr, len }
            | Self::AnonName { addr, len, .. } => Some((addr, len)),
            Self::Mmap { .. } | Self::Mremap { .. } | Self::Brk { .. } | Self::Other(_) => None,
        }
    }
}

/// What a mapping is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A file of the table.
    File(u32),
    /// Anonymous memory.
    Anon,
    /// The main stack.
    Stack,
    /// The heap that the break bounds.
    Heap,
    /// The kernel's own pages: vdso, vvar, vsyscall.
    Special,
}

/// A mapping as the kernel prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmaLine {
    /// The first address.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// `rwx` as Linux's `PROT_*`.
    pub prot: u32,
    /// Shared; else private.
    pub shared: bool,
    /// The byte of the file that it begins with.
    pub offset: u64,
    /// What it is of.
    pub what: What,
}

/// A page fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The page: address divided by 4096.
    pub page: u64,
    /// It was a store.
    pub write: bool,
    /// It was an instruction fetch.
    pub exec: bool,
    /// The page was there, and did not allow it.
    pub present: bool,
    /// Raised in the kernel, about user memory.
    pub kernel: bool,
}

/// All mappings of a process at its exec or exit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// At its exec; else at its exit.
    pub exec: bool,
    /// The mappings, ascending.
    pub vmas: Vec<SnapshotVma>,
}

/// A mapping of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotVma {
    /// What and where.
    pub vma: VmaLine,
    /// KiB in memory.
    pub rss_kib: u64,
    /// KiB of anonymous pages.
    pub anon_kib: u64,
    /// The kernel's two-letter flags, as in smaps.
    pub flags: Vec<[u8; 2]>,
}

impl SnapshotVma {
    /// Whether a flag is set: `gd`, `lo`, `dc`, ….
    pub fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|have| have == flag.as_bytes())
    }
}
