//! `spile bench`: benchmarks of the field on every design, on real memory, on the host, and on simulated CPUs.

use super::End;
use crate::bench::catalogue::{self, MAPPER, REAL, USUAL};
use crate::bench::child::{Child, HOST};
use crate::bench::clock;
use crate::bench::mapper::{Latencies, Mapper, Reader};
use crate::bench::play::{Contender, Sample};
use crate::bench::report::{Memory, Row, WaitTimes, Waits};
use crate::bench::rounds::{self, Rounds};
use crate::bench::target::machine;
use crate::bench::workload::Workload;
use crate::design::{self, Design};
use crate::interrupt;
use crate::lean::Lean;
use crate::progress::Progress;
use anyhow::{Context, Result, ensure};
use std::path::PathBuf;
use std::time::Duration;

mod show;
#[cfg(feature = "sched")]
mod simulated;

#[derive(clap::Args, Debug)]
/// Benchmarks of the field: page_fault1, pft, mmap1, brk1, fork, mapper, and those of scenario files
pub struct Args {
    /// Which; the six above if none is named
    names: Vec<String>,
    /// Benchmarks that files define
    #[arg(long, value_name = "FILE.toml")]
    scenario: Vec<PathBuf>,
    /// The designs: names with commas between, or all
    #[arg(long, value_delimiter = ',', default_value = "all")]
    design: Vec<String>,
    /// With how many threads
    #[arg(long, value_delimiter = ',', value_name = "N,...", default_value = "1")]
    threads: Vec<usize>,
    /// Counts cache lines on so many simulated CPUs, too, and says between what bounds that would be time
    #[arg(long, value_delimiter = ',', value_name = "N,...")]
    sim: Vec<usize>,
    /// The kernel of this host takes part, by real system calls
    #[arg(long)]
    host: bool,
    /// On real memory of this process: each design has its faults, by userfaultfd (Linux); pft, page_fault1 and mmap1, if none is named
    #[arg(long, conflicts_with_all = ["sim", "local"])]
    real: bool,
    /// How many rounds are told
    #[arg(long, value_name = "N", default_value = "5")]
    rounds: usize,
    /// How long a contender plays in a round, about
    #[arg(long, value_name = "MS", default_value = "100")]
    ms: u64,
    /// The pages of an area, in the place of what definitions say
    #[arg(long, value_name = "N")]
    pages: Option<u64>,
    /// How many calls `mapper` makes in a round
    #[arg(long, value_name = "N", default_value = "2000")]
    calls: u64,
    /// What `mapper` chooses pages by
    #[arg(long, value_name = "N", default_value = "1")]
    seed: u64,
    /// The time of an operation alone, in nanoseconds, for --sim: in the place of what this build measures
    #[arg(long, value_name = "NS")]
    local: Option<f64>,
    /// Where in the source the lines of --sim are touched
    #[arg(long = "where", requires = "sim")]
    places: bool,
    /// An array of objects instead of tables
    #[arg(long)]
    json: bool,
}

/// All that was found.
#[derive(Default)]
struct Found {
    rows: Vec<Row>,
    waits: Vec<Waits>,
    #[cfg(feature = "sched")]
    simulated: simulated::Found,
}

/// # Errors
///
/// A name is not known, a definition does not make sense, or somebody did not do what it says.
pub fn run(args: &Args) -> Result<End> {
    let designs = design::chosen(&args.design)?;
    let (workloads, has_mapper) = args.chosen()?;
    ensure!(args.rounds > 0 && args.threads.iter().all(|threads| *threads > 0), "there is a round, and a thread");
    ensure!(cfg!(feature = "sched") || args.sim.is_empty(), "simulated CPUs need a build with feature sched");
    ensure!(args.sim.iter().all(|cpus| (2..=128).contains(cpus)), "simulated are 2 to 128 CPUs");
    interrupt::keep_what_is_done();
    let mut progress = Progress::new(args.plays(designs.len(), workloads.len(), has_mapper));
    let mut found = Found::default();
    for workload in &workloads {
        for threads in &args.threads {
            found.rows.extend(args.measure(workload, *threads, &designs, &mut progress)?);
        }
    }
    if has_mapper {
        found.waits = args.map(&designs, &mut progress)?;
    }
    drop(progress);
    #[cfg(feature = "sched")]
    {
        found.simulated = simulated::count(args, &workloads, has_mapper, &designs, &found.rows);
    }
    match args.json {
        true => show::json(&found)?,
        false => show::tables(args, &found),
    }
    Ok(if interrupt::is_asked() { End::Bad } else { End::Good })
}

