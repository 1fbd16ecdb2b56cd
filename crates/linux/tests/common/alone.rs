//! Children that are programs of their own: what they do to signals, and how they end, is theirs alone.

use super::{End, limit};
use std::any::type_name;
use std::env;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

/// Says which child a process is.
const CHILD: &str = "SPILE_CHILD";

/// A child that has ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended {
    pub end: End,
    pub out: String,
    pub err: String,
}

/// Runs `child`, a closure of the test itself, in a process of its own that begins anew, of one thread and this test, and gives how it ended: 0, but 101 if it panicked. One per test.
pub fn alone<F: FnOnce()>(child: F) -> Ended {
    one_of("", child).expect("there is but one")
}

/// The same, where a test has several, which `row` tells apart: none in a process that is another one of them.
pub fn one_of<F: FnOnce()>(row: &str, child: F) -> Option<Ended> {
    // The crate, the test, and that it is a closure.
    let name = type_name::<F>().split("::").nth(1).expect("a closure of a test");
    let this = format!("{name}/{row}");
    match env::var(CHILD) {
        Ok(wanted) if wanted != this => return None,
        Ok(_) => {
            limit(60);
            child();
            std::process::exit(0);
        }
        Err(_) => {}
    }
    let itself = env::current_exe().expect("a program");
    let mut command = Command::new(itself);
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, this);
    let output = command.output().expect("a child");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let ended = Ended { end: End::of(output.status.into_raw()), out: text(output.stdout), err: text(output.stderr) };
    assert!(ended.out.contains("running 1 test"), "{name} is no test: {ended:?}");
    Some(ended)
}
