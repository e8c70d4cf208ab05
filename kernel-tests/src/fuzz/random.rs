//! The fuzzer's one source of choice: the same seed, the same case.
//!
//! Knows numbers. Does not know what is chosen.

/// A generator of 64-bit numbers (splitmix64, Steele, Lea and Flood 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The generator of case `index` of a seed.
    pub fn of_case(seed: u64, index: u64) -> Self {
        let mut first = Self(seed ^ 0x6a09_e667_f3bc_c909);
        let start = first.next_u64();
        let mut of_case = Self(start ^ index.wrapping_mul(0xd129_0d3b_3f6c_a5a1));
        of_case.next_u64();
        of_case
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A 32-bit number.
    pub fn u32(&mut self) -> u32 {
        (self.next_u64() >> 32) as u32
    }

    /// A byte.
    pub fn u8(&mut self) -> u8 {
        (self.next_u64() >> 56) as u8
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        ((u64::from(self.u32()) * end as u64) >> 32) as usize
    }

    /// Whether something that happens in `percent` of all cases happens.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of these; there is at least one.
    pub fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// So many bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.u8())
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn a_case_is_its_seed_and_index() {
        let first = |seed, index| Random::of_case(seed, index).next_u64();
        assert_eq!(first(1, 2), first(1, 2));
        assert_ne!(first(1, 2), first(1, 3));
        assert_ne!(first(1, 2), first(2, 2));
    }

    #[test]
    fn numbers_stay_below_their_end() {
        let mut random = Random::of_case(0, 0);
        let seen: std::collections::BTreeSet<usize> = (0..200).map(|_| random.below(7)).collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), (0..7).collect::<Vec<_>>());
    }
}
