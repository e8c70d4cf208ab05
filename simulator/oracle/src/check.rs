//! Whether a frame is what the RFCs say a frame is: lengths, checksums, what may not stand in a header. Parses with
//! etherparse, shares no code with the programs or with the simulator's packet crate.

use std::fmt;
use std::net::Ipv4Addr;

use etherparse::checksum::Sum16BitWords;
use etherparse::{EtherType, Ethernet2Slice, IpNumber, Ipv4HeaderSlice, TcpSlice, UdpHeader};

/// VXLAN's port as Linux and Cilium have it; the one that IANA gave is 4789.
pub const VXLAN_PORT: u16 = 8472;

/// The shortest Ethernet frame without its checksum: shorter payloads may be padded up to it.
const ETHERNET_MIN_LEN: usize = 60;

/// A rule that a frame breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The layer and its rule, as `ipv4 checksum`.
    pub rule: &'static str,
    /// What was found and what should be.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.detail)
    }
}

/// Whether TCP's and UDP's checksums must be right already. Before the device that leaves a machine they may be
/// partial: only the pseudo header's sum stands there (Linux's CHECKSUM_PARTIAL).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksums {
    /// Of the whole segment.
    Complete,
    /// Of the pseudo header, or of the whole segment.
    PartialAllowed,
}

/// A VXLAN packet's parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vxlan<'a> {
    /// The outer source.
    pub source: Ipv4Addr,
    /// The outer destination.
    pub destination: Ipv4Addr,
    /// The network identifier, 24 bits; between skep's nodes the source's identity.
    pub vni: u32,
    /// The frame inside, from its Ethernet header.
    pub inner: &'a [u8],
}

type Found = Vec<Violation>;

/// Checks a frame from its Ethernet header, with complete checksums.
pub fn frame(bytes: &[u8]) -> Result<(), Vec<Violation>> {
    frame_with(bytes, Checksums::Complete)
}

/// Checks a frame from its Ethernet header.
pub fn frame_with(bytes: &[u8], checksums: Checksums) -> Result<(), Vec<Violation>> {
    let mut found = Found::new();
    match Ethernet2Slice::from_slice_without_fcs(bytes) {
        Ok(ethernet) => {
            if ethernet.source()[0] & 1 != 0 {
                fail(
                    &mut found,
                    "ethernet source",
                    format!("{:02x?} is a group's address", ethernet.source()),
                );
            }
            let payload = ethernet.payload_slice();
            match ethernet.ether_type() {
                EtherType::IPV4 => packet(payload, bytes.len(), checksums, &mut found),
                EtherType::ARP => arp(payload, ethernet.source(), bytes.len(), &mut found),
                _ => {}
            }
        }
        Err(error) => fail(&mut found, "ethernet length", error),
    }
    if found.is_empty() { Ok(()) } else { Err(found) }
}

/// Checks an IPv4 packet from its IP header.
pub fn ipv4(bytes: &[u8], checksums: Checksums) -> Result<(), Vec<Violation>> {
    let mut found = Found::new();
    packet(bytes, usize::MAX, checksums, &mut found);
    if found.is_empty() { Ok(()) } else { Err(found) }
}

/// Checks a frame that carries VXLAN over UDP over IPv4 (RFC 7348), and the frame inside it, and returns its parts.
pub fn vxlan(bytes: &[u8], inner: Checksums) -> Result<Vxlan<'_>, Vec<Violation>> {
    frame(bytes)?;
    let (parts, mut found) = open_vxlan(bytes).map_err(|violation| vec![violation])?;
    if let Err(inside) = frame_with(parts.inner, inner) {
        let inside =
            inside.into_iter().map(|v| Violation { detail: format!("inside VXLAN: {}", v.detail), ..v });
        found.extend(inside);
    }
    if found.is_empty() { Ok(parts) } else { Err(found) }
}

