//! IPv4 packets that this host sends (`ip_output.c`).

use crate::frame::{Frame, Outgoing};
use crate::queue::Event;
use crate::record::{DropReason, Origin, What};
use crate::transit::BACKLOG_NS;
use crate::wire::{ETH_LEN, Ipv4};
use crate::{DeviceKind, Hooks, IfIndex, Net, NsId};
use skep_packet::{PacketType, SkBuff};
use std::net::Ipv4Addr;

/// The group of all hosts.
const ALL_HOSTS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);

impl Net {
    /// Sends a packet that the stack or a socket made.
    pub(crate) fn send(&mut self, h: &mut dyn Hooks, ns: NsId, outgoing: Outgoing) {
        let origin = outgoing.origin;
        let skb = outgoing.into_skb();
        self.copy_to_self(h, ns, &skb, origin);
        let frame = self.new_frame(skb);
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
        // What goes to many goes by no gateway (__mkroute_output).
        let many = ip.destination.is_multicast() || self.is_broadcast(ns, ip.destination);
        let next_hop = route.via.filter(|_| !many).unwrap_or(ip.destination);
        self.finish_output(h, ns, route.ifindex, next_hop, mtu, frame);
    }

    /// `ip_mc_output`: of what a host sends to all, or to a group that it is in, it gives itself a copy. All hosts are in
    /// 224.0.0.1 (RFC 1112, section 4), and nobody joins another group here.
    pub(crate) fn copy_to_self(&mut self, h: &mut dyn Hooks, ns: NsId, skb: &SkBuff, origin: Origin) {
        let Ok(ip) = Ipv4::parse(skb.bytes().get(ETH_LEN..).unwrap_or_default()) else { return };
        let to_all = self.is_broadcast(ns, ip.destination);
        if !to_all && ip.destination != ALL_HOSTS {
            return;
        }
        let Some(route) = self.route(ns, ip.destination) else { return };
        let mut copy = self.new_frame(skb.clone());
        copy.skb.packet_type = if to_all { PacketType::Broadcast } else { PacketType::Multicast };
        let place = self.place_in(ns, Some(route.ifindex));
        self.record(h, place, &copy, What::Sent { origin });
        copy.enter_stack();
        copy.skb.trim(ETH_LEN + ip.total_len);
        self.local_input(h, place, ip, copy);
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
                frame.skb.packet_type = PacketType::Host;
                self.local_input(h, place, ip, frame);
            }
            Err(reason) => self.drop_frame(h, place, &frame, reason),
        }
    }
}
