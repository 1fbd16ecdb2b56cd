//! Where sequences happen: the window, the files and the limits.
//!
//! **Guarantee.** Two subjects made from one world begin in the same state.
//!
//! **Mechanism.** Everything a rule may depend on that is not a call is a field here; subjects read it, none reads its
//! surroundings. What depends on the kernel's configuration or on the processor is in [`Traits`], asked of the host once.

use crate::abi::PAGE;

/// What the kernel's configuration and the processor decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    /// Whether anonymous mappings can be named (`CONFIG_ANON_VMA_NAME`).
    pub anon_names: bool,
    /// Whether `PROT_EXEC` alone forbids reading (protection keys).
    pub exec_only: bool,
    /// The lowest address that may be mapped (`vm.mmap_min_addr`).
    pub min_addr: u64,
}

impl Default for Traits {
    fn default() -> Self {
        Self { anon_names: true, exec_only: false, min_addr: PAGE }
    }
}

/// Resource limits, in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `RLIMIT_AS`, counted from what is mapped outside the window.
    pub mapped: u64,
    /// `RLIMIT_MEMLOCK`.
    pub locked: u64,
    /// `RLIMIT_STACK`.
    pub stack: u64,
}

/// An object of bytes that files open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Bytes, not always a multiple of pages.
    pub len: u64,
}

/// An open file: an object and what it was opened for. Two of them may share an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Index in [`World::objects`].
    pub object: usize,
    /// Opened for reading.
    pub readable: bool,
    /// Opened for writing.
    pub writable: bool,
}

/// All that a sequence can depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    /// The first address of the window.
    pub start: u64,
    /// The address after the window.
    pub end: u64,
    /// The objects behind the files.
    pub objects: Vec<Object>,
    /// The files, in the order of [`Call::Mmap`](crate::Call::Mmap)'s `file`.
    pub files: Vec<File>,
    /// The limits.
    pub limits: Limits,
    /// What is not ours to choose.
    pub traits: Traits,
}

impl World {
    /// The usual world: a window of 64 MiB, files of all kinds, limits that are reached now and then.
    pub fn new(traits: Traits) -> Self {
        let start = 0x1000_0000_0000;
        let lens = [16 * PAGE, 5 * PAGE + 123, PAGE - 1, 9 * PAGE];
        let file = |object, readable, writable| File { object, readable, writable };
        Self {
            start,
            end: start + (64 << 20),
            objects: lens.map(|len| Object { len }).to_vec(),
            files: vec![
                file(0, true, true),
                file(1, true, true),
                file(2, true, true),
                file(3, true, false),
                file(0, true, true),
                file(1, true, false),
                file(3, false, true),
            ],
            limits: Limits { mapped: 100, locked: 24, stack: 256 },
            traits,
        }
    }

    /// Whether `addr` lies in the window.
    pub fn contains(&self, addr: u64) -> bool {
        (self.start..self.end).contains(&addr)
    }

    /// What byte `at` of object `object` is at first.
    pub fn byte(object: usize, at: u64) -> u8 {
        let mixed = (at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (object as u64) << 56;
        (mixed >> 56) as u8
    }

    /// The bytes that [`Call::Write`](crate::Call::Write) writes: byte `at` of a run with seed `seed`.
    pub fn written(seed: u8, at: u64) -> u8 {
        seed.wrapping_add((at as u8).wrapping_mul(7)) | 1
    }
}
