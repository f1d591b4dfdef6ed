//! Random numbers from a seed.

/// `SplitMix64` (Steele, Lea and Flood 2014).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        let product = u128::from(self.next()) * u128::from(end);
        (product >> 64) as u64
    }

    /// Whether something happens that happens once in `times`.
    pub(super) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// A number from 0 up to 1.
    pub(super) fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// The time until the next of independent events, which are `mean` apart on average.
    pub(super) fn wait(&mut self, mean: f64) -> u64 {
        (-(1.0 - self.share()).ln() * mean) as u64
    }
}

/// Zipf's distribution: the subject with rank r has a share of the requests in proportion to 1 / r to the power of the exponent.
pub(super) struct Zipf {
    /// The share of each subject and of all before it.
    sums: Vec<f64>,
}

impl Zipf {
    pub(super) fn new(subjects: usize, exponent: f64) -> Self {
        let weight = |rank: usize| (rank as f64).powf(-exponent);
        let total: f64 = (1..=subjects).map(weight).sum();
        let mut sum = 0.0;
        let mut add = |rank: usize| {
            sum += weight(rank) / total;
            sum
        };
        Self { sums: (1..=subjects).map(&mut add).collect() }
    }

    pub(super) fn subject(&self, random: &mut Random) -> usize {
        let share = random.share();
        self.sums.partition_point(|sum| *sum <= share).min(self.sums.len() - 1)
    }
}
