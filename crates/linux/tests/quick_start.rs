//! The program that documents begin with is one that runs: the example `sum`.

use std::fs::read_to_string;
use std::path::Path;

/// Without what is before each line where it stands in another place.
fn lines(path: &str) -> Vec<String> {
    let text = read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    text.lines().map(|line| line.trim().trim_start_matches("//!").trim().to_string()).collect()
}

#[test]
fn documents_show_what_the_example_does() {
    let example = lines("examples/sum.rs");
    let start = example.iter().position(|line| line.starts_with("/// The sum of")).unwrap();
    let len = example[start..].iter().position(|line| line == "}").unwrap() + 1;
    let shown = &example[start..start + len];
    assert!((10..=15).contains(&len), "{shown:?}");
    for document in ["src/lib.rs", "README.md", "../../README.md"] {
        assert!(lines(document).windows(len).any(|lines| lines == shown), "{document} has another program than the example");
    }
}
