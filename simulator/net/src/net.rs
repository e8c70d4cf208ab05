//! The network: nodes, fabric, clock and queue, and the one loop that lets time pass.

use crate::device::Device;
use crate::fabric::Fabric;
use crate::flow::Flow;
use crate::frame::Frame;
use crate::namespace::Namespace;
use crate::queue::{Event, Queue};
use crate::record::{Origin, What};
use crate::transit::Place;
use crate::wire::{self, ETH_LEN, IPV4_LEN};
use crate::{Direction, FrameId, HookId, Hooks, IfIndex, NetError, NodeId, NsId, Random, SkBuff, TimerId};
use std::collections::BTreeMap;

/// Why [`Net::run_until`] came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunEnd {
    /// The condition holds. The clock stands at the event that made it so.
    Done,
    /// The deadline is reached, and the clock stands there.
    Deadline,
    /// Nothing is queued before or after the deadline; the clock stands at the last event.
    Idle,
}

/// A node.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) root: NsId,
    pub(crate) devices: BTreeMap<IfIndex, Device>,
}

/// The network.
///
/// Calls that change it take effect at once, at the time that the clock shows; what they set in motion happens when
/// time passes next, by one of the `run_*` calls or [`Net::step`].
pub struct Net {
    pub(crate) seed: u64,
    pub(crate) now: u64,
    pub(crate) queue: Queue,
    pub(crate) random: Random,
    pub(crate) hash_seed: u64,
    pub(crate) next_frame: u64,
    pub(crate) next_record: u64,
    pub(crate) in_flight: usize,
    pub(crate) linear_head: Option<usize>,
    pub(crate) xmit_depth: u32,
    pub(crate) nodes: Vec<Node>,
    pub(crate) namespaces: BTreeMap<NsId, Namespace>,
    pub(crate) next_ns: u32,
    pub(crate) fabric: Fabric,
    pub(crate) flows: Vec<Flow>,
}

impl Net {
    /// An empty network whose clock stands at `start_ns`.
    pub fn new(seed: u64, start_ns: u64) -> Self {
        let mut random = Random::new(seed);
        Self {
            seed,
            now: start_ns,
            queue: Queue::default(),
            hash_seed: random.next_u64(),
            random,
            next_frame: 0,
            next_record: 0,
            in_flight: 0,
            linear_head: None,
            xmit_depth: 0,
            nodes: Vec::new(),
            namespaces: BTreeMap::new(),
            next_ns: 0,
            fabric: Fabric::default(),
            flows: Vec::new(),
        }
    }

    // ---- time ----

    /// The clock, nanoseconds.
    pub fn now_ns(&self) -> u64 {
        self.now
    }

    /// Lets the next event happen if it is due at `deadline_ns` or before. False: there was none, and the clock did
    /// not move.
    pub fn step(&mut self, hooks: &mut dyn Hooks, deadline_ns: u64) -> bool {
        if self.queue.next_ns().is_none_or(|at| at > deadline_ns) {
            return false;
        }
        let Some((due, event)) = self.queue.pop() else { return false };
        self.now = self.now.max(due.0);
        self.happen(hooks, event);
        true
    }

    fn happen(&mut self, h: &mut dyn Hooks, event: Event) {
        match event {
            Event::Receive { node, ifindex, frame } => self.receive(h, node, ifindex, frame),
            Event::Inject { node, ifindex, received, frame } => {
                self.record(h, self.place(node, ifindex), &frame, What::Sent { origin: Origin::Injected });
                if received {
                    self.receive(h, node, ifindex, frame);
                } else {
                    self.transmit(h, node, ifindex, frame);
                }
            }
            Event::SendIp { ns, frame } => {
                self.copy_to_self(h, ns, &frame.skb, Origin::Injected);
                self.record(h, self.place_in(ns, None), &frame, What::Sent { origin: Origin::Injected });
                self.ip_output(h, ns, frame);
            }
            Event::Local { ns, frame } => self.looped_back(h, ns, frame),
            Event::Drop { node, ns, ifindex, frame, reason } => {
                self.drop_frame(h, Place::at(node, ns, ifindex), &frame, reason);
            }
            Event::Neighbour { ns, ifindex, address } => self.neighbour_timer(h, ns, ifindex, address),
            Event::Fragments { ns, key } => self.fragments_expired(h, ns, key),
            Event::Host { ns } => self.host_event(h, ns),
            Event::Timer { token } => h.timer(self, token),
        }
    }

