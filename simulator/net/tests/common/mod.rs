//! Two small clusters and an observer. What is emitted is read with etherparse, never with what emitted it.
#![expect(dead_code, reason = "each test file uses its own part of this")]

use etherparse::{SlicedPacket, TransportSlice};
use skep_net::*;
use skep_packet::Tunnel;
use std::net::Ipv4Addr;

pub(crate) const SECOND: u64 = 1_000_000_000;
pub(crate) const GATEWAY_MAC: Mac = [2, 0, 0, 0, 0, 1];

/// Records everything and runs programs that are Rust functions.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) records: Vec<(Record, SkBuff)>,
    pub(crate) accountant: Accountant,
    pub(crate) timers: Vec<(u64, u64)>,
    #[expect(clippy::type_complexity, reason = "a program")]
    pub(crate) programs: Vec<Box<dyn FnMut(&HookAt, &mut SkBuff) -> Verdict>>,
}

impl Hooks for World {
    fn run(&mut self, at: &HookAt, skb: &mut SkBuff, _: &mut Random) -> Verdict {
        assert_eq!(at.ifindex, skb.ifindex);
        self.programs[at.hook.0 as usize](at, skb)
    }

    fn observe(&mut self, record: &Record, frame: &SkBuff) {
        assert_eq!(record.seq, self.records.len() as u64, "records have no gaps");
        self.accountant.feed(record);
        self.records.push((record.clone(), frame.clone()));
    }

    fn timer(&mut self, net: &mut Net, token: u64) {
        self.timers.push((net.now_ns(), token));
    }
}

impl World {
    /// Attaches a program to a device.
    pub(crate) fn attach(
        &mut self,
        net: &mut Net,
        node: NodeId,
        ifindex: IfIndex,
        direction: Direction,
        program: impl FnMut(&HookAt, &mut SkBuff) -> Verdict + 'static,
    ) {
        self.programs.push(Box::new(program));
        net.attach(node, ifindex, direction, HookId(self.programs.len() as u32 - 1)).expect("a sound test");
    }

    /// Every frame had one end.
    pub(crate) fn assert_accounted(&self, net: &Net) {
        assert_eq!(self.accountant.faults(), []);
        let open = self.accountant.unaccounted();
        assert_eq!(open.len(), net.in_flight(), "{open:?}");
        assert!(open.is_empty(), "{open:?}");
    }

    pub(crate) fn drops(&self) -> Vec<DropReason> {
        self.records
            .iter()
            .filter_map(|(r, _)| match r.what {
                What::Dropped { reason } => Some(reason),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn count(&self, is: impl Fn(&What) -> bool) -> usize {
        self.records.iter().filter(|(r, _)| is(&r.what)).count()
    }

    /// The frames of these records.
    pub(crate) fn frames(&self, is: impl Fn(&Record) -> bool) -> Vec<&SkBuff> {
        self.records.iter().filter(|(r, _)| is(r)).map(|(_, f)| f).collect()
    }

    /// Everything that was put on the fabric is well-formed to its last checksum.
    pub(crate) fn assert_wire_is_sound(&self) {
        for frame in self.frames(|r| r.what == What::Wire) {
            check_frame(frame.bytes());
        }
    }
}

/// Reads a frame with etherparse and verifies lengths and checksums, VXLAN's inside too.
pub(crate) fn check_frame(frame: &[u8]) {
    let packet = SlicedPacket::from_ethernet(frame).expect("a frame that parses");
    let Some(etherparse::NetSlice::Ipv4(ip)) = &packet.net else { return };
    let header = ip.header().to_header();
    assert_eq!(header.header_checksum, header.calc_header_checksum());
    if ip.is_payload_fragmented() {
        return;
    }
    match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            assert_eq!(
                tcp.checksum(),
                tcp.calc_checksum_ipv4(header.source, header.destination).expect("a sound test")
            );
        }
        Some(TransportSlice::Udp(udp)) if udp.destination_port() == 8472 => {
            assert_eq!(udp.checksum(), 0, "RFC 7348: should be zero");
            assert_eq!(udp.payload()[0], 8);
            check_frame(&udp.payload()[8..]);
        }
        Some(TransportSlice::Udp(udp)) => {
            let header_sum = udp.to_header();
            let expected = header_sum
                .calc_checksum_ipv4_raw(header.source, header.destination, udp.payload())
                .expect("a sound test");
            assert_eq!(udp.checksum(), expected);
        }
        Some(TransportSlice::Icmpv4(icmp)) => {
            assert!(icmp.header().checksum == icmp.icmp_type().calc_checksum(icmp.payload()));
        }
        _ => {}
    }
}

pub(crate) fn pod_ip(node: u8, pod: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 42, node, pod)
}

