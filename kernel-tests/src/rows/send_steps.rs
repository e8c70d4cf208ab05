//! The steps of a pod's sending, each entered by itself as its predecessor would enter it.

use crate::frame::tcp_flag;
use crate::row::{Change, Expected, Row, dropped, passed, redirected};
use crate::world::{POD, REMOTE, ROUTER, TUNNEL_IFINDEX, WORLD, ct_key, from_pod, policy_key};
use skep_abi::event::MatchType;
use skep_abi::map::{CtEntry, CtStatus, CtTuple4, METRIC_EGRESS, tuple_flag};
use skep_abi::program::call;
use skep_abi::{DropReason, mark};

fn key() -> CtTuple4 {
    ct_key((POD.ip, 40000), (REMOTE.ip, 80), 6, tuple_flag::OUT)
}

fn syn() -> Vec<u8> {
    from_pod(REMOTE.ip).tcp(40000, 80, tcp_flag::SYN, 0)
}

fn refused(reason: DropReason) -> Expected {
    dropped(reason, METRIC_EGRESS)
}

/// `cb` as conntrack leaves it for the next program.
fn found(status: CtStatus) -> [u32; 5] {
    [0, 0, 0, status as u32, 0]
}

fn tunnelled() -> Expected {
    redirected(TUNNEL_IFINDEX, 0).sent()
}

fn allowed(e: Expected) -> Expected {
    e.decides(POD.id, METRIC_EGRESS, 0, MatchType::All, 0).counted_by(POD.id, policy_key(0, true, 0, 0, 0))
}

pub(super) fn rows() -> Vec<Row> {
    [arp_and_ipv4(), conntrack(), after_conntrack()].concat()
}

fn arp_and_ipv4() -> Vec<Row> {
    let identity = mark::encode_identity(POD.identity);
    let rest = ["tail_ipv4_ct_egress", "tail_handle_ipv4_cont"];
    vec![
        Row::new(
            "tail_handle_arp",
            "the_gateway",
            from_pod(ROUTER).arp_request(),
            redirected(POD.ifindex, 0).change(Change::ArpAnswer(POD.node_mac)),
        ),
        Row::new(
            "tail_handle_arp",
            "another_address",
            from_pod(WORLD).arp_request(),
            passed().mark(identity).sent(),
        ),
        Row::new(
            "tail_handle_ipv4",
            "its_own_address",
            syn(),
            allowed(tunnelled()).connects(key()).goes_on_in(&rest),
        ),
        Row::new(
            "tail_handle_ipv4",
            "another_address",
            from_pod(REMOTE.ip).from(WORLD).tcp(1, 2, tcp_flag::SYN, 0),
            refused(DropReason::INVALID_SOURCE_IP),
        ),
        Row::new("tail_handle_ipv4", "nothing_goes_on", syn(), refused(DropReason::MISSED_TAIL_CALL))
            .unplugged(call::IPV4_CT_EGRESS),
    ]
}

fn conntrack() -> Vec<Row> {
    let known = CtEntry { packets: 1, bytes: 54, lifetime: 60, ..CtEntry::default() };
    let program = "tail_ipv4_ct_egress";
    let next = ["tail_handle_ipv4_cont"];
    vec![
        Row::new(program, "a_new_connection", syn(), allowed(tunnelled()).connects(key()).goes_on_in(&next)),
        Row::new(
            program,
            "a_known_connection",
            from_pod(REMOTE.ip).tcp(40000, 80, tcp_flag::ACK, 100),
            tunnelled()
                .counted_by(POD.id, policy_key(0, true, 0, 0, 0))
                .goes_on_in(&next)
                .entry(key(), |e| e.packets == 2),
        )
        .state(move |s| s.connection(key(), known)),
        Row::new(
            program,
            "gre",
            from_pod(REMOTE.ip).protocol(47),
            refused(DropReason::CT_UNKNOWN_L4_PROTOCOL),
        ),
        Row::new(program, "nothing_goes_on", syn(), refused(DropReason::MISSED_TAIL_CALL))
            .unplugged(call::IPV4_FROM_LXC_CONT),
    ]
}

fn after_conntrack() -> Vec<Row> {
    let program = "tail_handle_ipv4_cont";
    let denied =
        || refused(DropReason::POLICY_DENIED).decides(POD.id, METRIC_EGRESS, -133, MatchType::None, 0);
    vec![
        Row::new(program, "new", syn(), allowed(tunnelled()).connects(key())).cb(found(CtStatus::New)),
        Row::new(program, "new_and_denied", syn(), denied())
            .cb(found(CtStatus::New))
            .state(|s| s.deny_by_default(POD.id)),
        Row::new(program, "established", syn(), tunnelled().counted_by(POD.id, policy_key(0, true, 0, 0, 0)))
            .cb(found(CtStatus::Established)),
        Row::new(program, "established_and_denied", syn(), denied())
            .cb(found(CtStatus::Established))
            .state(|s| s.deny_by_default(POD.id)),
        Row::new(program, "a_reply", syn(), tunnelled())
            .cb(found(CtStatus::Reply))
            .state(|s| s.deny_by_default(POD.id)),
        Row::new(program, "related", syn(), tunnelled())
            .cb(found(CtStatus::Related))
            .state(|s| s.deny_by_default(POD.id)),
    ]
}
