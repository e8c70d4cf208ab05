//! The stack of a namespace: what Linux does with a packet between two devices, or between a device and a socket.

mod arp;
mod fragment;
mod icmp;
mod input;
mod local;
mod output;

pub(crate) use fragment::{FragmentKey, Fragments};

use crate::device::{Device, broadcast};
use crate::transit::Place;
use crate::{IfIndex, Net, NsId, Route};
use std::net::Ipv4Addr;

impl Net {
    /// The devices of a namespace, by number.
    pub(crate) fn devices_in(&self, ns: NsId) -> impl Iterator<Item = (IfIndex, &Device)> {
        self.namespaces
            .get(&ns)
            .into_iter()
            .flat_map(|n| self.nodes[n.node.0 as usize].devices.iter())
            .filter(move |(_, d)| d.ns == ns)
            .map(|(ifindex, d)| (*ifindex, d))
    }

    /// A place in a namespace.
    pub(crate) fn place_in(&self, ns: NsId, ifindex: Option<IfIndex>) -> Place {
        Place { node: self.namespaces.get(&ns).map(|n| n.node), ns: Some(ns), ifindex }
    }

    /// Whether this host answers to an address: the local table.
    pub(crate) fn is_local(&self, ns: NsId, address: Ipv4Addr) -> bool {
        address.is_loopback() || self.devices_in(ns).any(|(_, d)| d.addresses.iter().any(|a| a.0 == address))
    }

    /// Whether an address is a broadcast of one of the namespace's networks.
    pub(crate) fn is_broadcast(&self, ns: NsId, address: Ipv4Addr) -> bool {
        let of_a_network =
            |d: &Device| d.addresses.iter().any(|(a, prefix)| broadcast(*a, *prefix) == Some(address));
        address.is_broadcast() || self.devices_in(ns).any(|(_, d)| of_a_network(d))
    }

    /// The route to an address: longest prefix first; those of devices that are down do not count.
    pub(crate) fn route(&self, ns: NsId, destination: Ipv4Addr) -> Option<Route> {
        let namespace = self.namespaces.get(&ns)?;
        let devices = &self.nodes[namespace.node.0 as usize].devices;
        let matches = |r: &&Route| {
            crate::device::network(destination, r.prefix) == r.destination
                && devices.get(&r.ifindex).is_some_and(|d| d.up)
        };
        namespace.routes.iter().find(matches).cloned()
    }

    /// The source of what this host sends by a route (`inet_select_addr`): the route's, else the device's first
    /// address, else any of the namespace's.
    pub(crate) fn source_address(&self, ns: NsId, route: &Route) -> Option<Ipv4Addr> {
        let of = |only: Option<IfIndex>| {
            self.devices_in(ns)
                .filter(|(ifindex, _)| only.is_none_or(|o| o == *ifindex))
                .flat_map(|(_, d)| d.addresses.iter().map(|a| a.0))
                .find(|a| !a.is_loopback())
        };
        route.source.or_else(|| of(Some(route.ifindex))).or_else(|| of(None))
    }

    /// The source of what this host sends to an address.
    pub(crate) fn source_towards(&self, ns: NsId, destination: Ipv4Addr) -> Option<Ipv4Addr> {
        if self.is_local(ns, destination) {
            return Some(destination);
        }
        self.source_address(ns, &self.route(ns, destination)?)
    }

    /// The largest IP packet that fits a route.
    pub(crate) fn route_mtu(&self, ns: NsId, route: &Route) -> usize {
        let node = self.namespaces.get(&ns).map(|n| n.node);
        let device = node.and_then(|n| self.nodes[n.0 as usize].devices.get(&route.ifindex));
        let device_mtu = device.map_or(1500, |d| d.mtu);
        route.mtu.map_or(device_mtu, |mtu| mtu.min(device_mtu)) as usize
    }
}
