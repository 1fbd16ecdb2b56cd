//! What the process does with its memory, and what must be true of it.

use crate::host::{DENIED, FAULTS, Host, MM, PAGES, THREADS, Uffd, handle_faults, host, mmap};
use spile::{Access, Attr, Denied, Layout, Mm, Outcome, PAGE, Place, Prot, Range, VmaRefcount};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::*};
use std::time::{Duration, Instant};

const ROUNDS: u64 = 12;

type Space = Mm<Uffd, VmaRefcount>;

/// How often bytes were not what they had to be.
static WRONG: AtomicUsize = AtomicUsize::new(0);

fn expect(is: bool) {
    if !is {
        WRONG.fetch_add(1, Relaxed);
    }
}

/// Word `i` of page `page` of the memory at `base`.
fn word(base: u64, page: u64, i: u64) -> &'static AtomicU64 {
    // SAFETY: (1) the region and the memory it is compared with are never given back to the kernel, (2) and aligned; (3) all of this
    // file's accesses come by here.
    unsafe { AtomicU64::from_ptr((base + page * PAGE + i * 8) as *mut u64) }
}

/// What thread `thread` writes to its word of `page` in `round`; nothing before the first.
fn value(page: u64, thread: u64, round: u64) -> u64 {
    if round == 0 { 0 } else { page << 32 | thread << 16 | round }
}

/// Thread `thread` writes its word of every page in every round, and finds there what it wrote before.
fn write_all(base: u64, thread: u64) {
    handle_faults();
    for round in 1..=ROUNDS {
        for i in 0..PAGES as u64 {
            let page = (i + thread * 97) % PAGES as u64;
            let at = word(base, page, thread);
            // Half of the threads read first, and so write to what is mapped for reading.
            if thread < THREADS / 2 || round > 1 {
                expect(at.load(Relaxed) == value(page, thread, round - 1));
            }
            at.store(value(page, thread, round), Relaxed);
        }
    }
}

/// Looks at the whole of a snapshot, twice: each word is of some round, and stays what it is.
fn look(snapshot: &Space, base: u64) {
    let mut first = vec![[0; THREADS as usize * 8]; PAGES];
    for page in 0..PAGES as u64 {
        let words = &mut first[page as usize];
        expect(snapshot.read_user(base + page * PAGE, words).is_ok());
        for (thread, bytes) in (0..).zip(words.chunks(8)) {
            let now = u64::from_ne_bytes(bytes.try_into().expect("eight"));
            expect((0..=ROUNDS).any(|round| now == value(page, thread, round)));
        }
    }
    for page in 0..PAGES as u64 {
        let mut again = [0; THREADS as usize * 8];
        expect(snapshot.read_user(base + page * PAGE, &mut again).is_ok() && again == first[page as usize]);
    }
}

/// Threads that fault, beside changes: snapshots, and a quarter that may not be written for a moment, another not even be read.
fn storm(mm: &Space, region: Range) -> usize {
    let [read_only, hidden] =
        [1, 2].map(|i| Range::with_len(region.start() + i * region.len() / 4, region.len() / 4).expect("whole pages"));
    let mut snapshots = 0;
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || write_all(region.start(), thread))).collect();
        while !writers.iter().all(|writer| writer.is_finished()) {
            let snapshot = mm.fork().expect("there is memory");
            look(&snapshot, region.start());
            snapshots += 1;
            for (range, prot) in [(read_only, Prot::R), (hidden, Prot::NONE), (read_only, Prot::RW), (hidden, Prot::RW)] {
                mm.protect(range, prot).expect("it is mapped");
            }
        }
    });
    for page in 0..PAGES as u64 {
        for thread in 0..THREADS {
            expect(word(region.start(), page, thread).load(Relaxed) == value(page, thread, ROUNDS));
        }
    }
    snapshots
}

/// A write that is not allowed waits, and changes nothing until it is.
fn denial(mm: &Space, region: Range) {
    let at = word(region.start(), 5, 8);
    mm.protect(region, Prot::R).expect("it is mapped");
    let before = DENIED.load(Relaxed);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            handle_faults();
            at.store(7, Relaxed);
        });
        // A write that passes is not seen here; it is below.
        let start = Instant::now();
        while DENIED.load(Relaxed) < before + 10 && start.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(1));
        }
        expect(at.load(Relaxed) == 0);
        mm.protect(region, Prot::RW).expect("it is mapped");
    });
    expect(at.load(Relaxed) == 7);
}

/// Nanoseconds of the first write to each page, the median.
fn median(base: u64) -> u128 {
    let mut times: Vec<_> = (0..PAGES as u64)
        .map(|page| {
            let start = Instant::now();
            word(base, page, 0).store(1, Relaxed);
            start.elapsed().as_nanos()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

pub fn run() -> Result<(), String> {
    let host: &'static Host = Box::leak(Box::new(host()?));
    let (region, frames) = (host.region, || host.free.len.load(Relaxed));
    let mm = Mm::new(Uffd(host), Layout { all: region, base: region.end(), stack_gap: 0 }).map_err(|why| why.to_string())?;
    host.space.store(mm.space().0, Relaxed);
    let mm = MM.get_or_init(|| mm);
    handle_faults();
    let anon = |at: Range| Attr::anon(at.start(), Prot::RW);
    let all = frames();

    mm.map(Place::At(region), anon).map_err(|why| why.to_string())?;
    let snapshots = storm(mm, region);
    denial(mm, region);
    mm.unmap(region).map_err(|why| why.to_string())?;
    let (faults, denied) = (FAULTS.load(Relaxed), DENIED.load(Relaxed));
    assert!(matches!(mm.fault(region.start(), Access::Read), Outcome::Denied(Denied::Unmapped)));
    assert_eq!(frames(), all, "a frame did not come back");

    mm.map(Place::At(region), anon).map_err(|why| why.to_string())?;
    let ours = median(region.start());
    mm.unmap(region).map_err(|why| why.to_string())?;
    let native = median(mmap(PAGES)? as u64);
    println!(
        "userfaultfd: {THREADS} threads, {faults} faults ({denied} denied), {snapshots} snapshots, all {all} frames back; \
         {ours} ns per fault, native {native}; {} wrong bytes",
        WRONG.load(Relaxed)
    );
    assert_eq!(WRONG.load(Relaxed), 0);
    Ok(())
}
