//! Neighbours: ARP (RFC 826), as `net/ipv4/arp.c` and `net/core/neighbour.c` do it.
//!
//! Simpler than Linux in one point: an entry that nobody confirmed for [`REACHABLE_NS`] is asked for anew at its next
//! use, where Linux would use it for five seconds more and ask beside.

use crate::frame::Frame;
use crate::namespace::Entry;
use crate::queue::Event;
use crate::record::{DropReason, Origin, Taker, What};
use crate::wire::{self, Arp, BROADCAST, ETHERTYPE_IPV4};
use crate::{DeviceKind, Hooks, IfIndex, Mac, Net, NsId};
use skep_packet::{PacketType, SkBuff};
use std::collections::VecDeque;
use std::net::Ipv4Addr;

/// How long an answer is good for (gc_stale_time), nanoseconds.
const REACHABLE_NS: u64 = 60_000_000_000;
/// Between two requests (retrans_time), nanoseconds.
const RETRANS_NS: u64 = 1_000_000_000;
/// How often it is asked for (mcast_solicit).
const PROBES: u32 = 3;
/// How many packets wait for one neighbour (unres_qlen).
const QUEUE_LEN: usize = 101;

impl Entry {
    pub(crate) fn new() -> Self {
        Self {
            mac: None,
            permanent: false,
            confirmed_ns: 0,
            probes: 0,
            timer: None,
            waiting: VecDeque::new(),
        }
    }
}

impl Net {
    /// `neigh_output`: fills in the Ethernet header and transmits, now or when the neighbour has answered.
    pub(crate) fn neighbour_output(
        &mut self,
        h: &mut dyn Hooks,
        ns: NsId,
        ifindex: IfIndex,
        next_hop: Ipv4Addr,
        mut frame: Frame,
    ) {
        let place = self.place_in(ns, Some(ifindex));
        let (Some(node), Some((kind, own, noarp))) = (
            place.node,
            self.devices_in(ns).find(|(i, _)| *i == ifindex).map(|(_, d)| (d.kind, d.mac, d.noarp)),
        ) else {
            return self.drop_frame(h, place, &frame, DropReason::DevReady);
        };
        let known = if kind == DeviceKind::Loopback {
            Some([0; 6])
        } else if self.is_broadcast(ns, next_hop) {
            Some(BROADCAST)
        } else if next_hop.is_multicast() {
            let o = next_hop.octets();
            Some([0x01, 0x00, 0x5e, o[1] & 0x7f, o[2], o[3]])
        } else {
            self.neighbour_mac(ns, ifindex, next_hop).or(noarp.then_some(own))
        };
        if let Some(mac) = known {
            set_ethernet(&mut frame, mac, own);
            return self.transmit(h, node, ifindex, frame);
        }
        self.record(h, place, &frame, What::NeighbourWait { next_hop });
        let source = wire::address(frame.network(), 12);
        let Some(namespace) = self.namespaces.get_mut(&ns) else { return };
        let entry = namespace.neighbours.entry((ifindex, next_hop)).or_insert_with(Entry::new);
        entry.waiting.push_back(frame);
        let first = entry.timer.is_none();
        let overflow = if entry.waiting.len() > QUEUE_LEN { entry.waiting.pop_front() } else { None };
        if let Some(oldest) = overflow {
            self.drop_frame(h, place, &oldest, DropReason::NeighQueueFull);
        }
        if first {
            self.ask(h, ns, ifindex, next_hop, Some(source));
        }
    }

    /// The address of a neighbour, if it is known and fresh.
    fn neighbour_mac(&self, ns: NsId, ifindex: IfIndex, address: Ipv4Addr) -> Option<Mac> {
        let entry = self.namespaces.get(&ns)?.neighbours.get(&(ifindex, address))?;
        let fresh = entry.permanent || self.now < entry.confirmed_ns + REACHABLE_NS;
        entry.mac.filter(|_| fresh)
    }

    /// `arp_solicit`: asks, and sets the timer for the next time.
    fn ask(
        &mut self,
        h: &mut dyn Hooks,
        ns: NsId,
        ifindex: IfIndex,
        target: Ipv4Addr,
        packet_source: Option<Ipv4Addr>,
    ) {
        let at = self.now + RETRANS_NS;
        let Some(namespace) = self.namespaces.get_mut(&ns) else { return };
        let node = namespace.node;
        let Some(entry) = namespace.neighbours.get_mut(&(ifindex, target)) else { return };
        entry.probes += 1;
        entry.timer = Some(self.queue.push(at, Event::Neighbour { ns, ifindex, address: target }));
        // arp_announce 0: the packet's own source if it is ours, else an address of the device or the namespace.
        let chosen = packet_source.filter(|s| self.is_local(ns, *s)).or_else(|| {
            let addresses = |on: Option<IfIndex>| {
                self.devices_in(ns)
                    .filter(move |(i, _)| on.is_none_or(|on| on == *i))
                    .flat_map(|(_, d)| d.addresses.iter().map(|a| a.0))
                    .find(|a| !a.is_loopback())
            };
            addresses(Some(ifindex)).or_else(|| addresses(None))
        });
        let own = self.nodes[node.0 as usize].devices.get(&ifindex).map_or([0; 6], |d| d.mac);
        let sender = chosen.unwrap_or(Ipv4Addr::UNSPECIFIED);
        let arp = Arp { operation: 1, sender_mac: own, sender, target_mac: [0; 6], target };
        self.send_arp(h, ns, ifindex, arp, BROADCAST);
    }

