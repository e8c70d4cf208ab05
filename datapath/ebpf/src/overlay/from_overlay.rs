//! tc ingress of the tunnel device: what another node sent. The network identifier is the source's identity.

use skep_abi::event::TracePoint;
use skep_abi::mark::delivery::FROM_TUNNEL;
use skep_abi::{DropReason, identity};
use skep_core::{Direction, identity as identities};
use skep_ebpf::event::{self, Ends, NO_CT};
use skep_ebpf::globals::HOST_MAC;
use skep_ebpf::skb::{ETH_ARP, ETH_IPV4, Skb};
use skep_ebpf::{clear_cb, delivery, maps, program, verdict};

program! {
    /// The entry.
    fn from_overlay(skb) {
        clear_cb(skb);
        let mut ends = Ends::default();
        match go_on(skb, &mut ends) {
            Ok(verdict) => verdict,
            Err(reason) => event::drop(skb, reason, Direction::Ingress, &ends),
        }
    }
}

#[inline(always)]
fn go_on(skb: Skb, ends: &mut Ends) -> Result<i32, DropReason> {
    match skb.ether_type()? {
        ETH_IPV4 => {}
        // Nobody resolves addresses through the tunnel; the stack may ignore who tries.
        ETH_ARP => return Ok(verdict::OK),
        _ => return Err(DropReason::UNSUPPORTED_L3_PROTOCOL),
    }
    let vni = skb.tunnel_id().ok_or(DropReason::ERROR_RETRIEVING_TUNNEL_KEY)?;
    ends.src = vni;
    event::trace(skb, TracePoint::FromOverlay, ends, NO_CT, 0);
    identities::from_tunnel(vni)?;

    let ip = skb.ipv4()?;
    if vni == identity::REMOTE_NODE {
        ends.src = identities::refine_remote_node(vni, maps::remote(ip.saddr).map(|r| r.sec_identity));
    }
    let ep = maps::endpoint(ip.daddr).ok_or(DropReason::STALE_OR_UNROUTABLE_IP)?;
    if delivery::is_host(&ep) {
        return delivery::to_this_node(skb, HOST_MAC.load(), ends, NO_CT);
    }
    ends.dst = ep.sec_id;
    ends.dst_id = ep.lxc_id;
    delivery::to_local_pod(skb, &ip, &ep, ends.src, FROM_TUNNEL)
}
