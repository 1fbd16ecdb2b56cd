//! Judges the naive model by the kernel this runs on.
//!
//! **Guarantee.** The exit code is zero if nothing was found that nothing explains, or if there is no kernel to ask, which
//! is said.
//!
//! **Mechanism.** Arguments, a [`Judge`](spile_judge::compare::Judge), a report.

use spile_judge::world::{Limits, Traits, World};
use std::process::ExitCode;

const KNOWN: &str = "--calls, --seed, --length, --every, --mapped, --locked, --stack (limits, in pages) and --json";

struct Arguments {
    calls: u64,
    seed: u64,
    length: usize,
    every: usize,
    limits: Limits,
    json: bool,
}

fn arguments() -> Result<Arguments, String> {
    let limits = World::new(Traits::default()).limits;
    let mut arguments = Arguments { calls: 100_000, seed: 1, length: 500, every: 16, limits, json: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|text| text.parse::<u64>().ok()).ok_or(format!("{word} needs a number"));
        match word.as_str() {
            "--calls" => arguments.calls = number()?,
            "--seed" => arguments.seed = number()?,
            "--length" => arguments.length = number()? as usize,
            "--every" => arguments.every = number()?.max(1) as usize,
            "--mapped" => arguments.limits.mapped = number()?,
            "--locked" => arguments.limits.locked = number()?,
            "--stack" => arguments.limits.stack = number()?.max(64),
            "--json" => arguments.json = true,
            other => return Err(format!("{other} is unknown; there are {KNOWN}")),
        }
    }
    Ok(arguments)
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn run(_: &Arguments) -> ExitCode {
    println!("skipped: only Linux on x86-64 can be asked");
    ExitCode::SUCCESS
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn run(arguments: &Arguments) -> ExitCode {
    use spile_judge::compare::{Judge, Options};
    use spile_judge::host::{self, Host};
    use spile_judge::naive::Naive;
    use spile_judge::{Lost, Subject};

    let judged = || -> Result<_, Lost> {
        let world = World { limits: arguments.limits, ..World::new(host::traits()?) };
        let left = |world: &World| Ok(Box::new(Host::new(world)?) as Box<dyn Subject>);
        let right = |world: &World| Ok(Box::new(Naive::new(world)) as Box<dyn Subject>);
        let options = Options { every: arguments.every, ..Options::default() };
        let report = Judge::new(&world, &left, &right, options).run(arguments.seed, arguments.calls, arguments.length)?;
        Ok((world, report))
    };
    match judged() {
        Err(lost) => {
            eprintln!("{lost}");
            ExitCode::FAILURE
        }
        Ok((world, report)) => {
            let heading = format!("Linux {}, {:?}", host::kernel_release(), world.traits);
            print_report(arguments, &heading, &report);
            if report.finding.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
    }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn print_report(arguments: &Arguments, heading: &str, report: &spile_judge::compare::Report) {
    let seconds = report.elapsed.as_secs_f64();
    let (calls, share) = (report.tally.calls(), report.tally.success_share());
    if arguments.json {
        let explained: Vec<_> = report.explained.iter().map(|(name, count)| format!("\"{name}\": {count}")).collect();
        println!(
            "{{\"kernel\": \"{}\", \"seed\": {}, \"calls\": {calls}, \"sequences\": {}, \"success_share\": {share:.4}, \
             \"seconds\": {seconds:.2}, \"different\": {}, \"explained\": {{{}}}, \"matrix\": {}}}",
            spile_judge::host::kernel_release(),
            arguments.seed,
            report.sequences,
            report.finding.is_some(),
            explained.join(", "),
            report.tally.json(),
        );
    } else {
        println!("{heading}");
        println!("{calls} calls in {} sequences, {:.1} % succeeded", report.sequences, share * 100.0);
        println!("{seconds:.1} s, {:.0} calls/s", calls as f64 / seconds);
        println!("{}", report.tally.matrix());
        for (name, count) in &report.explained {
            println!("explained by {name}: {count}");
        }
    }
    match &report.finding {
        None if !arguments.json => println!("no difference that nothing explains"),
        Some(finding) => eprintln!("{finding}"),
        None => {}
    }
}

fn main() -> ExitCode {
    match arguments() {
        Ok(arguments) => run(&arguments),
        Err(what) => {
            eprintln!("{what}");
            ExitCode::FAILURE
        }
    }
}
