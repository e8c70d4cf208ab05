//! IPv4 packets that this host sends (`ip_output.c`).

use crate::frame::{Frame, Outgoing};
use crate::queue::Event;
use crate::record::{DropReason, What};
use crate::transit::BACKLOG_NS;
use crate::wire::{ETH_LEN, Ipv4};
use crate::{DeviceKind, Hooks, IfIndex, Net, NsId};
use std::net::Ipv4Addr;

impl Net {
    /// Sends a packet that the stack or a socket made.
    pub(crate) fn send(&mut self, h: &mut dyn Hooks, ns: NsId, outgoing: Outgoing) {
        let origin = outgoing.origin;
        let frame = self.new_frame(outgoing.into_skb());
        self.record(h, self.place_in(ns, None), &frame, What::Sent { origin });
        self.ip_output(h, ns, frame);
    }

    /// `ip_local_out` and `ip_output`: by the routes, or back to this host.
    pub(crate) fn ip_output(&mut self, h: &mut dyn Hooks, ns: NsId, frame: Frame) {
        let place = self.place_in(ns, None);
        let ip = match Ipv4::parse(frame.network()) {
            Ok(ip) => ip,
            Err(reason) => return self.drop_frame(h, place, &frame, reason),
        };
        if self.is_local(ns, ip.destination) {
            return self.loop_back(h, ns, frame);
        }
        let Some(route) = self.route(ns, ip.destination) else {
            return self.drop_frame(h, place, &frame, DropReason::IpOutNoRoutes);
        };
        let mtu = self.route_mtu(ns, &route);
        if ip.dont_fragment && ip.total_len > mtu {
            return self.drop_frame(h, place, &frame, DropReason::PktTooBig);
        }
        let next_hop = route.via.unwrap_or(ip.destination);
        self.finish_output(h, ns, route.ifindex, next_hop, mtu, frame);
    }

    /// `ip_finish_output`: whole or in fragments, to the neighbour.
    pub(crate) fn finish_output(
        &mut self,
        h: &mut dyn Hooks,
        ns: NsId,
        ifindex: IfIndex,
        next_hop: Ipv4Addr,
        mtu: usize,
        frame: Frame,
    ) {
        let length = frame.network().len();
        if length > mtu {
            self.fragment(h, ns, ifindex, next_hop, mtu, frame);
        } else {
            self.neighbour_output(h, ns, ifindex, next_hop, frame);
        }
    }

    /// To this host itself: by `lo` where the namespace has one with a number, else directly.
    fn loop_back(&mut self, h: &mut dyn Hooks, ns: NsId, frame: Frame) {
        let lo =
            self.devices_in(ns).find(|(_, d)| d.kind == DeviceKind::Loopback).map(|(ifindex, _)| ifindex);
        match lo {
            Some(ifindex) => self.neighbour_output(h, ns, ifindex, Ipv4Addr::LOCALHOST, frame),
            None => {
                self.queue.push(self.now + BACKLOG_NS, Event::Local { ns, frame });
            }
        }
    }

    /// The second half of the way to this host itself, where there is no device.
    pub(crate) fn looped_back(&mut self, h: &mut dyn Hooks, ns: NsId, mut frame: Frame) {
        let place = self.place_in(ns, None);
        frame.devices += 1;
        frame.enter_stack();
        match Ipv4::parse(frame.network()) {
            Ok(ip) => {
                frame.skb.trim(ETH_LEN + ip.total_len);
                frame.skb.packet_type = skep_packet::PacketType::Host;
                self.local_input(h, place, ip, frame);
            }
            Err(reason) => self.drop_frame(h, place, &frame, reason),
        }
    }
}
