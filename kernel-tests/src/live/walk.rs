//! From records to the ways of packets: which run of programs an event belongs to, which packet a run is about, and
//! what became of it there.
//!
//! Every value is copied from an event or a frame. That a run has ended without a drop and without a redirect is told by
//! what it did not say.

use super::record::{Key, Record, What, whole};
use skep_abi::event::{DropNotify, Event, TraceNotify, TracePoint};
use skep_abi::map::METRIC_INGRESS;
use skep_agent_core::Agent;
use skep_agent_core::desired::{HOST_DEVICE, POD_DEVICE, VXLAN_DEVICE, pod_device};
use skep_scenario::evidence::Class;
use skep_scenario::{Fact, FrameView, HookPoint, Hop, HopKind, Identity, MacAddr, Verdict};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

const HANDLE_POLICY: &str = "handle_policy";
const TO_CONTAINER: &str = "to_container";

/// A node, as far as words about it go.
pub(super) struct Words {
    pub(super) name: String,
    pub(super) agent: Agent,
    pub(super) devices: BTreeMap<u32, String>,
    pub(super) uplink: String,
}

/// A packet, and what happened to it, in order.
pub(super) struct Packet {
    pub(super) hops: Vec<Hop>,
    pub(super) first: FrameView,
    pub(super) time_ns: u64,
    /// How far each hop is on a packet's way when times do not tell.
    ranks: Vec<u8>,
}

/// Ranks of hops.
const SENT: u8 = 0;
const HOOKED: u8 = 1;
const ARRIVED: u8 = 2;
const DROPPED: u8 = 3;

/// The events of one run of programs on one CPU.
struct Run<'a> {
    node: usize,
    key: Key,
    records: Vec<&'a Record>,
}

fn point(event: &Event) -> Option<TracePoint> {
    match event {
        Event::Trace(t) => t.point(),
        _ => None,
    }
}

fn event_of(record: &Record) -> Option<&Event> {
    match &record.what {
        What::Event { event, .. } => Some(event),
        _ => None,
    }
}

fn frame_of(record: &Record) -> (&[u8], usize) {
    match &record.what {
        What::Event { bytes, len, .. }
        | What::Frame { bytes, len, .. }
        | What::Dropped { bytes, len, .. } => (bytes, *len),
    }
}

impl Run<'_> {
    fn has(&self, wanted: TracePoint) -> bool {
        self.records.iter().filter_map(|r| event_of(r)).any(|e| point(e) == Some(wanted))
    }

    /// Whether an event is the first of another run. Programs of one CPU do not interleave, and each entry program
    /// begins with an event of its own; where two programs share a point, the order tells.
    fn ends_before(&self, event: &Event) -> bool {
        use TracePoint::{FromHost, FromLxc, FromNetwork, FromOverlay, ToNetwork, ToOverlay, ToStack};
        let Event::Trace(trace) = event else { return false };
        match trace.point() {
            Some(FromLxc | FromHost | FromNetwork | FromOverlay | ToNetwork) => true,
            // to_host has no endpoint; from_container's own is told with one.
            Some(ToStack) => trace.source == 0,
            // to_overlay tells after whoever chose the tunnel, and that is from_host if it is no endpoint.
            Some(ToOverlay) => trace.source == 0 && (!self.has(FromHost) || self.has(ToOverlay)),
            _ => false,
        }
    }
}

fn runs(records: &[Record], tunnel_port: u16) -> Vec<Run<'_>> {
    let mut open: BTreeMap<(usize, u32), Run<'_>> = BTreeMap::new();
    let mut done = Vec::new();
    for record in records {
        let What::Event { cpu, event, bytes, .. } = &record.what else { continue };
        let (place, key) = ((record.node, *cpu), Key::ethernet(bytes, tunnel_port));
        if open.get(&place).is_some_and(|run| run.key != key || run.ends_before(event)) {
            done.extend(open.remove(&place));
        }
        let run = open.entry(place).or_insert_with(|| Run { node: record.node, key, records: Vec::new() });
        run.records.push(record);
    }
    done.extend(open.into_values());
    done
}

