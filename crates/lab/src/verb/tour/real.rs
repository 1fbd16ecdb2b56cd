//! The tour's last part: memory of this process.
//!
//! **Guarantee.** After the region's end the file is compared with what was written, byte by byte. Where there is no pager it is said why and what would change that, and is no failure.
//!
//! **Mechanism.** A file of numbers, eight times as long as the pager's budget, is mapped; two threads sum halves of it and add one to each number. What the region counted is told.

use crate::output::{grouped, table};
use anyhow::Result;
use spile_linux::backing::{Mode, OnFile};
use spile_linux::{Pager, Region, Status};
use std::thread;
use std::time::{Duration, Instant};

const BUDGET: u64 = 8 << 20;
const LEN: u64 = 8 * BUDGET;
/// Of 8 bytes each.
const COUNT: u64 = LEN / 8;

/// Whether what was read and written is right.
///
/// # Errors
///
/// No file can be made for it, or the kernel refuses what it has granted before.
pub fn run() -> Result<bool> {
    println!("4. Real memory: {} MiB of a file at addresses of this process, in {} MiB", LEN >> 20, BUDGET >> 20);
    match Pager::builder().budget(BUDGET).build() {
        Ok(pager) => in_memory_of(&pager),
        Err(refused) if refused.is_refused() => {
            println!("Left out: {refused}");
            Ok(true)
        }
        Err(other) => Err(other.into()),
    }
}

fn in_memory_of(pager: &Pager) -> Result<bool> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("numbers");
    std::fs::write(&path, (0..COUNT).flat_map(u64::to_ne_bytes).collect::<Vec<_>>())?;
    // SAFETY: (1) nobody else knows of it.
    let file = unsafe { OnFile::open(&path, Mode::READ_WRITE) }?;
    let mut region = pager.map(file, LEN)?;

    let mut parts = Vec::new();
    let sum = timed("two threads sum it", &mut region, &mut parts, |region| sum(region.as_slice()));
    timed("they add one to each number", &mut region, &mut parts, |region| add_one(region.as_mut_slice()));
    timed("what was written is made durable", &mut region, &mut parts, |region| region.flush())?;
    drop(region);
    tell(&parts);

    let file = std::fs::read(&path)?;
    let wrong = (1..=COUNT).zip(file.chunks(8)).filter(|(number, bytes)| number.to_ne_bytes() != *bytes).count();
    let is_right = sum == COUNT * (COUNT - 1) / 2 && file.len() as u64 == LEN && wrong == 0;
    match is_right {
        true => println!("The sum is right, and the file's {} bytes are what was written.", grouped(LEN)),
        false => println!("WRONG: the sum is {sum}, and {wrong} numbers of the file's {} bytes.", file.len()),
    }
    Ok(is_right)
}

/// What something took: how long, and what the region did meanwhile.
struct Part(&'static str, Duration, Status);

fn timed<B: spile_linux::backing::Backing, T>(
    what: &'static str,
    region: &mut Region<B>,
    parts: &mut Vec<Part>,
    work: impl FnOnce(&mut Region<B>) -> T,
) -> T {
    let (before, since) = (region.status(), Instant::now());
    let result = work(region);
    parts.push(Part(what, since.elapsed(), region.status().since(&before)));
    result
}

fn sum(numbers: &[u64]) -> u64 {
    let halves = numbers.chunks(numbers.len().div_ceil(2));
    thread::scope(|scope| {
        let threads: Vec<_> = halves.map(|half| scope.spawn(|| half.iter().sum::<u64>())).collect();
        threads.into_iter().map(|thread| thread.join().expect("it sums")).sum()
    })
}

fn add_one(numbers: &mut [u64]) {
    let halves = numbers.chunks_mut(numbers.len().div_ceil(2));
    thread::scope(|scope| halves.for_each(|half| _ = scope.spawn(|| half.iter_mut().for_each(|number| *number += 1))));
}

fn tell(parts: &[Part]) {
    let columns = ["", "ms", "MiB brought", "MiB written back", "MiB in memory", "faults", "half within", "99 % within"];
    let mut table = table(&columns, 1);
    let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
    for Part(what, took, done) in parts {
        let within = |part| done.faults.quantile(part).map_or_else(String::new, |time| format!("{time:.1?}"));
        table.add_row([
            what.to_string(),
            took.as_millis().to_string(),
            mib(done.filled),
            mib(done.written),
            mib(done.resident),
            grouped(done.faults.count()),
            within(0.5),
            within(0.99),
        ]);
    }
    println!("{table}");
}
