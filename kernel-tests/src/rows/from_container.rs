//! What a pod sends, from its host-side device on.

use crate::frame::{Route, tcp_flag};
use crate::row::{Change, Expected, Row, dropped, passed, redirected};
use crate::world::{
    HOST_IFINDEX, HOST_MAC, NEIGHBOUR, NODE, OTHER_NODE, POD, REMOTE, ROUTER, TUNNEL_IFINDEX, WORLD, ct_key,
    from_pod, policy_key,
};
use skep_abi::event::MatchType;
use skep_abi::map::{CtEntry, CtTuple4, METRIC_EGRESS, METRIC_INGRESS, PolicyEntry, ct_flag, tuple_flag};
use skep_abi::program::call;
use skep_abi::{Be16, DropReason, global, identity, mark};

const PROGRAM: &str = "from_container";
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const INGRESS_FLAG: u64 = 1;

/// The programs that an IPv4 packet goes through at the sender.
const SENT: [&str; 3] = ["tail_handle_ipv4", "tail_ipv4_ct_egress", "tail_handle_ipv4_cont"];
/// And at a receiver on the same node.
const SENT_AND_RECEIVED: [&str; 6] = [
    "tail_handle_ipv4",
    "tail_ipv4_ct_egress",
    "tail_handle_ipv4_cont",
    "handle_policy",
    "tail_ipv4_ct_ingress_policy_only",
    "tail_ipv4_to_endpoint",
];

fn row(name: &'static str, frame: Vec<u8>, expected: Expected) -> Row {
    Row::new(PROGRAM, name, frame, expected)
}

/// The entry of a policy that allows everything, egress.
fn all_egress() -> skep_abi::map::PolicyKey {
    policy_key(0, true, 0, 0, 0)
}

/// Dropped on the way out, in the last program of the chain unless told otherwise.
fn refused(reason: DropReason) -> Expected {
    dropped(reason, METRIC_EGRESS)
}

/// Allowed by the policy that allows everything.
fn allowed(expected: Expected) -> Expected {
    expected
        .decides(POD.id, METRIC_EGRESS, 0, MatchType::All, 0)
        .counted_by(POD.id, all_egress())
        .goes_on_in(&SENT)
}

fn out(dst: ([u8; 4], u16), sport: u16, proto: u8) -> CtTuple4 {
    ct_key((POD.ip, sport), dst, proto, tuple_flag::OUT)
}

fn syn(dst: [u8; 4]) -> Vec<u8> {
    from_pod(dst).tcp(40000, 80, tcp_flag::SYN, 0)
}

fn key_80(dst: [u8; 4]) -> CtTuple4 {
    out((dst, 80), 40000, TCP)
}

pub(super) fn rows() -> Vec<Row> {
    [arp(), refusals(), ways(), neighbours(), policies(), connections()].concat()
}

fn arp() -> Vec<Row> {
    let identity = mark::encode_identity(POD.identity);
    let asks = |dst| Route { dst, ..from_pod(dst) }.arp_request();
    let mut answer = asks(ROUTER);
    // Operation: a reply.
    answer[21] = 2;
    let left = || passed().mark(identity).sent().goes_on_in(&["tail_handle_arp"]);
    vec![
        row(
            "arp_for_the_gateway_is_answered",
            asks(ROUTER),
            redirected(POD.ifindex, 0)
                .change(Change::ArpAnswer(POD.node_mac))
                .goes_on_in(&["tail_handle_arp"]),
        ),
        row("arp_for_another_address_is_the_stacks", asks(NEIGHBOUR.ip), left()),
        row("arp_that_asks_nothing_is_the_stacks", answer, left()),
        row("truncated_arp_is_the_stacks", from_pod(ROUTER).other(0x0806, 20), left()),
        row(
            "arp_without_its_program_is_a_missed_tail_call",
            asks(ROUTER),
            refused(DropReason::MISSED_TAIL_CALL),
        )
        .unplugged(call::ARP),
    ]
}

