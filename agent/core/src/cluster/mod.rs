//! The pure step that stands in for Kubernetes' controllers: workloads become pods, pods get nodes, addresses,
//! endpoints and identities, and every change of an object becomes steps for the agents.
//!
//! What an object means is derived anew from all objects at every change. What was given to a pod before stays its
//! own: node, address, endpoint, identity.

mod given;
mod nodes;
mod pods;

pub use given::{Given, GivenPod};

use crate::change::{
    Change, ContainerPort, EndpointRequest, Identity, IdentityLabels, Labels, NodeInfo, PodAt, PodKey,
    Request, Step,
};
use crate::policy::{self, Policy, PolicyKey};
use ipnet::Ipv4Net;
use skep_abi::identity::{CLUSTER_MAX, CLUSTER_MIN};
use skep_manifest::{Error, Errors, Key, Loaded, Resource};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

/// The file that errors about a scenario's own nodes name.
const SCENARIO: &str = "scenario.yaml";

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
    /// Whether it lives in the node's own network namespace, and so has neither endpoint nor identity.
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

impl PodInfo {
    /// The name of its network namespace ([`crate::Netns::Pod`]).
    pub fn netns(&self) -> String {
        self.key.to_string()
    }

    fn at(&self) -> PodAt {
        PodAt { key: self.key.clone(), ip: self.ip, node: self.node.clone(), identity: self.identity }
    }

    fn request(&self) -> EndpointRequest {
        EndpointRequest { endpoint: self.endpoint, pod: self.key.clone(), ip: self.ip, netns: self.netns() }
    }

    /// Whether both are the same connection to the network: if not, the endpoint is made anew.
    fn same_endpoint(&self, other: &Self) -> bool {
        (&self.node, self.ip, self.endpoint, self.host_network)
            == (&other.node, other.ip, other.endpoint, other.host_network)
    }
}

/// What the objects mean.
#[derive(Clone, Debug, Default)]
struct State {
    nodes: BTreeMap<String, NodeInfo>,
    /// The nodes' names in the order in which pods are spread over them.
    node_order: Vec<String>,
    pods: BTreeMap<PodKey, PodInfo>,
    identities: BTreeMap<u32, Arc<IdentityLabels>>,
    policies: BTreeMap<PolicyKey, Arc<Policy>>,
    /// How many pods that no workload made and no nodeName placed have been given a node.
    spread: usize,
}

/// Labels that a pod was given by hand: `None` takes one away.
type Relabelled = BTreeMap<PodKey, BTreeMap<String, Option<String>>>;

/// The cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    entries: Vec<NodeEntry>,
    /// In the order in which they came.
    objects: Vec<Loaded>,
    relabelled: Relabelled,
    state: State,
}

impl Cluster {
    /// Builds a cluster from a scenario's nodes and objects. The steps are for agents that know nothing yet, and end
    /// with [`Change::Synced`].
    pub fn build(nodes: &[NodeEntry], objects: &[Loaded]) -> Result<(Self, Vec<Step>), Errors> {
        let empty = Self {
            entries: nodes.to_vec(),
            objects: Vec::new(),
            relabelled: Relabelled::new(),
            state: State::default(),
        };
        let mut cluster = empty.clone();
        let mut steps = cluster.change(objects, empty.relabelled)?;
        steps.push(Step::Broadcast(Change::Synced));
        Ok((cluster, steps))
    }

    /// As [`Cluster::build`], where pods keep what they were given before, as far as it still holds.
    ///
    /// # Errors
    ///
    /// All that is wrong with the objects.
    pub fn resume(
        given: &Given,
        nodes: &[NodeEntry],
        objects: &[Loaded],
    ) -> Result<(Self, Vec<Step>), Errors> {
        let mut cluster = Self {
            entries: nodes.to_vec(),
            objects: Vec::new(),
            relabelled: Relabelled::new(),
            state: given.state(),
        };
        cluster.change(objects, Relabelled::new())?;
        let mut told = steps(&State::default(), &cluster.state);
        told.push(Step::Broadcast(Change::Synced));
        Ok((cluster, told))
    }

