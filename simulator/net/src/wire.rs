//! Headers on the wire: Ethernet, ARP, IPv4, UDP, TCP, ICMP, VXLAN, read and written. No topology, no state.
//!
//! Reading never panics: what is too short or contradicts itself is an error with the reason that Linux gives.

use crate::{DropReason, Mac};
use skep_packet::{fold, ones_complement_sum, pseudo_header_sum_v4};
use std::net::Ipv4Addr;

pub(crate) const ETH_LEN: usize = 14;
pub(crate) const IPV4_LEN: usize = 20;
pub(crate) const UDP_LEN: usize = 8;
pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(crate) const ETHERTYPE_ARP: u16 = 0x0806;
pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const BROADCAST: Mac = [0xff; 6];

/// Two bytes at `at`, zero if they are not there.
pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]))
}

/// Four bytes at `at`, zero if they are not there.
pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
}

/// An address at `at`, 0.0.0.0 if it is not there.
pub(crate) fn address(bytes: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::from(be32(bytes, at))
}

/// A hardware address at `at`, zero if it is not there.
pub(crate) fn mac(bytes: &[u8], at: usize) -> Mac {
    bytes.get(at..at + 6).and_then(|b| b.try_into().ok()).unwrap_or_default()
}

/// An IPv4 header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ipv4 {
    pub(crate) header_len: usize,
    pub(crate) total_len: usize,
    pub(crate) tos: u8,
    pub(crate) id: u16,
    pub(crate) dont_fragment: bool,
    pub(crate) more_fragments: bool,
    /// Bytes before this fragment's.
    pub(crate) offset: usize,
    pub(crate) ttl: u8,
    pub(crate) protocol: u8,
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
}

impl Ipv4 {
    /// Reads and checks a header as `ip_rcv_core` does; `packet` may have padding behind it.
    pub(crate) fn parse(packet: &[u8]) -> Result<Self, DropReason> {
        if packet.len() < IPV4_LEN {
            return Err(DropReason::IpInHdr);
        }
        let header_len = usize::from(packet[0] & 0x0f) * 4;
        if packet[0] >> 4 != 4 || header_len < IPV4_LEN || packet.len() < header_len {
            return Err(DropReason::IpInHdr);
        }
        if fold(ones_complement_sum(0, &packet[..header_len])) != 0xffff {
            return Err(DropReason::IpCsum);
        }
        let total_len = usize::from(be16(packet, 2));
        if packet.len() < total_len {
            return Err(DropReason::PktTooSmall);
        }
        if total_len < header_len {
            return Err(DropReason::IpInHdr);
        }
        let fragment = be16(packet, 6);
        Ok(Self {
            header_len,
            total_len,
            tos: packet[1],
            id: be16(packet, 4),
            dont_fragment: fragment & 0x4000 != 0,
            more_fragments: fragment & 0x2000 != 0,
            offset: usize::from(fragment & 0x1fff) * 8,
            ttl: packet[8],
            protocol: packet[9],
            source: address(packet, 12),
            destination: address(packet, 16),
        })
    }

    /// Whether this is a part of a packet.
    pub(crate) fn is_fragment(&self) -> bool {
        self.more_fragments || self.offset != 0
    }

