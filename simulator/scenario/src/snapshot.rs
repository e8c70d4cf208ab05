//! What a World shows when it is looked into: typed, so that expectations compare values and not text.
//!
//! Knows the layouts of the maps through skep-abi, and turns their bytes into these values in one place for all
//! Worlds.

use crate::evidence::{Identity, PolicyDirection};
use serde::Serialize;
use skep_abi::DropReason;
use skep_abi::map::{
    CtEntry, CtTuple4, METRIC_EGRESS, METRIC_INGRESS, MetricsKey, MetricsValue, ct_flag, tuple_flag,
};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// A question to a World.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Query {
    /// The objects that are loaded: answered with [`Snapshot::Objects`]. Works before `build`.
    Objects,
    /// The names of the nodes, in order: [`Snapshot::Nodes`].
    Nodes,
    /// `skep_metrics` of a node: [`Snapshot::Metrics`].
    Metrics {
        /// The node.
        node: String,
    },
    /// Both conntrack maps of a node: [`Snapshot::Conntrack`].
    Conntrack {
        /// The node.
        node: String,
    },
    /// The policy map of a pod's endpoint: [`Snapshot::Policy`].
    Policy {
        /// The pod, as `NAMESPACE/NAME`.
        pod: String,
    },
    /// `skep_ipcache` of a node: [`Snapshot::Ipcache`].
    Ipcache {
        /// The node.
        node: String,
    },
    /// The endpoints of a node: [`Snapshot::Endpoints`].
    Endpoints {
        /// The node.
        node: String,
    },
    /// Any map by its name, as bytes: [`Snapshot::Map`].
    Map {
        /// The node.
        node: String,
        /// The map's name, such as `skep_lxc`.
        name: String,
    },
}

/// The answer to a [`Query`]. Lists are sorted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Snapshot {
    /// Name of the object -> SHA-256 of its file, in hexadecimal digits.
    Objects(BTreeMap<String, String>),
    /// The nodes' names.
    Nodes(Vec<String>),
    /// Counters that are not zero, summed over CPUs.
    Metrics(Vec<Metric>),
    /// Entries of both conntrack maps.
    Conntrack(Vec<ConntrackEntry>),
    /// Entries of one policy map.
    Policy(Vec<PolicyRow>),
    /// Entries of the ipcache.
    Ipcache(Vec<IpcacheRow>),
    /// Endpoints.
    Endpoints(Vec<EndpointRow>),
    /// Key and value in hexadecimal digits.
    Map(Vec<(String, String)>),
}

/// A counter of `skep_metrics`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct Metric {
    /// A [`DropReason`]'s name, `FORWARDED`, `PLAINTEXT`, or the number if it has no name.
    pub reason: String,
    /// Which way.
    pub direction: PolicyDirection,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Metric {
    /// From a key and its value on every CPU. A direction that is neither ingress nor egress is `None`.
    pub fn decode(key: &MetricsKey, values: &[MetricsValue]) -> Option<Self> {
        let direction = match key.dir {
            METRIC_INGRESS => PolicyDirection::Ingress,
            METRIC_EGRESS => PolicyDirection::Egress,
            _ => return None,
        };
        Some(Self {
            reason: metric_name(key.reason),
            direction,
            packets: values.iter().map(|v| v.count).sum(),
            bytes: values.iter().map(|v| v.bytes).sum(),
        })
    }
}

/// The name of a number in [`MetricsKey::reason`].
pub fn metric_name(number: u8) -> String {
    match (number, DropReason::from_number(number)) {
        (skep_abi::reason::METRIC_FORWARDED, _) => "FORWARDED".into(),
        (skep_abi::reason::METRIC_PLAINTEXT, _) => "PLAINTEXT".into(),
        (_, Some(reason)) => reason.name().into(),
        (n, None) => n.to_string(),
    }
}

/// Flags of conntrack entries, with the names that cilium-dbg prints.
pub const CONNTRACK_FLAGS: [(u16, &str); 6] = [
    (ct_flag::RX_CLOSING, "RxClosing"),
    (ct_flag::TX_CLOSING, "TxClosing"),
    (ct_flag::LB_LOOPBACK, "LBLoopback"),
    (ct_flag::SEEN_NON_SYN, "SeenNonSyn"),
    (ct_flag::NODE_PORT, "NodePort"),
    (ct_flag::PROXY_REDIRECT, "ProxyRedirect"),
];

/// Who made a conntrack entry (`TUPLE_F_*`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConntrackDirection {
    /// A packet that left an endpoint.
    Out,
    /// A packet that came to an endpoint.
    In,
    /// An error message's entry.
    Related,
    /// A service's entry.
    Service,
}

