//! The ways on from a program: to a local pod, to another node, to this node.

use skep_abi::event::TracePoint;
use skep_abi::map::{ENDPOINT_F_HOST, EndpointInfo};
use skep_abi::mark::{self, cb};
use skep_abi::{Be32, DropReason, Mac};
use skep_core::identity;

use crate::event::{self, Ends};
use crate::globals::{ENABLE_ENDPOINT_ROUTES, HOST_IFINDEX, HOST_MAC};
use crate::maps::CALL_POLICY;
use crate::skb::{Ipv4, Skb};

/// Whether the address is this node's own, and not a pod's.
#[inline(always)]
pub fn is_host(ep: &EndpointInfo) -> bool {
    ep.flags & ENDPOINT_F_HOST != 0
}

/// One router further on, and then to the receiving pod; the value to return.
///
/// `flags` are those of `skep_abi::mark::delivery`.
#[inline(always)]
pub fn to_local_pod(skb: Skb, ip: &Ipv4, ep: &EndpointInfo, src: u32, flags: u32) -> Result<i32, DropReason> {
    skb.forward(ip, ep.node_mac, ep.mac)?;
    hand_over(skb, ep, src, flags)
}

/// A packet that was forwarded goes on in the receiving pod's handle_policy or, with endpoint routes, to its device,
/// where to_container decides; the value to return.
///
/// # Errors
/// DROP_EP_NOT_READY if the pod has no policy program yet.
#[inline(always)]
pub fn hand_over(skb: Skb, ep: &EndpointInfo, src: u32, flags: u32) -> Result<i32, DropReason> {
    if ENABLE_ENDPOINT_ROUTES.load() != 0 {
        // The mark tells to_container who sends.
        skb.set_mark(mark::encode_identity(src));
        return Ok(skb.redirect(ep.ifindex));
    }
    skb.set_cb(cb::SRC_LABEL, src);
    skb.set_cb(cb::IFINDEX, ep.ifindex);
    skb.set_cb(cb::FLAGS, flags);
    CALL_POLICY.tail_call(skb, ep.lxc_id as u32);
    Err(DropReason::DROP_EP_NOT_READY)
}

/// Through the tunnel to the node at `remote`; the value to return.
///
/// # Errors
/// NO_TUNNEL_OR_ENCAPSULATION_ENDPOINT if there is no tunnel device, ERROR_WRITING_TO_PACKET.
#[inline(always)]
pub fn to_node(skb: Skb, remote: Be32, tunnel_ifindex: u32, ends: &Ends, ct: u8) -> Result<i32, DropReason> {
    if tunnel_ifindex == 0 {
        return Err(DropReason::NO_TUNNEL_OR_ENCAPSULATION_ENDPOINT);
    }
    skb.set_tunnel(remote, identity::to_tunnel(ends.src))?;
    event::trace(skb, TracePoint::ToOverlay, ends, ct, tunnel_ifindex);
    Ok(skb.redirect(tunnel_ifindex))
}

/// Into this node's stack, by skep_host; the value to return. `src_mac` is the device that the packet leaves.
///
/// It is not forwarded, so its time to live stays.
///
/// # Errors
/// LOCAL_HOST_IS_UNREACHABLE if there is no skep_host, ERROR_WRITING_TO_PACKET.
#[inline(always)]
pub fn to_this_node(skb: Skb, src_mac: Mac, ends: &Ends, ct: u8) -> Result<i32, DropReason> {
    let ifindex = HOST_IFINDEX.load();
    if ifindex == 0 {
        return Err(DropReason::LOCAL_HOST_IS_UNREACHABLE);
    }
    skb.set_macs(src_mac, HOST_MAC.load())?;
    skb.set_mark(mark::encode_identity(ends.src));
    event::trace(skb, TracePoint::ToHost, ends, ct, ifindex);
    Ok(skb.redirect_ingress(ifindex))
}

/// Left to this node's stack, which routes it.
#[inline(always)]
pub fn to_stack(skb: Skb, ends: &Ends, ct: u8) -> i32 {
    skb.set_mark(mark::encode_identity(ends.src));
    event::trace(skb, TracePoint::ToStack, ends, ct, 0);
    crate::verdict::OK
}
