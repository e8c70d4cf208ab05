//! Keys and values of the maps, and the one list of maps.
//!
//! Does not know file descriptors, pins or memory: who creates a map reads its [`MapSpec`].

use crate::pod::pod;
use crate::{Be16, Be32, Mac};

pod! {
    /// Key of `skep_lxc`: an address of a local endpoint (Cilium's `endpoint_key`).
    pub struct EndpointKey [20] {
        /// The IPv4 address, or the first four bytes of an IPv6 one.
        0 ip4: Be32,
        /// Zero for IPv4, else the other twelve bytes of the IPv6 address.
        4 ip6_rest: [u32; 3],
        /// [`FAMILY_IPV4`] or [`FAMILY_IPV6`].
        16 family: u8,
        /// Zero.
        17 key: u8,
        /// Zero: one cluster.
        18 cluster_id: u16,
    }
}

pod! {
    /// Value of `skep_lxc`: how to deliver to a local endpoint (Cilium's `endpoint_info`).
    pub struct EndpointInfo [48] {
        /// The host-side device of the endpoint.
        0 ifindex: u32,
        /// Zero.
        4 unused: u16,
        /// The endpoint's id, its index in `skep_call_policy`.
        6 lxc_id: u16,
        /// [`ENDPOINT_F_HOST`] for the node's own addresses.
        8 flags: u32,
        /// Zero.
        12 pad1: u32,
        /// The address of the pod's own device: destination of what is delivered.
        16 mac: Mac,
        /// The address of the host-side device: source of what is delivered.
        24 node_mac: Mac,
        /// The endpoint's identity.
        32 sec_id: u32,
        /// The device behind which a secondary interface is reached; zero here.
        36 parent_ifindex: u32,
        /// Zero.
        40 pad2: u64,
    }
}

/// In [`EndpointKey::family`] and [`IpcacheKey::family`].
pub const FAMILY_IPV4: u8 = 1;
/// In [`EndpointKey::family`] and [`IpcacheKey::family`].
pub const FAMILY_IPV6: u8 = 2;
/// In [`EndpointInfo::flags`]: the address is the node's own.
pub const ENDPOINT_F_HOST: u32 = 1;

impl EndpointKey {
    /// The key of an IPv4 address.
    #[inline(always)]
    pub const fn ipv4(address: Be32) -> Self {
        Self { ip4: address, ip6_rest: [0; 3], family: FAMILY_IPV4, key: 0, cluster_id: 0 }
    }
}

pod! {
    /// Key of `skep_ipcache`, a longest-prefix match (Cilium's `ipcache_key`).
    pub struct IpcacheKey [24] {
        /// Bits that count, from `cluster_id` on: [`IpcacheKey::STATIC_PREFIX`] and the CIDR's own length.
        0 prefixlen: u32,
        /// Zero: one cluster.
        4 cluster_id: u16,
        /// Zero.
        6 pad1: u8,
        /// [`FAMILY_IPV4`] or [`FAMILY_IPV6`].
        7 family: u8,
        /// The IPv4 network, or the first four bytes of an IPv6 one.
        8 ip4: Be32,
        /// Zero for IPv4, else the rest of the IPv6 network.
        12 ip6_rest: [u32; 3],
    }
}

impl IpcacheKey {
    /// Bits between the prefix length and the address, which always count.
    pub const STATIC_PREFIX: u32 = 32;

    /// The key of an IPv4 network of `prefix` bits; 32 for an address.
    #[inline(always)]
    pub const fn ipv4(network: Be32, prefix: u32) -> Self {
        Self {
            prefixlen: Self::STATIC_PREFIX + prefix,
            cluster_id: 0,
            pad1: 0,
            family: FAMILY_IPV4,
            ip4: network,
            ip6_rest: [0; 3],
        }
    }
}

pod! {
    /// Value of `skep_ipcache`: who an address is and where (Cilium's `remote_endpoint_info`).
    pub struct RemoteEndpointInfo [12] {
        /// The identity of the address.
        0 sec_identity: u32,
        /// The node to tunnel to, or 0.0.0.0 if the address is reached without a tunnel.
        4 tunnel_endpoint: Be32,
        /// Zero.
        8 pad: u16,
        /// The encryption key, zero for none.
        10 key: u8,
        /// Zero.
        11 flags: u8,
    }
}

