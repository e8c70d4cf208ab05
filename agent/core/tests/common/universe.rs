//! Random clusters and policies, as text for the parser and as what the API text says they mean.
//!
//! The evaluator here shares nothing with the compiler: it asks of one packet whether the API lets it through.

use proptest::prelude::*;
use skep_abi::map::{IpcacheKey, PolicyEntry, PolicyKey, RemoteEndpointInfo};
use skep_abi::{Be16, Be32, map};
use skep_agent_core::{Cluster, Datapath, PodKey};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) namespace: usize,
    pub(crate) labels: BTreeMap<&'static str, &'static str>,
    /// The number of the port named `web`.
    pub(crate) web: Option<u16>,
    pub(crate) node: usize,
}

#[derive(Clone, Debug)]
pub(crate) enum Requirement {
    Is(&'static str, &'static str),
    In(&'static str, Vec<&'static str>),
    NotIn(&'static str, Vec<&'static str>),
    Exists(&'static str),
    DoesNotExist(&'static str),
}

pub(crate) type Selector = Vec<Requirement>;

#[derive(Clone, Debug)]
pub(crate) enum Peer {
    Pods(Option<Selector>, Option<Selector>),
    Block(usize, Vec<usize>),
}

#[derive(Clone, Debug)]
pub(crate) enum Port {
    Any,
    Number(u16),
    Range(u16, u16),
    Web,
}

#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) peers: Option<Vec<Peer>>,
    pub(crate) ports: Option<Vec<(Option<&'static str>, Port)>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) namespace: usize,
    pub(crate) subject: Selector,
    pub(crate) types: Option<Vec<&'static str>>,
    pub(crate) ingress: Option<Vec<Rule>>,
    pub(crate) egress: Option<Vec<Rule>>,
}

pub(crate) const NAMESPACES: [(&str, &[(&str, &str)]); 3] =
    [("red", &[("team", "r")]), ("blue", &[("team", "b")]), ("bare", &[])];
pub(crate) const NODES: [(&str, &str, &str); 2] =
    [("n1", "192.168.1.12", "10.42.1.0/24"), ("n2", "192.168.1.13", "10.42.2.0/24")];
/// Each block with those of the list that can be its exceptions.
const BLOCKS: [(&str, &[usize]); 7] = [
    ("0.0.0.0/0", &[1, 2, 3, 4]),
    ("1.2.0.0/16", &[2, 3]),
    ("1.2.3.0/24", &[3]),
    ("1.2.3.4/32", &[]),
    ("10.0.0.0/8", &[5]),
    ("10.42.1.0/24", &[]),
    ("192.168.1.0/24", &[]),
];
pub(crate) const OUTSIDE: [&str; 5] = ["1.2.3.4", "1.2.3.5", "1.2.9.9", "9.9.9.9", "10.200.0.1"];
pub(crate) const PROTOCOLS: [(&str, u8); 3] = [("TCP", 6), ("UDP", 17), ("SCTP", 132)];
pub(crate) const PORTS: [u16; 6] = [1, 79, 80, 81, 8080, 65535];

/// The name of a pod.
pub(crate) fn pod_key(pods: &[Pod], i: usize) -> PodKey {
    PodKey::new(NAMESPACES[pods[i].namespace].0, format!("p{i}"))
}

fn requirement() -> impl Strategy<Value = Requirement> {
    let key = || prop::sample::select(vec!["x", "y", "team"]);
    let value = || prop::sample::select(vec!["0", "1", "r", "b"]);
    let values = || prop::collection::vec(value(), 1..3);
    prop_oneof![
        4 => (key(), value()).prop_map(|(k, v)| Requirement::Is(k, v)),
        1 => (key(), values()).prop_map(|(k, v)| Requirement::In(k, v)),
        1 => (key(), values()).prop_map(|(k, v)| Requirement::NotIn(k, v)),
        1 => key().prop_map(Requirement::Exists),
        1 => key().prop_map(Requirement::DoesNotExist),
    ]
}

fn selector() -> impl Strategy<Value = Selector> {
    prop::collection::vec(requirement(), 0..=2)
}

fn peer() -> impl Strategy<Value = Peer> {
    prop_oneof![
        2 => selector().prop_map(|s| Peer::Pods(None, Some(s))),
        1 => selector().prop_map(|s| Peer::Pods(Some(s), None)),
        2 => (selector(), selector()).prop_map(|(n, p)| Peer::Pods(Some(n), Some(p))),
        2 => (0..BLOCKS.len(), any::<u8>()).prop_map(|(b, pick)| {
            let except = BLOCKS[b].1.iter().enumerate().filter(|(i, _)| pick >> i & 1 != 0);
            Peer::Block(b, except.map(|(_, e)| *e).collect())
        }),
    ]
}

fn port() -> impl Strategy<Value = (Option<&'static str>, Port)> {
    let protocol = prop::sample::select(vec![None, Some("TCP"), Some("UDP")]);
    let port = prop_oneof![
        Just(Port::Any),
        prop::sample::select(vec![79_u16, 80, 81]).prop_map(Port::Number),
        prop::sample::select(vec![(79, 80), (80, 8080), (1, 65535), (81, 65535)])
            .prop_map(|(a, b)| Port::Range(a, b)),
        Just(Port::Web),
    ];
    (protocol, port)
}

fn rule() -> impl Strategy<Value = Rule> {
    let peers = prop::option::of(prop::collection::vec(peer(), 0..=2));
    let ports = prop::option::of(prop::collection::vec(port(), 0..=2));
    (peers, ports).prop_map(|(peers, ports)| Rule { peers, ports })
}

pub(crate) fn policy() -> impl Strategy<Value = Policy> {
    let types = prop::sample::select(vec![
        None,
        Some(vec!["Ingress"]),
        Some(vec!["Egress"]),
        Some(vec!["Ingress", "Egress"]),
    ]);
    let rules = || prop::option::of(prop::collection::vec(rule(), 0..=2));
    (0..3_usize, prop::collection::vec(requirement(), 0..=1), types, rules(), rules()).prop_map(
        |(namespace, subject, types, ingress, egress)| Policy { namespace, subject, types, ingress, egress },
    )
}

pub(crate) fn pod() -> impl Strategy<Value = Pod> {
    let label = || prop::option::of(prop::sample::select(vec!["0", "1"]));
    let web = prop::sample::select(vec![None, Some(80), Some(81)]);
    (0..3_usize, label(), label(), web, 0..2_usize).prop_map(|(namespace, x, y, web, node)| {
        let labels = [("x", x), ("y", y)].into_iter().filter_map(|(k, v)| Some((k, v?))).collect();
        Pod { namespace, labels, web, node }
    })
}

// As text, in JSON, which is YAML.

fn strings(values: &[&str]) -> String {
    format!("{values:?}")
}

fn selector_text(selector: &Selector) -> String {
    let (mut labels, mut expressions) = (BTreeMap::new(), Vec::new());
    for r in selector {
        let expression = |key, operator, values: &[&str]| {
            let values =
                if values.is_empty() { String::new() } else { format!(", values: {}", strings(values)) };
            format!("{{key: {key:?}, operator: {operator}{values}}}")
        };
        match r {
            // A key stands only once in matchLabels.
            Requirement::Is(k, v) if !labels.contains_key(k) => drop(labels.insert(k, v)),
            Requirement::Is(k, v) => expressions.push(expression(k, "In", &[v])),
            Requirement::In(k, v) => expressions.push(expression(k, "In", v)),
            Requirement::NotIn(k, v) => expressions.push(expression(k, "NotIn", v)),
            Requirement::Exists(k) => expressions.push(expression(k, "Exists", &[])),
            Requirement::DoesNotExist(k) => expressions.push(expression(k, "DoesNotExist", &[])),
        }
    }
    format!("{{matchLabels: {labels:?}, matchExpressions: [{}]}}", expressions.join(", "))
}

fn rule_text(rule: &Rule, peers_field: &str) -> String {
    let mut fields = Vec::new();
    if let Some(peers) = &rule.peers {
        let peers: Vec<String> = peers
            .iter()
            .map(|p| match p {
                Peer::Pods(n, p) => {
                    let n = n.as_ref().map(|s| format!("namespaceSelector: {}", selector_text(s)));
                    let p = p.as_ref().map(|s| format!("podSelector: {}", selector_text(s)));
                    format!("{{{}}}", n.into_iter().chain(p).collect::<Vec<_>>().join(", "))
                }
                Peer::Block(b, except) => {
                    let except: Vec<&str> = except.iter().map(|e| BLOCKS[*e].0).collect();
                    format!("{{ipBlock: {{cidr: {:?}, except: {}}}}}", BLOCKS[*b].0, strings(&except))
                }
            })
            .collect();
        fields.push(format!("{peers_field}: [{}]", peers.join(", ")));
    }
    if let Some(ports) = &rule.ports {
        let ports: Vec<String> = ports
            .iter()
            .map(|(protocol, port)| {
                let protocol = protocol.map(|p| format!("protocol: {p}"));
                let port = match port {
                    Port::Any => None,
                    Port::Number(n) => Some(format!("port: {n}")),
                    Port::Range(a, b) => Some(format!("port: {a}, endPort: {b}")),
                    Port::Web => Some("port: web".to_owned()),
                };
                format!("{{{}}}", protocol.into_iter().chain(port).collect::<Vec<_>>().join(", "))
            })
            .collect();
        fields.push(format!("ports: [{}]", ports.join(", ")));
    }
    format!("{{{}}}", fields.join(", "))
}

pub(crate) fn policy_text(name: &str, policy: &Policy) -> String {
    let mut spec = vec![format!("podSelector: {}", selector_text(&policy.subject))];
    if let Some(types) = &policy.types {
        spec.push(format!("policyTypes: [{}]", types.join(", ")));
    }
    for (field, peers, rules) in [("ingress", "from", &policy.ingress), ("egress", "to", &policy.egress)] {
        if let Some(rules) = rules {
            let rules: Vec<String> = rules.iter().map(|r| rule_text(r, peers)).collect();
            spec.push(format!("{field}: [{}]", rules.join(", ")));
        }
    }
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: {}}}\n\
         spec: {{{}}}\n",
        NAMESPACES[policy.namespace].0,
        spec.join(", ")
    )
}

