//! Ways through one node and between two, end to end.

mod common;
use common::*;
use skep_net::*;

#[test]
fn a_ping_between_two_pods_of_a_node_is_routed_by_the_node() {
    let Routed { mut net, mut world, pods, lxc, .. } = routed(1);
    let flow = net.start_ping(pods[0], pod_ip(0, 11), 3, FlowOptions::default()).unwrap();
    let state = finish(&mut net, &mut world, flow);
    assert_eq!((state.outcome, state.sent, state.received), (Some(Outcome::Completed), 3, 3));
    net.run_until_quiet(&mut world, u64::MAX);
    world.assert_accounted(&net);
    assert_eq!(world.drops(), []);
    // Three questions with their answers: pod-10 for its gateway, from which the node learns pod-10; the node for
    // pod-11, from its uplink's address as that veth has none; pod-11 for its gateway.
    assert_eq!(world.count(|w| *w == What::Sent { origin: Origin::Arp }), 6);
    let forwarded: Vec<_> = world
        .records
        .iter()
        .filter_map(|(r, _)| match r.what {
            What::Forwarded { ttl, out, .. } => Some((ttl, out)),
            _ => None,
        })
        .collect();
    assert_eq!(forwarded, [(63, lxc[1]), (63, lxc[0])].repeat(3));
}

#[test]
fn a_pod_resolves_its_gateway_with_real_frames() {
    let Routed { mut net, mut world, pods, .. } = routed(1);
    net.start_ping(pods[0], pod_ip(0, 11), 1, FlowOptions::default()).unwrap();
    net.run_for(&mut world, SECOND);
    let arp = world.frames(|r| r.what == What::Tx)[0].bytes();
    let expected = [
        &[0xff; 6][..],
        &pod_mac(0, 10),
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
        &pod_mac(0, 10),
        &pod_ip(0, 10).octets(),
        &[0; 6],
        &pod_ip(0, 1).octets(),
    ]
    .concat();
    assert_eq!(arp, expected);
    assert_eq!(net.neighbours(pods[0])[0].mac, Some([2, 0, 0, 2, 0, 10]));
}

#[test]
fn http_on_one_node_and_tcp_checksums_are_left_to_the_device() {
    let Routed { mut net, mut world, pods, .. } = routed(1);
    net.serve_http(pods[1], 80).unwrap();
    let flow = net.start_http(pods[0], get(pod_ip(0, 11), "/get?x=1"), FlowOptions::default()).unwrap();
    let state = finish(&mut net, &mut world, flow);
    assert_eq!((state.outcome, state.status), (Some(Outcome::Completed), Some(200)));
    assert!(String::from_utf8(state.body).unwrap().contains("\"origin\": \"10.42.0.10\""));
    net.run_until_quiet(&mut world, u64::MAX);
    world.assert_accounted(&net);
    let tcp = world.frames(|r| r.what == What::Rx && matches!(r.ns, Some(ns) if ns == pods[1]));
    let partial =
        tcp.iter().filter(|f| matches!(f.checksum, skep_packet::Checksum::Partial { start: 34, offset: 16 }));
    assert!(partial.count() >= 4, "SYN, ACK, request, FIN");
}

