//! Pods and the workloads that make them: containers' ports, addresses, counts.

use k8s_openapi::api::core::v1::{ContainerPort, Pod, PodSpec};

use super::{Checker, ipv4, names, port_number, protocol, selector, template_metadata};
use crate::resource::Resource;

pub(super) fn check(pod: &Pod, checker: &mut Checker<'_>) {
    match &pod.spec {
        Some(spec) => check_spec(spec, "spec", checker),
        None => checker.error("spec", "this field is missing", "write spec.containers"),
    }
    let Some(status) = &pod.status else { return };
    if let Some(phase @ ("Succeeded" | "Failed")) = status.phase.as_deref() {
        let help = "remove the object: a pod that has ended has no network";
        checker.error("status.phase", format!("this pod has ended ({phase})"), help);
    }
    if let Some(address) = &status.pod_ip {
        ipv4(address, "status.podIP", checker);
    }
    for (n, address) in status.pod_ips.iter().flatten().enumerate() {
        let path = format!("status.podIPs[{n}].ip");
        ipv4(&address.ip, &path, checker);
        match &status.pod_ip {
            Some(first) if n == 0 && *first != address.ip => {
                let message = format!("{} is not status.podIP, {first}", address.ip);
                checker.error(&path, message, "the first of the list must be the same: remove one of them");
            }
            _ => {}
        }
    }
}

pub(super) fn check_workload(workload: &Resource, checker: &mut Checker<'_>) {
    let Some((path, template)) = workload.template() else {
        let message = format!("a {} without a pod template", workload.kind());
        return checker.error("spec.template", message, "write spec.template");
    };
    template_metadata(template.metadata.as_ref(), &format!("{path}.metadata"), checker);
    match &template.spec {
        Some(spec) => check_spec(spec, &format!("{path}.spec"), checker),
        None => checker.error(path, "a pod template without a spec", "write spec.containers in it"),
    }
    let (count, label_selector) = match workload {
        Resource::Deployment(w) => w.spec.as_ref().map(|s| (s.replicas, Some(&s.selector))),
        Resource::ReplicaSet(w) => w.spec.as_ref().map(|s| (s.replicas, Some(&s.selector))),
        Resource::StatefulSet(w) => w.spec.as_ref().map(|s| (s.replicas, Some(&s.selector))),
        Resource::DaemonSet(w) => w.spec.as_ref().map(|s| (None, Some(&s.selector))),
        Resource::ReplicationController(w) => w.spec.as_ref().map(|s| (s.replicas, None)),
        Resource::Job(w) => w.spec.as_ref().map(|s| (s.parallelism, s.selector.as_ref())),
        _ => None,
    }
    .unwrap_or_default();
    if let Some(count) = count.filter(|count| *count < 0) {
        let path = if matches!(workload, Resource::Job(_)) { "spec.parallelism" } else { "spec.replicas" };
        checker.error(path, format!("{count} pods"), "a number from 0");
    }
    selector(label_selector, "spec.selector", checker);
    let needs = matches!(workload.kind(), "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet");
    if needs && !checker.source.has("spec.selector") {
        let help = "write spec.selector.matchLabels as the labels of spec.template";
        checker.error("spec.selector", "this field is missing", help);
    }
}

fn check_spec(spec: &PodSpec, path: &str, checker: &mut Checker<'_>) {
    if spec.containers.is_empty() {
        let help = "write at least one under `containers`";
        checker.error(&format!("{path}.containers"), "a pod without containers", help);
    }
    if let Some(node) = &spec.node_name
        && !node.is_empty()
        && let Err(rule) = names::dns_subdomain(node)
    {
        checker.error(&format!("{path}.nodeName"), format!("`{node}` is no name for a Node"), rule);
    }
    let mut named = std::collections::BTreeMap::new();
    for (c, container) in spec.containers.iter().enumerate() {
        for (n, port) in container.ports.iter().flatten().enumerate() {
            let at = format!("{path}.containers[{c}].ports[{n}]");
            check_port(port, spec.host_network == Some(true), &at, checker);
            let Some(name) = &port.name else { continue };
            if let Some(first) = named.insert((c, name), at.clone()) {
                let message = format!("the name `{name}` is taken by {first}");
                checker.error(&format!("{at}.name"), message, "names of ports differ within a container");
            }
        }
    }
}

fn check_port(port: &ContainerPort, host_network: bool, at: &str, checker: &mut Checker<'_>) {
    port_number(port.container_port, &format!("{at}.containerPort"), checker);
    protocol(port.protocol.as_deref(), &format!("{at}.protocol"), checker);
    if let Some(name) = &port.name
        && let Err(rule) = names::port_name(name)
    {
        checker.error(&format!("{at}.name"), format!("`{name}` is no name for a port"), rule);
    }
    // In the node's own network the two are one; elsewhere the node's port would have to be translated.
    if port.host_port.is_some_and(|host| host != 0) && !host_network {
        let help =
            "nothing translates a node's port to a pod's: remove hostPort, and reach the pod by its address";
        checker.error(&format!("{at}.hostPort"), "hostPort is not supported yet", help);
    }
}