    /// What pods were given so far.
    pub fn given(&self) -> Given {
        Given::from(&self.state)
    }

    /// Makes these all the objects that there are. If anything is wrong with any of them, nothing changes.
    ///
    /// # Errors
    ///
    /// All that is wrong with the objects.
    pub fn replace(&mut self, objects: &[Loaded]) -> Result<Vec<Step>, Errors> {
        self.change(objects, Relabelled::new())
    }

    /// Creates or replaces objects. If anything is wrong with any of them, nothing changes.
    pub fn apply(&mut self, objects: &[Loaded]) -> Result<Vec<Step>, Errors> {
        let mut all = self.objects.clone();
        let mut relabelled = self.relabelled.clone();
        let mut errors = Errors::default();
        let mut seen = BTreeMap::new();
        for object in objects {
            let key = object.key();
            if let Some(first) = seen.insert(key.clone(), object) {
                errors.0.push(declared_twice(first, object));
            }
            relabelled.retain(|pod, _| !made_by(&self.state, pod, &key));
            match all.iter_mut().find(|o| o.key() == key) {
                Some(there) => *there = object.clone(),
                None => all.push(object.clone()),
            }
        }
        errors.or(())?;
        self.change(&all, relabelled)
    }

    /// Deletes the objects with these objects' names.
    pub fn delete(&mut self, objects: &[Loaded]) -> Result<Vec<Step>, Errors> {
        let mut errors = Errors::default();
        for object in objects {
            let key = object.key();
            if !self.objects.iter().any(|o| o.key() == key) {
                errors.0.push(object.source.error("metadata.name", no_such(&key)));
            }
        }
        errors.or(())?;
        self.delete_keys(&objects.iter().map(Loaded::key).collect())
    }

    /// Deletes an object.
    pub fn delete_key(&mut self, key: &Key) -> Result<Vec<Step>, Errors> {
        if !self.objects.iter().any(|o| o.key() == *key) {
            return Err(Error::of_file(SCENARIO, no_such(key)).into());
        }
        self.delete_keys(&BTreeSet::from([key.clone()]))
    }

    fn delete_keys(&mut self, keys: &BTreeSet<Key>) -> Result<Vec<Step>, Errors> {
        let rest: Vec<Loaded> = self.objects.iter().filter(|o| !keys.contains(&o.key())).cloned().collect();
        self.change(&rest, self.relabelled.clone())
    }

    /// Gives a pod other labels: `Some` sets one, `None` takes it away. They last until the pod's object is applied
    /// again.
    pub fn relabel(
        &mut self,
        pod: &PodKey,
        labels: &BTreeMap<String, Option<String>>,
    ) -> Result<Vec<Step>, Errors> {
        if !self.state.pods.contains_key(pod) {
            let known: Vec<String> = self.state.pods.keys().map(ToString::to_string).collect();
            let error = Error::of_file(SCENARIO, format!("there is no pod {pod}"));
            return Err(error.help(format!("the pods are {}", known.join(", "))).into());
        }
        let mut relabelled = self.relabelled.clone();
        relabelled.entry(pod.clone()).or_default().extend(labels.clone());
        self.change(&self.objects.clone(), relabelled)
    }

    /// What a new agent of this node must be told; ends with [`Change::Synced`]. All steps are for it alone.
    pub fn replay(&self, node: &str) -> Vec<Step> {
        let mut steps = steps(&State::default(), &self.state);
        steps.retain(|s| !matches!(s, Step::Kubelet { node: n, .. } if n != node));
        steps.push(Step::Broadcast(Change::Synced));
        steps
    }

    /// Nodes by name.
    pub fn nodes(&self) -> &BTreeMap<String, NodeInfo> {
        &self.state.nodes
    }

