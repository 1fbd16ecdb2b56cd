//! `spile designs`: what each design promises.

use super::End;
use crate::design::DESIGNS;
use crate::output;
use anyhow::{Context, Result};
use serde_json::{Map, Value};

/// The one place where the promises stand.
const DOCUMENT: &str = include_str!("../../../../docs/designs.md");

#[derive(clap::Args, Debug)]
/// What each design promises: what a fault holds, what a change waits for
pub struct Args {
    /// An array of objects instead of tables
    #[arg(long)]
    json: bool,
}

/// A table of the document: its columns, and a row for each design.
struct Promises {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

fn cells(line: &str) -> Vec<String> {
    line.trim().trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect()
}

/// The tables of the document that have a row for each design, and a design in the first column.
fn promises() -> Result<Vec<Promises>> {
    let mut tables = Vec::new();
    let mut lines = DOCUMENT.lines().peekable();
    while let Some(line) = lines.next() {
        if !line.starts_with("| design |") {
            continue;
        }
        let columns = cells(line);
        let rows: Vec<_> = std::iter::from_fn(|| lines.next_if(|line| line.starts_with('|'))).skip(1).map(cells).collect();
        if DESIGNS.iter().all(|design| rows.iter().any(|row| row[0] == design.name)) {
            tables.push(Promises { columns, rows });
        }
    }
    (!tables.is_empty()).then_some(tables).context("docs/designs.md has no table with a row for each design")
}

/// # Errors
///
/// The document is not what it was.
pub fn run(args: &Args) -> Result<End> {
    let tables = promises()?;
    if args.json {
        let of = |name: &str| {
            let mut object = Map::from_iter([("name".to_string(), Value::from(name))]);
            for table in &tables {
                let row = table.rows.iter().find(|row| row[0] == name);
                let pairs = table.columns.iter().zip(row.into_iter().flatten()).skip(1);
                object.extend(pairs.map(|(column, cell)| (column.clone(), Value::from(cell.clone()))));
            }
            Value::Object(object)
        };
        output::json(&DESIGNS.iter().map(|design| of(design.name)).collect::<Vec<_>>())?;
        return Ok(End::Good);
    }
    for promises in &tables {
        let columns: Vec<_> = promises.columns.iter().map(String::as_str).collect();
        let mut table = output::table(&columns, columns.len());
        promises.rows.iter().for_each(|row| table.add_row(row));
        println!("{table}\n");
    }
    println!("{} designs. How each differs from its source, and why: docs/designs.md", DESIGNS.len());
    Ok(End::Good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_are_there() {
        let tables = promises().unwrap();
        assert_eq!(tables.len(), 2, "what faults hold, and what changes do");
        assert!(tables.iter().all(|table| table.rows.iter().all(|row| row.len() == table.columns.len())));
    }
}
