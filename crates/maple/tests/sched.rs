//! Random verbs of one writer beside readers that check, under the seeded scheduler.
//!
//! **Guarantee.** For each seed tried: keys that stay covered are never missing, an iteration sees each range that nobody changes
//! once and passes over no covered key, nothing is seen that was never stored, and replaced nodes are reused only
//! after the grace period of a real domain. A failing seed is printed with the end of its story and fails again.
//!
//! **Mechanism.** Nodes are small, so a few dozen ranges make three levels. Stored values carry the window they were stored over, so
//! that a reader can tell a range that was never there. Nodes that come home are poisoned, not reused: a reader that is
//! still in one misses what it looks for. `SPILE_SEEDS` sets the number of seeds; controls run this binary with a
//! seeded bug and expect it to be found.
#![cfg(all(feature = "sched", feature = "small-nodes", not(loom)))]

use spile_maple::{Heap, RangeTree, Span, Token};
use spile_rcu::slots::{Block, Domain, Host, Reader, Section};
use spile_rcu::{Cookie, Head, Rcu};
use spile_sync::sched::{Outcome, Run, Strategy, explore};
use std::cell::Cell;
use std::ptr::NonNull;

/// Fences that are yield points; two nodes make a period worth its price.
struct Fences;

// SAFETY: (1) two SeqCst fences; (2) as they; (3) nothing grows; (4) nobody dies.
unsafe impl Host for Fences {
    fn light() {
        spile_sync::atomic::fence(spile_sync::atomic::Ordering::SeqCst);
    }
    fn heavy() {
        spile_sync::atomic::fence(spile_sync::atomic::Ordering::SeqCst);
    }
    fn grow() -> Option<NonNull<Block>> {
        None
    }
    fn is_dead(_: u32) -> bool {
        false
    }
    fn relax(_: u32) {
        spile_sync::hint::spin_loop();
    }
    const BATCH: usize = 2;
}

thread_local! {
    /// The reader of the simulated thread that runs here.
    static SEAT: Cell<*const Reader<'static, Fences>> = const { Cell::new(core::ptr::null()) };
}

/// The domain of whoever took a seat: every simulated thread does before it touches the tree.
struct Seated;

fn seat() -> &'static Reader<'static, Fences> {
    // SAFETY: (1) set by `sit`, whose reader outlives what runs in it.
    unsafe { SEAT.get().as_ref() }.expect("a thread with a seat")
}

/// Runs `f` as reader `owner` of `domain`.
fn sit(domain: &Domain<Fences>, owner: u32, f: impl FnOnce()) {
    // SAFETY: (1) not 0; (2) nobody dies.
    let reader = unsafe { Reader::new(domain, owner) }.expect("a slot is free");
    SEAT.set((&raw const reader).cast());
    f();
    SEAT.set(core::ptr::null());
}

// SAFETY: (1, 2, 3) a `Reader`'s promises, of one domain per run.
unsafe impl Rcu for Seated {
    type Guard<'r> = Section<'static, Fences>;

    fn read(&self) -> Section<'static, Fences> {
        seat().read()
    }
    fn protects(&self, guard: &Section<'static, Fences>) -> bool {
        seat().protects(guard)
    }
    fn cookie(&self) -> Cookie {
        seat().cookie()
    }
    fn poll(&self, cookie: Cookie) -> bool {
        seat().poll(cookie)
    }
    fn drive(&self) {
        seat().drive();
    }
    fn batch(&self) -> usize {
        Fences::BATCH
    }
    unsafe fn defer(&self, head: NonNull<Head>) {
        // SAFETY: (1) the caller's contract is the callee's.
        unsafe { seat().defer(head) };
    }
    fn backlog(&self) -> usize {
        seat().backlog()
    }
    fn relieve(&self) {
        seat().relieve();
    }
    fn synchronize(&self) {
        seat().synchronize();
    }
}

type Tree = RangeTree<Token, Seated, Heap>;

