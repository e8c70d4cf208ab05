//! Random contents of maps, and contexts.
//!
//! Knows the maps' layouts. Does not know which program looks where.

use super::packet::{Flow, address, mac, port};
use super::random::Random;
use crate::outcome::Context;
use crate::world::{NEIGHBOUR, POD, Place, Pod, REMOTE, State, ct_key, policy_key};
use skep_abi::map::{
    self, CtEntry, EndpointInfo, EndpointKey, IpcacheKey, MetricsKey, MetricsValue, PolicyEntry, tuple_flag,
};
use skep_abi::{Be16, Be32, Mac, identity, mark};

const IDENTITIES: [u32; 13] = [
    identity::UNKNOWN,
    identity::HOST,
    identity::WORLD,
    identity::REMOTE_NODE,
    identity::KUBE_APISERVER,
    POD.identity,
    NEIGHBOUR.identity,
    REMOTE.identity,
    777,
    65535,
    identity::SCOPE_CIDR + 5,
    identity::SCOPE_REMOTE_NODE + 3,
    u32::MAX,
];

fn any_identity(random: &mut Random) -> u32 {
    if random.chance(92) { random.pick(&IDENTITIES) } else { random.u32() }
}

/// What stands in the maps.
pub(super) fn state(random: &mut Random, flow: Flow) -> State {
    let mut s = State::default();
    // From the default node away, entry by entry; sometimes nothing is there.
    let lost = random.pick(&[0, 0, 0, 0, 10, 30, 100]);
    s.0.retain(|_| !random.chance(lost));
    for _ in 0..random.pick(&[0, 0, 1, 2]) {
        s = endpoint(random, s);
    }
    for _ in 0..random.pick(&[0, 1, 2, 4]) {
        s = network(random, s, flow);
    }
    for _ in 0..random.pick(&[0, 0, 1, 3, 6]) {
        s = policy(random, s, flow);
    }
    if random.chance(25) {
        // No wildcard that allows all.
        s = s.deny_by_default(POD.id);
        for _ in 0..random.below(4) {
            s = policy(random, s, flow);
        }
    }
    for _ in 0..random.pick(&[0, 0, 1, 1, 2]) {
        s = connection(random, s, flow);
    }
    if random.chance(10) {
        s = counter(random, s);
    }
    s
}

fn endpoint(random: &mut Random, s: State) -> State {
    let of = random.pick(&[POD, NEIGHBOUR]);
    let value = EndpointInfo {
        ifindex: if random.chance(80) { of.ifindex } else { random.pick(&[0, 1, 3, u32::MAX]) },
        lxc_id: random.pick(&[of.id, of.id, of.id, 0, 103, u16::MAX]),
        flags: if random.chance(85) { 0 } else { random.u32() & 3 },
        mac: Mac::from_octets(mac(random)),
        node_mac: Mac::from_octets(mac(random)),
        sec_id: any_identity(random),
        ..EndpointInfo::default()
    };
    let key = EndpointKey::ipv4(Be32::from_octets(address(random)));
    s.with(Place::Node(map::LXC.name), &key.to_bytes(), &value.to_bytes())
}

fn network(random: &mut Random, s: State, flow: Flow) -> State {
    let ip = if random.chance(60) { random.pick(&[flow.src.0, flow.dst.0]) } else { address(random) };
    let prefix = random.pick(&[32, 32, 31, 24, 16, 17, 8, 1, 0]);
    // Bits behind the prefix may be anything, and are kept as they were written.
    let ip = if random.chance(80) { masked(ip, prefix) } else { ip };
    let tunnel = if random.chance(60) { [0; 4] } else { address(random) };
    let key = IpcacheKey {
        cluster_id: u16::from(random.chance(3)),
        ..IpcacheKey::ipv4(Be32::from_octets(ip), prefix)
    };
    let value = map::RemoteEndpointInfo {
        sec_identity: any_identity(random),
        tunnel_endpoint: Be32::from_octets(tunnel),
        ..map::RemoteEndpointInfo::default()
    };
    s.with(Place::Node(map::IPCACHE.name), &key.to_bytes(), &value.to_bytes())
}

fn masked(ip: [u8; 4], prefix: u32) -> [u8; 4] {
    let bits = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
    (u32::from_be_bytes(ip) & bits).to_be_bytes()
}

