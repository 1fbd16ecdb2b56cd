//! Lines into events.

use crate::event::{Call, Event, Fault, FileArg, Op, Snapshot, SnapshotVma, VmaLine, What};
use std::collections::BTreeMap;
use std::fmt;
use std::io::BufReader;
use std::path::Path;

/// A trace, read.
#[derive(Debug)]
pub struct Trace {
    /// The `#` lines, without the mark.
    pub header: Vec<String>,
    /// The kinds of files by their numbers: `exe`, `so`, `file`, `memfd`, ….
    pub files: BTreeMap<u32, String>,
    /// The events, in the order of time.
    pub events: Vec<Event>,
}

/// Why a trace was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The line, from 1; 0 where it is not about one.
    pub line: usize,
    /// What is wrong, and what to do.
    pub why: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.why),
            line => write!(f, "line {line}: {}", self.why),
        }
    }
}

impl std::error::Error for Refused {}

impl Refused {
    pub(crate) fn at(line: usize, why: impl Into<String>) -> Self {
        Self { line, why: why.into() }
    }
}

const XZ: [u8; 6] = [0xfd, b'7', b'z', b'X', b'Z', 0];

impl Trace {
    /// Reads a file, compressed with xz or not.
    ///
    /// # Errors
    ///
    /// [`Refused`]: the file cannot be read, is torn, or is no trace.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Refused> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|error| Refused::at(0, format!("{}: {error}", path.display())))?;
        Self::read(&bytes)
    }

    /// Reads the bytes of a file, compressed with xz or not.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn read(bytes: &[u8]) -> Result<Self, Refused> {
        let mut trace = Self { header: Vec::new(), files: BTreeMap::new(), events: Vec::new() };
        let Self { header, files, events } = &mut trace;
        let sort = |line| {
            match line {
                Said::Header(text) => header.push(text),
                Said::File(number, kind) => _ = files.insert(number, kind),
                Said::Event(event) => events.push(event),
            }
            Ok(())
        };
        each_line(bytes, sort)?;
        Ok(trace)
    }
}

/// What a line, or the lines of a snapshot, say.
pub(crate) enum Said {
    Header(String),
    File(u32, String),
    Event(Event),
}

/// Reads the bytes of a file, compressed with xz or not, and passes on what they say, up to where they are wrong or `take` refuses.
pub(crate) fn each_line(bytes: &[u8], take: impl FnMut(Said) -> Result<(), Refused>) -> Result<(), Refused> {
    let mut plain = Vec::new();
    let mut damaged = None;
    let bytes = if bytes.starts_with(&XZ) {
        damaged = lzma_rs::xz_decompress(&mut BufReader::new(bytes), &mut plain).err();
        plain.as_slice()
    } else {
        bytes
    };
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let why = format!("byte {} is not text; is this a trace in the format mmtrace 1?", error.valid_up_to());
        Refused::at(0, why)
    });
    let refused = text.and_then(|text| each_line_of(text, take));
    match damaged {
        // Who damaged the one has cut off the other.
        Some(error) => Err(Refused::at(0, format!("the xz data is damaged or cut off ({error:?}); fetch the file again"))),
        None => refused,
    }
}

fn each_line_of(text: &str, mut take: impl FnMut(Said) -> Result<(), Refused>) -> Result<(), Refused> {
    if !text.starts_with("#mmtrace 1\n") {
        return Err(Refused::at(1, "a trace begins with `#mmtrace 1`; this is another format, or another version of it"));
    }
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    let (text, rest) = text.split_at(whole);
    let mut at_ns = 0u64;
    let mut lines = text.lines().enumerate().map(|(i, line)| Line { number: i + 1, words: line.split(' ').collect() });
    while let Some(line) = lines.next() {
        let said = match line.words[0] {
            "f" => Said::File(line.file(1)?, line.word(2)?.to_string()),
            mark if mark.starts_with('#') => Said::Header(line.words.join(" ").split_off(1)),
            _ => {
                let Some(now) = at_ns.checked_add(line.decimal(0)?) else { return line.refuse("time overflows") };
                at_ns = now;
                let tid = line.decimal32(1)?;
                let op = if line.word(2)? == "S" { line.snapshot(&mut lines)? } else { line.op()? };
                Said::Event(Event { line: line.number, at_ns, tid, op })
            }
        };
        take(said)?;
    }
    if !rest.is_empty() {
        return Err(Refused::at(text.lines().count() + 1, "the last line is cut off; the recording was not finished"));
    }
    Ok(())
}

struct Line<'t> {
    number: usize,
    words: Vec<&'t str>,
}

impl<'t> Line<'t> {
    fn refuse<T>(&self, why: impl Into<String>) -> Result<T, Refused> {
        Err(Refused::at(self.number, why))
    }

