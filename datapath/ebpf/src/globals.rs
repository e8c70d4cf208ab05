//! The read-only globals that a loader sets (`skep_abi::global`).
//!
//! Each object defines those that the contract gives it; some are not read yet.

use aya_ebpf::Global;
use skep_abi::{Be32, Mac};

/// What a global holds until a loader sets it.
pub trait Zero {
    /// Zero.
    const ZERO: Self;
}

macro_rules! zero {
    ($($ty:ty = $zero:expr;)*) => {$(
        impl Zero for $ty {
            const ZERO: Self = $zero;
        }
    )*};
}
zero! { u8 = 0; u16 = 0; u32 = 0; Be32 = Be32::from_bits(0); Mac = Mac::from_bits(0); }

macro_rules! globals {
    ($($symbol:literal $name:ident: $ty:ty;)*) => {
        /// The types of the globals below.
        #[expect(non_camel_case_types, reason = "each is named as its global is")]
        pub mod types {
            use super::*;
            $(
                #[doc = concat!("See `skep_abi::global`, `", $symbol, "`.")]
                pub type $name = Global<$ty>;
            )*
        }

        unsafe extern "Rust" {
            $(
                #[doc = concat!("See `skep_abi::global`, `", $symbol, "`.")]
                #[link_name = $symbol]
                pub safe static $name: types::$name;
            )*
        }
    };
}

globals! {
    "endpoint_id" ENDPOINT_ID: u16;
    "endpoint_ipv4" ENDPOINT_IPV4: Be32;
    "endpoint_mac" ENDPOINT_MAC: Mac;
    "security_label" SECURITY_LABEL: u32;
    "interface_mac" INTERFACE_MAC: Mac;
    "interface_ifindex" INTERFACE_IFINDEX: u32;
    "router_ipv4" ROUTER_IPV4: Be32;
    "node_ipv4" NODE_IPV4: Be32;
    "host_ifindex" HOST_IFINDEX: u32;
    "host_mac" HOST_MAC: Mac;
    "tunnel_ifindex" TUNNEL_IFINDEX: u32;
    "tunnel_port" TUNNEL_PORT: u16;
    "enable_endpoint_routes" ENABLE_ENDPOINT_ROUTES: u8;
}

/// Defines the globals of an object.
#[macro_export]
macro_rules! define_globals {
    ($($symbol:literal $name:ident,)*) => {
        const _: () = {$(
            #[unsafe(export_name = $symbol)]
            static $name: $crate::globals::types::$name = {
                assert!(skep_abi::global::$name.size as usize == size_of::<$crate::globals::types::$name>());
                $crate::globals::types::$name::new($crate::globals::Zero::ZERO)
            };
        )*};
    };
}
