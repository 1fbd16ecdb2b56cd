//! The rules of the workspace that a compiler does not check. Each has a control test: a bad snippet that it must flag.

mod atomics;
mod imports;
mod modules;
mod names;
mod orderings;
mod prose;
mod shape;
mod unsafety;

pub use names::{MODELS, ORDERINGS};

use crate::repo::Repo;
use anyhow::{Result, bail};
use std::fmt;

/// A place that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl Finding {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.to_string(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

type Rule = fn(&Repo) -> Vec<Finding>;

/// Every rule with the name it is reported by.
const RULES: &[(&str, Rule)] = &[
    ("imports go down", imports::manifests),
    ("imports go down", imports::sources),
    ("parts stay apart", modules::paths),
    ("parts stay apart", modules::designs),
    ("atomics come from spile-sync", atomics::rule),
    ("unsafe stays in its files", unsafety::places),
    ("unsafe is argued", unsafety::argued),
    ("unsafe functions state their contract", unsafety::contracts),
    ("orderings are named", orderings::rule),
    ("orderings are documented", names::orderings),
    ("seeded bugs are documented", names::bugs),
    ("documented models exist", names::models),
    ("no unfinished code", prose::unfinished),
    ("prose is about the project", prose::internal),
    ("files are short", shape::length),
    ("modules open with their guarantee", shape::head),
];

/// Checks every rule and prints what breaks one.
pub fn run() -> Result<()> {
    let repo = Repo::load()?;
    unsafety::print_places(&repo);
    let mut count = 0;
    for (name, rule) in RULES {
        for finding in rule(&repo) {
            println!("{finding} [{name}]");
            count += 1;
        }
    }
    if count > 0 {
        bail!("tidy: {count} findings");
    }
    println!("tidy: {} rules hold in {} sources and {} documents", RULES.len(), repo.sources.len(), repo.documents.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn tidy() {
        if let Err(error) = super::run() {
            panic!("{error:#}");
        }
    }
}

/// What the control tests share.
#[cfg(test)]
mod control {
    use super::{Finding, Repo, Rule};

    /// A repository of these files.
    pub fn repo(files: &[(&str, &str)]) -> Repo {
        let mut repo = Repo::default();
        for (path, text) in files {
            repo.add(path, text.to_string()).expect("a snippet parses");
        }
        repo
    }

    /// Demands that `rule` flags `files`, on line `line` of the first of them.
    #[track_caller]
    pub fn flags(rule: Rule, line: usize, files: &[(&str, &str)]) {
        let findings = rule(&repo(files));
        let hit = |finding: &Finding| finding.line == line && finding.path == files[0].0;
        assert!(findings.iter().any(hit), "not flagged at line {line}: {findings:?}");
    }

    /// Demands that `rule` has nothing to say of `files`.
    #[track_caller]
    pub fn passes(rule: Rule, files: &[(&str, &str)]) {
        assert_eq!(rule(&repo(files)), []);
    }
}
