//! Bloom filters (`kernel/bpf/bloom_filter.c`), with the kernel's hash: with `BPF_F_ZERO_SEED` even the false positives
//! are the kernel's.

/// How many hash functions there are if `map_extra` does not say.
const HASHES: u32 = 5;

pub(super) struct Bloom {
    bits: Vec<u64>,
    mask: u32,
    hashes: u32,
    /// Whether values are hashed as words.
    words: bool,
}

impl Bloom {
    /// `None` for a size that this process should not allocate.
    pub(super) fn create(value_size: u32, max: u32, extra: u64) -> Option<Self> {
        let hashes = if extra == 0 { HASHES } else { extra as u32 };
        let wanted = max.checked_mul(hashes).and_then(|n| (n / 5).checked_mul(7));
        let mask = match wanted {
            Some(bits) if bits <= 64 => 63,
            Some(bits) if bits <= 1 << 31 => bits.next_power_of_two() - 1,
            _ => u32::MAX,
        };
        if mask >= 1 << 30 {
            return None;
        }
        let bits = vec![0; (mask as usize + 1) / 64];
        Some(Self { bits, mask, hashes, words: value_size.is_multiple_of(4) })
    }

    fn bit(&self, value: &[u8], hash: u32) -> u32 {
        let hash = if self.words { jhash2(value, hash) } else { jhash(value, hash) };
        hash & self.mask
    }

    pub(super) fn push(&mut self, value: &[u8]) {
        for hash in 0..self.hashes {
            let bit = self.bit(value, hash);
            self.bits[bit as usize / 64] |= 1 << (bit % 64);
        }
    }

    pub(super) fn peek(&self, value: &[u8]) -> bool {
        (0..self.hashes).all(|hash| {
            let bit = self.bit(value, hash);
            self.bits[bit as usize / 64] >> (bit % 64) & 1 == 1
        })
    }
}

/// `JHASH_INITVAL`
const INITIAL: u32 = 0xdead_beef;

/// Bob Jenkins' lookup3, as `include/linux/jhash.h` has it.
fn mix(a: &mut u32, b: &mut u32, c: &mut u32) {
    for (x, y, z, r) in [(0, 2, 1, 4), (1, 0, 2, 6), (2, 1, 0, 8), (0, 2, 1, 16), (1, 0, 2, 19), (2, 1, 0, 4)]
    {
        let mut v = [*a, *b, *c];
        v[x] = v[x].wrapping_sub(v[y]) ^ v[y].rotate_left(r);
        v[y] = v[y].wrapping_add(v[z]);
        [*a, *b, *c] = v;
    }
}

fn last(mut a: u32, mut b: u32, mut c: u32) -> u32 {
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

fn word(bytes: &[u8]) -> u32 {
    let mut word = [0; 4];
    let len = bytes.len().min(4);
    word[..len].copy_from_slice(&bytes[..len]);
    u32::from_le_bytes(word)
}

/// The last up to 12 bytes, zeros behind them.
fn tail(rest: &[u8], mut a: u32, mut b: u32, mut c: u32) -> u32 {
    if rest.is_empty() {
        return c;
    }
    let part = |n: usize| rest.get(4 * n..).map_or(0, word);
    a = a.wrapping_add(part(0));
    b = b.wrapping_add(part(1));
    c = c.wrapping_add(part(2));
    last(a, b, c)
}

fn rounds(bytes: &[u8], mut a: u32, mut b: u32, mut c: u32) -> u32 {
    let mut rest = bytes;
    while rest.len() > 12 {
        a = a.wrapping_add(word(&rest[..4]));
        b = b.wrapping_add(word(&rest[4..8]));
        c = c.wrapping_add(word(&rest[8..12]));
        mix(&mut a, &mut b, &mut c);
        rest = &rest[12..];
    }
    tail(rest, a, b, c)
}

fn jhash(bytes: &[u8], seed: u32) -> u32 {
    let start = INITIAL.wrapping_add(bytes.len() as u32).wrapping_add(seed);
    rounds(bytes, start, start, start)
}

fn jhash2(bytes: &[u8], seed: u32) -> u32 {
    let start = INITIAL.wrapping_add(bytes.len() as u32 / 4 * 4).wrapping_add(seed);
    rounds(bytes, start, start, start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_pushed_is_found() {
        for size in [3, 4, 12, 16] {
            let mut bloom = Bloom::create(size, 100, 0).unwrap();
            for n in 0..100u8 {
                bloom.push(&vec![n; size as usize]);
            }
            assert!((0..100u8).all(|n| bloom.peek(&vec![n; size as usize])));
            let false_positives = (100..=255u8).filter(|n| bloom.peek(&vec![*n; size as usize])).count();
            assert!(false_positives < 40, "{false_positives}");
        }
    }
}
