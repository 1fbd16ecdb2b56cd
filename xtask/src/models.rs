//! The exhaustive models, and the proof that they can fail.
//!
//! **Guarantee.** Every model passes on the code as it is; and for each ordering, fence and seeded bug that the sources name,
//! some model fails when `SPILE_MUTATE` switches that one.
//!
//! **Mechanism.** The loom test binaries are built once. Each run is one model in one process, because a mutated model may crash,
//! and may never end: one that exceeds its limit has caught nothing. The model that the documents name is tried first, and
//! must be a catcher.

use crate::checks::Explored;
use crate::repo::{LAYERS, Repo, crate_of, keyed_rows, package, root};
use crate::shell::{cargo, target_dir};
use crate::tidy::{MODELS, ORDERINGS};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use wait_timeout::ChildExt;

/// Tests of the loom binaries that run models themselves.
const NO_MODELS: [&str; 1] = ["each_fault_is_caught"];
/// How long the mutations of a `--quick` run may take together.
const QUICK: Duration = Duration::from_secs(240);
/// Runs with one number of preemptions after which a sample does not try more of them.
const SAMPLE_RUNS: &str = "300";
/// Seconds after which a model leaves off in a sample.
const SAMPLE_SECONDS: u64 = 20;
/// How long after its time a model that leaves off by itself is stopped.
const PATIENCE: Duration = Duration::from_secs(600);

/// What to run.
#[derive(clap::Args, Clone, Default)]
pub struct Options {
    /// A bounded sample: all models once, the core's with one preemption, and with two where that is not long; every seeded bug, and the
    /// orderings that fit into four minutes
    #[arg(long)]
    pub quick: bool,
    /// Every model under every mutation, instead of stopping at the first that fails
    #[arg(long)]
    pub all: bool,
    /// Only mutations whose name contains this
    #[arg(long)]
    pub only: Option<String>,
    /// Seconds that one mutated model may take
    #[arg(long, default_value_t = 120)]
    limit: u64,
    /// Seconds after which a model of the core on the code as it is leaves off, and says so
    #[arg(long, default_value_t = 900)]
    seconds: u64,
    /// Processes at a time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

impl Options {
    /// `--quick`.
    pub fn quick() -> Self {
        Self { quick: true, ..Self::usual() }
    }

    /// `--all`.
    pub fn all() -> Self {
        Self { all: true, ..Self::usual() }
    }

    fn usual() -> Self {
        Self { limit: 120, seconds: 900, jobs: 2, ..Self::default() }
    }
}

/// A model: a test of a loom binary.
#[derive(Clone, Debug)]
struct Model {
    layer: usize,
    binary: PathBuf,
    name: String,
}

/// A named fault, and where it is.
struct Mutation {
    key: String,
    layer: usize,
    /// The models that the documents name for it.
    documented: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed,
    Endless,
}

/// A run of one model.
struct Ran {
    verdict: Verdict,
    seconds: f32,
    explored: Explored,
}

/// What all runs have shown.
pub struct Findings {
    /// Each model of the core, and what it went through on the code as it is.
    pub explored: Vec<(String, Explored)>,
    /// Each mutation that was tried, the models that the documents name for it, and those that caught it.
    pub tried: Vec<(String, Vec<String>, Vec<String>)>,
}

/// What became of one mutation.
struct Caught {
    by: Vec<(String, f32)>,
    endless: Vec<String>,
    wrongly_documented: Vec<String>,
}

fn build() -> Result<Vec<Model>> {
    let packages: Vec<String> = LAYERS
        .iter()
        .filter(|layer| root().join(format!("crates/{layer}/tests/loom.rs")).exists())
        .map(|layer| format!("-p{}", package(layer)))
        .collect();
    let mut command = cargo(&["test", "--no-run", "--test", "loom", "--message-format", "json-render-diagnostics"]);
    // Optimised, but with debug assertions: models rely on them.
    command.args(&packages).env("RUSTFLAGS", "--cfg loom");
    command.env("CARGO_PROFILE_DEV_OPT_LEVEL", "3").env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only");
    let messages = crate::shell::output(command.env("CARGO_TARGET_DIR", target_dir("loom")))?;
    let mut models = Vec::new();
    for message in messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let Some(binary) = message["executable"].as_str() else { continue };
        let manifest = message["manifest_path"].as_str().unwrap_or_default();
        let layer = LAYERS.iter().position(|layer| manifest.ends_with(&format!("/{layer}/Cargo.toml")));
        let layer = layer.with_context(|| format!("a loom binary of an unknown crate: {manifest}"))?;
        let list = crate::shell::output(Command::new(binary).arg("--list"))?;
        let names = list.lines().filter_map(|line| line.strip_suffix(": test")).filter(|name| !NO_MODELS.contains(name));
        models.extend(names.map(|name| Model { layer, binary: binary.into(), name: name.into() }));
    }
    Ok(models)
}