pub(crate) fn node_ip(node: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 1, 10 + node)
}

pub(crate) fn pod_mac(node: u8, pod: u8) -> Mac {
    [0x0a, 0, 0, 1, node, pod]
}

pub(crate) fn link(destination: Ipv4Addr, prefix: u8, ifindex: IfIndex) -> Route {
    Route { destination, prefix, ifindex, via: None, source: None, mtu: None, scope: Scope::Link }
}

/// A pod with `eth0`, behind a host-side veth whose number is returned.
pub(crate) fn add_pod(net: &mut Net, node: NodeId, number: u8, pod: u8, mtu: u32) -> (NsId, IfIndex) {
    let root = net.root(node).expect("a sound test");
    let name = format!("pod-{number}-{pod}");
    let ns = net.add_namespace(node, &name).expect("a sound test");
    let host = VethEnd { ns: root, name: format!("lxc{pod}"), mac: [2, 0, 0, 2, number, pod], mtu: 1500 };
    let inside = VethEnd { ns, name: "eth0".to_owned(), mac: pod_mac(number, pod), mtu: 1500 };
    let (lxc, _) = net.add_veth_pair(node, host, inside).expect("a sound test");
    net.configure_pod(ns, &name, pod_ip(number, pod), pod_ip(number, 1), mtu).expect("a sound test");
    (ns, lxc)
}

/// One node with two pods, joined by its routes alone.
pub(crate) struct Routed {
    pub(crate) net: Net,
    pub(crate) world: World,
    pub(crate) node: NodeId,
    pub(crate) uplink: IfIndex,
    pub(crate) pods: [NsId; 2],
    pub(crate) lxc: [IfIndex; 2],
}

pub(crate) fn routed(seed: u64) -> Routed {
    let mut net = Net::new(seed, 0);
    let node = net.add_node("node-1");
    let root = net.root(node).expect("a sound test");
    let uplink =
        net.add_uplink(node, "eth0", [2, 0, 0, 0, 1, 0], Some((node_ip(0), 24)), 1500).expect("a sound test");
    let (a, lxc_a) = add_pod(&mut net, node, 0, 10, 1500);
    let (b, lxc_b) = add_pod(&mut net, node, 0, 11, 1500);
    net.add_address(node, lxc_a, pod_ip(0, 1), 32).expect("a sound test");
    net.set_route(root, link(pod_ip(0, 10), 32, lxc_a)).expect("a sound test");
    net.set_route(root, link(pod_ip(0, 11), 32, lxc_b)).expect("a sound test");
    net.set_sysctl(root, "net.ipv4.ip_forward", "1").expect("a sound test");
    Routed { net, world: World::default(), node, uplink, pods: [a, b], lxc: [lxc_a, lxc_b] }
}

/// Two nodes with a pod each (10.42.N.10), joined by VXLAN; the programs do what a datapath would.
pub(crate) struct Overlay {
    pub(crate) net: Net,
    pub(crate) world: World,
    pub(crate) nodes: [NodeId; 2],
    pub(crate) pods: [NsId; 2],
    pub(crate) lxc: [IfIndex; 2],
    pub(crate) vxlan: [IfIndex; 2],
    pub(crate) uplinks: [IfIndex; 2],
}

