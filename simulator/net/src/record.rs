//! What happened to a frame: the only thing that traces, evidence and the accountant are made of.

use crate::{Direction, FrameId, HookId, IfIndex, NodeId, NsId, Verdict};
use std::net::Ipv4Addr;

/// One thing that happened to one frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// The clock, nanoseconds.
    pub time_ns: u64,
    /// The number of the record in its run, from 0 without gaps: the order among records of the same time.
    pub seq: u64,
    /// The frame.
    pub frame: FrameId,
    /// The node; none on the fabric.
    pub node: Option<NodeId>,
    /// The namespace; none on the fabric.
    pub ns: Option<NsId>,
    /// The device, if it happened at one.
    pub ifindex: Option<IfIndex>,
    /// What happened.
    pub what: What,
}

/// What can happen to a frame. `Delivered`, `Consumed`, `Merged` and `Dropped` are ends; `Sent` is the beginning.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// It came into being.
    Sent {
        /// Who made it.
        origin: Origin,
    },
    /// It arrived at the device, before the ingress hook: what tcpdump shows as In.
    Rx,
    /// It left through the device, after the egress hook: what tcpdump shows as Out.
    Tx,
    /// A hook ran.
    Hook {
        /// Ingress or egress.
        direction: Direction,
        /// What was attached.
        hook: HookId,
        /// What it answered.
        verdict: Verdict,
    },
    /// The node routed it from one device towards another.
    Forwarded {
        /// The TTL after it was lowered.
        ttl: u8,
        /// The device it goes out by.
        out: IfIndex,
        /// The next hop.
        next_hop: Ipv4Addr,
    },
    /// It waits for the hardware address of the next hop.
    NeighbourWait {
        /// The next hop.
        next_hop: Ipv4Addr,
    },
    /// The VXLAN device put it into an outer packet.
    Encapsulated {
        /// The network identifier, 24 bits.
        vni: u32,
        /// The outer source.
        source: Ipv4Addr,
        /// The outer destination.
        destination: Ipv4Addr,
        /// The outer UDP source port, from the flow hash.
        source_port: u16,
        /// The outer UDP destination port.
        destination_port: u16,
    },
    /// The VXLAN device took it out of its outer packet.
    Decapsulated {
        /// The network identifier, 24 bits.
        vni: u32,
        /// The outer source.
        source: Ipv4Addr,
        /// The outer destination.
        destination: Ipv4Addr,
        /// The outer UDP source port.
        source_port: u16,
        /// The outer UDP destination port.
        destination_port: u16,
    },
    /// It left an uplink for the fabric.
    Wire,
    /// End: a socket has it.
    Delivered {
        /// Which kind.
        socket: Socket,
    },
    /// End: the node itself has taken it.
    Consumed {
        /// What took it.
        by: Taker,
    },
    /// End: a fragment that went into a reassembled packet, which keeps the number of the first fragment.
    Merged {
        /// The frame that has its bytes now.
        into: FrameId,
    },
    /// End: it was dropped.
    Dropped {
        /// Why.
        reason: DropReason,
    },
}

impl What {
    /// Whether the frame's way ends here.
    pub fn is_end(&self) -> bool {
        matches!(
            self,
            Self::Delivered { .. } | Self::Consumed { .. } | Self::Merged { .. } | Self::Dropped { .. }
        )
    }
}

/// Who made a frame.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Origin {
    /// A TCP socket.
    Tcp,
    /// A UDP socket.
    Udp,
    /// A ping socket.
    Ping,
    /// The stack: an ICMP answer or error.
    Icmp,
    /// The stack: a reset for a segment without a socket.
    Reset,
    /// The stack: an ARP request or reply.
    Arp,
    /// [`Net::inject`](crate::Net::inject) and its relatives.
    Injected,
    /// A second copy: the fabric floods or duplicates.
    Copy {
        /// The frame it was copied from.
        of: FrameId,
    },
    /// A fragment other than the first.
    Fragment {
        /// The packet, whose number the first fragment keeps.
        of: FrameId,
    },
}

/// The kind of a socket that received.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Socket {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP echo: a reply or an error for a ping of ours.
    Ping,
}

