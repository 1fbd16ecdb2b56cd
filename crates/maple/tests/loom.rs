//! Exhaustive models of the shipped tree, weak memory included.
//!
//! **Guarantee.** In every interleaving and with every permitted reordering (within two to four preemptions where periods end or
//! many changes follow each other, else without a bound): a key that stays covered is never missing, a lookup returns what was there
//! at some moment during it, two lookups never go back, an iteration sees each range that nobody changes exactly once, and
//! no node or handle is written, freed or reused while a reader is in it. Each named ordering and seeded bug of the sources makes
//! some model fail.
//!
//! **Mechanism.** One reader, one writer, small nodes (four entries, four children). The keys of a node are a cell in which loom
//! sees each access, so a read that is not ordered after their writing is reported, as is a node that is poisoned too early.
//! Under a checker the stock keeps what comes home as graves until the tree is dropped, so that a late reader
//! finds a poisoned node and not foreign memory. Handles are objects that outlive the run; freeing one is a write to its cell.
//! [`FAULTS`] says which model catches which fault; `each_fault_is_caught` runs this binary again with each.
//!
//! **Why there is no mark for dead nodes,** as a maple tree has it, and so no model of one. A mark tells a reader
//! that a node is no longer in the tree; it is needed where a replaced node's slots go on changing, or where its memory serves
//! something else before the reader has left. Here neither happens: the last store into a node comes before the store
//! that unlinks it, and reuse waits for a grace period. A reader in a replaced node reads the state at the moment of the replacement,
//! which lies within its call, for it came by a way that was there until then. The control is `bug:write-to-replaced`: a
//! writer that clears slots of a node which it has replaced makes readers miss keys that stay covered.
#![cfg(loom)]

use loom::cell::UnsafeCell;
use loom::thread;
use spile_maple::{Handle, Heap, RangeTree, Span, Token, Writer};
use spile_rcu::qsbr::{Cpu, Machine, Qsbr, QsbrGuard};
use spile_rcu::{Head, Rcu};
use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Which model fails under which fault.
const FAULTS: &[(&str, &str)] = &[
    ("order:publish", "one_leaf_is_replaced"),
    ("order:publish", "handle_in_place"),
    ("order:descend", "one_leaf_is_replaced"),
    ("order:descend", "handle_in_place"),
    ("order:lock", "writers_exclude_each_other"),
    ("order:unlock", "writers_exclude_each_other"),
    ("bug:publish-before-initialise", "one_leaf_is_replaced"),
    ("bug:root-before-children", "root_grows"),
    ("bug:edit-in-place", "one_leaf_is_replaced"),
    ("bug:two-steps", "split_in_three"),
    ("bug:write-to-replaced", "one_leaf_is_replaced"),
    ("bug:skip-the-reach", "beginning_goes_to_the_leaf_before"),
    ("bug:iterate-by-position", "walk_against_a_merge_of_leaves"),
    ("bug:retire-before-publish", "handle_of_a_replaced_leaf"),
    ("bug:reuse-at-once", "nodes_come_home"),
    ("bug:stale-cookie", "nodes_come_home"),
    ("bug:free-displaced-at-once", "handle_in_place"),
];

loom::thread_local! {
    static CPU: Cell<usize> = Cell::new(0);
}

/// A machine whose periods begin when `BATCH` nodes wait.
struct Cpus<const BATCH: usize>;

impl<const BATCH: usize> Machine for Cpus<BATCH> {
    fn cpu(&self) -> usize {
        CPU.with(Cell::get)
    }
    fn relax(&self, _: u32) {
        thread::yield_now();
    }
    const BATCH: usize = BATCH;
}

/// Nothing comes home during a run.
const NEVER: usize = usize::MAX;
/// Every change that takes a node tries to bring others home.
const EAGER: usize = 1;