fn refusals() -> Vec<Row> {
    let to = from_pod(REMOTE.ip);
    let plain = syn(REMOTE.ip);
    let altered = |at: usize, value: u8| {
        let mut frame = plain.clone();
        frame[at] = value;
        frame
    };
    let at_ipv4 = |reason| refused(reason).goes_on_in(&SENT[..1]);
    let at_conntrack = |reason| refused(reason).goes_on_in(&SENT[..2]);
    vec![
        row("ipv6_is_not_forwarded", to.other(0x86dd, 60), refused(DropReason::UNSUPPORTED_L3_PROTOCOL)),
        row("a_length_is_no_ethertype", to.other(60, 60), refused(DropReason::UNSUPPORTED_L2_PROTOCOL)),
        row("a_truncated_header", to.other(0x0800, 12), at_ipv4(DropReason::INVALID_PACKET_DROPPED))
            .kernel_may_refuse(),
        row("version_6_in_ipv4", altered(14, 0x65), at_ipv4(DropReason::INVALID_PACKET_DROPPED)),
        row("a_header_of_16_bytes", altered(14, 0x44), at_ipv4(DropReason::INVALID_PACKET_DROPPED)),
        row(
            "a_header_longer_than_the_packet",
            altered(14, 0x4f)[..44].to_vec(),
            at_ipv4(DropReason::INVALID_PACKET_DROPPED),
        ),
        row(
            "a_forged_source",
            to.from(NEIGHBOUR.ip).tcp(1, 80, tcp_flag::SYN, 0),
            at_ipv4(DropReason::INVALID_SOURCE_IP),
        ),
        row(
            "a_first_fragment",
            to.fragment(1000, 53, true),
            at_ipv4(DropReason::IP_FRAGMENTATION_NOT_SUPPORTED),
        ),
        row(
            "a_later_fragment",
            to.fragment(1000, 53, false),
            at_ipv4(DropReason::IP_FRAGMENTATION_NOT_SUPPORTED),
        ),
        row(
            "a_truncated_tcp_header",
            plain[..46].to_vec(),
            at_conntrack(DropReason::CT_TRUNCATED_OR_INVALID_HEADER),
        ),
        row(
            "a_truncated_udp_header",
            to.udp(1, 53, 0)[..40].to_vec(),
            at_conntrack(DropReason::CT_TRUNCATED_OR_INVALID_HEADER),
        ),
        row(
            "a_truncated_icmp_header",
            to.echo(9)[..38].to_vec(),
            at_conntrack(DropReason::CT_TRUNCATED_OR_INVALID_HEADER),
        ),
        row("gre_is_not_tracked", to.protocol(47), at_conntrack(DropReason::CT_UNKNOWN_L4_PROTOCOL)),
        row("no_ipv4_program", plain.clone(), refused(DropReason::MISSED_TAIL_CALL))
            .unplugged(call::IPV4_FROM_LXC),
        row("no_conntrack_program", plain.clone(), at_ipv4(DropReason::MISSED_TAIL_CALL))
            .unplugged(call::IPV4_CT_EGRESS),
        row("no_program_after_conntrack", plain, at_conntrack(DropReason::MISSED_TAIL_CALL))
            .unplugged(call::IPV4_FROM_LXC_CONT),
    ]
}

