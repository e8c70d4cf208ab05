//! What a verdict does, one row of the kernel's rules a test (`skb_do_redirect`, `skb_scrub_packet`,
//! `sch_handle_ingress`, `sch_handle_egress`).

mod common;
use common::*;
use skep_net::*;
use skep_packet::Tunnel;
use std::cell::RefCell;
use std::rc::Rc;

type Seen = Rc<RefCell<Vec<(HookAt, SkBuff)>>>;

/// A program that only looks.
fn spy(seen: &Seen) -> impl FnMut(&HookAt, &mut SkBuff) -> Verdict + 'static {
    let seen = seen.clone();
    move |at, skb| {
        seen.borrow_mut().push((*at, skb.clone()));
        Verdict::Ok
    }
}

/// A program that marks the packet in every way and gives this verdict.
fn marking(verdict: Verdict) -> impl FnMut(&HookAt, &mut SkBuff) -> Verdict + 'static {
    move |_, skb| {
        skb.mark = 0xbeef;
        skb.cb = [1, 2, 3, 4, 5];
        skb.timestamp = 77;
        skb.tunnel = Some(Tunnel { id: 9, transmit: true, ..Tunnel::default() });
        verdict
    }
}

/// A UDP packet from pod-10 to pod-11 as a frame for the node; it reaches the host side of pod-10's veth.
fn frame() -> Vec<u8> {
    let packet = udp_packet(pod_ip(0, 10), pod_ip(0, 11), 64, b"x");
    [&[2, 0, 0, 2, 0, 10][..], &pod_mac(0, 10), &[8, 0], &packet].concat()
}

/// The routed node with `verdict` at pod-10's host side, and what happens to one frame.
fn run(r: &mut Routed, seen: &Seen, verdict: Verdict) -> FrameId {
    for device in [r.lxc[1], r.uplink] {
        for direction in [Direction::Ingress, Direction::Egress] {
            r.world.attach(&mut r.net, r.node, device, direction, spy(seen));
        }
    }
    let pod_eth0 = r.net.device_by_name(r.pods[1], "eth0").expect("the pod's device");
    r.world.attach(&mut r.net, r.node, pod_eth0, Direction::Ingress, spy(seen));
    r.world.attach(&mut r.net, r.node, r.lxc[0], Direction::Ingress, marking(verdict));
    let id = r.net.inject_received(r.node, r.lxc[0], &frame()).expect("a device");
    r.net.run_for(&mut r.world, 100 * SECOND);
    r.world.assert_accounted(&r.net);
    id
}

fn end(r: &Routed, id: FrameId) -> What {
    r.world.accountant.end(id).expect("an end").record.what.clone()
}

#[test]
fn redirect_runs_the_targets_egress_with_everything_but_the_timestamp() {
    let (mut r, seen) = (routed(1), Seen::default());
    let target = r.uplink;
    run(&mut r, &seen, Verdict::Redirect { ifindex: target, ingress: false });
    let seen = seen.borrow();
    let (at, skb) = &seen[0];
    assert_eq!((at.ifindex, at.direction, at.now_ns), (target, Direction::Egress, 0));
    assert_eq!((skb.mark, skb.cb, skb.timestamp), (0xbeef, [1, 2, 3, 4, 5], 0));
    assert_eq!(skb.tunnel.map(|t| t.id), Some(9));
}

#[test]
fn redirect_to_ingress_runs_it_from_the_backlog_and_loses_the_tunnel() {
    let (mut r, seen) = (routed(1), Seen::default());
    let target = r.uplink;
    run(&mut r, &seen, Verdict::Redirect { ifindex: target, ingress: true });
    let seen = seen.borrow();
    let (at, skb) = &seen[0];
    assert_eq!((at.ifindex, at.direction), (target, Direction::Ingress));
    assert!(at.now_ns > 0, "not at once");
    assert_eq!((skb.mark, skb.cb, skb.timestamp, skb.tunnel), (0xbeef, [1, 2, 3, 4, 5], 77, None));
    // The hardware address is not the uplink's.
    assert_eq!(r.world.drops(), [DropReason::OtherHost]);
}

#[test]
fn redirect_through_a_veth_into_a_pod_clears_what_belongs_to_the_namespace() {
    let (mut r, seen) = (routed(1), Seen::default());
    let target = r.lxc[1];
    run(&mut r, &seen, Verdict::Redirect { ifindex: target, ingress: false });
    let seen = seen.borrow();
    assert_eq!((seen[0].0.ifindex, seen[0].0.direction), (target, Direction::Egress));
    let (at, skb) = &seen[1];
    assert_eq!((at.ns, at.direction), (r.pods[1], Direction::Ingress));
    assert_eq!((skb.mark, skb.tunnel, skb.timestamp), (0, None, 0));
}

