//! The price of each thing that a pager asks of the kernel or the CPU.

use super::bed::{Bed, Beds, Laps, PAGES};
use super::common::PAGE;
use super::file::File;
use super::process::{Clock, pin};
use super::report::Spread;
use spile_linux::{Door, Features, Uffd};
use std::cell::Cell;
use std::hint::black_box;
use std::ptr::null;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Barrier, Mutex};
use std::thread::scope;
use std::time::Instant;

/// How often a trip is timed per round, and how often it is made for that at most.
const TRIPS: usize = 8;
const TRIES: usize = 96;
/// Pages per call.
pub const BATCHES: [u64; 3] = [1, 4, 16];

/// Steps after which everything is as before.
pub struct Trip {
    pub steps: &'static [&'static str],
    pub batches: &'static [u64],
    /// Whether threads have parts of the same mappings.
    pub is_shared: bool,
    pub run: fn(&Bed, &mut Laps),
}

pub const SIGNAL: &str = "write of a protected page: SIGBUS, WRITEPROTECT off";
pub const UNPROTECT: &str = "WRITEPROTECT off";

pub const TRIPS_OF_CALLS: &[Trip] = &[
    Trip { steps: &["MOVE in", "MOVE out"], batches: &BATCHES, is_shared: false, run: moves },
    Trip {
        steps: &["MOVE in, one mapping for all", "MOVE out, one mapping for all"],
        batches: &BATCHES,
        is_shared: true,
        run: moves,
    },
    Trip { steps: &["COPY", "DONTNEED"], batches: &BATCHES, is_shared: false, run: |bed, laps| copies(bed, laps, false) },
    Trip {
        steps: &["COPY, protected", "DONTNEED, protected"],
        batches: &BATCHES,
        is_shared: false,
        run: |bed, laps| copies(bed, laps, true),
    },
    Trip { steps: &["DONTNEED, scattered, by process_madvise"], batches: &BATCHES, is_shared: false, run: scattered },
    Trip { steps: &["WRITEPROTECT on", UNPROTECT], batches: &BATCHES, is_shared: false, run: protections },
    Trip { steps: &["ZEROPAGE"], batches: &BATCHES, is_shared: false, run: zeros },
    Trip { steps: &["POISON"], batches: &BATCHES, is_shared: false, run: poisons },
    Trip { steps: &[SIGNAL], batches: &[1], is_shared: false, run: signals },
    Trip {
        steps: &["pread to a hot page, from hot ones"],
        batches: &[1, 16],
        is_shared: false,
        run: |bed, laps| reads(bed, laps, true),
    },
    Trip {
        steps: &["pread to a hot page, from all of the file"],
        batches: &[1, 16],
        is_shared: false,
        run: |bed, laps| reads(bed, laps, false),
    },
    Trip { steps: &["memcpy, hot"], batches: &[1], is_shared: false, run: memcpy },
    Trip { steps: &["memcmp, hot"], batches: &[1], is_shared: false, run: memcmp },
    Trip { steps: &["xxh3_128 with a seed, hot"], batches: &[1], is_shared: false, run: fingerprints },
];

fn moves(bed: &Bed, laps: &mut Laps) {
    laps.time(0, |n, len| bed.shift(bed.region + n, bed.pool + n, len));
    bed.write(bed.region);
    laps.time(1, |n, len| bed.shift(bed.pool + n, bed.region + n, len));
    bed.write(bed.pool);
}

fn copies(bed: &Bed, laps: &mut Laps, is_protected: bool) {
    laps.time(0, |n, len| bed.copy(bed.region + n, bed.buffer + n, len, is_protected));
    bed.look(bed.region);
    laps.time(1, |n, len| bed.drop(bed.region + n, len));
}

fn scattered(bed: &Bed, laps: &mut Laps) {
    bed.copy(bed.region, bed.buffer, PAGES * PAGE, false);
    drop_scattered(bed, laps, 0);
}

/// Looks at the region and drops its pages: of a batch, the pages lie as far apart as they can. It is step `step`.
pub fn drop_scattered(bed: &Bed, laps: &mut Laps, step: usize) {
    bed.look(bed.region);
    let (count, mut is_done) = (laps.batch, true);
    laps.time(step, |n, _| is_done &= bed.drop_scattered(n / count, count));
    if !is_done {
        // A kernel that does not drop pages so has no price for it.
        laps.truncate(0);
        bed.drop(bed.region, PAGES * PAGE);
    }
}

fn protections(bed: &Bed, laps: &mut Laps) {
    bed.shift(bed.region, bed.pool, PAGES * PAGE);
    bed.write(bed.region);
    laps.time(0, |n, len| bed.protect(bed.region + n, len, true));
    bed.look(bed.region);
    laps.time(1, |n, len| bed.protect(bed.region + n, len, false));
    bed.write(bed.region);
    bed.shift(bed.pool, bed.region, PAGES * PAGE);
}

fn zeros(bed: &Bed, laps: &mut Laps) {
    // SAFETY: (1) this thread's alone.
    laps.time(0, |n, len| unsafe { bed.uffd.zero(bed.region + n, len) }.expect("missing"));
    bed.drop(bed.region, PAGES * PAGE);
}