pod! {
    /// Key of `skep_policy_v2`, a longest-prefix match (Cilium's `policy_key`).
    ///
    /// The protocol can be a wildcard only if the port is one; the port can have any prefix.
    pub struct PolicyKey [12] {
        /// Bits that count, from `sec_label` on: [`PolicyKey::STATIC_PREFIX`] and 0, 8 or 9 to 24 more.
        0 prefixlen: u32,
        /// The remote identity; 0 is the wildcard, an entry of its own and not a prefix.
        4 sec_label: u32,
        /// 1 for egress, 0 for ingress.
        8 egress: u8,
        /// The transport protocol.
        9 protocol: u8,
        /// The destination port; in ICMP 0.
        10 dport: Be16,
    }
}

impl PolicyKey {
    /// Bits of identity and direction, which always count.
    pub const STATIC_PREFIX: u32 = 40;
    /// Bits of the protocol.
    pub const PROTOCOL_PREFIX: u32 = 8;
    /// Bits of protocol and port.
    pub const FULL_L4_PREFIX: u32 = 24;
    /// All bits: what a look-up asks with.
    pub const FULL_PREFIX: u32 = Self::STATIC_PREFIX + Self::FULL_L4_PREFIX;
}

pod! {
    /// Value of `skep_policy_v2` (Cilium's `policy_entry`).
    pub struct PolicyEntry [24] {
        /// The proxy's port; 0 for no redirect.
        0 proxy_port: Be16,
        /// Bit 0: deny. Bits 3 to 7: how many bits of protocol and port count, 0 to 24 ([`PolicyEntry::new`]).
        2 flags: u8,
        /// Zero: no authentication.
        3 auth_type: u8,
        /// Zero.
        4 pad1: u16,
        /// Zero.
        6 pad2: u16,
        /// Packets that this entry decided.
        8 packets: u64,
        /// Bytes that this entry decided.
        16 bytes: u64,
    }
}

impl PolicyEntry {
    /// An entry whose key counts `l4_prefix` bits of protocol and port (0, 8, or 9 to 24).
    #[inline(always)]
    pub const fn new(deny: bool, l4_prefix: u8) -> Self {
        Self {
            proxy_port: Be16::from_bits(0),
            flags: deny as u8 | l4_prefix << 3,
            auth_type: 0,
            pad1: 0,
            pad2: 0,
            packets: 0,
            bytes: 0,
        }
    }

    /// Whether the entry denies.
    #[inline(always)]
    pub const fn deny(self) -> bool {
        self.flags & 1 != 0
    }

    /// How many bits of protocol and port the entry's key counts.
    #[inline(always)]
    pub const fn l4_prefix(self) -> u8 {
        self.flags >> 3
    }
}

pod! {
    /// Key of the conntrack maps (Cilium's `ipv4_ct_tuple`).
    ///
    /// As in Cilium, an entry's key has the addresses reversed and the ports in the order of the packet that made
    /// it: for a connection A:a -> B:b that is `daddr` = A, `saddr` = B, `dport` = b, `sport` = a.
    #[derive(PartialOrd, Ord, Hash)]
    pub struct CtTuple4 [14, packed(2)] {
        /// Destination address.
        0 daddr: Be32,
        /// Source address.
        4 saddr: Be32,
        /// Destination port, or an ICMP echo's identifier.
        8 dport: Be16,
        /// Source port, or an ICMP echo's identifier.
        10 sport: Be16,
        /// The transport protocol.
        12 nexthdr: u8,
        /// [`tuple_flag`] bits.
        13 flags: u8,
    }
}

/// Bits of [`CtTuple4::flags`] (Cilium's `TUPLE_F_*`).
pub mod tuple_flag {
    /// The entry was made by a packet that left the endpoint.
    pub const OUT: u8 = 0;
    /// The entry was made by a packet that came to the endpoint.
    pub const IN: u8 = 1;
    /// The entry is about the error messages of a connection.
    pub const RELATED: u8 = 2;
    /// The entry is a service's.
    pub const SERVICE: u8 = 4;
}

