//! Two subjects, step by step.
//!
//! **Guarantee.** After every call the results were the same; after every [`Options::every`] calls and at the end, so were
//! the mappings, the counters, which pages may be read, and every byte. The first thing that was not is a [`Difference`].
//!
//! **Mechanism.** Both sides are made anew for each sequence and perform it in step. A naive model goes along as umpire: it
//! says which bytes `MADV_FREE` has left open.

use crate::abi::PAGE;
use crate::call::Call;
use crate::divergence::{self, Class, Seen};
use crate::generate;
use crate::naive::Naive;
use crate::report::Tally;
use crate::shrink::shrink;
use crate::subject::{Lost, MapLine, Outcome, PageView, Subject, VmFlags};
use crate::world::World;
use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

/// Makes one side for a sequence.
pub type Maker<'a> = dyn Fn(&World) -> Result<Box<dyn Subject>, Lost> + 'a;

/// How closely to look.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Calls between two looks at everything.
    pub every: usize,
    /// Flags of mappings that are compared.
    pub flags: VmFlags,
    /// Whether mappings must begin and end at the same pages; if not, listings are compared page by page.
    pub boundaries: bool,
    /// Whether counters are compared, where both sides have them.
    pub counters: bool,
    /// Tries to shorten a sequence that shows a difference.
    pub tries: usize,
    /// Differences that are explained.
    pub classes: &'static [Class],
}

impl Default for Options {
    fn default() -> Self {
        let flags = VmFlags(u32::MAX);
        Self { every: 16, flags, boundaries: true, counters: true, tries: 2000, classes: divergence::CLASSES }
    }
}

/// In what two sides differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aspect {
    /// The result of a call.
    Outcome,
    /// The listing.
    Maps,
    /// What is in a page, or whether it may be read.
    Page,
    /// Pages counted.
    Counters,
}

/// The first difference of a sequence.
#[derive(Clone, Debug)]
pub struct Difference {
    /// After which call.
    pub index: usize,
    /// In what.
    pub aspect: Aspect,
    /// Both sides, readable.
    pub text: String,
    /// The class that explains it.
    pub explained: Option<&'static str>,
}

/// A difference, with all that is needed to see it again.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The seed of its sequence.
    pub seed: u64,
    /// Calls that were judged before it.
    pub after: u64,
    /// The shortest sequence found that shows it.
    pub calls: Vec<Call>,
    /// The difference that this sequence ends in.
    pub difference: Difference,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "after {} calls, in the sequence of seed {}; shortened to:", self.after, self.seed)?;
        for call in &self.calls {
            writeln!(f, "    {call}")?;
        }
        write!(f, "  {:?} differ:\n{}", self.difference.aspect, self.difference.text)
    }
}

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    /// Results by verb.
    pub tally: Tally,
    /// Sequences that were judged.
    pub sequences: u64,
    /// How often each class explained a difference.
    pub explained: BTreeMap<&'static str, u64>,
    /// The first difference that nothing explains.
    pub finding: Option<Finding>,
    /// How long it took.
    pub elapsed: Duration,
}

/// Two sides and a world.
pub struct Judge<'a> {
    world: &'a World,
    left: &'a Maker<'a>,
    right: &'a Maker<'a>,
    options: Options,
}

impl<'a> Judge<'a> {
    /// A judge over two sides.
    pub fn new(world: &'a World, left: &'a Maker<'a>, right: &'a Maker<'a>, options: Options) -> Self {
        Self { world, left, right, options }
    }

    /// Judges sequences of `length` calls until `calls` are done or there is a difference.
    ///
    /// # Errors
    ///
    /// A side was lost.
    pub fn run(&self, seed: u64, calls: u64, length: usize) -> Result<Report, Lost> {
        let start = Instant::now();
        let mut report =
            Report { tally: Tally::default(), sequences: 0, explained: BTreeMap::new(), finding: None, elapsed: Duration::ZERO };
        while report.tally.calls() < calls && report.finding.is_none() {
            let seed = seed.wrapping_add(report.sequences);
            report.sequences += 1;
            let sequence = generate::sequence(self.world, seed, length);
            let difference = self.sequence(&sequence, self.options.every, &mut report.tally)?;
            match difference {
                Some(Difference { explained: Some(name), .. }) => *report.explained.entry(name).or_default() += 1,
                Some(difference) => report.finding = Some(self.narrow(seed, &report, &sequence, difference)?),
                None => {}
            }
        }
        report.elapsed = start.elapsed();
        Ok(report)
    }

    /// Finds the call that a difference comes from, and leaves out what it does not need.
    fn narrow(&self, seed: u64, report: &Report, sequence: &[Call], found: Difference) -> Result<Finding, Lost> {
        let look = |calls: &[Call]| self.sequence(calls, 1, &mut Tally::default());
        let after = report.tally.calls();
        let mut calls = sequence[..=found.index].to_vec();
        let Some(exact) = look(&calls)? else {
            // It shows only when it is not looked for, so looking changes something: worth knowing as it is.
            return Ok(Finding { seed, after, calls, difference: found });
        };
        calls.truncate(exact.index + 1);
        let verb = calls[exact.index].verb();
        let same = |part: &[Call]| match look(part) {
            Ok(Some(other)) => other.aspect == exact.aspect && other.explained.is_none() && part[other.index].verb() == verb,
            _ => false,
        };
        let mut calls = shrink(&calls, self.options.tries, same);
        let difference = look(&calls)?.unwrap_or(exact);
        calls.truncate(difference.index + 1);
        Ok(Finding { seed, after, calls, difference })
    }

