//! A frame as a trace shows it: the addresses, ports and counters that hops compare before and after.
//!
//! Parses with etherparse, as every judge here does; does not know the datapath's own parsers.

use etherparse::{EtherType, NetSlice, SlicedPacket, TransportSlice};
use serde::{Serialize, Serializer};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// The VXLAN header in front of the inner frame (RFC 7348, section 5).
const VXLAN_HEADER_LEN: usize = 8;

/// An Ethernet address; printed and serialised as `aa:bb:cc:dd:ee:ff`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MacAddr(pub [u8; 6]);

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for MacAddr {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// Who talks to whom: addresses, IP protocol number, and ports (an ICMP echo's identifier stands in `sport`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct FiveTuple {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// IP protocol: 1 ICMP, 6 TCP, 17 UDP.
    pub protocol: u8,
    /// Source port in host byte order; an ICMP echo's identifier; 0 where there is none.
    pub sport: u16,
    /// Destination port in host byte order; 0 where there is none.
    pub dport: u16,
}

impl FiveTuple {
    /// The tuple of the answers.
    #[must_use]
    pub const fn reversed(self) -> Self {
        // An ICMP echo's reply bears the request's identifier.
        let (sport, dport) =
            if self.protocol == 1 { (self.sport, self.dport) } else { (self.dport, self.sport) };
        Self { src: self.dst, dst: self.src, protocol: self.protocol, sport, dport }
    }

    /// `TCP`, `UDP`, `ICMP` or `IP 47`.
    pub fn protocol_name(self) -> String {
        match self.protocol {
            1 => "ICMP".into(),
            6 => "TCP".into(),
            17 => "UDP".into(),
            n => format!("IP {n}"),
        }
    }
}

/// `10.42.1.80:49152 -> 10.42.0.51:80 TCP`; ICMP as `10.42.1.80 -> 10.42.0.51 ICMP id 7`.
impl fmt::Display for FiveTuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            6 | 17 => write!(
                f,
                "{}:{} -> {}:{} {}",
                self.src,
                self.sport,
                self.dst,
                self.dport,
                self.protocol_name()
            ),
            1 => write!(f, "{} -> {} ICMP id {}", self.src, self.dst, self.sport),
            _ => write!(f, "{} -> {} {}", self.src, self.dst, self.protocol_name()),
        }
    }
}

/// An ARP packet's question or answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct ArpView {
    /// Whether it is an answer.
    pub reply: bool,
    /// The sender's protocol address.
    pub sender: Ipv4Addr,
    /// The sender's Ethernet address.
    pub sender_mac: MacAddr,
    /// The protocol address that is asked for.
    pub target: Ipv4Addr,
}

/// The outer headers of a VXLAN packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct OuterView {
    /// Source node.
    pub src: IpAddr,
    /// Destination node.
    pub dst: IpAddr,
    /// Outer UDP source port; it comes from the flow's hash.
    pub sport: u16,
    /// Outer UDP destination port.
    pub dport: u16,
    /// The VXLAN network identifier: the source's identity.
    pub vni: u32,
    /// The outer header's time to live.
    pub ttl: u8,
}

/// What a trace shows of a frame. Of an encapsulated one, all fields but `outer` are the inner frame's.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct FrameView {
    /// Source Ethernet address, if the frame has an Ethernet header.
    pub src_mac: Option<MacAddr>,
    /// Destination Ethernet address, if the frame has an Ethernet header.
    pub dst_mac: Option<MacAddr>,
    /// The ARP packet in it.
    pub arp: Option<ArpView>,
    /// The IP packet in it.
    pub tuple: Option<FiveTuple>,
    /// Time to live of the IP packet.
    pub ttl: Option<u8>,
    /// TCP flags in the order of the header: FIN is bit 0.
    pub tcp_flags: Option<u8>,
    /// ICMP type and code.
    pub icmp: Option<(u8, u8)>,
    /// Bytes of transport payload.
    pub payload_len: usize,
    /// The headers around it, if it is in a VXLAN packet.
    pub outer: Option<OuterView>,
    /// Bytes of the whole frame.
    pub len: usize,
}

impl FrameView {
    /// Reads an Ethernet frame. A UDP packet to `tunnel_port` is read as VXLAN.
    ///
    /// What cannot be parsed is left out, never an error: a trace shows broken packets too.
    pub fn ethernet(bytes: &[u8], tunnel_port: u16) -> Self {
        match SlicedPacket::from_ethernet(bytes) {
            Ok(packet) => Self::read(&packet, bytes.len(), tunnel_port),
            Err(_) => Self { len: bytes.len(), ..Self::macs_of(bytes) },
        }
    }

    /// Reads an IP packet that has no Ethernet header.
    pub fn ip(bytes: &[u8]) -> Self {
        match SlicedPacket::from_ip(bytes) {
            Ok(packet) => Self::read(&packet, bytes.len(), 0),
            Err(_) => Self { len: bytes.len(), ..Self::default() },
        }
    }

    /// Of the frame: `ARP`, `SYN`, ...: what the first packet of its kind is called.
    pub fn summary(&self) -> String {
        if let Some(arp) = &self.arp {
            return if arp.reply {
                format!("ARP {} is at {}", arp.sender, arp.sender_mac)
            } else {
                format!("ARP who has {}", arp.target)
            };
        }
        if let Some(flags) = self.tcp_flags {
            return format!("TCP Flags: {}", tcp_flag_names(flags));
        }
        match (self.icmp, self.tuple) {
            (Some((8, _)), _) => "ICMPv4 EchoRequest".into(),
            (Some((0, _)), _) => "ICMPv4 EchoReply".into(),
            (Some((t, c)), _) => format!("ICMPv4 type {t} code {c}"),
            (None, Some(t)) => t.protocol_name(),
            (None, None) => "frame".into(),
        }
    }

