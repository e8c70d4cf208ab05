//! The object of skep_host, skep_net and the node's devices (Cilium's bpf_host).
#![no_std]
#![no_main]

mod from_host;
mod from_netdev;
mod to_host;
mod to_netdev;

use skep_abi::identity;
use skep_core::identity as identities;
use skep_ebpf::skb::Skb;

skep_ebpf::define_maps! {
    "skep_lxc" LXC,
    "skep_ipcache" IPCACHE,
    "skep_metrics" METRICS,
    "skep_events" EVENTS,
    "skep_call_policy" CALL_POLICY,
}

skep_ebpf::define_globals! {
    "interface_mac" INTERFACE_MAC,
    "interface_ifindex" INTERFACE_IFINDEX,
    "router_ipv4" ROUTER_IPV4,
    "node_ipv4" NODE_IPV4,
    "host_ifindex" HOST_IFINDEX,
    "host_mac" HOST_MAC,
    "tunnel_ifindex" TUNNEL_IFINDEX,
    "tunnel_port" TUNNEL_PORT,
    "enable_endpoint_routes" ENABLE_ENDPOINT_ROUTES,
}

/// The identity of what this node's stack sends: what the mark says, or this node if its own sockets made it.
#[inline(always)]
fn sender(skb: Skb) -> Option<u32> {
    match identities::of_mark(skb.mark()) {
        Some(id) => Some(id),
        None if skb.ingress_ifindex() == 0 => Some(identity::HOST),
        None => None,
    }
}
