//! A model of time on CPUs that are not there.
//!
//! **Guarantee.** What it says is a band, and how far it is off is told where others have measured: [`Fit`] takes its one parameter from some published
//! rows, and is judged by the others.
//!
//! **Mechanism.** CPUs that do the same operation again and again: each spends its local time, and stands in line for cache lines that others want, too. A
//! read-modify-write of a line that another CPU had last, which of `n` alike is so `(n - 1) / n` of the time, keeps the line busy for `c`. That is a
//! closed network of queues, whose throughput mean value analysis gives exactly (for service times of exponential distribution). What waits for the
//! holder of a lock, and not for a line, is not in it.

/// What keeps a contended line busy, from and to, in nanoseconds.
pub const BAND: (f64, f64) = (60.0, 200.0);

/// Operations per second of `cpus` CPUs together. `local` is the time of an operation alone in nanoseconds, `writes` how often it writes each contended line, and
/// `c` what that takes.
pub fn throughput(cpus: usize, local: f64, writes: &[f64], c: f64) -> f64 {
    let others = (cpus - 1) as f64 / cpus as f64;
    let service: Vec<_> = writes.iter().map(|writes| writes * c * others).collect();
    let mut queues = vec![0.0; service.len()];
    let mut per_ns = 0.0;
    for n in 1..=cpus {
        let times: Vec<_> = service.iter().zip(&queues).map(|(service, queue)| service * (1.0 + queue)).collect();
        per_ns = n as f64 / (local + times.iter().sum::<f64>());
        queues.iter_mut().zip(&times).for_each(|(queue, time)| *queue = per_ns * time);
    }
    per_ns * 1e9
}

/// Faults per CPU-second that somebody has measured with pft.
#[derive(Debug)]
pub struct Series {
    /// Of what.
    pub name: &'static str,
    /// Where it stands.
    pub source: &'static str,
    /// Threads, and thousands of faults per CPU-second.
    pub rows: [(usize, f64); 8],
}

const POSTING: &str = "\"reimplement per-vma lock as a refcount\" v9, 10 Jan 2025, mmtests pft";

/// Both series of that posting.
pub const PUBLISHED: [Series; 2] = [
    Series {
        name: "rwsem in the mapping",
        source: POSTING,
        rows: [(1, 507.9), (4, 479.0), (7, 453.0), (12, 348.0), (21, 200.0), (30, 145.0), (48, 107.0), (56, 92.0)],
    },
    Series {
        name: "count in the mapping",
        source: POSTING,
        rows: [(1, 506.5), (4, 481.0), (7, 456.0), (12, 352.0), (21, 230.0), (30, 164.0), (48, 121.0), (56, 103.0)],
    },
];

/// A fault takes the mapping and lets it go: two writes of one line.
const WRITES: [f64; 1] = [2.0];
/// The parameter is taken from rows with so many threads at most.
pub const FITTED_TO: usize = 12;

/// The model beside a series.
#[derive(Clone, Debug)]
pub struct Fit {
    /// The parameter, in nanoseconds.
    pub c: f64,
    /// Threads, what was measured and what the model says, in thousands of faults per CPU-second.
    pub rows: Vec<(usize, f64, f64)>,
}

impl Fit {
    /// To the rows with few threads, so that the largest error there is least.
    pub fn of(series: &Series) -> Self {
        let off = |c: &f64| Self::with(series, *c).error(|threads| threads <= FITTED_TO);
        let parameters = (20..=400).map(f64::from);
        let c = parameters.min_by(|a, b| off(a).total_cmp(&off(b))).expect("there are parameters");
        Self::with(series, c)
    }

    fn with(series: &Series, c: f64) -> Self {
        let local = 1e6 / series.rows[0].1;
        let says = |threads: usize| throughput(threads, local, &WRITES, c) / threads as f64 / 1e3;
        Self { c, rows: series.rows.iter().map(|(threads, measured)| (*threads, *measured, says(*threads))).collect() }
    }

    /// The largest error in rows of so many threads, as a part of what was measured.
    pub fn error(&self, of: impl Fn(usize) -> bool) -> f64 {
        let rows = self.rows.iter().filter(|(threads, ..)| of(*threads));
        rows.map(|(_, measured, says)| (says / measured - 1.0).abs()).fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) -> bool {
        (a / b - 1.0).abs() < 1e-9
    }

    #[test]
    fn without_lines_it_is_linear() {
        assert!(near(throughput(64, 100.0, &[], 200.0), 64.0 * 1e7));
        assert!(near(throughput(1, 100.0, &[2.0], 200.0), 1e7), "nobody contends with himself");
    }

    #[test]
    fn a_line_is_a_ceiling() {
        let ceiling = 1e9 / (2.0 * 100.0);
        let many = throughput(1000, 500.0, &[2.0], 100.0);
        assert!(many < ceiling * 1.01 && many > ceiling * 0.99, "{many}");
        assert!(throughput(1000, 500.0, &[1.0, 1.0], 100.0) > many, "two lines carry more than one");
    }

    #[test]
    fn rows_that_it_has_not_seen_are_not_far_off() {
        for series in &PUBLISHED {
            let fit = Fit::of(series);
            let (seen, unseen) = (fit.error(|threads| threads <= FITTED_TO), fit.error(|threads| threads > FITTED_TO));
            assert!(seen < 0.06 && unseen < 0.25, "{}: c = {}, {seen} and {unseen}", series.name, fit.c);
            assert!(BAND.0 < fit.c && fit.c < BAND.1, "the band has it");
        }
    }
}
