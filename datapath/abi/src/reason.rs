//! Why a packet was dropped: the one list.
//!
//! Names and numbers are those of Hubble's `flow.proto` (`DropReason`); a program returns the number negated, as
//! Cilium's do. Reasons of the network stack and of the simulated fabric are not here: no program returns them.

macro_rules! reasons {
    ($( $(#[doc = $doc:literal])+ $name:ident = $number:literal $text:literal, )*) => {
        /// A reason for which a program drops a packet.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        #[expect(non_camel_case_types, reason = "the names are those of Hubble's flow.proto")]
        pub enum DropReason {
            $( $(#[doc = $doc])+ $name = $number, )*
        }

        impl DropReason {
            /// All reasons, by number.
            pub const ALL: &'static [DropReason] = &[$( DropReason::$name, )*];

            /// The name as Hubble's JSON has it, such as `POLICY_DENIED`.
            pub const fn name(self) -> &'static str {
                match self { $( DropReason::$name => stringify!($name), )* }
            }

            /// The text as `hubble observe` and `cilium-dbg monitor` print it, such as `Policy denied`.
            pub const fn text(self) -> &'static str {
                match self { $( DropReason::$name => $text, )* }
            }

            /// What it means and where to look next.
            pub const fn explanation(self) -> &'static str {
                match self { $( DropReason::$name => concat!($($doc),+), )* }
            }
        }
    };
}

reasons! {
    /// The source address of a packet that left a pod is not the address of that pod's endpoint.
    /// The pod forges addresses, or its address changed and the endpoint did not.
    INVALID_SOURCE_IP = 132 "Invalid source ip",
    /// No rule of the policies that select the pod allows the packet.
    /// A policy selects the pod in this direction, so whatever no rule allows is denied.
    POLICY_DENIED = 133 "Policy denied",
    /// The packet is too short or its headers contradict each other.
    INVALID_PACKET_DROPPED = 134 "Invalid packet",
    /// The transport header is truncated.
    CT_TRUNCATED_OR_INVALID_HEADER = 135 "CT: Truncated or invalid header",
    /// Conntrack does not know the transport protocol.
    CT_UNKNOWN_L4_PROTOCOL = 137 "CT: Unknown L4 protocol",
    /// The EtherType is neither ARP nor one that this datapath forwards.
    UNSUPPORTED_L3_PROTOCOL = 139 "Unsupported L3 protocol",
    /// The program that should have gone on is not in the calls map.
    /// The load of an endpoint or device is incomplete: this is a bug in the agent or in the order of its actions.
    MISSED_TAIL_CALL = 140 "Missed tail call",
    /// A write to the packet failed.
    ERROR_WRITING_TO_PACKET = 141 "Error writing to packet",
    /// The transport protocol is not one that this datapath forwards.
    UNKNOWN_L4_PROTOCOL = 142 "Unknown L4 protocol",
    /// A packet at the tunnel device has no tunnel metadata.
    /// It reached the device by a route or by hand, and not through a tunnel.
    ERROR_RETRIEVING_TUNNEL_KEY = 147 "Error retrieving tunnel key",
    /// No pod of this node has the destination address, and no route leads to it.
    STALE_OR_UNROUTABLE_IP = 151 "Stale or unroutable IP",
    /// The conntrack entry could not be made: the map is full, or the kernel refused.
    CT_MAP_INSERTION_FAILED = 155 "CT: Map insertion failed",
    /// A fragment of a datagram, whose ports are not known here.
    IP_FRAGMENTATION_NOT_SUPPORTED = 157 "IP fragmentation not supported",
    /// The destination is a pod of another node, and no tunnel leads there.
    NO_TUNNEL_OR_ENCAPSULATION_ENDPOINT = 160 "No tunnel/encapsulation endpoint (datapath BUG!)",
    /// The destination is this node itself, and its stack cannot be reached from here.
    LOCAL_HOST_IS_UNREACHABLE = 164 "Local host is unreachable",
    /// The packet is not Ethernet II.
    UNSUPPORTED_L2_PROTOCOL = 166 "Unsupported L2 protocol",
    /// The tunnel brought an identity that must not travel between nodes (the host's own).
    INVALID_IDENTITY = 171 "Invalid identity",
    /// The source of a packet is not known to the ipcache.
    UNKNOWN_SENDER = 172 "Unknown sender",
    /// A rule of a policy that selects the pod denies the packet.
    POLICY_DENY = 181 "Policy denied by denylist",
    /// The tunnel's network identifier is not one that carries an identity.
    INVALID_VNI = 183 "Invalid VNI",
    /// The packet may not be forwarded once more: its time to live is used up.
    TTL_EXCEEDED = 196 "TTL exceeded",
    /// The endpoint is known but its policy program is not in call_policy yet.
    DROP_EP_NOT_READY = 203 "Policy endpoint is not ready",
}

impl DropReason {
    /// The number as metrics and events hold it.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// What a program's inner function returns for it: the number negated.
    #[inline(always)]
    pub const fn code(self) -> i32 {
        -(self as u8 as i32)
    }

    /// The reason of a number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|r| r.number() == number)
    }

    /// The reason of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|r| r.name() == name)
    }
}

/// In [`crate::map::MetricsKey::reason`]: the packet was forwarded.
pub const METRIC_FORWARDED: u8 = 0;
/// In [`crate::map::MetricsKey::reason`]: the packet came in unencrypted.
pub const METRIC_PLAINTEXT: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_round_trip() {
        for r in DropReason::ALL {
            assert_eq!(DropReason::from_number(r.number()), Some(*r));
            assert_eq!(DropReason::from_name(r.name()), Some(*r));
            assert_eq!(r.code(), -i32::from(r.number()));
        }
        assert_eq!(DropReason::POLICY_DENIED.number(), 133);
        assert_eq!(DropReason::POLICY_DENY.number(), 181);
    }
}
