//! Seeded bugs, and who finds them.

/// Checks that with each bug its test fails. Does nothing in a run that has one itself.
pub fn all_are_found(bugs: &[(&str, &str)]) {
    if std::env::var_os("SPILE_MUTATE").is_some() {
        return;
    }
    let this = std::env::current_exe().unwrap();
    let found = |(bug, test): &(&str, &str)| {
        let mut child = std::process::Command::new(&this);
        let child = child.args(["--exact", test]).env("SPILE_MUTATE", format!("bug:{bug}")).env("RUST_BACKTRACE", "0");
        !child.output().unwrap().status.success()
    };
    let missed: Vec<_> = bugs.iter().filter(|bug| !found(bug)).collect();
    assert!(missed.is_empty(), "seeded bugs that no seed found: {missed:?}");
}
