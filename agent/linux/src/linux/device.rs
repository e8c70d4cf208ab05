//! Devices, addresses and routes of one namespace.
//!
//! Knows the attributes of rtnetlink that an agent's devices need. Does not know which device is for what.

use super::netlink::Netlink;
use super::netns::Netns;
use crate::Error;
use ipnet::Ipv4Net;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoBridge, InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope,
    RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd as _, AsRawFd as _};

/// The routing protocol number that tells the agent's routes from others (`rtm_protocol`, RTPROT_* below 192 that no
/// daemon has).
const PROTOCOL: u8 = 0x5b;

/// A device as it was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FoundDevice {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address; empty if it has none.
    pub mac: Vec<u8>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it does ARP.
    pub arp: bool,
    /// Of a VXLAN device its UDP port and whether it takes tunnel metadata.
    pub vxlan: Option<(u16, bool)>,
    /// Its IPv4 addresses.
    pub addresses: Vec<Ipv4Net>,
}

/// A route of the main table as it was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FoundRoute {
    /// The destination.
    pub destination: Ipv4Net,
    /// The gateway.
    pub via: Option<Ipv4Addr>,
    /// The device's index.
    pub ifindex: u32,
    /// The preferred source.
    pub src: Option<Ipv4Addr>,
    /// The MTU.
    pub mtu: Option<u32>,
}

/// One end of a veth pair to be made.
#[derive(Clone, Copy, Debug)]
pub struct NewEnd<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Its MTU in bytes.
    pub mtu: u32,
    /// The namespace that it goes to; none for that of the socket.
    pub netns: Option<&'a Netns>,
}

fn link(attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = attributes;
    message
}

impl NewEnd<'_> {
    fn attributes(&self) -> Vec<LinkAttribute> {
        let mut all = vec![
            LinkAttribute::IfName(self.name.to_owned()),
            LinkAttribute::Address(self.mac.to_vec()),
            LinkAttribute::Mtu(self.mtu),
        ];
        all.extend(self.netns.map(|ns| LinkAttribute::NetNsFd(ns.as_fd().as_raw_fd())));
        all
    }
}