#[test]
fn http_between_two_nodes_goes_through_vxlan() {
    let Overlay { mut net, mut world, pods, nodes, .. } = overlay(1);
    net.serve_http(pods[1], 80).unwrap();
    let flow = net.start_http(pods[0], get(pod_ip(1, 10), "/get"), FlowOptions::default()).unwrap();
    let state = finish(&mut net, &mut world, flow);
    assert_eq!((state.outcome, state.status), (Some(Outcome::Completed), Some(200)));
    net.run_until_quiet(&mut world, u64::MAX);
    world.assert_accounted(&net);
    world.assert_wire_is_sound();
    assert_eq!(world.drops(), []);
    let encapsulated: Vec<_> = world
        .records
        .iter()
        .filter_map(|(r, _)| match r.what {
            What::Encapsulated { vni, source, destination, source_port, destination_port } => {
                assert_eq!((vni, destination_port), (1234, 8472));
                assert!((32768..=60999).contains(&source_port));
                Some((r.node.unwrap(), source, destination, source_port))
            }
            _ => None,
        })
        .collect();
    let there: Vec<_> = encapsulated.iter().filter(|e| e.0 == nodes[0]).collect();
    assert!(there.iter().all(|e| (e.1, e.2) == (node_ip(0), node_ip(1))));
    // One flow, one source port in a direction: no reordering by ECMP.
    assert!(there.iter().all(|e| e.3 == there[0].3));
    let decapsulated = world.count(|w| matches!(w, What::Decapsulated { vni: 1234, .. }));
    assert_eq!(decapsulated, encapsulated.len());
    // The outer packet, read by other eyes.
    let outer = world.frames(|r| r.what == What::Wire).into_iter().find(|f| f.protocol == 0x0800).unwrap();
    let packet = etherparse::SlicedPacket::from_ethernet(outer.bytes()).unwrap();
    let Some(etherparse::NetSlice::Ipv4(ip)) = packet.net else { panic!("IPv4") };
    assert_eq!((ip.header().ttl(), ip.header().dont_fragment()), (64, false));
}

#[test]
fn the_frame_keeps_its_number_through_the_tunnel() {
    let Overlay { mut net, mut world, pods, .. } = overlay(1);
    net.start_ping(pods[0], pod_ip(1, 10), 1, FlowOptions::default()).unwrap();
    net.run_for(&mut world, SECOND);
    let ping =
        world.records.iter().find(|(r, _)| r.what == What::Sent { origin: Origin::Ping }).unwrap().0.frame;
    let story: Vec<&str> = world
        .records
        .iter()
        .filter(|(r, _)| r.frame == ping)
        .map(|(r, _)| match r.what {
            What::Sent { .. } => "sent",
            What::NeighbourWait { .. } => "wait",
            What::Tx => "tx",
            What::Rx => "rx",
            What::Hook { .. } => "hook",
            What::Encapsulated { .. } => "encapsulated",
            What::Decapsulated { .. } => "decapsulated",
            What::Wire => "wire",
            What::Consumed { by: Taker::Icmp } => "answered",
            _ => "other",
        })
        .collect();
    let expected = [
        "sent",
        "wait",
        "tx",
        "rx",
        "hook",
        "tx",
        "encapsulated",
        "wait",
        "tx",
        "wire",
        "rx",
        "decapsulated",
        "rx",
        "hook",
        "tx",
        "rx",
        "answered",
    ];
    assert_eq!(story, expected);
}

#[test]
fn a_megabyte_arrives_whole() {
    let Overlay { mut net, mut world, pods, .. } = overlay(1);
    net.serve_http(pods[1], 80).unwrap();
    let flow = net.start_http(pods[0], get(pod_ip(1, 10), "/bytes/1000000"), FlowOptions::default()).unwrap();
    let state = finish(&mut net, &mut world, flow);
    assert_eq!((state.outcome, state.bytes), (Some(Outcome::Completed), 1_000_000));
    assert!(state.body.iter().enumerate().all(|(i, b)| *b == (i % 251) as u8));
    net.run_for(&mut world, 60 * SECOND);
    world.assert_accounted(&net);
    world.assert_wire_is_sound();
    assert_eq!(net.next_event_ns(), None, "both ends have closed");
}

