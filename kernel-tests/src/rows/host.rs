//! The node's own devices: from_host, to_host, from_netdev, to_netdev.

use crate::frame::tcp_flag;
use crate::row::{Change, Expected, Row, dropped, passed, redirected};
use crate::world::{
    NODE, OTHER_NODE, POD, REMOTE, TUNNEL_IFINDEX, WORLD, ct_key, from_pod, policy_key, to_pod,
};
use skep_abi::event::MatchType;
use skep_abi::map::{METRIC_INGRESS, PolicyEntry, PolicyKey, tuple_flag};
use skep_abi::{DropReason, global, identity, mark};

const RECEIVED: [&str; 3] = ["handle_policy", "tail_ipv4_ct_ingress_policy_only", "tail_ipv4_to_endpoint"];

fn syn(src: [u8; 4]) -> Vec<u8> {
    to_pod(src).tcp(40000, 80, tcp_flag::SYN, 0)
}

fn refused(reason: DropReason) -> Expected {
    dropped(reason, METRIC_INGRESS)
}

fn ingress(id: u32) -> PolicyKey {
    policy_key(id, false, 0, 0, 0)
}

/// Only this identity may send to the pod, so that the identity of the source shows.
fn only(id: u32) -> impl FnOnce(crate::world::State) -> crate::world::State {
    move |s| s.deny_by_default(POD.id).policy(POD.id, ingress(id), PolicyEntry::new(false, 0))
}

/// Delivered to the pod, allowed as `id`.
fn delivered(src: [u8; 4], id: u32) -> Expected {
    redirected(POD.ifindex, 0)
        .change(Change::Forwarded { src: POD.node_mac, dst: POD.mac })
        .came_in()
        .received()
        .decides(POD.id, METRIC_INGRESS, 0, MatchType::L3Only, 0)
        .counted_by(POD.id, ingress(id))
        .connects(ct_key((src, 40000), (POD.ip, 80), 6, tuple_flag::IN))
        .goes_on_in(&RECEIVED)
}

/// Led to the pod's device, where to_container will decide.
fn by_device() -> Expected {
    redirected(POD.ifindex, 0).change(Change::Forwarded { src: POD.node_mac, dst: POD.mac })
}

pub(super) fn rows() -> Vec<Row> {
    [from_host(), to_host(), from_netdev(), to_netdev()].concat()
}

fn from_host() -> Vec<Row> {
    let row = |name, frame, e: Expected| Row::new("from_host", name, frame, e);
    let to =
        |dst: [u8; 4]| crate::frame::Route { src: NODE, ..from_pod(dst) }.tcp(40000, 80, tcp_flag::SYN, 0);
    vec![
        row("the_host_reaches_its_pod", syn(NODE), delivered(NODE, identity::HOST))
            .state(only(identity::HOST)),
        row("the_mark_says_host", syn(NODE), delivered(NODE, identity::HOST))
            .mark(mark::MAGIC_HOST)
            .came_by(1)
            .state(only(identity::HOST)),
        row("the_mark_carries_an_identity", syn(REMOTE.ip), delivered(REMOTE.ip, 777))
            .mark(mark::encode_identity(777))
            .state(only(777)),
        row(
            "what_is_routed_through_has_the_ipcaches_identity",
            syn(REMOTE.ip),
            delivered(REMOTE.ip, REMOTE.identity),
        )
        .came_by(1)
        .state(only(REMOTE.identity)),
        row(
            "a_pod_whose_policy_denies",
            syn(NODE),
            refused(DropReason::POLICY_DENIED)
                .change(Change::Forwarded { src: POD.node_mac, dst: POD.mac })
                .came_in()
                .decides(POD.id, METRIC_INGRESS, -133, MatchType::None, 0)
                .goes_on_in(&RECEIVED),
        )
        .state(|s| s.deny_by_default(POD.id)),
        row(
            "a_pod_that_is_not_ready",
            syn(NODE),
            refused(DropReason::DROP_EP_NOT_READY)
                .came_in()
                .change(Change::Forwarded { src: POD.node_mac, dst: POD.mac }),
        )
        .not_ready(POD.id),
        row(
            "no_time_to_live",
            to_pod(NODE).ttl(1).tcp(40000, 80, tcp_flag::SYN, 0),
            refused(DropReason::TTL_EXCEEDED).came_in(),
        ),
        row(
            "with_endpoint_routes_the_pods_device_decides",
            syn(NODE),
            by_device().came_in().mark(mark::encode_identity(identity::HOST)),
        )
        .global(global::ENABLE_ENDPOINT_ROUTES, &[1]),
        row("another_nodes_pod_is_tunnelled", to(REMOTE.ip), redirected(TUNNEL_IFINDEX, 0).came_in().sent()),
        row(
            "no_tunnel_device",
            to(REMOTE.ip),
            refused(DropReason::NO_TUNNEL_OR_ENCAPSULATION_ENDPOINT).came_in(),
        )
        .global(global::TUNNEL_IFINDEX, &[0; 4]),
        row("this_node_is_the_stacks", to(NODE), passed().came_in()),
        row("a_pod_that_is_gone", to([10, 42, 1, 99]), refused(DropReason::STALE_OR_UNROUTABLE_IP).came_in()),
        row("a_pod_that_nobody_knows", syn(NODE), refused(DropReason::STALE_OR_UNROUTABLE_IP).came_in())
            .state(|s| s.without_endpoint(POD.ip).without_ipcache()),
        row("arp_is_the_stacks", from_pod(NODE).arp_request(), passed().came_in()),
        row(
            "a_truncated_header",
            from_pod(NODE).other(0x0800, 12),
            refused(DropReason::INVALID_PACKET_DROPPED),
        )
        .kernel_may_refuse(),
        row("a_length", from_pod(NODE).other(60, 60), refused(DropReason::UNSUPPORTED_L2_PROTOCOL)),
    ]
}

