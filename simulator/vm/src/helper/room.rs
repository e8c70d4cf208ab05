//! Helpers that make room in a packet of the stack or take it away, and tags of virtual LANs (`net/core/filter.c`,
//! `skb_vlan_push` and `skb_vlan_pop`).

use skep_packet::{Checksum, VlanTag};

use super::skb::{MAX_LEN, packet, subtract};
use super::{Call, Outcome, refused};
use crate::Errno;
use crate::packet::Packet;
use crate::scope::Scope;

const IP: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const FIXED_GSO: u64 = 1 << 0;
const ENCAP_IPV4: u64 = 1 << 1;
const ENCAP_IPV6: u64 = 1 << 2;
const ENCAP_GRE: u64 = 1 << 3;
const ENCAP_UDP: u64 = 1 << 4;
const NO_CSUM_RESET: u64 = 1 << 5;
const ENCAP_ETH: u64 = 1 << 6;
const DECAP_IPV4: u64 = 1 << 7;
const DECAP_IPV6: u64 = 1 << 8;
const L2_SHIFT: u32 = 56;
const ENCAP: u64 = ENCAP_IPV4 | ENCAP_IPV6;
const DECAP: u64 = DECAP_IPV4 | DECAP_IPV6;
const KNOWN: u64 =
    FIXED_GSO | ENCAP | ENCAP_GRE | ENCAP_UDP | NO_CSUM_RESET | ENCAP_ETH | DECAP | 0xff << L2_SHIFT;
const ETH_HLEN: usize = 14;
const VLAN_HLEN: usize = 4;
const VLAN_8021Q: u16 = 0x8100;
const VLAN_8021AD: u16 = 0x88a8;

/// `bpf_skb_net_base_len`
fn base_len(protocol: u16) -> usize {
    if protocol == IP { 20 } else { 40 }
}

pub(super) fn adjust_room(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let (by, mode, flags) = (call.arg(2) as i32, call.arg32(3), call.arg(4));
    let packet = packet(scope, call)?;
    let errno = match check(packet, by, mode, flags) {
        Ok(offset) if by < 0 => shrink(scope, offset, by.unsigned_abs() as usize, flags),
        Ok(offset) => grow(scope, offset, by as usize, flags),
        Err(errno) => Err(errno),
    };
    if let (Ok(()), Some(packet)) = (&errno, &mut scope.packet)
        && flags & NO_CSUM_RESET == 0
        && packet.skb.checksum == Checksum::Unnecessary
    {
        packet.skb.checksum = Checksum::None;
    }
    scope.refresh();
    super::result(errno)
}

/// What `bpf_skb_adjust_room` itself refuses; else where the room is.
fn check(packet: &Packet<'_>, by: i32, mode: u32, flags: u64) -> Result<usize, Errno> {
    let (shrinks, count) = (by < 0, by.unsigned_abs() as usize);
    if flags & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    if count > 0xfff {
        return Err(Errno::EFAULT);
    }
    let protocol = packet.skb.protocol;
    if protocol != IP && protocol != IPV6 {
        return Err(Errno::ENOTSUPP);
    }
    let offset = match mode {
        0 => packet.network() + base_len(protocol),
        1 => packet.network(),
        _ => return Err(Errno::ENOTSUPP),
    };
    let least = match flags & DECAP {
        0 => base_len(protocol),
        _ if !shrinks => return Err(Errno::EINVAL),
        DECAP_IPV4 => 20,
        DECAP_IPV6 => 40,
        _ => return Err(Errno::EINVAL),
    };
    let len = packet.len().saturating_sub(packet.network());
    let refused = if shrinks {
        count >= len || len - count < least
    } else {
        packet.len() + count > MAX_LEN && packet.skb.gso_size == 0
    };
    if refused { Err(Errno::ENOTSUPP) } else { Ok(offset) }
}

fn grow(scope: &mut Scope<'_>, offset: usize, count: usize, flags: u64) -> Result<(), Errno> {
    let packet = scope.packet.as_mut().expect("checked with the context");
    let inner_mac = (flags >> L2_SHIFT) as usize;
    if flags & ENCAP != 0 {
        let both = |a: u64, b: u64| flags & a != 0 && flags & b != 0;
        if both(ENCAP_IPV4, ENCAP_IPV6) || both(ENCAP_GRE, ENCAP_UDP) {
            return Err(Errno::EINVAL);
        }
        if flags & ENCAP_ETH != 0 && inner_mac < ETH_HLEN {
            return Err(Errno::EINVAL);
        }
        if packet.skb.encapsulation {
            return Err(Errno::EALREADY);
        }
        if inner_mac > count {
            return Err(Errno::EINVAL);
        }
    }
    // A packet that ends before the room grows all the same: the kernel moves what lies behind it, too.
    let arena = &mut scope.kernel.arena;
    let done = if offset > packet.len() {
        packet.resize(packet.len() + count, arena)
    } else {
        packet.pull(offset) && packet.insert(offset, count, arena)
    };
    if !done {
        return Err(Errno::ENOMEM);
    }
    packet.clear_meta();
    if flags & ENCAP != 0 {
        packet.skb.encapsulation = true;
        packet.skb.protocol = if flags & ENCAP_IPV6 != 0 { IPV6 } else { IP };
    }
    if packet.skb.gso_size > 0 && flags & FIXED_GSO == 0 {
        packet.skb.gso_size = packet.skb.gso_size.saturating_sub(count as u16);
    }
    Ok(())
}

