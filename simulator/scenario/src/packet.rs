//! The packets of a `send` step: built from their description, or read from a capture.
//!
//! Built with etherparse. Knows no pod and no device.

use crate::error::Diagnostic;
use crate::schema::{PacketSpec, TcpFlag};
use etherparse::{IcmpEchoHeader, Icmpv4Type, PacketBuilder};
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, PcapError};
use std::net::Ipv4Addr;
use std::path::Path;

/// Time to live of a packet that gives none (RFC 1700's default).
const DEFAULT_TTL: u8 = 64;
/// What a TCP segment of a `send` step offers as window.
const WINDOW: u16 = 65535;
/// Bytes of an Ethernet header.
const ETHERNET_LEN: usize = 14;
/// The first four bytes of a pcapng file (a section header block).
const PCAPNG_MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// The IPv4 packet of a description, headers with correct lengths and checksums.
pub(crate) fn build(spec: &PacketSpec, src: Ipv4Addr, dst: Ipv4Addr) -> Result<Vec<u8>, Diagnostic> {
    let payload = vec![0; usize::from(spec.payload)];
    let ip = PacketBuilder::ipv4(src.octets(), dst.octets(), spec.ttl.unwrap_or(DEFAULT_TTL));
    let mut out = Vec::new();
    let written = match (&spec.tcp, &spec.udp, &spec.icmp) {
        (Some(tcp), None, None) => {
            let mut step = ip.tcp(tcp.sport, tcp.dport, tcp.seq, WINDOW);
            for flag in &tcp.flags {
                step = match flag {
                    TcpFlag::Syn => step.syn(),
                    TcpFlag::Ack => step.ack(tcp.ack),
                    TcpFlag::Fin => step.fin(),
                    TcpFlag::Rst => step.rst(),
                    TcpFlag::Psh => step.psh(),
                };
            }
            step.write(&mut out, &payload)
        }
        (None, Some(udp), None) => ip.udp(udp.sport, udp.dport).write(&mut out, &payload),
        (None, None, Some(icmp)) => {
            let header = IcmpEchoHeader { id: icmp.id, seq: icmp.seq };
            let echo =
                if icmp.reply { Icmpv4Type::EchoReply(header) } else { Icmpv4Type::EchoRequest(header) };
            ip.icmpv4(echo).write(&mut out, &payload)
        }
        _ => return Err(Diagnostic::new("a packet has exactly one of tcp, udp and icmp")),
    };
    match written {
        Ok(()) => Ok(out),
        Err(e) => Err(Diagnostic::new(format!("the packet cannot be built: {e}"))),
    }
}

/// The IP packets of a pcap or pcapng file, in its order. Frames that hold no IP are left out.
pub(crate) fn read_capture(path: &Path) -> Result<Vec<Vec<u8>>, Diagnostic> {
    let bytes = std::fs::read(path)
        .map_err(|e| Diagnostic::new(format!("cannot be read: {e}")).in_file(path).help("check the path"))?;
    let broken = |e: PcapError| {
        Diagnostic::new(format!("is no capture: {e}"))
            .in_file(path)
            .help("give a pcap or pcapng file of Ethernet frames or raw IP packets")
    };
    let packets = if bytes.starts_with(&PCAPNG_MAGIC) { pcapng(&bytes) } else { pcap(&bytes) };
    let packets = packets.map_err(broken)?;
    if packets.is_empty() {
        return Err(Diagnostic::new("holds no IP packet")
            .in_file(path)
            .help("give a capture of Ethernet frames or raw IP packets"));
    }
    Ok(packets)
}

fn pcap(bytes: &[u8]) -> Result<Vec<Vec<u8>>, PcapError> {
    let mut reader = PcapReader::new(bytes)?;
    let link = reader.header().datalink;
    let mut packets = Vec::new();
    while let Some(packet) = reader.next_packet() {
        packets.extend(ip_of(link, &packet?.data));
    }
    Ok(packets)
}

fn pcapng(bytes: &[u8]) -> Result<Vec<Vec<u8>>, PcapError> {
    let mut reader = PcapNgReader::new(bytes)?;
    let (mut links, mut packets) = (Vec::new(), Vec::new());
    while let Some(block) = reader.next_block() {
        match block? {
            Block::SectionHeader(_) => links.clear(),
            Block::InterfaceDescription(interface) => links.push(interface.linktype),
            Block::EnhancedPacket(packet) => {
                if let Some(link) = links.get(packet.interface_id as usize) {
                    packets.extend(ip_of(*link, &packet.data));
                }
            }
            _ => {}
        }
    }
    Ok(packets)
}

/// The IP packet in a captured frame.
fn ip_of(link: DataLink, data: &[u8]) -> Option<Vec<u8>> {
    let ip = match link {
        DataLink::ETHERNET => match data.get(12..ETHERNET_LEN)? {
            [0x08, 0x00] | [0x86, 0xdd] => &data[ETHERNET_LEN..],
            _ => return None,
        },
        DataLink::RAW | DataLink::IPV4 | DataLink::IPV6 => data,
        _ => return None,
    };
    (!ip.is_empty()).then(|| ip.to_vec())
}