impl Model {
    /// Whether the documents mean it by `name`: modules may be left out, from the outermost on.
    fn is(&self, name: &str) -> bool {
        self.name.strip_suffix(name).is_some_and(|modules| modules.is_empty() || modules.ends_with("::"))
    }
}

/// Runs one model, on the code as it is or mutated.
fn run_model(model: &Model, mutation: Option<&str>, options: &Options) -> Result<Ran> {
    let start = Instant::now();
    let mut command = Command::new(&model.binary);
    command.args(["--exact", &model.name, "--nocapture"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.env_remove("SPILE_MUTATE").env("RUST_BACKTRACE", "0");
    let limit = if let Some(mutation) = mutation {
        // What is found with few preemptions is found soon.
        command.env("SPILE_MUTATE", mutation).env("SPILE_RUNS", usize::MAX.to_string());
        Duration::from_secs(options.limit)
    } else {
        let seconds = if options.quick { SAMPLE_SECONDS } else { options.seconds };
        command.env("SPILE_SECONDS", seconds.to_string());
        Duration::from_secs(seconds) + PATIENCE
    };
    if mutation.is_none() && options.quick {
        // The core's models, of which there is one set per locking design.
        command.env("SPILE_PREEMPTIONS", "2").env("SPILE_RUNS", SAMPLE_RUNS);
    }
    let mut child = command.spawn()?;
    let mut printed = child.stdout.take().context("piped above")?;
    let reading = std::thread::spawn(move || {
        let mut text = Vec::new();
        // What a killed child leaves is as good as nothing.
        printed.read_to_end(&mut text).ok();
        String::from_utf8_lossy(&text).lines().filter_map(Explored::parse).collect()
    });
    let verdict = match child.wait_timeout(limit)? {
        Some(status) if status.success() => Verdict::Passed,
        Some(_) => Verdict::Failed,
        None => {
            child.kill()?;
            child.wait()?;
            Verdict::Endless
        }
    };
    let explored = reading.join().expect("reading does not panic");
    Ok(Ran { verdict, seconds: start.elapsed().as_secs_f32(), explored })
}

/// `work` on each of `items`, `jobs` at a time; the answers in the items' order.
fn in_parallel<T: Sync, A: Send>(jobs: usize, items: &[T], work: impl Fn(&T) -> A + Sync) -> Vec<A> {
    let next = Mutex::new(0..items.len());
    let answers = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let Some(i) = next.lock().expect("nobody panics with it").next() else { return };
                    let answer = work(&items[i]);
                    answers.lock().expect("nobody panics with it").insert(i, answer);
                }
            });
        }
    });
    answers.into_inner().expect("nobody panics with it").into_values().collect()
}

/// Every model on the code as it is.
fn run_plain(models: &[Model], options: &Options) -> Result<Vec<(String, Explored)>> {
    let (mut failed, mut explored) = (0, Vec::new());
    println!("| model | of | seconds | runs | verdict |\n|---|---|---|---|---|");
    for (model, answer) in models.iter().zip(in_parallel(options.jobs, models, |model| run_model(model, None, options))) {
        let ran = answer?;
        let word = match ran.verdict {
            Verdict::Passed => "passes",
            Verdict::Failed => "FAILS",
            Verdict::Endless => "DOES NOT END",
        };
        failed += usize::from(ran.verdict != Verdict::Passed);
        println!("| {} | {} | {:.1} | {} | {word} |", model.name, package(LAYERS[model.layer]), ran.seconds, ran.explored);
        if !ran.explored.is_empty() {
            explored.push((model.name.clone(), ran.explored));
        }
    }
    if failed > 0 {
        bail!("{failed} models do not pass on the code as it is");
    }
    Ok(explored)
}