    fn macs_of(bytes: &[u8]) -> Self {
        let mac = |from: usize| bytes.get(from..from + 6).and_then(|b| b.try_into().ok()).map(MacAddr);
        Self { dst_mac: mac(0), src_mac: mac(6), ..Self::default() }
    }

    fn read(packet: &SlicedPacket<'_>, len: usize, tunnel_port: u16) -> Self {
        let mut view = Self { len, ..Self::default() };
        if let Some(ethernet) = packet.link.as_ref().and_then(|l| l.to_header()).and_then(|h| h.ethernet2()) {
            view.src_mac = Some(MacAddr(ethernet.source));
            view.dst_mac = Some(MacAddr(ethernet.destination));
        }
        match &packet.net {
            Some(NetSlice::Arp(arp)) => view.arp = arp_of(arp),
            Some(NetSlice::Ipv4(ip)) => view.read_ipv4(ip, packet),
            Some(NetSlice::Ipv6(ip)) => {
                let header = ip.header();
                view.ttl = Some(header.hop_limit());
                view.tuple = Some(tuple_of(
                    IpAddr::V6(header.source_addr()),
                    IpAddr::V6(header.destination_addr()),
                    ip.payload().ip_number.0,
                ));
                view.read_transport(packet);
            }
            None => {}
        }
        view.inner(packet, len, tunnel_port)
    }

    fn read_ipv4(&mut self, ip: &etherparse::Ipv4Slice<'_>, packet: &SlicedPacket<'_>) {
        let header = ip.header();
        self.ttl = Some(header.ttl());
        self.tuple = Some(tuple_of(
            IpAddr::V4(header.source_addr()),
            IpAddr::V4(header.destination_addr()),
            header.protocol().0,
        ));
        self.read_transport(packet);
    }

    fn read_transport(&mut self, packet: &SlicedPacket<'_>) {
        let Some(tuple) = self.tuple.as_mut() else { return };
        match &packet.transport {
            Some(TransportSlice::Tcp(tcp)) => {
                (tuple.sport, tuple.dport) = (tcp.source_port(), tcp.destination_port());
                self.tcp_flags = Some(tcp.slice()[13]);
                self.payload_len = tcp.payload().len();
            }
            Some(TransportSlice::Udp(udp)) => {
                (tuple.sport, tuple.dport) = (udp.source_port(), udp.destination_port());
                self.payload_len = udp.payload().len();
            }
            Some(TransportSlice::Icmpv4(icmp)) => {
                self.icmp = Some((icmp.type_u8(), icmp.code_u8()));
                if matches!(icmp.type_u8(), 0 | 8) {
                    tuple.sport = u16::from_be_bytes([icmp.slice()[4], icmp.slice()[5]]);
                }
                self.payload_len = icmp.payload().len();
            }
            _ => {}
        }
    }

    fn inner(self, packet: &SlicedPacket<'_>, len: usize, tunnel_port: u16) -> Self {
        let Some(TransportSlice::Udp(udp)) = &packet.transport else { return self };
        if tunnel_port == 0 || udp.destination_port() != tunnel_port {
            return self;
        }
        let (Some(tuple), Some(frame)) = (self.tuple, udp.payload().get(VXLAN_HEADER_LEN..)) else {
            return self;
        };
        let header = &udp.payload()[..VXLAN_HEADER_LEN];
        let outer = OuterView {
            src: tuple.src,
            dst: tuple.dst,
            sport: tuple.sport,
            dport: tuple.dport,
            vni: u32::from_be_bytes([0, header[4], header[5], header[6]]),
            ttl: self.ttl.unwrap_or_default(),
        };
        Self { outer: Some(outer), len, ..Self::ethernet(frame, 0) }
    }
}

/// The flags of a TCP header's byte 13, as Hubble prints them: `SYN, ACK`.
pub fn tcp_flag_names(flags: u8) -> String {
    const NAMES: [(u8, &str); 8] = [
        (0x02, "SYN"),
        (0x10, "ACK"),
        (0x08, "PSH"),
        (0x01, "FIN"),
        (0x04, "RST"),
        (0x20, "URG"),
        (0x40, "ECE"),
        (0x80, "CWR"),
    ];
    NAMES.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, n)| *n).collect::<Vec<_>>().join(", ")
}

fn tuple_of(src: IpAddr, dst: IpAddr, protocol: u8) -> FiveTuple {
    FiveTuple { src, dst, protocol, sport: 0, dport: 0 }
}

fn arp_of(arp: &etherparse::ArpPacketSlice<'_>) -> Option<ArpView> {
    if arp.proto_addr_type() != EtherType::IPV4 {
        return None;
    }
    let v4 = |b: &[u8]| <[u8; 4]>::try_from(b).ok().map(Ipv4Addr::from);
    Some(ArpView {
        reply: arp.operation().0 == 2,
        sender: v4(arp.sender_protocol_addr())?,
        sender_mac: MacAddr(arp.sender_hw_addr().try_into().ok()?),
        target: v4(arp.target_protocol_addr())?,
    })
}