pub(crate) fn overlay(seed: u64) -> Overlay {
    let mut net = Net::new(seed, 0);
    let mut world = World::default();
    let nodes = [net.add_node("node-1"), net.add_node("node-2")];
    let (mut pods, mut lxcs, mut vxlans, mut uplinks) = (vec![], vec![], vec![], vec![]);
    for number in 0..2u8 {
        let node = nodes[number as usize];
        let mac = [2, 0, 0, 0, 1, number];
        uplinks.push(
            net.add_uplink(node, "eth0", mac, Some((node_ip(number), 24)), 1500).expect("a sound test"),
        );
        let vxlan =
            net.add_vxlan(node, "skep_vxlan", [2, 0, 0, 3, 0, number], 8472, 1500).expect("a sound test");
        let (pod, lxc) = add_pod(&mut net, node, number, 10, 1450);
        let other = node_ip(1 - number);
        world.attach(&mut net, node, lxc, Direction::Ingress, move |at, skb| {
            from_container(at, skb, vxlan, other)
        });
        world.attach(&mut net, node, vxlan, Direction::Ingress, move |_, skb| {
            let tunnel = skb.tunnel.expect("collect_md sets it");
            assert_eq!((tunnel.id, tunnel.remote, tunnel.transmit), (1234, other.octets(), false));
            rewrite(skb, pod_mac(number, 10));
            Verdict::Redirect { ifindex: lxc, ingress: false }
        });
        pods.push(pod);
        lxcs.push(lxc);
        vxlans.push(vxlan);
    }
    Overlay {
        net,
        world,
        nodes,
        pods: pods.try_into().expect("a sound test"),
        lxc: lxcs.try_into().expect("a sound test"),
        vxlan: vxlans.try_into().expect("a sound test"),
        uplinks: uplinks.try_into().expect("a sound test"),
    }
}

/// Answers ARP for the gateway and sends all else through the tunnel.
fn from_container(at: &HookAt, skb: &mut SkBuff, vxlan: IfIndex, other: Ipv4Addr) -> Verdict {
    if skb.protocol == 0x0806 {
        let bytes = skb.bytes_mut();
        let (asker, sender, target) = (bytes[6..12].to_vec(), bytes[28..32].to_vec(), bytes[38..42].to_vec());
        bytes[0..6].copy_from_slice(&asker);
        bytes[6..12].copy_from_slice(&GATEWAY_MAC);
        bytes[21] = 2;
        bytes[22..28].copy_from_slice(&GATEWAY_MAC);
        bytes[28..32].copy_from_slice(&target);
        bytes[32..38].copy_from_slice(&asker);
        bytes[38..42].copy_from_slice(&sender);
        return Verdict::Redirect { ifindex: at.ifindex, ingress: false };
    }
    skb.tunnel = Some(Tunnel { id: 1234, remote: other.octets(), transmit: true, ..Tunnel::default() });
    Verdict::Redirect { ifindex: vxlan, ingress: false }
}

/// What a router does: hardware addresses and TTL.
fn rewrite(skb: &mut SkBuff, to: Mac) {
    let bytes = skb.bytes_mut();
    bytes[0..6].copy_from_slice(&to);
    bytes[6..12].copy_from_slice(&GATEWAY_MAC);
}

pub(crate) fn get(address: Ipv4Addr, path: &str) -> HttpRequest {
    HttpRequest { address, port: 80, host: format!("{address}:80"), path: path.to_owned() }
}

/// Lets a flow come to its end.
pub(crate) fn finish(net: &mut Net, world: &mut World, flow: FlowId) -> FlowState {
    let deadline = net.now_ns() + 3600 * SECOND;
    net.run_until(world, deadline, &mut |net| net.flow(flow).expect("a sound test").outcome.is_some());
    net.flow(flow).expect("a sound test").clone()
}

/// An IPv4 packet made by etherparse.
pub(crate) fn udp_packet(from: Ipv4Addr, to: Ipv4Addr, ttl: u8, payload: &[u8]) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ipv4(from.octets(), to.octets(), ttl).udp(4000, 5000);
    let mut packet = Vec::new();
    builder.write(&mut packet, payload).expect("a sound test");
    packet
}
