//! The walk of a flow as people read it: a line a hop, and a flow line as Hubble prints it at the end.
//!
//! Shows what was recorded and nothing else. Decides nothing, and knows no World.

mod facts;

use crate::evidence::{Class, Direction, Evidence, Hop, HopKind, Identity, Verdict, Walk};
use crate::judge::FlowVerdict;
use crate::reasons;
use crate::report::{NodeConntrack, TextStyle, shown};
use crate::schema::ExpectedVerdict;
use anstyle::{AnsiColor, Style};
use skep_abi::DropReason;
use std::fmt::Write;

/// Narrower than this, what a hop did stands in lines of its own below it.
const WIDE: usize = 120;
/// No narrower than this, whatever the terminal says.
const NARROWEST: usize = 60;
/// Between two columns.
const GAP: &str = " ";
/// Indentation of what stands below a hop.
const INDENT: usize = 10;
const NANOS_PER_MILLI: u64 = 1_000_000;
const NANOS_PER_MICRO: u64 = 1_000;

/// A hop's line before it is laid out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TraceLine {
    /// Milliseconds since the cluster was built, with three digits after the point.
    pub time: String,
    /// The node.
    pub node: String,
    /// The device.
    pub device: String,
    /// The hook, or what the stack did.
    pub hook: String,
    /// The program, if one ran.
    pub program: String,
    /// Source and destination identity as far as they were known there: `256 -> 257`.
    pub identities: String,
    /// What became of the packet: `-> skep_vxlan`, `DROPPED POLICY_DENIED (133)`.
    pub verdict: String,
    /// What changed in the packet, and the values recorded there.
    pub details: Vec<String>,
    /// How many tail calls were taken; shown only where there is room.
    pub tail_calls: Option<String>,
    dropped: bool,
    delivered: bool,
}

impl TraceLine {
    /// Of a hop.
    pub fn of(hop: &Hop) -> Self {
        let mut details = facts::changes(hop);
        details.extend(facts::facts(hop));
        Self {
            time: format_time(hop.time_ns),
            node: hop.node.clone(),
            device: short_device(&hop.device).to_owned(),
            hook: hop.kind.name().to_owned(),
            program: hop.kind.program().unwrap_or("-").to_owned(),
            identities: identities(hop),
            verdict: verdict(&hop.verdict),
            details,
            tail_calls: facts::tail_calls(hop),
            dropped: hop.verdict.reason().is_some(),
            delivered: matches!(hop.verdict, Verdict::Delivered),
        }
    }

    fn columns(&self) -> [&str; 6] {
        [&self.time, &self.node, &self.device, &self.hook, &self.program, &self.identities]
    }

    fn style(&self) -> Style {
        match (self.dropped, self.delivered) {
            (true, _) => AnsiColor::Red.on_default().bold(),
            (_, true) => AnsiColor::Green.on_default(),
            _ => Style::new(),
        }
    }
}

/// A pod's device without the pod's namespace, which the heading tells.
fn short_device(device: &str) -> &str {
    device.split_once('/').map_or(device, |(_, rest)| rest)
}

/// Milliseconds with three digits.
fn format_time(ns: u64) -> String {
    format!("{}.{:03}", ns / NANOS_PER_MILLI, ns % NANOS_PER_MILLI / NANOS_PER_MICRO)
}

fn identities(hop: &Hop) -> String {
    match (&hop.src_identity, &hop.dst_identity) {
        (None, None) => "-".to_owned(),
        (src, dst) => {
            let number = |i: &Option<Identity>| i.as_ref().map_or("?".to_owned(), |i| i.number.to_string());
            format!("{} -> {}", number(src), number(dst))
        }
    }
}

fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Ok => "ok".to_owned(),
        Verdict::Redirect { to, ingress: false } => format!("-> {to}"),
        Verdict::Redirect { to, ingress: true } => format!("-> {to} (ingress)"),
        Verdict::TailCall { to } => format!("-> {to}"),
        Verdict::Delivered => "delivered".to_owned(),
        Verdict::Answered => "answered".to_owned(),
        Verdict::Dropped { reason } => format!("DROPPED {}", reasons::with_number(reason)),
    }
}

/// The names of [`TraceLine::columns`].
const NAMES: [&str; 6] = ["ms", "node", "device", "hook", "program", "identities"];