    fn send_arp(&mut self, h: &mut dyn Hooks, ns: NsId, ifindex: IfIndex, arp: Arp, destination: Mac) {
        let Some(node) = self.namespaces.get(&ns).map(|n| n.node) else { return };
        let mut skb = SkBuff::from_frame(&arp.emit(destination));
        skb.packet_type = PacketType::Outgoing;
        let frame = self.new_frame(skb);
        self.record(h, self.place_in(ns, Some(ifindex)), &frame, What::Sent { origin: Origin::Arp });
        self.transmit(h, node, ifindex, frame);
    }

    /// `neigh_timer_handler`: asks again, or gives up.
    pub(crate) fn neighbour_timer(
        &mut self,
        h: &mut dyn Hooks,
        ns: NsId,
        ifindex: IfIndex,
        address: Ipv4Addr,
    ) {
        let Some(namespace) = self.namespaces.get_mut(&ns) else { return };
        let Some(entry) = namespace.neighbours.get_mut(&(ifindex, address)) else { return };
        entry.timer = None;
        if entry.probes < PROBES {
            let source = entry.waiting.front().map(|f| wire::address(f.network(), 12));
            return self.ask(h, ns, ifindex, address, source);
        }
        let Some(entry) = namespace.neighbours.remove(&(ifindex, address)) else { return };
        let place = self.place_in(ns, Some(ifindex));
        for frame in entry.waiting {
            // ipv4_link_failure: host unreachable, to whoever sent it.
            self.icmp_error(h, ns, &frame, 3, 1, [0; 4]);
            self.drop_frame(h, place, &frame, DropReason::NeighFailed);
        }
    }

    /// `arp_process`.
    pub(crate) fn arp_input(&mut self, h: &mut dyn Hooks, ns: NsId, ifindex: IfIndex, frame: Frame) {
        let place = self.place_in(ns, Some(ifindex));
        let noarp =
            self.devices_in(ns).any(|(i, d)| i == ifindex && (d.noarp || d.kind == DeviceKind::Loopback));
        if noarp || frame.skb.packet_type == PacketType::OtherHost {
            return self.record(h, place, &frame, What::Consumed { by: Taker::Arp });
        }
        let Some(arp) = Arp::parse(frame.network()).filter(|a| matches!(a.operation, 1 | 2)) else {
            return self.drop_frame(h, place, &frame, DropReason::HdrTrunc);
        };
        self.record(h, place, &frame, What::Consumed { by: Taker::Arp });
        if arp.target.is_multicast() || arp.target.is_loopback() {
            return;
        }
        let Some((name, own)) =
            self.devices_in(ns).find(|(i, _)| *i == ifindex).map(|(_, d)| (d.name.clone(), d.mac))
        else {
            return;
        };
        let Some(namespace) = self.namespaces.get(&ns) else { return };
        let on_device = |d: &crate::device::Device| d.addresses.iter().any(|a| a.0 == arp.target);
        let ignore = namespace.conf_max(&name, "arp_ignore") > 0
            && !self.devices_in(ns).any(|(i, d)| i == ifindex && on_device(d));
        let proxied = namespace.forwards(&name)
            && namespace.conf_max(&name, "proxy_arp") != 0
            && self.route(ns, arp.target).is_some_and(|r| r.ifindex != ifindex);
        let ours = self.is_local(ns, arp.target);
        let answers = arp.operation == 1 && !ignore && (ours || proxied);
        if !arp.sender.is_unspecified() && !self.is_local(ns, arp.sender) {
            self.learn(h, ns, ifindex, arp.sender, arp.sender_mac, answers);
        }
        if answers {
            let reply = Arp {
                operation: 2,
                sender_mac: own,
                sender: arp.target,
                target_mac: arp.sender_mac,
                target: arp.sender,
            };
            self.send_arp(h, ns, ifindex, reply, arp.sender_mac);
        }
    }

    /// `neigh_update`: what waits goes out. An entry is made only for who asked us (`create`).
    fn learn(
        &mut self,
        h: &mut dyn Hooks,
        ns: NsId,
        ifindex: IfIndex,
        address: Ipv4Addr,
        mac: Mac,
        create: bool,
    ) {
        let now = self.now;
        let Some(namespace) = self.namespaces.get_mut(&ns) else { return };
        let node = namespace.node;
        let key = (ifindex, address);
        if create {
            namespace.neighbours.entry(key).or_insert_with(Entry::new);
        }
        let Some(entry) = namespace.neighbours.get_mut(&key).filter(|e| !e.permanent) else { return };
        entry.mac = Some(mac);
        entry.confirmed_ns = now;
        entry.probes = 0;
        if let Some(timer) = entry.timer.take() {
            self.queue.cancel(timer);
        }
        let waiting = std::mem::take(&mut entry.waiting);
        let own = self.nodes[node.0 as usize].devices.get(&ifindex).map_or([0; 6], |d| d.mac);
        for mut frame in waiting {
            set_ethernet(&mut frame, mac, own);
            self.transmit(h, node, ifindex, frame);
        }
    }
}

/// Writes the Ethernet header of an IPv4 packet.
fn set_ethernet(frame: &mut Frame, destination: Mac, source: Mac) {
    let header = wire::ethernet(destination, source, ETHERTYPE_IPV4);
    if let Some(place) = frame.skb.bytes_mut().get_mut(..header.len()) {
        place.copy_from_slice(&header);
    }
    frame.skb.protocol = ETHERTYPE_IPV4;
}
