//! Building and changing the topology: nodes, namespaces, devices, addresses, routes, neighbours, sysctls. What is
//! asked for is checked as rtnetlink checks it, and happens at once.

use crate::device::{Device, network};
use crate::namespace::{Entry, Namespace, Sysctl};
use crate::net::Node;
use crate::queue::Event;
use crate::{
    DeviceInfo, DeviceKind, DropReason, IfIndex, Mac, Neighbour, Net, NetError, NodeId, NsId, Outcome, Route,
    Scope, VethEnd,
};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// The longest device name (IFNAMSIZ - 1).
const MAX_NAME: usize = 15;
/// The MTU of `lo`.
const LOOPBACK_MTU: u32 = 65536;

impl Net {
    /// A node with a root namespace and its `lo` (1).
    pub fn add_node(&mut self, name: &str) -> NodeId {
        let id = NodeId(self.nodes.len() as u32);
        let root = self.new_namespace(id, "");
        let mut lo = Device::new(root, "lo", DeviceKind::Loopback, [0; 6], LOOPBACK_MTU);
        lo.addresses.push((Ipv4Addr::LOCALHOST, 8));
        self.nodes.push(Node { name: name.to_owned(), root, devices: BTreeMap::from([(1, lo)]) });
        id
    }

    fn new_namespace(&mut self, node: NodeId, name: &str) -> NsId {
        let ns = NsId(self.next_ns);
        self.next_ns += 1;
        self.namespaces.insert(ns, Namespace::new(node, name));
        ns
    }

    /// Its name.
    pub fn node_name(&self, node: NodeId) -> Option<&str> {
        self.nodes.get(node.0 as usize).map(|n| n.name.as_str())
    }

    /// Its root namespace.
    pub fn root(&self, node: NodeId) -> Result<NsId, NetError> {
        self.nodes.get(node.0 as usize).map(|n| n.root).ok_or(NetError::NoSuchNode(node))
    }

    /// One more namespace on a node. Its loopback is part of its stack and has no number.
    pub fn add_namespace(&mut self, node: NodeId, name: &str) -> Result<NsId, NetError> {
        self.root(node)?;
        Ok(self.new_namespace(node, name))
    }

    /// Deletes a namespace with its devices (a veth's other end goes too) and its sockets; the root one cannot be.
    pub fn delete_namespace(&mut self, ns: NsId) -> Result<(), NetError> {
        let node = self.node_of(ns).ok_or(NetError::NoSuchNamespace(ns))?;
        if self.root(node)? == ns {
            return Err(NetError::Invalid("a root namespace cannot be deleted".to_owned()));
        }
        let devices: Vec<IfIndex> = self.devices_in(ns).map(|(ifindex, _)| ifindex).collect();
        for ifindex in devices {
            self.delete_device(node, ifindex)?;
        }
        let Some(namespace) = self.namespaces.remove(&ns) else { return Ok(()) };
        for partial in namespace.fragments.0.into_values() {
            self.queue.cancel(partial.timer);
            for frame in partial.into_frames() {
                let event = Event::Drop { node, ns, ifindex: None, frame, reason: DropReason::DevReady };
                self.queue.push(self.now, event);
            }
        }
        if let Some(host) = namespace.host {
            host.wake.map(|due| self.queue.cancel(due));
            for flow in host.active {
                self.flows[flow.0 as usize].finish(Outcome::NoRoute);
            }
        }
        Ok(())
    }

    /// The node of a namespace.
    pub fn node_of(&self, ns: NsId) -> Option<NodeId> {
        self.namespaces.get(&ns).map(|n| n.node)
    }

    /// The name of a namespace; the root one has the empty name.
    pub fn namespace_name(&self, ns: NsId) -> Option<&str> {
        self.namespaces.get(&ns).map(|n| n.name.as_str())
    }

    fn insert_device(&mut self, node: NodeId, device: Device) -> Result<IfIndex, NetError> {
        self.check_device(&device)?;
        let devices = &mut self.nodes.get_mut(node.0 as usize).ok_or(NetError::NoSuchNode(node))?.devices;
        let free = (1..).find(|i| !devices.contains_key(i)).expect("fewer devices than numbers");
        devices.insert(free, device);
        Ok(free)
    }

    fn check_device(&self, device: &Device) -> Result<(), NetError> {
        let name = &device.name;
        let bad =
            name.is_empty() || name.len() > MAX_NAME || name.chars().any(|c| c == '/' || c.is_whitespace());
        if bad || name == "." || name == ".." {
            return Err(NetError::Invalid(format!(
                "{name:?} is no name for a device (1 to {MAX_NAME} bytes)"
            )));
        }
        if !(68..=65535).contains(&device.mtu) {
            return Err(NetError::Invalid(format!("an MTU of {} is not within 68 to 65535", device.mtu)));
        }
        if device.mac[0] & 1 != 0 || device.mac == [0; 6] {
            return Err(NetError::Invalid(format!(
                "{} is no address of a device",
                crate::format_mac(device.mac)
            )));
        }
        match self.device_by_name(device.ns, name) {
            Some(_) => Err(NetError::NameTaken(name.clone())),
            None => Ok(()),
        }
    }