/// All packets that records tell of.
pub(super) struct Reader<'a> {
    pub(super) nodes: &'a [Words],
    pub(super) tunnel_port: u16,
    /// Whether to_container, and not handle_policy, decides what a pod receives.
    pub(super) endpoint_routes: bool,
    pub(super) start_ns: u64,
}

impl Reader<'_> {
    pub(super) fn packets(&self, records: &[Record]) -> Vec<Packet> {
        // Of one CPU in the order of its ring: two events may have one time.
        let mut by_ring: Vec<Record> = records.to_vec();
        by_ring.sort_by_key(|r| (r.node, r.sequence));
        let runs = runs(&by_ring, self.tunnel_port);
        let mut items: Vec<Item> = runs.iter().map(|run| self.run(run)).collect();
        items.extend(records.iter().filter_map(|r| self.plain(r)));
        items.sort_by_key(|i| (i.time_ns, i.rank));
        let mut packets: Vec<Packet> = Vec::new();
        let mut latest: BTreeMap<Key, usize> = BTreeMap::new();
        for item in items {
            let at = latest.get(&item.key).copied().filter(|at| packets[*at].takes(&item));
            // What from_container answered comes back under a key of its own.
            let answered = || {
                let asked = latest.get(&item.key.asked()?).copied()?;
                packets[asked].hops.iter().any(|h| h.verdict == Verdict::Answered).then_some(asked)
            };
            match at.or_else(|| if item.rank == ARRIVED { answered() } else { None }) {
                Some(at) => packets[at].add(item),
                None => {
                    latest.insert(item.key.clone(), packets.len());
                    packets.push(Packet {
                        first: item.view.clone(),
                        time_ns: item.time_ns,
                        ranks: Vec::new(),
                        hops: Vec::new(),
                    });
                    packets.last_mut().expect("one was pushed").add(item);
                }
            }
        }
        for packet in &mut packets {
            inherit_source(&mut packet.hops);
        }
        packets
    }

    fn view(&self, bytes: &[u8], len: usize) -> FrameView {
        FrameView::ethernet(&whole(bytes, len), self.tunnel_port)
    }

    fn plain(&self, record: &Record) -> Option<Item> {
        let (bytes, len) = frame_of(record);
        let node = &self.nodes[record.node];
        let (key, view, rank, place, kind, verdict) = match &record.what {
            What::Event { .. } => return None,
            What::Frame { pod, device, outgoing, .. } => {
                let view = self.view(bytes, len);
                let arp = view.arp.is_some();
                let (rank, kind, verdict) = match (outgoing, arp) {
                    (true, true) => (SENT, HopKind::Resolve, Verdict::Ok),
                    (true, false) => (SENT, HopKind::Send, Verdict::Ok),
                    (false, true) => (ARRIVED, HopKind::Resolve, Verdict::Delivered),
                    (false, false) => (ARRIVED, HopKind::Deliver, Verdict::Delivered),
                };
                (Key::ethernet(bytes, self.tunnel_port), view, rank, format!("{pod}:{device}"), kind, verdict)
            }
            What::Dropped { pod, ifindex, reason, .. } => {
                let view = FrameView::ip(&whole(bytes, len));
                let verdict = Verdict::Dropped { reason: reason.clone() };
                let place = match pod {
                    Some(pod) => format!("{pod}:{POD_DEVICE}"),
                    None => device(node, *ifindex),
                };
                let key = match pod {
                    Some(_) => Key::dropped_by_pod(bytes, self.tunnel_port),
                    None => Key::ip(bytes, self.tunnel_port),
                };
                (key, view, DROPPED, place, HopKind::Deliver, verdict)
            }
        };
        let facts = view
            .arp
            .filter(|arp| rank == ARRIVED && arp.reply)
            .map(|arp| Fact::Neighbour { address: IpAddr::V4(arp.sender), mac: MacAddr(arp.sender_mac.0) });
        let hop = Hop {
            kind,
            verdict,
            device: place,
            facts: facts.into_iter().collect(),
            ..self.hop(record.node, record.time_ns, &view, &view)
        };
        Some(Item { key, view, time_ns: record.time_ns, rank, hops: vec![hop] })
    }

    fn hop(&self, node: usize, time_ns: u64, before: &FrameView, after: &FrameView) -> Hop {
        Hop {
            time_ns: time_ns.saturating_sub(self.start_ns),
            node: self.nodes[node].name.clone(),
            device: String::new(),
            kind: HopKind::Transit,
            before: before.clone(),
            after: after.clone(),
            src_identity: None,
            dst_identity: None,
            verdict: Verdict::Ok,
            facts: Vec::new(),
        }
    }

    /// The hops of one run: the entry program's, and that of the program that decides what the pod receives.
    fn run(&self, run: &Run<'_>) -> Item {
        let node = &self.nodes[run.node];
        let view_of = |record: &Record| {
            let (bytes, len) = frame_of(record);
            self.view(bytes, len)
        };
        let first = run.records[0];
        let (before, after) = (view_of(first), view_of(run.records[run.records.len() - 1]));
        let (policy, own): (Vec<&Record>, Vec<&Record>) =
            run.records.iter().partition(|r| event_of(r).is_some_and(is_of_receiver));
        // A tail call goes on with the packet as it came; a device receives it as it was forwarded.
        let received = match policy.first() {
            Some(record) if self.endpoint_routes => view_of(record),
            Some(_) => before.clone(),
            None => after.clone(),
        };
        let (src, dst) = ends_of(&before);
        let ends = Ends { node, src, dst };
        let (program, hook, device) = entry(node, event_of(first));
        let receiver = self.receiver(node, &device, &policy);
        let mut hops = Vec::new();
        if !own.is_empty() {
            let verdict = match &receiver {
                None => own_verdict(node, &program, &own, &before),
                Some((HookPoint::CallPolicy, program, _)) => Verdict::TailCall { to: program.clone() },
                Some((_, _, device)) => Verdict::Redirect { to: device.clone(), ingress: false },
            };
            let mut hop = Hop {
                kind: HopKind::Hook { hook, program, chain: Vec::new() },
                device,
                verdict,
                ..self.hop(run.node, first.time_ns, &before, &received)
            };
            ends.tell(&mut hop, &own);
            hops.push(hop);
        }
        if let Some(((hook, program, device), record)) = receiver.zip(policy.first()) {
            let mut hop = Hop {
                kind: HopKind::Hook { hook, program, chain: Vec::new() },
                device,
                verdict: policy_verdict(node, &policy),
                ..self.hop(run.node, record.time_ns, &received, &after)
            };
            ends.tell(&mut hop, &policy);
            hops.push(hop);
        }
        inherit_source(&mut hops);
        Item { key: run.key.clone(), view: before, time_ns: first.time_ns, rank: HOOKED, hops }
    }

    /// Where and by which program it is decided what the pod receives, if events tell that it was.
    fn receiver(&self, node: &Words, at: &str, policy: &[&Record]) -> Option<(HookPoint, String, String)> {
        let endpoint = event_of(policy.first()?).map_or(0, endpoint_of);
        if !self.endpoint_routes {
            return Some((HookPoint::CallPolicy, HANDLE_POLICY.to_owned(), at.to_owned()));
        }
        let device = node.agent.pod_of(endpoint).map_or_else(|| "?".to_owned(), pod_device);
        Some((HookPoint::TcEgress, TO_CONTAINER.to_owned(), device))
    }
}