pod! {
    /// Value of the conntrack maps (Cilium's `ct_entry`).
    pub struct CtEntry [56] {
        /// Zero.
        0 reserved0: u64,
        /// The backend that a service's entry chose.
        8 backend_id: u64,
        /// Packets of both directions.
        16 packets: u64,
        /// Bytes of both directions.
        24 bytes: u64,
        /// When the entry expires, in seconds of the monotonic clock.
        32 lifetime: u32,
        /// [`ct_flag`] bits.
        36 flags: u16,
        /// The service that the connection went through.
        38 rev_nat_index: u16,
        /// The source port that NAT gave.
        40 nat_port: Be16,
        /// TCP flags seen in packets that left the endpoint.
        42 tx_flags_seen: u8,
        /// TCP flags seen in packets that came to the endpoint.
        43 rx_flags_seen: u8,
        /// The identity of the connection's source.
        44 src_sec_id: u32,
        /// When the last event of a packet that left was sent, in seconds.
        48 last_tx_report: u32,
        /// When the last event of a packet that came was sent, in seconds.
        52 last_rx_report: u32,
    }
}

/// Bits of [`CtEntry::flags`], in Cilium's order.
pub mod ct_flag {
    /// A FIN or RST came to the endpoint.
    pub const RX_CLOSING: u16 = 1 << 0;
    /// A FIN or RST left the endpoint.
    pub const TX_CLOSING: u16 = 1 << 1;
    /// The connection goes back to its own source through a service.
    pub const LB_LOOPBACK: u16 = 1 << 3;
    /// A packet without SYN was seen: the lifetime of established connections holds.
    pub const SEEN_NON_SYN: u16 = 1 << 4;
    /// The connection came through a NodePort.
    pub const NODE_PORT: u16 = 1 << 5;
    /// The connection is redirected to the proxy.
    pub const PROXY_REDIRECT: u16 = 1 << 6;
}

/// Lifetimes of conntrack entries, in seconds (Cilium's defaults).
pub mod ct_lifetime {
    /// An established TCP connection.
    pub const TCP: u32 = 21600;
    /// A TCP connection of which only SYNs were seen.
    pub const SYN: u32 = 60;
    /// A TCP connection that both ends closed.
    pub const CLOSE: u32 = 10;
    /// Everything but TCP.
    pub const ANY: u32 = 60;
}

/// How often an unchanged connection is reported anew, in seconds (Cilium's `CT_REPORT_INTERVAL`).
pub const CT_REPORT_INTERVAL: u32 = 5;

/// What a conntrack look-up found (Cilium's `ct_status`, also the trace events' reason).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum CtStatus {
    /// No entry: policy decides, then an entry is made.
    New = 0,
    /// An entry made in this direction: policy decides again.
    Established = 1,
    /// A packet against the direction of the entry: allowed.
    Reply = 2,
    /// An error message about the entry's connection: allowed.
    Related = 3,
}

impl CtStatus {
    /// The status of a number.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::New,
            1 => Self::Established,
            2 => Self::Reply,
            3 => Self::Related,
            _ => return None,
        })
    }

    /// The word that traces print.
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Established => "established",
            Self::Reply => "reply",
            Self::Related => "related",
        }
    }
}

pod! {
    /// Key of `skep_metrics` (Cilium's `metrics_key`).
    pub struct MetricsKey [8] {
        /// A [`crate::DropReason`]'s number, or [`crate::reason::METRIC_FORWARDED`] and its neighbours.
        0 reason: u8,
        /// [`METRIC_INGRESS`] or [`METRIC_EGRESS`].
        1 dir: u8,
        /// Zero: skep counts by reason and direction, not by source line.
        2 line: u16,
        /// Zero.
        4 file: u8,
        /// Zero.
        5 reserved: [u8; 3],
    }
}

/// In [`MetricsKey::dir`] and in verdict events: towards an endpoint or the node.
pub const METRIC_INGRESS: u8 = 1;
/// In [`MetricsKey::dir`] and in verdict events: away from an endpoint or the node.
pub const METRIC_EGRESS: u8 = 2;

pod! {
    /// Value of `skep_metrics`, one a CPU (Cilium's `metrics_value`).
    pub struct MetricsValue [16] {
        /// Packets.
        0 count: u64,
        /// Bytes.
        8 bytes: u64,
    }
}

/// The types of maps that the datapath uses, with the kernel's numbers (`enum bpf_map_type`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum MapKind {
    /// BPF_MAP_TYPE_HASH.
    Hash = 1,
    /// BPF_MAP_TYPE_PROG_ARRAY.
    ProgArray = 3,
    /// BPF_MAP_TYPE_PERF_EVENT_ARRAY.
    PerfEventArray = 4,
    /// BPF_MAP_TYPE_PERCPU_HASH.
    PerCpuHash = 5,
    /// BPF_MAP_TYPE_LRU_HASH.
    LruHash = 9,
    /// BPF_MAP_TYPE_LPM_TRIE.
    LpmTrie = 11,
}