/// Keys of a slot: one stable range, or a stage on which the writer acts.
const WIDTH: u64 = 16;
const SLOTS: u64 = 24;
/// What the stable range of each slot holds; the writer's values are above.
const WRITTEN: usize = 1000;

/// Every third slot is the writer's.
fn is_stage(slot: u64) -> bool {
    slot % 3 == 1
}

fn keys(slot: u64) -> Span {
    Span::with_len(slot * WIDTH, WIDTH).unwrap()
}

fn part(slot: u64, from: u64, upto: u64) -> Span {
    Span::new(slot * WIDTH + from, slot * WIDTH + upto).unwrap()
}

/// Whether the writer keeps every key of the stage covered, by replacing, splitting and merging alone.
fn stays_covered(slot: u64) -> bool {
    slot % 6 == 1
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

fn number(n: usize) -> Token {
    Token::new(n).unwrap()
}

fn start() -> Tree {
    let ranges = (0..SLOTS).map(|slot| (keys(slot), number(slot as usize)));
    RangeTree::with_sorted(Seated, Heap, ranges).unwrap()
}

fn write(tree: &Tree, seed: u64, changes: usize) {
    let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for change in 0..changes {
        let value = number(WRITTEN + change);
        let slot = rng.below(SLOTS / 3) * 3 + 1;
        let (a, b) = (rng.below(WIDTH), rng.below(WIDTH));
        let window = part(slot, a.min(b), a.max(b));
        let mut writer = tree.try_write().expect("one writer");
        match rng.below(if stays_covered(slot) { 4 } else { 7 }) {
            0 => drop(writer.store(window, value)),
            1 => drop(writer.store(keys(slot), value)),
            2 | 3 => {
                let pieces = [part(slot, 0, 4), part(slot, 5, 9), part(slot, 10, 15)].map(|span| (span, Some(value)));
                drop(writer.replace(keys(slot), pieces));
            }
            4 => drop(writer.erase(keys(slot))),
            5 => drop(writer.erase(window)),
            _ => drop(writer.store_reserved(window)),
        }
        writer.validate().unwrap();
        if rng.below(16) == 0 {
            writer.trim();
        }
    }
}

/// What a range may be that a reader is shown.
fn plausible(span: Span, token: Token) {
    let slot = span.first() / WIDTH;
    assert!(keys(slot).covers(span), "{span} is of no slot");
    if !is_stage(slot) {
        assert_eq!((span, token.get()), (keys(slot), slot as usize), "a range that nobody changes");
    } else {
        assert!(token.get() == slot as usize || token.get() >= WRITTEN, "{token:?} at {span} was never stored there");
    }
}

fn read(tree: &Tree, seed: u64, looks: usize) {
    let mut rng = Rng(seed.wrapping_mul(0xd134_2543_de82_ef95) | 1);
    for _ in 0..looks {
        let section = tree.rcu().read();
        let key = rng.below(SLOTS * WIDTH);
        let slot = key / WIDTH;
        let covered = !is_stage(slot) || stays_covered(slot);
        match rng.below(5) {
            0 => match tree.get(&section, key) {
                Some((span, token)) => {
                    assert!(span.contains(key));
                    plausible(span, token);
                }
                None => assert!(!covered, "{key:#x} is missing"),
            },
            1 => {
                let found = tree.find(&section, key).filter(|(span, _)| span.contains(key));
                assert!(found.is_some() || !covered, "{key:#x} is not found");
                let found = tree.find_back(&section, key).filter(|(span, _)| span.contains(key));
                assert!(found.is_some() || !covered, "{key:#x} is not found backwards");
            }
            2 => assert!(!covered || !tree.is_free(&section, Span::new(key, key).unwrap()), "{key:#x} is free"),
            way => {
                let all = tree.iter(&section, Span::ALL);
                let mut seen: Vec<_> = if way == 3 { all.collect() } else { all.rev().collect() };
                seen.iter().for_each(|&(span, token)| plausible(span, token));
                if way == 4 {
                    seen.reverse();
                }
                assert!(seen.is_sorted_by_key(|(span, _)| span.last()), "not in order: {seen:?}");
                for slot in (0..SLOTS).filter(|&slot| !is_stage(slot)) {
                    let times = seen.iter().filter(|(span, _)| *span == keys(slot)).count();
                    assert_eq!(times, 1, "range {slot} in {seen:?}");
                }
                for slot in (0..SLOTS).filter(|&slot| stays_covered(slot)) {
                    let mut upto = keys(slot).first();
                    for (span, _) in seen.iter().filter(|(span, _)| span.first() <= keys(slot).last()) {
                        if span.first() <= upto && upto <= span.last() {
                            upto = span.last() + 1;
                        }
                    }
                    assert!(upto > keys(slot).last(), "a hole at {upto:#x} in {seen:?}");
                }
            }
        }
    }
}

fn one(run: Run<'static>, seed: u64) -> Outcome {
    let domain: Domain<Fences> = Domain::new();
    let mut tree = None;
    sit(&domain, 9, || tree = Some(start()));
    let tree = tree.unwrap();
    // SAFETY: (1) `run` joins its threads before it returns, and what they borrow lives longer.
    let (tree, domain): (&'static Tree, &'static Domain<Fences>) =
        unsafe { (&*core::ptr::from_ref(&tree), &*core::ptr::from_ref(&domain)) };
    let readers = 2 + seed % 2;
    let mut run = run.max_steps(2_000_000).keep_events(60).spawn("writer", move || sit(domain, 1, || write(tree, seed, 24)));
    for reader in 0..readers {
        let id = 2 + reader as u32;
        run = run.spawn(format!("reader {reader}"), move || sit(domain, id, || read(tree, seed * 4 + reader, 12)));
    }
    let outcome = run.run();
    let mut retired = 0;
    sit(domain, 9, || {
        let mut writer = tree.try_write().expect("the writer is gone");
        // What is young, and what became old while the other batch waited.
        (0..3).for_each(|_| writer.trim());
        retired = writer.stats().retired_bytes;
    });
    outcome.check(retired == 0, "with no reader left every node comes home")
}

fn seeds(normal: u64) -> u64 {
    std::env::var("SPILE_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(normal)
}

/// Runs seeds of one strategy until one fails; prints how far it came.
fn explored(seeds: u64, strategy: Strategy) {
    let mut seed = 0;
    let found = explore(0..seeds, strategy, |run| {
        seed += 1;
        one(run, seed - 1)
    });
    println!("{} seeds passed, {} steps", found.passed, found.steps);
    found.expect_ok();
}

#[test]
fn walks_at_random() {
    explored(seeds(300), Strategy::Random);
}

#[test]
fn walks_with_priorities() {
    explored(seeds(200), Strategy::Pct { depth: 3 });
}

/// Each of these is found by one of the two, most by the first seeds.
#[test]
fn controls() {
    if std::env::var_os("SPILE_MUTATE").is_some() {
        return;
    }
    let bugs = ["reuse-at-once", "two-steps", "write-to-replaced", "stale-cookie", "iterate-by-position", "skip-the-reach"];
    let this = std::env::current_exe().unwrap();
    let mut missed = Vec::new();
    for bug in bugs {
        let mut child = std::process::Command::new(&this);
        child.args(["walks", "--test-threads=1", "--nocapture"]).env("SPILE_MUTATE", format!("bug:{bug}"));
        let output = child.env("SPILE_SEEDS", "3000").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let passed = text.lines().find(|line| line.contains("seeds passed")).unwrap_or("crashed").to_owned();
        match output.status.success() {
            true => missed.push(bug),
            false => println!("{bug:24} {passed}"),
        }
    }
    assert!(missed.is_empty(), "seeded bugs that no seed found: {missed:?}");
}
