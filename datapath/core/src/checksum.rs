//! Arithmetic of the Internet checksum (RFC 1071), updated in place (RFC 1624).
//!
//! Knows sums of 16-bit words. Does not know where in a packet a checksum stands, nor which of its states the kernel
//! keeps. Words are taken as they stand in the packet: the ones' complement sum is the same in either byte order as
//! long as all words are read alike (RFC 1071, section 2).

/// Folds carries into 16 bits.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The checksum after one 16-bit word changed (RFC 1624, equation 3).
#[inline(always)]
pub const fn replace16(check: u16, old: u16, new: u16) -> u16 {
    !fold(!check as u32 + !old as u32 + new as u32)
}

/// The checksum after one 32-bit word, such as an address, changed.
#[inline(always)]
pub const fn replace32(check: u16, old: u32, new: u32) -> u16 {
    let check = replace16(check, old as u16, new as u16);
    replace16(check, (old >> 16) as u16, (new >> 16) as u16)
}

/// An IPv4 header's time to live and checksum one router further on, or `None` if it may not go on (RFC 1812,
/// section 5.3.1: a router must not forward what would arrive with zero).
///
/// `check` is the header checksum as it was loaded from the packet on a little-endian machine; the time to live is
/// the first byte of its word, and so the low one.
#[inline(always)]
pub const fn decrement_ttl(ttl: u8, proto: u8, check: u16) -> Option<(u8, u16)> {
    if ttl <= 1 {
        return None;
    }
    let old = ttl as u16 | (proto as u16) << 8;
    let new = ttl.wrapping_sub(1) as u16 | (proto as u16) << 8;
    Some((ttl.wrapping_sub(1), replace16(check, old, new)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 by its definition, over words as a little-endian machine loads them.
    fn checksum(words: &[u16]) -> u16 {
        let mut sum: u32 = words.iter().map(|w| u32::from(*w)).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn the_example_of_rfc_1624() {
        // Section 4: HC = 0xDD2F, m = 0x5555, m' = 0x3285, and equation 3 gives 0x0000.
        assert_eq!(replace16(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn what_would_arrive_with_zero_does_not_go_on() {
        assert_eq!(decrement_ttl(0, 6, 0x1234), None);
        assert_eq!(decrement_ttl(1, 6, 0x1234), None);
        assert_eq!(decrement_ttl(2, 6, 0x1234).map(|(ttl, _)| ttl), Some(1));
        assert_eq!(decrement_ttl(255, 6, 0x1234).map(|(ttl, _)| ttl), Some(254));
    }

    proptest! {
        #[test]
        fn an_update_is_a_recomputation(mut words in proptest::collection::vec(any::<u16>(), 2..40), new: u16) {
            // The words of a header are never all zero (its version is not), where the two forms of zero differ.
            words[1] |= 1;
            let before = checksum(&words);
            let after = replace16(before, words[0], new);
            words[0] = new;
            prop_assert_eq!(after, checksum(&words));
        }

        #[test]
        fn an_address_is_two_words(mut words in proptest::collection::vec(any::<u16>(), 3..40), new: u32) {
            words[2] |= 1;
            let old = u32::from(words[0]) | u32::from(words[1]) << 16;
            let after = replace32(checksum(&words), old, new);
            words[0] = new as u16;
            words[1] = (new >> 16) as u16;
            prop_assert_eq!(after, checksum(&words));
        }

        #[test]
        fn a_router_keeps_the_header_valid(mut header: [u8; 20], ttl in 2u8..) {
            header[0] = 0x45;
            header[8] = ttl;
            header[10] = 0;
            header[11] = 0;
            let words = |h: &[u8; 20]| -> [u16; 10] {
                core::array::from_fn(|i| u16::from_le_bytes([h[2 * i], h[2 * i + 1]]))
            };
            let check = checksum(&words(&header));
            let (ttl, check) = decrement_ttl(header[8], header[9], check).unwrap();
            header[8] = ttl;
            header[10..12].copy_from_slice(&check.to_le_bytes());
            // RFC 1071: a header with a right checksum sums to all ones.
            prop_assert_eq!(checksum(&words(&header)), 0);
        }

        #[test]
        fn folding_loses_no_carry(sum: u32) {
            let mut want = sum;
            while want > 0xffff { want = (want & 0xffff) + (want >> 16); }
            prop_assert_eq!(u32::from(fold(sum)), want);
        }
    }
}
