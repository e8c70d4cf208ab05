//! From what was recorded to the evidence of a flow: its packets, the way of each, and what became of it.
//!
//! Only arranges: every value was copied when it was recorded.

use crate::flow::{Flow, Kind, Running};
use crate::machine::Machine;
use crate::recorder::{Entry, HookRun};
use skep_net::{
    Direction as Way, DropReason, FrameId, Net, Origin, Record, Taker, Verdict as NetVerdict, What,
};
use skep_scenario::evidence::Packets;
use skep_scenario::{
    Class, Direction, Evidence, Fact, FrameView, HookPoint, Hop, HopKind, Identity, MacAddr, Verdict, Walk,
};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

/// Everything recorded about a flow.
pub(crate) fn of_flow(number: u32, flow: &Flow, net: &Net, machine: &Machine, start_ns: u64) -> Evidence {
    let builder = Builder { net, machine, start_ns };
    let mut walks = Vec::new();
    let mut packets = Packets::default();
    let mut seen = BTreeSet::new();
    let mut count = 0;
    for (frame, entries) in machine.recorder.frames_since(flow.mark) {
        let Some((direction, class)) = belonging(number, flow, frame, &entries) else { continue };
        let packet = count;
        count += 1;
        let end = entries.last().map(|e| &e.record.what);
        if class != Class::Arp && class != Class::IcmpError {
            tally(&mut packets, direction, end);
        }
        let dropped = matches!(end, Some(What::Dropped { .. }));
        if seen.insert((direction, class)) || dropped {
            walks.push(Walk { direction, class, packet, hops: builder.hops(&entries) });
        }
    }
    // A packet that waits for its next hop's address is first sent once that is known: what asked for it comes first.
    walks.sort_by_key(|w| {
        let set_out = w.hops.iter().find(|h| matches!(h.kind, HopKind::Hook { .. })).or(w.hops.first());
        (set_out.map(|h| h.time_ns), w.packet)
    });
    let delivered = packets.sent > 0 && packets.sent == packets.delivered;
    let outcome = flow.outcome(net, delivered);
    if flow.kind == Kind::Http
        && let Some(status) = outcome.status
    {
        tell_status(&mut walks, status, outcome.bytes);
    }
    Evidence { flow: flow.tuple, from: flow.from.to_string(), walks, outcome, packets }
}

/// Writes the status line into the last hop of the reply's first data packet, which carries it.
fn tell_status(walks: &mut [Walk], status: u16, bytes: u64) {
    let data = |w: &&mut Walk| {
        w.direction == Direction::Reply
            && w.hops.iter().any(|h| h.before.payload_len > 0)
            && w.hops.last().is_some_and(|h| h.verdict == Verdict::Delivered)
    };
    if let Some(hop) = walks.iter_mut().find(data).and_then(|w| w.hops.last_mut()) {
        hop.facts.push(Fact::Http { status, bytes });
    }
}

fn tally(packets: &mut Packets, direction: Direction, end: Option<&What>) {
    let arrived = matches!(end, Some(What::Delivered { .. } | What::Consumed { by: Taker::Icmp }));
    let (made, got) = match direction {
        Direction::Forward => (&mut packets.sent, &mut packets.delivered),
        Direction::Reply => (&mut packets.replied, &mut packets.received),
    };
    *made += 1;
    *got += u64::from(arrived);
}

/// Whether a frame is the flow's, which way it goes and of which class it is.
fn belonging(number: u32, flow: &Flow, frame: FrameId, entries: &[&Entry]) -> Option<(Direction, Class)> {
    let first = entries.first()?;
    let class = Class::of(&first.view);
    if let Running::Packets { frames, .. } = &flow.run
        && frames.contains(&frame)
    {
        return Some((Direction::Forward, class));
    }
    let tuple = first.view.tuple;
    if class != Class::IcmpError && tuple == Some(flow.tuple) {
        // An echo's reply has the request's tuple turned round, so equal tuples are one direction.
        return Some((Direction::Forward, class));
    }
    if class != Class::IcmpError && tuple == Some(flow.tuple.reversed()) {
        return Some((Direction::Reply, class));
    }
    if first.flow != Some(number) {
        return None;
    }
    let towards = |ip: IpAddr| tuple.is_some_and(|t| t.dst == ip);
    match class {
        Class::Arp => Some((arp_direction(flow, first), class)),
        Class::IcmpError if towards(flow.tuple.src) => Some((Direction::Reply, class)),
        Class::IcmpError if towards(flow.tuple.dst) => Some((Direction::Forward, class)),
        _ => None,
    }
}

