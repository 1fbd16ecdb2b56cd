//! Ways of showing a page that is in a frame so that it may be read, and of getting it back into its frame: what a whole round trip costs.
//!
//! A protection can only be put on a page that is there. Between a move and the protection another thread may have written, and would not be seen.

use super::bed::{Bed, Laps};
use super::prices::{Trip, drop_scattered, fingerprint};
use std::cell::RefCell;

const BATCHES: &[u64] = &[1, 16];

pub const WAYS: &[Trip] = &[
    Trip {
        steps: &["a: COPY protected, DONTNEED of the frame", "a: taken out by MOVE"],
        batches: BATCHES,
        is_shared: false,
        run: |bed, laps| {
            laps.time(0, |n, len| {
                bed.copy(bed.region + n, bed.pool + n, len, true);
                bed.drop(bed.pool + n, len);
            });
            back(bed, laps);
        },
    },
    Trip {
        steps: &["a': COPY protected, the frame is free at once", "a': taken out by DONTNEED"],
        batches: BATCHES,
        is_shared: false,
        run: |bed, laps| {
            laps.time(0, |n, len| bed.copy(bed.region + n, bed.pool + n, len, true));
            bed.look(bed.region);
            laps.time(1, |n, len| bed.drop(bed.region + n, len));
            bed.write(bed.pool);
        },
    },
    Trip {
        steps: &["e: COPY protected, the frame is free at once", "e: taken out scattered, by process_madvise"],
        batches: BATCHES,
        is_shared: false,
        run: |bed, laps| {
            laps.time(0, |n, len| bed.copy(bed.region + n, bed.buffer + n, len, true));
            drop_scattered(bed, laps, 1);
        },
    },
    Trip {
        steps: &["b: memcpy from a buffer, MOVE, WP on, memcmp", "b: taken out by MOVE"],
        batches: BATCHES,
        is_shared: false,
        run: |bed, laps| {
            laps.time(0, |n, len| {
                bed.fill(n, len);
                bed.shift(bed.region + n, bed.pool + n, len);
                bed.protect(bed.region + n, len, true);
                assert!(bed.bytes(bed.region + n, len) == bed.bytes(bed.buffer + n, len));
            });
            back(bed, laps);
        },
    },
    Trip {
        steps: &["c: xxh3_128, MOVE", "c: taken out by MOVE, xxh3_128"],
        batches: BATCHES,
        is_shared: false,
        run: by_fingerprint,
    },
    Trip {
        steps: &["d: MOVE; a write is not seen", "d: taken out by MOVE"],
        batches: BATCHES,
        is_shared: false,
        run: |bed, laps| {
            laps.time(0, |n, len| bed.shift(bed.region + n, bed.pool + n, len));
            back(bed, laps);
        },
    },
];

/// The program reads the pages; then they are moved out, and are as they were, to be written to.
fn back(bed: &Bed, laps: &mut Laps) {
    bed.look(bed.region);
    laps.time(1, |n, len| bed.shift(bed.pool + n, bed.region + n, len));
    bed.write(bed.pool);
}

fn by_fingerprint(bed: &Bed, laps: &mut Laps) {
    const PAGE: usize = super::common::PAGE as usize;
    let prints = RefCell::new(Vec::with_capacity(super::bed::PAGES as usize));
    laps.time(0, |n, len| {
        prints.borrow_mut().extend(bed.bytes(bed.pool + n, len).chunks(PAGE).map(fingerprint));
        bed.shift(bed.region + n, bed.pool + n, len);
    });
    bed.look(bed.region);
    let prints = prints.into_inner();
    laps.time(1, |n, len| {
        bed.shift(bed.pool + n, bed.region + n, len);
        let before = &prints[n as usize / PAGE..];
        let after = bed.bytes(bed.pool + n, len).chunks(PAGE).map(fingerprint);
        after.zip(before).for_each(|(after, before)| assert_eq!(after, *before));
    });
    bed.write(bed.pool);
}
