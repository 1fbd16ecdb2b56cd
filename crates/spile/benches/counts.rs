//! How many instructions faults and changes take: exact, where times on a shared machine are not.
//!
//! A hundred operations each ([`scenes`]), on a platform with nothing in it: no zeroing, no other CPU. Building is not counted.
//! The scenes that tell designs apart have a row for each, by the list of designs: a new one needs limits, nothing else. Limits are in
//! `counts.toml`; how to get the counts out stands in the range tree's `counts.rs`.

mod host;
#[path = "host/pressed.rs"]
mod pressed;
#[path = "host/scenes.rs"]
mod scenes;

use spile::{Locking, Mm, Platform};

/// A scene that is set: what is left is to be counted.
type Ready = Box<dyn FnOnce()>;

/// One type for all designs, so that one benchmark has an address space of each. The call through it is one for a hundred operations.
fn ready<P: Platform, L: Locking>(mm: Mm<P, L>, run: fn(&Mm<P, L>)) -> Ready {
    Box::new(move || {
        run(std::hint::black_box(&mm));
        std::mem::forget(mm);
    })
}

mod measured {
    #![allow(missing_docs, reason = "the macro makes public items")]
    use super::{Ready, pressed, ready, scenes};
    use gungraun::{library_benchmark, library_benchmark_group};
    use spile::VmaRefcount;

    /// A benchmark of a scene, with a row for each design.
    macro_rules! scene {
        ([$($module:ident $design:ident,)*] $name:ident, $setup:ident, $run:ident) => {
            #[library_benchmark]
            $(#[bench::$module(ready(scenes::$setup::<spile::$design>(), scenes::$run))])*
            fn $name(ready: Ready) {
                ready();
            }
        };
    }

    spile::for_each_design!(scene!(anon_fault, untouched, anon_faults));
    spile::for_each_design!(scene!(spurious_fault, untouched, spurious_faults));
    spile::for_each_design!(scene!(file_fault, cached_file, file_faults));
    spile::for_each_design!(scene!(map_unmap, program_with_memory, map_unmap));
    spile::for_each_design!(scene!(map_anywhere_unmap, program_with_memory, map_anywhere_unmap));
    spile::for_each_design!(scene!(split_merge, untouched, split_merge));

    #[library_benchmark]
    #[bench::vma_refcount(ready(scenes::untouched::<VmaRefcount>(), scenes::lookups))]
    fn lookup(ready: Ready) {
        ready();
    }

    #[library_benchmark]
    #[bench::vma_refcount(ready(scenes::heap::<VmaRefcount>(), scenes::grow_break))]
    fn grow_break(ready: Ready) {
        ready();
    }

    #[library_benchmark]
    #[bench::vma_refcount(ready(scenes::parent::<VmaRefcount>(), |mm| std::mem::forget(scenes::fork(mm))))]
    fn fork(ready: Ready) {
        ready();
    }

    // On a host whose pages can leave memory.

    #[library_benchmark]
    #[bench::vma_refcount(ready(pressed::untouched(), pressed::faults))]
    fn swap_fault(ready: Ready) {
        ready();
    }

    #[library_benchmark]
    #[bench::vma_refcount(ready(pressed::written(), pressed::reclaims))]
    fn swap_out(ready: Ready) {
        ready();
    }

    #[library_benchmark]
    #[bench::vma_refcount(ready(pressed::away(), pressed::returns))]
    fn swap_back(ready: Ready) {
        ready();
    }

    library_benchmark_group!(
        name = costs;
        benchmarks = anon_fault, spurious_fault, file_fault, map_unmap, map_anywhere_unmap, split_merge, lookup, grow_break, fork,
            swap_fault, swap_out, swap_back
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
