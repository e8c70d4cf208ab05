//! What holds for every seed and for any bytes: the same run twice is the same, nothing panics, and no frame is
//! without an end.

mod common;
use common::*;
use proptest::prelude::*;
use skep_net::*;

/// A run with loss, duplication and several flows at once; everything that was observed.
fn busy(seed: u64, loss: f64) -> (World, Net) {
    let Overlay { mut net, mut world, pods, .. } = overlay(seed);
    net.set_loss(loss);
    net.set_duplication(loss / 2.0);
    net.serve_http(pods[1], 80).expect("a sound test");
    net.serve_udp_echo(pods[0], 53).expect("a sound test");
    net.start_http(pods[0], get(pod_ip(1, 10), "/bytes/30000"), FlowOptions::default())
        .expect("a sound test");
    net.start_ping(pods[1], pod_ip(0, 10), 3, FlowOptions::default()).expect("a sound test");
    net.start_udp(pods[1], pod_ip(0, 10), 53, &[1; 3000], FlowOptions::default()).expect("a sound test");
    net.run_for(&mut world, 5 * SECOND);
    net.start_connect(pods[1], pod_ip(0, 10), 9, FlowOptions::default()).expect("a sound test");
    net.run_for(&mut world, 1000 * SECOND);
    (world, net)
}

proptest! {
    #[test]
    fn the_same_seed_is_the_same_run(seed: u64, loss in 0.0..0.4f64) {
        let (first, net) = busy(seed, loss);
        let (second, _) = busy(seed, loss);
        prop_assert!(first.records == second.records);
        first.assert_accounted(&net);
        first.assert_wire_is_sound();
    }
}

/// Frames that are nearly right: any bytes behind headers that get them further than noise would.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let addresses = prop_oneof![
        Just(pod_ip(0, 10)),
        Just(pod_ip(1, 10)),
        Just(pod_ip(0, 1)),
        Just(node_ip(0)),
        Just(node_ip(1)),
        Just(node_ip(245)),
        any::<u32>().prop_map(Into::into)
    ];
    let ports = prop_oneof![Just(80u16), Just(53), Just(8472), Just(34567), any::<u16>()];
    let noise = proptest::collection::vec(any::<u8>(), 0..200);
    let ip = (
        addresses.clone(),
        addresses,
        any::<u8>(),
        ports.clone(),
        ports,
        noise.clone(),
        any::<[u8; 4]>(),
        0..6u8,
    );
    let packet = ip.prop_map(|(from, to, ttl, source, destination, payload, bits, kind)| {
        let builder = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 1, 0]).ipv4(
            from.octets(),
            to.octets(),
            ttl,
        );
        let mut frame = Vec::new();
        match kind {
            0 => builder.udp(source, destination).write(&mut frame, &payload).expect("a sound test"),
            1 | 2 => {
                let mut tcp = etherparse::TcpHeader::new(source, destination, u32::from_be_bytes(bits), 500);
                (tcp.syn, tcp.ack, tcp.fin, tcp.rst) =
                    (bits[0] & 1 != 0, bits[0] & 2 != 0, bits[0] & 4 != 0, bits[0] & 8 != 0);
                builder.tcp_header(tcp).write(&mut frame, &payload).expect("a sound test");
            }
            3 => builder
                .icmpv4_raw(bits[0] % 20, bits[1] % 5, bits)
                .write(&mut frame, &payload)
                .expect("a sound test"),
            4 => {
                builder.udp(source, destination).write(&mut frame, &payload).expect("a sound test");
                // A fragment, or what looks like one.
                frame[20..22].copy_from_slice(&[bits[0] & 0x3f, bits[1]]);
            }
            _ => builder.write(&mut frame, etherparse::IpNumber(bits[0]), &payload).expect("a sound test"),
        }
        if kind == 4 {
            let ip = etherparse::Ipv4Header::from_slice(&frame[14..]).expect("a sound test").0;
            frame[24..26].copy_from_slice(&ip.calc_header_checksum().to_be_bytes());
        }
        frame
    });
    let arp = noise.clone().prop_map(|noise| {
        let mut frame = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 9, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
        frame.extend(noise);
        frame
    });
    (
        prop_oneof![4 => packet, 1 => arp, 1 => noise],
        proptest::collection::vec(any::<(prop::sample::Index, u8)>(), 0..3),
        any::<bool>(),
    )
        .prop_map(|(mut frame, changes, damaged)| {
            if damaged && !frame.is_empty() {
                for (at, byte) in changes {
                    let at = at.index(frame.len());
                    frame[at] = byte;
                }
            }
            frame
        })
}

