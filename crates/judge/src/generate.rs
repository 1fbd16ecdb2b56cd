//! Makes sequences.
//!
//! **Guarantee.** The same seed makes the same sequence in the same world. Most calls succeed; all flags, and all errors
//! that arguments can cause, come up.
//!
//! **Mechanism.** A naive model performs the sequence while it is made, so that ranges can be drawn from what is mapped and
//! destinations from what is free. Addresses come from three small zones, far from each other and from the window's ends:
//! one where most happens, one for mappings that grow down, and one to move to and fro.

use crate::abi::*;
use crate::call::Call;
use crate::naive::Naive;
use crate::subject::{MapLine, Subject, VmFlags};
use crate::world::World;
use fastrand::Rng;

/// A sequence of `length` calls.
pub fn sequence(world: &World, seed: u64, length: usize) -> Vec<Call> {
    let mut generator = Generator::new(world, seed);
    (0..length).map(|_| generator.draw()).collect()
}

/// A place where addresses come from: pages from its first one.
#[derive(Clone, Copy)]
struct Zone {
    first: u64,
    pages: u64,
}

struct Generator<'a> {
    rng: Rng,
    world: &'a World,
    naive: Naive,
    /// The mapped pages, as they are before the call that is drawn.
    mapped: Vec<MapLine>,
    zones: [Zone; 3],
}

/// One of several values, each as often as its weight says.
fn weighed<T: Copy>(rng: &mut Rng, choices: &[(u32, T)]) -> T {
    let mut left = rng.u32(..choices.iter().map(|(weight, _)| *weight).sum::<u32>());
    for (weight, value) in choices {
        if left < *weight {
            return *value;
        }
        left -= weight;
    }
    choices[0].1
}

impl<'a> Generator<'a> {
    fn new(world: &'a World, seed: u64) -> Self {
        let zone = |mib: u64, pages| Zone { first: world.start + (mib << 20), pages };
        let zones = [zone(16, 64), zone(34, 40), zone(48, 32)];
        Self { rng: Rng::with_seed(seed), world, naive: Naive::new(world), mapped: Vec::new(), zones }
    }

    fn draw(&mut self) -> Call {
        self.mapped = self.naive.pages_listed().collect();
        let call = self.call();
        self.naive.perform(&call).expect("a model is never lost");
        call
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.u32(..100) < percent
    }

    fn call(&mut self) -> Call {
        let deep = self.naive.depth() as u32;
        let names = if self.world.traits.anon_names { 3 } else { 0 };
        let verb = weighed(
            &mut self.rng,
            &[
                (18, "mmap"),
                (6, "munmap"),
                (9, "mprotect"),
                (10, "mremap"),
                (2, "brk"),
                (14, "madvise"),
                (3, "mlock"),
                (2, "mlock2"),
                (4, "munlock"),
                (3, "msync"),
                (names, "name"),
                (12, "read"),
                (17, "write"),
                (if deep < 3 { 2 } else { 0 }, "fork"),
                (deep.min(2) * 2, "exit"),
            ],
        );
        match verb {
            "mmap" => self.mmap(),
            "mprotect" => self.mprotect(),
            "mremap" => self.mremap(),
            "brk" => Call::Brk { offset: self.rng.u64(..12 * PAGE) },
            "read" => {
                let (addr, len) = self.bytes();
                Call::Read { addr, len }
            }
            "write" => {
                let (addr, len) = self.bytes();
                Call::Write { addr, len, seed: self.rng.u8(..) }
            }
            "fork" => Call::Fork,
            "exit" => Call::Exit,
            verb => self.ranged(verb),
        }
    }

