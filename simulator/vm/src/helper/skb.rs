//! Helpers on the packet's bytes, lengths and type (`net/core/filter.c`).

use skep_packet::{Checksum, PacketType, ones_complement_sum};

use super::{Call, Outcome, refused};
use crate::Errno;
use crate::packet::Packet;
use crate::scope::Scope;

const RECOMPUTE_CSUM: u64 = 1;
const INVALIDATE_HASH: u64 = 2;
/// `BPF_SKB_MAX_LEN` with pages of 4 KiB: `SKB_MAX_ALLOC`.
const MAX_LEN: usize = (4096 << 2) - 320;
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
    let from = call.bytes(scope, 3, len)?;
    if flags & !(RECOMPUTE_CSUM | INVALIDATE_HASH) != 0 {
        return refused(Errno::EINVAL);
    }
    if offset > i32::MAX as usize || !make_writable(scope, offset.saturating_add(len)) {
        return refused(Errno::EFAULT);
    }
    let packet = scope.packet.as_mut().expect("checked with the context");
    let at = packet.at(offset, len).expect("made writable");
    let bytes = scope.kernel.arena.slice_mut(at, len);
    if flags & RECOMPUTE_CSUM != 0
        && let Checksum::Complete(sum) = &mut packet.skb.checksum
    {
        // `__skb_postpull_rcsum`, then `__skb_postpush_rcsum`: the parity of the offset decides the byte order.
        let without = ones_complement_sum(*sum, &!block(bytes, offset));
        *sum = ones_complement_sum(without, &block(&from, offset).bytes());
    }
    bytes.copy_from_slice(&from);
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
    let bytes = from.map(|at| scope.kernel.arena.slice(at, len).to_vec());
    match bytes {
        Some(bytes) => {
            scope.kernel.arena.slice_mut(to, len).copy_from_slice(&bytes);
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
    let (mut ends, mut protocol) = ([Vec::new(), Vec::new()], 0);
    if kind == ETH_P_IP.to_be_bytes() && ip.len() >= 20 {
        protocol = ip[9];
        ends = [ip[12..16].to_vec(), ip[16..20].to_vec()];
        let fragment = u16::from_be_bytes([ip[6], ip[7]]) & 0x3fff != 0;
        let ports = ip.get(usize::from(ip[0] & 15) * 4..).and_then(|l4| l4.get(..4));
        if let (6 | 17 | 132, false, Some(ports)) = (protocol, fragment, ports) {
            ends[0].extend(&ports[..2]);
            ends[1].extend(&ports[2..]);
        }
    }
    ends.sort();
    let fnv = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    kind.iter().chain([&protocol]).chain(&ends[0]).chain(&ends[1]).fold(0x811c_9dc5, fnv).max(1)
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
