//! A frame at a device: taps, hooks, redirects, drivers. The rules are those of `net/core/dev.c` and
//! `net/core/filter.c`; each says which function it follows.

use crate::frame::{Frame, MAX_DEVICES};
use crate::queue::Event;
use crate::record::{DropReason, Record, Taker, What};
use crate::wire::{self, ETH_LEN, ETHERTYPE_ARP, ETHERTYPE_IPV4, Ipv4};
use crate::{DeviceKind, Direction, HookAt, Hooks, IfIndex, Net, NodeId, NsId, Verdict};
use skep_packet::{PacketType, SkBuff};
use std::net::Ipv4Addr;

/// How deep redirects may nest (XMIT_RECURSION_LIMIT).
const XMIT_RECURSION_LIMIT: u32 = 8;

/// How long a frame waits in a backlog (netif_rx), nanoseconds. Not zero, so that a loop takes time.
pub(crate) const BACKLOG_NS: u64 = 1_000;

/// Where something happens.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) node: Option<NodeId>,
    pub(crate) ns: Option<NsId>,
    pub(crate) ifindex: Option<IfIndex>,
}

impl Place {
    /// Between the nodes.
    pub(crate) const FABRIC: Self = Self { node: None, ns: None, ifindex: None };

    /// In a namespace, at a device if it has a number.
    pub(crate) fn at(node: NodeId, ns: NsId, ifindex: Option<IfIndex>) -> Self {
        Self { node: Some(node), ns: Some(ns), ifindex }
    }
}

/// What a hook leaves of a frame.
#[expect(
    clippy::large_enum_variant,
    reason = "a frame is handed on at once; a box would be an allocation a hop"
)]
enum Passed {
    /// It goes on.
    On(Frame),
    /// The hook ended or redirected it.
    Gone,
}

impl Net {
    /// A new frame, which is on its way until it ends.
    pub(crate) fn new_frame(&mut self, mut skb: SkBuff) -> Frame {
        let id = crate::FrameId(self.next_frame);
        self.next_frame += 1;
        self.in_flight += 1;
        if let Some(linear) = self.linear_head {
            skb.set_linear_len(linear);
        }
        Frame { id, skb, devices: 0 }
    }

    /// Tells the observer.
    pub(crate) fn record(&mut self, h: &mut dyn Hooks, place: Place, frame: &Frame, what: What) {
        if what.is_end() {
            self.in_flight = self.in_flight.saturating_sub(1);
        }
        let record = Record {
            time_ns: self.now,
            seq: self.next_record,
            frame: frame.id,
            node: place.node,
            ns: place.ns,
            ifindex: place.ifindex,
            what,
        };
        self.next_record += 1;
        h.observe(&record, &frame.skb);
    }

    /// Ends a frame with a reason.
    pub(crate) fn drop_frame(&mut self, h: &mut dyn Hooks, place: Place, frame: &Frame, reason: DropReason) {
        self.record(h, place, frame, What::Dropped { reason });
    }

    /// The place of a device; the node's root namespace if the device is gone.
    pub(crate) fn place(&self, node: NodeId, ifindex: IfIndex) -> Place {
        let at = &self.nodes[node.0 as usize];
        Place::at(node, at.devices.get(&ifindex).map_or(at.root, |d| d.ns), Some(ifindex))
    }

    /// `__netif_receive_skb_core`: a frame arrives at a device.
    pub(crate) fn receive(&mut self, h: &mut dyn Hooks, node: NodeId, ifindex: IfIndex, mut frame: Frame) {
        let place = self.place(node, ifindex);
        let Some(device) = self.nodes[node.0 as usize].devices.get(&ifindex).filter(|d| d.up) else {
            return self.drop_frame(h, place, &frame, DropReason::DevReady);
        };
        frame.skb.packet_type = eth_type(frame.skb.bytes(), device.mac);
        frame.skb.protocol = wire::be16(frame.skb.bytes(), 12);
        self.receive_round(h, node, ifindex, frame);
    }

    /// One round of the same: the first, or the one after a redirect to the peer, which keeps the packet type.
    fn receive_round(&mut self, h: &mut dyn Hooks, node: NodeId, ifindex: IfIndex, mut frame: Frame) {
        let place = self.place(node, ifindex);
        frame.skb.ifindex = ifindex;
        frame.skb.ingress_ifindex = ifindex;
        frame.devices += 1;
        self.record(h, place, &frame, What::Rx);
        if frame.skb.len() < ETH_LEN {
            return self.drop_frame(h, place, &frame, DropReason::PktTooSmall);
        }
        if frame.devices > MAX_DEVICES {
            return self.drop_frame(h, place, &frame, DropReason::FabricLoop);
        }
        let Passed::On(frame) = self.run_hook(h, node, ifindex, Direction::Ingress, frame) else { return };
        let Some(ns) = place.ns else { return };
        if frame.skb.len() < ETH_LEN {
            return self.drop_frame(h, place, &frame, DropReason::PktTooSmall);
        }
        match frame.skb.protocol {
            ETHERTYPE_ARP => self.arp_input(h, ns, ifindex, frame),
            ETHERTYPE_IPV4 => self.ip_input(h, ns, ifindex, frame),
            _ => self.drop_frame(h, place, &frame, DropReason::UnhandledProto),
        }
    }