    /// The payload within the packet that this was read from.
    pub(crate) fn payload<'a>(&self, packet: &'a [u8]) -> &'a [u8] {
        packet.get(self.header_len..self.total_len).unwrap_or_default()
    }

    /// A packet without options around `payload`; lengths and checksum are filled in.
    pub(crate) fn emit(&self, payload: &[u8]) -> Vec<u8> {
        let total = (IPV4_LEN + payload.len()).min(usize::from(u16::MAX));
        let mut packet = vec![0u8; IPV4_LEN];
        packet[0] = 0x45;
        packet[1] = self.tos;
        packet[2..4].copy_from_slice(&(total as u16).to_be_bytes());
        packet[4..6].copy_from_slice(&self.id.to_be_bytes());
        let mut fragment = (self.offset / 8) as u16 & 0x1fff;
        fragment |= if self.dont_fragment { 0x4000 } else { 0 };
        fragment |= if self.more_fragments { 0x2000 } else { 0 };
        packet[6..8].copy_from_slice(&fragment.to_be_bytes());
        packet[8] = self.ttl;
        packet[9] = self.protocol;
        packet[12..16].copy_from_slice(&self.source.octets());
        packet[16..20].copy_from_slice(&self.destination.octets());
        fix_ipv4_checksum(&mut packet);
        packet.extend_from_slice(&payload[..total - IPV4_LEN]);
        packet
    }

    /// The header of a fresh packet from this host.
    pub(crate) fn fresh(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, id: u16) -> Self {
        Self {
            header_len: IPV4_LEN,
            total_len: 0,
            tos: 0,
            id,
            dont_fragment: false,
            more_fragments: false,
            offset: 0,
            ttl: 64,
            protocol,
            source,
            destination,
        }
    }
}

/// Computes the checksum of the IPv4 header at the beginning of `packet`.
pub(crate) fn fix_ipv4_checksum(packet: &mut [u8]) {
    let Some(first) = packet.first() else { return };
    let header_len = usize::from(first & 0x0f) * 4;
    if header_len < IPV4_LEN || packet.len() < header_len {
        return;
    }
    packet[10..12].fill(0);
    let sum = !fold(ones_complement_sum(0, &packet[..header_len]));
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Where the checksum stands in a transport header; none if the protocol has none over a pseudo header.
pub(crate) fn checksum_offset(protocol: u8) -> Option<u16> {
    match protocol {
        TCP => Some(16),
        UDP => Some(6),
        _ => None,
    }
}

/// Writes the folded sum of the pseudo header where the checksum stands: what a socket leaves for the device to
/// complete (CHECKSUM_PARTIAL). The offset of the field, if there is one.
pub(crate) fn start_checksum(packet: &mut [u8]) -> Option<u16> {
    let header = Ipv4::parse(packet).ok()?;
    let offset = checksum_offset(header.protocol)?;
    let length = header.total_len - header.header_len;
    let at = header.header_len + usize::from(offset);
    if header.is_fragment() || at + 2 > header.total_len {
        return None;
    }
    let sum = fold(pseudo_header_sum_v4(header.source, header.destination, header.protocol, length as u16));
    packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    Some(offset)
}

/// Whether the transport checksum of an unfragmented packet is right. UDP's zero is none and right (RFC 768).
pub(crate) fn transport_checksum_ok(header: &Ipv4, packet: &[u8]) -> bool {
    let payload = header.payload(packet);
    let sum = match header.protocol {
        UDP if be16(payload, 6) == 0 => return true,
        TCP | UDP => {
            let length = payload.len() as u16;
            pseudo_header_sum_v4(header.source, header.destination, header.protocol, length)
        }
        ICMP => 0,
        _ => return true,
    };
    fold(ones_complement_sum(sum, payload)) == 0xffff
}

/// An Ethernet header.
pub(crate) fn ethernet(destination: Mac, source: Mac, ethertype: u16) -> [u8; ETH_LEN] {
    let mut header = [0; ETH_LEN];
    header[..6].copy_from_slice(&destination);
    header[6..12].copy_from_slice(&source);
    header[12..].copy_from_slice(&ethertype.to_be_bytes());
    header
}

/// ARP for IPv4 over Ethernet (RFC 826).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arp {
    /// 1 request, 2 reply.
    pub(crate) operation: u16,
    pub(crate) sender_mac: Mac,
    pub(crate) sender: Ipv4Addr,
    pub(crate) target_mac: Mac,
    pub(crate) target: Ipv4Addr,
}