fn to_host() -> Vec<Row> {
    let row = |name, frame| Row::new("to_host", name, frame, passed().sent());
    vec![
        row("it_is_the_stacks", from_pod(NODE).tcp(40000, 22, tcp_flag::SYN, 0)),
        row("with_the_pods_identity", from_pod(NODE).tcp(40000, 22, tcp_flag::SYN, 0))
            .mark(mark::encode_identity(POD.identity)),
        row("what_came_by_a_device", from_pod(NODE).echo(1)).came_by(1),
        row("cb_is_cleared", from_pod(NODE).echo(1)).cb([1, 2, 3, 4, 5]),
    ]
}

fn from_netdev() -> Vec<Row> {
    let row = |name, frame, e: Expected| Row::new("from_netdev", name, frame, e);
    let outer = crate::frame::Route { src: OTHER_NODE, ..from_pod(NODE) }.udp(50000, 8472, 100);
    let forwarded = Change::Forwarded { src: POD.node_mac, dst: POD.mac };
    vec![
        row("an_encapsulated_packet_is_the_stacks", outer, passed().came_in()),
        row("what_is_for_nobody_here_is_the_stacks", from_pod(WORLD).udp(1, 2, 3), passed().came_in()),
        row("arp_is_the_stacks", from_pod(NODE).arp_request(), passed().came_in()),
        row("ipv6_is_the_stacks", from_pod(NODE).other(0x86dd, 60), passed().came_in()),
        row("a_truncated_header_is_the_stacks", from_pod(NODE).other(0x0800, 12), passed().came_in())
            .kernel_may_refuse(),
        row("the_world_meets_a_pods_policy", syn(WORLD), delivered(WORLD, identity::WORLD))
            .state(only(identity::WORLD)),
        row(
            "with_endpoint_routes_the_pods_device_decides",
            syn(WORLD),
            by_device().came_in().mark(mark::encode_identity(identity::WORLD)),
        )
        .global(global::ENABLE_ENDPOINT_ROUTES, &[1]),
        row("a_known_source_has_its_identity", syn(REMOTE.ip), delivered(REMOTE.ip, REMOTE.identity))
            .state(only(REMOTE.identity)),
        row("a_forged_host_address_is_the_world", syn(NODE), delivered(NODE, identity::WORLD))
            .state(only(identity::WORLD)),
        row(
            "it_is_denied",
            syn(WORLD),
            refused(DropReason::POLICY_DENIED)
                .change(forwarded)
                .came_in()
                .decides(POD.id, METRIC_INGRESS, -133, MatchType::None, 0)
                .goes_on_in(&RECEIVED),
        )
        .state(|s| s.deny_by_default(POD.id)),
        row(
            "a_pod_that_is_not_ready",
            syn(WORLD),
            refused(DropReason::DROP_EP_NOT_READY).change(forwarded).came_in(),
        )
        .not_ready(POD.id),
        row(
            "no_time_to_live",
            to_pod(WORLD).ttl(1).udp(1, 2, 3),
            refused(DropReason::TTL_EXCEEDED).came_in(),
        ),
    ]
}

fn to_netdev() -> Vec<Row> {
    let row = |name, frame| Row::new("to_netdev", name, frame, passed().sent());
    let outer = || crate::frame::Route { src: NODE, ..from_pod(OTHER_NODE) }.udp(50000, 8472, 100);
    vec![
        row("the_nodes_own", from_pod(WORLD).udp(1, 2, 3)),
        row("an_encapsulated_packet", outer())
            .mark(mark::MAGIC_OVERLAY | mark::encode_identity(POD.identity) & !mark::MAGIC_MASK),
        row("a_pods_packet", from_pod(WORLD).echo(3)).mark(mark::encode_identity(POD.identity)).came_by(1),
        row("arp", from_pod(WORLD).arp_request()),
    ]
}
