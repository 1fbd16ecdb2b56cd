//! `unsafe` stays in the files that list it, with a proof at each use and a contract at each function.

use super::Finding;
use crate::repo::Repo;
use crate::source::Source;
use syn::visit::{self, Visit};

/// The files and directories that may be unsafe. A new one is a decision: add it here with the change that needs it.
const PLACES: &[&str] = &[
    // A guard that was forgotten over a fork is recalled.
    "crates/sync/src/lock.rs",
    // Intrusive lists of heads whose objects are released by pointer.
    "crates/rcu/src/backlog.rs",
    "crates/rcu/src/head.rs",
    "crates/rcu/src/lib.rs",
    "crates/rcu/src/qsbr.rs",
    "crates/rcu/src/rcu_box.rs",
    "crates/rcu/src/slots.rs",
    "crates/rcu/src/srcu.rs",
    "crates/rcu/src/std_global.rs",
    // Nodes are raw memory, and shared.
    "crates/maple/src/buf.rs",
    "crates/maple/src/build.rs",
    "crates/maple/src/climb.rs",
    "crates/maple/src/gap.rs",
    "crates/maple/src/handle.rs",
    "crates/maple/src/iter.rs",
    "crates/maple/src/map.rs",
    "crates/maple/src/node.rs",
    "crates/maple/src/node/inner.rs",
    "crates/maple/src/node/leaf.rs",
    "crates/maple/src/path.rs",
    "crates/maple/src/splice.rs",
    "crates/maple/src/stock.rs",
    "crates/maple/src/tree.rs",
    "crates/maple/src/validate.rs",
    "crates/maple/src/writer.rs",
    // A mapping that was found is used beyond the section or borrow in which it was found: a lock, a reference or a claim keeps it.
    "crates/spile/src/change/fork.rs",
    "crates/spile/src/change/mod.rs",
    "crates/spile/src/index/",
    "crates/spile/src/locking/",
    // The words of a design are the design's.
    "crates/spile/src/vma.rs",
    // Who changes entries owes that nobody else relies on them.
    "crates/spile/src/change/relocate.rs",
    "crates/spile/src/mm.rs",
    "crates/spile/src/paging/commit.rs",
    "crates/spile/src/paging/relocate.rs",
    "crates/spile/src/paging/table.rs",
    "crates/spile/src/paging/zap.rs",
    "crates/sim/src/cpu.rs",
    // Traits whose implementors owe memory, and whose callers have it.
    "crates/spile/src/backing/page_cache/cut.rs",
    "crates/spile/src/backing/page_cache/dirty.rs",
    "crates/spile/src/backing/page_cache/mod.rs",
    "crates/spile/src/backing/swap.rs",
    "crates/spile/src/fault/cow.rs",
    "crates/spile/src/frame.rs",
    "crates/spile/src/paging/hold.rs",
    "crates/spile/src/platform.rs",
    "crates/spile/src/reclaim/mod.rs",
    "crates/sim/src/store.rs",
    "crates/sim/src/swap.rs",
    "crates/stores/src/pages.rs",
    "crates/stores/src/queued.rs",
    // The simulator's memory, and its RCU domain.
    "crates/sim/src/frames.rs",
    "crates/sim/src/in_use.rs",
    "crates/sim/src/lib.rs",
    "crates/sim/src/mmu.rs",
    "crates/sim/src/rcu.rs",
    // Traits and functions whose implementors and callers owe that contents do not change by themselves; system calls that move pages.
    "crates/linux/src/backing/anonymous.rs",
    "crates/linux/src/backing/file.rs",
    "crates/linux/src/backing/generated.rs",
    "crates/linux/src/backing/mod.rs",
    // System calls about this process's own memory, and a child that shares it.
    "crates/linux/src/child.rs",
    "crates/linux/src/door.rs",
    "crates/linux/src/pages.rs",
    "crates/linux/src/scan.rs",
    "crates/linux/src/tracked.rs",
    "crates/linux/src/trial.rs",
    "crates/linux/src/uffd.rs",
    // The platform of a process: its pages, and traits whose implementors owe memory.
    "crates/linux/src/host/",
    // A signal handler, regions whose faults it has, and a line that it writes.
    "crates/linux/src/region/access.rs",
    "crates/linux/src/region/mod.rs",
    "crates/linux/src/region/pin.rs",
    "crates/linux/src/region/poison.rs",
    "crates/linux/src/report.rs",
    "crates/linux/src/signal.rs",
    // A page that nothing may read is looked at.
    "crates/judge/src/us.rs",
    // The kernel's verbs by system call, in a child process.
    "crates/judge/src/host/access.rs",
    "crates/judge/src/host/child.rs",
    "crates/judge/src/host/mod.rs",
    // A machine's memory, system calls that are measured, and an allocator.
    "crates/lab/src/heap.rs",
    "crates/lab/src/bench/host.rs",
    "crates/lab/src/bench/real.rs",
    // A file whose contents are a region's.
    "crates/lab/src/verb/tour/real.rs",
    "crates/lab/src/lean.rs",
];

