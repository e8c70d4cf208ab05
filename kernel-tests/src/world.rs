//! The node that all rows are about: two pods, one peer node with a pod, the world; and what stands in the maps.
//!
//! Knows the contract's layouts. Does not know rows.

use crate::frame::Route;
use skep_abi::map::{
    CtEntry, CtTuple4, ENDPOINT_F_HOST, EndpointInfo, EndpointKey, IpcacheKey, MapSpec, PolicyEntry,
    PolicyKey, RemoteEndpointInfo,
};
use skep_abi::program::Object;
use skep_abi::{Be16, Be32, Mac, global, identity, map};
use std::collections::BTreeMap;

/// A pod of this node, or of another.
#[derive(Clone, Copy, Debug)]
pub struct Pod {
    /// The endpoint's id.
    pub id: u16,
    /// Its address.
    pub ip: [u8; 4],
    /// The address of its own device.
    pub mac: [u8; 6],
    /// Its host-side device's index and address.
    pub ifindex: u32,
    /// See `ifindex`.
    pub node_mac: [u8; 6],
    /// Its identity.
    pub identity: u32,
}

/// The pod whose load of lxc.o runs.
pub const POD: Pod = Pod {
    id: 101,
    ip: [10, 42, 1, 80],
    mac: [2, 0, 0, 0, 1, 0x80],
    ifindex: 11,
    node_mac: [2, 0, 0, 0, 2, 0x80],
    identity: 300,
};
/// Another pod of this node, with a load of its own.
pub const NEIGHBOUR: Pod = Pod {
    id: 102,
    ip: [10, 42, 1, 81],
    mac: [2, 0, 0, 0, 1, 0x81],
    ifindex: 12,
    node_mac: [2, 0, 0, 0, 2, 0x81],
    identity: 301,
};
/// A pod of the other node.
pub const REMOTE: Pod = Pod {
    id: 0,
    ip: [10, 42, 0, 51],
    mac: [2, 0, 0, 0, 9, 0x51],
    ifindex: 0,
    node_mac: [2, 0, 0, 0, 8, 0x51],
    identity: 400,
};
/// An address outside of the cluster.
pub const WORLD: [u8; 4] = [203, 0, 113, 7];
/// This node, the other node, the pods' gateway.
pub const NODE: [u8; 4] = [192, 168, 1, 12];
/// See [`NODE`].
pub const OTHER_NODE: [u8; 4] = [192, 168, 1, 13];
/// See [`NODE`].
pub const ROUTER: [u8; 4] = [10, 42, 1, 1];
/// skep_host.
pub const HOST_IFINDEX: u32 = 3;
/// See [`HOST_IFINDEX`].
pub const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 7, 1];
/// skep_vxlan.
pub const TUNNEL_IFINDEX: u32 = 4;

/// From the pod to an address, by its gateway.
pub fn from_pod(dst: [u8; 4]) -> Route {
    Route { src_mac: POD.mac, dst_mac: POD.node_mac, src: POD.ip, dst, ttl: 64 }
}

/// From an address to the pod, as it comes to the pod's host-side device or a device of the node.
pub fn to_pod(src: [u8; 4]) -> Route {
    Route { src_mac: POD.node_mac, dst_mac: POD.mac, src, dst: POD.ip, ttl: 63 }
}

/// One entry of one map.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Which map.
    pub map: Place,
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
}

/// A map of the node, or the policy map of an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    /// By its name.
    Node(&'static str),
    /// By the endpoint's id.
    Policy(u16),
}

/// What stands in the maps before a row.
#[derive(Clone, Debug)]
pub struct State(pub Vec<Entry>);

impl Default for State {
    /// Both pods, this node's addresses, the other node and its pod, the world; every policy allows all.
    fn default() -> Self {
        let mut s = Self(Vec::new());
        for pod in [POD, NEIGHBOUR] {
            s = s.endpoint(pod).cidr(pod.ip, 32, pod.identity, [0; 4]).allow_all(pod.id);
        }
        s = s.host_address(NODE).host_address(ROUTER);
        s = s.cidr(NODE, 32, identity::HOST, [0; 4]).cidr(OTHER_NODE, 32, identity::REMOTE_NODE, [0; 4]);
        s.cidr(REMOTE.ip, 32, REMOTE.identity, OTHER_NODE).cidr([0; 4], 0, identity::WORLD, [0; 4])
    }
}

impl State {
    /// With an entry, in the place of one of the same key.
    pub fn with(mut self, map: Place, key: &[u8], value: &[u8]) -> Self {
        self.0.retain(|e| e.map != map || e.key != key);
        self.0.push(Entry { map, key: key.to_vec(), value: value.to_vec() });
        self
    }

    /// Adds a pod of this node.
    pub fn endpoint(self, pod: Pod) -> Self {
        let key = EndpointKey::ipv4(Be32::from_octets(pod.ip)).to_bytes();
        let value = EndpointInfo {
            ifindex: pod.ifindex,
            lxc_id: pod.id,
            mac: Mac::from_octets(pod.mac),
            node_mac: Mac::from_octets(pod.node_mac),
            sec_id: pod.identity,
            ..EndpointInfo::default()
        };
        self.with(Place::Node(map::LXC.name), &key, &value.to_bytes())
    }

