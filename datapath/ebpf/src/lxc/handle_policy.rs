//! What a pod receives: called by the sender's program through `skep_call_policy`.
//!
//! handle_policy -> tail_ipv4_ct_ingress_policy_only -> tail_ipv4_to_endpoint. The caller has left the source's
//! identity and the device to deliver to in `cb`, and has forwarded the packet: addresses and time to live are right.

use skep_abi::DropReason;
use skep_abi::event::TracePoint;
use skep_abi::map::CtStatus;
use skep_abi::mark::cb;
use skep_abi::program::call;
use skep_core::{Direction, conntrack as transitions};
use skep_ebpf::event::{self, Ends, Question};
use skep_ebpf::globals::ENDPOINT_ID;
use skep_ebpf::skb::{ETH_IPV4, Skb};
use skep_ebpf::{conntrack, policy, program, tail_call, verdict};

use crate::receiving;

program! {
    /// The entry: tells protocols apart.
    fn handle_policy(skb) {
        let reason = match skb.ether_type() {
            Ok(ETH_IPV4) => tail_call(skb, call::IPV4_CT_INGRESS_POLICY_ONLY),
            Ok(_) => DropReason::UNSUPPORTED_L3_PROTOCOL,
            Err(reason) => reason,
        };
        event::drop(skb, reason, Direction::Ingress, &receiving(skb.cb(cb::SRC_LABEL)))
    }
}

program! {
    /// Asks conntrack; the answer goes on in `cb`.
    fn tail_ipv4_ct_ingress_policy_only(skb) {
        let reason = match skb.ipv4().and_then(|ip| skb.flow(&ip)) {
            Ok(flow) => {
                let status = conntrack::look_up(skb, &flow, Direction::Ingress);
                skb.set_cb(cb::CT_STATE, status as u32);
                tail_call(skb, call::IPV4_TO_ENDPOINT)
            }
            Err(reason) => reason,
        };
        event::drop(skb, reason, Direction::Ingress, &receiving(skb.cb(cb::SRC_LABEL)))
    }
}

program! {
    /// Policy, and delivery into the pod.
    fn tail_ipv4_to_endpoint(skb) {
        let ends = receiving(skb.cb(cb::SRC_LABEL));
        match deliver(skb, &ends) {
            Ok(verdict) => verdict,
            Err(reason) => event::drop(skb, reason, Direction::Ingress, &ends),
        }
    }
}

#[inline(always)]
fn deliver(skb: Skb, ends: &Ends) -> Result<i32, DropReason> {
    let ip = skb.ipv4()?;
    let flow = skb.flow(&ip)?;
    let status = CtStatus::from_number(skb.cb(cb::CT_STATE) as u8).unwrap_or(CtStatus::New);
    let ifindex = skb.cb(cb::IFINDEX);

    if transitions::asks_policy(status) {
        let asked = Question {
            endpoint: ENDPOINT_ID.load(),
            remote: ends.src,
            dir: Direction::Ingress,
            proto: flow.proto,
            dport: flow.policy_port(),
        };
        policy::check(skb, &asked, status)?;
    }
    if matches!(status, CtStatus::New) {
        conntrack::create(skb, &flow, Direction::Ingress, ends.src)?;
    }
    event::trace(skb, TracePoint::ToLxc, ends, status as u8, ifindex);
    Ok(if ifindex == 0 { verdict::OK } else { skb.redirect(ifindex) })
}
