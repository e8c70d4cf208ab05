//! Connections as a list of packets, and the entry after each.

use proptest::prelude::*;

use super::*;
use Direction::{Egress, Ingress};
use tcp::{ACK, FIN, PSH, RST, SYN};

const NOW: u32 = 1000;

fn seen(dir: Direction, tcp_flags: u8, now: u32) -> Seen {
    Seen { proto: protocol::TCP, tcp_flags, dir, now }
}

/// The entry after a connection's packets, as the end that opened it holds it; one packet a second from [`NOW`] on.
fn after(packets: &[(Direction, u8)]) -> CtEntry {
    let mut entry: Option<CtEntry> = None;
    for (now, (dir, flags)) in (NOW..).zip(packets) {
        entry = Some(match entry {
            None => created(&seen(*dir, *flags, now), 300, 60),
            Some(e) => updated(e, &seen(*dir, *flags, now)),
        });
    }
    entry.expect("a connection has packets")
}

#[test]
fn a_look_up_answers_in_the_order_of_precedence() {
    for (answered, followed, related, want) in [
        (false, false, false, CtStatus::New),
        (false, false, true, CtStatus::New),
        (false, true, false, CtStatus::Established),
        (true, false, false, CtStatus::Reply),
        (true, true, false, CtStatus::Reply),
        (true, false, true, CtStatus::Related),
        (false, true, true, CtStatus::Related),
    ] {
        assert_eq!(status(answered, followed, related), want, "{answered} {followed} {related}");
    }
}

#[test]
fn established_is_no_bypass() {
    assert!(asks_policy(CtStatus::New) && asks_policy(CtStatus::Established));
    assert!(!asks_policy(CtStatus::Reply) && !asks_policy(CtStatus::Related));
}

#[test]
fn lifetimes_follow_the_handshake() {
    for (packets, lifetime) in [
        (&[(Egress, SYN)][..], 60),
        (&[(Egress, SYN), (Ingress, SYN | ACK)], 60),
        (&[(Egress, SYN), (Egress, SYN), (Egress, SYN)], 60),
        (&[(Egress, SYN), (Ingress, SYN | ACK), (Egress, ACK)], 21600),
        (&[(Egress, SYN), (Ingress, SYN | ACK), (Egress, ACK), (Egress, ACK | PSH)], 21600),
        // One end closed: the other may go on for as long as it likes.
        (&[(Egress, SYN), (Ingress, SYN | ACK), (Egress, ACK), (Egress, FIN | ACK)], 21600),
        (
            &[(Egress, SYN), (Ingress, SYN | ACK), (Egress, ACK), (Egress, FIN | ACK), (Ingress, FIN | ACK)],
            10,
        ),
        // The connection was refused.
        (&[(Egress, SYN), (Ingress, RST | ACK)], 10),
        // In the middle of a stream.
        (&[(Egress, ACK)], 60),
        (&[(Egress, ACK), (Ingress, ACK)], 21600),
    ] {
        let last = NOW + packets.len() as u32 - 1;
        assert_eq!(after(packets).lifetime, last + lifetime, "{packets:?}");
    }
}

#[test]
fn a_last_acknowledgement_does_not_revive_a_closed_connection() {
    let closed = [
        (Egress, SYN),
        (Ingress, SYN | ACK),
        (Egress, ACK),
        (Egress, FIN | ACK),
        (Ingress, FIN | ACK),
        (Egress, ACK),
    ];
    let e = after(&closed);
    assert_eq!(e.lifetime, NOW + 4 + 10);
    assert!(!is_alive(&e));
}

#[test]
fn ports_used_anew_begin_anew() {
    let mut packets = std::vec![
        (Egress, SYN),
        (Ingress, SYN | ACK),
        (Egress, ACK),
        (Egress, FIN | ACK),
        (Ingress, FIN | ACK),
        (Egress, SYN),
    ];
    let e = after(&packets);
    assert_eq!((e.flags, e.tx_flags_seen, e.rx_flags_seen), (0, SYN, 0));
    assert_eq!(e.lifetime, NOW + 5 + 60);
    packets.extend([(Ingress, SYN | ACK), (Egress, ACK)]);
    assert_eq!(after(&packets).lifetime, NOW + 7 + 21600);
}