/// Who shares a map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// One a node, shared by all objects.
    Node,
    /// One an endpoint, kept over its loads.
    Endpoint,
    /// One a load of an object, never shared or kept.
    Load,
}

/// What a map is: everything that its creation needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapSpec {
    /// The name in the objects and of the pin.
    pub name: &'static str,
    /// The type.
    pub kind: MapKind,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// How many entries it holds; 0 means one a possible CPU.
    pub max_entries: u32,
    /// `BPF_F_*` flags of creation.
    pub flags: u32,
    /// Who shares it.
    pub scope: Scope,
}

/// `BPF_F_NO_PREALLOC`, which an LPM trie demands.
pub const BPF_F_NO_PREALLOC: u32 = 1;

macro_rules! maps {
    ($( $(#[doc = $doc:literal])+ $name:ident = $text:literal $kind:ident [$key:expr => $value:expr; $max:expr] $flags:expr, $scope:ident; )*) => {
        $( $(#[doc = $doc])+ pub const $name: MapSpec = MapSpec {
            name: $text,
            kind: MapKind::$kind,
            key_size: $key as u32,
            value_size: $value as u32,
            max_entries: $max,
            flags: $flags,
            scope: Scope::$scope,
        }; )*

        /// The one list of maps.
        pub const MAPS: &[MapSpec] = &[$( $name, )*];
    };
}

maps! {
    /// Local endpoints by address.
    LXC = "skep_lxc" Hash [EndpointKey::SIZE => EndpointInfo::SIZE; 65535] BPF_F_NO_PREALLOC, Node;
    /// Identity and node by address.
    IPCACHE = "skep_ipcache" LpmTrie [IpcacheKey::SIZE => RemoteEndpointInfo::SIZE; 512_000] BPF_F_NO_PREALLOC, Node;
    /// What an endpoint may receive and send, one map an endpoint (`skep_policy_v2_00042`).
    POLICY = "skep_policy_v2" LpmTrie [PolicyKey::SIZE => PolicyEntry::SIZE; 16384] BPF_F_NO_PREALLOC, Endpoint;
    /// TCP connections.
    CT4_GLOBAL = "skep_ct4_global" LruHash [CtTuple4::SIZE => CtEntry::SIZE; 524_288] 0, Node;
    /// All other connections.
    CT_ANY4_GLOBAL = "skep_ct_any4_global" LruHash [CtTuple4::SIZE => CtEntry::SIZE; 262_144] 0, Node;
    /// Counters by reason and direction, a value a CPU.
    METRICS = "skep_metrics" PerCpuHash [MetricsKey::SIZE => MetricsValue::SIZE; 1024] BPF_F_NO_PREALLOC, Node;
    /// The events, by CPU.
    EVENTS = "skep_events" PerfEventArray [4 => 4; 0] 0, Node;
    /// The tail calls of one load, by [`crate::program::call`] index.
    CALLS = "skep_calls" ProgArray [4 => 4; crate::program::call::SIZE] 0, Load;
    /// handle_policy of every local endpoint, by endpoint id.
    CALL_POLICY = "skep_call_policy" ProgArray [4 => 4; 65535] 0, Node;
}

/// The map of a name.
pub fn by_name(name: &str) -> Option<&'static MapSpec> {
    MAPS.iter().find(|m| m.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tuple_round_trips_and_has_its_bytes_where_the_datapath_reads_them() {
        let t = CtTuple4 {
            daddr: Be32::from_octets([10, 42, 1, 80]),
            saddr: Be32::from_octets([10, 42, 0, 51]),
            dport: Be16::from_host(80),
            sport: Be16::from_host(49152),
            nexthdr: 6,
            flags: tuple_flag::OUT,
        };
        let bytes = t.to_bytes();
        assert_eq!(bytes, [10, 42, 1, 80, 10, 42, 0, 51, 0, 80, 0xc0, 0, 6, 0]);
        assert_eq!(CtTuple4::from_bytes(&bytes), Some(t));
        assert_eq!(CtTuple4::from_bytes(&bytes[1..]), None);
    }

    #[test]
    fn a_policy_entry_keeps_its_prefix_beside_the_deny_bit() {
        for l4 in [0, 8, 9, 24] {
            for deny in [false, true] {
                let e = PolicyEntry::new(deny, l4);
                assert_eq!((e.deny(), e.l4_prefix()), (deny, l4));
            }
        }
    }
}
