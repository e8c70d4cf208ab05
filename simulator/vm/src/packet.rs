//! The packet while a program runs: its bytes in the arena, all else in the [`SkBuff`].
//!
//! Knows lengths and how they change, as `net/core/skbuff.c` has it. Knows no helper.

use skep_packet::{Checksum, HEADROOM, SkBuff};

use crate::FaultKind;
use crate::arena::Arena;

/// Room for the longest packet and what programs may put before it.
pub(crate) const SLOT: usize = 256 << 10;
/// The longest packet that fits: GSO packets of IPv4 are below 64 KiB.
const PACKET_MAX: usize = 128 << 10;

/// Programs of this kind run on Ethernet.
const ETH_HLEN: usize = 14;

/// A packet in the arena's packet slot.
pub(crate) struct Packet<'a> {
    pub(crate) skb: &'a mut SkBuff,
    slot: usize,
    start: usize,
    len: usize,
    linear: usize,
    /// Where the network header starts, from the packet's start (`skb_network_offset`).
    network: usize,
}

impl<'a> Packet<'a> {
    /// Copies a packet into the slot.
    pub(crate) fn load(skb: &'a mut SkBuff, slot: usize, arena: &mut Arena) -> Result<Self, FaultKind> {
        let (len, linear) = (skb.len(), skb.linear_len());
        if len > PACKET_MAX {
            return Err(FaultKind::PacketTooLong(len));
        }
        let start = slot + HEADROOM;
        arena.slice_mut(start, len).copy_from_slice(skb.bytes());
        Ok(Self { skb, slot, start, len, linear, network: ETH_HLEN })
    }

    /// Copies the packet back.
    pub(crate) fn save(self, arena: &Arena) {
        let bytes = arena.slice(self.start, self.len);
        if self.len == self.skb.len() {
            self.skb.bytes_mut().copy_from_slice(bytes);
            self.skb.set_linear_len(self.linear);
        } else {
            self.skb.replace(bytes, self.linear);
        }
    }

    /// Where it starts in the arena.
    pub(crate) fn start(&self) -> usize {
        self.start
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn linear(&self) -> usize {
        self.linear
    }

    pub(crate) fn network(&self) -> usize {
        self.network
    }

    /// Puts `count` zero bytes before the packet (`__skb_push`); the network header stays where it is.
    pub(crate) fn push(&mut self, count: usize, arena: &mut Arena) -> bool {
        let pushed = self.insert(0, count, arena);
        self.network += if pushed { count } else { 0 };
        pushed
    }

    /// The bytes at `offset`; `None` if they are not all there (`skb_header_pointer`).
    pub(crate) fn at(&self, offset: usize, len: usize) -> Option<usize> {
        (offset.checked_add(len)? <= self.len).then_some(self.start + offset)
    }

    /// Makes the first `len` bytes linear (`skb_ensure_writable`); false if there are fewer.
    pub(crate) fn pull(&mut self, len: usize) -> bool {
        if len > self.len {
            return false;
        }
        self.linear = self.linear.max(len);
        true
    }

    /// Puts `count` zero bytes in, `offset` bytes from the start, by moving what lies before them; false without room.
    pub(crate) fn insert(&mut self, offset: usize, count: usize, arena: &mut Arena) -> bool {
        let room = self.start - self.slot;
        if offset > self.len || self.len + count + HEADROOM > SLOT {
            return false;
        }
        if count > room {
            // No headroom left: the packet gets a new head, as `pskb_expand_head` makes one.
            let to = self.slot + HEADROOM + count;
            if to + self.len > self.slot + SLOT {
                return false;
            }
            let all = arena.slice_mut(self.slot, SLOT);
            let from = self.start - self.slot;
            all.copy_within(from..from + self.len, to - self.slot);
            self.start = to;
        }
        let bytes = arena.slice_mut(self.start - count, offset + count);
        bytes.copy_within(count.., 0);
        bytes[offset..].fill(0);
        self.start -= count;
        self.len += count;
        self.linear += count;
        self.move_checksum(count as i32);
        true
    }

    /// Takes `count` bytes out, `offset` bytes from the start, by moving what lies before them; false if they are not
    /// there.
    pub(crate) fn remove(&mut self, offset: usize, count: usize, arena: &mut Arena) -> bool {
        if !self.pull(offset + count) {
            return false;
        }
        arena.slice_mut(self.start, offset + count).copy_within(..offset, count);
        self.start += count;
        self.len -= count;
        self.linear -= count;
        self.move_checksum(-(count as i32));
        true
    }

    fn move_checksum(&mut self, by: i32) {
        if let Checksum::Partial { start, .. } = &mut self.skb.checksum {
            *start = (i32::from(*start) + by).clamp(0, i32::from(u16::MAX)) as u16;
        }
    }

    /// Makes the packet longer by zeros, or shorter; it is linear afterwards. False without room.
    pub(crate) fn resize(&mut self, len: usize, arena: &mut Arena) -> bool {
        if self.start + len > self.slot + SLOT {
            return false;
        }
        if len > self.len {
            arena.slice_mut(self.start + self.len, len - self.len).fill(0);
        }
        (self.len, self.linear) = (len, len);
        true
    }
}
