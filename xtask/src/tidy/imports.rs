//! A crate uses only crates below it.

use super::Finding;
use crate::repo::{LAYERS, Repo, crate_of};
use crate::source::Token;
use toml::{Table, Value};

fn layer(name: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| *layer == name)
}

/// The layer of a package of ours.
fn layer_of(package: &str) -> Option<&str> {
    if package == "spile" { Some(package) } else { package.strip_prefix("spile-") }
}

/// Whether the crate `from` may use the crate called `to`, which is one of ours.
fn may_use(from: &str, to: &str) -> bool {
    match (layer(from), layer(to)) {
        (Some(from), Some(to)) => to < from,
        _ => false,
    }
}

/// The dependencies of every kind and target in a manifest.
fn dependencies(manifest: &Table) -> Vec<String> {
    let mut found = Vec::new();
    for (key, value) in manifest {
        let Value::Table(table) = value else { continue };
        if key.ends_with("dependencies") {
            found.extend(table.keys().cloned());
        } else if key == "target" {
            found.extend(table.values().filter_map(Value::as_table).flat_map(dependencies));
        }
    }
    found
}

/// By `Cargo.toml`.
pub fn manifests(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for manifest in &repo.manifests {
        let Some(from) = crate_of(&manifest.path) else { continue };
        let table = match manifest.text.parse::<Table>() {
            Ok(table) => table,
            Err(error) => {
                findings.push(Finding::new(&manifest.path, 1, error.to_string()));
                continue;
            }
        };
        for dependency in dependencies(&table) {
            let Some(to) = layer_of(&dependency) else { continue };
            if !may_use(from, to) {
                let line = manifest.text.lines().position(|line| line.starts_with(&dependency)).map_or(1, |at| at + 1);
                findings.push(Finding::new(&manifest.path, line, format!("{from} depends on {to}, which is not below it")));
            }
        }
    }
    findings
}

/// By the names that sources use. A crate's own name is its tests' and examples' way to itself.
pub fn sources(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &repo.sources {
        let Some(from) = crate_of(&source.path) else { continue };
        for (token, line) in &source.tokens {
            let Token::Word(word) = token else { continue };
            let Some(to) = word.strip_prefix("spile_") else { continue };
            if layer(to).is_some() && to != from && !may_use(from, to) {
                findings.push(Finding::new(&source.path, *line, format!("{from} uses {to}, which is not below it")));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::control::{flags, passes};
    use super::*;

    #[test]
    fn upward_manifests_are_flagged() {
        let good = "[dependencies]\nspile-sync = { workspace = true }\n";
        let bad = "[dependencies]\nspile-maple = { workspace = true }\n";
        let hidden = "[target.'cfg(loom)'.dev-dependencies]\nspile-rcu = \"0.1\"\n";
        passes(manifests, &[("crates/rcu/Cargo.toml", good)]);
        flags(manifests, 2, &[("crates/rcu/Cargo.toml", bad)]);
        flags(manifests, 2, &[("crates/sync/Cargo.toml", hidden)]);
    }

    #[test]
    fn upward_paths_are_flagged() {
        passes(sources, &[("crates/maple/src/a.rs", "use spile_rcu::Rcu;\n")]);
        flags(sources, 1, &[("crates/rcu/src/a.rs", "use spile_maple::Span;\n")]);
        flags(sources, 2, &[("crates/sync/src/a.rs", "fn f() {\n    spile_rcu::Global;\n}\n")]);
    }
}