    /// Adds an address of this node's own.
    pub fn host_address(self, ip: [u8; 4]) -> Self {
        let key = EndpointKey::ipv4(Be32::from_octets(ip)).to_bytes();
        let value = EndpointInfo { flags: ENDPOINT_F_HOST, ..EndpointInfo::default() };
        self.with(Place::Node(map::LXC.name), &key, &value.to_bytes())
    }

    /// Takes an address of this node away.
    pub fn without_endpoint(mut self, ip: [u8; 4]) -> Self {
        let key = EndpointKey::ipv4(Be32::from_octets(ip)).to_bytes();
        self.0.retain(|e| e.map != Place::Node(map::LXC.name) || e.key != key);
        self
    }

    /// Adds a network to the ipcache.
    pub fn cidr(self, ip: [u8; 4], prefix: u32, identity: u32, tunnel_endpoint: [u8; 4]) -> Self {
        let key = IpcacheKey::ipv4(Be32::from_octets(ip), prefix).to_bytes();
        let value = RemoteEndpointInfo {
            sec_identity: identity,
            tunnel_endpoint: Be32::from_octets(tunnel_endpoint),
            ..RemoteEndpointInfo::default()
        };
        self.with(Place::Node(map::IPCACHE.name), &key, &value.to_bytes())
    }

    /// Empties the ipcache.
    pub fn without_ipcache(mut self) -> Self {
        self.0.retain(|e| e.map != Place::Node(map::IPCACHE.name));
        self
    }

    /// The entries of an endpoint that no policy selects.
    pub fn allow_all(self, id: u16) -> Self {
        let entry = PolicyEntry::new(false, 0);
        let key = |egress| policy_key(0, egress, 0, 0, 0);
        self.policy(id, key(false), entry).policy(id, key(true), entry)
    }

    /// Empties a policy: everything is denied by default.
    pub fn deny_by_default(mut self, id: u16) -> Self {
        self.0.retain(|e| e.map != Place::Policy(id));
        self
    }

    /// Adds an entry to a policy.
    pub fn policy(self, id: u16, key: PolicyKey, entry: PolicyEntry) -> Self {
        self.with(Place::Policy(id), &key.to_bytes(), &entry.to_bytes())
    }

    /// Adds a connection. Times in `entry` count from the start of the run; 0 stays 0.
    pub fn connection(self, key: CtTuple4, entry: CtEntry) -> Self {
        self.with(Place::Node(ct_map(key.nexthdr).name), &key.to_bytes(), &entry.to_bytes())
    }
}

/// The conntrack map of a protocol.
pub fn ct_map(proto: u8) -> &'static MapSpec {
    const TCP: u8 = 6;
    if proto == TCP { &map::CT4_GLOBAL } else { &map::CT_ANY4_GLOBAL }
}

/// A policy key that counts `l4_prefix` bits of protocol and port.
pub fn policy_key(identity: u32, egress: bool, protocol: u8, port: u16, l4_prefix: u32) -> PolicyKey {
    PolicyKey {
        prefixlen: PolicyKey::STATIC_PREFIX + l4_prefix,
        sec_label: identity,
        egress: egress.into(),
        protocol,
        dport: Be16::from_host(port),
    }
}

/// The key of the connection (src, sport) -> (dst, dport), made by a packet that left (`OUT`) or came (`IN`).
pub fn ct_key(src: ([u8; 4], u16), dst: ([u8; 4], u16), proto: u8, flags: u8) -> CtTuple4 {
    CtTuple4 {
        daddr: Be32::from_octets(src.0),
        saddr: Be32::from_octets(dst.0),
        dport: Be16::from_host(dst.1),
        sport: Be16::from_host(src.1),
        nexthdr: proto,
        flags,
    }
}

/// The globals of a load: of lxc.o for an endpoint, of the others for the node.
pub fn globals(object: Object, pod: &Pod) -> BTreeMap<&'static str, Vec<u8>> {
    let mac = |m: [u8; 6]| Mac::from_octets(m).bits().to_le_bytes().to_vec();
    let ifindex: u32 = match object {
        Object::Lxc => pod.ifindex,
        Object::Host => HOST_IFINDEX,
        Object::Overlay => TUNNEL_IFINDEX,
    };
    let interface_mac = if object == Object::Lxc { pod.node_mac } else { HOST_MAC };
    let all = [
        (global::ENDPOINT_ID, pod.id.to_le_bytes().to_vec()),
        (global::ENDPOINT_IPV4, pod.ip.to_vec()),
        (global::ENDPOINT_MAC, mac(pod.mac)),
        (global::SECURITY_LABEL, pod.identity.to_le_bytes().to_vec()),
        (global::INTERFACE_MAC, mac(interface_mac)),
        (global::INTERFACE_IFINDEX, ifindex.to_le_bytes().to_vec()),
        (global::ROUTER_IPV4, ROUTER.to_vec()),
        (global::NODE_IPV4, NODE.to_vec()),
        (global::HOST_IFINDEX, HOST_IFINDEX.to_le_bytes().to_vec()),
        (global::HOST_MAC, mac(HOST_MAC)),
        (global::TUNNEL_IFINDEX, TUNNEL_IFINDEX.to_le_bytes().to_vec()),
        (global::TUNNEL_PORT, 8472_u16.to_le_bytes().to_vec()),
        (global::ENABLE_ENDPOINT_ROUTES, vec![0]),
    ];
    all.into_iter().filter(|(g, _)| g.objects.contains(&object)).map(|(g, v)| (g.name, v)).collect()
}