    /// The calls that take a range and little else.
    fn ranged(&mut self, verb: &str) -> Call {
        let (addr, len) = self.range();
        let (addr, len) = self.spoiled(addr, len);
        match verb {
            "munmap" => Call::Munmap { addr, len },
            "madvise" => self.madvise(addr, len),
            "mlock" => Call::Mlock { addr, len },
            "mlock2" => Call::Mlock2 { addr, len, flags: weighed(&mut self.rng, &[(8, 1), (4, 0), (1, 2)]) },
            "munlock" => Call::Munlock { addr, len },
            "msync" => {
                let flags = weighed(&mut self.rng, &[(6, 1), (6, 4), (4, 2), (3, 3), (3, 6), (2, 0), (1, 5), (1, 8)]);
                Call::Msync { addr, len, flags }
            }
            _ => {
                let names = ["stack", "heap of a thread", "", "a$", "b"];
                let name = if self.chance(80) { Some(names[self.rng.usize(..names.len())].to_string()) } else { None };
                Call::Name { addr, len, name }
            }
        }
    }

    fn madvise(&mut self, addr: u64, len: u64) -> Call {
        const ALL: [i32; 21] = [0, 1, 2, 3, 4, 4, 4, 8, 10, 11, 16, 16, 17, 17, 18, 18, 18, 19, 20, 21, 22];
        let advice = match self.rng.u32(..100) {
            0..3 => weighed(&mut self.rng, &[(1, 5), (1, 6), (1, 99), (1, -1), (1, 1000)]),
            3..11 => MADV_POPULATE_WRITE,
            11..18 => MADV_FREE,
            _ => ALL[self.rng.usize(..ALL.len())],
        };
        Call::Madvise { addr, len, advice }
    }

    fn zone(&mut self) -> Zone {
        let [hot, stack, far] = self.zones;
        weighed(&mut self.rng, &[(12, hot), (3, stack), (3, far)])
    }

    /// Pages: few, and seldom many.
    fn pages(&mut self) -> u64 {
        if self.chance(85) { self.rng.u64(1..=5) } else { self.rng.u64(1..=14) }
    }

    /// A range somewhere.
    fn somewhere(&mut self) -> (u64, u64) {
        let (zone, pages) = (self.zone(), self.pages());
        let first = self.rng.u64(..zone.pages);
        (zone.first + first * PAGE, pages.min(zone.pages - first) * PAGE)
    }

    /// A range where nothing is mapped, if one is found soon.
    fn free(&mut self) -> (u64, u64) {
        let mut found = self.somewhere();
        for _ in 0..12 {
            let (addr, len) = found;
            if !self.mapped.iter().any(|page| page.start >= addr && page.start < addr + len) {
                break;
            }
            found = self.somewhere();
        }
        found
    }

    /// A range of what is mapped, seldom reaching over its end.
    fn range(&mut self) -> (u64, u64) {
        if self.mapped.is_empty() || self.chance(6) {
            return self.somewhere();
        }
        let first = self.rng.usize(..self.mapped.len());
        let run = self.mapped[first..].windows(2).take_while(|pair| pair[0].end == pair[1].start).count() as u64 + 1;
        let pages = self.pages();
        let pages = if self.chance(5) { pages } else { pages.min(run) };
        (self.mapped[first].start, pages * PAGE)
    }

    /// One of the mappings, with its flags.
    fn mapping(&mut self) -> Option<(u64, u64, VmFlags)> {
        let lines = self.naive.maps().expect("a model is never lost");
        if lines.is_empty() {
            return None;
        }
        // Seldom enough is a mapping locked, and much depends on it.
        let locked: Vec<_> = lines.iter().filter(|line| line.flags.has(VmFlags::LOCKED)).collect();
        let line = match locked.as_slice() {
            [_, ..] if self.chance(30) => locked[self.rng.usize(..locked.len())],
            _ => &lines[self.rng.usize(..lines.len())],
        };
        Some((line.start, line.end, line.flags))
    }

    /// The range, or seldom something wrong.
    fn spoiled(&mut self, addr: u64, len: u64) -> (u64, u64) {
        match self.rng.u32(..200) {
            0 | 1 => (addr + 1 + self.rng.u64(..4000), len),
            2 | 3 => (addr, 0),
            4 => (addr, u64::MAX - self.rng.u64(..PAGE)),
            5 => (TASK_SIZE, len),
            6 => (addr, (0_u64).wrapping_sub(addr)),
            7..30 => (addr, len - self.rng.u64(..PAGE)),
            _ => (addr, len),
        }
    }

