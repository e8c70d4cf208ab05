//! What the agents are told: the cluster's state in the form that they use, and what a kubelet asks of one of them.

use crate::policy::{Policy, PolicyKey};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// A set of labels by key.
pub type Labels = BTreeMap<String, String>;

/// Names a pod.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodKey {
    /// The namespace.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl PodKey {
    /// The pod of a namespace and a name.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// Reads `NAMESPACE/NAME`, or `NAME` in the namespace `default`.
    pub fn parse(text: &str) -> Option<Self> {
        let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
        (!namespace.is_empty() && !name.is_empty() && !name.contains('/')).then(|| Self::new(namespace, name))
    }
}

impl fmt::Display for PodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for PodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A node of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its name.
    pub name: String,
    /// Its address, where other nodes tunnel to.
    pub address: Ipv4Addr,
    /// Where its pods' addresses come from.
    pub pod_cidr: Ipv4Net,
}

impl NodeInfo {
    /// The pods' gateway, skep_host's address: the first one of the podCIDR.
    pub fn router(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.pod_cidr.network()).wrapping_add(1))
    }
}

/// A transport protocol of policies and container ports, with IANA's number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[repr(u8)]
pub enum Protocol {
    /// TCP.
    Tcp = 6,
    /// UDP.
    Udp = 17,
    /// SCTP.
    Sctp = 132,
}

impl Protocol {
    /// From the API's name; TCP if there is none.
    pub fn from_api(name: Option<&str>) -> Option<Self> {
        Some(match name.unwrap_or("TCP") {
            "TCP" => Self::Tcp,
            "UDP" => Self::Udp,
            "SCTP" => Self::Sctp,
            _ => return None,
        })
    }

    /// The API's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

/// A container's port.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ContainerPort {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its number.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

/// The numbers of named ports.
pub type NamedPorts = BTreeMap<(String, Protocol), u16>;

/// What policy sees of a pod: pods that agree in all of it share an identity.
///
/// Named ports belong to it, since a policy about a named port must tell pods apart that number it differently; in
/// Cilium they do not, and such a policy opens the ports of all of them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct IdentityLabels {
    /// The pod's namespace.
    pub namespace: String,
    /// The namespace's labels.
    pub namespace_labels: Labels,
    /// The pod's service account.
    pub service_account: String,
    /// The pod's own labels.
    pub labels: Labels,
    /// The pod's named ports.
    #[serde(with = "pairs")]
    pub named_ports: NamedPorts,
}

impl IdentityLabels {
    /// The labels as Cilium prints an identity's, `k8s:KEY=VALUE` in order.
    pub fn text(&self) -> Vec<String> {
        let mut all: Vec<String> = self.labels.iter().map(|(k, v)| format!("k8s:{k}={v}")).collect();
        all.extend(
            self.namespace_labels.iter().map(|(k, v)| format!("k8s:io.cilium.k8s.namespace.labels.{k}={v}")),
        );
        all.push("k8s:io.cilium.k8s.policy.cluster=default".to_owned());
        all.push(format!("k8s:io.cilium.k8s.policy.serviceaccount={}", self.service_account));
        all.push(format!("k8s:io.kubernetes.pod.namespace={}", self.namespace));
        all.sort();
        all
    }
}

/// An identity of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// Its number, from 256.
    pub id: u32,
    /// Whom it stands for.
    pub labels: Arc<IdentityLabels>,
}

/// A pod as every agent sees it (Cilium's CiliumEndpoint). Pods in the node's own network namespace are not told.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PodAt {
    /// Its name.
    pub key: PodKey,
    /// Its address.
    pub ip: Ipv4Addr,
    /// The node that it runs on.
    pub node: String,
    /// Its identity.
    pub identity: u32,
}

/// A change of the cluster's state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Change {
    /// A node is there, or is another than before.
    Node(NodeInfo),
    /// A node is gone.
    NodeGone(String),
    /// An identity is there. Its number means these labels until it is gone.
    Identity(Identity),
    /// An identity is gone.
    IdentityGone(u32),
    /// A pod is there, or is another than before.
    Pod(PodAt),
    /// A pod is gone.
    PodGone(PodKey),
    /// A policy is there, or is another than before.
    Policy(Arc<Policy>),
    /// A policy is gone.
    PolicyGone(PolicyKey),
    /// Everything that there was when the agent began has been told: from here on it may remove what it was not
    /// told of (the end of Kubernetes' initial list).
    Synced,
}

/// What a kubelet asks of its node's agent, through the CNI plugin.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Connect a pod's namespace to the network.
    Add(EndpointRequest),
    /// Disconnect it.
    Delete {
        /// The endpoint's id.
        endpoint: u16,
    },
}

/// A pod's namespace that is to be connected.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EndpointRequest {
    /// The endpoint's id, unique on its node: its slot in `skep_call_policy`.
    pub endpoint: u16,
    /// The pod.
    pub pod: PodKey,
    /// Its address.
    pub ip: Ipv4Addr,
    /// The name of its network namespace ([`crate::Netns::Pod`]).
    pub netns: String,
}

/// One step of what a change of the cluster's objects means for its agents, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// [`crate::Event::Resource`] to every agent.
    Broadcast(Change),
    /// [`crate::Event::Endpoint`] to the agent of a node.
    Kubelet {
        /// The node.
        node: String,
        /// What its kubelet asks.
        request: Request,
    },
}

/// Named ports as a list: not every format takes keys that are no text.
mod pairs {
    use super::NamedPorts;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(ports: &NamedPorts, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(ports)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<NamedPorts, D::Error> {
        Vec::deserialize(from).map(|all| all.into_iter().collect())
    }
}
