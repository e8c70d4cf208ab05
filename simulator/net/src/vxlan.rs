//! The VXLAN device with collect_md (RFC 7348, `drivers/net/vxlan/vxlan_core.c`): where to is told by each packet's
//! tunnel metadata, and what arrives carries them.

use crate::frame::Frame;
use crate::record::{DropReason, What};
use crate::transit::Place;
use crate::wire::{self, ETH_LEN, ETHERTYPE_IPV4, Ipv4, UDP, UDP_LEN};
use crate::{DeviceKind, Hooks, IfIndex, Net, NodeId, NsId};
use skep_packet::{Checksum, Tunnel};
use std::net::Ipv4Addr;

const VXLAN_LEN: usize = 8;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const IPV6_LEN: usize = 40;
/// The I flag: the network identifier is valid.
const FLAG_VNI: u8 = 0x08;
/// TUNNEL_DONT_FRAGMENT and TUNNEL_KEY.
const TUNNEL_DONT_FRAGMENT: u16 = 0x0100;
const TUNNEL_KEY: u16 = 0x0004;
/// The source ports, as net.ipv4.ip_local_port_range has them by default.
const PORTS: std::ops::RangeInclusive<u16> = 32768..=60999;

/// `udp_flow_src_port`.
pub(crate) fn source_port(hash: u32) -> u16 {
    // The kernel mixes the halves, as few bits of the hash would decide otherwise.
    let hash = hash ^ (hash << 16);
    let span = u64::from(PORTS.end() - PORTS.start());
    ((u64::from(hash) * span) >> 32) as u16 + PORTS.start()
}

impl Net {
    /// `vxlan_xmit_one` with metadata: into UDP, and out by the routes of the device's namespace.
    pub(crate) fn vxlan_xmit(
        &mut self,
        h: &mut dyn Hooks,
        node: NodeId,
        ifindex: IfIndex,
        port: u16,
        mut frame: Frame,
    ) {
        let place = self.place(node, ifindex);
        let Some(ns) = place.ns else { return };
        let Some(tunnel) = frame.skb.tunnel.take().filter(|t| t.transmit) else {
            return self.drop_frame(h, place, &frame, DropReason::TunnelTxInfo);
        };
        let destination = Ipv4Addr::from(tunnel.remote);
        if frame.skb.len() + wire::IPV4_LEN + UDP_LEN + VXLAN_LEN > usize::from(u16::MAX) {
            return self.drop_frame(h, place, &frame, DropReason::PktTooBig);
        }
        let Some(source) = self.outer_source(ns, &tunnel) else {
            return self.drop_frame(h, place, &frame, DropReason::IpOutNoRoutes);
        };
        let hash = frame.skb.hash.unwrap_or_else(|| wire::flow_hash(frame.skb.bytes(), self.hash_seed));
        let vni = tunnel.id & 0x00ff_ffff;
        let what = What::Encapsulated {
            vni,
            source,
            destination,
            source_port: source_port(hash),
            destination_port: port,
        };
        let id = self.namespaces.get_mut(&ns).map_or(0, |n| n.ip_id());
        let outer = outer_headers(&frame, &tunnel, (source, destination), (source_port(hash), port), id);
        frame.skb.push(&outer);
        frame.scrub(false);
        frame.enter_stack();
        frame.skb.hash = Some(hash);
        frame.skb.protocol = ETHERTYPE_IPV4;
        self.record(h, place, &frame, what);
        self.ip_output(h, ns, frame);
    }

    fn outer_source(&self, ns: NsId, tunnel: &Tunnel) -> Option<Ipv4Addr> {
        let local = Ipv4Addr::from(tunnel.local);
        let remote = Ipv4Addr::from(tunnel.remote);
        if self.is_local(ns, remote) {
            return Some(if local.is_unspecified() { remote } else { local });
        }
        let route = self.route(ns, remote)?;
        if local.is_unspecified() { self.source_address(ns, &route) } else { Some(local) }
    }

    /// The VXLAN device of a namespace that listens at this port, if it is up.
    pub(crate) fn vxlan_at(&self, ns: NsId, port: u16) -> Option<IfIndex> {
        self.devices_in(ns)
            .find(|(_, d)| d.up && d.kind == DeviceKind::Vxlan { port })
            .map(|(ifindex, _)| ifindex)
    }

