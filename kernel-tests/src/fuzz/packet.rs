//! Random frames: mostly what a pod or a node would send, then spoilt a little.
//!
//! Knows headers' offsets, and which addresses the maps may know. Does not know programs.

use super::random::Random;
use crate::frame::Route;
use crate::world::{HOST_MAC, NEIGHBOUR, NODE, OTHER_NODE, POD, REMOTE, ROUTER, WORLD};

/// What a frame was made of, for the maps' sake: an entry of conntrack may be about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    pub(super) src: ([u8; 4], u16),
    pub(super) dst: ([u8; 4], u16),
    pub(super) proto: u8,
}

/// Addresses that the maps know, or that mean something by themselves.
const ADDRESSES: [[u8; 4]; 12] = [
    POD.ip,
    NEIGHBOUR.ip,
    REMOTE.ip,
    WORLD,
    NODE,
    OTHER_NODE,
    ROUTER,
    [0; 4],
    [255; 4],
    [224, 0, 0, 1],
    [127, 0, 0, 1],
    [10, 42, 1, 255],
];
const MACS: [[u8; 6]; 7] =
    [POD.mac, POD.node_mac, NEIGHBOUR.mac, NEIGHBOUR.node_mac, HOST_MAC, [0xff; 6], [0; 6]];
const PORTS: [u16; 9] = [0, 1, 53, 80, 443, 8472, 8080, 40000, 65535];
const ETHERNET: usize = 14;

/// One of the pool, or any.
pub(super) fn address(random: &mut Random) -> [u8; 4] {
    if random.chance(92) { random.pick(&ADDRESSES) } else { random.bytes() }
}

/// One of the pool, or any.
pub(super) fn mac(random: &mut Random) -> [u8; 6] {
    if random.chance(90) { random.pick(&MACS) } else { random.bytes() }
}

/// One of the pool, or any.
pub(super) fn port(random: &mut Random) -> u16 {
    if random.chance(85) { random.pick(&PORTS) } else { random.u32() as u16 }
}

/// Who sends and who receives, as the program expects it in most cases.
fn ends(random: &mut Random, sends: bool) -> ([u8; 4], [u8; 4]) {
    let other = address(random);
    match (random.chance(88), sends) {
        (true, true) => (POD.ip, other),
        (true, false) => (other, POD.ip),
        (false, _) => (address(random), other),
    }
}

/// A frame; `sends` where the program sees what the pod sends.
pub(super) fn frame(random: &mut Random, sends: bool) -> (Vec<u8>, Flow) {
    let (src, dst) = ends(random, sends);
    let ttl = if random.chance(85) { 64 } else { random.pick(&[0, 1, 2, 255]) };
    let route = Route { src_mac: mac(random), dst_mac: mac(random), src, dst, ttl };
    let (sport, dport) = (port(random), port(random));
    let len = if random.chance(90) { random.below(120) } else { random.below(1400) };
    let flow = |sport, dport, proto| Flow { src: (src, sport), dst: (dst, dport), proto };
    let (mut frame, flow) = match random.below(100) {
        0..35 => (route.tcp(sport, dport, tcp_flags(random), len), flow(sport, dport, 6)),
        35..55 => (route.udp(sport, dport, len), flow(sport, dport, 17)),
        55..61 => (route.echo(sport), flow(sport, 0, 1)),
        61..67 => (route.echo_reply(dport), flow(0, dport, 1)),
        67..74 => {
            let back = Route { src: dst, dst: src, ..route };
            let about = if random.chance(50) { back.tcp(dport, sport, 16, 0) } else { back.udp(1, 2, 9) };
            let mut error = route.unreachable(&about);
            error[ETHERNET + 20] = random.pick(&[3, 11, 12, 5]);
            (error, flow(0, 0, 1))
        }
        74..78 => (
            route.tcp_with_options(sport, dport, tcp_flags(random), 1 + random.below(10) as u8),
            flow(sport, dport, 6),
        ),
        78..82 => (route.fragment(sport, dport, random.chance(50)), flow(sport, dport, 17)),
        82..85 => (route.protocol(random.pick(&[0, 2, 4, 41, 47, 50, 58, 132, 255])), flow(0, 0, 47)),
        85..94 => {
            let mut arp = route.arp_request();
            if random.chance(70) {
                arp[38..42].copy_from_slice(&random.pick(&[ROUTER, POD.ip, NODE, WORLD]));
            }
            (arp, flow(0, 0, 0))
        }
        94..97 => {
            (route.other(random.pick(&[0x86dd, 0x8100, 0x88a8, 0x88cc, 0x0806]), 60 + len), flow(0, 0, 0))
        }
        97..98 => (vlan(route.udp(sport, dport, len)), flow(sport, dport, 17)),
        _ => (route.other(random.pick(&[0, 1, 60, 0x5ff, 0x600, 0x800, 0x801]), len), flow(0, 0, 0)),
    };
    spoil(random, &mut frame);
    (frame, flow)
}

fn tcp_flags(random: &mut Random) -> u8 {
    if random.chance(85) { random.pick(&[2, 18, 16, 24, 17, 1, 4, 20]) } else { random.u8() & 31 }
}

fn vlan(mut frame: Vec<u8>) -> Vec<u8> {
    frame.splice(12..12, [0x81, 0, 0, 7]);
    frame
}

/// Spoils some frames: a field, a byte, a length.
fn spoil(random: &mut Random, frame: &mut Vec<u8>) {
    if random.chance(60) {
        return;
    }
    for _ in 0..=random.below(2) {
        match random.below(8) {
            // Version and header length, total length, fragment, protocol.
            0 => put(frame, ETHERNET, random.pick(&[0x45, 0x46, 0x4f, 0x44, 0x40, 0x65, 0x05])),
            1 => put(frame, ETHERNET + 2 + random.below(2), random.u8()),
            2 => put(frame, ETHERNET + 6, random.pick(&[0x20, 0x40, 0x60, 0x80, 0x1f])),
            3 => put(frame, ETHERNET + 9, random.pick(&[1, 6, 17, 47, 132, 58])),
            4 => put(frame, ETHERNET + 10 + random.below(2), random.pick(&[0, 0xff, 0xfe, 1])),
            5 => {
                let (at, value) = (random.below(frame.len()), random.u8());
                put(frame, at, value);
            }
            6 => {
                let headers = random.below(80);
                frame.truncate(if random.chance(60) {
                    headers
                } else {
                    frame.len() - random.below(20).min(frame.len())
                });
            }
            _ => frame.extend(std::iter::repeat_n(random.u8(), random.below(60))),
        }
        if frame.is_empty() {
            frame.push(0);
        }
    }
}

fn put(frame: &mut [u8], at: usize, value: u8) {
    if let Some(byte) = frame.get_mut(at) {
        *byte = value;
    }
}