/// The trace of a flow: its walks in order of time, each with a heading, then its Hubble line. A packet that went the
/// same way as one before it has one line. Walks that began before `since_ns`, of a flow that was left open, were shown
/// when it was.
pub fn render(evidence: &Evidence, since_ns: u64, style: TextStyle) -> String {
    let mut walks = shown(evidence);
    walks.retain(|w| w.hops.first().is_some_and(|h| h.time_ns >= since_ns));
    // A packet that waits for its next hop's address begins its walk with the question.
    walks.sort_by_key(|w| (w.hops.first().map(|h| h.time_ns), w.class != Class::Arp));
    let mut ways: Vec<(Direction, Vec<String>)> = Vec::new();
    let mut parts = Vec::new();
    for walk in walks {
        let way = (walk.direction, way(walk));
        let again = ways.contains(&way);
        ways.push(way);
        let hops = walk.hops.iter().filter(|h| tells_something(h));
        let lines: Vec<TraceLine> = if again { vec![] } else { hops.map(TraceLine::of).collect() };
        parts.push((walk, lines));
    }
    let widths = widths(parts.iter().flat_map(|(_, lines)| lines));
    let mut out = String::new();
    if !parts.is_empty() {
        out += &style.paint(Style::new().dimmed(), &column_names(&widths, style.width));
        out.push('\n');
    }
    for (walk, lines) in &parts {
        if lines.is_empty() {
            out += &same_way(walk, style);
            continue;
        }
        out += &heading(walk, style);
        for line in lines {
            out += &layout(line, &widths, style);
        }
    }
    out += &flow_line(evidence);
    out.push('\n');
    out
}

/// The wire between nodes says nothing unless it loses the frame.
fn tells_something(hop: &Hop) -> bool {
    !(matches!(hop.kind, HopKind::Transit) && hop.verdict == Verdict::Ok)
}

/// When the last of a flow's packets that were shown came to its end: what a later step shows begins after it.
pub fn end_ns(evidence: &Evidence) -> u64 {
    evidence.walks.iter().flat_map(|w| w.hops.last()).map(|h| h.time_ns + 1).max().unwrap_or(0)
}

/// Everywhere that a packet was, and what became of it there.
fn way(walk: &Walk) -> Vec<String> {
    walk.hops.iter().map(|h| format!("{} {} {}", h.place(), h.kind.name(), verdict(&h.verdict))).collect()
}

fn column_names(widths: &[usize; 6], width: usize) -> String {
    let mut out = String::new();
    let shown = if width.max(NARROWEST) >= WIDE { 6 } else { 5 };
    for (i, (name, w)) in NAMES.iter().zip(widths).take(shown).enumerate() {
        let _ = if i == 0 { write!(out, "{name:>w$}{GAP}") } else { write!(out, "{name:<w$}{GAP}") };
    }
    out + "verdict"
}

/// `>> data 10.42.1.80:49152 -> 10.42.0.51:80 TCP, the same way: 1.558 to 1.660, delivered, ct established`.
fn same_way(walk: &Walk, style: TextStyle) -> String {
    let (Some(first), Some(last)) = (walk.hops.first(), walk.hops.last()) else { return String::new() };
    let mut parts = vec![
        format!("{} to {}", format_time(first.time_ns), format_time(last.time_ns)),
        verdict(&last.verdict),
    ];
    for hop in &walk.hops {
        for fact in facts::at_the_end(hop) {
            if !parts.contains(&fact) {
                parts.push(fact);
            }
        }
    }
    let line = format!("{} {}, the same way", arrow(walk), what(walk));
    let mut out = style.paint(Style::new().bold(), &line) + "\n";
    for row in wrap(&parts, None, style.width.max(NARROWEST) - INDENT) {
        let _ = writeln!(out, "{:INDENT$}{row}", "");
    }
    out
}

const fn arrow(walk: &Walk) -> &'static str {
    match walk.direction {
        Direction::Forward => ">>",
        Direction::Reply => "<<",
    }
}

/// `SYN 10.42.1.80:49152 -> 10.42.0.51:80 TCP`.
fn what(walk: &Walk) -> String {
    let first = walk.hops.first().map(|h| &h.before);
    match first.and_then(|f| f.tuple) {
        Some(tuple) => format!("{} {tuple}", walk.class.name()),
        None => first.map_or_else(|| walk.class.name().to_owned(), |f| f.summary()),
    }
}

/// The widest of each column.
fn widths<'a>(lines: impl Iterator<Item = &'a TraceLine>) -> [usize; 6] {
    let mut widths = NAMES.map(str::len);
    for line in lines {
        for (width, column) in widths.iter_mut().zip(line.columns()) {
            *width = (*width).max(column.chars().count());
        }
    }
    widths
}

