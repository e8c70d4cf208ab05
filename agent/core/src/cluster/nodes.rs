//! Nodes: Node objects and a scenario's entries complete each other by name.

use super::{NodeEntry, SCENARIO};
use crate::change::NodeInfo;
use ipnet::Ipv4Net;
use skep_manifest::{Error, Errors, Loaded, Location, Resource};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// The node of a cluster for which nobody describes one.
pub(super) fn default_node() -> NodeInfo {
    NodeInfo {
        name: "node-1".to_owned(),
        address: Ipv4Addr::new(192, 168, 1, 11),
        pod_cidr: Ipv4Net::new_assert(Ipv4Addr::new(10, 42, 0, 0), 24),
    }
}

/// What is known of a node so far, and for each value who said it.
#[derive(Default)]
struct Draft {
    place: Option<(Location, String)>,
    address: Option<Said<Ipv4Addr>>,
    pod_cidr: Option<Said<Ipv4Net>>,
}

struct Said<T> {
    value: T,
    error: Error,
}

/// The nodes, and their names in order: the scenario's first, then those of objects.
pub(super) fn nodes(
    entries: &[NodeEntry],
    objects: &[Loaded],
    errors: &mut Errors,
) -> (BTreeMap<String, NodeInfo>, Vec<String>) {
    let mut order: Vec<String> = Vec::new();
    let mut drafts: BTreeMap<String, Draft> = BTreeMap::new();
    for (i, entry) in entries.iter().enumerate() {
        let path = format!("spec.nodes[{i}]");
        let error = |field: &str| Error::of_file(SCENARIO, "").field(format!("{path}.{field}"));
        if order.contains(&entry.name) {
            let message = format!("node {} is described a second time", entry.name);
            errors.0.push(Error { message, ..error("name") }.help("give every node a name of its own"));
            continue;
        }
        order.push(entry.name.clone());
        let draft = drafts.entry(entry.name.clone()).or_default();
        draft.place = Some((error("").location(), path.clone()));
        draft.address = entry.address.map(|value| Said { value, error: error("address") });
        draft.pod_cidr = entry.pod_cidr.map(|value| Said { value, error: error("podCIDR") });
    }
    for object in objects {
        if let Resource::Node(_) = object.resource {
            let name = object.resource.name().to_owned();
            if !order.contains(&name) {
                order.push(name.clone());
            }
            drafts.entry(name).or_default().add_object(object, errors);
        }
    }
    if order.is_empty() {
        let node = default_node();
        return (BTreeMap::from([(node.name.clone(), node.clone())]), vec![node.name]);
    }
    let mut nodes = BTreeMap::new();
    for name in &order {
        if let Some(node) = drafts.get(name).and_then(|d| d.finish(name, &nodes, errors)) {
            nodes.insert(name.clone(), node);
        }
    }
    (nodes, order)
}

impl Draft {
    fn add_object(&mut self, object: &Loaded, errors: &mut Errors) {
        let Resource::Node(node) = &object.resource else { return };
        let source = &object.source;
        self.place.get_or_insert_with(|| (source.location(), "metadata.name".to_owned()));
        let addresses = node.status.iter().flat_map(|s| s.addresses.iter().flatten());
        // Only an IPv4 address counts; a dual-stack node lists its IPv6 address beside it.
        let internal = addresses
            .enumerate()
            .filter(|(_, a)| a.type_ == "InternalIP")
            .find_map(|(i, a)| Some((i, a.address.parse::<Ipv4Addr>().ok()?)));
        if let Some((i, value)) = internal {
            let path = format!("status.addresses[{i}].address");
            say(&mut self.address, value, source.error(&path, ""), errors);
        }
        let spec = node.spec.as_ref();
        let cidrs = spec.and_then(|s| s.pod_cidrs.as_ref()).into_iter().flatten().enumerate();
        let cidrs = cidrs.map(|(i, c)| (format!("spec.podCIDRs[{i}]"), c));
        let cidr = spec.and_then(|s| s.pod_cidr.as_ref()).map(|c| ("spec.podCIDR".to_owned(), c));
        for (path, text) in cidr.into_iter().chain(cidrs) {
            match text.parse::<Ipv4Net>() {
                Ok(value) => say(&mut self.pod_cidr, value, source.error(&path, ""), errors),
                Err(_) if text.parse::<ipnet::Ipv6Net>().is_ok() => {}
                Err(_) => {
                    let error = source.error(&path, format!("\"{text}\" is no network"));
                    errors.0.push(error.help("write it as 10.42.0.0/24"));
                }
            }
        }
    }