/// The endpoint of the program that told.
fn endpoint_of(event: &Event) -> u16 {
    match event {
        Event::Drop(d) => d.source,
        Event::Trace(t) => t.source,
        Event::PolicyVerdict(v) => v.source,
    }
}

struct Item {
    key: Key,
    view: FrameView,
    time_ns: u64,
    rank: u8,
    hops: Vec<Hop>,
}

/// Where packets of this node's pods and sockets meet their first program.
const ORIGINS: [&str; 2] = ["from_container", "from_host"];
/// How far two clocks that tell of one packet may be apart, nanoseconds.
const CLOCKS_NS: u64 = 2_000_000;

impl Packet {
    /// Whether what was seen happened to this packet, and not to a later one that looks the same.
    fn takes(&self, item: &Item) -> bool {
        let program = item.hops.first().and_then(|h| h.kind.program());
        let close = item.time_ns.abs_diff(self.time_ns) < CLOCKS_NS;
        match item.rank {
            SENT => !self.ranks.contains(&SENT) && close,
            // The stack may give to skep_host what a pod sent, but no packet meets its first program twice.
            HOOKED if program.is_some_and(|p| ORIGINS.contains(&p)) => {
                !self.hops.iter().any(|h| h.kind.program() == program)
            }
            rank => rank == HOOKED || !self.ranks.contains(&rank),
        }
    }

