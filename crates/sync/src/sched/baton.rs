//! The baton: who holds it runs, everybody else waits.
//!
//! **Guarantee.** Between [`Baton::start`] and the end of its last thread, exactly one simulated thread has the baton, and
//! only that one touches the run's state. Every simulated thread ends: by returning, by its own panic, or, once the run
//! has failed, by unwinding from its next yield point.
//!
//! **Mechanism.** `holder` names the thread that may run; waiting is spinning for a moment, then parking. The state lies in
//! a mutex that is never contended, for the holder alone locks it. A failure is written into the state; whoever gets the
//! baton afterwards unwinds with a private payload (which bypasses the panic hook), and as it ends passes the baton on.

use super::lines::{CLASSES, Counters};
use super::outcome::{Failure, Outcome};
use super::run::Run;
use super::state::{Place, State};
use super::story::{Op, What};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe, Location, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, OnceLock, PoisonError};
use std::thread::{self, Thread, panicking};

const NOBODY: usize = usize::MAX;

/// How long a waiter looks before it parks, if every simulated thread can have a core.
const LOOKS_BEFORE_PARKING: u32 = 2000;

thread_local! {
    /// Whether this OS thread is simulated: the whole cost of a yield point outside a run.
    static ACTIVE: Cell<bool> = const { Cell::new(false) };
    static CURRENT: RefCell<Option<(Arc<Baton>, usize)>> = const { RefCell::new(None) };
    /// The last panic of this simulated thread.
    static UNWINDS_FROM: RefCell<Option<Origin>> = const { RefCell::new(None) };
}

/// Why a thread unwinds, and from where; nowhere if it was stopped.
struct Origin {
    at: Option<String>,
    why: String,
}

/// Payload of the unwinding that ends a thread of a failed run.
struct Stop;

/// Whether this thread is a simulated one.
#[inline]
pub(super) fn active() -> bool {
    ACTIVE.get()
}

/// The yield point: returns when this thread may do `op` at `address`.
#[inline]
#[track_caller]
pub(super) fn point(op: Op, address: usize) {
    if active() {
        let at = Location::caller();
        with_current(|baton, me| baton.point(me, op, address, at));
    }
}

/// Calls `f` with the current run and the index of this thread in it, if there is one.
pub(super) fn with_current<R>(f: impl FnOnce(&Baton, usize) -> R) -> Option<R> {
    if !active() {
        return None;
    }
    CURRENT.with_borrow(|current| current.as_ref().map(|(baton, me)| f(baton, *me)))
}

/// Makes the first panic of a simulated thread silent, for the outcome tells of it. At a later one both are printed: in a
/// destructor it aborts the process, and no outcome will be seen.
pub(super) fn silence_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if active() {
                let origin = Origin { at: info.location().map(Location::to_string), why: text_of(info.payload()) };
                let Some(earlier) = UNWINDS_FROM.replace(Some(origin)) else {
                    with_current(|baton, me| baton.note_panic(me));
                    return;
                };
                eprintln!("before the next panic, this simulated thread unwound from: {}", earlier.why);
            }
            print(info);
        }));
    });
}

/// What a panic said.
fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a payload that is no text").to_owned()
}

/// One run's baton and state.
pub(super) struct Baton {
    holder: AtomicUsize,
    handles: OnceLock<Vec<Thread>>,
    looks: u32,
    names: Vec<String>,
    cpus: Vec<usize>,
    state: Mutex<State>,
}

impl Baton {
    pub(super) fn new(run: &Run<'_>, names: Vec<String>, cpus: Vec<usize>) -> Self {
        let threads = names.len();
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let looks = if threads <= cores { LOOKS_BEFORE_PARKING } else { 0 };
        Self {
            holder: AtomicUsize::new(NOBODY),
            handles: OnceLock::new(),
            looks,
            state: Mutex::new(State::new(run, threads, run.cpu_count(&cpus))),
            names,
            cpus,
        }
    }

    /// Gives the baton out for the first time.
    pub(super) fn start(&self, handles: Vec<Thread>) {
        if handles.is_empty() {
            return;
        }
        let fresh = self.handles.set(handles).is_ok();
        assert!(fresh, "a run starts once");
        let first = self.state().next(None);
        self.pass(first);
    }

    /// The life of one simulated thread.
    pub(super) fn live(self: Arc<Self>, me: usize, body: Box<dyn FnOnce() + Send + '_>) {
        CURRENT.set(Some((Arc::clone(&self), me)));
        ACTIVE.set(true);
        self.wait(me);
        let ended = panic::catch_unwind(AssertUnwindSafe(|| {
            if self.state().failure.is_none() {
                body();
            }
        }));
        ACTIVE.set(false);
        CURRENT.set(None);
        self.end(me, ended.err());
    }

    pub(super) fn outcome(&self, run: &Run<'_>) -> Outcome {
        let mut state = self.state();
        Outcome {
            seed: run.seed,
            strategy: run.strategy,
            steps: state.steps,
            switches: state.switches,
            failure: state.failure.take(),
            counters: state.lines.of_each_cpu(),
            names: self.names.clone(),
            trace: std::mem::take(&mut state.trace).into(),
        }
    }

    pub(super) fn label(&self, me: usize, text: Box<str>, at: Place) {
        self.state().write(me, What::Label(text), at);
    }

    pub(super) fn counters(&self, me: usize) -> [Counters; CLASSES] {
        self.state().lines.counters(self.cpus[me])
    }

    /// Gives the baton to somebody else until `me` is woken.
    pub(super) fn sleep(&self, me: usize, at: Place) {
        let mut state = self.state();
        if state.failure.is_none() && !panicking() {
            state.standing[me] = Some((Op::Spin, at));
            if state.sleeps(me) {
                let next = state.next(None);
                state = self.yield_to(state, me, next);
            } else {
                state.failure = Some(state.asleep(&self.names));
            }
        }
        self.unwind_if_failed(state);
    }

