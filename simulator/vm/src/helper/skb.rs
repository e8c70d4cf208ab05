//! Helpers on the packet's bytes, lengths and type (`net/core/filter.c`).

use skep_packet::{Checksum, PacketType, ones_complement_sum};

use super::{Call, Outcome, refused};
use crate::Errno;
use crate::packet::Packet;
use crate::scope::Scope;

const RECOMPUTE_CSUM: u64 = 1;
const INVALIDATE_HASH: u64 = 2;
/// `BPF_SKB_MAX_LEN` with pages of 4 KiB: `SKB_MAX_ALLOC`.
pub(super) const MAX_LEN: usize = (4096 << 2) - 320;
/// Where the flow's hash looks for the network header.
const NETWORK: usize = 14;
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
/// An IPv6 header without options is so much longer than an IPv4 one.
const LONGER: usize = 20;

/// The packet of a call whose context was checked.
pub(super) fn packet<'s, 'a>(
    scope: &'s mut Scope<'a>,
    call: Call,
) -> Result<&'s mut Packet<'a>, crate::FaultKind> {
    call.check_context(scope)?;
    Ok(scope.packet.as_mut().expect("checked with the context"))
}

/// `bpf_try_make_writable`: false where the packet is too short.
pub(super) fn make_writable(scope: &mut Scope<'_>, len: usize) -> bool {
    let pulled = scope.packet.as_mut().is_some_and(|p| p.pull(len));
    scope.refresh();
    pulled
}

pub(super) fn store_bytes(scope: &mut Scope<'_>, call: Call) -> Outcome {
    call.check_context(scope)?;
    let (offset, len, flags) = (call.arg32(2) as usize, call.arg32(4) as usize, call.arg(5));
    let from = call.source(scope, 3, len)?;
    if flags & !(RECOMPUTE_CSUM | INVALIDATE_HASH) != 0 {
        return refused(Errno::EINVAL);
    }
    if offset > i32::MAX as usize || !make_writable(scope, offset.saturating_add(len)) {
        return refused(Errno::EFAULT);
    }
    let packet = scope.packet.as_mut().expect("checked with the context");
    let at = packet.at(offset, len).expect("made writable");
    let arena = &mut scope.kernel.arena;
    if flags & RECOMPUTE_CSUM != 0
        && let Checksum::Complete(sum) = &mut packet.skb.checksum
    {
        // `__skb_postpull_rcsum`, then `__skb_postpush_rcsum`: the parity of the offset decides the byte order.
        let without = ones_complement_sum(*sum, &!block(arena.slice(at, len), offset));
        *sum = ones_complement_sum(without, &block(arena.slice(from, len), offset).bytes());
    }
    arena.copy(from, at, len);
    if flags & INVALIDATE_HASH != 0 {
        packet.skb.hash = None;
    }
    scope.refresh();
    Ok(0)
}

/// The sum of a block that starts at an offset, folded to 16 bits and in the packet's byte order.
struct Sum(u16);

impl Sum {
    fn bytes(&self) -> [u8; 2] {
        self.0.to_be_bytes()
    }
}

impl std::ops::Not for Sum {
    type Output = [u8; 2];
    fn not(self) -> [u8; 2] {
        (!self.0).to_be_bytes()
    }
}

fn block(bytes: &[u8], offset: usize) -> Sum {
    let sum = skep_packet::fold(ones_complement_sum(0, bytes));
    Sum(if offset.is_multiple_of(2) { sum } else { sum.swap_bytes() })
}

pub(super) fn load_bytes(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let (offset, len) = (call.arg32(2) as usize, call.arg32(4) as usize);
    let to = call.room(scope, 3, len)?;
    let from = if offset > i32::MAX as usize { None } else { packet(scope, call)?.at(offset, len) };
    match from {
        Some(at) => {
            scope.kernel.arena.copy(at, to, len);
            Ok(0)
        }
        None => {
            scope.kernel.arena.slice_mut(to, len).fill(0);
            refused(Errno::EFAULT)
        }
    }
}

pub(super) fn pull_data(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let linear = packet(scope, call)?.linear();
    let len = match call.arg32(2) as usize {
        0 => linear,
        len => len,
    };
    if make_writable(scope, len) { Ok(0) } else { refused(Errno::ENOMEM) }
}

pub(super) fn set_hash_invalid(scope: &mut Scope<'_>, call: Call) -> Outcome {
    packet(scope, call)?.skb.hash = None;
    scope.refresh();
    Ok(0)
}

/// The kernel's hash has a random key; this one is the same in every run, and in both directions of a flow.
pub(super) fn get_hash_recalc(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let (at, len) = {
        let packet = packet(scope, call)?;
        if let Some(hash) = packet.skb.hash {
            return Ok(u64::from(hash));
        }
        (packet.start(), packet.len())
    };
    let hash = flow_hash(scope.kernel.arena.slice(at, len));
    packet(scope, call)?.skb.hash = Some(hash);
    scope.refresh();
    Ok(u64::from(hash))
}

