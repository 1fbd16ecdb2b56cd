//! How many instructions faults and changes take: exact, where times on a shared machine are not.
//!
//! A hundred operations each ([`scenes`]), on a platform with nothing in it: no zeroing, no other CPU. Building is not counted.
//! Limits are in `counts.toml`; how to get the counts out stands in the range tree's `counts.rs`.

mod host;
#[path = "host/scenes.rs"]
mod scenes;

use host::Host;
use spile::{Mm, MmapLock, VmaRefcount};

type Counted = Mm<Host, VmaRefcount>;
type Locked = Mm<Host, MmapLock>;

mod measured {
    #![allow(missing_docs, reason = "the macro makes public items")]
    use super::{Counted, Locked, scenes};
    use gungraun::{library_benchmark, library_benchmark_group};
    use std::hint::black_box;
    use std::mem::forget;

    macro_rules! scene {
        ($($name:ident, $setup:ident, $run:ident;)*) => {
            $(
                #[library_benchmark]
                #[bench::vma_refcount(scenes::$setup())]
                fn $name(mm: Counted) {
                    scenes::$run(black_box(&mm));
                    forget(mm);
                }
            )*
        };
    }

    scene! {
        anon_fault, untouched, anon_faults;
        spurious_fault, untouched, spurious_faults;
        lookup, untouched, lookups;
        file_fault, cached_file, file_faults;
        map_unmap, program_with_memory, map_unmap;
        map_anywhere_unmap, program_with_memory, map_anywhere_unmap;
        split_merge, untouched, split_merge;
        grow_break, heap, grow_break;
    }

    #[library_benchmark]
    #[bench::vma_refcount(scenes::parent())]
    fn fork(mm: Counted) {
        forget(scenes::fork(black_box(&mm)));
        forget(mm);
    }

    #[library_benchmark]
    #[bench::mmap_lock(scenes::untouched())]
    fn anon_fault_locked(mm: Locked) {
        scenes::anon_faults(black_box(&mm));
        forget(mm);
    }

    library_benchmark_group!(
        name = costs;
        benchmarks = anon_fault, spurious_fault, lookup, file_fault, map_unmap, map_anywhere_unmap, split_merge, grow_break, fork,
            anon_fault_locked
    );

    gungraun::main!(library_benchmark_groups = costs);

    pub fn run() {
        main();
    }
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|place| place.join(program).is_file())
}

fn main() {
    // Under valgrind the runner starts us again, with its own argument and without a PATH.
    let is_started_by_runner = std::env::args().nth(1).is_some_and(|argument| argument == "--gungraun-run");
    let runner = if option_env!("GUNGRAUN_RUNNER").is_some() { None } else { Some("gungraun-runner") };
    let missing = runner.into_iter().chain(["valgrind"]).find(|program| !is_installed(program));
    if let Some(missing) = missing.filter(|_| !is_started_by_runner) {
        eprintln!("counts: nothing measured, {missing} is not in PATH");
        return;
    }
    measured::run();
}