type Tree<H, const BATCH: usize> = RangeTree<H, Qsbr<'static, Cpus<BATCH>>, Heap>;
type Numbers<const BATCH: usize> = Tree<Token, BATCH>;
type NumbersWriter<'w, const BATCH: usize> = Writer<'w, Token, Qsbr<'static, Cpus<BATCH>>, Heap>;

/// Keys per range: range `i` of a model covers `10 * i..=10 * i + 9`.
const WIDTH: u64 = 10;

/// Ranges `from` to `to`, both included, as one.
fn over(from: u64, to: u64) -> Span {
    Span::new(from * WIDTH, to * WIDTH + (WIDTH - 1)).unwrap()
}

fn span(first: u64, last: u64) -> Span {
    Span::new(first, last).unwrap()
}

fn number(n: usize) -> Token {
    Token::new(n).unwrap()
}

/// Every interleaving, however many preemptions it takes.
const ALL: Option<usize> = None;

fn model(preemptions: impl Into<Option<usize>>, f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions.into();
    builder.max_branches = 50_000;
    let runs = Arc::new(AtomicUsize::new(0));
    builder.check({
        let runs = runs.clone();
        move || {
            runs.fetch_add(1, Relaxed);
            f();
        }
    });
    println!("{} runs", runs.load(Relaxed));
}

/// A domain whose one CPU is the reader; the writer is none.
fn domain<const BATCH: usize>() -> Qsbr<'static, Cpus<BATCH>> {
    // Leaked for the run: loom's atomics may not outlive it, and these are not touched afterwards.
    let cpus: &'static [Cpu] = Box::leak(Box::new([Cpu::new()]));
    // SAFETY: (1) there is one CPU; (2) to (4) as the models do.
    unsafe { Qsbr::new(cpus, Cpus) }
}

/// A tree of `count` ranges that touch each other, each with its number: leaves of four, the last one with what is left.
fn tree<const BATCH: usize>(count: u64) -> Arc<Numbers<BATCH>> {
    let ranges = (0..count).map(|i| (over(i, i), number(i as usize)));
    Arc::new(RangeTree::with_sorted(domain(), Heap, ranges).unwrap())
}

/// How to walk.
#[derive(Clone, Copy)]
enum Way {
    Up,
    Down,
    /// From both ends in turn.
    Inwards,
}

const WAYS: [Way; 3] = [Way::Up, Way::Down, Way::Inwards];

/// The reader's side.
struct Look<'l, const BATCH: usize> {
    tree: &'l Numbers<BATCH>,
    section: QsbrGuard<'l, Cpus<BATCH>>,
}

impl<const BATCH: usize> Look<'_, BATCH> {
    fn at(&self, key: u64) -> Option<usize> {
        let (span, token) = self.tree.get(&self.section, key)?;
        assert!(span.contains(key));
        Some(token.get())
    }

    /// Range `i`, which nobody changes.
    fn stable(&self, i: u64) {
        assert_eq!(self.at(i * WIDTH + 5), Some(i as usize), "a range that nobody changes");
    }

    /// Looks `key` up twice: each finds one of `states`, and the second no earlier one.
    fn forward(&self, key: u64, states: &[Option<usize>]) {
        let mut now = 0;
        for _ in 0..2 {
            let seen = self.at(key);
            let place = states[now..].iter().position(|state| *state == seen);
            now += place.unwrap_or_else(|| panic!("{seen:?} at {key}, where {:?} may be", &states[now..]));
        }
    }

    /// Walks all ranges: the stable ones come exactly once, and no key of `covered` is passed over.
    fn walk(&self, way: Way, stable: &[u64], covered: Span) {
        let mut all = self.tree.iter(&self.section, Span::ALL).map(|(span, token)| (span, token.get()));
        let mut seen: Vec<(Span, usize)> = match way {
            Way::Up => all.collect(),
            Way::Down => all.rev().collect(),
            Way::Inwards => std::iter::from_fn(|| Some([all.next(), all.next_back()]).filter(|ends| ends[0].is_some()))
                .flatten()
                .flatten()
                .collect(),
        };
        seen.sort();
        for &i in stable {
            let times = seen.iter().filter(|(span, number)| *span == over(i, i) && *number == i as usize).count();
            assert_eq!(times, 1, "range {i}, which nobody changes, in {seen:?}");
        }
        let mut upto = covered.first();
        for (span, _) in &seen {
            if span.first() <= upto && span.last() >= upto {
                upto = span.last() + 1;
            }
        }
        assert!(upto > covered.last(), "a hole at {upto} in {seen:?}");
    }
}

