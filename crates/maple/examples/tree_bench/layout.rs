//! The ranges that are measured, and the keys that are asked for.
//!
//! Ranges of 3 to 16 pages, half of them after a gap of 1 to 16 pages: what the address spaces of processes look like, and a
//! middle page to change in each. Values are distinct and even, so that no map may merge two neighbours; the page that a split
//! changes gets its range's value plus one.

pub const PAGE: u64 = 4096;
const BASE: u64 = 0x5555_0000_0000;
/// Keys that are asked for, over and over: too many for a branch predictor to learn.
pub const KEYS: usize = 1 << 16;
/// The ranges that a writer beside readers splits and merges, and every reader looks at half of the time.
pub const VICTIMS: usize = 64;

/// A xorshift generator: the same figures in every run.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((u128::from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)) * bound as u128) >> 64) as usize
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

/// `start..end`, whole pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub start: u64,
    pub end: u64,
    pub value: u64,
}

impl Range {
    /// What is left after the protection of a middle page changed.
    pub fn pieces(self) -> [Self; 3] {
        let middle = self.start + (self.end - self.start) / PAGE / 2 * PAGE;
        [
            Self { end: middle, ..self },
            Self { start: middle, end: middle + PAGE, value: self.value + 1 },
            Self { start: middle + PAGE, ..self },
        ]
    }

    /// Another range in the same hole.
    pub fn shifted(self) -> Self {
        Self { start: self.start + PAGE, end: self.end - PAGE, value: self.value }
    }

    fn random_key(self, random: &mut Random) -> u64 {
        self.start + random.below((self.end - self.start) as usize) as u64
    }
}

/// A key that is always mapped, and what lies there (plus one while the middle is changed).
pub type Asked = (u64, u64);

/// Everything a measurement of `n` ranges needs, made once.
pub struct World {
    pub ranges: Vec<Range>,
    /// The ranges in the order in which they are inserted.
    pub shuffled: Vec<Range>,
    /// The first page of each gap, in random order, as the range that is put there.
    pub gaps: Vec<Range>,
    pub victims: Vec<Range>,
    /// Keys that hit, over all ranges.
    pub uniform: Vec<u64>,
    /// Keys that hit one of 16 ranges.
    pub hot: Vec<u64>,
    /// Keys that hit a range or a gap.
    pub anywhere: Vec<u64>,
    /// For readers beside others.
    pub asked: Vec<Asked>,
    /// The same, half of them in the victims.
    pub asked_of_victims: Vec<Asked>,
}

impl World {
    pub fn new(n: usize) -> Self {
        let (ranges, mut gaps) = ranges_and_gaps(n);
        let random = &mut Random::new(7);
        let mut shuffled = ranges.clone();
        random.shuffle(&mut shuffled);
        random.shuffle(&mut gaps);
        let victims: Vec<Range> = shuffled.iter().rev().take(VICTIMS.min(n / 4)).copied().collect();
        let hit = |among: &[Range], random: &mut Random| among[random.below(among.len())].random_key(random);
        let ask = |among: &[Range], random: &mut Random| {
            let range = among[random.below(among.len())];
            (range.random_key(random), range.value)
        };
        let all = Range { start: BASE, end: ranges[n - 1].end, value: 0 };
        let mut asked_of_victims: Vec<Asked> = (0..KEYS).map(|_| ask(&ranges, random)).collect();
        asked_of_victims.iter_mut().step_by(2).for_each(|asked| *asked = ask(&victims, random));
        Self {
            uniform: (0..KEYS).map(|_| hit(&ranges, random)).collect(),
            hot: (0..KEYS).map(|_| hit(&shuffled[..16], random)).collect(),
            anywhere: (0..KEYS).map(|_| all.random_key(random)).collect(),
            asked: (0..KEYS).map(|_| ask(&ranges, random)).collect(),
            asked_of_victims,
            ranges,
            shuffled,
            gaps,
            victims,
        }
    }

    pub fn n(&self) -> usize {
        self.ranges.len()
    }
}

fn ranges_and_gaps(n: usize) -> (Vec<Range>, Vec<Range>) {
    let mut random = Random::new(1);
    let (mut ranges, mut gaps) = (Vec::with_capacity(n), Vec::new());
    let mut at = BASE;
    for i in 0..n as u64 {
        if random.below(2) == 0 {
            gaps.push(Range { start: at, end: at + PAGE, value: (n as u64 + i + 1) << 1 });
            at += (1 + random.below(16)) as u64 * PAGE;
        }
        let end = at + (3 + random.below(14)) as u64 * PAGE;
        ranges.push(Range { start: at, end, value: (i + 1) << 1 });
        at = end;
    }
    (ranges, gaps)
}
