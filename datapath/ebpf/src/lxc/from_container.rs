//! What a pod sends: tc ingress of its host-side device, and the tail calls from there.
//!
//! from_container -> tail_handle_ipv4 -> tail_ipv4_ct_egress -> tail_handle_ipv4_cont, or tail_handle_arp.

use skep_abi::event::TracePoint;
use skep_abi::map::CtStatus;
use skep_abi::mark::cb;
use skep_abi::program::call;
use skep_abi::reason::METRIC_FORWARDED;
use skep_abi::{DropReason, identity};
use skep_core::{Direction, conntrack as transitions};
use skep_ebpf::event::{self, Ends, NO_CT, Question};
use skep_ebpf::globals::{
    ENDPOINT_ID, ENDPOINT_IPV4, INTERFACE_IFINDEX, INTERFACE_MAC, ROUTER_IPV4, TUNNEL_IFINDEX,
};
use skep_ebpf::skb::{ETH_ARP, ETH_IPV4, Skb};
use skep_ebpf::{clear_cb, conntrack, delivery, maps, policy, program, tail_call};

use crate::sending;

program! {
    /// The entry: tells protocols apart.
    fn from_container(skb) {
        clear_cb(skb);
        let ends = sending();
        event::trace(skb, TracePoint::FromLxc, &ends, NO_CT, 0);
        let reason = match skb.ether_type() {
            Ok(ETH_IPV4) => tail_call(skb, call::IPV4_FROM_LXC),
            Ok(ETH_ARP) => tail_call(skb, call::ARP),
            Ok(_) => DropReason::UNSUPPORTED_L3_PROTOCOL,
            Err(reason) => reason,
        };
        event::drop(skb, reason, Direction::Egress, &ends)
    }
}

program! {
    /// Answers for the gateway; all other ARP is the stack's.
    fn tail_handle_arp(skb) {
        let ends = sending();
        let Some(request) = skb.arp_request() else {
            return delivery::to_stack(skb, &ends, NO_CT);
        };
        if request.target != ROUTER_IPV4.load() {
            return delivery::to_stack(skb, &ends, NO_CT);
        }
        match skb.answer_arp(&request, INTERFACE_MAC.load()) {
            Ok(()) => skb.redirect(INTERFACE_IFINDEX.load()),
            Err(reason) => event::drop(skb, reason, Direction::Egress, &ends),
        }
    }
}

program! {
    /// Lets out only what bears the pod's own address.
    fn tail_handle_ipv4(skb) {
        let reason = match skb.ipv4() {
            Ok(ip) if ip.is_fragment => DropReason::IP_FRAGMENTATION_NOT_SUPPORTED,
            Ok(ip) if ip.saddr != ENDPOINT_IPV4.load() => DropReason::INVALID_SOURCE_IP,
            Ok(_) => tail_call(skb, call::IPV4_CT_EGRESS),
            Err(reason) => reason,
        };
        event::drop(skb, reason, Direction::Egress, &sending())
    }
}

program! {
    /// Asks conntrack; the answer goes on in `cb`.
    fn tail_ipv4_ct_egress(skb) {
        let reason = match skb.ipv4().and_then(|ip| skb.flow(&ip)) {
            Ok(flow) => {
                let status = conntrack::look_up(skb, &flow, Direction::Egress);
                skb.set_cb(cb::CT_STATE, status as u32);
                tail_call(skb, call::IPV4_FROM_LXC_CONT)
            }
            Err(reason) => reason,
        };
        event::drop(skb, reason, Direction::Egress, &sending())
    }
}

program! {
    /// Policy, and the way on.
    fn tail_handle_ipv4_cont(skb) {
        let mut ends = sending();
        match go_on(skb, &mut ends) {
            Ok(verdict) => verdict,
            Err(reason) => event::drop(skb, reason, Direction::Egress, &ends),
        }
    }
}

#[inline(always)]
fn go_on(skb: Skb, ends: &mut Ends) -> Result<i32, DropReason> {
    let ip = skb.ipv4()?;
    let flow = skb.flow(&ip)?;
    let status = CtStatus::from_number(skb.cb(cb::CT_STATE) as u8).unwrap_or(CtStatus::New);

    let (dst, tunnel_endpoint) = match maps::remote(ip.daddr) {
        Some(remote) => (remote.sec_identity, remote.tunnel_endpoint),
        None => (identity::WORLD, skep_abi::Be32::from_bits(0)),
    };
    ends.dst = dst;

    if transitions::asks_policy(status) {
        let asked = Question {
            endpoint: ENDPOINT_ID.load(),
            remote: dst,
            dir: Direction::Egress,
            proto: flow.proto,
            dport: flow.policy_port(),
        };
        policy::check(skb, &asked, status)?;
    }
    if matches!(status, CtStatus::New) {
        conntrack::create(skb, &flow, Direction::Egress, ends.src)?;
    }

    let ct = status as u8;
    if let Some(ep) = maps::endpoint(ip.daddr) {
        if delivery::is_host(&ep) {
            return delivery::to_this_node(skb, INTERFACE_MAC.load(), ends, ct);
        }
        ends.dst_id = ep.lxc_id;
        skb.forward(&ip, ep.node_mac, ep.mac)?;
        // It has left this pod, whatever the other one's policy says; there it counts as received or dropped.
        event::count(skb, METRIC_FORWARDED, Direction::Egress.metric());
        return delivery::hand_over(skb, &ep, ends.src, 0);
    }
    if tunnel_endpoint.bits() != 0 {
        return delivery::to_node(skb, tunnel_endpoint, TUNNEL_IFINDEX.load(), ends, ct);
    }
    Ok(delivery::to_stack(skb, ends, ct))
}
