//! NetworkPolicy: peers, ports, address ranges, policy types. The rules are those of the API server's validation.

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Checker, names, port_number, protocol, selector};

pub(super) fn check(policy: &NetworkPolicy, checker: &mut Checker<'_>) {
    let Some(spec) = &policy.spec else {
        let help = "write spec.podSelector and the rules; without a spec the policy would isolate every pod";
        return checker.error("spec", "a NetworkPolicy without a spec", help);
    };
    selector(spec.pod_selector.as_ref(), "spec.podSelector", checker);
    for (n, kind) in spec.policy_types.iter().flatten().enumerate() {
        if kind != "Ingress" && kind != "Egress" {
            let path = format!("spec.policyTypes[{n}]");
            checker.error(&path, format!("`{kind}` is no policy type"), "Ingress or Egress");
        }
    }
    for (n, rule) in spec.ingress.iter().flatten().enumerate() {
        let at = format!("spec.ingress[{n}]");
        ports(rule.ports.as_deref(), &at, checker);
        peers(rule.from.as_deref(), &format!("{at}.from"), checker);
    }
    for (n, rule) in spec.egress.iter().flatten().enumerate() {
        let at = format!("spec.egress[{n}]");
        ports(rule.ports.as_deref(), &at, checker);
        peers(rule.to.as_deref(), &format!("{at}.to"), checker);
    }
}

fn ports(ports: Option<&[NetworkPolicyPort]>, rule: &str, checker: &mut Checker<'_>) {
    for (n, port) in ports.into_iter().flatten().enumerate() {
        let at = format!("{rule}.ports[{n}]");
        protocol(port.protocol.as_deref(), &format!("{at}.protocol"), checker);
        match &port.port {
            Some(IntOrString::Int(number)) => port_number(*number, &format!("{at}.port"), checker),
            Some(IntOrString::String(name)) => {
                if let Err(rule) = names::port_name(name) {
                    let is_number = !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit());
                    let help = if is_number { "write the number without quotes" } else { rule };
                    checker.error(&format!("{at}.port"), format!("`{name}` is no port"), help);
                }
            }
            None => {}
        }
        if let Some(end) = port.end_port {
            end_port(end, port.port.as_ref(), &format!("{at}.endPort"), checker);
        }
    }
}

fn end_port(end: i32, first: Option<&IntOrString>, path: &str, checker: &mut Checker<'_>) {
    port_number(end, path, checker);
    match first {
        None => checker.error(path, "endPort without port", "write the range's first port as `port`"),
        Some(IntOrString::String(name)) => {
            checker.error(path, format!("endPort beside the named port `{name}`"), "a range needs numbers");
        }
        Some(IntOrString::Int(first)) if end < *first => {
            checker.error(path, format!("the range ends at {end}, before it begins at {first}"), "swap them");
        }
        Some(IntOrString::Int(_)) => {}
    }
}

fn peers(peers: Option<&[NetworkPolicyPeer]>, path: &str, checker: &mut Checker<'_>) {
    for (n, peer) in peers.into_iter().flatten().enumerate() {
        let at = format!("{path}[{n}]");
        selector(peer.pod_selector.as_ref(), &format!("{at}.podSelector"), checker);
        selector(peer.namespace_selector.as_ref(), &format!("{at}.namespaceSelector"), checker);
        let selects = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
        match &peer.ip_block {
            Some(_) if selects => checker.error(
                &format!("{at}.ipBlock"),
                "ipBlock beside a selector",
                "make two peers of it: a peer is either an address range or a selection of pods",
            ),
            Some(block) => ip_block(block, &format!("{at}.ipBlock"), checker),
            None if !selects => checker.error(
                &at,
                "a peer that says nothing",
                "write podSelector, namespaceSelector or ipBlock; for all peers leave the whole list out",
            ),
            None => {}
        }
    }
}

fn ip_block(block: &IPBlock, path: &str, checker: &mut Checker<'_>) {
    let within = range(&block.cidr, &format!("{path}.cidr"), checker);
    for (n, text) in block.except.iter().flatten().enumerate() {
        let at = format!("{path}.except[{n}]");
        let (Some(except), Some(within)) = (range(text, &at, checker), within) else { continue };
        // Strictly: to except the whole range would leave a rule that matches nothing.
        if !within.contains(&except) || within.prefix_len() == except.prefix_len() {
            let message = format!("{text} is not a part of {}", block.cidr);
            checker.error(&at, message, "an exception must lie within cidr and be smaller");
        }
    }
}

/// IPv6 ranges may stand beside IPv4 ones: they match nothing while no pod has an IPv6 address.
fn range(text: &str, path: &str, checker: &mut Checker<'_>) -> Option<IpNet> {
    let range = text.parse().ok();
    if range.is_none() {
        let help = match text.parse::<std::net::IpAddr>() {
            Ok(address) if address.is_ipv4() => format!("for the one address write {address}/32"),
            Ok(address) => format!("for the one address write {address}/128"),
            Err(_) => "an address and a prefix length, as 10.42.0.0/16".to_owned(),
        };
        checker.error(path, format!("`{text}` is no CIDR"), help);
    }
    range
}
