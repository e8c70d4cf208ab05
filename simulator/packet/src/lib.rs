//! `SkBuff`: a packet and what the kernel carries with it.
//!
//! Knows bytes, headroom, linear length, checksum state, mark, cb, VLAN and tunnel metadata: what `struct sk_buff`
//! holds and a device, a namespace or a program reads. Knows no BPF and no topology: who may change what, and when a
//! namespace scrubs it, is told by the callers' own rules ([`SkBuff::scrub`] is the one rule that all of them share).

mod checksum;
mod skb;

pub use checksum::{fold, ones_complement_sum, pseudo_header_sum_v4};
pub use skb::{Checksum, PacketType, SkBuff, Tunnel, VlanTag};

/// Bytes reserved before the packet, as a driver reserves them for XDP (`XDP_PACKET_HEADROOM`).
pub const HEADROOM: usize = 256;