/// What one thread does to a tree of `count` ranges while another looks.
fn against(count: u64, change: fn(&mut NumbersWriter<'_, NEVER>), look: fn(&Look<'_, NEVER>)) {
    model(ALL, move || {
        let tree = tree::<NEVER>(count);
        let reading = thread::spawn({
            let tree = tree.clone();
            move || look(&Look { tree: &tree, section: tree.rcu().read() })
        });
        let mut writer = tree.try_write().unwrap();
        change(&mut writer);
        writer.validate().unwrap();
        drop(writer);
        reading.join().unwrap();
    });
}

fn store<const BATCH: usize>(writer: &mut NumbersWriter<'_, BATCH>, span: Span, n: usize) {
    drop(writer.store(span, number(n)).unwrap());
}

#[test]
fn in_place_is_replaced() {
    let change = |writer: &mut NumbersWriter<'_, NEVER>| {
        store(writer, over(1, 1), 100);
        store(writer, over(1, 1), 101);
    };
    against(3, change, |look| look.forward(15, &[Some(1), Some(100), Some(101)]));
    against(6, change, |look| {
        look.forward(15, &[Some(1), Some(100), Some(101)]);
        look.stable(2);
    });
}

#[test]
fn in_place_is_erased_and_stored_again() {
    against(
        4,
        |writer| {
            drop(writer.erase(over(1, 1)).unwrap());
            store(writer, over(1, 1), 100);
        },
        |look| {
            look.forward(15, &[Some(1), None, Some(100)]);
            look.stable(2);
        },
    );
}

#[test]
fn reserved_shows_nothing() {
    against(
        3,
        |writer| {
            drop(writer.store_reserved(over(1, 1)).unwrap());
            store(writer, over(1, 1), 100);
        },
        |look| {
            assert!(!look.tree.is_free(&look.section, over(1, 1)), "taken before, during and after");
            look.forward(15, &[Some(1), None, Some(100)]);
        },
    );
}

#[test]
fn one_leaf_is_replaced() {
    against(
        6,
        |writer| store(writer, span(45, 54), 100),
        |look| {
            look.forward(47, &[Some(4), Some(100)]);
            look.forward(52, &[Some(5), Some(100)]);
            look.stable(3);
            assert_eq!(look.at(42), Some(4), "what sticks out stays");
            assert_eq!(look.at(57), Some(5), "what sticks out stays");
        },
    );
}

#[test]
fn root_leaf_is_replaced_twice() {
    against(
        2,
        |writer| {
            store(writer, span(5, 14), 100);
            store(writer, over(0, 0), 101);
        },
        |look| {
            look.forward(7, &[Some(0), Some(100), Some(101)]);
            look.forward(12, &[Some(1), Some(100)]);
            assert_eq!(look.at(17), Some(1));
        },
    );
}

#[test]
fn appended() {
    for count in [6, 8] {
        against(
            count,
            |writer| store(writer, over(8, 8), 100),
            |look| {
                look.forward(85, &[None, Some(100)]);
                look.stable(5);
            },
        );
    }
}

#[test]
fn first_range_of_a_tree() {
    against(
        0,
        |writer| {
            store(writer, over(1, 1), 100);
            store(writer, span(5, 12), 101);
        },
        |look| {
            look.forward(11, &[None, Some(100), Some(101)]);
            look.forward(17, &[None, Some(100)]);
        },
    );
}

