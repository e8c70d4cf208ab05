//! What lies between the nodes: one Ethernet segment with latency, loss, duplication and cuts. It knows hardware
//! addresses, not what is in a frame.

use crate::frame::Frame;
use crate::queue::Event;
use crate::record::{DropReason, Origin, What};
use crate::wire::{self, Ipv4};
use crate::{DeviceKind, Hooks, IfIndex, Net, NodeId};
use skep_packet::{Checksum, SkBuff};
use std::collections::{BTreeMap, BTreeSet};

/// The segment's properties.
pub(crate) struct Fabric {
    pub(crate) latency_ns: u64,
    pub(crate) loss: f64,
    pub(crate) link_loss: BTreeMap<(NodeId, NodeId), f64>,
    pub(crate) duplication: f64,
    /// Pairs with the lower number first.
    pub(crate) cut: BTreeSet<(NodeId, NodeId)>,
}

impl Default for Fabric {
    fn default() -> Self {
        Self {
            latency_ns: 100_000,
            loss: 0.0,
            link_loss: BTreeMap::new(),
            duplication: 0.0,
            cut: BTreeSet::new(),
        }
    }
}

impl Net {
    /// Carries a frame that left an uplink. A unicast address that no uplink has is lost: nothing would answer. Of a
    /// flooded frame the first receiver gets the frame itself and each other one a copy.
    pub(crate) fn carry(&mut self, h: &mut dyn Hooks, from: NodeId, ifindex: IfIndex, frame: Frame) {
        let to = wire::mac(frame.skb.bytes(), 0);
        let group = to[0] & 1 != 0;
        let receivers: Vec<(NodeId, IfIndex)> = self
            .uplinks()
            .filter(|(node, device, mac)| (*node, *device) != (from, ifindex) && (group || *mac == to))
            .map(|(node, device, _)| (node, device))
            .collect();
        if receivers.is_empty() {
            return self.drop_on_fabric(h, frame, DropReason::FabricNoReceiver);
        }
        let mut frames = vec![];
        for _ in 1..receivers.len() {
            frames.push(self.copy_on_fabric(h, &frame));
        }
        frames.insert(0, frame);
        for ((node, device), frame) in receivers.into_iter().zip(frames) {
            self.cross_link(h, from, node, device, frame);
        }
    }

    fn cross_link(&mut self, h: &mut dyn Hooks, from: NodeId, to: NodeId, ifindex: IfIndex, frame: Frame) {
        if self.fabric.cut.contains(&(from.min(to), from.max(to))) {
            return self.drop_on_fabric(h, frame, DropReason::FabricPartition);
        }
        let link = self.fabric.link_loss.get(&(from, to)).copied().unwrap_or(0.0);
        if self.random.chance(self.fabric.loss) || self.random.chance(link) {
            return self.drop_on_fabric(h, frame, DropReason::FabricLoss);
        }
        let arrival = self.now + self.fabric.latency_ns;
        let duplicate = self.random.chance(self.fabric.duplication).then(|| self.copy_on_fabric(h, &frame));
        for mut frame in std::iter::once(frame).chain(duplicate) {
            received_by_card(&mut frame);
            self.queue.push(arrival, Event::Receive { node: to, ifindex, frame });
        }
    }

    fn copy_on_fabric(&mut self, h: &mut dyn Hooks, of: &Frame) -> Frame {
        let mut copy = self.new_frame(of.skb.clone());
        copy.devices = of.devices;
        self.record(
            h,
            crate::transit::Place::FABRIC,
            &copy,
            What::Sent { origin: Origin::Copy { of: of.id } },
        );
        copy
    }

    fn drop_on_fabric(&mut self, h: &mut dyn Hooks, frame: Frame, reason: DropReason) {
        self.drop_frame(h, crate::transit::Place::FABRIC, &frame, reason);
    }

    fn uplinks(&self) -> impl Iterator<Item = (NodeId, IfIndex, crate::Mac)> {
        self.nodes.iter().enumerate().flat_map(|(number, node)| {
            node.devices
                .iter()
                .filter(|(_, device)| device.kind == DeviceKind::Uplink)
                .map(move |(ifindex, device)| (NodeId(number as u32), *ifindex, device.mac))
        })
    }
}

/// Only bytes cross a wire. The card verifies the outermost transport checksum: CHECKSUM_UNNECESSARY if it is right,
/// CHECKSUM_NONE if not, and the stack finds out for itself.
fn received_by_card(frame: &mut Frame) {
    let mut skb = SkBuff::from_frame(frame.skb.bytes());
    let packet = skb.bytes().get(wire::ETH_LEN..).unwrap_or_default();
    if skb.protocol == wire::ETHERTYPE_IPV4
        && let Ok(header) = Ipv4::parse(packet)
        && !header.is_fragment()
        && wire::transport_checksum_ok(&header, packet)
    {
        skb.checksum = Checksum::Unnecessary;
    }
    frame.skb = skb;
}