impl Netlink {
    fn new_link(&mut self, what: &str, message: LinkMessage) -> Result<(), Error> {
        self.request(what, RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Makes a veth pair; its ends are down.
    ///
    /// # Errors
    ///
    /// The kernel's refusal: there is one of that name, no such kind.
    pub fn add_veth(&mut self, end: &NewEnd<'_>, peer: &NewEnd<'_>) -> Result<(), Error> {
        let data = InfoData::Veth(InfoVeth::Peer(link(peer.attributes())));
        let mut attributes = end.attributes();
        attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(data)]));
        self.new_link(&format!("making the veth pair {} and {}", end.name, peer.name), link(attributes))
    }

    /// Makes a VXLAN device that takes its tunnel metadata from each packet (collect_md); it is down.
    ///
    /// # Errors
    ///
    /// As [`Netlink::add_veth`].
    pub fn add_vxlan(&mut self, end: &NewEnd<'_>, port: u16) -> Result<(), Error> {
        let data = InfoData::Vxlan(vec![
            InfoVxlan::Learning(false),
            InfoVxlan::CollectMetadata(true),
            InfoVxlan::Port(port),
        ]);
        let mut attributes = end.attributes();
        attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vxlan), LinkInfo::Data(data)]));
        self.new_link(&format!("making the VXLAN device {}", end.name), link(attributes))
    }

    /// Makes a bridge that knows nothing of multicast; it is down.
    ///
    /// # Errors
    ///
    /// As [`Netlink::add_veth`].
    pub fn add_bridge(&mut self, name: &str) -> Result<(), Error> {
        let attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            // A bridge that looks into IGMP speaks it, too.
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Bridge),
                LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::MulticastSnooping(false)])),
            ]),
        ];
        self.new_link(&format!("making the bridge {name}"), link(attributes))
    }

    /// Makes a device a port of a bridge.
    ///
    /// # Errors
    ///
    /// The kernel's refusal.
    pub fn set_controller(&mut self, ifindex: u32, bridge: u32) -> Result<(), Error> {
        let mut message = link(vec![LinkAttribute::Controller(bridge)]);
        message.header.index = ifindex;
        self.request("adding a bridge's port", RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Sets a device up; without `arp` it does no ARP.
    ///
    /// # Errors
    ///
    /// The kernel's refusal.
    pub fn set_up(&mut self, ifindex: u32, arp: bool) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        message.header.flags = if arp { LinkFlags::Up } else { LinkFlags::Up | LinkFlags::Noarp };
        message.header.change_mask = LinkFlags::Up | LinkFlags::Noarp;
        self.request("setting a device up", RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Deletes a device, of a pair both ends; that there is none is no error.
    ///
    /// # Errors
    ///
    /// The kernel's refusal.
    pub fn delete_link(&mut self, name: &str) -> Result<(), Error> {
        let message = link(vec![LinkAttribute::IfName(name.to_owned())]);
        let what = format!("deleting the device {name}");
        match self.request(&what, RouteNetlinkMessage::DelLink(message), 0) {
            Err(Error::Kernel { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            other => other,
        }
    }

    /// Gives a device an address; that it has it already is no error.
    ///
    /// # Errors
    ///
    /// The kernel's refusal.
    pub fn add_address(&mut self, ifindex: u32, address: Ipv4Net) -> Result<(), Error> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = address.prefix_len();
        message.header.index = ifindex;
        let ip = IpAddr::V4(address.addr());
        message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        self.request(
            &format!("adding the address {address}"),
            RouteNetlinkMessage::NewAddress(message),
            flags,
        )
    }

    /// Adds or replaces a route of the main table.
    ///
    /// # Errors
    ///
    /// The kernel's refusal: the gateway is not on the link.
    pub fn set_route(&mut self, route: &FoundRoute) -> Result<(), Error> {
        let mut message = route_message(route.destination);
        message.header.kind = RouteType::Unicast;
        message.header.scope = if route.via.is_some() { RouteScope::Universe } else { RouteScope::Link };
        message.attributes.push(RouteAttribute::Oif(route.ifindex));
        message.attributes.extend(route.via.map(|ip| RouteAttribute::Gateway(RouteAddress::Inet(ip))));
        message.attributes.extend(route.src.map(|ip| RouteAttribute::PrefSource(RouteAddress::Inet(ip))));
        message.attributes.extend(route.mtu.map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])));
        let what = format!("the route to {}", route.destination);
        self.request(&what, RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Deletes a route of the agent's; that there is none is no error.
    ///
    /// # Errors
    ///
    /// The kernel's refusal.
    pub fn delete_route(&mut self, destination: Ipv4Net) -> Result<(), Error> {
        let mut message = route_message(destination);
        message.header.scope = RouteScope::NoWhere;
        let what = format!("deleting the route to {destination}");
        match self.request(&what, RouteNetlinkMessage::DelRoute(message), 0) {
            Err(Error::Kernel { source, .. }) if source.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            other => other,
        }
    }

    /// All devices of the namespace.
    ///
    /// # Errors
    ///
    /// The kernel's refusal.
    pub fn devices(&mut self) -> Result<Vec<FoundDevice>, Error> {
        let links = self.dump("listing devices", RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        let mut found: Vec<FoundDevice> = links
            .into_iter()
            .filter_map(|m| match m {
                RouteNetlinkMessage::NewLink(m) => Some(found_device(&m)),
                _ => None,
            })
            .collect();
        let mut all = AddressMessage::default();
        all.header.family = AddressFamily::Inet;
        for message in self.dump("listing addresses", RouteNetlinkMessage::GetAddress(all))? {
            let RouteNetlinkMessage::NewAddress(m) = message else { continue };
            let local = m.attributes.iter().find_map(|a| match a {
                AddressAttribute::Local(IpAddr::V4(ip)) => Some(*ip),
                _ => None,
            });
            if let Some(device) = found.iter_mut().find(|d| d.ifindex == m.header.index)
                && let Some(net) = local.and_then(|ip| Ipv4Net::new(ip, m.header.prefix_len).ok())
            {
                device.addresses.push(net);
            }
        }
        Ok(found)
    }

    /// The index of a device.
    ///
    /// # Errors
    ///
    /// If there is none of that name.
    pub fn ifindex(&mut self, name: &str) -> Result<u32, Error> {
        let found = self.devices()?.into_iter().find(|d| d.name == name);
        found.map(|d| d.ifindex).ok_or_else(|| {
            Error::kernel(format!("the device {name}"), std::io::Error::from_raw_os_error(libc::ENODEV))
        })
    }

    /// The routes of the main table that [`Netlink::set_route`] made.
    ///
    /// # Errors
    ///
    /// The kernel's refusal.
    pub fn routes(&mut self) -> Result<Vec<FoundRoute>, Error> {
        let mut all = RouteMessage::default();
        all.header.address_family = AddressFamily::Inet;
        let messages = self.dump("listing routes", RouteNetlinkMessage::GetRoute(all))?;
        Ok(messages
            .into_iter()
            .filter_map(|m| match m {
                RouteNetlinkMessage::NewRoute(m) => found_route(&m),
                _ => None,
            })
            .collect())
    }
}

fn route_message(destination: Ipv4Net) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = destination.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::from(PROTOCOL);
    if destination.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(destination.network())));
    }
    message
}

fn found_device(message: &LinkMessage) -> FoundDevice {
    let mut device = FoundDevice {
        ifindex: message.header.index,
        name: String::new(),
        mac: Vec::new(),
        mtu: 0,
        arp: !message.header.flags.contains(LinkFlags::Noarp),
        vxlan: None,
        addresses: Vec::new(),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => device.name.clone_from(name),
            LinkAttribute::Address(mac) => device.mac.clone_from(mac),
            LinkAttribute::Mtu(mtu) => device.mtu = *mtu,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    if let LinkInfo::Data(InfoData::Vxlan(vxlan)) = info {
                        let port = vxlan.iter().find_map(|v| match v {
                            InfoVxlan::Port(port) => Some(*port),
                            _ => None,
                        });
                        let metadata = vxlan.contains(&InfoVxlan::CollectMetadata(true));
                        device.vxlan = port.map(|port| (port, metadata));
                    }
                }
            }
            _ => {}
        }
    }
    device
}

fn found_route(message: &RouteMessage) -> Option<FoundRoute> {
    let ours = message.header.table == RouteHeader::RT_TABLE_MAIN
        && message.header.protocol == RouteProtocol::from(PROTOCOL);
    if !ours {
        return None;
    }
    let mut destination = Ipv4Addr::UNSPECIFIED;
    let (mut via, mut src, mut mtu, mut ifindex) = (None, None, None, 0);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => destination = *ip,
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => via = Some(*ip),
            RouteAttribute::PrefSource(RouteAddress::Inet(ip)) => src = Some(*ip),
            RouteAttribute::Oif(index) => ifindex = *index,
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|m| match m {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let destination = Ipv4Net::new(destination, message.header.destination_prefix_length).ok()?;
    Some(FoundRoute { destination, via, ifindex, src, mtu })
}