    /// Bytes to be read or written.
    fn bytes(&mut self) -> (u64, u64) {
        let (addr, len) = if self.chance(90) { self.range() } else { self.somewhere() };
        match self.rng.u32(..10) {
            0..5 => (addr + self.rng.u64(..PAGE), 1),
            5..7 => (addr, len.min(3 * PAGE)),
            7 => (addr, PAGE),
            _ => (addr + self.rng.u64(..PAGE), self.rng.u64(1..2 * PAGE)),
        }
    }

    fn prot(&mut self) -> u32 {
        let some = PROT_READ | PROT_WRITE;
        let choices = [
            (50, some),
            (18, PROT_READ),
            (7, PROT_NONE),
            (5, some | PROT_EXEC),
            (5, PROT_READ | PROT_EXEC),
            (3, PROT_EXEC),
            (4, PROT_WRITE),
            (1, PROT_EXEC | PROT_SEM),
            (1, PROT_WRITE | PROT_EXEC),
        ];
        weighed(&mut self.rng, &choices)
    }

    fn mprotect(&mut self) -> Call {
        let (addr, len) = self.range();
        let (addr, len) = self.spoiled(addr, len);
        let extra = match self.rng.u32(..100) {
            0 | 1 => PROT_GROWSUP,
            2 => PROT_GROWSUP | PROT_GROWSDOWN,
            3..9 => PROT_GROWSDOWN,
            9 => 0x10,
            _ => 0,
        };
        Call::Mprotect { addr, len, prot: self.prot() | extra }
    }

    fn mmap(&mut self) -> Call {
        let (kind, file) = self.kind();
        let how =
            weighed(&mut self.rng, &[(50, MAP_FIXED), (14, MAP_FIXED_NOREPLACE), (24, 0), (1, MAP_FIXED | MAP_FIXED_NOREPLACE)]);
        let clear = how != MAP_FIXED && self.chance(85);
        let (addr, len) = if clear { self.free() } else { self.somewhere() };
        let mut flags = kind | how | self.extras(kind, addr);
        if how == 0 && self.chance(2) {
            flags |= MAP_SYNC;
        }
        let offset = if file.is_some() || self.chance(5) { self.offset() } else { 0 };
        let (addr, len) = match self.rng.u32(..300) {
            0 => (0, len),
            1 => (addr + 17, len),
            2 => (addr, 0),
            3 => (addr, u64::MAX - 5),
            4 => (TASK_SIZE - PAGE, len + PAGE),
            5 => (addr, TASK_SIZE + PAGE),
            6..30 => (addr, len - self.rng.u64(..PAGE)),
            _ => (addr, len),
        };
        Call::Mmap { addr, len, prot: self.prot(), flags, file, offset }
    }

    /// What is mapped: the type, with `MAP_ANONYMOUS` or a file.
    fn kind(&mut self) -> (u32, Option<usize>) {
        let file = weighed(&mut self.rng, &[(12, 0), (12, 1), (6, 2), (7, 3), (4, 4), (6, 5), (1, 6)]);
        let choices = [
            (48, (MAP_PRIVATE | MAP_ANONYMOUS, None)),
            (12, (MAP_SHARED | MAP_ANONYMOUS, None)),
            (20, (MAP_PRIVATE, Some(file))),
            (15, (MAP_SHARED, Some(file))),
            (2, (MAP_SHARED_VALIDATE, Some(file))),
            (1, (MAP_PRIVATE, None)),
            (1, (MAP_SHARED_VALIDATE | MAP_ANONYMOUS, None)),
            (1, (0, Some(file))),
            (1, (MAP_ANONYMOUS, None)),
        ];
        weighed(&mut self.rng, &choices)
    }