fn in_three(writer: &mut NumbersWriter<'_, NEVER>) {
    in_three_of(writer, over(1, 1));
}

/// Splits what fills `window`: three keys below, three above.
fn in_three_of(writer: &mut NumbersWriter<'_, NEVER>, window: Span) {
    let (low, high) = (window.first(), window.last());
    let pieces = [
        (span(low, low + 2), Some(number(100))),
        (span(low + 3, high - 3), Some(number(101))),
        (span(high - 2, high), Some(number(102))),
    ];
    drop(writer.replace(window, pieces).unwrap());
}

#[test]
fn split_in_three() {
    against(6, in_three, |look| {
        look.forward(11, &[Some(1), Some(100)]);
        look.forward(15, &[Some(1), Some(101)]);
        look.stable(2);
        look.stable(4);
    });
}

#[test]
fn root_grows() {
    against(4, in_three, |look| {
        look.forward(18, &[Some(1), Some(102)]);
        look.stable(0);
        look.stable(3);
    });
}

#[test]
fn merged_from_three() {
    against(
        8,
        |writer| drop(writer.replace(over(2, 4), [(over(2, 4), Some(number(100)))]).unwrap()),
        |look| {
            look.forward(25, &[Some(2), Some(100)]);
            look.forward(45, &[Some(4), Some(100)]);
            look.stable(1);
            look.stable(5);
        },
    );
}

#[test]
fn stored_over_several_leaves() {
    against(
        12,
        |writer| store(writer, span(15, 95), 100),
        |look| {
            look.forward(35, &[Some(3), Some(100)]);
            look.forward(60, &[Some(6), Some(100)]);
            assert_eq!(look.at(12), Some(1), "what sticks out stays");
            assert_eq!(look.at(97), Some(9), "what sticks out stays");
            look.stable(10);
        },
    );
}

#[test]
fn root_shrinks() {
    against(
        5,
        |writer| drop(writer.erase(over(1, 4)).unwrap()),
        |look| {
            look.forward(45, &[Some(4), None]);
            look.forward(15, &[Some(1), None]);
            look.stable(0);
        },
    );
}

#[test]
fn cleared_and_begun_again() {
    against(
        5,
        |writer| {
            drop(writer.clear());
            store(writer, over(0, 0), 100);
        },
        |look| {
            look.forward(5, &[Some(0), None, Some(100)]);
            look.forward(45, &[Some(4), None]);
        },
    );
}

/// The leaf loses the range it begins with, so the key space up to the next goes to the leaf before, which is under another
/// parent; and something new comes there.
#[test]
fn beginning_goes_to_the_leaf_before() {
    against(
        20,
        |writer| {
            drop(writer.erase(over(16, 16)).unwrap());
            writer.validate().unwrap();
            store(writer, span(162, 165), 100);
        },
        |look| {
            look.forward(163, &[Some(16), None, Some(100)]);
            look.stable(15);
            look.stable(17);
            look.walk(Way::Up, &[14, 15, 17, 18], over(13, 15));
        },
    );
}

#[test]
fn first_leaf_goes() {
    against(
        12,
        |writer| drop(writer.erase(over(0, 3)).unwrap()),
        |look| {
            look.forward(25, &[Some(2), None]);
            look.stable(4);
            look.walk(Way::Down, &[4, 5, 11], over(4, 11));
        },
    );
}

#[test]
fn walk_against_a_split() {
    for way in WAYS {
        model(ALL, move || {
            let tree = tree::<NEVER>(8);
            let reading = thread::spawn({
                let tree = tree.clone();
                move || {
                    let look = Look { tree: &tree, section: tree.rcu().read() };
                    look.walk(way, &[0, 2, 3, 4, 7], over(0, 7));
                }
            });
            let mut writer = tree.try_write().unwrap();
            in_three(&mut writer);
            drop(writer);
            reading.join().unwrap();
        });
    }
}

