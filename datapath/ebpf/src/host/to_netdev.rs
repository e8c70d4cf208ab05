//! tc egress of the node's devices: what leaves for the network.

use skep_abi::event::TracePoint;
use skep_ebpf::event::{self, Ends, NO_CT};
use skep_ebpf::{clear_cb, program, verdict};

use crate::sender;

program! {
    /// The entry: there is neither masquerading nor a policy of the node's own yet, so encapsulated packets, which
    /// neither would touch, and all others leave alike, with the identity that the mark carries.
    fn to_netdev(skb) {
        clear_cb(skb);
        let ends = Ends { src: sender(skb).unwrap_or(0), ..Ends::default() };
        event::trace(skb, TracePoint::ToNetwork, &ends, NO_CT, skb.ifindex());
        verdict::OK
    }
}
