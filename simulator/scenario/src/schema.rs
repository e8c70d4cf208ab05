//! scenario.yaml as it is written. Reads and checks shapes; which names exist is the plan's business.
//!
//! No `flatten` and no untagged enum here: they hide unknown fields from the reader, and a misspelt expectation that
//! is ignored would be a test that tests nothing.

use crate::matcher::{ConntrackPattern, Count, Expiry};
use crate::world::Network;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// The one `apiVersion`.
pub const API_VERSION: &str = "skep.dev/v1alpha1";
/// The one `kind`.
pub const KIND: &str = "Scenario";

/// A whole scenario.yaml.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    /// [`API_VERSION`].
    pub api_version: String,
    /// [`KIND`].
    pub kind: String,
    /// Its name and what it is about.
    pub metadata: Metadata,
    /// The cluster and the steps.
    pub spec: Spec,
}

/// Name and description.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Metadata {
    /// The name, in reports.
    pub name: String,
    /// What it shows, in a sentence.
    #[serde(default)]
    pub description: String,
}

/// The cluster and what happens to it.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// Where all randomness comes from. Default: 1.
    #[serde(default = "one")]
    pub seed: u64,
    /// The switches; each has a default.
    #[serde(default)]
    pub network: Network,
    /// Nodes. They complete Node manifests of the same name.
    #[serde(default)]
    pub nodes: Vec<NodeSpec>,
    /// Manifest files and folders, relative to the scenario's folder.
    #[serde(default)]
    pub manifests: Vec<String>,
    /// Kinds to read past, as `GROUP/KIND`.
    #[serde(default)]
    pub ignore_kinds: Vec<String>,
    /// What happens, in order.
    #[serde(default)]
    pub steps: Vec<Step>,
}

const fn one() -> u64 {
    1
}

/// A node.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct NodeSpec {
    /// The name.
    pub name: String,
    /// Its address between the nodes.
    pub address: Option<Ipv4Addr>,
    /// Where its pods' addresses come from.
    #[serde(rename = "podCIDR")]
    pub pod_cidr: Option<ipnet::Ipv4Net>,
}

/// A step: exactly one of its actions, and what is expected of it.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Step {
    /// A request.
    pub http: Option<HttpStep>,
    /// One SYN.
    pub connect: Option<ConnectStep>,
    /// One datagram.
    pub udp: Option<UdpStep>,
    /// Packets as they stand.
    pub send: Option<SendStep>,
    /// ICMP echoes.
    pub ping: Option<PingStep>,
    /// All pairs of pods.
    pub probe: Option<ProbeStep>,
    /// The rest of a flow that was left open.
    #[serde(rename = "await")]
    pub await_: Option<String>,
    /// Files to apply.
    pub apply: Option<Files>,
    /// Files whose objects are deleted.
    pub delete: Option<Files>,
    /// Labels to change.
    pub relabel: Option<RelabelStep>,
    /// The node whose agent ends and starts anew.
    pub restart_agent: Option<String>,
    /// How much time passes.
    #[serde(with = "optional_duration")]
    pub advance: Option<Duration>,
    /// What the network between the nodes does from now on.
    pub fault: Option<FaultStep>,
    /// What the cluster's state must be.
    pub assert: Option<AssertStep>,
    /// What is expected of the flow.
    pub expect: Option<Expect>,
}

/// The names of the actions, in the order of [`Step`].
pub const ACTIONS: [&str; 14] = [
    "http",
    "connect",
    "udp",
    "send",
    "ping",
    "probe",
    "await",
    "apply",
    "delete",
    "relabel",
    "restart-agent",
    "advance",
    "fault",
    "assert",
];

impl Step {
    /// The actions that the step gives: one, if it is well formed.
    pub fn actions(&self) -> Vec<&'static str> {
        let given = [
            self.http.is_some(),
            self.connect.is_some(),
            self.udp.is_some(),
            self.send.is_some(),
            self.ping.is_some(),
            self.probe.is_some(),
            self.await_.is_some(),
            self.apply.is_some(),
            self.delete.is_some(),
            self.relabel.is_some(),
            self.restart_agent.is_some(),
            self.advance.is_some(),
            self.fault.is_some(),
            self.assert.is_some(),
        ];
        ACTIONS.into_iter().zip(given).filter(|(_, g)| *g).map(|(a, _)| a).collect()
    }
}

/// `http`: one GET. Either `url`, whose host is an address, or `to` and `port` and `path`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct HttpStep {
    /// The pod.
    pub from: String,
    /// `http://ADDRESS[:PORT]/PATH`.
    pub url: Option<String>,
    /// A pod or an address, instead of `url`.
    pub to: Option<String>,
    /// The port with `to`. Default: 80.
    pub port: Option<u16>,
    /// The path with `to`. Default: `/`.
    pub path: Option<String>,
    /// The flow's name, for a later `await`.
    pub name: Option<String>,
    /// How far it is carried on now.
    pub until: Option<UntilSpec>,
}

