//! What a node's datapath should be, from what its agent knows. Pure.

use crate::change::{EndpointRequest, IdentityLabels, NodeInfo, PodAt, PodKey};
use crate::model::{
    Attachment, Datapath, Device, DeviceKind, End, HookPoint, Link, Load, LoadId, Map, Netns, Route, RouteKey, Value,
    has_agent_entries, policy_map_name,
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
/// The UDP port of VXLAN that Linux and Cilium use.
pub const VXLAN_PORT: u16 = 8472;
/// The MTU of devices.
pub const DEVICE_MTU: u32 = 1500;
/// The MTU of routes that may lead into the tunnel: 50 bytes less, for the outer headers.
pub const ROUTE_MTU: u32 = 1450;

/// What an agent is told when it starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The name of its node.
    pub node: String,
    /// The node's device that bears its address.
    pub uplink: String,
    /// The SHA-256 of each object, in hexadecimal.
    pub objects: BTreeMap<Object, String>,
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
pub fn desired(config: &Config, inputs: &Inputs, networks: &Networks) -> Option<Desired> {
    let _ = (config, inputs, networks);
    todo!()
}