/// `SYN 10.42.1.80:49152 -> 10.42.0.51:80 TCP, default/curl (256) -> default/httpbin (257)`.
fn heading(walk: &Walk, style: TextStyle) -> String {
    let (arrow, what) = (arrow(walk), what(walk));
    let who = match ends(walk) {
        (None, None) => String::new(),
        (src, dst) => format!("  {} -> {}", end_text(src), end_text(dst)),
    };
    let line = format!("{arrow} {what}{who}");
    let bold = Style::new().bold();
    let lines = if line.chars().count() <= style.width {
        vec![line]
    } else {
        vec![format!("{arrow} {what}"), format!("   {}", who.trim_start())]
    };
    lines.iter().map(|l| style.paint(bold, l) + "\n").collect()
}

/// `default/curl (256)`; of an identity of which only labels are known, the number.
fn end_text(identity: Option<&Identity>) -> String {
    match identity {
        None => "?".to_owned(),
        Some(i) if i.text.contains('=') => format!("({})", i.number),
        Some(i) => i.to_string(),
    }
}

/// The identities of a packet's ends, as the hop that knew them last.
fn ends(walk: &Walk) -> (Option<&Identity>, Option<&Identity>) {
    let last = |of: fn(&Hop) -> Option<&Identity>| walk.hops.iter().rev().find_map(of);
    (last(|h| h.src_identity.as_ref()), last(|h| h.dst_identity.as_ref()))
}

fn layout(line: &TraceLine, widths: &[usize; 6], style: TextStyle) -> String {
    let width = style.width.max(NARROWEST);
    if width >= WIDE { wide(line, widths, width, style) } else { narrow(line, widths, width, style) }
}

/// Everything in a line; what does not fit goes on below, in its own column.
fn wide(line: &TraceLine, widths: &[usize; 6], width: usize, style: TextStyle) -> String {
    let mut head = String::new();
    for (i, (column, w)) in line.columns().iter().zip(widths).enumerate() {
        // Times are numbers: right-aligned.
        let _ = if i == 0 { write!(head, "{column:>w$}{GAP}") } else { write!(head, "{column:<w$}{GAP}") };
    }
    let indent = head.chars().count();
    let mut parts = vec![line.verdict.clone()];
    parts.extend(line.details.iter().cloned());
    let rows = wrap(&parts, line.tail_calls.as_ref(), width.saturating_sub(indent));
    let mut out = String::new();
    for (i, row) in rows.iter().enumerate() {
        if i == 0 {
            let rest = row.strip_prefix(&line.verdict).unwrap_or(row);
            let verdict = &row[..row.len() - rest.len()];
            let _ = writeln!(out, "{head}{}{rest}", style.paint(line.style(), verdict));
        } else {
            let _ = writeln!(out, "{:indent$}{row}", "");
        }
    }
    out
}

/// Where and the verdict in a line; identities, changes and values below.
fn narrow(line: &TraceLine, widths: &[usize; 6], width: usize, style: TextStyle) -> String {
    let mut head = String::new();
    for (i, (column, w)) in line.columns().iter().zip(widths).take(5).enumerate() {
        let _ = if i == 0 { write!(head, "{column:>w$}{GAP}") } else { write!(head, "{column:<w$}{GAP}") };
    }
    let mut below = Vec::new();
    let room = width.saturating_sub(head.chars().count());
    let verdict = if line.verdict.chars().count() <= room {
        line.verdict.as_str()
    } else {
        // The reason goes first in the line below.
        below.push(line.verdict.clone());
        line.verdict.split_whitespace().next().filter(|w| w.chars().count() <= room).unwrap_or("")
    };
    if line.identities != "-" {
        below.push(format!("id {}", line.identities));
    }
    below.extend(line.details.iter().cloned());
    let mut out = format!("{head}{}", style.paint(line.style(), verdict)).trim_end().to_owned();
    out.push('\n');
    for row in wrap(&below, line.tail_calls.as_ref(), width - INDENT) {
        let _ = writeln!(out, "{:INDENT$}{row}", "");
    }
    out
}

/// Joins parts with `; ` into as few rows as fit; a part is broken only if it is wider than a row, and then at
/// spaces. `last` is added if it costs no row.
fn wrap(parts: &[String], last: Option<&String>, width: usize) -> Vec<String> {
    let mut rows: Vec<String> = Vec::new();
    let fits = |row: &String, piece: &String| row.chars().count() + 2 + piece.chars().count() <= width;
    for part in parts {
        for (i, piece) in pieces(part, width).into_iter().enumerate() {
            match rows.last_mut().filter(|row| i == 0 && fits(row, &piece)) {
                Some(row) => *row += &format!("; {piece}"),
                None => rows.push(piece),
            }
        }
    }
    if let (Some(row), Some(last)) = (rows.last_mut(), last)
        && fits(row, last)
    {
        *row += &format!("; {last}");
    }
    rows
}

