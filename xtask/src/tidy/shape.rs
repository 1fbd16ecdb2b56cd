//! The shape of a file: short, and its guarantee first.

use super::Finding;
use crate::repo::Repo;

/// The most lines of a source file.
const LINES: usize = 600;

/// No shipped file is longer than [`LINES`].
pub fn length(repo: &Repo) -> Vec<Finding> {
    let count = |text: &str| text.lines().count();
    let long = repo.sources.iter().filter(|source| source.path.contains("/src/") && count(&source.text) > LINES);
    long.map(|source| Finding::new(&source.path, LINES, format!("{} lines; at most {LINES}", count(&source.text)))).collect()
}

/// Each source begins with `//!`.
pub fn head(repo: &Repo) -> Vec<Finding> {
    let headless = repo.sources.iter().filter(|source| source.path.contains("/src/") && !source.text.starts_with("//!"));
    headless.map(|source| Finding::new(&source.path, 1, "the module does not open with //!")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::control::{flags, passes};
    use super::*;

    #[test]
    fn long_files_are_flagged() {
        flags(length, LINES, &[("crates/rcu/src/a.rs", &"fn _f() {}\n".repeat(LINES + 1))]);
        passes(length, &[("crates/rcu/src/a.rs", &"fn _f() {}\n".repeat(LINES))]);
    }

    #[test]
    fn headless_files_are_flagged() {
        flags(head, 1, &[("crates/rcu/src/a.rs", "use b::C;\n")]);
        passes(head, &[("crates/rcu/src/a.rs", "//! Does it.\nuse b::C;\n")]);
    }
}