fn shrink(scope: &mut Scope<'_>, offset: usize, count: usize, flags: u64) -> Result<(), Errno> {
    let packet = scope.packet.as_mut().expect("checked with the context");
    if flags & !(FIXED_GSO | DECAP | NO_CSUM_RESET) != 0 {
        return Err(Errno::EINVAL);
    }
    if !take(packet, offset, count, &mut scope.kernel.arena) {
        return Err(Errno::ENOMEM);
    }
    match flags & DECAP {
        DECAP_IPV4 => packet.skb.protocol = IP,
        DECAP_IPV6 => packet.skb.protocol = IPV6,
        _ => {}
    }
    if packet.skb.gso_size > 0 && flags & FIXED_GSO == 0 {
        packet.skb.gso_size = packet.skb.gso_size.saturating_add(count as u16);
    }
    Ok(())
}

/// Takes bytes out; a complete sum no longer counts them (`skb_postpull_rcsum`).
pub(super) fn take(
    packet: &mut Packet<'_>,
    offset: usize,
    count: usize,
    arena: &mut crate::arena::Arena,
) -> bool {
    let Some(at) = packet.at(offset, count) else { return false };
    if let Checksum::Complete(sum) = packet.skb.checksum {
        packet.skb.checksum = Checksum::Complete(subtract(sum, arena.slice(at, count), offset));
    }
    packet.clear_meta();
    packet.remove(offset, count, arena)
}

pub(super) fn vlan_push(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let (protocol, tci) = ((call.arg(2) as u16).swap_bytes(), call.arg(3) as u16);
    let protocol = if protocol == VLAN_8021AD { VLAN_8021AD } else { VLAN_8021Q };
    packet(scope, call)?;
    let packet = scope.packet.as_mut().expect("checked with the context");
    if let Some(tag) = packet.skb.vlan {
        // The tag that was beside the frame goes into it.
        if !packet.pull(12) || !packet.insert(12, VLAN_HLEN, &mut scope.kernel.arena) {
            return refused(Errno::ENOMEM);
        }
        let at = packet.at(12, VLAN_HLEN).expect("it was just put in");
        let bytes = scope.kernel.arena.slice_mut(at, VLAN_HLEN);
        bytes[..2].copy_from_slice(&tag.protocol.to_be_bytes());
        bytes[2..].copy_from_slice(&tag.tci.to_be_bytes());
        packet.skb.protocol = tag.protocol;
        if let Checksum::Complete(sum) = packet.skb.checksum {
            packet.skb.checksum = Checksum::Complete(skep_packet::ones_complement_sum(sum, bytes));
        }
        packet.clear_meta();
    }
    packet.skb.vlan = Some(VlanTag { protocol, tci });
    scope.refresh();
    Ok(0)
}

pub(super) fn vlan_pop(scope: &mut Scope<'_>, call: Call) -> Outcome {
    packet(scope, call)?;
    let packet = scope.packet.as_mut().expect("checked with the context");
    let tagged = |protocol| matches!(protocol, VLAN_8021Q | VLAN_8021AD);
    let mut done = true;
    if packet.skb.vlan.take().is_none() {
        if !tagged(packet.skb.protocol) {
            return Ok(0);
        }
        done = unwrap_tag(packet, &mut scope.kernel.arena).is_some();
    }
    if done && tagged(packet.skb.protocol) {
        // The next tag goes beside the frame.
        let protocol = packet.skb.protocol;
        let tci = unwrap_tag(packet, &mut scope.kernel.arena);
        packet.skb.vlan = tci.map(|tci| VlanTag { protocol, tci });
        done = tci.is_some();
    }
    scope.refresh();
    if done { Ok(0) } else { refused(Errno::ENOMEM) }
}

/// `__skb_vlan_pop`
fn unwrap_tag(packet: &mut Packet<'_>, arena: &mut crate::arena::Arena) -> Option<u16> {
    let at = packet.at(0, ETH_HLEN + VLAN_HLEN).filter(|_| packet.pull(ETH_HLEN + VLAN_HLEN))?;
    let word = |n: usize| u16::from_be_bytes([arena.slice(at + n, 2)[0], arena.slice(at + n, 2)[1]]);
    let (tci, inner, first) = (word(14), word(16), word(18));
    let network = packet.network();
    if !take(packet, 12, VLAN_HLEN, arena) {
        return None;
    }
    packet.set_network(network.saturating_sub(VLAN_HLEN).max(ETH_HLEN));
    packet.skb.protocol = match inner {
        // `ETH_P_802_3_MIN`; below it is a length.
        0x0600.. => inner,
        _ if first == 0xffff => 1,
        _ => 4,
    };
    Some(tci)
}