#[test]
fn redirect_peer_arrives_in_the_pod_at_once_and_skips_the_host_side() {
    let (mut r, seen) = (routed(1), Seen::default());
    let target = r.lxc[1];
    let id = run(&mut r, &seen, Verdict::RedirectPeer { ifindex: target });
    let seen = seen.borrow();
    let (at, skb) = &seen[0];
    assert_eq!((at.ns, at.direction, at.now_ns), (r.pods[1], Direction::Ingress, 0));
    assert_eq!(skb.tunnel, None);
    // The peer's type is not read again: it stays HOST, and the pod takes the packet in spite of the address.
    assert_eq!(end(&r, id), What::Dropped { reason: DropReason::NoSocket });
}

#[test]
fn redirect_peer_is_refused_within_a_namespace_from_egress_and_at_other_devices() {
    let (mut r, seen) = (routed(1), Seen::default());
    let target = r.uplink;
    let id = run(&mut r, &seen, Verdict::RedirectPeer { ifindex: target });
    assert_eq!(end(&r, id), What::Dropped { reason: DropReason::NotSpecified });

    let mut r = routed(1);
    let verdict = Verdict::RedirectPeer { ifindex: r.lxc[1] };
    r.world.attach(&mut r.net, r.node, r.uplink, Direction::Egress, marking(verdict));
    let id = r.net.inject(r.node, r.uplink, &frame()).unwrap();
    r.net.run_for(&mut r.world, SECOND);
    assert_eq!(end(&r, id), What::Dropped { reason: DropReason::NotSpecified });

    let mut r = routed(1);
    let root = r.net.root(r.node).unwrap();
    let end_of =
        |name: &str, last| VethEnd { ns: root, name: name.into(), mac: [2, 0, 0, 9, 0, last], mtu: 1500 };
    let (host, _) = r.net.add_veth_pair(r.node, end_of("skep_host", 1), end_of("skep_net", 2)).unwrap();
    let id = run(&mut r, &seen, Verdict::RedirectPeer { ifindex: host });
    assert_eq!(end(&r, id), What::Dropped { reason: DropReason::NotSpecified });
}

#[test]
fn a_target_that_is_not_in_the_namespace_is_not_found() {
    let (mut r, seen) = (routed(1), Seen::default());
    let inside = r.net.device_by_name(r.pods[1], "eth0").unwrap();
    let id = run(&mut r, &seen, Verdict::Redirect { ifindex: inside, ingress: false });
    assert_eq!(end(&r, id), What::Dropped { reason: DropReason::NotSpecified });
}

#[test]
fn redirect_neigh_fills_in_the_addresses_and_keeps_the_ttl() {
    let (mut r, seen) = (routed(1), Seen::default());
    let target = r.lxc[1];
    let id = run(&mut r, &seen, Verdict::RedirectNeigh { ifindex: target, via: None });
    let seen = seen.borrow();
    // The target's egress hook sees the question first, then the packet.
    let (_, skb) = seen.iter().find(|(at, _)| at.frame == id).unwrap();
    assert_eq!(skb.bytes()[..12], [pod_mac(0, 11), [2, 0, 0, 2, 0, 11]].concat());
    assert_eq!(skb.bytes()[22], 64);
    assert_eq!(r.world.count(|w| matches!(w, What::Forwarded { .. })), 1, "the pod's own answer");
    assert_eq!(end(&r, id), What::Dropped { reason: DropReason::NoSocket });
}

#[test]
fn the_stack_leaves_nothing_in_cb_and_forwarding_loses_the_tunnel() {
    let (mut r, seen) = (routed(1), Seen::default());
    let id = run(&mut r, &seen, Verdict::Ok);
    let seen = seen.borrow();
    let (at, skb) = seen.iter().find(|(at, _)| at.frame == id).unwrap();
    assert_eq!((at.ifindex, at.direction), (r.lxc[1], Direction::Egress));
    assert!(skb.cb.iter().all(|word| word >> 8 == 0x5b_adcb), "{:x?}", skb.cb);
    assert_eq!((skb.mark, skb.tunnel, skb.timestamp), (0xbeef, None, 0));
    assert_eq!(skb.ingress_ifindex, r.lxc[0]);
}

#[test]
fn a_veth_pair_within_a_namespace_keeps_the_mark() {
    let (mut r, seen) = (routed(1), Seen::default());
    let root = r.net.root(r.node).unwrap();
    let end_of =
        |name: &str, last| VethEnd { ns: root, name: name.into(), mac: [2, 0, 0, 9, 0, last], mtu: 1500 };
    let (host, net) = r.net.add_veth_pair(r.node, end_of("skep_host", 1), end_of("skep_net", 2)).unwrap();
    r.world.attach(&mut r.net, r.node, net, Direction::Ingress, spy(&seen));
    run(&mut r, &seen, Verdict::Redirect { ifindex: host, ingress: false });
    let seen = seen.borrow();
    assert_eq!(seen[0].0.ifindex, net);
    assert_eq!((seen[0].1.mark, seen[0].1.timestamp, seen[0].1.tunnel), (0xbeef, 0, None));
}