/// The mutations that the sources name, seeded bugs first.
fn mutations(repo: &Repo, only: Option<&str>) -> Vec<Mutation> {
    let rows: Vec<_> = [ORDERINGS, MODELS].iter().filter_map(|path| repo.document(path)).flat_map(keyed_rows).collect();
    let mut found = BTreeMap::new();
    for (name, path) in repo.names() {
        let layer = LAYERS.iter().position(|layer| crate_of(&path) == Some(layer)).unwrap_or(0);
        found.entry(name.key()).or_insert(layer);
    }
    let wanted = |key: &str| only.is_none_or(|only| key.contains(only));
    let mutation = |(key, layer): (String, usize)| {
        let documented = rows.iter().filter(|(_, row, _)| *row == key).flat_map(|(_, _, models)| models.clone()).collect();
        Mutation { key, layer, documented }
    };
    let mut mutations: Vec<_> = found.into_iter().filter(|(key, _)| wanted(key)).map(mutation).collect();
    mutations.sort_by_key(|mutation| !mutation.key.starts_with("bug:"));
    mutations
}

/// Runs models under `mutation`: the documented ones first, then those of its crate and of the crates above.
fn try_mutation(mutation: &Mutation, models: &[Model], options: &Options) -> Result<Caught> {
    let is_documented = |model: &Model| mutation.documented.iter().any(|name| model.is(name));
    let mut order: Vec<&Model> = models.iter().filter(|model| model.layer >= mutation.layer).collect();
    order.sort_by_key(|model| (!is_documented(model), model.layer));
    let mut caught = Caught { by: Vec::new(), endless: Vec::new(), wrongly_documented: Vec::new() };
    for model in order {
        // All others take hours.
        let is_enough = !caught.by.is_empty() && !options.all || options.quick && !mutation.documented.is_empty();
        if is_enough && !is_documented(model) {
            break;
        }
        let Ran { verdict, seconds, .. } = run_model(model, Some(&mutation.key), options)?;
        match verdict {
            Verdict::Failed => caught.by.push((model.name.clone(), seconds)),
            Verdict::Endless => caught.endless.push(model.name.clone()),
            Verdict::Passed => {}
        }
        if verdict != Verdict::Failed && is_documented(model) {
            caught.wrongly_documented.push(model.name.clone());
        }
    }
    Ok(caught)
}

/// Runs everything that `options` ask for and prints two tables.
pub fn run(options: &Options) -> Result<Findings> {
    let models = build()?;
    let explored = run_plain(&models, options)?;
    let repo = Repo::load()?;
    let mut mutations = mutations(&repo, options.only.as_deref());
    // What only scheduler runs catch is their tests' business.
    let is_model = |name: &String| models.iter().any(|model| model.is(name));
    mutations.retain(|mutation| mutation.documented.is_empty() || mutation.documented.iter().any(is_model));
    let start = Instant::now();
    let in_time = |mutation: &Mutation| !options.quick || mutation.key.starts_with("bug:") || start.elapsed() < QUICK;
    let answers = in_parallel(options.jobs, &mutations, |mutation| {
        in_time(mutation).then(|| try_mutation(mutation, &models, options)).transpose()
    });
    println!("\n| mutation | caught by (seconds) | did not end |\n|---|---|---|");
    let (mut wrong, mut left_out, mut tried) = (Vec::new(), Vec::new(), Vec::new());
    for (mutation, answer) in mutations.iter().zip(answers) {
        let Some(caught) = answer? else {
            left_out.push(mutation.key.as_str());
            continue;
        };
        let by: Vec<_> = caught.by.iter().map(|(model, seconds)| format!("{model} ({seconds:.1})")).collect();
        println!("| {} | {} | {} |", mutation.key, by.join(", "), caught.endless.join(", "));
        if caught.by.is_empty() {
            wrong.push(format!("no model catches {}", mutation.key));
        }
        tried.push((mutation.key.clone(), named(mutation, &models), caught.by.iter().map(|(model, _)| model.clone()).collect()));
        wrong.extend(caught.wrongly_documented.iter().map(|model| format!("{model} is documented to catch {}", mutation.key)));
    }
    println!("\n{} models, {} mutations, {:.0} s", models.len(), mutations.len() - left_out.len(), start.elapsed().as_secs_f32());
    if !left_out.is_empty() {
        println!("left out for lack of time: {}", left_out.join(", "));
    }
    if !wrong.is_empty() {
        bail!("models: {}", wrong.join("; "));
    }
    Ok(Findings { explored, tried })
}

/// The models that the documents name for `mutation`, in full.
fn named(mutation: &Mutation, models: &[Model]) -> Vec<String> {
    let is_named = |model: &&Model| mutation.documented.iter().any(|name| model.is(name));
    models.iter().filter(is_named).map(|model| model.name.clone()).collect()
}
