//! A frame on its way: the packet, its number, and how far it went. All frames have an Ethernet header; of what a
//! stack sends it is zero until the next hop's address is known.

use crate::wire::{ETH_LEN, ETHERTYPE_IPV4};
use crate::{FrameId, Origin};
use skep_packet::{PacketType, SkBuff};

/// More devices than any sound way has.
pub(crate) const MAX_DEVICES: u16 = 256;

/// What `cb` holds once the network stack has used it for itself: nothing that a program may rely on.
pub(crate) const POISON: [u32; 5] = [0x5bad_cb00, 0x5bad_cb01, 0x5bad_cb02, 0x5bad_cb03, 0x5bad_cb04];

/// A frame.
pub(crate) struct Frame {
    pub(crate) id: FrameId,
    pub(crate) skb: SkBuff,
    /// Devices passed.
    pub(crate) devices: u16,
}

impl Frame {
    /// The packet behind the Ethernet header; empty if there is none.
    pub(crate) fn network(&self) -> &[u8] {
        self.skb.bytes().get(ETH_LEN..).unwrap_or_default()
    }

    /// The same, to be changed.
    pub(crate) fn network_mut(&mut self) -> &mut [u8] {
        self.skb.bytes_mut().get_mut(ETH_LEN..).unwrap_or_default()
    }

    /// `skb_scrub_packet`: what a device that hands a packet on clears. Within one namespace (`xnet` false) mark and
    /// timestamp stay.
    pub(crate) fn scrub(&mut self, xnet: bool) {
        if xnet {
            self.skb.scrub();
        } else {
            self.skb.packet_type = PacketType::Host;
            self.skb.ingress_ifindex = 0;
            self.skb.tunnel = None;
        }
    }

    /// The end of what the stack knows of it: `cb` was the stack's own, the metadata of the tunnel went with the dst.
    pub(crate) fn enter_stack(&mut self) {
        self.skb.cb = POISON;
        self.skb.tunnel = None;
    }
}

/// An IPv4 packet that a namespace is about to send, and who made it.
pub(crate) struct Outgoing {
    /// Header and payload; the header's checksum is right.
    pub(crate) packet: Vec<u8>,
    /// Where the transport checksum stands within its header, if it is still partial.
    pub(crate) partial: Option<u16>,
    /// Who made it.
    pub(crate) origin: Origin,
}

impl Outgoing {
    /// The packet as an skb with a blank Ethernet header.
    pub(crate) fn into_skb(self) -> SkBuff {
        let mut frame = vec![0; ETH_LEN];
        frame[12..14].copy_from_slice(&ETHERTYPE_IPV4.to_be_bytes());
        frame.extend_from_slice(&self.packet);
        let mut skb = SkBuff::from_frame(&frame);
        if let Some(offset) = self.partial {
            let header = u16::from(self.packet.first().copied().unwrap_or(0x45) & 0x0f) * 4;
            skb.checksum = skep_packet::Checksum::Partial { start: ETH_LEN as u16 + header, offset };
        }
        skb.packet_type = PacketType::Outgoing;
        skb
    }
}