    /// `__dev_queue_xmit`: a frame leaves by a device.
    pub(crate) fn transmit(&mut self, h: &mut dyn Hooks, node: NodeId, ifindex: IfIndex, mut frame: Frame) {
        let place = self.place(node, ifindex);
        if !self.nodes[node.0 as usize].devices.get(&ifindex).is_some_and(|d| d.up) {
            return self.drop_frame(h, place, &frame, DropReason::DevReady);
        }
        frame.skb.ifindex = ifindex;
        frame.skb.protocol = wire::be16(frame.skb.bytes(), 12);
        frame.devices += 1;
        if frame.devices > MAX_DEVICES {
            return self.drop_frame(h, place, &frame, DropReason::FabricLoop);
        }
        let Passed::On(frame) = self.run_hook(h, node, ifindex, Direction::Egress, frame) else { return };
        self.record(h, place, &frame, What::Tx);
        if frame.skb.len() < ETH_LEN {
            return self.drop_frame(h, place, &frame, DropReason::PktTooSmall);
        }
        let device = &self.nodes[node.0 as usize].devices[&ifindex];
        match device.kind {
            DeviceKind::Veth { peer } => self.veth_xmit(h, node, ifindex, peer, frame),
            DeviceKind::Vxlan { port } => self.vxlan_xmit(h, node, ifindex, port, frame),
            DeviceKind::Loopback => {
                self.queue.push(self.now + BACKLOG_NS, Event::Receive { node, ifindex, frame });
            }
            DeviceKind::Uplink if frame.skb.len() > device.max_frame() => {
                self.drop_frame(h, place, &frame, DropReason::PktTooBig);
            }
            DeviceKind::Uplink => {
                let mut frame = frame;
                complete_checksum(&mut frame.skb);
                self.record(h, place, &frame, What::Wire);
                self.carry(h, node, ifindex, frame);
            }
        }
    }

    /// `veth_xmit` and `__dev_forward_skb`: the other end receives, from its backlog.
    fn veth_xmit(
        &mut self,
        h: &mut dyn Hooks,
        node: NodeId,
        ifindex: IfIndex,
        peer: IfIndex,
        mut frame: Frame,
    ) {
        let devices = &self.nodes[node.0 as usize].devices;
        let (Some(device), Some(other)) = (devices.get(&ifindex), devices.get(&peer).filter(|d| d.up)) else {
            return self.drop_frame(h, self.place(node, ifindex), &frame, DropReason::DevReady);
        };
        if frame.skb.len() > other.max_frame() {
            return self.drop_frame(h, self.place(node, ifindex), &frame, DropReason::PktTooBig);
        }
        frame.scrub(device.ns != other.ns);
        frame.skb.priority = 0;
        self.queue.push(self.now + BACKLOG_NS, Event::Receive { node, ifindex: peer, frame });
    }

    /// Runs what is attached and does what it asks for.
    fn run_hook(
        &mut self,
        h: &mut dyn Hooks,
        node: NodeId,
        ifindex: IfIndex,
        direction: Direction,
        mut frame: Frame,
    ) -> Passed {
        let device = &self.nodes[node.0 as usize].devices[&ifindex];
        let Some(hook) = device.hook(direction) else { return Passed::On(frame) };
        let ns = device.ns;
        let at = HookAt { node, ns, ifindex, direction, hook, now_ns: self.now, frame: frame.id };
        let verdict = h.run(&at, &mut frame.skb, &mut self.random);
        let place = Place::at(node, ns, Some(ifindex));
        self.record(h, place, &frame, What::Hook { direction, hook, verdict });
        match verdict {
            Verdict::Unspec | Verdict::Ok => return Passed::On(frame),
            Verdict::Shot => {
                let reason = match direction {
                    Direction::Ingress => DropReason::TcIngress,
                    Direction::Egress => DropReason::TcEgress,
                };
                self.drop_frame(h, place, &frame, reason);
            }
            Verdict::Stolen => self.record(h, place, &frame, What::Consumed { by: Taker::Hook }),
            Verdict::Redirect { .. } | Verdict::RedirectPeer { .. } | Verdict::RedirectNeigh { .. } => {
                self.redirect(h, place, direction, verdict, frame);
            }
        }
        Passed::Gone
    }

