//! What a thread has in its registers, and instructions of several accesses, where pages are missing or protected.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod common;
mod pagers;

use common::{PAGE, watched};
use pagers::{Asking, pager};
use spile_linux::Region;
use std::arch::asm;
use std::arch::x86_64::__m256i;
use std::hint::black_box;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

const PAGES: usize = 64;
const WORDS: usize = PAGE as usize / 8;

/// Uses the vector registers, as many as a sum takes, and AVX's altogether.
fn use_registers() {
    let sum: f64 = black_box([1.5f64; 64]).iter().sum();
    assert_eq!(sum, 96.0);
    if is_x86_feature_detected!("avx") {
        // SAFETY: (1) there is AVX; (2) what a call of C may change is said to be changed: all of them.
        unsafe { asm!("vzeroall", clobber_abi("sysv64"), options(nomem, nostack)) };
    }
}

/// A region of which no page is there, and a backing that uses registers.
fn region() -> Option<Region<Asking>> {
    let backing = Asking::numbered(PAGES as u64).fills(|_, _| {
        use_registers();
        Ok(())
    });
    Some(pager(64 * PAGE)?.region(backing, PAGES as u64 * PAGE).around(1).map().unwrap())
}

#[test]
fn general_registers_and_flags_are_kept() {
    let Some(region) = region() else { return };
    let numbers: [u64; 6] = std::array::from_fn(|n| 0x0101_0101_0101_0101 * (n as u64 + 3));
    let mut after = numbers;
    let (word, flags): (u64, u64);
    // SAFETY: (1) a word of the region; (2) the direction is put back.
    unsafe {
        asm!(
            "std",
            "stc",
            "mov {word}, [{missing}]",
            "pushfq",
            "pop {flags}",
            "cld",
            missing = in(reg) region.as_ptr(),
            word = out(reg) word,
            flags = out(reg) flags,
            inout("r10") after[0],
            inout("r11") after[1],
            inout("r12") after[2],
            inout("r13") after[3],
            inout("r14") after[4],
            inout("r15") after[5],
        );
    }
    assert_eq!((word, flags & 1, flags >> 10 & 1), (1, 1, 1));
    assert_eq!(after, numbers);
}

/// What is in sixteen registers of 32 bytes after a load of what is missing.
#[target_feature(enable = "avx")]
fn over_a_fault(missing: *const u8, mut ymm: [__m256i; 16]) -> [__m256i; 16] {
    let [y0, y1, y2, y3, y4, y5, y6, y7, y8, y9, y10, y11, y12, y13, y14, y15] = &mut ymm;
    // SAFETY: (1) a byte of the region, says the caller.
    unsafe {
        asm!(
            "mov {byte}, [{missing}]",
            missing = in(reg) missing,
            byte = out(reg) _,
            inout("ymm0") *y0, inout("ymm1") *y1, inout("ymm2") *y2, inout("ymm3") *y3,
            inout("ymm4") *y4, inout("ymm5") *y5, inout("ymm6") *y6, inout("ymm7") *y7,
            inout("ymm8") *y8, inout("ymm9") *y9, inout("ymm10") *y10, inout("ymm11") *y11,
            inout("ymm12") *y12, inout("ymm13") *y13, inout("ymm14") *y14, inout("ymm15") *y15,
        );
    }
    ymm
}

#[test]
fn vector_registers_are_kept() {
    if !is_x86_feature_detected!("avx") {
        return println!("skipped: no AVX");
    }
    let Some(region) = region() else { return };
    let numbers: [[u64; 4]; 16] = std::array::from_fn(|n| [n as u64 + 1, !0, 1 << 63, n as u64 * 77]);
    // SAFETY: (1) the same bytes, of which any are one; (2) there is AVX.
    let after: [[u64; 4]; 16] = unsafe {
        std::mem::transmute(over_a_fault(region.as_ptr(), std::mem::transmute::<[[u64; 4]; 16], [__m256i; 16]>(numbers)))
    };
    assert_eq!(after, numbers);
}

#[test]
fn a_sum_of_floats_is_what_it_is_in_memory() {
    let Some(mut region) = region() else { return };
    let number = |n: usize| (n % 1000) as f64 * 0.5;
    region.as_mut_slice::<f64>().iter_mut().enumerate().for_each(|(n, float)| *float = number(n));
    region.evict(0..region.len());
    assert!(region.resident().is_empty(), "{:?}", region.resident());
    let sum: f64 = region.as_slice::<f64>().iter().sum();
    assert_eq!(sum, (0..PAGES * WORDS).map(number).sum());
}

