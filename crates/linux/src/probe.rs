//! What this process may do, and how it would page its own memory.
//!
//! **Guarantee.** What is said to work was done. What does not is said with the kernel's reason, and with what would change that; what was chosen, with what it was chosen for.
//!
//! **Mechanism.** Each [`Door`] is opened, and each [`Ability`] tried with the first that opens. The best [`Engine`] whose abilities are there is the one.

use crate::PAGE;
use crate::door::{Door, Reason, Rights, Shut};
use crate::pages;
use crate::trial::{Ability, Why};
use crate::uffd::Features;
use std::fmt;
use std::fs;

/// How faults would be resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// On the thread that faulted: pages are copied to where they are missed (`UFFDIO_COPY`), and moved away (`UFFDIO_MOVE`), with their bytes, at once.
    Move,
    /// On the thread that faulted, without moves: what is taken away is write-protected, copied and dropped.
    Copy,
    /// The same of memory that others may map (a memfd for each region): pages are copied to it and shown by one call, and a hole is made where one is taken away. It costs more, so it is
    /// had only where it is asked for.
    Shared,
}

impl Engine {
    /// The best first.
    pub const ALL: [Self; 3] = [Self::Move, Self::Copy, Self::Shared];

    /// What it does nothing without.
    #[must_use]
    pub const fn needs(self) -> &'static [Ability] {
        match self {
            Self::Move => &[Ability::Signal, Ability::Protect, Ability::Copy, Ability::Move],
            Self::Copy => &[Ability::Signal, Ability::Protect, Ability::Copy],
            Self::Shared => &[Ability::Signal, Ability::Protect, Ability::Copy, Ability::Share],
        }
    }

    /// The features that it takes.
    pub(crate) fn features(self) -> Features {
        self.needs().iter().fold(Features::NONE, |all, need| all.with(need.needs()))
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Move => "on the faulting thread, pages copied in and moved out (UFFDIO_COPY, UFFDIO_MOVE)",
            Self::Copy => "on the faulting thread, pages copied in and copied out (UFFDIO_COPY)",
            Self::Shared => "on the faulting thread, pages copied to shared memory and out (UFFDIO_COPY to a memfd)",
        })
    }
}

/// There is no way for this process to page its own memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No door opens: why the one that takes least does not. [`Report::doors`] has the others.
    Closed(Reason),
    /// Something does not work without which nothing is done: [`Report::tried`] has why.
    Lacks(Ability),
    /// Pages are not of 4 KiB.
    PageSize(u64),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(reason) => write!(f, "no userfaultfd opens for this process: {reason}"),
            Self::Lacks(ability) => {
                write!(f, "nothing is done without {}, which takes", ability.name())?;
                ability.needs().names().try_for_each(|(name, version)| write!(f, " {name} (Linux {version})"))
            }
            Self::PageSize(size) => write!(f, "pages are of {size} bytes here, and have to be of {PAGE}"),
        }
    }
}

impl std::error::Error for Refused {}

/// What was found out.
#[derive(Debug)]
pub struct Report {
    /// `uname -r`.
    pub kernel: String,
    /// What this thread may.
    pub rights: Rights,
    /// What came of each door.
    pub doors: Vec<(Door, Result<(), Shut>)>,
    /// What the kernel offers, if a door opens.
    pub features: Features,
    /// What came of each ability, if a door opens.
    pub tried: Vec<(Ability, Result<(), Why>)>,
    /// How faults would be resolved.
    pub engine: Result<Engine, Refused>,
}

/// Finds out what this process may do, by doing it. It opens files, maps pages and starts a child that shares memory with this process; nothing is left of that. It is not for signal
/// handlers.
#[must_use]
pub fn probe() -> Report {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_else(|_| "unknown".into()).trim().into();
    let mut report = Report {
        kernel,
        rights: Rights::look(),
        doors: Door::ALL.map(|door| (door, door.open(Features::NONE).map(drop))).into(),
        features: Features::NONE,
        tried: Vec::new(),
        engine: Err(Refused::PageSize(pages::size())),
    };
    if pages::size() != PAGE {
        return report;
    }
    if let Some(door) = report.door() {
        report.features = door.offers().unwrap_or(Features::NONE);
        report.tried = Ability::ALL.map(|ability| (ability, ability.try_it(door))).into();
    }
    report.engine = report.choose();
    report
}

