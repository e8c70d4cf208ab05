//! Ranges of ports as prefixes, which is what a longest-prefix match can hold.

/// The fewest prefixes that cover `first..=last` exactly, in order: the prefix's first port and its bits, 0 to 16.
pub(crate) fn prefixes(first: u16, last: u16) -> Vec<(u16, u8)> {
    let mut out = Vec::new();
    let (mut at, last) = (u32::from(first), u32::from(last));
    while at <= last {
        // The largest block that begins here: aligned, and not beyond the end.
        let mut log = if at == 0 { 16 } else { at.trailing_zeros().min(16) };
        while at + (1 << log) - 1 > last {
            log -= 1;
        }
        out.push((at as u16, 16 - log as u8));
        at += 1 << log;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_becomes_the_prefixes_that_cover_it() {
        assert_eq!(prefixes(80, 80), [(80, 16)]);
        assert_eq!(prefixes(0, 65535), [(0, 0)]);
        assert_eq!(prefixes(1, 65535).len(), 16);
        assert_eq!(prefixes(8080, 8083), [(8080, 14)]);
        assert_eq!(prefixes(8081, 8084), [(8081, 16), (8082, 15), (8084, 16)]);
        for (first, last) in [(1, 1), (5, 1000), (32767, 32769), (65535, 65535), (1024, 65535)] {
            for port in 0..=u16::MAX {
                let n = prefixes(first, last)
                    .iter()
                    .filter(|(p, bits)| u32::from(p ^ port) >> (16 - bits) == 0)
                    .count();
                assert_eq!(n, usize::from((first..=last).contains(&port)), "{port} in {first}-{last}");
            }
        }
    }
}
