//! An ordering stronger than Relaxed is explained where it is used.

use super::Finding;
use crate::repo::Repo;
use crate::source::{Naming, Source, Token};

/// How far above its use the comment may begin.
const REACH: usize = 6;

/// Each named ordering or fence has `[name]` in a comment above it; each bare one its own word.
pub fn rule(repo: &Repo) -> Vec<Finding> {
    repo.modelled().flat_map(|source| named(source).into_iter().chain(bare(source))).collect()
}

fn named(source: &Source) -> Vec<Finding> {
    let names = source.names().into_iter().filter(|name| name.naming != Naming::Bug);
    let silent = names.filter(|name| !above(source, name.line).contains(&format!("[{}]", name.name)));
    silent.map(|name| Finding::new(&source.path, name.line, format!("no comment above says [{}]", name.name))).collect()
}

fn bare(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for window in source.tokens.windows(4) {
        let [(path, _), (Token::Punct(':'), _), (Token::Punct(':'), _), (Token::Word(ordering), line)] = window else { continue };
        let strong = ["Acquire", "Release", "AcqRel", "SeqCst"].contains(&ordering.as_str());
        if path.is("Ordering") && strong && !names_it(&above(source, *line), ordering) {
            findings.push(Finding::new(&source.path, *line, format!("no comment above says why {ordering}")));
        }
    }
    findings
}

fn above(source: &Source, line: usize) -> String {
    source.comments(line.saturating_sub(REACH), line)
}

fn names_it(comment: &str, ordering: &str) -> bool {
    let both = ordering == "AcqRel" && comment.contains("Acquire") && comment.contains("Release");
    both || comment.contains(ordering)
}

#[cfg(test)]
mod tests {
    use super::super::control::{flags, passes};
    use super::*;

    const FILE: &str = "crates/rcu/src/slots.rs";

    #[test]
    fn unexplained_orderings_are_flagged() {
        flags(rule, 2, &[(FILE, "fn f() {\n    a.load(Ordering::Acquire);\n}\n")]);
        flags(rule, 3, &[(FILE, "fn f() {\n    // Release: b.\n    a.load(Ordering::Acquire);\n}\n")]);
        flags(rule, 3, &[(FILE, "fn f() {\n    // Acquire [other]: b.\n    a.load(order!(\"scan\", Acquire));\n}\n")]);
        flags(rule, 2, &[(FILE, "fn f() {\n    fence!(\"claim\");\n}\n")]);
        flags(
            rule,
            9,
            &[(FILE, &format!("fn f() {{\n    // Acquire: b.\n{}    a.load(Ordering::Acquire);\n}}\n", "    b();\n".repeat(6)))],
        );
    }

    #[test]
    fn explained_orderings_pass() {
        passes(rule, &[(FILE, "fn f() {\n    a.load(Ordering::Relaxed);\n}\n")]);
        passes(rule, &[(FILE, "fn f() {\n    // Acquire: b.\n    a.load(Ordering::Acquire);\n}\n")]);
        passes(rule, &[(FILE, "fn f() {\n    // Acquire [scan]: b.\n    a.load(order!(\"scan\", Acquire));\n}\n")]);
        passes(rule, &[(FILE, "fn f() {\n    // [claim] against [alone].\n    fence!(\"claim\");\n}\n")]);
    }
}
