//! What conntrack calls a connection: Cilium's tuples.
//!
//! Knows addresses, ports and directions as values. Does not know headers.
//!
//! The key of an entry has the addresses reversed and the ports in the order of the packet that made it. A look-up
//! first asks whether the packet answers an entry ([`answering`]), then whether it goes the entry's way
//! ([`making`], one [`reversed`] of the other), because REPLY and RELATED take precedence over ESTABLISHED.

use skep_abi::map::{CtTuple4, tuple_flag};
use skep_abi::{Be16, Be32};

use crate::{Direction, protocol};

/// What a packet says of its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flow {
    /// Source address.
    pub saddr: Be32,
    /// Destination address.
    pub daddr: Be32,
    /// Source port; in ICMP see [`icmp`].
    pub sport: Be16,
    /// Destination port; in ICMP see [`icmp`].
    pub dport: Be16,
    /// The transport protocol.
    pub proto: u8,
    /// The packet is an error message about a connection.
    pub related: bool,
    /// The TCP flags, 0 for all else.
    pub tcp_flags: u8,
}

impl Flow {
    /// The port that a policy is asked for: the destination's, and in ICMP none.
    #[inline(always)]
    pub const fn policy_port(&self) -> Be16 {
        if self.proto == protocol::ICMP { Be16::from_bits(0) } else { self.dport }
    }
}

/// Bits of a TCP header's flags (RFC 9293, section 3.1).
pub mod tcp {
    /// The sender has finished.
    pub const FIN: u8 = 1 << 0;
    /// The connection begins.
    pub const SYN: u8 = 1 << 1;
    /// The connection is reset.
    pub const RST: u8 = 1 << 2;
    /// The data shall be pushed.
    pub const PSH: u8 = 1 << 3;
    /// The acknowledgement counts.
    pub const ACK: u8 = 1 << 4;
}

/// Types of ICMP messages (RFC 792).
pub mod icmp_type {
    /// Answer to an echo request.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable, fragmentation needed among it.
    pub const DEST_UNREACHABLE: u8 = 3;
    /// Echo request.
    pub const ECHO: u8 = 8;
    /// Time to live exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;
}

/// What stands for ports in ICMP: source, destination, and whether the message is an error.
///
/// An echo's identifier is the port of the end that asks, so that it is the source in the request and the
/// destination in the answer.
#[inline(always)]
pub const fn icmp(kind: u8, identifier: Be16) -> (Be16, Be16, bool) {
    const NONE: Be16 = Be16::from_bits(0);
    match kind {
        icmp_type::ECHO => (identifier, NONE, false),
        icmp_type::ECHO_REPLY => (NONE, identifier, false),
        icmp_type::DEST_UNREACHABLE | icmp_type::TIME_EXCEEDED | icmp_type::PARAMETER_PROBLEM => {
            (NONE, NONE, true)
        }
        _ => (NONE, NONE, false),
    }
}

/// The key of an entry that the packet would answer.
#[inline(always)]
pub const fn answering(flow: &Flow, dir: Direction) -> CtTuple4 {
    let flag = match dir {
        Direction::Ingress => tuple_flag::OUT,
        Direction::Egress => tuple_flag::IN,
    };
    CtTuple4 {
        daddr: flow.daddr,
        saddr: flow.saddr,
        dport: flow.sport,
        sport: flow.dport,
        nexthdr: flow.proto,
        flags: if flow.related { flag | tuple_flag::RELATED } else { flag },
    }
}

/// The key of the entry that the packet makes, or goes the way of.
#[inline(always)]
pub const fn making(flow: &Flow, dir: Direction) -> CtTuple4 {
    reversed(answering(flow, dir))
}

/// The same connection from its other end.
#[inline(always)]
pub const fn reversed(t: CtTuple4) -> CtTuple4 {
    CtTuple4 {
        daddr: t.saddr,
        saddr: t.daddr,
        dport: t.sport,
        sport: t.dport,
        nexthdr: t.nexthdr,
        flags: t.flags ^ tuple_flag::IN,
    }
}

/// The key under which error messages about the connection of `t` are expected: the same pair of addresses, ICMP,
/// no ports.
#[inline(always)]
pub const fn errors_about(t: CtTuple4) -> CtTuple4 {
    CtTuple4 {
        daddr: t.daddr,
        saddr: t.saddr,
        dport: Be16::from_bits(0),
        sport: Be16::from_bits(0),
        nexthdr: protocol::ICMP,
        flags: t.flags | tuple_flag::RELATED,
    }
}

