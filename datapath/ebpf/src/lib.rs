//! What the programs of all three objects share.
//!
//! Knows packets, maps and helpers. Does not know what is decided about them: that is `skep-core`; nor which program
//! runs where: each hook has its file under `lxc`, `host` and `overlay`.
//!
//! What every file here must keep to, because the kernel's verifier reads the result:
//! - nothing can panic: no indexing, no division by a variable;
//! - a map's value is read once into a local, and the local is used: two reads are two values;
//! - a pointer into the packet is made, checked against the packet's end and used in one function ([`skb`]);
//! - functions with events are never inlined, so that programs stay small; what decides always is.
#![no_std]
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "this target has no atomics but the intrinsics")]

pub mod conntrack;
pub mod delivery;
pub mod event;
pub mod globals;
pub mod maps;
pub mod policy;
pub mod skb;

use skb::Skb;
use skep_abi::{DropReason, mark::cb};

/// Verdicts of tc (`TC_ACT_*`).
pub mod verdict {
    /// The packet goes on to the network stack.
    pub const OK: i32 = 0;
    /// The packet is dropped.
    pub const SHOT: i32 = 2;
    /// The packet goes where bpf_redirect said.
    pub const REDIRECT: i32 = 7;
}

/// Goes on in slot `slot` of this load's calls; returns only if that is empty.
#[inline(always)]
pub fn tail_call(skb: Skb, slot: u32) -> DropReason {
    maps::CALLS.tail_call(skb, slot);
    DropReason::MISSED_TAIL_CALL
}

/// What every entry program does first: what `cb` holds here is somebody else's.
#[inline(always)]
pub fn clear_cb(skb: Skb) {
    skb.set_cb(cb::SRC_LABEL, 0);
    skb.set_cb(cb::IFINDEX, 0);
    skb.set_cb(cb::FLAGS, 0);
    skb.set_cb(cb::CT_STATE, 0);
    skb.set_cb(cb::CUSTOM, 0);
}

/// Declares a program: a symbol of its own in the section that loaders take for tc.
#[macro_export]
macro_rules! program {
    ($(#[doc = $doc:literal])+ fn $name:ident($skb:ident) $body:block) => {
        $(#[doc = $doc])+
        #[unsafe(no_mangle)]
        #[unsafe(link_section = "classifier")]
        pub extern "C" fn $name(ctx: *mut $crate::Context) -> i32 {
            let $skb = $crate::skb::Skb::new(ctx);
            $body
        }
    };
}

/// What the kernel hands to a program.
pub type Context = aya_ebpf::bindings::__sk_buff;

/// The licence of every object: it lets them use helpers that the kernel keeps for GPL-compatible programs.
#[unsafe(link_section = "license")]
#[unsafe(export_name = "LICENSE")]
pub static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Never reached: a symbol of a panic in an object fails its test. It loops so that one that was missed is visible.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