/// Takes VXLAN apart; violations that do not prevent that are returned beside.
fn open_vxlan(bytes: &[u8]) -> Result<(Vxlan<'_>, Found), Violation> {
    let rule = "vxlan";
    let no = |detail: &str| Violation { rule, detail: detail.to_owned() };
    let ethernet = Ethernet2Slice::from_slice_without_fcs(bytes).map_err(|_| no("no Ethernet frame"))?;
    if ethernet.ether_type() != EtherType::IPV4 {
        return Err(no("the outer packet is not IPv4"));
    }
    let payload = ethernet.payload_slice();
    let ip = Ipv4HeaderSlice::from_slice(payload).map_err(|_| no("no IPv4 header"))?;
    if ip.protocol() != IpNumber::UDP || ip.is_fragmenting_payload() {
        return Err(no("the outer packet is not whole UDP"));
    }
    let udp = payload.get(ip.slice().len()..usize::from(ip.total_len())).ok_or_else(|| no("cut short"))?;
    let (header, data) = UdpHeader::from_slice(udp).map_err(|_| no("no UDP header"))?;
    let (vxlan, inner) = data.split_at_checked(8).ok_or_else(|| no("shorter than its header of 8 bytes"))?;
    let mut found = Found::new();
    if header.destination_port != VXLAN_PORT {
        fail(&mut found, "vxlan port", format!("{} is not {VXLAN_PORT}", header.destination_port));
    }
    // What Linux sends over IPv4 unless told otherwise: the inner checksums protect the payload.
    if header.checksum != 0 {
        fail(&mut found, "vxlan udp checksum", format!("{:#06x} is not zero", header.checksum));
    }
    if vxlan[0] != 0x08 {
        fail(&mut found, "vxlan flags", format!("{:#04x}: only the I flag, 0x08, may be set", vxlan[0]));
    }
    if vxlan[1..4] != [0; 3] || vxlan[7] != 0 {
        fail(&mut found, "vxlan reserved bits", format!("{vxlan:02x?}: not zero"));
    }
    let vni = u32::from_be_bytes([0, vxlan[4], vxlan[5], vxlan[6]]);
    Ok((Vxlan { source: ip.source_addr(), destination: ip.destination_addr(), vni, inner }, found))
}

fn fail(found: &mut Found, rule: &'static str, detail: impl fmt::Display) {
    found.push(Violation { rule, detail: detail.to_string() });
}

/// `frame_len` is the whole frame's length, for Ethernet's padding.
fn packet(bytes: &[u8], frame_len: usize, checksums: Checksums, found: &mut Found) {
    let ip = match Ipv4HeaderSlice::from_slice(bytes) {
        Ok(ip) => ip,
        Err(error) => return fail(found, "ipv4 header", error),
    };
    let (header_len, total_len) = (ip.slice().len(), usize::from(ip.total_len()));
    let sum = Sum16BitWords::new().add_slice(ip.slice()).ones_complement();
    if sum != 0 {
        let right = ip.to_header().calc_header_checksum();
        fail(found, "ipv4 checksum", format!("{:#06x} is not {right:#06x}", ip.header_checksum()));
    }
    if ip.ttl() == 0 {
        fail(found, "ipv4 ttl", "0 on the wire");
    }
    if ip.source_addr().is_multicast() || ip.source_addr().is_broadcast() {
        fail(found, "ipv4 source", format!("{} is a group's address", ip.source_addr()));
    }
    if ip.slice()[6] & 0x80 != 0 {
        fail(found, "ipv4 flags", "the reserved bit is set");
    }
    if total_len < header_len || total_len > bytes.len() {
        let detail = format!("total length {total_len} of {} bytes, header {header_len}", bytes.len());
        return fail(found, "ipv4 length", detail);
    }
    if total_len < bytes.len() && frame_len > ETHERNET_MIN_LEN {
        fail(found, "ipv4 length", format!("{} bytes behind the packet", bytes.len() - total_len));
    }
    // A fragment has no whole segment to check.
    if ip.is_fragmenting_payload() {
        return;
    }
    let payload = &bytes[header_len..total_len];
    match ip.protocol() {
        IpNumber::TCP => tcp(payload, &ip, checksums, found),
        IpNumber::UDP => udp(payload, &ip, checksums, found),
        IpNumber::ICMP => icmp(payload, found),
        _ => {}
    }
}

/// Whether a segment's checksum is right (RFC 1071 over the pseudo header and the segment), or partial where it may be.
/// `at` is where it stands. etherparse sums words as they lie in memory; `to_be` makes a number of one.
fn segment_sum(
    payload: &[u8],
    at: usize,
    ip: &Ipv4HeaderSlice<'_>,
    checksums: Checksums,
) -> Result<(), String> {
    let len = u16::try_from(payload.len()).unwrap_or(u16::MAX);
    let pseudo = || {
        Sum16BitWords::new()
            .add_slice(&ip.source())
            .add_slice(&ip.destination())
            .add_2bytes([0, ip.protocol().0])
            .add_2bytes(len.to_be_bytes())
    };
    if pseudo().add_slice(payload).ones_complement() == 0 {
        return Ok(());
    }
    let there = u16::from_be_bytes([payload[at], payload[at + 1]]);
    // The kernel leaves the folded sum there, not its complement.
    if checksums == Checksums::PartialAllowed && there == (!pseudo().ones_complement()).to_be() {
        return Ok(());
    }
    let mut zeroed = payload.to_vec();
    zeroed[at..at + 2].fill(0);
    let right = pseudo().add_slice(&zeroed).ones_complement().to_be();
    Err(format!("{there:#06x} is not {right:#06x}"))
}

