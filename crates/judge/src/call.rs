//! The calls a sequence is made of.
//!
//! **Guarantee.** A call says all that a subject needs; its `Display` is one line in the manner of C, with names for flags.
//!
//! **Mechanism.** Arguments are raw numbers of the Linux ABI. Files are indices into the world's files, and `brk` counts
//! from where the process's break began, since neither number is the same in two processes.

use crate::abi::*;
use std::fmt;

/// One step of a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The fields are the arguments of the calls they are named after.
pub enum Call {
    /// `mmap(2)`. Without a file the descriptor is -1.
    Mmap { addr: u64, len: u64, prot: u32, flags: u32, file: Option<usize>, offset: u64 },
    /// `munmap(2)`.
    Munmap { addr: u64, len: u64 },
    /// `mprotect(2)`.
    Mprotect { addr: u64, len: u64, prot: u32 },
    /// `mremap(2)`.
    Mremap { old: u64, old_len: u64, new_len: u64, flags: u32, new_addr: u64 },
    /// `brk(2)` to so many bytes above the first break.
    Brk { offset: u64 },
    /// `madvise(2)`.
    Madvise { addr: u64, len: u64, advice: i32 },
    /// `mlock(2)`.
    Mlock { addr: u64, len: u64 },
    /// `mlock2(2)`.
    Mlock2 { addr: u64, len: u64, flags: u32 },
    /// `munlock(2)`.
    Munlock { addr: u64, len: u64 },
    /// `msync(2)`.
    Msync { addr: u64, len: u64, flags: u32 },
    /// `prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, ...)`; `None` clears the name.
    Name { addr: u64, len: u64, name: Option<String> },
    /// User memory is read, byte after byte, until one faults.
    Read { addr: u64, len: u64 },
    /// User memory is written, byte after byte, until one faults; [`World::written`](crate::World::written) says with what.
    Write { addr: u64, len: u64, seed: u8 },
    /// The process forks, and the child is the subject from now on.
    Fork,
    /// The child exits, and its parent is the subject again. Nothing where there is no parent.
    Exit,
}

impl Call {
    /// All verbs, in the order of the matrix.
    pub const VERBS: [&str; 15] = [
        "mmap", "munmap", "mprotect", "mremap", "brk", "madvise", "mlock", "mlock2", "munlock", "msync", "name", "read", "write",
        "fork", "exit",
    ];

    /// The name of the call.
    pub fn verb(&self) -> &'static str {
        let index = match self {
            Self::Mmap { .. } => 0,
            Self::Munmap { .. } => 1,
            Self::Mprotect { .. } => 2,
            Self::Mremap { .. } => 3,
            Self::Brk { .. } => 4,
            Self::Madvise { .. } => 5,
            Self::Mlock { .. } => 6,
            Self::Mlock2 { .. } => 7,
            Self::Munlock { .. } => 8,
            Self::Msync { .. } => 9,
            Self::Name { .. } => 10,
            Self::Read { .. } => 11,
            Self::Write { .. } => 12,
            Self::Fork => 13,
            Self::Exit => 14,
        };
        Self::VERBS[index]
    }
}

/// `value` as names joined by `|`, with what has no name in hexadecimal.
fn named(value: u64, names: &[(u32, &str)], zero: &str) -> String {
    let mut left = value;
    let mut parts = Vec::new();
    for (bits, name) in names {
        if left & u64::from(*bits) == u64::from(*bits) && left != 0 {
            parts.push((*name).to_string());
            left &= !u64::from(*bits);
        }
    }
    if left != 0 {
        parts.push(format!("{left:#x}"));
    }
    if parts.is_empty() { zero.to_string() } else { parts.join("|") }
}

/// Protection bits by name.
pub fn prot_names(prot: u32) -> String {
    let names = [
        (PROT_READ, "PROT_READ"),
        (PROT_WRITE, "PROT_WRITE"),
        (PROT_EXEC, "PROT_EXEC"),
        (PROT_SEM, "PROT_SEM"),
        (PROT_GROWSDOWN, "PROT_GROWSDOWN"),
        (PROT_GROWSUP, "PROT_GROWSUP"),
    ];
    named(prot.into(), &names, "PROT_NONE")
}

