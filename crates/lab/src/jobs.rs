//! Work for the host's processors: several jobs beside each other, each on one processor.
//!
//! **Guarantee.** Results come in the order of the jobs, whoever was first. With nobody wanting the rest, what is done is kept.
//!
//! **Mechanism.** A worker per processor takes the next job. A worker's threads inherit its processor: simulated CPUs, of which one runs at a time, hand
//! over on one processor in a third of the time that it takes across two.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The processors that this thread may run on; a nameless one if nobody says.
pub fn processors() -> Vec<Option<usize>> {
    let allowed = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
    let known: Vec<_> = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).map(Some).collect();
    if known.is_empty() { vec![None] } else { known }
}

/// Keeps this thread, and those that it starts, on one processor. Where that is denied everything takes longer, and is the same.
pub fn stay_on(processor: usize) {
    let mut only = CpuSet::new();
    only.set(processor);
    _ = sched_setaffinity(None, &only);
}

/// Does `work` with each of `jobs`, unless `stop` says that nobody wants it any more; none for those that were not done.
pub fn each<J: Sync, R: Send>(jobs: &[J], stop: &(dyn Fn() -> bool + Sync), work: impl Fn(&J) -> R + Sync) -> Vec<Option<R>> {
    let results: Vec<_> = jobs.iter().map(|_| Mutex::new(None)).collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for processor in processors().into_iter().take(jobs.len()) {
            let (results, next, work) = (&results, &next, &work);
            scope.spawn(move || {
                if let Some(processor) = processor {
                    stay_on(processor);
                }
                while !stop()
                    && let n = next.fetch_add(1, Ordering::Relaxed)
                    && let Some(job) = jobs.get(n)
                {
                    let result = work(job);
                    *results[n].lock().expect("one worker has a job") = Some(result);
                }
            });
        }
    });
    results.into_iter().map(|result| result.into_inner().expect("the workers have ended")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order() {
        let jobs: Vec<u32> = (0..50).collect();
        let squares = each(&jobs, &|| false, |job| job * job);
        assert!(squares.into_iter().zip(&jobs).all(|(square, job)| square == Some(job * job)));
    }

    #[test]
    fn what_was_done_is_kept() {
        let done = AtomicUsize::new(0);
        let stop = || done.load(Ordering::SeqCst) >= 5;
        let results = each(&[(); 100], &stop, |()| done.fetch_add(1, Ordering::SeqCst));
        let kept = results.iter().flatten().count();
        assert!((5..100).contains(&kept), "{kept} of 100 were done");
    }
}
