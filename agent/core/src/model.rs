//! What a node's datapath consists of: devices, routes, sysctls, maps, loads and attachments.
//!
//! One structure says what a node has and what it should have. It knows no file descriptor: a device's index is the
//! node's business, and a value that contains one names the device instead ([`Value`]).

use ipnet::Ipv4Net;
use skep_abi::map::{MapSpec, PolicyEntry};
use skep_abi::program::{Hook, Object};
use skep_abi::{Mac, map};
use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

/// A network namespace of a node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Netns {
    /// The node's own.
    Root,
    /// A pod's, by the name in its [`crate::Request`], which is `NAMESPACE/NAME`.
    Pod(String),
}

/// A device by its place: the namespace it stands in and its name there.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link {
    /// The namespace.
    pub netns: Netns,
    /// The name, at most 15 bytes.
    pub name: String,
}

impl Link {
    /// A device of the node's own namespace.
    pub fn root(name: impl Into<String>) -> Self {
        Self { netns: Netns::Root, name: name.into() }
    }

    /// A device of a pod's namespace.
    pub fn pod(netns: impl Into<String>, name: impl Into<String>) -> Self {
        Self { netns: Netns::Pod(netns.into()), name: name.into() }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.netns {
            Netns::Root => f.write_str(&self.name),
            Netns::Pod(pod) => write!(f, "{}@{pod}", self.name),
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One end of a veth pair, or a device that has one end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct End {
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it does ARP; without, neighbours have the device's own address (`IFF_NOARP`).
    pub arp: bool,
    /// Its addresses with their prefix lengths.
    pub addresses: Vec<Ipv4Net>,
}

/// A device that the agent makes. It is up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    /// This end.
    pub end: End,
    /// What it is.
    pub kind: DeviceKind,
}

/// What kind of device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DeviceKind {
    /// A veth pair: both ends are made and deleted together, and the pair is listed once, by its host-side end.
    Veth {
        /// Where the other end stands.
        peer: Link,
        /// The other end.
        peer_end: End,
    },
    /// A VXLAN device whose packets carry tunnel metadata (`external`, collect_md).
    Vxlan {
        /// The UDP port, in host byte order.
        port: u16,
    },
}

/// The part of a route that tells it from others: its table is the namespace's main one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RouteKey {
    /// The namespace.
    pub netns: Netns,
    /// The destination; 0.0.0.0/0 is the default route.
    pub destination: Ipv4Net,
}

/// Where a route leads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// The gateway; without one the destination is on the link (`scope link`).
    pub via: Option<Ipv4Addr>,
    /// The device's name in the route's namespace.
    pub device: String,
    /// The preferred source address.
    pub src: Option<Ipv4Addr>,
    /// The MTU of the route in bytes, where it is not the device's.
    pub mtu: Option<u32>,
}

/// Bytes of a map value or a global, some of which are the indexes of devices.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Value {
    /// The bytes; zero where an index goes.
    pub bytes: Vec<u8>,
    /// The devices whose index (32 bits, little endian) goes to an offset.
    pub ifindexes: BTreeMap<usize, Link>,
}

impl Value {
    /// A value that contains no index.
    pub fn plain(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), ifindexes: BTreeMap::new() }
    }

    /// A value that is the index of a device.
    pub fn ifindex(link: Link) -> Self {
        Self::plain([0; 4]).with_ifindex(0, link)
    }

    /// This value with the index of a device at an offset.
    #[must_use]
    pub fn with_ifindex(mut self, offset: usize, link: Link) -> Self {
        self.ifindexes.insert(offset, link);
        self
    }

    /// The bytes with every index filled in; the device that has none is the error.
    pub fn resolve(&self, links: &BTreeMap<Link, u32>) -> Result<Vec<u8>, Link> {
        let mut bytes = self.bytes.clone();
        for (&offset, link) in &self.ifindexes {
            let index = links.get(link).ok_or_else(|| link.clone())?;
            if let Some(place) = bytes.get_mut(offset..offset + 4) {
                place.copy_from_slice(&index.to_le_bytes());
            }
        }
        Ok(bytes)
    }

    /// Whether two values are the same bytes on a node whose devices have these indexes.
    pub fn same(&self, other: &Self, links: &BTreeMap<Link, u32>) -> bool {
        self == other || matches!((self.resolve(links), other.resolve(links)), (Ok(a), Ok(b)) if a == b)
    }
}