    /// `vxlan_rcv`: out of UDP; the inner frame arrives at the device.
    pub(crate) fn vxlan_rcv(
        &mut self,
        h: &mut dyn Hooks,
        place: Place,
        ifindex: IfIndex,
        ip: &Ipv4,
        mut frame: Frame,
    ) {
        let Some(node) = place.node else { return };
        let payload = ip.payload(frame.network());
        let (source_port, destination_port) = (wire::be16(payload, 0), wire::be16(payload, 2));
        let Some(header) = payload.get(UDP_LEN..UDP_LEN + VXLAN_LEN) else {
            return self.drop_frame(h, place, &frame, DropReason::PktTooSmall);
        };
        // With collect_md all flags but I must be clear (vxlan_rcv: "unparsed"), and so must the reserved bytes.
        if header[0] != FLAG_VNI || header[1..4] != [0, 0, 0] || header[7] != 0 {
            return self.drop_frame(h, place, &frame, DropReason::VxlanInvalidHdr);
        }
        let vni = wire::be32(header, 4) >> 8;
        let end = ETH_LEN + ip.total_len;
        frame.skb.trim(end);
        let what = What::Decapsulated {
            vni,
            source: ip.source,
            destination: ip.destination,
            source_port,
            destination_port,
        };
        frame.skb.pull(ETH_LEN + ip.header_len + UDP_LEN + VXLAN_LEN);
        let inside = Place { ifindex: Some(ifindex), ..place };
        if frame.skb.len() < ETH_LEN {
            return self.drop_frame(h, inside, &frame, DropReason::PktTooSmall);
        }
        // pskb_inet_may_pull: an IP header must be whole.
        let network = match wire::be16(frame.skb.bytes(), 12) {
            ETHERTYPE_IPV4 => wire::IPV4_LEN,
            ETHERTYPE_IPV6 => IPV6_LEN,
            _ => 0,
        };
        if frame.skb.len() < ETH_LEN + network {
            return self.drop_frame(h, inside, &frame, DropReason::PktTooSmall);
        }
        // vxlan_set_mac.
        if self.nodes[node.0 as usize]
            .devices
            .get(&ifindex)
            .is_some_and(|d| d.mac == wire::mac(frame.skb.bytes(), 6))
        {
            return self.drop_frame(h, inside, &frame, DropReason::LocalMac);
        }
        // skb_scrub_packet within the namespace, then the metadata. What the card verified was the outer checksum.
        frame.scrub(false);
        if frame.skb.checksum == Checksum::Unnecessary {
            frame.skb.checksum = Checksum::None;
        }
        frame.skb.hash = None;
        frame.skb.tunnel = Some(Tunnel {
            id: vni,
            local: ip.destination.octets(),
            remote: ip.source.octets(),
            tos: ip.tos,
            ttl: ip.ttl,
            flags: TUNNEL_KEY,
            transmit: false,
        });
        self.record(h, inside, &frame, what);
        self.receive(h, node, ifindex, frame);
    }
}

/// Ethernet (blank), IPv4, UDP without a checksum and VXLAN, to be put before the frame.
fn outer_headers(
    frame: &Frame,
    tunnel: &Tunnel,
    (source, destination): (Ipv4Addr, Ipv4Addr),
    (source_port, destination_port): (u16, u16),
    id: u16,
) -> Vec<u8> {
    let mut vxlan = vec![FLAG_VNI, 0, 0, 0];
    vxlan.extend_from_slice(&((tunnel.id & 0x00ff_ffff) << 8).to_be_bytes());
    let inner = frame.skb.len();
    let mut udp = wire::udp(source_port, destination_port, &vxlan);
    udp[4..6].copy_from_slice(&((UDP_LEN + VXLAN_LEN + inner) as u16).to_be_bytes());
    // ip_tunnel_ecn_encap (RFC 6040): the inner ECN field shows outside; CE does not, it shows as ECT(0).
    let inner_ecn = match wire::be16(frame.skb.bytes(), 12) {
        ETHERTYPE_IPV4 => frame.network().get(1).copied().unwrap_or(0) & 3,
        _ => 0,
    };
    let mut header = Ipv4::fresh(source, destination, UDP, id);
    header.tos = (tunnel.tos & !3) | if inner_ecn == 3 { 2 } else { inner_ecn };
    header.ttl = if tunnel.ttl == 0 { 64 } else { tunnel.ttl };
    header.dont_fragment = tunnel.flags & TUNNEL_DONT_FRAGMENT != 0;
    let mut packet = header.emit(&udp);
    packet[2..4].copy_from_slice(&((wire::IPV4_LEN + UDP_LEN + VXLAN_LEN + inner) as u16).to_be_bytes());
    wire::fix_ipv4_checksum(&mut packet);
    let mut outer = wire::ethernet([0; 6], [0; 6], ETHERTYPE_IPV4).to_vec();
    outer.extend_from_slice(&packet);
    outer
}
