//! The parts of the core know of each other only what they need.

use super::Finding;
use crate::repo::Repo;
use crate::source::{Source, Token};

const CORE: &str = "crates/spile/src/";

/// A folder of the core, and the modules that nothing in it may name.
const APART: [(&str, &[&str]); 5] = [
    ("fault/", &["change", "linux", "observe"]),
    ("change/", &["fault", "linux", "observe"]),
    ("paging/", &["backing", "change", "fault", "identity", "index", "linux", "locking", "mm", "usage", "vma"]),
    ("backing/", &["change", "fault", "identity", "index", "linux", "locking", "mm", "reclaim", "usage", "vma"]),
    ("reclaim/", &["change", "fault", "identity", "index", "linux", "locking", "mm", "usage", "vma"]),
];

/// Where designs are, and where no design is named.
const DESIGNS: &str = "locking/";
const WITHOUT_DESIGN: [&str; 5] = ["fault/", "change/", "paging/", "backing/", "reclaim/"];

/// By this the parts below reclaim call out to what a host says of it.
const SEAM: [&str; 2] = ["reclaim", "sealed"];

/// No path `crate::module` leads where [`APART`] forbids, save to the [`SEAM`].
pub fn paths(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &repo.sources {
        let Some(file) = source.path.strip_prefix(CORE) else { continue };
        let Some((folder, forbidden)) = APART.iter().find(|(folder, _)| file.starts_with(folder)) else { continue };
        for (i, window) in source.tokens.windows(4).enumerate() {
            let [(start, _), (Token::Punct(':'), _), (Token::Punct(':'), _), (Token::Word(module), line)] = window else {
                continue;
            };
            let next = source.tokens.get(i + 6).map(|(token, _)| token);
            let is_seam = module == SEAM[0] && next.is_some_and(|next| next.is(SEAM[1]));
            if start.is("crate") && forbidden.contains(&module.as_str()) && !is_seam {
                findings.push(Finding::new(&source.path, *line, format!("{folder} names {module}")));
            }
        }
    }
    findings
}

/// What has `impl Locking for` is named by no other design, and by nothing that serves all of them.
pub fn designs(repo: &Repo) -> Vec<Finding> {
    let designs: Vec<(&str, &str)> =
        repo.sources.iter().filter_map(|source| Some((design(source)?, source.path.as_str()))).collect();
    let mut findings = Vec::new();
    for source in &repo.sources {
        let Some(file) = source.path.strip_prefix(CORE) else { continue };
        let is_design = designs.iter().any(|(_, path)| *path == source.path);
        if !is_design && !WITHOUT_DESIGN.iter().any(|folder| file.starts_with(folder)) {
            continue;
        }
        for (token, line) in &source.tokens {
            if let Some((name, _)) = designs.iter().find(|(name, path)| token.is(name) && *path != source.path) {
                findings.push(Finding::new(&source.path, *line, format!("names the design {name}")));
            }
        }
    }
    findings
}

/// The design that a file of [`DESIGNS`] is.
fn design(source: &Source) -> Option<&str> {
    let file = source.path.strip_prefix(CORE)?;
    let of = |window: &[(Token, usize)]| window[0].0.is("impl") && window[1].0.is("Locking") && window[2].0.is("for");
    let window = source.tokens.windows(4).filter(|_| file.starts_with(DESIGNS)).find(|window| of(window))?;
    match &window[3].0 {
        Token::Word(name) => Some(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::control::{flags, passes};
    use super::*;

    const DESIGN: (&str, &str) = ("crates/spile/src/locking/one.rs", "impl Locking for One {}\n");

    #[test]
    fn paths_between_parts_are_flagged() {
        flags(paths, 1, &[("crates/spile/src/fault/anon.rs", "use crate::change::Change;\n")]);
        flags(paths, 1, &[("crates/spile/src/backing/swap.rs", "use crate::reclaim::Record;\n")]);
        passes(paths, &[("crates/spile/src/backing/swap.rs", "use crate::reclaim::sealed::Reclaim;\n")]);
        flags(paths, 2, &[("crates/spile/src/paging/zap.rs", "fn f() {\n    crate::vma::f();\n}\n")]);
        passes(paths, &[("crates/spile/src/mm.rs", "use crate::change::Change;\nuse crate::fault;\n")]);
        passes(paths, &[("crates/spile/src/fault/anon.rs", "use crate::paging::Spot;\n")]);
    }

    #[test]
    fn designs_that_are_named_are_flagged() {
        flags(designs, 1, &[("crates/spile/src/change/map.rs", "use crate::locking::One;\n"), DESIGN]);
        flags(designs, 1, &[("crates/spile/src/locking/two.rs", "fn f(_: One) {} impl Locking for Two {}\n"), DESIGN]);
        passes(designs, &[DESIGN, ("crates/spile/src/lib.rs", "pub use locking::One;\n")]);
    }
}
