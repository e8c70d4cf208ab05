//! The context of a `sched_cls` program as it lies in the arena: the fields of `struct __sk_buff` at their offsets,
//! and behind them, 64 bits wide, what the program sees as `data`, `data_end` and `data_meta`.
//!
//! Knows the layout of `struct __sk_buff` (`include/uapi/linux/bpf.h`). What a program wrote is read back once, when
//! it has ended; what a helper changes is written here at once. Fields of the socket are zero: there is none.

mod layout;

use crate::ProgramKind;
use crate::arena::Arena;
use crate::packet::Packet;
pub(crate) use layout::{Access, DATA, DATA_END, DATA_META, Layout, Shape, layout};

/// Bytes of the context with what stands behind it.
pub(crate) const SIZE: usize = 320;

const LEN: usize = 0;
const PKT_TYPE: usize = 4;
const MARK: usize = 8;
const QUEUE_MAPPING: usize = 12;
const PROTOCOL: usize = 16;
const VLAN_PRESENT: usize = 20;
const VLAN_TCI: usize = 24;
const VLAN_PROTO: usize = 28;
const PRIORITY: usize = 32;
const INGRESS_IFINDEX: usize = 36;
const IFINDEX: usize = 40;
const TC_INDEX: usize = 44;
const CB: usize = 48;
const HASH: usize = 68;
const TC_CLASSID: usize = 72;
const TSTAMP: usize = 152;
const GSO_SEGS: usize = 164;
const GSO_SIZE: usize = 176;
const WIRE_LEN: usize = 160;

pub(crate) fn put16(context: &mut [u8], at: usize, value: u16) {
    context[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

pub(crate) fn put32(context: &mut [u8], at: usize, value: u32) {
    context[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

pub(crate) fn put64(context: &mut [u8], at: usize, value: u64) {
    context[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

pub(crate) fn get32(context: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(context[at..at + 4].try_into().expect("four bytes"))
}

/// Writes all fields.
pub(crate) fn write(at: usize, packet: &Packet<'_>, arena: &mut Arena) {
    let skb = &*packet.skb;
    let mut context = [0; SIZE];
    let c = &mut context[..];
    put32(c, MARK, skb.mark);
    put32(c, QUEUE_MAPPING, u32::from(skb.queue_mapping));
    if let Some(vlan) = skb.vlan {
        put32(c, VLAN_PRESENT, 1);
        put32(c, VLAN_TCI, u32::from(vlan.tci));
        put32(c, VLAN_PROTO, u32::from(vlan.protocol.swap_bytes()));
    }
    put32(c, PRIORITY, skb.priority);
    put32(c, INGRESS_IFINDEX, skb.ingress_ifindex);
    put32(c, IFINDEX, skb.ifindex);
    put32(c, TC_INDEX, u32::from(skb.tc_index));
    for (i, word) in skb.cb.iter().enumerate() {
        put32(c, CB + 4 * i, *word);
    }
    put32(c, TC_CLASSID, skb.tc_classid);
    put64(c, TSTAMP, skb.timestamp);
    put32(c, WIRE_LEN, packet.len() as u32);
    put32(c, GSO_SEGS, u32::from(skb.gso_segs));
    put32(c, GSO_SIZE, u32::from(skb.gso_size));
    // Where an access was not converted, no packet is seen: the start lies behind the end.
    put32(c, 76, u32::MAX);
    arena.slice_mut(at, SIZE).copy_from_slice(&context);
    refresh(at, packet, arena);
}

/// Writes the fields that helpers change.
pub(crate) fn refresh(at: usize, packet: &Packet<'_>, arena: &mut Arena) {
    let (from, to) = packet.visible();
    let (data, data_end) = (arena.address(from), arena.address(to));
    let meta = arena.address(packet.meta());
    let skb = &*packet.skb;
    let c = arena.slice_mut(at, SIZE);
    if packet.kind().has_skb() {
        put32(c, LEN, packet.len() as u32);
        put32(c, PKT_TYPE, skb.packet_type as u32);
        put32(c, PROTOCOL, u32::from(skb.protocol.swap_bytes()));
        put32(c, HASH, skb.hash.unwrap_or(0));
        let vlan = skb.vlan.map_or((0, 0, 0), |v| (1, u32::from(v.tci), u32::from(v.protocol.swap_bytes())));
        put32(c, VLAN_PRESENT, vlan.0);
        put32(c, VLAN_TCI, vlan.1);
        put32(c, VLAN_PROTO, vlan.2);
        put32(c, GSO_SIZE, u32::from(skb.gso_size));
        put64(c, TSTAMP, skb.timestamp);
    }
    if packet.kind() == ProgramKind::SkMsg {
        put64(c, 0, data);
        put64(c, 8, data_end);
        put32(c, 68, packet.len() as u32);
    }
    put64(c, DATA as usize, data);
    put64(c, DATA_END as usize, data_end);
    put64(c, DATA_META as usize, meta);
}

/// Takes over what programs may write.
pub(crate) fn read(at: usize, packet: &mut Packet<'_>, arena: &Arena) {
    if !packet.kind().has_skb() {
        return;
    }
    let c = arena.slice(at, SIZE);
    let skb = &mut *packet.skb;
    skb.tc_classid = get32(c, TC_CLASSID);
    skb.mark = get32(c, MARK);
    skb.queue_mapping = get32(c, QUEUE_MAPPING) as u16;
    skb.priority = get32(c, PRIORITY);
    skb.tc_index = get32(c, TC_INDEX) as u16;
    for (i, word) in skb.cb.iter_mut().enumerate() {
        *word = get32(c, CB + 4 * i);
    }
    skb.timestamp = u64::from_le_bytes(c[TSTAMP..TSTAMP + 8].try_into().expect("eight bytes"));
}
