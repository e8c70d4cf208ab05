//! What a pod receives: handle_policy and its steps, and to_container.

use crate::frame::tcp_flag;
use crate::row::{Expected, Row, dropped, passed, redirected};
use crate::world::{NODE, POD, REMOTE, WORLD, ct_key, policy_key, to_pod};
use skep_abi::event::MatchType;
use skep_abi::map::{CtEntry, CtStatus, CtTuple4, METRIC_INGRESS, PolicyEntry, tuple_flag};
use skep_abi::mark::delivery;
use skep_abi::program::call;
use skep_abi::{DropReason, identity, mark};

const TCP: u8 = 6;
const STEPS: [&str; 2] = ["tail_ipv4_ct_ingress_policy_only", "tail_ipv4_to_endpoint"];

/// `cb` as from_overlay leaves it: the source's identity, where to deliver, out of the tunnel.
const CB: [u32; 5] = [REMOTE.identity, POD.ifindex, delivery::FROM_TUNNEL, 0, 0];

fn syn() -> Vec<u8> {
    to_pod(REMOTE.ip).tcp(40000, 80, tcp_flag::SYN, 0)
}

fn key() -> CtTuple4 {
    ct_key((REMOTE.ip, 40000), (POD.ip, 80), TCP, tuple_flag::IN)
}

fn refused(reason: DropReason) -> Expected {
    dropped(reason, METRIC_INGRESS)
}

fn delivered() -> Expected {
    redirected(POD.ifindex, 0).received()
}

fn allowed(e: Expected) -> Expected {
    e.decides(POD.id, METRIC_INGRESS, 0, MatchType::All, 0).counted_by(POD.id, policy_key(0, false, 0, 0, 0))
}

fn denied() -> Expected {
    refused(DropReason::POLICY_DENIED).decides(POD.id, METRIC_INGRESS, -133, MatchType::None, 0)
}

pub(super) fn rows() -> Vec<Row> {
    [entry(), policy(), steps(), by_route()].concat()
}

fn entry() -> Vec<Row> {
    let known = CtEntry { packets: 5, bytes: 500, lifetime: 1000, ..CtEntry::default() };
    let sent_before = ct_key((POD.ip, 40000), (REMOTE.ip, 80), TCP, tuple_flag::OUT);
    let answer = to_pod(REMOTE.ip).tcp(80, 40000, tcp_flag::SYN | tcp_flag::ACK, 0);
    let row = |name, frame, expected: Expected| Row::new("handle_policy", name, frame, expected).cb(CB);
    let to = to_pod(REMOTE.ip);
    let at_conntrack = |reason| refused(reason).goes_on_in(&STEPS[..1]);
    vec![
        row(
            "tcp_is_delivered",
            syn(),
            allowed(delivered()).connects(key()).goes_on_in(&STEPS).entry(key(), |e| {
                (e.lifetime, e.rx_flags_seen, e.tx_flags_seen, e.src_sec_id)
                    == (60, tcp_flag::SYN, 0, REMOTE.identity)
            }),
        ),
        row(
            "udp_is_delivered",
            to.udp(5353, 53, 20),
            allowed(delivered()).goes_on_in(&STEPS).connects(ct_key(
                (REMOTE.ip, 5353),
                (POD.ip, 53),
                17,
                tuple_flag::IN,
            )),
        ),
        row(
            "an_echo_is_delivered",
            to.echo(9),
            allowed(delivered()).goes_on_in(&STEPS).connects(ct_key(
                (REMOTE.ip, 9),
                (POD.ip, 0),
                1,
                tuple_flag::IN,
            )),
        ),
        row(
            "without_a_device_it_is_the_stacks",
            syn(),
            allowed(passed()).received().connects(key()).goes_on_in(&STEPS),
        )
        .cb([REMOTE.identity, 0, 0, 0, 0]),
        row(
            "an_answer_skips_the_policy",
            answer.clone(),
            delivered()
                .goes_on_in(&STEPS)
                .entry(sent_before, |e| e.packets == 6 && e.rx_flags_seen & tcp_flag::SYN != 0),
        )
        .state(move |s| s.connection(sent_before, known).deny_by_default(POD.id)),
        row(
            "an_established_packet_asks_the_policy",
            syn(),
            delivered().goes_on_in(&STEPS).counted_by(POD.id, policy_key(0, false, 0, 0, 0)),
        )
        .state(move |s| s.connection(key(), known)),
        row("a_deny_cuts_an_established_connection", syn(), denied().goes_on_in(&STEPS))
            .state(move |s| s.connection(key(), known).deny_by_default(POD.id)),
        row("an_error_about_a_known_pair", to.unreachable(&answer), delivered().goes_on_in(&STEPS)).state(
            move |s| {
                let errors = ct_key((POD.ip, 0), (REMOTE.ip, 0), 1, tuple_flag::OUT | tuple_flag::RELATED);
                s.connection(errors, known).deny_by_default(POD.id)
            },
        ),
        row("ipv6", to.other(0x86dd, 60), refused(DropReason::UNSUPPORTED_L3_PROTOCOL)),
        row("a_length", to.other(60, 60), refused(DropReason::UNSUPPORTED_L2_PROTOCOL)),
        row("a_truncated_header", to.other(0x0800, 12), at_conntrack(DropReason::INVALID_PACKET_DROPPED))
            .kernel_may_refuse(),
        row("a_fragment", to.fragment(1, 2, true), at_conntrack(DropReason::IP_FRAGMENTATION_NOT_SUPPORTED)),
        row("gre", to.protocol(47), at_conntrack(DropReason::CT_UNKNOWN_L4_PROTOCOL)),
        row(
            "a_truncated_tcp_header",
            syn()[..44].to_vec(),
            at_conntrack(DropReason::CT_TRUNCATED_OR_INVALID_HEADER),
        ),
        row("no_conntrack_program", syn(), refused(DropReason::MISSED_TAIL_CALL))
            .unplugged(call::IPV4_CT_INGRESS_POLICY_ONLY),
        row("no_program_after_conntrack", syn(), at_conntrack(DropReason::MISSED_TAIL_CALL))
            .unplugged(call::IPV4_TO_ENDPOINT),
    ]
}