    /// A network card in the root namespace, at the fabric, up.
    pub fn add_uplink(
        &mut self,
        node: NodeId,
        name: &str,
        mac: Mac,
        address: Option<(Ipv4Addr, u8)>,
        mtu: u32,
    ) -> Result<IfIndex, NetError> {
        let root = self.root(node)?;
        let ifindex = self.insert_device(node, Device::new(root, name, DeviceKind::Uplink, mac, mtu))?;
        if let Some((address, prefix)) = address
            && let Err(error) = self.add_address(node, ifindex, address, prefix)
        {
            self.delete_device(node, ifindex)?;
            return Err(error);
        }
        Ok(ifindex)
    }

    /// Two ends of a cable on one node, in two namespaces or in one, both up. The first gets the lower number.
    pub fn add_veth_pair(
        &mut self,
        node: NodeId,
        first: VethEnd,
        second: VethEnd,
    ) -> Result<(IfIndex, IfIndex), NetError> {
        for end in [&first, &second] {
            if self.node_of(end.ns) != Some(node) {
                return Err(NetError::NoSuchNamespace(end.ns));
            }
        }
        // The numbers are known only once both stand.
        let device =
            |end: &VethEnd| Device::new(end.ns, &end.name, DeviceKind::Veth { peer: 0 }, end.mac, end.mtu);
        self.check_device(&device(&second))?;
        let a = self.insert_device(node, device(&first))?;
        let b = match self.insert_device(node, device(&second)) {
            Ok(b) => b,
            Err(error) => {
                self.nodes[node.0 as usize].devices.remove(&a);
                return Err(error);
            }
        };
        self.device_mut(node, a)?.kind = DeviceKind::Veth { peer: b };
        self.device_mut(node, b)?.kind = DeviceKind::Veth { peer: a };
        Ok((a, b))
    }

    /// A VXLAN device with collect_md in the root namespace, up. One a port and node.
    pub fn add_vxlan(
        &mut self,
        node: NodeId,
        name: &str,
        mac: Mac,
        port: u16,
        mtu: u32,
    ) -> Result<IfIndex, NetError> {
        let root = self.root(node)?;
        if self.devices_in(root).any(|(_, d)| d.kind == DeviceKind::Vxlan { port }) {
            return Err(NetError::PortTaken(port));
        }
        self.insert_device(node, Device::new(root, name, DeviceKind::Vxlan { port }, mac, mtu))
    }

    /// Deletes a device with its addresses, routes, neighbours and hooks; of a veth pair both ends.
    pub fn delete_device(&mut self, node: NodeId, ifindex: IfIndex) -> Result<(), NetError> {
        let kind = self.device_mut(node, ifindex)?.kind;
        if kind == DeviceKind::Loopback {
            return Err(NetError::Invalid("lo cannot be deleted".to_owned()));
        }
        self.remove_device(node, ifindex);
        if let DeviceKind::Veth { peer } = kind {
            self.remove_device(node, peer);
        }
        Ok(())
    }

    fn remove_device(&mut self, node: NodeId, ifindex: IfIndex) {
        let Some(device) = self.nodes[node.0 as usize].devices.remove(&ifindex) else { return };
        let Some(namespace) = self.namespaces.get_mut(&device.ns) else { return };
        namespace.routes.retain(|r| r.ifindex != ifindex);
        namespace.sysctls.retain(|key, _| key.rsplit_once('.').is_none_or(|(name, _)| name != device.name));
        let keys: Vec<Ipv4Addr> =
            namespace.neighbours.keys().filter(|k| k.0 == ifindex).map(|k| k.1).collect();
        for address in keys {
            self.forget_neighbour(device.ns, node, ifindex, address);
        }
    }

    /// Takes an entry out; what waited for it is dropped.
    fn forget_neighbour(&mut self, ns: NsId, node: NodeId, ifindex: IfIndex, address: Ipv4Addr) -> bool {
        let Some(namespace) = self.namespaces.get_mut(&ns) else { return false };
        let Some(entry) = namespace.neighbours.remove(&(ifindex, address)) else { return false };
        if let Some(timer) = entry.timer {
            self.queue.cancel(timer);
        }
        for frame in entry.waiting {
            let reason = DropReason::NeighFailed;
            self.queue.push(self.now, Event::Drop { node, ns, ifindex: Some(ifindex), frame, reason });
        }
        true
    }

