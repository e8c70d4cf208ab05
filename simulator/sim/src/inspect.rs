//! Answers to a scenario's questions about a node, read from the vm's maps. Changes nothing.

use crate::facts::identity;
use crate::machine::Member;
use skep_agent_core::{Cluster, PodKey};
use skep_scenario::snapshot::EndpointRow;
use skep_scenario::tables::Entry;
use skep_scenario::{Identity, Tables};
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};

impl Tables for Member {
    type Error = Infallible;

    fn entries(&self, map: &str) -> Result<Option<Vec<Entry>>, Infallible> {
        Ok(self.host.map(map).map(|id| self.host.kernel.entries_cpus(id)))
    }

    fn identity(&self, number: u32, ip: Option<Ipv4Addr>) -> Identity {
        identity(&self.agent, number, ip)
    }
}

/// The endpoints of a node, sorted.
pub(crate) fn endpoints(member: &Member, cluster: &Cluster) -> Vec<EndpointRow> {
    let pods = cluster.pods().values().filter(|p| p.node == member.host.name && !p.host_network);
    let mut rows: Vec<EndpointRow> = pods
        .map(|pod| EndpointRow {
            pod: pod.key.to_string(),
            id: pod.endpoint,
            address: IpAddr::V4(pod.ip),
            identity: member.identity(pod.identity, Some(pod.ip)),
            ready: member.host.ready.contains(&pod.endpoint),
        })
        .collect();
    rows.sort();
    rows
}

/// The endpoint id of a pod, and the node that it is on.
pub(crate) fn endpoint_of(cluster: &Cluster, pod: &PodKey) -> Option<(String, u16)> {
    let pod = cluster.pods().get(pod).filter(|p| !p.host_network)?;
    Some((pod.node.clone(), pod.endpoint))
}