#[test]
fn a_reset_of_a_known_connection_closes_its_half() {
    let e = after(&[(Egress, SYN), (Ingress, SYN | ACK), (Egress, ACK), (Ingress, RST)]);
    assert_eq!(e.flags, ct_flag::SEEN_NON_SYN | ct_flag::RX_CLOSING);
    let e = after(&[(Egress, SYN), (Ingress, RST | ACK)]);
    assert!(!is_alive(&e));
}

#[test]
fn flags_are_kept_a_direction() {
    let e = after(&[(Egress, SYN), (Ingress, SYN | ACK), (Egress, ACK), (Egress, PSH | ACK)]);
    assert_eq!((e.tx_flags_seen, e.rx_flags_seen), (SYN | ACK | PSH, SYN | ACK));
    // A direction without news is reported again only after the interval.
    assert_eq!((e.last_tx_report, e.last_rx_report), (NOW + 3, NOW + 1));
    let quiet = updated(e, &seen(Egress, ACK, NOW + 3 + CT_REPORT_INTERVAL));
    assert_eq!(quiet.last_tx_report, NOW + 3);
    let due = updated(e, &seen(Egress, ACK, NOW + 4 + CT_REPORT_INTERVAL));
    assert_eq!(due.last_tx_report, NOW + 4 + CT_REPORT_INTERVAL);
}

#[test]
fn a_new_entry_knows_its_source() {
    let e = created(&seen(Ingress, SYN, NOW), 4711, 74);
    assert_eq!((e.src_sec_id, e.packets, e.bytes, e.rx_flags_seen, e.tx_flags_seen), (4711, 1, 74, SYN, 0));
    let related = created_for_errors(e);
    assert_eq!(related.flags, ct_flag::SEEN_NON_SYN);
    assert_eq!(related.lifetime, e.lifetime);
}

#[test]
fn all_but_tcp_lives_a_minute() {
    for proto in [protocol::UDP, protocol::ICMP] {
        let packet = |now| Seen { proto, tcp_flags: 0, dir: Egress, now };
        let e = created(&packet(NOW), 300, 60);
        assert_eq!((e.lifetime, e.flags), (NOW + 60, 0));
        assert_eq!(updated(e, &packet(NOW + 500)).lifetime, NOW + 560, "an expired entry is revived");
    }
}

proptest! {
    #[test]
    fn no_packet_makes_an_entry_impossible(packets in proptest::collection::vec((any::<bool>(), any::<u8>()), 1..30)) {
        let packets: std::vec::Vec<_> =
            packets.into_iter().map(|(i, f)| (if i { Ingress } else { Egress }, f)).collect();
        let e = after(&packets);
        let last = NOW + packets.len() as u32 - 1;
        prop_assert!(e.lifetime > NOW && e.lifetime <= last + ct_lifetime::TCP);
        prop_assert_eq!((e.packets, e.bytes, e.src_sec_id), (1, 60, 300));
        // A closed connection never lives longer than one that has just closed.
        if !is_alive(&e) {
            prop_assert!(e.lifetime <= last + ct_lifetime::CLOSE);
        }
        const KNOWN: u16 = ct_flag::RX_CLOSING | ct_flag::TX_CLOSING | ct_flag::SEEN_NON_SYN;
        prop_assert_eq!(e.flags & !KNOWN, 0);
    }

    #[test]
    fn the_clock_may_wrap(now: u32, flags: u8) {
        let e = created(&seen(Egress, flags, now), 1, 1);
        let e = updated(e, &seen(Ingress, flags, now.wrapping_add(1)));
        prop_assert!([10, 60, 21600].contains(&e.lifetime.wrapping_sub(now.wrapping_add(1))));
    }
}