#[test]
fn a_copy_spans_missing_pages() {
    let Some(mut region) = region() else { return };
    let words = region.as_slice::<u64>()[WORDS / 2..][..40 * WORDS].to_vec();
    words.iter().enumerate().for_each(|(n, word)| assert_eq!(*word, ((n + WORDS / 2) / WORDS) as u64 + 1));
    region.evict(0..region.len());
    // To pages that are missing, and within the region.
    region.as_mut_slice::<u64>().copy_within(3..3 + 40 * WORDS, 20 * WORDS);
    (0..40 * WORDS).for_each(|n| assert_eq!(region.as_slice::<u64>()[20 * WORDS + n], ((n + 3) / WORDS) as u64 + 1, "{n}"));
}

/// `rep movsb` of so many bytes: how many are left.
fn rep_movsb(from: *const u8, to: *mut u8, count: usize) -> usize {
    let left;
    // SAFETY: (1) so many bytes are there, and there, say the callers.
    unsafe { asm!("rep movsb", inout("rsi") from => _, inout("rdi") to => _, inout("rcx") count => left) };
    left
}

#[test]
fn a_string_instruction_goes_on_where_it_was_interrupted() {
    let Some(region) = region() else { return };
    let mut bytes = vec![0u8; 5 * PAGE as usize];
    // From missing pages, beginning within one; and from there to missing ones, and to one that was read.
    region.prefetch(33 * PAGE..34 * PAGE).unwrap();
    // SAFETY: (1) the region's.
    let at = |byte: usize| unsafe { region.as_ptr().add(byte) };
    assert_eq!(rep_movsb(at(100), bytes.as_mut_ptr(), bytes.len()), 0);
    assert_eq!(rep_movsb(at(10 * PAGE as usize + 1), at(32 * PAGE as usize + 1), 3 * PAGE as usize), 0);
    bytes.iter().enumerate().filter(|(n, _)| (n + 100) % 8 == 0).for_each(|(n, byte)| {
        assert_eq!(*byte, ((n + 100) / PAGE as usize) as u8 + 1, "{n}");
    });
    let words = region.as_slice::<[u64; WORDS]>();
    for page in 0..3 {
        assert_eq!((words[32 + page][1], words[32 + page][511]), (11 + page as u64, 11 + page as u64));
    }
    assert_eq!((words[32][0], words[35][0], words[35][1]), (33, 14, 36), "from the second byte on, and no further");
}

/// What becomes of page 0 and page 1 before an access is made to both.
fn each_state(act: impl Fn(&mut Region<Asking>)) {
    let _watched = watched();
    let Some(mut region) = region() else { return };
    let states: [fn(&mut Region<Asking>, u64); 3] = [
        |_, _| {},
        |region, page| region.prefetch(page * PAGE..(page + 1) * PAGE).unwrap(),
        |region, page| region.write_at(page * PAGE, &(page + 1).to_ne_bytes()).unwrap(),
    ];
    for first in states {
        for second in states {
            region.evict(0..region.len());
            assert!(region.resident().is_empty());
            first(&mut region, 0);
            second(&mut region, 1);
            act(&mut region);
            region.evict(0..region.len());
            act(&mut region);
        }
    }
}

#[test]
fn a_store_across_the_end_of_a_page_is_whole() {
    let stored = AtomicU64::new(0x0102_0304_0506_0708);
    each_state(|region| {
        let word = stored.fetch_add(0x1111_1111_1111_1111, Relaxed);
        // SAFETY: (1) the region's, and nobody else uses it.
        let read = unsafe {
            let across = region.as_ptr().add(PAGE as usize - 3).cast::<u64>();
            across.write_unaligned(word);
            region.evict(0..region.len());
            across.read_unaligned()
        };
        assert_eq!(read, word);
        let words = region.as_slice::<[u64; WORDS]>();
        assert_eq!((words[0][510], words[1][1]), (1, 2), "what is beside it");
    });
}

#[test]
fn read_and_write_in_one_is_done_once() {
    let times = AtomicU64::new(0);
    each_state(|region| {
        let done = times.fetch_add(1, Relaxed);
        for page in 0..2u64 {
            // SAFETY: (1) words of the region, which are used as atomics alone.
            let [added, exchanged] = [7, 9]
                .map(|nth| unsafe { AtomicU64::from_ptr(region.as_ptr().add(page as usize * PAGE as usize + nth * 8).cast()) });
            assert_eq!(added.fetch_add(1, Relaxed), page + 1 + done);
            let before = page + 1 + done;
            assert_eq!(exchanged.compare_exchange(before + 1, 0, Relaxed, Relaxed), Err(before));
            assert_eq!(exchanged.compare_exchange(before, before + 1, Relaxed, Relaxed), Ok(before));
        }
    });
}