fn poisons(bed: &Bed, laps: &mut Laps) {
    // SAFETY: (1) this thread's alone.
    laps.time(0, |n, len| unsafe { bed.uffd.poison(bed.region + n, len) }.expect("missing"));
    bed.drop(bed.region, PAGES * PAGE);
}

fn signals(bed: &Bed, laps: &mut Laps) {
    bed.shift(bed.region, bed.pool, PAGES * PAGE);
    bed.protect(bed.region, PAGES * PAGE, true);
    bed.look(bed.region);
    UFFD.set(bed.uffd);
    // SAFETY: (1) there, and this thread's; (2) the handler lets the write pass.
    laps.time(0, |n, _| unsafe { ((bed.region + n + PAGE - 1) as *mut u8).write_volatile(0) });
    UFFD.set(null());
    bed.write(bed.region);
    bed.shift(bed.pool, bed.region, PAGES * PAGE);
}

/// Of the same pages each time, or of others until all of the file's had their turn.
fn reads(bed: &Bed, laps: &mut Laps, is_hot: bool) {
    static TURN: AtomicU64 = AtomicU64::new(0);
    // Odd, so that every page comes.
    const STRIDE: u64 = 251;
    let first = if is_hot { 0 } else { TURN.fetch_add(PAGES, Relaxed) };
    let page = |n: u64| (first + n / PAGE) * STRIDE % bed.file.pages;
    // SAFETY: (1) that end of the buffer is this thread's, and not compared.
    laps.time(0, |n, len| unsafe { bed.file.read(page(n), bed.buffer + PAGES * PAGE, len / PAGE) });
}

fn memcpy(bed: &Bed, laps: &mut Laps) {
    laps.time(0, |n, len| bed.fill(black_box(n), len));
}

fn memcmp(bed: &Bed, laps: &mut Laps) {
    laps.time(0, |n, len| assert!(black_box(bed.bytes(bed.pool + n, len)) == black_box(bed.bytes(bed.buffer + n, len))));
}

/// Something that a program's writer does not know.
pub fn fingerprint(bytes: &[u8]) -> u128 {
    twox_hash::XxHash3_128::oneshot_with_seed(black_box(0x5eed_1357_9bdf), bytes)
}

fn fingerprints(bed: &Bed, laps: &mut Laps) {
    laps.time(0, |n, len| _ = black_box(fingerprint(bed.bytes(bed.pool + n, len))));
}

thread_local! {
    /// Whose protection the handler takes away on this thread.
    static UFFD: Cell<*const Uffd> = const { Cell::new(null()) };
}

/// The handler of SIGBUS.
pub extern "C" fn on_signal(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    assert!(!UFFD.get().is_null(), "a fault that nobody expects");
    // SAFETY: (1) the kernel's, and of a fault; (2) the thread lets go of the descriptor before it is closed; (3) whoever writes wants to.
    unsafe { (*UFFD.get()).protect((*info).si_addr() as u64 & !(PAGE - 1), PAGE, false) }.expect("it is there");
}

/// The medians of each step's times over one round, on so many threads. A trip counts in which all threads had their CPUs, or who has to be interrupted may be none; if there is no
/// such trip there is no median.
pub fn round(file: &File, trip: &Trip, batch: u64, threads: u64) -> Vec<Option<f64>> {
    let features = [Features::SIGBUS, Features::PAGEFAULT_FLAG_WP, Features::MOVE, Features::POISON];
    let uffd = Door::OwnFaults.open(features.into_iter().fold(Features::NONE, Features::with)).expect("the probe says so");
    let beds = Beds::new(uffd, file, threads, trip.is_shared);
    let (meet, timed) = (Barrier::new(threads as usize), AtomicU64::new(0));
    let clocks = Mutex::new(Vec::new());
    let of_thread = |thread: u64| {
        pin(thread as usize);
        clocks.lock().expect("nobody panics").push(Clock::of_this_thread());
        meet.wait();
        let clocks = clocks.lock().expect("nobody panics").clone();
        let (bed, mut laps) = (beds.of(thread), Laps::new(batch, trip.steps.len()));
        let (mut count, mut tries) = (0, 0);
        let mut is_timed = false;
        while timed.load(Relaxed) < threads {
            let before: Vec<_> = clocks.iter().map(|clock| clock.now()).collect();
            let since = Instant::now();
            (trip.run)(&bed, &mut laps);
            let least = since.elapsed().mul_f64(0.9);
            let had_cpus = clocks.iter().zip(before).all(|(clock, before)| clock.now() - before >= least);
            tries += 1;
            // The first warms up.
            count += usize::from(had_cpus && tries > 1 && count < TRIPS);
            laps.truncate(count);
            if !is_timed && (count == TRIPS || tries == TRIES) {
                is_timed = true;
                timed.fetch_add(1, Relaxed);
            }
        }
        meet.wait();
        laps.steps
    };
    let mut steps = vec![Vec::new(); trip.steps.len()];
    scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|n| scope.spawn(move || of_thread(n))).collect();
        for thread in threads {
            let times = thread.join().expect("every byte is right");
            steps.iter_mut().zip(times).for_each(|(all, of_thread)| all.extend(of_thread));
        }
    });
    steps.into_iter().map(|times| (!times.is_empty()).then(|| Spread::of(times).median)).collect()
}
