//! How long faults and changes take, and what a mapping costs in memory: the scenes of `counts.rs` by the clock.
//!
//! All scenes run in alternating rounds of a hundred operations each; printed is the median over the rounds, in nanoseconds of the
//! thread's CPU time per operation (of `fork`, per fork). What brings a scene back to its beginning is not timed. `--json` prints one object per
//! line.

mod host;
#[path = "host/scenes.rs"]
mod scenes;

use host::Host;
use spile::linux::{advice, map, prot};
use spile::{Locking, Mm, MmapLock, PAGE, VmaRefcount};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

const ROUNDS: usize = 101;
/// Mappings of the address space whose size is taken.
const MANY: u64 = 10_000;

/// Counts what is in use.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: (1) everything is the system allocator's; the count is beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: (1) as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: (1) as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// CPU time of this thread, ns.
fn thread_time() -> f64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: (1) `now` is ours to write.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut now) };
    now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// A scene over one address space that is brought back to its beginning each time.
struct Scene {
    name: &'static str,
    run: Box<dyn Fn()>,
    reset: Box<dyn Fn()>,
    operations: usize,
}

fn scene<L: Locking + 'static>(name: &'static str, mm: Mm<Host, L>, run: fn(&Mm<Host, L>), reset: fn(&Mm<Host, L>)) -> Scene {
    let mm: &'static Mm<Host, L> = Box::leak(Box::new(mm));
    Scene { name, run: Box::new(move || run(mm)), reset: Box::new(move || reset(mm)), operations: scenes::TIMES }
}

/// Drops the pages that a scene has touched.
fn forget_pages<L: Locking>(mm: &Mm<Host, L>) {
    mm.madvise(scenes::area(), scenes::TIMES as u64 * PAGE, advice::DONTNEED).expect("it is mapped");
}

fn forget_file_pages<L: Locking>(mm: &Mm<Host, L>) {
    for i in 0..scenes::TIMES as u64 {
        mm.madvise(scenes::area() + 2 * i * PAGE, PAGE, advice::DONTNEED).expect("it is mapped");
    }
}

fn shrink_break<L: Locking>(mm: &Mm<Host, L>) {
    assert_eq!(mm.brk(scenes::area() + PAGE), scenes::area() + PAGE);
}

fn nothing<L: Locking>(_: &Mm<Host, L>) {}

fn all() -> Vec<Scene> {
    type L = VmaRefcount;
    vec![
        scene("anonymous write fault", scenes::untouched::<L>(), scenes::anon_faults, forget_pages),
        scene("the same, mmap_lock", scenes::untouched::<MmapLock>(), scenes::anon_faults, forget_pages),
        scene("lookup, reference, release", scenes::untouched::<L>(), scenes::lookups, nothing),
        scene("spurious fault", scenes::untouched::<L>(), scenes::spurious_faults, nothing),
        scene("file fault, cached", scenes::cached_file::<L>(), scenes::file_faults, forget_file_pages),
        scene("mmap + munmap, fixed", scenes::program_with_memory::<L>(), scenes::map_unmap, nothing),
        scene("mmap + munmap, anywhere", scenes::program_with_memory::<L>(), scenes::map_anywhere_unmap, nothing),
        scene("mprotect, split or merge", scenes::untouched::<L>(), scenes::split_merge, nothing),
        scene("brk, a page more", scenes::heap::<L>(), scenes::grow_break, shrink_break),
        Scene { operations: 1, ..scene("fork, exit of the child", scenes::parent::<L>(), |mm| drop(scenes::fork(mm)), nothing) },
    ]
}

/// Nanoseconds per operation of each scene.
fn times(scenes: &[Scene]) -> Vec<f64> {
    let mut samples = vec![Vec::new(); scenes.len()];
    for _ in 0..ROUNDS {
        for (scene, samples) in scenes.iter().zip(&mut samples) {
            let begin = thread_time();
            (scene.run)();
            samples.push((thread_time() - begin) / scene.operations as f64);
            (scene.reset)();
        }
    }
    samples.into_iter().map(median).collect()
}

/// What one of many mappings takes of the heap: its record and its share of the index.
fn bytes_per_mapping() -> f64 {
    let mm: Mm<Host, VmaRefcount> = scenes::program_with_memory();
    let before = IN_USE.load(Ordering::Relaxed);
    for i in 0..MANY {
        let prot = if i % 2 == 0 { prot::READ } else { prot::READ | prot::WRITE };
        let at = 0x1000_0000_0000 + i * 4 * PAGE;
        mm.mmap(at, 4 * PAGE, prot, map::FIXED | map::ANONYMOUS | map::PRIVATE, None, 0).expect("there is memory");
    }
    spile_rcu::Global.barrier();
    (IN_USE.load(Ordering::Relaxed) - before) as f64 / MANY as f64
}

fn main() {
    let json = std::env::args().any(|argument| argument == "--json");
    let scenes = all();
    for (scene, ns) in scenes.iter().zip(times(&scenes)) {
        match json {
            true => println!("{{\"scene\": \"{}\", \"ns\": {ns:.1}}}", scene.name),
            false => println!("{:28} {ns:>10.1} ns", scene.name),
        }
    }
    let (record, bytes) = (size_of::<spile::Vma<Host, VmaRefcount>>(), bytes_per_mapping());
    match json {
        true => println!("{{\"record_bytes\": {record}, \"bytes_per_mapping\": {bytes:.1}}}"),
        false => println!("{:28} {bytes:>10.1} bytes, of which its record {record}", "a mapping"),
    }
}
