//! Exhaustive models of the shipped code, weak memory included.
//!
//! **Guarantee.** Within two or three preemptions per run (eight beside one reader of `Srcu`), no interleaving and no permitted
//! reordering lets a period end before the sections that it has to wait for; and each named ordering, fence and seeded bug of
//! the sources makes some model fail.
//!
//! **Mechanism.** An object is a cell in which loom sees every access. Freeing it is a write, so that a reader that is too late
//! is reported as a race, and no memory is really freed. Unlinking is a Relaxed store, so that nothing but the protocol
//! orders it. [`FAULTS`] says which model catches which fault; `each_fault_is_caught` runs this binary again with each.
//!
//! Loom knows neither membarrier nor signals. [`Fences`] is the fallback as it is shipped. [`Handshake`] stands for membarrier:
//! light and heavy are read-modify-writes of one word, which is all the order that [`Host`] promises and leaves
//! no fence that could hide a missing one. [`Interrupted`] calls a handler at the point where it hurts.
#![cfg(loom)]

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use loom::thread;
use spile_rcu::qsbr::{Cpu, Machine, Qsbr};
use spile_rcu::slots::{Block, Domain, Host, Reader};
use spile_rcu::srcu::Srcu;
use spile_rcu::{Head, Rcu};
use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::Arc;

/// Which model fails under which fault.
const FAULTS: &[(&str, &str)] = &[
    ("order:cookie", "driven_by_another"),
    ("order:poll", "driven_by_another"),
    ("order:complete", "driven_by_another"),
    ("order:enter-epoch", "reader_comes_and_goes"),
    ("order:enter-epoch", "cpu_is_quiescent"),
    ("order:enter", "section_after_section"),
    ("order:leave", "section_against_free"),
    ("order:scan", "section_against_free"),
    ("order:give-back", "slot_changes_hands"),
    ("order:uncount", "reader_comes_and_goes"),
    ("order:count-slots", "reader_comes_and_goes"),
    ("order:push", "deferred_taken_released"),
    ("order:released", "barrier_sees_releases"),
    ("order:count", "barrier_sees_releases"),
    ("order:lock", "defer_and_release"),
    ("order:unlock", "defer_and_release"),
    ("order:idle", "cpu_idles"),
    ("order:come-online", "cpu_comes_back"),
    ("order:quiescent", "cpu_is_quiescent"),
    ("order:scan-cpu", "cpu_is_quiescent"),
    ("fence:claim", "reader_comes_and_goes"),
    ("fence:alone", "reader_comes_and_goes"),
    ("fence:online", "cpu_idles"),
    ("fence:scan-cpus", "cpu_idles"),
    ("bug:no-light-barrier", "section_against_free"),
    ("bug:no-light-barrier-nested", "handler_in_an_entry"),
    ("bug:no-heavy-barrier", "section_against_free_by_handshake"),
    ("bug:unnested-leave", "nested_sections"),
    ("bug:skip-nested", "nested_sections"),
    ("bug:cookie-not-later", "late_cookie"),
    ("bug:early-free", "defer_and_release"),
    ("bug:skip-a-cpu", "cpu_is_quiescent"),
    ("order:srcu-leave", "srcu_section_against_free"),
    ("order:srcu-scan", "srcu_section_against_free"),
    ("order:cookie", "srcu_two_updaters"),
    ("order:unlock", "srcu_scan_changes_hands"),
    ("order:lock", "srcu_scan_changes_hands"),
    ("fence:srcu-enter", "srcu_section_against_free"),
    ("fence:srcu-start", "srcu_section_against_free"),
    ("bug:early-free", "srcu_defer_and_release"),
    ("bug:srcu-flip-once", "srcu_delayed_reader"),
    ("bug:srcu-no-flip", "srcu_section_against_free"),
    ("bug:srcu-stale-scan", "srcu_delayed_reader"),
    ("bug:srcu-skip-a-shard", "srcu_section_on_another_shard"),
    ("bug:srcu-leave-other", "srcu_section_against_free"),
    ("bug:srcu-one-counter", "srcu_later_sections"),
];

/// Light and heavy are SeqCst fences.
struct Fences;
/// Light and heavy are read-modify-writes of one word.
struct Handshake;
/// As `Fences`, but a signal handler runs before the light barrier.
struct Interrupted;