fn ways() -> Vec<Row> {
    let identity = mark::encode_identity(POD.identity);
    let tunnel = |key| allowed(redirected(TUNNEL_IFINDEX, 0)).sent().connects(key);
    let to_host = |dst| {
        allowed(redirected(HOST_IFINDEX, INGRESS_FLAG))
            .change(Change::Addressed { src: POD.node_mac, dst: HOST_MAC })
            .mark(identity)
            .sent()
            .connects(key_80(dst))
    };
    let to_stack = |key| allowed(passed()).mark(identity).sent().connects(key);
    vec![
        row("tcp_to_another_node_is_tunnelled", syn(REMOTE.ip), tunnel(key_80(REMOTE.ip))),
        row(
            "udp_to_another_node_is_tunnelled",
            from_pod(REMOTE.ip).udp(5353, 53, 30),
            tunnel(out((REMOTE.ip, 53), 5353, UDP)),
        ),
        // The identifier stands in the place of the asking end's port.
        row(
            "an_echo_to_another_node_is_tunnelled",
            from_pod(REMOTE.ip).echo(77),
            tunnel(out((REMOTE.ip, 0), 77, ICMP)),
        ),
        row(
            "options_are_stepped_over",
            from_pod(REMOTE.ip).tcp_with_options(40000, 80, tcp_flag::SYN, 3),
            tunnel(key_80(REMOTE.ip)),
        ),
        row("a_mark_stays_with_what_is_tunnelled", syn(REMOTE.ip), tunnel(key_80(REMOTE.ip))).mark(0x55),
        row("what_cb_held_before_is_gone", syn(REMOTE.ip), tunnel(key_80(REMOTE.ip))).cb([9, 9, 9, 3, 9]),
        row(
            "a_long_packet_is_captured_in_part",
            from_pod(REMOTE.ip).tcp(40000, 80, tcp_flag::ACK, 1000),
            tunnel(key_80(REMOTE.ip)),
        ),
        row("the_gateway_is_this_node", syn(ROUTER), to_host(ROUTER)),
        row("the_nodes_own_address", syn(NODE), to_host(NODE)),
        row("the_world_is_the_stacks", syn(WORLD), to_stack(key_80(WORLD))),
        row("the_world_without_an_entry", syn(WORLD), to_stack(key_80(WORLD))).state(|s| s.without_ipcache()),
        row("another_node_is_the_stacks", syn(OTHER_NODE), to_stack(key_80(OTHER_NODE))),
        // Policy asks for the identity of the longest prefix.
        row(
            "a_cidr_has_an_identity_of_its_own",
            syn(WORLD),
            passed()
                .mark(identity)
                .sent()
                .connects(key_80(WORLD))
                .goes_on_in(&SENT)
                .decides(POD.id, METRIC_EGRESS, 0, MatchType::L3Only, 0)
                .counted_by(POD.id, policy_key(identity::SCOPE_CIDR + 1, true, 0, 0, 0)),
        )
        .state(|s| {
            s.cidr([203, 0, 113, 0], 24, identity::SCOPE_CIDR + 1, [0; 4]).deny_by_default(POD.id).policy(
                POD.id,
                policy_key(identity::SCOPE_CIDR + 1, true, 0, 0, 0),
                PolicyEntry::new(false, 0),
            )
        }),
        row(
            "no_tunnel_device",
            syn(REMOTE.ip),
            allowed(refused(DropReason::NO_TUNNEL_OR_ENCAPSULATION_ENDPOINT)).connects(key_80(REMOTE.ip)),
        )
        .global(global::TUNNEL_IFINDEX, &[0; 4]),
        row(
            "no_host_device",
            syn(ROUTER),
            allowed(refused(DropReason::LOCAL_HOST_IS_UNREACHABLE)).connects(key_80(ROUTER)),
        )
        .global(global::HOST_IFINDEX, &[0; 4]),
    ]
}

fn neighbours() -> Vec<Row> {
    let forwarded = Change::Forwarded { src: NEIGHBOUR.node_mac, dst: NEIGHBOUR.mac };
    let left = |e: Expected| allowed(e).connects(key_80(NEIGHBOUR.ip));
    let arrived = ct_key((POD.ip, 40000), (NEIGHBOUR.ip, 80), TCP, tuple_flag::IN);
    vec![
        row(
            "a_neighbour_is_delivered_to_by_its_own_policy",
            syn(NEIGHBOUR.ip),
            left(redirected(NEIGHBOUR.ifindex, 0))
                .change(forwarded)
                .sent()
                .received()
                .decides(NEIGHBOUR.id, METRIC_INGRESS, 0, MatchType::All, 0)
                .counted_by(NEIGHBOUR.id, policy_key(0, false, 0, 0, 0))
                .connects(arrived)
                .goes_on_in(&SENT_AND_RECEIVED),
        ),
        // Whose policy decides is then to_container's subject; the mark tells it who sends.
        row(
            "with_endpoint_routes_a_neighbours_device_decides",
            syn(NEIGHBOUR.ip),
            left(redirected(NEIGHBOUR.ifindex, 0))
                .change(forwarded)
                .mark(mark::encode_identity(POD.identity))
                .sent(),
        )
        .global(global::ENABLE_ENDPOINT_ROUTES, &[1])
        .state(|s| s.deny_by_default(NEIGHBOUR.id)),
        row(
            "a_neighbour_whose_policy_denies",
            syn(NEIGHBOUR.ip),
            left(dropped(DropReason::POLICY_DENIED, METRIC_INGRESS))
                .change(forwarded)
                .sent()
                .decides(NEIGHBOUR.id, METRIC_INGRESS, -133, MatchType::None, 0)
                .goes_on_in(&SENT_AND_RECEIVED),
        )
        .state(|s| s.deny_by_default(NEIGHBOUR.id)),
        row(
            "a_neighbour_that_is_not_ready",
            syn(NEIGHBOUR.ip),
            left(refused(DropReason::DROP_EP_NOT_READY)).change(forwarded).sent(),
        )
        .not_ready(NEIGHBOUR.id),
        row(
            "no_time_to_live_for_a_neighbour",
            from_pod(NEIGHBOUR.ip).ttl(1).tcp(40000, 80, tcp_flag::SYN, 0),
            left(refused(DropReason::TTL_EXCEEDED)),
        ),
    ]
}

