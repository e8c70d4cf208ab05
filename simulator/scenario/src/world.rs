//! The one interface to a cluster that can be built, changed, sent packets through and looked into.
//!
//! Implemented by the simulator and by real namespaces. Names are resolved before: a World is never asked for a
//! node or a file that a plan did not find. All durations are on the World's own clock.

use crate::error::SetupError;
use crate::evidence::Evidence;
use crate::snapshot::{Query, Snapshot};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

/// How long a `connect` waits for the answer to its one SYN.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(900);
/// How long an `http` request may take from its start, not counting the time in which it was left open.
pub const HTTP_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a `ping` waits for an answer, and how far apart its requests are.
pub const PING_INTERVAL: Duration = Duration::from_secs(1);
/// How long after the last packet of a `send` or `udp` its consequences are still watched.
pub const SEND_SETTLE: Duration = Duration::from_millis(900);

/// A cluster to build: what is common to every World.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ClusterSpec {
    /// Where all randomness of the World comes from.
    pub seed: u64,
    /// The switches, all resolved.
    pub network: Network,
    /// The nodes of scenario.yaml, in its order. They complete Node manifests by name; a field that both give must
    /// agree. With no node here and no Node manifest there is `node-1`.
    pub nodes: Vec<NodeEntry>,
    /// Manifest files and folders, each readable when the plan was made. Not part of a report.
    #[serde(skip)]
    pub manifests: Vec<PathBuf>,
    /// Kinds to read past, as `GROUP/KIND` or `KIND`.
    pub ignore_kinds: Vec<String>,
}

/// A node of scenario.yaml.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct NodeEntry {
    /// The name.
    pub name: String,
    /// Its address on the network between the nodes.
    pub address: Option<Ipv4Addr>,
    /// Where its pods' addresses come from.
    pub pod_cidr: Option<ipnet::Ipv4Net>,
}

/// How packets travel between nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Routing {
    /// In VXLAN, the source's identity as VNI.
    #[default]
    Vxlan,
}

/// The switches that decide hooks and state. Every report prints the resolved set.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Network {
    /// How packets travel between nodes. Default: vxlan.
    pub routing: Routing,
    /// The tunnel's UDP port. Default: 8472.
    pub tunnel_port: u16,
    /// The MTU of every device, in bytes; the pods' routes have 50 less. Default: 1500.
    pub mtu: u16,
    /// Whether every local pod has a route of its own, and to_container decides at its device. Default: false.
    pub endpoint_routes: bool,
    /// How long a frame takes from node to node. Default: 100us.
    #[serde(with = "crate::units::duration")]
    pub latency: Duration,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            routing: Routing::Vxlan,
            tunnel_port: 8472,
            mtu: 1500,
            endpoint_routes: false,
            latency: Duration::from_micros(100),
        }
    }
}

/// What a World can do beyond building a cluster and opening a TCP connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capability {
    /// `advance` takes no time.
    TimeTravel,
    /// Frames between nodes can be lost.
    Loss,
    /// The latency between nodes can change.
    Latency,
    /// Pods can send packets as they are given.
    RawPackets,
    /// Pods can send UDP datagrams from a socket.
    Udp,
    /// Pods can ping.
    Ping,
    /// Flows can stay open over other steps.
    OpenFlows,
    /// The agent can be restarted.
    RestartAgent,
    /// Maps can be read.
    Inspect,
}

impl Capability {
    /// The name in reports and in ci/skips.toml.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TimeTravel => "time-travel",
            Self::Loss => "loss",
            Self::Latency => "latency",
            Self::RawPackets => "raw-packets",
            Self::Udp => "udp",
            Self::Ping => "ping",
            Self::OpenFlows => "open-flows",
            Self::RestartAgent => "restart-agent",
            Self::Inspect => "inspect",
        }
    }

    /// All capabilities.
    pub const ALL: [Self; 9] = [
        Self::TimeTravel,
        Self::Loss,
        Self::Latency,
        Self::RawPackets,
        Self::Udp,
        Self::Ping,
        Self::OpenFlows,
        Self::RestartAgent,
        Self::Inspect,
    ];
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a World can do. Asked before anything is built, so that skips are known up front.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Offers {
    /// The capabilities.
    pub capabilities: BTreeSet<Capability>,
}

/// The end of a flow: an address, or a pod whose address only the World knows (no `status.podIP`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// An address.
    Address(IpAddr),
    /// A pod, as `NAMESPACE/NAME`.
    Pod(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(a) => a.fmt(f),
            Self::Pod(p) => p.fmt(f),
        }
    }
}