loom::lazy_static! {
    static ref MEETING: AtomicUsize = AtomicUsize::new(0);
}

loom::thread_local! {
    static HANDLER: Cell<Option<Box<dyn FnOnce()>>> = Cell::new(None);
    static CPU: Cell<usize> = Cell::new(0);
}

fn handshake() {
    MEETING.fetch_add(1, Ordering::AcqRel);
}

fn handle_then_fence() {
    if let Some(handler) = HANDLER.with(Cell::take) {
        handler();
    }
    fence(Ordering::SeqCst);
}

macro_rules! hosts {
    ($($host:ident: $light:expr, $heavy:expr;)*) => {$(
        // SAFETY: (1) two SeqCst fences, or two read-modify-writes of one word; (2) as they; (3) nothing grows; (4) nobody dies.
        unsafe impl Host for $host {
            fn light() {
                $light
            }
            fn heavy() {
                $heavy
            }
            fn grow() -> Option<NonNull<Block>> {
                None
            }
            fn is_dead(_: u32) -> bool {
                false
            }
            fn relax(_: u32) {
                thread::yield_now();
            }
            const BATCH: usize = 1;
        }
    )*};
}
hosts! {
    Fences: fence(Ordering::SeqCst), fence(Ordering::SeqCst);
    Handshake: handshake(), handshake();
    Interrupted: handle_then_fence(), fence(Ordering::SeqCst);
}

fn model(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 10_000;
    builder.check(f);
}

fn reader<H: Host>(domain: &Domain<H>, owner: u32) -> Reader<'_, H> {
    // SAFETY: (1) not 0; (2) nobody dies.
    unsafe { Reader::new(domain, owner) }.expect("a slot is free")
}

/// A link to one of two objects. The first is linked until somebody unlinks it, and is then written to when it is free.
struct Link {
    linked: AtomicUsize,
    objects: [UnsafeCell<u32>; 2],
}

const ALIVE: u32 = 7;

impl Link {
    fn new() -> Self {
        Self { linked: AtomicUsize::new(0), objects: [UnsafeCell::new(ALIVE), UnsafeCell::new(ALIVE)] }
    }

    /// What a reader does in its section.
    fn follow(&self) {
        self.look(self.linked.load(Ordering::Relaxed));
    }

    fn look(&self, at: usize) {
        // SAFETY: (1) loom reports a write that is not ordered after this read.
        self.objects[at].with(|object| assert_eq!(unsafe { *object }, ALIVE));
    }

    fn unlink(&self) {
        self.linked.store(1, Ordering::Relaxed);
    }

    /// What stands for freeing the first object.
    fn free(&self) {
        // SAFETY: (1) loom reports an access that is not ordered before this write.
        self.objects[0].with_mut(|object| unsafe { *object = 0 });
    }
}

/// Unlinks, takes a cookie, moves time on as far as it goes in `steps`, and frees if the period is over.
fn unlink_and_free<R: Rcu>(rcu: &R, link: &Link, steps: usize) {
    link.unlink();
    let cookie = rcu.cookie();
    for _ in 0..steps {
        rcu.drive();
        thread::yield_now();
    }
    if rcu.poll(cookie) {
        link.free();
    }
}

/// One thread reads as `read` says, this one unlinks and frees. The reader stays until the end, so that it is not alone.
fn one_reader<H: Host + 'static>(preemptions: usize, read: fn(&Reader<'_, H>, &Link)) {
    model(preemptions, move || {
        let (domain, link) = (Arc::new(Domain::<H>::new()), Arc::new(Link::new()));
        let reading = thread::spawn({
            let (domain, link) = (domain.clone(), link.clone());
            move || {
                let reader = reader(&domain, 2);
                read(&reader, &link);
                std::mem::forget(reader);
            }
        });
        let writer = reader(&domain, 1);
        // Not counted as a preemption: leaves one more for where it matters.
        thread::yield_now();
        unlink_and_free(&writer, &link, 2);
        reading.join().unwrap();
    });
}

#[test]
fn section_against_free() {
    one_reader::<Fences>(3, |reader, link| {
        let _section = reader.read();
        link.follow();
    });
}