fn tcp(payload: &[u8], ip: &Ipv4HeaderSlice<'_>, checksums: Checksums, found: &mut Found) {
    let tcp = match TcpSlice::from_slice(payload) {
        Ok(tcp) => tcp,
        Err(error) => return fail(found, "tcp header", error),
    };
    if let Err(detail) = segment_sum(payload, 16, ip, checksums) {
        fail(found, "tcp checksum", detail);
    }
    if tcp.source_port() == 0 || tcp.destination_port() == 0 {
        fail(found, "tcp port", format!("{} -> {}", tcp.source_port(), tcp.destination_port()));
    }
    if tcp.syn() && (tcp.fin() || tcp.rst()) {
        fail(found, "tcp flags", "SYN together with FIN or RST");
    }
    if !tcp.syn() && !tcp.ack() && !tcp.rst() {
        fail(found, "tcp flags", "neither SYN, ACK nor RST");
    }
    if tcp.options_iterator().any(|option| option.is_err()) {
        fail(found, "tcp options", format!("{:02x?} cannot be read", tcp.options()));
    }
}

fn udp(payload: &[u8], ip: &Ipv4HeaderSlice<'_>, checksums: Checksums, found: &mut Found) {
    let header = match UdpHeader::from_slice(payload) {
        Ok((header, _)) => header,
        Err(error) => return fail(found, "udp header", error),
    };
    if usize::from(header.length) != payload.len() {
        return fail(found, "udp length", format!("{} in a packet with {}", header.length, payload.len()));
    }
    if header.destination_port == 0 {
        fail(found, "udp port", "the destination's is 0");
    }
    // Over IPv4 zero says that there is none (RFC 768).
    if header.checksum != 0
        && let Err(detail) = segment_sum(payload, 6, ip, checksums)
    {
        fail(found, "udp checksum", detail);
    }
}

fn icmp(payload: &[u8], found: &mut Found) {
    let Some(kind) = payload.first().filter(|_| payload.len() >= 8) else {
        return fail(found, "icmp length", format!("{} bytes, the header has 8", payload.len()));
    };
    if Sum16BitWords::new().add_slice(payload).ones_complement() != 0 {
        fail(found, "icmp checksum", format!("{:02x}{:02x} is wrong", payload[2], payload[3]));
    }
    // Errors carry the header of what caused them and 8 bytes of it (RFC 792).
    let is_error = matches!(kind, 3 | 4 | 5 | 11 | 12);
    if is_error {
        match Ipv4HeaderSlice::from_slice(&payload[8..]) {
            Ok(inner) => {
                let header = inner.slice().len();
                let wanted = usize::from(inner.total_len()).saturating_sub(header).min(8);
                if payload.len() < 8 + header + wanted {
                    fail(
                        found,
                        "icmp embedded packet",
                        format!("fewer than {wanted} bytes behind its header"),
                    );
                }
            }
            Err(error) => fail(found, "icmp embedded packet", error),
        }
    }
}