    /// Judges one sequence, looking at everything after every `every` calls.
    ///
    /// # Errors
    ///
    /// A side was lost.
    pub fn sequence(&self, calls: &[Call], every: usize, tally: &mut Tally) -> Result<Option<Difference>, Lost> {
        let (left, right) = ((self.left)(self.world)?, (self.right)(self.world)?);
        let mut pair = Pair { world: self.world, options: self.options, left, right, umpire: Naive::new(self.world) };
        for (index, call) in calls.iter().enumerate() {
            let context = |lost: Lost| Lost(format!("{} at call {index}, {call}", lost.0));
            let different = |(aspect, text, explained)| Difference { index, aspect, text, explained };
            if let Some(found) = pair.step(call, tally).map_err(context)? {
                return Ok(Some(different(found)));
            }
            let due = (index + 1).is_multiple_of(every) || index + 1 == calls.len();
            let found = if due { pair.look(call).map_err(context)? } else { None };
            if let Some(found) = found {
                return Ok(Some(different(found)));
            }
        }
        Ok(None)
    }
}

type Found = (Aspect, String, Option<&'static str>);

struct Pair<'a> {
    world: &'a World,
    options: Options,
    left: Box<dyn Subject>,
    right: Box<dyn Subject>,
    umpire: Naive,
}

impl Pair<'_> {
    fn found(&self, call: &Call, aspect: Aspect, seen: &Seen<'_>, left: &str, right: &str) -> Found {
        let explained = divergence::explain(self.options.classes, self.world, call, seen).map(|class| class.name);
        let text = format!("    {:12} {left}\n    {:12} {right}", self.left.name(), self.right.name());
        (aspect, text, explained)
    }

    fn step(&mut self, call: &Call, tally: &mut Tally) -> Result<Option<Found>, Lost> {
        let (left, right) = (self.left.perform(call)?, self.right.perform(call)?);
        tally.add(call, &left);
        let open = match call {
            Call::Read { addr, len } => self.umpire.is_undetermined(*addr, *len),
            _ => false,
        };
        self.umpire.perform(call)?;
        if left == right || open && without_hash(left) == without_hash(right) {
            return Ok(None);
        }
        let seen = Seen::Outcome(&left, &right);
        Ok(Some(self.found(call, Aspect::Outcome, &seen, &left.to_string(), &right.to_string())))
    }

    fn look(&mut self, call: &Call) -> Result<Option<Found>, Lost> {
        let (left, right) = (self.left.maps()?, self.right.maps()?);
        if let Some(found) = self.look_at_lines(call, &left, &right) {
            return Ok(Some(found));
        }
        if self.options.counters
            && let (Some(left), Some(right)) = (self.left.counters()?, self.right.counters()?)
            && left != right
        {
            return Ok(Some(self.found(call, Aspect::Counters, &Seen::Counted, &format!("{left:?}"), &format!("{right:?}"))));
        }
        let addrs: Vec<u64> = left.iter().flat_map(|line| (line.start..line.end).step_by(PAGE as usize)).collect();
        self.look_at_pages(call, &addrs)
    }

    fn look_at_lines(&self, call: &Call, left: &[MapLine], right: &[MapLine]) -> Option<Found> {
        let exact = self.options.boundaries;
        let prepare = |lines: &[MapLine]| -> BTreeMap<u64, MapLine> {
            let masked = lines.iter().map(|line| MapLine { flags: VmFlags(line.flags.0 & self.options.flags.0), ..line.clone() });
            let pages = |line: MapLine| {
                let step = if exact { (line.end - line.start) as usize } else { PAGE as usize };
                let part = |addr| if exact { line.clone() } else { line.page(addr) };
                (line.start..line.end).step_by(step).map(|addr| (addr, part(addr))).collect::<Vec<_>>()
            };
            masked.flat_map(pages).collect()
        };
        let (left, right) = (prepare(left), prepare(right));
        if left == right {
            return None;
        }
        let addrs = left.keys().chain(right.keys());
        let first = addrs.copied().filter(|addr| left.get(addr) != right.get(addr)).min()?;
        let (left, right) = (left.get(&first), right.get(&first));
        let text = |line: Option<&MapLine>| line.map_or_else(|| format!("nothing at {first:x}"), ToString::to_string);
        Some(self.found(call, Aspect::Maps, &Seen::Line(left, right), &text(left), &text(right)))
    }

    fn look_at_pages(&mut self, call: &Call, addrs: &[u64]) -> Result<Option<Found>, Lost> {
        let (left, right) = (self.left.pages(addrs)?, self.right.pages(addrs)?);
        for (addr, (left, right)) in addrs.iter().zip(left.iter().zip(&right)) {
            if left != right && !self.may_both_be(*addr, left, right) {
                let seen = Seen::Page(*addr, left, right);
                let text = |view: &PageView| format!("page {addr:x}: {view:x?}");
                return Ok(Some(self.found(call, Aspect::Page, &seen, &text(left), &text(right))));
            }
        }
        Ok(None)
    }

    /// Whether two contents of a page are both right, since `MADV_FREE` left it open.
    fn may_both_be(&self, addr: u64, left: &PageView, right: &PageView) -> bool {
        let hash = |view: &PageView| match view {
            PageView::Seen(hash) => Some((true, *hash)),
            PageView::Hidden(hash) => hash.map(|hash| (false, hash)),
            PageView::Bus => None,
        };
        let (Some((seen_left, left)), Some((seen_right, right))) = (hash(left), hash(right)) else { return false };
        let candidates = self.umpire.candidates(addr);
        seen_left == seen_right && candidates.contains(&left) && candidates.contains(&right)
    }
}

fn without_hash(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Bytes { count, fault, .. } => Outcome::Bytes { count, hash: 0, fault },
        other => other,
    }
}