/// Flags of `mmap` by name.
pub fn map_names(flags: u32) -> String {
    let kind = match flags & MAP_TYPE {
        MAP_SHARED => "MAP_SHARED",
        MAP_PRIVATE => "MAP_PRIVATE",
        MAP_SHARED_VALIDATE => "MAP_SHARED_VALIDATE",
        _ => "",
    };
    let names = [
        (MAP_ANONYMOUS, "MAP_ANONYMOUS"),
        (MAP_FIXED_NOREPLACE, "MAP_FIXED_NOREPLACE"),
        (MAP_FIXED, "MAP_FIXED"),
        (MAP_GROWSDOWN, "MAP_GROWSDOWN"),
        (MAP_LOCKED, "MAP_LOCKED"),
        (MAP_NORESERVE, "MAP_NORESERVE"),
        (MAP_POPULATE, "MAP_POPULATE"),
        (MAP_NONBLOCK, "MAP_NONBLOCK"),
        (MAP_STACK, "MAP_STACK"),
        (MAP_SYNC, "MAP_SYNC"),
    ];
    if kind.is_empty() {
        return named(flags.into(), &names, "0");
    }
    match flags & !MAP_TYPE {
        0 => kind.to_string(),
        rest => format!("{kind}|{}", named(rest.into(), &names, "0")),
    }
}

/// An advice by name.
pub fn advice_name(advice: i32) -> String {
    let name = match advice {
        MADV_NORMAL => "NORMAL",
        MADV_RANDOM => "RANDOM",
        MADV_SEQUENTIAL => "SEQUENTIAL",
        MADV_WILLNEED => "WILLNEED",
        MADV_DONTNEED => "DONTNEED",
        MADV_FREE => "FREE",
        MADV_DONTFORK => "DONTFORK",
        MADV_DOFORK => "DOFORK",
        MADV_DONTDUMP => "DONTDUMP",
        MADV_DODUMP => "DODUMP",
        MADV_WIPEONFORK => "WIPEONFORK",
        MADV_KEEPONFORK => "KEEPONFORK",
        MADV_COLD => "COLD",
        MADV_PAGEOUT => "PAGEOUT",
        MADV_POPULATE_READ => "POPULATE_READ",
        MADV_POPULATE_WRITE => "POPULATE_WRITE",
        other => return other.to_string(),
    };
    format!("MADV_{name}")
}

fn msync_names(flags: u32) -> String {
    named(flags.into(), &[(MS_ASYNC, "MS_ASYNC"), (MS_INVALIDATE, "MS_INVALIDATE"), (MS_SYNC, "MS_SYNC")], "0")
}

fn mremap_names(flags: u32) -> String {
    let names = [(MREMAP_MAYMOVE, "MREMAP_MAYMOVE"), (MREMAP_FIXED, "MREMAP_FIXED"), (MREMAP_DONTUNMAP, "MREMAP_DONTUNMAP")];
    named(flags.into(), &names, "0")
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mmap { addr, len, prot, flags, file, offset } => {
                let (prot, flags) = (prot_names(*prot), map_names(*flags));
                let file = file.map_or("-1".to_string(), |file| format!("file{file}"));
                write!(f, "mmap({addr:#x}, {len:#x}, {prot}, {flags}, {file}, {offset:#x})")
            }
            Self::Munmap { addr, len } => write!(f, "munmap({addr:#x}, {len:#x})"),
            Self::Mprotect { addr, len, prot } => write!(f, "mprotect({addr:#x}, {len:#x}, {})", prot_names(*prot)),
            Self::Mremap { old, old_len, new_len, flags, new_addr } => {
                write!(f, "mremap({old:#x}, {old_len:#x}, {new_len:#x}, {}, {new_addr:#x})", mremap_names(*flags))
            }
            Self::Brk { offset } => write!(f, "brk(first + {offset:#x})"),
            Self::Madvise { addr, len, advice } => write!(f, "madvise({addr:#x}, {len:#x}, {})", advice_name(*advice)),
            Self::Mlock { addr, len } => write!(f, "mlock({addr:#x}, {len:#x})"),
            Self::Mlock2 { addr, len, flags } => {
                write!(f, "mlock2({addr:#x}, {len:#x}, {})", named((*flags).into(), &[(MLOCK_ONFAULT, "MLOCK_ONFAULT")], "0"))
            }
            Self::Munlock { addr, len } => write!(f, "munlock({addr:#x}, {len:#x})"),
            Self::Msync { addr, len, flags } => write!(f, "msync({addr:#x}, {len:#x}, {})", msync_names(*flags)),
            Self::Name { addr, len, name } => write!(f, "prctl(PR_SET_VMA_ANON_NAME, {addr:#x}, {len:#x}, {name:?})"),
            Self::Read { addr, len } => write!(f, "read({addr:#x}, {len:#x})"),
            Self::Write { addr, len, seed } => write!(f, "write({addr:#x}, {len:#x}, seed {seed})"),
            Self::Fork => write!(f, "fork()"),
            Self::Exit => write!(f, "exit()"),
        }
    }
}