    fn add(&mut self, item: Item) {
        // The program that dropped it has told its own reason.
        if item.rank == DROPPED && self.dropped() {
            return;
        }
        // No event shows an answer to ARP; the device that receives it does.
        if item.rank == ARRIVED
            && let Some(answered) = self.hops.last_mut().filter(|h| h.verdict == Verdict::Answered)
        {
            answered.after.clone_from(&item.view);
        }
        if item.rank < self.ranks.first().copied().unwrap_or(u8::MAX) {
            self.first = item.view;
        }
        let at = self.ranks.iter().filter(|r| **r <= item.rank).count();
        for (i, hop) in item.hops.into_iter().enumerate() {
            self.ranks.insert(at + i, item.rank);
            self.hops.insert(at + i, hop);
        }
    }

    /// Whether it reached a pod's stack that took it.
    pub(super) fn arrived(&self) -> bool {
        self.ranks.contains(&ARRIVED) && !self.dropped()
    }

    /// Whether it has an end: it was taken, dropped or answered.
    pub(super) fn has_end(&self) -> bool {
        self.ranks.contains(&ARRIVED) || self.dropped()
    }

    /// Whether anything dropped it.
    pub(super) fn dropped(&self) -> bool {
        self.hops.iter().any(|h| h.verdict.reason().is_some())
    }
}

/// Who a frame is from and to: of ARP, who asks and who is asked for.
pub(super) fn ends_of(view: &FrameView) -> (Option<Ipv4Addr>, Option<Ipv4Addr>) {
    let v4 = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    };
    match (view.tuple, view.arp) {
        (Some(tuple), _) => (v4(tuple.src), v4(tuple.dst)),
        (None, Some(arp)) => (Some(arp.sender), Some(arp.target)),
        (None, None) => (None, None),
    }
}

/// The entry program of a run, by its first event.
fn entry(node: &Words, event: Option<&Event>) -> (String, HookPoint, String) {
    use HookPoint::{TcEgress, TcIngress};
    let (program, hook, device) = match event {
        Some(Event::Trace(t)) => match t.point() {
            Some(TracePoint::FromLxc) => {
                let device = node.agent.pod_of(t.source).map_or_else(|| "?".to_owned(), pod_device);
                return ("from_container".to_owned(), TcIngress, device);
            }
            Some(TracePoint::FromHost) => ("from_host", TcEgress, HOST_DEVICE),
            Some(TracePoint::FromNetwork) => ("from_netdev", TcIngress, node.uplink.as_str()),
            Some(TracePoint::FromOverlay) => ("from_overlay", TcIngress, VXLAN_DEVICE),
            Some(TracePoint::ToNetwork) => ("to_netdev", TcEgress, node.uplink.as_str()),
            Some(TracePoint::ToStack) => ("to_host", TcIngress, HOST_DEVICE),
            Some(TracePoint::ToOverlay) => ("to_overlay", TcEgress, VXLAN_DEVICE),
            _ => ("?", TcIngress, "?"),
        },
        _ => ("?", TcIngress, "?"),
    };
    (program.to_owned(), hook, device.to_owned())
}

/// Whether an event is of the program that decides what the endpoint receives.
fn is_of_receiver(event: &Event) -> bool {
    match event {
        Event::Drop(d) => d.source != 0 && u32::from(d.source) == d.dst_id,
        Event::Trace(t) => t.point() == Some(TracePoint::ToLxc),
        Event::PolicyVerdict(v) => v.dir() == METRIC_INGRESS,
    }
}

