//! The object of a pod's host-side device (Cilium's bpf_lxc).
#![no_std]
#![no_main]

mod from_container;
mod handle_policy;
mod to_container;

use skep_ebpf::event::Ends;
use skep_ebpf::globals::{ENDPOINT_ID, SECURITY_LABEL};

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