    /// Lets events happen until `done` holds (asked before the first and after each), or the deadline, or none is
    /// left.
    pub fn run_until(
        &mut self,
        hooks: &mut dyn Hooks,
        deadline_ns: u64,
        done: &mut dyn FnMut(&Net) -> bool,
    ) -> RunEnd {
        loop {
            if done(self) {
                return RunEnd::Done;
            }
            if !self.step(hooks, deadline_ns) {
                break;
            }
        }
        if self.queue.next_ns().is_none() {
            return RunEnd::Idle;
        }
        self.now = self.now.max(deadline_ns);
        RunEnd::Deadline
    }

    /// Lets `duration_ns` pass with all that falls due in it. The clock is advanced by exactly this much.
    pub fn run_for(&mut self, hooks: &mut dyn Hooks, duration_ns: u64) {
        let deadline = self.now.saturating_add(duration_ns);
        while self.step(hooks, deadline) {}
        self.now = deadline;
    }

    /// Lets events happen until no frame is on its way and nothing is due at once, or the deadline. Timers may be
    /// left, those of retransmissions too.
    pub fn run_until_quiet(&mut self, hooks: &mut dyn Hooks, deadline_ns: u64) -> RunEnd {
        self.run_until(hooks, deadline_ns, &mut |net| {
            net.in_flight == 0 && net.queue.next_ns().is_none_or(|at| at > net.now)
        })
    }

    /// Frames that are on their way: queued, on a link, waiting for a neighbour or for the rest of their fragments.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether any packet waits for a neighbour's answer: in three seconds it goes on or is dropped.
    pub fn waits_for_neighbour(&self) -> bool {
        self.namespaces.values().any(|n| n.neighbours.values().any(|e| !e.waiting.is_empty()))
    }

    /// When the next event is due, if there is any.
    pub fn next_event_ns(&self) -> Option<u64> {
        self.queue.next_ns()
    }

    /// Calls [`Hooks::timer`] with `token` at `at_ns` (now, if that is past), in its place among the events.
    pub fn set_timer(&mut self, at_ns: u64, token: u64) -> TimerId {
        TimerId(self.queue.push(at_ns.max(self.now), Event::Timer { token }).1)
    }

    /// Takes a timer back; false if it is gone already.
    pub fn cancel_timer(&mut self, timer: TimerId) -> bool {
        self.queue.cancel_timer(timer.0)
    }

    /// The network's generator, for what else must be random in the same run.
    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    // ---- hooks ----

    /// Attaches, or replaces what is attached (as a tcx link update does: no frame sees neither).
    pub fn attach(
        &mut self,
        node: NodeId,
        ifindex: IfIndex,
        direction: Direction,
        hook: HookId,
    ) -> Result<(), NetError> {
        *self.device_mut(node, ifindex)?.hook_mut(direction) = Some(hook);
        Ok(())
    }

    /// Detaches; an error if nothing is attached.
    pub fn detach(&mut self, node: NodeId, ifindex: IfIndex, direction: Direction) -> Result<(), NetError> {
        let attached = self.device_mut(node, ifindex)?.hook_mut(direction);
        attached.take().map(drop).ok_or_else(|| NetError::NotFound("what was to be detached".to_owned()))
    }

    /// What is attached.
    pub fn attached(&self, node: NodeId, ifindex: IfIndex, direction: Direction) -> Option<HookId> {
        self.nodes.get(node.0 as usize)?.devices.get(&ifindex)?.hook(direction)
    }

