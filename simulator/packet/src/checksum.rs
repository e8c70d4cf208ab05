//! The Internet checksum (RFC 1071), in the partial form that `skb->csum` holds.

use std::net::Ipv4Addr;

/// The ones' complement sum of `bytes` added to `sum`, not folded; an odd last byte is padded with zero.
pub fn ones_complement_sum(sum: u32, bytes: &[u8]) -> u32 {
    let mut total = u64::from(sum);
    for pair in bytes.chunks(2) {
        total += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while total > u64::from(u32::MAX) {
        total = (total & 0xffff_ffff) + (total >> 32);
    }
    total as u32
}

/// Folds a sum to 16 bits, without the final complement (`csum_fold` before its `~`).
pub fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

/// The sum of the pseudo header of TCP and UDP over IPv4 (RFC 9293 section 3.1, RFC 768).
pub fn pseudo_header_sum_v4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, length: u16) -> u32 {
    let sum = ones_complement_sum(0, &source.octets());
    let sum = ones_complement_sum(sum, &destination.octets());
    ones_complement_sum(sum, &[0, protocol, (length >> 8) as u8, length as u8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071_sums_to_ddf2() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(ones_complement_sum(0, &bytes)), 0xddf2);
    }

    #[test]
    fn an_odd_byte_is_the_upper_half_of_a_word() {
        assert_eq!(ones_complement_sum(0, &[0x12]), 0x1200);
    }
}