    fn extras(&mut self, kind: u32, addr: u64) -> u32 {
        let stack_zone = addr >= self.zones[1].first && addr < self.zones[2].first;
        let private = kind == MAP_PRIVATE | MAP_ANONYMOUS;
        let grows = if private && stack_zone { 60 } else { 1 };
        let choices =
            [(grows, MAP_GROWSDOWN), (5, MAP_NORESERVE), (10, MAP_POPULATE), (5, MAP_LOCKED), (3, MAP_STACK), (2, MAP_NONBLOCK)];
        choices.iter().fold(0, |flags, (percent, flag)| if self.chance(*percent) { flags | flag } else { flags })
    }

    fn offset(&mut self) -> u64 {
        match self.rng.u32(..200) {
            0 => 1 + self.rng.u64(..PAGE - 1),
            1 => 1 << 63,
            2 => (i64::MAX as u64) & !(PAGE - 1),
            3..12 => 40 * PAGE,
            12..90 => 0,
            _ => self.rng.u64(..8) * PAGE,
        }
    }

    fn mremap(&mut self) -> Call {
        let Some((start, end, flags)) = self.mapping() else { return self.mmap() };
        let size = (end - start) / PAGE;
        let first = if self.chance(60) { 0 } else { self.rng.u64(..size) };
        let old = start + first * PAGE;
        let tail = end - old;
        let old_len = if self.chance(60) { tail } else { self.rng.u64(1..=tail / PAGE) * PAGE };
        let grown = old_len + self.pages() * PAGE;
        let shrunk = self.rng.u64(1..=old_len / PAGE) * PAGE;
        let (to, _) = self.free_for(old_len.max(PAGE));
        let fixed = MREMAP_MAYMOVE | MREMAP_FIXED;
        let keep = MREMAP_MAYMOVE | MREMAP_DONTUNMAP;
        let shared = flags.has(VmFlags::MAY_SHARE) || self.chance(4);
        let (old_len, new_len, flags, to) = match self.rng.u32(..100) {
            0..16 => (old_len, shrunk, weighed(&mut self.rng, &[(2, 0), (1, MREMAP_MAYMOVE)]), 0),
            16..34 => (tail, tail + (grown - old_len), 0, 0),
            34..40 => (tail, tail + (grown - old_len), MREMAP_MAYMOVE, 0),
            40..64 => (old_len, old_len, fixed, to),
            64..70 => (old_len, grown, fixed, to),
            70..73 => (old_len, shrunk, fixed, to),
            73..80 => (old_len, old_len, fixed | MREMAP_DONTUNMAP, to),
            80..84 => (old_len, old_len, keep, weighed(&mut self.rng, &[(9, to), (1, 0)])),
            84..88 if shared => (0, old_len, fixed, to),
            // Over the end of a mapping.
            84..86 => (tail + PAGE, tail + grown + PAGE, weighed(&mut self.rng, &[(1, 0), (1, MREMAP_MAYMOVE), (1, fixed)]), to),
            88..93 => (tail + grown, tail + grown, fixed, to),
            93 => (old_len, old_len, fixed, old + PAGE),
            94 => (old_len, 0, 0, 0),
            95 => (old_len, old_len, 8, to),
            96 => (old_len, grown, keep, to),
            97 => (old_len, old_len, MREMAP_FIXED, to),
            98 => (old_len, old_len, fixed, to + 1),
            99 => (old_len, TASK_SIZE + PAGE, fixed, TASK_SIZE),
            _ => (old_len, old_len, 0, 0),
        };
        let old = if self.chance(1) { old + 9 } else { old };
        Call::Mremap { old, old_len, new_len, flags, new_addr: to }
    }

    /// A place to move to: mostly free, sometimes not.
    fn free_for(&mut self, len: u64) -> (u64, u64) {
        let (addr, _) = if self.chance(60) { self.free() } else { self.somewhere() };
        (addr, len)
    }
}
