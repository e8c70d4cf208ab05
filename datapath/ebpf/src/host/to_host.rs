//! tc ingress of skep_host and skep_net: what pods send to this node's own addresses.

use skep_abi::event::TracePoint;
use skep_ebpf::event::{self, Ends, NO_CT};
use skep_ebpf::globals::HOST_IFINDEX;
use skep_ebpf::{clear_cb, program, verdict};

use crate::sender;

program! {
    /// The entry: there is no policy of the node's own, so all of it goes to the stack.
    fn to_host(skb) {
        clear_cb(skb);
        let ends = Ends { src: sender(skb).unwrap_or(0), ..Ends::default() };
        event::trace(skb, TracePoint::ToStack, &ends, NO_CT, HOST_IFINDEX.load());
        verdict::OK
    }
}
