//! Checkpoints of a state that changes here and there: each has the pages that were written since the one before it.
//!
//! `cargo run --release -p spile-linux --example checkpoint -- [--mib 32] [--changes 200] [--checkpoints 5]`

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod linux {
    use clap::Parser;
    use spile_linux::Tracked;
    use std::error::Error;
    use std::fs::{self, File};
    use std::io::{self, BufWriter, Write};
    use std::path::Path;
    use std::time::Instant;

    /// Writes what has changed of a state, again and again, and restores it from that.
    #[derive(Parser)]
    struct Arguments {
        /// How long the state is.
        #[arg(long, default_value_t = 32)]
        mib: u64,
        /// How many of its numbers change between two checkpoints.
        #[arg(long, default_value_t = 200)]
        changes: u64,
        /// How many checkpoints there are.
        #[arg(long, default_value_t = 5)]
        checkpoints: u64,
    }

    /// Writes to a file which bytes were written since the last time, and what is there now: how much that is.
    fn checkpoint(state: &mut Tracked, path: &Path) -> io::Result<u64> {
        let written = state.written()?;
        let mut file = BufWriter::new(File::create(path)?);
        for run in &written {
            file.write_all(&run.start.to_ne_bytes())?;
            file.write_all(&(run.end - run.start).to_ne_bytes())?;
            file.write_all(&state.as_slice::<u8>()[run.start as usize..run.end as usize])?;
        }
        file.into_inner()?.sync_data()?;
        Ok(written.iter().map(|run| run.end - run.start).sum())
    }

    /// Puts into a state what such a file has.
    fn restore(state: &mut [u8], path: &Path) -> io::Result<()> {
        let bytes = fs::read(path)?;
        let mut rest = &bytes[..];
        while let Some((head, more)) = rest.split_first_chunk::<16>() {
            let [at, len] = [0, 8].map(|n| u64::from_ne_bytes(head[n..n + 8].try_into().expect("eight bytes")) as usize);
            state[at..at + len].copy_from_slice(&more[..len]);
            rest = &more[len..];
        }
        Ok(())
    }

    pub fn main() -> Result<(), Box<dyn Error>> {
        let Arguments { mib, changes, checkpoints } = Arguments::parse();
        let mut state = match Tracked::new(mib << 20) {
            Err(refused) if refused.is_refused() => {
                println!("skipped: {refused}");
                return Ok(());
            }
            other => other?,
        };
        let directory = tempfile::tempdir()?;
        let path = |nth| directory.path().join(format!("checkpoint-{nth}"));
        (0..).zip(state.as_mut_slice::<u64>()).for_each(|(n, number)| *number = n);
        let mut random = 1u64;
        for nth in 0..checkpoints {
            let start = Instant::now();
            let bytes = checkpoint(&mut state, &path(nth))?;
            println!("checkpoint {nth}: {} KiB of {} in {:.1?}", bytes >> 10, mib << 10, start.elapsed());
            assert!(nth == 0 || bytes <= changes * spile_linux::PAGE);
            if nth + 1 < checkpoints {
                let numbers = state.as_mut_slice::<u64>();
                for _ in 0..changes {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    numbers[(random >> 20) as usize % numbers.len()] = random;
                }
            }
        }
        let mut restored = vec![0; (mib << 20) as usize];
        (0..checkpoints).try_for_each(|nth| restore(&mut restored, &path(nth)))?;
        assert!(checkpoints == 0 || restored == state.as_slice::<u8>(), "what was restored is another state");
        println!("restored from {checkpoints} files: the same {mib} MiB");
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