pub(crate) fn pod_text(i: usize, pod: &Pod) -> String {
    let labels: Vec<String> = pod.labels.iter().map(|(k, v)| format!("{k}: {v:?}")).collect();
    let ports = pod.web.map_or(String::new(), |p| format!(", ports: [{{name: web, containerPort: {p}}}]"));
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p{i}, namespace: {}, labels: {{{}}}}}\n\
         spec: {{nodeName: {}, containers: [{{name: c, image: i{ports}}}]}}\n",
        NAMESPACES[pod.namespace].0,
        labels.join(", "),
        NODES[pod.node].0
    )
}

pub(crate) fn namespaces_text() -> String {
    let text = |(name, labels): &(&str, &[(&str, &str)])| {
        let labels: Vec<String> = labels.iter().map(|(k, v)| format!("{k}: {v}")).collect();
        format!(
            "---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{{}}}}}\n",
            labels.join(", ")
        )
    };
    NAMESPACES.iter().map(text).collect()
}

// What the API text says.

/// The other end of a packet, seen from the pod whose policy is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Pod(usize),
    Outside(usize),
    Node(usize),
}

/// A packet, seen from the pod whose policy is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet {
    pub(crate) subject: usize,
    pub(crate) egress: bool,
    pub(crate) other: End,
    pub(crate) protocol: usize,
    pub(crate) port: u16,
}

