//! Atomics come from `spile_sync`, or no checker sees them.

use super::Finding;
use crate::repo::Repo;
use crate::source::{Source, Token};

/// What may come from elsewhere, by file and line, and why.
const ALLOWED: &[(&str, &str)] = &[
    // Orders the compiler alone; there is nothing in it for a checker to see.
    ("crates/rcu/src/std_global.rs", "use core::sync::atomic::compiler_fence;"),
    // Numbers threads where the system does not; it orders nothing, and checkers do not build it.
    ("crates/rcu/src/std_global.rs", "use core::sync::atomic::{AtomicU32, Ordering};"),
    // Counts what checkers look at; seen by them it would be a part of that.
    ("crates/spile/src/observe/counters.rs", "use core::sync::atomic::{AtomicU64, Ordering};"),
    // A futex's word is the kernel's too, which no checker plays.
    ("crates/linux/src/host/sleep.rs", "use std::sync::atomic::{AtomicU32, Ordering, fence};"),
];

/// Where they are, and a program that drives the others: its own atomics would be a part of what its schedules choose and count.
const APART: [&str; 2] = ["crates/sync/", "crates/lab/"];

/// `core::sync::atomic`, `std::sync::atomic`, or `sync::atomic` of a group import, outside `spile-sync`.
pub fn rule(repo: &Repo) -> Vec<Finding> {
    let checked = repo.shipped().filter(|source| !APART.iter().any(|path| source.path.starts_with(path)));
    checked.flat_map(findings).collect()
}

fn findings(source: &Source) -> Vec<Finding> {
    let is = |i: usize, word: &str| source.tokens.get(i).is_some_and(|(token, _)| token.is(word));
    let colons = |i: usize| (0..2).all(|k| source.tokens.get(i + k).is_some_and(|(token, _)| *token == Token::Punct(':')));
    let mut findings = Vec::new();
    for i in 0..source.tokens.len() {
        let line = source.tokens[i].1;
        let foreign = is(i, "sync") && colons(i + 1) && is(i + 3, "atomic");
        let allowed = || ALLOWED.contains(&(source.path.as_str(), source.line(line)));
        if foreign && !allowed() {
            findings.push(Finding::new(&source.path, line, "an atomic that does not come from spile_sync"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::control::{flags, passes};
    use super::*;

    #[test]
    fn foreign_atomics_are_flagged() {
        passes(
            rule,
            &[(
                "crates/rcu/src/a.rs",
                "use spile_sync::atomic::AtomicU64;\n//! use std::sync::atomic::AtomicPtr;\n".split_once("//!").unwrap().0,
            )],
        );
        flags(rule, 1, &[("crates/rcu/src/a.rs", "use core::sync::atomic::AtomicU64;\n")]);
        flags(rule, 2, &[("crates/maple/src/a.rs", "fn f() {\n    std::sync::atomic::fence(SeqCst);\n}\n")]);
        flags(rule, 1, &[("crates/maple/src/a.rs", "use std::{sync::atomic::AtomicBool, thread};\n")]);
        let allowed = "use core::sync::atomic::compiler_fence;\n";
        passes(rule, &[("crates/rcu/src/std_global.rs", allowed)]);
        flags(rule, 1, &[("crates/rcu/src/slots.rs", allowed)]);
    }
}
