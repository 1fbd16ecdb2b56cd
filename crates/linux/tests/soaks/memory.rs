//! How much memory a pager has.
//!
//! All along by what it says itself, and by what the process has; and when everybody waits by what the kernel says of the addresses that are registered with a userfaultfd, which are its
//! regions and its stash.

use super::{World, wrong};
use spile_linux::{PAGE, Pager};
use std::fmt;
use std::fs::read_to_string;
use std::time::{Duration, Instant};

/// How often everybody has to wait.
const EVERY: Duration = Duration::from_millis(400);

pub struct Memory {
    budget: u64,
    looks: u64,
    used: u64,
    idle: u64,
    tables: u64,
    /// When everybody waited: looks, and the most that was registered and there.
    stops: u64,
    registered: u64,
    stopped: Instant,
    /// What the process had before there were regions, and how much more at most.
    before: u64,
    more: u64,
}

/// Pages that are there, of the process.
fn resident() -> u64 {
    let statm = read_to_string("/proc/self/statm").expect("it is the kernel's");
    statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number")
}

/// Pages that are there, of what is registered with a userfaultfd.
fn registered() -> u64 {
    let smaps = read_to_string("/proc/self/smaps").expect("it is the kernel's");
    let (mut all, mut of_this) = (0, 0);
    for line in smaps.lines() {
        if let Some(size) = line.strip_prefix("Rss:") {
            let kilobytes: u64 = size.trim().trim_end_matches(" kB").parse().expect("a number");
            of_this = kilobytes * 1024 / PAGE;
        } else if let Some(flags) = line.strip_prefix("VmFlags:")
            && flags.split(' ').any(|flag| flag == "um")
        {
            all += of_this;
        }
    }
    all
}

impl Memory {
    pub fn new(pager: &Pager) -> Self {
        let budget = pager.usage().budget;
        let (stopped, before) = (Instant::now(), resident());
        Self { budget, looks: 0, used: 0, idle: 0, tables: 0, stops: 0, registered: 0, stopped, before, more: 0 }
    }

    /// What there may be: the budget, and 2 % for what is on its way.
    fn most(&self) -> u64 {
        self.budget + self.budget / 50
    }

    pub fn look(&mut self, world: &World<'_>) {
        let usage = world.pager.usage();
        self.looks += 1;
        self.used = self.used.max(usage.used);
        self.idle = self.idle.max(usage.idle);
        self.tables = self.tables.max(usage.tables);
        self.more = self.more.max(resident().saturating_sub(self.before));
        if self.stopped.elapsed() > EVERY {
            self.stop(world);
        }
        if self.used > self.budget || self.registered > self.most() {
            wrong(&world.scene, format_args!("wrong: more memory than was said: {self}"));
        }
    }

    fn stop(&mut self, world: &World<'_>) {
        let _nobody_runs = world.running.write().unwrap();
        self.registered = self.registered.max(registered());
        self.stops += 1;
        self.stopped = Instant::now();
    }

    /// The budget was used.
    pub fn was_scarce(&self) -> bool {
        self.used > self.budget * 9 / 10 && self.registered > self.budget * 8 / 10
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "of a budget of {} pages {} used at most, in {} looks; {} in regions and the stash, in {} (allowed: {}); {} idle; {} tables; the process has {} more than before, with all that is the test's",
            self.budget,
            self.used,
            self.looks,
            self.registered,
            self.stops,
            self.most(),
            self.idle,
            self.tables,
            self.more
        )
    }
}