fn policy() -> Vec<Row> {
    let row =
        |name, expected: Expected| Row::new("handle_policy", name, syn(), expected.goes_on_in(&STEPS)).cb(CB);
    let key_of = |identity, bits| {
        policy_key(identity, false, if bits == 0 { 0 } else { TCP }, if bits == 24 { 80 } else { 0 }, bits)
    };
    let only = |k, e| move |s: crate::world::State| s.deny_by_default(POD.id).policy(POD.id, k, e);
    let id = REMOTE.identity;
    let matched = |m, bits, k| {
        delivered().connects(key()).decides(POD.id, METRIC_INGRESS, 0, m, bits).counted_by(POD.id, k)
    };
    vec![
        row("nothing_allows", denied()).state(|s| s.deny_by_default(POD.id)),
        row("identity_and_port_allow", matched(MatchType::L3L4, 24, key_of(id, 24)))
            .state(only(key_of(id, 24), PolicyEntry::new(false, 24))),
        row("identity_allows", matched(MatchType::L3Only, 0, key_of(id, 0)))
            .state(only(key_of(id, 0), PolicyEntry::new(false, 0))),
        row("port_allows", matched(MatchType::L4Only, 24, key_of(0, 24)))
            .state(only(key_of(0, 24), PolicyEntry::new(false, 24))),
        row("another_identity_is_allowed", denied())
            .state(only(key_of(id + 1, 24), PolicyEntry::new(false, 24))),
        row("egress_is_allowed", denied())
            .state(only(policy_key(id, true, TCP, 80, 24), PolicyEntry::new(false, 24))),
        row(
            "the_deny_bit_denies",
            refused(DropReason::POLICY_DENY)
                .decides(POD.id, METRIC_INGRESS, -181, MatchType::L3L4, 24)
                .counted_by(POD.id, key_of(id, 24)),
        )
        .state(only(key_of(id, 24), PolicyEntry::new(true, 24))),
    ]
}

