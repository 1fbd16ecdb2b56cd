//! Figures of the sources: lines, longest functions, unsafe blocks and their proofs.

use crate::repo::Repo;
use crate::source::Source;
use anyhow::Result;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// The longest function seen so far, with its body's lines.
#[derive(Default)]
struct Longest {
    name: String,
    lines: usize,
}

impl Longest {
    fn look(&mut self, name: &syn::Ident, body: &syn::Block) {
        let lines = body.span().end().line + 1 - body.span().start().line;
        if lines > self.lines {
            *self = Self { name: name.to_string(), lines };
        }
    }
}

impl<'a> Visit<'a> for Longest {
    fn visit_item_fn(&mut self, item: &'a syn::ItemFn) {
        self.look(&item.sig.ident, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        self.look(&item.sig.ident, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'a syn::TraitItemFn) {
        if let Some(body) = &item.default {
            self.look(&item.sig.ident, body);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

fn safety_comments(source: &Source) -> usize {
    source.text.lines().filter(|line| line.trim_start().starts_with("// ") && line.contains("SAFETY")).count()
}

/// Prints a table of the shipped sources.
pub fn run() -> Result<()> {
    let repo = Repo::load()?;
    println!("| file | lines | longest function | its lines | unsafe blocks and impls | SAFETY comments |");
    println!("|---|---|---|---|---|---|");
    let mut sum = [0; 4];
    for source in repo.shipped() {
        let mut longest = Longest::default();
        longest.visit_file(&source.tree);
        let row = [source.text.lines().count(), longest.lines, source.unsafe_sites().count(), safety_comments(source)];
        println!("| {} | {} | {} | {} | {} | {} |", source.path, row[0], longest.name, row[1], row[2], row[3]);
        sum = [sum[0] + row[0], sum[1].max(row[1]), sum[2] + row[2], sum[3] + row[3]];
    }
    println!("| all | {} | | {} | {} | {} |", sum[0], sum[1], sum[2], sum[3]);
    Ok(())
}