fn policy(random: &mut Random, s: State, flow: Flow) -> State {
    let of: Pod = if random.chance(80) { POD } else { NEIGHBOUR };
    let bits = if random.chance(80) { random.pick(&[0, 8, 24, 24, 20]) } else { random.below(25) as u32 };
    let proto = if random.chance(75) { flow.proto } else { random.pick(&[0, 1, 6, 17, 132]) };
    let port = if random.chance(70) { flow.dst.1 } else { port(random) };
    let mut key = policy_key(any_identity(random), random.chance(50), proto, port, bits);
    if random.chance(80) {
        let (counted, ports) =
            (u32::MAX.checked_shl(24 - bits).unwrap_or(0), u32::from(key.protocol) << 16 | u32::from(port));
        key.protocol = ((ports & counted) >> 16) as u8;
        key.dport = Be16::from_host((ports & counted) as u16);
    }
    let said = if random.chance(92) { bits as u8 } else { random.below(32) as u8 };
    let mut entry = PolicyEntry::new(random.chance(30), said);
    if random.chance(5) {
        entry.proxy_port = Be16::from_host(10000);
    }
    if random.chance(10) {
        (entry.packets, entry.bytes) = (random.next_u64(), random.next_u64());
    }
    s.policy(of.id, key, entry)
}

/// An entry about the packet, its answer, or errors about either.
fn connection(random: &mut Random, s: State, flow: Flow) -> State {
    let (mut a, mut b) = if random.chance(50) { (flow.dst, flow.src) } else { (flow.src, flow.dst) };
    if random.chance(10) {
        a.1 = port(random);
    }
    let errors = random.chance(25);
    let (proto, extra) = if errors { (1, tuple_flag::RELATED) } else { (flow.proto, 0) };
    if errors {
        (a.1, b.1) = (0, 0);
    }
    let flags = if random.chance(95) { extra | random.u8() & tuple_flag::IN } else { random.u8() };
    let entry = CtEntry {
        packets: if random.chance(90) { u64::from(random.u8()) } else { random.next_u64() },
        bytes: if random.chance(90) { u64::from(random.u32()) } else { random.next_u64() },
        lifetime: time(random),
        flags: if random.chance(80) { random.u8().into() } else { random.u32() as u16 },
        tx_flags_seen: if random.chance(80) { random.u8() & 31 } else { random.u8() },
        rx_flags_seen: if random.chance(80) { random.u8() & 31 } else { random.u8() },
        src_sec_id: any_identity(random),
        last_tx_report: time(random),
        last_rx_report: time(random),
        ..CtEntry::default()
    };
    s.connection(ct_key(a, b, proto, flags), entry)
}

/// Seconds from the start of the run, around the moments at which something changes; 0 is "never".
fn time(random: &mut Random) -> u32 {
    match random.below(10) {
        0..3 => 0,
        3..8 => (random.below(16) as u32).wrapping_sub(10),
        8 => random.pick(&[60, 10, 21600, 21601, 0_u32.wrapping_sub(21600)]),
        _ => random.u32(),
    }
}

fn counter(random: &mut Random, s: State) -> State {
    let reason = random.pick(&[0, 3, 133, 139, 140]);
    let key = MetricsKey { reason, dir: 1 + u8::from(random.chance(50)), ..MetricsKey::default() };
    let value = MetricsValue { count: random.u32().into(), bytes: random.next_u64() >> 1 };
    s.with(Place::Node(map::METRICS.name), &key.to_bytes(), &value.to_bytes())
}

/// The context beside the packet. `devices` are those that the namespace has, from 1 on.
pub(super) fn context(random: &mut Random, devices: u32) -> Context {
    let mark = match random.below(8) {
        0..3 => 0,
        3..5 => mark::encode_identity(any_identity(random)),
        5 => random.pick(&[mark::MAGIC_HOST, mark::MAGIC_TO_PROXY | 80 << 16]),
        6 => any_identity(random) << 16 | mark::MAGIC_OVERLAY,
        _ => random.u32(),
    };
    let word = |random: &mut Random| match random.below(6) {
        0..3 => random.below(5) as u32,
        3 => random.pick(&[POD.ifindex, NEIGHBOUR.ifindex, 1, u32::MAX]),
        4 => any_identity(random),
        _ => random.u32(),
    };
    Context {
        mark,
        priority: if random.chance(80) { 0 } else { random.u32() },
        ingress_ifindex: if random.chance(50) { 0 } else { random.pick(&[1, 2, 4, POD.ifindex, 99]) },
        ifindex: 1 + random.below(devices as usize) as u32,
        cb: std::array::from_fn(|_| word(random)),
    }
}