proptest! {
    #[test]
    fn any_bytes_anywhere_have_an_end(
        injected in proptest::collection::vec((frames(), 0..2usize, any::<prop::sample::Index>(), any::<bool>()), 1..20),
        linear in proptest::option::of(0..100usize),
    ) {
        let Overlay { mut net, mut world, pods, nodes, .. } = overlay(1);
        // A datapath that passes everything on, so that all of it meets the stack.
        for program in &mut world.programs {
            *program = Box::new(|_, _| Verdict::Ok);
        }
        net.set_linear_head(linear);
        for (node, pod) in nodes.into_iter().zip(pods) {
            let root = net.root(node).expect("a sound test");
            net.set_sysctl(root, "net.ipv4.ip_forward", "1").expect("a sound test");
            net.serve_http(pod, 80).expect("a sound test");
            net.serve_udp_echo(pod, 53).expect("a sound test");
            net.attach_stack(root, "node").expect("a sound test");
            net.serve_tcp_echo(root, 80).expect("a sound test");
        }
        let flow = FlowOptions { source_port: Some(34567), ..FlowOptions::default() };
        net.start_connect(pods[0], pod_ip(1, 10), 80, flow).expect("a sound test");
        for (mut frame, node, device, received) in injected {
            let devices = net.devices(nodes[node]);
            let device = &devices[device.index(devices.len())];
            let at = device.ifindex;
            if received {
                // Addressed to the device, or nothing would get further.
                if frame.len() > 6 && frame[0] & 1 == 0 {
                    frame[..6].copy_from_slice(&device.mac);
                }
                net.inject_received(nodes[node], at, &frame).expect("a sound test");
            } else {
                net.inject(nodes[node], at, &frame).expect("a sound test");
            }
            // A packet behind an Ethernet header, to a raw socket too; what is refused is no frame.
            let _ = net.send_ip(pods[node], frame.get(14..).unwrap_or_default());
            net.run_for(&mut world, 200_000);
        }
        net.run_for(&mut world, 2000 * SECOND);
        world.assert_accounted(&net);
    }
}

/// A program that was written by nobody: every verdict, and any change to the packet.
fn wild(mut state: u64) -> impl FnMut(&HookAt, &mut SkBuff) -> Verdict + 'static {
    let mut next = move |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % bound
    };
    move |_, skb| {
        match next(40) {
            0 => skb.push(&[next(256) as u8; 9]),
            1 => skb.pull(next(60)),
            2 => skb.trim(next(80)),
            3 if !skb.is_empty() => {
                let at = next(skb.len());
                skb.bytes_mut()[at] = next(256) as u8;
            }
            4 => {
                let checksum =
                    skep_packet::Checksum::Partial { start: next(100) as u16, offset: next(100) as u16 };
                skb.checksum = checksum;
            }
            5 => {
                let remote = [192, 168, 1, 10 + next(3) as u8];
                skb.tunnel = Some(skep_packet::Tunnel { remote, transmit: true, ..Default::default() });
            }
            _ => {}
        }
        let ifindex = next(7) as u32;
        match next(60) {
            0 => Verdict::Shot,
            1 => Verdict::Stolen,
            2 | 3 => Verdict::Redirect { ifindex, ingress: false },
            4 => Verdict::Redirect { ifindex, ingress: true },
            5 => Verdict::RedirectPeer { ifindex },
            6 => Verdict::RedirectNeigh { ifindex, via: None },
            7 => Verdict::RedirectNeigh { ifindex, via: Some(node_ip(1)) },
            _ => Verdict::Ok,
        }
    }
}

proptest! {
    #[test]
    fn any_program_anywhere_leaves_no_frame_without_an_end(seed: u64) {
        let Overlay { mut net, mut world, pods, nodes, lxc, uplinks, .. } = overlay(seed);
        for (number, node) in nodes.into_iter().enumerate() {
            let root = net.root(node).expect("a node");
            // Routes join the pods, so that packets get far where the programs let them.
            let (own, other) = (number as u8, 1 - number as u8);
            net.add_address(node, lxc[number], pod_ip(own, 1), 32).expect("an address");
            net.set_route(root, link(pod_ip(own, 10), 32, lxc[number])).expect("a route");
            let via = Route { via: Some(node_ip(other)), ..link(pod_ip(other, 0), 24, uplinks[number]) };
            net.set_route(root, via).expect("a route");
            net.set_sysctl(root, "net.ipv4.ip_forward", "1").expect("a sysctl");
            for device in net.devices(node) {
                for direction in [Direction::Ingress, Direction::Egress] {
                    let program = wild(seed ^ u64::from(device.ifindex) << 8 ^ number as u64);
                    world.attach(&mut net, node, device.ifindex, direction, program);
                }
            }
        }
        net.serve_http(pods[1], 80).expect("a free port");
        net.start_http(pods[0], get(pod_ip(1, 10), "/get"), FlowOptions::default()).expect("a stack");
        net.start_ping(pods[1], pod_ip(0, 10), 5, FlowOptions::default()).expect("a stack");
        net.start_udp(pods[1], pod_ip(0, 10), 53, &[1; 3000], FlowOptions::default()).expect("a stack");
        net.run_for(&mut world, 1000 * SECOND);
        world.assert_accounted(&net);
    }
}