impl Arp {
    /// Reads what follows the Ethernet header; none if it is not IPv4 over Ethernet, or too short.
    pub(crate) fn parse(packet: &[u8]) -> Option<Self> {
        if packet.len() < 28
            || be16(packet, 0) != 1
            || be16(packet, 2) != ETHERTYPE_IPV4
            || packet[4..6] != [6, 4]
        {
            return None;
        }
        Some(Self {
            operation: be16(packet, 6),
            sender_mac: mac(packet, 8),
            sender: address(packet, 14),
            target_mac: mac(packet, 18),
            target: address(packet, 24),
        })
    }

    /// The frame.
    pub(crate) fn emit(&self, destination: Mac) -> Vec<u8> {
        let mut frame = ethernet(destination, self.sender_mac, ETHERTYPE_ARP).to_vec();
        frame.extend_from_slice(&[0, 1, 8, 0, 6, 4]);
        frame.extend_from_slice(&self.operation.to_be_bytes());
        frame.extend_from_slice(&self.sender_mac);
        frame.extend_from_slice(&self.sender.octets());
        frame.extend_from_slice(&self.target_mac);
        frame.extend_from_slice(&self.target.octets());
        frame
    }
}

/// A UDP header with its payload; the checksum is zero.
pub(crate) fn udp(source_port: u16, destination_port: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(UDP_LEN + payload.len());
    datagram.extend_from_slice(&source_port.to_be_bytes());
    datagram.extend_from_slice(&destination_port.to_be_bytes());
    datagram.extend_from_slice(&((UDP_LEN + payload.len()) as u16).to_be_bytes());
    datagram.extend_from_slice(&[0, 0]);
    datagram.extend_from_slice(payload);
    datagram
}

/// An ICMP message: type, code, the four bytes after the checksum, and the rest.
pub(crate) fn icmp(kind: u8, code: u8, rest: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend_from_slice(&rest);
    message.extend_from_slice(payload);
    let sum = !fold(ones_complement_sum(0, &message));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// Whether an ICMP type is an error (RFC 1122 section 3.2.2).
pub(crate) fn icmp_is_error(kind: u8) -> bool {
    matches!(kind, 3 | 4 | 5 | 11 | 12)
}

/// A hash over addresses, protocol and ports of the frame, equal for all packets of a flow in one direction. It
/// stands where the kernel has siphash over the dissected keys; only its stability and spread matter.
pub(crate) fn flow_hash(frame: &[u8], seed: u64) -> u32 {
    let mut key = Vec::with_capacity(20);
    let packet = frame.get(ETH_LEN..).unwrap_or_default();
    match (be16(frame, 12), Ipv4::parse(packet)) {
        (ETHERTYPE_IPV4, Ok(ip)) => {
            key.extend_from_slice(&packet[12..20]);
            key.push(ip.protocol);
            if !ip.is_fragment() && matches!(ip.protocol, TCP | UDP) {
                key.extend_from_slice(ip.payload(packet).get(..4).unwrap_or_default());
            }
        }
        _ => key.extend_from_slice(frame.get(..ETH_LEN).unwrap_or(frame)),
    }
    let mut hash = seed ^ 0x9e37_79b9_7f4a_7c15;
    for byte in key {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    // The last step of MurmurHash3: every bit of the input reaches the upper half.
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_with_a_wrong_checksum_version_or_length_is_refused_with_the_kernels_reason() {
        let good = Ipv4::fresh([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), UDP, 7).emit(&[1, 2, 3]);
        assert_eq!(Ipv4::parse(&good).map(|ip| ip.total_len), Ok(23));
        let mut bad = good.clone();
        bad[10] ^= 1;
        assert_eq!(Ipv4::parse(&bad).map(|_| ()), Err(DropReason::IpCsum));
        bad = good.clone();
        bad[0] = 0x65;
        assert_eq!(Ipv4::parse(&bad).map(|_| ()), Err(DropReason::IpInHdr));
        assert_eq!(Ipv4::parse(&good[..22]).map(|_| ()), Err(DropReason::PktTooSmall));
        assert_eq!(Ipv4::parse(&good[..19]).map(|_| ()), Err(DropReason::IpInHdr));
    }
}
