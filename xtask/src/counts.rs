//! Instruction counts of single operations against their bounds: a gate that noise of the machine does not move.

use crate::repo::{package, root};
use crate::shell::{cargo, command, output, succeeds, target_dir};
use anyhow::{Context, Result, bail};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::ffi::OsString;
use toml::{Table, Value};

/// The crates with a `benches/counts.rs`, whose bounds are in `benches/counts.toml`.
const LAYERS: [&str; 2] = ["maple", "spile"];
/// The one whose counts are of designs, a hundred operations each.
const BY_DESIGN: &str = "spile";
/// The program that runs a bench under valgrind. Its version is that of the library it belongs to.
const RUNNER: &str = "gungraun-runner";

/// `PATH` with the place where `.ci/run` installs the runner in front.
fn path() -> Result<OsString> {
    let mut places = vec![target_dir("tools").join("bin")];
    places.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    Ok(std::env::join_paths(places)?)
}

/// Why there can be no counts here, if so.
fn missing() -> Result<Option<String>> {
    if !succeeds(&mut command("valgrind", &["--version"])) {
        return Ok(Some("valgrind is not installed".into()));
    }
    let runner = std::env::split_paths(&path()?).any(|place| place.join(RUNNER).is_file());
    Ok((!runner).then(|| format!("{RUNNER} is not installed (.ci/run does it)")))
}

/// `name = instructions` of one line of the runner's JSON.
fn count_of(summary: &Json) -> Option<(String, u64)> {
    let function = summary["function_name"].as_str()?;
    let name = match summary["id"].as_str() {
        Some(id) => format!("{function}.{id}"),
        None => function.to_string(),
    };
    let profile = summary["profiles"].as_array()?.iter().find(|profile| profile["tool"] == "Callgrind")?;
    let instructions = &profile["data"]["total"]["metrics"]["Ir"]["values"]["new"];
    instructions.as_u64().map(|count| (name, count))
}

/// Counts anew, in the order of the bench.
fn measure(layer: &str) -> Result<Vec<(String, u64)>> {
    let package = package(layer);
    let bench = ["bench", "-p", &package, "--bench", "counts", "--", "--output-format=json"];
    let summaries = output(cargo(&bench).env("PATH", path()?))?;
    let counts = summaries.lines().filter_map(|line| serde_json::from_str(line).ok());
    let counts: Vec<_> = counts.filter_map(|summary: Json| count_of(&summary)).collect();
    if counts.is_empty() {
        bail!("the counts bench reported no instruction counts");
    }
    Ok(counts)
}

/// Compares the counts with the bounds; `Some` is why it could not.
pub fn run() -> Result<Option<String>> {
    if let Some(reason) = missing()? {
        println!("counts skipped: {reason}");
        return Ok(Some(reason));
    }
    println!("| operation | instructions | at most |\n|---|---|---|");
    let wrong: Vec<String> = LAYERS.iter().map(|layer| compare(layer)).collect::<Result<Vec<_>>>()?.concat();
    if !wrong.is_empty() {
        bail!("counts: {}", wrong.join("; "));
    }
    Ok(None)
}

/// Compares the counts of one crate with its bounds: what is wrong.
fn compare(layer: &str) -> Result<Vec<String>> {
    let file = format!("crates/{layer}/benches/counts.toml");
    let bounds: Table = std::fs::read_to_string(root().join(&file))?.parse().with_context(|| file.clone())?;
    let bounds = bounds.get("limits").and_then(Value::as_table).with_context(|| format!("{file} has no [limits]"))?;
    let bounds: BTreeMap<_, _> = bounds.iter().filter_map(|(name, bound)| Some((name, bound.as_integer()? as u64))).collect();
    let counts = measure(layer)?;
    let mut wrong = Vec::new();
    for (name, count) in &counts {
        let bound = bounds.get(name);
        println!(
            "| {name} | {count} | {} |",
            bound.map_or(format!("no bound; 5 % more is {}", count * 105 / 100), u64::to_string)
        );
        match bound {
            Some(bound) if count <= bound => {}
            Some(bound) => wrong.push(format!("{name} takes {count} instructions, {} more than its bound", count - bound)),
            None => wrong.push(format!("{name} has no bound in {file}")),
        }
    }
    if layer == BY_DESIGN {
        print!("{}", table_of(&counts));
    }
    let was_counted = |name: &str| counts.iter().any(|(counted, _)| counted == name);
    wrong.extend(bounds.keys().filter(|name| !was_counted(name)).map(|name| format!("{name} was not measured")));
    Ok(wrong)
}

/// Operations that one count is of.
const OPERATIONS: u64 = 100;

/// Instructions per operation, designs down and scenes across, for the scenes that all designs have.
fn table_of(counts: &[(String, u64)]) -> String {
    let split: Vec<_> = counts.iter().filter_map(|(name, count)| Some((name.split_once('.')?, *count))).collect();
    let mut scenes: Vec<&str> = split.iter().map(|((scene, _), _)| *scene).collect();
    scenes.dedup();
    let mut designs: Vec<&str> = Vec::new();
    split.iter().for_each(|((_, design), _)| {
        if !designs.contains(design) {
            designs.push(design)
        }
    });
    let count = |scene: &str, design: &str| split.iter().find(|(name, _)| *name == (scene, design)).map(|(_, count)| *count);
    scenes.retain(|scene| designs.iter().all(|design| count(scene, design).is_some()));
    let row = |head: &str, cells: Vec<String>| format!("| {head} | {} |\n", cells.join(" | "));
    let per_operation = |scene, design| grouped(count(scene, design).unwrap_or(0) / OPERATIONS);
    let head = row("per operation", scenes.iter().map(ToString::to_string).collect()) + &"|---".repeat(scenes.len() + 1) + "|\n";
    let rows = designs.iter().map(|design| row(design, scenes.iter().map(|scene| per_operation(scene, design)).collect()));
    format!("\n{head}{}\n", rows.collect::<String>())
}

/// A number with a comma before each three digits.
fn grouped(number: u64) -> String {
    match number / 1000 {
        0 => number.to_string(),
        thousands => format!("{},{:03}", grouped(thousands), number % 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn designs_make_a_table() {
        let counts = [("map.b", 123_456), ("map.a", 99), ("fault.b", 4_200), ("fault.a", 4_299), ("fork.a", 1)];
        let counts = counts.map(|(name, count)| (name.to_string(), count));
        let table = "\n| per operation | map | fault |\n|---|---|---|\n| b | 1,234 | 42 |\n| a | 0 | 42 |\n\n";
        assert_eq!(table_of(&counts), table);
    }

    #[test]
    fn counts_are_found() {
        let text = r#"{"function_name": "get", "id": "n1000", "profiles": [{"tool": "Callgrind", "data": {
            "parts": [{"metrics": {"Ir": {"values": {"new": 1}}}}],
            "total": {"metrics": {"Ir": {"values": {"new": 42, "old": 41}}}}}}]}"#;
        let summary = serde_json::from_str(text).expect("a literal");
        assert_eq!(count_of(&summary), Some(("get.n1000".to_string(), 42)));
    }
}
