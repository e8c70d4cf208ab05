//! The packet itself.

use crate::{HEADROOM, fold, ones_complement_sum};

/// What is known about the transport checksum (`skb->ip_summed`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Checksum {
    /// CHECKSUM_NONE: nothing; the stack verifies it.
    #[default]
    None,
    /// CHECKSUM_UNNECESSARY: the device has verified it.
    Unnecessary,
    /// CHECKSUM_COMPLETE: the ones' complement sum of the whole packet from the network header on, not folded.
    Complete(u32),
    /// CHECKSUM_PARTIAL: still to be filled in at `start + offset`, over all bytes from `start` on. The field holds
    /// the sum of the pseudo header. Both count from the first byte of the frame.
    Partial {
        /// First byte that is summed.
        start: u16,
        /// Where the checksum stands, counted from `start`.
        offset: u16,
    },
}

/// To whom a frame was addressed (`skb->pkt_type`, the kernel's numbers).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum PacketType {
    /// To this device.
    #[default]
    Host = 0,
    /// To all.
    Broadcast = 1,
    /// To a group.
    Multicast = 2,
    /// To another device; IP drops it.
    OtherHost = 3,
    /// Sent by this host.
    Outgoing = 4,
}

impl PacketType {
    /// The type of the kernel's number.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Host, Self::Broadcast, Self::Multicast, Self::OtherHost, Self::Outgoing]
            .into_iter()
            .find(|t| *t as u8 == number)
    }
}

/// A VLAN tag that the device took out of the frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VlanTag {
    /// 0x8100 or 0x88a8, in host byte order.
    pub protocol: u16,
    /// Priority, DEI and identifier, in host byte order.
    pub tci: u16,
}

/// Tunnel metadata (`struct ip_tunnel_info` on the packet's dst): what a collect_md device reads or has left.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tunnel {
    /// The network identifier, 24 bits in VXLAN, in host byte order.
    pub id: u32,
    /// The outer source; the device chooses it if unspecified. IPv4, octets in order.
    pub local: [u8; 4],
    /// The outer destination when sending, the outer source when received. IPv4, octets in order.
    pub remote: [u8; 4],
    /// The outer type of service.
    pub tos: u8,
    /// The outer time to live; 0 leaves it to the device.
    pub ttl: u8,
    /// The kernel's `TUNNEL_*` flags (`TUNNEL_KEY`, `TUNNEL_CSUM`, `TUNNEL_DONT_FRAGMENT`), by bit.
    pub flags: u16,
    /// Set for metadata that a program or route attached for sending (`IP_TUNNEL_INFO_TX`).
    pub transmit: bool,
}

/// A packet as the kernel carries it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SkBuff {
    buffer: Vec<u8>,
    head: usize,
    linear: usize,
    /// What is known about the transport checksum.
    pub checksum: Checksum,
    /// `skb->mark`.
    pub mark: u32,
    /// `skb->priority`.
    pub priority: u32,
    /// The five words of `skb->cb` that tc programs see.
    pub cb: [u32; 5],
    /// `skb->hash`, if it was computed.
    pub hash: Option<u32>,
    /// To whom it was addressed.
    pub packet_type: PacketType,
    /// The EtherType (`skb->protocol`), in host byte order.
    pub protocol: u16,
    /// The device that it is at (`skb->dev->ifindex`).
    pub ifindex: u32,
    /// The device that it came in by (`skb->skb_iif`); 0 if it was made here.
    pub ingress_ifindex: u32,
    /// `skb->tc_index`.
    pub tc_index: u16,
    /// `skb->queue_mapping`.
    pub queue_mapping: u16,
    /// The tag that the device took out, if any.
    pub vlan: Option<VlanTag>,
    /// `skb->tstamp`, nanoseconds; 0 if unset.
    pub timestamp: u64,
    /// Tunnel metadata, if any.
    pub tunnel: Option<Tunnel>,
    /// Options of the tunnel's metadata, such as Geneve's.
    pub tunnel_options: Vec<u8>,
    /// What XDP left before the frame for programs of the stack (`data_meta`).
    pub meta: Vec<u8>,
    /// How many checksums below the outermost are known to be good too (`skb->csum_level`).
    pub checksum_level: u8,
    /// Whether there is a packet in the packet (`skb->encapsulation`).
    pub encapsulation: bool,
    /// Payload bytes a segment, where the packet stands for many; else 0.
    pub gso_size: u16,
    /// How many segments it stands for.
    pub gso_segs: u16,
    /// The class that a tc program chose.
    pub tc_classid: u32,
    /// The socket that it belongs to, by a number that the owner of sockets gives; 0 for none.
    pub socket: u64,
}

