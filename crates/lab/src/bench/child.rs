//! The host's kernel as a contender: in a process of its own, which is told what to do.
//!
//! **Mechanism.** A copy of this program, started with a hidden argument, reads an order a line and answers with a line. It ends when nobody gives
//! orders any more. Ctrl-C is not for it: who gives orders decides.

use super::mapper::{Latencies, Mapper};
use super::play::{Contender, Sample};
use super::workload::Workload;
use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{self, ChildStdin, ChildStdout, Command, Stdio};

/// What the host is called in tables.
pub const HOST: &str = "host";
/// The hidden verb.
pub const VERB: &str = "bench-host";

#[derive(Debug, Serialize, Deserialize)]
enum Order {
    Begin(Box<Workload>, usize),
    Play(u64),
    Map(Mapper),
}

/// A process that measures the host.
#[derive(Debug)]
pub struct Child {
    process: process::Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Child {
    /// Starts `program`, which is this one.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub fn start(program: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        command.arg(VERB).stdin(Stdio::piped()).stdout(Stdio::piped());
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut process = command.spawn().with_context(|| program.display().to_string())?;
        let (orders, answers) = (process.stdin.take(), process.stdout.take().context("it was piped")?);
        Ok(Self { process, orders, answers: BufReader::new(answers) })
    }

    /// Lets it do the setup of a workload; it can play from then on.
    ///
    /// # Errors
    ///
    /// It is gone.
    pub fn begin(&mut self, workload: &Workload, threads: usize) -> Result<()> {
        self.ask(&Order::Begin(Box::new(workload.clone()), threads))
    }

    /// Measures latencies.
    ///
    /// # Errors
    ///
    /// It is gone.
    pub fn map(&mut self, mapper: Mapper) -> Result<Latencies> {
        self.ask(&Order::Map(mapper))
    }

    fn ask<A: DeserializeOwned>(&mut self, order: &Order) -> Result<A> {
        let mut orders = self.orders.as_ref().context("it was piped")?;
        writeln!(orders, "{}", serde_json::to_string(order)?)?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        serde_json::from_str(&line).context("the process that measures the host is gone")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It reads the end of its orders.
        self.orders = None;
        let _ = self.process.wait();
    }
}

impl Contender for Child {
    fn name(&self) -> &str {
        HOST
    }

    fn play(&mut self, passes: u64) -> Result<Sample> {
        self.ask(&Order::Play(passes))
    }
}

/// The life of that process.
///
/// # Errors
///
/// An order cannot be read, or this host cannot be measured.
#[cfg(target_os = "linux")]
pub fn live() -> Result<()> {
    use super::host::Host;
    use super::play::Player;

    let mut player = None;
    for line in std::io::stdin().lock().lines() {
        let answer = match serde_json::from_str(&line?)? {
            Order::Begin(workload, threads) => {
                player = Some(Player::new(HOST, Host::new()?, &workload, threads));
                serde_json::to_string(&())?
            }
            Order::Play(passes) => serde_json::to_string(&player.as_mut().context("an order to begin")?.play(passes)?)?,
            Order::Map(mapper) => serde_json::to_string(&mapper.measure(&Host::new()?))?,
        };
        println!("{answer}");
    }
    Ok(())
}

/// The life of that process.
///
/// # Errors
///
/// Always: this host cannot be measured.
#[cfg(not(target_os = "linux"))]
pub fn live() -> Result<()> {
    anyhow::bail!("only Linux is measured")
}
