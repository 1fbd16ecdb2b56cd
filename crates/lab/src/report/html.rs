//! The page around sections: head, contents, tables.

use super::chart::scale::bytes;
use super::{Report, Section};
use crate::output::{Cells, Table};
use maud::{DOCTYPE, Markup, PreEscaped, Render, html};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("sort.js");
/// Nothing is fetched, whatever the page says.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:";
/// So many sections can be seen without a list of them.
const FEW: usize = 2;

pub(super) fn page(report: &Report) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (report.title) }
                link rel="icon" href="data:,";
                style { (PreEscaped(STYLE)) }
            }
            body {
                (head(report))
                main {
                    @for (i, section) in report.sections.iter().enumerate() { (part(i, section)) }
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    }
}

fn head(report: &Report) -> Markup {
    let host = &report.host;
    let memory = host.memory_bytes.map(bytes);
    let cpus = format!("{} {}", host.cpus, if host.cpus == 1 { "CPU" } else { "CPUs" });
    html! {
        header {
            h1 { (report.title) }
            pre.command tabindex="0" aria-label="Command line" { code { (words(&report.command)) } }
            dl {
                div { dt { "made" } dd { time datetime=(report.made) { (report.made.strftime("%-d %B %Y, %H:%M UTC")) } } }
                div { dt { "machine" } dd { (host.model) ", " (cpus) @if let Some(memory) = memory { ", " (memory) } } }
                div { dt { "kernel" } dd { (host.kernel) } }
                @for (name, version) in &report.versions { div { dt { (name) } dd { (version) } } }
            }
            @if report.sections.len() > FEW {
                nav aria-label="Contents" {
                    ol {
                        @for (i, section) in report.sections.iter().enumerate() {
                            li { a href={ "#" (anchor(i)) } { (section.heading) } }
                        }
                    }
                }
            }
        }
    }
}

fn words(command: &str) -> Markup {
    html! { @for (i, word) in command.split(' ').enumerate() { @if i > 0 { " " } span { (word) } } }
}

/// Not made of the heading: whatever that is, it needs no escaping as an address.
fn anchor(number: usize) -> String {
    format!("section-{}", number + 1)
}

fn part(number: usize, section: &Section) -> Markup {
    let paragraphs = section.text.split("\n\n").filter(|text| !text.trim().is_empty());
    html! {
        section id=(anchor(number)) {
            h2 { (section.heading) }
            @for paragraph in paragraphs { p { (paragraph) } }
            @for table in &section.tables { (table) }
            @for chart in &section.charts { (chart) }
        }
    }
}

/// In a box of its own, in which it scrolls if it is wider than the page.
impl Render for Table {
    fn render(&self) -> Markup {
        let class = |column: usize| (self.columns[column].1 == Cells::Numbers).then_some("number");
        // Where the first column changes, and not everywhere, rows of one kind are over.
        let kind = |row: usize| self.rows[row].first();
        let is_grouped = (1..self.rows.len()).any(|row| kind(row) == kind(row - 1));
        let group = |row: usize| (is_grouped && row > 0 && kind(row) != kind(row - 1)).then_some("first");
        html! {
            figure.table {
                div.scroll tabindex="0" role="region" aria-label="Table" {
                    table {
                        thead { tr { @for (i, (name, _)) in self.columns.iter().enumerate() { th class=[class(i)] scope="col" { (name) } } } }
                        tbody {
                            @for (r, row) in self.rows.iter().enumerate() { tr class=[group(r)] { @for (i, cell) in row.iter().enumerate() { td class=[class(i)] { (cell) } } } }
                        }
                    }
                }
                @if !self.note.is_empty() { figcaption { (self.note) } }
            }
        }
    }
}
