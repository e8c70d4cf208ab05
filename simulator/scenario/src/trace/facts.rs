//! What a hop changed in the packet, and what was recorded there, each in a few words.

use crate::evidence::{Fact, Hop, HopKind, Verdict};
use crate::frame::{FrameView, OuterView};
use std::net::IpAddr;

/// What is different in the frame after the hop.
pub(super) fn changes(hop: &Hop) -> Vec<String> {
    if hop.verdict.reason().is_some() {
        // Where it ends nobody sees what was changed.
        return Vec::new();
    }
    let (before, after) = (&hop.before, &hop.after);
    let mut out = Vec::new();
    match (before.outer, after.outer) {
        (None, Some(outer)) => out.push(format!("+ {}", outer_text(&outer))),
        (Some(outer), None) => out.push(format!("- {}", outer_text(&outer))),
        (Some(b), Some(a)) if a != b => out.push(format!("{} becomes {}", outer_text(&b), outer_text(&a))),
        // The walk shows the outer headers wherever a program sees the packet in them.
        (Some(outer), Some(_)) if matches!(hop.kind, HopKind::Hook { .. }) => out.push(outer_text(&outer)),
        _ => {}
    }
    if let (Some(b), Some(a)) = (before.tuple, after.tuple)
        && a != b
    {
        out.push(format!("{b} becomes {a}"));
    }
    out.extend(macs(before, after));
    if let (Some(b), Some(a)) = (before.ttl, after.ttl)
        && a != b
    {
        out.push(format!("ttl {b}>{a}"));
    }
    out
}

fn macs(before: &FrameView, after: &FrameView) -> Option<String> {
    // Where headers were put around or taken off, the addresses are another frame's.
    let comparable = before.outer.is_some() == after.outer.is_some();
    let (src, dst) = (after.src_mac?, after.dst_mac?);
    let changed =
        before.src_mac.is_some() && (before.src_mac, before.dst_mac) != (after.src_mac, after.dst_mac);
    (comparable && changed).then(|| format!("mac {src} > {dst}"))
}

fn outer_text(o: &OuterView) -> String {
    format!("{} -> {} UDP {} VNI {}", o.src, o.dst, o.dport, o.vni)
}

/// The recorded values, in order; the tunnel last, as it is what they led to.
pub(super) fn facts(hop: &Hop) -> Vec<String> {
    let is_tunnel = |f: &&Fact| matches!(f, Fact::Tunnel { .. });
    // Where the tunnel device works, the outer headers tell the same.
    let shows_outer = matches!(hop.kind, HopKind::Encapsulate | HopKind::Decapsulate);
    let given = hop
        .facts
        .iter()
        .any(|f| matches!(f, Fact::Ipcache { entry: Some(e), .. } if e.tunnel_endpoint.is_some()));
    let tunnels = hop.facts.iter().filter(is_tunnel).filter(|_| !shows_outer);
    let others = hop.facts.iter().filter(|f| !is_tunnel(f));
    let chained: Vec<&Fact> =
        if given { others.chain(tunnels).collect() } else { tunnels.chain(others).collect() };
    chained.into_iter().filter(|f| !is_told_elsewhere(hop, f)).map(|f| fact(hop, f)).collect()
}

/// What the line tells already: that a pod behind a tunnel is not on this node, that the other node's address is
/// another node's (the identities' column), and which node a tunnel came from (the line before).
fn is_told_elsewhere(hop: &Hop, fact: &Fact) -> bool {
    match fact {
        Fact::Endpoint { entry: None, .. } => tunnel_of_ipcache(hop).is_some(),
        Fact::Ipcache { address, entry: Some(e) } => {
            e.tunnel_endpoint.is_none()
                && hop.before.outer.is_some_and(|o| o.src == *address)
                && hop.src_identity.as_ref().is_some_and(|i| i.number == e.identity.number)
        }
        _ => false,
    }
}

/// How many tail calls were taken.
pub(super) fn tail_calls(hop: &Hop) -> Option<String> {
    match &hop.kind {
        HopKind::Hook { chain, .. } if chain.len() == 1 => Some("1 tail call".to_owned()),
        HopKind::Hook { chain, .. } if !chain.is_empty() => Some(format!("{} tail calls", chain.len())),
        _ => None,
    }
}

fn fact(hop: &Hop, fact: &Fact) -> String {
    // Of the packet's own destination the heading tells the address.
    let of = |address: &IpAddr| match hop.before.tuple {
        Some(tuple) if tuple.dst == *address => String::new(),
        _ => format!(" {address}"),
    };
    match fact {
        Fact::Ipcache { address, entry: None } => format!("ipcache{} none", of(address)),
        Fact::Ipcache { address, entry: Some(e) } => {
            let tunnel = e.tunnel_endpoint.map_or(String::new(), |t| format!(" tunnel {t}"));
            format!("ipcache{} id {}{tunnel}", of(address), e.identity.number)
        }
        Fact::Policy { direction, allowed, match_type, rule, .. } => {
            let word = if *allowed { "allowed" } else { "denied" };
            // Without a matching key the rule's text is that of the default.
            let key = if match_type == "none" { String::new() } else { format!(" {match_type}") };
            format!("{} {word}{key}: {rule}", direction.name())
        }
        Fact::Conntrack { status, .. } => format!("ct {status}"),
        Fact::Tunnel { vni, remote } if tunnel_of_ipcache(hop) == Some(*remote) => format!("VNI {vni}"),
        // Coming out of the tunnel: the line above tells from where.
        Fact::Tunnel { vni, .. } if matches!(hop.verdict, Verdict::TailCall { .. }) => format!("VNI {vni}"),
        Fact::Tunnel { vni, remote } => format!("tunnel {remote} VNI {vni}"),
        Fact::Endpoint { address, entry: None } => format!("endpoint{} none", of(address)),
        Fact::Endpoint { address, entry: Some(e) } if e.host => format!("endpoint{} host", of(address)),
        Fact::Endpoint { address, entry: Some(e) } => {
            format!("endpoint{} {} ifindex {} {} > {}", of(address), e.id, e.ifindex, e.node_mac, e.mac)
        }
        Fact::Neighbour { address, mac } => format!("{address} is at {mac}"),
        Fact::Route { via: Some(via), device } => format!("route via {via} dev {device}"),
        Fact::Route { via: None, device } => format!("route dev {device}"),
        Fact::Http { status, bytes } => format!("HTTP {status}, {bytes} bytes"),
        Fact::Note(text) => text.clone(),
    }
}

/// The node that the ipcache named at this hop.
fn tunnel_of_ipcache(hop: &Hop) -> Option<IpAddr> {
    hop.facts.iter().find_map(|f| match f {
        Fact::Ipcache { entry: Some(e), .. } => e.tunnel_endpoint,
        _ => None,
    })
}

/// What is worth a word of a packet that went a way that was shown before: what conntrack and policy said, and what
/// the application got.
pub(super) fn at_the_end(hop: &Hop) -> Vec<String> {
    let telling = |f: &&Fact| matches!(f, Fact::Conntrack { .. } | Fact::Policy { .. } | Fact::Http { .. });
    hop.facts.iter().filter(telling).map(|f| fact(hop, f)).collect()
}