    pub(crate) fn device_mut(&mut self, node: NodeId, ifindex: IfIndex) -> Result<&mut Device, NetError> {
        let at = self.nodes.get_mut(node.0 as usize).ok_or(NetError::NoSuchNode(node))?;
        at.devices.get_mut(&ifindex).ok_or(NetError::NoSuchDevice(node, ifindex))
    }

    /// Sets the hardware address.
    pub fn set_mac(&mut self, node: NodeId, ifindex: IfIndex, mac: Mac) -> Result<(), NetError> {
        if mac[0] & 1 != 0 || mac == [0; 6] {
            return Err(NetError::Invalid(format!("{} is no address of a device", crate::format_mac(mac))));
        }
        self.device_mut(node, ifindex)?.mac = mac;
        Ok(())
    }

    /// Sets the MTU.
    pub fn set_mtu(&mut self, node: NodeId, ifindex: IfIndex, mtu: u32) -> Result<(), NetError> {
        if !(68..=65535).contains(&mtu) {
            return Err(NetError::Invalid(format!("an MTU of {mtu} is not within 68 to 65535")));
        }
        self.device_mut(node, ifindex)?.mtu = mtu;
        Ok(())
    }

    /// Sets the device up or down. Down keeps addresses and routes, but the routes do not count and nothing passes.
    pub fn set_up(&mut self, node: NodeId, ifindex: IfIndex, up: bool) -> Result<(), NetError> {
        self.device_mut(node, ifindex)?.up = up;
        Ok(())
    }

    /// `ip link set DEV arp off` (IFF_NOARP): nobody is asked, and what leaves by routes is addressed to the device's
    /// own hardware address (`arp_constructor`).
    pub fn set_noarp(&mut self, node: NodeId, ifindex: IfIndex, noarp: bool) -> Result<(), NetError> {
        self.device_mut(node, ifindex)?.noarp = noarp;
        Ok(())
    }

    /// A device as it stands.
    pub fn device(&self, node: NodeId, ifindex: IfIndex) -> Option<DeviceInfo> {
        let d = self.nodes.get(node.0 as usize)?.devices.get(&ifindex)?;
        Some(DeviceInfo {
            node,
            ns: d.ns,
            ifindex,
            name: d.name.clone(),
            kind: d.kind,
            mac: d.mac,
            mtu: d.mtu,
            up: d.up,
            noarp: d.noarp,
            addresses: d.addresses.clone(),
        })
    }

    /// The device of this name in a namespace.
    pub fn device_by_name(&self, ns: NsId, name: &str) -> Option<IfIndex> {
        self.devices_in(ns).find(|(_, d)| d.name == name).map(|(ifindex, _)| ifindex)
    }

    /// All devices of a node, by number.
    pub fn devices(&self, node: NodeId) -> Vec<DeviceInfo> {
        let numbers = self.nodes.get(node.0 as usize).into_iter().flat_map(|n| n.devices.keys());
        numbers.filter_map(|ifindex| self.device(node, *ifindex)).collect()
    }

    /// Adds an address; the link route of its prefix comes with it (not for /32).
    pub fn add_address(
        &mut self,
        node: NodeId,
        ifindex: IfIndex,
        address: Ipv4Addr,
        prefix: u8,
    ) -> Result<(), NetError> {
        if prefix > 32 || address.is_unspecified() || address.is_multicast() || address.is_broadcast() {
            return Err(NetError::Invalid(format!("{address}/{prefix} is no address of a host")));
        }
        let device = self.device_mut(node, ifindex)?;
        if device.addresses.iter().any(|a| a.0 == address) {
            return Err(NetError::NameTaken(format!("with the address {address}")));
        }
        device.addresses.push((address, prefix));
        let ns = device.ns;
        if prefix < 32 {
            let route = Route {
                destination: network(address, prefix),
                prefix,
                ifindex,
                via: None,
                source: Some(address),
                mtu: None,
                scope: Scope::Link,
            };
            self.set_route(ns, route)?;
        }
        Ok(())
    }

    /// Takes an address and its link route away.
    pub fn delete_address(
        &mut self,
        node: NodeId,
        ifindex: IfIndex,
        address: Ipv4Addr,
    ) -> Result<(), NetError> {
        let device = self.device_mut(node, ifindex)?;
        let at = device.addresses.iter().position(|a| a.0 == address);
        let at = at.ok_or_else(|| NetError::NotFound(address.to_string()))?;
        device.addresses.remove(at);
        let ns = device.ns;
        if let Some(namespace) = self.namespaces.get_mut(&ns) {
            // fib_sync_down_addr: routes that prefer this source go too.
            namespace.routes.retain(|r| r.source != Some(address));
        }
        Ok(())
    }

