//! Restores a snapshot when it is wanted, page by page; and better the second time, for it has noted what was wanted.
//!
//! `cargo run --release -p spile-linux --example snapshot -- [MIB]`

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod linux {
    use spile_linux::backing::{Anonymous, Backing, Mode, OnFile, Page};
    use spile_linux::{PAGE, Pager, WorkingSet};
    use spile_stores::Memory;
    use std::collections::HashSet;
    use std::error::Error;
    use std::fs::{self, File};
    use std::io::{self, BufReader, BufWriter};
    use std::path::Path;
    use std::sync::Mutex;
    use std::time::Instant;

    /// What a snapshot has, but for the pages that were written since.
    struct Overlay {
        snapshot: OnFile,
        changes: Anonymous<Memory>,
        changed: Mutex<HashSet<u64>>,
    }

    impl Overlay {
        fn over(path: &Path) -> io::Result<Self> {
            // SAFETY: (1) nobody writes a snapshot.
            let snapshot = unsafe { OnFile::open(path, Mode::READ) }?;
            Ok(Self { changes: Anonymous::on_heap(snapshot.len().div_ceil(PAGE))?, changed: Mutex::default(), snapshot })
        }
    }

    // SAFETY: (1) what was written is in `changes`, which gives it back, and is said to be there, also when it was discarded; (2) before that it is the snapshot's, which nobody writes.
    unsafe impl Backing for Overlay {
        fn fill(&self, first: u64, pages: &mut [&mut Page]) -> io::Result<()> {
            let changed = self.changed.lock().expect("nobody panics with it");
            if (first..).zip(pages.iter()).all(|(number, _)| !changed.contains(&number)) {
                return self.snapshot.fill(first, pages);
            }
            (first..).zip(pages).try_for_each(|(number, page)| {
                let from: &dyn Backing = if changed.contains(&number) { &self.changes } else { &self.snapshot };
                from.fill(number, &mut [page])
            })
        }

        fn write_back(&self, first: u64, pages: &[&Page]) -> io::Result<()> {
            self.changes.write_back(first, pages)?;
            self.changed.lock().expect("nobody panics with it").extend(first..first + pages.len() as u64);
            Ok(())
        }

        fn takes_writes(&self) -> bool {
            true
        }
    }

    /// What the restored program does: it wants a page of thirty-two, and writes a few.
    fn work(numbers: &mut [u64]) {
        let pages = numbers.len() / 512;
        for page in (0..pages / 32).map(|nth| nth * 7919 % pages) {
            assert_eq!(numbers[page * 512], page as u64 * 512);
            if page.is_multiple_of(16) {
                numbers[page * 512 + 1] = 0;
            }
        }
    }

    /// Restores it, and works; with what was wanted the last time, if that is known.
    fn run(pager: &Pager, path: &Path, wanted: Option<&WorkingSet>) -> Result<(u64, WorkingSet), Box<dyn Error>> {
        let start = Instant::now();
        let overlay = Overlay::over(path)?;
        let len = overlay.snapshot.len();
        let mut memory = pager.region(overlay, len).around(1).map()?;
        memory.record((len / PAGE) as usize);
        wanted.map_or(Ok(()), |wanted| memory.replay(wanted))?;
        let ready = start.elapsed();
        work(memory.as_mut_slice());
        let (done, faults) = (start.elapsed(), memory.status().faults.count());
        println!("ready in {ready:.1?}, done in {done:.1?}; {faults} faults");
        // What was written is read again when it has been away.
        let (wanted, dirty) = (memory.recorded(), memory.dirty());
        memory.evict(0..len);
        assert!(!dirty.is_empty() && memory.resident().is_empty());
        assert!(dirty.iter().all(|run| memory.as_slice::<u64>()[run.start as usize / 8 + 1] == 0));
        Ok((faults, wanted))
    }

    pub fn main() -> Result<(), Box<dyn Error>> {
        let mib: u64 = std::env::args().nth(1).map_or(Ok(64), |mib| mib.parse())?;
        let pager = match Pager::builder().budget(mib << 19).build() {
            Err(refused) if refused.is_refused() => {
                println!("skipped: {refused}");
                return Ok(());
            }
            other => other?,
        };
        let directory = tempfile::tempdir()?;
        let [snapshot, wanted] = ["snapshot", "wanted"].map(|name| directory.path().join(name));
        let bytes: Vec<u8> = (0..(mib << 20) / 8).flat_map(u64::to_ne_bytes).collect();
        fs::write(&snapshot, &bytes)?;
        let (first, set) = run(&pager, &snapshot, None)?;
        set.save(BufWriter::new(File::create(&wanted)?))?;
        let set = WorkingSet::load(BufReader::new(File::open(&wanted)?))?;
        assert!(run(&pager, &snapshot, Some(&set))?.0 < first, "what was wanted was there");
        assert!(fs::read(&snapshot)? == bytes, "the snapshot was written");
        println!("{} KiB of {} were wanted; the snapshot is as it was", set.bytes() >> 10, mib << 10);
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
