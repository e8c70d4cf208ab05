//! The read-only globals that a loader sets (`skep_abi::global`).
//!
//! Each object has those that its programs read.

use aya_ebpf::Global;
use skep_abi::{Be32, Mac};

macro_rules! globals {
    ($($symbol:literal $name:ident: $ty:ty = $zero:expr;)*) => {$(
        #[doc = concat!("See `skep_abi::global`, `", $symbol, "`.")]
        #[unsafe(export_name = $symbol)]
        pub static $name: Global<$ty> = Global::new($zero);
    )*};
}

globals! {
    "endpoint_id" ENDPOINT_ID: u16 = 0;
    "endpoint_ipv4" ENDPOINT_IPV4: Be32 = Be32::from_bits(0);
    "endpoint_mac" ENDPOINT_MAC: Mac = Mac::from_bits(0);
    "security_label" SECURITY_LABEL: u32 = 0;
    "interface_mac" INTERFACE_MAC: Mac = Mac::from_bits(0);
    "interface_ifindex" INTERFACE_IFINDEX: u32 = 0;
    "router_ipv4" ROUTER_IPV4: Be32 = Be32::from_bits(0);
    "node_ipv4" NODE_IPV4: Be32 = Be32::from_bits(0);
    "host_ifindex" HOST_IFINDEX: u32 = 0;
    "host_mac" HOST_MAC: Mac = Mac::from_bits(0);
    "tunnel_ifindex" TUNNEL_IFINDEX: u32 = 0;
    "tunnel_port" TUNNEL_PORT: u16 = 0;
}
