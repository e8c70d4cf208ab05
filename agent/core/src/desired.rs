//! What a node's datapath should be, from what its agent knows. Pure.

use crate::change::{EndpointRequest, IdentityLabels, NodeInfo, PodAt, PodKey};
use crate::model::{
    Attachment, Datapath, Device, DeviceKind, End, HookPoint, Link, Load, LoadId, Map, Netns, Route,
    RouteKey, Value, policy_map_name,
};
use crate::policy::{Context, Policy, PolicyKey, PolicyMap, compile};
use ipnet::Ipv4Net;
use skep_abi::map::{self, EndpointInfo, EndpointKey, IpcacheKey, PolicyEntry, RemoteEndpointInfo, Scope};
use skep_abi::program::{self, Hook, Object};
use skep_abi::{Be32, Mac, global, identity};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// The node's end of the pods' gateway, a veth pair within the root namespace.
pub const HOST_DEVICE: &str = "skep_host";
/// The other end of that pair.
pub const NET_DEVICE: &str = "skep_net";
/// The tunnel device.
pub const VXLAN_DEVICE: &str = "skep_vxlan";
/// The pod's end of its veth pair.
pub const POD_DEVICE: &str = "eth0";
/// Bytes that VXLAN over IPv4 puts around a packet: Ethernet, IPv4, UDP and VXLAN headers.
pub const TUNNEL_OVERHEAD: u32 = 50;

/// The switches of a node's datapath, the same on all nodes of a cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Switches {
    /// The tunnel's UDP port, in host byte order; 8472, as Linux and Cilium have it.
    pub tunnel_port: u16,
    /// The MTU of devices; 1500. Routes that may lead into the tunnel have [`TUNNEL_OVERHEAD`] less.
    pub mtu: u32,
    /// Whether every local pod has a route of its own, and to_container at its device decides what it may receive
    /// (Cilium's `enable-endpoint-routes`); false.
    pub endpoint_routes: bool,
}

impl Default for Switches {
    fn default() -> Self {
        Self { tunnel_port: 8472, mtu: 1500, endpoint_routes: false }
    }
}

impl Switches {
    /// The MTU of routes that may lead into the tunnel.
    fn route_mtu(&self) -> u32 {
        self.mtu.saturating_sub(TUNNEL_OVERHEAD)
    }
}

/// What an agent is told when it starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The name of its node.
    pub node: String,
    /// The node's device that bears its address.
    pub uplink: String,
    /// That device's Ethernet address.
    pub uplink_mac: Mac,
    /// The SHA-256 of each object, in hexadecimal.
    pub objects: BTreeMap<Object, String>,
    /// The switches.
    pub switches: Switches,
}

/// All that an agent knows of the cluster and was asked by its kubelet.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Inputs {
    /// Nodes by name.
    pub nodes: BTreeMap<String, NodeInfo>,
    /// Identities by number.
    pub identities: BTreeMap<u32, Arc<IdentityLabels>>,
    /// Pods with an address of their own.
    pub pods: BTreeMap<PodKey, PodAt>,
    /// Policies.
    pub policies: BTreeMap<PolicyKey, Arc<Policy>>,
    /// Endpoints of this node by id.
    pub endpoints: BTreeMap<u16, EndpointRequest>,
}

/// The local identities of the networks that policies name; 0.0.0.0/0 is always the world.
pub type Networks = BTreeMap<Ipv4Net, u32>;

/// What is wanted, and why.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Desired {
    /// The datapath.
    pub datapath: Datapath,
    /// The policy map of each endpoint, with what made its entries.
    pub policies: BTreeMap<u16, PolicyMap>,
}

/// What the node's datapath should be; `None` until the node itself is known.
///
/// An endpoint whose pod, or the identity of whose pod, is not known yet is left out: its pod waits.
pub fn desired(config: &Config, inputs: &Inputs, networks: &Networks) -> Option<Desired> {
    let node = inputs.nodes.get(&config.node)?;
    let mut builder = Builder { config, inputs, node, out: Desired::default() };
    builder.host();
    builder.node_maps(networks);
    for request in inputs.endpoints.values() {
        builder.endpoint(request, networks);
    }
    Some(builder.out)
}

/// The name of a pod's host-side device: `lxc` and twelve hexadecimal digits of the name's FNV-1a hash.
pub fn pod_device(pod: &PodKey) -> String {
    let hash = pod
        .to_string()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    format!("lxc{:012x}", hash >> 16)
}

