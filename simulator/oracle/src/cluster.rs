//! Pods, namespaces and nodes as the API describes them, with the labels that Kubernetes itself adds.
//!
//! Workloads stand for pods named WORKLOAD-0, WORKLOAD-1, ... without an address; a Pod of that name in the input is
//! taken instead.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;

use skep_manifest::k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use skep_manifest::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use skep_manifest::{Key, Loaded, Resource};

use crate::policy::Protocol;
use crate::select::Labels;

/// A pod's namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodName {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl PodName {
    /// A name from its parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> PodName {
        PodName { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A container's port with a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// The name that a policy may use.
    pub name: String,
    /// The protocol; TCP where none is given.
    pub protocol: Protocol,
    /// The number.
    pub number: u16,
}

/// A pod as policies see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// What it is called.
    pub name: PodName,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// `status.podIP`, if given.
    pub address: Option<Ipv4Addr>,
    /// `spec.nodeName`, if given.
    pub node: Option<String>,
    /// In the node's own network: no policy selects it, and its traffic is the node's.
    pub host_network: bool,
    /// Its containers' ports that have names.
    pub ports: Vec<Port>,
}

/// What the objects say, by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cluster {
    pub(crate) pods: BTreeMap<PodName, Pod>,
    pub(crate) namespaces: BTreeMap<String, Labels>,
    /// A node's addresses: none may be shared.
    pub(crate) nodes: BTreeMap<Ipv4Addr, String>,
}

impl Cluster {
    pub(crate) fn new(loaded: &[Loaded]) -> Cluster {
        let mut cluster = Cluster::default();
        let owned_by = owners(loaded);
        let nodes = loaded.iter().filter(|l| matches!(l.resource, Resource::Node(_))).count();
        for Loaded { resource, .. } in loaded {
            match resource {
                Resource::Namespace(_) => {
                    let labels = resource.metadata().labels.clone().unwrap_or_default();
                    cluster.namespaces.insert(resource.name().to_owned(), labels);
                }
                Resource::Node(node) => {
                    let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
                    for address in addresses.filter(|a| a.type_ == "InternalIP" || a.type_ == "ExternalIP") {
                        if let Ok(address) = address.address.parse() {
                            cluster.nodes.insert(address, resource.name().to_owned());
                        }
                    }
                }
                Resource::Pod(pod) => {
                    let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()?.parse().ok());
                    let name = PodName::new(resource.namespace(), resource.name());
                    let labels = resource.metadata().labels.clone().unwrap_or_default();
                    let pod = Pod { address, ..from_spec(name.clone(), labels, pod.spec.as_ref()) };
                    cluster.pods.insert(name, pod);
                }
                workload => {
                    if let Some((_, template)) = workload.template()
                        && !owned_by.contains(&workload.key())
                    {
                        cluster.add_workload(workload, template, nodes);
                    }
                }
            }
        }
        for pod in cluster.pods.values() {
            cluster.namespaces.entry(pod.name.namespace.clone()).or_default();
        }
        for (name, labels) in &mut cluster.namespaces {
            // The API server gives every namespace this label.
            labels.insert("kubernetes.io/metadata.name".to_owned(), name.clone());
        }
        cluster
    }

    fn add_workload(&mut self, workload: &Resource, template: &PodTemplateSpec, nodes: usize) {
        for n in 0..replicas(workload, nodes) {
            let name = PodName::new(workload.namespace(), format!("{}-{n}", workload.name()));
            let labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
            let pod = from_spec(name.clone(), labels, template.spec.as_ref());
            // A Pod of this name, before or after in the input, says more: it has the address.
            self.pods.entry(name).or_insert(pod);
        }
    }
}

/// How many pods a workload makes, by the API's defaults.
fn replicas(workload: &Resource, nodes: usize) -> usize {
    let count = |n: Option<i32>| usize::try_from(n.unwrap_or(1)).unwrap_or(0);
    match workload {
        Resource::Deployment(w) => count(w.spec.as_ref().and_then(|spec| spec.replicas)),
        Resource::ReplicaSet(w) => count(w.spec.as_ref().and_then(|spec| spec.replicas)),
        Resource::ReplicationController(w) => count(w.spec.as_ref().and_then(|spec| spec.replicas)),
        Resource::StatefulSet(w) => count(w.spec.as_ref().and_then(|spec| spec.replicas)),
        Resource::DaemonSet(_) => nodes.max(1),
        Resource::Job(w) => {
            let spec = w.spec.as_ref();
            if spec.is_some_and(|spec| spec.suspend == Some(true)) {
                return 0;
            }
            let wanted = count(spec.and_then(|spec| spec.parallelism));
            spec.and_then(|spec| spec.completions).map_or(wanted, |all| wanted.min(count(Some(all))))
        }
        Resource::CronJob(w) => usize::from(w.spec.as_ref().is_some_and(|spec| spec.suspend != Some(true))),
        _ => 0,
    }
}

/// Objects that another object of the input makes, and makers of which the input has what they made.
fn owners(loaded: &[Loaded]) -> BTreeSet<Key> {
    let here: BTreeSet<Key> = loaded.iter().map(Loaded::key).collect();
    let mut either = BTreeSet::new();
    for Loaded { resource, .. } in loaded {
        let owner = controller(resource.metadata());
        let Some((kind, name)) = owner else { continue };
        let key = here
            .iter()
            .find(|key| key.kind == kind && key.name == name && key.namespace == resource.namespace());
        let Some(owner) = key else { continue };
        match resource {
            Resource::Pod(_) => either.insert(owner.clone()),
            made => either.insert(made.key()),
        };
    }
    either
}

fn controller(meta: &ObjectMeta) -> Option<(&str, &str)> {
    let mut owners = meta.owner_references.iter().flatten();
    owners
        .find(|owner| owner.controller == Some(true))
        .map(|owner| (owner.kind.as_str(), owner.name.as_str()))
}

fn from_spec(name: PodName, labels: Labels, spec: Option<&PodSpec>) -> Pod {
    let containers = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let ports = containers.iter().flat_map(|container| container.ports.iter().flatten()).filter_map(|port| {
        let protocol = Protocol::named(port.protocol.as_deref())?;
        Some(Port { name: port.name.clone()?, protocol, number: u16::try_from(port.container_port).ok()? })
    });
    Pod {
        name,
        labels,
        address: None,
        node: spec.and_then(|spec| spec.node_name.clone()).filter(|node| !node.is_empty()),
        host_network: spec.and_then(|spec| spec.host_network) == Some(true),
        ports: ports.collect(),
    }
}