/// What a pod is made to do. `from` is always `NAMESPACE/NAME`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stimulus {
    /// One HTTP/1.1 GET over a connection of its own, given up after [`HTTP_TIMEOUT`].
    ///
    /// A pod answers HTTP on every TCP containerPort that it declares, in the manner of httpbin: `/get` with 200 and a
    /// short body, `/bytes/N` with N bytes, `/status/N` with that status, everything else with 404.
    Http {
        /// The pod.
        from: String,
        /// The server.
        to: Target,
        /// Its TCP port.
        port: u16,
        /// Path and query, beginning with `/`.
        path: String,
    },
    /// One SYN (retransmissions neither sent nor counted), given up after [`CONNECT_TIMEOUT`]; an established
    /// connection is closed at once.
    Connect {
        /// The pod.
        from: String,
        /// The server.
        to: Target,
        /// Its TCP port.
        port: u16,
    },
    /// One UDP datagram of `len` zero bytes from a socket of the pod. A pod answers on every UDP containerPort that
    /// it declares, with the same bytes. Done when answered, or after [`SEND_SETTLE`].
    Udp {
        /// The pod.
        from: String,
        /// The server.
        to: Target,
        /// Its UDP port.
        port: u16,
        /// Bytes of payload.
        len: u16,
    },
    /// `count` ICMP echo requests, [`PING_INTERVAL`] apart. Done when all are answered or given up.
    Ping {
        /// The pod.
        from: String,
        /// Who is asked.
        to: Target,
        /// How many requests.
        count: u16,
    },
    /// IP packets as they stand, through the pod's device (its stack resolves the next hop and adds Ethernet), in
    /// order and without waiting. Done [`SEND_SETTLE`] after the last.
    Send {
        /// The pod.
        from: String,
        /// IP packets, beginning with the IP header.
        #[serde(serialize_with = "crate::units::hex_list")]
        packets: Vec<Vec<u8>>,
    },
}

impl Stimulus {
    /// The pod that acts.
    pub fn from(&self) -> &str {
        match self {
            Self::Http { from, .. }
            | Self::Connect { from, .. }
            | Self::Udp { from, .. }
            | Self::Ping { from, .. }
            | Self::Send { from, .. } => from,
        }
    }
}

/// How far a flow is carried on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Until {
    /// To its end: answered, refused or given up, and every frame of it accounted for.
    Done,
    /// To an established connection.
    Established,
    /// Until the client has received this many bytes of application data since its start.
    Bytes(u64),
    /// For this long from now.
    Time(Duration),
    /// Until none of its frames moved for this long.
    Quiet(Duration),
}

/// A flow that a World has started. Numbers are the World's own, in order from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct FlowId(pub u32);

/// A change of the cluster or of the network around it. Takes effect, agents included, before the call returns.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// `kubectl apply -f`: files or folders.
    Apply(#[serde(skip)] Vec<PathBuf>),
    /// `kubectl delete -f`: files or folders.
    Delete(#[serde(skip)] Vec<PathBuf>),
    /// `kubectl label`: sets a label, or with `None` removes it.
    Relabel {
        /// What bears the labels.
        object: Labelled,
        /// Labels to set or to remove.
        labels: BTreeMap<String, Option<String>>,
    },
    /// The agent of a node ends and starts anew; the datapath stays.
    RestartAgent {
        /// The node.
        node: String,
    },
    /// The network between the nodes from now on.
    Fault(Fault),
}

/// What `relabel` can change.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Labelled {
    /// A pod, as `NAMESPACE/NAME`.
    Pod(String),
    /// A namespace.
    Namespace(String),
}

/// What the network between the nodes does to frames. What is `None` stays as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Fault {
    /// How many of a million frames are lost, each decided on its own by the seeded generator.
    pub loss_ppm: Option<u32>,
    /// How long a frame takes from node to node.
    #[serde(serialize_with = "crate::units::optional_duration")]
    pub latency: Option<Duration>,
}

/// A cluster that can be built, changed, sent packets through and looked into.
///
/// One scenario, one World: `build` is called once and first. Every call returns only when the frames that it set in
/// motion have an end, or its `until` holds. A frame without an end is [`SetupError::InvariantBroken`].
pub trait World {
    /// What this World can do. Constant, and known before `build`.
    fn offers(&self) -> Offers;

    /// Builds the cluster, and runs its agents until they have nothing left to do.
    fn build(&mut self, cluster: &ClusterSpec) -> Result<(), SetupError>;

    /// Changes the cluster, and runs its agents until they have nothing left to do.
    fn change(&mut self, change: &Change) -> Result<(), SetupError>;

    /// Starts a flow and carries it on until `until` holds or the flow ends.
    fn start(&mut self, stimulus: &Stimulus, until: Until) -> Result<FlowId, SetupError>;

    /// Carries a flow on until `until` holds or the flow ends, and returns everything recorded about it from its
    /// start. Of a flow that has ended, the same evidence again.
    fn resume(&mut self, flow: FlowId, until: Until) -> Result<Evidence, SetupError>;

    /// Lets time pass: every timer that falls due runs, in order; conntrack's collection included.
    fn advance(&mut self, by: Duration) -> Result<(), SetupError>;

    /// Looks into the cluster without changing it.
    fn inspect(&mut self, query: &Query) -> Result<Snapshot, SetupError>;
}
