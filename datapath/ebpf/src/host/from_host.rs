//! tc egress of skep_host: what this node's stack sends to pods, here or elsewhere.

use skep_abi::DropReason;
use skep_abi::event::TracePoint;
use skep_abi::mark::delivery::FROM_HOST;
use skep_core::{Direction, identity as identities};
use skep_ebpf::event::{self, Ends, NO_CT};
use skep_ebpf::globals::TUNNEL_IFINDEX;
use skep_ebpf::skb::{ETH_IPV4, Ipv4, Skb};
use skep_ebpf::{clear_cb, delivery, maps, program, verdict};

use crate::sender;

program! {
    /// The entry.
    fn from_host(skb) {
        clear_cb(skb);
        let mut ends = Ends::default();
        match go_on(skb, &mut ends) {
            Ok(verdict) => verdict,
            Err(reason) => event::drop(skb, reason, Direction::Ingress, &ends),
        }
    }
}

/// Two ways that do not meet again: where they do, verifiers before 6.12 no longer know that only one has addresses.
#[inline(always)]
fn go_on(skb: Skb, ends: &mut Ends) -> Result<i32, DropReason> {
    if skb.ether_type()? != ETH_IPV4 {
        ends.src = sender(skb).unwrap_or(0);
        event::trace(skb, TracePoint::FromHost, ends, NO_CT, 0);
        return Ok(verdict::OK);
    }
    let ip = skb.ipv4()?;
    ends.src = match sender(skb) {
        Some(id) => id,
        None => identities::from_network(maps::remote(ip.saddr).map(|r| r.sec_identity)),
    };
    event::trace(skb, TracePoint::FromHost, ends, NO_CT, 0);
    route(skb, &ip, ends)
}

#[inline(always)]
fn route(skb: Skb, ip: &Ipv4, ends: &mut Ends) -> Result<i32, DropReason> {
    if let Some(ep) = maps::endpoint(ip.daddr) {
        if delivery::is_host(&ep) {
            return Ok(verdict::OK);
        }
        ends.dst = ep.sec_id;
        ends.dst_id = ep.lxc_id;
        return delivery::to_local_pod(skb, ip, &ep, ends.src, FROM_HOST);
    }
    let Some(remote) = maps::remote(ip.daddr) else {
        return Err(DropReason::STALE_OR_UNROUTABLE_IP);
    };
    ends.dst = remote.sec_identity;
    if remote.tunnel_endpoint.bits() == 0 {
        // The stack would send it back here for ever.
        return Err(DropReason::STALE_OR_UNROUTABLE_IP);
    }
    delivery::to_node(skb, remote.tunnel_endpoint, TUNNEL_IFINDEX.load(), ends, NO_CT)
}