    /// Adds a route, or replaces the one of the same prefix. A next hop must be on the link of the route's device.
    pub fn set_route(&mut self, ns: NsId, route: Route) -> Result<(), NetError> {
        let device_is_here = self.devices_in(ns).any(|(ifindex, _)| ifindex == route.ifindex);
        let namespace = self.namespaces.get_mut(&ns).ok_or(NetError::NoSuchNamespace(ns))?;
        if !device_is_here {
            return Err(NetError::NoSuchDevice(namespace.node, route.ifindex));
        }
        if route.prefix > 32 {
            return Err(NetError::Invalid(format!("a prefix of {} bits", route.prefix)));
        }
        if let Some(via) = route.via {
            let on_link = |r: &&Route| {
                r.via.is_none() && r.ifindex == route.ifindex && network(via, r.prefix) == r.destination
            };
            if namespace.routes.iter().find(on_link).is_none() {
                return Err(NetError::Invalid(format!(
                    "next hop {via} is not on the link: add its route first"
                )));
            }
        }
        namespace.insert_route(route);
        Ok(())
    }

    /// Takes the route of exactly this prefix away.
    pub fn delete_route(&mut self, ns: NsId, destination: Ipv4Addr, prefix: u8) -> Result<(), NetError> {
        let namespace = self.namespaces.get_mut(&ns).ok_or(NetError::NoSuchNamespace(ns))?;
        let gone = namespace.remove_route(destination, prefix);
        gone.map(drop).ok_or_else(|| NetError::NotFound(format!("the route {destination}/{prefix}")))
    }

    /// The routes, longest prefix first.
    pub fn routes(&self, ns: NsId) -> Vec<Route> {
        self.namespaces.get(&ns).map(|n| n.routes.clone()).unwrap_or_default()
    }

    /// Sets a permanent neighbour.
    pub fn set_neighbour(
        &mut self,
        node: NodeId,
        ifindex: IfIndex,
        address: Ipv4Addr,
        mac: Mac,
    ) -> Result<(), NetError> {
        let ns = self.device_mut(node, ifindex)?.ns;
        self.forget_neighbour(ns, node, ifindex, address);
        if let Some(namespace) = self.namespaces.get_mut(&ns) {
            let entry = Entry { mac: Some(mac), permanent: true, ..Entry::new() };
            namespace.neighbours.insert((ifindex, address), entry);
        }
        Ok(())
    }

    /// Forgets a neighbour, permanent or learned.
    pub fn delete_neighbour(
        &mut self,
        node: NodeId,
        ifindex: IfIndex,
        address: Ipv4Addr,
    ) -> Result<(), NetError> {
        let ns = self.device_mut(node, ifindex)?.ns;
        let gone = self.forget_neighbour(ns, node, ifindex, address);
        gone.then_some(()).ok_or_else(|| NetError::NotFound(format!("the neighbour {address}")))
    }

    /// The neighbour table.
    pub fn neighbours(&self, ns: NsId) -> Vec<Neighbour> {
        let entries = self.namespaces.get(&ns).into_iter().flat_map(|n| &n.neighbours);
        entries
            .map(|((ifindex, address), e)| Neighbour {
                ifindex: *ifindex,
                address: *address,
                mac: e.mac,
                permanent: e.permanent,
            })
            .collect()
    }

    /// Sets a sysctl by the kernel's name, with dots or slashes: `net.ipv4.ip_forward`, and of
    /// `net.ipv4.conf.{all,default,DEVICE}.` `rp_filter` (0, 1, 2), `forwarding`, `accept_local`, `proxy_arp`,
    /// `arp_ignore`; some that nodes usually have set are taken without effect. An unknown one is an error.
    pub fn set_sysctl(&mut self, ns: NsId, name: &str, value: &str) -> Result<(), NetError> {
        let parsed = self.known_sysctl(ns, name)?;
        let number = value
            .trim()
            .parse()
            .map_err(|_| NetError::Invalid(format!("{name} takes a number, not {value:?}")))?;
        if let Some(namespace) = self.namespaces.get_mut(&ns) {
            namespace.set_sysctl(&parsed, number);
        }
        Ok(())
    }

    /// A sysctl's value.
    pub fn sysctl(&self, ns: NsId, name: &str) -> Result<String, NetError> {
        let parsed = self.known_sysctl(ns, name)?;
        Ok(self.namespaces.get(&ns).map_or(0, |n| n.sysctl(&parsed)).to_string())
    }

    fn known_sysctl(&self, ns: NsId, name: &str) -> Result<Sysctl, NetError> {
        if !self.namespaces.contains_key(&ns) {
            return Err(NetError::NoSuchNamespace(ns));
        }
        let parsed = Sysctl::parse(name)?;
        if let Sysctl::Conf { device, .. } = &parsed {
            let known =
                matches!(device.as_str(), "all" | "default") || self.device_by_name(ns, device).is_some();
            if !known {
                return Err(NetError::NoSuchSysctl(name.to_owned()));
            }
        }
        Ok(parsed)
    }
}
