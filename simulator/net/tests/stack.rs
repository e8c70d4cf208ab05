//! What the stack refuses and how it says so: one row a reason.

mod common;
use common::*;
use skep_net::*;
use std::net::Ipv4Addr;

/// What became of a packet that arrives from pod-10 at the node, after `prepare`.
fn arrives(prepare: impl FnOnce(&mut Routed), change: impl FnOnce(&mut Vec<u8>)) -> (Routed, FrameId) {
    let mut r = routed(1);
    prepare(&mut r);
    let packet = udp_packet(pod_ip(0, 10), pod_ip(0, 11), 64, b"payload");
    let mut frame = [&[2, 0, 0, 2, 0, 10][..], &pod_mac(0, 10), &[8, 0], &packet].concat();
    change(&mut frame);
    let id = r.net.inject_received(r.node, r.lxc[0], &frame).expect("a device");
    r.net.run_for(&mut r.world, 100 * SECOND);
    r.world.assert_accounted(&r.net);
    (r, id)
}

fn reason(r: &Routed, id: FrameId) -> Option<DropReason> {
    match r.world.accountant.end(id).expect("an end").record.what {
        What::Dropped { reason } => Some(reason),
        _ => None,
    }
}

/// Changes the IPv4 header and mends its checksum.
fn header(frame: &mut [u8], change: impl FnOnce(&mut [u8])) {
    change(&mut frame[14..34]);
    frame[24..26].fill(0);
    let sum = frame[14..34].chunks(2).map(|b| u32::from(u16::from_be_bytes([b[0], b[1]]))).sum::<u32>();
    let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn malformed_and_misdirected_packets_have_the_kernels_reasons() {
    type Change = fn(&mut Vec<u8>);
    let rows: [(&str, Change, DropReason); 16] = [
        ("another's address", |f| f[5] = 99, DropReason::OtherHost),
        ("unknown protocol", |f| f[12] = 0x99, DropReason::UnhandledProto),
        ("runt", |f| f.truncate(13), DropReason::PktTooSmall),
        ("no header", |f| f.truncate(20), DropReason::IpInHdr),
        ("version", |f| header(f, |h| h[0] = 0x55), DropReason::IpInHdr),
        ("header length", |f| header(f, |h| h[0] = 0x44), DropReason::IpInHdr),
        ("checksum", |f| f[24] ^= 1, DropReason::IpCsum),
        ("cut off", |f| f.truncate(40), DropReason::PktTooSmall),
        (
            "source 224.0.0.1",
            |f| header(f, |h| h[12..16].copy_from_slice(&[224, 0, 0, 1])),
            DropReason::IpInvalidSource,
        ),
        ("source 0.1.2.3", |f| header(f, |h| h[12] = 0), DropReason::IpInvalidSource),
        ("source 127.0.0.1", |f| header(f, |h| h[12] = 127), DropReason::IpLocalNet),
        ("to 127.0.0.1", |f| header(f, |h| h[16] = 127), DropReason::IpLocalNet),
        ("to 0.42.0.11", |f| header(f, |h| h[16] = 0), DropReason::IpInvalidDest),
        ("from ourselves", |f| header(f, |h| h[15] = 1), DropReason::IpLocalSource),
        ("time to live", |f| header(f, |h| h[8] = 1), DropReason::IpInHdr),
        ("no route", |f| header(f, |h| h[16] = 11), DropReason::IpInNoRoutes),
    ];
    for (name, change, expected) in rows {
        let (r, id) = arrives(|_| {}, change);
        assert_eq!(reason(&r, id), Some(expected), "{name}");
    }
}

#[test]
fn transport_checksums_and_protocols_are_judged_where_the_packet_ends() {
    let to_gateway = |h: &mut [u8]| h[19] = 1;
    let (r, id) = arrives(|_| {}, |f| header(f, to_gateway));
    assert_eq!(reason(&r, id), Some(DropReason::UdpCsum), "the pseudo header has changed");
    let (r, id) = arrives(
        |_| {},
        |f| {
            header(f, to_gateway);
            f[40..42].fill(0);
        },
    );
    assert_eq!(reason(&r, id), Some(DropReason::NoSocket), "zero is no checksum");
    for (protocol, expected) in
        [(6, DropReason::PktTooSmall), (1, DropReason::IcmpCsum), (132, DropReason::IpNoProto)]
    {
        let (r, id) = arrives(
            |_| {},
            |f| {
                header(f, to_gateway);
                header(f, |h| h[9] = protocol);
            },
        );
        assert_eq!(reason(&r, id), Some(expected), "protocol {protocol}");
    }
}

#[test]
fn what_is_not_forwarded_is_refused_and_what_has_no_way_back_is_filtered() {
    let root = |r: &Routed| r.net.root(r.node).unwrap();
    let (r, id) = arrives(
        |r| {
            let root = root(r);
            r.net.set_sysctl(root, "net.ipv4.ip_forward", "0").unwrap();
        },
        |_| {},
    );
    assert_eq!(reason(&r, id), Some(DropReason::IpInAddrErrors));
    // Pod-10's packets with another source: strict wants the same device back, loose any route.
    for (value, source, expected) in [
        ("0", pod_ip(0, 77), DropReason::NoSocket),
        ("1", pod_ip(0, 10), DropReason::NoSocket),
        ("1", node_ip(5), DropReason::IpRpFilter),
        ("1", pod_ip(0, 77), DropReason::IpRpFilter),
        ("2", node_ip(5), DropReason::NoSocket),
        ("2", pod_ip(0, 77), DropReason::IpRpFilter),
    ] {
        let (r, id) = arrives(
            |r| {
                let root = root(r);
                r.net.set_sysctl(root, "net/ipv4/conf/lxc10/rp_filter", value).unwrap();
            },
            |f| {
                header(f, |h| h[12..16].copy_from_slice(&source.octets()));
                f[40..42].fill(0);
            },
        );
        assert_eq!(reason(&r, id), Some(expected), "rp_filter {value}, source {source}");
    }
}

#[test]
fn ttl_no_route_and_mtu_are_answered_by_icmp_that_reads_right() {
    // (TTL, destination, MTU of the way, size) and (type, code, MTU field).
    let rows = [
        (1, pod_ip(0, 11), 1500, 100, (11, 0, 0)),
        (64, Ipv4Addr::new(11, 0, 0, 1), 1500, 100, (3, 0, 0)),
        (64, pod_ip(0, 11), 1000, 1200, (3, 4, 1000)),
    ];
    for (ttl, destination, mtu, size, (kind, code, next_mtu)) in rows {
        let mut r = routed(1);
        r.net.set_mtu(r.node, r.lxc[1], mtu).unwrap();
        let mut packet = udp_packet(pod_ip(0, 10), destination, ttl, &vec![1; size - 28]);
        packet[6] = 0x40;
        let id = r.net.send_ip(r.pods[0], &packet).unwrap();
        r.net.run_for(&mut r.world, 100 * SECOND);
        r.world.assert_accounted(&r.net);
        assert_eq!(r.world.accountant.end(id).unwrap().record.ns, Some(r.net.root(r.node).unwrap()));
        let errors = r.world.frames(|r| matches!(r.what, What::Consumed { by: Taker::Icmp }));
        let error = errors[0].bytes();
        check_frame(error);
        assert_eq!((error[34], error[35]), (kind, code));
        assert_eq!(u16::from_be_bytes([error[40], error[41]]), next_mtu);
        assert_eq!(error[26..30], pod_ip(0, 1).octets(), "from the way back's address");
        assert_eq!(error[54..58], pod_ip(0, 10).octets(), "the quoted source");
    }
}

#[test]
fn without_dont_fragment_a_packet_is_cut_and_put_together() {
    let mut r = routed(1);
    r.net.set_mtu(r.node, r.lxc[1], 576).unwrap();
    r.net.serve_udp_echo(r.pods[1], 5000).unwrap();
    let mut packet = udp_packet(pod_ip(0, 10), pod_ip(0, 11), 64, &[1; 1400]);
    // etherparse sets DF.
    packet[6] = 0;
    let id = r.net.send_ip(r.pods[0], &packet).unwrap();
    r.net.run_for(&mut r.world, SECOND);
    r.world.assert_accounted(&r.net);
    assert_eq!(r.world.accountant.end(id).unwrap().record.what, What::Delivered { socket: Socket::Udp });
    assert_eq!(r.world.count(|w| matches!(w, What::Sent { origin: Origin::Fragment { .. } })), 2);
    assert_eq!(r.world.count(|w| *w == What::Merged { into: id }), 2);
}

#[test]
fn fragments_that_stay_alone_expire_and_overlaps_are_dropped() {
    let mut r = routed(1);
    let part = |offset: u16, more: bool, id: u8| {
        let mut packet = udp_packet(pod_ip(0, 10), pod_ip(0, 11), 64, &[1; 100]);
        packet[5] = id;
        let field = (offset / 8) | if more { 0x2000 } else { 0 };
        packet[6..8].copy_from_slice(&field.to_be_bytes());
        packet.truncate(20 + 104);
        packet
    };
    let alone = r.net.send_ip(r.pods[0], &part(0, true, 1)).unwrap();
    let first = r.net.send_ip(r.pods[0], &part(0, true, 2)).unwrap();
    let overlapping = r.net.send_ip(r.pods[0], &part(96, false, 2)).unwrap();
    r.net.run_for(&mut r.world, 10 * SECOND);
    assert_eq!(r.net.in_flight(), 1);
    r.net.run_for(&mut r.world, 30 * SECOND);
    r.world.assert_accounted(&r.net);
    assert_eq!(reason(&r, alone), Some(DropReason::FragReasmTimeout));
    assert_eq!(reason(&r, first), Some(DropReason::DupFrag));
    assert_eq!(reason(&r, overlapping), Some(DropReason::DupFrag));
}

#[test]
fn a_neighbour_that_does_not_answer_fails_after_three_questions() {
    let mut r = routed(1);
    let root = r.net.root(r.node).unwrap();
    let flow = r.net.start_udp(
        r.pods[0],
        node_ip(9),
        53,
        b"x",
        FlowOptions { timeout_ns: Some(10 * SECOND), ..FlowOptions::default() },
    );
    let state = finish(&mut r.net, &mut r.world, flow.unwrap());
    assert_eq!(state.outcome, Some(Outcome::Unreachable { kind: 3, code: 1 }));
    assert_eq!(r.world.drops().last(), Some(&DropReason::NeighFailed));
    let asked = r.world.records.iter().filter(|(record, _)| {
        record.ns == Some(root)
            && record.what == What::Sent { origin: Origin::Arp }
            && record.ifindex == Some(r.uplink)
    });
    assert_eq!(asked.count(), 3);
    r.net.run_until_quiet(&mut r.world, u64::MAX);
    r.world.assert_accounted(&r.net);
    // On a segment of one's own nobody hears.
    assert!(r.world.drops().contains(&DropReason::FabricNoReceiver));
}

#[test]
fn a_host_without_a_route_says_so_at_once() {
    let mut net = Net::new(1, 5);
    let node = net.add_node("alone");
    let root = net.root(node).unwrap();
    net.attach_stack(root, "alone").unwrap();
    let flow = net.start_connect(root, Ipv4Addr::new(10, 0, 0, 1), 80, FlowOptions::default()).unwrap();
    assert_eq!(net.flow(flow).unwrap().outcome, Some(Outcome::NoRoute));
    let mut world = World::default();
    let id = net.send_ip(root, &udp_packet(node_ip(1), pod_ip(0, 1), 64, b"x")).unwrap();
    net.run_for(&mut world, SECOND);
    assert_eq!(world.drops(), [DropReason::IpOutNoRoutes]);
    assert_eq!(world.accountant.end(id).unwrap().record.time_ns, 5);
}

#[test]
fn what_waits_at_a_device_or_lies_on_a_way_that_goes_is_dropped_with_a_reason() {
    let mut r = routed(1);
    let eth0 = r.net.device_by_name(r.pods[1], "eth0").unwrap();
    // Waits for a neighbour, then its device goes.
    r.net.send_ip(r.pods[0], &udp_packet(pod_ip(0, 10), node_ip(9), 64, b"x")).unwrap();
    r.net.run_for(&mut r.world, 10_000_000);
    r.net.delete_device(r.node, r.uplink).unwrap();
    // On its way through a veth, when the pod goes.
    let frame = [&[0xff; 12][..], &[8, 0], &[0; 40]].concat();
    r.net.inject(r.node, r.lxc[1], &frame).unwrap();
    assert!(r.net.step(&mut r.world, u64::MAX));
    r.net.delete_namespace(r.pods[1]).unwrap();
    assert_eq!(r.net.device(r.node, eth0), None);
    assert_eq!(r.net.device(r.node, r.lxc[1]), None, "a veth goes with its other end");
    r.net.run_for(&mut r.world, SECOND);
    let mut drops = r.world.drops();
    drops.sort();
    drops.dedup();
    assert!(drops.contains(&DropReason::NeighFailed) && drops.contains(&DropReason::DevReady), "{drops:?}");
    r.world.assert_accounted(&r.net);
}

#[test]
fn timers_ring_in_order_and_can_be_taken_back() {
    let mut net = Net::new(1, 100);
    let mut world = World::default();
    net.set_timer(300, 1);
    net.set_timer(200, 2);
    let gone = net.set_timer(250, 3);
    net.set_timer(200, 4);
    net.set_timer(50, 5);
    assert!(net.cancel_timer(gone) && !net.cancel_timer(gone));
    net.run_for(&mut world, 100);
    assert_eq!(world.timers, [(100, 5), (200, 2), (200, 4)]);
    assert_eq!(net.now_ns(), 200);
    assert_eq!(net.run_until(&mut world, 1000, &mut |_| false), RunEnd::Idle);
    assert_eq!(net.now_ns(), 300);
}

#[test]
fn names_numbers_and_mistakes_of_the_builder() {
    let mut r = routed(1);
    let root = r.net.root(r.node).unwrap();
    assert_eq!(r.net.device_by_name(root, "lo"), Some(1));
    assert_eq!(r.net.device_by_name(root, "eth0"), Some(2));
    assert_eq!((r.lxc, r.uplink), ([3, 5], 2));
    r.net.delete_device(r.node, 3).unwrap();
    let vxlan = r.net.add_vxlan(r.node, "skep_vxlan", [2, 1, 1, 1, 1, 1], 8472, 1500).unwrap();
    assert_eq!(vxlan, 3, "the lowest free number");
    assert_eq!(
        r.net.add_vxlan(r.node, "other", [2, 1, 1, 1, 1, 1], 8472, 1500),
        Err(NetError::PortTaken(8472))
    );
    assert!(matches!(r.net.add_vxlan(r.node, "eth0", [2; 6], 1, 1500), Err(NetError::NameTaken(_))));
    assert!(matches!(
        r.net.add_vxlan(r.node, "a name too long for it", [2; 6], 1, 1500),
        Err(NetError::Invalid(_))
    ));
    assert!(matches!(r.net.add_vxlan(r.node, "odd", [1; 6], 1, 1500), Err(NetError::Invalid(_))));
    let route = Route { via: Some(Ipv4Addr::new(9, 9, 9, 9)), ..link(pod_ip(3, 0), 24, 2) };
    assert!(
        matches!(r.net.set_route(root, route), Err(NetError::Invalid(_))),
        "the next hop is not on the link"
    );
    assert!(matches!(
        r.net.set_sysctl(root, "net.ipv4.conf.eth9.rp_filter", "1"),
        Err(NetError::NoSuchSysctl(_))
    ));
    assert!(matches!(r.net.set_sysctl(root, "net.ipv4.nonsense", "1"), Err(NetError::NoSuchSysctl(_))));
    assert!(matches!(r.net.set_sysctl(root, "net.ipv4.ip_forward", "yes"), Err(NetError::Invalid(_))));
    assert_eq!(r.net.sysctl(root, "net.ipv4.conf.eth0.forwarding").unwrap(), "1");
    assert!(matches!(r.net.delete_route(root, pod_ip(9, 0), 24), Err(NetError::NotFound(_))));
    assert!(matches!(r.net.detach(r.node, 2, Direction::Ingress), Err(NetError::NotFound(_))));
    assert!(r.net.delete_device(r.node, 1).is_err() && r.net.delete_namespace(root).is_err());
}

#[test]
fn a_device_without_arp_sends_to_its_own_address_and_answers_nobody() {
    let mut r = routed(1);
    let root = r.net.root(r.node).unwrap();
    let end_of =
        |name: &str, last| VethEnd { ns: root, name: name.into(), mac: [2, 0, 0, 9, 0, last], mtu: 1500 };
    let (host, peer) = r.net.add_veth_pair(r.node, end_of("skep_host", 1), end_of("skep_net", 2)).unwrap();
    r.net.set_noarp(r.node, host, true).unwrap();
    r.net.set_route(root, link(pod_ip(9, 0), 24, host)).unwrap();
    let packet = udp_packet(node_ip(0), pod_ip(9, 9), 64, b"x");
    let id = r.net.send_ip(root, &packet).unwrap();
    r.net.run_for(&mut r.world, SECOND);
    let sent = r.world.frames(|r| r.frame == id && r.what == What::Tx)[0].bytes();
    assert_eq!(sent[..12], [[2, 0, 0, 9, 0, 1]; 2].concat());
    // The other end is not addressed.
    assert_eq!(reason(&r, id), Some(DropReason::OtherHost));
    assert_eq!(r.world.accountant.end(id).unwrap().record.ifindex, Some(peer));
    r.world.assert_accounted(&r.net);
}

#[test]
fn a_listener_takes_a_syn_and_resets_only_what_acknowledges() {
    let (fin, syn, rst, ack) = (1, 2, 4, 16);
    let rows = [
        (syn | fin, DropReason::TcpFlags, false),
        (fin, DropReason::TcpFlags, false),
        (0, DropReason::TcpFlags, false),
        (rst, DropReason::TcpReset, false),
        (rst | ack, DropReason::TcpFlags, false),
        (ack, DropReason::TcpFlags, true),
        (syn | ack, DropReason::TcpFlags, true),
    ];
    for (flags, expected, answered) in rows {
        let mut r = routed(1);
        r.net.serve_http(r.pods[1], 80).unwrap();
        let mut packet = Vec::new();
        etherparse::PacketBuilder::ipv4(pod_ip(0, 10).octets(), pod_ip(0, 11).octets(), 64)
            .tcp(1000, 80, 7, 1000)
            .write(&mut packet, &[])
            .unwrap();
        packet[33] = flags;
        packet[36..38].fill(0);
        let pseudo = [&packet[12..20], &[0, 6, 0, 20]].concat();
        let words = pseudo.chunks(2).chain(packet[20..].chunks(2));
        let sum: u32 = words.map(|b| u32::from(u16::from_be_bytes([b[0], b[1]]))).sum();
        let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
        packet[36..38].copy_from_slice(&sum.to_be_bytes());
        let id = r.net.send_ip(r.pods[0], &packet).unwrap();
        r.net.run_for(&mut r.world, SECOND);
        r.world.assert_accounted(&r.net);
        assert_eq!(reason(&r, id), Some(expected), "flags {flags:#x}");
        let resets = r.world.count(|w| *w == What::Sent { origin: Origin::Reset });
        assert_eq!(resets, usize::from(answered), "flags {flags:#x}");
    }
}

#[test]
fn what_goes_to_many_goes_by_no_gateway_and_a_copy_stays() {
    let group = |last| Ipv4Addr::new(224, 0, 0, last);
    let rows = [
        (group(1), [1, 0, 0x5e, 0, 0, 1], 2),
        (group(9), [1, 0, 0x5e, 0, 0, 9], 1),
        (Ipv4Addr::BROADCAST, [0xff; 6], 2),
    ];
    for (destination, mac, packets) in rows {
        let mut r = routed(1);
        let id = r.net.send_ip(r.pods[0], &udp_packet(pod_ip(0, 10), destination, 1, b"x")).unwrap();
        r.net.run_for(&mut r.world, SECOND);
        r.world.assert_accounted(&r.net);
        assert_eq!(reason(&r, id), Some(DropReason::NotSpecified), "{destination}");
        let sent = r.world.count(|w| *w == What::Sent { origin: Origin::Injected });
        assert_eq!(sent, packets, "{destination}");
        assert_eq!(r.world.drops(), vec![DropReason::NotSpecified; packets], "{destination}");
        let arrived = r.world.frames(|record| record.frame == id && record.what.is_end());
        assert_eq!(arrived[0].bytes()[..6], mac, "{destination}");
        assert_eq!(r.world.count(|w| *w == What::Sent { origin: Origin::Arp }), 0, "nobody is asked");
    }
}