pub(crate) fn packets(pods: usize) -> Vec<Packet> {
    let ends = (0..pods)
        .map(End::Pod)
        .chain((0..OUTSIDE.len()).map(End::Outside))
        .chain([End::Node(0), End::Node(1)]);
    let ends: Vec<End> = ends.collect();
    let mut out = Vec::new();
    for subject in 0..pods {
        for &other in &ends {
            for egress in [false, true] {
                for protocol in 0..PROTOCOLS.len() {
                    out.extend(PORTS.map(|port| Packet { subject, egress, other, protocol, port }));
                }
            }
        }
    }
    out
}

fn selects(selector: &Selector, labels: &BTreeMap<&str, &str>) -> bool {
    selector.iter().all(|r| match r {
        Requirement::Is(k, v) => labels.get(k) == Some(v),
        Requirement::In(k, vs) => labels.get(k).is_some_and(|v| vs.contains(v)),
        Requirement::NotIn(k, vs) => !labels.get(k).is_some_and(|v| vs.contains(v)),
        Requirement::Exists(k) => labels.contains_key(k),
        Requirement::DoesNotExist(k) => !labels.contains_key(k),
    })
}

fn in_block(block: usize, ip: Ipv4Addr) -> bool {
    let (network, bits) = BLOCKS[block].0.split_once('/').expect("well-formed");
    let (network, bits): (Ipv4Addr, u32) =
        (network.parse().expect("well-formed"), bits.parse().expect("well-formed"));
    let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
    u32::from(network) & mask == u32::from(ip) & mask
}