    /// Pods by name.
    pub fn pods(&self) -> &BTreeMap<PodKey, PodInfo> {
        &self.state.pods
    }

    /// Policies by name.
    pub fn policies(&self) -> &BTreeMap<PolicyKey, Arc<Policy>> {
        &self.state.policies
    }

    /// Identities in order of their numbers.
    pub fn identities(&self) -> Vec<Identity> {
        let identities = self.state.identities.iter();
        identities.map(|(&id, labels)| Identity { id, labels: labels.clone() }).collect()
    }

    /// Derives what these objects mean, and the steps that lead there.
    fn change(&mut self, objects: &[Loaded], relabelled: Relabelled) -> Result<Vec<Step>, Errors> {
        let state = derive(&self.entries, objects, &relabelled, &self.state)?;
        let steps = steps(&self.state, &state);
        self.relabelled = relabelled.into_iter().filter(|(pod, _)| state.pods.contains_key(pod)).collect();
        self.objects = objects.to_vec();
        self.state = state;
        Ok(steps)
    }
}

fn no_such(key: &Key) -> String {
    format!("there is no {key}")
}

fn declared_twice(first: &Loaded, second: &Loaded) -> Error {
    let message = format!("{} is declared a second time", second.key());
    let help = format!("it is declared at {}; name one of them otherwise", first.source.location());
    second.source.error("metadata.name", message).help(help)
}

/// Whether a pod is, or was made by, the object of this key.
fn made_by(state: &State, pod: &PodKey, key: &Key) -> bool {
    if pod.namespace != key.namespace || !state.pods.contains_key(pod) {
        return false;
    }
    match key.kind {
        "Pod" => pod.name == key.name,
        "NetworkPolicy" => false,
        _ => {
            pod.name.rsplit_once('-').is_some_and(|(owner, n)| owner == key.name && n.parse::<u32>().is_ok())
        }
    }
}

/// What objects mean, where what was given `before` stays given.
fn derive(
    entries: &[NodeEntry],
    objects: &[Loaded],
    relabelled: &Relabelled,
    before: &State,
) -> Result<State, Errors> {
    let mut errors = Errors::default();
    let mut seen = BTreeMap::new();
    for object in objects {
        if let Some(first) = seen.insert(object.key(), object) {
            errors.0.push(declared_twice(first, object));
        }
    }
    let (nodes, node_order) = nodes::nodes(entries, objects, &mut errors);
    errors.clone().or(())?;

    let mut state = State { nodes, node_order, spread: before.spread, ..State::default() };
    let drafts = pods::drafts(objects, &state.node_order, &mut errors);
    pods::place(&drafts, before, &mut state, &mut errors);
    namespaces_and_identities(&drafts, objects, relabelled, before, &mut state, &mut errors);
    for object in objects {
        if let Resource::NetworkPolicy(api) = &object.resource {
            match policy::read(object.resource.namespace(), api, &object.source) {
                Ok(policy) => {
                    state.policies.insert(policy.key.clone(), Arc::new(policy));
                }
                Err(e) => errors.extend(e),
            }
        }
    }
    errors.or(state)
}

/// The labels that every namespace has beside those that its object gives it.
fn namespace_labels(name: &str, object: Option<&Loaded>) -> Labels {
    let mut labels = object.and_then(|o| o.resource.metadata().labels.clone()).unwrap_or_default();
    labels.insert("kubernetes.io/metadata.name".to_owned(), name.to_owned());
    labels
}