/// Whose Ethernet address is derived: each device of a node has an address of its own, told by the first two octets.
#[derive(Clone, Copy)]
enum Role {
    Pod = 0x0a58,
    PodHostSide = 0x0e58,
    Host = 0x0a59,
    Net = 0x0e59,
    Vxlan = 0x0a5a,
}

/// A locally administered Ethernet address that follows from an IPv4 address.
fn mac(role: Role, ip: Ipv4Addr) -> Mac {
    let [r, s] = (role as u16).to_be_bytes();
    let [a, b, c, d] = ip.octets();
    Mac::from_octets([r, s, a, b, c, d])
}

fn be32(ip: Ipv4Addr) -> Be32 {
    Be32::from_octets(ip.octets())
}

fn host_route(ip: Ipv4Addr) -> Ipv4Net {
    Ipv4Net::from(ip)
}

/// The key of a network in `skep_ipcache`.
pub(crate) fn ipcache_key(net: &Ipv4Net) -> Vec<u8> {
    IpcacheKey::ipv4(be32(net.network()), u32::from(net.prefix_len())).to_bytes().to_vec()
}

struct Builder<'a> {
    config: &'a Config,
    inputs: &'a Inputs,
    node: &'a NodeInfo,
    out: Desired,
}

impl Builder<'_> {
    fn device(&mut self, link: Link, device: Device) {
        self.out.datapath.devices.insert(link, device);
    }

    fn sysctl(&mut self, name: &str, value: &str) {
        self.out.datapath.sysctls.insert(name.to_owned(), value.to_owned());
    }

    fn route(&mut self, netns: Netns, destination: Ipv4Net, route: Route) {
        self.out.datapath.routes.insert(RouteKey { netns, destination }, route);
    }

    fn entry(&mut self, map: &str, key: Vec<u8>, value: Value) {
        let map =
            self.out.datapath.maps.get_mut(map).expect("the node's maps are listed before their entries");
        map.entries.insert(key, value);
    }

    /// The node's own devices, their settings, routes and programs.
    fn host(&mut self) {
        let router = self.node.router();
        let mtu = self.config.switches.mtu;
        let end = |mac, arp, addresses| End { mac, mtu, arp, addresses };
        let host = Device {
            end: end(mac(Role::Host, router), false, vec![host_route(router)]),
            kind: DeviceKind::Veth {
                peer: Link::root(NET_DEVICE),
                peer_end: end(mac(Role::Net, router), false, Vec::new()),
            },
        };
        self.device(Link::root(HOST_DEVICE), host);
        let vxlan = Device {
            end: end(mac(Role::Vxlan, router), true, Vec::new()),
            kind: DeviceKind::Vxlan { port: self.config.switches.tunnel_port },
        };
        self.device(Link::root(VXLAN_DEVICE), vxlan);

        self.sysctl("net/ipv4/ip_forward", "1");
        self.sysctl("net/ipv4/conf/all/rp_filter", "0");
        for device in [HOST_DEVICE, NET_DEVICE, VXLAN_DEVICE] {
            self.sysctl(&format!("net/ipv4/conf/{device}/forwarding"), "1");
            self.sysctl(&format!("net/ipv4/conf/{device}/rp_filter"), "0");
            self.sysctl(&format!("net/ipv4/conf/{device}/accept_local"), "1");
            self.sysctl(&format!("net/ipv4/conf/{device}/send_redirects"), "0");
        }

        let on_link = Route { via: None, device: HOST_DEVICE.to_owned(), src: None, mtu: None };
        self.route(Netns::Root, host_route(router), on_link);
        let inputs = self.inputs;
        for node in inputs.nodes.values() {
            let mtu = (node.name != self.node.name).then_some(self.config.switches.route_mtu());
            let route = Route { via: Some(router), device: HOST_DEVICE.to_owned(), src: Some(router), mtu };
            self.route(Netns::Root, node.pod_cidr, route);
        }

        let (host_mac, net_mac) = (mac(Role::Host, router), mac(Role::Net, router));
        let vxlan_mac = mac(Role::Vxlan, router);
        let uplink = self.config.uplink.clone();
        use Hook::{TcEgress, TcIngress};
        self.load(Object::Host, HOST_DEVICE, host_mac, &[(TcEgress, "from_host"), (TcIngress, "to_host")]);
        self.load(Object::Host, NET_DEVICE, net_mac, &[(TcIngress, "to_host")]);
        let programs = [(TcIngress, "from_netdev"), (TcEgress, "to_netdev")];
        self.load(Object::Host, &uplink, self.config.uplink_mac, &programs);
        let programs = [(TcIngress, "from_overlay"), (TcEgress, "to_overlay")];
        self.load(Object::Overlay, VXLAN_DEVICE, vxlan_mac, &programs);
    }

    /// Loads an object for a device and attaches these of its programs there.
    fn load(&mut self, object: Object, device: &str, mac: Mac, programs: &[(Hook, &str)]) {
        let mut globals = self.node_globals();
        globals.insert(global::INTERFACE_IFINDEX.name, Value::ifindex(Link::root(device)));
        globals.insert(global::INTERFACE_MAC.name, Value::plain(mac.bits().to_le_bytes()));
        self.insert_load(object, device, globals, BTreeMap::new());
        self.attach(device, programs);
    }

    fn attach(&mut self, device: &str, programs: &[(Hook, &str)]) {
        for (hook, program) in programs {
            let point = HookPoint { link: Link::root(device), hook: *hook };
            let attachment = Attachment { load: LoadId::wanted(device), program: (*program).to_owned() };
            self.out.datapath.attachments.insert(point, attachment);
        }
    }

    /// The globals that are the same in every load of the node.
    fn node_globals(&self) -> BTreeMap<&'static str, Value> {
        let router = self.node.router();
        BTreeMap::from([
            (global::ROUTER_IPV4.name, Value::plain(router.octets())),
            (global::NODE_IPV4.name, Value::plain(self.node.address.octets())),
            (global::HOST_IFINDEX.name, Value::ifindex(Link::root(HOST_DEVICE))),
            (global::HOST_MAC.name, Value::plain(mac(Role::Host, router).bits().to_le_bytes())),
            (global::TUNNEL_IFINDEX.name, Value::ifindex(Link::root(VXLAN_DEVICE))),
            (global::TUNNEL_PORT.name, Value::plain(self.config.switches.tunnel_port.to_le_bytes())),
            (
                global::ENABLE_ENDPOINT_ROUTES.name,
                Value::plain([u8::from(self.config.switches.endpoint_routes)]),
            ),
        ])
    }

    fn insert_load(
        &mut self,
        object: Object,
        owner: &str,
        globals: BTreeMap<&'static str, Value>,
        mut maps: BTreeMap<String, String>,
    ) {
        let of_object =
            |name: &str| global::GLOBALS.iter().any(|g| g.name == name && g.objects.contains(&object));
        let globals =
            globals.into_iter().filter(|(n, _)| of_object(n)).map(|(n, v)| (n.to_owned(), v)).collect();
        let shared = map::MAPS.iter().filter(|m| m.scope == Scope::Node);
        maps.extend(shared.map(|m| (m.name.to_owned(), m.name.to_owned())));
        let calls = program::of(object)
            .filter_map(|p| match p.hook {
                Hook::Calls(slot) => Some((slot, p.name.to_owned())),
                _ => None,
            })
            .collect();
        let sha256 = self.config.objects.get(&object).cloned().unwrap_or_default();
        let load = Load { object, sha256, globals, maps, calls };
        self.out.datapath.loads.insert(LoadId::wanted(owner), load);
    }

    /// The maps that all of the node's loads share, and their entries that are about no endpoint of this node.
    fn node_maps(&mut self, networks: &Networks) {
        for spec in map::MAPS.iter().filter(|m| m.scope == Scope::Node) {
            self.out.datapath.maps.insert(spec.name.to_owned(), Map::empty(*spec));
        }
        for address in [self.node.address, self.node.router()] {
            let info = EndpointInfo { flags: map::ENDPOINT_F_HOST, ..Default::default() };
            let key = EndpointKey::ipv4(be32(address)).to_bytes();
            self.entry(map::LXC.name, key.to_vec(), Value::plain(info.to_bytes()));
        }

        // Written from the weakest claim to an address to the strongest: a network that a policy names never takes
        // the address of a pod, nor a pod that of a node.
        for (network, id) in networks {
            self.ipcache(network, *id, None);
        }
        let inputs = self.inputs;
        for pod in inputs.pods.values() {
            let remote = inputs.nodes.get(&pod.node).filter(|n| n.name != self.node.name);
            self.ipcache(&host_route(pod.ip), pod.identity, remote.map(|n| n.address));
        }
        for node in inputs.nodes.values() {
            let local = node.name == self.node.name;
            let id = if local { identity::HOST } else { identity::REMOTE_NODE };
            self.ipcache(&host_route(node.router()), id, (!local).then_some(node.address));
            self.ipcache(&host_route(node.address), id, None);
        }
    }

    fn ipcache(&mut self, network: &Ipv4Net, sec_identity: u32, tunnel: Option<Ipv4Addr>) {
        let tunnel_endpoint = be32(tunnel.unwrap_or(Ipv4Addr::UNSPECIFIED));
        let info = RemoteEndpointInfo { sec_identity, tunnel_endpoint, ..Default::default() };
        self.entry(map::IPCACHE.name, ipcache_key(network), Value::plain(info.to_bytes()));
    }

    fn endpoint(&mut self, request: &EndpointRequest, networks: &Networks) {
        let inputs = self.inputs;
        let pod = inputs.pods.get(&request.pod).filter(|p| p.node == self.node.name && p.ip == request.ip);
        let Some((pod, subject)) = pod.and_then(|p| Some((p, inputs.identities.get(&p.identity)?))) else {
            return;
        };
        let device = pod_device(&request.pod);
        self.pod_devices(request, &device);
        let host_side = Link::root(device.as_str());
        let (pod_mac, node_mac) = (mac(Role::Pod, request.ip), mac(Role::PodHostSide, request.ip));

        let context = Context { policies: &inputs.policies, identities: &inputs.identities, networks };
        let policy = compile(subject, context);
        let mut policy_map = Map::empty(map::POLICY);
        for key in policy.entries.keys() {
            let value = PolicyEntry::new(false, key.l4_prefix).to_bytes();
            policy_map.entries.insert(key.to_abi().to_bytes().to_vec(), Value::plain(value));
        }
        let policy_name = policy_map_name(request.endpoint);
        self.out.datapath.maps.insert(policy_name.clone(), policy_map);
        self.out.policies.insert(request.endpoint, policy);

        let info = EndpointInfo {
            lxc_id: request.endpoint,
            mac: pod_mac,
            node_mac,
            sec_id: pod.identity,
            ..Default::default()
        };
        let value = Value::plain(info.to_bytes())
            .with_ifindex(std::mem::offset_of!(EndpointInfo, ifindex), host_side.clone());
        self.entry(map::LXC.name, EndpointKey::ipv4(be32(request.ip)).to_bytes().to_vec(), value);

        let mut globals = self.node_globals();
        globals.extend([
            (global::ENDPOINT_ID.name, Value::plain(request.endpoint.to_le_bytes())),
            (global::ENDPOINT_IPV4.name, Value::plain(request.ip.octets())),
            (global::ENDPOINT_MAC.name, Value::plain(pod_mac.bits().to_le_bytes())),
            (global::SECURITY_LABEL.name, Value::plain(pod.identity.to_le_bytes())),
            (global::INTERFACE_MAC.name, Value::plain(node_mac.bits().to_le_bytes())),
            (global::INTERFACE_IFINDEX.name, Value::ifindex(host_side)),
        ]);
        let maps = BTreeMap::from([(map::POLICY.name.to_owned(), policy_name)]);
        self.insert_load(Object::Lxc, &device, globals, maps);
        self.out.datapath.published.insert(request.endpoint, LoadId::wanted(device.as_str()));
        // Without endpoint routes to_container is not attached: the sender's program calls handle_policy.
        self.attach(&device, &[(Hook::TcIngress, "from_container")]);
        if self.config.switches.endpoint_routes {
            self.attach(&device, &[(Hook::TcEgress, "to_container")]);
            let key = RouteKey { netns: Netns::Root, destination: host_route(request.ip) };
            self.out.datapath.routes.insert(key, Route { via: None, device, src: None, mtu: None });
        }
    }

    /// A pod's veth pair, and the way out of its namespace: the gateway on the link, everything else through it.
    fn pod_devices(&mut self, request: &EndpointRequest, device: &str) {
        let router = self.node.router();
        let mtu = self.config.switches.mtu;
        let end = |mac, addresses| End { mac, mtu, arp: true, addresses };
        let pair = Device {
            end: end(mac(Role::PodHostSide, request.ip), Vec::new()),
            kind: DeviceKind::Veth {
                peer: Link::pod(request.netns.as_str(), POD_DEVICE),
                peer_end: end(mac(Role::Pod, request.ip), vec![host_route(request.ip)]),
            },
        };
        self.device(Link::root(device), pair);
        self.sysctl(&format!("net/ipv4/conf/{device}/rp_filter"), "0");
        let netns = Netns::Pod(request.netns.clone());
        let device = POD_DEVICE.to_owned();
        let gateway = Route { via: None, device: device.clone(), src: None, mtu: None };
        self.route(netns.clone(), host_route(router), gateway);
        let default =
            Route { via: Some(router), device, src: None, mtu: Some(self.config.switches.route_mtu()) };
        self.route(netns, Ipv4Net::default(), default);
    }
}
