//! Who goes next: the one place where chance enters a run.
//!
//! **Guarantee.** A choice depends on the seed, on the step number and on the earlier choices; never on time or addresses.
//! A thread that spins is passed over while others can go on, so loops that call `spin_loop` make progress.
//!
//! **Mechanism.** Two policies. *Random* walks: at each point it stays with a probability that each seed draws anew (long
//! runs and fine-grained ones find different bugs), otherwise takes any ready thread. *PCT*, probabilistic concurrency
//! testing (Burckhardt et al., ASPLOS 2010): each thread has a random priority, the highest ready one runs, and at
//! `depth - 1` random steps the running thread falls below all initial priorities; among n threads and k steps that finds a
//! bug of depth d with probability of at least 1/(n k^(d-1)).

/// How a run chooses the next thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// A random walk. The likelihood of a switch is itself drawn by the seed.
    Random,
    /// A random walk that switches at one point in so many: for long programs whose costs are wanted, not their mistakes.
    Stretches {
        /// How many points, on average, a thread does in a row; not 0.
        mean: u64,
    },
    /// Random priorities with `depth - 1` random changes: finds bugs that need `depth` ordered events.
    Pct {
        /// How many ordering constraints the bug looked for has; 2 or 3 for most.
        depth: usize,
    },
}

/// What the scheduler asks of a strategy. `live` is sorted, not empty, and holds the threads that can go on.
pub(super) trait Policy: Send {
    /// The thread to run next, after `steps` steps; `me` is the current one, none when it ended or none has started.
    fn pick(&mut self, me: Option<usize>, steps: u64, live: &[usize]) -> usize;

    /// `me` waits for another thread.
    fn spins(&mut self, me: usize);

    /// `me` wrote to memory, which is what the others may be waiting for.
    fn wrote(&mut self, me: usize);
}

impl Strategy {
    /// The policy for `threads` threads. Without an `expected` number of steps the seed draws one.
    pub(super) fn policy(self, seed: u64, threads: usize, expected: Option<u64>) -> Box<dyn Policy> {
        let rng = Rng::new(seed);
        match self {
            Self::Random => Box::new(Random::new(rng, threads)),
            Self::Stretches { mean } => Box::new(Random::with_stretch(rng, threads, mean)),
            Self::Pct { depth } => Box::new(Pct::new(rng, threads, depth, expected)),
        }
    }
}

/// SplitMix64: each seed, 0 included, starts a sequence of its own.
struct Rng(u64);

impl Rng {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }
}

struct Random {
    rng: Rng,
    /// Threads that spin, each until another thread writes.
    waiting: Vec<bool>,
    /// One point in this many is a chance to switch.
    stretch: u64,
    ready: Vec<usize>,
}

impl Random {
    const STRETCHES: [u64; 4] = [1, 2, 4, 16];

    /// One choice in this many ignores who waits: a wait may also end by its own patience.
    const FAIR: u64 = 16;

    fn new(mut rng: Rng, threads: usize) -> Self {
        let stretch = Self::STRETCHES[rng.index(Self::STRETCHES.len())];
        Self::with_stretch(rng, threads, stretch)
    }

    fn with_stretch(rng: Rng, threads: usize, stretch: u64) -> Self {
        assert!(stretch > 0, "a thread does at least one step");
        Self { stretch, rng, waiting: vec![false; threads], ready: Vec::with_capacity(threads) }
    }

    fn stays(&mut self, me: usize) -> bool {
        !self.waiting[me] && self.stretch > 1 && self.rng.below(self.stretch) != 0
    }

    fn collect_ready(&mut self, live: &[usize]) {
        self.ready.clear();
        let fair = self.rng.below(Self::FAIR) == 0;
        self.ready.extend(live.iter().filter(|&&t| fair || !self.waiting[t]));
    }

    /// Everybody waits, perhaps for each other's patience to end: all but `me` may look again.
    fn wake_all(&mut self, me: Option<usize>, live: &[usize]) {
        self.waiting.fill(false);
        self.ready.extend(live.iter().filter(|&&t| Some(t) != me || live.len() == 1));
    }
}

impl Policy for Random {
    fn pick(&mut self, me: Option<usize>, _steps: u64, live: &[usize]) -> usize {
        if let Some(me) = me
            && self.stays(me)
        {
            return me;
        }
        self.collect_ready(live);
        if self.ready.is_empty() {
            self.wake_all(me, live);
        }
        self.ready[self.rng.index(self.ready.len())]
    }

    fn spins(&mut self, me: usize) {
        self.waiting[me] = true;
    }

    fn wrote(&mut self, me: usize) {
        let mine = self.waiting[me];
        self.waiting.fill(false);
        self.waiting[me] = mine;
    }
}

struct Pct {
    /// Higher runs first; no two are equal.
    priorities: Vec<i64>,
    /// (step, new priority), the next one last.
    changes: Vec<(u64, i64)>,
    /// The lowest priority given to a spinning thread so far.
    floor: i64,
}

impl Pct {
    fn new(mut rng: Rng, threads: usize, depth: usize, expected: Option<u64>) -> Self {
        let depth = depth.max(1) as i64;
        let expected = expected.unwrap_or_else(|| Self::draw_expected(&mut rng)).max(1);
        let mut priorities: Vec<i64> = (depth..).take(threads).collect();
        for last in (1..threads).rev() {
            priorities.swap(last, rng.index(last + 1));
        }
        let mut changes: Vec<_> = (1..depth).map(|p| (1 + rng.below(expected), p)).collect();
        changes.sort_by(|a, b| b.cmp(a));
        Self { priorities, changes, floor: 0 }
    }

    /// Log-uniform over 8..=8192: a seed stands for its schedule alone, so no earlier run may tell the length of this one.
    fn draw_expected(rng: &mut Rng) -> u64 {
        1 << (3 + rng.below(11))
    }
}

impl Policy for Pct {
    fn pick(&mut self, me: Option<usize>, steps: u64, live: &[usize]) -> usize {
        while let Some((_, priority)) = self.changes.pop_if(|&mut (at, _)| at <= steps) {
            if let Some(me) = me {
                self.priorities[me] = priority;
            }
        }
        let highest = live.iter().max_by_key(|&&t| self.priorities[t]);
        *highest.expect("a live thread")
    }

    fn spins(&mut self, me: usize) {
        self.floor -= 1;
        self.priorities[me] = self.floor;
    }

    fn wrote(&mut self, _me: usize) {}
}