/// `connect`: one SYN.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct ConnectStep {
    /// The pod.
    pub from: String,
    /// A pod or an address.
    pub to: String,
    /// The TCP port.
    pub port: u16,
}

/// `udp`: one datagram.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct UdpStep {
    /// The pod.
    pub from: String,
    /// A pod or an address.
    pub to: String,
    /// The UDP port.
    pub port: u16,
    /// Bytes of payload. Default: 32.
    pub bytes: Option<u16>,
}

/// `send`: one packet, or those of a capture.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct SendStep {
    /// The pod.
    pub from: String,
    /// The packet.
    pub packet: Option<PacketSpec>,
    /// A pcap or pcapng file of Ethernet frames or IP packets.
    pub pcap: Option<String>,
}

/// An IPv4 packet. Exactly one of `tcp`, `udp` and `icmp`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct PacketSpec {
    /// Source address. Default: the pod's own, if its manifest gives it.
    pub src: Option<Ipv4Addr>,
    /// Destination: an address, or a pod whose manifest gives one.
    pub dst: String,
    /// Time to live. Default: 64.
    pub ttl: Option<u8>,
    /// A TCP segment.
    pub tcp: Option<TcpSpec>,
    /// A UDP datagram.
    pub udp: Option<UdpSpec>,
    /// An ICMP echo.
    pub icmp: Option<IcmpSpec>,
    /// Bytes of payload, all zero. Default: 0.
    #[serde(default)]
    pub payload: u16,
}

/// A TCP header.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct TcpSpec {
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// Flags. Default: SYN.
    #[serde(default = "syn")]
    pub flags: Vec<TcpFlag>,
    /// Sequence number. Default: 0.
    #[serde(default)]
    pub seq: u32,
    /// Acknowledgement number. Default: 0.
    #[serde(default)]
    pub ack: u32,
}

fn syn() -> Vec<TcpFlag> {
    vec![TcpFlag::Syn]
}

/// A TCP flag.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum TcpFlag {
    /// SYN.
    Syn,
    /// ACK.
    Ack,
    /// FIN.
    Fin,
    /// RST.
    Rst,
    /// PSH.
    Psh,
}

/// A UDP header.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct UdpSpec {
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
}

/// An ICMP echo.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct IcmpSpec {
    /// The identifier.
    pub id: u16,
    /// The sequence number. Default: 1.
    #[serde(default = "first")]
    pub seq: u16,
    /// A reply instead of a request.
    #[serde(default)]
    pub reply: bool,
}

const fn first() -> u16 {
    1
}

/// `ping`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct PingStep {
    /// The pod.
    pub from: String,
    /// A pod or an address.
    pub to: String,
    /// How many requests. Default: 1.
    pub count: Option<u16>,
}

/// `probe`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct ProbeStep {
    /// The TCP port.
    pub port: u16,
}

/// One file or folder, or several.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Files(pub Vec<String>);

impl<'de> Deserialize<'de> for Files {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Files;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a file or a list of files")
            }
            fn visit_str<E: serde::de::Error>(self, s: &str) -> Result<Files, E> {
                Ok(Files(vec![s.to_owned()]))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Files, A::Error> {
                let mut files = Vec::new();
                while let Some(file) = seq.next_element()? {
                    files.push(file);
                }
                Ok(Files(files))
            }
        }
        d.deserialize_any(Visitor)
    }
}

/// `relabel`: labels of a pod; null removes one.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct RelabelStep {
    /// The pod.
    pub pod: Option<String>,
    /// A namespace: reserved, and refused.
    pub namespace: Option<String>,
    /// What to set or remove.
    pub labels: BTreeMap<String, Option<String>>,
}

/// `fault`: what the network between the nodes does. What is left out stays as it was.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct FaultStep {
    /// The share of frames that are lost, such as `10%`.
    pub loss: Option<String>,
    /// How long a frame takes.
    #[serde(default, with = "optional_duration")]
    pub latency: Option<Duration>,
}

/// `until`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UntilSpec {
    /// An established connection.
    Established,
    /// Bytes received.
    Bytes(u64),
    /// Time passed.
    #[serde(with = "crate::units::duration")]
    Time(Duration),
    /// Time without a frame.
    #[serde(with = "crate::units::duration")]
    Quiet(Duration),
}

