//! What a World recorded about a flow: the walks of its packets, its drops and its outcome.
//!
//! Every value is copied from a frame, an event or a map access at that hop, never computed from the configuration.
//! Knows nothing of expectations.

use crate::frame::{FiveTuple, FrameView, MacAddr};
use serde::{Serialize, Serializer};
use skep_abi::event::PolicyVerdictNotify;
use skep_abi::map::METRIC_INGRESS;
use std::fmt;
use std::net::IpAddr;

/// Everything recorded about a flow from its start.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Evidence {
    /// The flow as its first packet left the pod, before any translation.
    pub flow: FiveTuple,
    /// The pod that acted, as `NAMESPACE/NAME`.
    pub from: String,
    /// Walks in the order of their first hop. At least the first packet of each class in each direction, and every
    /// packet that was dropped; a World may leave out others.
    pub walks: Vec<Walk>,
    /// What the application saw.
    pub outcome: Outcome,
    /// Packets that were sent and that reached the other end's stack, forward and reply, ARP not counted.
    pub packets: Packets,
}

/// Counts of a flow's IP packets. Compared only where the step fixes them: `send`, `ping`, `udp`, `connect`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Packets {
    /// Sent by the pod that acts.
    pub sent: u64,
    /// Of those, delivered to their destination's stack.
    pub delivered: u64,
    /// Sent back.
    pub replied: u64,
    /// Of those, delivered to the pod that acts.
    pub received: u64,
}

/// One packet from where it was made to where it ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Walk {
    /// Which way the packet went.
    pub direction: Direction,
    /// What kind of packet it is.
    pub class: Class,
    /// Its number among all packets of the flow, in the order in which they were made, from 0.
    pub packet: u64,
    /// Its hops in order.
    pub hops: Vec<Hop>,
}

/// Which way a packet goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// From the pod that acts.
    Forward,
    /// Back to it.
    Reply,
}

/// A kind of packet. An ARP request and its answer are one class each way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// ARP.
    Arp,
    /// TCP with SYN and without ACK.
    Syn,
    /// TCP with SYN and ACK.
    SynAck,
    /// TCP with neither SYN, FIN nor RST, and without payload.
    Ack,
    /// TCP with payload, without FIN or RST.
    Data,
    /// TCP with FIN.
    Fin,
    /// TCP with RST.
    Rst,
    /// A UDP datagram.
    Datagram,
    /// An ICMP echo request or reply.
    Icmp,
    /// An ICMP error message.
    IcmpError,
    /// Anything else.
    Other,
}

impl Class {
    /// The class of a frame.
    pub fn of(frame: &FrameView) -> Self {
        const FIN: u8 = 1;
        const SYN: u8 = 2;
        const RST: u8 = 4;
        const ACK: u8 = 16;
        if frame.arp.is_some() {
            return Self::Arp;
        }
        match (frame.tcp_flags, frame.icmp, frame.tuple.map(|t| t.protocol)) {
            (Some(f), _, _) if f & RST != 0 => Self::Rst,
            (Some(f), _, _) if f & (SYN | ACK) == SYN | ACK => Self::SynAck,
            (Some(f), _, _) if f & SYN != 0 => Self::Syn,
            (Some(f), _, _) if f & FIN != 0 => Self::Fin,
            (Some(_), _, _) if frame.payload_len > 0 => Self::Data,
            (Some(_), _, _) => Self::Ack,
            (_, Some((0 | 8, _)), _) => Self::Icmp,
            (_, Some(_), _) => Self::IcmpError,
            (_, _, Some(17)) => Self::Datagram,
            _ => Self::Other,
        }
    }

    /// The word that traces print.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Arp => "ARP",
            Self::Syn => "SYN",
            Self::SynAck => "SYN-ACK",
            Self::Ack => "ACK",
            Self::Data => "data",
            Self::Fin => "FIN",
            Self::Rst => "RST",
            Self::Datagram => "datagram",
            Self::Icmp => "ICMP echo",
            Self::IcmpError => "ICMP error",
            Self::Other => "other",
        }
    }
}

/// One place that a packet passed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Hop {
    /// Nanoseconds of the World's clock since `build`.
    pub time_ns: u64,
    /// The node; of what happens between nodes, the sending one.
    pub node: String,
    /// The device, as its namespace names it; in a pod with the pod in front (`default/curl:eth0`).
    pub device: String,
    /// What happened there.
    pub kind: HopKind,
    /// The frame as it came.
    pub before: FrameView,
    /// The frame as it left. Of a dropped one, as it came.
    pub after: FrameView,
    /// The source's identity as this hop knew it, from an event or a map access; `None` if it knew none.
    pub src_identity: Option<Identity>,
    /// The destination's identity as this hop knew it.
    pub dst_identity: Option<Identity>,
    /// What became of the packet.
    pub verdict: Verdict,
    /// The values recorded here, in the order in which they were read.
    pub facts: Vec<Fact>,
}