    /// `skb_do_redirect`. The target is looked up in the namespace of the device; what is not there or cannot be done
    /// is freed without a reason.
    fn redirect(
        &mut self,
        h: &mut dyn Hooks,
        from: Place,
        direction: Direction,
        verdict: Verdict,
        mut frame: Frame,
    ) {
        let (Some(node), Some(ns)) = (from.node, from.ns) else { return };
        let target = match verdict {
            Verdict::Redirect { ifindex, .. }
            | Verdict::RedirectPeer { ifindex }
            | Verdict::RedirectNeigh { ifindex, .. } => ifindex,
            _ => return,
        };
        let devices = &self.nodes[node.0 as usize].devices;
        let Some(device) = devices.get(&target).filter(|d| d.ns == ns) else {
            return self.drop_frame(h, from, &frame, DropReason::NotSpecified);
        };
        match verdict {
            // __bpf_rx_skb: dev_forward_skb_nomtu, then the backlog.
            Verdict::Redirect { ingress: true, .. } => {
                if !device.up {
                    return self.drop_frame(h, from, &frame, DropReason::NotSpecified);
                }
                frame.scrub(false);
                frame.skb.priority = 0;
                self.queue.push(self.now + BACKLOG_NS, Event::Receive { node, ifindex: target, frame });
            }
            Verdict::RedirectPeer { .. } => {
                let peer = match device.kind {
                    DeviceKind::Veth { peer } if direction == Direction::Ingress => peer,
                    _ => return self.drop_frame(h, from, &frame, DropReason::NotSpecified),
                };
                if !devices.get(&peer).is_some_and(|d| d.up && d.ns != ns) {
                    return self.drop_frame(h, from, &frame, DropReason::NotSpecified);
                }
                // skb_scrub_packet(skb, false): the mark goes into the pod with it.
                frame.scrub(false);
                self.receive_round(h, node, peer, frame);
            }
            Verdict::RedirectNeigh { via, .. } => self.redirect_neigh(h, from, target, via, frame),
            _ => {
                if self.xmit_depth >= XMIT_RECURSION_LIMIT {
                    return self.drop_frame(h, from, &frame, DropReason::NotSpecified);
                }
                frame.skb.timestamp = 0;
                self.xmit_depth += 1;
                self.transmit(h, node, target, frame);
                self.xmit_depth -= 1;
            }
        }
    }

    /// `__bpf_redirect_neigh`: IPv4 only; a group address in the Ethernet header is refused.
    fn redirect_neigh(
        &mut self,
        h: &mut dyn Hooks,
        from: Place,
        target: IfIndex,
        via: Option<Ipv4Addr>,
        frame: Frame,
    ) {
        let (Some(ns), Ok(header)) = (from.ns, Ipv4::parse(frame.network())) else {
            return self.drop_frame(h, from, &frame, DropReason::NotSpecified);
        };
        let group = frame.skb.bytes().first().is_some_and(|b| b & 1 != 0);
        if group || frame.skb.protocol != ETHERTYPE_IPV4 || self.xmit_depth >= XMIT_RECURSION_LIMIT {
            return self.drop_frame(h, from, &frame, DropReason::NotSpecified);
        }
        let next_hop = via.or_else(|| {
            let route = self.route(ns, header.destination).filter(|r| r.ifindex == target)?;
            Some(route.via.unwrap_or(header.destination))
        });
        let Some(next_hop) = next_hop else {
            return self.drop_frame(h, from, &frame, DropReason::NotSpecified);
        };
        self.xmit_depth += 1;
        self.neighbour_output(h, ns, target, next_hop, frame);
        self.xmit_depth -= 1;
    }
}

/// `eth_type_trans`: to whom a frame is addressed.
fn eth_type(frame: &[u8], own: crate::Mac) -> PacketType {
    let to = wire::mac(frame, 0);
    if to == wire::BROADCAST {
        PacketType::Broadcast
    } else if to[0] & 1 != 0 {
        PacketType::Multicast
    } else if to == own {
        PacketType::Host
    } else {
        PacketType::OtherHost
    }
}

/// `skb_checksum_help`, with RFC 768's rule that a UDP sum of zero is sent as ones.
pub(crate) fn complete_checksum(skb: &mut SkBuff) {
    let skep_packet::Checksum::Partial { start, offset } = skb.checksum else { return };
    skb.complete_checksum();
    let at = usize::from(start) + usize::from(offset);
    if offset == 6
        && let Some(field) = skb.bytes_mut().get_mut(at..at + 2)
        && field == [0, 0]
    {
        field.fill(0xff);
    }
}