fn policies() -> Vec<Row> {
    let to = syn(REMOTE.ip);
    let key = |identity, protocol, port, bits| policy_key(identity, true, protocol, port, bits);
    let allow = |bits| PolicyEntry::new(false, bits);
    let deny = |bits| PolicyEntry::new(true, bits);
    let with = |entries: Vec<(skep_abi::map::PolicyKey, PolicyEntry)>| {
        move |s: crate::world::State| {
            entries.into_iter().fold(s.deny_by_default(POD.id), |s, (k, e)| s.policy(POD.id, k, e))
        }
    };
    let id = REMOTE.identity;
    let matched = |m, bits, k| {
        redirected(TUNNEL_IFINDEX, 0)
            .sent()
            .connects(key_80(REMOTE.ip))
            .goes_on_in(&SENT)
            .decides(POD.id, METRIC_EGRESS, 0, m, bits)
            .counted_by(POD.id, k)
    };
    let denied = |m, bits, k| {
        refused(DropReason::POLICY_DENY)
            .goes_on_in(&SENT)
            .decides(POD.id, METRIC_EGRESS, -181, m, bits)
            .counted_by(POD.id, k)
    };
    let default = refused(DropReason::POLICY_DENIED).goes_on_in(&SENT).decides(
        POD.id,
        METRIC_EGRESS,
        -133,
        MatchType::None,
        0,
    );
    let mut proxied = allow(24);
    proxied.proxy_port = Be16::from_host(10001);
    vec![
        row("nothing_allows", to.clone(), default.clone()).state(with(vec![])),
        row("identity_and_port_allow", to.clone(), matched(MatchType::L3L4, 24, key(id, TCP, 80, 24)))
            .state(with(vec![(key(id, TCP, 80, 24), allow(24)), (key(id, TCP, 81, 24), allow(24))])),
        row("another_port_is_allowed", to.clone(), default.clone())
            .state(with(vec![(key(id, TCP, 81, 24), allow(24))])),
        row("another_protocol_is_allowed", to.clone(), default.clone())
            .state(with(vec![(key(id, UDP, 80, 24), allow(24))])),
        row("another_identity_is_allowed", to.clone(), default.clone())
            .state(with(vec![(key(id + 1, TCP, 80, 24), allow(24))])),
        row("the_other_direction_is_allowed", to.clone(), default.clone())
            .state(with(vec![(policy_key(id, false, TCP, 80, 24), allow(24))])),
        // 64 to 95 is a prefix of 11 bits: 19 with the protocol.
        row("a_range_of_ports_allows", to.clone(), matched(MatchType::L3L4, 19, key(id, TCP, 64, 19)))
            .state(with(vec![(key(id, TCP, 64, 19), allow(19))])),
        row("identity_allows", to.clone(), matched(MatchType::L3Only, 0, key(id, 0, 0, 0)))
            .state(with(vec![(key(id, 0, 0, 0), allow(0))])),
        row("identity_and_protocol_allow", to.clone(), matched(MatchType::L3Proto, 8, key(id, TCP, 0, 8)))
            .state(with(vec![(key(id, TCP, 0, 8), allow(8))])),
        row("protocol_allows", to.clone(), matched(MatchType::ProtoOnly, 8, key(0, TCP, 0, 8)))
            .state(with(vec![(key(0, TCP, 0, 8), allow(8))])),
        row("port_allows", to.clone(), matched(MatchType::L4Only, 24, key(0, TCP, 80, 24)))
            .state(with(vec![(key(0, TCP, 80, 24), allow(24))])),
        row(
            "more_bits_decide_over_identity",
            to.clone(),
            matched(MatchType::L4Only, 24, key(0, TCP, 80, 24)),
        )
        .state(with(vec![(key(id, 0, 0, 0), allow(0)), (key(0, TCP, 80, 24), allow(24))])),
        row(
            "between_equals_identity_decides",
            to.clone(),
            matched(MatchType::L3L4, 24, key(id, TCP, 80, 24)),
        )
        .state(with(vec![(key(id, TCP, 80, 24), allow(24)), (key(0, TCP, 80, 24), allow(24))])),
        row("the_deny_bit_denies", to.clone(), denied(MatchType::L3L4, 24, key(id, TCP, 80, 24)))
            .state(with(vec![(key(id, TCP, 80, 24), deny(24))])),
        row(
            "a_broad_deny_denies_over_a_narrow_allow",
            to.clone(),
            denied(MatchType::All, 0, key(0, 0, 0, 0)),
        )
        .state(with(vec![(key(id, TCP, 80, 24), allow(24)), (key(0, 0, 0, 0), deny(0))])),
        row(
            "a_deny_of_the_identity_denies_over_a_port",
            to.clone(),
            denied(MatchType::L3Only, 0, key(id, 0, 0, 0)),
        )
        .state(with(vec![(key(id, 0, 0, 0), deny(0)), (key(0, TCP, 80, 24), allow(24))])),
        row(
            "what_a_proxy_should_see_does_not_pass",
            to,
            refused(DropReason::POLICY_DENIED)
                .goes_on_in(&SENT)
                .decides(POD.id, METRIC_EGRESS, -133, MatchType::L3L4, 24)
                .counted_by(POD.id, key(id, TCP, 80, 24)),
        )
        .state(with(vec![(key(id, TCP, 80, 24), proxied)])),
        row(
            "icmp_is_asked_for_without_a_port",
            from_pod(REMOTE.ip).echo(77),
            redirected(TUNNEL_IFINDEX, 0)
                .sent()
                .connects(out((REMOTE.ip, 0), 77, ICMP))
                .goes_on_in(&SENT)
                .decides(POD.id, METRIC_EGRESS, 0, MatchType::L3L4, 24)
                .counted_by(POD.id, key(id, ICMP, 0, 24)),
        )
        .state(with(vec![(key(id, ICMP, 0, 24), allow(24))])),
    ]
}