impl Report {
    /// The door that would be taken: the first that opens.
    #[must_use]
    pub fn door(&self) -> Option<Door> {
        self.doors.iter().find(|(_, opened)| opened.is_ok()).map(|(door, _)| *door)
    }

    /// Why this cannot be had, if it was tried and cannot.
    #[must_use]
    pub fn why_not(&self, ability: Ability) -> Option<&Why> {
        self.tried.iter().find(|(tried, _)| *tried == ability)?.1.as_ref().err()
    }

    /// Whether this was tried, and can be had.
    #[must_use]
    pub fn can(&self, ability: Ability) -> bool {
        self.tried.iter().any(|(tried, came)| *tried == ability && came.is_ok())
    }

    /// The first thing that an engine does nothing without and that cannot be had.
    pub(crate) fn missing(&self, engine: Engine) -> Option<Ability> {
        engine.needs().iter().copied().find(|&need| self.why_not(need).is_some())
    }

    /// Why the engine is not a better one.
    pub fn passed_over(&self) -> impl Iterator<Item = (Engine, Ability, &Why)> {
        let better = Engine::ALL.into_iter().take_while(|engine| self.engine != Ok(*engine));
        better.filter_map(|engine| {
            let need = self.missing(engine)?;
            Some((engine, need, self.why_not(need)?))
        })
    }

    fn choose(&self) -> Result<Engine, Refused> {
        if let [(_, Err(shut)), rest @ ..] = &self.doors[..]
            && rest.iter().all(|(_, opened)| opened.is_err())
        {
            return Err(Refused::Closed(shut.reason));
        }
        let mut lacks = Ability::Signal;
        for engine in Engine::ALL {
            match self.missing(engine) {
                None => return Ok(engine),
                Some(ability) => lacks = ability,
            }
        }
        Err(Refused::Lacks(lacks))
    }
}

/// A row: under which heading, of what, and what came of it.
fn row<E: fmt::Display>(f: &mut fmt::Formatter<'_>, heading: &str, what: &str, is: &Result<(), E>) -> fmt::Result {
    match is {
        Ok(()) => writeln!(f, "{heading:9} {what:31} yes"),
        Err(why) => writeln!(f, "{heading:9} {what:31} no: {why}"),
    }
}

/// The heading is said once.
fn headed<'a, T>(heading: &'a str, rows: &'a [T]) -> impl Iterator<Item = (&'a str, &'a T)> {
    std::iter::once(heading).chain(std::iter::repeat("")).zip(rows)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rights { sysctl, ptrace, seccomp } = self.rights;
        writeln!(f, "{:9} Linux {}", "kernel", self.kernel)?;
        let sysctl = sysctl.map_or("not there", |is_one| if is_one { "1" } else { "0" });
        writeln!(f, "{:9} vm.unprivileged_userfaultfd {sysctl}", "rights")?;
        writeln!(f, "{:9} CAP_SYS_PTRACE {}", "", if ptrace { "yes" } else { "no" })?;
        writeln!(f, "{:9} filter of system calls (seccomp) {}", "", if seccomp { "in force" } else { "none" })?;
        for (heading, (door, opened)) in headed("doors", &self.doors) {
            let opened = opened.as_ref().map_err(|shut| format!("{}: {}", shut.error, shut.reason)).copied();
            row(f, heading, door.name(), &opened)?;
        }
        if self.door().is_some() {
            write!(f, "{:9}", "features")?;
            self.features.names().try_for_each(|(name, _)| write!(f, " {name}"))?;
            writeln!(f)?;
        }
        for (heading, (ability, came)) in headed("tried", &self.tried) {
            row(f, heading, ability.name(), came)?;
        }
        match &self.engine {
            Ok(engine) => write!(f, "{:9} {engine}, by {}", "engine", self.door().map_or("", Door::name))?,
            Err(refused) => write!(f, "{:9} none: {refused}", "engine")?,
        }
        for (engine, ability, why) in self.passed_over() {
            write!(f, "\n{:9} not {engine}: {} is missing: {why}", "", ability.name())?;
        }
        Ok(())
    }
}