impl SkBuff {
    /// An Ethernet frame, all linear, with [`HEADROOM`] before it. `protocol` is read from the frame.
    pub fn from_frame(frame: &[u8]) -> Self {
        let mut buffer = vec![0; HEADROOM + frame.len()];
        buffer[HEADROOM..].copy_from_slice(frame);
        let protocol = frame.get(12..14).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]));
        Self {
            buffer,
            head: HEADROOM,
            linear: frame.len(),
            checksum: Checksum::None,
            mark: 0,
            priority: 0,
            cb: [0; 5],
            hash: None,
            packet_type: PacketType::Host,
            protocol,
            ifindex: 0,
            ingress_ifindex: 0,
            tc_index: 0,
            queue_mapping: 0,
            vlan: None,
            timestamp: 0,
            tunnel: None,
            tunnel_options: Vec::new(),
            meta: Vec::new(),
            checksum_level: 0,
            encapsulation: false,
            gso_size: 0,
            gso_segs: 0,
            tc_classid: 0,
            socket: 0,
        }
    }

    /// The packet's bytes, from the Ethernet header on.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.head..]
    }

    /// The packet's bytes, to be changed in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.head..]
    }

    /// How many bytes the packet has (`skb->len`).
    pub fn len(&self) -> usize {
        self.buffer.len() - self.head
    }

    /// Whether the packet has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many of its bytes lie in the linear part, which is what a program reads directly (`skb_headlen`).
    pub fn linear_len(&self) -> usize {
        self.linear
    }

    /// Sets the linear length; at most the packet's length.
    pub fn set_linear_len(&mut self, len: usize) {
        self.linear = len.min(self.len());
    }

    /// Free bytes before the packet (`skb_headroom`).
    pub fn headroom(&self) -> usize {
        self.head
    }

    /// Replaces all bytes and the linear length, and keeps the metadata. Headroom is what it was at the start.
    pub fn replace(&mut self, bytes: &[u8], linear: usize) {
        self.buffer.truncate(0);
        self.buffer.resize(HEADROOM, 0);
        self.buffer.extend_from_slice(bytes);
        self.head = HEADROOM;
        self.set_linear_len(linear);
    }

    /// Puts `bytes` before the packet (`skb_push`), growing the headroom if there is too little.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.head < bytes.len() {
            let grow = HEADROOM + bytes.len() - self.head;
            self.buffer.splice(0..0, std::iter::repeat_n(0, grow));
            self.head += grow;
        }
        self.head -= bytes.len();
        self.buffer[self.head..self.head + bytes.len()].copy_from_slice(bytes);
        self.linear += bytes.len();
        if let Checksum::Partial { start, .. } = &mut self.checksum {
            *start += bytes.len() as u16;
        }
    }

    /// Takes up to `len` bytes off the front (`skb_pull`).
    pub fn pull(&mut self, len: usize) {
        let len = len.min(self.len());
        self.head += len;
        self.linear = self.linear.saturating_sub(len);
        if let Checksum::Partial { start, .. } = &mut self.checksum {
            *start = start.saturating_sub(len as u16);
        }
    }

    /// Cuts the packet to `len` bytes (`skb_trim`).
    pub fn trim(&mut self, len: usize) {
        self.buffer.truncate(self.head + len.min(self.len()));
        self.linear = self.linear.min(self.len());
    }

    /// Fills in a partial checksum (`skb_checksum_help`); what is not partial stays as it is.
    ///
    /// A UDP sum of zero becomes 0xffff only where the caller knows that it is UDP: that is the sender's rule
    /// (RFC 768), and the kernel's stack applies it before the packet gets here.
    pub fn complete_checksum(&mut self) {
        let Checksum::Partial { start, offset } = self.checksum else { return };
        let (start, at) = (usize::from(start), usize::from(start) + usize::from(offset));
        self.checksum = Checksum::None;
        if at + 2 > self.len() {
            return;
        }
        let sum = !fold(ones_complement_sum(0, &self.bytes()[start..]));
        self.bytes_mut()[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }

    /// What crossing into another network namespace clears (`skb_scrub_packet` with `xnet`).
    pub fn scrub(&mut self) {
        self.packet_type = PacketType::Host;
        self.ingress_ifindex = 0;
        self.tunnel = None;
        self.mark = 0;
        self.timestamp = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn push_and_pull_undo_each_other_and_move_the_checksum() {
        let mut skb = SkBuff::from_frame(&[7; 60]);
        skb.checksum = Checksum::Partial { start: 34, offset: 16 };
        let before = skb.clone();
        skb.push(&[1; 50]);
        assert_eq!((skb.len(), skb.linear_len(), skb.headroom()), (110, 110, HEADROOM - 50));
        assert_eq!(skb.checksum, Checksum::Partial { start: 84, offset: 16 });
        skb.pull(50);
        assert_eq!(skb.bytes(), before.bytes());
        assert_eq!(skb.checksum, before.checksum);
    }

    #[test]
    fn push_grows_a_headroom_that_is_too_small() {
        let mut skb = SkBuff::from_frame(&[7; 10]);
        skb.push(&[1; 300]);
        assert_eq!(skb.len(), 310);
        assert_eq!(&skb.bytes()[..2], &[1, 1]);
        assert_eq!(&skb.bytes()[300..], &[7; 10]);
    }

    #[test]
    fn scrubbing_keeps_bytes_and_cb() {
        let mut skb = SkBuff::from_frame(&[7; 20]);
        skb.mark = 5;
        skb.tunnel = Some(Tunnel::default());
        skb.cb = [1; 5];
        skb.scrub();
        assert_eq!((skb.mark, skb.tunnel, skb.cb), (0, None, [1; 5]));
    }
}
