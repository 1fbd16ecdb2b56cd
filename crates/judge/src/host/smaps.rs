//! `/proc/self/smaps`, read.
//!
//! **Guarantee.** Every mapping in the window becomes one [`MapLine`]; a line that is not understood is an error, not a gap.
//!
//! **Mechanism.** A mapping's first line begins with its range in hexadecimal, and its `VmFlags` line ends it.

use crate::subject::{Backing, Lost, MapLine, VmFlags};
use crate::world::World;

/// What the files of the world are called, before their number.
pub const FILE_NAME: &str = "spile-judge-";

/// The listing within the window.
pub fn parse(text: &str, world: &World) -> Result<Vec<MapLine>, Lost> {
    let mut lines = Vec::new();
    let mut current = None;
    for line in text.lines() {
        if line.starts_with(|c: char| c.is_ascii_digit() || ('a'..='f').contains(&c)) {
            current = parse_head(line).ok_or_else(|| Lost(format!("smaps has a line {line:?}")))?.within(world);
        } else if let Some(codes) = line.strip_prefix("VmFlags:")
            && let Some(mut line) = current.take()
        {
            line.flags = codes.split_whitespace().filter_map(VmFlags::of_code).fold(VmFlags::default(), VmFlags::with);
            lines.push(line);
        }
    }
    Ok(lines)
}

struct Head(MapLine);

impl Head {
    fn within(self, world: &World) -> Option<MapLine> {
        world.contains(self.0.start).then_some(self.0)
    }
}

fn parse_head(line: &str) -> Option<Head> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    let _perms = words.next()?;
    let offset = number(words.next()?)?;
    let path = words.nth(2).unwrap_or("");
    let name = path.strip_prefix("[anon:").and_then(|name| name.strip_suffix(']')).map(str::to_string);
    let backing = backing_of(path)?;
    Some(Head(MapLine { start: number(start)?, end: number(end)?, flags: VmFlags::default(), offset, backing, name }))
}

fn backing_of(path: &str) -> Option<Backing> {
    if let Some(number) = path.strip_prefix("/memfd:").and_then(|path| path.strip_prefix(FILE_NAME)) {
        return number.parse().ok().map(Backing::Object);
    }
    Some(if path == "/dev/zero" || path.starts_with("[anon_shmem:") { Backing::SharedAnonymous } else { Backing::Anonymous })
}