/// Two leaves become one: what comes after the reader's leaf lies in it.
#[test]
fn walk_against_a_merge_of_leaves() {
    for way in WAYS {
        model(ALL, move || {
            let tree = tree::<NEVER>(12);
            let reading = thread::spawn({
                let tree = tree.clone();
                move || {
                    let look = Look { tree: &tree, section: tree.rcu().read() };
                    look.walk(way, &[0, 5, 6, 7, 8, 11], over(5, 11));
                }
            });
            let mut writer = tree.try_write().unwrap();
            drop(writer.erase(over(1, 4)).unwrap());
            writer.validate().unwrap();
            drop(writer);
            reading.join().unwrap();
        });
    }
}

/// A leaf that became small takes in its neighbour, and both are cut anew: ranges move to another leaf.
#[test]
fn walk_against_ranges_that_move() {
    for way in WAYS {
        model(ALL, move || {
            let tree = tree::<NEVER>(6);
            let reading = thread::spawn({
                let tree = tree.clone();
                move || {
                    let look = Look { tree: &tree, section: tree.rcu().read() };
                    look.walk(way, &[0, 1, 2, 3], over(0, 3));
                }
            });
            let mut writer = tree.try_write().unwrap();
            drop(writer.erase(over(5, 5)).unwrap());
            drop(writer.erase(over(4, 4)).unwrap());
            writer.validate().unwrap();
            drop(writer);
            reading.join().unwrap();
        });
    }
}

/// The other lookups, beside a change that splits a leaf: a covered key's range is always the nearest.
#[test]
fn neighbours_against_a_split() {
    against(6, in_three, |look| {
        let (tree, section) = (look.tree, &look.section);
        assert!(tree.find(section, 15).is_some_and(|(span, _)| span.contains(15)));
        assert!(tree.find_back(section, 15).is_some_and(|(span, _)| span.contains(15)));
        assert!(!tree.is_free(section, span(14, 15)));
        assert_eq!(tree.next(section, 19).map(|(span, token)| (span, token.get())), Some((over(2, 2), 2)));
        assert_eq!(tree.prev(section, 10).map(|(span, token)| (span, token.get())), Some((over(0, 0), 0)));
    });
}

/// Three levels: the window lies under both children of the root.
#[test]
fn stored_over_several_parents() {
    against(
        20,
        |writer| store(writer, span(135, 174), 100),
        |look| {
            look.forward(150, &[Some(15), Some(100)]);
            look.forward(170, &[Some(17), Some(100)]);
            assert_eq!(look.at(132), Some(13), "what sticks out stays");
            look.stable(18);
            look.walk(Way::Inwards, &[0, 12, 18, 19], over(0, 19));
        },
    );
}

/// One change after the other under a single walk: in place, split, leaves joined, root shrunk and grown again.
#[test]
fn walk_against_many_changes() {
    for way in WAYS {
        model(4, move || {
            let tree = tree::<NEVER>(9);
            let reading = thread::spawn({
                let tree = tree.clone();
                move || {
                    let look = Look { tree: &tree, section: tree.rcu().read() };
                    look.walk(way, &[0, 7, 8], over(0, 0));
                    look.walk(way, &[0, 7, 8], over(7, 8));
                }
            });
            let mut writer = tree.try_write().unwrap();
            in_three(&mut writer);
            drop(writer.erase(over(2, 6)).unwrap());
            drop(writer.erase(over(1, 1)).unwrap());
            store(&mut writer, over(1, 6), 100);
            in_three_of(&mut writer, over(1, 6));
            writer.validate().unwrap();
            drop(writer);
            reading.join().unwrap();
        });
    }
}

