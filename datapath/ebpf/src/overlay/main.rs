//! The object of the tunnel device (Cilium's bpf_overlay).
#![no_std]
#![no_main]

mod from_overlay;
mod to_overlay;

skep_ebpf::define_maps! {
    "skep_lxc" LXC,
    "skep_ipcache" IPCACHE,
    "skep_metrics" METRICS,
    "skep_events" EVENTS,
    "skep_call_policy" CALL_POLICY,
}

skep_ebpf::define_globals! {
    "interface_ifindex" INTERFACE_IFINDEX,
    "router_ipv4" ROUTER_IPV4,
    "node_ipv4" NODE_IPV4,
    "host_ifindex" HOST_IFINDEX,
    "host_mac" HOST_MAC,
    "enable_endpoint_routes" ENABLE_ENDPOINT_ROUTES,
}
