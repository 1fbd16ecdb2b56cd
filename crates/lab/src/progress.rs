//! How far something is that takes longer than a second.

use indicatif::{ProgressBar, ProgressStyle};
use std::time::{Duration, Instant};

/// A bar on the terminal, which comes when it is worth it.
#[derive(Debug)]
pub struct Progress {
    start: Instant,
    len: u64,
    done: u64,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Of so many steps.
    pub fn new(len: u64) -> Self {
        Self { start: Instant::now(), len, done: 0, bar: None }
    }

    /// A step begins.
    pub fn begin(&mut self, what: &str) {
        if self.bar.is_none() && self.start.elapsed() > Duration::from_secs(1) {
            let style = ProgressStyle::with_template("{msg:40} {wide_bar} {pos}/{len}, {eta} left").expect("a template");
            self.bar = Some(ProgressBar::new(self.len).with_style(style));
        }
        if let Some(bar) = &self.bar {
            bar.set_message(what.to_string());
            bar.set_position(self.done);
        }
        self.done += 1;
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