#[test]
fn shot_and_stolen_are_ends_with_their_reasons() {
    for (verdict, expected) in [
        (Verdict::Shot, What::Dropped { reason: DropReason::TcIngress }),
        (Verdict::Stolen, What::Consumed { by: Taker::Hook }),
    ] {
        let (mut r, seen) = (routed(1), Seen::default());
        let id = run(&mut r, &seen, verdict);
        assert_eq!(end(&r, id), expected);
    }
    let mut r = routed(1);
    r.world.attach(&mut r.net, r.node, r.uplink, Direction::Egress, |_, _| Verdict::Shot);
    let id = r.net.inject(r.node, r.uplink, &frame()).unwrap();
    r.net.run_for(&mut r.world, SECOND);
    assert_eq!(end(&r, id), What::Dropped { reason: DropReason::TcEgress });
    assert_eq!(r.world.count(|w| *w == What::Tx), 0, "the tap is behind the hook");
}

#[test]
fn redirects_that_go_round_end() {
    // Egress to its own egress: the recursion limit of eight.
    let mut r = routed(1);
    let own = Verdict::Redirect { ifindex: r.uplink, ingress: false };
    r.world.attach(&mut r.net, r.node, r.uplink, Direction::Egress, move |_, _| own);
    let id = r.net.inject(r.node, r.uplink, &frame()).unwrap();
    r.net.run_for(&mut r.world, SECOND);
    assert_eq!(end(&r, id), What::Dropped { reason: DropReason::NotSpecified });
    assert_eq!(r.world.count(|w| matches!(w, What::Hook { .. })), 9);
    // Ingress to its own ingress: through the backlog, so nothing of the kernel's stops it.
    let mut r = routed(1);
    let own = Verdict::Redirect { ifindex: r.uplink, ingress: true };
    r.world.attach(&mut r.net, r.node, r.uplink, Direction::Ingress, move |_, _| own);
    let id = r.net.inject_received(r.node, r.uplink, &frame()).unwrap();
    r.net.run_for(&mut r.world, SECOND);
    assert_eq!(end(&r, id), What::Dropped { reason: DropReason::FabricLoop });
    r.world.assert_accounted(&r.net);
}

#[test]
fn vxlan_needs_metadata_to_send_by_and_a_sound_header() {
    let mut o = overlay(1);
    let inner = [
        &[2, 0, 0, 7, 7, 7][..],
        &pod_mac(0, 10),
        &[8, 0],
        &udp_packet(pod_ip(0, 10), pod_ip(1, 10), 9, b"x"),
    ]
    .concat();
    let id = o.net.inject(o.nodes[0], o.vxlan[0], &inner).unwrap();
    o.net.run_for(&mut o.world, SECOND);
    let dropped = |o: &Overlay, id| o.world.accountant.end(id).unwrap().record.what.clone();
    assert_eq!(dropped(&o, id), What::Dropped { reason: DropReason::TunnelTxInfo });
    type Change = fn(&mut Vec<u8>);
    let rows: [(Change, DropReason); 6] = [
        (|_| {}, DropReason::OtherHost),
        (|f| f[42] = 0x88, DropReason::VxlanInvalidHdr),
        (|f| f[42] = 0, DropReason::VxlanInvalidHdr),
        (|f| f[49] = 1, DropReason::VxlanInvalidHdr),
        (|f| f[56..62].copy_from_slice(&[2, 0, 0, 3, 0, 0]), DropReason::LocalMac),
        (|f| f.truncate(48), DropReason::PktTooSmall),
    ];
    o.net.detach(o.nodes[0], o.vxlan[0], Direction::Ingress).unwrap();
    for (row, (change, reason)) in rows.into_iter().enumerate() {
        let vxlan = [&[8, 0, 0, 0, 0, 4, 0xd2, 0][..], &inner].concat();
        let builder = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 1, 1], [2, 0, 0, 0, 1, 0])
            .ipv4(node_ip(1).octets(), node_ip(0).octets(), 64)
            .udp(40000, 8472);
        let mut frame = Vec::new();
        builder.write(&mut frame, &vxlan).unwrap();
        frame[40..42].fill(0);
        change(&mut frame);
        let id = o.net.inject_received(o.nodes[0], o.uplinks[0], &frame).unwrap();
        o.net.run_for(&mut o.world, SECOND);
        assert_eq!(dropped(&o, id), What::Dropped { reason }, "row {row}");
    }
    // pskb_inet_may_pull: the inner IP header is whole, or nobody sees the frame.
    for (inner, reason) in [(&inner[..33], DropReason::PktTooSmall), (&inner[..34], DropReason::OtherHost)] {
        let vxlan = [&[8, 0, 0, 0, 0, 4, 0xd2, 0][..], inner].concat();
        let mut frame = Vec::new();
        etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 1, 1], [2, 0, 0, 0, 1, 0])
            .ipv4(node_ip(1).octets(), node_ip(0).octets(), 64)
            .udp(40000, 8472)
            .write(&mut frame, &vxlan)
            .unwrap();
        let id = o.net.inject_received(o.nodes[0], o.uplinks[0], &frame).unwrap();
        o.net.run_for(&mut o.world, SECOND);
        assert_eq!(dropped(&o, id), What::Dropped { reason }, "{} bytes", inner.len());
    }
    o.world.assert_accounted(&o.net);
}
