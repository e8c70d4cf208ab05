//! Answers to a scenario's questions about a node, read from the kernel's maps. Changes nothing.

use super::member::Site;
use skep_agent_core::PodInfo;
use skep_agent_linux::Error;
use skep_scenario::snapshot::EndpointRow;
use skep_scenario::tables::Entry;
use skep_scenario::{Identity, Tables};
use std::net::{IpAddr, Ipv4Addr};

impl Tables for Site {
    type Error = Error;

    fn entries(&self, map: &str) -> Result<Option<Vec<Entry>>, Error> {
        self.node.pinned_map(map)?.map(|map| map.entries()).transpose()
    }

    fn identity(&self, number: u32, ip: Option<Ipv4Addr>) -> Identity {
        Identity { number, text: self.agent.identity_name(number, ip) }
    }
}

/// The endpoints of a node, of these pods, sorted.
pub(super) fn endpoints(site: &Site, pods: &[PodInfo]) -> Vec<EndpointRow> {
    let mut rows: Vec<EndpointRow> = pods
        .iter()
        .map(|pod| EndpointRow {
            pod: pod.key.to_string(),
            id: pod.endpoint,
            address: IpAddr::V4(pod.ip),
            identity: site.identity(pod.identity, Some(pod.ip)),
            ready: site.ready.contains(&pod.endpoint),
        })
        .collect();
    rows.sort();
    rows
}
