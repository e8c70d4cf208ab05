//! The pure step that stands in for Kubernetes' controllers: workloads become pods, pods get nodes, addresses,
//! endpoints and identities, and every change of an object becomes steps for the agents.

use crate::change::{ContainerPort, Identity, Labels, NodeInfo, PodKey, Step};
use crate::policy::{Policy, PolicyKey};
use ipnet::Ipv4Net;
use skep_manifest::{Errors, Key, Loaded};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// A node as a scenario describes it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeEntry {
    /// Its name.
    pub name: String,
    /// Its address, if the scenario says.
    pub address: Option<Ipv4Addr>,
    /// Where its pods' addresses come from, if the scenario says.
    pub pod_cidr: Option<Ipv4Net>,
}

/// A pod.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PodInfo {
    /// Its name.
    pub key: PodKey,
    /// Its node.
    pub node: String,
    /// Its address; with `host_network` the node's.
    pub ip: Ipv4Addr,
    /// Whether it lives in the node's own network namespace.
    pub host_network: bool,
    /// Its endpoint's id; 0 with `host_network`.
    pub endpoint: u16,
    /// Its identity; 1, the host's, with `host_network`.
    pub identity: u32,
    /// Its own labels.
    pub labels: Labels,
    /// Its containers' ports.
    pub ports: Vec<ContainerPort>,
}

/// The cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
}

impl Cluster {
    /// Builds a cluster from a scenario's nodes and objects. The steps are for agents that know nothing yet, and end
    /// with [`crate::Change::Synced`].
    pub fn build(nodes: &[NodeEntry], objects: &[Loaded]) -> Result<(Self, Vec<Step>), Errors> {
        let _ = (nodes, objects);
        todo!()
    }
    /// Creates or replaces objects. If anything is wrong with any of them, nothing changes.
    pub fn apply(&mut self, objects: &[Loaded]) -> Result<Vec<Step>, Errors> {
        let _ = objects;
        todo!()
    }
    /// Deletes the objects with these objects' names.
    pub fn delete(&mut self, objects: &[Loaded]) -> Result<Vec<Step>, Errors> {
        let _ = objects;
        todo!()
    }
    /// Deletes an object.
    pub fn delete_key(&mut self, key: &Key) -> Result<Vec<Step>, Errors> {
        let _ = key;
        todo!()
    }
    /// Gives a pod other labels: `Some` sets one, `None` removes it.
    pub fn relabel(&mut self, pod: &PodKey, labels: &BTreeMap<String, Option<String>>) -> Result<Vec<Step>, Errors> {
        let _ = (pod, labels);
        todo!()
    }
    /// What a new agent of this node must be told; ends with [`crate::Change::Synced`]. All steps are for it alone.
    pub fn replay(&self, node: &str) -> Vec<Step> {
        let _ = node;
        todo!()
    }
    /// Nodes in order of their names.
    pub fn nodes(&self) -> &BTreeMap<String, NodeInfo> {
        todo!()
    }
    /// Pods in order of their names.
    pub fn pods(&self) -> &BTreeMap<PodKey, PodInfo> {
        todo!()
    }
    /// Policies in order of their names.
    pub fn policies(&self) -> &BTreeMap<PolicyKey, Arc<Policy>> {
        todo!()
    }
    /// Identities in order of their numbers.
    pub fn identities(&self) -> Vec<Identity> {
        todo!()
    }
}