/// Nodes wait for their period, and the period for the reader.
#[test]
fn nodes_come_home() {
    model(2, || {
        let tree = tree::<EAGER>(2);
        let reading = thread::spawn({
            let tree = tree.clone();
            move || {
                for _ in 0..2 {
                    // SAFETY: (1) in no section.
                    unsafe { tree.rcu().online() };
                    let look = Look { tree: &tree, section: tree.rcu().read() };
                    look.forward(7, &[Some(0), Some(100), Some(101), Some(102)]);
                    drop(look);
                    // SAFETY: (1) the section is over.
                    unsafe { tree.rcu().idle() };
                }
            }
        });
        let mut writer = tree.try_write().unwrap();
        for (n, span) in [span(5, 14), span(6, 13), span(7, 12)].into_iter().enumerate() {
            store(&mut writer, span, 100 + n);
        }
        store(&mut writer, span(20, 29), 3);
        writer.trim();
        drop(writer);
        reading.join().unwrap();
        let mut writer = tree.try_write().unwrap();
        // One trim for what was young when the reader left, one for what became old.
        writer.trim();
        writer.trim();
        assert_eq!(writer.stats().retired_bytes, 0, "with no reader left every node comes home");
    });
}

/// What a handle stands for. Freeing it is a write, so that a reader that is too late is reported; the memory stays.
#[repr(C)]
struct Object {
    head: Head,
    alive: UnsafeCell<bool>,
}

// SAFETY: (1) loom reports unordered accesses of the cell.
unsafe impl Sync for Object {}

impl Object {
    /// Leaked for the run.
    fn new() -> Owned {
        Owned(Box::leak(Box::new(Self { head: Head::new(Self::release), alive: UnsafeCell::new(true) })))
    }

    fn look(&self) {
        // SAFETY: (1) loom reports a write that is not ordered after this read.
        self.alive.with(|alive| assert!(unsafe { *alive }, "a handle was freed under its reader"));
    }

    fn free(&self) {
        // SAFETY: (1) loom reports an access that is not ordered before this write.
        self.alive.with_mut(|alive| assert!(unsafe { core::mem::replace(&mut *alive, false) }, "freed twice"));
    }

    unsafe fn release(head: NonNull<Head>) {
        // SAFETY: (1) the head is the first field of an object that is never freed.
        unsafe { head.cast::<Self>().as_ref() }.free();
    }
}

/// Owns an [`Object`] while it is alive.
struct Owned(&'static Object);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.free();
    }
}

// SAFETY: (1) an object does not lie at address 1; (2) it lies where it lies; (3) it is `Sync`; (4) `defer` waits for a grace
// period; (5) it is a shared reference.
unsafe impl Handle for Owned {
    type Ref<'g> = &'g Object;

    fn into_raw(self) -> NonNull<()> {
        NonNull::from(core::mem::ManuallyDrop::new(self).0).cast()
    }

    unsafe fn from_raw(raw: NonNull<()>) -> Self {
        // SAFETY: (1) it came from `into_raw`.
        Self(unsafe { raw.cast().as_ref() })
    }

    unsafe fn by_ref<'g>(raw: NonNull<()>) -> &'g Object {
        // SAFETY: (1) it came from `into_raw`.
        unsafe { raw.cast().as_ref() }
    }

    fn retire<R: Rcu>(self, rcu: &R) {
        let object = core::mem::ManuallyDrop::new(self).0;
        // SAFETY: (1) unlinked; (2) owned until now; (3) any thread may.
        unsafe { rcu.defer(NonNull::from(object).cast()) };
    }
}