fn uses(source: &Source) -> usize {
    source.tokens.iter().filter(|(token, _)| token.is("unsafe")).count()
}

/// Prints the shipped files that are unsafe, with how often the word stands in each.
pub fn print_places(repo: &Repo) {
    let counts: Vec<_> = repo.shipped().map(|source| (uses(source), &source.path)).filter(|(count, _)| *count > 0).collect();
    println!("unsafe: {} in {} files", counts.iter().map(|(count, _)| count).sum::<usize>(), counts.len());
    for (count, path) in counts {
        println!("  {count:4} {path}");
    }
}

/// No `unsafe` outside [`PLACES`], and no file listed that needs it no more.
pub fn places(repo: &Repo) -> Vec<Finding> {
    let is_listed = |path: &str| PLACES.iter().any(|place| *place == path || place.ends_with('/') && path.starts_with(place));
    let is_file = |path: &str| PLACES.contains(&path);
    let finding = |source: &Source| match (uses(source) > 0, is_listed(&source.path)) {
        (true, false) => {
            let first = source.tokens.iter().find(|(token, _)| token.is("unsafe")).map_or(1, |(_, line)| *line);
            Some(Finding::new(&source.path, first, "unsafe in a file that is not listed for it"))
        }
        (false, true) if is_file(&source.path) => Some(Finding::new(&source.path, 1, "listed for unsafe, and has none")),
        _ => None,
    };
    repo.shipped().filter_map(finding).collect()
}

/// Whether a `SAFETY:` comment stands above the statement of token `at`, or in it.
fn is_argued(source: &Source, at: usize) -> bool {
    let mut from = source.statement_line(at);
    while from > 1 && (source.line(from - 1).starts_with("//") || source.line(from - 1).starts_with("#[")) {
        from -= 1;
    }
    source.comments(from, source.tokens[at].1).contains("SAFETY:")
}

/// Each `unsafe` block and implementation has its proof.
pub fn argued(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in repo.shipped() {
        for at in source.unsafe_sites().filter(|&at| !is_argued(source, at)) {
            findings.push(Finding::new(&source.path, source.tokens[at].1, "no SAFETY comment above this unsafe's statement"));
        }
    }
    findings
}

/// Unsafe functions and traits without `# Safety`. Those of a trait's implementation have it at the trait.
#[derive(Default)]
struct Contracts {
    missing: Vec<(usize, String)>,
}

impl Contracts {
    fn look(&mut self, what: &syn::Ident, attributes: &[syn::Attribute]) {
        let text = |attribute: &syn::Attribute| match &attribute.meta {
            syn::Meta::NameValue(doc) if doc.path.is_ident("doc") => match &doc.value {
                syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value()),
                _ => None,
            },
            _ => None,
        };
        if !attributes.iter().filter_map(text).any(|line| line.trim() == "# Safety") {
            self.missing.push((what.span().start().line, what.to_string()));
        }
    }
}

impl<'a> Visit<'a> for Contracts {
    fn visit_item_fn(&mut self, item: &'a syn::ItemFn) {
        if crate::source::is_unsafe(&item.sig) {
            self.look(&item.sig.ident, &item.attrs);
        }
        visit::visit_item_fn(self, item);
    }