#[test]
fn a_tenth_lost_is_slow_and_all_lost_is_an_end() {
    for seed in 0..8 {
        let Overlay { mut net, mut world, pods, .. } = overlay(seed);
        net.serve_http(pods[1], 80).unwrap();
        net.set_loss(0.1);
        let patient = FlowOptions { timeout_ns: Some(3000 * SECOND), ..FlowOptions::default() };
        let flow = net.start_http(pods[0], get(pod_ip(1, 10), "/bytes/100000"), patient).unwrap();
        let state = finish(&mut net, &mut world, flow);
        assert_eq!((state.outcome, state.bytes), (Some(Outcome::Completed), 100_000), "seed {seed}");
        assert!(world.drops().contains(&DropReason::FabricLoss));
        net.set_loss(1.0);
        let flow = net.start_http(pods[0], get(pod_ip(1, 10), "/get"), FlowOptions::default()).unwrap();
        let start = net.now_ns();
        assert_eq!(finish(&mut net, &mut world, flow).outcome, Some(Outcome::TimedOut), "seed {seed}");
        assert_eq!(net.now_ns() - start, 3 * SECOND);
        net.run_for(&mut world, 3600 * SECOND);
        world.assert_accounted(&net);
    }
}

#[test]
fn a_connect_is_one_syn_and_is_given_up_after_900_ms() {
    let Overlay { mut net, mut world, pods, nodes, .. } = overlay(1);
    net.serve_tcp_echo(pods[1], 7).unwrap();
    let flow = net.start_connect(pods[0], pod_ip(1, 10), 7, FlowOptions::default()).unwrap();
    assert_eq!(finish(&mut net, &mut world, flow).outcome, Some(Outcome::Completed));
    let refused = net.start_connect(pods[0], pod_ip(1, 10), 8, FlowOptions::default()).unwrap();
    assert_eq!(finish(&mut net, &mut world, refused).outcome, Some(Outcome::Refused));
    assert_eq!(world.drops(), [DropReason::NoSocket]);
    net.run_until_quiet(&mut world, u64::MAX);
    net.set_partition(nodes[0], nodes[1], true);
    let sent = world.count(|w| *w == What::Sent { origin: Origin::Tcp });
    let start = net.now_ns();
    let flow = net.start_connect(pods[0], pod_ip(1, 10), 7, FlowOptions::default()).unwrap();
    assert_eq!(finish(&mut net, &mut world, flow).outcome, Some(Outcome::TimedOut));
    assert_eq!(net.now_ns() - start, 900_000_000);
    net.run_for(&mut world, 100 * SECOND);
    assert_eq!(
        world.count(|w| *w == What::Sent { origin: Origin::Tcp }) - sent,
        1,
        "one SYN, and silence after it"
    );
    assert!(world.drops().contains(&DropReason::FabricPartition));
    world.assert_accounted(&net);
}

#[test]
fn udp_is_echoed_or_refused_by_icmp() {
    let Overlay { mut net, mut world, pods, .. } = overlay(1);
    net.serve_udp_echo(pods[1], 53).unwrap();
    let flow = net.start_udp(pods[0], pod_ip(1, 10), 53, b"hello", FlowOptions::default()).unwrap();
    let state = finish(&mut net, &mut world, flow);
    assert_eq!((state.outcome, state.body.as_slice()), (Some(Outcome::Completed), &b"hello"[..]));
    let flow = net.start_udp(pods[0], pod_ip(1, 10), 54, b"hello", FlowOptions::default()).unwrap();
    assert_eq!(finish(&mut net, &mut world, flow).outcome, Some(Outcome::Unreachable { kind: 3, code: 3 }));
    assert_eq!(world.drops(), [DropReason::NoSocket]);
    net.run_until_quiet(&mut world, u64::MAX);
    world.assert_accounted(&net);
    world.assert_wire_is_sound();
}

