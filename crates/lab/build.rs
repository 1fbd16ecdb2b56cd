//! What is to be known of the build: the compiler, for reports; and for stories which function a line of the core is in.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

/// Sources whose accesses stories tell, from the root of the workspace.
const SOURCES: &[&str] = &["crates/spile/src", "crates/maple/src"];

fn main() -> io::Result<()> {
    tell_compiler();
    list_functions()
}

/// Reports say which compiler built the figures in them.
fn tell_compiler() {
    let rustc = env::var_os("RUSTC").expect("cargo says which compiler it uses");
    let version =
        Command::new(rustc).arg("--version").output().map(|output| String::from_utf8_lossy(&output.stdout).trim().to_string());
    println!("cargo::rustc-env=SPILE_RUSTC={}", version.unwrap_or_else(|_| "rustc".into()));
    println!("cargo::rerun-if-changed=build.rs");
}

/// Writes a list of the places where functions begin.
fn list_functions() -> io::Result<()> {
    let root = Path::new(&env::var_os("CARGO_MANIFEST_DIR").expect("cargo says it")).join("../..");
    let mut list = "&[\n".to_string();
    for sources in SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(sources).display());
        for path in files(&root.join(sources))? {
            let of_workspace = path.strip_prefix(&root).expect("it was found there").display().to_string().replace('\\', "/");
            _ = writeln!(list, "    ({of_workspace:?}, &{:?}),", functions(&fs::read_to_string(&path)?));
        }
    }
    list += "]\n";
    fs::write(Path::new(&env::var_os("OUT_DIR").expect("cargo says it")).join("functions.rs"), list)
}

/// All of a directory, in the order of their names.
fn files(place: &Path) -> io::Result<Vec<PathBuf>> {
    let mut entries = fs::read_dir(place)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    entries.sort();
    let below = entries.into_iter().map(|path| if path.is_dir() { files(&path) } else { Ok(vec![path]) });
    Ok(below.collect::<io::Result<Vec<_>>>()?.concat())
}

/// In which lines functions begin, and what they are called.
fn functions(text: &str) -> Vec<(u32, &str)> {
    let mut all = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let Some((before, after)) = line.split_once("fn ") else { continue };
        let is_declared =
            before.split_whitespace().all(|word| ["pub", "const", "unsafe"].contains(&word) || word.starts_with("pub("));
        let end = after.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(after.len());
        if is_declared && end > 0 {
            all.push((n as u32 + 1, &after[..end]));
        }
    }
    all
}
