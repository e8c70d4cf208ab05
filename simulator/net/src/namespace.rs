//! A network namespace as it stands: routes, neighbours, sysctls, fragments that wait, sockets. No packet passes here.

use crate::device::network;
use crate::frame::Frame;
use crate::host::Host;
use crate::queue::Due;
use crate::stack::Fragments;
use crate::{IfIndex, Mac, NetError, NodeId, Route};
use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;

/// A namespace.
pub(crate) struct Namespace {
    pub(crate) node: NodeId,
    pub(crate) name: String,
    /// Longest prefix first.
    pub(crate) routes: Vec<Route>,
    pub(crate) neighbours: BTreeMap<(IfIndex, Ipv4Addr), Entry>,
    pub(crate) sysctls: BTreeMap<String, i64>,
    pub(crate) fragments: Fragments,
    pub(crate) host: Option<Box<Host>>,
    /// The next IPv4 identification.
    pub(crate) next_id: u16,
}

/// A neighbour.
pub(crate) struct Entry {
    pub(crate) mac: Option<Mac>,
    pub(crate) permanent: bool,
    /// When it was last heard of.
    pub(crate) confirmed_ns: u64,
    /// Requests sent without an answer.
    pub(crate) probes: u32,
    pub(crate) timer: Option<Due>,
    pub(crate) waiting: VecDeque<Frame>,
}

impl Namespace {
    /// An empty namespace.
    pub(crate) fn new(node: NodeId, name: &str) -> Self {
        Self {
            node,
            name: name.to_owned(),
            routes: Vec::new(),
            neighbours: BTreeMap::new(),
            sysctls: BTreeMap::new(),
            fragments: Fragments::default(),
            host: None,
            next_id: 1,
        }
    }

    /// Adds or replaces a route, keeping the order.
    pub(crate) fn insert_route(&mut self, mut route: Route) {
        route.destination = network(route.destination, route.prefix);
        self.remove_route(route.destination, route.prefix);
        let key = |r: &Route| (std::cmp::Reverse(r.prefix), r.destination);
        let at = self.routes.partition_point(|r| key(r) < key(&route));
        self.routes.insert(at, route);
    }

    /// Takes out the route of exactly this prefix.
    pub(crate) fn remove_route(&mut self, destination: Ipv4Addr, prefix: u8) -> Option<Route> {
        let destination = network(destination, prefix);
        let at = self.routes.iter().position(|r| r.prefix == prefix && r.destination == destination)?;
        Some(self.routes.remove(at))
    }

    /// The next IPv4 identification.
    pub(crate) fn ip_id(&mut self) -> u16 {
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1).max(1);
        id
    }

    /// A per-device value as it stands: the device's own, else the default's, else 0.
    fn conf(&self, device: &str, name: &str) -> i64 {
        let read = |device: &str| self.sysctls.get(&format!("{device}.{name}")).copied();
        read(device).or_else(|| read("default")).unwrap_or(0)
    }

    /// A per-device value where the larger of `all` and the device counts (rp_filter, arp_ignore, accept_local,
    /// proxy_arp: Documentation/networking/ip-sysctl.rst).
    pub(crate) fn conf_max(&self, device: &str, name: &str) -> i64 {
        let all = self.sysctls.get(&format!("all.{name}")).copied().unwrap_or(0);
        all.max(self.conf(device, name))
    }

    /// Whether packets that came by this device are forwarded.
    pub(crate) fn forwards(&self, device: &str) -> bool {
        self.conf(device, "forwarding") != 0
    }

    /// Sets a sysctl whose name is known to be right.
    pub(crate) fn set_sysctl(&mut self, name: &Sysctl, value: i64) {
        match name {
            // inet_forward_change: the switch for all sets every device and the default.
            Sysctl::Conf { device, name } if device == "all" && name == "forwarding" => {
                self.sysctls.retain(|key, _| !key.ends_with(".forwarding"));
                self.sysctls.insert("all.forwarding".to_owned(), value);
                self.sysctls.insert("default.forwarding".to_owned(), value);
            }
            Sysctl::Conf { device, name } => {
                self.sysctls.insert(format!("{device}.{name}"), value);
            }
            Sysctl::Other(name) => {
                self.sysctls.insert(name.clone(), value);
            }
        }
    }

    /// A sysctl's value.
    pub(crate) fn sysctl(&self, name: &Sysctl) -> i64 {
        match name {
            Sysctl::Conf { device, name } if device == "all" => {
                self.sysctls.get(&format!("all.{name}")).copied().unwrap_or(0)
            }
            Sysctl::Conf { device, name } => self.conf(device, name),
            Sysctl::Other(name) => self.sysctls.get(name).copied().unwrap_or(0),
        }
    }
}

/// The name of a sysctl, taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Sysctl {
    /// `net.ipv4.conf.DEVICE.NAME`.
    Conf { device: String, name: String },
    /// Any other that may be set.
    Other(String),
}

/// Read per device. The second group is taken and has no effect on what is simulated.
const PER_DEVICE: [&str; 5] = ["rp_filter", "forwarding", "accept_local", "proxy_arp", "arp_ignore"];
const PER_DEVICE_WITHOUT_EFFECT: [&str; 4] =
    ["arp_announce", "send_redirects", "accept_redirects", "route_localnet"];
/// What agents set on nodes and what has no effect on the packets of this simulation.
const WITHOUT_EFFECT: [&str; 4] = [
    "net.core.bpf_jit_enable",
    "kernel.unprivileged_bpf_disabled",
    "kernel.timer_migration",
    "net.ipv4.fib_multipath_use_neigh",
];

impl Sysctl {
    /// Takes a name apart, with dots or slashes.
    pub(crate) fn parse(name: &str) -> Result<Self, NetError> {
        let dotted = name.replace('/', ".");
        if dotted == "net.ipv4.ip_forward" {
            return Ok(Self::Conf { device: "all".to_owned(), name: "forwarding".to_owned() });
        }
        if let Some((device, leaf)) =
            dotted.strip_prefix("net.ipv4.conf.").and_then(|rest| rest.rsplit_once('.'))
            && (PER_DEVICE.contains(&leaf) || PER_DEVICE_WITHOUT_EFFECT.contains(&leaf))
        {
            return Ok(Self::Conf { device: device.to_owned(), name: leaf.to_owned() });
        }
        if WITHOUT_EFFECT.contains(&dotted.as_str()) {
            return Ok(Self::Other(dotted));
        }
        Err(NetError::NoSuchSysctl(name.to_owned()))
    }
}
