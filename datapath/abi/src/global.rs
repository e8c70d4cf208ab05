//! The one list of globals: read-only values that a loader sets before an object is loaded.
//!
//! Each stands in the object as a `static` of this name. Names are those of Cilium's load-time configuration.

use crate::program::Object;

/// A global of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Global {
    /// The symbol's name.
    pub name: &'static str,
    /// Its size in bytes: 1, 2, 4 or 8.
    pub size: u8,
    /// The objects that have it.
    pub objects: &'static [Object],
}

macro_rules! globals {
    ($( $(#[doc = $doc:literal])+ $name:ident = $text:literal [$size:literal] $($object:ident)+; )*) => {
        $( $(#[doc = $doc])+ pub const $name: Global =
            Global { name: $text, size: $size, objects: &[$( Object::$object, )+] }; )*

        /// The one list of globals.
        pub const GLOBALS: &[Global] = &[$( $name, )*];
    };
}

globals! {
    /// The endpoint's id.
    ENDPOINT_ID = "endpoint_id" [2] Lxc;
    /// The endpoint's IPv4 address, in network byte order.
    ENDPOINT_IPV4 = "endpoint_ipv4" [4] Lxc;
    /// The address of the pod's own device, a [`crate::Mac`].
    ENDPOINT_MAC = "endpoint_mac" [8] Lxc;
    /// The endpoint's identity.
    SECURITY_LABEL = "security_label" [4] Lxc;
    /// The address of the device that the object is attached to, a [`crate::Mac`].
    INTERFACE_MAC = "interface_mac" [8] Lxc Host;
    /// The index of the device that the object is attached to.
    INTERFACE_IFINDEX = "interface_ifindex" [4] Lxc Host Overlay;
    /// The pods' gateway: skep_host's IPv4 address, in network byte order.
    ROUTER_IPV4 = "router_ipv4" [4] Lxc Host Overlay;
    /// The node's IPv4 address, in network byte order.
    NODE_IPV4 = "node_ipv4" [4] Lxc Host Overlay;
    /// The index of skep_host.
    HOST_IFINDEX = "host_ifindex" [4] Lxc Host Overlay;
    /// The address of skep_host, a [`crate::Mac`].
    HOST_MAC = "host_mac" [8] Lxc Host Overlay;
    /// The index of skep_vxlan; 0 without a tunnel.
    TUNNEL_IFINDEX = "tunnel_ifindex" [4] Lxc Host;
    /// The tunnel's UDP port, in host byte order.
    TUNNEL_PORT = "tunnel_port" [2] Lxc Host;
    /// Whether local pods are reached through their devices, where to_container decides, and not by a tail call.
    ENABLE_ENDPOINT_ROUTES = "enable_endpoint_routes" [1] Lxc Host Overlay;
}
