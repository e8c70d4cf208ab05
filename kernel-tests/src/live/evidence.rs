//! From what was recorded to the evidence of a flow: its packets, the way of each, and what became of it.
//!
//! Arranges as the simulator does, so that both can be compared.

use super::record::Record;
use super::traffic::Flow;
use super::walk::{Packet, Reader, class_of};
use skep_scenario::evidence::Packets;
use skep_scenario::{
    Class, Direction, Evidence, Fact, FiveTuple, FrameView, HopKind, Outcome, Verdict, Walk,
};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// A flow, and when the World waited for it.
pub(super) struct Carried {
    pub(super) from: String,
    pub(super) flow: Flow,
    /// How many records there were when it began.
    pub(super) mark: usize,
    /// Nanoseconds of CLOCK_MONOTONIC, from and to.
    pub(super) times: Vec<(u64, u64)>,
}

/// Everything recorded about a flow. `own` are the nodes' addresses: what reaches them ends in their stack.
pub(super) fn of_flow(
    carried: &Carried,
    reader: &Reader<'_>,
    records: &[Record],
    own: &[IpAddr],
) -> Evidence {
    let mut walks = Vec::new();
    let mut counts = Packets::default();
    let (mut seen, mut count) = (BTreeSet::new(), 0);
    for packet in reader.packets(records) {
        let Some((direction, class)) = belonging(carried, &packet) else { continue };
        let number = count;
        count += 1;
        if class != Class::Arp && class != Class::IcmpError {
            tally(&mut counts, direction, &packet, own);
        }
        if seen.insert((direction, class)) || packet.dropped() {
            walks.push(Walk { direction, class, packet: number, hops: packet.hops });
        }
    }
    walks.sort_by_key(|w| {
        let set_out = w.hops.iter().find(|h| matches!(h.kind, HopKind::Hook { .. })).or(w.hops.first());
        (set_out.map(|h| h.time_ns), w.packet)
    });
    let mut outcome = carried.flow.outcome();
    if carried.flow.raw {
        outcome.completed = outcome.ended && counts.sent > 0 && counts.sent == counts.delivered;
    }
    if carried.flow.http {
        tell_status(&mut walks, &outcome);
    }
    Evidence { flow: carried.flow.tuple, from: carried.from.clone(), walks, outcome, packets: counts }
}

/// Writes the status line into the last hop of the reply's first data packet, which carries it.
fn tell_status(walks: &mut [Walk], outcome: &Outcome) {
    let Some(status) = outcome.status else { return };
    let data = |w: &&mut Walk| {
        w.direction == Direction::Reply
            && w.hops.iter().any(|h| h.before.payload_len > 0)
            && w.hops.last().is_some_and(|h| h.verdict == Verdict::Delivered)
    };
    if let Some(hop) = walks.iter_mut().find(data).and_then(|w| w.hops.last_mut()) {
        hop.facts.push(Fact::Http { status, bytes: outcome.bytes });
    }
}

/// Whether packets of a flow are still on their way: a stack that does not know its neighbour keeps them for seconds.
pub(super) fn in_flight(carried: &Carried, reader: &Reader<'_>, records: &[Record], own: &[IpAddr]) -> bool {
    reader.packets(records).iter().any(|packet| {
        let ours = belonging(carried, packet).is_some_and(|(_, class)| class != Class::Arp);
        ours && !packet.has_end() && !taken_by_node(packet, own)
    })
}

fn tally(packets: &mut Packets, direction: Direction, packet: &Packet, own: &[IpAddr]) {
    let arrived = packet.arrived() || taken_by_node(packet, own);
    let (made, got) = match direction {
        Direction::Forward => (&mut packets.sent, &mut packets.delivered),
        Direction::Reply => (&mut packets.replied, &mut packets.received),
    };
    *made += 1;
    *got += u64::from(arrived);
}

fn taken_by_node(packet: &Packet, own: &[IpAddr]) -> bool {
    // No tap sees what the node's stack takes: it is what the last program let pass, for an address of the node.
    let for_node = packet.first.tuple.is_some_and(|t| own.contains(&t.dst));
    let passed = packet.hops.last().is_some_and(|h| {
        let receives = matches!(h.kind.program(), Some("to_host" | "from_netdev"));
        receives && h.verdict == Verdict::Ok
    });
    for_node && passed
}

/// Whether a packet is the flow's, which way it goes and of which class it is.
fn belonging(carried: &Carried, packet: &Packet) -> Option<(Direction, Class)> {
    let (class, flow) = (class_of(packet), carried.flow.tuple);
    let tuple = packet.first.tuple;
    let waited_for = carried.times.iter().any(|(from, to)| (*from..=*to).contains(&packet.time_ns));
    if carried.flow.raw
        && waited_for
        && tuple.is_some_and(|t| same_ends(&t, &flow))
        && class != Class::IcmpError
    {
        return Some((Direction::Forward, class));
    }
    if class != Class::IcmpError && tuple == Some(flow) {
        return Some((Direction::Forward, class));
    }
    if class != Class::IcmpError && tuple == Some(flow.reversed()) {
        return Some((Direction::Reply, class));
    }
    // Fragments have no ports.
    let fragment =
        |t: &FiveTuple| (t.protocol, t.sport, t.dport) == (flow.protocol, 0, 0) && flow.protocol != 1;
    if waited_for && tuple.is_some_and(|t| fragment(&t) && same_ends(&t, &flow)) {
        return Some((Direction::Forward, class));
    }
    if !waited_for {
        return None;
    }
    let towards = |ip: IpAddr| tuple.is_some_and(|t| t.dst == ip);
    match class {
        Class::Arp => Some((arp_direction(&flow, &packet.first), class)),
        Class::IcmpError if towards(flow.src) => Some((Direction::Reply, class)),
        Class::IcmpError if towards(flow.dst) => Some((Direction::Forward, class)),
        _ => None,
    }
}

fn same_ends(one: &FiveTuple, other: &FiveTuple) -> bool {
    (one.src, one.dst) == (other.src, other.dst)
}

/// A request for the way towards the other end is the forward direction's, and so is its answer.
fn arp_direction(flow: &FiveTuple, first: &FrameView) -> Direction {
    let asks_for_reply = first.arp.is_some_and(|arp| {
        let asking = if arp.reply { arp.target } else { arp.sender };
        IpAddr::V4(asking) == flow.dst
    });
    if asks_for_reply { Direction::Reply } else { Direction::Forward }
}
