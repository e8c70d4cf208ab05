//! Pods: from Pod objects and from the workloads that make them; their nodes, addresses and endpoints.

use super::{PodInfo, State};
use crate::change::{ContainerPort, Labels, NamedPorts, NodeInfo, PodKey, Protocol};
use k8s_openapi::api::core::v1::PodSpec;
use skep_abi::map::CALL_POLICY;
use skep_manifest::{Errors, Loaded, Resource, Source};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// A pod that is to be: what its object says.
pub(super) struct Draft<'a> {
    pub(super) key: PodKey,
    pub(super) source: &'a Source,
    /// Where its spec stands in the object, such as `spec.template.spec`.
    spec_path: &'static str,
    labels: Labels,
    pub(super) service_account: String,
    host_network: bool,
    ports: Vec<ContainerPort>,
    placing: Placing,
    /// `status.podIP`, and where it stands.
    ip: Option<(Ipv4Addr, &'static str)>,
}

/// Which node a pod goes to.
enum Placing {
    /// The one that is named.
    Named(String),
    /// The one at this place of the order, for a workload's pod of this index.
    Nth(usize),
    /// The next one.
    Next,
}

impl Draft<'_> {
    /// The ports that have names. Of two containers that give one name to two numbers the first counts, as in
    /// Kubernetes.
    pub(super) fn named_ports(&self) -> NamedPorts {
        let mut out = NamedPorts::new();
        for port in &self.ports {
            if let Some(name) = &port.name {
                out.entry((name.clone(), port.protocol)).or_insert(port.port);
            }
        }
        out
    }
}

/// The pods that objects make, in the objects' order.
pub(super) fn drafts<'a>(objects: &'a [Loaded], nodes: &[String], errors: &mut Errors) -> Vec<Draft<'a>> {
    let mut out: Vec<Draft<'a>> = Vec::new();
    let mut seen: BTreeMap<PodKey, &Loaded> = BTreeMap::new();
    for object in objects {
        let made = match &object.resource {
            Resource::Pod(pod) => {
                let labels = pod.metadata.labels.clone().unwrap_or_default();
                let spec = pod.spec.clone().unwrap_or_default();
                let mut draft =
                    draft(object, "spec", object.resource.name().to_owned(), labels, &spec, errors);
                draft.ip = status_ip(object, errors);
                vec![draft]
            }
            _ => workload(object, nodes.len(), errors),
        };
        for draft in made {
            if let Some(first) = seen.insert(draft.key.clone(), object) {
                let message = format!("there is a pod {} already, from {}", draft.key, first.key());
                let help = format!("it is made at {}; rename one of them", first.source.location());
                errors.0.push(object.source.error("metadata.name", message).help(help));
                continue;
            }
            out.push(draft);
        }
    }
    out
}

/// The pods of a workload: NAME-0, NAME-1, and so on; none for other objects.
fn workload<'a>(object: &'a Loaded, nodes: usize, errors: &mut Errors) -> Vec<Draft<'a>> {
    let Some((path, template)) = object.resource.template() else { return Vec::new() };
    let job = |s: Option<&k8s_openapi::api::batch::v1::JobSpec>| {
        let s = s.filter(|s| !s.suspend.unwrap_or(false));
        s.map_or(0, |s| s.parallelism.unwrap_or(1).min(s.completions.unwrap_or(i32::MAX)))
    };
    let (field, count) = match &object.resource {
        Resource::Deployment(w) => ("spec.replicas", w.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)),
        Resource::ReplicaSet(w) => ("spec.replicas", w.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)),
        Resource::ReplicationController(w) => {
            ("spec.replicas", w.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1))
        }
        Resource::StatefulSet(w) => ("spec.replicas", w.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)),
        Resource::DaemonSet(_) => ("spec", i32::try_from(nodes).unwrap_or(i32::MAX)),
        Resource::Job(w) => ("spec.parallelism", job(w.spec.as_ref())),
        Resource::CronJob(w) => {
            let spec = w.spec.as_ref().filter(|s| !s.suspend.unwrap_or(false));
            ("spec.jobTemplate.spec.parallelism", job(spec.and_then(|s| s.job_template.spec.as_ref())))
        }
        _ => return Vec::new(),
    };
    /// More pods than any of the nodes' networks is likely to hold; a number beyond it is a slip of the pen.
    const MOST: i32 = 65_000;
    if !(0..=MOST).contains(&count) {
        let error = object.source.error(field, format!("{count} is no number of pods"));
        errors.0.push(error.help(format!("write a number from 0 to {MOST}")));
        return Vec::new();
    }
    let labels = template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    let spec = template.spec.clone().unwrap_or_default();
    let spec_path = match path {
        "spec.template" => "spec.template.spec",
        _ => "spec.jobTemplate.spec.template.spec",
    };
    (0..usize::try_from(count).unwrap_or(0))
        .map(|i| {
            let name = format!("{}-{i}", object.resource.name());
            let mut draft = draft(object, spec_path, name, labels.clone(), &spec, errors);
            if matches!(draft.placing, Placing::Next) {
                draft.placing = Placing::Nth(i);
            }
            draft
        })
        .collect()
}