/// Long ago, as times count in a row.
const PAST: u32 = 0_u32.wrapping_sub(100);

fn connections() -> Vec<Row> {
    let key = key_80(REMOTE.ip);
    let made_elsewhere = ct_key((REMOTE.ip, 40000), (POD.ip, 80), TCP, tuple_flag::IN);
    let known =
        CtEntry { packets: 5, bytes: 500, lifetime: 1000, src_sec_id: POD.identity, ..CtEntry::default() };
    let tunnelled = || redirected(TUNNEL_IFINDEX, 0).sent().goes_on_in(&SENT);
    let segment = |flags| from_pod(REMOTE.ip).tcp(40000, 80, flags, 0);
    let reply = |flags| from_pod(REMOTE.ip).tcp(80, 40000, flags, 10);
    let fresh = || allowed(redirected(TUNNEL_IFINDEX, 0)).sent().connects(key);
    // An established connection's packet asks the policy, which counts and is silent unless it denies.
    let established = || tunnelled().counted_by(POD.id, all_egress());
    let error = from_pod(REMOTE.ip).unreachable(&reply(tcp_flag::ACK));
    let errors_in = CtTuple4 {
        flags: tuple_flag::IN | tuple_flag::RELATED,
        nexthdr: ICMP,
        dport: Be16::from_bits(0),
        sport: Be16::from_bits(0),
        ..made_elsewhere
    };
    let open = CtEntry { flags: ct_flag::SEEN_NON_SYN, ..known };
    vec![
        row(
            "a_syn_lives_60_seconds",
            segment(tcp_flag::SYN),
            fresh().entry(key, |e| {
                (e.lifetime, e.flags, e.tx_flags_seen, e.rx_flags_seen) == (60, 0, tcp_flag::SYN, 0)
                    && (e.packets, e.bytes, e.src_sec_id) == (1, 54, POD.identity)
            }),
        ),
        row(
            "the_middle_of_a_stream_is_new",
            segment(tcp_flag::ACK),
            fresh().entry(key, |e| e.packets == 1 && e.src_sec_id == POD.identity),
        ),
        row(
            "udp_lives_60_seconds",
            from_pod(REMOTE.ip).udp(40000, 80, 8),
            allowed(redirected(TUNNEL_IFINDEX, 0))
                .sent()
                .connects(out((REMOTE.ip, 80), 40000, UDP))
                .entry(out((REMOTE.ip, 80), 40000, UDP), |e| e.lifetime == 60),
        ),
        row(
            "an_established_packet_asks_the_policy",
            segment(tcp_flag::ACK),
            established().entry(key, |e| {
                (e.packets, e.bytes, e.lifetime) == (6, 554, 21600) && e.flags == ct_flag::SEEN_NON_SYN
            }),
        )
        .state(move |s| s.connection(key, known)),
        row(
            "a_deny_cuts_an_established_connection",
            segment(tcp_flag::ACK),
            refused(DropReason::POLICY_DENIED).goes_on_in(&SENT).decides(
                POD.id,
                METRIC_EGRESS,
                -133,
                MatchType::None,
                0,
            ),
        )
        .state(move |s| s.connection(key, known).deny_by_default(POD.id)),
        row(
            "an_expired_entry_is_revived",
            segment(tcp_flag::ACK),
            established().entry(key, |e| e.lifetime == 21600),
        )
        .state(move |s| s.connection(key, CtEntry { lifetime: PAST, ..open })),
        row(
            "a_reply_skips_the_policy",
            reply(tcp_flag::ACK),
            tunnelled().entry(made_elsewhere, |e| e.packets == 6),
        )
        .state(move |s| s.connection(made_elsewhere, known).deny_by_default(POD.id)),
        row("an_error_about_a_known_pair_skips_the_policy", error.clone(), tunnelled())
            .state(move |s| s.connection(errors_in, known).deny_by_default(POD.id)),
        row(
            "an_error_about_nothing_known_is_denied",
            error,
            refused(DropReason::POLICY_DENIED).goes_on_in(&SENT).decides(
                POD.id,
                METRIC_EGRESS,
                -133,
                MatchType::None,
                0,
            ),
        )
        .state(|s| s.deny_by_default(POD.id)),
        row("an_echo_reply_meets_its_request", from_pod(REMOTE.ip).echo_reply(77), tunnelled()).state(
            move |s| {
                s.connection(ct_key((REMOTE.ip, 77), (POD.ip, 0), ICMP, tuple_flag::IN), known)
                    .deny_by_default(POD.id)
            },
        ),
        row(
            "a_fin_of_one_end_leaves_the_lifetime",
            segment(tcp_flag::FIN | tcp_flag::ACK),
            established().entry(key, |e| {
                e.lifetime == 21600 && e.flags == ct_flag::SEEN_NON_SYN | ct_flag::TX_CLOSING
            }),
        )
        .state(move |s| s.connection(key, open)),
        row(
            "the_second_fin_leaves_10_seconds",
            segment(tcp_flag::FIN | tcp_flag::ACK),
            established().entry(key, |e| {
                e.lifetime == 10
                    && e.flags == ct_flag::SEEN_NON_SYN | ct_flag::TX_CLOSING | ct_flag::RX_CLOSING
            }),
        )
        .state(move |s| s.connection(key, CtEntry { flags: open.flags | ct_flag::RX_CLOSING, ..open })),
        row(
            "a_reset_before_both_syns_closes_both_ends",
            segment(tcp_flag::RST),
            established().entry(key, |e| {
                e.lifetime == 10
                    && e.flags & (ct_flag::TX_CLOSING | ct_flag::RX_CLOSING)
                        == ct_flag::TX_CLOSING | ct_flag::RX_CLOSING
            }),
        )
        .state(move |s| s.connection(key, known)),
        row(
            "a_syn_reopens_a_closing_connection",
            segment(tcp_flag::SYN),
            established().entry(key, |e| (e.lifetime, e.flags, e.tx_flags_seen) == (60, 0, tcp_flag::SYN)),
        )
        .state(move |s| {
            s.connection(
                key,
                CtEntry { flags: open.flags | ct_flag::RX_CLOSING | ct_flag::TX_CLOSING, ..open },
            )
        }),
    ]
}