/// FNV-1a over the protocol and both ends, the lesser first; never 0, which stands for "none".
fn flow_hash(frame: &[u8]) -> u32 {
    let kind = frame.get(12..14).unwrap_or(&[]);
    let ip = frame.get(NETWORK..).unwrap_or(&[]);
    let none: [&[u8]; 2] = [&[], &[]];
    let (mut ends, mut protocol) = ([none; 2], 0);
    if kind == ETH_P_IP.to_be_bytes() && ip.len() >= 20 {
        protocol = ip[9];
        (ends[0][0], ends[1][0]) = (&ip[12..16], &ip[16..20]);
        let fragment = u16::from_be_bytes([ip[6], ip[7]]) & 0x3fff != 0;
        let ports = ip.get(usize::from(ip[0] & 15) * 4..).and_then(|l4| l4.get(..4));
        if let (6 | 17 | 132, false, Some(ports)) = (protocol, fragment, ports) {
            (ends[0][1], ends[1][1]) = ports.split_at(2);
        }
    }
    ends.sort();
    let fnv = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    let ends = ends.iter().flatten().copied().flatten();
    kind.iter().chain([&protocol]).chain(ends).fold(0x811c_9dc5, fnv).max(1)
}

pub(super) fn change_type(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let packet = packet(scope, call)?;
    let ok = |t: &PacketType| *t as u8 <= PacketType::OtherHost as u8;
    let wanted = u8::try_from(call.arg32(2)).ok().and_then(PacketType::from_number).filter(ok);
    let Some(wanted) = wanted.filter(|_| ok(&packet.skb.packet_type)) else { return refused(Errno::EINVAL) };
    packet.skb.packet_type = wanted;
    scope.refresh();
    Ok(0)
}

pub(super) fn change_tail(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let (len, flags) = (call.arg32(2) as usize, call.arg(3));
    let packet = packet(scope, call)?;
    let least = match packet.skb.checksum {
        Checksum::Partial { start, offset } => usize::from(start) + usize::from(offset) + 2,
        _ => packet.network(),
    };
    if flags != 0 || len > MAX_LEN || len < least {
        return refused(Errno::EINVAL);
    }
    if len != packet.len() && matches!(packet.skb.checksum, Checksum::Complete(_)) {
        packet.skb.checksum = Checksum::None;
    }
    let packet = scope.packet.as_mut().expect("checked with the context");
    let done = packet.resize(len, &mut scope.kernel.arena);
    scope.refresh();
    if done { Ok(0) } else { refused(Errno::ENOMEM) }
}

pub(super) fn change_head(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let (room, flags) = (call.arg32(2) as usize, call.arg(3));
    let len = packet(scope, call)?.len();
    if flags != 0 || room > i32::MAX as usize || len + room > MAX_LEN {
        return refused(Errno::EINVAL);
    }
    let packet = scope.packet.as_mut().expect("checked with the context");
    let done = packet.push(room, &mut scope.kernel.arena);
    scope.refresh();
    if done { Ok(0) } else { refused(Errno::ENOMEM) }
}

/// Makes room for, or takes away, what an IPv6 header is longer; the program writes the header itself.
pub(super) fn change_proto(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let (to, flags) = ((call.arg(2) as u16).swap_bytes(), call.arg(3));
    let (from, network) = {
        let packet = packet(scope, call)?;
        (packet.skb.protocol, packet.network())
    };
    if flags != 0 {
        return refused(Errno::EINVAL);
    }
    let packet = scope.packet.as_mut().expect("checked with the context");
    let done = match (from, to) {
        (ETH_P_IP, ETH_P_IPV6) => packet.insert(network, LONGER, &mut scope.kernel.arena),
        (ETH_P_IPV6, ETH_P_IP) => packet.remove(network, LONGER, &mut scope.kernel.arena),
        _ => return refused(Errno::ENOTSUPP),
    };
    if done {
        packet.skb.protocol = to;
        packet.skb.hash = None;
    }
    scope.refresh();
    if done { Ok(0) } else { refused(Errno::ENOMEM) }
}

/// A complete sum without some bytes (`csum_block_sub`).
pub(super) fn subtract(sum: u32, bytes: &[u8], offset: usize) -> u32 {
    ones_complement_sum(sum, &!block(bytes, offset))
}

pub(super) fn set_hash(scope: &mut Scope<'_>, call: Call) -> Outcome {
    packet(scope, call)?.skb.hash = Some(call.arg32(2));
    scope.refresh();
    Ok(0)
}

/// `bpf_csum_update`: adds to a complete sum, which programs see in memory order.
pub(super) fn csum_update(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let packet = packet(scope, call)?;
    let Checksum::Complete(sum) = packet.skb.checksum else { return refused(Errno::ENOTSUPP) };
    let folded = skep_packet::fold(call.arg32(2)).swap_bytes();
    let sum = ones_complement_sum(sum, &folded.to_be_bytes());
    packet.skb.checksum = Checksum::Complete(sum);
    Ok(u64::from(skep_packet::fold(sum).swap_bytes()))
}