/// Whether the API lets a packet through at its subject.
pub(crate) fn lets_through(pods: &[Pod], policies: &[Policy], packet: Packet) -> bool {
    let subject = &pods[packet.subject];
    if !packet.egress && matches!(packet.other, End::Node(n) if n == subject.node) {
        return true;
    }
    let mut isolated = false;
    for policy in policies {
        if policy.namespace != subject.namespace || !selects(&policy.subject, &subject.labels) {
            continue;
        }
        let word = if packet.egress { "Egress" } else { "Ingress" };
        let affects = match &policy.types {
            Some(types) => types.contains(&word),
            None => !packet.egress || policy.egress.is_some(),
        };
        if !affects {
            continue;
        }
        isolated = true;
        let rules = if packet.egress { &policy.egress } else { &policy.ingress };
        if rules.iter().flatten().any(|r| rule_matches(pods, policy, r, packet)) {
            return true;
        }
    }
    !isolated
}

fn rule_matches(pods: &[Pod], policy: &Policy, rule: &Rule, packet: Packet) -> bool {
    let peers = rule.peers.as_deref().unwrap_or_default();
    let peer = peers.is_empty()
        || peers.iter().any(|p| match (p, packet.other) {
            (Peer::Pods(namespaces, selector), End::Pod(i)) => {
                let other = &pods[i];
                let mut labels: BTreeMap<&str, &str> =
                    NAMESPACES[other.namespace].1.iter().copied().collect();
                labels.insert("kubernetes.io/metadata.name", NAMESPACES[other.namespace].0);
                let namespace = match namespaces {
                    Some(s) => selects(s, &labels),
                    None => other.namespace == policy.namespace,
                };
                namespace && selector.as_ref().is_none_or(|s| selects(s, &other.labels))
            }
            (Peer::Block(block, except), End::Outside(i)) => {
                let ip = OUTSIDE[i].parse().expect("well-formed");
                in_block(*block, ip) && !except.iter().any(|e| in_block(*e, ip))
            }
            _ => false,
        });
    let ports = rule.ports.as_deref().unwrap_or_default();
    let destination = if packet.egress { packet.other } else { End::Pod(packet.subject) };
    peer && (ports.is_empty()
        || ports.iter().any(|(protocol, port)| {
            protocol.unwrap_or("TCP") == PROTOCOLS[packet.protocol].0
                && match port {
                    Port::Any => true,
                    Port::Number(n) => packet.port == *n,
                    Port::Range(a, b) => (*a..=*b).contains(&packet.port),
                    Port::Web => match destination {
                        End::Pod(i) => pods[i].web == Some(packet.port) && protocol.unwrap_or("TCP") == "TCP",
                        _ => false,
                    },
                }
        }))
}

// What a node's maps say.

/// Whether the maps of the subject's node let a packet through; the subject's endpoint and the others' addresses are
/// the cluster's.
pub(crate) fn maps_let_through(datapath: &Datapath, cluster: &Cluster, pods: &[Pod], packet: Packet) -> bool {
    let info = |i: usize| &cluster.pods()[&pod_key(pods, i)];
    let ip: Ipv4Addr = match packet.other {
        End::Pod(i) => info(i).ip,
        End::Outside(i) => OUTSIDE[i].parse().expect("well-formed"),
        End::Node(i) => NODES[i].1.parse().expect("well-formed"),
    };
    let ipcache = &datapath.maps[map::IPCACHE.name].entries;
    let identity = (0..=32_u32)
        .rev()
        .find_map(|bits| {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            let key = IpcacheKey::ipv4(Be32::from_host(u32::from(ip) & mask), bits).to_bytes();
            ipcache.get(key.as_slice())
        })
        .map_or(2, |v| RemoteEndpointInfo::from_bytes(&v.bytes).expect("well-formed").sec_identity);
    let policy = format!("skep_policy_v2_{:05}", info(packet.subject).endpoint);
    let entries = &datapath.maps[&policy].entries;
    let lookup = |label: u32| {
        (0..=24_u32).rev().filter(|l4| *l4 == 0 || *l4 >= 8).find_map(|l4| {
            let mask = if l4 <= 8 { 0 } else { u16::MAX << (24 - l4) };
            let key = PolicyKey {
                prefixlen: 40 + l4,
                sec_label: label,
                egress: u8::from(packet.egress),
                protocol: if l4 == 0 { 0 } else { PROTOCOLS[packet.protocol].1 },
                dport: Be16::from_host(packet.port & mask),
            };
            PolicyEntry::from_bytes(&entries.get(key.to_bytes().as_slice())?.bytes)
        })
    };
    let found = [lookup(identity), lookup(0)];
    found.iter().flatten().all(|e| !e.deny()) && found.iter().any(Option::is_some)
}