/// Gives every pod its labels and its identity: that of the same labels before, else the lowest free number.
fn namespaces_and_identities(
    drafts: &[pods::Draft<'_>],
    objects: &[Loaded],
    relabelled: &Relabelled,
    before: &State,
    state: &mut State,
    errors: &mut Errors,
) {
    let mut numbers: BTreeMap<Arc<IdentityLabels>, u32> =
        before.identities.iter().map(|(id, l)| (l.clone(), *id)).collect();
    let mut taken: BTreeSet<u32> = before.identities.keys().copied().collect();
    for draft in drafts {
        let Some(pod) = state.pods.get_mut(&draft.key) else { continue };
        for (key, value) in relabelled.get(&draft.key).into_iter().flatten() {
            match value {
                Some(value) => pod.labels.insert(key.clone(), value.clone()),
                None => pod.labels.remove(key),
            };
        }
        if pod.host_network {
            continue;
        }
        let namespace = objects.iter().find(|o| {
            matches!(o.resource, Resource::Namespace(_)) && o.resource.name() == draft.key.namespace
        });
        let labels = Arc::new(IdentityLabels {
            namespace: draft.key.namespace.clone(),
            namespace_labels: namespace_labels(&draft.key.namespace, namespace),
            service_account: draft.service_account.clone(),
            labels: pod.labels.clone(),
            named_ports: draft.named_ports(),
        });
        let id = *numbers.entry(labels.clone()).or_insert_with(|| {
            let free = (CLUSTER_MIN..=CLUSTER_MAX).find(|id| !taken.contains(id)).unwrap_or(0);
            taken.insert(free);
            free
        });
        if id == 0 {
            errors.0.push(
                draft.source.error("metadata.labels", "no identity is free for one more set of labels"),
            );
        }
        pod.identity = id;
        state.identities.insert(id, labels);
    }
}

/// What the agents must be told, in order: nobody hears of a pod before its identity, nor of the identity's end before
/// the pod's; and policies come before the pods that they isolate.
fn steps(before: &State, after: &State) -> Vec<Step> {
    let mut out = Vec::new();
    let mut tell = |change| out.push(Step::Broadcast(change));
    for (name, node) in &after.nodes {
        if before.nodes.get(name) != Some(node) {
            tell(Change::Node(node.clone()));
        }
    }
    for (id, labels) in &after.identities {
        if before.identities.get(id) != Some(labels) {
            tell(Change::Identity(Identity { id: *id, labels: labels.clone() }));
        }
    }
    for (key, policy) in &after.policies {
        if before.policies.get(key) != Some(policy) {
            tell(Change::Policy(policy.clone()));
        }
    }
    let connected = |s: &State| -> BTreeMap<PodKey, PodInfo> {
        s.pods.iter().filter(|(_, p)| !p.host_network).map(|(k, p)| (k.clone(), p.clone())).collect()
    };
    let (old, new) = (connected(before), connected(after));
    for (key, pod) in &old {
        let stays = new.get(key).is_some_and(|p| p.same_endpoint(pod));
        if !stays {
            let request = Request::Delete { endpoint: pod.endpoint };
            out.push(Step::Kubelet { node: pod.node.clone(), request });
            out.push(Step::Broadcast(Change::PodGone(key.clone())));
        }
    }
    for (key, pod) in &new {
        let there = old.get(key);
        let stays = there.is_some_and(|p| p.same_endpoint(pod));
        if !stays || there.map(PodInfo::at) != Some(pod.at()) {
            out.push(Step::Broadcast(Change::Pod(pod.at())));
        }
        if !stays {
            out.push(Step::Kubelet { node: pod.node.clone(), request: Request::Add(pod.request()) });
        }
    }
    let gone = before.policies.keys().filter(|k| !after.policies.contains_key(k));
    out.extend(gone.map(|k| Step::Broadcast(Change::PolicyGone(k.clone()))));
    let gone = before.identities.keys().filter(|id| !after.identities.contains_key(id));
    out.extend(gone.map(|id| Step::Broadcast(Change::IdentityGone(*id))));
    let gone = before.nodes.keys().filter(|n| !after.nodes.contains_key(*n));
    out.extend(gone.map(|n| Step::Broadcast(Change::NodeGone(n.clone()))));
    out
}