#[test]
fn an_oversized_datagram_crosses_in_fragments_of_the_outer_packet() {
    let Overlay { mut net, mut world, pods, .. } = overlay(1);
    net.serve_udp_echo(pods[1], 53).unwrap();
    // The pod's path has 1450 and its datagram is cut there; a raw packet of 1500 is not, and the outer one is.
    let packet = udp_packet(pod_ip(0, 10), pod_ip(1, 10), 64, &[7; 1400]);
    let flow = net.start_udp(pods[0], pod_ip(1, 10), 53, &[5; 4000], FlowOptions::default()).unwrap();
    let state = finish(&mut net, &mut world, flow);
    assert_eq!((state.outcome, state.bytes), (Some(Outcome::Completed), 4000));
    assert_eq!(world.count(|w| matches!(w, What::Merged { .. })), 4, "three fragments each way");
    assert_eq!(packet.len(), 1428);
    let eth0 = net.device_by_name(pods[0], "eth0").unwrap();
    let big = udp_packet(pod_ip(0, 10), pod_ip(1, 10), 64, &[7; 1472]);
    let frame = [&GATEWAY_MAC[..], &pod_mac(0, 10), &[8, 0], &big].concat();
    let id = net.inject(net.node_of(pods[0]).unwrap(), eth0, &frame).unwrap();
    net.run_until_quiet(&mut world, u64::MAX);
    assert_eq!(world.count(|w| *w == What::Sent { origin: Origin::Fragment { of: id } }), 1);
    // Nobody listens at port 5000: the packet was put together again, out of the tunnel, and refused by the pod.
    let end = world.accountant.end(id).unwrap();
    assert_eq!(
        (end.record.ns, &end.record.what),
        (Some(pods[1]), &What::Dropped { reason: DropReason::NoSocket })
    );
    world.assert_accounted(&net);
    world.assert_wire_is_sound();
}

#[test]
fn a_held_download_stops_the_server_and_goes_on_when_released() {
    let Overlay { mut net, mut world, pods, .. } = overlay(1);
    net.serve_http(pods[1], 80).unwrap();
    let options = FlowOptions { hold: Some(Hold::Bytes(100_000)), ..FlowOptions::default() };
    let flow = net.start_http(pods[0], get(pod_ip(1, 10), "/bytes/1000000"), options).unwrap();
    let end = net.run_until(&mut world, 10 * SECOND, &mut |net| net.flow(flow).unwrap().held);
    assert_eq!((end, net.flow(flow).unwrap().bytes), (RunEnd::Done, 100_000));
    // Six hours pass: the window is closed and probed, and nothing is given up.
    net.run_for(&mut world, 6 * 3600 * SECOND);
    assert_eq!(net.flow(flow).unwrap().bytes, 100_000);
    assert_eq!(net.flow(flow).unwrap().outcome, None);
    net.release(flow);
    let state = finish(&mut net, &mut world, flow);
    assert_eq!((state.outcome, state.bytes), (Some(Outcome::Completed), 1_000_000));
    net.run_until_quiet(&mut world, u64::MAX);
    world.assert_accounted(&net);
}

#[test]
fn a_flow_held_at_the_handshake_has_sent_no_request() {
    let Overlay { mut net, mut world, pods, .. } = overlay(1);
    net.serve_http(pods[1], 80).unwrap();
    let options = FlowOptions { hold: Some(Hold::Established), ..FlowOptions::default() };
    let flow = net.start_http(pods[0], get(pod_ip(1, 10), "/get"), options).unwrap();
    net.run_for(&mut world, 10 * SECOND);
    let state = net.flow(flow).unwrap().clone();
    assert_eq!((state.established, state.held, state.status, state.outcome), (true, true, None, None));
    net.release(flow);
    assert_eq!(finish(&mut net, &mut world, flow).outcome, Some(Outcome::Completed));
}

#[test]
fn a_pod_reaches_itself_and_the_node_reaches_a_pod() {
    let Routed { mut net, mut world, node, pods, .. } = routed(1);
    net.serve_http(pods[0], 80).unwrap();
    let own = net.start_http(pods[0], get(pod_ip(0, 10), "/get"), FlowOptions::default()).unwrap();
    assert_eq!(finish(&mut net, &mut world, own).status, Some(200));
    let root = net.root(node).unwrap();
    net.attach_stack(root, "node-1").unwrap();
    let flow = net.start_http(root, get(pod_ip(0, 10), "/get"), FlowOptions::default()).unwrap();
    assert_eq!(finish(&mut net, &mut world, flow).status, Some(200));
    assert_eq!(net.flow(flow).unwrap().tuple.source, pod_ip(0, 1), "the address of the device");
    net.run_until_quiet(&mut world, u64::MAX);
    world.assert_accounted(&net);
}
