//! The network between the nodes, and the bare namespaces of nodes and pods: what a machine room and a container
//! runtime would have made before an agent comes.
//!
//! A bridge in a namespace of its own has a port for each node's card. Does not know what runs on a node.

use ipnet::Ipv4Net;
use skep_agent_core::NodeInfo;
use skep_agent_linux::{Error, Netlink, Netns, NewEnd};
use std::net::Ipv4Addr;

/// A node's card.
pub(super) const UPLINK: &str = "eth0";
/// The prefix of the network between the nodes.
const NODE_NETWORK_PREFIX: u8 = 24;
const BRIDGE: &str = "fabric";

/// Settings of every namespace, before it has a device: nothing speaks that was not asked to. Where a kernel has no such
/// setting, there is nothing to set.
const SETTINGS: [(&str, &str); 10] = [
    ("net/ipv6/conf/all/disable_ipv6", "1"),
    ("net/ipv6/conf/default/disable_ipv6", "1"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/ping_group_range", "0 2147483647"),
    // Nothing is lost here, so nothing is sent twice: neither because a machine under load answers late, nor by what one
    // step has cut and the next one would meet.
    ("net/ipv4/tcp_rto_min_us", "60000000"),
    ("net/ipv4/tcp_early_retrans", "0"),
    // Nothing limits ICMP errors. A limit of 0 would not do: it takes the credit by which `ip_error` tells of no route.
    ("net/ipv4/icmp_ratemask", "0"),
];

/// Settings by which a device's neighbours stay known for as long as a scenario takes. Only the first namespace has
/// defaults for them (`lookup_neigh_parms`), so each device has its own.
const NEIGHBOURS: [(&str, &str); 3] =
    [("base_reachable_time_ms", "3600000"), ("delay_first_probe_time", "3600"), ("gc_stale_time", "3600")];

/// Lets a device of the calling thread's namespace keep its neighbours.
pub(super) fn keep_neighbours(device: &str) -> Result<(), Error> {
    for (name, value) in NEIGHBOURS {
        let path = format!("/proc/sys/net/ipv4/neigh/{device}/{name}");
        std::fs::write(&path, value).map_err(|source| Error::Kernel { what: path, source })?;
    }
    Ok(())
}

/// The card's address: locally administered, from the node's own.
pub(super) fn uplink_mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x52, 0x54, a, b, c, d]
}

/// A new namespace with the settings above and its loopback device up.
pub(super) fn namespace() -> Result<Netns, Error> {
    let netns = Netns::new()?;
    netns.within(|| {
        for (name, value) in SETTINGS {
            let _ = std::fs::write(format!("/proc/sys/{name}"), value);
        }
        let mut netlink = Netlink::open()?;
        let lo = netlink.ifindex("lo")?;
        netlink.set_up(lo, true)
    })??;
    Ok(netns)
}

/// The network between the nodes.
pub(super) struct Fabric {
    netns: Netns,
    ports: u32,
}

impl Fabric {
    pub(super) fn new() -> Result<Self, Error> {
        let netns = namespace()?;
        netns.within(|| {
            let mut netlink = Netlink::open()?;
            netlink.add_bridge(BRIDGE)?;
            let bridge = netlink.ifindex(BRIDGE)?;
            netlink.set_up(bridge, true)
        })??;
        Ok(Self { netns, ports: 0 })
    }

    /// A namespace for a node, with its card plugged in.
    pub(super) fn plug_in(&mut self, node: &NodeInfo, mtu: u32) -> Result<Netns, Error> {
        let netns = namespace()?;
        let name = format!("port{}", self.ports);
        self.ports += 1;
        // The bridge's side takes the address that the kernel gives; any that is nobody else's will do.
        let [_, _, c, d] = node.address.octets();
        let port_mac = [0x56, 0x54, 0, 0, c, d];
        let card = NewEnd { name: UPLINK, mac: uplink_mac(node.address), mtu, netns: Some(&netns) };
        self.netns.within(|| {
            let mut netlink = Netlink::open()?;
            netlink.add_veth(&NewEnd { name: &name, mac: port_mac, mtu, netns: None }, &card)?;
            let (port, bridge) = (netlink.ifindex(&name)?, netlink.ifindex(BRIDGE)?);
            netlink.set_controller(port, bridge)?;
            netlink.set_up(port, true)
        })??;
        let address = Ipv4Net::new(node.address, NODE_NETWORK_PREFIX).expect("24 is a prefix length");
        netns.within(|| {
            let mut netlink = Netlink::open()?;
            let card = netlink.ifindex(UPLINK)?;
            keep_neighbours(UPLINK)?;
            netlink.add_address(card, address)?;
            netlink.set_up(card, true)
        })??;
        Ok(netns)
    }
}
