//! Sorts a file in place that is larger than the memory that it may have; with `--kernel` also by the kernel's mmap, with as much memory.
//!
//! `cargo run --release -p spile-linux --example sort -- [--mib 16] [--memory 4] [--kernel]`

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod kernel;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod linux {
    use crate::kernel;
    use clap::Parser;
    use spile_linux::Pager;
    use spile_linux::backing::{Mode, OnFile};
    use std::error::Error;
    use std::fs::{self, File};
    use std::io;
    use std::os::fd::AsRawFd;
    use std::path::Path;
    use std::time::Instant;

    type Done = Result<(), Box<dyn Error>>;

    /// Sorts a file of random numbers in place.
    #[derive(Parser)]
    struct Arguments {
        /// How long the file is.
        #[arg(long, default_value_t = 16)]
        mib: u64,
        /// How much of it may be in memory, in MiB.
        #[arg(long, default_value_t = 4)]
        memory: u64,
        /// Sorts it by the kernel's mmap too.
        #[arg(long)]
        kernel: bool,
    }

    /// Random numbers, of which nothing is in the page cache.
    fn shuffle(path: &Path, bytes: u64) -> io::Result<()> {
        let mix = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        fs::write(path, (0..bytes / 8).flat_map(|n| mix(n).to_ne_bytes()).collect::<Vec<u8>>())?;
        let file = File::open(path)?;
        file.sync_all()?;
        // SAFETY: (1) a descriptor that is open.
        let told = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        if told == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(told)) }
    }

    fn by_pager(pager: &Pager, path: &Path, mode: Mode) -> Done {
        // SAFETY: (1) the file is this program's, which does nothing else with it meanwhile.
        let file = unsafe { OnFile::open(path, mode) }?;
        let len = file.len();
        let mut numbers = pager.map(file, len)?;
        numbers.as_mut_slice::<u64>().sort_unstable();
        numbers.flush()?;
        let status = numbers.status();
        println!(
            "{} faults; the backing read {} MiB and wrote {}",
            status.faults.count(),
            status.filled >> 20,
            status.written >> 20
        );
        Ok(())
    }

    /// Makes the file, sorts it by `sort`, says how long that took, and checks it.
    fn timed(by: &str, path: &Path, of: &Arguments, sort: impl FnOnce() -> Done) -> Done {
        shuffle(path, of.mib << 20)?;
        let start = Instant::now();
        sort()?;
        println!("{} MiB by {by}, with {} MiB of memory: {:.2?}", of.mib, of.memory, start.elapsed());
        let file = fs::read(path)?;
        let numbers = file.as_chunks().0.iter().map(|bytes| u64::from_ne_bytes(*bytes));
        assert!(file.len() as u64 == of.mib << 20 && numbers.is_sorted(), "it is not sorted");
        Ok(())
    }

    pub fn main() -> Done {
        let arguments = Arguments::parse();
        let budget = arguments.memory << 20;
        let pager = match Pager::builder().budget(budget).build() {
            Err(refused) if refused.is_refused() => {
                println!("skipped: {refused}");
                return Ok(());
            }
            other => other?,
        };
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("numbers");
        // Past the page cache where that counts: there the file would be in memory a second time.
        let mode = Mode::READ_WRITE.direct(arguments.kernel);
        timed("the pager", &path, &arguments, || by_pager(&pager, &path, mode))?;
        if arguments.kernel {
            if let Err(error) = kernel::within(budget, || ()) {
                println!("not by the kernel's mmap: nothing holds it to as much memory: no cgroup: {error}");
                return Ok(());
            }
            timed("the kernel's mmap", &path, &arguments, || {
                kernel::within(budget, || kernel::sort(&path))?.map_err(Into::into)
            })?;
        }
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
