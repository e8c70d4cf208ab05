//! Which flows NetworkPolicies allow, and which of their rules say so: the API text of networking.k8s.io/v1, sentence
//! by sentence, without any table made beforehand.
//!
//! Both ends are asked: the source's policies of type Egress and the destination's of type Ingress. This is about the
//! first packet of a connection; replies belong to it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use skep_manifest::k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use skep_manifest::k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use skep_manifest::{Loaded, Location, Resource};

use crate::cluster::{Cluster, Pod, PodName};
use crate::select::selects;

/// What a packet carries. Policies name TCP and UDP; anything else passes only where no ports are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP, which is also what a port without a protocol means.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP; it has no ports.
    Icmp,
}

impl Protocol {
    /// As the API names it; none is TCP. None for what is not TCP or UDP.
    pub(crate) fn named(name: Option<&str>) -> Option<Protocol> {
        match name {
            None | Some("TCP") => Some(Protocol::Tcp),
            Some("UDP") => Some(Protocol::Udp),
            Some(_) => None,
        }
    }
}

/// One end of a flow.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// A pod by name.
    Pod(PodName),
    /// An address: a pod's, a node's, or one outside the cluster.
    Address(Ipv4Addr),
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// Who opens it.
    pub source: Peer,
    /// Who is asked.
    pub destination: Peer,
    /// What it is.
    pub protocol: Protocol,
    /// The destination's port; 0 for ICMP.
    pub port: u16,
}

/// A rule that allows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// The policy, as NAMESPACE/NAME.
    pub policy: String,
    /// The rule's path in it, as `spec.ingress[0]`.
    pub path: String,
    /// Where it is written.
    pub location: Location,
}

/// What one end says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Policies say nothing about this end: it is no pod, or a pod in its node's network.
    NoPod,
    /// No policy isolates the pod in this direction.
    NotIsolated,
    /// The pod talks to itself, which no policy can prevent.
    Itself,
    /// The packet comes from the pod's own node, which no policy can prevent.
    OwnNode,
    /// These rules allow it.
    Allowed(Vec<Rule>),
    /// These policies isolate the pod, and none of their rules allows it: NAMESPACE/NAME each.
    Denied(Vec<String>),
}

impl Decision {
    /// Whether the packet passes.
    pub fn allows(&self) -> bool {
        !matches!(self, Decision::Denied(_))
    }
}

/// What both ends say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The source's policies.
    pub egress: Decision,
    /// The destination's policies.
    pub ingress: Decision,
}

impl Answer {
    /// Whether the flow comes about.
    pub fn allows(&self) -> bool {
        self.egress.allows() && self.ingress.allows()
    }
}

/// The flow names a pod that no object describes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownPod(pub PodName);

impl fmt::Display for UnknownPod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no pod {}", self.0)
    }
}

impl std::error::Error for UnknownPod {}

/// The API text, applied to some objects.
#[derive(Debug, Clone)]
pub struct Oracle {
    cluster: Cluster,
    policies: Vec<Loaded>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Ingress,
    Egress,
}