fn steps() -> Vec<Row> {
    let known = CtEntry { packets: 1, bytes: 54, lifetime: 60, ..CtEntry::default() };
    let conntrack = |name, frame, e: Expected| Row::new(STEPS[0], name, frame, e).cb(CB);
    let endpoint = |name, status: CtStatus, e: Expected| {
        Row::new(STEPS[1], name, syn(), e).cb([CB[0], CB[1], CB[2], status as u32, 0])
    };
    vec![
        conntrack("a_new_connection", syn(), allowed(delivered()).connects(key()).goes_on_in(&STEPS[1..])),
        conntrack(
            "a_known_connection",
            syn(),
            delivered()
                .counted_by(POD.id, policy_key(0, false, 0, 0, 0))
                .goes_on_in(&STEPS[1..])
                .entry(key(), |e| e.packets == 2),
        )
        .state(move |s| s.connection(key(), known)),
        conntrack("nothing_goes_on", syn(), refused(DropReason::MISSED_TAIL_CALL))
            .unplugged(call::IPV4_TO_ENDPOINT),
        endpoint("new", CtStatus::New, allowed(delivered()).connects(key())),
        endpoint("new_and_denied", CtStatus::New, denied()).state(|s| s.deny_by_default(POD.id)),
        endpoint("established_and_denied", CtStatus::Established, denied())
            .state(|s| s.deny_by_default(POD.id)),
        endpoint("a_reply", CtStatus::Reply, delivered()).state(|s| s.deny_by_default(POD.id)),
        endpoint("related", CtStatus::Related, delivered()).state(|s| s.deny_by_default(POD.id)),
    ]
}

/// With endpoint routes the stack brings the packet to the device: it stays there, so it is passed on.
fn by_route() -> Vec<Row> {
    let row = |name, frame, e: Expected| Row::new("to_container", name, frame, e);
    let left = || passed().received().connects(key()).goes_on_in(&STEPS);
    let only = |id: u32| {
        move |s: crate::world::State| {
            s.deny_by_default(POD.id).policy(
                POD.id,
                policy_key(id, false, 0, 0, 0),
                PolicyEntry::new(false, 0),
            )
        }
    };
    let by = |e: Expected, id: u32| {
        e.decides(POD.id, METRIC_INGRESS, 0, MatchType::L3Only, 0)
            .counted_by(POD.id, policy_key(id, false, 0, 0, 0))
    };
    let from = |src: [u8; 4]| ct_key((src, 40000), (POD.ip, 80), TCP, tuple_flag::IN);
    let of = |src: [u8; 4]| to_pod(src).tcp(40000, 80, tcp_flag::SYN, 0);
    let arrived = |src| passed().received().connects(from(src)).goes_on_in(&STEPS);
    vec![
        row("the_mark_carries_the_identity", syn(), by(left(), 777))
            .mark(mark::encode_identity(777))
            .state(only(777)),
        row("the_mark_says_host", of(NODE), by(arrived(NODE), identity::HOST))
            .mark(mark::MAGIC_HOST)
            .state(only(identity::HOST)),
        row("this_nodes_own_sockets_are_the_host", of(NODE), by(arrived(NODE), identity::HOST))
            .state(only(identity::HOST)),
        row("without_a_mark_the_ipcache_knows", syn(), by(left(), REMOTE.identity))
            .came_by(1)
            .state(only(REMOTE.identity)),
        row("an_unknown_source_is_the_world", of(WORLD), by(arrived(WORLD), identity::WORLD))
            .came_by(1)
            .state(move |s| only(identity::WORLD)(s.without_ipcache())),
        // Only this node is the host, and it does not come in by a device.
        row("a_forged_host_address_is_the_world", of(NODE), by(arrived(NODE), identity::WORLD))
            .came_by(1)
            .state(only(identity::WORLD)),
        row("it_is_denied", syn(), denied().goes_on_in(&STEPS)).state(|s| s.deny_by_default(POD.id)),
        row("arp_is_the_stacks", to_pod(NODE).arp_request(), passed()),
        row("ipv6", to_pod(WORLD).other(0x86dd, 60), refused(DropReason::UNSUPPORTED_L3_PROTOCOL)),
        row("a_length", to_pod(WORLD).other(60, 60), refused(DropReason::UNSUPPORTED_L2_PROTOCOL)),
        row("no_conntrack_program", syn(), refused(DropReason::MISSED_TAIL_CALL))
            .unplugged(call::IPV4_CT_INGRESS_POLICY_ONLY),
    ]
}
