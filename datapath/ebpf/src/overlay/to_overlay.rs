//! tc egress of the tunnel device: what will be encapsulated.

use skep_abi::event::TracePoint;
use skep_core::identity as identities;
use skep_ebpf::event::{self, Ends, NO_CT};
use skep_ebpf::{clear_cb, program, verdict};

program! {
    /// The entry: the mark survives encapsulation and tells to_netdev what the packet is and whose.
    fn to_overlay(skb) {
        clear_cb(skb);
        // Without a key the device will drop the packet: nothing has said where to.
        let ends = Ends { src: skb.tunnel_id().unwrap_or(0), ..Ends::default() };
        skb.set_mark(identities::overlay_mark(ends.src));
        // Whoever chose the tunnel has counted it.
        event::notice(skb, TracePoint::ToOverlay, &ends, NO_CT, skb.ifindex());
        verdict::OK
    }
}
