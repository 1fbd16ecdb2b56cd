//! Reading recordings, whole or as far as they go.

use anyhow::{Context, Result};
use spile_mmtrace::{Kernel, Refused, Salvaged, Step};
use std::path::{Path, PathBuf};

/// A recording, and what is wrong with it.
pub struct Source {
    /// Its name: the file's, without what says its format.
    pub name: String,
    /// Its steps, up to where it is torn.
    pub steps: Vec<Step>,
    /// What the kernel did meanwhile.
    pub kernel: Kernel,
    /// Where and why it ends too early.
    pub torn: Option<Refused>,
}

/// Whether `path` can be read.
///
/// # Errors
///
/// It cannot.
pub fn probe(path: &Path) -> Result<()> {
    std::fs::File::open(path).with_context(|| format!("{} cannot be read", path.display())).map(drop)
}

/// Reads `path`. What is readable of a torn recording is kept.
///
/// # Errors
///
/// The file cannot be read, or nothing of it is a recording.
pub fn open(path: &Path) -> Result<Source> {
    let bytes = std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let Salvaged { steps, kernel, torn } = spile_mmtrace::salvaged(&bytes);
    if let (true, Some(torn)) = (steps.is_empty(), &torn) {
        anyhow::bail!("{}: {torn}", path.display());
    }
    Ok(Source { name: name(path), steps, kernel, torn })
}

fn name(path: &Path) -> String {
    let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    file.trim_end_matches(".xz").trim_end_matches(".mmt").to_string()
}

/// The recordings that come with the sources.
pub fn bundled() -> Vec<PathBuf> {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mmtrace/traces");
    ["ls", "redis", "fibers"].iter().map(|name| place.join(format!("{name}.mmt.xz"))).collect()
}
