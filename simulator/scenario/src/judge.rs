//! Compares what a World recorded with what a scenario expects. One judge for all Worlds.
//!
//! Takes evidence and expectations, and nothing else: it does not know which World it judges, and decides nothing
//! about packets itself.

use crate::evidence::{Class, Direction, Drop, Evidence, Identity, PolicyDirection, Verdict};
use crate::matcher::Count;
use crate::schema::{
    AssertStep, ConntrackExpect, CounterDirection, CounterExpect, Expect, ExpectedVerdict, IpcacheExpect,
    MapExpect, PolicyExpect,
};
use crate::snapshot::{ConntrackEntry, IpcacheRow, Metric, PolicyRow};
use serde::Serialize;
use std::collections::BTreeMap;

/// Stands for any number of hooks.
pub const ANY: &str = "...";

/// How a flow ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct FlowVerdict {
    /// In one word.
    pub verdict: ExpectedVerdict,
    /// The reason of the drop that ended it.
    pub reason: Option<String>,
    /// Where.
    pub at: Option<String>,
    /// Which rules or default decided.
    pub rule: Option<String>,
}

impl FlowVerdict {
    /// What became of a flow: completed, else refused, else dropped by the drop that decided, else unanswered. Of one
    /// that is still open: allowed if a connection stands.
    pub fn of(evidence: &Evidence) -> Self {
        let plain = |verdict| Self { verdict, reason: None, at: None, rule: None };
        let outcome = &evidence.outcome;
        if outcome.completed || (!outcome.ended && outcome.established) {
            return plain(ExpectedVerdict::Allowed);
        }
        if outcome.refused {
            return plain(ExpectedVerdict::Refused);
        }
        match decisive(evidence) {
            Some(drop) => Self {
                verdict: ExpectedVerdict::Dropped,
                at: Some(drop.place.to_string()),
                reason: Some(drop.reason),
                rule: drop.rule,
            },
            None => plain(ExpectedVerdict::Unanswered),
        }
    }
}

/// The drop that answers for a flow: the last by a program or by the network, else the last by a stack. A stack also
/// drops what comes late, after the flow was given up for another drop.
fn decisive(evidence: &Evidence) -> Option<Drop> {
    let mut drops = evidence.drops();
    let outside = drops.iter().rposition(|d| !d.reason.starts_with("SKB_DROP_REASON_"));
    match outside {
        Some(i) => Some(drops.swap_remove(i)),
        None => drops.pop(),
    }
}

impl ExpectedVerdict {
    /// The word, as scenarios write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Dropped => "dropped",
            Self::Refused => "refused",
            Self::Unanswered => "unanswered",
        }
    }
}

/// Everything that a flow's expectations are compared with.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// What the World recorded about the flow.
    pub evidence: &'a Evidence,
    /// By how much each node's counters grew.
    pub counters: &'a BTreeMap<String, Vec<Metric>>,
    /// Each node's conntrack after the step; only of nodes that are asked for.
    pub conntrack: &'a BTreeMap<String, Vec<ConntrackEntry>>,
}

/// An expectation that does not hold.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Mismatch {
    /// The field below `expect` or `assert`, such as `hooks` or `counters[0]`.
    pub field: String,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub got: String,
}

fn mismatch(field: impl Into<String>, expected: impl ToString, got: impl ToString) -> Mismatch {
    Mismatch { field: field.into(), expected: expected.to_string(), got: got.to_string() }
}