/// What on a node takes frames that are for no socket.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Taker {
    /// The neighbour table: ARP requests and replies, answered or not.
    Arp,
    /// The ICMP layer: echo requests (the answer is a new frame) and errors.
    Icmp,
    /// A hook answered TC_ACT_STOLEN.
    Hook,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a frame was dropped outside of a program: the kernel's SKB_DROP_REASON_*, or FABRIC_* for what has no
        /// place on a node.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum DropReason {
            $($(#[$doc])* $name,)*
        }
        impl DropReason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name, as the kernel's `kfree_skb` trace event has it with SKB_DROP_REASON_ before it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

reasons! {
    /// No reason was given, as `kfree_skb` without one.
    NotSpecified = "SKB_DROP_REASON_NOT_SPECIFIED",
    /// No socket (TCP answers with a reset, UDP with port unreachable).
    NoSocket = "SKB_DROP_REASON_NO_SOCKET",
    /// Shorter than its headers.
    PktTooSmall = "SKB_DROP_REASON_PKT_TOO_SMALL",
    /// Wrong TCP checksum.
    TcpCsum = "SKB_DROP_REASON_TCP_CSUM",
    /// Wrong UDP checksum.
    UdpCsum = "SKB_DROP_REASON_UDP_CSUM",
    /// Wrong ICMP checksum.
    IcmpCsum = "SKB_DROP_REASON_ICMP_CSUM",
    /// The hardware address is another's.
    OtherHost = "SKB_DROP_REASON_OTHERHOST",
    /// Wrong IPv4 header checksum.
    IpCsum = "SKB_DROP_REASON_IP_CSUM",
    /// Malformed IPv4 header; also a TTL that was used up in forwarding.
    IpInHdr = "SKB_DROP_REASON_IP_INHDR",
    /// The reverse path filter.
    IpRpFilter = "SKB_DROP_REASON_IP_RPFILTER",
    /// Nothing here speaks this transport protocol.
    IpNoProto = "SKB_DROP_REASON_IP_NOPROTO",
    /// No route for a received packet.
    IpInNoRoutes = "SKB_DROP_REASON_IP_INNOROUTES",
    /// Not for this host, and it does not forward.
    IpInAddrErrors = "SKB_DROP_REASON_IP_INADDRERRORS",
    /// No route for a packet that this host sends.
    IpOutNoRoutes = "SKB_DROP_REASON_IP_OUTNOROUTES",
    /// A source that cannot be one (multicast, broadcast, loopback).
    IpInvalidSource = "SKB_DROP_REASON_IP_INVALID_SOURCE",
    /// The source is an address of this host.
    IpLocalSource = "SKB_DROP_REASON_IP_LOCAL_SOURCE",
    /// A destination that cannot be one.
    IpInvalidDest = "SKB_DROP_REASON_IP_INVALID_DEST",
    /// A loopback address on a wire.
    IpLocalNet = "SKB_DROP_REASON_IP_LOCALNET",
    /// A segment that a listener does not take.
    TcpFlags = "SKB_DROP_REASON_TCP_FLAGS",
    /// A reset for a listener, which has nothing to reset.
    TcpReset = "SKB_DROP_REASON_TCP_RESET",
    /// No driver of this EtherType.
    UnhandledProto = "SKB_DROP_REASON_UNHANDLED_PROTO",
    /// A hook at egress answered TC_ACT_SHOT.
    TcEgress = "SKB_DROP_REASON_TC_EGRESS",
    /// A hook at ingress answered TC_ACT_SHOT.
    TcIngress = "SKB_DROP_REASON_TC_INGRESS",
    /// The next hop did not answer ARP.
    NeighFailed = "SKB_DROP_REASON_NEIGH_FAILED",
    /// Too many packets wait for the same next hop.
    NeighQueueFull = "SKB_DROP_REASON_NEIGH_QUEUEFULL",
    /// Larger than the MTU and not to be fragmented.
    PktTooBig = "SKB_DROP_REASON_PKT_TOO_BIG",
    /// The device is down or gone.
    DevReady = "SKB_DROP_REASON_DEV_READY",
    /// A collect_md tunnel without metadata to send by.
    TunnelTxInfo = "SKB_DROP_REASON_TUNNEL_TXINFO",
    /// The inner source is the tunnel device's own address: a loop.
    LocalMac = "SKB_DROP_REASON_LOCAL_MAC",
    /// Not a VXLAN header (flags).
    VxlanInvalidHdr = "SKB_DROP_REASON_VXLAN_INVALID_HDR",
    /// Too many fragments, or they came too late or overlap.
    DupFrag = "SKB_DROP_REASON_DUP_FRAG",
    /// The rest of the fragments did not come in time.
    FragReasmTimeout = "SKB_DROP_REASON_FRAG_REASM_TIMEOUT",
    /// ARP that is malformed or for a kind of network that this is not.
    HdrTrunc = "SKB_DROP_REASON_HDR_TRUNC",
    /// Lost by the link, as a fault asked.
    FabricLoss = "FABRIC_LOSS",
    /// The link is cut, as a fault asked.
    FabricPartition = "FABRIC_PARTITION",
    /// No uplink has this hardware address.
    FabricNoReceiver = "FABRIC_NO_RECEIVER",
    /// It went through more devices than any sound topology needs: a loop of redirects.
    FabricLoop = "FABRIC_LOOP",
}

impl std::fmt::Display for DropReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