    fn finish(
        &self,
        name: &str,
        others: &BTreeMap<String, NodeInfo>,
        errors: &mut Errors,
    ) -> Option<NodeInfo> {
        let (place, path) = self.place.clone()?;
        let missing = |what: &str, help: &str| {
            Error::at(place.clone(), format!("node {name} has no {what}")).field(path.clone()).help(help)
        };
        if self.address.is_none() {
            let help = "give an InternalIP in status.addresses, or address in the scenario's nodes";
            errors.0.push(missing("address", help));
        }
        if self.pod_cidr.is_none() {
            let help = "give spec.podCIDR, or podCIDR in the scenario's nodes";
            errors.0.push(missing("podCIDR", help));
        }
        let (address, cidr) = (self.address.as_ref()?, self.pod_cidr.as_ref()?);
        let wrong = |said: &Error, message: String, help: &str| Error { message, ..said.clone() }.help(help);
        let node = NodeInfo { name: name.to_owned(), address: address.value, pod_cidr: cidr.value.trunc() };
        let before = errors.0.len();
        if node.pod_cidr.prefix_len() > 30 {
            let message = format!("{} has no room for a gateway and a pod", node.pod_cidr);
            errors.0.push(wrong(&cidr.error, message, "take a network of at most 30 bits"));
        }
        if node.pod_cidr.contains(&node.address) {
            let message = format!("the podCIDR {} contains the node's own address", node.pod_cidr);
            errors.0.push(wrong(&cidr.error, message, "take another network for the pods"));
        }
        for other in others.values() {
            let name = &other.name;
            if other.address == node.address {
                let message = format!("node {name} has the address {} too", node.address);
                errors.0.push(wrong(&address.error, message, "give every node an address of its own"));
            }
            if other.pod_cidr.contains(&node.address) {
                let message =
                    format!("{} lies in the podCIDR {} of node {name}", node.address, other.pod_cidr);
                errors.0.push(wrong(&address.error, message, "give the node an address of its own"));
            }
            if node.pod_cidr.contains(&other.address) {
                let message =
                    format!("{} contains the address {} of node {name}", node.pod_cidr, other.address);
                errors.0.push(wrong(&cidr.error, message, "take another network for the pods"));
            }
            if other.pod_cidr.contains(&node.pod_cidr) || node.pod_cidr.contains(&other.pod_cidr) {
                let message =
                    format!("{} overlaps the podCIDR {} of node {name}", node.pod_cidr, other.pod_cidr);
                errors.0.push(wrong(&cidr.error, message, "give every node a podCIDR of its own"));
            }
        }
        (errors.0.len() == before).then_some(node)
    }
}

/// Takes a value, or complains that another was said before.
fn say<T: PartialEq + std::fmt::Display>(
    slot: &mut Option<Said<T>>,
    value: T,
    error: Error,
    errors: &mut Errors,
) {
    match slot {
        Some(said) if said.value != value => {
            let field = said.error.field.clone().unwrap_or_default();
            let message = format!("{value} differs from {} at {} {field}", said.value, said.error.location());
            errors.0.push(
                Error { message, ..error }.help("leave it out in one of the places, or make them equal"),
            );
        }
        Some(_) => {}
        None => *slot = Some(Said { value, error }),
    }
}
