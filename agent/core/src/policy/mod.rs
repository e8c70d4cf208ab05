//! NetworkPolicies in the form that agents get them: every default resolved, every rule with its place in the file.
//!
//! Reads objects ([`read`]) and compiles them for a subject ([`compile`]). Knows neither maps nor nodes.

pub(crate) mod compile;
pub(crate) mod ports;
pub(crate) mod read;
mod selector;

pub use compile::{Context, Decision, EntryKey, Origin, PolicyMap, compile};
pub use read::read;
pub use selector::{Operator, Requirement, Selector};

use crate::change::{IdentityLabels, Protocol};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Names a policy.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct PolicyKey {
    /// The namespace.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Which way a packet goes, seen from the pod that the policy is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Direction {
    /// To the pod.
    Ingress,
    /// From the pod.
    Egress,
}

impl Direction {
    /// Both.
    pub const ALL: [Direction; 2] = [Direction::Ingress, Direction::Egress];

    /// The API's word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// A policy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Policy {
    /// Its name.
    pub key: PolicyKey,
    /// The pods of its namespace that it is about.
    pub subject: Selector,
    /// The directions that it isolates its pods in (`policyTypes`, defaults resolved).
    pub directions: Vec<Direction>,
    /// What it allows.
    pub rules: Vec<Rule>,
}

impl Policy {
    /// Whether it is about pods of this identity.
    pub fn selects(&self, subject: &IdentityLabels) -> bool {
        subject.namespace == self.key.namespace && self.subject.matches(&subject.labels)
    }
}

/// One item of a policy's `ingress` or `egress`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rule {
    /// Where it stands.
    pub origin: RuleRef,
    /// The other ends it is about; `None` is all of them, an empty list none.
    pub peers: Option<Vec<Peer>>,
    /// The destination ports it is about; `None` is all of all protocols, an empty list none.
    pub ports: Option<Vec<Ports>>,
}

/// Where a rule stands.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct RuleRef {
    /// The policy.
    pub policy: PolicyKey,
    /// The list that the rule is in.
    pub direction: Direction,
    /// Its index in that list, from 0.
    pub index: usize,
    /// The file.
    pub file: String,
    /// The rule's line in it, from 1.
    pub line: u32,
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { policy, direction, index, file, line } = self;
        write!(f, "{policy} {}[{index}] ({file}:{line})", direction.name())
    }
}

/// Another end of a connection.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Peer {
    /// Pods by the labels of their namespace and their own.
    Pods {
        /// The namespaces; `None` is the policy's own.
        namespaces: Option<Selector>,
        /// The pods in them.
        pods: Selector,
    },
    /// Addresses outside the cluster.
    Cidr {
        /// The network.
        cidr: Ipv4Net,
        /// Networks in it that are not meant.
        except: Vec<Ipv4Net>,
    },
}

/// Destination ports of a protocol.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Ports {
    /// The protocol.
    pub protocol: Protocol,
    /// Which.
    pub which: WhichPorts,
}

/// Which ports of a protocol.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum WhichPorts {
    /// All.
    All,
    /// From the first to the second, both included.
    Range(u16, u16),
    /// The one that the destination pod gives this name.
    Named(String),
}
