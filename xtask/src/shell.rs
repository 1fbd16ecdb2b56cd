//! Running other programs.
//!
//! **Guarantee.** Every command is printed before it runs, has no standard input, and its output is passed on line by line; a
//! command that exceeds its limit is killed together with what it started. The lines in which a test runner sums up, and those in which tests say
//! what they went through, are kept.

use crate::repo::root;
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;
use wait_timeout::ChildExt;

/// Lines like `test result: ok. 9 passed; ..`, since the last [`take_results`].
static RESULTS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Lines in which tests say what they went through, of all commands so far.
static EXPLORED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// What the scheduler's tests have said: lines with ` seeds passed`.
pub fn explored_lines() -> Vec<String> {
    EXPLORED.lock().expect("nobody panics with it").clone()
}

/// Takes the test runners' summaries that were passed on so far.
pub fn take_results() -> Vec<String> {
    std::mem::take(&mut *RESULTS.lock().expect("nobody panics with it"))
}

/// `program` in the root of the workspace.
pub fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root()).stdin(Stdio::null());
    command
}

/// `cargo` of the toolchain that runs us.
pub fn cargo(arguments: &[&str]) -> Command {
    command(&std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()), arguments)
}

/// `cargo` of another toolchain.
pub fn cargo_of(toolchain: &str, arguments: &[&str]) -> Command {
    let mut command = command("rustup", &["run", toolchain, "cargo"]);
    // What our own cargo told us is not true of that one.
    command.args(arguments).env_remove("CARGO").env_remove("RUSTC").env_remove("RUSTDOC");
    command
}

/// For tests that run longer than they are built, and are built once: with debug assertions, and of what debuggers want only the lines. (Without
/// the rest a test of all designs takes three quarters of the time to build.)
pub fn some_optimisation(command: &mut Command) -> &mut Command {
    command
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only")
        .env("CARGO_INCREMENTAL", "0")
}

/// A directory for builds with other flags, so that they do not drive out the ordinary ones.
pub fn target_dir(name: &str) -> PathBuf {
    let base = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    base.join(name)
}

/// The command as one would type it.
fn shown(command: &Command) -> String {
    let variables = command.get_envs().filter_map(|(name, value)| Some(format!("{}={:?} ", name.to_str()?, value?)));
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    variables.chain(words.map(|word| format!("{} ", word.to_string_lossy()))).collect::<String>()
}

/// Runs `command` to its end; fails if it does.
pub fn run(command: &mut Command) -> Result<()> {
    match run_within(command, Duration::from_secs(4 * 3600))? {
        true => Ok(()),
        false => bail!("{} does not end", shown(command).trim_end()),
    }
}

/// Runs `command` for at most `limit`; whether it came to its end, and then well.
pub fn run_within(command: &mut Command, limit: Duration) -> Result<bool> {
    println!("$ {}", shown(command));
    let Some(status) = pass_on(command.stdout(Stdio::piped()), limit)? else {
        println!("stopped after {} s", limit.as_secs());
        return Ok(false);
    };
    if !status.success() {
        bail!("{} failed: {status}", shown(command).trim_end());
    }
    Ok(true)
}

/// The output of `command`, which must succeed.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output().with_context(|| shown(command))?;
    if !output.status.success() {
        bail!("{} failed: {}", shown(command).trim_end(), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether `command` can be started and succeeds. Its output is dropped.
pub fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// `None`: it was killed at its limit.
fn pass_on(command: &mut Command, limit: Duration) -> Result<Option<ExitStatus>> {
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    let mut child = command.spawn().with_context(|| shown(command))?;
    let lines = BufReader::new(child.stdout.take().expect("piped above")).lines();
    let passing = std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            println!("{line}");
            if line.starts_with("test result:") {
                RESULTS.lock().expect("nobody panics with it").push(line);
            } else if line.contains(" seeds passed") {
                EXPLORED.lock().expect("nobody panics with it").push(line);
            }
        }
    });
    let status = child.wait_timeout(limit)?;
    if status.is_none() {
        kill_all(&mut child);
    }
    passing.join().expect("passing lines on does not panic");
    Ok(status)
}

/// Kills a child and its process group.
fn kill_all(child: &mut Child) {
    let group = format!("-{}", child.id());
    succeeds(&mut command("kill", &["-KILL", "--", &group]));
    // Where there are no groups, and to reap it.
    child.kill().and_then(|()| child.wait()).ok();
}