fn draft<'a>(
    object: &'a Loaded,
    spec_path: &'static str,
    name: String,
    labels: Labels,
    spec: &PodSpec,
    errors: &mut Errors,
) -> Draft<'a> {
    let mut ports = Vec::new();
    for (c, container) in spec.containers.iter().enumerate() {
        for (p, port) in container.ports.iter().flatten().enumerate() {
            let path = |field: &str| format!("{spec_path}.containers[{c}].ports[{p}].{field}");
            let number = u16::try_from(port.container_port).ok().filter(|n| *n > 0);
            let protocol = Protocol::from_api(port.protocol.as_deref());
            match (number, protocol) {
                (Some(number), Some(protocol)) => {
                    ports.push(ContainerPort { name: port.name.clone(), port: number, protocol });
                }
                (None, _) => {
                    let message = format!("{} is no port", port.container_port);
                    let error = object.source.error(&path("containerPort"), message);
                    errors.0.push(error.help("ports are 1 to 65535"));
                }
                (_, None) => {
                    let name = port.protocol.as_deref().unwrap_or_default();
                    let error = object.source.error(&path("protocol"), format!("\"{name}\" is no protocol"));
                    errors.0.push(error.help("write TCP, UDP or SCTP"));
                }
            }
        }
    }
    let account = spec.service_account_name.as_ref().or(spec.service_account.as_ref());
    let node = spec.node_name.as_ref().filter(|n| !n.is_empty());
    Draft {
        key: PodKey::new(object.resource.namespace(), name),
        source: &object.source,
        spec_path,
        labels,
        service_account: account.filter(|a| !a.is_empty()).map_or("default", String::as_str).to_owned(),
        host_network: spec.host_network.unwrap_or(false),
        ports,
        placing: node.map_or(Placing::Next, |n| Placing::Named(n.clone())),
        ip: None,
    }
}

/// The address that a Pod object says its pod has.
fn status_ip(object: &Loaded, errors: &mut Errors) -> Option<(Ipv4Addr, &'static str)> {
    let Resource::Pod(pod) = &object.resource else { return None };
    let status = pod.status.as_ref()?;
    let listed = || {
        let all = status.pod_ips.iter().flatten();
        all.map(|p| p.ip.as_str()).find(|ip| ip.parse::<Ipv4Addr>().is_ok())
    };
    let (text, path) = match status.pod_ip.as_deref().filter(|ip| !ip.is_empty()) {
        Some(ip) if ip.parse::<std::net::Ipv6Addr>().is_err() => (ip, "status.podIP"),
        _ => (listed()?, "status.podIPs"),
    };
    if let Ok(ip) = text.parse() {
        return Some((ip, path));
    }
    let error = object.source.error(path, format!("\"{text}\" is no IPv4 address"));
    errors.0.push(error.help("write it as 10.42.0.51"));
    None
}

