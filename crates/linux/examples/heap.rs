//! A table that is larger than the memory that it may have, and is compressed where it is not used.
//!
//! `cargo run --release -p spile-linux --example heap -- [--mib 32] [--memory 4]`

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod linux {
    use clap::Parser;
    use spile_linux::backing::Anonymous;
    use spile_linux::{PAGE, Pager};
    use std::error::Error;

    /// Fills a table of orders and looks through it, with less memory than it has bytes.
    #[derive(Parser)]
    struct Arguments {
        /// How long the table is.
        #[arg(long, default_value_t = 32)]
        mib: u64,
        /// How much of it may be in memory as it is, in MiB.
        #[arg(long, default_value_t = 4)]
        memory: u64,
    }

    /// Its number, who ordered, what, how many, for how much, when, and two that are not used yet.
    type Order = [u64; 8];

    fn order(number: u64) -> Order {
        let random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        [number, random >> 44, random >> 54, 1 + random % 9, 99 + random % 4 * 500, 1_700_000_000 + number / 16, 0, 0]
    }

    pub fn main() -> Result<(), Box<dyn Error>> {
        let Arguments { mib, memory } = Arguments::parse();
        let pager = match Pager::builder().budget(memory << 20).build() {
            Err(refused) if refused.is_refused() => {
                println!("skipped: {refused}");
                return Ok(());
            }
            other => other?,
        };
        let len = mib << 20;
        let store = Anonymous::compressed(len / PAGE, len)?;
        let mut table = pager.map(store, len)?;

        for (number, place) in (0..).zip(table.as_mut_slice::<Order>()) {
            *place = order(number);
        }
        for (number, found) in (0..).zip(table.as_slice::<Order>()) {
            assert_eq!(*found, order(number));
        }

        let (status, stored) = (table.status(), table.backing().store().stored());
        assert!(status.resident <= memory << 20);
        let mib_of = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        println!("{mib} MiB were written and read; faults: {}", status.faults);
        println!(
            "{:.1} MiB are in memory as they are; {:.1} MiB are compressed to {:.1} MiB, {:.1} to one",
            mib_of(status.resident),
            mib_of(stored.pages * PAGE),
            mib_of(stored.bytes),
            stored.ratio()
        );
        Ok(())
    }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    linux::main()
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() {
    println!("this is not Linux on x86-64");
}
