//! Security identities: who a packet is from, as a number.
//!
//! Numbers are Cilium's (`pkg/identity/numericidentity.go`). Identities with a scope in the upper byte are local to
//! the node and never travel in a VNI.

/// No identity is known; also the wildcard of a policy key.
pub const UNKNOWN: u32 = 0;
/// The node that this program runs on.
pub const HOST: u32 = 1;
/// Anything outside the cluster.
pub const WORLD: u32 = 2;
/// A pod that the agent does not manage.
pub const UNMANAGED: u32 = 3;
/// The health checker's endpoint.
pub const HEALTH: u32 = 4;
/// A pod whose labels are not known yet.
pub const INIT: u32 = 5;
/// Another node of the cluster.
pub const REMOTE_NODE: u32 = 6;
/// The API server.
pub const KUBE_APISERVER: u32 = 7;
/// The ingress proxy.
pub const INGRESS: u32 = 8;
/// Outside the cluster, by IPv4 (dual stack).
pub const WORLD_IPV4: u32 = 9;
/// Outside the cluster, by IPv6 (dual stack).
pub const WORLD_IPV6: u32 = 10;

/// The lowest identity that the allocator gives to a set of labels.
pub const CLUSTER_MIN: u32 = 256;
/// The highest identity that the allocator gives to a set of labels: what fits the cluster's share of a VNI.
pub const CLUSTER_MAX: u32 = 65535;
/// Added to node-local identities of CIDRs.
pub const SCOPE_CIDR: u32 = 1 << 24;
/// Added to node-local identities of remote nodes.
pub const SCOPE_REMOTE_NODE: u32 = 2 << 24;

/// The reserved identities and the names that users know them by (`reserved:NAME`), by number.
pub const RESERVED: &[(u32, &str)] = &[
    (UNKNOWN, "unknown"),
    (HOST, "host"),
    (WORLD, "world"),
    (UNMANAGED, "unmanaged"),
    (HEALTH, "health"),
    (INIT, "init"),
    (REMOTE_NODE, "remote-node"),
    (KUBE_APISERVER, "kube-apiserver"),
    (INGRESS, "ingress"),
    (WORLD_IPV4, "world-ipv4"),
    (WORLD_IPV6, "world-ipv6"),
];

/// The name of a reserved identity.
pub fn reserved_name(id: u32) -> Option<&'static str> {
    RESERVED.iter().find(|(n, _)| *n == id).map(|(_, name)| *name)
}