fn drop_of(records: &[&Record]) -> Option<Verdict> {
    records.iter().filter_map(|r| event_of(r)).find_map(|e| match e {
        Event::Drop(d) => Some(Verdict::Dropped { reason: drop_name(d) }),
        _ => None,
    })
}

fn drop_name(drop: &DropNotify) -> String {
    drop.reason().map_or_else(|| format!("DROP_REASON_{}", drop.subtype), |r| r.name().to_owned())
}

fn traces<'a>(records: &'a [&Record]) -> impl Iterator<Item = &'a TraceNotify> {
    records.iter().filter_map(|r| match event_of(r) {
        Some(Event::Trace(t)) => Some(t),
        _ => None,
    })
}

fn own_verdict(node: &Words, program: &str, records: &[&Record], before: &FrameView) -> Verdict {
    if let Some(drop) = drop_of(records) {
        return drop;
    }
    let redirect = |t: &TraceNotify, ingress| Verdict::Redirect { to: device(node, t.ifindex), ingress };
    for trace in traces(records) {
        match trace.point() {
            Some(TracePoint::ToOverlay) if program != "to_overlay" => return redirect(trace, false),
            Some(TracePoint::ToHost) => return redirect(trace, true),
            Some(TracePoint::ToStack) => return Verdict::Ok,
            _ => {}
        }
    }
    // An answer to ARP is the one thing that from_container does without a word.
    let answered = program == "from_container" && before.arp.is_some();
    if answered { Verdict::Answered } else { Verdict::Ok }
}

fn policy_verdict(node: &Words, records: &[&Record]) -> Verdict {
    let delivered = traces(records).find(|t| t.point() == Some(TracePoint::ToLxc));
    match (drop_of(records), delivered) {
        (Some(drop), _) => drop,
        (None, Some(t)) if t.ifindex != 0 => {
            Verdict::Redirect { to: device(node, t.ifindex), ingress: false }
        }
        _ => Verdict::Ok,
    }
}

fn device(node: &Words, ifindex: u32) -> String {
    match ifindex {
        0 => "stack".to_owned(),
        _ => node.devices.get(&ifindex).cloned().unwrap_or_else(|| format!("if{ifindex}")),
    }
}

/// Whom a run's packet is from and to.
struct Ends<'a> {
    node: &'a Words,
    src: Option<Ipv4Addr>,
    dst: Option<Ipv4Addr>,
}

impl Ends<'_> {
    /// Copies what events tell into their hop.
    fn tell(&self, hop: &mut Hop, records: &[&Record]) {
        for record in records {
            let What::Event { event, policy, .. } = &record.what else { continue };
            match event {
                Event::Drop(d) => self.know(hop, d.src_label, d.dst_label),
                Event::Trace(t) => {
                    self.know(hop, t.src_label, t.dst_label);
                    if let Some(status) = t.ct_status() {
                        hop.facts.push(Fact::Conntrack { status: status.name().to_owned(), entry: None });
                    }
                }
                Event::PolicyVerdict(_) => hop.facts.extend(policy.clone()),
            }
        }
    }

    /// Takes the identities that an event tells; 0 tells nothing.
    fn know(&self, hop: &mut Hop, source: u32, destination: u32) {
        let name = |number: u32, ip| {
            (number != skep_abi::identity::UNKNOWN)
                .then(|| Identity { number, text: self.node.agent.identity_name(number, ip) })
        };
        if let Some(identity) = name(source, self.src) {
            hop.src_identity = Some(identity);
        }
        if let Some(identity) = name(destination, self.dst) {
            hop.dst_identity = Some(identity);
        }
    }
}

/// handle_policy gets the source's identity from the program that called it, which told it in its own events.
fn inherit_source(hops: &mut [Hop]) {
    for i in 1..hops.len() {
        let same_run = hops[i].kind.program() == Some(HANDLE_POLICY);
        if same_run && hops[i].src_identity.is_none() {
            let known: Option<Identity> = hops[i - 1].src_identity.clone();
            hops[i].src_identity = known;
        }
    }
}

/// The class of a packet, as it set out.
pub(super) fn class_of(packet: &Packet) -> Class {
    Class::of(&packet.first)
}
