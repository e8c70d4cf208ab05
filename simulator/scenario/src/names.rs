//! The names that a plan may use: pods and nodes of the manifests that are there at that step.
//!
//! Does not interpret Kubernetes beyond names: a workload's pods are WORKLOAD-0, -1, ..., as in every World.

use crate::world::NodeEntry;
use skep_manifest::{Loaded, Resource};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What is there.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Names {
    /// Nodes.
    pub(crate) nodes: BTreeSet<String>,
    /// Pods as `NAMESPACE/NAME`, with their address if the manifest gives one.
    pub(crate) pods: BTreeMap<String, Option<IpAddr>>,
}

impl Names {
    /// With the nodes of scenario.yaml.
    pub(crate) fn of_nodes(nodes: &[NodeEntry]) -> Self {
        Self { nodes: nodes.iter().map(|n| n.name.clone()).collect(), ..Self::default() }
    }

    /// Adds what manifests define.
    pub(crate) fn add(&mut self, resources: &[Loaded]) {
        // DaemonSets have a pod a node, so nodes come first.
        for loaded in resources {
            if let Resource::Node(_) = loaded.resource {
                self.nodes.insert(loaded.resource.name().to_owned());
            }
        }
        for loaded in resources {
            self.add_one(&loaded.resource);
        }
    }

    /// The one node of a cluster that names none.
    pub(crate) fn or_one_node(&mut self) {
        if self.nodes.is_empty() {
            self.nodes.insert("node-1".to_owned());
        }
    }

    fn add_one(&mut self, resource: &Resource) {
        match resource {
            Resource::Pod(pod) => {
                let ip = pod.status.as_ref().and_then(|s| s.pod_ip.as_deref()).and_then(|ip| ip.parse().ok());
                self.pods.insert(format!("{}/{}", resource.namespace(), resource.name()), ip);
            }
            _ => {
                for i in 0..self.replicas(resource) {
                    self.pods.insert(format!("{}/{}-{i}", resource.namespace(), resource.name()), None);
                }
            }
        }
    }

    /// How many pods a workload has (the API's defaults: one where nothing is written).
    fn replicas(&self, resource: &Resource) -> usize {
        let written = match resource {
            Resource::Deployment(w) => w.spec.as_ref().map(|s| s.replicas),
            Resource::ReplicaSet(w) => w.spec.as_ref().map(|s| s.replicas),
            Resource::ReplicationController(w) => w.spec.as_ref().map(|s| s.replicas),
            Resource::StatefulSet(w) => w.spec.as_ref().map(|s| s.replicas),
            Resource::Job(w) => w.spec.as_ref().map(|s| s.parallelism),
            Resource::DaemonSet(_) => return self.nodes.len(),
            _ => return 0,
        };
        written.flatten().unwrap_or(1).try_into().unwrap_or(0)
    }
}