/// A reader looks at what a handle stands for while `change` displaces it.
fn displacing(preemptions: usize, change: fn(&Tree<Owned, EAGER>)) {
    model(preemptions, move || {
        let ranges = (0..2).map(|i| (over(i, i), Object::new()));
        let tree: Arc<Tree<Owned, EAGER>> = Arc::new(RangeTree::with_sorted(domain(), Heap, ranges).unwrap());
        let reading = thread::spawn({
            let tree = tree.clone();
            move || {
                // SAFETY: (1) in no section.
                unsafe { tree.rcu().online() };
                let section = tree.rcu().read();
                if let Some((_, object)) = tree.get(&section, 15) {
                    object.look();
                    object.look();
                }
                drop(section);
                // SAFETY: (1) the section is over.
                unsafe { tree.rcu().idle() };
            }
        });
        change(&tree);
        reading.join().unwrap();
        tree.rcu().barrier();
    });
}

#[test]
fn handle_in_place() {
    displacing(3, |tree| {
        let mut writer = tree.try_write().unwrap();
        drop(writer.replace(over(1, 1), [(over(1, 1), Some(Object::new()))]).ok().unwrap());
        drop(writer);
        tree.rcu().synchronize();
    });
}

#[test]
fn handle_of_a_replaced_leaf() {
    displacing(3, |tree| {
        let mut writer = tree.try_write().unwrap();
        let halves = [(span(10, 14), Some(Object::new())), (span(15, 19), Some(Object::new()))];
        assert_eq!(writer.replace(over(1, 1), halves).ok().unwrap().inspect(|_, object| object.look()), 1);
        drop(writer);
        tree.rcu().synchronize();
    });
}

#[test]
fn handle_taken() {
    displacing(3, |tree| {
        let mut writer = tree.try_write().unwrap();
        assert_eq!(writer.clear().take().map(|(_, owned)| drop(owned)).count(), 2);
    });
}

/// Two threads want to write: one at a time does, and the second sees what the first did.
#[test]
fn writers_exclude_each_other() {
    model(3, || {
        let tree = tree::<NEVER>(2);
        let write = |tree: &Numbers<NEVER>, first: u64, n: usize| {
            let Some(mut writer) = tree.try_write() else { return false };
            store(&mut writer, span(first, first + 3), n);
            writer.validate().unwrap();
            true
        };
        let other = thread::spawn({
            let tree = tree.clone();
            move || write(&tree, 2, 100)
        });
        let mine = write(&tree, 4, 101);
        let theirs = other.join().unwrap();
        assert!(mine || theirs, "one of them got the right");
        let look = Look { tree: &tree, section: tree.rcu().read() };
        assert_eq!(look.at(7).unwrap(), if mine { 101 } else { 0 });
        assert_eq!(look.at(2).unwrap(), if theirs { 100 } else { 0 });
    });
}

/// Names in the sources, as `order:x`, `fence:x` and `bug:x`.
fn named_faults() -> Vec<String> {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = vec![here.join("src"), here.join("../sync/src/lock.rs")];
    let mut found = Vec::new();
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            paths.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let text = std::fs::read_to_string(path).unwrap();
        for (opening, kind) in [("order!(\"", "order"), ("fence!(\"", "fence"), ("seeded!(\"", "bug")] {
            found.extend(text.split(opening).skip(1).map(|rest| format!("{kind}:{}", rest.split('"').next().unwrap())));
        }
    }
    found
}

/// Each name in the sources has a model, and that model fails when the fault is switched on.
#[test]
fn each_fault_is_caught() {
    if std::env::var_os("SPILE_MUTATE").is_some() {
        return;
    }
    for fault in named_faults() {
        assert!(FAULTS.iter().any(|(name, _)| *name == fault), "{fault} is in the sources, but no model is named for it");
    }
    let this = std::env::current_exe().unwrap();
    let mut missed = Vec::new();
    for (fault, model) in FAULTS {
        let mut child = std::process::Command::new(&this);
        let output = child.args(["--exact", model]).env("SPILE_MUTATE", fault).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("running 1 test"), "no model is called {model}");
        match output.status.success() {
            true => missed.push((fault, model)),
            false => println!("{fault:32} {model}"),
        }
    }
    assert!(missed.is_empty(), "faults that their model does not notice: {missed:?}");
}
