//! The one builder of the tables' packets.
//!
//! Knows headers, through etherparse. Does not know who the addresses belong to.

use etherparse::{
    ArpEthIpv4Packet, ArpHardwareId, ArpOperation, ArpPacket, EtherType, Ethernet2Header, IpFragOffset,
    IpHeaders, IpNumber, Ipv4Header, PacketBuilder, icmpv4,
};

/// TCP flags (RFC 9293, section 3.1).
pub mod tcp_flag {
    /// FIN.
    pub const FIN: u8 = 1;
    /// SYN.
    pub const SYN: u8 = 2;
    /// RST.
    pub const RST: u8 = 4;
    /// PSH.
    pub const PSH: u8 = 8;
    /// ACK.
    pub const ACK: u8 = 16;
}

/// Where a packet comes from and goes to.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// Ethernet source.
    pub src_mac: [u8; 6],
    /// Ethernet destination.
    pub dst_mac: [u8; 6],
    /// IPv4 source.
    pub src: [u8; 4],
    /// IPv4 destination.
    pub dst: [u8; 4],
    /// Time to live.
    pub ttl: u8,
}

impl Route {
    /// The same with another time to live.
    pub fn ttl(self, ttl: u8) -> Self {
        Self { ttl, ..self }
    }

    /// The same from another address.
    pub fn from(self, src: [u8; 4]) -> Self {
        Self { src, ..self }
    }

    fn builder(self) -> etherparse::PacketBuilderStep<IpHeaders> {
        PacketBuilder::ethernet2(self.src_mac, self.dst_mac).ipv4(self.src, self.dst, self.ttl)
    }

    /// A TCP segment with `len` bytes of data.
    pub fn tcp(self, sport: u16, dport: u16, flags: u8, len: usize) -> Vec<u8> {
        let mut step = self.builder().tcp(sport, dport, 1000, 64240);
        if flags & tcp_flag::SYN != 0 {
            step = step.syn();
        }
        if flags & tcp_flag::ACK != 0 {
            step = step.ack(2000);
        }
        if flags & tcp_flag::FIN != 0 {
            step = step.fin();
        }
        if flags & tcp_flag::RST != 0 {
            step = step.rst();
        }
        if flags & tcp_flag::PSH != 0 {
            step = step.psh();
        }
        written(|out| step.write(out, &data(len)))
    }

    /// A UDP datagram with `len` bytes of data.
    pub fn udp(self, sport: u16, dport: u16, len: usize) -> Vec<u8> {
        written(|out| self.builder().udp(sport, dport).write(out, &data(len)))
    }

    /// A UDP datagram with these bytes of data.
    pub fn udp_with(self, sport: u16, dport: u16, payload: &[u8]) -> Vec<u8> {
        written(|out| self.builder().udp(sport, dport).write(out, payload))
    }

    /// An ICMP echo request.
    pub fn echo(self, id: u16) -> Vec<u8> {
        written(|out| self.builder().icmpv4_echo_request(id, 1).write(out, &data(56)))
    }

    /// An ICMP echo reply.
    pub fn echo_reply(self, id: u16) -> Vec<u8> {
        written(|out| self.builder().icmpv4_echo_reply(id, 1).write(out, &data(56)))
    }

    /// ICMP port unreachable, about `about`'s IPv4 header and the eight bytes behind it (RFC 792).
    pub fn unreachable(self, about: &[u8]) -> Vec<u8> {
        let kind = etherparse::Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Port);
        let quoted = about.get(14..14 + 28).unwrap_or(&[]);
        written(|out| self.builder().icmpv4(kind).write(out, quoted))
    }

    /// A packet of a transport protocol that has no ports.
    pub fn protocol(self, number: u8) -> Vec<u8> {
        written(|out| self.builder().write(out, IpNumber(number), &data(32)))
    }

    /// A UDP datagram's fragment: its first, or one further on.
    pub fn fragment(self, sport: u16, dport: u16, first: bool) -> Vec<u8> {
        let mut ip = Ipv4Header::new(64, self.ttl, IpNumber::UDP, self.src, self.dst).expect("64 bytes fit");
        ip.identification = 7;
        ip.more_fragments = first;
        let offset = if first { 0 } else { 8 };
        ip.fragment_offset = IpFragOffset::try_new(offset).expect("8 fits in 13 bits");
        ip.header_checksum = ip.calc_header_checksum();
        let mut out = self.ethernet(EtherType::IPV4);
        ip.write(&mut out).expect("a vector takes all");
        out.extend_from_slice(&sport.to_be_bytes());
        out.extend_from_slice(&dport.to_be_bytes());
        out.extend_from_slice(&data(60));
        out
    }

    /// A TCP segment behind an IPv4 header with `words` words of options (no-operations).
    pub fn tcp_with_options(self, sport: u16, dport: u16, flags: u8, words: u8) -> Vec<u8> {
        let plain = self.tcp(sport, dport, flags, 8);
        let mut out = plain[..34].to_vec();
        out[14] = 0x45 + words;
        out.extend(std::iter::repeat_n(1_u8, usize::from(words) * 4));
        out.extend_from_slice(&plain[34..]);
        let len = (out.len() - 14) as u16;
        out[16..18].copy_from_slice(&len.to_be_bytes());
        let header = 14..34 + usize::from(words) * 4;
        out[24..26].fill(0);
        let sum = !skep_packet::fold(skep_packet::ones_complement_sum(0, &out[header]));
        out[24..26].copy_from_slice(&sum.to_be_bytes());
        out
    }

    /// An ARP request for `self.dst`, from `self.src`, to all.
    pub fn arp_request(self) -> Vec<u8> {
        let arp = ArpEthIpv4Packet {
            operation: ArpOperation::REQUEST,
            sender_mac: self.src_mac,
            sender_ipv4: self.src,
            target_mac: [0; 6],
            target_ipv4: self.dst,
        };
        let to_all = Self { dst_mac: [0xff; 6], ..self };
        let mut out = to_all.ethernet(EtherType::ARP);
        out.extend_from_slice(&ArpPacket::from(arp).to_bytes());
        out
    }

    /// A frame with any EtherType (or length, below 0x600) and `len` bytes behind it.
    pub fn other(self, ether_type: u16, len: usize) -> Vec<u8> {
        let mut out = self.ethernet(EtherType(ether_type));
        out.extend_from_slice(&data(len));
        out
    }

    fn ethernet(self, ether_type: EtherType) -> Vec<u8> {
        Ethernet2Header { source: self.src_mac, destination: self.dst_mac, ether_type }.to_bytes().to_vec()
    }
}

/// The ARP answer in a frame: Ethernet source and destination, who has which address, who asked.
pub fn arp_answer(frame: &[u8]) -> Option<([u8; 6], [u8; 6], ArpEthIpv4Packet)> {
    let (ethernet, rest) = Ethernet2Header::from_slice(frame).ok()?;
    let arp = etherparse::ArpPacketSlice::from_slice(rest).ok()?.to_packet();
    let right = arp.hw_addr_type == ArpHardwareId::ETHERNET
        && ethernet.ether_type == EtherType::ARP
        && arp.operation == ArpOperation::REPLY;
    let arp = ArpEthIpv4Packet::try_from(arp).ok()?;
    right.then_some((ethernet.source, ethernet.destination, arp))
}

fn data(len: usize) -> Vec<u8> {
    (0..len).map(|i| i as u8).collect()
}

fn written<E: std::fmt::Debug>(write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out).expect("a vector takes all, and the lengths are small");
    out
}
