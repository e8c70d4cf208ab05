//! Packets for this host: put together, verified, and given to a socket, the VXLAN device or the ICMP layer
//! (`ip_local_deliver`, `udp_rcv`, `tcp_v4_rcv`).

use crate::frame::{Frame, Outgoing};
use crate::host::TcpMatch;
use crate::record::{DropReason, Origin, Socket, What};
use crate::transit::Place;
use crate::wire::{self, ICMP, Ipv4, TCP, UDP, UDP_LEN};
use crate::{Hooks, Net, NsId};
use skep_packet::Checksum;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

impl Net {
    /// `ip_local_deliver`.
    pub(crate) fn local_input(&mut self, h: &mut dyn Hooks, place: Place, ip: Ipv4, frame: Frame) {
        let Some(ns) = place.ns else { return };
        let (ip, frame) = if ip.is_fragment() {
            let Some(whole) = self.reassemble(h, place, &ip, frame) else { return };
            match Ipv4::parse(whole.network()) {
                Ok(ip) => (ip, whole),
                Err(reason) => return self.drop_frame(h, place, &whole, reason),
            }
        } else {
            (ip, frame)
        };
        let verified = matches!(frame.skb.checksum, Checksum::Unnecessary | Checksum::Partial { .. });
        let checksum_ok = verified || wire::transport_checksum_ok(&ip, frame.network());
        match ip.protocol {
            ICMP if checksum_ok => self.icmp_input(h, place, &ip, frame),
            ICMP => self.drop_frame(h, place, &frame, DropReason::IcmpCsum),
            UDP => self.udp_input(h, place, &ip, checksum_ok, frame),
            TCP => self.tcp_input(h, place, &ip, checksum_ok, frame),
            _ => {
                self.icmp_error(h, ns, &frame, 3, 2, [0; 4]);
                self.drop_frame(h, place, &frame, DropReason::IpNoProto);
            }
        }
    }

    fn udp_input(&mut self, h: &mut dyn Hooks, place: Place, ip: &Ipv4, checksum_ok: bool, frame: Frame) {
        let Some(ns) = place.ns else { return };
        let datagram = ip.payload(frame.network());
        let length = usize::from(wire::be16(datagram, 4));
        if datagram.len() < UDP_LEN || length < UDP_LEN || length > datagram.len() {
            return self.drop_frame(h, place, &frame, DropReason::PktTooSmall);
        }
        if !checksum_ok {
            return self.drop_frame(h, place, &frame, DropReason::UdpCsum);
        }
        let (source_port, port) = (wire::be16(datagram, 0), wire::be16(datagram, 2));
        let payload = datagram[UDP_LEN..length].to_vec();
        if let Some(device) = self.vxlan_at(ns, port) {
            return self.vxlan_rcv(h, place, device, ip, frame);
        }
        if self.udp_flow_input(ns, (ip.source, source_port), (ip.destination, port), &payload) {
            return self.record(h, place, &frame, What::Delivered { socket: Socket::Udp });
        }
        if self.echoes_udp(ns, port) && self.is_local(ns, ip.destination) {
            self.record(h, place, &frame, What::Delivered { socket: Socket::Udp });
            if !self.anyone_echoes_udp(source_port) {
                self.send_udp(h, ns, (ip.destination, port), (ip.source, source_port), &payload);
            }
            return;
        }
        if !self.is_local(ns, ip.destination) {
            // __udp4_lib_mcast_deliver gives no reason, and who sent to many hears nothing.
            return self.drop_frame(h, place, &frame, DropReason::NotSpecified);
        }
        self.icmp_error(h, ns, &frame, 3, 3, [0; 4]);
        self.drop_frame(h, place, &frame, DropReason::NoSocket);
    }

    fn tcp_input(&mut self, h: &mut dyn Hooks, place: Place, ip: &Ipv4, checksum_ok: bool, frame: Frame) {
        let Some(ns) = place.ns else { return };
        let packet = &frame.network()[..ip.total_len];
        let segment = ip.payload(packet);
        let header_len = segment.get(12).map_or(0, |b| usize::from(b >> 4) * 4);
        if header_len < 20 || segment.len() < header_len {
            return self.drop_frame(h, place, &frame, DropReason::PktTooSmall);
        }
        if !checksum_ok {
            return self.drop_frame(h, place, &frame, DropReason::TcpCsum);
        }
        let (source_port, port) = (wire::be16(segment, 0), wire::be16(segment, 2));
        let flags = segment[13];
        // tcp_v4_rcv: only what was sent to one host.
        if !self.is_local(ns, ip.destination) {
            return self.drop_frame(h, place, &frame, DropReason::NotSpecified);
        }
        let only_syn = flags & (SYN | ACK | RST | FIN) == SYN;
        let found = match self.namespaces.get(&ns).and_then(|n| n.host.as_ref()) {
            Some(host) => host.match_tcp((ip.source, source_port), (ip.destination, port), only_syn),
            None => TcpMatch::None,
        };
        match found {
            TcpMatch::Socket => {
                let packet = packet.to_vec();
                self.record(h, place, &frame, What::Delivered { socket: Socket::Tcp });
                self.host_input(h, ns, (ip.source, source_port), (ip.destination, port), packet);
            }
            TcpMatch::Listener | TcpMatch::None => {
                // A listener takes nothing but a SYN, and resets only what acknowledges (tcp_rcv_state_process).
                let (reason, answered) = match found {
                    TcpMatch::Listener if flags & ACK != 0 => (DropReason::TcpFlags, true),
                    TcpMatch::Listener if flags & RST != 0 => (DropReason::TcpReset, false),
                    TcpMatch::Listener => (DropReason::TcpFlags, false),
                    _ => (DropReason::NoSocket, true),
                };
                let reset = (answered && flags & RST == 0).then(|| reset(ip, segment, header_len));
                self.drop_frame(h, place, &frame, reason);
                if let Some(segment) = reset {
                    self.send_reset(h, ns, ip, &segment);
                }
            }
        }
    }

    fn send_reset(&mut self, h: &mut dyn Hooks, ns: NsId, ip: &Ipv4, segment: &[u8]) {
        let header = Ipv4 { dont_fragment: true, ..Ipv4::fresh(ip.destination, ip.source, TCP, 0) };
        let mut packet = header.emit(segment);
        let partial = wire::start_checksum(&mut packet);
        self.send(h, ns, Outgoing { packet, partial, origin: Origin::Reset });
    }
}

/// The reset for a segment (RFC 9293 section 3.10.7.1), without its checksum.
fn reset(ip: &Ipv4, segment: &[u8], header_len: usize) -> Vec<u8> {
    let flags = segment[13];
    let (sequence, acknowledgement, reply_flags) = if flags & ACK != 0 {
        (wire::be32(segment, 8), 0, RST)
    } else {
        let data = (ip.total_len - ip.header_len - header_len) as u32;
        let length = data + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        (0, wire::be32(segment, 4).wrapping_add(length), RST | ACK)
    };
    let mut reply = Vec::with_capacity(20);
    reply.extend_from_slice(&segment[2..4]);
    reply.extend_from_slice(&segment[0..2]);
    reply.extend_from_slice(&sequence.to_be_bytes());
    reply.extend_from_slice(&acknowledgement.to_be_bytes());
    reply.extend_from_slice(&[5 << 4, reply_flags, 0, 0, 0, 0, 0, 0]);
    reply
}
