//! What the API server checks of an object's values and the types do not: names, labels, ports, addresses.
//!
//! Rules are those of Kubernetes' validation for the fields that matter to networking. Nothing is filled in or resolved.

mod names;
mod pod;
mod policy;

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use crate::error::Errors;
use crate::resource::Resource;
use crate::source::{Source, join_key};

/// Where errors go, with the source that knows the places.
pub(crate) struct Checker<'a> {
    pub(crate) source: &'a Source,
    pub(crate) errors: &'a mut Errors,
}

impl Checker<'_> {
    /// Says nothing of a field in which something is wrong already: it would only be a consequence.
    fn error(&mut self, path: &str, message: impl Into<String>, help: impl Into<String>) {
        let below = |field: &str| {
            field.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        if self.errors.iter().any(|error| error.field.as_deref().is_some_and(below)) {
            return;
        }
        self.errors.0.push(self.source.error(path, message).help(help));
    }
}

/// Checks an object.
pub(crate) fn check(resource: &Resource, source: &Source, errors: &mut Errors) {
    let mut checker = Checker { source, errors };
    metadata(resource, &mut checker);
    match resource {
        Resource::Namespace(_) => {}
        Resource::Node(node) => check_node(node, &mut checker),
        Resource::Pod(pod) => pod::check(pod, &mut checker),
        Resource::NetworkPolicy(policy) => policy::check(policy, &mut checker),
        workload => pod::check_workload(workload, &mut checker),
    }
}

fn metadata(resource: &Resource, checker: &mut Checker<'_>) {
    let meta = resource.metadata();
    match meta.name.as_deref().unwrap_or_default() {
        "" if meta.generate_name.is_some() => {
            let help = "a generated name would differ from run to run: write metadata.name";
            checker.error("metadata.name", "this field is missing", help);
        }
        "" => checker.error("metadata.name", "this field is missing", "give the object a name"),
        name => {
            let rule = match resource {
                Resource::Namespace(_) => names::dns_label(name),
                _ => names::dns_subdomain(name),
            };
            if let Err(rule) = rule {
                checker.error(
                    "metadata.name",
                    format!("`{name}` is no name for a {}", resource.kind()),
                    rule,
                );
            }
        }
    }
    match meta.namespace.as_deref() {
        Some(namespace) if !resource.is_namespaced() && !namespace.is_empty() => {
            let message = format!("a {} stands in no namespace", resource.kind());
            checker.error("metadata.namespace", message, "remove the field");
        }
        Some(namespace) if !namespace.is_empty() => {
            if let Err(rule) = names::dns_label(namespace) {
                checker.error(
                    "metadata.namespace",
                    format!("`{namespace}` is no name for a Namespace"),
                    rule,
                );
            }
        }
        _ => {}
    }
    labels(meta.labels.as_ref(), "metadata.labels", checker);
}

/// The labels of a pod template or a Job template.
fn template_metadata(meta: Option<&ObjectMeta>, path: &str, checker: &mut Checker<'_>) {
    if let Some(meta) = meta {
        labels(meta.labels.as_ref(), &format!("{path}.labels"), checker);
    }
}

fn labels(labels: Option<&BTreeMap<String, String>>, path: &str, checker: &mut Checker<'_>) {
    for (key, value) in labels.into_iter().flatten() {
        let at = join_key(path, key);
        if let Err(rule) = names::label_key(key) {
            checker.error(&at, format!("`{key}` is no label key"), rule);
        }
        if let Err(rule) = names::label_value(value) {
            checker.error(&at, format!("`{value}` is no label value"), rule);
        }
    }
}

/// A label selector: keys, values, operators and how many values they take.
fn selector(selector: Option<&LabelSelector>, path: &str, checker: &mut Checker<'_>) {
    let Some(selector) = selector else { return };
    labels(selector.match_labels.as_ref(), &format!("{path}.matchLabels"), checker);
    for (n, requirement) in selector.match_expressions.iter().flatten().enumerate() {
        let at = format!("{path}.matchExpressions[{n}]");
        if let Err(rule) = names::label_key(&requirement.key) {
            checker.error(&format!("{at}.key"), format!("`{}` is no label key", requirement.key), rule);
        }
        let values = requirement.values.as_deref().unwrap_or_default();
        match requirement.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => {
                let message = format!("the operator {} needs values", requirement.operator);
                checker.error(
                    &at,
                    message,
                    "list at least one under `values`, or use Exists or DoesNotExist",
                );
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let message = format!("the operator {} takes no values", requirement.operator);
                checker.error(&format!("{at}.values"), message, "remove `values`, or use In or NotIn");
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                let help = "one of In, NotIn, Exists, DoesNotExist";
                checker.error(&format!("{at}.operator"), format!("`{other}` is no operator"), help);
            }
        }
        for (v, value) in values.iter().enumerate() {
            if let Err(rule) = names::label_value(value) {
                checker.error(&format!("{at}.values[{v}]"), format!("`{value}` is no label value"), rule);
            }
        }
    }
}

