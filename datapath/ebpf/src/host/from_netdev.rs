//! tc ingress of the node's devices: what comes from the network.

use skep_abi::DropReason;
use skep_abi::event::TracePoint;
use skep_core::{Direction, identity as identities};
use skep_ebpf::event::{self, Ends, NO_CT};
use skep_ebpf::skb::{ETH_IPV4, Ipv4, Skb};
use skep_ebpf::{clear_cb, delivery, maps, program, verdict};

program! {
    /// The entry: what is for a pod of this node goes to its policy, all else to the stack.
    fn from_netdev(skb) {
        clear_cb(skb);
        let mut ends = Ends::default();
        let ip = match skb.ether_type() {
            Ok(ETH_IPV4) => skb.ipv4().ok(),
            _ => None,
        };
        if let Some(ip) = &ip {
            ends.src = identities::from_network(maps::remote(ip.saddr).map(|r| r.sec_identity));
        }
        event::trace(skb, TracePoint::FromNetwork, &ends, NO_CT, 0);
        match ip {
            // What is not understood here is the node's own business, and the stack's.
            None => verdict::OK,
            Some(ip) => match to_pod(skb, &ip, &mut ends) {
                None => verdict::OK,
                Some(Ok(verdict)) => verdict,
                Some(Err(reason)) => event::drop(skb, reason, Direction::Ingress, &ends),
            },
        }
    }
}

/// Delivers to a pod of this node: the value to return, or why it could not; `None` if it is for no pod.
#[inline(always)]
fn to_pod(skb: Skb, ip: &Ipv4, ends: &mut Ends) -> Option<Result<i32, DropReason>> {
    let ep = maps::endpoint(ip.daddr)?;
    if delivery::is_host(&ep) {
        return None;
    }
    ends.dst = ep.sec_id;
    ends.dst_id = ep.lxc_id;
    Some(delivery::to_local_pod(skb, ip, &ep, ends.src, 0))
}