#[test]
fn section_against_free_by_handshake() {
    one_reader::<Handshake>(3, |reader, link| {
        let _section = reader.read();
        link.follow();
    });
}

#[test]
fn section_after_section() {
    one_reader::<Fences>(3, |reader, link| {
        let section = reader.read();
        link.follow();
        drop(section);
        let outer = reader.read();
        let _inner = reader.read();
        drop(outer);
    });
}

#[test]
fn nested_sections() {
    one_reader::<Fences>(3, |reader, link| {
        let outer = reader.read();
        let at = link.linked.load(Ordering::Relaxed);
        let inner = reader.read();
        link.look(at);
        drop(outer);
        link.look(at);
        drop(inner);
    });
}

/// A handler reads between the store of the interrupted entry and its barrier: its own section is a nested one.
#[test]
fn handler_in_an_entry() {
    one_reader::<Interrupted>(3, |reader, link| {
        let (handler, object) = (std::ptr::from_ref(reader).addr(), std::ptr::from_ref(link).addr());
        HANDLER.with(|slot| {
            slot.set(Some(Box::new(move || {
                // SAFETY: (1) both outlive the entry that calls this.
                let (reader, link) = unsafe { (&*(handler as *const Reader<'_, Interrupted>), &*(object as *const Link)) };
                let _section = reader.read();
                link.follow();
            })));
        });
        drop(reader.read());
    });
}

/// A reader that claims its slot and gives it back beside a driver that has no other company.
#[test]
fn reader_comes_and_goes() {
    model(3, || {
        let (domain, link) = (Arc::new(Domain::<Handshake>::new()), Arc::new(Link::new()));
        let reading = thread::spawn({
            let (domain, link) = (domain.clone(), link.clone());
            move || {
                let reader = reader(&domain, 2);
                let _section = reader.read();
                link.follow();
            }
        });
        unlink_and_free(&reader(&domain, 1), &link, 1);
        reading.join().unwrap();
    });
}

/// Two threads claim, read and give back: whoever takes a slot finds it outside a section.
#[test]
fn slot_changes_hands() {
    model(3, || {
        let domain = Arc::new(Domain::<Fences>::new());
        let other = thread::spawn({
            let domain = domain.clone();
            move || drop(reader(&domain, 2).read())
        });
        let heir = reader(&domain, 1);
        drop(heir.read());
        // Panics if the slot still seems to be in a section.
        heir.synchronize();
        other.join().unwrap();
    });
}

/// A cookie that is taken while a period runs does not end with it.
#[test]
fn late_cookie() {
    one_reader::<Fences>(3, |reader, link| {
        let section = reader.read();
        link.follow();
        drop(section);
    });
    model(3, || {
        let (domain, link) = (Arc::new(Domain::<Fences>::new()), Arc::new(Link::new()));
        let reading = thread::spawn({
            let (domain, link) = (domain.clone(), link.clone());
            move || {
                let reader = reader(&domain, 2);
                for _ in 0..2 {
                    let _section = reader.read();
                    link.follow();
                }
                std::mem::forget(reader);
            }
        });
        let writer = reader(&domain, 1);
        writer.drive();
        unlink_and_free(&writer, &link, 1);
        reading.join().unwrap();
    });
}

/// An object that is deferred.
#[repr(C)]
struct Deferred {
    head: Head,
    link: Link,
    /// How often it was released. Not loom's: it orders nothing.
    released: std::sync::atomic::AtomicUsize,
}

impl Deferred {
    fn new() -> Arc<Self> {
        Arc::new(Self { head: Head::new(Self::release), link: Link::new(), released: Default::default() })
    }

    /// Unlinks and defers. The test's own `Arc` keeps the memory to the end of the run.
    fn defer<R: Rcu>(self: &Arc<Self>, rcu: &R) {
        // Initialised by whoever defers, so that a release that is not ordered after it is a race.
        // SAFETY: (1) loom reports a race.
        self.link.objects[1].with_mut(|object| unsafe { *object = ALIVE });
        self.link.unlink();
        // SAFETY: (1) unlinked; (2) once; (3) any thread may.
        unsafe { rcu.defer(NonNull::from(&**self).cast()) };
    }

    unsafe fn release(head: NonNull<Head>) {
        // SAFETY: (1) the head is the first field of an object that the test keeps.
        let this = unsafe { head.cast::<Self>().as_ref() };
        this.link.look(1);
        this.link.free();
        this.released.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    fn releases(&self) -> usize {
        self.released.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// One thread reads and then synchronizes, another defers and synchronizes: whoever comes first releases.
#[test]
fn defer_and_release() {
    model(3, || {
        let (domain, object) = (Arc::new(Domain::<Fences>::new()), Deferred::new());
        let helping = thread::spawn({
            let (domain, object) = (domain.clone(), object.clone());
            move || {
                let reader = reader(&domain, 2);
                let section = reader.read();
                let at = object.link.linked.load(Ordering::Relaxed);
                if at == 0 {
                    object.link.look(0);
                }
                drop(section);
                reader.synchronize();
            }
        });
        let writer = reader(&domain, 1);
        object.defer(&writer);
        writer.synchronize();
        helping.join().unwrap();
        writer.barrier();
        assert_eq!(object.releases(), 1);
        assert_eq!(writer.backlog(), 0);
    });
}

/// One thread defers, a second takes the object into a batch, a third ends the period and releases it.
#[test]
fn deferred_taken_released() {
    model(2, || {
        let (domain, object) = (Arc::new(Domain::<Fences>::new()), Deferred::new());
        let deferring = thread::spawn({
            let (domain, object) = (domain.clone(), object.clone());
            move || {
                let reader = reader(&domain, 2);
                object.defer(&reader);
                std::mem::forget(reader);
            }
        });
        let taking = thread::spawn({
            let domain = domain.clone();
            move || reader(&domain, 3).synchronize()
        });
        reader(&domain, 1).synchronize();
        taking.join().unwrap();
        deferring.join().unwrap();
        reader(&domain, 1).barrier();
        assert_eq!(object.releases(), 1);
    });
}

/// What a release did, on whichever thread, is seen after `barrier`.
#[test]
fn barrier_sees_releases() {
    model(3, || {
        let (domain, object) = (Arc::new(Domain::<Fences>::new()), Deferred::new());
        let writer = reader(&domain, 1);
        object.defer(&writer);
        let helping = thread::spawn({
            let domain = domain.clone();
            move || {
                let reader = reader(&domain, 2);
                reader.synchronize();
                reader.synchronize();
            }
        });
        writer.barrier();
        assert_eq!(object.releases(), 1);
        // SAFETY: (1) loom reports a race with the release.
        object.link.objects[0].with(|object| assert_eq!(unsafe { *object }, 0));
        helping.join().unwrap();
    });
}

/// Three past the bound: `relieve` helps, beside another that does.
#[test]
fn relieve_against_relieve() {
    model(3, || {
        let domain = Arc::new(Domain::<Fences>::new());
        let objects = [Deferred::new(), Deferred::new(), Deferred::new()];
        let writer = reader(&domain, 1);
        objects.iter().for_each(|object| object.defer(&writer));
        let helping = thread::spawn({
            let domain = domain.clone();
            move || {
                let reader = reader(&domain, 2);
                reader.relieve();
                reader.relieve();
            }
        });
        writer.relieve();
        helping.join().unwrap();
        writer.barrier();
        assert!(objects.iter().all(|object| object.releases() == 1));
    });
}

struct Cpus;

impl Machine for Cpus {
    fn cpu(&self) -> usize {
        CPU.with(Cell::get)
    }
    fn relax(&self, _: u32) {
        thread::yield_now();
    }
}

struct Simulated {
    qsbr: Qsbr<'static, Cpus>,
    link: Link,
}

/// One CPU, and threads that are none but may write and drive.
fn simulated() -> Arc<Simulated> {
    // Leaked for the run: loom's atomics may not outlive it, and these are not touched afterwards.
    let cpus: &'static [Cpu] = Box::leak(Box::new([Cpu::new()]));
    // SAFETY: (1) there is one CPU; (2) to (4) as the models do.
    let qsbr = unsafe { Qsbr::new(cpus, Cpus) };
    Arc::new(Simulated { qsbr, link: Link::new() })
}

/// The one CPU reads as `read` says, this thread unlinks and frees.
fn one_cpu(preemptions: usize, read: fn(&Simulated)) {
    model(preemptions, move || {
        let machine = simulated();
        let reading = thread::spawn({
            let machine = machine.clone();
            move || read(&machine)
        });
        unlink_and_free(&machine.qsbr, &machine.link, 2);
        reading.join().unwrap();
    });
}

fn online_and_follow(machine: &Simulated) {
    // SAFETY: (1) in no section yet.
    unsafe { machine.qsbr.online() };
    let _section = machine.qsbr.read();
    machine.link.follow();
}

#[test]
fn cpu_is_quiescent() {
    one_cpu(3, |machine| {
        online_and_follow(machine);
        // SAFETY: (1) the section is over.
        unsafe { machine.qsbr.quiescent() };
        machine.link.follow();
    });
}

#[test]
fn cpu_idles() {
    one_cpu(3, |machine| {
        online_and_follow(machine);
        // SAFETY: (1) the section is over.
        unsafe { machine.qsbr.idle() };
    });
}

#[test]
fn cpu_comes_back() {
    one_cpu(3, |machine| {
        online_and_follow(machine);
        // SAFETY: (1) the section is over.
        unsafe { machine.qsbr.idle() };
        online_and_follow(machine);
    });
}

/// The cookie is taken by one thread, its period driven by a second, the reader is a third; the first one polls.
#[test]
fn driven_by_another() {
    model(3, || {
        let machine = simulated();
        let reading = thread::spawn({
            let machine = machine.clone();
            move || {
                online_and_follow(&machine);
                // SAFETY: (1) the section is over.
                unsafe { machine.qsbr.idle() };
            }
        });
        let driving = thread::spawn({
            let machine = machine.clone();
            move || {
                machine.qsbr.drive();
                machine.qsbr.drive();
            }
        });
        machine.link.unlink();
        let cookie = machine.qsbr.cookie();
        thread::yield_now();
        if machine.qsbr.poll(cookie) {
            machine.link.free();
        }
        driving.join().unwrap();
        reading.join().unwrap();
    });
}

/// The same of slots: reader, driver, and a third that polls.
#[test]
fn driven_by_another_slot() {
    model(3, || {
        let (domain, link) = (Arc::new(Domain::<Fences>::new()), Arc::new(Link::new()));
        let writer = reader(&domain, 1);
        let reading = thread::spawn({
            let (domain, link) = (domain.clone(), link.clone());
            move || {
                let reader = reader(&domain, 2);
                let _section = reader.read();
                link.follow();
            }
        });
        let driving = thread::spawn({
            let domain = domain.clone();
            move || {
                let reader = reader(&domain, 3);
                reader.drive();
            }
        });
        link.unlink();
        let cookie = writer.cookie();
        if writer.poll(cookie) {
            link.free();
        }
        driving.join().unwrap();
        reading.join().unwrap();
    });
}

type Sleepy = Srcu<Cpus, 1>;

/// One thread reads as `read` says; this one writes as `write` says. In the end no section is left, and time moves on.
fn srcu<const SHARDS: usize>(read: fn(&'static Srcu<Cpus, SHARDS>, &Arc<Link>), write: fn(&Srcu<Cpus, SHARDS>, &Link)) {
    model(8, move || {
        // Leaked for the run, so that a guard can change threads.
        let srcu: &'static Srcu<Cpus, SHARDS> = Box::leak(Box::new(Srcu::new(Cpus)));
        let link = Arc::new(Link::new());
        let reading = thread::spawn({
            let link = link.clone();
            move || read(srcu, &link)
        });
        write(srcu, &link);
        reading.join().unwrap();
        moves_on(srcu);
    });
}

/// No section runs: the first step ends what runs, the second the period of the cookie.
fn moves_on<R: Rcu>(rcu: &R) {
    let cookie = rcu.cookie();
    rcu.drive();
    rcu.drive();
    assert!(rcu.poll(cookie), "a section that ended is waited for");
}

#[test]
fn srcu_section_against_free() {
    srcu::<1>(
        |srcu, link| {
            let _section = srcu.read();
            link.follow();
        },
        |srcu, link| unlink_and_free(srcu, link, 2),
    );
}

#[test]
fn srcu_section_on_another_shard() {
    srcu::<2>(
        |srcu, link| {
            CPU.with(|cpu| cpu.set(1));
            let section = srcu.read();
            // Where the guard came from counts, not where it is dropped.
            CPU.with(|cpu| cpu.set(0));
            link.follow();
            drop(section);
        },
        |srcu, link| unlink_and_free(srcu, link, 2),
    );
}

/// A reader may have read the index before a period that flips it, and count itself after.
#[test]
fn srcu_delayed_reader() {
    srcu::<1>(
        |srcu, link| {
            let _section = srcu.read();
            link.follow();
        },
        |srcu, link| {
            srcu.drive();
            unlink_and_free(srcu, link, 1);
        },
    );
}

/// The inner section may begin after the flip; the outer one ends first.
#[test]
fn srcu_sections_across_a_flip() {
    srcu::<1>(
        |srcu, link| {
            let outer = srcu.read();
            link.follow();
            let inner = srcu.read();
            let at = link.linked.load(Ordering::Relaxed);
            drop(outer);
            link.look(at);
            drop(inner);
        },
        |srcu, link| unlink_and_free(srcu, link, 2),
    );
}

/// What the outer section found is there in and after the inner one.
#[test]
fn srcu_nested_sections() {
    srcu::<1>(
        |srcu, link| {
            let outer = srcu.read();
            let at = link.linked.load(Ordering::Relaxed);
            let inner = srcu.read();
            link.look(at);
            drop(inner);
            link.look(at);
            drop(outer);
        },
        |srcu, link| unlink_and_free(srcu, link, 2),
    );
}

/// A section begins on one thread, and goes on and ends on another.
#[test]
fn srcu_section_changes_threads() {
    srcu::<1>(
        |srcu, link| {
            let section = srcu.read();
            let ending = thread::spawn({
                let link = link.clone();
                move || {
                    link.follow();
                    drop(section);
                }
            });
            ending.join().unwrap();
        },
        |srcu, link| unlink_and_free(srcu, link, 2),
    );
}

/// One driver sees the reader's shard at zero, another ends the period: it has the first one's word for it.
#[test]
fn srcu_scan_changes_hands() {
    model(3, || {
        let shared = Arc::new((Srcu::<Cpus, 2>::new(Cpus), Link::new()));
        CPU.with(|cpu| cpu.set(1));
        let (srcu, link) = &*shared;
        // Keeps the first driver from the end.
        let section = srcu.read();
        let reading = thread::spawn({
            let shared = shared.clone();
            move || {
                let _section = shared.0.read();
                shared.1.follow();
            }
        });
        link.unlink();
        let cookie = srcu.cookie();
        let driving = thread::spawn({
            let shared = shared.clone();
            move || shared.0.drive()
        });
        thread::yield_now();
        drop(section);
        srcu.drive();
        if srcu.poll(cookie) {
            link.free();
        }
        driving.join().unwrap();
        reading.join().unwrap();
        moves_on(srcu);
    });
}

/// Two threads unlink and free an object each, beside a section that follows both links.
#[test]
fn srcu_two_updaters() {
    model(3, || {
        let shared = Arc::new((Sleepy::new(Cpus), Link::new(), Link::new()));
        let reading = thread::spawn({
            let shared = shared.clone();
            move || {
                let _section = shared.0.read();
                shared.1.follow();
                shared.2.follow();
            }
        });
        let updating = thread::spawn({
            let shared = shared.clone();
            move || unlink_and_free(&shared.0, &shared.1, 1)
        });
        unlink_and_free(&shared.0, &shared.2, 1);
        updating.join().unwrap();
        reading.join().unwrap();
        moves_on(&shared.0);
    });
}

/// A section runs at each moment, for the next begins before the last ends: a period does not wait for those that come later,
/// whatever another section did to the counters meanwhile.
#[test]
fn srcu_later_sections() {
    model(8, || {
        let shared = Arc::new((Sleepy::new(Cpus), Link::new()));
        let (srcu, link) = &*shared;
        let mut running = srcu.read();
        let reading = thread::spawn({
            let shared = shared.clone();
            move || {
                let _section = shared.0.read();
                shared.1.follow();
            }
        });
        link.unlink();
        let cookie = srcu.cookie();
        srcu.drive();
        assert!(!srcu.poll(cookie), "a section that began before runs");
        let mut relay = || {
            running = srcu.read();
            srcu.drive();
            if srcu.poll(cookie) {
                link.free();
            }
        };
        relay();
        reading.join().unwrap();
        // One for each half, if the other section stood in the way of the first.
        relay();
        relay();
        assert!(srcu.poll(cookie), "sections are waited for that came after the period started");
        drop(running);
    });
}

/// As `defer_and_release`.
#[test]
fn srcu_defer_and_release() {
    model(3, || {
        let (srcu, object) = (Arc::new(Sleepy::new(Cpus)), Deferred::new());
        let helping = thread::spawn({
            let (srcu, object) = (srcu.clone(), object.clone());
            move || {
                let section = srcu.read();
                if object.link.linked.load(Ordering::Relaxed) == 0 {
                    object.link.look(0);
                }
                drop(section);
                srcu.synchronize();
            }
        });
        object.defer(&*srcu);
        srcu.synchronize();
        helping.join().unwrap();
        srcu.barrier();
        assert_eq!(object.releases(), 1);
        assert_eq!(srcu.backlog(), 0);
    });
}

/// An owner that ends without giving its slot back is buried by a claim that finds none free.
#[test]
fn dead_owner_is_buried() {
    struct Mortal;
    loom::lazy_static! {
        static ref GONE: AtomicBool = AtomicBool::new(false);
    }
    // SAFETY: (1) two SeqCst fences; (2) as they; (3) nothing grows; (4) the flag is set Release as the thread's last deed.
    unsafe impl Host for Mortal {
        fn light() {
            fence(Ordering::SeqCst);
        }
        fn heavy() {
            fence(Ordering::SeqCst);
        }
        fn grow() -> Option<NonNull<Block>> {
            None
        }
        fn is_dead(owner: u32) -> bool {
            owner == 2 && GONE.load(Ordering::Acquire)
        }
        fn relax(_: u32) {
            thread::yield_now();
        }
        const BATCH: usize = 1;
    }
    model(3, || {
        let domain = Arc::new(Domain::<Mortal>::new());
        let kept = [reader(&domain, 1), reader(&domain, 3)];
        let mortal = thread::spawn({
            let domain = domain.clone();
            move || {
                // SAFETY: (1) not 0; (2) it dies later.
                let Some(reader) = (unsafe { Reader::new(&domain, 2) }) else { return };
                drop(reader.read());
                std::mem::forget(reader);
                GONE.store(true, Ordering::Release);
            }
        });
        // SAFETY: (1) not 0; (2) it does not die.
        if let Some(heir) = unsafe { Reader::new(&domain, 4) } {
            drop(heir.read());
            heir.synchronize();
        }
        mortal.join().unwrap();
        // SAFETY: as above.
        let heir = unsafe { Reader::new(&domain, 5) };
        assert!(heir.is_some(), "the slot of the dead is free");
        drop(kept);
    });
}

/// Names in the sources, as `order:x`, `fence:x` and `bug:x`.
fn named_faults() -> Vec<String> {
    let sources = [
        include_str!("../src/backlog.rs"),
        include_str!("../src/grace.rs"),
        include_str!("../src/qsbr.rs"),
        include_str!("../src/slots.rs"),
        include_str!("../src/srcu.rs"),
        include_str!("../../sync/src/lock.rs"),
    ];
    let kinds = [("order!(\"", "order"), ("fence!(\"", "fence"), ("seeded!(\"", "bug")];
    let mut found = Vec::new();
    for (opening, kind) in kinds {
        for source in sources {
            found.extend(source.split(opening).skip(1).map(|rest| format!("{kind}:{}", rest.split('"').next().unwrap())));
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
    let run = |fault: &str, model: &str| {
        let mut child = std::process::Command::new(&this);
        child.args(["--exact", model]).env("SPILE_MUTATE", fault).output().unwrap()
    };
    let mut missed = Vec::new();
    for (fault, model) in FAULTS {
        let output = run(fault, model);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("running 1 test"), "no model is called {model}");
        match output.status.success() {
            true => missed.push((fault, model)),
            false => println!("{fault:28} {model}"),
        }
    }
    assert!(missed.is_empty(), "faults that their model does not notice: {missed:?}");
}
