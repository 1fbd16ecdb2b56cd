//! The exhaustive models, and the proof that they can fail.
//!
//! **Guarantee.** Every model passes on the code as it is; and for each ordering, fence and seeded bug that the sources name,
//! some model fails when `SPILE_MUTATE` switches that one.
//!
//! **Mechanism.** The loom test binaries are built once. Each run is one model in one process, because a mutated model may crash,
//! and may never end: one that exceeds its limit has caught nothing. The model that the documents name is tried first, and
//! must be a catcher.

use crate::repo::{LAYERS, Repo, crate_of, keyed_rows, package, root};
use crate::shell::{cargo, target_dir};
use crate::tidy::{MODELS, ORDERINGS};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use wait_timeout::ChildExt;

/// Tests of the loom binaries that run models themselves.
const NO_MODELS: [&str; 1] = ["each_fault_is_caught"];
/// How long the mutations of a `--quick` run may take together.
const QUICK: Duration = Duration::from_secs(240);
/// How long one model may take on unmutated code.
const PLAIN_LIMIT: Duration = Duration::from_secs(900);

/// What to run.
#[derive(clap::Args, Clone, Default)]
pub struct Options {
    /// A bounded sample: all models once, the core's with two preemptions at most, every seeded bug, and the orderings that fit into four minutes
    #[arg(long)]
    quick: bool,
    /// Every model under every mutation, instead of stopping at the first that fails
    #[arg(long)]
    pub all: bool,
    /// Only mutations whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Seconds that one mutated model may take
    #[arg(long, default_value_t = 120)]
    limit: u64,
    /// Processes at a time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

impl Options {
    /// `--quick`.
    pub fn quick() -> Self {
        Self { quick: true, limit: 120, jobs: 2, ..Self::default() }
    }

    /// `--all`.
    pub fn all() -> Self {
        Self { all: true, limit: 120, jobs: 2, ..Self::default() }
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
    command.args(&packages).env("RUSTFLAGS", "--cfg loom").env("CARGO_PROFILE_DEV_OPT_LEVEL", "3");
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
fn run_model(model: &Model, mutation: Option<&str>, sample: bool, limit: Duration) -> Result<(Verdict, f32)> {
    let start = Instant::now();
    let mut command = Command::new(&model.binary);
    command.args(["--exact", &model.name]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.env_remove("SPILE_MUTATE").env("RUST_BACKTRACE", "0");
    if let Some(mutation) = mutation {
        command.env("SPILE_MUTATE", mutation);
    }
    if sample {
        // The core's models, of which there is one set per locking design.
        command.env("SPILE_PREEMPTIONS", "2");
    }
    let mut child = command.spawn()?;
    let verdict = match child.wait_timeout(limit)? {
        Some(status) if status.success() => Verdict::Passed,
        Some(_) => Verdict::Failed,
        None => {
            child.kill()?;
            child.wait()?;
            Verdict::Endless
        }
    };
    Ok((verdict, start.elapsed().as_secs_f32()))
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
fn run_plain(models: &[Model], sample: bool, jobs: usize) -> Result<()> {
    let mut failed = 0;
    println!("| model | of | seconds | verdict |\n|---|---|---|---|");
    for (model, answer) in models.iter().zip(in_parallel(jobs, models, |model| run_model(model, None, sample, PLAIN_LIMIT))) {
        let (verdict, seconds) = answer?;
        let word = match verdict {
            Verdict::Passed => "passes",
            Verdict::Failed => "FAILS",
            Verdict::Endless => "DOES NOT END",
        };
        failed += usize::from(verdict != Verdict::Passed);
        println!("| {} | {} | {seconds:.1} | {word} |", model.name, package(LAYERS[model.layer]));
    }
    if failed > 0 {
        bail!("{failed} models do not pass on the code as it is");
    }
    Ok(())
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
        if !caught.by.is_empty() && !options.all && !is_documented(model) {
            break;
        }
        let (verdict, seconds) = run_model(model, Some(&mutation.key), false, Duration::from_secs(options.limit))?;
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
pub fn run(options: &Options) -> Result<()> {
    let models = build()?;
    run_plain(&models, options.quick, options.jobs)?;
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
    let (mut wrong, mut left_out) = (Vec::new(), Vec::new());
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
        wrong.extend(caught.wrongly_documented.iter().map(|model| format!("{model} is documented to catch {}", mutation.key)));
    }
    println!("\n{} models, {} mutations, {:.0} s", models.len(), mutations.len() - left_out.len(), start.elapsed().as_secs_f32());
    if !left_out.is_empty() {
        println!("left out for lack of time: {}", left_out.join(", "));
    }
    if !wrong.is_empty() {
        bail!("models: {}", wrong.join("; "));
    }
    Ok(())
}
