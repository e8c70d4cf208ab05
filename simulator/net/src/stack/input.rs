//! IPv4 packets that a device received: checked, then for this host or to be forwarded (`ip_input.c`, `route.c`,
//! `ip_forward.c`).

use crate::frame::Frame;
use crate::record::{DropReason, What};
use crate::transit::Place;
use crate::wire::{ETH_LEN, Ipv4};
use crate::{Hooks, IfIndex, Net, NsId, Route};
use skep_packet::PacketType;
use std::net::Ipv4Addr;

/// What the routing of a received packet says.
enum Input {
    Local,
    Forward(Route),
    /// No route, with forwarding on: the sender is told.
    Unreachable,
    Refused(DropReason),
}

impl Net {
    /// `ip_rcv`.
    pub(crate) fn ip_input(&mut self, h: &mut dyn Hooks, ns: NsId, ifindex: IfIndex, mut frame: Frame) {
        let place = self.place_in(ns, Some(ifindex));
        if frame.skb.packet_type == PacketType::OtherHost {
            return self.drop_frame(h, place, &frame, DropReason::OtherHost);
        }
        let ip = match Ipv4::parse(frame.network()) {
            Ok(ip) => ip,
            Err(reason) => return self.drop_frame(h, place, &frame, reason),
        };
        frame.enter_stack();
        frame.skb.trim(ETH_LEN + ip.total_len);
        match self.route_input(ns, ifindex, &ip, frame.skb.packet_type) {
            Input::Local => self.local_input(h, place, ip, frame),
            Input::Forward(route) => self.forward(h, place, route, &ip, frame),
            Input::Unreachable => {
                self.icmp_error(h, ns, &frame, 3, 0, [0; 4]);
                self.drop_frame(h, place, &frame, DropReason::IpInNoRoutes);
            }
            Input::Refused(reason) => self.drop_frame(h, place, &frame, reason),
        }
    }

    /// `ip_route_input_slow`.
    fn route_input(&self, ns: NsId, ifindex: IfIndex, ip: &Ipv4, packet_type: PacketType) -> Input {
        let Some(namespace) = self.namespaces.get(&ns) else { return Input::Refused(DropReason::DevReady) };
        let Some((_, device)) = self.devices_in(ns).find(|(i, _)| *i == ifindex) else {
            return Input::Refused(DropReason::DevReady);
        };
        let looped = device.kind == crate::DeviceKind::Loopback;
        if ip.source.is_multicast() || ip.source.is_broadcast() {
            return Input::Refused(DropReason::IpInvalidSource);
        }
        let limited_broadcast = ip.destination.is_broadcast();
        if ip.source.octets()[0] == 0 && !limited_broadcast {
            return Input::Refused(DropReason::IpInvalidSource);
        }
        if ip.destination.octets()[0] == 0 {
            return Input::Refused(DropReason::IpInvalidDest);
        }
        if !looped && (ip.source.is_loopback() || ip.destination.is_loopback()) {
            return Input::Refused(DropReason::IpLocalNet);
        }
        if ip.destination.is_multicast() {
            // No group is ever joined here.
            return Input::Refused(DropReason::NotSpecified);
        }
        if self.is_broadcast(ns, ip.destination) {
            return Input::Local;
        }
        let name = &device.name;
        let local = self.is_local(ns, ip.destination);
        if !local && !namespace.forwards(name) {
            return Input::Refused(DropReason::IpInAddrErrors);
        }
        let route = if local { None } else { self.route(ns, ip.destination) };
        if !local && route.is_none() {
            return Input::Unreachable;
        }
        if !looped && let Some(reason) = self.validate_source(ns, ifindex, name, ip.source) {
            return Input::Refused(reason);
        }
        match route {
            None => Input::Local,
            // ip_forward: only what was addressed to this host is forwarded.
            Some(_) if packet_type != PacketType::Host => Input::Refused(DropReason::NotSpecified),
            Some(route) => Input::Forward(route),
        }
    }

    /// `fib_validate_source`: an own address as source, and the reverse path filter (RFC 3704; 1 strict, 2 loose).
    fn validate_source(
        &self,
        ns: NsId,
        ifindex: IfIndex,
        device: &str,
        source: Ipv4Addr,
    ) -> Option<DropReason> {
        let namespace = self.namespaces.get(&ns)?;
        if self.is_local(ns, source) {
            let accepted = namespace.conf_max(device, "accept_local") != 0;
            return (!accepted).then_some(DropReason::IpLocalSource);
        }
        let back = self.route(ns, source);
        let passes = match namespace.conf_max(device, "rp_filter") {
            0 => true,
            1 => back.is_some_and(|r| r.ifindex == ifindex),
            _ => back.is_some(),
        };
        (!passes).then_some(DropReason::IpRpFilter)
    }

    /// `ip_forward`.
    fn forward(&mut self, h: &mut dyn Hooks, place: Place, route: Route, ip: &Ipv4, mut frame: Frame) {
        let Some(ns) = place.ns else { return };
        if ip.ttl <= 1 {
            self.icmp_error(h, ns, &frame, 11, 0, [0; 4]);
            return self.drop_frame(h, place, &frame, DropReason::IpInHdr);
        }
        let mtu = self.route_mtu(ns, &route);
        if ip.dont_fragment && ip.total_len > mtu {
            let mtu16 = mtu.min(usize::from(u16::MAX)) as u16;
            let [high, low] = mtu16.to_be_bytes();
            self.icmp_error(h, ns, &frame, 3, 4, [0, 0, high, low]);
            return self.drop_frame(h, place, &frame, DropReason::PktTooBig);
        }
        let ttl = ip.ttl - 1;
        let packet = frame.network_mut();
        packet[8] = ttl;
        crate::wire::fix_ipv4_checksum(packet);
        frame.skb.timestamp = 0;
        let next_hop = route.via.unwrap_or(ip.destination);
        self.record(h, place, &frame, What::Forwarded { ttl, out: route.ifindex, next_hop });
        self.finish_output(h, ns, route.ifindex, next_hop, mtu, frame);
    }
}