/// ARP for IPv4 over Ethernet (RFC 826).
fn arp(payload: &[u8], source: [u8; 6], frame_len: usize, found: &mut Found) {
    const LEN: usize = 28;
    let Some(arp) = payload.get(..LEN) else {
        return fail(found, "arp length", format!("{} bytes, it has {LEN}", payload.len()));
    };
    if payload.len() > LEN && frame_len > ETHERNET_MIN_LEN {
        fail(found, "arp length", format!("{} bytes behind it", payload.len() - LEN));
    }
    if arp[..6] != [0, 1, 8, 0, 6, 4] {
        fail(found, "arp types", format!("{:02x?}: not IPv4 over Ethernet", &arp[..6]));
    }
    if !matches!(arp[6..8], [0, 1 | 2]) {
        fail(found, "arp operation", format!("{:02x?}: neither request nor reply", &arp[6..8]));
    }
    if arp[8..14] != source {
        fail(found, "arp sender", format!("{:02x?} in a frame from {source:02x?}", &arp[8..14]));
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    fn rules(result: Result<(), Vec<Violation>>) -> Vec<&'static str> {
        result.err().unwrap_or_default().iter().map(|v| v.rule).collect()
    }

    fn ethernet() -> etherparse::PacketBuilderStep<etherparse::Ethernet2Header> {
        PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
    }

    fn tcp_frame() -> Vec<u8> {
        let builder = ethernet().ipv4([10, 42, 1, 80], [10, 42, 0, 51], 64).tcp(40000, 80, 7, 1000).syn();
        let mut bytes = Vec::new();
        builder.write(&mut bytes, b"hello").unwrap();
        bytes
    }

    fn udp_frame(port: u16, payload: &[u8]) -> Vec<u8> {
        let builder = ethernet().ipv4([192, 168, 1, 12], [192, 168, 1, 13], 64).udp(50000, port);
        let mut bytes = Vec::new();
        builder.write(&mut bytes, payload).unwrap();
        bytes
    }

    #[test]
    fn good_frames_pass() {
        assert_eq!(frame(&tcp_frame()), Ok(()));
        assert_eq!(frame(&udp_frame(53, b"abc")), Ok(()));
        let mut icmp = Vec::new();
        let builder = ethernet().ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).icmpv4_echo_request(1, 2);
        builder.write(&mut icmp, b"x").unwrap();
        assert_eq!(frame(&icmp), Ok(()));
        icmp[35] ^= 1;
        assert_eq!(rules(frame(&icmp)), ["icmp checksum"]);
    }

    #[test]
    fn each_damage_is_named() {
        for (at, rule) in
            [(24, "ipv4 checksum"), (33, "ipv4 checksum"), (50, "tcp checksum"), (54, "tcp checksum")]
        {
            let mut bytes = tcp_frame();
            bytes[at] ^= 0x55;
            assert!(rules(frame(&bytes)).contains(&rule), "{at}: {:?}", frame(&bytes));
        }
        let mut long = tcp_frame();
        long.extend([0; 20]);
        assert_eq!(rules(frame(&long)), ["ipv4 length"]);
        let short = &tcp_frame()[..50];
        assert_eq!(rules(frame(short)), ["ipv4 length"]);
        assert_eq!(rules(frame(&[0; 10])), ["ethernet length"]);
        let mut flags = tcp_frame();
        flags[47] |= 0x01;
        assert_eq!(rules(frame(&flags)), ["tcp checksum", "tcp flags"]);
        let mut group = tcp_frame();
        group[6] |= 1;
        assert_eq!(rules(frame(&group)), ["ethernet source"]);
        let mut zero = udp_frame(53, b"abc");
        zero[40..42].fill(0);
        assert_eq!(frame(&zero), Ok(()));
    }

    #[test]
    fn a_partial_checksum_passes_only_where_it_may() {
        let mut bytes = tcp_frame();
        let segment = u32::try_from(bytes.len() - 34).unwrap();
        let words = bytes[26..34].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
        let mut sum: u32 = words.sum::<u32>() + 6 + segment;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        bytes[50..52].copy_from_slice(&u16::try_from(sum).unwrap().to_be_bytes());
        assert_eq!(rules(frame(&bytes)), ["tcp checksum"]);
        assert_eq!(frame_with(&bytes, Checksums::PartialAllowed), Ok(()));
        bytes[60 - 2] ^= 1;
        assert_eq!(frame_with(&bytes, Checksums::PartialAllowed), Ok(()), "the payload is not summed yet");
        bytes[50] ^= 1;
        assert_eq!(rules(frame_with(&bytes, Checksums::PartialAllowed)), ["tcp checksum"]);
    }

    #[test]
    fn vxlan_is_opened_and_checked() {
        let inner = tcp_frame();
        let header = [8, 0, 0, 0, 0, 1, 2, 0];
        let mut outer = udp_frame(VXLAN_PORT, &[&header[..], &inner].concat());
        outer[40..42].fill(0);
        let parts = vxlan(&outer, Checksums::Complete).unwrap();
        assert_eq!((parts.vni, parts.inner), (0x0102, &inner[..]));
        assert_eq!(parts.destination, Ipv4Addr::new(192, 168, 1, 13));

        for (at, value, rule) in [
            (42, 0x0c, "vxlan flags"),
            (43, 1, "vxlan reserved bits"),
            (49, 1, "vxlan reserved bits"),
            (37, 0xb5, "vxlan port"),
            (50 + 24, 0xff, "ipv4 checksum"),
        ] {
            let mut bad = outer.clone();
            bad[at] = value;
            let found = vxlan(&bad, Checksums::Complete).unwrap_err();
            assert_eq!(found.iter().map(|v| v.rule).collect::<Vec<_>>(), [rule], "{found:?}");
        }
        let mut summed = outer.clone();
        summed[40..42].fill(0x11);
        assert!(vxlan(&summed, Checksums::Complete).is_err());
    }

    #[test]
    fn arp_is_checked() {
        let mut bytes = [[0xff; 6].as_slice(), &[2, 0, 0, 0, 0, 1], &[8, 6]].concat();
        bytes.extend([0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2]);
        assert_eq!(frame(&bytes), Ok(()));
        bytes[22] = 4;
        assert_eq!(rules(frame(&bytes)), ["arp sender"]);
        assert_eq!(rules(frame(&bytes[..30])), ["arp length"]);
    }
}
