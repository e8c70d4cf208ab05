//! The packet while a program runs: its bytes in the arena, all else in the [`SkBuff`].
//!
//! Knows lengths and how they change, as `net/core/skbuff.c` has it. Knows no helper.

use skep_packet::{Checksum, HEADROOM, SkBuff};

use crate::arena::Arena;
use crate::{Errno, FaultKind, ProgramKind};

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
    /// Bytes of metadata right before the packet.
    meta: usize,
    /// Bytes before what the program sees that stay as they are: the link layer's header.
    hidden: usize,
    kind: ProgramKind,
    /// Of a message: which bytes `data` and `data_end` show, if not the first element.
    shown: Option<(usize, usize)>,
}

/// What a driver leaves of a page for a frame and its headroom (`xdp_data_hard_end`, of 4 KiB).
const XDP_END: usize = 4096 - 320;
/// `sizeof(struct xdp_frame)`
const XDP_FRAME: usize = 40;

impl<'a> Packet<'a> {
    /// Copies a packet into the slot, as a program of this kind sees it.
    pub(crate) fn load(
        skb: &'a mut SkBuff,
        kind: ProgramKind,
        slot: usize,
        arena: &mut Arena,
    ) -> Result<Self, FaultKind> {
        let hidden = if kind == ProgramKind::CgroupSkb { ETH_HLEN.min(skb.len()) } else { 0 };
        let (len, linear) = (skb.len() - hidden, skb.linear_len().saturating_sub(hidden));
        let meta = skb.meta.len();
        if len > PACKET_MAX || meta > HEADROOM {
            return Err(FaultKind::PacketTooLong(len));
        }
        let start = slot + HEADROOM;
        arena.slice_mut(start, len).copy_from_slice(&skb.bytes()[hidden..]);
        arena.slice_mut(start - meta, meta).copy_from_slice(&skb.meta);
        let network = match kind {
            ProgramKind::CgroupSkb | ProgramKind::SkSkb | ProgramKind::SkMsg => 0,
            _ => ETH_HLEN,
        };
        Ok(Self { skb, slot, start, len, linear, network, meta, hidden, kind, shown: None })
    }

    /// Copies the packet back.
    pub(crate) fn save(self, arena: &Arena) {
        let bytes = arena.slice(self.start, self.len);
        if self.meta != 0 || !self.skb.meta.is_empty() {
            self.skb.meta.clear();
            self.skb.meta.extend_from_slice(arena.slice(self.start - self.meta, self.meta));
        }
        if self.hidden + self.len == self.skb.len() {
            self.skb.bytes_mut()[self.hidden..].copy_from_slice(bytes);
            self.skb.set_linear_len(self.hidden + self.linear);
        } else if self.hidden == 0 {
            self.skb.replace(bytes, self.linear);
        } else {
            let all = [&self.skb.bytes()[..self.hidden], bytes].concat();
            self.skb.replace(&all, self.hidden + self.linear);
        }
    }

    pub(crate) fn kind(&self) -> ProgramKind {
        self.kind
    }

    /// From where to where programs see it, in the arena.
    pub(crate) fn visible(&self) -> (usize, usize) {
        let (from, to) = self.shown.unwrap_or((0, self.linear));
        (self.start + from, self.start + to)
    }

    /// Programs see these bytes.
    pub(crate) fn show(&mut self, from: usize, to: usize) {
        self.shown = Some((from, to));
    }

    /// Programs see the linear bytes.
    pub(crate) fn show_linear(&mut self) {
        self.shown = None;
    }

    /// Where the metadata starts in the arena.
    pub(crate) fn meta(&self) -> usize {
        self.start - self.meta
    }

    /// The metadata is gone: something else stands there.
    pub(crate) fn clear_meta(&mut self) {
        self.meta = 0;
    }

    /// `bpf_xdp_adjust_head`: false where the kernel refuses.
    pub(crate) fn adjust_head(&mut self, by: i32, arena: &mut Arena) -> bool {
        let start = self.start.wrapping_add_signed(by as isize);
        let lowest = self.slot + XDP_FRAME + self.meta;
        if start < lowest || start + ETH_HLEN > self.start + self.len {
            return false;
        }
        if self.meta > 0 {
            arena.copy(self.start - self.meta, start - self.meta, self.meta);
        }
        let len = self.len.wrapping_add_signed(-(by as isize));
        (self.start, self.len, self.linear) = (start, len, len);
        true
    }

    /// `bpf_xdp_adjust_meta`
    pub(crate) fn adjust_meta(&mut self, by: i32) -> Result<(), Errno> {
        let meta = self.meta as isize - by as isize;
        let lowest = (self.slot + XDP_FRAME) as isize;
        if (self.start as isize - meta) < lowest || meta < 0 {
            return Err(Errno::EINVAL);
        }
        // As long as `meta_len` of `struct skb_shared_info` can say.
        if meta % 4 != 0 || meta > 252 {
            return Err(Errno::EACCES);
        }
        self.meta = meta as usize;
        Ok(())
    }

    /// `bpf_xdp_adjust_tail`, of one buffer.
    pub(crate) fn adjust_tail(&mut self, by: i32, arena: &mut Arena) -> bool {
        let end = (self.start + self.len).wrapping_add_signed(by as isize);
        if end > self.slot + XDP_END || end < self.start + ETH_HLEN {
            return false;
        }
        let len = end - self.start;
        self.resize(len, arena)
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

    pub(crate) fn set_network(&mut self, network: usize) {
        self.network = network;
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
