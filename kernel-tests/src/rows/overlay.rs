//! The tunnel device: from_overlay, to_overlay. BPF_PROG_TEST_RUN carries no tunnel metadata, so from_overlay shows
//! here what it does without; the rest is the scenarios' subject.

use crate::frame::tcp_flag;
use crate::row::{Expected, Row, dropped, passed};
use crate::world::{NODE, POD, REMOTE, from_pod, to_pod};
use skep_abi::map::METRIC_INGRESS;
use skep_abi::{DropReason, mark};

pub(super) fn rows() -> Vec<Row> {
    let from = |name, frame, e: Expected| Row::new("from_overlay", name, frame, e);
    let to = |name, frame| Row::new("to_overlay", name, frame, passed().mark(mark::MAGIC_OVERLAY));
    let refused = |reason| dropped(reason, METRIC_INGRESS);
    let no_key = || refused(DropReason::ERROR_RETRIEVING_TUNNEL_KEY);
    vec![
        from("no_tunnel_metadata", to_pod(REMOTE.ip).tcp(40000, 80, tcp_flag::SYN, 0), no_key()),
        from("no_tunnel_metadata_for_udp", to_pod(REMOTE.ip).udp(1, 2, 200), no_key())
            .mark(7)
            .cb([1, 2, 3, 4, 5]),
        from("a_truncated_header_without_metadata", to_pod(REMOTE.ip).other(0x0800, 12), no_key())
            .kernel_may_refuse(),
        from("ipv6", to_pod(REMOTE.ip).other(0x86dd, 60), refused(DropReason::UNSUPPORTED_L3_PROTOCOL)),
        from("a_length", to_pod(REMOTE.ip).other(60, 60), refused(DropReason::UNSUPPORTED_L2_PROTOCOL)),
        from("arp_is_the_stacks", to_pod(NODE).arp_request(), passed()),
        to("the_mark_says_overlay", from_pod(REMOTE.ip).tcp(40000, 80, tcp_flag::SYN, 0)),
        to("another_mark_is_replaced", from_pod(REMOTE.ip).udp(1, 2, 3))
            .mark(mark::encode_identity(POD.identity)),
        to("arp", from_pod(REMOTE.ip).arp_request()),
    ]
}