/// What of a flow's expectations does not hold, in the order of the schema.
pub fn judge(expect: &Expect, observed: Observed<'_>) -> Vec<Mismatch> {
    let mut failed = Vec::new();
    let (evidence, outcome) = (observed.evidence, &observed.evidence.outcome);
    let got = FlowVerdict::of(evidence);
    if let Some(want) = expect.verdict
        && want != got.verdict
    {
        failed.push(mismatch("verdict", want.name(), describe(&got, evidence)));
    }
    if let Some(want) = expect.status
        && outcome.status != Some(want)
    {
        failed.push(mismatch("status", want, outcome.status.map_or("no response".into(), |s| s.to_string())));
    }
    // A flow that came through all the same may have lost packets: then the last loss answers.
    let last = decisive(evidence);
    let reason = last.as_ref().map(|d| d.reason.clone());
    let at = last.as_ref().map(|d| d.place.to_string());
    for (field, want, got) in [("reason", &expect.reason, reason), ("at", &expect.at, at)] {
        if let Some(want) = want
            && got.as_ref() != Some(want)
        {
            failed.push(mismatch(field, want, got.unwrap_or_else(|| "nothing was dropped".into())));
        }
    }
    failed.extend(rule(expect, evidence));
    for (field, want, direction) in
        [("hooks", &expect.hooks, Direction::Forward), ("reply_hooks", &expect.reply_hooks, Direction::Reply)]
    {
        if let Some(want) = want {
            failed.extend(hooks(field, want, &hooks_of(evidence, direction)));
        }
    }
    failed.extend(arp(expect, evidence));
    failed.extend(identities(expect, evidence));
    failed.extend(counters("counters", &expect.counters, observed.counters));
    failed.extend(conntrack("conntrack", &expect.conntrack, observed.conntrack));
    failed.extend(packets(expect, evidence));
    if let Some(want) = expect.bytes
        && !want.holds(outcome.bytes)
    {
        failed.push(mismatch("bytes", want, outcome.bytes));
    }
    failed
}

/// The programs that the first packet of a direction met, as `PROGRAM@NODE`.
pub fn hooks_of(evidence: &Evidence, direction: Direction) -> Vec<String> {
    let Some(walk) = evidence.first(direction) else { return Vec::new() };
    walk.hops.iter().filter(|h| h.kind.program().is_some()).map(|h| h.place().to_string()).collect()
}

fn arp(expect: &Expect, evidence: &Evidence) -> Option<Mismatch> {
    let want = expect.arp.as_ref()?;
    let first = evidence.walks.iter().find(|w| w.class == Class::Arp && w.direction == Direction::Forward);
    let answered = first.and_then(|w| w.hops.iter().find(|h| h.verdict == Verdict::Answered));
    let got = answered.map(|h| h.place().to_string());
    (got.as_ref() != Some(want))
        .then(|| mismatch("arp", want, got.unwrap_or_else(|| "no program answered".into())))
}

fn identities(expect: &Expect, evidence: &Evidence) -> Vec<Mismatch> {
    let hops = evidence.first(Direction::Forward).map(|w| w.hops.as_slice()).unwrap_or_default();
    let mut failed = Vec::new();
    for (i, want) in expect.identities.iter().enumerate() {
        let hop = hops.iter().find(|h| h.kind.program().is_some() && h.place().to_string() == want.at);
        let number = |identity: Option<&Identity>| identity.map(|i| i.number);
        let source = hop.and_then(|h| number(h.src_identity.as_ref()));
        let destination = hop.and_then(|h| number(h.dst_identity.as_ref()));
        let holds = |want: Option<u32>, got: Option<u32>| want.is_none() || want == got;
        if hop.is_some() && holds(want.source, source) && holds(want.destination, destination) {
            continue;
        }
        let text = |n: Option<u32>, none: &str| n.map_or(none.to_owned(), |n| n.to_string());
        let expected =
            format!("{}: {} -> {}", want.at, text(want.source, "any"), text(want.destination, "any"));
        let got = match hop {
            Some(_) => format!("{} -> {}", text(source, "unknown"), text(destination, "unknown")),
            None => "the packet was not there".to_owned(),
        };
        failed.push(mismatch(format!("identities[{i}]"), expected, got));
    }
    failed
}

fn describe(verdict: &FlowVerdict, evidence: &Evidence) -> String {
    let mut text = verdict.verdict.name().to_owned();
    if let (Some(reason), Some(at)) = (&verdict.reason, &verdict.at) {
        text += &format!(" ({reason} at {at})");
    }
    if evidence.outcome.timed_out {
        text += ", given up";
    }
    text
}

/// The rule is that of the drop; of what was not dropped, any that was asked on the forward way.
fn rule(expect: &Expect, evidence: &Evidence) -> Option<Mismatch> {
    let want = expect.rule.as_ref()?;
    let got: Vec<String> = match FlowVerdict::of(evidence).rule {
        Some(rule) => vec![rule],
        None => {
            let hops = evidence.first(Direction::Forward).map(|w| w.hops.as_slice()).unwrap_or_default();
            hops.iter().filter_map(|h| h.rule()).map(str::to_owned).collect()
        }
    };
    let found = got.iter().any(|rule| rule.contains(want.as_str()));
    (!found).then(|| {
        let got = if got.is_empty() { "no policy was asked".to_owned() } else { got.join("; ") };
        mismatch("rule", want, got)
    })
}

