//! Who listens is told, and not within a handler.
//!
//! **Guarantee.** Each event comes when it should, once; none from a thread that is in a backing, and so in a handler. What failed there is told by the next verb.
//!
//! **Mechanism.** A subscriber that keeps what it is told, and fails the test when it is told something while its thread is in the backing.
#![cfg(all(target_os = "linux", target_arch = "x86_64", feature = "tracing"))]

mod pagers;

use pagers::{Asking, is_possible, pager};
use spile_linux::backing::Anonymous;
use spile_linux::{PAGE, Region};
use std::cell::Cell;
use std::fmt::{Debug, Write as _};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());

thread_local! {
    static IS_ASKED: Cell<bool> = const { Cell::new(false) };
}

struct Listener;

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // The address is another each time.
        if field.name() != "region" {
            write!(self.0, "{}={value:?} ", field.name()).unwrap();
        }
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "spile"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        if IS_ASKED.get() {
            eprintln!("told something within a backing: {event:?}");
            std::process::abort();
        }
        let mut text = Text(format!("{} ", event.metadata().level()));
        event.record(&mut text);
        TOLD.lock().unwrap().push(text.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// What was told since it was asked last.
fn told() -> Vec<String> {
    std::mem::take(&mut *TOLD.lock().unwrap())
}

#[track_caller]
fn is_told(parts: &[&[&str]]) {
    let told = told();
    let is = |(told, parts): (&String, &&[&str])| parts.iter().all(|part| told.contains(part));
    assert!(told.len() == parts.len() && told.iter().zip(parts).all(is), "{told:#?}, and not {parts:#?}");
}

/// One test: who listens does so for the process.
#[test]
fn who_listens_is_told() {
    tracing::subscriber::set_global_default(Listener).unwrap();
    if !is_possible() {
        return;
    }
    let pager = pager(1 << 20).unwrap();
    is_told(&[&["INFO", "pages are put on the faulting thread"]]);

    // A backing that fails, is slow, and uses another region, as it is told to.
    static OTHER: OnceLock<Region<Anonymous<spile_stores::Memory>>> = OnceLock::new();
    OTHER.get_or_init(|| pager.map(Anonymous::on_heap(16).unwrap(), 16 * PAGE).unwrap());
    let (fails, is_slow) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (fail, slow) = (fails.clone(), is_slow.clone());
    let backing = Asking::numbered(64).fills(move |_, _| {
        IS_ASKED.set(true);
        OTHER.get().unwrap().prefetch(0..PAGE).unwrap();
        OTHER.get().unwrap().set_budget(Some(8 * PAGE)).unwrap();
        if slow.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(200));
        }
        IS_ASKED.set(false);
        Ok(())
    });
    let backing = backing.writes(move |_, _| match fail.load(Ordering::SeqCst) {
        true => Err(io::Error::other("no room")),
        false => Ok(()),
    });
    let mut region = pager.region(backing, 64 * PAGE).around(1).map().unwrap();
    is_told(&[&["INFO", "region mapped", "len=65536"], &["INFO", "region mapped", "len=262144", "writable=true"]]);

    // Faults tell nothing, whatever the backing does.
    region.as_mut_slice::<u8>().chunks_mut(PAGE as usize).for_each(|page| page[0] = 1);
    is_told(&[]);
    region.flush().unwrap();
    is_told(&[&["DEBUG", "flushed", "pages=64"]]);

    region.set_budget(Some(16 * PAGE)).unwrap();
    is_told(&[&["INFO", "budget changed", "limit=65536", "left=196608"]]);

    fails.store(true, Ordering::SeqCst);
    region.as_mut_slice::<u8>()[0] = 2;
    region.flush().unwrap_err();
    let failed = told();
    assert!(failed[0].contains("ERROR") && failed[0].contains("no room"), "{failed:?}");
    assert!(failed[1].contains("WARN") && failed[1].contains("the backing failed"), "{failed:?}");
    assert_eq!(failed.len(), 2, "{failed:?}");
    fails.store(false, Ordering::SeqCst);
    region.flush().unwrap();
    is_told(&[&["DEBUG", "flushed"]]);

    is_slow.store(true, Ordering::SeqCst);
    let watchdog = region.watch(Duration::from_millis(20), |_, _| ()).unwrap();
    region.discard(32 * PAGE..33 * PAGE);
    assert_ne!(region.as_slice::<u8>()[32 * PAGE as usize], 0);
    drop(watchdog);
    is_told(&[&["WARN", "to fill page 32", "does not answer"]]);

    is_slow.store(false, Ordering::SeqCst);
    drop(region);
    is_told(&[&["DEBUG", "flushed"], &["INFO", "region ended"]]);
}
