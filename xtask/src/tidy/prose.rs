//! What is written is finished, and about the project.

use super::Finding;
use crate::repo::Repo;
use crate::source::Token;
use regex::Regex;

/// Macros that mark code as unfinished.
const MACROS: [&str; 3] = ["todo", "unimplemented", "dbg"];

/// The control tests of this file must write what it forbids.
const SELF: &str = "xtask/src/tidy/prose.rs";

/// Unfinished code, and notes that say so.
pub fn unfinished(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in repo.sources.iter().filter(|source| source.path != SELF) {
        for window in source.tokens.windows(2) {
            if let [(Token::Word(word), line), (Token::Punct('!'), _)] = window
                && MACROS.contains(&word.as_str())
            {
                findings.push(Finding::new(&source.path, *line, format!("{word}! is unfinished code")));
            }
        }
    }
    findings.extend(search(repo, r"\b(FIXME|XXX|TODO)\b", "a note of unfinished work"));
    findings
}

/// Words of how the work was organised, and paths of one machine: they mean nothing to a reader.
pub fn internal(repo: &Repo) -> Vec<Finding> {
    search(repo, r"(?i)(^|[\s(,])#\d+\b|\bsessions?\b|/(root|work|home)/", "a word of internal workflow")
}

/// Where `pattern` stands in comments and documents.
fn search(repo: &Repo, pattern: &str, what: &str) -> Vec<Finding> {
    let pattern = Regex::new(pattern).expect("the pattern is a literal");
    let mut findings = Vec::new();
    let mut look = |path: &str, line: usize, text: &str| {
        if let Some(hit) = pattern.find(text) {
            findings.push(Finding::new(path, line, format!("{what}: `{}`", hit.as_str().trim())));
        }
    };
    for source in repo.sources.iter().filter(|source| source.path != SELF) {
        for (i, line) in source.text.lines().enumerate() {
            if let Some((_, comment)) = line.split_once("//") {
                look(&source.path, i + 1, comment);
            }
        }
    }
    for document in &repo.documents {
        document.text.lines().enumerate().for_each(|(i, line)| look(&document.path, i + 1, line));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::control::{flags, passes};
    use super::*;

    const FILE: &str = "crates/rcu/src/a.rs";

    #[test]
    fn unfinished_code_is_flagged() {
        flags(unfinished, 2, &[(FILE, "fn f() {\n    todo!()\n}\n")]);
        flags(unfinished, 1, &[(FILE, "fn f() { unimplemented!() }\n")]);
        flags(unfinished, 1, &[(FILE, "fn f() { dbg!(1); }\n")]);
        flags(unfinished, 1, &[(FILE, "// FIXME: later\nfn f() {}\n")]);
        flags(unfinished, 1, &[("README.md", "XXX: later\n")]);
        passes(unfinished, &[(FILE, "fn f() { unreachable!() }\n")]);
    }

    #[test]
    fn internal_words_are_flagged() {
        flags(internal, 1, &[(FILE, "// Asked for in #12.\nfn f() {}\n")]);
        flags(internal, 1, &[("README.md", "Written in one session.\n")]);
        flags(internal, 1, &[("docs/a.md", "Run it in /home/me/spile.\n")]);
        passes(internal, &[(FILE, "// A section.\n#[test]\nfn f() {}\n"), ("README.md", "# 1. First\n")]);
    }
}