/// Gives every pod its node, its address and its endpoint's id: what it had before if that still holds.
pub(super) fn place(drafts: &[Draft<'_>], before: &State, state: &mut State, errors: &mut Errors) {
    let mut by_ip: BTreeMap<Ipv4Addr, &Draft<'_>> = BTreeMap::new();
    let mut placed: Vec<(&Draft<'_>, NodeInfo, Option<Ipv4Addr>)> = Vec::new();
    for draft in drafts {
        let Some(node) = node_of(draft, before, state, errors) else { continue };
        let kept = before.pods.get(&draft.key).filter(|p| p.node == node.name && !p.host_network);
        let ip = match draft.ip {
            _ if draft.host_network => Some(node.address),
            Some((ip, path)) => match check_ip(ip, &node) {
                Ok(()) => Some(ip),
                Err((message, help)) => {
                    errors.0.push(draft.source.error(path, message).help(help));
                    continue;
                }
            },
            None => kept.map(|p| p.ip).filter(|ip| check_ip(*ip, &node).is_ok()),
        };
        let own = ip.filter(|_| !draft.host_network);
        if let Some((ip, other)) = own.and_then(|ip| Some((ip, by_ip.insert(ip, draft)?))) {
            // The one that says its address is to blame; if both do, the later one.
            let (blamed, other) = if draft.ip.is_some() { (draft, other) } else { (other, draft) };
            let path = blamed.ip.map_or("metadata.name", |(_, path)| path);
            let at = other.source.value_at(other.ip.map_or("metadata.name", |(_, path)| path));
            let message = format!("pod {} has the address {ip} too, at {at}", other.key);
            let error = blamed.source.error(path, message);
            errors.0.push(error.help("give one of them another address, or none"));
            continue;
        }
        placed.push((draft, node, ip));
    }
    let mut endpoints: BTreeSet<(String, u16)> = BTreeSet::new();
    let mut kept_endpoints: BTreeMap<&PodKey, u16> = BTreeMap::new();
    for (draft, node, _) in &placed {
        let kept = before.pods.get(&draft.key).filter(|p| p.node == node.name && p.endpoint != 0);
        if let Some(pod) = kept.filter(|_| !draft.host_network) {
            endpoints.insert((node.name.clone(), pod.endpoint));
            kept_endpoints.insert(&draft.key, pod.endpoint);
        }
    }
    let mut free_from: BTreeMap<String, (u32, u16)> = BTreeMap::new();
    for (draft, node, ip) in placed {
        let (next_ip, next_endpoint) = free_from.entry(node.name.clone()).or_insert((0, 1));
        let Some(ip) = ip.or_else(|| free_ip(&node, next_ip, |ip| by_ip.contains_key(&ip))) else {
            let message =
                format!("no address of {} is free on node {} for {}", node.pod_cidr, node.name, draft.key);
            errors
                .0
                .push(draft.source.error("metadata.name", message).help("widen the podCIDR, or add a node"));
            continue;
        };
        let endpoint = match kept_endpoints.get(&draft.key) {
            _ if draft.host_network => Some(0),
            Some(id) => Some(*id),
            None => free_endpoint(next_endpoint, |id| !endpoints.insert((node.name.clone(), id))),
        };
        let Some(endpoint) = endpoint else {
            let message = format!("node {} has no endpoint free for {}", node.name, draft.key);
            errors.0.push(draft.source.error("metadata.name", message).help("add a node"));
            continue;
        };
        if !draft.host_network {
            by_ip.insert(ip, draft);
        }
        let pod = PodInfo {
            key: draft.key.clone(),
            node: node.name,
            ip,
            host_network: draft.host_network,
            endpoint,
            identity: skep_abi::identity::HOST,
            labels: draft.labels.clone(),
            ports: draft.ports.clone(),
        };
        state.pods.insert(pod.key.clone(), pod);
    }
}

/// The node that a pod goes to.
fn node_of(draft: &Draft<'_>, before: &State, state: &mut State, errors: &mut Errors) -> Option<NodeInfo> {
    let order = &state.node_order;
    let name = match &draft.placing {
        Placing::Named(name) => name.clone(),
        Placing::Nth(i) => order.get(i % order.len().max(1))?.clone(),
        Placing::Next => match before.pods.get(&draft.key).filter(|p| state.nodes.contains_key(&p.node)) {
            Some(pod) => pod.node.clone(),
            None => {
                state.spread += 1;
                order.get((state.spread - 1) % order.len().max(1))?.clone()
            }
        },
    };
    let node = state.nodes.get(&name).cloned();
    if node.is_none() {
        let path = format!("{}.nodeName", draft.spec_path);
        let message = format!("there is no node {name}");
        let error = draft.source.error(&path, message);
        errors.0.push(error.help(format!("the nodes are {}", order.join(", "))));
    }
    node
}

/// Whether a pod of a node can have an address; if not, what is wrong and what to do.
fn check_ip(ip: Ipv4Addr, node: &NodeInfo) -> Result<(), (String, String)> {
    let NodeInfo { name, pod_cidr, .. } = node;
    let help = || format!("take an address of {pod_cidr} from {} on", nth_ip(node, 2));
    if !pod_cidr.contains(&ip) {
        return Err((format!("{ip} is outside the podCIDR {pod_cidr} of node {name}"), help()));
    }
    if ip == node.router() {
        return Err((format!("{ip} is the gateway of node {name}"), help()));
    }
    if ip == pod_cidr.network() || ip == pod_cidr.broadcast() {
        return Err((format!("{ip} is the first or the last of {pod_cidr}, which no pod can have"), help()));
    }
    Ok(())
}

fn nth_ip(node: &NodeInfo, n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(node.pod_cidr.network()).wrapping_add(n))
}

/// The lowest address behind the gateway that nobody has; `next` remembers how far the search has come.
fn free_ip(node: &NodeInfo, next: &mut u32, taken: impl Fn(Ipv4Addr) -> bool) -> Option<Ipv4Addr> {
    *next = (*next).max(2);
    loop {
        let ip = nth_ip(node, *next);
        if !node.pod_cidr.contains(&ip) || ip == node.pod_cidr.broadcast() {
            return None;
        }
        *next += 1;
        if !taken(ip) {
            return Some(ip);
        }
    }
}

/// The lowest endpoint's id that nobody has; `next` remembers how far the search has come.
fn free_endpoint(next: &mut u16, mut taken: impl FnMut(u16) -> bool) -> Option<u16> {
    // The id is a slot of the program array.
    while u32::from(*next) < CALL_POLICY.max_entries {
        let id = *next;
        *next += 1;
        if !taken(id) {
            return Some(id);
        }
    }
    None
}
