//! Answers to a scenario's questions about a node, read from the kernel's maps.
//!
//! Turns bytes into the snapshot's types through skep-abi. Changes nothing.

use super::member::Site;
use super::words::identity_name;
use skep_abi::map::{
    CT_ANY4_GLOBAL, CT4_GLOBAL, CtEntry, CtTuple4, IPCACHE, IpcacheKey, METRICS, MetricsKey, MetricsValue,
    PolicyEntry, PolicyKey, RemoteEndpointInfo,
};
use skep_agent_core::{PodInfo, model};
use skep_agent_linux::{Entry, Error};
use skep_scenario::evidence::PolicyDirection;
use skep_scenario::snapshot::{ConntrackEntry, EndpointRow, IpcacheRow, Metric, PolicyRow};
use skep_scenario::units::hex;
use std::net::{IpAddr, Ipv4Addr};

/// A key and its value.
type Pair = (Vec<u8>, Vec<u8>);

/// A map's entries, each with its values, one a CPU; none if it is not there.
fn entries(site: &Site, name: &str) -> Result<Vec<Entry>, Error> {
    site.node.map(name).map_or_else(|| Ok(Vec::new()), |map| map.entries())
}

/// The entries of a map that has one value a key.
fn pairs(site: &Site, name: &str) -> Result<Vec<Pair>, Error> {
    Ok(entries(site, name)?.into_iter().map(|(k, v)| (k, v.concat())).collect())
}

/// `skep_metrics`, sorted; counters that are zero are left out.
pub(super) fn metrics(site: &Site) -> Result<Vec<Metric>, Error> {
    let mut metrics: Vec<Metric> = entries(site, METRICS.name)?
        .iter()
        .filter_map(|(key, cpus)| {
            let values: Vec<MetricsValue> = cpus.iter().filter_map(|v| MetricsValue::from_bytes(v)).collect();
            Metric::decode(&MetricsKey::from_bytes(key)?, &values)
        })
        .filter(|m| m.packets > 0)
        .collect();
    metrics.sort();
    Ok(metrics)
}

/// Both conntrack maps, sorted.
pub(super) fn conntrack(site: &Site, now_s: u64) -> Result<Vec<ConntrackEntry>, Error> {
    let mut rows = Vec::new();
    for spec in [CT4_GLOBAL, CT_ANY4_GLOBAL] {
        rows.extend(pairs(site, spec.name)?.iter().filter_map(|(key, value)| {
            Some(ConntrackEntry::decode(&CtTuple4::from_bytes(key)?, &CtEntry::from_bytes(value)?, now_s))
        }));
    }
    rows.sort();
    Ok(rows)
}

/// An endpoint's policy map, sorted.
pub(super) fn policy(site: &Site, endpoint: u16) -> Result<Vec<PolicyRow>, Error> {
    let mut rows: Vec<PolicyRow> = pairs(site, &model::policy_map_name(endpoint))?
        .iter()
        .filter_map(|(key, value)| {
            let (key, entry) = (PolicyKey::from_bytes(key)?, PolicyEntry::from_bytes(value)?);
            let l4 = key.prefixlen.saturating_sub(PolicyKey::STATIC_PREFIX);
            let port_bits = l4.saturating_sub(PolicyKey::PROTOCOL_PREFIX);
            Some(PolicyRow {
                direction: if key.egress == 1 { PolicyDirection::Egress } else { PolicyDirection::Ingress },
                identity: identity_name(&site.agent, key.sec_label, None),
                protocol: if l4 == 0 { 0 } else { key.protocol },
                port: key.dport.to_host(),
                port_prefix: u8::try_from(port_bits).unwrap_or(u8::MAX),
                deny: entry.deny(),
                packets: entry.packets,
            })
        })
        .collect();
    rows.sort();
    Ok(rows)
}

/// `skep_ipcache`, sorted.
pub(super) fn ipcache(site: &Site) -> Result<Vec<IpcacheRow>, Error> {
    let mut rows: Vec<IpcacheRow> = pairs(site, IPCACHE.name)?
        .iter()
        .filter_map(|(key, value)| {
            let (key, info) = (IpcacheKey::from_bytes(key)?, RemoteEndpointInfo::from_bytes(value)?);
            let (ip, tunnel) =
                (Ipv4Addr::from(key.ip4.octets()), Ipv4Addr::from(info.tunnel_endpoint.octets()));
            Some(IpcacheRow {
                cidr: format!("{ip}/{}", key.prefixlen.saturating_sub(IpcacheKey::STATIC_PREFIX)),
                identity: identity_name(&site.agent, info.sec_identity, Some(ip)),
                tunnel_endpoint: (!tunnel.is_unspecified()).then_some(IpAddr::V4(tunnel)),
            })
        })
        .collect();
    rows.sort();
    Ok(rows)
}

/// The endpoints of a node, of these pods, sorted.
pub(super) fn endpoints(site: &Site, pods: &[PodInfo]) -> Vec<EndpointRow> {
    let mut rows: Vec<EndpointRow> = pods
        .iter()
        .map(|pod| EndpointRow {
            pod: pod.key.to_string(),
            id: pod.endpoint,
            address: IpAddr::V4(pod.ip),
            identity: identity_name(&site.agent, pod.identity, Some(pod.ip)),
            ready: site.node.ready().contains(&pod.endpoint),
        })
        .collect();
    rows.sort();
    rows
}

/// Any map of a node as hexadecimal digits, in the order of keys; none if it is not there.
pub(super) fn map(site: &Site, name: &str) -> Result<Option<Vec<(String, String)>>, Error> {
    if site.node.map(name).is_none() {
        return Ok(None);
    }
    Ok(Some(pairs(site, name)?.iter().map(|(k, v)| (hex(k), hex(v))).collect()))
}