/// An end of a flow, resolved.
#[derive(Clone, Copy)]
enum End<'a> {
    Pod(&'a Pod),
    /// A node or a pod in its network; the name is unknown when the pod is not placed yet.
    Node(Option<&'a str>),
    Outside(Ipv4Addr),
}

impl Oracle {
    /// Reads the objects. Pods, workloads, namespaces, nodes and policies count; all else is left aside. Give the Pods
    /// that stand for workloads with their addresses, or the workloads alone if addresses do not matter.
    pub fn new(loaded: &[Loaded]) -> Oracle {
        let is_policy = |l: &&Loaded| matches!(l.resource, Resource::NetworkPolicy(_));
        let mut policies: Vec<Loaded> = loaded.iter().filter(is_policy).cloned().collect();
        policies.sort_by_key(Loaded::key);
        Oracle { cluster: Cluster::new(loaded), policies }
    }

    /// Says where a pod runs and which address it has, when no object does: what stands in for the scheduler decided.
    pub fn place(&mut self, pod: &PodName, node: &str, address: Ipv4Addr) -> Result<(), UnknownPod> {
        let pod = self.cluster.pods.get_mut(pod).ok_or_else(|| UnknownPod(pod.clone()))?;
        (pod.node, pod.address) = (Some(node.to_owned()), Some(address));
        Ok(())
    }

    /// Adds an address of a node that no Node object has.
    pub fn add_node(&mut self, name: &str, address: Ipv4Addr) {
        self.cluster.nodes.insert(address, name.to_owned());
    }

    /// The pods, by namespace and name.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.cluster.pods.values()
    }

    /// What the policies of both ends say about a flow.
    pub fn allows(&self, flow: &Flow) -> Result<Answer, UnknownPod> {
        let (source, destination) = (self.end(&flow.source)?, self.end(&flow.destination)?);
        if let (End::Pod(a), End::Pod(b)) = (source, destination)
            && a.name == b.name
        {
            return Ok(Answer { egress: Decision::Itself, ingress: Decision::Itself });
        }
        let egress = match source {
            End::Pod(pod) => self.decide(Direction::Egress, pod, destination, destination, flow),
            _ => Decision::NoPod,
        };
        let ingress = match destination {
            End::Pod(pod) => match source {
                End::Node(Some(node)) if pod.node.as_deref() == Some(node) => Decision::OwnNode,
                _ => self.decide(Direction::Ingress, pod, source, destination, flow),
            },
            _ => Decision::NoPod,
        };
        Ok(Answer { egress, ingress })
    }

    fn end(&self, peer: &Peer) -> Result<End<'_>, UnknownPod> {
        let pod = match peer {
            Peer::Pod(name) => self.cluster.pods.get(name).ok_or_else(|| UnknownPod(name.clone()))?,
            Peer::Address(address) => {
                // A pod in its node's network has the node's address.
                if let Some(node) = self.cluster.nodes.get(address) {
                    return Ok(End::Node(Some(node)));
                }
                match self.cluster.pods.values().find(|pod| pod.address == Some(*address)) {
                    Some(pod) => pod,
                    None => return Ok(End::Outside(*address)),
                }
            }
        };
        Ok(if pod.host_network { End::Node(pod.node.as_deref()) } else { End::Pod(pod) })
    }

    /// `pod` is the one whose policies are asked, `other` the other end, `destination` the end that has the port.
    fn decide(
        &self,
        direction: Direction,
        pod: &Pod,
        other: End<'_>,
        destination: End<'_>,
        flow: &Flow,
    ) -> Decision {
        let (mut isolating, mut allowing) = (Vec::new(), Vec::new());
        for loaded in &self.policies {
            let Resource::NetworkPolicy(policy) = &loaded.resource else { continue };
            let Some(spec) = policy.spec.as_ref().filter(|spec| self.isolates(policy, spec, direction, pod))
            else {
                continue;
            };
            let name = format!("{}/{}", loaded.resource.namespace(), loaded.resource.name());
            for (n, (peers, ports)) in rules(spec, direction).into_iter().enumerate() {
                if self.has_peer(peers, loaded.resource.namespace(), other)
                    && has_port(ports, destination, flow)
                {
                    let path = match direction {
                        Direction::Ingress => format!("spec.ingress[{n}]"),
                        Direction::Egress => format!("spec.egress[{n}]"),
                    };
                    let location = loaded.source.at(&path);
                    allowing.push(Rule { policy: name.clone(), path, location });
                }
            }
            isolating.push(name);
        }
        match (isolating.is_empty(), allowing.is_empty()) {
            (true, _) => Decision::NotIsolated,
            (false, true) => Decision::Denied(isolating),
            (false, false) => Decision::Allowed(allowing),
        }
    }

    /// Whether a policy selects the pod and is of this type.
    fn isolates(
        &self,
        policy: &NetworkPolicy,
        spec: &NetworkPolicySpec,
        direction: Direction,
        pod: &Pod,
    ) -> bool {
        let namespace = policy.metadata.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or("default");
        let selector = spec.pod_selector.clone().unwrap_or_default();
        pod.name.namespace == namespace && has_type(spec, direction) && selects(&selector, &pod.labels)
    }

    /// No list, or an empty one, is everybody.
    fn has_peer(&self, peers: &[NetworkPolicyPeer], namespace: &str, other: End<'_>) -> bool {
        peers.is_empty() || peers.iter().any(|peer| self.is_peer(peer, namespace, other))
    }

    fn is_peer(&self, peer: &NetworkPolicyPeer, namespace: &str, other: End<'_>) -> bool {
        match (other, &peer.ip_block) {
            (End::Outside(address), Some(block)) => in_block(block, address),
            (End::Pod(pod), None) => {
                let in_namespace = match &peer.namespace_selector {
                    Some(selector) => {
                        let none = BTreeMap::new();
                        let labels = self.cluster.namespaces.get(&pod.name.namespace).unwrap_or(&none);
                        selects(selector, labels)
                    }
                    // Without it the pods of the policy's own namespace are meant.
                    None => peer.pod_selector.is_some() && pod.name.namespace == namespace,
                };
                in_namespace
                    && peer.pod_selector.as_ref().is_none_or(|selector| selects(selector, &pod.labels))
            }
            _ => false,
        }
    }
}