/// Whether a protocol has connections that are tracked, and is not refused with CT_UNKNOWN_L4_PROTOCOL.
#[inline(always)]
pub const fn is_tracked(proto: u8) -> bool {
    matches!(proto, protocol::TCP | protocol::UDP | protocol::ICMP)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: Be32 = Be32::from_octets([10, 42, 1, 80]);
    const B: Be32 = Be32::from_octets([10, 42, 0, 51]);

    fn flow(saddr: Be32, sport: u16, daddr: Be32, dport: u16, proto: u8) -> Flow {
        Flow {
            saddr,
            daddr,
            sport: Be16::from_host(sport),
            dport: Be16::from_host(dport),
            proto,
            related: false,
            tcp_flags: 0,
        }
    }

    fn error(saddr: Be32, daddr: Be32) -> Flow {
        Flow { related: true, ..flow(saddr, 0, daddr, 0, protocol::ICMP) }
    }

    #[test]
    fn a_key_is_as_cilium_dumps_it() {
        // `cilium-dbg bpf ct list` shows TCP OUT 10.42.1.80:49152 -> 10.42.0.51:80 for this key.
        let t = making(&flow(A, 49152, B, 80, protocol::TCP), Direction::Egress);
        assert_eq!(t.to_bytes(), [10, 42, 1, 80, 10, 42, 0, 51, 0, 80, 0xc0, 0, 6, tuple_flag::OUT]);
    }

    #[test]
    fn an_answer_finds_the_entry_at_either_end() {
        let there = flow(A, 49152, B, 80, protocol::TCP);
        let back = flow(B, 80, A, 49152, protocol::TCP);
        // At A the request left and the answer comes; at B the other way around.
        assert_eq!(answering(&back, Direction::Ingress), making(&there, Direction::Egress));
        assert_eq!(answering(&back, Direction::Egress), making(&there, Direction::Ingress));
        // One node's map holds both ends' entries apart.
        assert_ne!(making(&there, Direction::Egress), making(&there, Direction::Ingress));
    }

    #[test]
    fn a_packet_of_the_same_direction_is_no_answer() {
        let there = flow(A, 49152, B, 80, protocol::TCP);
        for dir in [Direction::Egress, Direction::Ingress] {
            assert_ne!(answering(&there, dir), making(&there, dir));
            // Equal ports must not make it one either.
            let same = flow(A, 80, B, 80, protocol::TCP);
            assert_ne!(answering(&same, dir), making(&same, dir));
        }
    }

    #[test]
    fn an_echo_and_its_answer_meet_by_identifier() {
        let id = Be16::from_host(77);
        let (sport, dport, related) = icmp(icmp_type::ECHO, id);
        assert!(!related);
        let ask = Flow { sport, dport, ..flow(A, 0, B, 0, protocol::ICMP) };
        let (sport, dport, _) = icmp(icmp_type::ECHO_REPLY, id);
        let answer = Flow { sport, dport, ..flow(B, 0, A, 0, protocol::ICMP) };
        assert_eq!(answering(&answer, Direction::Ingress), making(&ask, Direction::Egress));
        assert_eq!(ask.policy_port(), answer.policy_port(), "a policy knows no identifiers");
        let (sport, dport, _) = icmp(icmp_type::ECHO_REPLY, Be16::from_host(78));
        let other = Flow { sport, dport, ..answer };
        assert_ne!(answering(&other, Direction::Ingress), making(&ask, Direction::Egress));
    }

    #[test]
    fn an_error_is_about_a_pair_of_addresses() {
        for kind in [3, 11, 12] {
            assert_eq!(icmp(kind, Be16::from_host(9)), (Be16::default(), Be16::default(), true));
        }
        for kind in [0, 4, 5, 8, 9, 10, 13, 14, 40] {
            assert!(!icmp(kind, Be16::from_host(9)).2, "{kind}");
        }
        let there = making(&flow(A, 49152, B, 80, protocol::UDP), Direction::Egress);
        // From the peer it is known; from a router on the way it is not.
        assert_eq!(answering(&error(B, A), Direction::Ingress), errors_about(there));
        let router = Be32::from_octets([192, 168, 1, 1]);
        assert_ne!(answering(&error(router, A), Direction::Ingress), errors_about(there));
        // The end that made the connection reports an error about an answer: it goes the entry's way.
        assert_eq!(making(&error(A, B), Direction::Egress), errors_about(there));
    }

    #[test]
    fn only_three_protocols_are_tracked() {
        let tracked: [bool; 256] = core::array::from_fn(|p| is_tracked(p as u8));
        assert!(tracked[1] && tracked[6] && tracked[17]);
        assert_eq!(tracked.iter().filter(|t| **t).count(), 3);
    }

    proptest! {
        #[test]
        fn reversing_twice_changes_nothing(a: u32, b: u32, sport: u16, dport: u16, proto: u8, related: bool, ingress: bool) {
            let f = Flow { related, ..flow(Be32::from_bits(a), sport, Be32::from_bits(b), dport, proto) };
            let dir = if ingress { Direction::Ingress } else { Direction::Egress };
            let t = answering(&f, dir);
            prop_assert_eq!(reversed(reversed(t)), t);
            prop_assert_eq!(making(&f, dir), reversed(t));
        }

        #[test]
        fn the_answer_meets_the_question(a: u32, b: u32, sport: u16, dport: u16, proto: u8) {
            let ask = flow(Be32::from_bits(a), sport, Be32::from_bits(b), dport, proto);
            let answer = flow(Be32::from_bits(b), dport, Be32::from_bits(a), sport, proto);
            prop_assert_eq!(answering(&answer, Direction::Ingress), making(&ask, Direction::Egress));
            prop_assert_eq!(answering(&answer, Direction::Egress), making(&ask, Direction::Ingress));
        }
    }
}
