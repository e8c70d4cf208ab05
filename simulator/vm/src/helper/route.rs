//! Helpers that ask where a packet goes: routes, neighbours and the largest packet of a device.

use std::net::IpAddr;

use super::{Call, Outcome, refused};
use crate::scope::Scope;
use crate::{Errno, FibQuestion, Redirect, RedirectKind};

/// Bytes of `struct bpf_fib_lookup`.
const SIZE: usize = 64;
const SKIP_NEIGH: u32 = 1 << 2;
const TBID: u32 = 1 << 3;
const SRC: u32 = 1 << 4;
const MARK: u32 = 1 << 5;
const NO_NEIGH: u64 = 7;
const FRAG_NEEDED: u64 = 8;
const NO_SRC_ADDR: u64 = 9;
/// `BPF_MTU_CHK_SEGS`
const SEGMENTS: u64 = 1;
const ETH_HLEN: u32 = 14;

fn address(bytes: &[u8], v4: bool) -> IpAddr {
    if v4 {
        return IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    let octets: [u8; 16] = std::array::from_fn(|i| bytes[i]);
    IpAddr::from(octets)
}

fn put_address(place: &mut [u8], address: IpAddr) {
    match address {
        IpAddr::V4(a) => place[..4].copy_from_slice(&a.octets()),
        IpAddr::V6(a) => place[..16].copy_from_slice(&a.octets()),
    }
}

/// `bpf_fib_lookup`: routes are the environment's.
pub(super) fn fib_lookup(scope: &mut Scope<'_>, call: Call) -> Outcome {
    call.check_context(scope)?;
    let (len, flags) = (call.arg32(3) as usize, call.arg32(4));
    call.place(scope, 2, len)?;
    let at = call.room(scope, 2, len)?;
    if len < SIZE || flags & !0x3f != 0 {
        return refused(Errno::EINVAL);
    }
    let p: [u8; SIZE] = scope.kernel.arena.slice(at, SIZE).try_into().expect("its size");
    let v4 = match p[0] {
        2 => true,
        10 => false,
        _ => return refused(Errno::EAFNOSUPPORT),
    };
    let word = |n: usize| u32::from_le_bytes([p[n], p[n + 1], p[n + 2], p[n + 3]]);
    let big = |n: usize| u16::from_be_bytes([p[n], p[n + 1]]);
    let total_len = u32::from(u16::from_le_bytes([p[6], p[7]]));
    let packet = scope.packet.as_ref().expect("checked with the context");
    let packet_len = packet.len() as u32 + u32::from(packet.skb.vlan.is_some()) * 4;
    let question = FibQuestion {
        ifindex: word(8),
        source: address(&p[16..32], v4),
        destination: address(&p[32..48], v4),
        protocol: p[1],
        source_port: big(2),
        destination_port: big(4),
        tos: if v4 { u32::from(p[12]) } else { word(12) },
        mark: if flags & MARK != 0 { word(52) } else { 0 },
        table: (flags & TBID != 0).then(|| word(48)),
        flags,
    };
    if scope.env.mtu(question.ifindex).is_none() {
        return refused(Errno::ENODEV);
    }
    let answer = match scope.env.fib_lookup(&question) {
        Ok(answer) => answer,
        Err(refusal) => {
            if refusal.number == FRAG_NEEDED as i32 {
                let mtu = (refusal.mtu as u16).to_le_bytes();
                scope.kernel.arena.slice_mut(at + 6, 2).copy_from_slice(&mtu);
            }
            return Ok(i64::from(refusal.number) as u64);
        }
    };
    let device_mtu = scope.env.mtu(answer.ifindex).unwrap_or(0);
    let place = scope.kernel.arena.slice_mut(at, SIZE);
    place[12..16].copy_from_slice(&answer.metric.to_le_bytes());
    place[8..12].copy_from_slice(&answer.ifindex.to_le_bytes());
    let mtu = if answer.mtu == 0 { device_mtu } else { answer.mtu };
    if total_len > mtu {
        place[6..8].copy_from_slice(&(mtu as u16).to_le_bytes());
        return Ok(FRAG_NEEDED);
    }
    put_address(&mut place[32..48], answer.next_hop);
    if v4 && answer.next_hop.is_ipv6() {
        place[0] = 10;
    }
    if flags & SRC != 0 {
        let Some(source) = answer.source else { return Ok(NO_SRC_ADDR) };
        put_address(&mut place[16..32], source);
    }
    if flags & SKIP_NEIGH == 0 {
        let Some((own, next)) = answer.macs else { return Ok(NO_NEIGH) };
        place[48..52].fill(0);
        place[52..58].copy_from_slice(&own);
        place[58..64].copy_from_slice(&next);
    }
    if total_len == 0 && scope.packet.as_ref().is_some_and(|p| p.kind().has_skb()) {
        // Without a length the packet itself must fit the device.
        place[6..8].copy_from_slice(&(device_mtu as u16).to_le_bytes());
        if packet_len > device_mtu + ETH_HLEN + 4 {
            return Ok(FRAG_NEEDED);
        }
    } else {
        place[6..8].copy_from_slice(&(mtu as u16).to_le_bytes());
    }
    Ok(0)
}

/// `bpf_skb_check_mtu` and `bpf_xdp_check_mtu`: 0, 1 if it is too long, 2 if its segments are.
pub(super) fn check_mtu(scope: &mut Scope<'_>, call: Call) -> Outcome {
    call.check_context(scope)?;
    call.place(scope, 3, 4)?;
    let at = call.room(scope, 3, 4)?;
    let (ifindex, difference, flags) = (call.arg32(2), call.arg(4) as i32, call.arg(5));
    let given = crate::context::get32(scope.kernel.arena.slice(at, 4), 0);
    let packet = scope.packet.as_ref().expect("checked with the context");
    let of_stack = packet.kind().has_skb();
    let allowed = if of_stack { SEGMENTS } else { 0 };
    if flags & !allowed != 0 || flags & SEGMENTS != 0 && (difference != 0 || given != 0) {
        return refused(Errno::EINVAL);
    }
    let (len, segments, own) = (packet.len() as u32, packet.skb.gso_size, packet.skb.ifindex);
    let device = if ifindex == 0 { own } else { ifindex };
    let Some(mtu) = scope.env.mtu(device) else { return refused(Errno::ENODEV) };
    let len = if given == 0 { len } else { given.wrapping_add(ETH_HLEN) };
    let fits = len.wrapping_add_signed(difference) <= mtu + ETH_HLEN;
    let verdict = match (fits, segments) {
        (true, _) => 0,
        (false, 0) => 1,
        (false, size) if flags & SEGMENTS != 0 && u32::from(size) + 40 > mtu => 2,
        (false, _) => 0,
    };
    scope.kernel.arena.slice_mut(at, 4).copy_from_slice(&mtu.to_le_bytes());
    Ok(verdict)
}

/// `bpf_clone_redirect`: a copy as the packet is now goes to a device.
pub(super) fn clone_redirect(scope: &mut Scope<'_>, call: Call) -> Outcome {
    call.check_context(scope)?;
    let (ifindex, flags) = (call.arg32(2), call.arg(3));
    if flags & !1 != 0 || scope.env.mtu(ifindex).is_none() {
        return refused(Errno::EINVAL);
    }
    let packet = scope.packet.as_ref().expect("checked with the context");
    let mut clone = packet.skb.clone();
    clone.replace(scope.kernel.arena.slice(packet.start(), packet.len()), packet.linear());
    scope.run.clones.push((clone, Redirect { ifindex, flags, kind: RedirectKind::Device }));
    scope.refresh();
    Ok(0)
}