/// A request for the way towards the other end is the forward direction's, and so is its answer.
fn arp_direction(flow: &Flow, first: &Entry) -> Direction {
    let asks_for_reply = first.view.arp.is_some_and(|arp| {
        let asking = if arp.reply { arp.target } else { arp.sender };
        IpAddr::V4(asking) == flow.tuple.dst
    });
    if asks_for_reply { Direction::Reply } else { Direction::Forward }
}

struct Builder<'a> {
    net: &'a Net,
    machine: &'a Machine,
    start_ns: u64,
}

impl Builder<'_> {
    fn hops(&self, entries: &[&Entry]) -> Vec<Hop> {
        let mut hops: Vec<Hop> = Vec::new();
        let mut before = entries.first().map(|e| e.view.clone()).unwrap_or_default();
        for entry in entries {
            match &entry.record.what {
                What::Hook { direction, verdict, .. } => {
                    if let Some(run) = &entry.hook {
                        hops.extend(self.hook_hops(entry, run, *direction, *verdict));
                    }
                }
                // The hook that answered TC_ACT_SHOT has told its own reason.
                What::Dropped { reason: DropReason::TcIngress | DropReason::TcEgress }
                    if hops.last().is_some_and(|h| h.verdict.reason().is_some()) => {}
                What::Consumed { by: Taker::Hook } => {}
                what => {
                    let mut hop = self.plain_hop(&entry.record, what, &before, &entry.view);
                    // What happens between nodes is told of the sending one.
                    if let (Some(hop), None, Some(last)) = (&mut hop, entry.record.node, hops.last()) {
                        hop.node.clone_from(&last.node);
                        hop.device.clone_from(&last.device);
                    }
                    hops.extend(hop);
                }
            }
            before = entry.view.clone();
        }
        // What happens between nodes happens to a frame of the node that sent it.
        for i in 1..hops.len() {
            if hops[i].node.is_empty() {
                hops[i].node = hops[i - 1].node.clone();
            }
        }
        hops
    }

    /// The hops of one run: the entry program's, and handle_policy's if it went on there.
    fn hook_hops(&self, entry: &Entry, run: &HookRun, way: Way, verdict: NetVerdict) -> Vec<Hop> {
        let last = run.programs.len() - 1;
        let mut hops = Vec::new();
        for (i, program) in run.programs.iter().enumerate() {
            let verdict = match (&program.dropped, run.programs.get(i + 1)) {
                (Some(reason), _) => Verdict::Dropped { reason: reason.clone() },
                (None, Some(next)) => Verdict::TailCall { to: next.program.clone() },
                (None, None) if program.answered && matches!(verdict, NetVerdict::Redirect { .. }) => {
                    Verdict::Answered
                }
                (None, None) => self.hook_verdict(&entry.record, verdict),
            };
            let hook = program.point.unwrap_or(match way {
                Way::Ingress => HookPoint::TcIngress,
                Way::Egress => HookPoint::TcEgress,
            });
            hops.push(Hop {
                kind: HopKind::Hook { hook, program: program.program.clone(), chain: program.chain.clone() },
                before: run.before.clone(),
                // What the entry program itself changed before it handed the packet on is not recorded.
                after: if i == last { entry.view.clone() } else { run.before.clone() },
                src_identity: program.src_identity.clone(),
                dst_identity: program.dst_identity.clone(),
                verdict,
                facts: program.facts.clone(),
                ..self.at(&entry.record)
            });
        }
        inherit_source(&mut hops);
        hops
    }

    fn hook_verdict(&self, record: &Record, verdict: NetVerdict) -> Verdict {
        match verdict {
            NetVerdict::Unspec | NetVerdict::Ok => Verdict::Ok,
            NetVerdict::Stolen => Verdict::Dropped { reason: "TC_ACT_STOLEN".to_owned() },
            NetVerdict::Shot => Verdict::Dropped { reason: DropReason::NotSpecified.name().to_owned() },
            NetVerdict::Redirect { ifindex, ingress } => {
                Verdict::Redirect { to: self.device(record, ifindex), ingress }
            }
            NetVerdict::RedirectPeer { ifindex } | NetVerdict::RedirectNeigh { ifindex, .. } => {
                Verdict::Redirect { to: self.device(record, ifindex), ingress: false }
            }
        }
    }

    /// A hop outside of programs; none for what only a tap sees.
    fn plain_hop(&self, record: &Record, what: &What, before: &FrameView, after: &FrameView) -> Option<Hop> {
        let (kind, verdict, facts) = match what {
            What::Sent { origin: Origin::Arp } => (HopKind::Resolve, Verdict::Ok, Vec::new()),
            What::Sent { .. } => (HopKind::Send, Verdict::Ok, Vec::new()),
            What::Rx | What::Tx | What::Hook { .. } | What::NeighbourWait { .. } => return None,
            What::Forwarded { out, next_hop, .. } => {
                let device = self.device(record, *out);
                (HopKind::Forward, Verdict::Ok, vec![route(after, *next_hop, device)])
            }
            What::Encapsulated { vni, destination, .. } => {
                (HopKind::Encapsulate, Verdict::Ok, vec![tunnel(*vni, *destination)])
            }
            What::Decapsulated { vni, source, .. } => {
                (HopKind::Decapsulate, Verdict::Ok, vec![tunnel(*vni, *source)])
            }
            What::Wire => (HopKind::Transit, Verdict::Ok, Vec::new()),
            What::Delivered { .. }
            | What::Consumed { by: Taker::Icmp | Taker::Hook }
            | What::Merged { .. } => (HopKind::Deliver, Verdict::Delivered, Vec::new()),
            What::Consumed { by: Taker::Arp } => (HopKind::Resolve, Verdict::Delivered, neighbour(after)),
            What::Dropped { reason } => {
                let kind =
                    if reason.name().starts_with("FABRIC_") { HopKind::Transit } else { HopKind::Deliver };
                (kind, Verdict::Dropped { reason: reason.name().to_owned() }, Vec::new())
            }
        };
        Some(Hop { kind, before: before.clone(), after: after.clone(), verdict, facts, ..self.at(record) })
    }

    /// Time and place of a record.
    fn at(&self, record: &Record) -> Hop {
        let host = record.node.and_then(|n| self.machine.members.get(n.0 as usize)).map(|m| &m.host);
        let device = match (host, record.ifindex, record.ns) {
            (Some(host), Some(ifindex), _) => host.device_name(ifindex),
            (_, None, Some(ns)) => match self.net.namespace_name(ns).unwrap_or_default() {
                "" => "stack".to_owned(),
                pod => pod.to_owned(),
            },
            _ => String::new(),
        };
        Hop {
            time_ns: record.time_ns - self.start_ns,
            node: host.map(|h| h.name.clone()).unwrap_or_default(),
            device,
            kind: HopKind::Transit,
            before: FrameView::default(),
            after: FrameView::default(),
            src_identity: None,
            dst_identity: None,
            verdict: Verdict::Ok,
            facts: Vec::new(),
        }
    }

    fn device(&self, record: &Record, ifindex: u32) -> String {
        let host = record.node.and_then(|n| self.machine.members.get(n.0 as usize)).map(|m| &m.host);
        host.map_or_else(|| format!("if{ifindex}"), |h| h.device_name(ifindex))
    }
}

/// handle_policy gets the source's identity from the program that called it, which told it in its own events.
fn inherit_source(hops: &mut [Hop]) {
    let known: Option<Identity> = hops.first().and_then(|h| h.src_identity.clone());
    for hop in hops.iter_mut().skip(1) {
        if hop.src_identity.is_none() {
            hop.src_identity.clone_from(&known);
        }
    }
}

fn tunnel(vni: u32, remote: Ipv4Addr) -> Fact {
    Fact::Tunnel { vni, remote: IpAddr::V4(remote) }
}

fn route(view: &FrameView, next_hop: Ipv4Addr, device: String) -> Fact {
    let destination = view.outer.map(|o| o.dst).or(view.tuple.map(|t| t.dst));
    let via = IpAddr::V4(next_hop);
    Fact::Route { via: (destination != Some(via)).then_some(via), device }
}

/// What an ARP answer taught the one that asked.
fn neighbour(view: &FrameView) -> Vec<Fact> {
    view.arp
        .filter(|arp| arp.reply)
        .map(|arp| Fact::Neighbour { address: IpAddr::V4(arp.sender), mac: MacAddr(arp.sender_mac.0) })
        .into_iter()
        .collect()
}
