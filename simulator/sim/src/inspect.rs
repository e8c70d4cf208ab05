//! Answers to a scenario's questions about a node, read from the vm's maps.
//!
//! Turns bytes into the snapshot's types through skep-abi. Changes nothing.

use crate::facts::identity_name;
use crate::machine::Member;
use skep_abi::map::{
    CT_ANY4_GLOBAL, CT4_GLOBAL, CtEntry, CtTuple4, IPCACHE, IpcacheKey, METRICS, MetricsKey, MetricsValue,
    PolicyEntry, PolicyKey, RemoteEndpointInfo,
};
use skep_agent_core::{Cluster, PodKey, model};
use skep_scenario::evidence::PolicyDirection;
use skep_scenario::snapshot::{ConntrackEntry, EndpointRow, IpcacheRow, Metric, PolicyRow};
use skep_scenario::units::hex;
use std::net::{IpAddr, Ipv4Addr};

/// `skep_metrics`, sorted; counters that are zero are left out.
pub(crate) fn metrics(member: &Member) -> Vec<Metric> {
    let Some(map) = member.host.map(METRICS.name) else { return Vec::new() };
    let mut metrics: Vec<Metric> = member
        .host
        .kernel
        .entries_cpus(map)
        .iter()
        .filter_map(|(key, cpus)| {
            let values: Vec<MetricsValue> = cpus.iter().filter_map(|v| MetricsValue::from_bytes(v)).collect();
            Metric::decode(&MetricsKey::from_bytes(key)?, &values)
        })
        .filter(|m| m.packets > 0)
        .collect();
    metrics.sort();
    metrics
}

/// Both conntrack maps, sorted.
pub(crate) fn conntrack(member: &Member, now_s: u64) -> Vec<ConntrackEntry> {
    let mut entries: Vec<ConntrackEntry> = [CT4_GLOBAL, CT_ANY4_GLOBAL]
        .iter()
        .filter_map(|spec| member.host.map(spec.name))
        .flat_map(|map| member.host.kernel.entries(map))
        .filter_map(|(key, value)| {
            Some(ConntrackEntry::decode(&CtTuple4::from_bytes(&key)?, &CtEntry::from_bytes(&value)?, now_s))
        })
        .collect();
    entries.sort();
    entries
}

/// An endpoint's policy map, sorted.
pub(crate) fn policy(member: &Member, endpoint: u16) -> Vec<PolicyRow> {
    let Some(map) = member.host.map(&model::policy_map_name(endpoint)) else { return Vec::new() };
    let mut rows: Vec<PolicyRow> = member
        .host
        .kernel
        .entries(map)
        .iter()
        .filter_map(|(key, value)| {
            let (key, entry) = (PolicyKey::from_bytes(key)?, PolicyEntry::from_bytes(value)?);
            let l4 = key.prefixlen.saturating_sub(PolicyKey::STATIC_PREFIX);
            let port_bits = l4.saturating_sub(PolicyKey::PROTOCOL_PREFIX);
            Some(PolicyRow {
                direction: if key.egress == 1 { PolicyDirection::Egress } else { PolicyDirection::Ingress },
                identity: identity_name(&member.agent, key.sec_label, None),
                protocol: if l4 == 0 { 0 } else { key.protocol },
                port: key.dport.to_host(),
                port_prefix: u8::try_from(port_bits).unwrap_or(u8::MAX),
                deny: entry.deny(),
                packets: entry.packets,
            })
        })
        .collect();
    rows.sort();
    rows
}

/// `skep_ipcache`, sorted.
pub(crate) fn ipcache(member: &Member) -> Vec<IpcacheRow> {
    let Some(map) = member.host.map(IPCACHE.name) else { return Vec::new() };
    let mut rows: Vec<IpcacheRow> = member
        .host
        .kernel
        .entries(map)
        .iter()
        .filter_map(|(key, value)| {
            let (key, info) = (IpcacheKey::from_bytes(key)?, RemoteEndpointInfo::from_bytes(value)?);
            let (ip, tunnel) =
                (Ipv4Addr::from(key.ip4.octets()), Ipv4Addr::from(info.tunnel_endpoint.octets()));
            Some(IpcacheRow {
                cidr: format!("{ip}/{}", key.prefixlen.saturating_sub(IpcacheKey::STATIC_PREFIX)),
                identity: identity_name(&member.agent, info.sec_identity, Some(ip)),
                tunnel_endpoint: (!tunnel.is_unspecified()).then_some(IpAddr::V4(tunnel)),
            })
        })
        .collect();
    rows.sort();
    rows
}

/// The endpoints of a node, sorted.
pub(crate) fn endpoints(member: &Member, cluster: &Cluster) -> Vec<EndpointRow> {
    let pods = cluster.pods().values().filter(|p| p.node == member.host.name && !p.host_network);
    let mut rows: Vec<EndpointRow> = pods
        .map(|pod| EndpointRow {
            pod: pod.key.to_string(),
            id: pod.endpoint,
            address: IpAddr::V4(pod.ip),
            identity: identity_name(&member.agent, pod.identity, Some(pod.ip)),
            ready: member.host.ready.contains(&pod.endpoint),
        })
        .collect();
    rows.sort();
    rows
}

/// Any map of a node as hexadecimal digits, in the order of keys; none if it is not there.
pub(crate) fn map(member: &Member, name: &str) -> Option<Vec<(String, String)>> {
    let map = member.host.map(name)?;
    Some(member.host.kernel.entries(map).iter().map(|(k, v)| (hex(k), hex(v))).collect())
}

/// The endpoint id of a pod, and the node that it is on.
pub(crate) fn endpoint_of(cluster: &Cluster, pod: &PodKey) -> Option<(String, u16)> {
    let pod = cluster.pods().get(pod).filter(|p| !p.host_network)?;
    Some((pod.node.clone(), pod.endpoint))
}
