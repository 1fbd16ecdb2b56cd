//! Builds that are not the ordinary one: without std, with the oldest compiler, as packages.

use crate::repo::{self, libraries, root};
use crate::shell::{cargo, cargo_of, command, output, run, succeeds, target_dir};
use anyhow::{Context, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};
use toml::Table;

/// A target that has no std.
const BARE: &str = "x86_64-unknown-none";

/// The published ones, `spile-sync` and so on, the lowest first.
pub fn packages() -> Vec<String> {
    libraries().map(repo::package).collect()
}

/// `-p spile-sync -p ..`, behind `before`.
pub fn with_packages<'a>(before: &[&'a str], packages: &'a [String]) -> Vec<&'a str> {
    before.iter().copied().chain(packages.iter().flat_map(|package| ["-p", package.as_str()])).collect()
}

/// Builds each library crate alone without std, so that no other crate's features hide a use of it.
pub fn no_std() -> Result<()> {
    let bare = succeeds(&mut command("rustup", &["target", "add", BARE]));
    if !bare {
        println!("note: the target {BARE} cannot be had here; building for the host, which does not show a hidden use of std");
    }
    for package in packages() {
        let mut arguments = vec!["build", "-p", &package, "--no-default-features"];
        if bare {
            arguments.extend(["--target", BARE]);
        }
        run(&mut cargo(&arguments))?;
        run(&mut cargo(&["tree", "-p", &package, "--no-default-features", "--edges", "normal"]))?;
    }
    Ok(())
}

/// The oldest compiler that the workspace promises.
fn oldest() -> Result<String> {
    let manifest: Table = std::fs::read_to_string(root().join("Cargo.toml"))?.parse()?;
    let package = manifest.get("workspace").and_then(|w| w.get("package"));
    let version = package.and_then(|p| p.get("rust-version")).and_then(|v| v.as_str());
    Ok(version.context("Cargo.toml has no workspace.package.rust-version")?.to_string())
}

/// Checks the library crates with the oldest compiler or, without it, by clippy's knowledge of the library.
pub fn msrv() -> Result<()> {
    let oldest = oldest()?;
    let packages = packages();
    let installed = output(&mut command("rustup", &["toolchain", "list"])).unwrap_or_default();
    if installed.lines().any(|line| line.starts_with(&format!("{oldest}-")) || line.starts_with(&format!("{oldest}.0-"))) {
        let mut check = cargo_of(&oldest, &with_packages(&["check"], &packages));
        return run(check.env("CARGO_TARGET_DIR", target_dir("msrv")));
    }
    println!("note: Rust {oldest} is not installed. The weaker check: clippy knows since when each library item exists, but");
    println!("      not since when the language has each of its forms.");
    let mut arguments = with_packages(&["clippy", "--all-features"], &packages);
    arguments.extend(["--", "-D", "clippy::incompatible_msrv"]);
    run(&mut cargo(&arguments))
}

/// Compiles and runs the examples in the READMEs.
pub fn readme() -> Result<()> {
    // The examples of the core run on the simulator, or are about real memory.
    let packages = [packages(), vec![repo::package("sim"), repo::package("linux")]].concat();
    let build = with_packages(&["build", "--message-format", "json-render-diagnostics"], &packages);
    let messages = output(&mut cargo(&build))?;
    let mut externs = Vec::new();
    for message in messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let name = message["target"]["name"].as_str().unwrap_or_default();
        let files = message["filenames"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let library = files.into_iter().find(|file| file.ends_with(".rlib")).filter(|_| name.starts_with("spile"));
        externs.extend(library.map(|library| (name.to_string(), library.to_string())));
    }
    let layers = libraries().chain(["linux"]);
    let readmes = ["README.md".to_string()].into_iter().chain(layers.map(|layer| format!("crates/{layer}/README.md")));
    for readme in readmes {
        let mut rustdoc =
            command(&std::env::var("RUSTDOC").unwrap_or_else(|_| "rustdoc".into()), &["--test", "--edition", "2024"]);
        for (name, library) in &externs {
            rustdoc.arg("--extern").arg(format!("{name}={library}"));
            if let Some(place) = Path::new(library).parent() {
                rustdoc.arg("-L").arg(format!("dependency={}", place.join("deps").display()));
            }
        }
        run(rustdoc.arg(readme))?;
    }
    Ok(())
}

/// Packages the library crates and builds each from its package.
pub fn package() -> Result<()> {
    // Without the network: for each crate it would ask anew whether the registry knows the others, and fail when it does not answer.
    run(&mut cargo(&["fetch", "--locked"]))?;
    let (own, packages) = (target_dir("packages"), packages());
    let mut arguments = with_packages(&["package", "--offline"], &packages);
    if !root().join(".git").exists() {
        arguments.push("--allow-dirty");
    }
    // Cargo takes what it has once unpacked and built of a version for that version, and ours stay the same from change to change.
    let _ = std::fs::remove_dir_all(&own);
    let home = cargo_home()?;
    link_all_but("registry", &home, &own.join("home"))?;
    link_all_but("src", &home.join("registry"), &own.join("home/registry"))?;
    run(cargo(&arguments).env("CARGO_HOME", own.join("home")).env("CARGO_TARGET_DIR", own.join("target")))
}

/// Where cargo keeps what it downloads.
fn cargo_home() -> Result<PathBuf> {
    let named = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    named.or_else(|| Some(std::env::home_dir()?.join(".cargo"))).context("neither CARGO_HOME nor a home directory is known")
}

/// Makes the directory `to`, with a link to each entry of `from` but the one called `without`.
fn link_all_but(without: &str, from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        if entry.file_name() != without {
            std::os::unix::fs::symlink(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