    fn word(&self, i: usize) -> Result<&'t str, Refused> {
        match self.words.get(i) {
            Some(word) => Ok(word),
            None => self.refuse(format!("there are {} words, and more are needed; the line is cut off", self.words.len())),
        }
    }

    fn number(&self, i: usize, radix: u32) -> Result<u64, Refused> {
        let word = self.word(i)?;
        match u64::from_str_radix(word, radix) {
            Ok(number) => Ok(number),
            Err(_) => self.refuse(format!("`{word}` is not a number to the base {radix}")),
        }
    }

    fn decimal(&self, i: usize) -> Result<u64, Refused> {
        self.number(i, 10)
    }

    fn hex(&self, i: usize) -> Result<u64, Refused> {
        self.number(i, 16)
    }

    /// A number of at most 32 bits.
    fn small(&self, i: usize, radix: u32) -> Result<u32, Refused> {
        match u32::try_from(self.number(i, radix)?) {
            Ok(number) => Ok(number),
            Err(_) => self.refuse(format!("`{}` does not fit into 32 bits", self.words[i])),
        }
    }

    fn decimal32(&self, i: usize) -> Result<u32, Refused> {
        self.small(i, 10)
    }

    fn bits(&self, i: usize) -> Result<u32, Refused> {
        self.small(i, 16)
    }

    /// `fN`.
    fn file(&self, i: usize) -> Result<u32, Refused> {
        let word = self.word(i)?;
        match word.strip_prefix('f').and_then(|number| number.parse().ok()) {
            Some(number) => Ok(number),
            None => self.refuse(format!("`{word}` is not a file's number")),
        }
    }

    fn op(&self) -> Result<Op, Refused> {
        let name = self.word(2)?;
        Ok(match name {
            "x" => Op::ExecBegin,
            "c" => Op::Clone { child: self.decimal32(3)?, flags: self.hex(4)? },
            "e" => Op::Exit { last: self.words.get(3) == Some(&"g") },
            "=" => Op::Return(self.result()?),
            "V" => Op::Vma(self.vma(3)?),
            "P" | "K" => Op::Fault(self.fault(name == "K")?),
            _ if name.starts_with('A') || name.starts_with('R') => self.lock(name)?,
            _ => Op::Call(self.call(name)?),
        })
    }

    fn result(&self) -> Result<Result<u64, i32>, Refused> {
        match self.word(3)?.strip_prefix('-') {
            None => Ok(Ok(self.hex(3)?)),
            Some(errno) => match errno.parse() {
                Ok(errno) => Ok(Err(errno)),
                Err(_) => self.refuse(format!("`-{errno}` is not an errno")),
            },
        }
    }

    fn fault(&self, kernel: bool) -> Result<Fault, Refused> {
        let (page, bits) = (self.hex(3)?, self.hex(4)?);
        if page >= 1 << (64 - 12) {
            return self.refuse(format!("`{page:x}` is no page of an address space of 64 bits"));
        }
        Ok(Fault { page, present: bits & 1 != 0, write: bits & 2 != 0, exec: bits & 0x10 != 0, kernel })
    }

    fn lock(&self, name: &str) -> Result<Op, Refused> {
        let marks: Vec<char> = name.chars().collect();
        match marks.as_slice() {
            [how @ ('A' | 'R'), kind @ ('w' | 'r'), rest @ ..] if rest.iter().all(|c| "*!".contains(*c)) => Ok(Op::Lock {
                acquired: *how == 'A',
                write: *kind == 'w',
                other: rest.contains(&'*'),
                failed: rest.contains(&'!'),
            }),
            _ => self.refuse(format!("`{name}` is not known")),
        }
    }

    fn call(&self, name: &str) -> Result<Call, Refused> {
        let range = || Ok::<_, Refused>((self.hex(3)?, self.hex(4)?));
        Ok(match name {
            "mmap" => {
                let (addr, len) = range()?;
                let file = match self.word(7)? {
                    "-" => FileArg::None,
                    word if word.starts_with('?') => FileArg::Unknown,
                    _ => FileArg::File(self.file(7)?),
                };
                Call::Mmap { addr, len, prot: self.bits(5)?, flags: self.bits(6)?, file, offset: self.hex(8)? }
            }
            "munmap" => range().map(|(addr, len)| Call::Munmap { addr, len })?,
            "mprotect" | "pkey_mprotect" => {
                let (addr, len) = range()?;
                Call::Mprotect { addr, len, prot: self.bits(5)? }
            }
            "madvise" => {
                let (addr, len) = range()?;
                Call::Madvise { addr, len, advice: self.bits(5)? }
            }
            "mremap" => {
                let (old, old_len) = range()?;
                Call::Mremap { old, old_len, new_len: self.hex(5)?, flags: self.bits(6)?, new: self.hex(7)? }
            }
            "brk" => Call::Brk { addr: self.hex(3)? },
            "mlock" => range().map(|(addr, len)| Call::Mlock { addr, len, flags: 0 })?,
            "mlock2" => {
                let (addr, len) = range()?;
                Call::Mlock { addr, len, flags: self.bits(5)? }
            }
            "munlock" => range().map(|(addr, len)| Call::Munlock { addr, len })?,
            "prctl" if self.word(3)? == "53564d41" => {
                Call::AnonName { addr: self.hex(5)?, len: self.hex(6)?, name: self.hex(7)? }
            }
            other => Call::Other(other.to_string()),
        })
    }

    /// `START END PERM OFF FILE` from word `i` on.
    fn vma(&self, i: usize) -> Result<VmaLine, Refused> {
        let perm = self.word(i + 2)?;
        let marks = perm.as_bytes();
        if marks.len() != 4 {
            return self.refuse(format!("`{perm}` are not permissions like `rw-p`"));
        }
        let prot = [(b'r', 1), (b'w', 2), (b'x', 4)].iter().zip(marks).map(|((on, bit), mark)| if mark == on { *bit } else { 0 });
        let what = match self.word(i + 4)? {
            "a" => What::Anon,
            "stack" => What::Stack,
            "heap" => What::Heap,
            "vdso" | "vvar" | "vvar_vclock" | "vsyscall" => What::Special,
            _ => What::File(self.file(i + 4)?),
        };
        Ok(VmaLine {
            start: self.hex(i)?,
            end: self.hex(i + 1)?,
            prot: prot.sum(),
            shared: marks[3] == b's',
            offset: self.hex(i + 3)?,
            what,
        })
    }

    fn snapshot(&self, lines: &mut impl Iterator<Item = Line<'t>>) -> Result<Op, Refused> {
        let exec = match self.word(3)? {
            "exec" => true,
            "exit" => false,
            word => return self.refuse(format!("`{word}` is neither `exec` nor `exit`")),
        };
        let count = self.decimal(4)?;
        let mut vmas = Vec::new();
        for _ in 0..count {
            let Some(line) = lines.next().filter(|line| line.words[0] == "v") else {
                return self.refuse(format!("{count} mappings are announced and {} follow; the trace is cut off", vmas.len()));
            };
            let flags = line
                .words
                .get(9)
                .map_or(Vec::new(), |flags| flags.split(',').filter_map(|flag| flag.as_bytes().try_into().ok()).collect());
            vmas.push(SnapshotVma { vma: line.vma(1)?, rss_kib: line.decimal(6)?, anon_kib: line.decimal(7)?, flags });
        }
        Ok(Op::Snapshot(Snapshot { exec, vmas }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "#mmtrace 1\nf f1 exe\n0 1 x\n5 1 Aw\n6 1 V 1000 2000 r-xp 0 f1\n1 1 S exec 1\n\
        v 1000 2000 r-xp 0 f1 4 0 0 rd,ex\n7 1 mmap 0 1000 3 22 - 0\n1 1 = 7f0000000000\n1 1 P 7f0000000 6\n";

    #[test]
    fn a_small_trace_is_read() {
        let trace = Trace::read(SMALL.as_bytes()).unwrap();
        assert_eq!(trace.events.len(), 7);
        assert_eq!(trace.files[&1], "exe");
        let Op::Snapshot(snapshot) = &trace.events[3].op else { panic!("the fourth event is the snapshot") };
        assert!(snapshot.exec && snapshot.vmas[0].has("ex") && snapshot.vmas[0].vma.prot == 5);
        assert_eq!(trace.events[5].op, Op::Return(Ok(0x7f00_0000_0000)));
    }

    #[test]
    fn the_kernel_is_watched() {
        let packed = include_bytes!("../traces/ls.mmt.xz");
        let whole = crate::salvaged(packed);
        assert!(whole.torn.is_none());
        // 17 in a hundred of its faults took the lock: most are the first in a mapping.
        assert_eq!((whole.kernel.faults, whole.kernel.faults_with_lock), (120, 20));
    }

    #[test]
    fn every_truncation_is_an_answer() {
        for end in 0..SMALL.len() {
            if let Err(refused) = Trace::read(&SMALL.as_bytes()[..end]) {
                assert!(!refused.why.is_empty());
            }
        }
        let packed = include_bytes!("../traces/ls.mmt.xz");
        for end in [0, 5, 6, 100, packed.len() / 2, packed.len() - 1] {
            assert!(Trace::read(&packed[..end]).is_err(), "a file cut off at {end} was read");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let refused = |text: &str| Trace::read(text.as_bytes()).unwrap_err();
        assert_eq!(refused("#mmtrace 2\n").line, 1);
        assert_eq!(refused("#mmtrace 1\n0 1 P zz 4\n").line, 2);
        assert_eq!(refused("#mmtrace 1\n0 1 munmap 1000\n").line, 2);
        assert_eq!(refused("#mmtrace 1\n0 1 S exit 2\nv 1000 2000 r--p 0 a 0 0 0 rd\n").line, 2);
        assert_eq!(refused("#mmtrace 1\n0 1 Aq\n").line, 2);
    }
}