    pub(super) fn whereabouts(&self, address: usize) -> usize {
        self.state().lines.whereabouts(address)
    }

    pub(super) fn given_back(&self, address: usize, bytes: usize) {
        // Who has the state's lock is this thread, in the middle of its bookkeeping: what it gives back itself was never charged.
        if let Ok(mut state) = self.state.try_lock() {
            state.lines.forget(address, bytes);
        }
    }

    pub(super) fn wake(&self, thread: usize) {
        self.state().wakes(thread);
    }

    pub(super) fn cpu(&self, me: usize) -> usize {
        self.cpus[me]
    }

    fn point(&self, me: usize, op: Op, address: usize, at: Place) {
        match op {
            Op::Spin => self.spin(me, at),
            _ => self.access(me, op, address, at),
        }
    }

    /// Chooses who goes on, and does the bookkeeping of `op` once that is `me`.
    fn access(&self, me: usize, op: Op, address: usize, at: Place) {
        let mut state = self.state();
        if state.failure.is_none() && !panicking() {
            state.standing[me] = Some((op, at));
            let next = state.next(Some(me));
            state = self.yield_to(state, me, next);
        }
        if state.failure.is_none() {
            self.perform(&mut state, me, op, address, at);
        }
        self.unwind_if_failed(state);
    }

    /// Lets somebody else go on, for `me` waits. After a failure a waiting destructor lets the others unwind first.
    fn spin(&self, me: usize, at: Place) {
        let mut state = self.state();
        let next = if state.failure.is_some() {
            if !panicking() {
                return self.unwind_if_failed(state);
            }
            state.count_unwinding_spin();
            state.after(me)
        } else {
            state.standing[me] = Some((Op::Spin, at));
            state.policy.spins(me);
            self.perform(&mut state, me, Op::Spin, 0, at);
            state.next(Some(me))
        };
        let state = self.yield_to(state, me, next);
        self.unwind_if_failed(state);
    }

    /// Does the bookkeeping of `op`, if there are steps left. A thread that unwinds gets to its end without, unless it spins.
    fn perform(&self, state: &mut State, me: usize, op: Op, address: usize, at: Place) {
        let limited = op == Op::Spin || !panicking();
        if limited && state.out_of_steps() {
            state.failure = Some(self.exhausted(me, state));
        } else {
            state.perform(me, self.cpus[me], op, address, at);
        }
    }

    /// Ends this thread if its run has failed; not if it is already unwinding, then its destructors go on.
    fn unwind_if_failed(&self, state: MutexGuard<'_, State>) {
        if let Some(failure) = &state.failure
            && !panicking()
        {
            UNWINDS_FROM.set(Some(Origin { at: None, why: failure.to_string() }));
            drop(state);
            resume_unwind(Box::new(Stop));
        }
    }

    /// Takes `me` out of the run and passes the baton on.
    fn end(&self, me: usize, payload: Option<Box<dyn Any + Send>>) {
        let mut state = self.state();
        state.live.retain(|&thread| thread != me);
        let others = state.sleeps(me);
        if let Some(payload) = payload
            && !payload.is::<Stop>()
            && state.failure.is_none()
        {
            state.failure = Some(self.panicked(me, text_of(payload.as_ref())));
        }
        if state.live.is_empty() {
            return;
        }
        if !others && state.failure.is_none() {
            state.failure = Some(state.asleep(&self.names));
        }
        let next = if state.failure.is_some() { state.after(me) } else { state.next(None) };
        state.switches += 1;
        drop(state);
        self.pass(next);
    }

    /// Puts the panic of `me` into the trace where it happens, before what its destructors do; not if it comes out of the run's own bookkeeping.
    fn note_panic(&self, me: usize) {
        if let Ok(mut state) = self.state.try_lock()
            && state.failure.is_none()
        {
            state.note_panic(me);
        }
    }

    /// The failure of a run in which `me` panicked with this message.
    fn panicked(&self, me: usize, message: String) -> Failure {
        let at = UNWINDS_FROM.with_borrow(|origin| origin.as_ref().and_then(|o| o.at.clone()));
        Failure::Panic { thread: self.names[me].clone(), message, at }
    }

    /// The failure of a run whose steps are used up while `me` goes on; if it unwinds, its panic is the reason.
    fn exhausted(&self, me: usize, state: &State) -> Failure {
        let why = UNWINDS_FROM.with_borrow(|origin| origin.as_ref().map(|o| o.why.clone()));
        match why {
            Some(why) if panicking() => self.panicked(me, why),
            _ => state.stuck(&self.names),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the baton to `next` and waits until it is back, if `next` is not `me`.
    fn yield_to<'a>(&'a self, mut state: MutexGuard<'a, State>, me: usize, next: usize) -> MutexGuard<'a, State> {
        if next == me {
            return state;
        }
        state.switches += 1;
        drop(state);
        self.pass(next);
        self.wait(me);
        self.state()
    }

    fn pass(&self, next: usize) {
        // Release [baton]: pairs with the Acquire in `wait`; the next holder sees what this one did.
        self.holder.store(next, Ordering::Release);
        let handles = self.handles.get().expect("a started run");
        handles[next].unpark();
    }

    fn wait(&self, me: usize) {
        // Acquire [baton]: pairs with the Release in `pass`.
        let mine = || self.holder.load(Ordering::Acquire) == me;
        for _ in 0..self.looks {
            if mine() {
                return;
            }
            core::hint::spin_loop();
        }
        while !mine() {
            thread::park();
        }
    }
}
