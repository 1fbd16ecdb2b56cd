//! Lookups from a signal handler that interrupts the writer itself.
//!
//! **Guarantee.** At whatever instruction of a change the handler runs, it finds each key that stays covered, walks the tree
//! without a hole, and comes back: a lookup waits for nobody, least of all for the thread beneath it.
//!
//! **Mechanism.** A timer interrupts the one thread of the process that writes; its handler enters a read section and looks. The
//! kernel sets the shortest period. `SPILE_SOAK_SECS` lengthens the two seconds.
#![cfg(all(target_os = "linux", not(loom), not(miri), not(feature = "sched")))]

use spile_maple::{RangeTree, Span, Token};
use spile_rcu::{Global, Rcu};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Between two signals, if the kernel can.
const PERIOD_US: i64 = 100;
/// Keys per slot.
const WIDTH: u64 = 16;
const SLOTS: u64 = 600;

static TREE: RangeTree<Token, Global> = RangeTree::new();
static LOOKUPS: AtomicU64 = AtomicU64::new(0);
static SIGNALS: AtomicU64 = AtomicU64::new(0);
static WRONG: AtomicU64 = AtomicU64::new(0);
/// Whether the thread that is interrupted makes a change.
static WRITING: AtomicBool = AtomicBool::new(false);
static IN_A_CHANGE: AtomicU64 = AtomicU64::new(0);

fn keys(slot: u64) -> Span {
    Span::with_len(slot * WIDTH, WIDTH).unwrap()
}

fn number(n: usize) -> Token {
    Token::new(n).unwrap()
}

fn wrong_unless(holds: bool) {
    WRONG.fetch_add(u64::from(!holds), Relaxed);
}

/// Every key is always covered: the writer replaces, splits and merges. In each slot, what is shown belongs to it.
extern "C" fn look(_: libc::c_int) {
    let signal = SIGNALS.fetch_add(1, Relaxed);
    IN_A_CHANGE.fetch_add(u64::from(WRITING.load(Relaxed)), Relaxed);
    let section = Global.read();
    let belongs = |(span, token): (Span, Token)| keys(token.get() as u64).covers(span);
    for i in 0..4 {
        let key = (signal.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20).wrapping_add(i * 997) % (SLOTS * WIDTH);
        wrong_unless(TREE.get(&section, key).is_some_and(|found| found.0.contains(key) && belongs(found)));
        wrong_unless(TREE.find(&section, key).is_some_and(|found| found.0.contains(key) && belongs(found)));
        wrong_unless(TREE.find_back(&section, key).is_some_and(|found| found.0.contains(key) && belongs(found)));
        LOOKUPS.fetch_add(3, Relaxed);
    }
    // A walk that begins in the slot where the writer is, or some way before it.
    let first = signal % (SLOTS - 8) * WIDTH;
    let within = Span::with_len(first, 8 * WIDTH).unwrap();
    let mut upto = within.first();
    for (span, _) in TREE.iter(&section, within) {
        wrong_unless(span.first() <= upto);
        upto = upto.max(span.last() + 1);
        LOOKUPS.fetch_add(1, Relaxed);
    }
    wrong_unless(upto > within.last());
    drop(section);
}

/// A timer whose signals come to the calling thread and to no other.
fn interrupt_me() -> libc::timer_t {
    // SAFETY: (1) `look` takes what a handler takes; (2) it calls nothing that a handler must not: lookups take no lock and
    // no memory; (3) the structures are valid when zeroed.
    unsafe {
        let mut action: libc::sigaction = core::mem::zeroed();
        action.sa_sigaction = look as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = libc::SA_RESTART;
        assert_eq!(libc::sigaction(libc::SIGALRM, &action, core::ptr::null_mut()), 0);
        let mut event: libc::sigevent = core::mem::zeroed();
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = libc::SIGALRM;
        event.sigev_notify_thread_id = libc::gettid();
        let mut timer: libc::timer_t = core::ptr::null_mut();
        let made = libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer);
        assert_eq!(made, 0, "timer_create: {}", std::io::Error::last_os_error());
        let period = libc::timespec { tv_sec: 0, tv_nsec: PERIOD_US * 1000 };
        let every = libc::itimerspec { it_interval: period, it_value: period };
        assert_eq!(libc::timer_settime(timer, 0, &every, core::ptr::null_mut()), 0);
        timer
    }
}

fn change(round: u64) {
    let mut random = round.wrapping_mul(0xd134_2543_de82_ef95) ^ (round << 7);
    random ^= random >> 29;
    let slot = random % SLOTS;
    let value = number(slot as usize);
    let mut writer = TREE.try_write().expect("the one writer");
    WRITING.store(true, Relaxed);
    match random >> 32 & 3 {
        0 => drop(writer.store(keys(slot), value).unwrap()),
        1 => drop(writer.store(Span::with_len(slot * WIDTH + 3, 5).unwrap(), value).unwrap()),
        2 => {
            let part = |from, len| (Span::with_len(slot * WIDTH + from, len).unwrap(), Some(value));
            drop(writer.replace(keys(slot), [part(0, 4), part(4, 1), part(5, 8), part(13, 3)]).unwrap());
        }
        _ => drop(writer.replace(keys(slot), [(keys(slot), Some(value))]).unwrap()),
    }
    WRITING.store(false, Relaxed);
    if round.is_multiple_of(512) {
        writer.trim();
    }
}

#[test]
fn handler_looks_in_the_tree_that_is_being_written() {
    let seconds = std::env::var("SPILE_SOAK_SECS").ok().and_then(|secs| secs.parse().ok()).unwrap_or(2);
    for slot in 0..SLOTS {
        drop(TREE.try_write().unwrap().store(keys(slot), number(slot as usize)).unwrap());
    }
    let timer = interrupt_me();
    let (begun, mut round) = (Instant::now(), 0);
    while begun.elapsed() < Duration::from_secs(seconds) {
        (0..64).for_each(|i| change(round + i));
        round += 64;
    }
    // SAFETY: (1) made above.
    unsafe { libc::timer_delete(timer) };
    TREE.try_write().unwrap().validate().unwrap();
    let [signals, inside, lookups, wrong] = [&SIGNALS, &IN_A_CHANGE, &LOOKUPS, &WRONG].map(|count| count.load(Relaxed));
    println!("{round} changes, {signals} signals ({inside} of them in a change), {lookups} lookups done, {wrong} wrong, 0 stuck");
    assert_eq!(wrong, 0);
    assert!(signals > 0 && inside > 0, "no signal came in a change");
}