impl Args {
    /// The benchmarks that were named, and whether `mapper` is one.
    fn chosen(&self) -> Result<(Vec<Workload>, bool)> {
        let usual = if self.real { REAL.map(String::from).to_vec() } else { USUAL.map(String::from).to_vec() };
        let names = if self.names.is_empty() && self.scenario.is_empty() { usual } else { self.names.clone() };
        let named = names.iter().filter(|name| *name != MAPPER).map(|name| catalogue::find(name));
        let workloads = named.chain(self.scenario.iter().map(|path| Workload::open(path)));
        let resized = workloads.map(|workload| match self.pages {
            // Those that have a page have it because it is the break's.
            Some(pages) if workload.as_ref().is_ok_and(|workload| workload.pages > 1) => workload?.with_pages(pages),
            _ => workload,
        });
        let has_mapper = names.iter().any(|name| name == MAPPER);
        ensure!(!(self.real && has_mapper), "{MAPPER} is not for real memory: it maps single pages beside a reader of the list");
        Ok((resized.collect::<Result<_>>()?, has_mapper))
    }

    /// How often somebody plays.
    fn plays(&self, designs: usize, workloads: usize, has_mapper: bool) -> u64 {
        let sets = workloads * self.threads.len() + usize::from(has_mapper) * Reader::ALL.len();
        (sets * (designs + usize::from(self.host)) * (self.rounds + 1)) as u64
    }

    fn child(&self) -> Result<Child> {
        Child::start(&std::env::current_exe().context("where this program is")?)
    }

    /// The designs as contenders.
    fn designs(&self, workload: &Workload, threads: usize, designs: &[&Design]) -> Result<Vec<Box<dyn Contender>>> {
        if self.real {
            return designs.iter().map(|design| (design.real)(workload, threads)).collect();
        }
        let lean = machine(workload, threads, designs.len());
        Ok(designs.iter().map(|design| (design.contender)(&lean, workload, threads)).collect())
    }

    fn measure(&self, workload: &Workload, threads: usize, designs: &[&Design], progress: &mut Progress) -> Result<Vec<Row>> {
        if interrupt::is_asked() {
            return Ok(Vec::new());
        }
        let mut contenders = self.designs(workload, threads, designs)?;
        if self.host {
            let mut child = self.child()?;
            child.begin(workload, threads)?;
            contenders.push(Box::new(child) as Box<dyn Contender>);
        }
        let rounds = Rounds { count: self.rounds, time: Duration::from_millis(self.ms) };
        let mut tell = |name: &str| progress.begin(&format!("{} x{threads}, {name}", workload.name));
        let samples = rounds::play(&mut contenders, workload, threads, rounds, &mut tell)?;
        let played = contenders.iter().map(|contender| contender.name()).zip(&samples);
        Ok(played.filter_map(|(name, samples)| self.row(workload, name, threads, samples)).collect())
    }

    fn row(&self, workload: &Workload, name: &str, threads: usize, samples: &[Sample]) -> Option<Row> {
        let memory = if self.real || name == HOST { Memory::Real } else { Memory::None };
        Row::of(workload, name, memory, threads, clock::cpus(), samples)
    }

    fn map(&self, designs: &[&Design], progress: &mut Progress) -> Result<Vec<Waits>> {
        let pages = self.pages.unwrap_or(32768);
        let lean = Lean::new(2, u32::try_from(pages + 4096).context("so many pages")?, true);
        let mut child = if self.host { Some(self.child()?) } else { None };
        let names: Vec<_> = designs.iter().map(|design| design.name).chain(self.host.then_some(HOST)).collect();
        let mut found: Vec<_> = names.iter().flat_map(|name| Reader::ALL.map(|reader| (*name, reader, Vec::new()))).collect();
        // The first round is not told.
        for round in 0..=self.rounds {
            let mut told = Vec::new();
            for (name, reader, _) in &found {
                if interrupt::is_asked() {
                    return Ok(self.waits(pages, &found));
                }
                progress.begin(&format!("{MAPPER} beside {}, {name}", reader.name()));
                let mapper = Mapper { pages, calls: self.calls, reader: *reader, seed: self.seed };
                let design = designs.iter().find(|design| design.name == *name);
                told.push(match (design, &mut child) {
                    (Some(design), _) => (design.latencies)(&lean, mapper),
                    (None, Some(child)) => child.map(mapper)?,
                    (None, None) => unreachable!("the host is there if it is named"),
                });
            }
            if round > 0 {
                found.iter_mut().zip(told).for_each(|((.., rounds), latencies)| rounds.push(latencies));
            }
        }
        Ok(self.waits(pages, &found))
    }

    fn waits(&self, pages: u64, found: &[(&str, Reader, Vec<Latencies>)]) -> Vec<Waits> {
        let waits = |(name, reader, rounds): &(&str, Reader, Vec<_>)| {
            Some(Waits {
                benchmark: MAPPER,
                design: name.to_string(),
                reader: reader.name(),
                pages,
                calls: self.calls,
                oversubscribed: *reader != Reader::None && clock::cpus() < 2,
                times: WaitTimes::of(rounds)?,
            })
        };
        found.iter().filter_map(waits).collect()
    }
}