/// What kind of place a hop is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HopKind {
    /// A program ran: only these are matched by `hooks`. Entry programs and handle_policy are hops; other tail calls
    /// are in `chain`, and what they drop is attributed here.
    Hook {
        /// Where.
        hook: HookPoint,
        /// The entry program, or handle_policy.
        program: String,
        /// The tail calls taken after it, in order.
        chain: Vec<String>,
    },
    /// A pod's stack sent the packet.
    Send,
    /// A pod's or node's stack asked who has its next hop, or was answered.
    Resolve,
    /// The node's stack routed the packet.
    Forward,
    /// The tunnel device put the packet into an outer one.
    Encapsulate,
    /// The tunnel device took the packet out of its outer one.
    Decapsulate,
    /// The packet went from node to node, or was lost there.
    Transit,
    /// A stack took the packet for one of its sockets, or refused it.
    Deliver,
}

impl HopKind {
    /// The word that a trace prints in the hook's column.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Hook { hook, .. } => hook.name(),
            Self::Send => "send",
            Self::Resolve => "resolve",
            Self::Forward => "forward",
            Self::Encapsulate => "encap",
            Self::Decapsulate => "decap",
            Self::Transit => "transit",
            Self::Deliver => "deliver",
        }
    }

    /// The entry program, if one ran.
    pub fn program(&self) -> Option<&str> {
        match self {
            Self::Hook { program, .. } => Some(program),
            _ => None,
        }
    }
}

/// Where a program runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HookPoint {
    /// tc/tcx ingress.
    TcIngress,
    /// tc/tcx egress.
    TcEgress,
    /// Tail-called through `skep_call_policy`.
    CallPolicy,
}

impl HookPoint {
    /// The words that traces print.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TcIngress => "tc ingress",
            Self::TcEgress => "tc egress",
            Self::CallPolicy => "call_policy",
        }
    }
}

/// A security identity and whom it stands for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct Identity {
    /// The number.
    pub number: u32,
    /// For people: a pod (`default/curl`), else labels or a reserved name (`reserved:world`).
    pub text: String,
}

/// `default/curl (256)`.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.text.is_empty() {
            write!(f, "({})", self.number)
        } else {
            write!(f, "{} ({})", self.text, self.number)
        }
    }
}

/// What became of a packet at a hop.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It goes on (TC_ACT_OK or TC_ACT_UNSPEC; or the stack passed it on).
    Ok,
    /// The program redirected it.
    Redirect {
        /// The device.
        to: String,
        /// Whether to its ingress.
        ingress: bool,
    },
    /// It goes on in another program, which is a hop of its own (handle_policy).
    TailCall {
        /// The program.
        to: String,
    },
    /// It reached a stack that took it.
    Delivered,
    /// It was answered from here and ends (an ARP request).
    Answered,
    /// It ends here.
    Dropped {
        /// A [`skep_abi::DropReason`]'s name, `SKB_DROP_REASON_*` or `FABRIC_*`.
        reason: String,
    },
}

impl Verdict {
    /// The reason of a drop.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Dropped { reason } => Some(reason),
            _ => None,
        }
    }
}

/// A value recorded at a hop.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fact {
    /// A look-up in `skep_ipcache`, and what it found.
    Ipcache {
        /// The address that was looked up.
        address: IpAddr,
        /// What was found; `None` for a miss.
        entry: Option<IpcacheFact>,
    },
    /// A PolicyVerdictNotify.
    Policy {
        /// Which way the policy was asked.
        direction: PolicyDirection,
        /// The other end.
        remote: Identity,
        /// The IP protocol that was asked for.
        protocol: u8,
        /// The destination port that was asked for.
        port: u16,
        /// Whether it was allowed.
        allowed: bool,
        /// Which kind of key matched: `L3-L4`, `none`, ...
        match_type: String,
        /// The rules that made the key, or the default that decided, in words:
        /// `NetworkPolicy default/allow-curl ingress rule 0`.
        rule: String,
    },
    /// What conntrack said, from a TraceNotify or from the map access.
    Conntrack {
        /// `new`, `established`, `reply` or `related`.
        status: String,
        /// The entry that was found or made: [`crate::snapshot::ConntrackEntry`]'s `tuple` text.
        entry: Option<String>,
    },
    /// Tunnel metadata that the packet was given or came with.
    Tunnel {
        /// The VNI.
        vni: u32,
        /// The other node.
        remote: IpAddr,
    },
    /// A look-up in `skep_lxc`, and what it found.
    Endpoint {
        /// The address that was looked up.
        address: IpAddr,
        /// What was found; `None` for a miss.
        entry: Option<EndpointFact>,
    },
    /// A neighbour became known.
    Neighbour {
        /// The address.
        address: IpAddr,
        /// Where it is.
        mac: MacAddr,
    },
    /// A route was chosen.
    Route {
        /// The next hop; `None` if the destination is on the link.
        via: Option<IpAddr>,
        /// The device.
        device: String,
    },
    /// The application's status line.
    Http {
        /// The status.
        status: u16,
        /// Bytes of body.
        bytes: u64,
    },
    /// Anything else worth a word.
    Note(String),
}

