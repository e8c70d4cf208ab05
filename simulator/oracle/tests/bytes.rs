//! No bytes make a checker panic.

use proptest::prelude::*;
use skep_oracle::check::{Checksums, frame_with, ipv4, vxlan};
use skep_oracle::stream::Streams;

/// The beginning of a frame that gets past the first checks, and anything behind it.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop::sample::select(vec![[8, 0], [8, 6], [0x86, 0xdd]]);
    let protocol = prop::sample::select(vec![1_u8, 6, 17, 132]);
    let rest = prop::collection::vec(any::<u8>(), 0..120);
    (kind, protocol, 5..16_u8, rest, any::<bool>()).prop_map(|(kind, protocol, ihl, mut rest, whole)| {
        let len = u16::try_from(rest.len()).unwrap_or(0);
        if rest.len() > 20 {
            rest[0] = 0x40 | ihl;
            if whole {
                rest[2..4].copy_from_slice(&len.to_be_bytes());
                rest[6..8].fill(0);
            }
            rest[9] = protocol;
        }
        [&[2; 12][..], &kind, &rest].concat()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn checkers_do_not_panic(bytes in frames()) {
        for checksums in [Checksums::Complete, Checksums::PartialAllowed] {
            let _ = frame_with(&bytes, checksums);
            let _ = vxlan(&bytes, checksums);
            let _ = ipv4(&bytes[14..], checksums);
        }
    }

    #[test]
    fn streams_do_not_panic(packets in prop::collection::vec(frames(), 0..8)) {
        let mut streams = Streams::new();
        for packet in packets {
            streams.see(&packet[14..]);
        }
    }
}
