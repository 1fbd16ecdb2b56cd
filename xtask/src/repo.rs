//! The workspace as the rules of `tidy` see it: sources, manifests, documents.

use crate::source::{Name, Source};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

/// The crates, the lowest first: each may use those before it.
pub const LAYERS: [&str; 10] = ["sync", "rcu", "maple", "spile", "mmtrace", "sim", "stores", "linux", "judge", "lab"];
/// How many of them are for kernels too: without std, and published.
const LIBRARIES: usize = 4;

/// The crates that have models.
const MODELLED: [&str; 3] = ["rcu", "maple", "spile"];

/// The crates that are built without std, and published.
pub fn libraries() -> impl Iterator<Item = &'static str> {
    LAYERS.into_iter().take(LIBRARIES)
}

/// What the crate of a layer is called.
pub fn package(layer: &str) -> String {
    if layer == "spile" { layer.to_string() } else { format!("spile-{layer}") }
}

/// The root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_path_buf()
}

/// A file that is not Rust.
pub struct Text {
    /// Its path from the root, with `/`.
    pub path: String,
    /// What is in it.
    pub text: String,
}

/// Everything that `tidy` looks at.
#[derive(Default)]
pub struct Repo {
    /// Rust files of the crates and of xtask.
    pub sources: Vec<Source>,
    /// `Cargo.toml` of each crate.
    pub manifests: Vec<Text>,
    /// Documents, scripts, workflows.
    pub documents: Vec<Text>,
}

impl Repo {
    /// Reads the workspace.
    pub fn load() -> Result<Self> {
        let root = root();
        let mut repo = Self::default();
        for place in ["crates", "xtask", "docs", "fuzz", ".ci", ".github"] {
            let kept = |name: &str| !["target", "corpus", "artifacts"].contains(&name);
            let walk = WalkDir::new(root.join(place)).sort_by_file_name().into_iter();
            for entry in walk.filter_entry(|e| e.file_name().to_str().is_some_and(kept)).filter_map(Result::ok) {
                if entry.file_type().is_file() {
                    repo.read(&root, entry.path())?;
                }
            }
        }
        for entry in std::fs::read_dir(&root)?.filter_map(Result::ok) {
            if entry.path().extension().is_some_and(|extension| extension == "md") {
                repo.read(&root, &entry.path())?;
            }
        }
        Ok(repo)
    }

    fn read(&mut self, root: &Path, file: &Path) -> Result<()> {
        let path = file.strip_prefix(root)?.to_string_lossy().replace('\\', "/");
        let Ok(text) = std::fs::read_to_string(file) else {
            return Ok(());
        };
        self.add(&path, text).with_context(|| format!("reading {path}"))
    }

    /// Adds a file by what its path says it is.
    pub fn add(&mut self, path: &str, text: String) -> Result<()> {
        if path.ends_with(".rs") {
            self.sources.push(Source::parse(path, text)?);
        } else if path.ends_with("Cargo.toml") {
            self.manifests.push(Text { path: path.to_string(), text });
        } else if path.ends_with(".md") || path.ends_with(".yml") || path == ".ci/run" {
            self.documents.push(Text { path: path.to_string(), text });
        }
        Ok(())
    }

    /// The shipped sources of the library crates.
    pub fn shipped(&self) -> impl Iterator<Item = &Source> {
        self.sources
            .iter()
            .filter(|source| crate_of(&source.path).is_some_and(|name| source.path[7 + name.len()..].starts_with("/src/")))
    }

    /// The shipped sources whose orderings are named and whose names models test: those of [`MODELLED`], and of the facade the lock.
    pub fn modelled(&self) -> impl Iterator<Item = &Source> {
        self.shipped().filter(|source| match crate_of(&source.path) {
            Some("sync") => source.path == "crates/sync/src/lock.rs",
            name => name.is_some_and(|name| MODELLED.contains(&name)),
        })
    }

    /// The names given in the sources that models run.
    pub fn names(&self) -> Vec<(Name, String)> {
        self.modelled().flat_map(|source| source.names().into_iter().map(|name| (name, source.path.clone()))).collect()
    }

    /// The document at `path`.
    pub fn document(&self, path: &str) -> Option<&Text> {
        self.documents.iter().find(|document| document.path == path)
    }
}

/// `rcu` of `crates/rcu/src/lib.rs`.
pub fn crate_of(path: &str) -> Option<&str> {
    path.strip_prefix("crates/")?.split('/').next()
}

/// The rows of a document's tables whose first cell is `` `order:..` ``, `` `fence:..` `` or `` `bug:..` ``: that key, and
/// what the last cell names in backticks.
pub fn keyed_rows(document: &Text) -> Vec<(usize, String, Vec<String>)> {
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_string).collect::<Vec<_>>();
    let row = |(number, line): (usize, &str)| {
        let cells: Vec<&str> = line.trim().strip_prefix('|')?.strip_suffix('|')?.split('|').collect();
        let key = quoted(cells.first()?).into_iter().next()?;
        let is_key = ["order:", "fence:", "bug:"].iter().any(|kind| key.starts_with(kind));
        is_key.then(|| (number + 1, key, quoted(cells.last().copied().unwrap_or_default())))
    };
    document.text.lines().enumerate().filter_map(row).collect()
}
