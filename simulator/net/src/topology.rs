//! What a node is made of, as it is told and asked for: devices, routes, neighbours.

use crate::{IfIndex, Mac, NodeId, NsId};
use std::net::Ipv4Addr;

/// One end of a veth pair to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VethEnd {
    /// The namespace it stands in.
    pub ns: NsId,
    /// Its name there.
    pub name: String,
    /// Its hardware address.
    pub mac: Mac,
    /// Its MTU: the largest IP packet.
    pub mtu: u32,
}

/// What a device is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceKind {
    /// `lo`.
    Loopback,
    /// An end of a veth pair.
    Veth {
        /// The other end, on the same node.
        peer: IfIndex,
    },
    /// The node's network card, at the fabric.
    Uplink,
    /// A VXLAN device with `external` (collect_md): metadata of each packet say where to.
    Vxlan {
        /// The UDP port it sends to and listens at.
        port: u16,
    },
}

/// A device as it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceInfo {
    /// Its node.
    pub node: NodeId,
    /// Its namespace.
    pub ns: NsId,
    /// Its number.
    pub ifindex: IfIndex,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: DeviceKind,
    /// Its hardware address.
    pub mac: Mac,
    /// Its MTU.
    pub mtu: u32,
    /// Whether it is up.
    pub up: bool,
    /// Whether it does without ARP (IFF_NOARP).
    pub noarp: bool,
    /// Its addresses with their prefix lengths.
    pub addresses: Vec<(Ipv4Addr, u8)>,
}

/// How far away a route's destination is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Scope {
    /// Behind a router, or anywhere.
    #[default]
    Global,
    /// On the link.
    Link,
}

/// A route. Adding an address makes the link route of its prefix by itself, as the kernel does (not for /32).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// The destination; host bits are ignored.
    pub destination: Ipv4Addr,
    /// Its prefix length, 0 to 32.
    pub prefix: u8,
    /// The device.
    pub ifindex: IfIndex,
    /// The next hop; none: the destination itself is on the link.
    pub via: Option<Ipv4Addr>,
    /// The preferred source of what this host sends.
    pub source: Option<Ipv4Addr>,
    /// The path's MTU, if it is smaller than the device's.
    pub mtu: Option<u32>,
    /// Scope.
    pub scope: Scope,
}

/// An entry of a neighbour table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Neighbour {
    /// The device.
    pub ifindex: IfIndex,
    /// The address.
    pub address: Ipv4Addr,
    /// Its hardware address; none while ARP is asking.
    pub mac: Option<Mac>,
    /// Set by hand, never asked for (NUD_PERMANENT).
    pub permanent: bool,
}