/// A text in pieces of at most `width` characters, broken at spaces; a longer word stays whole.
fn pieces(text: &str, width: usize) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    if text.chars().count() <= width {
        return vec![text.to_owned()];
    }
    for word in text.split(' ') {
        match out.last_mut().filter(|l| l.chars().count() + 1 + word.chars().count() <= width) {
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => out.push(word.to_owned()),
        }
    }
    out
}

/// A flow's entries in conntrack as `cilium-dbg bpf ct list` prints them, with the node in front; in a narrow terminal
/// what an entry counts stands below it.
pub fn conntrack(nodes: &[NodeConntrack], style: TextStyle) -> String {
    let widest = nodes.iter().map(|n| n.node.chars().count()).max().unwrap_or_default();
    let mut out = String::new();
    for (node, entry) in nodes.iter().flat_map(|n| n.entries.iter().map(move |e| (&n.node, e))) {
        let line = format!("ct {node:<widest$} {entry}");
        if line.chars().count() <= style.width.max(NARROWEST) {
            out += &line;
        } else {
            let flags = entry.flags.join(" ");
            let (tuple, expires, packets) = (entry.tuple(), entry.expires_s, entry.packets);
            let _ = write!(
                out,
                "ct {node:<widest$} {tuple}\n{:INDENT$}expires={expires}s packets={packets} ",
                ""
            );
            let _ = write!(out, "SourceSecurityID={}\n{:INDENT$}flags=[ {flags} ]", entry.src_identity, "");
        }
        out.push('\n');
    }
    out
}

/// What `hubble observe --output compact` would print of the flow's end, `TIME [node]: SRC -> DST TYPE VERDICT (...)`.
pub fn flow_line(evidence: &Evidence) -> String {
    let verdict = FlowVerdict::of(evidence);
    let Some((walk, hop)) = deciding_hop(evidence, &verdict) else {
        return format!("{}: {}", evidence.from, verdict.verdict.name());
    };
    let (src, dst) = ends(walk);
    let view = &hop.before;
    let (from, to) = match view.tuple {
        Some(t) => {
            let ports = matches!(t.protocol, 6 | 17);
            (end(src, t.src, t.sport, ports), end(dst, t.dst, t.dport, ports))
        }
        None => (evidence.from.clone(), "?".to_owned()),
    };
    let (kind, word) = match hop.verdict.reason() {
        Some(reason) => (DropReason::from_name(reason).map_or(reason, |r| r.text()), "DROPPED"),
        None if matches!(hop.kind, HopKind::Deliver) => ("to-endpoint", "FORWARDED"),
        None => ("to-stack", "FORWARDED"),
    };
    let mut line = format!(
        "{} [{}]: {from} -> {to} {kind} {word} ({})",
        format_time(hop.time_ns),
        hop.node,
        view.summary()
    );
    if let Some(status) = evidence.outcome.status {
        let _ = write!(line, " HTTP {status}, {} bytes", evidence.outcome.bytes);
    } else if verdict.verdict == ExpectedVerdict::Refused {
        line += " refused";
    } else if evidence.outcome.timed_out {
        line += " given up";
    }
    line
}

/// `default/curl:49152 (ID:256)`, or the address if nobody knows who it is.
fn end(identity: Option<&Identity>, address: std::net::IpAddr, port: u16, ports: bool) -> String {
    // A pod has a slash in its name; labels and reserved names would not tell which one it is.
    let name = identity.map(|i| &i.text).filter(|t| t.contains('/') && !t.contains('='));
    let mut text = name.cloned().unwrap_or_else(|| address.to_string());
    if ports {
        let _ = write!(text, ":{port}");
    }
    if let Some(identity) = identity {
        let _ = write!(text, " (ID:{})", identity.number);
    }
    text
}

/// The hop that a flow's end is told by: the last drop of one that was dropped, else the delivery of the last packet
/// that was shown, data before all else.
fn deciding_hop<'a>(evidence: &'a Evidence, verdict: &FlowVerdict) -> Option<(&'a Walk, &'a Hop)> {
    let hops = || evidence.walks.iter().flat_map(|w| w.hops.iter().map(move |h| (w, h)));
    if verdict.verdict == ExpectedVerdict::Dropped {
        return hops().filter(|(_, h)| h.verdict.reason().is_some()).max_by_key(|(_, h)| h.time_ns);
    }
    let delivered = |(w, h): &(&Walk, &Hop)| matches!(h.verdict, Verdict::Delivered) && w.class != Class::Arp;
    let data = |(w, _): &(&Walk, &Hop)| w.direction == Direction::Reply && w.class == Class::Data;
    hops().filter(delivered).find(data).or_else(|| hops().rfind(delivered)).or_else(|| hops().next_back())
}

#[cfg(test)]
mod tests;
