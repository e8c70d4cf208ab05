//! Every reason for which a packet can end: those of programs from skep-abi, and those of the stack and the fabric,
//! which no program returns.
//!
//! The kernel's names are those of `enum skb_drop_reason` (include/net/dropreason-core.h, Linux 6.18).

use skep_abi::DropReason;

/// A reason as `skep explain` shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reason {
    /// The name.
    pub name: &'static str,
    /// Hubble's number, if a program returns it.
    pub number: Option<u8>,
    /// The short text that Hubble prints, if a program returns it.
    pub text: &'static str,
    /// What it means and where to look next.
    pub explanation: &'static str,
}

macro_rules! outer {
    ($($name:ident $explanation:literal)*) => {
        /// The reasons of the stack (SKB_DROP_REASON_*) and of the fabric (FABRIC_*).
        pub const OUTER: &[Reason] = &[$( Reason {
            name: stringify!($name),
            number: None,
            text: "",
            explanation: $explanation,
        }, )*];
    };
}

outer! {
    SKB_DROP_REASON_NOT_SPECIFIED "The stack dropped the packet and gave no reason."
    SKB_DROP_REASON_NO_SOCKET "No socket listens on the destination port. TCP answers with RST, UDP with an ICMP port unreachable: check the server's containerPort."
    SKB_DROP_REASON_PKT_TOO_SMALL "The packet is shorter than its headers say."
    SKB_DROP_REASON_TCP_CSUM "The TCP checksum is wrong: look for a program that changed the packet and did not fix it."
    SKB_DROP_REASON_TCP_FLAGS "The TCP flags make no sense for the socket's state."
    SKB_DROP_REASON_TCP_RESET "A reset came for a socket that has no connection to reset."
    SKB_DROP_REASON_UDP_CSUM "The UDP checksum is wrong: look for a program that changed the packet and did not fix it."
    SKB_DROP_REASON_ICMP_CSUM "The ICMP checksum is wrong: look for a program that changed the packet and did not fix it."
    SKB_DROP_REASON_OTHERHOST "The destination Ethernet address is not the device's own: look at who rewrote the addresses."
    SKB_DROP_REASON_IP_CSUM "The IPv4 header's checksum is wrong: look for a program that changed the header and did not fix it."
    SKB_DROP_REASON_IP_INHDR "The IPv4 header is malformed, or the time to live is used up."
    SKB_DROP_REASON_IP_RPFILTER "The route back to the source leads through another device (rp_filter)."
    SKB_DROP_REASON_IP_NOPROTO "Nobody in this namespace takes packets of this IP protocol."
    SKB_DROP_REASON_IP_INNOROUTES "The node has no route to the destination of a packet that it should forward."
    SKB_DROP_REASON_IP_INADDRERRORS "The destination is neither an address of this namespace nor one that it forwards to."
    SKB_DROP_REASON_IP_OUTNOROUTES "The sender has no route to the destination."
    SKB_DROP_REASON_IP_INVALID_SOURCE "The source address cannot be one of a sender, such as a multicast address."
    SKB_DROP_REASON_IP_LOCAL_SOURCE "The source address is one of the receiver's own."
    SKB_DROP_REASON_IP_LOCALNET "A loopback address is the source or destination of a packet that came from a device."
    SKB_DROP_REASON_IP_INVALID_DEST "The destination address cannot be one of a receiver here."
    SKB_DROP_REASON_UNHANDLED_PROTO "Nobody in this namespace takes frames of this EtherType."
    SKB_DROP_REASON_TC_EGRESS "A program at tc egress dropped the packet and left no reason of its own."
    SKB_DROP_REASON_TC_INGRESS "A program at tc ingress dropped the packet and left no reason of its own."
    SKB_DROP_REASON_NEIGH_FAILED "Nobody answered who has the next hop's address."
    SKB_DROP_REASON_NEIGH_QUEUEFULL "Too many packets wait for the next hop's address."
    SKB_DROP_REASON_PKT_TOO_BIG "The packet is larger than the MTU of the device or route, and may not be fragmented."
    SKB_DROP_REASON_DEV_READY "The device is not up."
    SKB_DROP_REASON_TUNNEL_TXINFO "A packet for the tunnel device has no tunnel metadata: it got there by a route and not by a program."
    SKB_DROP_REASON_VXLAN_INVALID_HDR "The VXLAN header is malformed (RFC 7348, section 5)."
    SKB_DROP_REASON_LOCAL_MAC "The frame in the tunnel bears the tunnel device's own address as its source: it came back."
    SKB_DROP_REASON_DUP_FRAG "A fragment overlaps another one."
    SKB_DROP_REASON_FRAG_REASM_TIMEOUT "The other fragments of the packet never came."
    SKB_DROP_REASON_HDR_TRUNC "The packet ends within a header."
    FABRIC_LOSS "The network between the nodes lost the frame: a `fault` step asked for that."
    FABRIC_PARTITION "The two nodes cannot reach each other: a `fault` step asked for that."
    FABRIC_NO_RECEIVER "No device on the network between the nodes has the frame's destination address."
    FABRIC_LOOP "The frame went around too many times."
}

/// All reasons: the programs' by number, then the others.
pub fn all() -> impl Iterator<Item = Reason> {
    DropReason::ALL
        .iter()
        .map(|r| Reason {
            name: r.name(),
            number: Some(r.number()),
            text: r.text(),
            explanation: r.explanation(),
        })
        .chain(OUTER.iter().copied())
}

/// The reason of a name, or of a number that Hubble or a metric showed.
pub fn find(name_or_number: &str) -> Option<Reason> {
    all().find(|r| {
        r.name.eq_ignore_ascii_case(name_or_number)
            || r.number.is_some_and(|n| n.to_string() == name_or_number)
    })
}

/// `POLICY_DENIED (133)`, as traces print a reason.
pub fn with_number(name: &str) -> String {
    match DropReason::from_name(name) {
        Some(r) => format!("{name} ({})", r.number()),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_found_by_name_or_number() {
        let names: BTreeSet<_> = all().map(|r| r.name).collect();
        assert_eq!(names.len(), all().count());
        assert_eq!(find("policy_denied").map(|r| r.number), Some(Some(133)));
        assert_eq!(find("181").map(|r| r.name), Some("POLICY_DENY"));
        assert_eq!(find("FABRIC_LOSS").map(|r| r.number), Some(None));
        assert_eq!(find("NONE_SUCH"), None);
    }
}
