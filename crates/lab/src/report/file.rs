//! A file that is there whole, or is as it was.

use anyhow::{Context, Result, ensure};
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where a file of this name really goes: what a link names is replaced, not the link.
fn place(path: &Path) -> Result<(PathBuf, PathBuf)> {
    let file = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    ensure!(!file.exists() || file.is_file(), "{} is there, and is no plain file", path.display());
    ensure!(file.file_name().is_some(), "{} names no file", path.display());
    let directory = match file.parent() {
        Some(directory) if directory != Path::new("") => directory.to_path_buf(),
        _ => PathBuf::from("."),
    };
    Ok((file, directory))
}

/// Whether a file can be written there: to be asked before the work whose result it is to have.
///
/// # Errors
///
/// It cannot.
pub fn probe(path: &Path) -> Result<()> {
    let (_, directory) = place(path)?;
    tempfile::tempfile_in(directory).with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(())
}

/// `text` in the place of what was there.
pub(super) fn replace(path: &Path, text: &str) -> Result<()> {
    let (file, directory) = place(path)?;
    let write = || -> std::io::Result<()> {
        // As others make files: the umask takes away what it takes away.
        let mut beside = tempfile::Builder::new().permissions(Permissions::from_mode(0o666)).tempfile_in(directory)?;
        beside.write_all(text.as_bytes())?;
        beside.as_file().sync_data()?;
        beside.persist(file)?;
        Ok(())
    };
    write().with_context(|| format!("{} cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_nothing_is_left_beside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.html");
        let link = directory.path().join("link.html");
        replace(&path, "before").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        probe(&link).unwrap();
        replace(&link, "after").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "after");
        assert!(link.is_symlink(), "a link was replaced instead of what it names");
        assert_eq!(directory.path().read_dir().unwrap().count(), 2);
    }

    #[test]
    fn what_cannot_be_written_is_told_before_and_after() {
        let directory = tempfile::tempdir().unwrap();
        let places = [directory.path().to_path_buf(), directory.path().join("not/there.html"), PathBuf::from("/dev/null")];
        for path in places {
            let told = probe(&path).unwrap_err().to_string();
            assert!(told.contains(&path.display().to_string()), "{told}");
            assert_eq!(replace(&path, "text").unwrap_err().to_string(), told);
        }
    }
}