    fn visit_item_impl(&mut self, item: &'a syn::ItemImpl) {
        let own = item.trait_.is_none();
        for method in item.items.iter().filter(|_| own) {
            if let syn::ImplItem::Fn(method) = method
                && crate::source::is_unsafe(&method.sig)
            {
                self.look(&method.sig.ident, &method.attrs);
            }
        }
        visit::visit_item_impl(self, item);
    }

    fn visit_item_trait(&mut self, item: &'a syn::ItemTrait) {
        if item.unsafety.is_some() {
            self.look(&item.ident, &item.attrs);
        }
        for method in &item.items {
            if let syn::TraitItem::Fn(method) = method
                && crate::source::is_unsafe(&method.sig)
            {
                self.look(&method.sig.ident, &method.attrs);
            }
        }
        visit::visit_item_trait(self, item);
    }
}

/// Each unsafe function and trait says what its caller or implementor owes.
pub fn contracts(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in repo.shipped() {
        let mut contracts = Contracts::default();
        contracts.visit_file(&source.tree);
        let missing = contracts.missing.into_iter();
        findings.extend(missing.map(|(line, name)| Finding::new(&source.path, line, format!("unsafe `{name}` has no # Safety"))));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::control::{flags, passes};
    use super::*;

    const FILE: &str = "crates/maple/src/node.rs";

    #[test]
    fn unlisted_files_are_flagged() {
        let text = "// SAFETY: (1) none.\nunsafe impl Send for A {}\n";
        passes(places, &[(FILE, text)]);
        flags(places, 2, &[("crates/maple/src/span.rs", text)]);
        flags(places, 1, &[(FILE, "struct A;\n")]);
    }

    #[test]
    fn bare_unsafe_is_flagged() {
        flags(argued, 2, &[(FILE, "fn f() {\n    unsafe { g() };\n}\n")]);
        flags(argued, 1, &[(FILE, "unsafe impl Send for A {}\n")]);
        // The proof of the statement before is not this one's.
        flags(argued, 4, &[(FILE, "fn f() {\n    // SAFETY: (1) a.\n    unsafe { g() };\n    unsafe { h() };\n}\n")]);
        // Nor is that of the loop around.
        let inner = "fn f() {\n    // SAFETY: (1) a.\n    while unsafe { g() } {\n        unsafe { h() };\n    }\n}\n";
        flags(argued, 4, &[(FILE, inner)]);
    }

    #[test]
    fn argued_unsafe_passes() {
        passes(argued, &[(FILE, "fn f() {\n    // SAFETY: (1) a.\n    let a = b(|| unsafe { g() });\n}\n")]);
        passes(argued, &[(FILE, "fn f() {\n    a(x)\n        // SAFETY: (1) a.\n        .map(|()| unsafe { g() });\n}\n")]);
        passes(
            argued,
            &[(
                FILE,
                "fn f() {\n    match a {\n        A => 1,\n        // SAFETY: (1) a.\n        B => unsafe { g() },\n    }\n}\n",
            )],
        );
        passes(argued, &[(FILE, "// SAFETY: (1) a.\n#[cfg(loom)]\nunsafe impl Send for A {}\n")]);
    }

    #[test]
    fn missing_contracts_are_flagged() {
        flags(contracts, 2, &[(FILE, "/// Does it.\npub unsafe fn f() {}\n")]);
        flags(contracts, 3, &[(FILE, "trait T {\n    /// Does it.\n    unsafe fn f();\n}\n")]);
        flags(contracts, 2, &[(FILE, "mod a {\n    unsafe trait T {}\n}\n")]);
        flags(contracts, 2, &[(FILE, "impl A {\n    unsafe fn f() {}\n}\n")]);
        passes(contracts, &[(FILE, "/// Does it.\n///\n/// # Safety\n///\n/// (1) So.\npub unsafe fn f() {}\n")]);
        passes(contracts, &[(FILE, "impl T for A {\n    unsafe fn f() {}\n}\n")]);
    }
}