impl ConntrackDirection {
    /// The word that cilium-dbg prints.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Out => "OUT",
            Self::In => "IN",
            Self::Related => "RELATED",
            Self::Service => "SVC",
        }
    }
}

/// A conntrack entry, its addresses and ports as those of the packet that made it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct ConntrackEntry {
    /// IP protocol.
    pub protocol: u8,
    /// Who made it.
    pub direction: ConntrackDirection,
    /// Source address of the packet that made it.
    pub src: IpAddr,
    /// Destination address of the packet that made it.
    pub dst: IpAddr,
    /// Source port; an ICMP echo's identifier.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// Seconds until it expires; negative once it has.
    pub expires_s: i64,
    /// Packets of both directions.
    pub packets: u64,
    /// Bytes of both directions.
    pub bytes: u64,
    /// Names of the flags that are set: `RxClosing`, `TxClosing`, `SeenNonSyn`, ...
    pub flags: Vec<String>,
    /// The source's identity.
    pub src_identity: u32,
}

impl ConntrackEntry {
    /// From a key and a value of `skep_ct4_global` or `skep_ct_any4_global`. `now_s` is the monotonic clock that
    /// lifetimes are in, in seconds.
    pub fn decode(key: &CtTuple4, value: &CtEntry, now_s: u64) -> Self {
        let direction = match key.flags {
            f if f & tuple_flag::SERVICE != 0 => ConntrackDirection::Service,
            f if f & tuple_flag::RELATED != 0 => ConntrackDirection::Related,
            f if f & tuple_flag::IN != 0 => ConntrackDirection::In,
            _ => ConntrackDirection::Out,
        };
        // The key has the addresses reversed and the ports in order.
        let (daddr, saddr, dport, sport) = (key.daddr, key.saddr, key.dport, key.sport);
        Self {
            protocol: key.nexthdr,
            direction,
            src: IpAddr::V4(Ipv4Addr::from(daddr.octets())),
            dst: IpAddr::V4(Ipv4Addr::from(saddr.octets())),
            sport: sport.to_host(),
            dport: dport.to_host(),
            expires_s: i64::from(value.lifetime) - i64::try_from(now_s).unwrap_or(i64::MAX),
            packets: value.packets,
            bytes: value.bytes,
            flags: CONNTRACK_FLAGS
                .iter()
                .filter(|(b, _)| value.flags & b != 0)
                .map(|(_, n)| (*n).to_owned())
                .collect(),
            src_identity: value.src_sec_id,
        }
    }

    /// `TCP OUT 10.42.1.80:49152 -> 10.42.0.51:80`, in the words of `cilium-dbg bpf ct list`.
    pub fn tuple(&self) -> String {
        let protocol = match self.protocol {
            1 => "ICMP".to_owned(),
            6 => "TCP".to_owned(),
            17 => "UDP".to_owned(),
            n => n.to_string(),
        };
        format!(
            "{protocol} {} {}:{} -> {}:{}",
            self.direction.name(),
            self.src,
            self.sport,
            self.dst,
            self.dport
        )
    }
}

impl fmt::Display for ConntrackEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} expires={}s packets={} flags=[ {}] SourceSecurityID={}",
            self.tuple(),
            self.expires_s,
            self.packets,
            self.flags.iter().map(|n| format!("{n} ")).collect::<String>(),
            self.src_identity
        )
    }
}

/// An entry of a policy map.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct PolicyRow {
    /// Which way.
    pub direction: PolicyDirection,
    /// The other end; number 0 is the wildcard.
    pub identity: Identity,
    /// IP protocol; 0 is any.
    pub protocol: u8,
    /// First port; 0 is any.
    pub port: u16,
    /// How many bits of the port count, 0 to 16.
    pub port_prefix: u8,
    /// Whether it denies.
    pub deny: bool,
    /// Packets that it decided.
    pub packets: u64,
}

/// An entry of the ipcache.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct IpcacheRow {
    /// The network, such as `10.42.0.51/32`.
    pub cidr: String,
    /// Who it is.
    pub identity: Identity,
    /// The node to tunnel to; `None` for 0.0.0.0.
    pub tunnel_endpoint: Option<IpAddr>,
}

/// An endpoint of a node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct EndpointRow {
    /// The pod, as `NAMESPACE/NAME`.
    pub pod: String,
    /// The endpoint's id.
    pub id: u16,
    /// Its address.
    pub address: IpAddr,
    /// Its identity.
    pub identity: Identity,
    /// Whether its programs are attached.
    pub ready: bool,
}