impl Fact {
    /// What a policy decided, as its event tells: `remote` is the other end's identity, `rule` what decided, in words.
    pub fn policy(verdict: &PolicyVerdictNotify, remote: Identity, rule: String) -> Self {
        let ingress = verdict.dir() == METRIC_INGRESS;
        Self::Policy {
            direction: if ingress { PolicyDirection::Ingress } else { PolicyDirection::Egress },
            remote,
            protocol: verdict.proto,
            port: verdict.dst_port.to_host(),
            allowed: verdict.verdict >= 0,
            match_type: verdict.match_type().map_or("?", |m| m.name()).to_owned(),
            rule,
        }
    }
}

/// What an ipcache look-up found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct IpcacheFact {
    /// The identity.
    pub identity: Identity,
    /// The node to tunnel to; `None` for 0.0.0.0.
    pub tunnel_endpoint: Option<IpAddr>,
}

/// What an endpoint look-up found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct EndpointFact {
    /// The endpoint's id.
    pub id: u16,
    /// Its host-side device.
    pub ifindex: u32,
    /// The address of the pod's own device.
    pub mac: MacAddr,
    /// The address of the host-side device.
    pub node_mac: MacAddr,
    /// Whether it is the node itself.
    pub host: bool,
}

/// Which way a policy was asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyDirection {
    /// Towards the endpoint.
    Ingress,
    /// Away from the endpoint.
    Egress,
}

impl PolicyDirection {
    /// The word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// What the application saw.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Outcome {
    /// Whether the flow has ended; `false` for one that is left open.
    pub ended: bool,
    /// Whether it got what it asked for: the whole response, a connection, every echo, an answer. A `send` completes
    /// when every packet was delivered.
    pub completed: bool,
    /// Whether a connection was established.
    pub established: bool,
    /// Whether the other end refused (RST, port unreachable).
    pub refused: bool,
    /// Whether it was given up.
    pub timed_out: bool,
    /// The HTTP status.
    pub status: Option<u16>,
    /// Bytes of application data that the acting pod received.
    pub bytes: u64,
}

/// A drop, as the judge sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Drop {
    /// Nanoseconds since `build`.
    pub time_ns: u64,
    /// Which way the packet went.
    pub direction: Direction,
    /// Its kind.
    pub class: Class,
    /// Where: the program, or outside of programs the device or `fabric`.
    pub place: Place,
    /// The reason's name.
    pub reason: String,
    /// The rules or the default that decided, if a policy did.
    pub rule: Option<String>,
}

/// A place as expectations name it: `handle_policy@ubuntu-dev3`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    /// The program; outside of programs the device, or `fabric` between nodes.
    pub what: String,
    /// The node.
    pub node: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.what, self.node)
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl Hop {
    /// Where this hop is.
    pub fn place(&self) -> Place {
        let what = match &self.kind {
            HopKind::Hook { program, .. } => program.clone(),
            HopKind::Transit => "fabric".to_owned(),
            _ => self.device.clone(),
        };
        Place { what, node: self.node.clone() }
    }

    /// The rule that the policy's verdict at this hop names.
    pub fn rule(&self) -> Option<&str> {
        self.facts.iter().rev().find_map(|f| match f {
            Fact::Policy { rule, .. } => Some(rule.as_str()),
            _ => None,
        })
    }
}

impl Evidence {
    /// All drops, in order of time.
    pub fn drops(&self) -> Vec<Drop> {
        let mut drops: Vec<Drop> = self
            .walks
            .iter()
            .flat_map(|w| w.hops.iter().map(move |h| (w, h)))
            .filter_map(|(w, h)| {
                Some(Drop {
                    time_ns: h.time_ns,
                    direction: w.direction,
                    class: w.class,
                    place: h.place(),
                    reason: h.verdict.reason()?.to_owned(),
                    rule: h.rule().map(str::to_owned),
                })
            })
            .collect();
        drops.sort_by_key(|d| d.time_ns);
        drops
    }

    /// The walk of the first packet of a direction that is no ARP: what `hooks` and `reply_hooks` are compared with. A
    /// packet that met a program goes before one that did not: a host gives itself a copy of what it sends to many.
    pub fn first(&self, direction: Direction) -> Option<&Walk> {
        first_to_meet_a_program(&self.walks, |w| w.direction == direction && w.class != Class::Arp)
    }
}

/// The first of such walks that met a program, else the first.
pub(crate) fn first_to_meet_a_program(walks: &[Walk], is_meant: impl Fn(&Walk) -> bool) -> Option<&Walk> {
    let met = |w: &&Walk| w.hops.iter().any(|h| h.kind.program().is_some());
    let all = || walks.iter().filter(|w| is_meant(w));
    all().find(met).or_else(|| all().next())
}