fn hooks(field: &str, want: &[String], got: &[String]) -> Option<Mismatch> {
    (!sequence(want, got)).then(|| mismatch(field, list(want), list(got)))
}

fn list(hooks: &[String]) -> String {
    format!("[{}]", hooks.join(", "))
}

/// Whether a list of hooks fits a pattern in which [`ANY`] stands for any number of them.
fn sequence(pattern: &[String], hooks: &[String]) -> bool {
    match pattern.split_first() {
        None => hooks.is_empty(),
        Some((first, rest)) if first == ANY => {
            (0..=hooks.len()).any(|skipped| sequence(rest, &hooks[skipped..]))
        }
        Some((first, rest)) => hooks.first() == Some(first) && sequence(rest, &hooks[1..]),
    }
}

fn direction(d: CounterDirection) -> PolicyDirection {
    match d {
        CounterDirection::Ingress => PolicyDirection::Ingress,
        CounterDirection::Egress => PolicyDirection::Egress,
    }
}

fn counters(field: &str, want: &[CounterExpect], got: &BTreeMap<String, Vec<Metric>>) -> Vec<Mismatch> {
    let mut failed = Vec::new();
    for (i, counter) in want.iter().enumerate() {
        let way = direction(counter.direction);
        let name = format!("{} {} at {}", counter.reason, way.name(), counter.node);
        let all = got.get(&counter.node).map(Vec::as_slice).unwrap_or_default();
        let packets =
            all.iter().find(|m| m.reason == counter.reason && m.direction == way).map_or(0, |m| m.packets);
        if !counter.packets.holds(packets) {
            failed.push(mismatch(format!("{field}[{i}]"), format!("{name}: {}", counter.packets), packets));
        }
    }
    failed
}

fn conntrack(
    field: &str,
    want: &[ConntrackExpect],
    got: &BTreeMap<String, Vec<ConntrackEntry>>,
) -> Vec<Mismatch> {
    let mut failed = Vec::new();
    for (i, expect) in want.iter().enumerate() {
        let all = got.get(&expect.node).map(Vec::as_slice).unwrap_or_default();
        let matching: Vec<&ConntrackEntry> = all.iter().filter(|e| expect.entry.matches(e)).collect();
        let field = format!("{field}[{i}]");
        if !expect.count.holds(matching.len() as u64) {
            let expected = format!("{} of {} at {}", expect.count, expect.entry, expect.node);
            let found = match all {
                [] => "conntrack is empty".to_owned(),
                all => {
                    let entries = all.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                    format!("{} among {entries}", matching.len())
                }
            };
            failed.push(mismatch(&field, expected, found));
        }
        for entry in matching {
            failed.extend(conntrack_entry(&field, expect, entry));
        }
    }
    failed
}

fn conntrack_entry(field: &str, expect: &ConntrackExpect, entry: &ConntrackEntry) -> Vec<Mismatch> {
    let mut failed = Vec::new();
    for (name, flags, set) in [("flags", &expect.flags, true), ("without", &expect.without, false)] {
        if flags.iter().any(|f| entry.flags.contains(f) != set) {
            let sign = if set { "" } else { "without " };
            failed.push(mismatch(format!("{field}.{name}"), format!("{sign}{}", list(flags)), entry));
        }
    }
    if let Some(expires) = &expect.expires
        && !expires.holds(entry.expires_s)
    {
        failed.push(mismatch(format!("{field}.expires"), expires, entry));
    }
    if let Some(packets) = expect.packets
        && !packets.holds(entry.packets)
    {
        failed.push(mismatch(format!("{field}.packets"), packets, entry));
    }
    if let Some(identity) = expect.identity
        && identity != entry.src_identity
    {
        failed.push(mismatch(format!("{field}.identity"), identity, entry));
    }
    failed
}