/// `expect`: what must hold of a flow's evidence. What is left out is not compared.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Expect {
    /// What became of the flow.
    pub verdict: Option<ExpectedVerdict>,
    /// The HTTP status.
    pub status: Option<u16>,
    /// The reason of the drop that ended it.
    pub reason: Option<String>,
    /// Where: `PROGRAM@NODE`, or outside of programs `DEVICE@NODE` or `fabric@NODE`.
    pub at: Option<String>,
    /// Text that the rule or default that decided must contain.
    pub rule: Option<String>,
    /// The programs that the first packet met, in order, as `PROGRAM@NODE`; `...` stands for any number.
    pub hooks: Option<Vec<String>>,
    /// The programs that the first packet of the reply met.
    pub reply_hooks: Option<Vec<String>>,
    /// Which hook answered the first question for the next hop's Ethernet address, as `PROGRAM@NODE`.
    pub arp: Option<String>,
    /// Identities that programs knew the first packet's ends by.
    pub identities: Vec<IdentityExpect>,
    /// By how much counters of `skep_metrics` grew in this step.
    pub counters: Vec<CounterExpect>,
    /// Entries of conntrack after this step.
    pub conntrack: Vec<ConntrackExpect>,
    /// How many packets of the flow there were.
    pub packets: Option<PacketsExpect>,
    /// How many bytes the client received.
    pub bytes: Option<Count>,
}

/// `verdict`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExpectedVerdict {
    /// It got what it asked for.
    Allowed,
    /// A program, a stack or the network dropped it.
    Dropped,
    /// The other end refused.
    Refused,
    /// Nothing was dropped, and nobody answered.
    Unanswered,
}

/// The identities of the first packet's ends at one hook.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct IdentityExpect {
    /// The hook, as `PROGRAM@NODE`.
    pub at: String,
    /// The source's number.
    pub source: Option<u32>,
    /// The destination's number.
    pub destination: Option<u32>,
}

/// A counter.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub struct CounterExpect {
    /// The node.
    pub node: String,
    /// A drop reason's name, or `FORWARDED`.
    pub reason: String,
    /// `ingress` or `egress`.
    pub direction: CounterDirection,
    /// Packets.
    pub packets: Count,
}

/// Which way a counter counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CounterDirection {
    /// METRIC_INGRESS.
    Ingress,
    /// METRIC_EGRESS.
    Egress,
}

/// Entries of a node's conntrack.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub struct ConntrackExpect {
    /// The node.
    pub node: String,
    /// `TCP OUT 10.42.1.80:* -> 10.42.0.51:80`; `*` matches anything.
    pub entry: ConntrackPattern,
    /// How many entries match. Default: 1.
    #[serde(default = "Count::one")]
    pub count: Count,
    /// Flags that each match has set.
    #[serde(default)]
    pub flags: Vec<String>,
    /// Flags that no match has set.
    #[serde(default)]
    pub without: Vec<String>,
    /// In how much time each match expires: `<=10s`, `>5h`; or `expired`.
    pub expires: Option<Expiry>,
    /// Packets that each match has counted.
    pub packets: Option<Count>,
    /// The source's identity that each match has: its number.
    pub identity: Option<u32>,
}

/// Packets of a flow.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PacketsExpect {
    /// Sent by the pod that acts.
    pub sent: Option<Count>,
    /// Of those, delivered.
    pub delivered: Option<Count>,
    /// Sent back.
    pub replied: Option<Count>,
    /// Of those, delivered.
    pub received: Option<Count>,
}

/// `assert`: what the cluster's state must be.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct AssertStep {
    /// Counters since the cluster was built.
    pub metrics: Vec<CounterExpect>,
    /// Entries of conntrack.
    pub conntrack: Vec<ConntrackExpect>,
    /// Entries of the ipcache.
    pub ipcache: Vec<IpcacheExpect>,
    /// Entries of policy maps.
    pub policy: Vec<PolicyExpect>,
    /// Numbers of entries of any map.
    pub maps: Vec<MapExpect>,
}

/// An entry of the ipcache.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpcacheExpect {
    /// The node.
    pub node: String,
    /// The network, or an address.
    pub cidr: String,
    /// The identity's number.
    pub identity: Option<u32>,
    /// The node to tunnel to; 0.0.0.0 for none.
    pub tunnel_endpoint: Option<IpAddr>,
}

/// An entry of a pod's policy map.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub struct PolicyExpect {
    /// The pod.
    pub pod: String,
    /// Which way.
    pub direction: CounterDirection,
    /// The other end's identity; 0 is the wildcard. Left out: any.
    pub identity: Option<u32>,
    /// The IP protocol's number; 0 is any. Left out: any.
    pub protocol: Option<u8>,
    /// The port; 0 is any. Left out: any.
    pub port: Option<u16>,
    /// Whether it denies. Left out: any.
    pub deny: Option<bool>,
    /// How many entries match. Default: 1.
    #[serde(default = "Count::one")]
    pub count: Count,
}

/// A map's size.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub struct MapExpect {
    /// The node.
    pub node: String,
    /// The map's name.
    pub name: String,
    /// How many entries it has.
    pub entries: Count,
}

mod optional_duration {
    use super::Duration;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Wrapped(#[serde(with = "crate::units::duration")] Duration);

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Wrapped>::deserialize(d)?.map(|w| w.0))
    }
}