/// The policy types, or their default: Ingress, and Egress if there are egress rules.
fn has_type(spec: &NetworkPolicySpec, direction: Direction) -> bool {
    let types = spec.policy_types.as_deref().unwrap_or_default();
    match direction {
        Direction::Ingress => types.is_empty() || types.iter().any(|t| t == "Ingress"),
        Direction::Egress if types.is_empty() => spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
        Direction::Egress => types.iter().any(|t| t == "Egress"),
    }
}

type Parts<'a> = (&'a [NetworkPolicyPeer], &'a [NetworkPolicyPort]);

fn rules(spec: &NetworkPolicySpec, direction: Direction) -> Vec<Parts<'_>> {
    match direction {
        Direction::Ingress => {
            let rules = spec.ingress.iter().flatten();
            rules
                .map(|r| (r.from.as_deref().unwrap_or_default(), r.ports.as_deref().unwrap_or_default()))
                .collect()
        }
        Direction::Egress => {
            let rules = spec.egress.iter().flatten();
            rules
                .map(|r| (r.to.as_deref().unwrap_or_default(), r.ports.as_deref().unwrap_or_default()))
                .collect()
        }
    }
}

/// No list, or an empty one, is every port and every protocol.
fn has_port(ports: &[NetworkPolicyPort], destination: End<'_>, flow: &Flow) -> bool {
    ports.is_empty() || ports.iter().any(|port| is_port(port, destination, flow))
}

fn is_port(port: &NetworkPolicyPort, destination: End<'_>, flow: &Flow) -> bool {
    if Protocol::named(port.protocol.as_deref()) != Some(flow.protocol) {
        return false;
    }
    match &port.port {
        None => true,
        Some(IntOrString::Int(first)) => {
            let last = port.end_port.unwrap_or(*first);
            (*first..=last).contains(&i32::from(flow.port))
        }
        // A name means what the destination's containers say: another pod may give it another number.
        Some(IntOrString::String(name)) => match destination {
            End::Pod(pod) => pod
                .ports
                .iter()
                .any(|port| port.name == *name && port.protocol == flow.protocol && port.number == flow.port),
            _ => false,
        },
    }
}

fn in_block(block: &IPBlock, address: Ipv4Addr) -> bool {
    // A range of IPv6 holds no IPv4 address.
    let holds = |range: &String| range.parse::<Ipv4Net>().is_ok_and(|range| range.contains(&address));
    holds(&block.cidr) && !block.except.iter().flatten().any(holds)
}