fn packets(expect: &Expect, evidence: &Evidence) -> Vec<Mismatch> {
    let Some(want) = &expect.packets else { return Vec::new() };
    let got = evidence.packets;
    let row = |name: &str, want: Option<Count>, got: u64| {
        let want = want.filter(|w| !w.holds(got))?;
        Some(mismatch(format!("packets.{name}"), want, got))
    };
    [
        row("sent", want.sent, got.sent),
        row("delivered", want.delivered, got.delivered),
        row("replied", want.replied, got.replied),
        row("received", want.received, got.received),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The cluster's state, as far as an `assert` asks for it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct State {
    /// Counters by node.
    pub metrics: BTreeMap<String, Vec<Metric>>,
    /// Conntrack by node.
    pub conntrack: BTreeMap<String, Vec<ConntrackEntry>>,
    /// The ipcache by node.
    pub ipcache: BTreeMap<String, Vec<IpcacheRow>>,
    /// Policy maps by pod.
    pub policy: BTreeMap<String, Vec<PolicyRow>>,
    /// How many entries a map has, by node and name.
    pub maps: BTreeMap<(String, String), u64>,
}

/// What of an assertion does not hold.
pub fn judge_state(expect: &AssertStep, state: &State) -> Vec<Mismatch> {
    let mut failed = counters("metrics", &expect.metrics, &state.metrics);
    failed.extend(conntrack("conntrack", &expect.conntrack, &state.conntrack));
    for (i, row) in expect.ipcache.iter().enumerate() {
        failed.extend(ipcache(&format!("ipcache[{i}]"), row, state));
    }
    for (i, row) in expect.policy.iter().enumerate() {
        failed.extend(policy(&format!("policy[{i}]"), row, state));
    }
    for (i, row) in expect.maps.iter().enumerate() {
        failed.extend(map(&format!("maps[{i}]"), row, state));
    }
    failed
}

fn ipcache(field: &str, want: &IpcacheExpect, state: &State) -> Option<Mismatch> {
    let cidr = if want.cidr.contains('/') { want.cidr.clone() } else { format!("{}/32", want.cidr) };
    let rows = state.ipcache.get(&want.node).map(Vec::as_slice).unwrap_or_default();
    let mut expected = format!("{cidr} at {}", want.node);
    let Some(row) = rows.iter().find(|r| r.cidr == cidr) else {
        return Some(mismatch(field, expected, "no such entry"));
    };
    let tunnel = row.tunnel_endpoint.map_or("0.0.0.0".to_owned(), |t| t.to_string());
    let mut holds = true;
    if let Some(identity) = want.identity {
        expected += &format!(" identity {identity}");
        holds &= identity == row.identity.number;
    }
    if let Some(endpoint) = want.tunnel_endpoint {
        expected += &format!(" tunnel endpoint {endpoint}");
        holds &= endpoint.to_string() == tunnel;
    }
    (!holds).then(|| {
        mismatch(field, expected, format!("identity {} tunnel endpoint {tunnel}", row.identity.number))
    })
}

fn policy(field: &str, want: &PolicyExpect, state: &State) -> Option<Mismatch> {
    let way = direction(want.direction);
    let matching = state.policy.get(&want.pod).map(Vec::as_slice).unwrap_or_default().iter().filter(|r| {
        r.direction == way
            && want.identity.is_none_or(|i| i == r.identity.number)
            && want.protocol.is_none_or(|p| p == r.protocol)
            && want.port.is_none_or(|p| p == r.port)
            && want.deny.is_none_or(|d| d == r.deny)
    });
    let n = matching.count() as u64;
    (!want.count.holds(n)).then(|| {
        let any = |v: Option<String>| v.unwrap_or_else(|| "any".into());
        let expected = format!(
            "{} {} entries of {}: identity {}, protocol {}, port {}, deny {}",
            want.count,
            way.name(),
            want.pod,
            any(want.identity.map(|v| v.to_string())),
            any(want.protocol.map(|v| v.to_string())),
            any(want.port.map(|v| v.to_string())),
            any(want.deny.map(|v| v.to_string())),
        );
        mismatch(field, expected, n)
    })
}

fn map(field: &str, want: &MapExpect, state: &State) -> Option<Mismatch> {
    let n = state.maps.get(&(want.node.clone(), want.name.clone())).copied().unwrap_or(0);
    (!want.entries.holds(n))
        .then(|| mismatch(field, format!("{} entries in {} at {}", want.entries, want.name, want.node), n))
}

#[cfg(test)]
mod tests;