/// `bpf_csum_level`: 0 asks, 1 adds one, 2 takes one, 3 resets.
pub(super) fn csum_level(scope: &mut Scope<'_>, call: Call) -> Outcome {
    /// `SKB_MAX_CSUM_LEVEL`
    const LEVEL_MAX: u8 = 3;
    let level = call.arg(2);
    let skb = &mut *packet(scope, call)?.skb;
    let known = skb.checksum == Checksum::Unnecessary;
    match level {
        0 if known => return Ok(u64::from(skb.checksum_level)),
        0 => return refused(Errno::EACCES),
        1 if known => skb.checksum_level = (skb.checksum_level + 1).min(LEVEL_MAX),
        1 if skb.checksum == Checksum::None => {
            (skb.checksum, skb.checksum_level) = (Checksum::Unnecessary, 0);
        }
        2 if known && skb.checksum_level > 0 => skb.checksum_level -= 1,
        2 | 3 if known => (skb.checksum, skb.checksum_level) = (Checksum::None, 0),
        1..=3 => {}
        _ => return refused(Errno::EINVAL),
    }
    Ok(0)
}

/// `bpf_skb_load_bytes_relative`: from the link layer's header (0) or the network's (1), in the linear part.
pub(super) fn load_bytes_relative(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let (offset, len, from) = (call.arg32(2) as usize, call.arg32(4) as usize, call.arg32(5));
    let to = call.room(scope, 3, len)?;
    let packet = packet(scope, call)?;
    let start = match from {
        0 => Some(0),
        1 => Some(packet.network()),
        _ => None,
    };
    let at = start.filter(|_| offset <= i32::MAX as usize).and_then(|start| {
        let end = start.checked_add(offset)?.checked_add(len)?;
        (end <= packet.linear()).then(|| packet.start() + start + offset)
    });
    match at {
        Some(at) => {
            scope.kernel.arena.copy(at, to, len);
            Ok(0)
        }
        None => {
            scope.kernel.arena.slice_mut(to, len).fill(0);
            refused(Errno::EFAULT)
        }
    }
}

/// `bpf_skb_ecn_set_ce`: 1 if the packet says that it met congestion.
pub(super) fn ecn_set_ce(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let packet = packet(scope, call)?;
    let (network, mut protocol) = (packet.network(), packet.skb.protocol);
    // Tags in the frame are looked through, and the network header is where it is all the same.
    let mut depth = network.saturating_sub(4);
    let packet = scope.packet.as_ref().expect("checked with the context");
    while matches!(protocol, 0x8100 | 0x88a8) {
        let Some(at) = packet.at(depth + 2, 2) else { return Ok(0) };
        let inner = scope.kernel.arena.slice(at, 2);
        (protocol, depth) = (u16::from_be_bytes([inner[0], inner[1]]), depth + 4);
    }
    let header = match protocol {
        ETH_P_IP => 20,
        ETH_P_IPV6 => 40,
        _ => return Ok(0),
    };
    let Some(at) = packet.at(network, header).filter(|_| network + header <= packet.linear()) else {
        return Ok(0);
    };
    let scope_packet = scope.packet.as_mut().expect("checked with the context");
    let ip = scope.kernel.arena.slice_mut(at, header);
    if protocol == ETH_P_IP {
        let ecn = ip[1].wrapping_add(1) & 3;
        if ecn & 2 == 0 {
            return Ok(u64::from(ecn == 0));
        }
        let word = |b: &[u8]| u16::from_le_bytes([b[0], b[1]]);
        let add = 0xfffb_u16.to_be().wrapping_add(u16::from(ecn).to_be());
        let (sum, carry) = word(&ip[10..]).overflowing_add(add);
        ip[10..12].copy_from_slice(&sum.wrapping_add(u16::from(carry)).to_le_bytes());
        ip[1] |= 3;
        return Ok(1);
    }
    if ip[1] >> 4 & 3 == 0 {
        return Ok(0);
    }
    let before = [ip[0], ip[1]];
    ip[1] |= 0x30;
    if let Checksum::Complete(sum) = &mut scope_packet.skb.checksum {
        let without = ones_complement_sum(*sum, &before.map(|b| !b));
        *sum = ones_complement_sum(without, &[ip[0], ip[1]]);
    }
    Ok(1)
}

/// `bpf_skb_set_tstamp`: of the real clock (0), the monotonic (1) or TAI (2).
pub(super) fn set_tstamp(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let (time, kind) = (call.arg(2), call.arg32(3));
    let skb = &mut *packet(scope, call)?.skb;
    if skb.protocol != ETH_P_IP && skb.protocol != ETH_P_IPV6 {
        return refused(Errno::EOPNOTSUPP);
    }
    skb.timestamp = match (kind, time) {
        (0, _) | (1 | 2, 1..) => time,
        _ => return refused(Errno::EINVAL),
    };
    scope.refresh();
    Ok(0)
}