    // ---- fabric ----

    /// The latency of every link, nanoseconds; 100 us at first.
    pub fn set_latency(&mut self, latency_ns: u64) {
        self.fabric.latency_ns = latency_ns;
    }

    /// The probability with which any frame on the fabric is lost, 0 to 1.
    pub fn set_loss(&mut self, probability: f64) {
        self.fabric.loss = probability;
    }

    /// The same for one direction between two nodes; it comes on top of the common one.
    pub fn set_link_loss(&mut self, from: NodeId, to: NodeId, probability: f64) {
        self.fabric.link_loss.insert((from, to), probability);
    }

    /// The probability with which a frame arrives twice.
    pub fn set_duplication(&mut self, probability: f64) {
        self.fabric.duplication = probability;
    }

    /// Cuts (or mends) the link between two nodes, both ways.
    pub fn set_partition(&mut self, a: NodeId, b: NodeId, cut: bool) {
        let pair = (a.min(b), a.max(b));
        if cut {
            self.fabric.cut.insert(pair);
        } else {
            self.fabric.cut.remove(&pair);
        }
    }

    // ---- frames made by hand ----

    /// How many bytes of a new frame are linear; none: all. What a program reads beyond it must be pulled first.
    pub fn set_linear_head(&mut self, bytes: Option<usize>) {
        self.linear_head = bytes;
    }

    /// A frame with its Ethernet header leaves by this device, as if a packet socket wrote it: the egress hook sees
    /// it. From a pod's `eth0` it arrives at the host side of the veth. Any bytes will do.
    pub fn inject(&mut self, node: NodeId, ifindex: IfIndex, frame: &[u8]) -> Result<FrameId, NetError> {
        self.inject_at(node, ifindex, frame, false)
    }

    /// A frame arrives at this device, as if its driver received it: the ingress hook sees it.
    pub fn inject_received(
        &mut self,
        node: NodeId,
        ifindex: IfIndex,
        frame: &[u8],
    ) -> Result<FrameId, NetError> {
        self.inject_at(node, ifindex, frame, true)
    }

    fn inject_at(
        &mut self,
        node: NodeId,
        ifindex: IfIndex,
        frame: &[u8],
        received: bool,
    ) -> Result<FrameId, NetError> {
        self.device_mut(node, ifindex)?;
        let frame = self.new_frame(SkBuff::from_frame(frame));
        let id = frame.id;
        self.queue.push(self.now, Event::Inject { node, ifindex, received, frame });
        Ok(id)
    }

    /// An IPv4 packet leaves by the namespace's routes and neighbours, as if a raw socket with IP_HDRINCL wrote it:
    /// total length and header checksum are filled in, and the source may be forged. What has no whole header is
    /// refused (EINVAL).
    pub fn send_ip(&mut self, ns: NsId, packet: &[u8]) -> Result<FrameId, NetError> {
        if !self.namespaces.contains_key(&ns) {
            return Err(NetError::NoSuchNamespace(ns));
        }
        let header_len = packet.first().map_or(0, |b| usize::from(b & 0x0f) * 4);
        if header_len < IPV4_LEN || packet.len() < header_len || packet.len() > usize::from(u16::MAX) {
            return Err(NetError::Invalid("not a packet with a whole IPv4 header".to_owned()));
        }
        let mut bytes = wire::ethernet([0; 6], [0; 6], wire::ETHERTYPE_IPV4).to_vec();
        bytes.extend_from_slice(packet);
        bytes[ETH_LEN + 2..ETH_LEN + 4].copy_from_slice(&(packet.len() as u16).to_be_bytes());
        wire::fix_ipv4_checksum(&mut bytes[ETH_LEN..]);
        let mut skb = SkBuff::from_frame(&bytes);
        skb.packet_type = skep_packet::PacketType::Outgoing;
        let frame: Frame = self.new_frame(skb);
        let id = frame.id;
        self.queue.push(self.now, Event::SendIp { ns, frame });
        Ok(id)
    }
}
