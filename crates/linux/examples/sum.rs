//! Sums a file that is larger than the memory that it may have.
//!
//! `cargo run --release -p spile-linux --example sum -- [--mib 64]`

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod linux {
    use clap::Parser;
    use spile_linux::backing::{Mode, OnFile};
    use spile_linux::{Pager, probe};
    use std::error::Error;
    use std::fs::File;
    use std::io::{BufWriter, Write};
    use std::path::Path;

    /// Sums a file of numbers in 8 MiB of memory.
    #[derive(Parser)]
    struct Arguments {
        /// How long the file is.
        #[arg(long, default_value_t = 64)]
        mib: u64,
    }

    /// The sum of the numbers in a file of any length, in 8 MiB of memory.
    fn sum(path: &Path) -> Result<u64, Box<dyn Error>> {
        let pager = Pager::builder().budget(8 << 20).build()?;
        // SAFETY: (1) nobody writes the file meanwhile.
        let file = unsafe { OnFile::open(path, Mode::READ) }?;
        let len = file.len();
        let numbers = pager.map(file, len)?;
        let sum = numbers.as_slice::<u64>().iter().sum();
        println!("{}", numbers.status());
        Ok(sum)
    }

    pub fn main() -> Result<(), Box<dyn Error>> {
        let Arguments { mib } = Arguments::parse();
        if let Err(refused) = probe().engine {
            println!("skipped: {refused}");
            return Ok(());
        }
        let (directory, count) = (tempfile::tempdir()?, (mib << 20) / 8);
        let path = directory.path().join("numbers");
        let mut file = BufWriter::new(File::create(&path)?);
        (0..count).try_for_each(|number| file.write_all(&number.to_ne_bytes()))?;
        drop(file.into_inner()?);

        let sum = sum(&path)?;
        assert_eq!(sum, count * count.saturating_sub(1) / 2);
        println!("the sum of {count} numbers, {mib} MiB, is {sum}");
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
