//! A report: one HTML file that needs nothing else.
//!
//! **Guarantee.** The file names nothing outside itself, and its page forbids its reader's browser to fetch anything. All text is escaped. It says what was run,
//! where and by what. It is there whole, or what was there before is.
//!
//! **Mechanism.** [maud] escapes what is not a literal when it is compiled. Tables are those of the terminal. Charts are small SVG in the page, with classes
//! instead of colours, so that one style sheet gives them the reader's colours, dark or light: no chart library does that and has hints, stacks and
//! maps of address spaces. The file is written beside its place and renamed.

pub mod chart;
mod file;
mod host;
mod html;

pub use chart::Chart;
pub use file::probe;
pub use host::Host;

use crate::output::Table;
use anyhow::Result;
use jiff::Timestamp;
use std::path::Path;

/// What is told in one file.
#[derive(Debug)]
pub struct Report {
    /// What it is about.
    pub title: String,
    /// The command line, as a shell would take it.
    pub command: String,
    /// When it was made.
    pub made: Timestamp,
    /// On which computer.
    pub host: Host,
    /// By what: names, and versions.
    pub versions: Vec<(&'static str, String)>,
    /// The rest.
    pub sections: Vec<Section>,
}

/// A part of a report.
#[derive(Debug, Default)]
pub struct Section {
    /// What it is about.
    pub heading: String,
    /// What is to be known first; empty lines divide paragraphs.
    pub text: String,
    /// In this order.
    pub tables: Vec<Table>,
    /// In this order, after the tables.
    pub charts: Vec<Chart>,
}

impl Report {
    /// By this process, here and now.
    pub fn new(title: impl Into<String>, sections: Vec<Section>) -> Self {
        let words: Vec<_> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
        // A word with a zero byte cannot have come from a shell.
        let command = shlex::try_join(words.iter().map(String::as_str)).unwrap_or_else(|_| words.join(" "));
        let commit = option_env!("SPILE_COMMIT").map(|commit| ("commit", commit.to_string()));
        let mut versions = vec![("spile", env!("CARGO_PKG_VERSION").to_string()), ("compiler", env!("SPILE_RUSTC").to_string())];
        versions.extend(commit);
        Self { title: title.into(), command, made: Timestamp::now(), host: Host::this(), versions, sections }
    }

    /// The page.
    pub fn page(&self) -> String {
        html::page(self).into_string()
    }

    /// Puts the page where `path` says, at once.
    ///
    /// # Errors
    ///
    /// It cannot be written there; what was there before still is.
    pub fn write(&self, path: &Path) -> Result<()> {
        file::replace(path, &self.page())
    }
}
