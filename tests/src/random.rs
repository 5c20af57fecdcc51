//! Chance by a seed, so that a run that failed can be run again.

/// A generator of numbers (a linear congruence: good enough to choose moments and victims).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Begins at `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// At least 0 and less than 1.
    pub fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f64::from(u32::try_from(self.0 >> 33).unwrap_or(0)) / f64::from(1_u32 << 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "small numbers")]
        #[expect(clippy::cast_sign_loss, reason = "at least 0")]
        let drawn = (self.share() * bound as f64) as usize;
        drawn.min(bound - 1)
    }
}