/// A port's number.
fn port_number(port: i32, path: &str, checker: &mut Checker<'_>) {
    if !(1..=65535).contains(&port) {
        checker.error(path, format!("{port} is no port"), "ports are numbers from 1 to 65535");
    }
}

/// The protocol of a port; none stands for TCP.
fn protocol(protocol: Option<&str>, path: &str, checker: &mut Checker<'_>) {
    match protocol {
        None | Some("TCP" | "UDP") => {}
        Some("SCTP") => checker.error(
            path,
            "SCTP is not supported yet",
            "the datapath knows TCP, UDP and ICMP: remove the port, or the rule would seem to work and would not",
        ),
        Some(other) => checker.error(path, format!("`{other}` is no protocol"), "TCP or UDP, in capitals"),
    }
}

/// An address that the IPv4 datapath can use.
fn ipv4(address: &str, path: &str, checker: &mut Checker<'_>) {
    match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => {}
        Ok(IpAddr::V6(_)) => {
            checker.error(path, format!("{address}: IPv6 is not supported yet"), "give the IPv4 address");
        }
        Err(_) => checker.error(path, format!("`{address}` is no IP address"), "four numbers, as 10.42.0.51"),
    }
}

fn check_node(node: &Node, checker: &mut Checker<'_>) {
    if let Some(spec) = &node.spec {
        let cidrs = spec.pod_cidrs.as_deref().unwrap_or_default();
        let listed = cidrs.iter().enumerate().map(|(n, cidr)| (format!("spec.podCIDRs[{n}]"), cidr));
        for (path, cidr) in spec.pod_cidr.iter().map(|cidr| ("spec.podCIDR".to_owned(), cidr)).chain(listed) {
            pod_cidr(cidr, &path, checker);
        }
        if let (Some(one), Some(first)) = (&spec.pod_cidr, cidrs.first())
            && one != first
        {
            let message = format!("{first} is not spec.podCIDR, {one}");
            checker.error(
                "spec.podCIDRs[0]",
                message,
                "the first of the list must be the same: remove one of them",
            );
        }
    }
    let addresses = node.status.as_ref().and_then(|status| status.addresses.as_deref()).unwrap_or_default();
    for (n, address) in addresses.iter().enumerate() {
        match address.type_.as_str() {
            "InternalIP" => ipv4(&address.address, &format!("status.addresses[{n}].address"), checker),
            "ExternalIP" | "Hostname" | "InternalDNS" | "ExternalDNS" => {}
            other => checker.error(
                &format!("status.addresses[{n}].type"),
                format!("`{other}` is no type of address"),
                "one of InternalIP, ExternalIP, Hostname, InternalDNS, ExternalDNS",
            ),
        }
    }
}

fn pod_cidr(cidr: &str, path: &str, checker: &mut Checker<'_>) {
    match cidr.parse::<ipnet::IpNet>() {
        Ok(ipnet::IpNet::V6(_)) => {
            checker.error(path, format!("{cidr}: IPv6 is not supported yet"), "give the IPv4 range");
        }
        Ok(net) if net.addr() != net.network() => {
            let help = format!("write {}", net.trunc());
            checker.error(path, format!("{cidr} has bits behind the prefix"), help);
        }
        Ok(net) if net.prefix_len() > 30 => {
            checker.error(
                path,
                format!("{cidr} has no room for pods"),
                "a gateway and a pod need a /30 or more",
            );
        }
        Ok(_) => {}
        Err(_) => {
            checker.error(
                path,
                format!("`{cidr}` is no CIDR"),
                "an address and a prefix length, as 10.42.0.0/24",
            );
        }
    }
}
