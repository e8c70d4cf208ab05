//! tc egress of a pod's host-side device, attached only with endpoint routes: what a program or a route led there is
//! judged as in handle_policy, with the identity from the mark.

use skep_abi::mark::cb;
use skep_abi::program::call;
use skep_abi::{DropReason, identity};
use skep_core::{Direction, identity as identities};
use skep_ebpf::skb::{ETH_ARP, ETH_IPV4, Skb};
use skep_ebpf::{clear_cb, event, maps, program, tail_call, verdict};

use crate::receiving;

program! {
    /// The entry: finds the source's identity.
    fn to_container(skb) {
        clear_cb(skb);
        let reason = match skb.ether_type() {
            Ok(ETH_IPV4) => match source(skb) {
                Ok(src) => {
                    skb.set_cb(cb::SRC_LABEL, src);
                    tail_call(skb, call::IPV4_CT_INGRESS_POLICY_ONLY)
                }
                Err(reason) => reason,
            },
            // The stack resolves the pod's address itself.
            Ok(ETH_ARP) => return verdict::OK,
            Ok(_) => DropReason::UNSUPPORTED_L3_PROTOCOL,
            Err(reason) => reason,
        };
        event::drop(skb, reason, Direction::Ingress, &receiving(skb.cb(cb::SRC_LABEL)))
    }
}

#[inline(always)]
fn source(skb: Skb) -> Result<u32, DropReason> {
    if let Some(id) = identities::of_mark(skb.mark()) {
        return Ok(id);
    }
    if skb.ingress_ifindex() == 0 {
        return Ok(identity::HOST);
    }
    let ip = skb.ipv4()?;
    Ok(identities::from_network(maps::remote(ip.saddr).map(|r| r.sec_identity)))
}
