//! The object of a pod's host-side device (Cilium's bpf_lxc).
#![no_std]
#![no_main]

mod from_container;
mod handle_policy;
mod to_container;

use skep_ebpf::event::Ends;
use skep_ebpf::globals::{ENDPOINT_ID, SECURITY_LABEL};

skep_ebpf::define_maps! {
    "skep_lxc" LXC,
    "skep_ipcache" IPCACHE,
    "skep_policy_v2" POLICY,
    "skep_ct4_global" CT4_GLOBAL,
    "skep_ct_any4_global" CT_ANY4_GLOBAL,
    "skep_metrics" METRICS,
    "skep_events" EVENTS,
    "skep_calls" CALLS,
    "skep_call_policy" CALL_POLICY,
}

skep_ebpf::define_globals! {
    "endpoint_id" ENDPOINT_ID,
    "endpoint_ipv4" ENDPOINT_IPV4,
    "endpoint_mac" ENDPOINT_MAC,
    "security_label" SECURITY_LABEL,
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

/// This endpoint as the source of what it sends.
#[inline(always)]
fn sending() -> Ends {
    Ends { source: ENDPOINT_ID.load(), src: SECURITY_LABEL.load(), dst: 0, dst_id: 0 }
}

/// This endpoint as the destination of what `src` sends.
#[inline(always)]
fn receiving(src: u32) -> Ends {
    let id = ENDPOINT_ID.load();
    Ends { source: id, src, dst: SECURITY_LABEL.load(), dst_id: id }
}