/// A map and its entries.
///
/// The entries are those that the agent writes: maps that programs write (conntrack, metrics, events) and those that
/// hold programs (calls, call_policy) are listed without.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Map {
    /// What it is. Its name is that of the objects' symbol, not of this map.
    pub spec: MapSpec,
    /// The entries, by key.
    pub entries: BTreeMap<Vec<u8>, Value>,
}

impl Map {
    /// A map without entries.
    pub fn empty(spec: MapSpec) -> Self {
        Self { spec, entries: BTreeMap::new() }
    }
}

/// Whether the agent writes the entries of a map of this kind, and so whether an inventory must list them.
pub fn has_agent_entries(spec: &MapSpec) -> bool {
    spec.name == map::LXC.name || spec.name == map::IPCACHE.name || spec.name == map::POLICY.name
}

/// The part of a value that the agent decides: a policy entry's counters are the programs'.
pub fn owned_part<'a>(spec: &MapSpec, bytes: &'a [u8]) -> &'a [u8] {
    const COUNTERS: usize = std::mem::offset_of!(PolicyEntry, packets);
    if spec.name == map::POLICY.name { bytes.get(..COUNTERS).unwrap_or(bytes) } else { bytes }
}

/// The name of an endpoint's policy map, such as `skep_policy_v2_00042`.
pub fn policy_map_name(endpoint: u16) -> String {
    format!("{}_{endpoint:05}", map::POLICY.name)
}

/// One load of an object: what it is for, and a number that tells it from the load that it replaces.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LoadId {
    /// What the load is for: the name of the device that its entry programs are attached to.
    pub owner: String,
    /// Chosen by [`crate::diff`]: in what is wanted it is 0, and stands for the newest.
    pub generation: u32,
}

impl LoadId {
    /// The load of this owner that is wanted.
    pub fn wanted(owner: impl Into<String>) -> Self {
        Self { owner: owner.into(), generation: 0 }
    }
}

impl fmt::Display for LoadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.owner, self.generation)
    }
}

impl fmt::Debug for LoadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An object as it is loaded: with its globals, bound to its maps, its tail calls in a calls map of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Load {
    /// The object.
    pub object: Object,
    /// The SHA-256 of the object's bytes, in hexadecimal: another object under the same name is another load.
    pub sha256: String,
    /// Read-only globals by name. The linker drops those that no program reads: skip what the object has not.
    pub globals: BTreeMap<String, Value>,
    /// Maps by the name of the object's symbol. Skip what the object has not; a map of the object that is not
    /// listed is this load's own and begins empty.
    pub maps: BTreeMap<String, String>,
    /// What the load's own `skep_calls` holds: programs by slot.
    pub calls: BTreeMap<u32, String>,
}

/// Where a program is attached.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HookPoint {
    /// The device.
    pub link: Link,
    /// [`Hook::TcIngress`] or [`Hook::TcEgress`].
    pub hook: Hook,
}

/// An attached program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attachment {
    /// The load that it is of.
    pub load: LoadId,
    /// Its name.
    pub program: String,
}

/// All that skep has, or should have, on a node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Datapath {
    /// Settings by path below /proc/sys, such as `net/ipv4/ip_forward`.
    pub sysctls: BTreeMap<String, String>,
    /// Devices that the agent made.
    pub devices: BTreeMap<Link, Device>,
    /// Routes over those devices.
    pub routes: BTreeMap<RouteKey, Route>,
    /// Maps that outlive a load, by their name on the node.
    pub maps: BTreeMap<String, Map>,
    /// Loads.
    pub loads: BTreeMap<LoadId, Load>,
    /// `skep_call_policy`: whose handle_policy stands in the slot of an endpoint.
    pub published: BTreeMap<u16, LoadId>,
    /// Attached programs.
    pub attachments: BTreeMap<HookPoint, Attachment>,
    /// The index of every device of the node, of both ends of a pair, and of those that the agent did not make.
    /// Empty in what is wanted.
    pub links: BTreeMap<Link, u32>,
}
