//! What proofs on real memory have in common: how long they run, and numbers that follow from a seed.
#![allow(dead_code, reason = "each test takes a part")]

/// What this variable of the environment says, or what is said here.
pub fn size(variable: &str, normal: u64) -> u64 {
    let Ok(said) = std::env::var(variable) else { return normal };
    said.parse().unwrap_or_else(|_| panic!("{variable}={said} is no number"))
}

/// What this variable of the environment has as a seed, or one that differs from run to run.
pub fn seed(variable: &str) -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("it is later than 1970");
    size(variable, mix(now.as_nanos() as u64) >> 32)
}

/// A number that looks like any other, of another number each.
pub fn mix(number: u64) -> u64 {
    let mixed = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// Numbers that follow from a seed.
pub struct Numbers(u64);

impl Numbers {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.any()) * u128::from(end)) >> 64) as u64
    }

    /// True once in so many times.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// A part of `0..end`, of one at least.
    pub fn part(&mut self, end: u64) -> std::ops::Range<u64> {
        let start = self.below(end);
        start..start + 1 + self.below(end - start)
    }
}
