//! ICMP (RFC 792, RFC 1122): errors that a namespace sends, echo requests that it answers, and what it receives.

use crate::frame::{Frame, Outgoing};
use crate::record::{DropReason, Origin, Socket, Taker, What};
use crate::transit::Place;
use crate::wire::{self, ICMP, Ipv4};
use crate::{FiveTuple, Hooks, Net, NsId, Outcome};
use skep_packet::PacketType;
use std::net::Ipv4Addr;

/// The longest error (RFC 1812 section 4.3.2.3).
const MAX_ERROR: usize = 576;
/// The precedence of errors: internetwork control.
const TOS_ERROR: u8 = 0xc0;

impl Net {
    /// `icmp_send`: an error about a packet, to its source, unless RFC 1122 section 3.2.2 forbids it. The packet
    /// itself is not ended by it.
    pub(crate) fn icmp_error(
        &mut self,
        h: &mut dyn Hooks,
        ns: NsId,
        about: &Frame,
        kind: u8,
        code: u8,
        rest: [u8; 4],
    ) {
        let packet = about.network();
        let Ok(ip) = Ipv4::parse(packet) else { return };
        let to_one = matches!(about.skb.packet_type, PacketType::Host | PacketType::Outgoing);
        let is_error =
            ip.protocol == ICMP && packet.get(ip.header_len).is_none_or(|k| wire::icmp_is_error(*k));
        let source_ok = !(ip.source.is_unspecified()
            || ip.source.is_multicast()
            || ip.source.is_loopback()
            || self.is_broadcast(ns, ip.source));
        let group = ip.destination.is_multicast() || self.is_broadcast(ns, ip.destination);
        if !to_one || is_error || ip.offset != 0 || !source_ok || group {
            return;
        }
        if self.is_local(ns, ip.source) {
            // The sender is this host: the error reaches the socket without a packet.
            if let Some(tuple) = tuple_of(packet) {
                self.flow_error(ns, &tuple, Outcome::Unreachable { kind, code });
            }
            return;
        }
        let source = if self.is_local(ns, ip.destination) {
            Some(ip.destination)
        } else {
            self.source_towards(ns, ip.source)
        };
        let Some(source) = source else { return };
        let quoted = &packet[..ip.total_len.min(MAX_ERROR - wire::IPV4_LEN - 8)];
        let message = wire::icmp(kind, code, rest, quoted);
        let id = self.namespaces.get_mut(&ns).map_or(0, |n| n.ip_id());
        let header = Ipv4 { tos: TOS_ERROR, ..Ipv4::fresh(source, ip.source, ICMP, id) };
        self.send(h, ns, Outgoing { packet: header.emit(&message), partial: None, origin: Origin::Icmp });
    }

    /// `icmp_rcv`, for a packet whose checksum is right.
    pub(crate) fn icmp_input(&mut self, h: &mut dyn Hooks, place: Place, ip: &Ipv4, frame: Frame) {
        let Some(ns) = place.ns else { return };
        let message = ip.payload(frame.network()).to_vec();
        if message.len() < 8 {
            return self.drop_frame(h, place, &frame, DropReason::PktTooSmall);
        }
        match message[0] {
            8 => {
                self.record(h, place, &frame, What::Consumed { by: Taker::Icmp });
                self.echo_reply(h, ns, ip, &message);
            }
            0 => {
                let taken = self.ping_reply(ns, ip.source, wire::be16(&message, 4));
                let what = if taken {
                    What::Delivered { socket: Socket::Ping }
                } else {
                    What::Dropped { reason: DropReason::NoSocket }
                };
                self.record(h, place, &frame, what);
            }
            kind if wire::icmp_is_error(kind) => {
                self.record(h, place, &frame, What::Consumed { by: Taker::Icmp });
                if let Some(tuple) = tuple_of(&message[8..]) {
                    self.flow_error(ns, &tuple, Outcome::Unreachable { kind, code: message[1] });
                }
            }
            _ => self.record(h, place, &frame, What::Consumed { by: Taker::Icmp }),
        }
    }

    fn echo_reply(&mut self, h: &mut dyn Hooks, ns: NsId, ip: &Ipv4, request: &[u8]) {
        // icmp_echo_ignore_broadcasts is set by default.
        if !self.is_local(ns, ip.destination) {
            return;
        }
        let rest = [request[4], request[5], request[6], request[7]];
        let message = wire::icmp(0, 0, rest, &request[8..]);
        let id = self.namespaces.get_mut(&ns).map_or(0, |n| n.ip_id());
        let header = Ipv4 { tos: ip.tos, ..Ipv4::fresh(ip.destination, ip.source, ICMP, id) };
        self.send(h, ns, Outgoing { packet: header.emit(&message), partial: None, origin: Origin::Icmp });
    }
}

/// Whose packet an error quotes: the five-tuple as its sender has it. Eight bytes behind the header are enough. The
/// quoted header may have lost its tail, so that lengths do not count, and nothing here is trusted but for matching.
fn tuple_of(packet: &[u8]) -> Option<FiveTuple> {
    let header_len = usize::from(packet.first()? & 0x0f) * 4;
    if packet[0] >> 4 != 4 || header_len < wire::IPV4_LEN || packet.len() < header_len + 8 {
        return None;
    }
    let protocol = packet[9];
    let (source, destination): (Ipv4Addr, Ipv4Addr) = (wire::address(packet, 12), wire::address(packet, 16));
    let (source_port, destination_port) = match protocol {
        ICMP => (wire::be16(packet, header_len + 4), 0),
        wire::TCP | wire::UDP => (wire::be16(packet, header_len), wire::be16(packet, header_len + 2)),
        _ => return None,
    };
    Some(FiveTuple { protocol, source, source_port, destination, destination_port })
}
