//! Names in the code and names in the documents are the same, in both directions.

use super::Finding;
use crate::repo::{Repo, keyed_rows};
use crate::source::Naming;
use std::collections::BTreeSet;

/// Where named orderings and fences are paired.
pub const ORDERINGS: &str = "docs/orderings.md";
/// Where seeded bugs are listed.
pub const MODELS: &str = "docs/models.md";

/// The names of `order!` and `fence!` against [`ORDERINGS`].
pub fn orderings(repo: &Repo) -> Vec<Finding> {
    compare(repo, ORDERINGS, |naming| naming != Naming::Bug)
}

/// The names of `seeded!` against [`MODELS`].
pub fn bugs(repo: &Repo) -> Vec<Finding> {
    compare(repo, MODELS, |naming| naming == Naming::Bug)
}

fn compare(repo: &Repo, document: &str, of_this: fn(Naming) -> bool) -> Vec<Finding> {
    let rows = repo.document(document).map(keyed_rows).unwrap_or_default();
    let documented: BTreeSet<&str> = rows.iter().map(|(_, key, _)| key.as_str()).collect();
    let names: Vec<_> = repo.names().into_iter().filter(|(name, _)| of_this(name.naming)).collect();
    let given: BTreeSet<String> = names.iter().map(|(name, _)| name.key()).collect();
    let mut findings = Vec::new();
    for (name, path) in names.iter().filter(|(name, _)| !documented.contains(name.key().as_str())) {
        findings.push(Finding::new(path, name.line, format!("`{}` is not in {document}", name.key())));
    }
    let ours = |key: &str| key.starts_with("bug:") == of_this(Naming::Bug);
    for (line, key, _) in rows.iter().filter(|(_, key, _)| ours(key) && !given.contains(key)) {
        findings.push(Finding::new(document, *line, format!("`{key}` is not in the code")));
    }
    findings
}

/// Where the designs are listed.
const DESIGNS: &str = "crates/spile/src/locking/mod.rs";

/// What the last column of either document names is a test that exists: a function, or a row of a macro that makes one for each design.
pub fn models(repo: &Repo) -> Vec<Finding> {
    let is_test = |model: &str| {
        let (design, model) = model.rsplit_once("::").map_or((None, model), |(design, model)| (Some(design), model));
        let definitions = [format!("fn {model}("), format!("{model} => ")];
        let defines = |text: &str| definitions.iter().any(|definition| text.contains(definition));
        let is_design =
            |design| repo.sources.iter().any(|source| source.path == DESIGNS && source.text.contains(&format!(" {design}::")));
        design.is_none_or(is_design) && repo.sources.iter().any(|source| source.path.contains("/tests/") && defines(&source.text))
    };
    let mut findings = Vec::new();
    for document in [ORDERINGS, MODELS].iter().filter_map(|path| repo.document(path)) {
        for (line, key, models) in keyed_rows(document) {
            for model in models.iter().filter(|model| !is_test(model)) {
                findings.push(Finding::new(&document.path, line, format!("`{model}`, which is to catch `{key}`, is no test")));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::control::{flags, passes};
    use super::*;

    const CODE: (&str, &str) =
        ("crates/rcu/src/a.rs", "fn f() {\n    g(order!(\"push\", Release), seeded!(\"early-free\"));\n}\n");
    const TEST: (&str, &str) = ("crates/rcu/tests/loom.rs", "#[test]\nfn caught() {}\n");

    #[test]
    fn undocumented_names_are_flagged() {
        flags(orderings, 2, &[CODE, (ORDERINGS, "| `order:pop` | a | b |\n")]);
        flags(orderings, 2, &[CODE]);
        flags(bugs, 2, &[CODE, (MODELS, "| `order:push` | a | b |\n")]);
    }

    #[test]
    fn names_without_code_are_flagged() {
        flags(orderings, 1, &[(ORDERINGS, "| `order:pop` | a | b |\n"), CODE]);
        flags(bugs, 2, &[(MODELS, "\n| `bug:late-free` | a | b |\n"), CODE]);
    }

    #[test]
    fn models_that_do_not_exist_are_flagged() {
        flags(models, 1, &[(ORDERINGS, "| `order:push` | a | `missed` |\n"), TEST]);
        passes(models, &[(ORDERINGS, "| `order:push` | a | `caught` |\n"), TEST]);
        let made = ("crates/a/tests/loom.rs", "each! {\n    made => of;\n}\n");
        passes(models, &[(ORDERINGS, "| `order:push` | a | `made` |\n"), made]);
        let designs = (DESIGNS, "designs! {\n    one::One\n}\n");
        passes(models, &[(ORDERINGS, "| `order:push` | a | `one::made` |\n"), made, designs]);
        flags(models, 1, &[(ORDERINGS, "| `order:push` | a | `other::made` |\n"), made, designs]);
    }

    #[test]
    fn equal_names_pass() {
        let documents = [CODE, (ORDERINGS, "| `order:push` | a |\n"), (MODELS, "| `bug:early-free` | a |\n")];
        passes(orderings, &documents);
        passes(bugs, &documents);
    }
}
